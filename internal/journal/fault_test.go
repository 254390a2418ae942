package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
)

// steps is a child that appends one record, then another until that succeeds,
// and closes: with one thread, so that its system calls come in one order.
func steps(ctx context.Context, j *journal.Journal, db *store.DB) error {
	for _, key := range []string{"first", "second"} {
		r := record(0)
		for n := 0; ; n++ {
			r.Key = fmt.Sprint(key, n)
			_, err := j.Append(ctx, r)
			if err == nil {
				fmt.Println("kept", r.Key)
				break
			}
			fmt.Println("lost", r.Key, err)
			if key == "first" || n == 200 {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return errors.Join(j.Close(ctx), db.Close())
}

// step is a system call by which the child changes a file, or makes a change
// durable.
type step struct {
	name  string // of the call
	file  string // in the child's folder; "" is the folder
	nth   int    // among its thread's calls of this name for this file; if passing, for all
	phase string // what the child did: opening, first, later
}

func (s step) String() string {
	return fmt.Sprintf("%s number %d of %q (%s)", s.name, s.nth, s.file, s.phase)
}

// passing is the temporary file of a key, whose name nobody knows before.
func (s step) passing() bool { return strings.HasSuffix(s.file, "/.new") }

const stepCalls = "write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,linkat,ftruncate"

// stepsOf reads what strace wrote: the steps, and the first that was injected
// into, or -1. SQLite's shared memory is left out: it outlives nothing.
func stepsOf(t *testing.T, log, dir string) (list []step, hit int) {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	hit = -1
	count, open, phase := map[string]int{}, map[string]int{}, "opening"
	for line := range strings.Lines(string(b)) {
		thread, line, _ := strings.Cut(line, " ")
		line = strings.TrimSpace(line)
		at := len(list)
		name, args, ok := strings.Cut(line, "(")
		count[thread+name]++
		switch {
		case strings.HasPrefix(line, "<... "): // the end of a call that another's line interrupted
			at, ok = open[thread], true
			delete(open, thread)
		case !ok || strings.ContainsAny(name, " +-"):
			continue
		case name == "write" && strings.Contains(args, `"ready`):
			phase = "first"
			continue
		case name == "write" && (strings.Contains(args, `"kept`) || strings.Contains(args, `"lost`)):
			phase = "later"
			continue
		case !strings.Contains(args, dir) || strings.Contains(args, "-shm>"):
			continue
		default:
			_, file, _ := strings.Cut(args, dir)
			file, _, _ = strings.Cut(file[:strings.IndexAny(file, `>"`)], "/.new")
			if strings.Contains(args, "/.new") {
				file += "/.new"
			}
			count[thread+name+" "+file]++
			s := step{name, file, count[thread+name+" "+file], phase}
			if s.passing() {
				s.nth = count[thread+name]
			}
			list = append(list, s)
			open[thread] = at
		}
		if hit < 0 && strings.Contains(line, "(INJECTED)") {
			hit = at
		}
	}
	return list, hit
}

// stepFates are what befalls a step.
var stepFates = [...]string{"error=EIO", "error=ENOSPC", "signal=SIGKILL"}

// TestFaults makes each system call by which the node opens, makes a record
// durable and closes fail once in one of three ways; TestSoakFaults in each.
func TestFaults(t *testing.T) {
	faults(t, func(step, fate int) bool { return step%len(stepFates) == fate })
}

// faults has the child suffer a fault at each step that is chosen. What it said
// to be durable is there afterwards, the log is whole, no call that failed was
// taken for a success, and who lives writes again.
func faults(t *testing.T, chosen func(step, fate int) bool) {
	t.Helper()
	template := t.TempDir()
	db, err := store.Open(t.Context(), childConfig(template), journal.Migrations())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	run := func(more func(dir string) []string) (dir string, out []string, list []step, hit int) {
		dir = t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(template)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
			t.Fatal(err)
		}
		log := filepath.Join(t.TempDir(), "log")
		out = strace(t, []string{childFolder + "=" + dir, childSteps + "=yes", "GOMAXPROCS=1", "GOGC=off"},
			append([]string{"-y", "-o", log, "-e", "trace=" + stepCalls}, more(dir)...)...)
		list, hit = stepsOf(t, log, dir)
		return dir, out, list, hit
	}
	_, out, plan, _ := run(func(string) []string { return nil })
	if !slices.Equal(out, []string{"ready", "kept first0", "kept second0", "ended"}) {
		t.Fatal(out)
	}
	if made := (step{"fsync", "", 1, "opening"}); plan[0] != made {
		t.Errorf("the node opens with %s, not with %s", plan[0], made)
	}
	missed, done := 0, 0
	for i, p := range plan {
		for f, fate := range stepFates {
			if !chosen(i, f) {
				continue
			}
			struck := false
			// Go may run it on another thread, and strace counts by thread.
			for try := 0; try < 3 && !struck; try++ {
				dir, out, list, hit := run(func(dir string) []string {
					args := []string{"-e", fmt.Sprintf("inject=%s:%s:when=%d", p.name, fate, p.nth)}
					if !p.passing() {
						args = append(args, "-P", dir+p.file)
					}
					return args
				})
				killed := strings.HasPrefix(fate, "signal")
				if killed && !slices.Contains(out, "ended") {
					hit = len(list) - 1
				}
				struck = hit >= 0 && list[hit].name == p.name && list[hit].file == p.file && list[hit].nth == p.nth
				kept := map[string]bool{}
				for _, line := range out {
					if key, ok := strings.CutPrefix(line, "kept "); ok {
						kept[key] = true
					}
				}
				if lost, size := inspect(t, dir, kept); lost > 0 {
					t.Errorf("%s: %s: %d of %d durable records are gone, %d are there", p, fate, lost, len(kept), size)
				}
				if killed || !struck {
					continue
				}
				ready := slices.Contains(out, "ready")
				// SQLite itself syncs the folder once more, and takes no notice
				// of how; the store has done so before.
				own := p.file == "" && p.phase != "opening"
				if p.phase == "opening" && ready || p.phase == "first" && kept["first0"] && !own {
					t.Errorf("%s: %s was taken for a success: %q", p, fate, out)
				}
				if ready && !slices.ContainsFunc(out, func(s string) bool { return strings.HasPrefix(s, "kept second") }) {
					t.Errorf("%s: %s: it does not write again: %q", p, fate, out)
				}
			}
			done++
			if !struck {
				missed++
				t.Logf("%s: %s did not strike there", p, fate)
			}
		}
	}
	t.Logf("%d steps, %d faults, %d of them elsewhere than meant", len(plan), done, missed)
	if len(plan) < 15 || missed > done/4 {
		t.Error("the test was too kind")
	}
}
