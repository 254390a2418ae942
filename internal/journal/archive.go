package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
)

// An archive file holds the records of successive leaves as they were stored,
// encrypted under their periods' keys:
//
//	"falaj archive v1\n" | first leaf (8) | number of records (8) | length of records (8)
//	| records | where each ends, from the first's beginning (8 each) | leaves (32 each) | note
//
// Numbers are big-endian. The note is a signed note (C2SP signed-note) by the
// state's log:
//
//	falaj archive v1
//	<first leaf> <number of records>
//	<SHA-256 of all bytes before the note, base64>
const (
	archiveTitle = "falaj archive v1\n"
	archiveHead  = len(archiveTitle) + 3*8
	maxNote      = 16 << 10
	// archiveBytes is when a file is full: the transaction that empties its
	// rows holds up the commits.
	archiveBytes   = 64 << 20
	archiveRecords = 1 << 16
	maxArchived    = MaxEnvelope + MaxBody + MaxLocal + 64<<10 // bytes of one record
)

// Sign gives the signature line of a note's text: by the state's log.
type Sign func(text string) (line string, err error)

// Vouch says whether a note is signed by a log of this state.
type Vouch func(note []byte) error

// Archived is a file of the archive.
type Archived struct {
	File  string `json:"file"` // name in the folder
	First int64  `json:"first"`
	Count int64  `json:"count"`
	Bytes int64  `json:"bytes"`
}

const archiveSuffix = ".falaj"

func archiveName(first, upto int64) string {
	return fmt.Sprintf("records-%013d-%013d%s", first, upto-1, archiveSuffix)
}

// errMoved says that rows changed while they were being archived.
var errMoved = errors.New("journal: records were erased while they were being archived; ask again")

// Archive moves the records from the beginning of the log up to the first one
// of the month before, or a later one, into files: each is written, on disk and
// verified before the records leave the database, so that breaking off loses
// nothing and Archive goes on when it is asked again. Leaves, tiles and keys
// stay. done is told of each file, and says whether to go on.
func (j *Journal) Archive(ctx context.Context, before seal.Period, sign Sign, vouch Vouch, done func(Archived) (more bool)) error {
	if j.archive == "" {
		return fault.New(fault.ConfigInvalid, "no folder for the archive is named")
	}
	if err := os.MkdirAll(j.archive, 0o700); err != nil {
		return fmt.Errorf("making the archive's folder: %w", err)
	}
	if err := syncFolder(filepath.Dir(j.archive)); err != nil {
		return fmt.Errorf("making the archive's folder: %w", err)
	}
	for {
		a, err := j.archiveSome(ctx, before, sign, vouch)
		if err != nil || a.Count == 0 {
			return err
		}
		if !done(a) {
			return nil
		}
	}
}

// archiveSome makes one file; none where nothing is left.
func (j *Journal) archiveSome(ctx context.Context, before seal.Period, sign Sign, vouch Vouch) (a Archived, err error) {
	lock, err := j.lockArchive(ctx)
	if err != nil {
		return a, err
	}
	defer func() { _ = lock.Close() }()
	if err := j.db.QueryRow(ctx, "SELECT COALESCE(MAX(upto), 0) FROM journal_archive").Scan(&a.First); err != nil {
		return a, fmt.Errorf("finding where the archive ends: %w", err)
	}
	temp, err := os.CreateTemp(j.archive, archiveTemp+"*")
	if err != nil {
		return a, fmt.Errorf("writing to the archive: %w", err)
	}
	defer func() { _, _ = temp.Close(), os.Remove(temp.Name()) }() // no name of it is left if it was placed
	w := archiveWriter{file: temp, first: a.First, at: int64(archiveHead)}
	var rows []archivedRow
	for len(w.leaves) < archiveRecords*leafSize && w.at < archiveBytes {
		row, more, err := j.toArchive(ctx, a.First+int64(len(w.leaves)/leafSize), before, &w)
		if err != nil {
			return a, err
		}
		if !more {
			break
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return a, nil
	}
	if a.Bytes, err = w.finish(sign); err != nil {
		return a, fmt.Errorf("writing to the archive: %w", err)
	}
	a.Count = int64(len(w.leaves) / leafSize)
	a.File = archiveName(a.First, a.First+a.Count)
	path := filepath.Join(j.archive, a.File)
	// Never over another: after a restore it may hold what is nowhere else. What
	// an archiving left that broke off gives way: records that it has may have
	// been erased since.
	if _, err := os.Lstat(path); err == nil {
		if err := nothingMore(path, temp); err != nil {
			return a, fault.Wrap(fault.Conflict, err, "%s is there already and is not of these records: move it away, and keep it", path)
		}
	}
	if err := j.place(temp.Name(), path); err != nil {
		return a, fmt.Errorf("writing to the archive: %w", err)
	}
	if err := j.checkArchive(ctx, a.First, w.leaves, vouch); err != nil {
		return a, err
	}
	err = j.db.WriteLocked(ctx, func(tx *store.Tx) error {
		if _, err := lockHead(ctx, tx); err != nil {
			return err
		}
		for _, r := range rows {
			res, err := tx.Exec(ctx, "UPDATE journal_commit SET ends = ?, records = ? WHERE first = ? AND ends = ?", []byte{}, []byte{}, r.first, r.ends)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n != 1 {
				return errors.Join(err, errMoved)
			}
		}
		_, err := tx.Exec(ctx, "INSERT INTO journal_archive (first, upto) VALUES (?, ?)", a.First, a.First+a.Count)
		return err
	})
	if err != nil {
		return a, fmt.Errorf("taking archived records out of the database: %w", err)
	}
	return a, nil
}

// archivedRow is a commit whose records are in the file; its ends change
// whenever one of them is erased.
type archivedRow struct {
	first int64
	ends  []byte
}

// toArchive writes the commit at a leaf; false where it is not there or not
// old enough.
func (j *Journal) toArchive(ctx context.Context, at int64, before seal.Period, w *archiveWriter) (row archivedRow, more bool, err error) {
	var leaves, records []byte
	err = j.db.QueryRow(ctx, "SELECT leaves, ends, records FROM journal_commit WHERE first = ?", at).Scan(&leaves, &row.ends, &records)
	if errors.Is(err, sql.ErrNoRows) {
		return row, false, nil
	}
	if err != nil {
		return row, false, fmt.Errorf("reading the commit at %d: %w", at, err)
	}
	row.first = at
	n := len(leaves) / leafSize
	for i := range n {
		from, to, ok := span(row.ends, i)
		if !ok || to > len(records) {
			return row, false, fault.New(fault.Corrupt, "where record %d begins and ends; falaj fsck tells more", at+int64(i))
		}
		if _, period, ok := seal.PeriodOfRecord(records[from:to]); ok && period >= before {
			return row, false, nil
		}
	}
	for i := range n {
		from, to, _ := span(row.ends, i)
		leaf := [leafSize]byte(leaves[i*leafSize:])
		if _, wrong, err := j.open(at+int64(i), leaf, records[from:to]); wrong != "" {
			return row, false, fault.Wrap(fault.Corrupt, err, "record %d: its %s is not what was written; falaj fsck tells more", at+int64(i), wrong)
		}
		if err := w.add(leaf, records[from:to]); err != nil {
			return row, false, fmt.Errorf("writing to the archive: %w", err)
		}
	}
	return row, true, nil
}

// archiveWriter writes a file of the archive.
type archiveWriter struct {
	file         *os.File
	first        int64
	at           int64 // where the next record begins
	leaves, ends []byte
}

func (w *archiveWriter) add(leaf [leafSize]byte, sealed []byte) error {
	_, err := w.file.WriteAt(sealed, w.at)
	w.at += int64(len(sealed))
	w.leaves = append(w.leaves, leaf[:]...)
	w.ends = binary.BigEndian.AppendUint64(w.ends, uint64(w.at-int64(archiveHead)))
	return err
}

// finish writes the rest, signs, and makes the file durable; it tells its size.
func (w *archiveWriter) finish(sign Sign) (int64, error) {
	count := int64(len(w.leaves) / leafSize)
	head := []byte(archiveTitle)
	for _, n := range []int64{w.first, count, w.at - int64(archiveHead)} {
		head = binary.BigEndian.AppendUint64(head, uint64(n))
	}
	end := w.at + int64(len(w.ends)+len(w.leaves))
	_, err := w.file.WriteAt(head, 0)
	if err == nil {
		_, err = w.file.WriteAt(append(w.ends, w.leaves...), w.at)
	}
	if err != nil {
		return 0, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(w.file, 0, end)); err != nil {
		return 0, err
	}
	text := archiveText(w.first, count, sum.Sum(nil))
	line, err := sign(text)
	if err != nil {
		return 0, fmt.Errorf("signing: %w", err)
	}
	n, err := w.file.WriteAt([]byte(text+"\n"+line), end)
	if err == nil {
		err = w.file.Sync()
	}
	return end + int64(n), err
}

func archiveText(first, count int64, sum []byte) string {
	return fmt.Sprintf("%s%d %d\n%s\n", archiveTitle, first, count, base64.StdEncoding.EncodeToString(sum))
}

// archiveFile is a file of the archive that is being read.
type archiveFile struct {
	*os.File
	first, count, length int64
}

// openArchive opens the file of the records from first on and below upto.
func (j *Journal) openArchive(first, upto int64) (*archiveFile, error) {
	path := filepath.Join(j.archive, archiveName(first, upto))
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Archived, "%s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the archive: %w", err)
	}
	a, err := readArchive(f)
	if err == nil && (a.first != first || a.count != upto-first) {
		err = fault.New(fault.Corrupt, "it is not the file of these records")
	}
	if err != nil {
		_ = f.Close()
		return nil, fault.Wrap(fault.CodeOf(err), err, "%s", path)
	}
	return a, nil
}

// readArchive reads a file's head.
func readArchive(f *os.File) (*archiveFile, error) {
	head := make([]byte, archiveHead)
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, fault.Wrap(fault.StoreFailed, err, "reading the archive")
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "reading the archive")
	}
	n := func(i int) int64 { return int64(binary.BigEndian.Uint64(head[len(archiveTitle)+8*i:])) }
	a := &archiveFile{f, n(0), n(1), n(2)}
	if !bytes.HasPrefix(head, []byte(archiveTitle)) || a.first < 0 || a.count < 1 || a.count > 1<<20 || a.length < 0 || a.length > info.Size() || a.noteAt() > info.Size() {
		return nil, fault.New(fault.Corrupt, "it is no file of an archive")
	}
	return a, nil
}

func (a *archiveFile) endsAt() int64   { return int64(archiveHead) + a.length }
func (a *archiveFile) leavesAt() int64 { return a.endsAt() + 8*a.count }
func (a *archiveFile) noteAt() int64   { return a.leavesAt() + leafSize*a.count }

// record reads a record as it was stored; the error is Corrupt or StoreFailed.
func (a *archiveFile) record(i int64) ([]byte, error) {
	ends := make([]byte, 16) // of the one before, and its own
	from := max(0, i-1)
	if _, err := a.ReadAt(ends[:8*(i-from+1)], a.endsAt()+8*from); err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "reading the archive")
	}
	begin, end := int64(0), int64(binary.BigEndian.Uint64(ends))
	if i > 0 {
		begin, end = end, int64(binary.BigEndian.Uint64(ends[8:]))
	}
	if begin < 0 || end < begin || end > a.length || end-begin > maxArchived {
		return nil, fault.New(fault.Corrupt, "where record %d begins and ends in the archive", a.first+i)
	}
	b := make([]byte, end-begin)
	if _, err := a.ReadAt(b, int64(archiveHead)+begin); err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "reading the archive")
	}
	return b, nil
}

// whole holds the file against its note, and that against who signed it.
func (a *archiveFile) whole(vouch Vouch) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(a, 0, a.noteAt())); err != nil {
		return fault.Wrap(fault.StoreFailed, err, "reading the archive")
	}
	note, err := io.ReadAll(io.NewSectionReader(a, a.noteAt(), maxNote))
	if err != nil {
		return fault.Wrap(fault.StoreFailed, err, "reading the archive")
	}
	if !strings.HasPrefix(string(note), archiveText(a.first, a.count, sum.Sum(nil))+"\n") {
		return fault.New(fault.Corrupt, "the file is not the one that was signed")
	}
	if err := vouch(note); err != nil {
		return fault.Wrap(fault.Corrupt, err, "its signature: %v", err)
	}
	return nil
}

// checkArchive reads back what was written.
func (j *Journal) checkArchive(ctx context.Context, first int64, leaves []byte, vouch Vouch) error {
	upto := first + int64(len(leaves)/leafSize)
	a, err := j.openArchive(first, upto)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	if err := a.whole(vouch); err != nil {
		return err
	}
	for i := range upto - first {
		sealed, err := a.record(i)
		if err == nil {
			_, _, err = j.open(first+i, [leafSize]byte(leaves[i*leafSize:]), sealed)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("reading back what was archived: record %d: %w", first+i, err)
		}
	}
	return nil
}

// fromArchive reads an archived record as it was stored.
func (j *Journal) fromArchive(ctx context.Context, index int64) ([]byte, error) {
	first, upto, err := j.archivedIn(ctx, index)
	if err != nil {
		return nil, err
	}
	a, err := j.openArchive(first, upto)
	if err != nil {
		return nil, err
	}
	defer func() { _ = a.Close() }()
	return a.record(index - first)
}

// archivedIn finds the file that a record is in.
func (j *Journal) archivedIn(ctx context.Context, index int64) (first, upto int64, err error) {
	err = j.db.QueryRow(ctx, "SELECT first, upto FROM journal_archive WHERE first <= ? ORDER BY first DESC LIMIT 1", index).Scan(&first, &upto)
	if errors.Is(err, sql.ErrNoRows) || err == nil && upto <= index {
		return 0, 0, fault.New(fault.Corrupt, "record %d is neither in the database nor in the archive", index)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("looking for record %d in the archive: %w", index, err)
	}
	return first, upto, nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
