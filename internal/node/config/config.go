// Package config is the desk at the node's door: it reads what a person wrote
// about a node, refuses what it does not understand, fills in the rest, and
// shows what came of it. A value is taken from the defaults, then the file,
// then the environment (FALAJ_…), then the flags; the last one named wins.
package config

import (
	"net/netip"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// Config is all that a node can be told. The zero value, finished by Load,
// runs: only the state and the directory's root have no usable default.
type Config struct {
	State         union.State `yaml:"state"`
	Name          string      `yaml:"name"`          // the node's name in the directory; default: the state in small letters and "1"
	Data          string      `yaml:"data"`          // the folder of this process: database, directory
	Spool         string      `yaml:"spool"`         // folder of large bodies; default: spool in the data folder; processes of one node share it
	Archive       string      `yaml:"archive"`       // folder of archived records; default: archive in the data folder; processes of one node share it
	Demonstration bool        `yaml:"demonstration"` // accept a demonstration union's root; never in service

	Keys       KeyFolder  `yaml:"keys"`
	R1         R1         `yaml:"r1"`
	Link       Link       `yaml:"link"`
	Admin      Admin      `yaml:"admin"`
	Operations Operations `yaml:"operations"`
	Public     Public     `yaml:"public"`
	Stamp      Stamp      `yaml:"stamp"`
	Seal       Seal       `yaml:"seal"`
	Store      Store      `yaml:"store"`
	Directory  Directory  `yaml:"directory"`
	Limits     Limits     `yaml:"limits"`
	Retention  []Class    `yaml:"retention"`
	Backends   Backends   `yaml:"backends"`
	Clients    []Client   `yaml:"clients"`
	Services   []Service  `yaml:"services"`
	Log        Log        `yaml:"log"`
}

// KeyFolder says where the node's private keys lie.
type KeyFolder struct {
	Folder   string `yaml:"folder"`    // default: keys in the data folder; processes of one node share it
	WrapFile string `yaml:"wrap_file"` // file with 32 bytes, in hexadecimal, that encrypt the key files
}

// R1 is the door for the state's own systems.
type R1 struct {
	HTTP        string `yaml:"http"`        // plain HTTP; "off" closes it
	RemoteHTTP  bool   `yaml:"remote_http"` // allow plain HTTP on an address that is not loopback
	HTTPS       string `yaml:"https"`       // TLS; closed unless set
	Certificate string `yaml:"certificate"` // PEM chain shown to clients; default: the node's own TLS certificate
	Key         string `yaml:"key"`         // name, in the key folder, of that chain's key
}

// Link is the door for the other states' nodes.
type Link struct {
	Listen    string `yaml:"listen"`
	Advertise string `yaml:"advertise"` // host:port that the directory names; default: listen
}

// Admin is the door for the node's own people.
type Admin struct {
	Socket       string        `yaml:"socket"` // Unix socket; default: admin.sock in the data folder
	Group        string        `yaml:"group"`  // group that may open the socket; default: the owner alone
	HTTPS        string        `yaml:"https"`  // mutual TLS; closed unless set
	SecondPerson SecondPerson  `yaml:"second_person"`
	Expiry       time.Duration `yaml:"approval_expiry"` // how long a request waits for the second person
	Persons      []Person      `yaml:"persons"`
}

// SecondPerson says whether keys and directory changes take two people.
type SecondPerson string

// Required is the rule; Waived is accepted from a demonstration alone.
const (
	Required SecondPerson = "required"
	Waived   SecondPerson = "waived"
)

// Role is what a person may do at a node.
type Role string

// The four roles, as X-Road divides the work.
const (
	SecurityOfficer      Role = "security-officer"      // keys, certificates, retention
	Registrar            Role = "registrar"             // clients, the state's part of the directory
	ServiceAdministrator Role = "service-administrator" // services, agreements, outcomes, deliveries
	Auditor              Role = "auditor"               // reads evidence and changes nothing
)

// Roles lists every role.
func Roles() []Role { return []Role{SecurityOfficer, Registrar, ServiceAdministrator, Auditor} }

// List names roles in a sentence.
func List(roles []Role) string {
	var names []string
	for _, r := range roles {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}

// Person is somebody who may speak to the admin door, and how he is known.
type Person struct {
	Name         string   `yaml:"name"`
	Roles        []Role   `yaml:"roles"`
	OSUser       string   `yaml:"os_user"`      // on the Unix socket
	Certificates []Digest `yaml:"certificates"` // SHA-256 of client certificates, on mutual TLS
}

// Operations is the door for probes and meters.
type Operations struct {
	Listen string        `yaml:"listen"` // "off" closes it
	Drain  time.Duration `yaml:"drain"`  // how long calls in flight may take after SIGTERM
}

// Public is the door for everybody: the state's log, its witness, its
// time-stamp authority.
type Public struct {
	Listen string `yaml:"listen"` // plain HTTP, closed unless set: what is there is signed, and public; TLS, where wanted, is a proxy's
}

// Stamp is about time-stamps (RFC 3161): this node's own, and who else gives
// them to it beside the other states' nodes.
type Stamp struct {
	Accuracy    time.Duration `yaml:"accuracy"` // how far the clock is off at most, as this node's time-stamps declare it
	Renew       time.Duration `yaml:"renew"`    // before the end of an authority's certificate, its time-stamps over this log are renewed
	Authorities []Authority   `yaml:"authorities"`
}

// Authority is a time-stamp authority outside of the union.
type Authority struct {
	Address string `yaml:"address"` // http(s) URL (RFC 3161 §3.4)
	Anchor  string `yaml:"anchor"`  // PEM file of the certificate that its own leads to
}

// Seal is about the seals of messages.
type Seal struct {
	Verify Verify `yaml:"verify"` // how signatures on P-256 are verified
}

// Verify names what verifies signatures.
type Verify string

// The ways. Table is faster where few keys seal much, and does nothing in FIPS
// 140 mode.
const (
	Standard Verify = "standard" // Go's cryptography alone
	Table    Verify = "table"    // tables of the keys that seal often, and Standard before anything is refused
)

// Store is where the records lie.
type Store struct {
	DSN     DSN    `yaml:"dsn"`      // path of a SQLite file or postgres://…; default: node.db in the data folder
	DSNFile string `yaml:"dsn_file"` // file that holds the DSN, so that a password stands in no configuration
}

// Directory says how the node knows its union.
type Directory struct {
	Root    string        `yaml:"root"`    // the union's root, pinned: a file that came by a trusted way
	Sources []string      `yaml:"sources"` // where newer metadata may be fetched, beside the peers
	Refresh time.Duration `yaml:"refresh"`
	Rules   string        `yaml:"rules"` // folder of this node's own rules (*.cedar), beside its state's
}

// Limits bound what anyone may ask of the node.
type Limits struct {
	Headers        Size          `yaml:"headers"`         // bytes of a request's head
	Body           Size          `yaml:"body"`            // bytes of one body
	Inline         Size          `yaml:"inline"`          // bodies above this lie in the spool, not in the journal
	Connections    int           `yaml:"connections"`     // open connections on one listener
	Requests       int           `yaml:"requests"`        // calls in flight
	ClientRequests int           `yaml:"client_requests"` // of these, one client's; 0: a quarter
	ClientRate     float64       `yaml:"client_rate"`     // calls a second from one client
	ClientBurst    int           `yaml:"client_burst"`    // calls that one client may make at once
	HeaderTime     time.Duration `yaml:"header_time"`     // until a request's head must have arrived
	IdleTime       time.Duration `yaml:"idle_time"`       // until an idle connection is closed
	CallTime       time.Duration `yaml:"call_time"`       // the longest that a call may take
}

// Share is how many calls one client may have in flight.
func (l Limits) Share() int {
	if l.ClientRequests > 0 {
		return min(l.ClientRequests, l.Requests)
	}
	return max(1, l.Requests/4)
}

// Class is how long records of one kind are kept.
type Class struct {
	Name     string `yaml:"name"`
	KeepDays int    `yaml:"keep_days"`
}

// Backends says where services may lie. Loopback, private, link-local and
// cloud metadata addresses are refused unless a network here holds them.
type Backends struct {
	Allow []netip.Prefix `yaml:"allow"`
}

// Mode is how a client system connects to /r1.
type Mode string

// The three connection modes of X-Road.
const (
	HTTP   Mode = "http"
	HTTPS  Mode = "https"
	Mutual Mode = "mutual" // HTTPS with the subsystem's registered certificate
)

// Client is a system of this state that calls through this node.
type Client struct {
	ID           union.SubsystemID `yaml:"id"`
	Mode         Mode              `yaml:"mode"`
	Certificates []Digest          `yaml:"certificates"` // SHA-256 of its client certificates, for mode mutual
	Push         string            `yaml:"push"`         // where answers to asynchronous calls are sent
}

// Service is a system of this state that answers through this node. What the
// union knows of it (description, time-out, retention) stands in the directory.
type Service struct {
	ID          union.ServiceID `yaml:"id"`
	Address     string          `yaml:"address"`     // http:// or https:// base of the backend
	Authorities string          `yaml:"authorities"` // PEM file of an https backend's authorities; default: the system's
	KeyHeader   string          `yaml:"key_header"`  // header in which the backend takes our id as its idempotency key
}

// Log says what the node writes of itself. Logs are not evidence.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text or json
}

// defaults is what holds where nobody says otherwise. What follows from
// another value (the data folder, the state) is filled in by finish.
func defaults() Config {
	return Config{
		R1:         R1{HTTP: "127.0.0.1:8080"},
		Link:       Link{Listen: ":5500"},
		Admin:      Admin{Expiry: 24 * time.Hour},
		Operations: Operations{Listen: "127.0.0.1:5588", Drain: 30 * time.Second},
		Stamp:      Stamp{Accuracy: time.Second, Renew: 180 * 24 * time.Hour},
		Seal:       Seal{Verify: Standard},
		Directory:  Directory{Refresh: 30 * time.Second},
		Limits: Limits{
			Headers: 64 << 10, Body: 4 << 30, Inline: 64 << 10,
			Connections: 4096, Requests: 1024,
			ClientRate: 20000, ClientBurst: 20000,
			HeaderTime: 10 * time.Second, IdleTime: 2 * time.Minute, CallTime: 5 * time.Minute,
		},
		Retention: []Class{{Name: "exchange", KeepDays: 3650}, {Name: "admin", KeepDays: 3650}, {Name: "case", KeepDays: 7300}},
		Log:       Log{Level: "info", Format: "text"},
	}
}
