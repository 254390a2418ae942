package admin

import "golang.org/x/sys/unix"

// peerUID asks the kernel whose process is at the other end of a Unix socket.
func peerUID(fd int) (uint32, error) {
	c, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return c.Uid, nil
}
