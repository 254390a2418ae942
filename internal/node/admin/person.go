// Package admin is the counter for the node's own people: it knows who stands
// before it, what his role allows, which changes take a second person, and it
// writes every change into the journal before and after it is made. What the
// changes are, the rest of the node tells it as a table.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/config"
)

// Person is somebody at the counter.
type Person struct {
	Name  string        `json:"name"`
	Roles []config.Role `json:"roles"`
	Via   string        `json:"via"` // socket or certificate: how he is known
}

// Has tells whether the person has one of the roles; no roles: anybody.
func (p Person) Has(roles []config.Role) bool {
	return len(roles) == 0 || slices.ContainsFunc(roles, func(r config.Role) bool { return slices.Contains(p.Roles, r) })
}

// Seconded tells whether somebody other than the first is configured who may
// agree to what takes one of the roles.
func Seconded(persons []config.Person, roles []config.Role, first string) bool {
	return slices.ContainsFunc(persons, func(p config.Person) bool { return p.Name != first && Person{Roles: p.Roles}.Has(roles) })
}

type peerKey struct{}

// peer is what the kernel says of the other end of a Unix socket.
type peer struct{ uid uint32 }

// remember is an http.Server's ConnContext: it asks a Unix socket who is at
// its other end, once, when he connects.
func remember(ctx context.Context, c net.Conn) context.Context {
	for {
		u, ok := c.(interface{ Unwrap() net.Conn })
		if !ok {
			break
		}
		c = u.Unwrap()
	}
	s, ok := c.(syscall.Conn)
	if _, unixSocket := c.(*net.UnixConn); !unixSocket || !ok {
		return ctx
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return ctx
	}
	var uid uint32
	var asked error
	if err := raw.Control(func(fd uintptr) { uid, asked = peerUID(int(fd)) }); err != nil || asked != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer{uid})
}

// identify names the person behind a request, or refuses.
func (s *Server) identify(r *http.Request) (Person, error) {
	if p, ok := r.Context().Value(peerKey{}).(peer); ok {
		return s.bySocket(p)
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return s.byCertificate(r.TLS)
	}
	return Person{}, fault.New(fault.NotAllowed, "nobody is known on this connection")
}

// bySocket knows a person by his account on this machine. Where no person is
// configured, the socket's own permissions say who may come, and he has every
// role; what takes a second person is then refused.
func (s *Server) bySocket(p peer) (Person, error) {
	account := "uid " + strconv.FormatUint(uint64(p.uid), 10)
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.uid), 10)); err == nil {
		account = u.Username
	}
	if len(s.cfg.Persons) == 0 {
		if s.cfg.Group == "" && p.uid != 0 && int(p.uid) != os.Geteuid() {
			return Person{}, fault.New(fault.NotAllowed, "the account %q does not run this node", account)
		}
		return Person{Name: account, Roles: config.Roles(), Via: "socket"}, nil
	}
	for _, x := range s.cfg.Persons {
		if x.OSUser != "" && x.OSUser == account {
			return Person{Name: x.Name, Roles: x.Roles, Via: "socket"}, nil
		}
	}
	return Person{}, fault.New(fault.NotAllowed, "the account %q is none of admin.persons", account)
}

func (s *Server) byCertificate(state *tls.ConnectionState) (Person, error) {
	sum := config.Digest(sha256.Sum256(state.PeerCertificates[0].Raw))
	for _, x := range s.cfg.Persons {
		if slices.Contains(x.Certificates, sum) {
			return Person{Name: x.Name, Roles: x.Roles, Via: "certificate"}, nil
		}
	}
	text, _ := sum.MarshalText()
	return Person{}, fault.New(fault.NotAllowed, "the certificate %s is none of admin.persons", text)
}

// TLS is the configuration of the mutual TLS door: it asks for a certificate
// and holds its key to it; whose it is, the list of persons says, so that no
// authority stands between a person and his name. Expired ones are refused.
func TLS(cert func() (*tls.Certificate, error), persons []config.Person, now func() int64) *tls.Config {
	known := map[config.Digest]bool{}
	for _, p := range persons {
		for _, d := range p.Certificates {
			known[d] = true
		}
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert() },
		VerifyConnection: func(state tls.ConnectionState) error {
			c := state.PeerCertificates[0]
			if !known[sha256.Sum256(c.Raw)] {
				return fmt.Errorf("a certificate that names nobody")
			}
			if at := now(); at < c.NotBefore.Unix() || at > c.NotAfter.Unix() {
				return fmt.Errorf("a certificate out of its time")
			}
			return nil
		},
	}
}
