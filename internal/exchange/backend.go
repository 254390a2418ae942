package exchange

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// invoke calls what stands behind the service. A failure of the backend is not
// a failure of this stage: it becomes a sealed answer with what is known of
// its effect.
func (x *Exchange) invoke(ctx context.Context, c *serving) error {
	if c.earlier != nil {
		return nil
	}
	limit := x.cfg.CallTime
	if t := c.offer.Timeout(); t > 0 {
		limit = t
	}
	// A caller that hangs up stops nothing: what the service does is recorded,
	// and found by whoever sends the id again.
	ctx, cancel := context.WithTimeout(link.Outlive(ctx), limit)
	defer cancel()
	c.out = x.deps.Now()
	defer func() {
		if r := recover(); r != nil {
			c.result, c.effect = &result{fault: x.panicked(c.request.Service, r)}, x.unclear(c, effectUnknown)
		}
	}()
	if reserved(c.request.Service.Service) {
		c.result, c.effect = x.meta(ctx, c), effectDone
		return nil
	}
	res, became, err := x.callBackend(ctx, c)
	c.back = x.deps.Now()
	if err != nil {
		res, became = &result{fault: fault.From(err)}, x.unclear(c, became)
	}
	c.result, c.effect = res, became
	return nil
}

// unclear is what an effect that may or may not have happened is for a call:
// nothing where it may be asked again.
func (x *Exchange) unclear(c *serving, became effect) effect {
	if became == effectUnknown && x.repeatable(c) {
		return effectNone
	}
	return became
}

// panicked logs that something broke in the middle of a call: what the service
// did by then nobody knows.
func (x *Exchange) panicked(service union.ServiceID, r any) *fault.Error {
	f := fault.New(fault.Internal, "")
	what := fmt.Sprintf("%T", r) // a value could hold personal data
	if e, ok := r.(runtime.Error); ok {
		what = e.Error()
	}
	x.deps.Log.Error("a call panicked", "service", service.String(), "panic", what, "support", f.ID, "stack", string(debug.Stack()))
	return f
}

// callBackend sends the request on and takes the whole answer.
func (x *Exchange) callBackend(ctx context.Context, c *serving) (*result, effect, error) {
	r := c.request
	if x.isInside(r.Service.SubsystemID) {
		return x.callInside(ctx, c)
	}
	b, ok := x.local.Backend(r.Service)
	if !ok {
		return nil, effectNone, fault.New(fault.ServiceDisabled, "no backend is registered for %s", r.Service)
	}
	transport, err := x.backends.transport(x, b)
	if err != nil {
		return nil, effectNone, err
	}
	base, err := backendURL(b.Address)
	if err != nil {
		return nil, effectNone, err
	}
	// The path goes on byte for byte: Opaque is written as it is.
	target := &url.URL{Scheme: base.Scheme, Host: base.Host, Opaque: join(base.EscapedPath(), r.Path)}
	req := (&http.Request{
		Method: r.Method, URL: target, Host: base.Host, Header: http.Header{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: c.body.size,
	})
	for _, h := range r.Headers {
		if b.KeyHeader != "" && message.Shape(h.Name) == message.Shape(b.KeyHeader) {
			continue // the key is ours to choose
		}
		name := http.CanonicalHeaderKey(h.Name)
		if name == "Idempotency-Key" || name == "X-Idempotency-Key" {
			// Under these very names net/http would send a request again by
			// itself; in small letters they are the same to any backend.
			name = h.Name
		}
		req.Header[name] = append(req.Header[name], h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = []string{""} // none of ours either
	}
	req.Header["X-Road-Client"] = []string{r.Client.String()}
	req.Header["X-Road-Service"] = []string{r.Service.String()}
	req.Header["X-Road-Id"] = []string{r.ID}
	req.Header["X-Road-Request-Id"] = []string{r.RequestID}
	req.Header[headerPurpose] = []string{r.Purpose}
	if r.Conversation != "" {
		req.Header[headerConversation] = []string{r.Conversation}
	}
	if b.KeyHeader != "" {
		req.Header[http.CanonicalHeaderKey(b.KeyHeader)] = []string{r.ID}
	}

	res, became, err := x.roundTrip(ctx, transport, req, c.body)
	if err != nil {
		return nil, became, backendFault(ctx, err)
	}
	defer res.Body.Close()
	out := &result{status: res.StatusCode}
	if out.status < 200 || out.status > 599 {
		return nil, effectUnknown, fault.New(fault.BackendFailed, "the service answered with status %d", out.status)
	}
	if out.headers, err = passed(res.Header); err != nil {
		return nil, effectUnknown, fault.Wrap(fault.BackendFailed, err, "the service's answer: %s", fault.From(err).Detail)
	}
	name, err := one(res.Header, headerSubject)
	if err != nil {
		return nil, effectUnknown, fault.Wrap(fault.BackendFailed, err, "the service's answer: %s", fault.From(err).Detail)
	}
	out.subject = x.person(name)
	size := res.ContentLength
	if r.Method == http.MethodHead || out.status == http.StatusNoContent || out.status == http.StatusNotModified {
		size = 0
	}
	if out.body, err = x.take(res.Body, size, class(c.offer), false); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, effectUnknown, backendFault(ctx, err)
	}
	return out, effectDone, nil
}

// roundTrip sends a request and waits for the answer's head. Nothing can have
// happened as long as not one byte of the request was handed to a connection:
// so it takes another one where the service has just closed the one that was
// kept open from an earlier call.
func (x *Exchange) roundTrip(ctx context.Context, transport *http.Transport, req *http.Request, b *body) (*http.Response, effect, error) {
	for {
		in, err := x.open(b)
		if err != nil {
			return nil, effectNone, err
		}
		if req.Body = in; in == nil {
			req.Body = http.NoBody
		}
		var used tried
		res, err := transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: used.got})))
		switch {
		case err == nil:
			return res, effectDone, nil
		case used.wrote():
			return nil, effectUnknown, err
		case !used.reused || ctx.Err() != nil:
			return nil, effectNone, err
		}
	}
}

// tried is what became of the connections that a request was given.
type tried struct {
	conn   *counted // the last of them
	before int64
	reused bool // it has served before
	sent   bool // one before it took a byte of the request
}

func (t *tried) got(g httptrace.GotConnInfo) {
	t.sent = t.wrote()
	t.conn, t.reused = g.Conn.(*counted), g.Reused
	t.before = t.conn.wrote.Load()
}

// wrote tells whether any connection took a byte of the request.
func (t *tried) wrote() bool {
	return t.sent || t.conn != nil && t.conn.wrote.Load() != t.before
}

// counted is a connection to a backend that counts what it was given to send,
// TLS aside.
type counted struct {
	net.Conn
	wrote atomic.Int64
}

func (w *counted) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.wrote.Add(int64(n))
	return n, err
}

// join puts a call's path behind a backend's base path.
func join(base, path string) string {
	for len(base) > 0 && base[len(base)-1] == '/' {
		base = base[:len(base)-1]
	}
	if path == "" || path[0] == '?' {
		if base == "" {
			base = "/"
		}
		return base + path
	}
	return base + path
}

// backendFault says what went wrong behind the node, without the backend's address.
func backendFault(ctx context.Context, err error) error {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		switch f.Code {
		case fault.BodyTruncated:
			return fault.Wrap(fault.BackendFailed, err, "the service's answer broke off")
		case fault.TooLarge:
			return fault.Wrap(fault.BackendFailed, err, "the service's answer: %s", f.Detail)
		}
		return f
	case errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
		return fault.Wrap(fault.BackendTimeout, err, "the service did not answer in time")
	}
	return fault.Wrap(fault.BackendFailed, err, "the service could not be reached or broke off")
}

// backends keeps one transport for each set of authorities.
type backends struct {
	mu   sync.Mutex
	kept map[string]*http.Transport
}

func (k *backends) transport(x *Exchange, b Backend) (*http.Transport, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t, ok := k.kept[b.RootsPEM]; ok {
		return t, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if b.RootsPEM != "" {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(b.RootsPEM)) {
			return nil, fault.New(fault.BadRequest, "the authorities of the backend are no PEM certificates")
		}
	}
	dial := (&net.Dialer{Timeout: 5 * time.Second, Control: x.guard}).DialContext
	if x.deps.Dial != nil {
		dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if err := x.guard(network, address, nil); err != nil {
				return nil, err
			}
			return x.deps.Dial(ctx, network, address)
		}
	}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return count(dial(ctx, network, address))
		},
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return count(secured(ctx, dial, conf, network, address))
		},
		// Many servers close what is idle for five seconds: whoever is late by a
		// hair sends into a closing connection, and cannot know what became of it.
		IdleConnTimeout:    4 * time.Second,
		DisableCompression: true, MaxIdleConnsPerHost: 256, MaxIdleConns: 1024,
		MaxResponseHeaderBytes: message.MaxHead, ReadBufferSize: 8 << 10, WriteBufferSize: 8 << 10,
	}
	if k.kept == nil {
		k.kept = map[string]*http.Transport{}
	}
	k.kept[b.RootsPEM] = t
	return t, nil
}

// secured dials with TLS.
func secured(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), conf *tls.Config, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	raw, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conf = conf.Clone()
	conf.ServerName = host
	c := tls.Client(raw, conf)
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

func count(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return &counted{Conn: c}, nil
}

// guard refuses addresses that no service may have, after the name was
// resolved and before a packet leaves: so a name that changes its address
// between check and use gains nothing.
func (x *Exchange) guard(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fault.Wrap(fault.BackendRefused, err, "an address that is not one")
	}
	return x.permitted(ap)
}

// Permit refuses the address of a service that this node would never call, for
// the person who enters it. A name that leads nowhere yet is no fault; each
// call asks again.
func (x *Exchange) Permit(ctx context.Context, address string) error {
	u, err := backendURL(address)
	if err != nil {
		return err
	}
	port := u.Port()
	if port == "" {
		port = u.Scheme
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return fault.New(fault.BadRequest, "the address of a service has no valid port")
	}
	ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	for _, ip := range ips {
		if err := x.permitted(netip.AddrPortFrom(ip, uint16(n))); err != nil {
			return err
		}
	}
	return nil
}

func (x *Exchange) permitted(ap netip.AddrPort) error {
	ip := ap.Addr().Unmap().WithZone("")
	for _, own := range x.cfg.Own {
		// A listener on all addresses is reached by any local one.
		if own.Port() == ap.Port() && (own.Addr().Unmap() == ip || own.Addr().IsUnspecified() && local(ip) || ip.IsUnspecified()) {
			return fault.New(fault.BackendRefused, "a service may not lie on one of the node's own doors")
		}
	}
	for _, p := range x.cfg.Allow {
		if p.Contains(ip) {
			return nil
		}
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || special(ip) {
		return fault.New(fault.BackendRefused, "loopback, private, link-local, special and metadata addresses are refused unless the configuration allows their network")
	}
	return nil
}

// special tells whether an address that looks like any other leads to this
// machine, its neighbours or its cloud's metadata (RFC 6890 and its registry).
func special(ip netip.Addr) bool {
	for _, p := range []string{
		"0.0.0.0/8",        // this network
		"100.64.0.0/10",    // carriers' (RFC 6598), and metadata in some clouds
		"168.63.129.16/32", // metadata in one cloud
		"192.0.0.0/24",     // protocols', and metadata in one cloud
		"198.18.0.0/15",    // benchmarks'
		"240.0.0.0/4",      // reserved, broadcast
		"::/96",            // IPv4 in IPv6, given up
		"64:ff9b::/96",     // IPv4 behind a translator
		"64:ff9b:1::/48",   // the same, local
		"2002::/16",        // IPv4 in a tunnel
		"fec0::/10",        // site-local, given up
	} {
		if netip.MustParsePrefix(p).Contains(ip) {
			return true
		}
	}
	return false
}

// local tells whether an address is one of this machine's.
func local(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true // when in doubt, it is ours
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip {
			return true
		}
	}
	return false
}
