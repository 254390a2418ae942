package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
)

const (
	// slack is how far two clocks of the union may be apart, as nodes take it.
	slack = 5 * time.Minute
	// prompt is how soon after a seal a time-stamp shows that the seal is about
	// as old as it says; after a longer while it shows what it shows.
	prompt = time.Hour
)

// agedError says what a time-stamp no longer proves at the time of judgement.
type agedError struct{ en, ar, detail string }

func (e *agedError) Error() string        { return e.detail }
func (e *agedError) Is(target error) bool { return target == errAway }

// stamp holds a record's time-stamps against the record and the authorities of
// other states, or ones whose root is given, and gives the time by which the
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
	if len(p) != 1+len(r.Stamp.Renewals) {
		return at, "", fmt.Errorf("%d time-stamps, and the authorities of %d are named", len(p), 1+len(r.Stamp.Renewals))
	}
	names := r.StampNames()
	if b, err := box.Read(names.Token, evidence.MaxFile); err != nil || !bytes.Equal(b, p[0].Token.Raw) {
		return at, "", errors.Join(fmt.Errorf("%s and the evidence record %s hold two time-stamps: one of them was changed", names.Token, names.Proof), err)
	}
	if b, err := box.Read(names.Leaf, evidence.MaxFile); err != nil || !bytes.Equal(b, opening) {
		return at, "", errors.Join(fmt.Errorf("%s is another than what was stamped", names.Leaf), err)
	}
	first, err := v.stamper(box, r, r.Stamp.Judge, p[0].Token, names.Authority)
	if err != nil {
		return at, "", err
	}
	var e *edition
	switch {
	case first.edition != nil:
		e = first.edition
	case m != nil && m.edition != nil:
		e = m.edition
	default:
		e = &edition{} // no directory says whose log it is
	}
	if err := e.checkpoint(box, r, &names, p[0].Token); err != nil && !(received && errors.Is(err, errAway)) {
		return at, "", err
	}
	if m != nil && r.Stamp.Authority != "" && r.Stamp.Authority == m.sealer.State {
		return at, "", away("the authority is of %s, which sealed the message: a party's word about its own seal", r.Stamp.Authority)
	}
	by := []stamper{first}
	for i, j := range r.Stamp.Renewals {
		s, err := v.stamper(box, r, j, p[i+1].Token, names.Renewer(i+1))
		if err == nil && m != nil && j.Authority != "" && j.Authority == m.sealer.State {
			err = away("by the state that sealed the message")
		}
		if err != nil && !errors.Is(err, errAway) {
			return at, "", fmt.Errorf("renewal %d: %w", i+1, err)
		}
		if err != nil {
			s = stamper{} // as if it were not there; a later one may stand for it
		}
		by = append(by, s)
	}
	return v.lasts(p, by)
}

// lasts finds the first of a record's time-stamps that proves its time at the
// time of judgement: each holds until its authority's certificate has ended,
// and for ever what it proves that is stamped by one that holds before that.
func (v *Verifier) lasts(p stamp.Record, by []stamper) (at time.Time, detail string, err error) {
	until, holds, last := v.now, -1, -1
	for i := len(p) - 1; i >= 0; i-- {
		if by[i].cert == nil || until.After(by[i].cert.NotAfter) {
			continue
		}
		if last < 0 {
			last = i
		}
		until, holds = p[i].Token.At, i
	}
	if holds >= 0 {
		t := p[holds].Token
		at = t.At.Add(t.Accuracy)
		detail = fmt.Sprintf("%s by %s, give or take %v", t.At.Format(time.RFC3339), by[holds].name, t.Accuracy)
		if last > holds {
			detail += fmt.Sprintf("; last renewed at %s by %s", p[last].Token.At.Format(time.RFC3339), by[last].name)
		}
	}
	end := by[0].cert.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case holds == 0:
		return at, detail, nil
	case holds < 0:
		return at, "", &agedError{
			"the certificate of the authority that stamped it has ended, and nobody had renewed the time-stamp by then: by when the record was there is no longer proven",
			"انتهت شهادة السلطة التي وثّقت وقته ولم يُجدَّد الطابع الزمني قبل انتهائها، فلم يعد وقت وجود القيد مثبتاً",
			fmt.Sprintf("stamped at %s by %s, whose certificate ended at %s; judged as at %s", p[0].Token.At.Format(time.RFC3339), by[0].name, end, v.now.UTC().Format(time.RFC3339)),
		}
	}
	return at, "", &agedError{
		"its time-stamp was renewed too late, when its authority's certificate had ended: the record is proven to have been there by the time of a renewal alone",
		"جُدّد طابعه الزمني بعد فوات الأوان، حين كانت شهادة سلطته قد انتهت، فلا يثبت إلا أن القيد كان موجوداً عند تجديد لاحق",
		fmt.Sprintf("the certificate ended at %s; renewed %s", end, detail),
	}
}

// stamper is who made a time-stamp, as far as that is known.
type stamper struct {
	edition *edition // of the directory that names it; nil: of none
	cert    *x509.Certificate
	name    string
}

// stamper finds who made a time-stamp and holds it against him; the file named
// is the same authority's.
func (v *Verifier) stamper(box *container, r *evidence.Record, j evidence.Judge, t *stamp.Token, file string) (s stamper, err error) {
	switch {
	case j.Authority == r.State:
		return s, errors.New("the authority is the log's own state's: a party's word about itself")
	case j.Authority != "":
		e, err := v.edition(box, j.Directory, j.Authority)
		if err != nil {
			return s, err
		}
		c, err := e.stamper(j.Authority, t)
		if err != nil {
			return s, err
		}
		if t.At.After(e.expires) || t.At.After(e.partExpires) {
			return s, away("stamped at %s, when that directory had expired", t.At.Format(time.RFC3339))
		}
		if b, err := box.Read(file, evidence.MaxFile); err != nil || !bytes.Equal(b, c.authorityPEM) {
			return s, errors.Join(fmt.Errorf("%s is another than the directory's", file), err)
		}
		return stamper{e, c.cert, "the time-stamp authority of " + string(j.Authority)}, nil
	case len(v.roots) == 0:
		return s, away("the authority is none that the directory names: its root certificate has to be given")
	}
	c, err := t.Chain(v.roots...)
	if err != nil {
		return s, away("by the root certificates that were given: %v", err)
	}
	return stamper{nil, c, fmt.Sprintf("%.200q, an authority outside of the union", c.Subject)}, nil
}

// token reads a token; the same one once.
func (v *Verifier) token(raw []byte) (*stamp.Token, error) {
	return v.tokens.of(sha256.Sum256(raw), func(t *stamp.Token) int { return 8 * len(t.Raw) }, func() (*stamp.Token, error) { return stamp.ParseToken(raw) })
}

// stamper finds the authority's certificate in its state's part, and holds the
// token against it; the same one once.
func (e *edition) stamper(state union.State, t *stamp.Token) (*certificate, error) {
	return e.stampers.of(t.Digest(), (*certificate).bytes, func() (*certificate, error) { return e.stamped(state, t) })
}

func (e *edition) stamped(state union.State, t *stamp.Token) (*certificate, error) {
	p, err := e.part(state)
	if err != nil {
		return nil, err
	}
	for _, s := range p.Stamps {
		x, err := readCertificate(s.Certificate)
		if err != nil || !t.Names(x) {
			continue
		}
		c := &certificate{cert: x}
		if err := e.issued(state, &p, c); err != nil {
			return nil, err
		}
		if err := t.Verify(x); err != nil {
			return nil, err
		}
		return c, c.at(t.At)
	}
	return nil, fmt.Errorf("the directory of that day names no time-stamp authority of %s that made it", state)
}

// checkpoint holds the checkpoint that was stamped with the record against
// what was stamped, and its cosignatures' times against the time-stamp's.
func (e *edition) checkpoint(box *container, r *evidence.Record, names *evidence.StampNames, t *stamp.Token) error {
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
// its message, and says which messages have time-stamps, none of which shows it.
func ages(out *Report, messages [2]*message, there [2]time.Time, stamped [2]bool) {
	en, ar := "the seals are as old as they say", "الأختام بالقِدم الذي تذكره"
	detail := ""
	for part, m := range messages {
		if m == nil || m.seal == nil {
			continue
		}
		what, at := [...]string{"request", "answer"}[part], there[part]
		switch {
		case at.IsZero() && stamped[part]:
			out.add(en, ar, false, "", away("no time-stamp of the %s that is in the container proves it, as said above: its time is its maker's word", what))
			return
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
		beside := []string{n.Token, n.Root, n.Checkpoint, n.Authority, n.Leaf}
		for i := range r.Stamp.Renewals {
			beside = append(beside, n.Renewer(i+1))
		}
		for _, name := range beside {
			if _, err := box.Size(name); !errors.Is(err, fs.ErrNotExist) {
				names = append(names, name)
			}
		}
	}
	return names
}
