package link

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTune: both sides' sockets hold little that is not sent.
func TestTune(t *testing.T) {
	p := newPair(t, Config{}, Config{}, hands{})
	_, err := p.bh.Query(soon(t), p.to, "x", nil)
	ok(t, err)
	for _, l := range []*Link{p.bh, p.sa} {
		l.mu.Lock()
		for c := range l.conns {
			raw, err := c.raw.(syscall.Conn).SyscallConn()
			ok(t, err)
			ok(t, raw.Control(func(fd uintptr) {
				if n, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT); err != nil || n != unsent {
					t.Errorf("TCP_NOTSENT_LOWAT is %d, %v", n, err)
				}
			}))
		}
		l.mu.Unlock()
	}
	here, there := net.Pipe()
	tune(here) // no socket: nothing happens
	here.Close()
	there.Close()
}
