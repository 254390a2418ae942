package exchange

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Evidence is what the two sides of a call hold of it.
type Evidence struct {
	ID      string `json:"id"`
	Halves  []Half `json:"halves"`
	Missing string `json:"missing,omitzero"` // why the other side's half is not here
}

// Half is what one node holds.
type Half struct {
	State   union.State `json:"state"`
	Node    string      `json:"node"`
	Records []Record    `json:"records"`
}

// Record is one record of a call as it is shown: the sealed envelope and the
// opening of its leaf, with the parts that a person reads beside them.
type Record struct {
	Kind     string         `json:"kind"`
	Leaf     int64          `json:"leaf"`
	At       time.Time      `json:"at"`
	Salt     message.Digest `json:"salt"`
	Digest   message.Digest `json:"digest"`
	Hash     message.Digest `json:"hash"` // the leaf: of salt and digest
	Head     jsontext.Value `json:"head"`
	Sealed   time.Time      `json:"sealed_at"`
	Cert     message.Digest `json:"certificate"`
	Envelope []byte         `json:"envelope"`       // base64
	Note     jsontext.Value `json:"note,omitempty"` // what this node alone knows: never sent to another
}

// evidenceKind is the link's query for the other side's half.
const evidenceKind = "evidence"

type evidenceQuestion struct {
	ID string `json:"id"`
}

// Query answers another node's question about evidence; it is a part of the
// link's handler. Only a state that took part in the call is told of it.
func (x *Exchange) Query(ctx context.Context, peer link.Peer, kind string, b []byte) ([]byte, error) {
	if kind != evidenceKind {
		return nil, fault.New(fault.NotFound, "this node answers no question of kind %q", kind)
	}
	v, err := x.deps.Directory()
	if err != nil {
		return nil, err
	}
	if err := x.welcome(v, peer); err != nil {
		return nil, err
	}
	var q evidenceQuestion
	if err := json.Unmarshal(b, &q, json.RejectUnknownMembers(true)); err != nil || !message.ValidID(q.ID) {
		return nil, fault.New(fault.MessageMalformed, "a question for evidence names one id")
	}
	h, err := x.half(ctx, q.ID, func(client, service union.SubsystemID) bool {
		return client.State == peer.State || service.State == peer.State
	}, false)
	if err != nil {
		return nil, err
	}
	return json.Marshal(h)
}

// Evidence collects both halves of a call. may says whose calls the asker is
// allowed to see; the other state decides for itself what it shows.
func (x *Exchange) Evidence(ctx context.Context, id string, may func(client, service union.SubsystemID) bool) (*Evidence, error) {
	own, err := x.half(ctx, id, may, true)
	if err != nil {
		return nil, err
	}
	if len(own.Records) == 0 {
		return nil, fault.New(fault.NotFound, "this node holds no record of the id that the asker may see")
	}
	e := &Evidence{ID: id, Halves: []Half{own}}
	v, err := x.deps.Directory()
	if err != nil {
		e.Missing = err.Error()
		return e, nil
	}
	for _, other := range otherStates(own, x.cfg.State) {
		st, ok := v.State(other)
		if !ok {
			continue
		}
		h, err := x.askHalf(ctx, st, id, may)
		if err != nil {
			e.Missing = fmt.Sprintf("%s: %v", other, fault.From(err))
			continue
		}
		e.Halves = append(e.Halves, h)
	}
	return e, nil
}

func (x *Exchange) askHalf(ctx context.Context, st directory.State, id string, may func(client, service union.SubsystemID) bool) (Half, error) {
	ctx, cancel := context.WithTimeout(ctx, callMargin)
	defer cancel()
	q, err := json.Marshal(evidenceQuestion{ID: id})
	if err != nil {
		return Half{}, err
	}
	b, err := x.deps.Link.Query(ctx, link.Target{State: st.Code, Addrs: addresses(st)}, evidenceKind, q)
	if err != nil {
		return Half{}, err
	}
	var h Half
	if err := json.Unmarshal(b, &h, json.RejectUnknownMembers(true)); err != nil {
		return Half{}, fault.Wrap(fault.MessageMalformed, err, "the other side's evidence")
	}
	h.State = st.Code
	kept := h.Records[:0]
	for _, r := range h.Records {
		r.Note = nil
		if client, service, ok := parties(r.Envelope); ok && may(client, service) {
			kept = append(kept, r)
		}
	}
	h.Records = kept
	return h, nil
}

// half is what this node holds of an id, as far as it may be seen.
func (x *Exchange) half(ctx context.Context, id string, may func(client, service union.SubsystemID) bool, notes bool) (Half, error) {
	h := Half{State: x.cfg.State, Node: x.cfg.Node, Records: []Record{}}
	found, err := x.deps.Journal.Find(ctx, id)
	if err != nil {
		return h, storeFault(err, "looking for records")
	}
	for _, s := range found {
		client, service, ok := parties(s.Envelope)
		if !ok || !may(client, service) {
			continue
		}
		r, err := show(s)
		if err != nil {
			return h, storeFault(err, "reading a record")
		}
		if notes {
			r.Note = s.Local
		}
		h.Records = append(h.Records, r)
	}
	return h, nil
}

func show(s journal.Stored) (Record, error) {
	head, raw, err := message.Open(s.Envelope)
	if err != nil {
		return Record{}, err
	}
	sl, err := seal.ParseSeal(raw)
	if err != nil {
		return Record{}, err
	}
	return Record{
		Kind: s.Kind.String(), Leaf: s.Index, At: s.At.UTC(), Salt: s.Salt, Digest: s.Record.Digest(), Hash: s.Leaf,
		Head: head, Sealed: sl.At, Cert: sl.Cert, Envelope: s.Envelope,
	}, nil
}

// parties reads who asked whom from a sealed head.
func parties(envelope []byte) (client, service union.SubsystemID, ok bool) {
	head, _, err := message.Open(envelope)
	if err != nil {
		return client, service, false
	}
	if message.Kind(head) == message.TypeRequest {
		r, err := message.ParseRequest(head)
		if err != nil {
			return client, service, false
		}
		return r.Client, r.Service.SubsystemID, true
	}
	a, err := message.ParseAnswer(head)
	if err != nil {
		return client, service, false
	}
	return a.Client, a.Service.SubsystemID, true
}

func otherStates(h Half, own union.State) []union.State {
	seen := map[union.State]bool{own: true}
	var out []union.State
	for _, r := range h.Records {
		client, service, _ := parties(r.Envelope)
		for _, s := range []union.State{client.State, service.State} {
			if s != "" && !seen[s] {
				seen[s] = true
				out = append(out, s)
			}
		}
	}
	return out
}

// Check is one thing that was verified of evidence.
type Check struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitzero"`
}

// VerifyEvidence holds the halves against the directory and against each other.
func (x *Exchange) VerifyEvidence(e *Evidence) ([]Check, error) {
	v, err := x.deps.Directory()
	if err != nil {
		return nil, err
	}
	var out []Check
	check := func(what string, err error) {
		c := Check{What: what, OK: err == nil}
		if err != nil {
			c.Detail = err.Error()
		}
		out = append(out, c)
	}
	requests := map[message.Digest]bool{}
	envelopes := map[string][][]byte{} // kind of message -> what each half holds of it
	for _, h := range e.Halves {
		for _, r := range h.Records {
			name := fmt.Sprintf("%s, %s, leaf %d", h.State, r.Kind, r.Leaf)
			digest, err := verifySeal(v, r)
			check(name+": seal, certificate and time", err)
			head, _, _ := message.Open(r.Envelope)
			if message.Kind(head) == message.TypeRequest && err == nil {
				requests[digest] = true
				envelopes["request"] = append(envelopes["request"], r.Envelope)
			} else if message.Kind(head) == message.TypeAnswer {
				envelopes["answer"] = append(envelopes["answer"], r.Envelope)
			}
			err = nil
			if message.Digest(journal.Leaf(r.Salt, r.Digest)) != r.Hash {
				err = fmt.Errorf("the leaf is not that of this record")
			}
			check(name+": leaf opens to the record", err)
		}
	}
	for _, h := range e.Halves {
		for _, r := range h.Records {
			head, _, _ := message.Open(r.Envelope)
			if a, err := message.ParseAnswer(head); err == nil && a.Type == message.TypeAnswer {
				var err error
				if !requests[a.Request] {
					err = fmt.Errorf("it answers a request that is not here")
				}
				check(fmt.Sprintf("%s, leaf %d: answers a recorded request", h.State, r.Leaf), err)
			}
		}
	}
	if len(e.Halves) == 2 {
		for _, kind := range []string{"request", "answer"} {
			check("both sides hold the same "+kind, paired(envelopes[kind]))
		}
	} else if e.Missing != "" {
		check("the other side's half", fmt.Errorf("%s", e.Missing))
	}
	return out, nil
}

// paired tells whether every envelope is held twice.
func paired(held [][]byte) error {
	for i, a := range held {
		n := 0
		for _, b := range held {
			if bytes.Equal(a, b) {
				n++
			}
		}
		if n%2 != 0 {
			return fmt.Errorf("message %d of %d is held by one side alone", i+1, len(held))
		}
	}
	return nil
}

// verifySeal judges a recorded seal by the time at which it was made.
func verifySeal(v *directory.View, r Record) (message.Digest, error) {
	head, raw, err := message.Open(r.Envelope)
	if err != nil {
		return message.Digest{}, err
	}
	var b *message.Body
	if q, err := message.ParseRequest(head); err == nil {
		b = q.Body
	} else if a, err := message.ParseAnswer(head); err == nil {
		b = a.Body
	} else {
		return message.Digest{}, err
	}
	m := manifest(head, b)
	s, err := seal.ParseSeal(raw)
	if err != nil {
		return message.Digest{}, err
	}
	c, ok := v.Certificate(s.Cert)
	if !ok {
		return message.Digest{}, fault.New(fault.CertUnknown, "the directory does not name the certificate")
	}
	if err := c.At(s.At); err != nil {
		return message.Digest{}, err
	}
	return sha256.Sum256(m), seal.Verify(c.Cert, m, s)
}

// serveEvidence shows a call's evidence to the subsystem that called or served.
func (x *Exchange) serveEvidence(w http.ResponseWriter, r *http.Request) {
	id, _ := strings.CutPrefix(r.URL.EscapedPath(), "/evidence/")
	client, _, err := x.client(r)
	switch {
	case err != nil:
		problem(w, err)
		return
	case r.Method != http.MethodGet:
		problem(w, fault.New(fault.MethodNotAllowed, "evidence is read with GET"))
		return
	case !message.ValidID(id):
		problem(w, fault.New(fault.BadRequest, "an id has 1 to %d visible ASCII characters", message.MaxID))
		return
	}
	e, err := x.Evidence(r.Context(), id, func(c, s union.SubsystemID) bool { return c == client || s == client })
	if err != nil {
		problem(w, err)
		return
	}
	b, err := json.Marshal(e)
	if err != nil {
		problem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

// addresses are where a state's nodes listen, the first preferred.
func addresses(s directory.State) []string {
	out := make([]string, len(s.Nodes))
	for i, n := range s.Nodes {
		out[i] = n.Address
	}
	return out
}
