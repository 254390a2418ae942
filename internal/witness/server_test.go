package witness_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/witness"
)

// gate stops a log, as its process may be stopped.
type gate struct {
	sync.Mutex
	waiting atomic.Int32
}

func (g *gate) pass() {
	g.waiting.Add(1)
	g.Lock()
	g.waiting.Add(-1)
	g.Unlock()
}

// stop returns when the log stands.
func (g *gate) stop() {
	g.Lock()
	for g.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
}

// beside makes a second publisher of a state's log, of another process on the
// same database.
func (w *world) beside(n *node, cfg store.Config) (log *witness.Log, g *gate) {
	w.t.Helper()
	db := storetest.Open(w.t, cfg, journal.Migrations(), witness.Migrations())
	j, err := journal.New(journal.Config{}, journal.Deps{DB: db, Records: n.keys.Records()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = j.Close(context.Background()) })
	g = &gate{}
	union := func() witness.Union {
		g.pass()
		return w.union()
	}
	return witness.NewLog(witness.LogConfig{Every: 10 * time.Millisecond, Patience: 500 * time.Millisecond, Answer: 300 * time.Millisecond}, witness.LogDeps{
		DB: db, Source: j, State: n.state, Union: union, Ask: w.asker(n.state), Now: time.Now, Log: quiet(),
		Signer: func() (merkle.Signer, error) { return n.signers[merkle.LogSignature], nil },
	}), g
}

// divided waits until a log says that it is not the one that was shown.
func divided(t *testing.T, log *witness.Log) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); log.Err() == nil && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if err := log.Err(); fault.CodeOf(err) != fault.LogDivided {
		t.Fatal(err)
	}
}

// newest is the size of the newest head that a database holds signed.
func newest(t *testing.T, db *store.DB) (size int64) {
	t.Helper()
	if err := db.QueryRow(t.Context(), "SELECT size FROM witness_checkpoint WHERE stage = 1").Scan(&size); err != nil {
		t.Fatal(err)
	}
	return size
}

// TestOldServer: the database of a running log goes away and comes back as an
// older copy, which then grows in another way. Neither the process that has
// published more, nor one that had seen no more than the copy holds, signs
// anything of it.
func TestOldServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, "BH", "SA", "AE")
	bh := w.nodes["BH"]
	server := storetest.NewServer(t)
	cfg := store.Config{DSN: server.DSN()}
	w.open(bh, cfg)
	w.unlocked("SA", "AE")
	w.run("BH")
	e := bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	old := server.Copy()

	second, gate := w.beside(bh, cfg)
	first := bh.log
	bh.log = second
	w.run("BH")
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := second.Signed(); err == nil {
			break // it has seen ten
		}
	}
	gate.stop()
	bh.log = first
	e = bh.fill(t, 10)
	last := w.receipt("BH", e.Index, e.Leaf)

	server.Kill()
	server.Restore(old)
	server.Start()
	again := storetest.Open(t, cfg)
	j, err := journal.New(journal.Config{}, journal.Deps{DB: again, Records: bh.keys.Records()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close(context.Background()) })
	bh.journal = j
	bh.fill(t, 15)
	gate.Unlock()
	divided(t, first)
	divided(t, second)
	if n := newest(t, again); n > 10 {
		t.Errorf("a head of %d was signed beside that of %d", n, last.Size)
	}
	if _, err := second.Signed(); fault.CodeOf(err) != fault.LogDivided {
		t.Errorf("who asks for its newest head hears %v", err)
	}
}

// TestDividedProcesses: of two processes with a database each, the one that has
// nothing to record learns that the other has gone on before it signs anything.
func TestDividedProcesses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, "BH", "SA", "AE")
	bh := w.nodes["BH"]
	w.unlocked("SA", "AE")
	w.run("BH")
	e := bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	idle, db := bh.log, bh.db
	w.open(bh, bh.copyDB(t))
	w.run("BH")
	e = bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	divided(t, idle)
	if n := newest(t, db); n != 10 {
		t.Errorf("it has signed a head of %d", n)
	}
	if err := bh.log.Err(); err != nil {
		t.Errorf("the other: %v", err)
	}
}

// TestRolledBack: a database that is set back while it runs, and whose server
// stays the same, is found out by the process that remembers more.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, "BH", "SA", "AE")
	bh := w.nodes["BH"]
	w.open(bh, storetest.Postgres(t))
	w.unlocked("SA", "AE")
	log, gate := w.beside(bh, bh.cfg)
	bh.log = log
	w.run("BH")
	tables := []string{"journal_head", "journal_commit", "journal_tile", "witness_checkpoint"}
	e := bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	gate.stop()
	for _, table := range tables {
		if _, err := bh.db.Exec(t.Context(), "CREATE TABLE old_"+table+" AS SELECT * FROM "+table); err != nil {
			t.Fatal(err)
		}
	}
	gate.Unlock()
	e = bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	gate.stop()
	for _, table := range tables {
		if _, err := bh.db.Exec(t.Context(), "DELETE FROM "+table); err != nil {
			t.Fatal(err)
		}
		if _, err := bh.db.Exec(t.Context(), "INSERT INTO "+table+" SELECT * FROM old_"+table); err != nil {
			t.Fatal(err)
		}
	}
	bh.fill(t, 15)
	gate.Unlock()
	divided(t, log)
	if n := newest(t, bh.db); n > 10 {
		t.Errorf("a head of %d was signed", n)
	}
}

// TestNobodyTells: a log whose witnesses are away signs nothing before half of
// them have told what they saw of it; what was cosigned before stays published.
func TestNobodyTells(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, "BH", "SA", "AE", "KW")
	bh := w.nodes["BH"]
	w.unlocked("SA", "AE", "KW")
	stop := w.run("BH")
	e := bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	stop()
	w.open(bh, bh.cfg)
	w.leave("SA", "AE")
	bh.fill(t, 5)
	w.run("BH")
	for end := time.Now().Add(10 * time.Second); fault.CodeOf(bh.log.Late()) != fault.ReceiptPending && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	if err := bh.log.Late(); fault.CodeOf(err) != fault.ReceiptPending {
		t.Error(err)
	}
	if _, err := bh.log.Signed(); fault.CodeOf(err) != fault.ReceiptPending {
		t.Errorf("its newest head: %v", err)
	}
	if n := newest(t, bh.db); n != 10 {
		t.Errorf("a head of %d is signed", n)
	}
	if b, err := bh.log.Checkpoint(); err != nil {
		t.Errorf("published: %s, %v", b, err)
	}
	w.back("SA")
	for end := time.Now().Add(10 * time.Second); newest(t, bh.db) != 15 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if n := newest(t, bh.db); n != 15 {
		t.Errorf("with half of the witnesses a head of %d is signed", n)
	}
}

// TestWitnessOnOldServer: the database of a running witness comes back as an
// older copy: it cosigns no second history of what it has forgotten.
func TestWitnessOnOldServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, "BH", "SA", "AE")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	server := storetest.NewServer(t)
	w.open(sa, store.Config{DSN: server.DSN()})
	w.unlocked("AE")
	ctx, cancel := context.WithCancel(context.Background())
	var guard sync.WaitGroup
	guard.Go(func() { _ = sa.witness.Guard(ctx) })
	t.Cleanup(func() { cancel(); guard.Wait() })
	stop := w.run("BH")
	e := bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	old, oldLog := server.Copy(), bh.copyDB(t)
	e = bh.fill(t, 10)
	w.receipt("BH", e.Index, e.Leaf)
	stop()
	honest := bh.journal

	w.leave("BH", "AE") // nobody tells the witness
	server.Kill()
	server.Restore(old)
	server.Start()
	w.open(bh, oldLog)
	bh.fill(t, 15)
	forged := bh.submission(t, 10, 25)
	ask := func(s merkle.Submission) (a witness.Answer) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			var err error
			if a, err = sa.witness.Add(t.Context(), s.Bytes()); err == nil {
				return a
			}
		}
		t.Fatal("the witness does not answer")
		return a
	}
	for range 20 {
		if a := ask(forged); a.Status != witness.Locked {
			t.Fatalf("on an older copy: %d %s", a.Status, a.Body)
		}
		time.Sleep(5 * time.Millisecond)
	}
	bh.journal = honest
	w.back("BH", "AE")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		a := ask(forged)
		if a.Status == witness.Behind && string(a.Body) == "20\n" {
			break // it has taken over what the others saw
		}
		if a.Status != witness.Locked || time.Now().After(end) {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
}
