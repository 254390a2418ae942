package seal_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/seal"
)

func nobody([]string) (map[string]bool, error) { return nil, nil }

// age makes a body older than any transaction that may still name it.
func age(t *testing.T, dir, id string) {
	t.Helper()
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, id), then, then); err != nil {
		t.Fatal(err)
	}
}

func again(t *testing.T, dir string) *seal.Spool {
	t.Helper()
	s, err := seal.OpenSpool(dir, open(t, filepath.Join(t.TempDir(), "k"), seal.KeyConfig{}).Records())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSweepLeavesTheLivingAlone: what another process writes, or has written
// and not yet recorded, however long ago, is no other's to remove.
func TestSweepLeavesTheLivingAlone(t *testing.T) {
	first, dir := newSpool(t)
	second := again(t, dir)
	done := spoolBody(t, first, []byte("finished, not yet recorded"))
	w := create(t, first, 100)
	part := func() (out []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".part") {
				out = append(out, e.Name())
			}
		}
		return out
	}
	age(t, dir, done.ID)
	age(t, dir, part()[0])
	for _, s := range []*seal.Spool{first, second} {
		if n, err := s.Sweep(func([]string) (map[string]bool, error) { t.Error("asked, though nobody is gone"); return nil, nil }); n != 0 || err != nil {
			t.Errorf("swept %d, %v", n, err)
		}
	}
	if _, err := w.Write([]byte("more")); err != nil {
		t.Fatal(err)
	}
	late, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{done.ID, late.ID} {
		r, err := first.Open(id)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
	}
}

// TestSweepAfterAProcess: of one that is gone the wanted stays, the unfinished
// goes at once, and the rest once no transaction can name it any more.
func TestSweepAfterAProcess(t *testing.T) {
	first, dir := newSpool(t)
	second := again(t, dir)
	keep, old, young := spoolBody(t, first, []byte("keep")), spoolBody(t, first, []byte("old")), spoolBody(t, first, []byte("young"))
	half := create(t, first, 100)
	defer half.Close()
	other := strings.Repeat("0", 32)
	for _, name := range []string{"README", other, other + ".bak"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	age(t, dir, keep.ID)
	age(t, dir, old.ID)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"README", keep.ID, other, other + ".bak", "live"}
	wanted := func([]string) (map[string]bool, error) { return map[string]bool{keep.ID: true}, nil }
	if _, err := second.Sweep(func([]string) (map[string]bool, error) { return nil, os.ErrPermission }); !errors.Is(err, os.ErrPermission) {
		t.Errorf("swept without knowing what is wanted: %v", err)
	}
	if n, err := second.Sweep(wanted); n != 2 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	onlyThese(t, dir, sorted(append(want, young.ID))...)
	age(t, dir, young.ID)
	if n, err := second.Sweep(wanted); n != 1 || err != nil {
		t.Errorf("then swept %d, %v", n, err)
	}
	onlyThese(t, dir, sorted(want)...)
	if live, _ := os.ReadDir(filepath.Join(dir, "live")); len(live) != 1 {
		t.Errorf("%d sessions are left", len(live))
	}
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

// TestBury: bodies go with their key, not before, however often it is asked
// and wherever it was broken off.
func TestBury(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	records := open(t, filepath.Join(t.TempDir(), "k"), seal.KeyConfig{}).Records()
	s, err := seal.OpenSpool(dir, records)
	if err != nil {
		t.Fatal(err)
	}
	put := func(class string, at time.Time) string {
		w, err := s.Create(seal.SpoolConfig{Class: class, At: at, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(class)); err != nil {
			t.Fatal(err)
		}
		done, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		return done.ID
	}
	next := noon.AddDate(0, 1, 0)
	ended, other, later := []string{put("short", noon), put("short", noon)}, put("long", noon), put("short", next)
	kept := sorted([]string{other, later, "live"})
	var forgotten []string
	forget := func(ids []string) error { forgotten = append(forgotten, ids...); return nil }
	bury := func(want int) {
		t.Helper()
		if n, err := s.Bury(t.Context(), forget); n != want || err != nil {
			t.Errorf("buried %d, not %d: %v", n, want, err)
		}
	}
	bury(0)
	if n, err := records.Destroyed(); n != 0 || err != nil {
		t.Errorf("%d destroyed, %v", n, err)
	}
	if err := records.Destroy("short", seal.PeriodOf(noon)); err != nil {
		t.Fatal(err)
	}
	if n, err := records.Destroyed(); n != 1 || err != nil {
		t.Errorf("%d destroyed, %v", n, err)
	}
	// The database fails: nothing goes that it would still name.
	if _, err := s.Bury(t.Context(), func([]string) error { return os.ErrPermission }); !errors.Is(err, os.ErrPermission) {
		t.Error(err)
	}
	onlyThese(t, dir, sorted(append(kept, ended...))...)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Bury(over, forget); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// A crash between database and file.
	if err := s.Remove(ended[0]); err != nil {
		t.Fatal(err)
	}
	bury(1)
	bury(0)
	if !slices.Equal(forgotten, ended[1:]) {
		t.Errorf("told to forget %q", forgotten)
	}
	onlyThese(t, dir, kept...)
}

// TestBuryWaitsForTheKey: a destruction that broke off between its mark and
// the key ends no body yet.
func TestBuryWaitsForTheKey(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "k")
	records := open(t, keys, seal.KeyConfig{}).Records()
	s, err := seal.OpenSpool(filepath.Join(t.TempDir(), "spool"), records)
	if err != nil {
		t.Fatal(err)
	}
	spoolBody(t, s, []byte("body"))
	mark := filepath.Join(keys, "records", "exchange", seal.PeriodOf(noon).String()+".destroyed")
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	forget := func([]string) error { return nil }
	if n, err := s.Bury(t.Context(), forget); n != 0 || err != nil {
		t.Errorf("buried %d, %v", n, err)
	}
	if n, err := records.Destroyed(); n != 0 || err != nil {
		t.Errorf("%d destroyed, %v", n, err)
	}
	if err := records.Destroy("exchange", seal.PeriodOf(noon)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Bury(t.Context(), forget); n != 1 || err != nil {
		t.Errorf("buried %d, %v", n, err)
	}
}

func TestMark(t *testing.T) {
	first, dir := newSpool(t)
	folder, owner, err := first.Mark("a", true)
	if err != nil || len(folder) != 32 || owner != "a" {
		t.Fatalf("%q %q %v", folder, owner, err)
	}
	is := func(s *seal.Spool, database string, isNew bool, want string) (there string) {
		t.Helper()
		there, owner, err := s.Mark(database, isNew)
		if err != nil || owner != want {
			t.Errorf("the mark says %q %q, %v", there, owner, err)
		}
		return there
	}
	second := again(t, dir)
	if is(second, "b", false, "a") != folder || is(second, "b", true, "a") != folder {
		t.Error("a folder in which another works was taken")
	}
	other, _ := newSpool(t)
	if is(other, "a", true, "a") == folder {
		t.Error("two folders have one name")
	}
	body := spoolBody(t, first, []byte("body"))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if is(second, "b", true, "a") != folder {
		t.Error("a folder that holds a body was taken")
	}
	if err := second.Remove(body.ID); err != nil {
		t.Fatal(err)
	}
	if is(second, "b", false, "a") != folder || is(second, "b", true, "b") == folder || is(second, "b", true, "b") != is(second, "c", false, "b") {
		t.Error("an empty folder is taken by one that is new, alone")
	}
	if err := os.WriteFile(filepath.Join(dir, "mark"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := second.Mark("a", true); err == nil {
		t.Error("half a mark was taken")
	}
}
