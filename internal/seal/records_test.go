package seal_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/seal"
)

func TestRecordsComeBack(t *testing.T) {
	dir := t.TempDir() + "/k"
	r := open(t, dir, seal.KeyConfig{}).Records()
	other := open(t, dir, seal.KeyConfig{}).Records() // as another process has it
	seen := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		class := rapid.StringMatching(`[a-z0-9][a-z0-9-]{0,5}`).Draw(t, "class")
		at := time.Unix(rapid.Int64Range(1767225600, 1798761599).Draw(t, "at"), 0) // 2026
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		aad := rapid.SliceOf(rapid.Byte()).Draw(t, "aad")
		sealed, err := r.Seal(nil, class, at, plain, aad)
		if err != nil {
			t.Fatal(err)
		}
		if seen[string(sealed)] {
			t.Fatal("two records alike")
		}
		seen[string(sealed)] = true
		for _, keys := range []seal.RecordKeys{r, other} {
			got, err := keys.Open(sealed, aad)
			if err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%x, %v", got, err)
			}
			if _, err := keys.Open(sealed, append(aad, 0)); !errors.Is(err, seal.ErrDamaged) {
				t.Fatalf("opened for another place: %v", err)
			}
		}
	})
}

func TestEveryBitOfARecordCounts(t *testing.T) {
	r := open(t, t.TempDir()+"/k", seal.KeyConfig{}).Records()
	sealed, err := r.Seal(nil, "exchange", noon, []byte("plain"), []byte("place"))
	if err != nil {
		t.Fatal(err)
	}
	// Keys of neighbours are there, so that a changed head can find one.
	for _, class := range []string{"exchangd", "exchange"} {
		for m := range 12 {
			if _, err := r.Seal(nil, class, noon.AddDate(0, m, 0), nil, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range len(sealed) * 8 {
		bad := bytes.Clone(sealed)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := r.Open(bad, []byte("place")); !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("bit %d may change: %v", i, err)
		}
	}
	for n := range sealed {
		if _, err := r.Open(sealed[:n], []byte("place")); !errors.Is(err, seal.ErrDamaged) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestDestroyedKeyDarkensEverything(t *testing.T) {
	dir := t.TempDir() + "/k"
	r := open(t, dir, seal.KeyConfig{}).Records()
	other := open(t, dir, seal.KeyConfig{}).Records()
	class := func(c string, at time.Time) []byte {
		b, err := r.Seal(nil, c, at, []byte("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.Open(b, nil); err != nil {
			t.Fatal(err)
		}
		return b
	}
	march, april, audit := class("exchange", noon), class("exchange", noon.AddDate(0, 1, 0)), class("audit", noon)
	spool, err := seal.OpenSpool(t.TempDir()+"/s", r)
	if err != nil {
		t.Fatal(err)
	}
	body := spoolBody(t, spool, []byte("body"))

	p := seal.PeriodOf(noon)
	if ps, err := r.Periods("exchange"); err != nil || !slices.Equal(ps, []seal.Period{202603, 202604}) {
		t.Errorf("%v, %v", ps, err)
	}
	// What a crash may have left of the key's making goes too.
	orphan := dir + "/records/exchange/.new-2026-03.key-123"
	if err := os.Link(dir+"/records/exchange/2026-03.key", orphan); err != nil {
		t.Fatal(err)
	}
	for range 2 { // twice is no error
		if err := r.Destroy("exchange", p); err != nil {
			t.Fatal(err)
		}
	}
	for _, keys := range []seal.RecordKeys{r, other, open(t, dir, seal.KeyConfig{}).Records()} {
		if _, err := keys.Open(march, nil); !errors.Is(err, seal.ErrDestroyed) {
			t.Errorf("opened after the end: %v", err)
		}
		if _, err := keys.Seal(nil, "exchange", noon, nil, nil); !errors.Is(err, seal.ErrDestroyed) {
			t.Errorf("encrypted after the end: %v", err)
		}
		for _, b := range [][]byte{april, audit} {
			if _, err := keys.Open(b, nil); err != nil {
				t.Errorf("another period or class went with it: %v", err)
			}
		}
	}
	if _, err := spool.Open(body.ID); !errors.Is(err, seal.ErrDestroyed) {
		t.Errorf("the spool opened after the end: %v", err)
	}
	onlyThese(t, dir+"/records/exchange", "2026-03.destroyed", "2026-04.key")
	if ps, err := r.Periods("exchange"); err != nil || !slices.Equal(ps, []seal.Period{202604}) {
		t.Errorf("%v, %v", ps, err)
	}
	// A period that never had a key ends too.
	if err := r.Destroy("exchange", 202601); err != nil {
		t.Error(err)
	}
	if _, err := r.Seal(nil, "exchange", noon.AddDate(0, -2, 0), nil, nil); !errors.Is(err, seal.ErrDestroyed) {
		t.Errorf("%v", err)
	}
}

// Whoever encrypts for a period at the moment of its end either comes before or
// is refused: no key may be there afterwards.
func TestDestroyAgainstSeal(t *testing.T) {
	dir := t.TempDir() + "/k"
	for i := range 100 {
		at := time.Date(2000+i, 1, 1, 0, 0, 0, 0, time.UTC)
		one, two := open(t, dir, seal.KeyConfig{}).Records(), open(t, dir, seal.KeyConfig{}).Records()
		var wg sync.WaitGroup
		for _, r := range []seal.RecordKeys{one, one, two, two} {
			wg.Go(func() { _, _ = r.Seal(nil, "exchange", at, nil, nil) })
		}
		wg.Go(func() {
			time.Sleep(time.Duration(i) * 5 * time.Microsecond)
			if err := two.Destroy("exchange", seal.PeriodOf(at)); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		for _, r := range []seal.RecordKeys{one, two} {
			if _, err := r.Seal(nil, "exchange", at, nil, nil); !errors.Is(err, seal.ErrDestroyed) {
				t.Errorf("%v", err)
			}
		}
	}
	names, err := filepath.Glob(dir + "/records/exchange/*.key")
	if err != nil || len(names) > 0 {
		t.Errorf("keys are left: %q, %v", names, err)
	}
}

func TestDestroyOverwritesTheKey(t *testing.T) {
	dir := t.TempDir() + "/k"
	r := open(t, dir, seal.KeyConfig{}).Records()
	if _, err := r.Seal(nil, "exchange", noon, nil, nil); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir + "/records/exchange/2026-03.key")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := r.Destroy("exchange", seal.PeriodOf(noon)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, _ := f.Read(b)
	if n == 0 || !bytes.Equal(b[:n], make([]byte, n)) {
		t.Errorf("the file's bytes are still there: %d", n)
	}
}

func TestLostKeyIsNotADestroyedOne(t *testing.T) {
	dir := t.TempDir() + "/k"
	r := open(t, dir, seal.KeyConfig{}).Records()
	sealed, err := r.Seal(nil, "exchange", noon, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir + "/records/exchange/2026-03.key"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(sealed, nil); errors.Is(err, seal.ErrDestroyed) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	// A new key in its place does not open it, and is not used to.
	if _, err := r.Seal(nil, "exchange", noon, nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(sealed, nil); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("%v", err)
	}
}

func TestClassesAndPeriods(t *testing.T) {
	dir := t.TempDir() + "/k"
	r := open(t, dir, seal.KeyConfig{}).Records()
	for _, class := range []string{"", "-x", "Exchange", "a/b", "..", "a.b", "a b", "تبادل", strings.Repeat("x", 33)} {
		if _, err := r.Seal(nil, class, noon, nil, nil); err == nil {
			t.Errorf("took class %q", class)
		}
		if err := r.Destroy(class, 202603); err == nil {
			t.Errorf("destroyed class %q", class)
		}
		if _, err := r.Periods(class); err == nil {
			t.Errorf("listed class %q", class)
		}
	}
	for _, p := range []seal.Period{0, 202600, 202613, 196912, 1000001} {
		if err := r.Destroy("exchange", p); err == nil {
			t.Errorf("destroyed period %d", p)
		}
	}
	if _, err := r.Seal(nil, "exchange", time.Time{}, nil, nil); err == nil {
		t.Error("encrypted for the year 1")
	}
	onlyThese(t, dir)
	gulf := time.FixedZone("GST", 4*3600)
	p := seal.PeriodOf(time.Date(2026, 1, 1, 3, 59, 0, 0, gulf))
	if p != 202512 || p.String() != "2025-12" || !p.End().Equal(time.Date(2026, 1, 1, 4, 0, 0, 0, gulf)) {
		t.Errorf("%v ends %v", p, p.End())
	}
	for s, want := range map[string]seal.Period{"2025-12": 202512, "2025-13": 0, "2025": 0, "2025-12-01": 0, "": 0} {
		if got, err := seal.ParsePeriod(s); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

// Several processes come to a folder without keys at the same moment: they must
// end with the same ones, and one alone makes a signing key.
func TestProcessesShareAFolder(t *testing.T) {
	for round := range 2 {
		dir := t.TempDir()
		const n = 3
		out := make([]bytes.Buffer, n)
		cmds := make([]*exec.Cmd, n)
		for i := range cmds {
			cmds[i] = child(t, "record", dir)
			cmds[i].Stdout, cmds[i].Stderr = &out[i], os.Stderr
			if err := cmds[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(20*round) * time.Millisecond)
		if err := os.WriteFile(dir+"/go", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		made := 0
		sums := map[string]bool{}
		for i, cmd := range cmds {
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			f := strings.Fields(out[i].String())
			sealed, err := hex.DecodeString(f[0])
			if err != nil {
				t.Fatal(err)
			}
			plain, err := open(t, dir+"/keys", seal.KeyConfig{}).Records().Open(sealed, nil)
			if err != nil || string(plain) != "record" {
				t.Errorf("%q, %v", plain, err)
			}
			sums[f[1]] = true
			if f[2] == "true" {
				made++
			}
		}
		if len(sums) != 1 || made != 1 {
			t.Errorf("%d keys of one keyed hash, %d makers of one signing key", len(sums), made)
		}
		onlyThese(t, dir+"/keys", "person-1.hmac", "records", "tls.pem")
		onlyThese(t, dir+"/keys/records/exchange", "2026-03.key")
	}
}

func child(t *testing.T, mode, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "SEAL_TEST_CHILD="+mode, "SEAL_TEST_DIR="+dir)
	return cmd
}

func FuzzOpenRecord(f *testing.F) {
	r := open(f, filepath.Join(f.TempDir(), "k"), seal.KeyConfig{}).Records()
	sealed, err := r.Seal(nil, "exchange", noon, []byte("plain"), []byte("place"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:20])
	f.Add([]byte{1, 255})
	f.Add([]byte("\x01\x02..\x00\x03\x17\x5b0123456789abcdef"))
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, err := r.Open(b, []byte("place"))
		switch {
		case err == nil && (!bytes.Equal(b, sealed) || string(plain) != "plain"):
			t.Fatalf("opened %x to %q", b, plain)
		case err != nil && !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, fs.ErrNotExist):
			t.Fatal(err)
		}
	})
}

func BenchmarkRecordSeal(b *testing.B) {
	r := open(b, filepath.Join(b.TempDir(), "k"), seal.KeyConfig{}).Records()
	plain := make([]byte, 1500)
	for b.Loop() {
		if _, err := r.Seal(nil, "exchange", noon, plain, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecordOpen(b *testing.B) {
	r := open(b, filepath.Join(b.TempDir(), "k"), seal.KeyConfig{}).Records()
	sealed, err := r.Seal(nil, "exchange", noon, make([]byte, 1500), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := r.Open(sealed, nil); err != nil {
			b.Fatal(err)
		}
	}
}
