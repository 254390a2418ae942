package node

import (
	"bytes"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falaj/falaj/internal/node/config"
)

// TestDoorsLeaveDescriptors: a door takes no more connections than leave the
// process files for everything else, and the start says so.
func TestDoorsLeaveDescriptors(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	lower := was
	lower.Cur = 600
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	var log bytes.Buffer
	n := &Node{all: Doors, log: slog.New(slog.NewTextHandler(&log, nil))}
	n.cfg.R1.HTTP = "127.0.0.1:0"
	n.cfg.Limits = config.Limits{Connections: 4096}
	n.cfg.Admin.Socket = filepath.Join(t.TempDir(), "s")
	if err := n.openDoors(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer n.doors.close()
	const most = (600 - 150 - 256) / Doors
	if !strings.Contains(log.String(), "connections=27 files=600") || most != 27 {
		t.Errorf("said %q", &log)
	}
	for name, l := range map[string]net.Listener{"r1": n.doors.r1, "admin": n.doors.admin} {
		var in atomic.Int32
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				in.Add(1)
				defer c.Close()
			}
		}()
		for range 2 * most {
			c, err := net.Dial(l.Addr().Network(), l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		time.Sleep(100 * time.Millisecond)
		if in.Load() != most {
			t.Errorf("%s: %d connections are in, not %d", name, in.Load(), most)
		}
	}
}
