package exchange

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// TestRoomOfRequests: of a call that was carried out the large body stays, of
// one that was refused or repeated it does not, nor where only digests are
// kept, however small the answer is.
func TestRoomOfRequests(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	for _, code := range []string{"things", "fleeting"} {
		u.backend("BH", code, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("little")) })
	}
	for i, c := range []struct {
		code  string
		fault fault.Code
		kept  int
	}{{"closed", fault.PolicyDenied, 0}, {"fleeting", "", 0}, {"things", "", 1}, {"things", "", 1}} {
		k := &attack{r: u.request("SA", offered("BH", c.code)), body: bytes.Repeat([]byte("much"), 50<<10), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
		k.r.ID = "large-" + c.code
		a, _, err := u.deliver("SA", "BH", k.message(t))
		if err != nil || a.Fault != string(c.fault) {
			t.Fatalf("%d, %s: %+v %v", i, c.code, a, err)
		}
		if there, named := u.nodes["BH"].spooled(t); len(there) != c.kept || len(named) != c.kept {
			t.Errorf("%d, %s: %d bodies, %d named", i, c.code, len(there), len(named))
		}
	}
}

// TestRoomOfWaiting: nor does the body of a call stay whose caller hangs up
// while it waits for another of the same id.
func TestRoomOfWaiting(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	bh := u.nodes["BH"]
	busy, release := make(chan bool), make(chan bool)
	u.backend("BH", "fleeting", func(w http.ResponseWriter, r *http.Request) { busy <- true; <-release })
	k := &attack{r: u.request("SA", offered("BH", "fleeting")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	first := k.message(t)
	k.body = bytes.Repeat([]byte("much"), 50<<10)
	second := k.message(t)
	done := make(chan error, 1)
	go func() {
		_, err := served(t.Context(), bh.Exchange, u.asPeer("SA"), first)
		done <- err
	}()
	<-busy
	hung, hangUp := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer hangUp()
	if _, err := bh.Exchange.Exchange(hung, u.asPeer("SA"), second); fault.CodeOf(err) != fault.InFlight {
		t.Errorf("%v", err)
	}
	if there, _ := bh.spooled(t); len(there) != 0 {
		t.Errorf("%v stays", there)
	}
	close(release)
	check(t, <-done)
}

// TestBodyOfAnUnclearRecord: a database that breaks off in the middle of a
// commit may have made it. So the body stays, but not one of a call that was
// refused since nothing can be recorded.
func TestBodyOfAnUnclearRecord(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("much"), 50<<10)
	for _, state := range []union.State{"SA", "BH"} { // at the caller's node, at the provider's
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			u := newUnion(t, []union.State{"BH", "SA"})
			n := u.nodes[state]
			u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { t.Error("invoked without a record") })
			_, err := n.db.Exec(t.Context(), "ALTER TABLE journal_commit RENAME TO away")
			check(t, err)
			for i := range 3 {
				if a := u.call("SA", "POST", offered("BH", "things"), "", bytes.NewReader(large)); a.status < 500 {
					t.Errorf("call %d: %d", i, a.status)
				}
				if there, _ := n.spooled(t); len(there) != 1 {
					t.Errorf("after call %d there are %v", i, there)
				}
			}
		})
	}
}

// TestRefusedByItsHead: who may not ask is told so before the body has come,
// at either node, and what may no longer be asked once it has come is refused
// then.
func TestRefusedByItsHead(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	bh, sa := u.nodes["BH"], u.nodes["SA"]
	var calls atomic.Int32
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { calls.Add(1) })
	sent := func(code string, half func()) (*message.Answer, error) {
		k := &attack{r: u.request("SA", offered("BH", code)), by: sa.seals[desk("SA").MemberID], at: time.Now()}
		all := bytes.Repeat([]byte("x"), 1<<20)
		k.r.ID, k.r.Body = "by-its-head-"+code, sum(all)
		m := k.message(t)
		m.Size, m.Body = int64(len(all)), io.NopCloser(io.MultiReader(bytes.NewReader(all[:60<<10]), stall(half), bytes.NewReader(all[60<<10:])))
		a, _, err := u.deliver("SA", "BH", m)
		return a, err
	}
	never, stop := context.WithCancel(t.Context())
	a, err := sent("closed", func() { <-never.Done() }) // the rest would not come
	stop()
	if err != nil || a.Fault != string(fault.PolicyDenied) || a.Hash != "" {
		t.Errorf("%+v %v", a, err)
	}
	if got := bh.held(t, "by-its-head-closed"); got != "request received, answer sent" {
		t.Errorf("recorded %s", got)
	}
	a, err = sent("things", func() { u.withdraw("BH", "SA-things") })
	if err != nil || a.Fault != string(fault.PolicyDenied) || a.Hash == "" || calls.Load() != 0 {
		t.Errorf("withdrawn meanwhile: %+v %v, %d calls", a, err, calls.Load())
	}
	if there, _ := bh.spooled(t); len(there) != 0 {
		t.Errorf("%v stays", there)
	}

	// The caller's own state forbids it, and the client sends no byte of 1 GiB.
	c, err := net.Dial("tcp", sa.edge.Listener.Addr().String())
	check(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "POST /r1/BH/GOV/office/desk/none HTTP/1.1\r\n"+rawHead+"X-Road-Id: unsent\r\nContent-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n")
	check(t, err)
	check(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode < 400 {
		t.Fatalf("%+v %v", res, err)
	}
	if got := sa.held(t, "unsent"); got != "refused" {
		t.Errorf("recorded %s", got)
	}
	u.sound(t)
}

// stall is a reader of nothing that does something when it is read.
type stall func()

func (r stall) Read([]byte) (int, error) {
	r()
	return 0, io.EOF
}

// TestUnknownSubsystem: a member's seal does not make a subsystem that the
// directory does not name.
func TestUnknownSubsystem(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	k := &attack{r: u.request("SA", offered("BH", "listMethods")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	k.r.Client.Subsystem, k.r.Method, k.r.Purpose = "nowhere", "GET", purposeMeta
	if a, _, err := u.deliver("SA", "BH", k.message(t)); err != nil || a.Fault != string(fault.UnknownClient) {
		t.Errorf("%+v %v", a, err)
	}
}

// TestPurposeOfMetaservices serves for nothing else.
func TestPurposeOfMetaservices(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	a := u.call("SA", "GET", offered("BH", "things"), "/", nil, "Falaj-Purpose: "+purposeMeta)
	if a.fault(t).Code != string(fault.UnknownPurpose) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestPartsOutOfTime: what a state signed holds for as long as it said, however
// young the directory around it is.
func TestPartsOutOfTime(t *testing.T) {
	var u *testUnion
	young := func(c *Config, d *Deps) {
		d.Directory = func() (*directory.View, error) { return u.nodes[c.State].dir.View(), nil }
	}
	u, listeners := foundUnion(t, []union.State{"BH", "SA"})
	for s, n := range u.nodes {
		n.start(t, onSQLite, listeners[s], []kitOption{young})
	}
	u.backend("BH", "things", func(http.ResponseWriter, *http.Request) {})
	if a := u.call("SA", "GET", offered("BH", "things"), "/", nil); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	st, _ := u.nodes["BH"].dir.View().State("BH")
	for _, n := range u.nodes {
		n.shift.Store(int64(time.Until(st.Expires) + time.Hour))
	}
	if a := u.call("SA", "GET", offered("BH", "things"), "/", nil); a.fault(t).Code != string(fault.DirectoryExpired) {
		t.Errorf("the caller's node: %d %s", a.status, a.body)
	}
	at := u.nodes["SA"].now()
	k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: at}
	k.r.NotBefore, k.r.NotAfter = at.UnixMilli(), at.Add(time.Minute).UnixMilli()
	if _, _, err := u.deliver("SA", "BH", k.message(t)); fault.CodeOf(err) != fault.DirectoryExpired {
		t.Errorf("the provider's node: %v", err)
	}
}

// TestArrivedInTime: the time that a request has to arrive does not end a call
// that takes longer.
func TestArrivedInTime(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(http.ResponseWriter, *http.Request) { time.Sleep(400 * time.Millisecond) })
	sa := u.nodes["SA"]
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		check(t, http.NewResponseController(w).SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		sa.Edge().ServeHTTP(w, r)
	}))
	defer door.Close()
	sa.edge.Close()
	sa.edge = door
	if a := u.call("SA", "GET", offered("BH", "things"), "/", nil); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestLongestValidity: an answer may not be valid for longer than a message
// can be, however early by this node's clock the request came.
func TestLongestValidity(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	calls := 0
	u.backend("BH", "things", func(http.ResponseWriter, *http.Request) { calls++ })
	k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	from := time.Now().Add(20 * time.Second)
	k.r.NotBefore, k.r.NotAfter = from.UnixMilli(), from.Add(message.MaxValidity).UnixMilli()
	a, _, err := u.deliver("SA", "BH", k.message(t))
	if err != nil || a.Fault != "" || calls != 1 {
		t.Errorf("%+v %v, %d calls", a, err, calls)
	}
}

// TestRefusedBeforeItWasSealed: the record alone tells what was asked.
func TestRefusedBeforeItWasSealed(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	if a := u.call("SA", "GET", offered("BH", "nothing"), "/a/b?c=d", nil, "X-Road-Id: refused"); a.status == 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	_, err := u.nodes["SA"].Ask(t.Context(), Ask{
		Client: desk("SA"), Door: "http", Service: offered("BH", "things"), Method: "GET", Path: "/a?\xff", ID: "refused", Purpose: "test", In: time.Now(),
	})
	if fault.CodeOf(err) != fault.BadRequest {
		t.Errorf("%v", err)
	}
	found, err := u.nodes["SA"].journal.Find(t.Context(), "refused")
	check(t, err)
	if len(found) != 2 {
		t.Fatalf("%d records", len(found))
	}
	n, err := readNote(found[0].Local)
	check(t, err)
	if n.Method != "GET" || n.Path != "/a/b?c=d" || n.Purpose != "test" {
		t.Errorf("%+v", n)
	}
}
