package exchange

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// Which names one call of those that have an id.
type Which struct {
	ID      string
	Client  union.SubsystemID // zero: whoever's it is, if it is one client's alone
	Request string            // its X-Road-Request-Id; "": the last try
}

// maxPages bounds what is held in memory of an id's records, to find one call
// among them: pages as evidence is read, of maxEvidence bytes each.
const maxPages = 4

// ParseWhich reads which call is meant from a query: client=…&request=….
func ParseWhich(id string, q url.Values) (w Which, err error) {
	w = Which{ID: id, Request: q.Get("request")}
	if c := q.Get("client"); c != "" {
		if w.Client, err = union.ParseClient(c); err != nil {
			return w, fault.Wrap(fault.BadIdentifier, err, "client: %v", err)
		}
	}
	return w, nil
}

// Container packs what proves a call: its sealed messages with their bodies,
// the certificates and the directory of the day, and both sides' records of
// them. Who may see the call's evidence may have it, and as there the reading
// is a record of its own. What a node alone knows is not in it.
func (x *Exchange) Container(ctx context.Context, which Which, by Reader) (*evidence.Pack, error) {
	p, err := x.container(ctx, which, by)
	if err := x.recordReading(ctx, reading{Action: "evidence.export", By: by.Name, Door: by.Door, ID: which.ID, shows: by.May}, err); err != nil {
		return nil, err
	}
	return p, nil
}

func (x *Exchange) container(ctx context.Context, which Which, by Reader) (*evidence.Pack, error) {
	if x.deps.Archive == nil || x.deps.Chain == nil {
		return nil, fault.New(fault.NotFound, "this node keeps no earlier directories")
	}
	if may := by.May; !which.Client.IsZero() {
		by.May = func(c, s union.SubsystemID) bool { return c == which.Client && may(c, s) }
	}
	e, err := x.evidence(ctx, which.ID, by, Page{})
	if err != nil {
		return nil, err
	}
	for own, pages := &e.Halves[0], 1; own.More != 0; pages++ {
		if pages == maxPages {
			return nil, fault.New(fault.TooLarge, "too many calls have this id, or too large ones: their records are more than %d pages of evidence", maxPages)
		}
		rest, err := x.evidence(ctx, which.ID, by, Page{State: own.State, From: own.More})
		if err != nil {
			return nil, err
		}
		own.Records, own.More = append(own.Records, rest.Halves[0].Records...), rest.Halves[0].More
	}
	if v, err := x.deps.Directory(); err == nil { // without it no other side was asked
		judge := books{now: v, at: x.deps.Archive, old: map[int64]*directory.View{}}
		for i := range e.Halves[1:] {
			h := &e.Halves[1+i]
			h.Records = slices.DeleteFunc(h.Records, func(r Record) bool {
				// The other side's word is not ours to hand on where it is not true.
				s, err := judge.read(ctx, r)
				return err != nil || r.Leaf < 0 || opens(r) != nil || shown(e.ID, h.State, s, r) != nil
			})
			if !message.ValidID(h.Node) {
				h.Node = ""
			}
		}
	}
	c, err := e.choose(which)
	if err != nil {
		return nil, err
	}
	out := evidence.Call{ID: which.ID, Union: c.union, Records: e.openings(c), Directory: map[string][]byte{}}
	for i := range out.Records {
		// The other side gives out its own; one that is not there yet comes with a
		// later export.
		if r := &out.Records[i]; r.State == x.cfg.State && x.deps.Receipts != nil {
			if p, err := x.deps.Receipts.Receipt(ctx, r.Leaf); err == nil {
				r.Receipt = p.Bytes()
			}
		}
	}
	for part, s := range c.messages {
		if s == nil {
			continue
		}
		m, chain, err := x.judged(ctx, s)
		if err != nil {
			return nil, err
		}
		maps.Copy(out.Directory, chain)
		if seal.Part(part) == seal.Request {
			out.Request = m
		} else {
			out.Answer = m
		}
	}
	if err := x.stamped(ctx, &out); err != nil {
		return nil, err
	}
	return evidence.New(ctx, out)
}

// recorded is a call as the records tell of it.
type recorded struct {
	union    string
	client   union.SubsystemID
	try      string           // X-Road-Request-Id
	last     int64            // this node's last leaf of it
	messages [2]*recordedHead // by seal.Part
}

// recordedHead is a sealed message of a call.
type recordedHead struct {
	kind      journal.Kind
	envelope  []byte
	head, raw []byte
	directory int64
	body      *message.Body
	leaves    []int64 // this node's records of it
}

// choose finds the call that is meant: of several tries the last.
func (e *Evidence) choose(which Which) (*recorded, error) {
	type key struct {
		client union.SubsystemID
		asked  [32]byte
	}
	calls := map[key]*recorded{}
	for i, half := range e.Halves {
		for _, r := range half.Records {
			s := &recordedHead{kind: r.Parts.Kind, envelope: r.Envelope}
			var err error
			if s.head, s.raw, err = message.Open(r.Envelope); err != nil {
				continue
			}
			c, k, part := recorded{last: r.Leaf}, key{}, seal.Answer
			if q, err := message.ParseRequest(s.head); err == nil {
				part, s.directory, s.body = seal.Request, q.Directory, q.Body
				c.union, c.client, c.try, k.asked = q.Union, q.Client, q.RequestID, sha256.Sum256(manifest(part, s.head, q.Body))
			} else if a, err := message.ParseAnswer(s.head); err == nil {
				s.directory, s.body = a.Directory, a.Body
				c.union, c.client, c.try, k.asked = a.Union, a.Client, a.RequestID, a.Request
				if a.Request == (message.Digest{}) { // refused before there was a request
					k.asked = sha256.Sum256(manifest(part, s.head, a.Body))
				}
			} else {
				continue
			}
			k.client = c.client
			was := calls[k]
			switch {
			case was == nil && i > 0: // of what this node holds nothing of it says nothing
				continue
			case was == nil:
				was = &c
				calls[k] = was
			case i == 0:
				was.last = r.Leaf
			}
			if old := was.messages[part]; old != nil && bytes.Equal(old.envelope, s.envelope) {
				if i == 0 {
					old.leaves = append(old.leaves, r.Leaf)
				}
				continue
			}
			if i == 0 {
				s.leaves = []int64{r.Leaf}
			}
			// Of several answers this node's last one counts, and a real one before
			// a word that there was none.
			if old := was.messages[part]; old == nil || weight(s.kind) > weight(old.kind) || i == 0 && weight(s.kind) == weight(old.kind) {
				was.messages[part] = s
			}
		}
	}
	var found *recorded
	var clients []string
	for _, c := range calls {
		if !which.Client.IsZero() && c.client != which.Client || which.Request != "" && c.try != which.Request {
			continue
		}
		if name := c.client.String(); !slices.Contains(clients, name) {
			clients = append(clients, name)
		}
		if found == nil || c.last > found.last {
			found = c
		}
	}
	switch {
	case found == nil:
		return nil, fault.New(fault.NotFound, "this node holds no such call of the id")
	case len(clients) > 1:
		slices.Sort(clients)
		return nil, fault.New(fault.BadRequest, "several clients' calls have this id; name the client: %s", strings.Join(clients, ", "))
	}
	return found, nil
}

// weight says how much a record says of how a call ended.
func weight(k journal.Kind) int {
	switch k {
	case journal.Unanswered:
		return 0
	case journal.Refused:
		return 1
	}
	return 2
}

// openings are both sides' records of the call's messages.
func (e *Evidence) openings(c *recorded) (out []evidence.Record) {
	for _, half := range e.Halves {
		for _, r := range half.Records {
			for part, s := range c.messages {
				if s == nil || !bytes.Equal(s.envelope, r.Envelope) || len(out) == evidence.MaxRecords {
					continue
				}
				out = append(out, evidence.Record{
					State: half.State, Node: half.Node, Message: [...]string{seal.Request: "request", seal.Answer: "answer"}[part],
					Kind: uint8(r.Parts.Kind), At: r.Parts.At, Leaf: r.Leaf, Salt: evidence.Digest(r.Salt), Hash: evidence.Digest(r.Hash),
					Digest: r.Digest, Class: evidence.Digest(r.Parts.Class), Key: evidence.Digest(r.Parts.Key), Body: evidence.Digest(r.Parts.Body), Local: evidence.Digest(r.Parts.Local),
				})
			}
		}
	}
	// Whichever side exports, the same call is the same bytes, but for the receipts.
	slices.SortFunc(out, func(a, b evidence.Record) int {
		return cmp.Or(strings.Compare(string(a.State), string(b.State)), cmp.Compare(a.Leaf, b.Leaf))
	})
	return out
}

// judged puts beside a message what its seal is judged by: the directory of
// its day.
func (x *Exchange) judged(ctx context.Context, s *recordedHead) (*evidence.Message, map[string][]byte, error) {
	sl, err := seal.ParseSeal(s.raw)
	if err != nil {
		return nil, nil, err
	}
	v, err := x.deps.Archive(ctx, s.directory)
	if err != nil {
		return nil, nil, err
	}
	c, ok := v.Certificate(sl.Cert)
	if !ok {
		return nil, nil, fault.New(fault.CertUnknown, "version %d of the directory does not name the certificate of the seal", s.directory)
	}
	m := &evidence.Message{Head: s.head, Seal: s.raw, Cert: c.Cert}
	if m.Authority, m.CRL, err = issuer(v, c); err != nil {
		return nil, nil, err
	}
	if s.body != nil {
		m.Body = &evidence.Body{Size: s.body.Size, SHA256: s.body.SHA256, Open: x.kept(ctx, s), Absent: union.Text{
			En: "this node keeps no copy of it: only its digest is recorded", Ar: "لا تحتفظ هذه العقدة بنسخة منه: المقيّد بصمته وحدها",
		}}
	}
	chain, err := x.deps.Chain(ctx, s.directory, c.State)
	return m, chain, err
}

// issuer finds the authority of a certificate's state that issued it, and its
// CRL of the same version.
func issuer(v *directory.View, c directory.Certificate) (*x509.Certificate, []byte, error) {
	p, err := v.Part(c.State)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range p.Authorities {
		if c.Cert.CheckSignatureFrom(a.Certificate.Certificate) == nil {
			crl, _ := v.File(c.State, a.CRL)
			return a.Certificate.Certificate, crl, nil
		}
	}
	return nil, nil, fault.New(fault.CertUnknown, "no authority of %s issued the certificate of the seal", c.State)
}

// kept is how a recorded message's body is read; nil where this node holds
// none.
func (x *Exchange) kept(ctx context.Context, s *recordedHead) func() (io.ReadCloser, error) {
	for _, leaf := range s.leaves {
		r, err := x.deps.Journal.Get(ctx, leaf)
		if err != nil {
			continue
		}
		if int64(len(r.Body)) == s.body.Size {
			return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil }
		}
		n, err := readNote(r.Local)
		if err != nil || n.Spool == "" {
			continue
		}
		open := func() (io.ReadCloser, error) { return x.open(&body{size: s.body.Size, spool: n.Spool}) }
		if f, err := open(); err == nil {
			_ = f.Close()
			return open
		}
	}
	return nil
}

// serveContainer hands a call's container to the subsystem that called or
// served.
func (x *Exchange) serveContainer(w http.ResponseWriter, r *http.Request, id string, by Reader) {
	which, err := ParseWhich(id, r.URL.Query())
	if r.Method != http.MethodGet {
		err = fault.New(fault.MethodNotAllowed, "evidence is read with GET")
	}
	var p *evidence.Pack
	if err == nil {
		p, err = x.Container(r.Context(), which, by)
	} else {
		err = x.recordReading(r.Context(), reading{Action: "evidence.export", By: by.Name, Door: by.Door, ID: id}, err)
	}
	if err != nil {
		x.problem(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", evidence.MIME)
	h.Set("Content-Length", strconv.FormatInt(p.Size(), 10))
	h.Set("Content-Disposition", `attachment; filename="call.asice"`)
	h.Set("X-Content-Type-Options", "nosniff")
	if err := p.Write(r.Context(), w); err != nil {
		if !gone(err) {
			x.deps.Log.Warn("a container broke off on its way to the client", "error", err)
		}
		panic(http.ErrAbortHandler) // the client must not take the part for the whole
	}
}
