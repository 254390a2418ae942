package journal

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"

	"github.com/falaj/falaj/internal/fault"
)

// ranges holds against each other which records the archive is said to hold:
// they are those from the log's beginning on, without a gap.
func (v *verifier) ranges(ctx context.Context) error {
	rows, err := pairs(ctx, v.j.db, "SELECT first, upto FROM journal_archive ORDER BY first")
	if err != nil {
		return err
	}
	next := int64(0)
	for _, r := range rows {
		if r[0] != next || r[1] <= r[0] {
			v.add(PartArchive, r[0], "its row names records %d to %d; the one before ends at %d", r[0], r[1]-1, next-1)
		}
		next = r[1]
		// What is archived is no longer beside it.
		var n int
		err := v.j.db.QueryRow(ctx, "SELECT COUNT(*) FROM journal_commit WHERE first >= ? AND first < ? AND ends <> ?", r[0], r[1], []byte{}).Scan(&n)
		if err != nil {
			return err
		}
		if n > 0 {
			v.add(PartArchive, r[0], "its row names records %d to %d, of which some are in the database", r[0], r[1]-1)
		}
	}
	return nil
}

// openFile opens the file in which a commit's records are said to lie, if it
// is not open.
func (v *verifier) openFile(ctx context.Context, first, count int64) {
	if f := v.file; f != nil && first >= f.first && first+count <= f.first+f.count || first+count <= v.absent {
		return
	}
	v.close()
	v.absent = first + count // until the file is open
	from, upto, err := v.j.archivedIn(ctx, first)
	if err == nil && first+count > upto {
		err = fault.New(fault.Corrupt, "its file ends at record %d", upto-1)
	}
	if fault.CodeOf(err) == fault.Corrupt {
		v.add(PartCommit, first, "its records are not there, and not in the archive: %s", fault.From(err).Detail)
		return
	}
	if err != nil {
		v.err = err
		return
	}
	v.absent = upto
	name := archiveName(from, upto)
	f, err := v.j.openArchive(from, upto)
	switch fault.CodeOf(err) {
	case "":
	case fault.Archived:
		v.Absent = append(v.Absent, name)
		return
	default:
		v.addWrong(Wrong{Part: PartArchive, Index: from, File: name, Detail: err.Error()})
		return
	}
	v.file, v.absent = f, math.MinInt64
	if err := f.whole(v.Vouch); err != nil {
		v.addWrong(Wrong{Part: PartArchive, Index: from, File: name, Detail: err.Error()})
	}
}

// archived is record for one that lies in the archive.
func (v *verifier) archived(index int64, leaf [leafSize]byte) (Stored, bool) {
	if v.file == nil || v.err != nil {
		return Stored{}, false
	}
	sealed, err := v.file.record(index - v.file.first)
	if err != nil {
		v.add(PartRecord, index, "it cannot be read: %v", err)
		return Stored{}, false
	}
	return v.opened(index, leaf, sealed)
}

func (v *verifier) close() {
	if v.file != nil {
		_ = v.file.Close()
		v.file = nil
	}
}

// strayFiles names the archive's files that no row names. What was archived
// while the records were looked at is none.
func (v *verifier) strayFiles(ctx context.Context) error {
	if v.j.archive == "" {
		return nil
	}
	entries, err := os.ReadDir(v.j.archive)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := pairs(ctx, v.j.db, "SELECT first, upto FROM journal_archive")
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, r := range rows {
		known[archiveName(r[0], r[1])] = true
	}
	for _, e := range entries {
		if name := e.Name(); name != archiveLock && !known[name] {
			v.addWrong(Wrong{Part: PartArchive, File: name, Detail: "no row names this file: an archiving is under way or broke off, or it is of another database"})
		}
	}
	return nil
}

// unfinished names the erasures that have not come to the archive.
func (v *verifier) unfinished(ctx context.Context) error {
	all, err := v.j.pending(ctx)
	if err != nil {
		return err
	}
	for _, p := range all {
		v.add(PartErasure, p.leaf, "its erasure, record %d, is under way in the archive or broke off", p.decision)
	}
	return nil
}

// erasures holds the marks against the decisions that they name.
func (v *verifier) erasures(ctx context.Context) error {
	for _, m := range v.marks {
		ok, err := v.j.decided(ctx, m[1], m[0])
		if err != nil {
			return err
		}
		if !ok {
			v.add(PartRecord, m[0], "it is marked as erased, and record %d is no decision to erase it", m[1])
		}
	}
	return nil
}
