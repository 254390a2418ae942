package witness_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

func (w *world) newPromises(n *node, queue int) *witness.Promises {
	return w.newPromisesSigned(n, queue, func() (merkle.Signer, error) { return n.signers[merkle.LogSignature], nil })
}

func (w *world) newPromisesSigned(n *node, queue int, signer func() (merkle.Signer, error)) *witness.Promises {
	return witness.NewPromises(witness.PromiseConfig{Every: 10 * time.Millisecond, Due: 300 * time.Millisecond, Quiet: 50 * time.Millisecond, Answer: 200 * time.Millisecond, Queue: queue}, witness.PromiseDeps{
		DB: n.db, State: n.state, Union: w.union, Ask: w.asker(n.state), Alone: true, Now: time.Now, Log: quiet(),
		Signer: signer,
		Head: func(ctx context.Context) (int64, error) {
			size, _, err := n.journal.Head(ctx)
			return size, err
		},
		Received: func(_ context.Context, from int64, count int) (out []witness.Held, next int64, err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, h := range n.received {
				if h.Own >= from && h.Own < from+int64(count) {
					out = append(out, h)
				}
			}
			return out, from + int64(count), nil
		},
		Raised: func(_ context.Context, a witness.Alarm) { n.raised <- a },
	})
}

// message is a message from one node to another: both record it, and the
// sender says where. What a dishonest sender does instead, twist says.
func (w *world) message(from, to *node, twist func(*witness.Held)) witness.Held {
	w.t.Helper()
	theirs, err := from.journal.Append(context.Background(), journal.Record{Kind: journal.RequestSent, At: time.Now(), Class: "exchange", Envelope: []byte("sealed")})
	if err != nil {
		w.t.Fatal(err)
	}
	h := witness.Held{From: from.state, Envelope: sha256.Sum256([]byte("sealed")), Index: theirs.Index, Leaf: theirs.Leaf, At: time.Now()}
	if twist != nil {
		twist(&h)
	}
	h.Own = to.record(w.t).Index
	w.mu.Lock()
	to.received = append(to.received, h)
	w.mu.Unlock()
	return h
}

// watch lets a node hold the others to their promises.
func (w *world) watch(p *witness.Promises) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return stop
}

// settled waits until nothing is held against anybody any more.
func (n *node) settled(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); len(n.promises.Waiting()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still waiting: %+v", n.promises.Waiting())
		}
	}
}

func (n *node) quiet(t *testing.T) {
	t.Helper()
	select {
	case a := <-n.raised:
		t.Errorf("an alarm about an honest node: %+v", a)
	default:
	}
}

func (n *node) alarm(t *testing.T) witness.Alarm {
	t.Helper()
	select {
	case a := <-n.raised:
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("no alarm")
		return witness.Alarm{}
	}
}

// cursor is how far the node's processes have come.
func (n *node) cursor(t *testing.T) (leaf int64) {
	t.Helper()
	if err := n.db.QueryRow(t.Context(), "SELECT MIN(leaf) FROM witness_promise").Scan(&leaf); err != nil {
		t.Fatal(err)
	}
	return leaf
}

// TestPromisesKept: an honest node raises no alarm, not while it is away for
// long, not where its log has no quorum, not for more messages than memory
// holds; and all is settled once it can be asked.
func TestPromisesKept(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newWorld(t, 2, "BH", "SA", "AE")
		bh, sa := w.nodes["BH"], w.nodes["SA"]
		w.open(sa, cfg)
		w.unlocked("BH", "SA", "AE")
		w.run("BH")
		sa.promises = w.newPromises(sa, 16)
		stop := w.watch(sa.promises)
		for range 60 {
			sa.promises.Hold(w.message(bh, sa, nil))
		}
		sa.settled(t)
		w.leave("AE") // and with it BH's quorum
		sa.promises.Hold(w.message(bh, sa, nil))
		sa.settled(t)
		sa.quiet(t)

		w.leave("BH")
		for range 40 { // of which memory holds 16
			sa.promises.Hold(w.message(bh, sa, nil))
		}
		time.Sleep(500 * time.Millisecond) // beyond their time
		if waiting := sa.promises.Waiting(); len(waiting) != 1 || waiting[0].State != "BH" || waiting[0].Messages > 16 || waiting[0].Silent == nil || waiting[0].Since.IsZero() {
			t.Errorf("of a node that is away: %+v", waiting)
		}
		w.back("BH")
		sa.settled(t)
		size, _, err := sa.journal.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); sa.cursor(t) < size; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("done with %d of %d", sa.cursor(t), size)
			}
		}
		stop()
		sa.quiet(t)
	})
}

// TestPromisesBroken: a record that never was, is another, comes too late, or
// was promised in a log that shows others something else is found by whom the
// message went to. The alarm is signed, says what was found, and reaches the
// others, the accused among them.
func TestPromisesBroken(t *testing.T) {
	for _, x := range []struct {
		kind  string
		twist func(*witness.Held)
		check func(*testing.T, *world, witness.Alarm)
	}{
		{witness.AlarmUnpromised, func(h *witness.Held) { h.Index = -1 }, nil},
		{witness.AlarmAbsent, func(h *witness.Held) { h.Leaf[3] ^= 1 }, func(t *testing.T, w *world, a witness.Alarm) {
			b := a.Messages[0]
			head, err := merkle.OpenCheckpoint([]byte(a.Heads[0]), w.nodes["BH"].signers[merkle.LogSignature].Key)
			if err != nil || b.Entry == b.Leaf {
				t.Fatalf("%+v, %v", a, err)
			}
			var proof []merkle.Hash
			for _, s := range b.Proof {
				h, err := hex.DecodeString(s)
				if err != nil {
					t.Fatal(err)
				}
				proof = append(proof, merkle.Hash(h))
			}
			entry, err := hex.DecodeString(b.Entry)
			if err != nil {
				t.Fatal(err)
			}
			if err := merkle.Check(proof, head.Size, head.Root, b.Index, merkle.Leaf(entry)); err != nil {
				t.Errorf("that another entry stands there is not proved: %v", err)
			}
		}},
		{witness.AlarmLate, func(h *witness.Held) { h.Index += 1000 }, nil},
	} {
		t.Run(x.kind, func(t *testing.T) {
			w := newWorld(t, 1, "BH", "SA", "AE")
			bh, sa := w.nodes["BH"], w.nodes["SA"]
			w.unlocked("BH", "SA", "AE")
			w.run("BH")
			bh.fill(t, 300)
			w.watch(sa.promises)
			for range 20 {
				sa.promises.Hold(w.message(bh, sa, nil))
			}
			bad := w.message(bh, sa, x.twist)
			sa.promises.Hold(bad)
			a := sa.alarm(t)
			if a.From != "SA" || a.Of != "BH" || a.Log != bh.origin() || a.Kind != x.kind || a.Count != 1 || len(a.Messages) != 1 ||
				a.Messages[0].Own != bad.Own || a.Messages[0].Envelope != hex.EncodeToString(bad.Envelope[:]) {
				t.Fatalf("%+v", a)
			}
			if x.check != nil {
				x.check(t, w, a)
			}
			sa.settled(t)
			for _, s := range []union.State{"BH", "AE"} {
				if heard := w.nodes[s].alarm(t); heard.Messages[0].Envelope != a.Messages[0].Envelope {
					t.Errorf("%s heard %+v", s, heard)
				}
			}
			var list []witness.Raised
			var err error
			for end := time.Now().Add(10 * time.Second); (len(list) == 0 || len(list[0].Told) < 2) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if list, err = sa.promises.Alarms(t.Context(), time.Time{}); err != nil {
					t.Fatal(err)
				}
			}
			if len(list) != 1 || fmt.Sprint(list[0].Told) != "[AE BH]" {
				t.Errorf("told: %+v", list)
			}
			if _, err := witness.OpenAlarm([]byte(list[0].Note), w.union()); err != nil {
				t.Error(err)
			}
			sa.quiet(t)
		})
	}
}

// TestPromisesFork: a log that shows this state's witness, or another's, one
// history and holds its promises in another is found.
func TestPromisesFork(t *testing.T) {
	for _, s := range []union.State{"SA", "AE"} {
		t.Run(string(s), func(t *testing.T) { fork(t, s) })
	}
}

func fork(t *testing.T, cosigned union.State) {
	w := newWorld(t, 1, "BH", "SA", "AE")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	other := &node{state: "BH", keys: bh.keys, signers: bh.signers}
	w.open(other, storetest.SQLite(t))
	other.log = witness.NewLog(witness.LogConfig{Every: 10 * time.Millisecond}, witness.LogDeps{
		DB: other.db, Source: other.journal, State: "BH", Union: w.union, Now: time.Now, Log: quiet(),
		Ask: func(context.Context, union.State, string, []byte) ([]byte, error) {
			return nil, nil // it listens to nobody
		},
		Signer: func() (merkle.Signer, error) { return bh.signers[merkle.LogSignature], nil },
	})
	w.unlocked("SA", "AE")
	bh.fill(t, 5)
	if a := w.nodes[cosigned].add(t, bh.submission(t, 0, 5)); a.Status != witness.Done {
		t.Fatal(a)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = other.log.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	w.lies["BH"] = func(kind string, body []byte) ([]byte, error) {
		switch kind {
		case witness.KindHead:
			return other.log.Signed()
		case witness.KindLog:
			level, i, width, _ := merkle.ParsePath(string(body))
			if level == merkle.Entries {
				return other.journal.Bundle(ctx, i, width)
			}
			return other.journal.Tile(ctx, level, i, width)
		}
		return nil, fault.New(fault.NotFound, "")
	}
	other.fill(t, 8)
	h := w.message(other, sa, nil)
	w.watch(sa.promises)
	sa.promises.Hold(h)
	a := sa.alarm(t)
	if a.Kind != witness.AlarmDivided || len(a.Heads) != 2 {
		t.Fatalf("%+v", a)
	}
	for i, size := range []int64{5, 1} {
		if s, err := merkle.OpenCheckpoint([]byte(a.Heads[i]), bh.signers[merkle.LogSignature].Key); err != nil || i == 0 && s.Size != size {
			t.Errorf("head %d: %+v, %v", i, s, err)
		}
	}
}

// TestPromisesRememberHead: a log that shows another history after this node
// was started again is found.
func TestPromisesRememberHead(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	w.run("BH")
	stop := w.watch(sa.promises)
	sa.promises.Hold(w.message(bh, sa, nil))
	sa.settled(t)
	stop()
	w.open(bh, storetest.SQLite(t))
	w.run("BH")
	bh.fill(t, 8)
	sa.promises = w.newPromises(sa, 16)
	w.watch(sa.promises)
	sa.promises.Hold(w.message(bh, sa, nil))
	if a := sa.alarm(t); a.Kind != witness.AlarmDivided || len(a.Heads) != 2 {
		t.Errorf("%+v", a)
	}
}

// TestPromisesUnreadable: entries that are not to be had keep nobody from
// looking at the others; that they are not is seen.
func TestPromisesUnreadable(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	w.run("BH")
	w.mu.Lock()
	w.lies["BH"] = func(kind string, body []byte) ([]byte, error) {
		if level, i, _, ok := merkle.ParsePath(string(body)); kind == witness.KindLog && ok && level == merkle.Entries && i == 0 {
			return nil, fault.New(fault.NotFound, "")
		}
		return nil, nil // the truth
	}
	w.mu.Unlock()
	sa.promises.Hold(w.message(bh, sa, nil))
	bh.fill(t, 600)
	bad := w.message(bh, sa, func(h *witness.Held) { h.Leaf[0] ^= 1 })
	sa.promises.Hold(bad)
	w.watch(sa.promises)
	if a := sa.alarm(t); a.Kind != witness.AlarmAbsent || a.Count != 1 || a.Messages[0].Own != bad.Own {
		t.Errorf("%+v", a)
	}
	if x := sa.promises.Waiting(); len(x) != 1 || x[0].Messages != 1 || x[0].Silent == nil {
		t.Errorf("%+v", x)
	}
}

// TestPromisesUnsigned: that an alarm is due and cannot be signed is seen.
func TestPromisesUnsigned(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	w.run("BH")
	signer := sa.signers[merkle.LogSignature]
	var gone atomic.Bool
	gone.Store(true)
	sa.promises = w.newPromisesSigned(sa, 16, func() (merkle.Signer, error) {
		if gone.Load() {
			return merkle.Signer{}, fault.New(fault.NotFound, "no key")
		}
		return signer, nil
	})
	w.watch(sa.promises)
	sa.promises.Hold(w.message(bh, sa, func(h *witness.Held) { h.Index = -1 }))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if x := sa.promises.Waiting(); len(x) == 1 && x[0].Messages == 0 && x[0].Unraised != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", sa.promises.Waiting())
		}
	}
	gone.Store(false)
	sa.alarm(t)
	sa.settled(t)
}

// TestPromisesOneBehind: a state that is away makes nobody read the others'
// logs again at the next start, and is itself not forgotten.
func TestPromisesOneBehind(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA", "AE")
	bh, sa, ae := w.nodes["BH"], w.nodes["SA"], w.nodes["AE"]
	w.run("BH")
	w.run("AE")
	w.leave("AE")
	stop := w.watch(sa.promises)
	sa.promises.Hold(w.message(ae, sa, nil))
	// One that is broken, and said to be, of the state that is there.
	sa.promises.Hold(w.message(bh, sa, func(h *witness.Held) { h.Leaf[0] ^= 1 }))
	sa.alarm(t)
	time.Sleep(500 * time.Millisecond) // it is written down how far this is
	stop()
	w.back("AE")
	sa.promises = w.newPromises(sa, 16)
	w.watch(sa.promises)
	time.Sleep(200 * time.Millisecond)
	sa.settled(t)
	sa.quiet(t)
	bad := w.message(ae, sa, func(h *witness.Held) { h.Leaf[0] ^= 1 })
	sa.promises.Hold(bad)
	if a := sa.alarm(t); a.Of != "AE" || a.Count != 1 {
		t.Errorf("%+v", a)
	}
}

// TestPromisesHalted: a node that was halted with an old head in hand, and
// gives it when it goes on, is not accused.
func TestPromisesHalted(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	w.run("BH")
	bh.fill(t, 3)
	old := bh.sign(t, merkle.Checkpoint{Origin: bh.origin(), Size: 3, Root: func() merkle.Hash {
		_, root, err := bh.journal.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return root
	}()})
	w.mu.Lock()
	w.lies["BH"] = func(kind string, _ []byte) ([]byte, error) {
		if kind != witness.KindHead {
			return nil, nil
		}
		defer func() { old = nil }()
		return old, nil
	}
	w.mu.Unlock()
	h := w.message(bh, sa, nil)
	h.At = h.At.Add(-time.Minute)
	sa.promises.Hold(h)
	w.watch(sa.promises)
	sa.settled(t)
	sa.quiet(t)
}

// TestPromisesAfterCrash: what a crash took from memory is read again, and a
// record that was dropped meanwhile is still found.
func TestPromisesAfterCrash(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	w.unlocked("BH", "SA")
	w.run("BH")
	stop := w.watch(sa.promises)
	sa.promises.Hold(w.message(bh, sa, nil))
	sa.settled(t)
	for end := time.Now().Add(10 * time.Second); sa.cursor(t) < 1 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	w.leave("BH")
	for range 40 {
		sa.promises.Hold(w.message(bh, sa, nil))
	}
	bad := w.message(bh, sa, func(h *witness.Held) { h.Leaf[0] ^= 1 })
	sa.promises.Hold(bad)
	stop()
	sa.quiet(t)

	sa.promises = w.newPromises(sa, 1<<10)
	w.back("BH")
	w.watch(sa.promises)
	if a := sa.alarm(t); a.Kind != witness.AlarmAbsent || a.Count != 1 || a.Messages[0].Own != bad.Own {
		t.Errorf("%+v", a)
	}
	sa.settled(t)
}

// TestSilentLog: who answers without his log is no liar yet: it is said that
// he is silent, and nothing is signed against him.
func TestSilentLog(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	w.run("BH")
	for name, lie := range map[string]func(string, []byte) ([]byte, error){
		"its store failed": func(string, []byte) ([]byte, error) { return nil, fault.New(fault.StoreFailed, "") },
		"nonsense":         func(string, []byte) ([]byte, error) { return []byte("x"), nil },
		"no entries": func(kind string, _ []byte) ([]byte, error) {
			if kind == witness.KindHead {
				return nil, nil // the truth
			}
			return nil, fault.New(fault.NotFound, "")
		},
	} {
		w.mu.Lock()
		w.lies["BH"] = lie
		w.mu.Unlock()
		p := w.newPromises(sa, 16)
		stop := w.watch(p)
		p.Hold(w.message(bh, sa, nil))
		for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if x := p.Waiting(); len(x) == 1 && x[0].Silent != nil && time.Since(x[0].Since) > 400*time.Millisecond {
				break
			}
		}
		if x := p.Waiting(); len(x) != 1 || x[0].Silent == nil || x[0].Messages == 0 {
			t.Errorf("%s: %+v", name, x)
		}
		stop()
		sa.quiet(t)
	}
}

// TestHear: an alarm is taken from the state that signed it, once, and not
// without end.
func TestHear(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA", "AE")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	note := func(n *node, a witness.Alarm) []byte {
		b, err := a.Sign(n.signers[merkle.LogSignature])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a := witness.Alarm{From: "SA", Of: "AE", Kind: witness.AlarmLate, Log: "test.example/AE/log1", At: time.Now().UTC().Truncate(time.Second), Count: 1}
	good := note(sa, a)
	other := a
	other.From = "AE"
	words := func(change func(*witness.Alarm)) []byte {
		b := a
		change(&b)
		return note(sa, b)
	}
	long := a
	long.Messages = make([]witness.Broken, 9)
	for name, x := range map[string]struct {
		from union.State
		msg  []byte
	}{
		"brought by another":   {"AE", good},
		"of another":           {"SA", note(sa, other)},
		"changed":              {"SA", []byte(strings.Replace(string(good), `"AE"`, `"BH"`, 1))},
		"of nobody":            {"SA", []byte("falaj alarm v1\n{}\n\n— x y\n")},
		"too much":             {"SA", note(sa, long)},
		"a checkpoint":         {"SA", sa.sign(t, merkle.Checkpoint{Origin: sa.origin()})},
		"more than it may be":  {"SA", make([]byte, 1<<17)},
		"nothing":              {"SA", nil},
		"of no state":          {"SA", words(func(a *witness.Alarm) { a.Of = "\x1b[2J" })},
		"of no kind":           {"SA", words(func(a *witness.Alarm) { a.Kind = "\x1b[2J" })},
		"a name of no log":     {"SA", words(func(a *witness.Alarm) { a.Log = "a\x1b[2J" })},
		"no digest":            {"SA", words(func(a *witness.Alarm) { a.Messages = []witness.Broken{{Envelope: "\x1b[2J"}} })},
		"a short digest":       {"SA", words(func(a *witness.Alarm) { a.Messages = []witness.Broken{{Envelope: "00"}} })},
		"another log's head":   {"SA", words(func(a *witness.Alarm) { a.Heads = []string{"\x1b[2J\n"} })},
		"an unknown field":     {"SA", []byte(strings.Replace(string(good), `{"from"`, `{"x":1,"from"`, 1))},
		"signed as checkpoint": {"SA", []byte(strings.Replace(string(good), sa.origin()+"/alarm", sa.origin(), 1))},
	} {
		if err := bh.promises.Hear(t.Context(), x.from, x.msg); fault.CodeOf(err) != fault.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	bh.quiet(t)
	for range 2 {
		if err := bh.promises.Hear(t.Context(), "SA", good); err != nil {
			t.Fatal(err)
		}
	}
	if got := bh.alarm(t); got.Of != "AE" {
		t.Errorf("%+v", got)
	}
	bh.quiet(t)
	var err error
	for i := 0; i < 200 && err == nil; i++ {
		a.Count++
		err = bh.promises.Hear(t.Context(), "SA", note(sa, a))
		select {
		case <-bh.raised:
		default:
		}
	}
	if fault.CodeOf(err) != fault.Overloaded {
		t.Errorf("without end: %v", err)
	}
}

// TestHearAgain: whoever holds an alarm can put lines under it, and bring it
// again as often as he likes: it stays one, with its raiser's signature alone,
// and takes nothing from what its raiser may say.
func TestHearAgain(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA", "AE")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	a := witness.Alarm{From: "SA", Of: "AE", Kind: witness.AlarmLate, Log: "test.example/AE/log1", At: time.Now().UTC().Truncate(time.Second), Count: 1}
	good, err := a.Sign(sa.signers[merkle.LogSignature])
	if err != nil {
		t.Fatal(err)
	}
	for i := range 99 {
		if err := bh.promises.Hear(t.Context(), "SA", fmt.Appendf(good[:len(good):len(good)], "— junk%d AAAAAAA=\n", i)); err != nil {
			t.Fatal(i, err)
		}
	}
	a.Count++
	next, err := a.Sign(sa.signers[merkle.LogSignature])
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := bh.promises.Hear(t.Context(), "SA", next); err != nil {
			t.Fatal(err)
		}
	}
	list, err := bh.promises.Alarms(t.Context(), time.Time{})
	if err != nil || len(list) != 2 || len(bh.raised) != 2 {
		t.Fatalf("%d alarms, %d of them sounded, %v", len(list), len(bh.raised), err)
	}
	for _, x := range list {
		if x.Note != string(good) && x.Note != string(next) {
			t.Errorf("kept as %q", x.Note)
		}
	}
}

// TestHearAtOnce: of what comes at once no more is taken than one after the
// other, none that is old is taken, and it pushes no other state's alarm out.
func TestHearAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newWorld(t, 1, "BH", "SA", "AE")
		bh := w.nodes["BH"]
		w.open(bh, cfg)
		bh.raised = make(chan witness.Alarm, 1000)
		at := time.Now().UTC().Truncate(time.Second)
		hear := func(from union.State, at time.Time, count int) error {
			a := witness.Alarm{From: from, Of: "BH", Kind: witness.AlarmLate, Log: "test.example/BH/log1", At: at, Count: count}
			b, err := a.Sign(w.nodes[from].signers[merkle.LogSignature])
			if err != nil {
				t.Error(err)
			}
			return bh.promises.Hear(t.Context(), from, b)
		}
		if err := hear("AE", at.Add(-40*24*time.Hour), 1); fault.CodeOf(err) != fault.BadRequest {
			t.Errorf("of long ago: %v", err)
		}
		if err := hear("AE", at, 1); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range 160 {
			all.Go(func() {
				if err := hear("SA", at, i); err != nil && fault.CodeOf(err) != fault.Overloaded {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n, err := bh.promises.Count(t.Context(), time.Time{}); err != nil || n != 121 {
			t.Errorf("%d alarms, %v", n, err)
		}
		// Many more of the same state, of other hours.
		if _, err := bh.db.Exec(t.Context(), "UPDATE witness_alarm SET heard_at = heard_at - 7200000"); err != nil {
			t.Fatal(err)
		}
		for i := range 120 {
			if err := hear("SA", at, 1000+i); err != nil {
				t.Fatal(err)
			}
		}
		list, err := bh.promises.Alarms(t.Context(), time.Time{})
		if err != nil || len(list) != 201 || list[200].From != "AE" {
			t.Errorf("%d listed, %v", len(list), err)
		}
		// After their time they are gone.
		if _, err := bh.db.Exec(t.Context(), "UPDATE witness_alarm SET heard_at = heard_at - ?", int64(40*24*time.Hour/time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err := hear("AE", at, 2); err != nil {
			t.Fatal(err)
		}
		if n, err := bh.promises.Count(t.Context(), time.Time{}); err != nil || n != 1 {
			t.Errorf("%d alarms, %v", n, err)
		}
	})
}

func FuzzOpenAlarm(f *testing.F) {
	f.Add([]byte("falaj alarm v1\n{\"from\":\"SA\",\"kind\":\"late\"}\n\n— test.example/SA/log1/alarm AAAA\n"))
	f.Add([]byte("falaj alarm v1\n\n\n— a b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := witness.OpenAlarm(b, witness.Union{}); err == nil {
			t.Errorf("signed by nobody: %+v", a)
		}
		if a, err := witness.ParseAlarm(string(b)); err == nil && len(a.Messages) > 8 {
			t.Error("more messages than it may name")
		}
	})
}

// TestPromisesNewLog: a log that goes on under a new name and does not hold
// what the one before it had is found by whoever saw that, and said once; one
// that holds it is no finding.
func TestPromisesNewLog(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	old := &node{state: "BH", keys: bh.keys, signers: map[merkle.Kind]merkle.Signer{merkle.LogSignature: bh.signers[merkle.LogSignature]}}
	w.open(old, storetest.SQLite(t))
	w.unlocked("SA")
	old.fill(t, 50)
	if a := sa.add(t, old.submission(t, 0, 50)); a.Status != witness.Done {
		t.Fatal(a)
	}
	goOn := func(name string) {
		t.Helper()
		next, err := bh.signers[merkle.LogSignature].As(name)
		if err != nil {
			t.Fatal(err)
		}
		bh.signers[merkle.LogSignature] = next
	}
	from := bh.origin()
	goOn("test.example/BH/log2")
	bh.fill(t, 10) // what it was restored to
	stop := w.run("BH")
	watched := w.watch(sa.promises)
	hold := func() {
		t.Helper()
		sa.promises.Hold(w.message(bh, sa, nil))
		sa.settled(t)
	}
	hold()
	a := sa.alarm(t)
	if a.Kind != witness.AlarmEnded || a.Count != 0 || a.Log != bh.origin() || len(a.Heads) != 2 || merkle.Origin([]byte(a.Heads[0])) != from {
		t.Fatalf("%+v", a)
	}
	msg, err := a.Sign(sa.signers[merkle.LogSignature])
	if err != nil {
		t.Fatal(err)
	}
	if again, err := witness.OpenAlarm(msg, w.union()); err != nil || again.Kind != a.Kind {
		t.Errorf("%+v, %v", again, err)
	}
	a.Heads[0] = a.Heads[1]
	if msg, err = a.Sign(sa.signers[merkle.LogSignature]); err == nil {
		if _, err := witness.OpenAlarm(msg, w.union()); err == nil {
			t.Error("an alarm of an end without the log that ended")
		}
	}
	hold()
	watched()
	sa.promises = w.newPromises(sa, 1<<10) // started anew
	watched = w.watch(sa.promises)
	hold()
	sa.quiet(t)

	watched()
	stop()
	goOn("test.example/BH/log3") // it holds log2, and not log1
	w.run("BH")
	sa.promises = w.newPromises(sa, 1<<10)
	w.watch(sa.promises)
	hold()
	a = sa.alarm(t)
	if a.Kind != witness.AlarmEnded || merkle.Origin([]byte(a.Heads[0])) != from {
		t.Fatalf("%+v", a)
	}
	sa.quiet(t)
}
