package acceptance_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

// pair is Bahrain's node in two processes, with all that they need.
type pair struct {
	*union
	t                *testing.T
	processes        [2]*process
	first            int // of the ports of the two
	primary, standby *storetest.Server
	doors            [2]*storetest.Door // by which each process reaches its database
	service          map[string]string

	mu       sync.Mutex
	made     int
	effects  map[string]int  // by id
	answered map[string]bool // the same
	requests []request       // of answers that a client saw
	longest  time.Duration   // that nobody was served
}

// request is one that was answered.
type request struct{ from, id string }

// balancer forwards each connection to the next of several addresses that
// takes it: plain TCP, which knows nothing of what it carries.
func balancer(t *testing.T, at string, to ...string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	var turn atomic.Int64
	forward := func(in net.Conn) {
		defer in.Close()
		first := int(turn.Add(1))
		for i := range to {
			out, err := net.DialTimeout("tcp", to[(first+i)%len(to)], time.Second)
			if err != nil {
				continue
			}
			defer out.Close()
			go func() {
				io.Copy(out, in)
				out.Close()
				in.Close()
			}()
			io.Copy(in, out)
			return
		}
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go forward(in)
		}
	}()
}

func (p *pair) local(i, door int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.first+10*i+door))
}

func (p *pair) operations(i int) string { return "http://" + p.local(i, 2) }

func (p *pair) data(i int) string {
	return filepath.Join(p.Data, "BH"+[]string{"", "-2"}[i])
}

func (p *pair) admin(i int) string { return filepath.Join(p.data(i), "admin.sock") }

// start starts one of the two processes.
func (p *pair) start(i int) {
	bh := p.node(p.t, "BH")
	args := []string{"node", "--config", bh.Config}
	for name, value := range map[string]string{
		"data": p.data(i), "admin.socket": p.admin(i), "store.dsn": p.doors[i].DSN() + "&connect_timeout=60",
		"keys.folder": filepath.Join(p.data(0), "keys"), "directory.root": filepath.Join(p.data(0), "root.json"),
		"spool": filepath.Join(p.Data, "spool"), "r1.http": p.local(i, 0), "r1.https": "off",
		"link.listen": p.local(i, 1), "link.advertise": bh.Link, "operations.listen": p.local(i, 2), "public.listen": p.local(i, 3),
	} {
		args = append(args, "--set", name+"="+value)
	}
	p.processes[i] = start(p.t, []string{"FALAJ_LOG_LEVEL=debug"}, "falaj", args...)
}

func (p *pair) ready(t *testing.T, i int) {
	t.Helper()
	eventually(t, fmt.Sprintf("process %d is ready", i), func() error {
		if !p.processes[i].running() {
			t.Fatalf("process %d ended", i)
		}
		a, err := tryCurl(t.Context(), p.operations(i)+"/readyz")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
}

func newPair(t *testing.T) *pair {
	founded := startUp(t, filepath.Join(t.TempDir(), "union"), "--state=BH,SA", base(t))
	founded.all.stop(t, 15)
	p := &pair{t: t, union: &union{ready: founded.ready, root: t, parts: map[string]*process{}}, first: ports(t, 20), effects: map[string]int{}, answered: map[string]bool{}}
	p.newDatabases()
	bh := p.node(t, "BH")
	for door, at := range map[int]string{0: bh.R1, 1: bh.Link, 3: bh.Public} {
		balancer(t, strings.TrimPrefix(at, "http://"), p.local(0, door), p.local(1, door))
	}
	// Both begin with an empty database: of what `falaj up` let them exchange,
	// neither is to remind the other.
	files, err := filepath.Glob(filepath.Join(p.Data, "SA", "node.db*"))
	check(t, err)
	for _, f := range files {
		check(t, os.Remove(f))
	}
	p.startSecretariat(t)
	p.startNode(t, "SA")
	p.start(0)
	for _, at := range []string{p.admin(0), p.node(t, "SA").Admin} {
		eventually(t, "a new name for the log", func() error {
			if r := do(t, nil, "falaj", "--admin", at, "log", "renew"); r.code != 0 {
				return errors.New(r.err)
			}
			return nil
		})
	}
	p.start(1)
	p.ready(t, 0)
	p.ready(t, 1)
	p.waitNode(t, "SA")

	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		id := r.Header.Get("X-Road-Id")
		p.mu.Lock()
		p.effects[id]++
		p.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
		fmt.Fprint(w, "done for "+id)
	}))
	t.Cleanup(backend.Close)
	p.service = map[string]string{}
	for from, to := range map[string]string{"SA": "BH", "BH": "SA"} {
		p.service[from] = to + "/GOV/egov/portal/books"
		p.falaj(t, to, "service", "add", p.service[from], backend.URL)
		p.falaj(t, to, "access", "grant", from+"/GOV/egov/portal", p.service[from], "--purpose", "trial")
	}
	p.granted(t, "SA", p.service["SA"])
	for i := range p.processes {
		eventually(t, "the grant reaches both processes", func() error {
			if r := do(t, nil, "falaj", "--admin", p.admin(i), "policy", "explain", p.node(t, "BH").Client, p.service["BH"], "--purpose", "trial"); r.code != 0 {
				return errors.New(r.out + r.err)
			}
			return nil
		})
	}
	eventually(t, "both processes know the service", func() error {
		for range 4 {
			if !p.try(http.DefaultClient, "SA", fmt.Sprintf("SA-begin-%d", time.Now().UnixNano())) {
				return errors.New("not yet")
			}
		}
		return nil
	})
	return p
}

// try asks once, and tells whether that is to be the last time: it was
// answered, or nobody will ever know what came of it.
func (p *pair) try(c *http.Client, from, id string) bool {
	return p.tryAt(c, p.node(p.t, from).R1, from, id, nil)
}

// tryAt does so at one address; receipt is what it says of its receipt.
func (p *pair) tryAt(c *http.Client, at, from, id string, receipt []string) bool {
	req, err := http.NewRequest(http.MethodPost, at+"/r1/"+p.service[from]+"/", strings.NewReader("one"))
	if err != nil {
		p.t.Error(err)
		return true
	}
	req.Header = http.Header{"X-Road-Client": {p.node(p.t, from).Client}, "X-Road-Id": {id}, "Falaj-Purpose": {"trial"}, "Falaj-Receipt": receipt}
	resp, err := c.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return false
	}
	if resp.StatusCode != 200 {
		return strings.Contains(resp.Header.Get("X-Road-Error"), "OutcomeUnknown")
	}
	if string(b) != "done for "+id {
		p.t.Errorf("%s: %s", id, b)
	}
	if receipt != nil && resp.Header.Get("Falaj-Receipt") != "cosigned" {
		p.t.Errorf("%s: the receipt is %q", id, resp.Header.Get("Falaj-Receipt"))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered[id] = true
	p.requests = append(p.requests, request{from, resp.Header.Get("X-Road-Request-Id")})
	return true
}

// once makes one call from each side, which is answered and whose records
// others have seen.
func (p *pair) once(t *testing.T) {
	t.Helper()
	p.ask(t, p.node(t, "BH").R1)
}

// ask does so, Bahrain's at one of its processes.
func (p *pair) ask(t *testing.T, bh string) {
	t.Helper()
	for from, at := range map[string]string{"SA": p.node(t, "SA").R1, "BH": bh} {
		eventually(t, "a call from "+from, func() error {
			id := fmt.Sprintf("%s-once-%d", from, time.Now().UnixNano())
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
			if p.tryAt(c, at, from, id, []string{"wait"}); !p.answered[id] { // no other client is left
				return errors.New("no answer")
			}
			return nil
		})
	}
}

// call has clients call from both sides until the function it gives is called.
// Each repeats under the same id what was not answered.
func (p *pair) call() (end func()) {
	var over atomic.Bool
	var clients sync.WaitGroup
	for c := range 3 {
		for from := range p.service {
			clients.Go(func() {
				client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
				defer client.CloseIdleConnections()
				for i := 0; !over.Load(); i++ {
					id := fmt.Sprintf("%s-%d-%d", from, c, i)
					p.mu.Lock()
					p.made++
					p.mu.Unlock()
					for end := time.Now().Add(patience); !p.try(client, from, id) && time.Now().Before(end); {
						time.Sleep(20 * time.Millisecond)
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
	}
	return func() { over.Store(true); clients.Wait() }
}

// served waits until a new call from each side is answered.
func (p *pair) served(what string, since time.Time) {
	p.t.Helper()
	var sides sync.WaitGroup
	var took [2]time.Duration
	for side, from := range []string{"SA", "BH"} {
		sides.Go(func() {
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
			for end := since.Add(patience); took[side] == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				id := fmt.Sprintf("%s-after-%d", from, time.Now().UnixNano())
				p.try(c, from, id)
				p.mu.Lock()
				if p.answered[id] {
					p.made++
					took[side] = time.Since(since)
				}
				p.mu.Unlock()
			}
		})
	}
	sides.Wait()
	p.t.Logf("%s; calls from SA were answered again %v after, from BH %v", what, took[0].Round(time.Millisecond), took[1].Round(time.Millisecond))
	if took[0] == 0 || took[1] == 0 {
		p.t.Fatal("and that is not service")
	}
	p.longest = max(p.longest, took[0], took[1])
}

// accounted reads both journals as they were left: they are what their logs say,
// and hold request and answer of each call that a client saw answered exactly
// once.
func (p *pair) accounted(t *testing.T) {
	kinds := map[string]map[journal.Kind]map[string]int{}
	for state, dsn := range map[string]string{"BH": p.primary.DSN(), "SA": filepath.Join(p.Data, "SA", "node.db")} {
		keys, err := seal.OpenKeys(filepath.Join(p.Data, state, "keys"), seal.KeyConfig{Demonstration: true})
		check(t, err)
		names, err := keys.HMAC("journal-1")
		check(t, err)
		db := storetest.Open(t, store.Config{DSN: dsn})
		j, err := journal.NewReader(journal.Deps{DB: db, Records: keys.Records(), Keys: names})
		check(t, err)
		r, err := j.Verify(t.Context())
		check(t, err)
		if !r.OK() {
			t.Errorf("the journal of %s: %+v", state, r.Wrong)
		}
		found := map[journal.Kind]map[string]int{}
		for k := journal.RequestSent; k <= journal.AnswerReceived; k++ {
			found[k] = map[string]int{}
		}
		check(t, j.Each(t.Context(), 0, r.Size, func(s journal.Stored, err error) error {
			if err != nil || found[s.Kind] == nil {
				return err
			}
			head, _, err := message.Open(s.Envelope)
			if err != nil {
				return err
			}
			var m struct {
				RequestID string `json:"request_id"`
			}
			if err := json.Unmarshal(head, &m); err != nil {
				return err
			}
			found[s.Kind][m.RequestID]++
			return nil
		}))
		kinds[state] = found
	}
	for _, r := range p.requests {
		to := map[string]string{"SA": "BH", "BH": "SA"}[r.from]
		for _, x := range []struct {
			state string
			kind  journal.Kind
		}{{r.from, journal.RequestSent}, {to, journal.RequestReceived}, {to, journal.AnswerSent}, {r.from, journal.AnswerReceived}} {
			if n := kinds[x.state][x.kind][r.id]; n != 1 {
				t.Errorf("of the request %s of %s, which was answered, %s has %d records, %s", r.id, r.from, x.state, n, x.kind)
			}
		}
	}
}
