package cli

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/up"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// target is a node that a command speaks to.
type target struct {
	*admin.Client
	place up.Place // what the union on this machine says of it; zero where it was named by --admin
}

// here reads where the union on this machine is; nil where none runs.
func (s *session) here() (*up.Ready, error) {
	dir, err := s.upData()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, up.ReadyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, admin.NoPermission(err)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the union on this machine: %w", err)
	}
	var r up.Ready
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("looking for the union on this machine: %w", err)
	}
	return &r, nil
}

// node finds the node to speak to: the one that --admin names, else that of a
// state in the union on this machine: of --state, or of what the command is
// about.
func (s *session) node(about union.State) (*target, error) {
	if s.Admin != "" {
		return s.dial(s.Admin)
	}
	all, err := s.nodes(about)
	if err != nil {
		return nil, err
	}
	if len(all) > 1 {
		list := strings.Join(names(all), "|")
		return nil, fault.New(fault.Usage, "several nodes run here; choose one: --state %s", list).Arabic("تعمل هنا عدة عقد، فاختر واحدة منها: --state %s", list)
	}
	return all[0], nil
}

// nodes finds every node that a command may be about.
func (s *session) nodes(about union.State) ([]*target, error) {
	if s.Admin != "" {
		one, err := s.dial(s.Admin)
		return []*target{one}, err
	}
	want := about
	if s.State != "" {
		st, err := union.ParseState(strings.ToUpper(s.State))
		if err != nil {
			return nil, fault.New(fault.Usage, "--state: %v", err)
		}
		want = st
	}
	r, err := s.here()
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, fault.New(fault.NoNode, "no union runs on this machine (falaj up), and --admin names no node").
			Arabic("لا يعمل اتحاد على هذا الجهاز (falaj up)، ولم تُحدَّد عقدة بالخيار --admin")
	}
	var all []*target
	for _, p := range r.Nodes {
		if want == "" || p.State == want {
			all = append(all, &target{admin.Dial(p.Admin, nil), p})
		}
	}
	if len(all) == 0 {
		return nil, fault.New(fault.NoNode, "the union on this machine has no node of %s", want)
	}
	return all, nil
}

func names(all []*target) []string {
	var out []string
	for _, x := range all {
		out = append(out, string(x.place.State))
	}
	return out
}

// dial makes a client of an admin door: a socket, or an https address for
// which the person shows his certificate.
func (s *session) dial(address string) (*target, error) {
	if strings.HasPrefix(address, "http://") {
		return nil, fault.New(fault.Usage, "--admin: wanted a socket or https://…, not %s", address)
	}
	if !strings.HasPrefix(address, "https://") {
		return &target{Client: admin.Dial(address, nil)}, nil
	}
	conf, err := s.tls()
	if err != nil {
		return nil, err
	}
	return &target{Client: admin.Dial(address, conf)}, nil
}

// tls is how this person shows himself over TLS: --cert, --key and, to know
// the node, --authority.
func (s *session) tls() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.Authority != "" {
		text, err := os.ReadFile(s.Authority)
		if err != nil {
			return nil, fault.New(fault.File, "--authority: %v", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(text) {
			return nil, fault.New(fault.Usage, "--authority: %s holds no PEM certificate", s.Authority)
		}
	}
	if s.Cert == "" && s.PrivateKey == "" {
		return conf, nil
	}
	text, err := os.ReadFile(s.Cert)
	if err != nil {
		return nil, fault.New(fault.File, "--cert: %v", err)
	}
	chain := chainOf(text)
	if len(chain) == 0 {
		return nil, fault.New(fault.Usage, "--cert: %s holds no PEM certificate", s.Cert)
	}
	signer, err := seal.ReadKey(s.PrivateKey)
	if err != nil {
		return nil, fault.Wrap(fault.Usage, err, "--key: %v", err)
	}
	conf.Certificates = []tls.Certificate{{Certificate: chain, PrivateKey: signer}}
	return conf, nil
}

// chainOf reads the certificates of a PEM file.
func chainOf(text []byte) (chain [][]byte) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			chain = append(chain, block.Bytes)
		}
	}
	return chain
}

// changed asks for a change and says what came of it. It is an exit of its own
// where the change waits for a second person.
func (s *session) changed(n *target, action string, params, result any, people func()) error {
	a, err := n.Change(s.ctx, action, params, result)
	if err != nil {
		return err
	}
	if a.Approval == nil {
		return s.show(a, func() {
			people()
			if a.Waived {
				s.line(t("(In service this takes a second person; a demonstration waives him.)",
					"(يتطلب هذا في الخدمة الفعلية شخصاً ثانياً، والعرض التجريبي يعفي منه.)"))
			}
		})
	}
	s.show(a, func() {
		s.printf("%s %s\n  falaj approval approve %s\n", s.say(t("It waits for a second person, until", "ينتظر موافقة شخص ثانٍ، حتى")),
			a.Approval.ExpiresAt.UTC().Format(time.RFC3339), a.Change)
	})
	return errExit(ExitApproval)
}
