package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// maxSocket is the longest path of a Unix socket, in bytes (Linux: 108 with
// the closing zero).
const maxSocket = 107

// problems collects what is wrong, each with the key that a person can look
// for in his file.
type problems []string

func (p *problems) add(key, format string, args ...any) {
	*p = append(*p, key+": "+fmt.Sprintf(format, args...))
}

func (c *Config) check() []string {
	var p problems
	if c.State == "" {
		p.add("state", "is missing; give the state's two letters (state: BH)")
	} else if _, err := union.ParseState(string(c.State)); err != nil {
		p.add("state", "%v", err)
	}
	c.checkDoors(&p)
	c.checkAdmin(&p)
	c.checkLimits(&p)
	c.checkSystems(&p)
	if c.Directory.Refresh < 100*time.Millisecond {
		p.add("directory.refresh", "%v is less than 100ms", c.Directory.Refresh)
	}
	for i, s := range c.Directory.Sources {
		if u, err := url.Parse(s); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			p.add(fmt.Sprintf("directory.sources[%d]", i), "%q is not an http(s) address", clip(s))
		}
	}
	if a := c.Stamp.Accuracy; a < 10*time.Millisecond || a > time.Minute || a%time.Millisecond != 0 {
		p.add("stamp.accuracy", "%v is not whole milliseconds between 10ms and 1m", a)
	}
	if r := c.Stamp.Renew; r < 24*time.Hour || r > 500*24*time.Hour {
		p.add("stamp.renew", "%v is not between 24h and 12000h", r) // an authority's next certificate is there when 608 days of the last are left
	}
	for i, a := range c.Stamp.Authorities {
		key := fmt.Sprintf("stamp.authorities[%d]", i)
		if u, err := url.Parse(a.Address); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
			p.add(key, "address is not an http(s) address without user and password")
		}
		if a.Anchor == "" {
			p.add(key, "anchor is missing: the certificate that the authority's own leads to")
		}
	}
	if v := c.Seal.Verify; v != Standard && v != Table {
		p.add("seal.verify", "%q is neither standard nor table", clip(string(v)))
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		p.add("log.level", "%q is none of debug, info, warn, error", clip(c.Log.Level))
	}
	if !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		p.add("log.format", "%q is none of text, json", clip(c.Log.Format))
	}
	return p
}

func (c *Config) checkDoors(p *problems) {
	door := func(key, addr string, closable bool) (netip.AddrPort, bool) {
		if addr == "off" || addr == "" {
			if !closable {
				p.add(key, "is missing")
			}
			return netip.AddrPort{}, false
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			p.add(key, "%q is not host:port", clip(addr))
			return netip.AddrPort{}, false
		}
		if _, err := net.LookupPort("tcp", port); err != nil {
			p.add(key, "%q has no valid port", clip(addr))
		}
		ip, err := netip.ParseAddr(host)
		if host == "localhost" {
			ip, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
		}
		return netip.AddrPortFrom(ip, 0), err == nil
	}
	if at, ok := door("r1.http", c.R1.HTTP, true); !c.R1.RemoteHTTP && c.R1.HTTP != "off" && c.R1.HTTP != "" && !(ok && at.Addr().IsLoopback()) {
		p.add("r1.http", "%q is not loopback, and plain HTTP is readable on the way; use r1.https, or say r1.remote_http: true", clip(c.R1.HTTP))
	}
	door("r1.https", c.R1.HTTPS, true)
	door("link.listen", c.Link.Listen, false)
	if c.Link.Advertise != c.Link.Listen { // it follows that where it is not given
		door("link.advertise", c.Link.Advertise, false)
	}
	door("admin.https", c.Admin.HTTPS, true)
	door("operations.listen", c.Operations.Listen, true)
	door("public.listen", c.Public.Listen, true)
	if (c.R1.Certificate == "") != (c.R1.Key == "") {
		p.add("r1.certificate", "goes with r1.key; give both or neither")
	}
	if len(c.Admin.Socket) > maxSocket {
		p.add("admin.socket", "%d bytes are longer than a Unix socket's path may be (%d); name a shorter one", len(c.Admin.Socket), maxSocket)
	}
}

func (c *Config) checkAdmin(p *problems) {
	switch c.Admin.SecondPerson {
	case Required:
	case Waived:
		if !c.Demonstration {
			p.add("admin.second_person", "only a demonstration may waive the second person")
		}
	default:
		p.add("admin.second_person", "%q is neither required nor waived", clip(string(c.Admin.SecondPerson)))
	}
	if c.Admin.Expiry < time.Minute || c.Admin.Expiry > 30*24*time.Hour {
		p.add("admin.approval_expiry", "%v is not between a minute and thirty days", c.Admin.Expiry)
	}
	if c.Admin.HTTPS != "" && !slices.ContainsFunc(c.Admin.Persons, func(x Person) bool { return len(x.Certificates) > 0 }) {
		p.add("admin.https", "is open, yet no person has a certificate; list them under admin.persons")
	}
	seen := map[string]string{}
	claim := func(key, what, value string) {
		if first, ok := seen[what+value]; ok {
			p.add(key, "%s %q already names the person at %s", what, clip(value), first)
			return
		}
		seen[what+value] = key
	}
	for i, x := range c.Admin.Persons {
		key := fmt.Sprintf("admin.persons[%d]", i)
		if strings.TrimSpace(x.Name) == "" || len(x.Name) > 128 {
			p.add(key, "needs a name of at most 128 bytes")
		}
		if x.OSUser == "" && len(x.Certificates) == 0 {
			p.add(key, "can never be recognised; give os_user or certificates")
		}
		if len(x.Roles) == 0 {
			p.add(key, "has no role; the roles are %s", List(Roles()))
		}
		for _, r := range x.Roles {
			if !slices.Contains(Roles(), r) {
				p.add(key, "role %q is none of %s", clip(string(r)), List(Roles()))
			}
		}
		claim(key, "name", x.Name)
		if x.OSUser != "" {
			claim(key, "os_user", x.OSUser)
		}
		for _, d := range x.Certificates {
			b, _ := d.MarshalText()
			claim(key, "certificate", string(b))
		}
	}
}

func (c *Config) checkLimits(p *problems) {
	between := func(key string, v, least, most int64) {
		if v < least || v > most {
			p.add(key, "%d is not between %d and %d", v, least, most)
		}
	}
	l := c.Limits
	between("limits.headers", int64(l.Headers), 4<<10, 1<<20)
	between("limits.body", int64(l.Body), 1<<10, 1<<40)
	between("limits.inline", int64(l.Inline), 0, 1<<20)
	between("limits.connections", int64(l.Connections), 1, 1<<20)
	between("limits.requests", int64(l.Requests), 1, 1<<20)
	between("limits.client_requests", int64(l.ClientRequests), 0, 1<<20)
	between("limits.client_burst", int64(l.ClientBurst), 1, 1<<20)
	if !(l.ClientRate > 0) {
		p.add("limits.client_rate", "%v is not above zero", l.ClientRate)
	}
	for _, x := range []struct {
		key string
		d   time.Duration
	}{{"header_time", l.HeaderTime}, {"idle_time", l.IdleTime}, {"call_time", l.CallTime}} {
		if x.d < 100*time.Millisecond || x.d > 24*time.Hour {
			p.add("limits."+x.key, "%v is not between 100ms and 24h", x.d)
		}
	}
	if d := c.Operations.Drain; d < 0 || d > time.Hour {
		p.add("operations.drain", "%v is not between 0 and 1h", d)
	}
	names := map[string]bool{}
	for i, r := range c.Retention {
		key := fmt.Sprintf("retention[%d]", i)
		if r.Name == "" || len(r.Name) > 64 || names[r.Name] {
			p.add(key, "needs a name of its own, of at most 64 bytes")
		}
		names[r.Name] = true
		if r.KeepDays < 1 || r.KeepDays > 36500 {
			p.add(key, "keep_days %d is not between 1 and 36500", r.KeepDays)
		}
	}
	for _, must := range []struct{ class, use string }{{"exchange", "calls without a class of their own"}, {"admin", "changes at the admin door"}} {
		if !names[must.class] {
			p.add("retention", "the class %q is missing: it is for %s", must.class, must.use)
		}
	}
}

func (c *Config) checkSystems(p *problems) {
	for i, x := range c.Clients {
		key := fmt.Sprintf("clients[%d]", i)
		if x.ID.State != c.State {
			p.add(key, "%s is not a system of %s", x.ID, c.State)
		}
		switch {
		case x.Mode != HTTP && x.Mode != HTTPS && x.Mode != Mutual:
			p.add(key, "mode %q is none of http, https, mutual", clip(string(x.Mode)))
		case (x.Mode == Mutual) != (len(x.Certificates) > 0):
			p.add(key, "mode mutual and certificates go together")
		}
	}
	for i, x := range c.Services {
		key := fmt.Sprintf("services[%d]", i)
		if x.ID.State != c.State {
			p.add(key, "%s is not a service of %s", x.ID, c.State)
		}
		if u, err := url.Parse(x.Address); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
			p.add(key, "address is not an http(s) base address without user and password")
		}
	}
}
