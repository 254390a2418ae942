package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
)

const (
	// archiveTemp begins the name of a file that is being written, or that is on
	// its way out.
	archiveTemp = ".new-"
	archiveLock = "lock"
	// lockWait is how long one waits for another writer: some files of
	// archiveBytes each.
	lockWait = time.Minute
	lockPoll = 20 * time.Millisecond
)

// lockArchive keeps every other writer out of the archive's folder, of this
// process and of those that share it, until the file is closed, and clears away
// what one left that broke off.
func (j *Journal) lockArchive(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(j.archive, archiveLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the archive: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fault.New(fault.Conflict, "somebody else is writing to the archive; ask again"), f.Close())
		case <-time.After(lockPoll):
		}
	}
	left, globErr := filepath.Glob(filepath.Join(j.archive, archiveTemp+"*"))
	err = errors.Join(err, globErr)
	for _, path := range left {
		err = errors.Join(err, shred(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking the archive: %w", err), f.Close())
	}
	return f, nil
}

// shred overwrites a file and removes it, as the spool and the database do with
// what is erased. One that has another name only loses this one.
func shred(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if st, ok := statOf(info); err == nil && ok && st.Nlink == 1 {
		zeros := make([]byte, 1<<20)
		for at := int64(0); at < info.Size() && err == nil; at += int64(len(zeros)) {
			_, err = f.WriteAt(zeros[:min(int64(len(zeros)), info.Size()-at)], at)
		}
		if err == nil {
			err = f.Sync()
		}
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}

func statOf(info fs.FileInfo) (*syscall.Stat_t, bool) {
	if info == nil {
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st, ok
}

// place gives a finished file its name, durably; what was there under it is
// shredded, or by the next who has the lock.
func (j *Journal) place(temp, path string) error {
	old := temp + "-old"
	err := os.Link(path, old)
	had := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	if err := syncFolder(j.archive); err != nil || !had {
		return err
	}
	return shred(old)
}

// nothingMore tells whether all that a file of the archive holds stands in a
// new one too, but for what was erased since.
func nothingMore(path string, temp *os.File) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	was, err := readArchive(f)
	if err != nil {
		return err
	}
	is, err := readArchive(temp)
	if err != nil {
		return err
	}
	a, b := make([]byte, leafSize*was.count), make([]byte, leafSize*is.count)
	_, errA := was.ReadAt(a, was.leavesAt())
	_, errB := is.ReadAt(b, is.leavesAt())
	if errA != nil || errB != nil || was.first != is.first || !bytes.Equal(a, b) {
		return errors.Join(errA, errB, errors.New("its leaves are others"))
	}
	for i := range is.count {
		a, errA := was.record(i)
		b, errB := is.record(i)
		erased := len(b) > 0 && b[0] == markByte
		if errB != nil || !erased && (errA != nil || !bytes.Equal(a, b)) {
			return errors.Join(errA, errB, fmt.Errorf("its record %d is another", is.first+i))
		}
	}
	return nil
}

// pending is a record whose erasure is decided, and may not have come to the
// archive yet.
type pending struct{ leaf, decision int64 }

// FinishErasures puts marks in the place of erased records in the files of the
// archive: the files are written anew, signed by sign; vouch tells whether they
// are the ones that were signed. It goes on with what broke off. One file that
// cannot be written keeps no other from it.
func (j *Journal) FinishErasures(ctx context.Context, sign Sign, vouch Vouch) error {
	all, err := j.pending(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	if _, err := os.Stat(j.archive); err == nil {
		lock, err := j.lockArchive(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = lock.Close() }()
		if all, err = j.pending(ctx); err != nil { // the one before may have done it
			return err
		}
	}
	// What stands in this table is no decision yet: the record of one is.
	var fails []error
	left := map[int64]bool{}
	files := map[archiveRange][]pending{}
	for _, p := range all {
		d, err := j.Get(ctx, p.decision)
		if err == nil && !d.decides(p.leaf) {
			err = fault.New(fault.Corrupt, "record %d is no decision to erase record %d", p.decision, p.leaf)
		}
		var in []archiveRange
		if err == nil {
			in, err = j.filesOf(ctx, p.leaf)
		}
		if err != nil {
			fails, left[p.leaf] = append(fails, err), true
		}
		for _, r := range in {
			files[r] = append(files[r], p)
		}
	}
	for r, gone := range files {
		err := j.rewrite(ctx, r, gone, sign, vouch)
		if err == nil || !r.listed && fault.CodeOf(err) == fault.Corrupt {
			continue // or it is another's: fsck names it
		}
		fails = append(fails, fmt.Errorf("erasing from the archive: %w", err))
		for _, p := range gone {
			left[p.leaf] = true
		}
	}
	err = j.db.Write(ctx, func(tx *store.Tx) error {
		for _, p := range all {
			if left[p.leaf] {
				continue
			}
			if _, err := tx.Exec(ctx, "DELETE FROM journal_erase_pending WHERE leaf = ? AND decision = ?", p.leaf, p.decision); err != nil {
				return fmt.Errorf("erasing from the archive: %w", err)
			}
		}
		return nil
	})
	return errors.Join(append(fails, err)...)
}

func (j *Journal) pending(ctx context.Context) ([]pending, error) {
	rows, err := pairs(ctx, j.db, "SELECT leaf, decision FROM journal_erase_pending ORDER BY leaf")
	if err != nil {
		return nil, fmt.Errorf("reading which erasures are not finished: %w", err)
	}
	var all []pending
	for _, r := range rows {
		all = append(all, pending{r[0], r[1]})
	}
	return all, nil
}

// archiveRange names a file of the archive.
type archiveRange struct {
	first, upto int64
	listed      bool // its records are no longer in the database
}

// filesOf finds the files that may hold a record: the one it is said to lie in,
// and those that archivings left which broke off.
func (j *Journal) filesOf(ctx context.Context, leaf int64) (in []archiveRange, err error) {
	rows, err := pairs(ctx, j.db, "SELECT first, upto FROM journal_archive")
	if err != nil {
		return nil, fmt.Errorf("looking for record %d in the archive: %w", leaf, err)
	}
	listed := map[string]bool{}
	for _, r := range rows {
		listed[archiveName(r[0], r[1])] = true
		if r[0] <= leaf && leaf < r[1] {
			in = append(in, archiveRange{r[0], r[1], true})
		}
	}
	entries, err := os.ReadDir(j.archive)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking for record %d in the archive: %w", leaf, err)
	}
	for _, e := range entries {
		var first, last int64
		if n, _ := fmt.Sscanf(e.Name(), "records-%d-%d.", &first, &last); n == 2 && archiveName(first, last+1) == e.Name() &&
			first <= leaf && leaf <= last && !listed[e.Name()] {
			in = append(in, archiveRange{first, last + 1, false})
		}
	}
	return in, nil
}

// rewrite writes a file anew with marks in the place of records, over itself:
// Corrupt where it is not the one that was signed, of these leaves.
func (j *Journal) rewrite(ctx context.Context, r archiveRange, without []pending, sign Sign, vouch Vouch) error {
	a, err := j.openArchive(r.first, r.upto)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	path := a.Name()
	if err := a.whole(vouch); err != nil {
		return fault.Wrap(fault.CodeOf(err), err, "%s", path)
	}
	leaves, err := j.leaves(ctx, r.first, r.upto)
	if err != nil {
		return err
	}
	own := make([]byte, leafSize*a.count)
	if _, err := a.ReadAt(own, a.leavesAt()); err != nil {
		return fault.Wrap(fault.StoreFailed, err, "reading the archive")
	}
	if !bytes.Equal(own, leaves) {
		return fault.New(fault.Corrupt, "%s: its leaves are not those of the log", path)
	}
	temp, err := os.CreateTemp(j.archive, archiveTemp+"*")
	if err != nil {
		return fmt.Errorf("writing to the archive: %w", err)
	}
	defer func() { _, _ = temp.Close(), os.Remove(temp.Name()) }() // no name of it is left if it was placed
	gone := map[int64]int64{}
	for _, p := range without {
		gone[p.leaf] = p.decision
	}
	w := archiveWriter{file: temp, first: r.first, at: int64(archiveHead)}
	for i := range a.count {
		leaf := [leafSize]byte(leaves[i*leafSize:])
		sealed, err := a.record(i)
		if err != nil {
			return err
		}
		if decision, ok := gone[r.first+i]; ok {
			sealed = j.mark(r.first+i, leaf, decision)
		}
		if err := w.add(leaf, sealed); err != nil {
			return fmt.Errorf("writing to the archive: %w", err)
		}
	}
	if _, err := w.finish(sign); err != nil {
		return fmt.Errorf("writing to the archive: %w", err)
	}
	if err := j.place(temp.Name(), path); err != nil {
		return fmt.Errorf("writing to the archive: %w", err)
	}
	now, err := j.openArchive(r.first, r.upto)
	if err != nil {
		return err
	}
	defer func() { _ = now.Close() }()
	for _, p := range without {
		i := p.leaf - r.first
		b, err := now.record(i)
		if err != nil {
			return err
		}
		if decision, ok := j.marked(p.leaf, [leafSize]byte(leaves[i*leafSize:]), b); !ok || decision != p.decision {
			return fault.New(fault.StoreFailed, "%s: record %d is there still", path, p.leaf)
		}
	}
	return nil
}

// leaves reads those from first on and below upto out of the database.
func (j *Journal) leaves(ctx context.Context, first, upto int64) (out []byte, err error) {
	rows, err := j.db.Query(ctx, "SELECT first, leaves FROM journal_commit WHERE first >= ? AND first < ? ORDER BY first", first, upto)
	if err != nil {
		return nil, fmt.Errorf("reading leaves: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var at int64
		var some []byte
		if err := rows.Scan(&at, &some); err != nil {
			return nil, fmt.Errorf("reading leaves: %w", err)
		}
		if at != first+int64(len(out)/leafSize) {
			return nil, fault.New(fault.Corrupt, "the commit at %d is out of place", at)
		}
		out = append(out, some...)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading leaves: %w", err)
	}
	return out, nil
}
