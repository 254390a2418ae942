// Package node is where all rooms come together: from a configuration it makes
// a running node of one state, or on one machine a union of them. It alone
// sees every room; what joins two of them is written here and nowhere else.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/ledger"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/witness"
)

// Deps are what a node is given of the world. Zero values are the real one.
type Deps struct {
	Now func() time.Time
	Log *slog.Logger // nil: nothing is logged
	Network
	// Doors is how many doors this process has in all, where others stand in it
	// beside the node: they share its file descriptors.
	Doors int
}

// Network is how doors are opened and others reached; nil: the machine's own.
type Network struct {
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

func (n Network) listen(ctx context.Context, network, address string) (net.Listener, error) {
	if n.Listen != nil {
		return n.Listen(ctx, network, address)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}

// Node is one process of one state's node.
type Node struct {
	cfg  config.Config
	all  int // doors of this process
	now  func() time.Time
	log  *slog.Logger
	life context.Context // ends when the node stops
	net  Network

	lock      *os.File
	keys      *seal.Keys
	persons   *persons
	db        *store.DB
	journal   *journal.Journal
	spool     *seal.Spool
	directory *directory.Directory
	identity  *identity
	rules     func() []policy.Source // this node's own
	sources   []directory.Peer       // of the configuration
	exchange  *exchange.Exchange
	cases     *casework.Engine
	joint     *casework.Library // what the directory says of joint services
	link      *link.Link
	publisher *witness.Log
	witness   *witness.Witness
	clock     *witness.Clock
	authority *witness.Authority
	stamps    *witness.Stamps
	stampDoor *rate.Limiter
	promises  *witness.Promises
	overseer  *http.Client // asks the directory's sources, and the secretariat's witness
	admin     *admin.Server
	gate      *operation.Gate
	health    *operation.Health
	meters    *meters
	doors     doors
	end       func()
	closing   sync.Once
}

// New opens a node: its data, its keys, its doors. Nothing is answered before
// Run. Whoever does not call Run calls Close.
func New(ctx context.Context, cfg config.Config, deps Deps) (_ *Node, err error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, all: max(deps.Doors, Doors), now: deps.Now, net: deps.Network, log: deps.Log.With("state", cfg.State, "node", cfg.Name)}
	n.life, n.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	if n.lock, err = lockFolder(cfg.Data); err != nil {
		return nil, err
	}
	if err := n.openStore(ctx); err != nil {
		return nil, err
	}
	if err := n.openDirectory(ctx); err != nil {
		return nil, err
	}
	if err := n.openDoors(ctx); err != nil {
		return nil, err
	}
	return n, n.openExchange(ctx)
}

// openStore opens keys, database, journal and spool.
func (n *Node) openStore(ctx context.Context) error {
	wrap, err := n.cfg.Keys.Wrap()
	if err != nil {
		return err
	}
	if n.keys, err = seal.OpenKeys(n.cfg.Keys.Folder, seal.KeyConfig{Demonstration: n.cfg.Demonstration, Wrap: wrap}); err != nil {
		return fmt.Errorf("opening the key folder %s: %w", n.cfg.Keys.Folder, err)
	}
	if n.db, err = store.Open(ctx, store.Config{DSN: string(n.cfg.Store.DSN)}, migrations()...); err != nil {
		return fault.Wrap(fault.StoreFailed, err, "opening %s: %v", n.cfg.Store.DSN, err)
	}
	deps, err := n.journalDeps()
	if err != nil {
		return err
	}
	if n.journal, err = journal.New(journal.Config{}, deps); err != nil {
		return fmt.Errorf("opening the journal: %w", err)
	}
	if n.spool, err = seal.OpenSpool(n.cfg.Spool, n.keys.Records()); err != nil {
		return fmt.Errorf("opening the spool: %w", err)
	}
	return nil
}

// migrations are the tables of all rooms.
func migrations() []store.Migrations {
	return []store.Migrations{journal.Migrations(), exchange.Migrations(), admin.Migrations(), witness.Migrations(), casework.Migrations(), ledger.Migrations()}
}

func (n *Node) journalDeps() (journal.Deps, error) {
	names, err := n.keys.HMAC("journal-1")
	if err != nil {
		return journal.Deps{}, fmt.Errorf("the key of the journal's names: %w", err)
	}
	return journal.Deps{DB: n.db, Records: n.keys.Records(), Keys: names, Archive: n.cfg.Archive}, nil
}

// openDirectory opens this node's copy. A node whose copy is empty fetches it
// where its configuration says; it starts without, and is not ready until then.
func (n *Node) openDirectory(ctx context.Context) error {
	root, err := os.ReadFile(n.cfg.Directory.Root)
	if err != nil {
		return fault.Wrap(fault.ConfigInvalid, err, "directory.root: the union's pinned root cannot be read from %s", n.cfg.Directory.Root)
	}
	if err := n.openSources(); err != nil {
		return err
	}
	n.directory, err = directory.Open(ctx, directory.Config{
		Dir: filepath.Join(n.cfg.Data, "directory"), Root: root, State: n.cfg.State, Demonstration: n.cfg.Demonstration,
	}, directory.Deps{Now: n.now, Log: n.log, Keys: n.keys, Peers: n.peers})
	if err != nil {
		return fmt.Errorf("opening the directory: %w", err)
	}
	if n.directory.View().Version() == 0 {
		within, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := n.directory.Refresh(within); err != nil {
			n.log.Warn("no directory yet", "event", admin.EventDirectoryStale, "error", err)
		}
	}
	n.identity = &identity{keys: n.keys, dir: n.directory, state: n.cfg.State, node: n.cfg.Name, now: n.now, grace: 2 * n.cfg.Directory.Refresh}
	return nil
}

func (n *Node) openExchange(ctx context.Context) error {
	local, err := exchange.OpenLocal(ctx, n.db, n.now)
	if err != nil {
		return err
	}
	n.persons = &persons{keys: n.keys}
	if err := n.persons.use(n.persons.newest()); err != nil {
		return err
	}
	names, err := n.keys.HMAC("exchange-1")
	if err != nil {
		return fmt.Errorf("the key that hides calls' names: %w", err)
	}
	if n.rules, err = readRules(n.cfg.Directory.Rules, n.cfg.State); err != nil {
		return err
	}
	n.meters = newMeters()
	n.openLog()
	if err := n.openStamps(); err != nil {
		return err
	}
	n.exchange, err = exchange.New(exchange.Config{
		State: n.cfg.State, Node: n.cfg.Name, Alone: n.db.Dialect() == store.SQLite,
		Inline: int(n.cfg.Limits.Inline), MaxBody: int64(n.cfg.Limits.Body), CallTime: n.cfg.Limits.CallTime, Share: n.cfg.Limits.Share(),
		Allow: n.cfg.Backends.Allow, Own: n.doors.own(), Tables: n.cfg.Seal.Verify == config.Table, Settle: 2 * n.cfg.Directory.Refresh,
	}, exchange.Deps{
		DB: n.db, Journal: n.journal, Spool: n.spool, Directory: n.view, Versions: n.directory, Archive: n.directory.ViewAt, Chain: n.directory.Chain, Receipts: n.publisher, Promises: n.promises, Stamps: n.stamps, Seal: n.identity.Seal, Persons: n.persons, Records: n.keys.Records(), Names: names,
		Rules: n.rules, Observe: n.meters.observe, Dial: n.net.Dial, Now: n.now, Log: n.log,
	}, local)
	if err != nil {
		return fmt.Errorf("opening the exchange: %w", err)
	}
	n.link = link.New(link.Config{Software: software(), MaxBody: int64(n.cfg.Limits.Body), MaxStreams: n.cfg.Limits.Requests, MaxDeadline: n.cfg.Limits.CallTime + time.Minute}, link.Deps{
		Certificate: n.identity.TLS, Authenticate: n.identity.authenticate, Dial: n.net.Dial, Now: n.now, Log: n.log,
	}, n)
	n.exchange.SetLink(n.link)
	if err := n.openCases(); err != nil {
		return err
	}
	if err := n.exchange.Start(ctx); err != nil {
		return fmt.Errorf("starting the exchange: %w", err)
	}
	if err := n.register(ctx); err != nil {
		return err
	}
	n.gate = operation.NewGate(operation.Limits{
		Requests: n.cfg.Limits.Requests, Rate: n.cfg.Limits.ClientRate, Burst: n.cfg.Limits.ClientBurst, Time: n.cfg.Limits.CallTime,
	}, n.now, n.meters.shed)
	n.health = operation.NewHealth(n.checks()...)
	n.meters.gauges(n)
	n.meters.alarmGauges(n)
	n.meters.caseGauges(n)
	n.admin = admin.New(n.cfg.Admin, admin.Deps{DB: n.db, Record: n.record, Now: n.now, Log: n.log}, n.actions(), n.queries())
	return nil
}

// view is the directory, if it can still be gone by.
func (n *Node) view() (*directory.View, error) {
	v := n.directory.View()
	return v, v.Fresh(n.now())
}

// record writes what administration does into the journal, under its day.
func (n *Node) record(ctx context.Context, local []byte) error {
	now := n.now()
	_, err := n.journal.Append(ctx, journal.Record{Kind: journal.Decision, Key: changeKey(now), At: now, Class: "admin", Local: local})
	return err
}

// Run serves until ctx ends, and then drains: it takes nothing new, lets the
// calls inside finish for as long as the configuration says, and closes.
func (n *Node) Run(ctx context.Context) error {
	defer n.end()
	group, inside := errgroup.WithContext(n.life)
	servers := n.servers()
	for _, s := range servers {
		group.Go(func() error {
			if err := s.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	group.Go(func() error { return n.link.Serve(inside, n.doors.link) })
	working, stop := context.WithCancel(inside)
	defer stop()
	group.Go(func() error { return n.exchange.Run(working) })
	group.Go(func() error { return n.cases.Run(working) })
	group.Go(func() error { return n.follow(working) })
	group.Go(func() error { return n.publisher.Run(working) })
	group.Go(func() error { return n.witness.Guard(working) })
	group.Go(func() error { return n.clock.Run(working) })
	group.Go(func() error { return n.stamps.Run(working) })
	group.Go(func() error { return n.promises.Run(working) })
	group.Go(func() error { return n.keepYoung(working) })
	group.Go(func() error { return n.retire(working) })
	group.Go(func() error { return n.finish(working) })
	n.health.Started()
	n.log.Info("the node serves", "event", admin.EventStarted, "r1", n.doors.addr(n.doors.r1), "link", n.doors.addr(n.doors.link))
	if _, err := n.identity.TLS(); err != nil {
		n.log.Warn("the node cannot show itself on the link, and takes no calls", "error", err)
	}

	select {
	case <-ctx.Done():
	case <-inside.Done(): // a door failed
	}
	n.drain(servers)
	stop()
	n.end()
	err := group.Wait()
	n.log.Info("the node stopped", "event", admin.EventDrained)
	return errors.Join(err, n.Close())
}

// drain lets what is inside finish.
func (n *Node) drain(servers []*server) {
	n.health.Drain()
	n.gate.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Operations.Drain)
	defer cancel()
	var group errgroup.Group
	for _, s := range servers {
		if s.last {
			continue // probes see the drain to its end
		}
		group.Go(func() error {
			if err := s.Shutdown(ctx); err != nil {
				s.Close()
			}
			return nil
		})
	}
	group.Go(func() error { n.link.Drain(ctx); return nil })
	group.Wait()
	for _, s := range servers {
		s.Close()
	}
}

// Close gives everything back. It is called by Run, or instead of it.
func (n *Node) Close() (err error) {
	n.closing.Do(func() { err = n.close() })
	return err
}

func (n *Node) close() error {
	n.end()
	var errs []error
	if n.link != nil {
		n.link.Close()
	}
	if n.overseer != nil {
		n.overseer.CloseIdleConnections()
	}
	n.doors.close()
	if n.journal != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		errs = append(errs, n.journal.Close(ctx))
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	if n.spool != nil {
		errs = append(errs, n.spool.Close())
	}
	if n.lock != nil {
		n.lock.Close()
	}
	return errors.Join(errs...)
}

// Directory is the node's copy of the directory.
func (n *Node) Directory() *directory.Directory { return n.directory }

// Addresses are where a node's doors are.
type Addresses struct {
	R1         string `json:"r1,omitempty"`
	R1TLS      string `json:"r1_tls,omitempty"`
	Link       string `json:"link"`
	Admin      string `json:"admin"`
	AdminTLS   string `json:"admin_tls,omitempty"`
	Operations string `json:"operations,omitempty"`
	Public     string `json:"public,omitempty"`
}

// Addresses tells where the doors are.
func (n *Node) Addresses() Addresses {
	url := func(scheme string, l net.Listener) string {
		if l == nil {
			return ""
		}
		return scheme + l.Addr().String()
	}
	return Addresses{
		R1: url("http://", n.doors.r1), R1TLS: url("https://", n.doors.r1tls), Link: url("", n.doors.link),
		Admin: n.cfg.Admin.Socket, AdminTLS: url("https://", n.doors.adminTLS), Operations: url("http://", n.doors.operations),
		Public: url("http://", n.doors.public),
	}
}
