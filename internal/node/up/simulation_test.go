package up

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// TestSimulation runs a union of seven whole nodes and the secretariat, as
// falaj up wires them, on a network in memory, through a storm that a seed
// decides: connections that break after any byte, come late or not at all,
// partitions, nodes that crash and come back from what their disk held at that
// moment, disks that stall, clocks that are wrong and jump, and a directory that
// changes meanwhile. Then the weather clears, and it is held to every promise.
//
// What crosses the network lies in TLS over TCP, where bytes are neither doubled
// nor change places: what is doubled here are messages, which clients send twice
// at once and again under the same id, and nodes deliver again; what changes
// places are those of different connections, streams and deliveries.
//
// It lives in a testing/synctest bubble: the nodes' own code with all its waits,
// where minutes pass in seconds. The seed decides what befalls whom and when;
// which of the goroutines that could run does so first remains the scheduler's.
func TestSimulation(t *testing.T) {
	from := foundSimulation(t)
	t.Run("seed 1", func(t *testing.T) {
		for _, b := range simulate(t, from, 1, 12*time.Second, "") {
			t.Error(b)
		}
	})
	t.Run(flawUnchecked, func(t *testing.T) { findFlaw(t, from, flawUnchecked, "it took effect 2 times", 6*time.Second) })
}

// findFlaw shows the power of the simulation: a flaw breaks a promise, which is
// then found broken.
func findFlaw(t *testing.T, from founded, flaw, want string, storm time.Duration) {
	for seed := uint64(1); seed <= 5; seed++ {
		if slices.ContainsFunc(simulate(t, from, seed, storm, flaw), func(b string) bool { return strings.Contains(b, want) }) {
			return
		}
	}
	t.Error("the flaw was not found out")
}

// The network's sites: each state's, and the secretariat's.
const secretariatSite = ""

// The purposes of the simulation's calls.
const (
	allowed = "trial"
	refused = "identity" // the node of refusing itself refuses it; the others' do not
	denied  = "business" // no agreement allows it here
)

const refusing union.State = "EG"

// called is the service that is called in every state.
func called(s union.State) string {
	return id(s, "interior", "civil").String() + "/" + service
}

// founded is a union before its first start.
type founded struct {
	dir  string
	plan *plan
	at   time.Time
}

// foundSimulation holds the ceremony, from which all runs start.
func foundSimulation(t *testing.T) (f founded) {
	t.Helper()
	dir := memoryFolder(t)
	synctest.Test(t, func(t *testing.T) { f = holdCeremony(t, dir) })
	return f
}

func holdCeremony(t *testing.T, dir string) founded {
	f := founded{dir: dir, plan: &plan{What: planMark, States: States()}, at: time.Now()}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(f.plan.assign(20_000))
	u := &Union{dir: f.dir, plan: f.plan, deps: Deps{Now: time.Now}}
	check(u.found(t.Context()))
	check(u.describe())
	rules := filepath.Join(u.folder(string(refusing)), "rules")
	check(os.MkdirAll(rules, 0o700))
	check(os.WriteFile(filepath.Join(rules, "refused.cedar"), []byte(`@id("refused") @en("Not for this.") @ar("ليس لهذا.")
		forbid (principal, action, resource) when { context.role == "provider" && context.purpose == "`+refused+`" };`), 0o600))
	return f
}

// Flaws that a run can be given, to see that they are found out.
const (
	flawUnchecked = "unchecked" // a provider's node takes an id that it has taken before
	flawLying     = "lying"     // a disk says that what it will lose is durable
)

// simulation is one run.
type simulation struct {
	founded
	t     *testing.T
	seed  uint64
	flaw  string
	home  string
	begun time.Time // in the bubble
	net   *memory
	sites []*site
	load  *load
	ended sync.WaitGroup // nodes that have crashed
}

// site is a state's machine.
type site struct {
	state union.State
	dir   string
	runs  int
	ahead atomic.Int64 // nanoseconds by which its clock is
	host  *host
	node  *node.Node
	stop  func()
	done  chan error
	disk  atomic.Int64 // until when, in nanoseconds of the run, it stalls
	wake  func()       // tells the peers of a silent crash
}

// simulate runs a seed and tells which promises were broken. What befell whom,
// and what the nodes said, is in the test's output.
func simulate(t *testing.T, from founded, seed uint64, storm time.Duration, flaw string) (broken []string) {
	s := &simulation{founded: from, t: t, seed: seed, flaw: flaw, home: memoryFolder(t)}
	storetest.BeforeCommits(s.home, s.commit)
	real := time.Now()
	synctest.Test(t, func(t *testing.T) {
		s.t = t
		broken = s.run(storm)
	})
	s.t = t
	t.Logf("seed %d: %d calls, %d answered, %d unknown, %d connections broken; %s", seed, len(s.load.calls), s.load.ended("200"), s.load.ended("outcome.unknown"), s.net.cuts, time.Since(real).Round(time.Millisecond))
	broken = append(broken, s.audit()...)
	return broken
}

func (s *simulation) now() time.Time { return s.at.Add(time.Since(s.begun)) }

func (s *simulation) note(format string, args ...any) {
	s.t.Logf("%8.3f "+format, append([]any{time.Since(s.begun).Seconds()}, args...)...)
}

func (s *simulation) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// run is what happens in the bubble.
func (s *simulation) run(storm time.Duration) (broken []string) {
	s.begun, s.net = time.Now(), newMemory(s.seed)
	rng := rand.New(rand.NewPCG(s.seed, 0))
	for _, state := range s.plan.States {
		x := &site{state: state, dir: filepath.Join(s.home, string(state)+".0")}
		x.ahead.Store(int64(time.Duration(rng.IntN(20_000)-10_000) * time.Millisecond))
		s.sites = append(s.sites, x)
		s.must(copyFolder(filepath.Join(s.dir, string(state)), x.dir))
		if s.flaw == flawUnchecked {
			db, err := store.Open(context.Background(), store.Config{DSN: filepath.Join(x.dir, "node.db")}, exchange.Migrations())
			s.must(err)
			_, err = db.Exec(context.Background(), `CREATE TRIGGER unchecked BEFORE INSERT ON exchange_claim WHEN NEW.side = 2
				BEGIN DELETE FROM exchange_claim WHERE side = 2 AND id = NEW.id; END`)
			s.must(errors.Join(err, db.Close()))
		}
	}
	secretariat := filepath.Join(s.home, "secretariat")
	s.must(copyFolder(filepath.Join(s.dir, "secretariat"), secretariat))
	office, err := node.NewSecretariat(context.Background(), node.SecretariatConfig{Data: secretariat, Listen: s.plan.at("", doorDirectory), Demonstration: true},
		node.Deps{Now: s.now, Network: s.net.host(secretariatSite).network()})
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- office.Run(ctx) }()
	for _, x := range s.sites {
		s.start(x)
	}
	s.load = newLoad(s)
	time.Sleep(2 * time.Second) // the first links
	s.net.set(true)
	s.load.begin()
	for at := time.Duration(0); at < storm; {
		wait := time.Duration(100+rng.IntN(1200)) * time.Millisecond
		time.Sleep(wait)
		at += wait
		s.befall(rng)
	}
	s.note("the storm is over")
	s.net.set(false)
	s.net.part(nil)
	for _, x := range s.sites {
		x.ahead.Store(0)
		if x.node == nil {
			s.start(x)
		}
	}
	s.load.finish()
	if s.flaw == "" {
		broken = s.calm(office)
		s.note("all is calm")
	}
	s.load.close()
	for _, x := range s.sites {
		x.stop()
		s.must(<-x.done)
	}
	s.ended.Wait()
	cancel()
	s.must(<-over)
	return broken
}

// befall is one stroke of the storm.
func (s *simulation) befall(rng *rand.Rand) {
	x := s.sites[rng.IntN(len(s.sites))]
	switch kind := rng.IntN(12); {
	case x.node == nil:
		s.start(x)
	case kind < 2:
		isles := map[string]int{secretariatSite: rng.IntN(2)}
		for _, y := range s.sites {
			isles[string(y.state)] = rng.IntN(2)
		}
		if rng.IntN(2) == 0 { // one alone
			isles = map[string]int{string(x.state): 1}
		}
		s.note("isles: %v", isles)
		s.net.part(isles)
	case kind < 4:
		s.note("all together")
		s.net.part(nil)
	case kind < 5:
		s.note("connections of %s break", x.state)
		s.net.cut(string(x.state))
	case kind < 8:
		s.crash(x, rng)
	case kind < 10:
		d := time.Duration(rng.IntN(3000)) * time.Millisecond
		s.note("the disk of %s stalls for %v", x.state, d)
		s.stall(x, d)
	case kind < 11:
		d := time.Duration(rng.IntN(20_000)-10_000) * time.Millisecond
		s.note("the clock of %s is %v ahead", x.state, d)
		x.ahead.Store(int64(d))
	default:
		name := fmt.Sprint("Renamed ", rng.IntN(1000))
		s.note("%s publishes", x.state)
		d := x.node.Directory()
		s.ended.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = d.Publish(ctx, func(e *directory.Edition) error { // who is cut off cannot
				e.Members[0].Name.En = name
				return nil
			})
		})
	}
}

// start starts a node from its folder.
func (s *simulation) start(x *site) {
	s.note("%s starts", x.state)
	cfg, err := config.Load(config.Source{File: filepath.Join(x.dir, "node.yaml")})
	s.must(err)
	cfg.Directory.Refresh = 30 * time.Second // as in service
	if x.wake != nil {
		x.wake()
	}
	x.host, x.wake = s.net.host(string(x.state)), nil
	now := func() time.Time { return s.now().Add(time.Duration(x.ahead.Load())) }
	log := slog.New(slog.NewTextHandler(s.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	x.node, err = node.New(context.Background(), cfg, node.Deps{Now: now, Log: log, Network: x.host.network()})
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	n, done := x.node, make(chan error, 1)
	x.stop, x.done = cancel, done
	go func() { done <- n.Run(ctx) }()
}

// stall holds up what the node commits.
func (s *simulation) stall(x *site, d time.Duration) {
	x.disk.Store(int64(time.Since(s.begun) + d))
}

// commit is before each commit of anybody: a disk takes its time, and is not
// always well.
func (s *simulation) commit(path string) {
	name, _, _ := strings.Cut(filepath.Base(filepath.Dir(path)), ".")
	time.Sleep(time.Millisecond)
	for _, x := range s.sites {
		if string(x.state) == name {
			time.Sleep(time.Duration(x.disk.Load()) - time.Since(s.begun))
		}
	}
}

// crash takes a node away in a moment, often one in which its disk is behind,
// and keeps what the disk held then. What the process does afterwards reaches
// neither the network nor that copy.
func (s *simulation) crash(x *site, rng *rand.Rand) {
	behind, silent := rng.IntN(3) > 0, rng.IntN(2) == 0
	if behind {
		d := time.Duration(100+rng.IntN(900)) * time.Millisecond
		s.stall(x, d)
		time.Sleep(time.Duration(rng.Int64N(int64(d))))
	}
	x.runs++
	dir := filepath.Join(s.home, fmt.Sprintf("%s.%d", x.state, x.runs))
	if s.flaw == flawLying {
		synctest.Wait()
		s.must(copyFolder(x.dir, dir))
		time.Sleep(2 * time.Second)
	}
	s.note("%s crashes (disk behind: %v, silent: %v)", x.state, behind, silent)
	x.wake = x.host.die(silent)
	synctest.Wait() // and now nothing at all moves
	if s.flaw != flawLying {
		s.must(copyFolder(x.dir, dir))
	}
	x.disk.Store(0)
	x.stop()
	done := x.done
	s.ended.Go(func() { <-done })
	x.dir, x.node = dir, nil
}

// memoryFolder is a folder in memory, where there is one with room: a crash here
// asks nothing of a real disk, so nobody need wait for one.
func memoryFolder(t *testing.T) string {
	const shared = "/dev/shm"
	var room unix.Statfs_t
	if unix.Statfs(shared, &room) != nil || int64(room.Bavail)*int64(room.Bsize) < 256<<20 {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shared, "falaj-simulation-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// copyFolder copies what a crash leaves: SQLite's shared memory is none of it.
func copyFolder(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		case !d.Type().IsRegular() || strings.HasSuffix(name, "-shm"):
			return nil
		}
		b, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(filepath.Join(to, name), b, 0o600))
	})
}
