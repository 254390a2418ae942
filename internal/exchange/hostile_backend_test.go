package exchange

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// script is a backend that reads one request and writes these bytes.
func (u *testUnion) script(s union.State, code string, answer func(net.Conn)) {
	u.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(u.t, err)
	u.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				b := make([]byte, 64<<10)
				for got := ""; !strings.Contains(got, "\r\n\r\n"); {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					got += string(b[:n])
				}
				answer(c)
			}()
		}
	}()
	check(u.t, u.nodes[s].Local().PutBackend(u.t.Context(), Backend{Service: offered(s, code), Address: "http://" + ln.Addr().String()}))
}

// TestBadBackends: whatever stands behind a service does, the client gets a
// sealed fault of its state's own with a stable code; what may have happened is
// listed and not repeated.
func TestBadBackends(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, _ *Deps) { c.MaxBody = 1 << 20 })
	bh := u.nodes["BH"]
	calls := map[string]func(net.Conn){
		"hangs up":                 func(c net.Conn) {},
		"says nothing in time":     func(c net.Conn) { time.Sleep(2 * time.Second) },
		"stops in the status line": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 2") },
		"stops in the headers":     func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: b\r\n") },
		"stops in the body":        func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart") },
		"stops in a large body": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"+strings.Repeat("x", 200_000))
		},
		"stops in the chunks": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n")
		},
		"stops in large chunks": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n"+strings.Repeat("x", 0x30d40))
		},
		"dawdles in the body": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
			time.Sleep(2 * time.Second)
		},
		"sends more than it may": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			_, _ = c.Write(make([]byte, 2<<20))
		},
		"declares more than it may": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n") },
		"speaks no HTTP":            func(c net.Conn) { _, _ = io.WriteString(c, "220 mail.example ESMTP\r\n") },
		"sends a status of letters": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 abc OK\r\n\r\n") },
		"sends status 999":          func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n") },
		"sends status 600":          func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 600 What\r\nContent-Length: 0\r\n\r\n") },
		"sends status 000":          func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 000 What\r\nContent-Length: 0\r\n\r\n") },
		"switches the protocol": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		},
		"never comes to the point": func(c net.Conn) {
			for range 50 {
				_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			}
		},
		"sends a header that is none": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n") },
		"sends a header of controls": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: b\x07\r\nContent-Length: 0\r\n\r\n")
		},
		"sends a header of no UTF-8": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-A: \xff\r\nContent-Length: 0\r\n\r\n")
		},
		"sends 300 KB of headers": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+bulk(30, 10_000)+"Content-Length: 0\r\n\r\n")
		},
		"sends what fits no head": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+bulk(25, 10_000)+"X-Q: "+strings.Repeat(`"`, 9_000)+"\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 100_000))
		},
		"sends 300 headers": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+bulk(300, 1)+"Content-Length: 0\r\n\r\n")
		},
		"sends two lengths": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
		},
		"names two persons": func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nFalaj-Subject: 1\r\nFalaj-Subject: 2\r\nContent-Length: 0\r\n\r\n")
		},
	}
	unknown := 0
	for name, answer := range calls {
		t.Run(name, func(t *testing.T) {
			u.script("BH", "brief", answer)
			id := strings.ReplaceAll(name, " ", "-")
			for _, method := range []string{"GET", "POST"} {
				bh.forget()
				a := u.call("SA", method, offered("BH", "brief"), "/", nil, "X-Road-Id: "+method+"-"+id)
				e := a.fault(t)
				want := fault.BackendFailed
				if strings.Contains(name, "in time") || strings.Contains(name, "dawdles") {
					want = fault.BackendTimeout
				}
				if e.Code != string(want) || a.status != 500 || !strings.HasPrefix(e.Type, "Server.ServerProxy.") {
					t.Errorf("%s: %d %s", method, a.status, a.body)
				}
				bh.observed(t, want)
				if got := bh.held(t, method+"-"+id); got != "request received, answer sent" {
					t.Errorf("%s: the provider holds %s", method, got)
				}
				if got := u.nodes["SA"].held(t, method+"-"+id); got != "request sent, answer received" {
					t.Errorf("%s: the caller's node holds %s", method, got)
				}
			}
			// It may have acted upon the POST, so that one is not sent again, and
			// listed. The GET does no harm.
			a := u.call("SA", "POST", offered("BH", "brief"), "/", nil, "X-Road-Id: POST-"+id)
			if name != "sends what fits no head" { // there the service did answer
				unknown++
				if e := a.fault(t); e.Code != string(fault.OutcomeUnknown) {
					t.Errorf("again: %s", a.body)
				}
			} else if e := a.fault(t); e.Code != string(fault.BackendFailed) {
				t.Errorf("again: %s", a.body)
			}
			u.script("BH", "brief", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") })
			if a := u.call("SA", "GET", offered("BH", "brief"), "/", nil, "X-Road-Id: GET-"+id); name != "sends what fits no head" && string(a.body) != "ok" {
				t.Errorf("once more: %s", a.body)
			}
		})
	}
	list, err := bh.Outcomes(t.Context(), 1000)
	if err != nil || len(list) != unknown {
		t.Errorf("%d outcomes are listed, %d are unknown: %v", len(list), unknown, err)
	}
	for _, o := range list {
		if o.Client != "SA/GOV/office/desk" || !strings.HasPrefix(o.ID, "POST-") || o.Service != offered("BH", "brief").String() {
			t.Errorf("listed: %+v", o)
		}
	}
	u.sound(t)
}

// TestBackendDown: what was not reached did nothing, so the id is free again.
func TestBackendDown(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	srv := u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {})
	srv.Close()
	for range 2 {
		if a := u.call("SA", "POST", offered("BH", "things"), "/", strings.NewReader("x"), "X-Road-Id: down"); a.fault(t).Code != string(fault.BackendFailed) || strings.Contains(string(a.body), "127.0.0.1") {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201) })
	if a := u.call("SA", "POST", offered("BH", "things"), "/other", strings.NewReader("y"), "X-Road-Id: down"); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if list, err := u.nodes["BH"].Outcomes(t.Context(), 10); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	u.sound(t)
}

// TestBackendAddresses: no service may lie where only this machine or its
// neighbours should reach, whatever its address is written like.
func TestBackendAddresses(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, _ *Deps) { c.Allow = nil })
	bh := u.nodes["BH"]
	reached := u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { t.Error("it was reached") })
	_, port, err := net.SplitHostPort(reached.Listener.Addr().String())
	check(t, err)
	try := func(t *testing.T, address string, want fault.Code) {
		t.Helper()
		check(t, bh.Local().PutBackend(t.Context(), Backend{Service: offered("BH", "things"), Address: address}))
		a := u.call("SA", "POST", offered("BH", "things"), "/", nil)
		if e := a.fault(t); e.Code != string(want) {
			t.Errorf("%s: %s", address, a.body)
		}
	}
	for _, host := range []string{
		"127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:0.0.0.0]",
		"169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1%25lo]", "[fd00:ec2::254]", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.100.100.200",
		"168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "0.1.2.3", "[fec0::1]",
		"[64:ff9b::169.254.169.254]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]", "[ff02::1]",
	} {
		try(t, "http://"+host+":"+port, fault.BackendRefused)
	}
	// The node's own doors are no service even where their network is allowed.
	link, err := netip.ParseAddrPort(u.target("BH").Addrs[0])
	check(t, err)
	edge := netip.MustParseAddrPort(bh.edge.Listener.Addr().String())
	bh.Exchange.cfg.Allow = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	bh.Exchange.cfg.Own = []netip.AddrPort{link, netip.AddrPortFrom(netip.IPv6Unspecified(), edge.Port())}
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]"} {
		try(t, fmt.Sprintf("http://%s:%d", host, link.Port()), fault.BackendRefused)
		try(t, fmt.Sprintf("https://%s:%d", host, edge.Port()), fault.BackendRefused)
	}
	if list, err := bh.Outcomes(t.Context(), 10); err != nil || len(list) != 0 {
		t.Errorf("what was refused counts as unknown: %v %v", list, err)
	}
	for _, address := range []string{"", "ftp://h/", "file:///etc/passwd", "http://", "http://u:p@h/", "http://h/?q", "http://h/#f", "//h/x", "http:h", "http://h:port/", "http://h/%zz", "unix:///run/admin.sock"} {
		if err := bh.Local().PutBackend(t.Context(), Backend{Service: offered("BH", "things"), Address: address}); fault.CodeOf(err) != fault.BadRequest {
			t.Errorf("%q was taken: %v", address, err)
		}
	}
	u.sound(t)
}

func TestPublicAddressesArePermitted(t *testing.T) {
	t.Parallel()
	x := &Exchange{cfg: Config{Own: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:443")}}}
	for _, a := range []string{"8.8.8.8:443", "1.1.1.1:80", "[2001:4860:4860::8888]:443", "[::ffff:8.8.8.8]:80", "100.128.0.1:80", "168.63.129.17:80"} {
		if err := x.permitted(netip.MustParseAddrPort(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// TestKeyHeader: where a backend takes our id as its key, no client chooses
// another under the same name.
func TestKeyHeader(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	keys := make(chan string, 8)
	srv := u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		keys <- fmt.Sprint(r.Header.Values("Idempotency-Key"), r.Header.Values("Idempotency_key"))
	})
	check(t, u.nodes["BH"].Local().PutBackend(t.Context(), Backend{Service: offered("BH", "things"), Address: srv.URL, KeyHeader: "idempotency-key"}))
	u.call("SA", "POST", offered("BH", "things"), "/", strings.NewReader("x"), "X-Road-Id: ours", "Idempotency-Key: theirs", "Idempotency_Key: theirs")
	if got := <-keys; got != "[ours] []" {
		t.Errorf("the service saw the keys %s", got)
	}
	for _, name := range []string{"X-Road-Client", "falaj-purpose", "Host", "Content-Length", "a b", "a\r\nb", "x_road_id"} {
		if err := u.nodes["BH"].Local().PutBackend(t.Context(), Backend{Service: offered("BH", "things"), Address: srv.URL, KeyHeader: name}); fault.CodeOf(err) != fault.BadRequest {
			t.Errorf("%q was taken for a key's header: %v", name, err)
		}
	}
}

// TestHangUp: a client that hangs up leaves nothing half-done, wherever its
// call is.
func TestHangUp(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	at := make(chan context.CancelFunc, 1)
	var answered atomic.Int32
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		(<-at)() // the client goes
		select {
		case <-r.Context().Done():
			t.Error("the service was cut off")
		case <-time.After(50 * time.Millisecond):
		}
		_, _ = io.WriteString(w, "done")
	})
	big := bytes.Repeat([]byte("x"), 200<<10)
	u.backend("BH", "fleeting", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(big)*20))
		for range 20 {
			_, _ = w.Write(big)
		}
		answered.Add(1)
	})
	for i, body := range [][]byte{nil, []byte("small"), big} {
		id := fmt.Sprintf("gone-%d", i)
		ctx, cancel := context.WithCancel(t.Context())
		at <- cancel
		req, err := http.NewRequestWithContext(ctx, "POST", u.nodes["SA"].edge.URL+"/r1/"+offered("BH", "things").String(), bytes.NewReader(body))
		check(t, err)
		req.Header.Set("X-Road-Client", desk("SA").String())
		req.Header.Set("Falaj-Purpose", "test")
		req.Header.Set("X-Road-Id", id)
		if res, err := (&http.Transport{DisableCompression: true}).RoundTrip(req); err == nil {
			t.Errorf("an answer: %d", res.StatusCode)
		}
		u.soon("both nodes have written it down", func() bool {
			return u.nodes["SA"].held(t, id) == "request sent, unanswered" && u.nodes["BH"].held(t, id) == "request received, answer sent"
		})
		// What happened is told to the client that comes back.
		if a := u.call("SA", "POST", offered("BH", "things"), "", bytes.NewReader(body), "X-Road-Id: "+id); a.status != 200 || string(a.body) != "done" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	// A client that reads half of a large answer of which only the digest is kept.
	c, err := net.Dial("tcp", u.nodes["SA"].edge.Listener.Addr().String())
	check(t, err)
	_, err = io.WriteString(c, "GET /r1/BH/GOV/office/desk/fleeting HTTP/1.1\r\n"+rawHead+"X-Road-Id: half\r\n\r\n")
	check(t, err)
	_, err = io.ReadFull(c, make([]byte, 1000))
	check(t, err)
	c.Close()
	u.sound(t)
	if list, err := u.nodes["BH"].Outcomes(t.Context(), 10); err != nil || len(list) != 0 || answered.Load() != 1 {
		t.Errorf("%v %v, %d", list, err, answered.Load())
	}
}
