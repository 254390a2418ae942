package up

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/registry"
	"github.com/falaj/falaj/internal/union"
)

// Config says which union to play, and where.
type Config struct {
	Data   string        // folder
	States []union.State // none: those of the folder, or all
	Base   *int          // first port; nil: those of the folder, or DefaultBase; 0: any free ports
	Fresh  bool          // remove the folder's union first
	Set    []string      // configuration of every node beside its file's: config.Source
	// Definitions are joint services beside the demonstration's own, in which
	// every state takes part; who speaks for its roles goes by their kinds.
	Definitions [][]byte
}

// Deps are what the union is given of the world.
type Deps struct {
	Now func() time.Time // nil: time.Now
	Log *slog.Logger     // nil: nothing is logged
	// Stuck is told which nodes run and take no calls for a reason that does not
	// pass; everything else runs, and the union is ready when they are. nil: nobody is.
	Stuck func([]Unready) error
}

// Union is a union that is being played.
type Union struct {
	dir         string
	deps        Deps
	joints      []joint
	set         []string
	plan        *plan
	lock        *os.File
	made        bool // the folder was not there
	nodes       []*node.Node
	secretariat *node.Secretariat
	registers   []*register
	samples     map[registry.Kind]string // path of an entry of the first state
}

type register struct {
	*http.Server
	listener net.Listener
}

// Open founds the union, or finds the one that the folder holds, and opens its
// doors. Nothing is answered before Run.
func Open(ctx context.Context, cfg Config, deps Deps) (_ *Union, err error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.Data)
	if err != nil {
		return nil, err
	}
	u := &Union{dir: dir, deps: deps, set: cfg.Set, joints: joints(cfg.Definitions...)}
	defer func() {
		if err != nil {
			u.forget()
			u.close()
		}
	}()
	if err := u.take(); err != nil {
		return nil, err
	}
	if err := u.settle(ctx, cfg); err != nil {
		return nil, err
	}
	for range 3 {
		// A free port may be taken again before it is opened here.
		if err = u.start(ctx); u.plan.Base != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		u.shut()
		if err := u.move(ctx, 0); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, u.plan.taken(err, fault.From(err).Detail)
	}
	return u, nil
}

// forget leaves nothing in a folder in which no union was founded.
func (u *Union) forget() {
	if _, err := os.Stat(u.folder(planFile)); u.lock == nil || !errors.Is(err, fs.ErrNotExist) {
		return
	}
	os.Remove(u.folder("up.lock"))
	if u.made {
		os.Remove(u.dir) // only if it is empty
	}
}

func (u *Union) folder(name string) string { return filepath.Join(u.dir, name) }

// take keeps a second union out of the folder.
func (u *Union) take() error {
	_, err := os.Stat(u.dir)
	u.made = errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(u.dir, 0o700); err != nil {
		return fmt.Errorf("making the union's folder: %w", err)
	}
	if _, err := os.Stat(u.folder(planFile)); errors.Is(err, fs.ErrNotExist) {
		if err := u.vacant(); err != nil { // before anything is left in somebody's folder
			return err
		}
	}
	f, err := os.OpenFile(u.folder("up.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking the union's folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return fault.Wrap(fault.Conflict, err, "another falaj up works in %s; stop it, or name another folder with --data and other ports with --base-port", u.dir).
			Arabic("يعمل falaj up آخر في %s، فأوقفه أو حدّد مجلداً آخر بالخيار --data ومنافذ أخرى بالخيار --base-port", u.dir)
	}
	u.lock = f
	// What a union that was killed left says where nothing is any more.
	if err := os.Remove(u.folder(ReadyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the old %s: %w", ReadyFile, err)
	}
	return nil
}

// settle makes or finds the union of the folder.
func (u *Union) settle(ctx context.Context, cfg Config) error {
	p, err := readPlan(u.dir)
	if err != nil {
		return err
	}
	if p != nil && (cfg.Fresh || !p.Founded) {
		if err := empty(u.dir, p); err != nil {
			return err
		}
		p = nil
	}
	if p != nil && len(cfg.States) > 0 && !slices.Equal(p.States, cfg.States) {
		return fault.New(fault.Conflict, "%s holds a union of %s; --fresh removes it and founds one of %s", u.dir, list(p.States), list(cfg.States))
	}
	if p == nil {
		return u.begin(ctx, cfg)
	}
	u.plan = p
	base := p.Base
	if cfg.Base != nil {
		base = *cfg.Base
	}
	return u.move(ctx, base)
}

func list(states []union.State) string {
	var out []string
	for _, s := range states {
		out = append(out, string(s))
	}
	return strings.Join(out, ", ")
}

// move brings a founded union up to date, on the ports from base on.
func (u *Union) move(ctx context.Context, base int) error {
	p := u.plan
	before := map[union.State]string{}
	for _, s := range p.States {
		before[s] = p.link(s)
	}
	if base != p.Base || !p.whole() || base == 0 && p.free() != nil {
		if err := p.assign(base); err != nil {
			return err
		}
	}
	if err := p.free(); err != nil {
		return err
	}
	if err := u.describe(); err != nil {
		return err
	}
	if err := u.renew(ctx, before); err != nil {
		return err
	}
	return p.write(u.dir)
}

// vacant refuses a folder that holds something of somebody.
func (u *Union) vacant() error {
	entries, err := os.ReadDir(u.dir)
	if err != nil {
		return fmt.Errorf("looking into the union's folder: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "up.lock" {
			return fault.New(fault.Conflict, "%s holds %q, which is not a union's; name an empty folder with --data", u.dir, e.Name())
		}
	}
	return nil
}

// begin founds a union in an empty folder.
func (u *Union) begin(ctx context.Context, cfg Config) error {
	if err := u.vacant(); err != nil {
		return err
	}
	u.plan = &plan{What: planMark, States: cfg.States}
	if len(u.plan.States) == 0 {
		u.plan.States = States()
	}
	base := DefaultBase
	if cfg.Base != nil {
		base = *cfg.Base
	}
	if err := u.plan.assign(base); err != nil {
		return err
	}
	if err := u.plan.free(); err != nil { // before anything is made
		return err
	}
	// Written before the first key, so that a ceremony that breaks off is known
	// for what it is, and done anew.
	if err := u.plan.write(u.dir); err != nil {
		return err
	}
	if err := u.found(ctx); err != nil {
		return fmt.Errorf("founding the union: %w", err)
	}
	if err := u.describe(); err != nil {
		return err
	}
	u.plan.Founded = true
	return u.plan.write(u.dir)
}

// renew does before a later start what the union's own keys may: it renews
// what has run out, however long the union slept, and publishes addresses that
// are others now.
func (u *Union) renew(ctx context.Context, before map[union.State]string) error {
	all := []*party{{dir: u.folder("secretariat")}}
	for _, s := range u.plan.States {
		all = append(all, &party{state: s, dir: u.folder(string(s))})
	}
	for _, p := range all {
		if err := p.open(); err != nil {
			return err
		}
	}
	if err := openBooks(ctx, all, u.deps.Now); err != nil {
		return err
	}
	if err := refreshAll(ctx, all); err != nil { // one may have been killed before it heard the last news
		return err
	}
	for _, p := range all {
		if p.state == "" {
			continue
		}
		if err := p.nameStamp(ctx, u.plan.public(p.state)+"/tsa"); err != nil {
			return fmt.Errorf("renewing for %s: %w", p.state, err)
		}
		if err := p.nameLog(ctx, u.plan.public(p.state)+"/log"); err != nil {
			return fmt.Errorf("naming the log of %s: %w", p.state, err)
		}
		if now := u.plan.link(p.state); now != before[p.state] {
			err := p.book.Publish(ctx, func(e *directory.Edition) error {
				for i := range e.Nodes {
					if e.Nodes[i].Name == nodeName {
						e.Nodes[i].Address = now
					}
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("publishing the address of %s: %w", p.state, err)
			}
		}
	}
	if err := u.joinIn(ctx, all); err != nil {
		return err
	}
	return refreshAll(ctx, all)
}

// describe writes each node's configuration: the one with which `falaj node`
// runs it alone.
func (u *Union) describe() error {
	for _, s := range u.plan.States {
		var b strings.Builder
		x, err := seat(s)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "# %s / %s: a node of a demonstration union.\n# falaj up writes this file at each start; falaj node --config runs the node alone.\n", x.Name.En, x.Name.Ar)
		fmt.Fprintf(&b, "state: %s\nname: %s\ndata: .\ndemonstration: true\n", s, nodeName)
		fmt.Fprintf(&b, "r1: {http: %q, https: %q}\nlink: {listen: %q}\noperations: {listen: %q, drain: 5s}\n",
			u.plan.at(s, doorR1), u.plan.at(s, doorR1TLS), u.plan.link(s), u.plan.at(s, doorOperations))
		fmt.Fprintf(&b, "public: {listen: %q}\n", u.plan.at(s, doorPublic))
		if socket := u.socket(s); socket != "" {
			fmt.Fprintf(&b, "admin: {socket: %q}\n", socket)
		}
		fmt.Fprintf(&b, "directory: {sources: [%q], refresh: 1s}\n", "http://"+u.plan.at("", doorDirectory))
		fmt.Fprintf(&b, "backends: {allow: [127.0.0.0/8]}\nclients:\n")
		for _, c := range callers(s) {
			fmt.Fprintf(&b, "  - {id: %s}\n", c)
		}
		b.WriteString("services:\n")
		for _, r := range served() {
			fmt.Fprintf(&b, "  - {id: %s/%s, address: %q}\n", id(s, r.member, r.code), service, "http://"+u.plan.at(s, string(r.kind)))
		}
		if err := replace(filepath.Join(u.folder(string(s)), "node.yaml"), []byte(b.String())); err != nil {
			return fmt.Errorf("writing the configuration of %s: %w", s, err)
		}
	}
	return nil
}

// socket is the path of a node's admin socket, where the one in its folder
// would be longer than the system allows: then it lies in a folder of this
// account among the temporary files.
func (u *Union) socket(s union.State) string {
	if len(filepath.Join(u.folder(string(s)), "admin.sock")) <= 100 {
		return ""
	}
	h := fnv.New64a()
	h.Write([]byte(u.dir))
	return filepath.Join(os.TempDir(), fmt.Sprintf("falaj-%d-%s", os.Getuid(), hex.EncodeToString(h.Sum(nil))), string(s)+".sock")
}

// doors is how many doors this process opens: the nodes', the registers' and
// the secretariat's.
func (u *Union) doors() int { return len(u.plan.States)*(node.Doors+len(served())) + 1 }

// start opens every door.
func (u *Union) start(ctx context.Context) (err error) {
	u.secretariat, err = node.NewSecretariat(ctx, node.SecretariatConfig{
		Data: u.folder("secretariat"), Listen: u.plan.at("", doorDirectory), Demonstration: true,
	}, node.Deps{Now: u.deps.Now, Log: u.deps.Log.With("party", "secretariat"), Doors: u.doors()})
	if err != nil {
		return err
	}
	u.nodes = make([]*node.Node, len(u.plan.States))
	var group errgroup.Group
	for i, s := range u.plan.States {
		group.Go(func() error {
			cfg, err := config.Load(config.Source{File: filepath.Join(u.folder(string(s)), "node.yaml"), Set: u.set})
			if err != nil {
				return err
			}
			u.nodes[i], err = node.New(ctx, cfg, node.Deps{Now: u.deps.Now, Log: u.deps.Log, Doors: u.doors()})
			return err
		})
	}
	for _, s := range u.plan.States {
		if err := u.serveRegisters(ctx, s); err != nil {
			return errors.Join(err, group.Wait())
		}
	}
	return group.Wait()
}

func (u *Union) serveRegisters(ctx context.Context, s union.State) error {
	registers, err := registry.New(s, registry.DefaultSeed)
	if err != nil {
		return err
	}
	for _, r := range served() {
		address := u.plan.at(s, string(r.kind))
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("the register of %s in %s: %w", r.kind, s, err)
		}
		u.registers = append(u.registers, &register{
			operation.Server(registers.Handler(r.kind), 64<<10, 10*time.Second, time.Minute, time.Minute), operation.Bound(l, operation.Connections(operation.Descriptors(), u.doors(), 256)),
		})
		if s == u.plan.States[0] {
			if u.samples == nil {
				u.samples = map[registry.Kind]string{}
			}
			for _, path := range registers.Samples(r.kind, 1) {
				u.samples[r.kind] = (&url.URL{Path: path}).EscapedPath()
			}
		}
	}
	return nil
}

// Run serves until ctx ends; ready is called once everything answers.
func (u *Union) Run(ctx context.Context, ready func(Ready) error) error {
	defer u.close()
	group, inside := errgroup.WithContext(ctx)
	for _, r := range u.registers {
		group.Go(func() error {
			if err := r.Serve(r.listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	// The backends and the secretariat outlive the nodes' last calls.
	late, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group.Go(func() error { return u.secretariat.Run(late) })
	nodes, within := errgroup.WithContext(inside)
	for _, n := range u.nodes {
		nodes.Go(func() error { return n.Run(within) })
	}
	group.Go(func() error {
		err := nodes.Wait()
		stop()
		for _, r := range u.registers {
			r.Close()
		}
		return err
	})
	group.Go(func() error {
		r, err := u.await(inside, func(r Ready, list []Unready) error {
			// Whoever is to mend it must find the nodes.
			if err := r.write(u.folder(ReadyFile)); err != nil || u.deps.Stuck == nil {
				return err
			}
			return u.deps.Stuck(list)
		})
		if err != nil || inside.Err() != nil {
			return err
		}
		if err := r.write(u.folder(ReadyFile)); err != nil {
			return err
		}
		return ready(r)
	})
	err := group.Wait()
	os.Remove(u.folder(ReadyFile))
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// shut closes every door.
func (u *Union) shut() {
	for _, n := range u.nodes {
		if n != nil {
			n.Close()
		}
	}
	if u.secretariat != nil {
		u.secretariat.Close()
	}
	for _, r := range u.registers {
		r.Close()
		r.listener.Close()
	}
	u.nodes, u.secretariat, u.registers = nil, nil, nil
}

func (u *Union) close() {
	u.shut()
	if u.lock != nil {
		u.lock.Close()
		u.lock = nil
	}
}
