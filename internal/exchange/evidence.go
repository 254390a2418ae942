package exchange

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
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
	Envelope []byte         `json:"envelope"` // base64
	Parts    Parts          `json:"parts"`
	Note     jsontext.Value `json:"note,omitempty"` // what this node alone knows: never sent to another
}

// Parts are what Digest is computed from beside the envelope, as journal.Parts
// says: with them it is seen that the leaf is this envelope's and no other's.
type Parts struct {
	Kind  journal.Kind   `json:"kind"`
	At    int64          `json:"at"`
	Class message.Digest `json:"class"`
	Key   message.Digest `json:"key"`
	Body  message.Digest `json:"body"`
	Local message.Digest `json:"local"`
}

// evidenceKind is the link's query for the other side's half.
const evidenceKind = "evidence"

type evidenceQuestion struct {
	ID     string            `json:"id"`
	Client union.SubsystemID `json:"client"`
}

// Query answers another node's question about evidence; it is a part of the
// link's handler. Only a state that took part in the call is told of it, and
// not of what this node refused before anything was sent.
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
	if err := json.Unmarshal(b, &q, json.RejectUnknownMembers(true)); err != nil || !message.ValidID(q.ID) || q.Client.IsZero() {
		return nil, fault.New(fault.MessageMalformed, "a question for evidence names one client and its id")
	}
	h, err := x.half(ctx, q.ID, func(client, service union.SubsystemID) bool {
		return client == q.Client && (client.State == peer.State || service.State == peer.State)
	})
	if err != nil {
		return nil, err
	}
	crossed := h.Records[:0]
	for _, r := range h.Records {
		if r.Note = nil; r.Parts.Kind != journal.Refused {
			crossed = append(crossed, r)
		}
	}
	h.Records = crossed
	return json.Marshal(h)
}

// Evidence collects both halves of a call. may says whose calls the asker is
// allowed to see; the other state decides for itself what it shows.
func (x *Exchange) Evidence(ctx context.Context, id string, may func(client, service union.SubsystemID) bool) (*Evidence, error) {
	own, err := x.half(ctx, id, may)
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
	for _, other := range others(own, x.cfg.State) {
		st, ok := v.State(other.state)
		if !ok {
			continue
		}
		h, err := x.askHalf(ctx, st, evidenceQuestion{ID: id, Client: other.client}, may)
		if err != nil {
			f := fault.From(err) // its cause names addresses, and the asker may be any client
			e.Missing = fmt.Sprintf("%s: %s [%s]", other.state, f.Detail, f.Code)
			continue
		}
		e.Halves = append(e.Halves, h)
	}
	return e, nil
}

func (x *Exchange) askHalf(ctx context.Context, st directory.State, about evidenceQuestion, may func(client, service union.SubsystemID) bool) (Half, error) {
	ctx, cancel := context.WithTimeout(ctx, callMargin)
	defer cancel()
	q, err := json.Marshal(about)
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
		if client, service, ok := parties(r.Envelope); ok && client == about.Client && may(client, service) {
			kept = append(kept, r)
		}
	}
	h.Records = kept
	return h, nil
}

// half is what this node holds of an id, as far as it may be seen.
func (x *Exchange) half(ctx context.Context, id string, may func(client, service union.SubsystemID) bool) (Half, error) {
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
		r.Note = s.Local
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
	p := s.Parts()
	return Record{
		Kind: s.Kind.String(), Leaf: s.Index, At: s.At.UTC(), Salt: s.Salt, Digest: p.Digest(), Hash: s.Leaf,
		Head: head, Sealed: sl.At, Cert: sl.Cert, Envelope: s.Envelope,
		Parts: Parts{Kind: p.Kind, At: p.At, Class: p.Class, Key: p.Key, Body: p.Body, Local: p.Local},
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

// other is a state that may hold more of a call, and whose call it was.
type other struct {
	state  union.State
	client union.SubsystemID
}

func others(h Half, own union.State) (out []other) {
	for _, r := range h.Records {
		client, service, _ := parties(r.Envelope)
		for _, s := range []union.State{client.State, service.State} {
			if o := (other{s, client}); s != own && r.Parts.Kind != journal.Refused && !slices.Contains(out, o) {
				out = append(out, o)
			}
		}
	}
	return out
}

// serveEvidence shows a call's evidence to the subsystem that called or served.
func (x *Exchange) serveEvidence(w http.ResponseWriter, r *http.Request) {
	id, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/evidence/"))
	if err != nil {
		id = "" // as malformed as an empty one
	}
	client, _, err := x.client(r)
	switch {
	case err != nil:
		x.problem(w, err)
		return
	case r.Method != http.MethodGet:
		x.problem(w, fault.New(fault.MethodNotAllowed, "evidence is read with GET"))
		return
	case !message.ValidID(id):
		x.problem(w, fault.New(fault.BadRequest, "an id has 1 to %d visible ASCII characters", message.MaxID))
		return
	}
	e, err := x.Evidence(r.Context(), id, func(c, s union.SubsystemID) bool { return c == client || s == client })
	if err != nil {
		x.problem(w, err)
		return
	}
	for i := range e.Halves[0].Records { // within one state each side's notes are its own
		r := &e.Halves[0].Records[i]
		caller, service, _ := parties(r.Envelope)
		if client == caller && ofProvider(r.Parts.Kind) && caller != service || client == service && !ofProvider(r.Parts.Kind) && caller != service {
			r.Note = nil
		}
	}
	b, err := json.Marshal(e)
	if err != nil {
		x.problem(w, err)
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
