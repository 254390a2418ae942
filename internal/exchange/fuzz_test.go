package exchange

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// honest is a backend that fails the test if what reaches it could be read in
// two ways, or says who asks in two ways.
func honest(t testing.TB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			if shape := message.Shape(name); len(values) != 1 && message.Ours(shape) || shape != strings.ToLower(name) && message.Ours(shape) {
				t.Errorf("the service saw %q: %q", name, values)
			}
		}
		if c := r.Header.Get("X-Road-Client"); c != "SA/GOV/office/desk" || r.Header.Get("Falaj-Subject") != "" || r.Header.Get("Falaj-Purpose") != "test" {
			t.Errorf("the service saw the client %q, %v", c, r.Header)
		}
		if strings.Contains(r.RequestURI, "/../") || !strings.HasPrefix(r.RequestURI, "/") {
			t.Errorf("the service saw the address %q", r.RequestURI)
		}
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

// FuzzServe gives the provider's side any envelope and body: as they are, or
// with the head sealed by a member of the union, so that it is authentic.
func FuzzServe(f *testing.F) {
	u := newUnion(f, []union.State{"BH", "SA"}, func(c *Config, _ *Deps) { c.MaxBody = 1 << 20 })
	u.backend("BH", "things", honest(f))
	bh, sa := u.nodes["BH"], u.nodes["SA"]
	by := sa.seals[desk("SA").MemberID]
	peer := link.Peer{State: "SA", Node: "n1", Cert: sha256.Sum256(sa.tls.Raw)}

	k := attack{r: u.request("SA", offered("BH", "things")), body: []byte("body"), by: by, at: time.Now()}
	k.r.NotAfter = k.r.NotBefore + message.MaxValidity.Milliseconds() // the corpus has to last
	k.r.Body = sum(k.body)
	k.r.Headers = []message.Header{{Name: "accept", Value: "*/*"}}
	head, err := k.r.Encode()
	check(f, err)
	f.Add(head, k.body, true)
	good := k.message(f).Envelope
	f.Add(good, k.body, false)
	for _, pair := range [][2]string{
		{`"things"`, `"closed"`}, {`/things"`, `/getOpenAPI"`}, {`"/x"`, `"/x?serviceCode=things"`}, {`"POST"`, `"GET"`}, {`"/x"`, `"/%2e%2e"`},
		{`"accept"`, `"x_road_client"`}, {`*/*`, `\r\nX-A: b`}, {`"test"`, `"metadata"`}, {`"id"`, `"id":"1","id"`}, {`[["accept","*/*"]]`, `[["accept"]]`},
		{`"size":4`, `"size":-4`}, {`"size":4`, `"size":9223372036854775807`}, {`"not_before":`, `"not_before":-`}, {`"path":"/x",`, ``},
	} {
		f.Add(bytes.Replace(head, []byte(pair[0]), []byte(pair[1]), 1), k.body, true)
	}
	f.Add([]byte{}, []byte{}, false)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'}, []byte{}, false)
	f.Fuzz(func(t *testing.T, head, body []byte, authentic bool) {
		env := head
		if authentic {
			var said *message.Body
			if r, err := message.ParseRequest(head); err == nil {
				said = r.Body
			}
			s, err := sealHead(by, seal.Request, head, said, time.Now())
			check(t, err)
			env = s.envelope
		}
		before := bh.size(t)
		m, err := served(t.Context(), bh.Exchange, peer, link.NewMessage(env, body))
		if err != nil {
			if c := fault.CodeOf(err); fault.Lookup(c).Code != c || c == fault.Internal {
				t.Errorf("%v", err)
			}
			if bh.size(t) != before {
				t.Errorf("%v, and %d records", err, bh.size(t)-before)
			}
			return
		}
		if !authentic && !bytes.Equal(env, good) {
			t.Error("an answer to what nobody sealed")
		}
		if m.Body != nil {
			defer m.Body.Close()
		}
		out, _, err := message.Open(m.Envelope)
		check(t, err)
		if _, err := message.ParseAnswer(out); err != nil || bh.size(t) != before+2 {
			t.Errorf("%d records, %s: %v", bh.size(t)-before, out, err)
		}
		if n := bh.claims(t, sideProvider, claimOpen); n != 0 {
			t.Errorf("%d open claims", n)
		}
	})
}

// FuzzEdge gives the door any bytes that HTTP's reader takes for a request.
func FuzzEdge(f *testing.F) {
	u := newUnion(f, []union.State{"BH", "SA"}, func(c *Config, _ *Deps) { c.MaxBody = 1 << 20 })
	u.backend("BH", "things", honest(f))
	door := u.nodes["SA"].Edge()
	const line = "GET " + rawTarget + " HTTP/1.1\r\n" + rawHead
	for _, s := range []string{
		line, line + "X-Road-Id: 1\r\n", line + "Falaj-Subject: p\r\nFalaj-Conversation: c\r\nConnection: X-A\r\nX-A: b\r\n", line + "X_Road_Client: SA/GOV/evil/desk\r\n",
		line + "X-Road-Client: SA/GOV/evil/desk\r\n", line + "Content-Length: 3\r\n\r\nabc", "POST " + rawTarget + "/%D8%A7?a=b HTTP/1.1\r\n" + rawHead + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
		line + "Content-Length: 9\r\n\r\nabc", "GET /r1/BH/GOV/office/desk/things/../closed HTTP/1.1\r\n" + rawHead, "GET http://h" + rawTarget + " HTTP/1.0\r\n" + rawHead, "TRACE * HTTP/1.1\r\n" + rawHead,
		"GET /listClients?xRoadInstance=BH HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\n", "GET /evidence/1 HTTP/1.1\r\n" + rawHead, "GET /async/1 HTTP/1.1\r\n" + rawHead, "GET /async/%2F/answer HTTP/1.1\r\n" + rawHead,
		"GET /r1/BH/GOV/office/desk/listMethods HTTP/1.1\r\n" + rawHead, "GET /r1/BH/GOV/office/desk/getOpenAPI?serviceCode=things HTTP/1.1\r\n" + rawHead, "GET /r1/US/GOV/office/desk/things HTTP/1.1\r\n" + rawHead,
		line + "Prefer: respond-async\r\n", line + "X-A: \xff\r\n", "HEAD //r1/ HTTP/1.1\r\n" + rawHead,
	} {
		f.Add([]byte(s + "\r\n"))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code < 200 || w.Code > 599 {
			t.Errorf("status %d", w.Code)
		}
		var e xroadError
		kind := w.Header().Get("X-Road-Error")
		if kind != "" && (json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Type != kind || e.Message == "" || e.MessageAr == "" || e.Code == string(fault.Internal)) {
			t.Errorf("%d %s %s", w.Code, kind, w.Body)
		}
		if c := w.Header().Get("X-Road-Client"); c != "" && c != "SA/GOV/office/desk" {
			t.Errorf("answered as to %s", c)
		}
	})
}
