package exchange

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
	More    int64       `json:"more,omitzero"` // records from this leaf on were left out: ask for them
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
	From   int64             `json:"from,omitzero"`
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
	if err := json.Unmarshal(b, &q, json.RejectUnknownMembers(true)); err != nil || !message.ValidID(q.ID) || q.Client.IsZero() || q.From < 0 {
		return nil, fault.New(fault.MessageMalformed, "a question for evidence names one client and its id")
	}
	h, _, err := x.half(ctx, q.ID, q.From, func(client, service union.SubsystemID) bool {
		return client == q.Client && (client.State == peer.State || service.State == peer.State)
	}, true)
	if err != nil {
		return nil, err
	}
	return json.Marshal(h)
}

// Reader is who asks for evidence.
type Reader struct {
	Name string                                       // stands in the record of the reading
	Door string                                       // how a system proved itself
	May  func(client, service union.SubsystemID) bool // whose calls he may see
}

// Page chooses a part of evidence that is too large for one answer: what a
// state's node holds from a record on, as Half.More says. Zero: all, from the
// beginning.
type Page struct {
	State union.State
	From  int64
}

// mostParts is how many parts of evidence Pages asks for: who has more to look
// at, asks for it piece by piece.
const mostParts = 64

// Pages asks for all parts of a call's evidence and joins them. What is beyond
// its bound stays in Half.More.
func Pages(ask func(Page) (*Evidence, error)) (*Evidence, error) {
	e, err := ask(Page{})
	if err != nil {
		return nil, err
	}
	asked := 1
	for i := range e.Halves {
		h := &e.Halves[i]
		for ; h.More != 0 && asked < mostParts; asked++ {
			next, err := ask(Page{State: h.State, From: h.More})
			if err != nil {
				return nil, err
			}
			j := slices.IndexFunc(next.Halves, func(o Half) bool { return o.State == h.State && o.Node == h.Node })
			if j < 0 || len(next.Halves) > 1 {
				break // of several clients' calls one id: each has its own pages
			}
			h.Records, h.More = append(h.Records, next.Halves[j].Records...), next.Halves[j].More
		}
	}
	return e, nil
}

// Query writes what ParsePage reads.
func (p Page) Query(q url.Values) {
	if p.State != "" {
		q.Set("state", string(p.State))
		q.Set("from", strconv.FormatInt(p.From, 10))
	}
}

// ParsePage reads a page from a query: state=BH&from=120.
func ParsePage(q url.Values) (p Page, err error) {
	if s := q.Get("state"); s != "" {
		if p.State, err = union.ParseState(s); err != nil {
			return p, fault.Wrap(fault.BadRequest, err, "%v", err)
		}
	}
	if f := q.Get("from"); f != "" {
		if p.From, err = strconv.ParseInt(f, 10, 64); err != nil || p.From < 0 || p.State == "" {
			return p, fault.New(fault.BadRequest, "from is the number of a leaf of the state that is named beside it")
		}
	}
	return p, nil
}

// The limits of one answer. What is beyond them is left out, and Half.More says
// from where on.
const (
	maxEvidence = 4 << 20 // bytes of a half's records as JSON, about; one record always has room
	maxScanned  = 4096    // records of an id that are looked at
	maxAsked    = 8       // other sides that are asked
)

// Evidence collects what both sides hold of a call, or a part of it. The other
// state decides for itself what it shows. That it was read, or refused, is a
// record of its own, and durable before anything is shown.
func (x *Exchange) Evidence(ctx context.Context, id string, by Reader, page Page) (*Evidence, error) {
	e, err := x.evidence(ctx, id, by, page)
	if err := x.recordReading(ctx, by.reads(id, page), err); err != nil {
		return nil, err
	}
	return e, nil
}

func (r Reader) reads(id string, p Page) reading {
	return reading{Action: "evidence.read", By: r.Name, Door: r.Door, ID: id, State: p.State, From: p.From, shows: r.May}
}

func (x *Exchange) evidence(ctx context.Context, id string, by Reader, page Page) (*Evidence, error) {
	if !message.ValidID(id) {
		return nil, fault.New(fault.BadRequest, "an id has 1 to %d visible ASCII characters", message.MaxID)
	}
	e := &Evidence{ID: id, Halves: []Half{}}
	from := page.From
	if page.State != x.cfg.State {
		from = 0
	}
	own, others, err := x.half(ctx, id, from, by.May, false)
	if err != nil {
		return nil, err
	}
	if len(own.Records) == 0 && len(others) == 0 && own.More == 0 {
		return nil, fault.New(fault.NotFound, "this node holds no record of the id that the asker may see")
	}
	if page.State == "" || page.State == x.cfg.State {
		e.Halves = append(e.Halves, own)
	}
	if page.State == x.cfg.State {
		return e, nil
	}
	v, err := x.deps.Directory()
	if err != nil {
		e.Missing = err.Error()
		return e, nil
	}
	for i, other := range others {
		st, ok := v.State(other.state)
		if !ok || page.State != "" && page.State != other.state {
			continue
		}
		if i >= maxAsked {
			e.Missing = fmt.Sprintf("only %d other sides are asked at a time", maxAsked)
			break
		}
		h, err := x.askHalf(ctx, st, evidenceQuestion{ID: id, Client: other.client, From: page.From}, by.May)
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

// half is what this node holds of an id from a record on, as far as it may be
// seen and has room; crossed leaves out what no other node has a part in. All
// that is looked at tells who else may hold something.
func (x *Exchange) half(ctx context.Context, id string, from int64, may func(client, service union.SubsystemID) bool, crossed bool) (h Half, out []other, err error) {
	h = Half{State: x.cfg.State, Node: x.cfg.Node, Records: []Record{}}
	size := 0
	for scanned := 0; ; {
		found, err := x.deps.Journal.FindFrom(ctx, id, from)
		if err != nil {
			return h, nil, storeFault(err, "looking for records")
		}
		for _, s := range found {
			from = s.Index + 1
			client, service, ok := parties(s.Envelope)
			if !ok || !may(client, service) || crossed && s.Kind == journal.Refused {
				continue
			}
			if s.Kind != journal.Refused {
				out = others(out, client, service, x.cfg.State)
			}
			if h.More != 0 {
				continue
			}
			r, err := show(s)
			if err != nil {
				return h, nil, storeFault(err, "reading a record")
			}
			if !crossed {
				r.Note = s.Local
			}
			if size += r.size(); size > maxEvidence && len(h.Records) > 0 {
				h.More = s.Index
				continue
			}
			h.Records = append(h.Records, r)
		}
		scanned += len(found)
		switch {
		case len(found) < journal.MaxFound:
			return h, out, nil
		case scanned >= maxScanned:
			if h.More == 0 {
				h.More = from
			}
			return h, out, nil
		}
	}
}

// size is about what a record takes as JSON.
func (r *Record) size() int { return 1<<10 + len(r.Head) + len(r.Envelope)/3*4 + len(r.Note) }

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

func others(out []other, client, service union.SubsystemID, own union.State) []other {
	for _, s := range []union.State{client.State, service.State} {
		if o := (other{s, client}); s != own && !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	return out
}

// serveEvidence shows a call's evidence to the subsystem that called or served.
func (x *Exchange) serveEvidence(w http.ResponseWriter, r *http.Request) {
	path, packed := strings.CutSuffix(strings.TrimPrefix(r.URL.EscapedPath(), "/evidence/"), "/container")
	path, receipt := strings.CutSuffix(path, "/receipt")
	id, err := url.PathUnescape(path)
	if err != nil {
		id = "" // as malformed as an empty one
	}
	client, door, leave, err := x.admit(r)
	defer leave()
	if err != nil {
		x.problem(w, err)
		return
	}
	by := Reader{Name: client.String(), Door: door, May: func(c, s union.SubsystemID) bool { return c == client || s == client }}
	if receipt {
		x.serveReceipt(w, r, id, by)
		return
	}
	if packed {
		x.serveContainer(w, r, id, by)
		return
	}
	page, err := ParsePage(r.URL.Query())
	if r.Method != http.MethodGet {
		err = fault.New(fault.MethodNotAllowed, "evidence is read with GET")
	}
	var e *Evidence
	if err == nil {
		e, err = x.Evidence(r.Context(), id, by, page)
	} else {
		err = x.recordReading(r.Context(), by.reads(id, page), err)
	}
	if err != nil {
		x.problem(w, err)
		return
	}
	for _, h := range e.Halves {
		for i := range h.Records { // within one state each side's notes are its own
			r := &h.Records[i]
			caller, service, _ := parties(r.Envelope)
			if client == caller && ofProvider(r.Parts.Kind) && caller != service || client == service && !ofProvider(r.Parts.Kind) && caller != service {
				r.Note = nil
			}
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
