package link

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsent is how many bytes the kernel may hold that it has not sent yet.
const unsent = 128 << 10

// tune keeps large bodies out of the kernel's send buffer, where no small
// frame can overtake them: on a slow path it would hold megabytes. A socket
// that refuses, or is none, works without.
func tune(c net.Conn) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
	})
}
