package journal_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

// sign and vouch stand for the log's key.
func sign(text string) (string, error) {
	sum := sha256.Sum256([]byte(text))
	return "— test " + hex.EncodeToString(sum[:]) + "\n", nil
}

func vouch(note []byte) error {
	text, line, _ := strings.Cut(string(note), "\n\n")
	if want, _ := sign(text + "\n"); line != want {
		return errors.New("signed by nobody who is known")
	}
	return nil
}

func tryErase(t *testing.T, j *journal.Journal, leaves ...int64) error {
	_, err := j.Erase(t.Context(), journal.Erasure{Leaves: leaves, By: []string{"an officer"}, Reason: "a court", At: record(0).At, Class: "admin"}, sign, vouch, nil)
	return err
}

func erase(t *testing.T, j *journal.Journal, leaves ...int64) journal.Entry {
	t.Helper()
	e, err := j.Erase(t.Context(), journal.Erasure{Leaves: leaves, By: []string{"an officer"}, Reason: "a court", At: record(0).At, Class: "admin"}, sign, vouch, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func fsck(t *testing.T, d journal.Deps) *journal.Report {
	t.Helper()
	r, err := journal.Inspect(context.Background(), d, journal.Inspection{Vouch: vouch})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestErase: of an erased record its leaf stays and which decision it was;
// the others stay as they are, and the log is whole.
func TestErase(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		j, db := open(t, cfg)
		ctx := t.Context()
		n := 4200 // an era with its index, and one without
		if db.Dialect() == store.Postgres {
			n = 300
		}
		fill(t, j, n)
		mine, err := j.Find(ctx, record(7).Key)
		if err != nil || len(mine) != 1 {
			t.Fatal(len(mine), err)
		}
		late, err := j.Get(ctx, int64(n-1))
		if err != nil {
			t.Fatal(err)
		}
		hooked := 0
		d, err := j.Erase(ctx, journal.Erasure{Leaves: []int64{mine[0].Index, late.Index}, By: []string{"a"}, Reason: "r", At: record(0).At, Class: "admin"}, sign, vouch,
			func(context.Context, *store.Tx) error { hooked++; return nil })
		if err != nil || hooked == 0 {
			t.Fatal(hooked, err)
		}
		for _, was := range []journal.Stored{mine[0], late} {
			s, err := j.Get(ctx, was.Index)
			if err != nil || !s.Erased || s.ErasedBy != d.Index || s.Leaf != was.Leaf || s.Envelope != nil {
				t.Errorf("%+v %v", s, err)
			}
			if found, err := j.Find(ctx, was.Key); err != nil || len(found) != 0 {
				t.Errorf("found by its key: %d %v", len(found), err)
			}
		}
		for i := range int64(n) {
			if i != mine[0].Index && i != late.Index {
				if s, err := j.Get(ctx, i); err != nil || s.Erased {
					t.Fatalf("record %d: %+v %v", i, s, err)
				}
			}
		}
		if r := verify(t, j); !r.OK() || r.Erased != 2 || r.Size != int64(n)+1 {
			t.Errorf("%+v", r)
		}
		erase(t, j, mine[0].Index) // again
		if r := verify(t, j); !r.OK() || r.Erased != 2 {
			t.Errorf("%+v", r)
		}
		_, err = j.Erase(ctx, journal.Erasure{Leaves: []int64{d.Index}, At: record(0).At, Class: "admin"}, sign, vouch, nil)
		if fault.CodeOf(err) != fault.Conflict {
			t.Errorf("a decision is erased: %v", err)
		}
		_, err = j.Erase(ctx, journal.Erasure{Leaves: []int64{1 << 30}, At: record(0).At, Class: "admin"}, sign, vouch, nil)
		if fault.CodeOf(err) != fault.NotFound {
			t.Errorf("nothing is erased: %v", err)
		}
	})
}

// TestEraseNothingByTheWay: a record is not erased by who writes a mark in its
// place, whatever decision the mark names.
func TestEraseNothingByTheWay(t *testing.T) {
	j, db := open(t, storetest.SQLite(t))
	fill(t, j, 3)
	erase(t, j, 1)
	var first int64
	var ends, records []byte
	if err := db.QueryRow(t.Context(), "SELECT first, ends, records FROM journal_commit WHERE first <= 1 ORDER BY first DESC LIMIT 1").Scan(&first, &ends, &records); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(records, []byte{0, 0, 0, 0, 0, 0, 0, 0, 3})
	if at < 0 {
		t.Fatal("no mark")
	}
	for _, bit := range []int{8*8 + 0, 9*8 + 3, 24*8 + 7} {
		changed := slices.Clone(records)
		changed[at+bit/8] ^= 1 << (bit % 8)
		if _, err := db.Exec(t.Context(), "UPDATE journal_commit SET records = ? WHERE first = ?", changed, first); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, j); len(r.Wrong) != 1 || r.Wrong[0].Part != journal.PartRecord || r.Wrong[0].Index != 1 {
			t.Errorf("bit %d: %+v", bit, r.Wrong)
		}
	}
}

// months opens a journal with an archive and records of September, October and
// November.
func months(t *testing.T, cfg store.Config) (*journal.Journal, *store.DB, journal.Deps, string) {
	t.Helper()
	db := storetest.Open(t, cfg, journal.Migrations())
	keys := filepath.Join(t.TempDir(), "keys")
	d := deps(t, db, keys)
	d.Archive = filepath.Join(t.TempDir(), "archive")
	j := start(t, journal.Config{}, d)
	for n := range 90 {
		r := record(n)
		r.At = time.Date(2026, time.Month(9+n/30), 10, 0, 0, n, 0, time.UTC)
		r.Body = bytes.Repeat([]byte{byte(n)}, 2000)
		if _, err := j.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	return j, db, d, keys
}

func archive(t *testing.T, j *journal.Journal, before seal.Period) (files []journal.Archived) {
	t.Helper()
	if err := j.Archive(t.Context(), before, sign, vouch, func(a journal.Archived) bool { files = append(files, a); return true }); err != nil {
		t.Fatal(err)
	}
	return files
}

// TestArchive: what is archived is read and found as before, the database is
// smaller, and the log is whole; without the files it is said where they are.
func TestArchive(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		j, db, d, keys := months(t, cfg)
		ctx := t.Context()
		before := size(t, db, cfg)
		files := archive(t, j, 202610)
		if len(files) != 1 || files[0].First != 0 || files[0].Count != 30 {
			t.Fatalf("%+v", files)
		}
		if files = archive(t, j, 202611); len(files) != 1 || files[0].First != 30 || files[0].Count != 30 {
			t.Fatalf("%+v", files)
		}
		if again := archive(t, j, 202611); again != nil {
			t.Errorf("archived twice: %+v", again)
		}
		if err := db.Settle(ctx, true); err != nil {
			t.Fatal(err)
		}
		if after := size(t, db, cfg); after > before-100_000 {
			t.Errorf("the database had %d bytes and has %d", before, after)
		}
		whole := func() {
			t.Helper()
			for n := range 90 {
				s, err := j.Get(ctx, int64(n))
				if err != nil || s.Key != record(n).Key || len(s.Body) != 2000 {
					t.Fatalf("record %d: %+v %v", n, s.Key, err)
				}
				if found, err := j.Find(ctx, record(n).Key); err != nil || len(found) != 1 {
					t.Errorf("record %d by its key: %d %v", n, len(found), err)
				}
			}
			seen := 0
			if err := j.Each(ctx, 0, 90, func(s journal.Stored, err error) error {
				if err == nil && s.Index == int64(seen) && len(s.Body) == 2000 {
					seen++
				}
				return nil
			}); err != nil || seen != 90 {
				t.Errorf("one after the other: %d %v", seen, err)
			}
			if r := fsck(t, d); !r.OK() || r.Read != 90 || len(r.Absent) > 0 {
				t.Errorf("%+v", r)
			}
		}
		whole()

		away := d.Archive + "-elsewhere"
		if err := os.Rename(d.Archive, away); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Get(ctx, 3); fault.CodeOf(err) != fault.Archived || !strings.Contains(err.Error(), filepath.Join(d.Archive, "records-0000000000000-0000000000029.falaj")) {
			t.Errorf("a record that is not there: %v", err)
		}
		if r := fsck(t, d); !r.OK() || r.Read != 30 || len(r.Absent) != 2 || r.Size != 90 {
			t.Errorf("%+v", r)
		}
		if err := os.Rename(away, d.Archive); err != nil {
			t.Fatal(err)
		}
		whole()

		// Erased, and ended, in the archive.
		e := erase(t, j, 5, 70)
		for _, i := range []int64{5, 70} {
			if s, err := j.Get(ctx, i); err != nil || s.ErasedBy != e.Index {
				t.Errorf("record %d: %+v %v", i, s, err)
			}
		}
		if r := fsck(t, d); !r.OK() || r.Erased != 2 {
			t.Errorf("%+v", r)
		}
		k, err := seal.OpenKeys(keys, seal.KeyConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Records().Destroy("exchange", 202609); err != nil {
			t.Fatal(err)
		}
		if s, err := j.Get(ctx, 4); err != nil || !s.Erased || s.ErasedBy != 0 {
			t.Errorf("%+v %v", s, err)
		}
		if r := fsck(t, d); !r.OK() || r.Erased != 31 {
			t.Errorf("%+v", r)
		}
	})
}

// size is that of the database, in bytes.
func size(t *testing.T, db *store.DB, cfg store.Config) (n int64) {
	t.Helper()
	if db.Dialect() == store.SQLite {
		if err := db.Settle(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(cfg.DSN)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if err := db.QueryRow(t.Context(), "SELECT pg_total_relation_size('journal_commit')").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestArchiveBreaksOff: a file that was written and whose records did not leave
// the database is taken up the next time; another's file is never written over.
func TestArchiveBreaksOff(t *testing.T) {
	j, _, d, _ := months(t, storetest.SQLite(t))
	broken := errors.New("broken off")
	err := j.Archive(t.Context(), 202611, sign, func([]byte) error { return broken }, nil)
	if err == nil {
		t.Fatal("it did not break off")
	}
	if r := fsck(t, d); len(r.Wrong) != 1 || r.Wrong[0].Part != journal.PartArchive || r.Wrong[0].File == "" || r.Read != 90 {
		t.Errorf("%+v", r)
	}
	if files := archive(t, j, 202611); len(files) != 1 || files[0].Count != 60 {
		t.Fatalf("%+v", files)
	}
	if r := fsck(t, d); !r.OK() || r.Read != 90 {
		t.Errorf("%+v", r)
	}

	other, _, e, _ := months(t, storetest.SQLite(t))
	if err := os.CopyFS(e.Archive, os.DirFS(d.Archive)); err != nil {
		t.Fatal(err)
	}
	err = other.Archive(t.Context(), 202611, sign, vouch, nil)
	if fault.CodeOf(err) != fault.Conflict {
		t.Errorf("another's file: %v", err)
	}
	if r, err := other.Verify(t.Context()); err != nil || r.Read != 90 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestArchiveErasedMeanwhile: a record that is erased while its file is being
// written does not come back with the file.
func TestArchiveErasedMeanwhile(t *testing.T) {
	j, _, d, _ := months(t, storetest.SQLite(t))
	once := true
	erased := make(chan error, 1)
	err := j.Archive(t.Context(), 202610, func(text string) (string, error) {
		if once {
			once = false
			go func() { erased <- tryErase(t, j, 5) }()
			for s, err := j.Get(t.Context(), 5); err == nil && !s.Erased; s, err = j.Get(t.Context(), 5) {
				time.Sleep(time.Millisecond)
			}
		}
		return sign(text)
	}, vouch, func(journal.Archived) bool { return true })
	if err == nil {
		t.Fatal("it went on")
	}
	if err := <-erased; err != nil {
		t.Fatal(err)
	}
	gone := func() {
		t.Helper()
		if s, err := j.Get(t.Context(), 5); err != nil || s.ErasedBy == 0 {
			t.Errorf("%+v %v", s, err)
		}
	}
	gone()
	// The file is not a row's: it is named until it is.
	if r := fsck(t, d); len(r.Wrong) != 1 || r.Wrong[0].File == "" {
		t.Errorf("%+v", r.Wrong)
	}
	if files := archive(t, j, 202610); len(files) != 1 || files[0].Count != 30 {
		t.Fatalf("%+v", files)
	}
	gone()
	if r := fsck(t, d); !r.OK() || r.Erased != 1 {
		t.Errorf("%+v", r)
	}
}

// TestArchiveLeftOver: what an archiving left that broke off gives way to what
// was erased since, and nothing else does.
func TestArchiveLeftOver(t *testing.T) {
	j, db, d, _ := months(t, storetest.SQLite(t))
	j2 := start(t, journal.Config{}, journal.Deps{DB: db, Records: d.Records, Keys: d.Keys}) // erases without the archive's folder
	if err := j.Archive(t.Context(), 202610, sign, func([]byte) error { return errors.New("broken off") }, nil); err == nil {
		t.Fatal("it did not break off")
	}
	erase(t, j2, 5)
	archive(t, j, 202610)
	if s, err := j.Get(t.Context(), 5); err != nil || s.ErasedBy == 0 {
		t.Errorf("it came back: %+v %v", s, err)
	}
	if r := fsck(t, d); !r.OK() || r.Erased != 1 {
		t.Errorf("%+v", r)
	}
}

// TestEraseLeftOver: a file that an archiving left is erased from, too.
func TestEraseLeftOver(t *testing.T) {
	j, _, d, _ := months(t, storetest.SQLite(t))
	broken := errors.New("broken off")
	if err := j.Archive(t.Context(), 202610, sign, func([]byte) error { return broken }, nil); err == nil {
		t.Fatal("it did not break off")
	}
	s, err := j.Get(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	sealed := inFolder(t, d.Archive)
	erase(t, j, 5)
	if now := inFolder(t, d.Archive); len(sealed)-len(now) < len(s.Body) {
		t.Errorf("the folder had %d bytes and has %d", len(sealed), len(now))
	}
}

// inFolder is all that stands in a folder's files.
func inFolder(t *testing.T, dir string) (all []byte) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// TestEraseTogether: erasures in one file at one time all come to it.
func TestEraseTogether(t *testing.T) {
	j, _, d, _ := months(t, storetest.SQLite(t))
	archive(t, j, 202611)
	var all sync.WaitGroup
	for n := range int64(6) {
		all.Go(func() {
			if err := tryErase(t, j, 10*n); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for n := range int64(6) {
		if s, err := j.Get(t.Context(), 10*n); err != nil || s.ErasedBy == 0 {
			t.Errorf("record %d: %+v %v", 10*n, s.ErasedBy, err)
		}
	}
	if r := fsck(t, d); !r.OK() || r.Erased != 6 {
		t.Errorf("%+v", r)
	}
}

// TestEraseBreaksOff: an erasure that is decided and could not be written to
// the archive is named, and finished later; what is in its table only, is none.
func TestEraseBreaksOff(t *testing.T) {
	j, db, d, _ := months(t, storetest.SQLite(t))
	archive(t, j, 202611)
	ctx := t.Context()
	_, err := j.Erase(ctx, journal.Erasure{Leaves: []int64{5}, By: []string{"an officer"}, At: record(0).At, Class: "admin"}, func(string) (string, error) {
		return "", errors.New("broken off")
	}, vouch, nil)
	if err == nil {
		t.Fatal("it did not break off")
	}
	if r := fsck(t, d); !slices.ContainsFunc(r.Wrong, func(w journal.Wrong) bool { return w.Part == journal.PartErasure && w.Index == 5 }) {
		t.Errorf("%+v", r.Wrong)
	}
	if err := j.FinishErasures(ctx, sign, vouch); err != nil {
		t.Fatal(err)
	}
	if s, err := j.Get(ctx, 5); err != nil || s.ErasedBy == 0 {
		t.Errorf("%+v %v", s, err)
	}
	if r := fsck(t, d); !r.OK() || r.Erased != 1 {
		t.Errorf("%+v", r)
	}
	for _, decision := range []int64{3, 90} { // a call, and a decision about another
		if _, err := db.Exec(ctx, "INSERT INTO journal_erase_pending (leaf, decision) VALUES (7, ?)", decision); err != nil {
			t.Fatal(err)
		}
		if err := j.FinishErasures(ctx, sign, vouch); fault.CodeOf(err) != fault.Corrupt {
			t.Errorf("decision %d: %v", decision, err)
		}
		if s, err := j.Get(ctx, 7); err != nil || s.Erased {
			t.Errorf("erased by a row: %+v %v", s, err)
		}
		if r := fsck(t, d); r.OK() {
			t.Error("nobody says so")
		}
		if _, err := db.Exec(ctx, "DELETE FROM journal_erase_pending"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEraseVouches: a file that was changed is not signed anew by an erasure.
func TestEraseVouches(t *testing.T) {
	j, _, d, _ := months(t, storetest.SQLite(t))
	path := filepath.Join(d.Archive, archive(t, j, 202611)[0].File)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := slices.Clone(whole)
	changed[3000] ^= 1
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tryErase(t, j, 5); fault.CodeOf(err) != fault.Corrupt {
		t.Errorf("%v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, changed) {
		t.Errorf("it was written anew: %v", err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := j.FinishErasures(t.Context(), sign, vouch); err != nil {
		t.Fatal(err)
	}
	if r := fsck(t, d); !r.OK() || r.Erased != 1 {
		t.Errorf("%+v", r)
	}
}

// TestArchiveRemains: files that a crash left are named and go, and the old
// file's bytes are overwritten; what another name still holds is not.
func TestArchiveRemains(t *testing.T) {
	j, _, d, _ := months(t, storetest.SQLite(t))
	path := filepath.Join(d.Archive, archive(t, j, 202611)[0].File)
	left, twin := filepath.Join(d.Archive, ".new-1"), filepath.Join(d.Archive, ".new-2")
	if err := os.WriteFile(left, []byte("records"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, twin); err != nil {
		t.Fatal(err)
	}
	if r := fsck(t, d); len(r.Wrong) != 2 || r.Wrong[0].File != ".new-1" {
		t.Errorf("%+v", r.Wrong)
	}
	open := func(path string) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	old := []*os.File{open(left), open(path)}
	archive(t, j, 202611)
	if r := fsck(t, d); !r.OK() {
		t.Errorf("%+v", r.Wrong)
	}
	erase(t, j, 5)
	for _, f := range old {
		b, err := io.ReadAll(f)
		if err != nil || len(bytes.Trim(b, "\x00")) > 0 {
			t.Errorf("%s: %d bytes are there still, %v", f.Name(), len(b), err)
		}
	}
	if r := fsck(t, d); !r.OK() || r.Erased != 1 {
		t.Errorf("%+v", r)
	}
}

// TestDamagedArchive flips one bit after another anywhere in the archive.
func TestDamagedArchive(t *testing.T) {
	j, db, d, _ := months(t, storetest.SQLite(t))
	erase(t, j, 3)
	files := archive(t, j, 202611)
	if len(files) != 1 {
		t.Fatal(files)
	}
	path := filepath.Join(d.Archive, files[0].File)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 25 {
		bit := rand.IntN(8 * len(whole))
		changed := slices.Clone(whole)
		changed[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if r := fsck(t, d); !slices.ContainsFunc(r.Wrong, func(w journal.Wrong) bool { return w.Part == journal.PartArchive && w.File == files[0].File }) {
			t.Errorf("bit %d of %d: %+v", bit, 8*len(whole), r)
		}
	}
	for _, cut := range []int{0, 10, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if r := fsck(t, d); r.OK() {
			t.Errorf("cut at %d: whole", cut)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, column := range []string{"first", "upto"} {
		for bit := 0; bit < 40; bit += 3 {
			change := fmt.Sprintf("UPDATE journal_archive SET %s = (%s | %d) - (%s & %d)", column, column, 1<<bit, column, 1<<bit)
			if _, err := db.Exec(t.Context(), change); err != nil {
				t.Fatal(err)
			}
			if r := fsck(t, d); !slices.ContainsFunc(r.Wrong, func(w journal.Wrong) bool {
				return w.Part == journal.PartArchive || w.Part == journal.PartCommit
			}) {
				t.Errorf("bit %d of %s: %+v", bit, column, r)
			}
			if _, err := db.Exec(t.Context(), change); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r := fsck(t, d); !r.OK() {
		t.Errorf("repaired: %+v", r)
	}
}

// TestChangedMonth: a record whose month is changed to one that has ended does
// not pass for one that has ended.
func TestChangedMonth(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t), journal.Migrations())
	keys := filepath.Join(t.TempDir(), "keys")
	j := start(t, journal.Config{}, deps(t, db, keys))
	for n := range 5 {
		if _, err := j.Append(t.Context(), record(n)); err != nil {
			t.Fatal(err)
		}
	}
	k, err := seal.OpenKeys(keys, seal.KeyConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Records().Destroy("exchange", 202609); err != nil {
		t.Fatal(err)
	}
	for _, index := range []int64{0, 4} {
		var first int64
		var ends, records []byte
		if err := db.QueryRow(t.Context(), "SELECT first, ends, records FROM journal_commit WHERE first <= ? ORDER BY first DESC LIMIT 1", index).Scan(&first, &ends, &records); err != nil {
			t.Fatal(err)
		}
		at := 0
		if i := index - first; i > 0 {
			at = int(ends[(i-1)*4+2])<<8 | int(ends[(i-1)*4+3])
		}
		changed := slices.Clone(records)
		changed[at+2+len("exchange")+3] ^= byte(202611&0xff) ^ byte(202609&0xff)
		for i, b := range [][]byte{changed, records} {
			if _, err := db.Exec(t.Context(), "UPDATE journal_commit SET records = ? WHERE first = ?", b, first); err != nil {
				t.Fatal(err)
			}
			r := verify(t, j)
			if i == 0 && (len(r.Wrong) != 1 || r.Wrong[0].Part != journal.PartRecord || r.Wrong[0].Index != index) || i == 1 && !r.OK() {
				t.Errorf("record %d, %d: %+v", index, i, r)
			}
		}
	}
}

// TestChangedMonthAlone: also one that is the only one under its head is held
// against its neighbours.
func TestChangedMonthAlone(t *testing.T) {
	for _, ended := range []seal.Period{202609, 202611} {
		j, db, _, keys := months(t, storetest.SQLite(t))
		k, err := seal.OpenKeys(keys, seal.KeyConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Records().Destroy("exchange", ended); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, j); !r.OK() || r.Erased != 30 {
			t.Fatalf("%+v", r)
		}
		const index = 45 // of October
		var records []byte
		if err := db.QueryRow(t.Context(), "SELECT records FROM journal_commit WHERE first = ?", index).Scan(&records); err != nil {
			t.Fatal(err)
		}
		at := 2 + len("exchange")
		binary.BigEndian.PutUint32(records[at:], uint32(ended))
		records[at+4] ^= 1 // another random id
		if _, err := db.Exec(t.Context(), "UPDATE journal_commit SET records = ? WHERE first = ?", records, index); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, j); len(r.Wrong) != 1 || r.Wrong[0].Part != journal.PartRecord || r.Wrong[0].Index != index {
			t.Errorf("%s: %+v", ended, r.Wrong)
		}
	}
}
