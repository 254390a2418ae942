package witness_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// receipt waits for an entry's receipt and verifies it.
func (w *world) receipt(s union.State, index int64, leaf [32]byte) merkle.Signed {
	w.t.Helper()
	n := w.nodes[s]
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	if err := n.log.Wait(ctx, index); err != nil {
		w.t.Fatal(err)
	}
	r, err := n.log.Receipt(ctx, index)
	if err != nil {
		w.t.Fatal(err)
	}
	if r, err = merkle.ParseReceipt(r.Bytes()); err != nil {
		w.t.Fatal(err)
	}
	trust, ok := w.union().Trust(s)
	if !ok {
		w.t.Fatal("no log")
	}
	got, err := r.Verify(leaf[:], trust)
	if err != nil {
		w.t.Fatal(err)
	}
	own, err := n.signers[merkle.Cosignature].Line(got.Text(), time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	r.Note = append(r.Note, own...)
	if more, err := r.Verify(leaf[:], trust); err != nil || more.Witnesses() != got.Witnesses() {
		w.t.Errorf("its own state's cosignature counts: %+v, %v", more, err)
	}
	return got
}

// TestReceipts: entries get receipts with their quorum while they come, on
// both engines, and a later run goes on where the one before ended.
func TestReceipts(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newWorld(t, 2, "BH", "SA", "AE")
		bh := w.nodes["BH"]
		w.open(bh, cfg)
		w.unlocked("SA", "AE")
		stop := w.run("BH")
		var head merkle.Signed
		for _, n := range []int{1, 300, 5} {
			e := bh.fill(t, n)
			head = w.receipt("BH", e.Index, e.Leaf)
		}
		if _, err := bh.log.Receipt(t.Context(), 306); fault.CodeOf(err) != fault.ReceiptPending {
			t.Errorf("a record that is not there: %v", err)
		}
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := bh.log.Wait(short, 306); fault.CodeOf(err) != fault.ReceiptPending {
			t.Errorf("waiting for one: %v", err)
		}
		stop()

		w.open(bh, cfg) // another process
		w.leave("SA", "AE")
		stop = w.run("BH")
		e, err := bh.journal.Get(t.Context(), 5)
		if err != nil {
			t.Fatal(err)
		}
		if again := w.receipt("BH", 5, e.Leaf); again.Size != head.Size {
			t.Errorf("after a restart the head is of %d, not %d", again.Size, head.Size)
		}
		stop()
	})
}

// TestAway: witnesses that are away, stall or answer nonsense hold up nobody;
// without the quorum there is a signed head and no receipt.
func TestAway(t *testing.T) {
	w := newWorld(t, 2, "BH", "SA", "AE", "KW", "QA")
	bh := w.nodes["BH"]
	w.unlocked("SA", "AE", "KW", "QA")
	w.leave("KW")
	w.lies["QA"] = func(string, []byte) ([]byte, error) { return []byte("200\n— a b\n"), nil }
	w.run("BH")
	e := bh.fill(t, 3)
	begun := time.Now()
	w.receipt("BH", e.Index, e.Leaf)
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("the receipt took %v", d)
	}

	w.leave("AE")
	e = bh.fill(t, 1)
	wait, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := bh.log.Wait(wait, e.Index); fault.CodeOf(err) != fault.ReceiptPending {
		t.Errorf("with one of two witnesses: %v", err)
	}
	trust, _ := w.union().Trust("BH")
	b, err := bh.log.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	head, err := merkle.OpenCheckpoint(b, trust.Log, trust.Witnesses...)
	if err != nil || head.Size != e.Index+1 || head.Witnesses() != 1 {
		t.Errorf("published: %+v, %v", head, err)
	}
	w.back("AE")
	w.receipt("BH", e.Index, e.Leaf)
}

// TestUnnamed: a state that the directory names no log of goes on without.
func TestUnnamed(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh := w.nodes["BH"]
	w.order = []union.State{"SA"}
	w.run("BH")
	bh.fill(t, 1)
	time.Sleep(50 * time.Millisecond)
	if _, err := bh.log.Checkpoint(); fault.CodeOf(err) != fault.NotFound {
		t.Error(err)
	}
	if err := bh.log.Err(); err != nil {
		t.Error(err)
	}
}

// copyDB keeps a copy of a node's database, as a backup does.
func (n *node) copyDB(t *testing.T) store.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "old.db")
	if err := n.db.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	return store.Config{DSN: path}
}

// TestOldLog: a log restored from an old copy is found out by any witness that
// saw more, whether it is shorter now or has grown in another way; it signs
// nothing that contradicts what it signed.
func TestOldLog(t *testing.T) {
	for name, more := range map[string]int{"shorter": 1, "as long, and another": 10, "longer, and another": 30} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, "BH", "SA", "AE")
			bh := w.nodes["BH"]
			w.unlocked("SA", "AE")
			stop := w.run("BH")
			e := bh.fill(t, 10)
			w.receipt("BH", e.Index, e.Leaf)
			stop()
			old := bh.copyDB(t)
			stop = w.run("BH")
			e = bh.fill(t, 10)
			last := w.receipt("BH", e.Index, e.Leaf)
			stop()

			w.open(bh, old)
			bh.fill(t, more)
			stop = w.run("BH")
			for end := time.Now().Add(10 * time.Second); bh.log.Err() == nil && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
			if err := bh.log.Err(); fault.CodeOf(err) != fault.LogDivided {
				t.Error(err)
			}
			b, err := bh.log.Checkpoint()
			if err == nil && bytes.Contains(b, []byte("\n20\n")) && !bytes.HasPrefix(b, []byte(last.Text())) {
				t.Errorf("a second head of 20: %s", b)
			}
			for _, s := range []union.State{"SA", "AE"} {
				heads, err := w.nodes[s].witness.Heads(t.Context())
				if err != nil || !bytes.HasPrefix(heads, []byte(last.Text())) {
					t.Errorf("%s: %s %v", s, heads, err)
				}
			}
			stop()

			// People name a new log: it goes on with what it has.
			key, err := bh.keys.Signer("log")
			if err != nil {
				t.Fatal(err)
			}
			if bh.signers[merkle.LogSignature], err = merkle.NewSigner("test.example/BH/log2", merkle.LogSignature, key); err != nil {
				t.Fatal(err)
			}
			w.run("BH")
			e = bh.fill(t, 1)
			w.receipt("BH", e.Index, e.Leaf)
			if err := bh.log.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLyingWitness: a witness that says this log is another, and can show no
// head for it, stops nothing.
func TestLyingWitness(t *testing.T) {
	for name, answer := range map[string]string{"far ahead": "409\n1000000\n", "not grown": "422\nno\n", "divided": "409\n0\n", "nonsense": "409\n-1\n", "nothing": "200\n"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, "BH", "SA", "AE")
			w.unlocked("AE")
			stranger := w.nodes["SA"]
			w.lies["SA"] = func(kind string, _ []byte) ([]byte, error) {
				if kind == witness.KindHeads { // of another log, signed by the wrong key
					return stranger.sign(t, merkle.Checkpoint{Origin: w.nodes["BH"].origin(), Size: 1e6}), nil
				}
				return []byte(answer), nil
			}
			w.run("BH")
			for range 3 {
				e := w.nodes["BH"].fill(t, 2)
				w.receipt("BH", e.Index, e.Leaf)
			}
			if err := w.nodes["BH"].log.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOldWitness: a witness restored from an old copy cosigns nothing before
// it has taken over what the others saw, and never a second history.
func TestOldWitness(t *testing.T) {
	w := newWorld(t, 2, "BH", "SA", "AE")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	w.unlocked("SA", "AE")
	stop := w.run("BH")
	e := bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	old, oldLog := sa.copyDB(t), bh.copyDB(t)
	e = bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	stop()
	honest := bh.journal

	// The log's operator brings the witness's old copy and a second history.
	w.open(sa, old)
	w.open(bh, oldLog)
	bh.fill(t, 15)
	forged := bh.submission(t, 10, 25)
	if a := sa.add(t, forged); a.Status != witness.Locked {
		t.Fatalf("before it has heard anyone: %d %s", a.Status, a.Body)
	}
	w.leave("BH", "AE")
	soon, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := sa.witness.Unlock(soon); err != nil {
		t.Fatal(err)
	}
	if a := sa.add(t, forged); a.Status != witness.Locked {
		t.Fatalf("while nobody answers: %d %s", a.Status, a.Body)
	}

	// The others answer; the log shows its second history.
	w.back("BH", "AE")
	w.unlocked("SA")
	if a := sa.add(t, forged); a.Status != witness.Locked {
		t.Fatalf("of a divided log: %d %s", a.Status, a.Body)
	}

	// The log shows the history that the others saw.
	bh.journal = honest
	sa.witness = w.newWitness(sa)
	w.unlocked("SA")
	if a := sa.add(t, forged); a.Status != witness.Behind || string(a.Body) != "20\n" {
		t.Fatalf("after it has caught up: %d %s", a.Status, a.Body)
	}
	if a := sa.add(t, bh.submission(t, 20, 20)); a.Status != witness.Done {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
}

// TestAudit: a whole log is recomputed from what it serves, and each byte of
// it counts.
func TestAudit(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh := w.nodes["BH"]
	w.unlocked("SA")
	stop := w.run("BH")
	e := bh.fill(t, 700)
	w.receipt("BH", e.Index, e.Leaf)
	stop()
	trust, _ := w.union().Trust("BH")
	var spoil string
	partial := true
	get := func(ctx context.Context, path string) (b []byte, err error) {
		if path == "checkpoint" {
			return bh.log.Checkpoint()
		}
		if !partial && strings.Contains(path, ".p/") {
			return nil, os.ErrNotExist
		}
		level, n, width, ok := merkle.ParsePath(path)
		switch {
		case !ok:
			return nil, errors.New("no path")
		case level == merkle.Entries:
			b, err = bh.journal.Bundle(ctx, n, width)
		default:
			b, err = bh.journal.Tile(ctx, level, n, width)
		}
		if path == spoil && err == nil {
			b = bytes.Clone(b)
			b[len(b)/2] ^= 1
		}
		return b, err
	}
	a, err := witness.Audit(t.Context(), get, trust)
	if err != nil || a.Entries != 700 || a.Tiles != 4 || a.Head.Witnesses() != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	for _, spoil = range []string{"tile/entries/000", "tile/entries/002.p/188", "tile/0/001", "tile/0/002.p/188", "tile/1/000.p/2"} {
		if _, err := witness.Audit(t.Context(), get, trust); fault.CodeOf(err) != fault.LogDivided {
			t.Errorf("%s: %v", spoil, err)
		}
	}
	spoil = ""
	partial = false
	if _, err := witness.Audit(t.Context(), get, trust); err == nil { // neither in part nor whole
		t.Error("a log without its end is whole")
	}
	partial = true
	trust.Quorum = 2
	if a, err := witness.Audit(t.Context(), get, trust); !errors.Is(err, merkle.ErrQuorum) || a.Entries != 700 {
		t.Errorf("%+v, %v", a, err)
	}
	trust, _ = w.union().Trust("SA")
	if _, err := witness.Audit(t.Context(), get, trust); fault.CodeOf(err) != fault.LogUnsigned {
		t.Errorf("held against another's key: %v", err)
	}
}

// TestWitnessWarning: a witness that does not cosign is worth a warning once it
// goes on like that, and not while a union starts.
func TestWitnessWarning(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh := w.nodes["BH"]
	w.lies["SA"] = func(string, []byte) ([]byte, error) {
		return nil, fault.New(fault.PeerUnreachable, "it starts")
	}
	var asked, warned atomic.Int64
	var ahead atomic.Int64
	at := time.Now()
	log := witness.NewLog(witness.LogConfig{Every: 10 * time.Millisecond}, witness.LogDeps{
		DB: bh.db, Source: bh.journal, State: "BH", Union: w.union,
		Ask: func(ctx context.Context, to union.State, kind string, body []byte) ([]byte, error) {
			if kind == witness.KindAdd {
				asked.Add(1)
			} else if kind == witness.KindHeads {
				return nil, nil // it has seen nothing
			}
			return w.asker("BH")(ctx, to, kind, body)
		},
		Now:    func() time.Time { return at.Add(time.Duration(ahead.Load())) },
		Log:    slog.New(slog.NewTextHandler(warnings{&warned}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Signer: func() (merkle.Signer, error) { return bh.signers[merkle.LogSignature], nil },
	})
	bh.fill(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = log.Run(ctx) }()
	defer func() { cancel(); <-done }()
	tried := func(n int64) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); asked.Load() < n; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the witness is not asked")
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	tried(1)
	ahead.Add(int64(time.Second))
	tried(2)
	if n := warned.Load(); n != 0 {
		t.Errorf("%d warnings at the start", n)
	}
	for i := range int64(2) {
		ahead.Add(int64(20 * time.Second))
		tried(3 + i)
	}
	if n := warned.Load(); n != 1 {
		t.Errorf("%d warnings of a witness that stays away", n)
	}
}

// warnings counts lines about a witness that does not cosign.
type warnings struct{ n *atomic.Int64 }

func (w warnings) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("does not cosign")) {
		w.n.Add(1)
	}
	return len(b), nil
}
