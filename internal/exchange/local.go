package exchange

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

//go:embed migrations
var migrations embed.FS

// Migrations are the exchange's tables.
func Migrations() store.Migrations {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return store.Migrations{Room: "exchange", FS: sub}
}

// Mode is how a client system connects to /r1: X-Road's three modes.
type Mode string

// The modes. A client bound to Mutual is refused without its certificate.
const (
	ModeHTTP   Mode = "http"
	ModeHTTPS  Mode = "https"
	ModeMutual Mode = "mutual"
)

// Client is a system of this state that calls through this node.
type Client struct {
	ID           union.SubsystemID `json:"id"`
	Mode         Mode              `json:"mode"`
	Certificates []string          `json:"certificates,omitempty"` // SHA-256 of DER in lower-case hexadecimal
	Push         string            `json:"push,omitempty"`         // where answers to asynchronous calls are sent, if anywhere
}

// Backend is where a service of this state really runs. What the union knows
// of a service (time-out, idempotent, retention) stands in the directory.
type Backend struct {
	Service   union.ServiceID `json:"service"`
	Address   string          `json:"address"`              // http:// or https://, joined with the path of the call
	KeyHeader string          `json:"key_header,omitempty"` // header in which the backend takes our id as its idempotency key
	RootsPEM  string          `json:"roots_pem,omitempty"`  // authorities of an https backend; the system's where empty
}

// Local is what this node alone knows of its own systems. Reads are from
// memory; every process of the node reads changes anew within a second or so.
type Local struct {
	db  *store.DB
	now func() time.Time
	mem atomic.Pointer[registered]
}

type registered struct {
	clients  map[union.SubsystemID]Client
	backends map[union.ServiceID]Backend
}

// OpenLocal reads the registrations.
func OpenLocal(ctx context.Context, db *store.DB, now func() time.Time) (*Local, error) {
	l := &Local{db: db, now: now}
	return l, l.Load(ctx)
}

// Load reads the registrations anew.
func (l *Local) Load(ctx context.Context) error {
	r := &registered{clients: map[union.SubsystemID]Client{}, backends: map[union.ServiceID]Backend{}}
	err := l.db.Read(ctx, func(tx *store.Tx) error {
		if err := each(ctx, tx, `SELECT entry FROM exchange_client ORDER BY id`, func(c Client) { r.clients[c.ID] = c }); err != nil {
			return err
		}
		return each(ctx, tx, `SELECT entry FROM exchange_backend ORDER BY id`, func(b Backend) { r.backends[b.Service] = b })
	})
	if err != nil {
		return fmt.Errorf("reading registered systems: %w", err)
	}
	l.mem.Store(r)
	return nil
}

func each[T any](ctx context.Context, tx *store.Tx, query string, use func(T)) error {
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var raw []byte
		if err := rows.Scan(&raw); err != nil {
			return err
		}
		var v T
		if err := json.Unmarshal(raw, &v, json.RejectUnknownMembers(true)); err != nil {
			return err
		}
		use(v)
	}
	return rows.Err()
}

// Client finds a registered client.
func (l *Local) Client(id union.SubsystemID) (Client, bool) {
	c, ok := l.mem.Load().clients[id]
	return c, ok
}

// Clients lists the registered clients by identifier.
func (l *Local) Clients() []Client {
	m := l.mem.Load().clients
	out := make([]Client, 0, len(m))
	for _, c := range m {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Client) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return out
}

// Backend finds a service's backend.
func (l *Local) Backend(id union.ServiceID) (Backend, bool) {
	b, ok := l.mem.Load().backends[id]
	return b, ok
}

// Backends lists the backends by service.
func (l *Local) Backends() []Backend {
	m := l.mem.Load().backends
	out := make([]Backend, 0, len(m))
	for _, b := range m {
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Backend) int { return strings.Compare(a.Service.String(), b.Service.String()) })
	return out
}

// PutClient registers a client or changes it.
func (l *Local) PutClient(ctx context.Context, c Client) error {
	switch c.Mode {
	case "":
		c.Mode = ModeHTTP
	case ModeHTTP, ModeHTTPS, ModeMutual:
	default:
		return fault.New(fault.BadRequest, "mode %q is none of http, https, mutual", c.Mode)
	}
	if c.Mode == ModeMutual && len(c.Certificates) == 0 {
		return fault.New(fault.BadRequest, "mode mutual needs the SHA-256 of at least one client certificate")
	}
	for i, h := range c.Certificates {
		c.Certificates[i] = strings.ToLower(strings.ReplaceAll(h, ":", ""))
		if len(c.Certificates[i]) != 64 || strings.Trim(c.Certificates[i], "0123456789abcdef") != "" {
			return fault.New(fault.BadRequest, "a certificate is named by its SHA-256 in hexadecimal")
		}
	}
	if c.Push != "" {
		if _, err := backendURL(c.Push); err != nil {
			return err
		}
	}
	return l.put(ctx, "exchange_client", c.ID.String(), c)
}

// PutBackend registers a service's backend or changes it.
func (l *Local) PutBackend(ctx context.Context, b Backend) error {
	if reserved(b.Service.Service) {
		return fault.New(fault.BadRequest, "the service code %q is reserved for X-Road's metaservices", b.Service.Service)
	}
	if _, err := backendURL(b.Address); err != nil {
		return err
	}
	if k := strings.ToLower(b.KeyHeader); k != "" && (!message.Token(k) || message.Hop(k) || message.Ours(k)) {
		return fault.New(fault.BadRequest, "no backend can take our id as its key in that header")
	}
	return l.put(ctx, "exchange_backend", b.Service.String(), b)
}

// DropClient removes a client; removing what is not there is NotFound.
func (l *Local) DropClient(ctx context.Context, id union.SubsystemID) error {
	return l.drop(ctx, "exchange_client", id.String())
}

// DropBackend removes a backend; removing what is not there is NotFound.
func (l *Local) DropBackend(ctx context.Context, id union.ServiceID) error {
	return l.drop(ctx, "exchange_backend", id.String())
}

func (l *Local) put(ctx context.Context, table, id string, entry any) error {
	raw, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("writing %s: %w", table, err)
	}
	err = l.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO `+table+` (id, entry, changed_at) VALUES (?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET entry = excluded.entry, changed_at = excluded.changed_at`, id, raw, l.now().UnixMilli())
		return err
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", table, err)
	}
	return l.Load(ctx)
}

func (l *Local) drop(ctx context.Context, table, id string) error {
	err := l.db.Write(ctx, func(tx *store.Tx) error {
		var one int
		err := tx.QueryRow(ctx, `SELECT 1 FROM `+table+` WHERE id = ?`, id).Scan(&one)
		if errors.Is(err, sql.ErrNoRows) {
			return fault.New(fault.NotFound, "%s is not registered at this node", id)
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM `+table+` WHERE id = ?`, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("removing from %s: %w", table, err)
	}
	return l.Load(ctx)
}

// backendURL reads a backend's base address: absolute, http or https, no user,
// query or fragment.
func backendURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fault.New(fault.BadRequest, "the address of a service is not a URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Opaque != "":
		return nil, fault.New(fault.BadRequest, "the address of a service begins with http:// or https:// and names a host")
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return nil, fault.New(fault.BadRequest, "the address of a service holds no user, query or fragment")
	}
	return u, nil
}
