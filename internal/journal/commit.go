package journal

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
)

const (
	// maxGroup and maxGroupBytes bound one transaction.
	maxGroup      = 2048
	maxGroupBytes = 8 << 20
	// keptBlob is the largest buffer kept for the next transaction.
	keptBlob = 1 << 20
	// Under load a commit waits for company: once crowd records have come within
	// crowdTime, the next begins no sooner than crowdTime after the first of
	// them. A commit costs about as much CPU as a signature, whatever is in it;
	// who appends alone, or with few, never waits here.
	crowd     = 8
	crowdTime = 2 * time.Millisecond
	// yields is how often the committer lets the callers run who are about to
	// append: on a fast disk the queue is nearly empty when it looks, and
	// groups of one would each pay for a commit.
	yields = 8
)

// run is the committer: one goroutine, one group at a time.
func (j *Journal) run(ctx context.Context) {
	defer close(j.done)
	for range j.wake {
		for {
			group, closing := j.take()
			if len(group) == 0 {
				if closing {
					return
				}
				break
			}
			if err := j.commit(ctx, group); err != nil {
				j.fail(group, err)
				j.revive(ctx)
				continue
			}
			for _, w := range group {
				j.sealed.Put(w.sealed)
				close(w.done)
			}
		}
	}
}

// take waits for company and until the queue stops growing, and takes a group
// off it.
func (j *Journal) take() (group []*job, closing bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writing = 0
	if wait := crowdTime - time.Since(j.pace[j.turn]); wait > 0 && len(j.queue) > 0 && len(j.queue) < maxGroup && !j.closing {
		j.mu.Unlock()
		time.Sleep(wait)
		j.mu.Lock()
	}
	for range yields {
		n := len(j.queue)
		if n == 0 || n >= maxGroup {
			break
		}
		j.mu.Unlock()
		runtime.Gosched()
		j.mu.Lock()
		if len(j.queue) == n {
			break
		}
	}
	n, size := 0, 0
	for n < len(j.queue) && len(group) < maxGroup {
		w := j.queue[n]
		if len(group) > 0 && size+len(*w.sealed) > maxGroupBytes {
			break
		}
		n++
		j.bytes -= len(*w.sealed)
		if w.state.CompareAndSwap(waiting, taken) {
			group = append(group, w)
			size += len(*w.sealed)
		}
	}
	rest := copy(j.queue, j.queue[n:])
	clear(j.queue[rest:])
	j.queue = j.queue[:rest]
	j.writing = len(group)
	for now, n := time.Now(), min(len(group), crowd); n > 0; n-- {
		j.pace[j.turn] = now
		j.turn = (j.turn + 1) % crowd
	}
	return group, j.closing && rest == 0
}

// fail refuses the group, all that waits, and all that comes.
func (j *Journal) fail(group []*job, err error) {
	f := fault.From(err)
	if f.Code != fault.DiskFull && f.Code != fault.Corrupt {
		f = fault.Wrap(fault.StoreFailed, err, "journalling")
	}
	tried := f
	if f.Code == fault.StoreFailed {
		tried = fault.Wrap(f.Code, errors.Join(ErrUnclear, err), "journalling")
	}
	j.mu.Lock()
	j.down = f
	for _, w := range j.queue {
		if w.state.CompareAndSwap(waiting, taken) {
			w.err = f
			close(w.done)
		}
	}
	clear(j.queue)
	j.queue, j.bytes = j.queue[:0], 0
	j.mu.Unlock()
	for _, w := range group {
		if !w.excluded || w.err == nil {
			w.err = tried
		}
		close(w.done)
	}
}

// revive tries to write until that succeeds: what failed once is taken to
// fail until a commit proves otherwise.
func (j *Journal) revive(ctx context.Context) {
	for pause := max(j.cfg.ProbeEvery/16, time.Millisecond); ; pause = min(2*pause, j.cfg.ProbeEvery) {
		err := j.probe(ctx)
		j.mu.Lock()
		j.down = fault.From(err)
		end := err == nil || j.closing
		j.mu.Unlock()
		if end {
			// Nothing came in while the journal was down; Close may have.
			j.signal()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// probe commits a write that changes nothing, after the log has been found
// whole.
func (j *Journal) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, j.cfg.Timeout)
	defer cancel()
	if err := j.checkHead(ctx); err != nil {
		return err
	}
	return j.db.WriteLocked(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE journal_head SET size = size WHERE id = 1")
		return err
	})
}

// errAgain asks for the group once more: without the records excluded
// meanwhile, or from where the head stands now.
var errAgain = errors.New("journal: once more")

// commit makes a group durable. A record that its own hook excludes has its
// error and index no place; the error returned is the whole group's.
func (j *Journal) commit(ctx context.Context, group []*job) error {
	ctx, cancel := context.WithTimeout(ctx, j.cfg.Timeout)
	defer cancel()
	for {
		var now *head
		err := j.db.WriteLocked(ctx, func(tx *store.Tx) (err error) {
			now, err = j.write(ctx, tx, group)
			return err
		})
		if j.head = nil; err == nil && j.db.Dialect() == store.SQLite {
			j.head = now
		}
		if !errors.Is(err, errAgain) {
			return err
		}
	}
}

// head is the log's head as it stands in its row.
type head struct {
	size int64
	edge []byte
}

// write is one transaction: the lock, the hooks, the tree, the records. On
// SQLite, whose file other processes rarely write, the head is remembered; that
// it is the stored one is made sure of when it moves.
func (j *Journal) write(ctx context.Context, tx *store.Tx, group []*job) (now *head, err error) {
	was := j.head
	if was == nil {
		if was, err = lockHead(ctx, tx); err != nil {
			return nil, err
		}
	}
	edge, err := merkle.ParseEdge(was.size, was.edge)
	if err != nil {
		return nil, fault.Wrap(fault.Corrupt, err, "the head of the log")
	}
	first := edge.Size()
	in := make([]*job, 0, len(group))
	for _, w := range group {
		if w.excluded {
			continue
		}
		w.entry.Index = first + int64(len(in))
		w.err = w.hook(ctx, tx)
		if err := tx.Broken(); err != nil {
			return nil, err // the engine's doing, and everyone's
		}
		if w.err != nil && (tx.Failed() || tx.Changed()) {
			// It left something behind: the group starts again without it.
			w.excluded = true
			return nil, errAgain
		}
		if w.err == nil {
			in = append(in, w)
		}
	}
	if len(in) == 0 {
		return was, nil
	}
	if err := writeTree(ctx, tx, &edge, in); err != nil {
		return nil, fmt.Errorf("writing the tree: %w", err)
	}
	if now, err = moveHead(ctx, tx, &edge, was.size); err != nil {
		return nil, err
	}
	if err := j.writeRecords(ctx, tx, first, in); err != nil {
		return nil, fmt.Errorf("writing %d records: %w", len(in), err)
	}
	for era := first / eraSize; era < edge.Size()/eraSize; era++ {
		if err := writeEra(ctx, tx, era); err != nil {
			return nil, fmt.Errorf("writing the keys of era %d: %w", era, err)
		}
	}
	return now, nil
}

// hook runs a record's In. A panic there must not take every exchange with it.
func (w *job) hook(ctx context.Context, tx *store.Tx) (err error) {
	if w.in == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Internal, "journal: a hook panicked: %v", p)
		}
	}()
	tx.ResetChanged()
	if err = w.in(ctx, tx, w.entry.Index); err == nil && tx.Failed() {
		err = fault.New(fault.Internal, "journal: a hook hid the failure of its statement")
	}
	return err
}

// lockHead reads the head and, on PostgreSQL, holds it against other
// processes until the transaction ends.
func lockHead(ctx context.Context, tx *store.Tx) (*head, error) {
	var h head
	err := tx.QueryRow(ctx, "SELECT size, edge FROM journal_head WHERE id = 1 FOR UPDATE").Scan(&h.size, &h.edge)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.Corrupt, "the log has no head")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the head: %w", err)
	}
	return &h, nil
}

// moveHead puts the head where the tree ends, if it stands where this began.
func moveHead(ctx context.Context, tx *store.Tx, edge *merkle.Edge, was int64) (*head, error) {
	now, root := &head{edge.Size(), edge.Bytes()}, edge.Root()
	res, err := tx.Exec(ctx, "UPDATE journal_head SET size = ?, root = ?, edge = ? WHERE id = 1 AND size = ?",
		now.size, root[:], now.edge, was)
	if err != nil {
		return nil, fmt.Errorf("moving the head: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return nil, fmt.Errorf("moving the head: %w", err)
	} else if n != 1 {
		return nil, errAgain // another process moved it
	}
	return now, nil
}

func (j *Journal) writeRecords(ctx context.Context, tx *store.Tx, first int64, in []*job) error {
	leaves := make([]byte, 0, len(in)*leafSize)
	keys := make([]byte, 0, len(in)*keySize)
	ends := make([]byte, 0, len(in)*endSize)
	records := j.blob[:0] // the engines copy what they are given
	for _, w := range in {
		leaves = append(leaves, w.entry.Leaf[:]...)
		keys = append(keys, w.key[:]...)
		records = append(records, *w.sealed...)
		ends = binary.BigEndian.AppendUint32(ends, uint32(len(records)))
	}
	_, err := tx.Exec(ctx, "INSERT INTO journal_commit (first, leaves, keys, ends, records) VALUES (?, ?, ?, ?, ?)",
		first, leaves, keys, ends, records)
	if j.blob = records; cap(records) > keptBlob {
		j.blob = nil
	}
	return err
}

// writeTree adds the leaves and what they complete of the tiles.
func writeTree(ctx context.Context, tx *store.Tx, edge *merkle.Edge, in []*job) error {
	var err error
	grown := map[[2]int64][]byte{}
	full := func(level int, n int64, root merkle.Hash) {
		at := [2]int64{int64(level), n / merkle.TileWidth}
		if _, ok := grown[at]; !ok && err == nil {
			grown[at], err = readTile(ctx, tx, level, at[1], int(n%merkle.TileWidth))
		}
		grown[at] = append(grown[at], root[:]...)
	}
	for _, w := range in {
		edge.Append(merkle.Leaf(w.entry.Leaf[:]), full)
	}
	if err != nil {
		return err
	}
	for at, hashes := range grown {
		_, err := tx.Exec(ctx, `INSERT INTO journal_tile (level, n, hashes) VALUES (?, ?, ?)
			ON CONFLICT (level, n) DO UPDATE SET hashes = excluded.hashes`, at[0], at[1], hashes)
		if err != nil {
			return err
		}
	}
	return nil
}
