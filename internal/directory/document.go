package directory

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Limits of the documents. A document over them is refused before, or as soon
// as, it is decoded: whoever holds a state's key must not fill others' memory.
const (
	maxDocument = 4 << 20 // union.json, state.json, policy.cedar, CRL, OpenAPI: each
	maxText     = 1 << 10 // bytes of one language of one text
	maxSeats    = 64      // states of a union
	maxPurposes = 1024
	maxNodes    = 64 // nodes of a state
	maxMembers  = 10_000
	maxInner    = 10_000 // subsystems of a member, services of a subsystem, agreements and endpoints
	maxCerts    = 32     // certificates of one member, node or list

	maxDefinition  = 1 << 20 // bytes of a joint service's definition
	maxDefinitions = 256     // of a union, all versions
)

// Charter is union.json: what k of n states say together.
type Charter struct {
	Name          string         `json:"name"`
	Demonstration bool           `json:"demonstration"`
	Quorum        int            `json:"quorum"`           // witnesses whose cosignature a log's head needs
	Witness       merkle.Key     `json:"witness,omitzero"` // the secretariat's, which counts beside the states'
	Purposes      []Purpose      `json:"purposes"`
	States        []Seat         `json:"states"`
	Successions   []Succession   `json:"successions,omitempty"`
	Announcements []Announcement `json:"announcements,omitempty"`
}

// Purpose is a reason for which data may cross, with its legal basis.
type Purpose struct {
	Code  string     `json:"code"`
	Name  union.Text `json:"name"`
	Basis union.Text `json:"basis"`
}

// Seat is a state's place in the union.
type Seat struct {
	Code    union.State `json:"code"`
	Name    union.Text  `json:"name"`
	Partner bool        `json:"partner"`       // takes part by agreement, not by the union's treaty
	Root    string      `json:"root,omitzero"` // identifier of the key that votes for it; "": it has no vote
	Online  string      `json:"online"`        // identifier of its key for snapshots and time-stamps
}

// Part is <STATE>/state.json: what one state says of itself.
type Part struct {
	State       union.State `json:"state"`
	Authorities []Issuer    `json:"authorities"`
	Nodes       []Node      `json:"nodes"`
	Members     []Member    `json:"members"`
	Stamps      []Stamp     `json:"stamps,omitempty"`
	Agreements  []Agreement `json:"agreements,omitempty"`
	// Batch: the state gives and takes seals over many messages at once, with
	// states that say the same. Where its law wants each message sealed by
	// itself, it does not say so.
	Batch bool `json:"batch,omitzero"`
}

// Issuer is a certificate authority that the state names as its own. Each is
// an anchor: there is no path building beyond it.
type Issuer struct {
	Certificate Cert   `json:"certificate"`
	CRL         string `json:"crl,omitzero"` // file under the state's path, or "" where the authority publishes none
}

// Node is one node of a state: where its link listens, and the certificates
// that it may show there (two while one replaces the other).
type Node struct {
	Name         string `json:"name"`
	Address      string `json:"address"` // host:port
	Certificates []Cert `json:"certificates"`
}

// Member is an organisation of the state and the certificates of its seals:
// retired ones stay until they expire.
type Member struct {
	ID         union.MemberID `json:"-"`
	Class      string         `json:"class"`
	Code       string         `json:"code"`
	Name       union.Text     `json:"name"`
	Seals      []Cert         `json:"seals"`
	Subsystems []Subsystem    `json:"subsystems,omitempty"`
}

// Subsystem is a system of a member.
type Subsystem struct {
	ID       union.SubsystemID `json:"-"`
	Code     string            `json:"code"`
	Name     union.Text        `json:"name"`
	Services []Service         `json:"services,omitempty"`
}

// Service is what a subsystem offers to others.
type Service struct {
	ID         union.ServiceID   `json:"-"`
	Code       string            `json:"code"`
	Name       union.Text        `json:"name"`
	OpenAPI    string            `json:"openapi,omitzero"`    // file under the state's path, "" if it has no description
	Endpoints  []policy.Endpoint `json:"endpoints,omitempty"` // none: any method, any path
	Idempotent bool              `json:"idempotent"`          // an unclear outcome may be tried again
	Async      bool              `json:"async"`               // answers later even where the client did not ask for it
	TimeoutMS  int64             `json:"timeout_ms,omitzero"` // 0: the node's own
	Retention  string            `json:"retention"`           // retention class of its records
	DigestOnly bool              `json:"digest_only"`         // of bodies only the digest is kept
	DataClass  string            `json:"data_class"`
}

// Timeout is how long the provider may take, 0 if the service does not say.
func (s Service) Timeout() time.Duration { return time.Duration(s.TimeoutMS) * time.Millisecond }

// Stamp is a time-stamp authority (RFC 3161) that the state runs: its node, or
// another.
type Stamp struct {
	Address     string `json:"address,omitzero"` // http(s) URL where everybody may ask it; "": only nodes may, over the link
	Certificate Cert   `json:"certificate"`
}

// Agreement grants a client a service of the state in whose part it stands.
type Agreement struct {
	policy.Agreement
	DefaultPurpose string `json:"default_purpose,omitzero"` // for a client that cannot send one
}

// Cert is a certificate, in JSON as PEM.
type Cert struct{ *x509.Certificate }

// SHA256 is the digest of the certificate's DER.
func (c Cert) SHA256() [32]byte { return sha256.Sum256(c.Raw) }

// MarshalText writes PEM.
func (c Cert) MarshalText() ([]byte, error) {
	if c.Certificate == nil {
		return nil, errors.New("no certificate")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), nil
}

// UnmarshalText reads one PEM certificate and nothing beside it.
func (c *Cert) UnmarshalText(b []byte) error {
	block, rest := pem.Decode(b)
	if !bytes.HasPrefix(b, []byte("-----BEGIN")) || block == nil || block.Type != "CERTIFICATE" || len(block.Headers) != 0 || len(bytes.TrimSpace(rest)) != 0 {
		return errors.New("not one PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c.Certificate = cert
	return nil
}

// DecodeCharter reads union.json strictly: unknown and repeated fields,
// missing languages, and counts over the limits are errors.
func DecodeCharter(b []byte) (*Charter, error) {
	c := new(Charter)
	if err := decode(b, c); err != nil {
		return nil, fmt.Errorf("union.json: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("union.json: %w", err)
	}
	return c, nil
}

// DecodePart reads a state's state.json as strictly, and fills in the full
// identifiers of members, subsystems and services.
func DecodePart(b []byte) (*Part, error) {
	p := new(Part)
	if err := decode(b, p); err != nil {
		return nil, fmt.Errorf("state.json: %w", err)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("state.json: %w", err)
	}
	return p, nil
}

func decode(b []byte, v any) error {
	if len(b) > maxDocument {
		return fmt.Errorf("%d bytes; at most %d", len(b), maxDocument)
	}
	return unmarshal(b, v)
}

// unmarshal is strict: names are told apart by case, and unknown or repeated
// ones and invalid UTF-8 are errors.
func unmarshal(b []byte, v any) error {
	return json.Unmarshal(b, v, json.RejectUnknownMembers(true))
}

// encode is the form of the documents: the same value gives the same bytes.
func encode(v any) ([]byte, error) {
	return json.Marshal(v, json.Deterministic(true), jsontext.WithIndent("  "))
}

func (c *Charter) check() error {
	if c.Name == "" || len(c.Name) > maxText {
		return errors.New("name is empty or too long")
	}
	if c.Quorum < 0 || c.Quorum > maxSeats {
		return fmt.Errorf("quorum %d", c.Quorum)
	}
	if c.Witness != (merkle.Key{}) && (c.Witness.Kind() != merkle.Cosignature || !secretariatName.MatchString(c.Witness.Name())) {
		return fmt.Errorf("the witness %q: wanted one named host/secretariat/label, of kind %d", clip(c.Witness.Name()), merkle.Cosignature)
	}
	if len(c.Purposes) > maxPurposes || len(c.States) > maxSeats ||
		len(c.Successions) > maxSeats || len(c.Announcements) > maxSeats {
		return errors.New("too many entries")
	}
	seen := set{}
	for _, p := range c.Purposes {
		if err := errors.Join(code("purpose", p.Code), seen.add("purpose", p.Code),
			text("purpose "+p.Code, p.Name), text("legal basis of "+p.Code, p.Basis)); err != nil {
			return err
		}
	}
	for _, s := range c.States {
		if _, err := union.ParseState(string(s.Code)); err != nil {
			return err
		}
		if err := errors.Join(seen.add("state", string(s.Code)), text("state "+string(s.Code), s.Name)); err != nil {
			return err
		}
		if !keyName.MatchString(s.Online) || s.Root != "" && !keyName.MatchString(s.Root) {
			return fmt.Errorf("state %s: its keys are not named", s.Code)
		}
	}
	for _, s := range c.Successions {
		if _, _, err := pemKey(s.Key); err != nil {
			return fmt.Errorf("succession of %s: %w", clip(string(s.State)), err)
		}
	}
	for _, a := range c.Announcements {
		if _, _, err := pemKey(a.Key); err != nil {
			return fmt.Errorf("announcement of %s: %w", clip(string(a.State)), err)
		}
	}
	return nil
}

func (p *Part) check() error {
	if _, err := union.ParseState(string(p.State)); err != nil {
		return err
	}
	if len(p.Authorities) > maxCerts || len(p.Nodes) > maxNodes || len(p.Members) > maxMembers ||
		len(p.Stamps) > maxCerts || len(p.Agreements) > maxInner {
		return errors.New("too many entries")
	}
	seen := set{}
	for _, a := range p.Authorities {
		if a.CRL != "" && !crlName.MatchString(a.CRL) {
			return fmt.Errorf("CRL %q is not named crl….der", clip(a.CRL))
		}
		if err := has(a.Certificate); err != nil {
			return err
		}
	}
	for _, n := range p.Nodes {
		if err := errors.Join(code("node", n.Name), seen.add("node", n.Name), address(n.Address), all(n.Certificates)); err != nil {
			return fmt.Errorf("node %s: %w", clip(n.Name), err)
		}
	}
	for _, s := range p.Stamps {
		if s.Address != "" && !strings.HasPrefix(s.Address, "http://") && !strings.HasPrefix(s.Address, "https://") || len(s.Address) > maxText {
			return fmt.Errorf("time-stamp authority: %q is no http address", clip(s.Address))
		}
		if err := has(s.Certificate); err != nil {
			return err
		}
	}
	for i := range p.Members {
		if err := p.Members[i].check(p.State, seen); err != nil {
			return err
		}
	}
	for i := range p.Agreements {
		if err := p.Agreements[i].check(p.State, seen); err != nil {
			return fmt.Errorf("agreement %s: %w", clip(p.Agreements[i].ID), err)
		}
	}
	return nil
}

func (m *Member) check(state union.State, seen set) error {
	m.ID = union.MemberID{State: state, Class: m.Class, Code: m.Code}
	name := m.ID.String()
	if _, err := union.ParseMember(name); err != nil {
		return err
	}
	if err := errors.Join(seen.add("member", name), text(name, m.Name), all(m.Seals)); err != nil {
		return fmt.Errorf("member %s: %w", name, err)
	}
	if len(m.Subsystems) > maxInner {
		return fmt.Errorf("member %s: too many subsystems", name)
	}
	for i := range m.Subsystems {
		s := &m.Subsystems[i]
		s.ID = union.SubsystemID{MemberID: m.ID, Subsystem: s.Code}
		name := s.ID.String()
		if _, err := union.ParseSubsystem(name); err != nil {
			return err
		}
		if err := errors.Join(seen.add("subsystem", name), text(name, s.Name)); err != nil {
			return err
		}
		if len(s.Services) > maxInner {
			return fmt.Errorf("subsystem %s: too many services", name)
		}
		for j := range s.Services {
			v := &s.Services[j]
			v.ID = union.ServiceID{SubsystemID: s.ID, Service: v.Code}
			if err := v.check(seen); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) check(seen set) error {
	name := s.ID.String()
	if _, err := union.ParseService(name); err != nil {
		return err
	}
	if err := errors.Join(seen.add("service", name), text(name, s.Name), endpoints(s.Endpoints),
		code("retention class", s.Retention), code("data class", s.DataClass)); err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	if s.OpenAPI != "" && !openapiName.MatchString(s.OpenAPI) {
		return fmt.Errorf("service %s: OpenAPI file %q is not named openapi/….json", name, clip(s.OpenAPI))
	}
	if s.TimeoutMS < 0 || s.TimeoutMS > int64(24*time.Hour/time.Millisecond) {
		return fmt.Errorf("service %s: time-out of %d ms", name, s.TimeoutMS)
	}
	return nil
}

// check leaves to policy what policy refuses.
func (a *Agreement) check(state union.State, seen set) error {
	if err := errors.Join(code("agreement", a.ID), seen.add("agreement", a.ID)); err != nil {
		return err
	}
	if a.Service.State != state {
		return fmt.Errorf("the service is not of %s: only the serving state grants", state)
	}
	if a.DefaultPurpose == "" {
		return nil
	}
	if err := seen.add("default purpose", a.Client.String()+" at "+a.Service.String()); err != nil {
		return err
	}
	if !slices.Contains(a.Purposes, a.DefaultPurpose) {
		return fmt.Errorf("default purpose %q is not among its purposes", clip(a.DefaultPurpose))
	}
	return nil
}

var (
	codeName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	keyName     = regexp.MustCompile(`^[0-9a-f]{64}$`)
	methodName  = regexp.MustCompile(`^[A-Z]{1,32}$`)
	crlName     = regexp.MustCompile(`^crl(-[a-z0-9-]{1,64})?\.der$`)
	openapiName = regexp.MustCompile(`^openapi/[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.json$`)
)

func code(what, s string) error {
	if !codeName.MatchString(s) {
		return fmt.Errorf("%s %q: wanted letters, digits, . _ - (at most 128)", what, clip(s))
	}
	return nil
}

func text(what string, t union.Text) error {
	if !t.Complete() {
		return fmt.Errorf("%s: its text is missing in Arabic or English", what)
	}
	if len(t.En) > maxText || len(t.Ar) > maxText {
		return fmt.Errorf("%s: its text is over %d bytes", what, maxText)
	}
	return nil
}

func address(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("address %q is not host:port", clip(s))
	}
	if n, err := strconv.Atoi(port); host == "" || len(host) > 255 || err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("address %q is not host:port", clip(s))
	}
	return nil
}

func endpoints(list []policy.Endpoint) error {
	if len(list) > maxInner {
		return errors.New("too many endpoints")
	}
	for _, e := range list {
		if e.Method != "*" && !methodName.MatchString(e.Method) {
			return fmt.Errorf("endpoint: method %q", clip(e.Method))
		}
		if _, err := policy.ParsePattern(e.Path); err != nil {
			return fmt.Errorf("endpoint %q: %w", clip(e.Path), err)
		}
	}
	return nil
}

func all(certs []Cert) error {
	if len(certs) > maxCerts {
		return errors.New("too many certificates")
	}
	for _, c := range certs {
		if err := has(c); err != nil {
			return err
		}
	}
	return nil
}

func has(c Cert) error {
	if c.Certificate == nil {
		return errors.New("a certificate is missing")
	}
	return nil
}

// set finds names that stand twice.
type set map[string]bool

func (s set) add(kind, name string) error {
	key := kind + " " + name
	if s[key] {
		return fmt.Errorf("%s stands twice", clip(key))
	}
	s[key] = true
	return nil
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
