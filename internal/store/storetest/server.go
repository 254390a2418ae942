package storetest

import (
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a PostgreSQL of a test's own, to be killed, copied and followed.
type Server struct {
	t      testing.TB
	bin    string
	dir    string
	who    *syscall.SysProcAttr
	keeper *exec.Cmd      // while it runs
	alive  io.WriteCloser // what the keeper reads
}

// socket is the name of a server's socket in its folder.
const socket = ".s.PGSQL.5432"

// serve runs a server until standard input ends: after a word the folder
// stays, without one, since then the test has died, it goes.
const serve = `
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c max_connections=80 -c shared_buffers=32MB >>"$2/log" 2>&1 &
read -r word
kill -QUIT $! 2>/dev/null
wait $!
[ -n "$word" ] || rm -rf "$2"
`

// NewServer makes and starts a server.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s := newServer(t)
	s.tool("initdb", "-D", s.data(), "-U", "falaj", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	s.Start()
	return s
}

func newServer(t testing.TB) *Server {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "falaj-pg-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, bin: bin, dir: dir}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			log, _ := os.ReadFile(dir + "/log")
			t.Logf("what PostgreSQL in %s logged (its last 3000 bytes):\n%s", dir, log[max(0, len(log)-3000):])
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if s.who, err = ordinary(dir); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// tool runs one of PostgreSQL's programs as the server's user, and gives what
// it prints.
func (s *Server) tool(name string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.SysProcAttr, cmd.Dir = s.who, s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// Start starts the server and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.keeper = exec.Command("/bin/sh", "-c", serve, "sh", s.bin, s.dir)
	s.keeper.SysProcAttr, s.keeper.Dir = s.who, s.dir
	var err error
	if s.alive, err = s.keeper.StdinPipe(); err == nil {
		err = s.keeper.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.until("it answers", func() bool {
		cmd := exec.Command(filepath.Join(s.bin, "pg_isready"), "-q", "-h", s.dir, "-U", "falaj", "-d", "postgres")
		cmd.SysProcAttr = s.who
		return cmd.Run() == nil
	})
}

func (s *Server) until(what string, is func() bool) {
	s.t.Helper()
	for range 2400 {
		if is() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	s.t.Fatalf("waiting until %s: PostgreSQL in %s", what, s.dir)
}

// Kill ends all of the server's processes where they stand.
func (s *Server) Kill() {
	if s.keeper == nil {
		return
	}
	for {
		folders, _ := filepath.Glob("/proc/[0-9]*/cwd") // each of its processes works in its folder
		left := false
		for _, f := range folders {
			if at, err := os.Readlink(f); err != nil || at != s.data() {
				continue
			}
			if pid, err := strconv.Atoi(strings.Split(f, "/")[2]); err == nil {
				left = true
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if !left {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	_, _ = io.WriteString(s.alive, "stay\n")
	_ = s.alive.Close()
	_ = s.keeper.Wait()
	s.keeper = nil
}

// DSN leads to the server, and to the others where it is not the one that can
// be written to.
func (s *Server) DSN(others ...*Server) string {
	hosts, ports := s.dir, "5432"
	for _, o := range others {
		hosts, ports = hosts+","+o.dir, ports+",5432"
	}
	return "postgres:///?" + url.Values{"host": {hosts}, "port": {ports}, "user": {"falaj"}, "dbname": {"postgres"}}.Encode()
}

// Do runs a statement and gives what it answers.
func (s *Server) Do(statement string) string {
	s.t.Helper()
	return s.tool("psql", "-X", "-A", "-t", "-q", "-h", s.dir, "-U", "falaj", "-d", "postgres", "-c", statement)
}

// Set changes a setting of the running server.
func (s *Server) Set(name, value string) {
	s.t.Helper()
	s.Do("ALTER SYSTEM SET " + name + " = '" + value + "'")
	s.Do("SELECT pg_reload_conf()")
	s.until(name+" is set", func() bool { return s.Do("SHOW "+name) == value })
}

// Copy is a copy of the running server as it is now, which does not run.
func (s *Server) Copy() *Server {
	s.t.Helper()
	c := newServer(s.t)
	c.tool("pg_basebackup", "-D", c.data(), "-h", s.dir, "-U", "falaj", "-X", "stream", "-c", "fast", "--no-sync")
	return c
}

// Standby is a copy that runs and follows the server, which from then on
// acknowledges nothing that its standby has not.
func (s *Server) Standby() *Server {
	s.t.Helper()
	c := newServer(s.t)
	c.Follow(s)
	return c
}

// Follow makes of a server that does not run the synchronous standby of another,
// whatever it was before.
func (s *Server) Follow(primary *Server) {
	s.t.Helper()
	if err := os.RemoveAll(s.data()); err != nil {
		s.t.Fatal(err)
	}
	s.tool("pg_basebackup", "-D", s.data(), "-h", primary.dir, "-U", "falaj", "-X", "stream", "-c", "fast", "--no-sync", "-R")
	s.Start()
	primary.Set("synchronous_standby_names", "*")
	primary.until("the standby is synchronous", func() bool {
		return primary.Do("SELECT sync_state FROM pg_stat_replication") == "sync"
	})
}

// Promote makes a standby a server that can be written to, and waits for
// nobody. It tells when it was one.
func (s *Server) Promote() time.Time {
	s.t.Helper()
	s.Set("synchronous_standby_names", "")
	s.tool("pg_ctl", "promote", "-w", "-D", s.data())
	return time.Now()
}

// Restore puts a copy in the place of the server, which does not run.
func (s *Server) Restore(c *Server) {
	s.t.Helper()
	if err := os.RemoveAll(s.data()); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(c.data(), s.data()); err != nil {
		s.t.Fatal(err)
	}
}
