package exchange

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// backendLog is a backend that tells what reached it.
type backendLog struct {
	mu   sync.Mutex
	seen []string
}

func (l *backendLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, fmt.Sprintf("%s %s %s %q", r.Method, r.RequestURI, r.Header["X-Road-Client"], b))
	w.Header().Set("X-Seen", fmt.Sprint(r.Header))
}

func (l *backendLog) drain() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.seen
	l.seen = nil
	return s
}

// send writes raw bytes to a node's edge and reads every answer that comes.
// Where it does not ask the node to close the connection, it hangs up itself.
func (u *testUnion) send(t testing.TB, from union.State, raw string) (all []*http.Response, bodies []string) {
	t.Helper()
	c, err := net.Dial("tcp", u.nodes[from].edge.Listener.Addr().String())
	check(t, err)
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	go func() {
		_, _ = io.WriteString(c, raw)
		if !strings.Contains(raw, "close\r\n") {
			_ = c.(*net.TCPConn).CloseWrite()
		}
	}()
	r := bufio.NewReader(c)
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return all, bodies
		}
		b, _ := io.ReadAll(res.Body)
		all, bodies = append(all, res), append(bodies, string(b))
	}
}

const (
	rawTarget = "/r1/BH/GOV/office/desk/things/x"
	rawHead   = "Host: h\r\nX-Road-Client: SA/GOV/office/desk\r\nFalaj-Purpose: test\r\n"
)

// TestHostileHTTP sends the edge what HTTP clients do not, as bytes. Where it
// answers itself, it does so with a stable code; the service sees nothing, or
// exactly the one request that an honest reading gives.
func TestHostileHTTP(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	var back backendLog
	u.backend("BH", "things", back.ServeHTTP)
	node := u.nodes["SA"]
	const get, post = "GET " + rawTarget + " HTTP/1.1\r\n" + rawHead, "POST " + rawTarget + " HTTP/1.1\r\n" + rawHead
	const smuggled = "GET /r1/BH/GOV/office/desk/things/smuggled HTTP/1.1\r\n" + rawHead + "Connection: close\r\n\r\n"
	seen := func(method, body string) []string {
		return []string{fmt.Sprintf("%s /x [SA/GOV/office/desk] %q", method, body)}
	}
	for name, c := range map[string]struct {
		raw    string
		status int
		code   fault.Code // of the catalogue; "": HTTP's own answer, before there is a request
		seen   []string
	}{
		// Where a request ends.
		"length and chunks":               {post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n" + smuggled, 200, "", seen("POST", "")},
		"chunks and length":               {post + "Transfer-Encoding: chunked\r\nContent-Length: 400\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\n\r\n" + smuggled, 200, "", seen("POST", "a")},
		"two lengths":                     {post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "", nil},
		"a list of lengths":               {post + "Content-Length: 1, 2\r\n\r\nab", 400, "", nil},
		"a negative length":               {post + "Content-Length: -1\r\n\r\na", 400, "", nil},
		"a signed length":                 {post + "Content-Length: +1\r\n\r\na", 400, "", nil},
		"a hexadecimal length":            {post + "Content-Length: 0x1\r\n\r\na", 400, "", nil},
		"a length beyond all numbers":     {post + "Content-Length: 99999999999999999999\r\n\r\na", 400, "", nil},
		"a length beyond the limit":       {post + "Content-Length: 9000000000000\r\n\r\na", 400, fault.TooLarge, nil},
		"chunks twice":                    {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, "", nil},
		"another coding":                  {post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "", nil},
		"a coding of odd letters":         {post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, "", nil},
		"a space before the colon":        {post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "", nil},
		"a bare LF in the chunks":         {post + "Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n", 400, fault.BodyTruncated, nil},
		"a chunk's size beyond all":       {post + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na", 400, fault.BodyTruncated, nil},
		"a negative chunk":                {post + "Transfer-Encoding: chunked\r\n\r\n-1\r\na", 400, fault.BodyTruncated, nil},
		"a chunk that ends early":         {post + "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", 400, fault.BodyTruncated, nil},
		"no last chunk":                   {post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 400, fault.BodyTruncated, nil},
		"a body that ends early":          {post + "Content-Length: 10\r\n\r\nabc", 400, fault.BodyTruncated, nil},
		"a large body that ends early":    {post + "Content-Length: 300000\r\n\r\n" + strings.Repeat("a", 200_000), 400, fault.BodyTruncated, nil},
		"large chunks that end early":     {post + "Transfer-Encoding: chunked\r\n\r\n30d40\r\n" + strings.Repeat("a", 0x30d40) + "\r\n", 400, fault.BodyTruncated, nil},
		"a trailer that says who asks":    {post + "Transfer-Encoding: chunked\r\nTrailer: X-Road-Client\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\nX-Road-Client: SA/GOV/evil/desk\r\n\r\n", 200, "", seen("POST", "a")},
		"a body with GET":                 {get + "Content-Length: 1\r\nConnection: close\r\n\r\na", 200, "", seen("GET", "a")},
		"a request in a body":             {post + fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n\r\n", len(smuggled)) + smuggled, 200, "", seen("POST", smuggled)},
		"a request behind a refused body": {post + "Content-Length: 9000000000000\r\n\r\n" + smuggled, 400, fault.TooLarge, nil},
		"a request behind a bad header":   {post + "Falaj-Purpose: test\r\nContent-Length: 400000\r\n\r\n" + smuggled, 400, fault.RepeatedHeader, nil},

		// Lines.
		"LF alone":                     {strings.ReplaceAll(get, "\r\n", "\n") + "Connection: close\r\n\n", 200, "", seen("GET", "")},
		"CR in a value":                {get + "X-A: b\rX-Road-Client: SA/GOV/evil/desk\r\n\r\n", 400, "", nil},
		"NUL in a value":               {get + "X-A: b\x00c\r\n\r\n", 400, "", nil},
		"a control in a value":         {get + "X-A: b\x07c\r\n\r\n", 400, "", nil},
		"a name with a space":          {get + "X A: b\r\n\r\n", 400, "", nil},
		"a line without a colon":       {get + "GET / HTTP/1.1\r\n\r\n", 400, "", nil},
		"an encoded line break":        {"GET " + rawTarget + "%0d%0aX-Road-Client:%20SA/GOV/evil/desk HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.BadPath, nil},
		"a line break in the id":       {get + "X-Road-Id: a\r\n b\r\n\r\n", 400, fault.BadHeader, nil},
		"a tab in the id":              {get + "X-Road-Id: a\tb\r\n\r\n", 400, fault.BadHeader, nil},
		"an empty id":                  {get + "X-Road-Id:\r\n\r\n", 400, fault.BadHeader, nil},
		"a value that is not UTF-8":    {get + "X-A: \xff\r\n\r\n", 400, fault.BadHeader, nil},
		"a purpose that is not UTF-8":  {"GET " + rawTarget + " HTTP/1.1\r\nHost: h\r\nX-Road-Client: SA/GOV/office/desk\r\nFalaj-Purpose: \xff\r\n\r\n", 400, fault.BadHeader, nil},
		"a client that is not UTF-8":   {"GET " + rawTarget + " HTTP/1.1\r\nHost: h\r\nX-Road-Client: SA/GOV/office/\xff\r\nFalaj-Purpose: test\r\n\r\n", 400, fault.BadIdentifier, nil},
		"HTTP/0.9":                     {"GET " + rawTarget + "\r\n\r\n", 400, "", nil},
		"HTTP/3":                       {"GET " + rawTarget + " HTTP/3.0\r\n" + rawHead + "\r\n", 505, "", nil},
		"HTTP/2's preface":             {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404, "", nil},
		"no host":                      {"GET " + rawTarget + " HTTP/1.1\r\nX-Road-Client: SA/GOV/office/desk\r\n\r\n", 400, "", nil},
		"a method of its own":          {"HACK " + rawTarget + " HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.MethodNotAllowed, nil},
		"a method of 100 KB":           {strings.Repeat("A", 100_000) + " " + rawTarget + " HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.MethodNotAllowed, nil},
		"CONNECT":                      {"CONNECT " + rawTarget + " HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.MethodNotAllowed, nil},
		"another host's address":       {"GET http://evil.example" + rawTarget + " HTTP/1.1\r\n" + rawHead + "Connection: close\r\n\r\n", 200, "", seen("GET", "")},
		"a way out":                    {"GET " + rawTarget + "/../../admin HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.BadPath, nil},
		"an encoded way out":           {"GET " + rawTarget + "/%252e%252e%252fadmin HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.BadPath, nil},
		"a backslash":                  {"GET " + rawTarget + `/..\admin HTTP/1.1` + "\r\n" + rawHead + "\r\n", 400, fault.BadPath, nil},
		"a way out of the service":     {"GET /r1/BH/GOV/office/desk/closed/../things/x HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.BadPath, nil},
		"raw Arabic in the path":       {"GET " + rawTarget + "/مركبة HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.BadRequest, nil},
		"raw Arabic in the query":      {"GET " + rawTarget + "?q=مركبة HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.BadRequest, nil},
		"an address of 20 KB":          {"GET " + rawTarget + strings.Repeat("/a", 10_000) + " HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.BadPath, nil},
		"a query of 20 KB":             {"GET " + rawTarget + "?" + strings.Repeat("a", 20_000) + " HTTP/1.1\r\n" + rawHead + "\r\n", 400, fault.BadPath, nil},
		"300 KB of headers":            {get + bulk(30, 10_000) + "\r\n", 400, fault.BadRequest, nil},
		"2 MB of headers":              {get + bulk(200, 10_000) + "\r\n", 431, "", nil},
		"1000 headers":                 {get + bulk(1000, 10) + "\r\n", 400, fault.BadHeader, nil},
		"a purpose of 2 KB":            {"GET " + rawTarget + " HTTP/1.1\r\nHost: h\r\nX-Road-Client: SA/GOV/office/desk\r\nFalaj-Purpose: " + strings.Repeat("p", 2000) + "\r\n\r\n", 400, fault.BadHeader, nil},
		"a client of 100 KB":           {"GET " + rawTarget + " HTTP/1.1\r\nHost: h\r\nX-Road-Client: SA/GOV/office/" + strings.Repeat("d", 100_000) + "\r\n\r\n", 400, fault.BadIdentifier, nil},
		"who asks, with underscores":   {get + "X_Road_Client: SA/GOV/evil/desk\r\nConnection: close\r\n\r\n", 200, "", seen("GET", "")},
		"who asks, as a hop's":         {"GET " + rawTarget + " HTTP/1.1\r\n" + rawHead + "Connection: X-Road-Client, Falaj-Purpose, close\r\n\r\n", 200, "", seen("GET", "")},
		"an upgrade":                   {get + "Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n", 200, "", seen("GET", "")},
		"an expectation of its own":    {get + "Expect: miracles\r\nConnection: close\r\n\r\n", 417, "", nil},
		"a client that shuts up early": {get, 400, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			back.drain()
			node.forget()
			all, bodies := u.send(t, "SA", c.raw)
			switch {
			case len(all) != 1 || all[0].StatusCode != c.status:
				t.Fatalf("%d answers, wanted one of status %d: %+v %.300s", len(all), c.status, all, bodies)
			case c.code != "":
				var e xroadError
				if err := json.Unmarshal([]byte(bodies[0]), &e); err != nil || e.Code != string(c.code) || all[0].Header.Get("X-Road-Error") != e.Type || e.MessageAr == "" {
					t.Errorf("%.300s %v, wanted %s", bodies[0], err, c.code)
				}
				node.observed(t, c.code)
			}
			got := back.drain()
			if fmt.Sprint(got) != fmt.Sprint(c.seen) {
				t.Errorf("the service saw %.300s, wanted %.300s", got, c.seen)
			}
			if c.status == 200 && strings.Contains(strings.ToLower(all[0].Header.Get("X-Seen")), "evil") {
				t.Errorf("the service saw %s", all[0].Header.Get("X-Seen"))
			}
		})
	}
	u.sound(t)
}

func bulk(lines, size int) string {
	var b strings.Builder
	for i := range lines {
		fmt.Fprintf(&b, "X-H%d: %s\r\n", i, strings.Repeat("v", size))
	}
	return b.String()
}

// TestWhatIsRecordedOfBadRequests: a refusal to a client that proved who it is
// is sealed and journalled, also where the request could not be read whole; of
// anybody else nothing is written, only counted.
func TestWhatIsRecordedOfBadRequests(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { t.Error("the service was reached") })
	node := u.nodes["SA"]
	check(t, node.Local().PutClient(t.Context(), Client{ID: union.SubsystemID{MemberID: desk("SA").MemberID, Subsystem: "bound"}, Mode: ModeHTTPS}))
	const line = "GET " + rawTarget
	for name, c := range map[string]struct {
		raw      string
		code     fault.Code
		recorded bool
	}{
		"a way out of the path": {line + "/../y HTTP/1.1\r\n" + rawHead, fault.BadPath, true},
		"a repeated header":     {line + " HTTP/1.1\r\n" + rawHead + "Falaj-Purpose: test\r\n", fault.RepeatedHeader, true},
		"a bad id":              {line + " HTTP/1.1\r\n" + rawHead + "X-Road-Id: a b\r\n", fault.BadHeader, true},
		"a body cut short":      {"POST " + rawTarget + " HTTP/1.1\r\n" + rawHead + "Content-Length: 9\r\n", fault.BodyTruncated, true},
		"a body too large":      {"POST " + rawTarget + " HTTP/1.1\r\n" + rawHead + "Content-Length: 9000000000000\r\n", fault.TooLarge, true},
		"an unknown method":     {"HACK " + rawTarget + " HTTP/1.1\r\n" + rawHead, fault.MethodNotAllowed, true},
		"an unknown state":      {"GET /r1/US/GOV/office/desk/things HTTP/1.1\r\n" + rawHead, fault.UnknownState, true},
		"an unknown service":    {"GET /r1/BH/GOV/office/desk/none HTTP/1.1\r\n" + rawHead, fault.UnknownService, true},
		"no purpose":            {line + " HTTP/1.1\r\nHost: h\r\nX-Road-Client: SA/GOV/office/desk\r\n", fault.MissingPurpose, true},
		"no service":            {"GET /r1/BH/GOV HTTP/1.1\r\n" + rawHead, fault.BadIdentifier, false},
		"no client":             {line + " HTTP/1.1\r\nHost: h\r\n", fault.MissingClient, false},
		"an unknown client":     {line + " HTTP/1.1\r\nHost: h\r\nX-Road-Client: SA/GOV/office/other\r\n", fault.UnknownClient, false},
		"another state's":       {line + " HTTP/1.1\r\nHost: h\r\nX-Road-Client: BH/GOV/office/desk\r\n", fault.UnknownClient, false},
		"through a laxer door":  {line + " HTTP/1.1\r\nHost: h\r\nX-Road-Client: SA/GOV/office/bound\r\n", fault.ClientNotAuthentic, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := node.size(t)
			node.forget()
			all, bodies := u.send(t, "SA", c.raw+"\r\n")
			if len(all) != 1 || !strings.Contains(bodies[0], `"code":"`+string(c.code)+`"`) {
				t.Fatalf("%+v %s", all, bodies)
			}
			node.observed(t, c.code)
			want := before
			if c.recorded {
				want++
			}
			if got := node.size(t); got != want {
				t.Errorf("%d records were written", got-before)
			}
			if c.recorded {
				s, err := node.journal.Get(t.Context(), before)
				check(t, err)
				r, err := show(s)
				check(t, err)
				if r.Kind != "refused" || !strings.Contains(string(r.Head), `"fault":"`+string(c.code)+`"`) || !strings.Contains(string(s.Body), string(c.code)) {
					t.Errorf("%s %s %s", r.Kind, r.Head, s.Body)
				}
				if _, err := (&books{now: node.dir.View()}).read(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if n := u.nodes["BH"].size(t); n != 0 {
		t.Errorf("the other node holds %d records", n)
	}
	u.sound(t)
}

// TestSupportNumber: an error of the node's own stands in the log under the
// number that the client is given, and its text stays here.
func TestSupportNumber(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	x := &Exchange{deps: Deps{Log: slog.New(slog.NewTextHandler(&log, nil))}}
	number := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	for _, tell := range []func(http.ResponseWriter, error){x.writeFault, x.problem} {
		log.Reset()
		w := httptest.NewRecorder()
		tell(w, errors.New("a thing within"))
		id := number.FindString(w.Body.String())
		if id == "" || !strings.Contains(log.String(), id) || !strings.Contains(log.String(), "a thing within") || strings.Contains(w.Body.String(), "within") {
			t.Errorf("told %s, logged %s", w.Body, log.String())
		}
		log.Reset()
		tell(httptest.NewRecorder(), fault.New(fault.BadRequest, ""))
		if log.Len() > 0 {
			t.Errorf("a client's mistake is logged: %s", log.String())
		}
	}
}
