package acceptance_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain builds falaj as it is shipped and puts it on the PATH, in a world
// of its own: no home, no settings and no language of the person who tests.
func TestMain(m *testing.M) { os.Exit(inWorld(m)) }

func inWorld(m *testing.M) int {
	dir, err := os.MkdirTemp("", "falaj-acceptance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-mod=readonly", "-trimpath", "-o", filepath.Join(dir, "bin", "falaj"), "../../cmd/falaj")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building falaj: %v\n%s", err, out)
		return 1
	}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "FALAJ_") || strings.HasPrefix(name, "LC_") || strings.HasSuffix(strings.ToLower(name), "_proxy") {
			os.Unsetenv(name)
		}
	}
	os.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	os.Setenv("HOME", filepath.Join(dir, "home"))
	os.Setenv("LC_ALL", "C")
	return m.Run()
}

// patience bounds every wait: for a machine that is busy, not as a measure.
const patience = 60 * time.Second

// process is a program that runs beside a test, in a group of its own.
type process struct {
	name string
	cmd  *exec.Cmd
	out  string // file of its standard output
	log  string // file of its standard error output
	done chan struct{}
}

// start runs a program until the test ends, at the latest. It dies with the
// test's process, however that dies.
func start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{name: name, cmd: exec.Command(name, args...), out: filepath.Join(dir, "out"), log: filepath.Join(dir, "log"), done: make(chan struct{})}
	out, err := os.Create(p.out)
	check(t, err)
	defer out.Close()
	log, err := os.Create(p.log)
	check(t, err)
	defer log.Close()
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if name == "falaj" {
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	check(t, p.cmd.Start())
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end(syscall.SIGTERM, 20*time.Second)
		if t.Failed() {
			if b, _ := os.ReadFile(p.log); len(b) > 0 {
				t.Logf("what %s %s logged (its last 2000 bytes):\n%s", name, strings.Join(args, " "), b[max(0, len(b)-2000):])
			}
		}
	})
	return p
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// end sends a signal and waits; after the time, the group is killed. It tells
// the exit code, -1 for one that a signal ended.
func (p *process) end(sig syscall.Signal, within time.Duration) int {
	if p.running() {
		p.cmd.Process.Signal(sig)
		select {
		case <-p.done:
		case <-time.After(within):
		}
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what it left behind, too
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// stop asks a falaj to end, and expects that it does so cleanly.
func (p *process) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	began := time.Now()
	if code := p.end(sig, patience); code != 0 {
		b, _ := os.ReadFile(p.log)
		t.Fatalf("%v ended %s with code %d after %v:\n%s", sig, p.name, code, time.Since(began), b)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	check(t, err)
	return string(b)
}

// result is what came of a command.
type result struct {
	line     string
	out, err string
	code     int
}

// do runs a command to its end.
func do(t *testing.T, env []string, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, errs.Bytes())
	}
	return result{name + " " + strings.Join(args, " "), out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// falaj runs a command that has to succeed, and gives what it printed.
func falaj(t *testing.T, args ...string) string {
	t.Helper()
	r := do(t, nil, "falaj", args...)
	if r.code != 0 {
		t.Fatalf("%s: code %d\n%s%s", r.line, r.code, r.out, r.err)
	}
	return r.out
}

// refused runs a command that has to fail with a code of the catalogue, and
// gives what it said.
func refused(t *testing.T, code string, args ...string) string {
	t.Helper()
	r := do(t, nil, "falaj", args...)
	if r.code == 0 || !strings.Contains(r.err, "["+code+"]") {
		t.Fatalf("%s: code %d, wanted [%s]\n%s%s", r.line, r.code, code, r.out, r.err)
	}
	return r.err
}

// into reads what a command printed for machines.
func into(t *testing.T, out string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("no JSON: %v\n%s", err, out)
	}
}

// answer is an HTTP answer as it came over the wire.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) sum() string { return fmt.Sprintf("%x", sha256.Sum256(a.body)) }

// curl makes a call with the real one and expects that it gets an answer.
func curl(t *testing.T, args ...string) answer {
	t.Helper()
	a, err := tryCurl(t.Context(), args...)
	if err != nil {
		t.Fatalf("curl %q: %v", args, err)
	}
	return a
}

// tryCurl makes a call that may fail.
func tryCurl(ctx context.Context, args ...string) (answer, error) {
	var a answer
	cmd := exec.CommandContext(ctx, "curl", append([]string{"-sS", "-i", "--raw", "--max-time", "120"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return a, fmt.Errorf("%w: %s", err, errs.Bytes())
	}
	asked := &http.Request{Method: http.MethodGet}
	for _, arg := range args {
		if arg == "-I" || arg == "--head" {
			asked.Method = http.MethodHead
		}
	}
	for r := bufio.NewReader(&out); ; {
		resp, err := http.ReadResponse(r, asked)
		if err != nil {
			return a, fmt.Errorf("no answer: %w: %.500q", err, out.String())
		}
		if resp.StatusCode < 200 {
			continue // 100 Continue
		}
		a.status, a.header = resp.StatusCode, resp.Header
		a.body, err = io.ReadAll(resp.Body)
		return a, err
	}
}

// want holds an answer to a status.
func (a answer) want(t *testing.T, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, wanted %d: %v\n%.2000s", a.status, status, a.header, a.body)
	}
	return a
}

// eventually tries until it succeeds, within patience.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %v: %v", what, patience, err)
}

// ports gives the first of at most 99 ports in a row that are free, below those
// from which the system takes the ports of outgoing connections. The hundredth
// is held as long as the test runs, so that two tests never choose the same.
func ports(t *testing.T, n int) int {
	t.Helper()
	listen := func(port int) (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)) }
next:
	for range 200 {
		first := 15000 + 100*rand.IntN(160)
		held, err := listen(first + 99)
		if err != nil {
			continue
		}
		for i := range n {
			l, err := listen(first + i)
			if err != nil {
				held.Close()
				continue next
			}
			l.Close()
		}
		t.Cleanup(func() { held.Close() })
		return first
	}
	t.Fatal("no free ports")
	return 0
}

func write(t *testing.T, path, text string) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(path), 0o755))
	check(t, os.WriteFile(path, []byte(text), 0o644))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
