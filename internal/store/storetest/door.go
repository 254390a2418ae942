package storetest

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// Door is one address behind which the server may be another at any moment, as
// with a plain balancer: connections that are open stay where they are.
type Door struct {
	Server // whose folder is the address; it never runs
	to     atomic.Pointer[Server]
}

// NewDoor opens a door that leads to a server.
func NewDoor(t testing.TB, to *Server) *Door {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "falaj-pg-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &Door{Server: Server{t: t, dir: dir}}
	d.Lead(to)
	l, err := net.Listen("unix", filepath.Join(d.dir, socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go d.forward(in)
		}
	}()
	return d
}

// Lead has new connections go to another server.
func (d *Door) Lead(to *Server) { d.to.Store(to) }

func (d *Door) forward(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("unix", filepath.Join(d.to.Load().dir, socket))
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(out, in)
		_ = out.Close()
		_ = in.Close()
	}()
	_, _ = io.Copy(in, out)
}
