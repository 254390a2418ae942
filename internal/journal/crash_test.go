package journal_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
)

const childFolder, childLies, childSteps = "FALAJ_TEST_JOURNAL_CHILD", "FALAJ_TEST_JOURNAL_LIES", "FALAJ_TEST_JOURNAL_STEPS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childFolder); dir != "" {
		if err := child(dir, os.Getenv(childLies) != ""); err != nil {
			fmt.Println("end", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child appends records and says which are durable, until it is killed or has
// enough. One that lies says so before it is true.
func child(dir string, lies bool) error {
	ctx := context.Background()
	db, err := store.Open(ctx, childConfig(dir), journal.Migrations())
	if err != nil {
		return err
	}
	keys, err := seal.OpenKeys(filepath.Join(dir, "keys"), seal.KeyConfig{})
	if err != nil {
		return err
	}
	j, err := journal.New(journal.Config{ProbeEvery: 1e6}, journal.Deps{DB: db, Records: keys.Records()})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if os.Getenv(childSteps) != "" {
		return steps(ctx, j, db)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 30 {
				r := record(0)
				r.Key = fmt.Sprintf("%x", rand.Uint64())
				if lies {
					fmt.Println("kept", r.Key)
				}
				_, err := j.Append(ctx, r)
				switch {
				case err != nil:
					fmt.Println("lost", r.Key, fault.CodeOf(err))
				case !lies:
					fmt.Println("kept", r.Key)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(j.Close(ctx), db.Close())
}

func childConfig(dir string) store.Config { return store.Config{DSN: filepath.Join(dir, "falaj.db")} }

// TestCrash kills the process in the middle of its writing, again and again,
// and makes its writes and syncs fail, always on the same database: what was
// said to be durable is there, and the log is whole.
func TestCrash(t *testing.T) { crash(t, 9) }

func crash(t *testing.T, rounds int) {
	t.Helper()
	dir := t.TempDir()
	kept, killed := map[string]bool{}, 0
	refused := map[string]int{}
	for round := range rounds {
		call := []string{"pwrite64", "fsync"}[round/3%2]
		fate := "signal=SIGKILL:when=" + fmt.Sprint(1+rand.IntN(25))
		if round%3 == 2 {
			fate = fmt.Sprintf("error=%s:when=%d+7", []string{"ENOSPC", "EIO"}[round/3%2], 3+rand.IntN(20))
		}
		out := suffer(t, dir, call+":"+fate, false)
		end := false
		for _, line := range out {
			verb, key, _ := strings.Cut(line, " ")
			switch verb {
			case "kept":
				kept[key] = true
			case "lost":
				_, code, _ := strings.Cut(key, " ")
				refused[code]++
			case "end":
				t.Logf("%s: %s", fate, line) // it failed as it started
				end = true
			case "ended":
				end = true
			}
		}
		if !end {
			killed++
		}
		lost, size := inspect(t, dir, kept)
		if lost > 0 {
			t.Fatalf("%s %s: %d of %d durable records are gone, %d are there", call, fate, lost, len(kept), size)
		}
	}
	if killed < rounds/3 || len(refused) == 0 {
		t.Errorf("the test was too kind: killed %d times, refused %v", killed, refused)
	}
}

// TestCrashShows is the control: a journal that speaks too early is caught.
func TestCrashShows(t *testing.T) {
	for range 10 {
		dir := t.TempDir()
		kept := map[string]bool{}
		for _, line := range suffer(t, dir, fmt.Sprintf("fsync:signal=SIGKILL:when=%d", 12+rand.IntN(20)), true) {
			if key, ok := strings.CutPrefix(line, "kept "); ok {
				kept[key] = true
			}
		}
		if lost, _ := inspect(t, dir, kept); lost > 0 {
			return
		}
	}
	t.Error("records that were never written were not missed")
}

// suffer runs the child under strace, which injects a fault into a system
// call, and gives its output.
func suffer(t *testing.T, dir, inject string, lies bool) []string {
	t.Helper()
	call, _, _ := strings.Cut(inject, ":")
	env := []string{childFolder + "=" + dir}
	if lies {
		env = append(env, childLies+"=yes")
	}
	return strace(t, env, "-o", "/dev/null", "-e", "trace="+call, "-e", "inject="+inject)
}

// strace runs the child as strace's arguments say, and gives its output, with a
// line "ended" where it was content.
func strace(t *testing.T, env []string, args ...string) (lines []string) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is not installed; this installs it: scripts/deps")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(strace, append(append([]string{"-f", "-qq"}, args...), self)...)
	cmd.Env = append(os.Environ(), env...)
	var out, report bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &report
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, &report)
	}
	if report.Len() > 0 {
		t.Fatalf("%v: %s", err, &report)
	}
	for s := bufio.NewScanner(&out); s.Scan(); {
		lines = append(lines, s.Text())
	}
	if err == nil {
		lines = append(lines, "ended")
	}
	return lines
}

// inspect opens what the child left, and gives how many of the kept records
// are gone and how many there are.
func inspect(t *testing.T, dir string, kept map[string]bool) (lost int, size int64) {
	t.Helper()
	db, err := store.Open(t.Context(), childConfig(dir), journal.Migrations())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	keys, err := seal.OpenKeys(filepath.Join(dir, "keys"), seal.KeyConfig{})
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.New(journal.Config{}, journal.Deps{DB: db, Records: keys.Records()})
	if err != nil {
		t.Fatalf("the journal does not open: %v", err)
	}
	defer func() { _ = j.Close(context.Background()) }()
	r := verify(t, j)
	if !r.OK() {
		t.Fatalf("the log is not whole: %+v", r.Wrong)
	}
	there := map[string]bool{}
	for i := range r.Size {
		s, err := j.Get(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		there[s.Key] = true
	}
	for key := range kept {
		if !there[key] {
			lost++
		}
	}
	return lost, r.Size
}
