package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// LogConfig says how to load a log. The zero value appends records of 1 KiB for
// five seconds, 1024 at a time.
type LogConfig struct {
	Duration    time.Duration // at most a minute
	Concurrency int           // records under way; at most 4096
	Size        int           // bytes of a record's sealed message, at most 64 KiB
	Dir         string        // where the databases lie; default a temporary folder, removed after
}

// LogReport is what a run measured. Its JSON names are a contract.
type LogReport struct {
	Machine     Machine `json:"machine"`
	Seconds     float64 `json:"seconds"`
	Concurrency int     `json:"concurrency"`
	Size        int     `json:"size"`
	Leaves      int     `json:"leaves"` // durable when Append returned
	PerSecond   float64 `json:"leaves_per_second"`
	PerCommit   float64 `json:"leaves_per_commit"`
	CPUMicros   float64 `json:"cpu_us"` // of one leaf: of the whole process
	P50Micros   float64 `json:"append_p50_us"`
	P99Micros   float64 `json:"append_p99_us"`
	Extra       float64 `json:"extra_bytes"` // of a leaf in the database, beyond the message
	// Of records that were waited for: from the beginning of the append to a
	// receipt that another state's witness has cosigned, verified.
	Receipts        int     `json:"receipts"`
	ReceiptP50Milli float64 `json:"receipt_p50_ms"`
	ReceiptP99Milli float64 `json:"receipt_p99_ms"`
	// What the disk and the engine give without a log: waits for the disk, and
	// rows of a commit's bytes in the same database, one transaction each.
	SyncsPerSecond float64 `json:"fdatasync_per_second"`
	RawPerSecond   float64 `json:"raw_leaves_per_second"`
	RawCommits     float64 `json:"raw_commits_per_second"`
}

// waiters are the records of which the receipt is waited for, at a time.
const waiters = 32

// Log measures how many records a second are durably appended to the log of one
// state, and how soon they have a receipt cosigned by the witness of another,
// which has its own database here; between them is no network.
func Log(ctx context.Context, cfg LogConfig) (_ *LogReport, err error) {
	set(&cfg.Duration, 5*time.Second)
	set(&cfg.Concurrency, 1024)
	set(&cfg.Size, 1024)
	switch {
	case cfg.Duration < 0 || cfg.Duration > maxDuration:
		return nil, fault.New(fault.Usage, "duration %v; at most %v", cfg.Duration, maxDuration)
	case cfg.Concurrency < 1 || cfg.Concurrency > 4096-waiters:
		return nil, fault.New(fault.Usage, "%d records at a time; 1 to %d", cfg.Concurrency, 4096-waiters)
	case cfg.Size < minSize || cfg.Size > 64<<10:
		return nil, fault.New(fault.Usage, "records of %d bytes; %d to %d", cfg.Size, minSize, 64<<10)
	}
	dir, err := os.MkdirTemp(cfg.Dir, "falaj-bench-")
	if err != nil {
		return nil, fmt.Errorf("bench: make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	syncs, err := measureSync(dir)
	if err != nil {
		return nil, fmt.Errorf("bench: measure the disk: %w", err)
	}
	defer operation.Memory()() // as a node does
	l := &logLoad{cfg: cfg, dir: dir, union: map[union.State]*logNode{}}
	defer func() { err = errors.Join(err, l.close()) }()
	for _, s := range []union.State{"BH", "SA"} {
		if err := l.open(ctx, s); err != nil {
			return nil, fmt.Errorf("bench: open the log of %s: %w", s, err)
		}
	}
	out, err := l.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if err := l.raw(ctx, out); err != nil {
		return nil, fmt.Errorf("bench: rows without a log: %w", err)
	}
	out.Machine = machine(syncs)
	out.SyncsPerSecond = 1e6 / out.Machine.SyncMicros
	return out, nil
}

// logLoad is a union of two states' logs and witnesses, without nodes.
type logLoad struct {
	cfg   LogConfig
	dir   string
	union map[union.State]*logNode
}

type logNode struct {
	path    string
	db      *store.DB
	journal *journal.Journal
	log     *witness.Log
	witness *witness.Witness
	signers map[merkle.Kind]merkle.Signer
}

// states are those of the union, as a directory names them.
func (l *logLoad) states() witness.Union {
	u := witness.Union{Quorum: 1}
	for _, s := range []union.State{"BH", "SA"} {
		if n := l.union[s]; n != nil {
			u.Parties = append(u.Parties, witness.Party{State: s, Log: n.signers[merkle.LogSignature].Key, Witness: n.signers[merkle.Cosignature].Key})
		}
	}
	return u
}

// ask is the way from one state to another.
func (l *logLoad) ask(ctx context.Context, to union.State, kind string, body []byte) ([]byte, error) {
	n := l.union[to]
	switch kind {
	case witness.KindAdd:
		a, err := n.witness.Add(ctx, body)
		if err != nil {
			return nil, err
		}
		return a.Bytes(), nil
	case witness.KindHeads:
		return n.witness.Heads(ctx)
	}
	return nil, fault.New(fault.NotFound, "%s", kind)
}

func (l *logLoad) open(ctx context.Context, s union.State) error {
	keys, err := seal.OpenKeys(filepath.Join(l.dir, string(s)+"-keys"), seal.KeyConfig{Demonstration: true})
	if err != nil {
		return err
	}
	n := &logNode{path: filepath.Join(l.dir, string(s)+".db"), signers: map[merkle.Kind]merkle.Signer{}}
	for name, kind := range map[string]merkle.Kind{"log": merkle.LogSignature, "witness": merkle.Cosignature} {
		key, err := keys.Create(name, seal.Ed25519)
		if err != nil {
			return err
		}
		if n.signers[kind], err = merkle.NewSigner("bench.falaj.example/"+string(s)+"/"+name+"1", kind, key); err != nil {
			return err
		}
	}
	if n.db, err = store.Open(ctx, store.Config{DSN: n.path}, journal.Migrations(), witness.Migrations()); err != nil {
		return err
	}
	l.union[s] = n
	names, err := keys.HMAC("journal-1")
	if err != nil {
		return err
	}
	if n.journal, err = journal.New(journal.Config{}, journal.Deps{DB: n.db, Records: keys.Records(), Keys: names}); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	n.log = witness.NewLog(witness.LogConfig{}, witness.LogDeps{
		DB: n.db, Source: n.journal, State: s, Union: l.states, Ask: l.ask, Now: time.Now, Log: quiet,
		Signer: func() (merkle.Signer, error) { return n.signers[merkle.LogSignature], nil },
	})
	n.witness = witness.New(witness.Deps{
		DB: n.db, State: s, Union: l.states, Ask: l.ask, Now: time.Now, Log: quiet,
		Signer: func() (merkle.Signer, error) { return n.signers[merkle.Cosignature], nil },
	})
	return nil
}

func (l *logLoad) close() (err error) {
	for _, n := range l.union {
		if n.journal != nil {
			err = errors.Join(err, n.journal.Close(context.Background()))
		}
		err = errors.Join(err, n.db.Close())
	}
	return err
}

// run loads the log of BH.
func (l *logLoad) run(ctx context.Context) (*LogReport, error) {
	bh := l.union["BH"]
	if err := l.union["SA"].witness.Unlock(ctx); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	published := make(chan error, 1)
	go func() { published <- bh.log.Run(ctx) }()
	defer func() { stop(); <-published }()
	message := make([]byte, l.cfg.Size)
	_, _ = rand.Read(message) // never fails
	var count atomic.Int64
	var open atomic.Bool
	open.Store(true)
	add := func() (journal.Entry, error) {
		return bh.journal.Append(ctx, journal.Record{
			Kind: journal.RequestSent, Key: fmt.Sprintf("bench-%d", count.Add(1)), At: time.Now(), Class: "exchange",
			Envelope: message, Local: []byte(`{"door":"mutual","rules":["BH/policy.cedar/by-agreement"]}`),
		})
	}
	var mu sync.Mutex
	var took, receipts []time.Duration
	var failed error
	keep := func(into *[]time.Duration, own []time.Duration, err error) {
		mu.Lock()
		defer mu.Unlock()
		*into, failed = append(*into, own...), errors.Join(failed, err)
		if err != nil {
			open.Store(false)
		}
	}
	var wg sync.WaitGroup
	before, start := usage(), time.Now()
	for range l.cfg.Concurrency {
		wg.Go(func() {
			own, err := []time.Duration{}, error(nil)
			for err == nil && (len(own) == 0 || open.Load()) { // once also where the machine is too busy to begin in time
				at := time.Now()
				_, err = add()
				own = append(own, time.Since(at))
			}
			keep(&took, own, err)
		})
	}
	trust, _ := l.states().Trust("BH")
	var late sync.WaitGroup // what was begun under the load may end after it
	for range waiters {
		late.Go(func() {
			own, err := []time.Duration{}, error(nil)
			for err == nil && (len(own) == 0 || open.Load()) {
				at := time.Now()
				err = l.receipt(ctx, trust, add)
				own = append(own, time.Since(at))
			}
			keep(&receipts, own, err)
		})
	}
	sleep(ctx, l.cfg.Duration)
	open.Store(false)
	wg.Wait()
	elapsed, after := time.Since(start), usage()
	late.Wait()
	if failed != nil {
		return nil, failed
	}
	if len(took) == 0 || len(receipts) == 0 {
		return nil, errors.Join(ctx.Err(), errors.New("nothing was appended"))
	}
	slices.Sort(took)
	slices.Sort(receipts)
	out := &LogReport{
		Seconds: elapsed.Seconds(), Concurrency: l.cfg.Concurrency, Size: l.cfg.Size, Leaves: len(took),
		PerSecond: float64(len(took)) / elapsed.Seconds(), CPUMicros: micros(after.cpu-before.cpu) / float64(len(took)),
		P50Micros: micros(quantile(took, 0.5)), P99Micros: micros(quantile(took, 0.99)),
		Receipts: len(receipts), ReceiptP50Milli: micros(quantile(receipts, 0.5)) / 1000, ReceiptP99Milli: micros(quantile(receipts, 0.99)) / 1000,
	}
	return out, l.rest(ctx, out)
}

// receipt appends a record, waits for its receipt and verifies it.
func (l *logLoad) receipt(ctx context.Context, trust merkle.Trust, add func() (journal.Entry, error)) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	e, err := add()
	if err != nil {
		return err
	}
	log := l.union["BH"].log
	if err := log.Wait(ctx, e.Index); err != nil {
		return err
	}
	r, err := log.Receipt(ctx, e.Index)
	if err == nil {
		_, err = r.Verify(e.Leaf[:], trust)
	}
	return err
}

// rest looks at what lies in the database.
func (l *logLoad) rest(ctx context.Context, out *LogReport) error {
	db := l.union["BH"].db
	var commits, bytes int64
	if err := db.QueryRow(ctx, "SELECT COUNT(*) FROM journal_commit").Scan(&commits); err != nil {
		return err
	}
	if err := db.QueryRow(ctx, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()").Scan(&bytes); err != nil {
		return err
	}
	size, _, err := l.union["BH"].journal.Head(ctx)
	if err != nil {
		return err
	}
	out.PerCommit = float64(size) / float64(commits)
	out.Extra = float64(bytes)/float64(size) - float64(l.cfg.Size)
	return nil
}

// raw writes rows as large as the log's commits were, as fast as the engine
// takes them.
func (l *logLoad) raw(ctx context.Context, out *LogReport) error {
	db := l.union["SA"].db
	if _, err := db.Exec(ctx, "CREATE TABLE bench_row (first INTEGER NOT NULL PRIMARY KEY, records BLOB NOT NULL)"); err != nil {
		return err
	}
	row := make([]byte, int(out.PerCommit*(float64(l.cfg.Size)+out.Extra)))
	_, _ = rand.Read(row) // never fails
	rows, start := 0, time.Now()
	for time.Since(start) < min(l.cfg.Duration, 2*time.Second) {
		err := db.Write(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO bench_row (first, records) VALUES (?, ?)", rows, row)
			return err
		})
		if err != nil {
			return err
		}
		rows++
	}
	out.RawCommits = float64(rows) / time.Since(start).Seconds()
	out.RawPerSecond = out.RawCommits * out.PerCommit
	return nil
}
