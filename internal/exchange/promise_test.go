package exchange

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// expected collects what a node holds others to.
type expected struct {
	mu   sync.Mutex
	list []witness.Held
}

func (e *expected) Hold(h witness.Held) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, h)
}

// all waits until there are so many.
func (e *expected) all(t *testing.T, count int) []witness.Held {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		e.mu.Lock()
		list := append([]witness.Held(nil), e.list...)
		e.mu.Unlock()
		if len(list) >= count {
			return list
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d messages", len(list), count)
		}
	}
}

// TestPromises: with every message that one node records, of each way of a
// call, comes where its sender's own record stands, and what is read from the
// journal after a crash is the same.
func TestPromises(t *testing.T) {
	kept := map[union.State]*expected{"BH": {}, "SA": {}}
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, d *Deps) {
		c.Inline = 1 << 10
		d.Promises = kept[c.State]
	})
	things := func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(strings.Repeat("a", 4<<10))) }
	for _, s := range []string{"things", "later", "fleeting"} {
		u.backend("BH", s, things)
	}
	calls := 0
	ask := func(service string, body string, headers ...string) {
		t.Helper()
		calls++
		if a := u.call("SA", "POST", offered("BH", service), "/x", strings.NewReader(body), headers...); a.status >= 500 || a.status == 404 {
			t.Fatalf("%s: %d %s", service, a.status, a.body)
		}
	}
	ask("things", "small")
	ask("things", "")
	ask("things", strings.Repeat("large", 1<<10))
	ask("fleeting", strings.Repeat("large", 1<<10))
	ask("later", "small", "X-Road-Id: one")
	for side, from := range map[union.State]union.State{"BH": "SA", "SA": "BH"} {
		list := kept[side].all(t, calls)
		if len(list) != calls {
			t.Errorf("%s holds the other to %d messages, of %d", side, len(list), calls)
		}
		for _, h := range list {
			theirs, err := u.nodes[from].journal.Get(t.Context(), h.Index)
			if err != nil {
				t.Fatal(err)
			}
			own, err := u.nodes[side].journal.Get(t.Context(), h.Own)
			if err != nil {
				t.Fatal(err)
			}
			if h.From != from || theirs.Leaf != h.Leaf || h.Envelope != sha256.Sum256(theirs.Envelope) || string(theirs.Envelope) != string(own.Envelope) {
				t.Errorf("%s: %+v is not the record %v", side, h, theirs.Kind)
			}
		}
		read, next, err := u.nodes[side].Received(t.Context(), 0, 1000)
		if err != nil || len(read) != calls {
			t.Fatalf("read again: %d, %v", len(read), err)
		}
		if size, _, _ := u.nodes[side].journal.Head(t.Context()); next != size {
			t.Errorf("read to %d of %d", next, size)
		}
		for _, r := range read {
			found := false
			for _, h := range list {
				h.At, r.At = time.Time{}, time.Time{}
				found = found || h == r
			}
			if !found {
				t.Errorf("read again: %+v", r)
			}
		}
	}
}

// unlogged is the link of a node that promises nothing, or what is not so.
type unlogged struct {
	Caller
	twist func(*message.Promise) *message.Promise
}

func (l unlogged) Exchange(ctx context.Context, to link.Target, m *link.Message) (*link.Message, error) {
	hold := m.Hold
	m.Hold = func() ([]byte, error) {
		p, err := promised(hold())
		if err == nil {
			p = l.twist(p)
		}
		return promiseBytes(p), err
	}
	return l.Caller.Exchange(ctx, to, m)
}

// TestPromisesBroken: a call whose sender promises nothing, or another kind of
// record, goes on; what it is held to is that it promised nothing.
func TestPromisesBroken(t *testing.T) {
	kept := &expected{}
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, d *Deps) {
		if c.State == "BH" {
			d.Promises = kept
		}
	})
	u.backend("BH", "things", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for i, twist := range []func(*message.Promise) *message.Promise{
		func(*message.Promise) *message.Promise { return nil },
		func(p *message.Promise) *message.Promise { p.Kind = journal.Decision; return p },
	} {
		u.nodes["SA"].SetLink(unlogged{u.nodes["SA"].link, twist})
		if a := u.call("SA", "GET", offered("BH", "things"), "/x", nil); a.status != http.StatusNoContent {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if h := kept.all(t, i+1)[i]; h.Index != -1 || h.From != "SA" {
			t.Errorf("%+v", h)
		}
	}
	u.nodes["SA"].SetLink(unlogged{u.nodes["SA"].link, func(p *message.Promise) *message.Promise { p.Index = -5; return p }})
	if a := u.call("SA", "GET", offered("BH", "things"), "/x", nil); a.status < 400 {
		t.Errorf("a promise that cannot be read: %d", a.status)
	}
}

// TestReceivedUnreadable: a record that cannot be read ends no reading.
func TestReceivedUnreadable(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for range 3 {
		u.call("SA", "GET", offered("BH", "things"), "/x", nil)
	}
	bh := u.nodes["BH"]
	before, _, err := bh.Received(t.Context(), 0, 1000)
	if err != nil || len(before) != 3 {
		t.Fatal(before, err)
	}
	_, err = bh.db.Exec(t.Context(), "UPDATE journal_commit SET records = zeroblob(length(records)) WHERE first = (SELECT MAX(first) FROM journal_commit WHERE first <= ?)", before[0].Own)
	check(t, err)
	after, next, err := bh.Received(t.Context(), 0, 1000)
	size, _, _ := bh.journal.Head(t.Context())
	if err != nil || len(after) != 2 || after[1] != before[2] || next != size {
		t.Errorf("%+v to %d of %d, %v", after, next, size, err)
	}
}
