package exchange

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// wire stands between an exchange and its link, and does to messages what a
// hostile node would.
type wire struct {
	Caller
	in func(*link.Message, error) (*link.Message, error)
}

func (w *wire) Exchange(ctx context.Context, to link.Target, m *link.Message) (*link.Message, error) {
	return w.in(w.Caller.Exchange(ctx, to, m))
}

// through lets what comes back to a node pass through in, for one test.
func (n *testNode) through(t *testing.T, in func(*link.Message, error) (*link.Message, error)) {
	n.SetLink(&wire{Caller: n.link, in: in})
	t.Cleanup(func() { n.SetLink(n.link) })
}

// enlist gives a state one more member of a seal of its own, in the directory.
func (u *testUnion) enlist(s union.State, code string, issuer directory.Authority) Credential {
	u.t.Helper()
	n, text := u.nodes[s], union.Text{En: "a member", Ar: "جهة"}
	id := union.MemberID{State: s, Class: "GOV", Code: code}
	key := otherKey(u.t)
	cert, err := issuer.Seal(id, "Member", key.Public())
	check(u.t, err)
	check(u.t, n.dir.Publish(u.t.Context(), func(e *directory.Edition) error {
		e.Members = append(e.Members, directory.Member{
			Class: "GOV", Code: code, Name: text, Seals: []directory.Cert{{Certificate: cert}},
			Subsystems: []directory.Subsystem{{Code: "desk", Name: text}},
		})
		return nil
	}))
	u.refresh()
	return Credential{Signer: key, Cert: cert}
}

// publish changes a state's part of the directory, and brings it to all nodes.
func (u *testUnion) publish(s union.State, change func(*directory.Edition)) {
	u.t.Helper()
	check(u.t, u.nodes[s].dir.Publish(u.t.Context(), func(e *directory.Edition) error { change(e); return nil }))
	u.refresh()
}

// withdraw ends an agreement of the serving state.
func (u *testUnion) withdraw(s union.State, id string) {
	u.t.Helper()
	u.publish(s, func(e *directory.Edition) {
		e.Agreements = slices.DeleteFunc(e.Agreements, func(a directory.Agreement) bool { return a.ID == id })
	})
}

// request is the head of a good request, as the node of its client writes it.
func (u *testUnion) request(from union.State, service union.ServiceID) *message.Request {
	now := time.Now()
	return &message.Request{
		Type: message.TypeRequest, Union: "test", Directory: u.nodes[from].dir.View().Version(),
		ID: uuid.NewString(), RequestID: uuid.NewString(), Client: desk(from), Service: service, Method: "POST", Path: "/x", Purpose: "test",
		NotBefore: now.UnixMilli(), NotAfter: now.Add(time.Minute).UnixMilli(),
	}
}

// enclose seals any bytes as a head, at any time.
func enclose(t testing.TB, c Credential, head []byte, b *message.Body, at time.Time) []byte {
	t.Helper()
	cert := *c.Cert
	cert.NotBefore, cert.NotAfter = at.Add(-time.Hour), at.Add(time.Hour) // or seal would refuse
	part := seal.Answer
	if message.Kind(head) == message.TypeRequest {
		part = seal.Request
	}
	s, err := sealHead(Credential{c.Signer, &cert}, part, head, b, at)
	check(t, err)
	return s.envelope
}

func sum(b []byte) *message.Body {
	return &message.Body{Size: int64(len(b)), SHA256: sha256.Sum256(b)}
}

// deliver sends a message over a real link and gives the head and body of the
// answer, or the fault that came instead.
func (u *testUnion) deliver(from, to union.State, m *link.Message) (*message.Answer, []byte, error) {
	u.t.Helper()
	res, err := u.nodes[from].link.Exchange(u.t.Context(), u.target(to), m)
	if err == nil {
		_, err = res.Released(u.t.Context())
	}
	if err != nil {
		return nil, nil, err
	}
	head, _, err := message.Open(res.Envelope)
	check(u.t, err)
	a, err := message.ParseAnswer(head)
	check(u.t, err)
	var b []byte
	if res.Body != nil {
		defer res.Body.Close()
		b, err = io.ReadAll(res.Body)
		check(u.t, err)
	}
	return a, b, nil
}

func (u *testUnion) target(s union.State) link.Target {
	st, _ := u.nodes[s].dir.View().State(s)
	return link.Target{State: s, Addrs: addresses(st)}
}

// held names the records that a node holds of an id, in order.
func (n *testNode) held(t testing.TB, id string) string {
	t.Helper()
	found, err := n.journal.Find(t.Context(), id)
	check(t, err)
	var out []string
	for _, s := range found {
		out = append(out, s.Kind.String())
	}
	return strings.Join(out, ", ")
}

// size is how many records a node holds.
func (n *testNode) size(t testing.TB) int64 {
	t.Helper()
	size, _, err := n.journal.Head(t.Context())
	check(t, err)
	return size
}

// observed waits for the observation of a fault, or of an answer where the code is "".
func (n *testNode) observed(t testing.TB, code fault.Code) {
	t.Helper()
	late := time.After(5 * time.Second)
	for {
		select {
		case o := <-n.seen:
			if o.Fault == code {
				return
			}
		case <-late:
			t.Errorf("%s counted nothing with the code %q", n.state, code)
			return
		}
	}
}

// forget drops the observations so far.
func (n *testNode) forget() {
	for {
		select {
		case <-n.seen:
		default:
			return
		}
	}
}

// claims counts a side's claims of a state.
func (n *testNode) claims(t testing.TB, side, state int) (count int) {
	t.Helper()
	check(t, n.db.QueryRow(t.Context(), `SELECT COUNT(*) FROM exchange_claim WHERE side = ? AND state = ?`, side, state).Scan(&count))
	return count
}

// spooled lists the spool files that lie on disk, and those that records name.
func (n *testNode) spooled(t testing.TB) (there, named []string) {
	t.Helper()
	files, err := os.ReadDir(n.spool)
	check(t, err)
	for _, f := range files {
		if f.Name() != "live" && f.Name() != "mark" { // whose the folder is, and who works in it
			there = append(there, f.Name())
		}
	}
	check(t, n.db.Read(t.Context(), func(tx *store.Tx) error {
		named = nil
		rows, err := tx.Query(t.Context(), `SELECT id FROM exchange_spool`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			named = append(named, id)
		}
		return rows.Err()
	}))
	slices.Sort(there)
	slices.Sort(named)
	return there, named
}

// sound checks what holds whenever nothing is under way: nothing is half-done.
func (u *testUnion) sound(t testing.TB) {
	t.Helper()
	for s, n := range u.nodes {
		wrong := "something"
		for end := time.Now().Add(10 * time.Second); wrong != "" && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			wrong = ""
			if open := n.claims(t, sideProvider, claimOpen); open != 0 {
				wrong = fmt.Sprintf("%d open claims", open)
			}
			if there, named := n.spooled(t); !slices.Equal(there, named) {
				wrong = fmt.Sprintf("spool files %v, records name %v", there, named)
			}
		}
		if wrong != "" {
			t.Errorf("%s: %s", s, wrong)
		}
		r, err := n.journal.Verify(t.Context())
		if err != nil || !r.OK() {
			t.Errorf("%s: the journal does not verify: %v %+v", s, err, r)
		}
	}
}

// last is the latest record of an id at a node.
func (n *testNode) last(t testing.TB, id string) journal.Stored {
	t.Helper()
	found, err := n.journal.Find(t.Context(), id)
	check(t, err)
	if len(found) == 0 {
		t.Fatalf("%s holds no record of %s", n.state, id)
	}
	return found[len(found)-1]
}

// logs is a node's log, for looking into.
type logs struct{ lock chan *bytes.Buffer }

func newLogs() *logs {
	l := &logs{lock: make(chan *bytes.Buffer, 1)}
	l.lock <- new(bytes.Buffer)
	return l
}

func (l *logs) Write(b []byte) (int, error) {
	buf := <-l.lock
	defer func() { l.lock <- buf }()
	return buf.Write(b)
}

func (l *logs) String() string {
	buf := <-l.lock
	defer func() { l.lock <- buf }()
	return buf.String()
}

// liar answers every question between nodes with the same bytes.
type liar struct {
	Caller
	b []byte
}

func (l *liar) Query(context.Context, link.Target, string, []byte) ([]byte, error) { return l.b, nil }
