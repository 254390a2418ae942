package node

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"

	"golang.org/x/sys/unix"
)

// doors are the listeners of a node; nil where one is closed.
type doors struct {
	r1, r1tls, link, admin, adminTLS, operations, public net.Listener
}

// Doors is how many doors a node has at most.
const Doors = 7

// server is an HTTP server at its door.
type server struct {
	*http.Server
	name     string
	listener net.Listener
	last     bool // closed after the others have drained
}

// openDoors binds every address before anything is served, so that a port that
// is taken is found at once, and the exchange knows which ports are its own.
func (n *Node) openDoors(ctx context.Context) error {
	var err error
	most := operation.Connections(operation.Descriptors(), n.all, n.cfg.Limits.Connections)
	if most < n.cfg.Limits.Connections {
		n.log.Info("fewer connections to a door than limits.connections says: this process may not open so many files", "connections", most, "files", operation.Descriptors())
	}
	open := func(at *net.Listener, key, address string) {
		if err != nil || address == "" || address == "off" {
			return
		}
		var l net.Listener
		if l, err = n.net.listen(ctx, "tcp", address); err != nil {
			err = listenFault(err, key, address)
			return
		}
		*at = operation.Bound(l, most)
	}
	open(&n.doors.r1, "r1.http", n.cfg.R1.HTTP)
	open(&n.doors.r1tls, "r1.https", n.cfg.R1.HTTPS)
	open(&n.doors.link, "link.listen", n.cfg.Link.Listen)
	open(&n.doors.adminTLS, "admin.https", n.cfg.Admin.HTTPS)
	open(&n.doors.operations, "operations.listen", n.cfg.Operations.Listen)
	open(&n.doors.public, "public.listen", n.cfg.Public.Listen)
	if err != nil {
		return err
	}
	var l net.Listener
	if n.net.Listen != nil {
		l, err = n.net.Listen(ctx, "unix", n.cfg.Admin.Socket)
	} else {
		l, err = openSocket(n.cfg.Admin.Socket, n.cfg.Admin.Group)
	}
	if err != nil {
		return err
	}
	n.doors.admin = operation.Bound(l, most)
	return nil
}

// listenFault says which door could not be opened, and what to do.
func listenFault(err error, key, address string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fault.Wrap(fault.PortTaken, err, "%s: %s", key, address)
	case errors.Is(err, syscall.EACCES):
		return fault.Wrap(fault.ConfigInvalid, err, "%s: this account may not listen on %s; ports below 1024 take CAP_NET_BIND_SERVICE", key, address)
	}
	return fault.Wrap(fault.ConfigInvalid, err, "%s: cannot listen on %s: %v", key, address, err)
}

// openSocket opens the admin socket for its owner, and a group if one is named.
func openSocket(path, group string) (net.Listener, error) {
	if _, err := os.Lstat(path); err == nil {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return nil, fault.New(fault.ConfigInvalid, "admin.socket: another node listens on %s", path)
		}
		if err := os.Remove(path); err != nil { // left by a process that was killed
			return nil, fmt.Errorf("removing the old admin socket: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the admin socket: %w", err)
	}
	l, err := listenAlone(path)
	if err != nil {
		return nil, fault.Wrap(fault.ConfigInvalid, err, "admin.socket: cannot listen on %s: %v", path, err)
	}
	if group != "" {
		if err = chgrp(path, group); err == nil {
			err = os.Chmod(path, 0o660)
		}
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("opening the admin socket to its group: %w", err)
	}
	return l, nil
}

// listenAlone listens on a socket that from its first moment is its owner's
// alone, whatever the umask: bind takes the mode that the descriptor has on
// Linux. Where it does not, the socket is closed to others a moment later.
func listenAlone(path string) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), 0o600) })
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil || runtime.GOOS == "linux" {
		return l, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func chgrp(path, group string) error {
	g, err := user.LookupGroup(group)
	if err != nil {
		return fault.Wrap(fault.ConfigInvalid, err, "admin.group: no group %q", group)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fault.Wrap(fault.ConfigInvalid, err, "admin.group: group %q has no number", group)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fault.Wrap(fault.ConfigInvalid, err, "admin.group: the socket cannot be given to %q", group)
	}
	return nil
}

func (d *doors) all() []net.Listener {
	return []net.Listener{d.r1, d.r1tls, d.link, d.admin, d.adminTLS, d.operations, d.public}
}

func (d *doors) close() {
	for _, l := range d.all() {
		if l != nil {
			l.Close()
		}
	}
}

func (d *doors) addr(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// own lists the TCP addresses at which this node itself answers.
func (d *doors) own() []netip.AddrPort {
	var out []netip.AddrPort
	for _, l := range d.all() {
		if l == nil {
			continue
		}
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			out = append(out, a.AddrPort())
		}
	}
	return out
}

// servers are the HTTP servers of the open doors.
func (n *Node) servers() []*server {
	l := n.cfg.Limits
	edge := func() *http.Server {
		return operation.Server(n.gate.Wrap(n.exchange.Edge()), int(l.Headers), l.HeaderTime, l.IdleTime, 0)
	}
	var out []*server
	add := func(name string, at net.Listener, s *http.Server, last bool) {
		if at != nil {
			s.ErrorLog = slog.NewLogLogger(n.log.Handler(), slog.LevelDebug)
			out = append(out, &server{s, name, at, last})
		}
	}
	add("r1", n.doors.r1, edge(), false)
	if n.doors.r1tls != nil {
		// Asked for, not demanded: which subsystem must show one, its
		// registration says. HTTP/1.1 alone, as X-Road speaks it.
		conf := &tls.Config{
			MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.r1Certificate() },
		}
		add("r1 over TLS", tls.NewListener(n.doors.r1tls, conf), edge(), false)
	}
	add("admin", n.doors.admin, n.admin.HTTP(), false)
	if n.doors.adminTLS != nil {
		conf := admin.TLS(n.identity.TLS, n.cfg.Admin.Persons, func() int64 { return n.now().Unix() })
		add("admin over TLS", tls.NewListener(n.doors.adminTLS, conf), n.admin.HTTP(), false)
	}
	add("public", n.doors.public, operation.Server(n.public(), 16<<10, l.HeaderTime, l.IdleTime, time.Minute), false)
	add("operations", n.doors.operations, operation.Server(n.health.Handler(n.meters.registry), 16<<10, l.HeaderTime, l.IdleTime, 0), true)
	return out
}

// r1Certificate is what this node shows its state's own systems.
func (n *Node) r1Certificate() (*tls.Certificate, error) {
	if n.cfg.R1.Certificate == "" {
		return n.identity.TLS()
	}
	raw, err := os.ReadFile(n.cfg.R1.Certificate)
	if err != nil {
		return nil, fmt.Errorf("r1.certificate: %w", err)
	}
	key, err := n.keys.Signer(n.cfg.R1.Key)
	if err != nil {
		return nil, fmt.Errorf("r1.key: %w", err)
	}
	cert := &tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert.Certificate = append(cert.Certificate, block.Bytes)
		}
	}
	if len(cert.Certificate) == 0 {
		return nil, fault.New(fault.ConfigInvalid, "r1.certificate: %s holds no PEM certificate", n.cfg.R1.Certificate)
	}
	return cert, nil
}

// lockFolder keeps a second process out of a data folder: the
// directory's record belongs to one.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fault.Wrap(fault.Conflict, err, "another falaj process works in %s; stop it, or name another folder", dir)
	}
	return f, nil
}

// readRules reads the node's own Cedar rules, which stand beside its state's.
// They are read once, at the start: which rules hold is then what the start's
// log says.
func readRules(dir string, state union.State) (func() []policy.Source, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.cedar"))
	if err != nil {
		return nil, fmt.Errorf("directory.rules: %w", err)
	}
	var out []policy.Source
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("directory.rules: %w", err)
		}
		out = append(out, policy.Source{Name: "local/" + strings.TrimSuffix(filepath.Base(f), ".cedar"), State: state, Text: string(b)})
	}
	if _, err := policy.Compile(out, nil); err != nil {
		return nil, fault.Wrap(fault.ConfigInvalid, err, "directory.rules: %v", err)
	}
	return func() []policy.Source { return out }, nil
}
