package witness_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// world is a union of states in this process: each with keys, a database, a
// journal, a log and a witness of its own.
type world struct {
	t      *testing.T
	quorum int
	nodes  map[union.State]*node
	order  []union.State

	mu   sync.Mutex
	away map[union.State]bool
	lies map[union.State]func(kind string, body []byte) ([]byte, error)
}

type node struct {
	state   union.State
	keys    *seal.Keys
	cfg     store.Config
	db      *store.DB
	journal *journal.Journal
	log     *witness.Log
	witness *witness.Witness

	promises *witness.Promises
	received []witness.Held // by leaf: what the journal of a real node gives
	raised   chan witness.Alarm

	signers map[merkle.Kind]merkle.Signer
}

func newWorld(t *testing.T, quorum int, states ...union.State) *world {
	w := &world{t: t, quorum: quorum, nodes: map[union.State]*node{}, order: states, away: map[union.State]bool{}, lies: map[union.State]func(string, []byte) ([]byte, error){}}
	for _, s := range states {
		keys, err := seal.OpenKeys(filepath.Join(t.TempDir(), "keys"), seal.KeyConfig{})
		if err != nil {
			t.Fatal(err)
		}
		n := &node{state: s, keys: keys, cfg: storetest.SQLite(t), signers: map[merkle.Kind]merkle.Signer{}}
		for name, kind := range map[string]merkle.Kind{"log": merkle.LogSignature, "witness": merkle.Cosignature} {
			key, err := keys.Create(name, seal.Ed25519)
			if err != nil {
				t.Fatal(err)
			}
			if n.signers[kind], err = merkle.NewSigner("test.example/"+string(s)+"/"+name+"1", kind, key); err != nil {
				t.Fatal(err)
			}
		}
		w.nodes[s] = n
	}
	for _, s := range states {
		w.open(w.nodes[s], w.nodes[s].cfg)
	}
	return w
}

// open starts a node over a database.
func (w *world) open(n *node, cfg store.Config) {
	w.t.Helper()
	n.cfg, n.db = cfg, storetest.Open(w.t, cfg, journal.Migrations(), witness.Migrations())
	var err error
	if n.journal, err = journal.New(journal.Config{}, journal.Deps{DB: n.db, Records: n.keys.Records()}); err != nil {
		w.t.Fatal(err)
	}
	j := n.journal
	w.t.Cleanup(func() { _ = j.Close(context.Background()) })
	n.witness = w.newWitness(n)
	n.raised = make(chan witness.Alarm, 100)
	n.promises = w.newPromises(n, 1<<10)
	n.log = witness.NewLog(witness.LogConfig{Every: 10 * time.Millisecond, Patience: 500 * time.Millisecond, Answer: 300 * time.Millisecond}, witness.LogDeps{
		DB: n.db, Source: j, State: n.state, Union: w.union, Ask: w.asker(n.state), Now: time.Now, Log: quiet(),
		Signer: func() (merkle.Signer, error) { return n.signers[merkle.LogSignature], nil },
	})
}

func (w *world) newWitness(n *node) *witness.Witness {
	return witness.New(witness.Deps{
		DB: n.db, State: n.state, Union: w.union, Ask: w.asker(n.state), Now: time.Now, Log: quiet(),
		Signer: func() (merkle.Signer, error) { return n.signers[merkle.Cosignature], nil },
		Second: func() (merkle.Signer, error) { return n.signers[merkle.Quantum], nil },
	})
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func (w *world) union() witness.Union {
	u := witness.Union{Quorum: w.quorum}
	for _, s := range w.order {
		n := w.nodes[s]
		u.Parties = append(u.Parties, witness.Party{State: s, Log: n.signers[merkle.LogSignature].Key, Witness: n.signers[merkle.Cosignature].Key, Quantum: n.signers[merkle.Quantum].Key})
	}
	return u
}

// asker is the network between the nodes.
func (w *world) asker(from union.State) witness.Ask {
	return func(ctx context.Context, to union.State, kind string, body []byte) ([]byte, error) {
		w.mu.Lock()
		away, lie, n := w.away[to] || w.away[from], w.lies[to], w.nodes[to]
		w.mu.Unlock()
		if away {
			<-ctx.Done() // it does not even refuse
			return nil, fault.Wrap(fault.PeerUnreachable, ctx.Err(), "away")
		}
		if lie != nil {
			if b, err := lie(kind, body); b != nil || err != nil {
				return b, err
			}
		}
		switch kind {
		case witness.KindAdd:
			a, err := n.witness.Add(ctx, body)
			return a.Bytes(), err
		case witness.KindHeads:
			return n.witness.Heads(ctx)
		case witness.KindHead:
			return n.log.Signed()
		case witness.KindAlarm:
			return nil, n.promises.Hear(ctx, from, body)
		}
		level, i, width, ok := merkle.ParsePath(string(body))
		if !ok {
			return nil, errors.New("no path")
		}
		if level == merkle.Entries {
			return n.journal.Bundle(ctx, i, width)
		}
		return n.journal.Tile(ctx, level, i, width)
	}
}

func (w *world) leave(states ...union.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range states {
		w.away[s] = true
	}
}

func (w *world) back(states ...union.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range states {
		w.away[s] = false
	}
}

// unlocked lets a witness hear the others.
func (w *world) unlocked(states ...union.State) {
	w.t.Helper()
	for _, s := range states {
		if err := w.nodes[s].witness.Unlock(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// run lets a log publish for the test's duration, or until the function given
// is called.
func (w *world) run(s union.State) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	log := w.nodes[s].log
	go func() {
		defer close(done)
		_ = log.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return stop
}

// fill appends records.
func (n *node) fill(t *testing.T, count int) (last journal.Entry) {
	t.Helper()
	var wg sync.WaitGroup
	for range count - 1 {
		wg.Go(func() { n.record(t) })
	}
	wg.Wait()
	return n.record(t)
}

func (n *node) record(t *testing.T) journal.Entry {
	e, err := n.journal.Append(context.Background(), journal.Record{Kind: journal.Decision, At: time.Now(), Class: "exchange", Envelope: []byte("x")})
	if err != nil {
		t.Error(err)
	}
	return e
}

// submission is what the node's log would send for its first size entries to a
// witness that stands at old.
func (n *node) submission(t *testing.T, old, size int64) merkle.Submission {
	t.Helper()
	proof, _, root, err := merkle.ProveGrowth(old, size, func(level int, i int64, width int) ([]byte, error) {
		return n.journal.Tile(t.Context(), level, i, width)
	})
	if err != nil {
		t.Fatal(err)
	}
	return merkle.Submission{Old: old, Proof: proof, Note: n.sign(t, merkle.Checkpoint{Origin: n.origin(), Size: size, Root: root})}
}

func (n *node) origin() string { return n.signers[merkle.LogSignature].Name() }

func (n *node) sign(t testing.TB, c merkle.Checkpoint) []byte {
	t.Helper()
	line, err := n.signers[merkle.LogSignature].Line(c.Text(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return []byte(c.Text() + "\n" + line)
}

func (n *node) add(t testing.TB, s merkle.Submission) witness.Answer {
	t.Helper()
	a, err := n.witness.Add(context.Background(), s.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAdd walks through what C2SP tlog-witness says of add-checkpoint, in one
// life of one record.
func TestAdd(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newWorld(t, 1, "BH", "SA")
		bh, sa := w.nodes["BH"], w.nodes["SA"]
		w.open(sa, cfg)
		bh.fill(t, 40)
		good := bh.submission(t, 0, 7)
		if a := sa.add(t, good); a.Status != witness.Locked {
			t.Fatalf("before it has heard anyone: %d %s", a.Status, a.Body)
		}
		w.unlocked("SA")

		forged := func(c merkle.Checkpoint) merkle.Submission { return merkle.Submission{Note: bh.sign(t, c)} }
		head := func(size int64) merkle.Checkpoint {
			c, err := merkle.OpenCheckpoint(bh.submission(t, 0, size).Note, bh.signers[merkle.LogSignature].Key)
			if err != nil {
				t.Fatal(err)
			}
			return c.Checkpoint
		}
		other := head(12)
		other.Root[0] ^= 1
		strange := head(7)
		strange.Origin = "test.example/XX/log1"
		unsigned := good
		unsigned.Note = []byte(head(7).Text() + "\n— test.example/BH/log1 " + strings.Repeat("A", 92) + "\n")
		bad := bh.submission(t, 7, 20)
		bad.Proof[0][0] ^= 1
		short := bh.submission(t, 7, 20)
		short.Proof = short.Proof[1:]
		full := bh.submission(t, 0, 7)
		full.Proof = bh.submission(t, 3, 7).Proof
		twelve := forged(other)
		twelve.Old = 12
		for _, x := range []struct {
			name string
			s    merkle.Submission
			want int
			body string
		}{
			{"an origin that nobody knows", merkle.Submission{Note: bh.sign(t, strange)}, witness.UnknownLog, ""},
			{"its own state's log", merkle.Submission{Note: sa.sign(t, merkle.Checkpoint{Origin: sa.origin(), Root: head(7).Root, Size: 7})}, witness.UnknownLog, ""},
			{"a signature that is none", unsigned, witness.NotSigned, ""},
			{"no note", merkle.Submission{Note: []byte(bh.origin() + "\n")}, witness.Malformed, ""},
			{"an old size above the new", merkle.Submission{Old: 8, Note: good.Note}, witness.Malformed, ""},
			{"a proof from nothing", full, witness.NotGrown, ""},
			{"first sight, from where it never was", bh.submission(t, 3, 7), witness.Behind, "0\n"},
			{"first sight", good, witness.Done, ""},
			{"again, from nothing", good, witness.Behind, "7\n"},
			{"again", bh.submission(t, 7, 7), witness.Done, ""},
			{"a wrong proof", bad, witness.NotGrown, ""},
			{"a short proof", short, witness.NotGrown, ""},
			{"growth", bh.submission(t, 7, 12), witness.Done, ""},
			{"rolled back", bh.submission(t, 7, 7), witness.Behind, "12\n"},
			{"rolled back beneath", bh.submission(t, 3, 5), witness.Behind, "12\n"},
			{"divided, of the same size", twelve, witness.Behind, "12\n"},
			{"grown out of another", func() merkle.Submission { s := bh.submission(t, 13, 20); s.Old = 12; return s }(), witness.NotGrown, ""},
			{"more growth", bh.submission(t, 12, 40), witness.Done, ""},
		} {
			a := sa.add(t, x.s)
			if a.Status != x.want || x.body != "" && string(a.Body) != x.body {
				t.Fatalf("%s: %d %q", x.name, a.Status, a.Body)
			}
			if a.Status != witness.Done {
				continue
			}
			s, err := merkle.OpenCheckpoint(append(x.s.Note, a.Body...), bh.signers[merkle.LogSignature].Key, sa.signers[merkle.Cosignature].Key)
			if err != nil || s.Witnesses() != 1 || time.Since(s.Cosignatures[0].At) > time.Minute {
				t.Errorf("%s: %+v, %v", x.name, s, err)
			}
		}
		if a, err := sa.witness.Add(t.Context(), []byte("old 1")); err != nil || a.Status != witness.Malformed {
			t.Errorf("nothing: %+v, %v", a, err)
		}
	})
}

// TestOneRecord: processes that share a database never cosign two heads of
// which one did not grow out of the other, whatever order they come in.
func TestOneRecord(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newWorld(t, 1, "BH", "SA")
		bh, sa := w.nodes["BH"], w.nodes["SA"]
		w.open(sa, cfg)
		bh.fill(t, 64)
		processes := []*witness.Witness{sa.witness, w.newWitness(sa), w.newWitness(sa)}
		for _, p := range processes {
			if err := p.Unlock(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		firsts := map[int64]bool{}
		var wg sync.WaitGroup
		for size := int64(1); size <= 64; size++ { // of an unknown log, all at once
			s := bh.submission(t, 0, size).Bytes()
			wg.Go(func() {
				a, err := processes[size%3].Add(context.Background(), s)
				if err != nil {
					t.Error(err)
				}
				if a.Status == witness.Done {
					mu.Lock()
					firsts[size] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(firsts) != 1 {
			t.Fatalf("%d heads of %v were cosigned as the first", len(firsts), firsts)
		}
		for size := range firsts {
			if a := sa.add(t, bh.submission(t, 1, 64)); size != 1 && string(a.Body) != strconv.FormatInt(size, 10)+"\n" {
				t.Errorf("%d %q", a.Status, a.Body)
			}
		}
	})
}

// TestOneRecordOfTwo: of two histories that are shown to processes that share a
// database at one moment, one is cosigned.
func TestOneRecordOfTwo(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newWorld(t, 1, "BH", "SA")
		bh, sa := w.nodes["BH"], w.nodes["SA"]
		fork := &node{state: "BH", keys: bh.keys, signers: bh.signers}
		w.open(fork, storetest.SQLite(t))
		w.open(sa, cfg)
		bh.fill(t, 20)
		fork.fill(t, 20)
		processes := []*witness.Witness{sa.witness, w.newWitness(sa)}
		for _, p := range processes {
			if err := p.Unlock(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		cosigned := map[*node]int{}
		var wg sync.WaitGroup
		for i := range 20 {
			for j, of := range []*node{bh, fork} {
				s := of.submission(t, 0, int64(1+i%4)).Bytes()
				wg.Go(func() {
					a, err := processes[(i+j)%2].Add(context.Background(), s)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					if a.Status == witness.Done {
						cosigned[of]++
					}
				})
			}
		}
		wg.Wait()
		if len(cosigned) != 1 {
			t.Errorf("%d histories were cosigned", len(cosigned))
		}
	})
}

func TestTables(t *testing.T) { storetest.SameTables(t, witness.Migrations()) }

// FuzzAdd: nothing that is submitted does more than be refused.
func FuzzAdd(f *testing.F) {
	f.Add([]byte("old 0\n\ntest.example/BH/log1\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— test.example/BH/log1 Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"))
	f.Add([]byte("200\n— a b\n"))
	keys, err := seal.OpenKeys(filepath.Join(f.TempDir(), "keys"), seal.KeyConfig{})
	if err != nil {
		f.Fatal(err)
	}
	key, err := keys.Create("log", seal.Ed25519)
	if err != nil {
		f.Fatal(err)
	}
	log, err := merkle.NewKey("test.example/BH/log1", merkle.LogSignature, key.Public())
	if err != nil {
		f.Fatal(err)
	}
	w := witness.New(witness.Deps{
		DB: storetest.Open(f, storetest.SQLite(f), witness.Migrations()), State: "SA", Now: time.Now, Log: quiet(),
		Union:  func() witness.Union { return witness.Union{Parties: []witness.Party{{State: "BH", Log: log}}} },
		Signer: func() (merkle.Signer, error) { return merkle.Signer{}, errors.New("none") },
	})
	if err := w.Unlock(f.Context()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := w.Add(t.Context(), b); err != nil || a.Status == witness.Done {
			t.Errorf("%+v, %v", a, err)
		}
		if a, err := witness.ParseAnswer(b); err == nil && string(a.Bytes()) != string(b) {
			t.Errorf("%q is read as %+v", b, a)
		}
		witness.SplitHeads(b)
	})
}

func ExampleAnswer() {
	a, err := witness.ParseAnswer([]byte("409\n12\n"))
	fmt.Println(a.Status, string(a.Body), err)
	// Output:
	// 409 12
	//  <nil>
}

// TestSecondKey: a witness that has a second key cosigns with both, a log takes
// both home and counts one, and whoever does not know the second goes on.
func TestSecondKey(t *testing.T) {
	w := newWorld(t, 1, "BH", "SA")
	bh, sa := w.nodes["BH"], w.nodes["SA"]
	if _, err := sa.keys.Create("witness-mldsa", seal.MLDSA44); err != nil {
		t.Fatal(err)
	}
	key, err := sa.keys.Signer("witness-mldsa") // as it was written
	if err != nil {
		t.Fatal(err)
	}
	second, err := merkle.NewSigner(sa.signers[merkle.Cosignature].Name(), merkle.Quantum, key)
	if err != nil {
		t.Fatal(err)
	}
	sa.signers[merkle.Quantum] = second
	w.unlocked("SA")
	stop := w.run("BH")
	e := bh.fill(t, 3)
	head := w.receipt("BH", e.Index, e.Leaf)
	if head.Witnesses() != 1 || head.Quantum() != 1 {
		t.Errorf("%d and %d: %s", head.Witnesses(), head.Quantum(), head.Note())
	}
	stop()
	delete(sa.signers, merkle.Quantum)
	if a := sa.add(t, bh.submission(t, 3, 3)); a.Status != witness.Done || strings.Count(string(a.Body), "\n") != 1 {
		t.Errorf("without it: %d %s", a.Status, a.Body)
	}
}
