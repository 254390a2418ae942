package acceptance_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLarge has a body pass that no node could hold, with small calls beside
// it on the same link, and one that never ends.
func TestLarge(t *testing.T) {
	t.Parallel()
	large(t, 256<<20)
}

func large(t *testing.T, size int64) {
	folder, stored := t.TempDir(), t.TempDir()
	file := filepath.Join(folder, "large.bin")
	f, err := os.Create(file)
	check(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	check(t, err)
	check(t, f.Close())
	sums := do(t, nil, "sha256sum", file)
	want, _, _ := strings.Cut(sums.out, " ")

	u := apart(t, map[string][]string{"SA": {"FALAJ_LOG_LEVEL=info"}, "BH": {"FALAJ_LOG_LEVEL=info"}}, "--state=BH,SA")
	const service = "BH/GOV/egov/portal/archive"
	at := nginx(t, folder, stored)
	u.falaj(t, "BH", "service", "add", service, at, "--timeout", "5m", "--digest-only")
	u.falaj(t, "BH", "access", "grant", "SA/GOV/egov/portal", service, "--purpose", "trial")
	u.granted(t, "SA", service)
	u.read(t, "SA", "BH", "vehicles")
	before := map[string]int{}
	for state, p := range u.parts {
		before[state] = memory(t, p, "VmRSS")
	}
	began := time.Now()
	done := make(chan result, 1)
	go func() {
		args := append([]string{"-c", `curl -sS --fail --max-time 600 "$@" | sha256sum`, "sh"}, u.as(t, "SA", "trial", service+"/large.bin")...)
		done <- do(t, nil, "sh", args...)
	}()
	small, worst := 0, time.Duration(0)
	for r := (*result)(nil); r == nil; {
		select {
		case x := <-done:
			if r = &x; !strings.HasPrefix(r.out, want) {
				t.Errorf("%q %s, wanted %s", r.out, r.err, want)
			}
		default:
			one := time.Now()
			u.read(t, "SA", "BH", "vehicles")
			small, worst = small+1, max(worst, time.Since(one))
		}
	}
	t.Logf("%d MiB down in %v; beside it %d small calls (two curls each), the slowest took %v", size>>20, time.Since(began), small, worst)
	if worst > 20*time.Second {
		t.Errorf("a small call waited %v", worst)
	}
	began = time.Now()
	args := append([]string{"-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "600", "-T", file}, u.as(t, "SA", "trial", service+"/uploads/large.bin")...)
	if r := do(t, nil, "curl", args...); r.out != "201" || sumOf(t, filepath.Join(stored, "large.bin")) != want {
		t.Errorf("up: %s %s", r.out, r.err)
	}
	t.Logf("and up in %v", time.Since(began))
	for _, state := range []string{"BH", "SA"} {
		extra := memory(t, u.parts[state], "VmHWM") - before[state]
		t.Logf("%s: %d MiB at rest, at most %d MiB more (allowed: 64)", state, before[state]>>10, extra>>10)
		if extra > 64<<10 {
			t.Errorf("%s took %d kB more", state, extra)
		}
	}

	// What never ends is refused, in good time.
	u.parts["SA"].stop(t, syscall.SIGTERM)
	u.env["SA"] = append(u.env["SA"], "FALAJ_LIMITS_BODY=1MiB")
	u.startNode(t, "SA")
	u.waitNode(t, "SA")
	r := do(t, nil, "sh", append([]string{"-c", `yes | curl -sS --max-time 60 -H 'Transfer-Encoding: chunked' -T - "$@"`, "sh"}, u.as(t, "SA", "trial", service+"/uploads/endless")...)...)
	if !strings.Contains(r.out, `"Client.TooLarge"`) {
		t.Errorf("%d %q %s", r.code, r.out, r.err)
	}
	if a := curl(t, u.as(t, "SA", "trial", service+"/large.bin")...); a.header.Get("X-Road-Error") == "" {
		t.Errorf("an answer larger than allowed: %d", a.status)
	}
	for _, p := range u.parts {
		p.stop(t, syscall.SIGTERM)
	}
}

func sumOf(t *testing.T, file string) string {
	t.Helper()
	sum, _, _ := strings.Cut(do(t, nil, "sha256sum", file).out, " ")
	return sum
}

// memory reads a line of a process's status, in kB.
func memory(t *testing.T, p *process, line string) (kb int) {
	t.Helper()
	for l := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))) {
		if n, err := fmt.Sscanf(l, line+": %d kB", &kb); n == 1 && err == nil {
			return kb
		}
	}
	t.Fatalf("no %s of %s", line, p.name)
	return 0
}
