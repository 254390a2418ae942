package verify

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/stamp"
)

const (
	// slack is how far two clocks of the union may be apart, as nodes take it.
	slack = 5 * time.Minute
	// prompt is how soon after a seal a time-stamp shows that the seal is about
	// as old as it says; after a longer while it shows what it shows.
	prompt = time.Hour
)

// stamp holds a record's time-stamp against the record and the authority of
// another state, or one whose root is given, and gives the time by which the
// record was there. m is the record's message, nil where there is none. Nothing
// that a record is opened with says whose log it is from: only its receipt, if
// that was verified, or the checkpoint that was stamped with it.
func (v *Verifier) stamp(box *container, r *evidence.Record, m *message, opening []byte, received bool) (at time.Time, detail string, err error) {
	p, err := stamp.ReadRecord(r.Proof, v.token)
	if err != nil {
		return at, "", err
	}
	if err := p.Verify(r.Hash); err != nil {
		return at, "", err
	}
	t := p.Token
	names := r.StampNames()
	files := map[string][]byte{names.Token: t.Raw, names.Leaf: opening}
	by := "the time-stamp authority of " + string(r.Stamp.Authority)
	var e *edition
	if m != nil {
		e = m.edition
	}
	switch {
	case r.Stamp.Authority == r.State:
		return at, "", errors.New("the authority is the log's own state's: a party's word about itself")
	case r.Stamp.Authority != "":
		if e, err = v.edition(box, r.Stamp.Directory, r.Stamp.Authority); err != nil {
			return at, "", err
		}
		c, err := e.stamper(r, t)
		if err != nil {
			return at, "", err
		}
		if t.At.After(e.expires) || t.At.After(e.partExpires) {
			return at, "", away("stamped at %s, when that directory had expired", t.At.Format(time.RFC3339))
		}
		files[names.Authority] = c.authorityPEM
	case len(v.roots) == 0:
		return at, "", away("the authority is none that the directory names: its root certificate has to be given")
	default:
		c, err := t.Chain(v.roots...)
		if err != nil {
			return at, "", away("by the root certificates that were given: %v", err)
		}
		by = fmt.Sprintf("%.200q, an authority outside of the union", c.Subject)
	}
	for name, want := range files {
		if b, err := box.Read(name, evidence.MaxFile); err != nil || !bytes.Equal(b, want) {
			return at, "", errors.Join(fmt.Errorf("%s is another than what was stamped", name), err)
		}
	}
	if e == nil {
		e = &edition{} // no directory says whose log it is
	}
	if err := e.checkpoint(box, r, t); err != nil && !(received && errors.Is(err, errAway)) {
		return at, "", err
	}
	if m != nil && r.Stamp.Authority != "" && r.Stamp.Authority == m.sealer.State {
		return at, "", away("the authority is of %s, which sealed the message: a party's word about its own seal", r.Stamp.Authority)
	}
	at = t.At.Add(t.Accuracy)
	return at, fmt.Sprintf("%s by %s, give or take %v", t.At.Format(time.RFC3339), by, t.Accuracy), nil
}

// token reads a token; the same one once.
func (v *Verifier) token(raw []byte) (*stamp.Token, error) {
	return v.tokens.of(sha256.Sum256(raw), func(t *stamp.Token) int { return 8 * len(t.Raw) }, func() (*stamp.Token, error) { return stamp.ParseToken(raw) })
}

// stamper finds the authority's certificate in its state's part, and holds the
// token against it; the same one once.
func (e *edition) stamper(r *evidence.Record, t *stamp.Token) (*certificate, error) {
	return e.stampers.of(sha256.Sum256(t.Raw), (*certificate).bytes, func() (*certificate, error) { return e.stamped(r, t) })
}

func (e *edition) stamped(r *evidence.Record, t *stamp.Token) (*certificate, error) {
	p, err := e.part(r.Stamp.Authority)
	if err != nil {
		return nil, err
	}
	for _, s := range p.Stamps {
		x, err := readCertificate(s.Certificate)
		if err != nil || !t.Names(x) {
			continue
		}
		c := &certificate{cert: x}
		if err := e.issued(r.Stamp.Authority, &p, c); err != nil {
			return nil, err
		}
		if err := t.Verify(x); err != nil {
			return nil, err
		}
		return c, c.at(t.At)
	}
	return nil, fmt.Errorf("the directory of that day names no time-stamp authority of %s that made it", r.Stamp.Authority)
}

// checkpoint holds the checkpoint that was stamped with the record against
// what was stamped, and its cosignatures' times against the time-stamp's.
func (e *edition) checkpoint(box *container, r *evidence.Record, t *stamp.Token) error {
	names := r.StampNames()
	root, err := box.Read(names.Root, evidence.MaxFile)
	if err != nil {
		return err
	}
	note, err := box.Read(names.Checkpoint, merkle.MaxNote)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(note)
	if sha256.Sum256(root) != t.Imprint || len(root) != 2*sha256.Size || !bytes.Equal(root[:sha256.Size], sum[:]) && !bytes.Equal(root[sha256.Size:], sum[:]) {
		return errors.New("the checkpoint is not the one that was stamped")
	}
	trust := e.logs[string(r.State)]
	if trust.Log == (merkle.Key{}) {
		return away("the directory in the container names no log of %.2s", r.State)
	}
	s, err := e.head(string(r.State), note, trust)
	if errors.Is(err, merkle.ErrUnsigned) {
		// Keys change: that of the log may be younger than this directory.
		return away("the checkpoint is not signed by the log of %.2s that the directory names", r.State)
	}
	if err != nil {
		return err
	}
	if s.Size < r.Stamp.End {
		return fmt.Errorf("the checkpoint is of %d entries", s.Size)
	}
	for _, w := range s.Cosignatures {
		if w.At.After(t.At.Add(t.Accuracy + slack)) {
			return fmt.Errorf("stamped at %s, and cosigned by %s at %s", t.At.Format(time.RFC3339), w.Key.Name(), w.At.Format(time.RFC3339))
		}
	}
	return nil
}

// ages holds each seal's time against the earliest time-stamp of a record of
// its message.
func ages(out *Report, messages [2]*message, there [2]time.Time) {
	en, ar := "the seals are as old as they say", "الأختام بالقِدم الذي تذكره"
	detail := ""
	for part, m := range messages {
		if m == nil || m.seal == nil {
			continue
		}
		what, at := [...]string{"request", "answer"}[part], there[part]
		switch {
		case at.IsZero():
			out.add(en, ar, false, "", away("the container holds no time-stamp of others for the %s: its time is its maker's word", what))
			return
		case m.at.After(at.Add(slack)):
			out.add(en, ar, false, "", fmt.Errorf("the %s says that it was sealed at %s, and was there by %s", what, m.at.Format(time.RFC3339), at.Format(time.RFC3339)))
			return
		case at.Sub(m.at) > prompt:
			out.add(en, ar, false, "", away("the %s says that it was sealed at %s, and was there by %s: of the time between there is its maker's word alone", what, m.at.Format(time.RFC3339), at.Format(time.RFC3339)))
			return
		}
		detail += fmt.Sprintf("%s: sealed %s, there by %s; ", what, m.at.Format(time.RFC3339), at.Format(time.RFC3339))
	}
	if detail == "" {
		out.add(en, ar, false, "", away("there is no message"))
		return
	}
	out.add(en, ar, false, detail[:len(detail)-2], nil)
}

// stampFiles are the files of the records' time-stamps.
func stampFiles(in *evidence.Contents, box *container) (names []string) {
	for i := range in.Records {
		r := &in.Records[i]
		if r.Stamp == nil {
			continue
		}
		n := r.StampNames()
		names = append(names, n.Proof)
		for _, name := range []string{n.Token, n.Root, n.Checkpoint, n.Authority, n.Leaf} {
			if _, err := box.Size(name); !errors.Is(err, fs.ErrNotExist) {
				names = append(names, name)
			}
		}
	}
	return names
}
