package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/store"
)

// server is the process's one PostgreSQL, started when first asked for.
var server = sync.OnceValues(start)

// cluster is a running server.
type cluster struct {
	dir string
	// alive is what the server's keeper reads: held here, since a pipe that
	// nobody refers to would be closed.
	alive io.Closer
}

// Postgres leads to an empty schema, the test's own, which goes with it. It
// fails the test where PostgreSQL is not installed.
func Postgres(t testing.TB) store.Config {
	t.Helper()
	name := fmt.Sprintf("t%016x", rand.Uint64())
	Admin(t, "CREATE SCHEMA "+name)
	t.Cleanup(func() { Admin(t, "DROP SCHEMA "+name+" CASCADE") })
	c, _ := server()
	return store.Config{DSN: c.dsn(name)}
}

// Admin runs a statement as the server's owner, for tests that disturb it.
func Admin(t testing.TB, statement string) {
	t.Helper()
	c, err := server()
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	db, err := store.Open(context.Background(), store.Config{DSN: c.dsn("public"), MaxOpen: 1})
	if err != nil {
		t.Fatalf("reaching PostgreSQL: %v", err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(context.Background(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func (c cluster) dsn(schema string) string {
	q := url.Values{"host": {c.dir}, "user": {"falaj"}, "dbname": {"postgres"}, "search_path": {schema}}
	return "postgres:///?" + q.Encode()
}

// keep makes and runs the server until standard input ends, which it does
// however the test process ends, and then removes everything.
const keep = `
if "$1/initdb" -D "$2/data" -U falaj -A trust -E UTF8 --locale=C --no-sync --no-instructions >"$2/log" 2>&1; then
	"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c max_connections=80 -c shared_buffers=32MB >>"$2/log" 2>&1 &
else
	touch "$2/failed"
fi
cat >/dev/null
[ -e "$2/failed" ] || { kill -QUIT $!; wait $!; }
rm -rf "$2"
`

func start() (c cluster, err error) {
	bin, err := binaries()
	if err != nil {
		return c, err
	}
	// A socket's path may have 107 bytes: TMPDIR could be too deep.
	dir, err := os.MkdirTemp("/tmp", "falaj-pg-")
	if err != nil {
		return c, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir)
		}
	}()
	who, err := ordinary(dir)
	if err != nil {
		return c, err
	}
	keeper := exec.Command("/bin/sh", "-c", keep, "sh", bin, dir)
	keeper.SysProcAttr, keeper.Dir = who, dir
	if c.alive, err = keeper.StdinPipe(); err != nil {
		return c, err
	}
	if err := keeper.Start(); err != nil {
		return c, err
	}
	c.dir = dir
	for range 1200 {
		var db *store.DB
		if db, err = store.Open(context.Background(), store.Config{DSN: c.dsn("public")}); err == nil {
			return c, db.Close()
		}
		if _, failed := os.Stat(dir + "/failed"); failed == nil {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	log, _ := os.ReadFile(dir + "/log")
	_ = c.alive.Close()
	return c, fmt.Errorf("the server does not answer: %w: %s", err, log)
}

// ordinary makes the folder belong to a user who is not root, as whom the
// server runs: PostgreSQL refuses root. A group of its own keeps the terminal's
// Ctrl-C away, so that removing is not interrupted.
func ordinary(dir string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() != 0 {
		return attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, os.Chown(dir, int(uid), int(gid))
}

// binaries finds the newest PostgreSQL where Debian puts it, or on the PATH.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", errors.New("PostgreSQL is not installed; this installs it: scripts/deps")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Dir(path), nil
}
