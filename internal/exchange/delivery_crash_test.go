package exchange

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// The environment of a node that runs as a process of its own.
const (
	crashHome    = "FALAJ_CRASH_HOME"
	crashState   = "FALAJ_CRASH_STATE"
	crashBackend = "FALAJ_CRASH_BACKEND"
	crashFlaw    = "FALAJ_CRASH_FLAW"
	crashInside  = "FALAJ_CRASH_INSIDE" // what is posted, in place of clients' calls
)

// Flaws that a node of this test can be given, to see that they are found out.
const (
	flawEarly     = "early"     // it says 202 before anything is durable
	flawForgetful = "forgetful" // it forgets what it has claimed
	flawHasty     = "hasty"     // it passes answers on before they are durable
)

// TestKills kills nodes at random while clients call through them, and holds
// the union to exactly its promise: nothing accepted is lost, what may not be
// done twice is not, what may is done, every unknown outcome is listed, and of
// every answer that a client saw the evidence is on both sides.
func TestKills(t *testing.T) {
	crash{kills: 10}.run(t, func(broken []string) bool { return false })
}

// TestKillsFindFlaws shows the power of TestKills.
func TestKillsFindFlaws(t *testing.T) {
	for flaw, kills := range map[string]int{flawEarly: 3, flawForgetful: 3, flawHasty: 6} {
		t.Run(flaw, func(t *testing.T) {
			crash{kills: kills, flaw: flaw}.run(t, func(broken []string) bool {
				if len(broken) == 0 {
					t.Error("the flaw was not found out")
					return true
				}
				t.Logf("%d promises broken; the first: %s", len(broken), broken[0])
				return true
			})
		})
	}
}

// crash is one run of the test.
type crash struct {
	kills int
	flaw  string
}

// process is a node in a process of its own.
type process struct {
	state union.State
	self  string // the program that is the node
	home  string
	env   []string
	edge  atomic.Pointer[string]
	cmd   *exec.Cmd
	in    io.Closer
}

// start runs the node until it answers.
func (p *process) start(t testing.TB) {
	t.Helper()
	_ = os.Remove(filepath.Join(p.home, "edge"))
	log, err := os.OpenFile(filepath.Join(p.home, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(t, err)
	defer log.Close()
	p.cmd = exec.Command(p.self, "-test.run=^TestCrashNode$", "-test.count=1", "-test.timeout=0")
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.env, log, log
	p.in, err = p.cmd.StdinPipe()
	check(t, err)
	check(t, p.cmd.Start())
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(p.home, "edge")); err == nil {
			edge := string(b)
			p.edge.Store(&edge)
			return
		}
		if time.Now().After(end) {
			b, _ := os.ReadFile(filepath.Join(p.home, "log"))
			t.Fatalf("the node of %s does not start:\n%s", p.state, b)
		}
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	_ = p.in.Close()
}

// TestCrashNode is a node, in a process that TestKills starts.
func TestCrashNode(t *testing.T) {
	home, state := os.Getenv(crashHome), union.State(os.Getenv(crashState))
	if home == "" {
		return
	}
	root, err := os.ReadFile(filepath.Join(home, "root.json"))
	check(t, err)
	n := &testNode{state: state, home: home, seals: map[union.MemberID]Credential{}, seen: make(chan Observation), shift: new(atomic.Int64), now: time.Now}
	n.dir, err = directory.Open(t.Context(), directory.Config{Dir: filepath.Join(home, "directory"), Root: root, State: state, Demonstration: true}, directory.Deps{Now: time.Now})
	check(t, err)
	n.keys, err = seal.OpenKeys(filepath.Join(home, "keys"), seal.KeyConfig{Demonstration: true})
	check(t, err)
	id := desk(state).MemberID
	member, _ := n.dir.View().Member(id)
	own, _ := n.dir.View().State(state)
	key, err := n.keys.Signer(directory.SealKey(id))
	check(t, err)
	n.seals[id] = Credential{Signer: key, Cert: member.Seals[0].Certificate}
	n.tls = own.Nodes[0].Certificates[0].Certificate
	ln, err := net.Listen("tcp", own.Nodes[0].Address)
	check(t, err)
	posts, inside := os.LookupEnv(crashInside)
	if inside {
		n.inside = diary(t, state, home)
	}
	n.start(t, func(testing.TB) store.Config { return store.Config{DSN: filepath.Join(home, "node.db")} }, ln, []kitOption{quick})
	if inside {
		go postAll(t.Context(), n, posts)
	} else {
		for _, code := range []string{"things", "idem"} {
			check(t, n.Local().PutBackend(t.Context(), Backend{Service: offered(state, code), Address: os.Getenv(crashBackend)}))
		}
	}
	door := n.Edge()
	switch os.Getenv(crashFlaw) {
	case flawEarly:
		door = early(door)
	case flawForgetful:
		go func() {
			for ; t.Context().Err() == nil; time.Sleep(time.Millisecond) {
				_, _ = n.db.Exec(t.Context(), `DELETE FROM exchange_claim WHERE side = ?`, sideProvider)
			}
		}()
	}
	go pauses(t.Context(), n.db)
	srv := httptest.NewServer(door)
	check(t, os.WriteFile(filepath.Join(home, "edge.new"), []byte(srv.URL), 0o600))
	check(t, os.Rename(filepath.Join(home, "edge.new"), filepath.Join(home, "edge")))
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends, however it does
}

// pauses holds up what is about to be written, at random: what is not yet
// durable is then so for long enough to be hit.
func pauses(ctx context.Context, db *store.DB) {
	for ctx.Err() == nil {
		time.Sleep(rand.N(30 * time.Millisecond))
		_ = db.Write(ctx, func(*store.Tx) error {
			time.Sleep(rand.N(10 * time.Millisecond))
			return nil
		})
	}
}

// early accepts a call and only then sees to it.
func early(door http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Prefer") == "" {
			door.ServeHTTP(w, r)
			return
		}
		later := r.Clone(context.Background())
		later.Body = http.NoBody
		go func() {
			time.Sleep(30 * time.Millisecond)
			door.ServeHTTP(httptest.NewRecorder(), later)
		}()
		w.WriteHeader(http.StatusAccepted)
	})
}

// register is the service behind both nodes: it counts.
type register struct {
	mu    sync.Mutex
	count map[string]int      // invocations by X-Road-Id
	order map[string][]string // ids by conversation, as they came
}

func (r *register) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	id := req.Header.Get("X-Road-Id")
	r.mu.Lock()
	r.count[id]++
	if c := req.Header.Get("Falaj-Conversation"); c != "" {
		c = req.Header.Get("X-Road-Client") + " " + req.Header.Get("X-Road-Service") + " " + c
		r.order[c] = append(r.order[c], id)
	}
	r.mu.Unlock()
	time.Sleep(rand.N(20 * time.Millisecond))
	_, _ = io.WriteString(w, id)
}

// sent is a call as its client knows it.
type sent struct {
	id      string
	from    union.State
	service string
	status  int
	code    string
	body    string
	request string // X-Road-Request-Id of the answer
}

// run kills, waits until all is quiet, and tells which promises were broken.
// Unless expected says that they were meant to be, the test fails.
func (c crash) run(t *testing.T, expected func(broken []string) bool) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	states := []union.State{"BH", "SA"}
	u, listeners := foundUnion(t, states)
	reg := &register{count: map[string]int{}, order: map[string][]string{}}
	backend := httptest.NewServer(reg)
	t.Cleanup(func() { backend.CloseClientConnections(); backend.Close() })
	self, err := os.Executable()
	check(t, err)
	if c.flaw == flawHasty {
		self = hasty(t)
	}
	nodes := u.processes(listeners, self, crashBackend+"="+backend.URL, crashFlaw+"="+c.flaw)

	var stop atomic.Bool
	var clients sync.WaitGroup
	results := make([][]sent, 12) // the second half waits for its answers
	for i := range results {
		clients.Go(func() {
			for k := 0; !stop.Load(); k++ {
				results[i] = append(results[i], visit(nodes, i, k, &stop))
			}
		})
	}
	for range c.kills {
		time.Sleep(time.Duration(50+rng.IntN(400)) * time.Millisecond)
		hit := []union.State{states[rng.IntN(2)]}
		if rng.IntN(4) == 0 {
			hit = states
		}
		for _, s := range hit {
			nodes[s].kill()
		}
		time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
		for _, s := range hit {
			nodes[s].start(t)
		}
	}
	stop.Store(true)
	clients.Wait()
	calls := slices.Concat(results...)
	broken := settled(nodes, calls)
	for _, s := range states {
		nodes[s].kill()
	}
	broken = append(broken, c.audit(t, nodes, calls, reg)...)
	accepted, answered := 0, 0
	for _, s := range calls {
		switch s.status {
		case 200:
			answered++
		case 202:
			accepted++
		}
	}
	t.Logf("%d calls, %d of them answered at once, %d accepted for delivery", len(calls), answered, accepted)
	if accepted < 10 || answered < 3 {
		t.Errorf("only %d calls were accepted and %d answered", accepted, answered)
	}
	if !expected(broken) {
		for _, b := range broken {
			t.Error(b)
		}
		if t.Failed() {
			for _, p := range nodes {
				b, _ := os.ReadFile(filepath.Join(p.home, "log"))
				t.Logf("%s:\n%s", p.state, b[max(0, len(b)-4000):])
			}
		}
	}
}

// processes starts the nodes of a union, each in a process of its own.
func (u *testUnion) processes(listeners map[union.State]net.Listener, self string, env ...string) map[union.State]*process {
	t := u.t
	t.Helper()
	nodes := map[union.State]*process{}
	for s, n := range u.nodes {
		check(t, listeners[s].Close())
		root := n.dir.View().Root()
		check(t, os.WriteFile(filepath.Join(n.home, "root.json"), root, 0o600))
		d, err := directory.Open(t.Context(), directory.Config{Dir: filepath.Join(n.home, "directory"), Root: root, State: s, Demonstration: true},
			directory.Deps{Now: time.Now, Peers: func() []directory.Peer { return []directory.Peer{{Fetcher: n.dir}} }})
		check(t, err)
		check(t, d.Refresh(t.Context()))
		nodes[s] = &process{state: s, self: self, home: n.home, env: append(append(os.Environ(), crashHome+"="+n.home, crashState+"="+string(s)), env...)}
		nodes[s].start(t)
		t.Cleanup(nodes[s].kill)
	}
	return nodes
}

// visit makes a client's k-th call, again and again until a node says what
// became of it.
func visit(nodes map[union.State]*process, i, k int, stop *atomic.Bool) sent {
	s := sent{from: []union.State{"BH", "SA"}[i%2], service: []string{"things", "things", "idem"}[k%3]}
	to := map[union.State]union.State{"BH": "SA", "SA": "BH"}[s.from]
	s.id = fmt.Sprintf("%d-%s-%06d", i, s.service, k)
	for {
		req, err := http.NewRequest("POST", *nodes[s.from].edge.Load()+"/r1/"+offered(to, s.service).String(), nil)
		if err != nil {
			return s
		}
		req.Header = http.Header{"X-Road-Client": {desk(s.from).String()}, "Falaj-Purpose": {"test"}, "X-Road-Id": {s.id}}
		if i < 6 && k%5 != 4 { // the fifth call waits for its answer
			req.Header.Set("Prefer", "respond-async")
			if i < 4 {
				req.Header.Set("Falaj-Conversation", fmt.Sprint("client ", i))
			}
		}
		res, body, err := fetch(req)
		if err == nil {
			var x struct{ Code string }
			_ = json.Unmarshal(body, &x)
			s.status, s.code, s.body, s.request = res.StatusCode, x.Code, string(body), res.Header.Get("X-Road-Request-Id")
			return s
		}
		if stop.Load() {
			return s // it may be accepted or not
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func fetch(req *http.Request) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(req.Context(), 5*time.Second)
	defer cancel()
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, b, err
}

// settled waits until every call that was accepted has ended, and holds each
// end to what was promised. Many may wait in a conversation for each other: the
// patience is for one after the other.
func settled(nodes map[union.State]*process, calls []sent) (broken []string) {
	for i := range calls {
		s, end := &calls[i], time.Now().Add(40*time.Second)
		if len(broken) > 0 {
			end = time.Now()
		}
		if s.status != 202 {
			continue
		}
		ask := func(path string) (*http.Response, []byte) {
			for {
				req, _ := http.NewRequest("GET", *nodes[s.from].edge.Load()+"/async/"+url.PathEscape(s.id)+path, nil)
				req.Header.Set("X-Road-Client", desk(s.from).String())
				res, b, err := fetch(req)
				if err == nil {
					return res, b
				}
			}
		}
		var d Delivery
		for {
			res, b := ask("")
			if res.StatusCode != 200 || json.Unmarshal(b, &d) != nil {
				broken = append(broken, fmt.Sprintf("%s was accepted and is lost: %d %s", s.id, res.StatusCode, b))
				break
			}
			if !d.Ended.IsZero() {
				break
			}
			if time.Now().After(end) {
				broken = append(broken, fmt.Sprintf("%s was accepted and does not end: %+v", s.id, d))
				s.status = 0
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		switch s.code = string(d.Code); {
		case d.Status == StatusAnswered:
			if res, b := ask("/answer"); res.StatusCode != 200 || string(b) != s.id {
				broken = append(broken, fmt.Sprintf("%s is answered with %d %s", s.id, res.StatusCode, b))
			}
		case d.Status != StatusRefused || d.Code != fault.OutcomeUnknown || s.service == "idem":
			if !d.Ended.IsZero() {
				broken = append(broken, fmt.Sprintf("%s ended as %+v", s.id, d))
			}
		}
	}
	return broken
}

// audit holds what the service saw, and what the nodes' disks say, against
// what the clients were told.
func (c crash) audit(t *testing.T, nodes map[union.State]*process, calls []sent, reg *register) (broken []string) {
	unknown, proofs := map[string]bool{}, map[union.State]proof{}
	for s, p := range nodes {
		db, err := store.Open(t.Context(), store.Config{DSN: filepath.Join(p.home, "node.db")}, journal.Migrations(), Migrations())
		check(t, err)
		keys, err := seal.OpenKeys(filepath.Join(p.home, "keys"), seal.KeyConfig{Demonstration: true})
		check(t, err)
		hidden, err := keys.HMAC("journal-1")
		check(t, err)
		j, err := journal.New(journal.Config{}, journal.Deps{DB: db, Records: keys.Records(), Keys: hidden})
		check(t, err)
		r, err := j.Verify(t.Context())
		check(t, err)
		if !r.OK() {
			broken = append(broken, fmt.Sprintf("the journal of %s: %+v", s, r.Wrong[0]))
		}
		x := &Exchange{cfg: Config{Alone: true}, deps: Deps{DB: db, Journal: j, Now: time.Now}, process: "audit"}
		check(t, x.beat(t.Context(), true))
		list, err := x.Outcomes(t.Context(), 1<<20)
		check(t, err)
		for _, o := range list {
			unknown[o.ID] = true
		}
		broken = append(broken, beside(t, s, p.home, db, j, keys)...)
		proofs[s] = proven(t, j)
		check(t, j.Close(t.Context()))
		check(t, db.Close())
	}
	broken = append(broken, compared(proofs, calls)...)
	reg.mu.Lock()
	defer reg.mu.Unlock()
	for _, s := range calls {
		n := reg.count[s.id]
		if n > 1 && s.service != "idem" {
			broken = append(broken, fmt.Sprintf("%s was invoked %d times", s.id, n))
		}
		answered := s.status == 200 || s.status == 202 && s.code == ""
		if answered && n == 0 {
			broken = append(broken, fmt.Sprintf("%s was answered and never invoked", s.id))
		}
		if s.status == 200 && s.body != s.id {
			broken = append(broken, fmt.Sprintf("%s was answered with %s", s.id, s.body))
		}
		if s.code == string(fault.OutcomeUnknown) && !unknown[s.id] {
			broken = append(broken, fmt.Sprintf("the outcome of %s is unknown and not listed", s.id))
		}
	}
	for c, ids := range reg.order {
		if !slices.IsSorted(ids) {
			broken = append(broken, fmt.Sprintf("out of order in %s: %v", c, ids))
		}
	}
	return broken
}
