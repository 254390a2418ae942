package exchange

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// attack is a request as a hostile node sends it to another state's node.
type attack struct {
	from union.State      // whose link brings it
	r    *message.Request // its head before it is sealed
	body []byte
	by   Credential
	at   time.Time

	head   func([]byte) []byte // changes the head before it is sealed
	after  func([]byte) []byte // changes the envelope after
	sent   []byte              // the body that travels, if not body
	resize int64               // what the link says of its size beyond the truth
}

func (k *attack) message(t testing.TB) *link.Message {
	t.Helper()
	if k.r.Body == nil && len(k.body) > 0 {
		k.r.Body = sum(k.body)
	}
	head, err := json.Marshal(k.r) // as Encode would, but for what Encode refuses
	check(t, err)
	if h, err := k.r.Encode(); err == nil {
		head = h
	}
	if k.head != nil {
		head = k.head(head)
	}
	env := enclose(t, k.by, head, k.r.Body, k.at)
	if k.after != nil {
		env = k.after(env)
	}
	b := k.body
	if k.sent != nil {
		b = k.sent
	}
	return &link.Message{Envelope: env, Body: io.NopCloser(bytes.NewReader(b)), Size: int64(len(b)) + k.resize}
}

func swap(old, with string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(with), 1) }
}

// TestHostileRequests sends a provider's node what a hostile one may send over
// a link of its own. None of it reaches the service. What is not authentic
// leaves no record and is counted; what is, is refused under seal.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA", "AE"})
	var calls atomic.Int64
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { calls.Add(1) })
	things, bh := offered("BH", "things"), u.nodes["BH"]
	sa, ae := u.nodes["SA"].seals[desk("SA").MemberID], u.nodes["AE"].seals[desk("AE").MemberID]
	colleague := u.enlist("SA", "other", *u.nodes["SA"].issuer)
	old := *u.nodes["SA"].issuer
	old.Now = func() time.Time { return time.Now().Add(-2 * 365 * 24 * time.Hour) }
	expired := u.enlist("SA", "late", old)
	tlsKey, err := u.nodes["SA"].keys.Signer("tls")
	check(t, err)

	self := otherKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Office"}, NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{}, self.Public(), self)
	check(t, err)
	unknown, err := x509.ParseCertificate(der)
	check(t, err)

	var answered []byte // an authentic answer of BH to SA
	u.nodes["SA"].through(t, func(m *link.Message, err error) (*link.Message, error) {
		if err == nil {
			answered = m.Envelope
		}
		return m, err
	})
	if a := u.call("SA", "GET", things, "/", nil); a.status != 200 || calls.Swap(0) != 1 {
		t.Fatalf("%d %s", a.status, a.body)
	}

	long := bytes.Repeat([]byte("x"), 200<<10)
	for name, c := range map[string]struct {
		change func(*attack)
		code   fault.Code
		sealed bool // refused under seal, and journalled
	}{
		"sealed by another member of the state":   {func(k *attack) { k.by = colleague }, fault.MessageMismatch, false},
		"sealed by a member of another state":     {func(k *attack) { k.by = ae }, fault.MessageMismatch, false},
		"sealed by nobody of the union":           {func(k *attack) { k.by = Credential{self, unknown} }, fault.CertUnknown, false},
		"sealed with the node's TLS certificate":  {func(k *attack) { k.by = Credential{tlsKey, u.nodes["SA"].tls} }, fault.SealInvalid, false},
		"sealed with a certificate that ended":    {func(k *attack) { k.by, k.r.Client = expired, under(k.r.Client, "late") }, fault.CertExpired, false},
		"sealed before the certificate begins":    {func(k *attack) { k.at = time.Now().Add(-time.Hour) }, fault.SealNotYetValid, false},
		"sealed in the future":                    {func(k *attack) { k.at = time.Now().Add(time.Hour) }, fault.SealNotYetValid, false},
		"a clock that is an hour ahead":           {func(k *attack) { k.shift(time.Hour) }, fault.SealNotYetValid, false},
		"a clock that is an hour behind":          {func(k *attack) { k.shift(-time.Hour) }, fault.SealExpired, false},
		"of AE, brought by a node of SA":          {func(k *attack) { k.by, k.r.Client = ae, desk("AE") }, fault.MessageMismatch, false},
		"of SA, brought by a node of AE":          {func(k *attack) { k.from = "AE" }, fault.MessageMismatch, false},
		"for a service of AE":                     {func(k *attack) { k.r.Service = offered("AE", "things") }, fault.MessageMismatch, false},
		"for another union":                       {func(k *attack) { k.r.Union = "other" }, fault.MessageMismatch, false},
		"a head changed after it was sealed":      {func(k *attack) { k.after = swap(`"path":"/x"`, `"path":"/y"`) }, fault.SealInvalid, false},
		"a client changed after it was sealed":    {func(k *attack) { k.after = swap(`office/desk","service`, `offize/desk","service`) }, fault.MessageMismatch, false},
		"the seal's last byte changed":            {func(k *attack) { k.after = func(b []byte) []byte { b[len(b)-1] ^= 1; return b } }, fault.SealInvalid, false},
		"the seal's time changed":                 {func(k *attack) { k.after = func(b []byte) []byte { b[4+headLen(b)+8] ^= 1; return b } }, fault.SealInvalid, false},
		"a seal cut short":                        {func(k *attack) { k.after = func(b []byte) []byte { return b[:len(b)-9] } }, fault.SealInvalid, false},
		"bytes behind the seal":                   {func(k *attack) { k.after = func(b []byte) []byte { return append(b, 0) } }, fault.SealInvalid, false},
		"no seal":                                 {func(k *attack) { k.after = func(b []byte) []byte { return b[:4+headLen(b)] } }, fault.MessageMalformed, false},
		"no envelope":                             {func(k *attack) { k.after = func(b []byte) []byte { return b[:3] } }, fault.MessageMalformed, false},
		"a head said to be longer than all":       {func(k *attack) { k.after = func(b []byte) []byte { b[0] = 0x7f; return b } }, fault.MessageMalformed, false},
		"an answer shown as a request":            {func(k *attack) { k.after = func([]byte) []byte { return answered } }, fault.MessageMalformed, false},
		"an answer's label on a request":          {func(k *attack) { k.r.Type = message.TypeAnswer }, fault.MessageMalformed, false},
		"a key that stands twice":                 {func(k *attack) { k.head = swap(`"purpose"`, `"id":"z","purpose"`) }, fault.MessageMalformed, false},
		"a field that is not known":               {func(k *attack) { k.head = swap(`"purpose"`, `"admin":true,"purpose"`) }, fault.MessageMalformed, false},
		"a key in capitals":                       {func(k *attack) { k.head = swap(`"purpose"`, `"Purpose"`) }, fault.MessageMalformed, false},
		"a header that nodes write":               {func(k *attack) { k.header("x-road-client", "SA/GOV/evil/desk") }, fault.MessageMalformed, false},
		"one that a backend may read as such":     {func(k *attack) { k.header("x_road_client", "SA/GOV/evil/desk") }, fault.MessageMalformed, false},
		"a header of falaj":                       {func(k *attack) { k.header("falaj-subject", "123") }, fault.MessageMalformed, false},
		"a header of the connection":              {func(k *attack) { k.header("transfer-encoding", "chunked") }, fault.MessageMalformed, false},
		"a line break in a header":                {func(k *attack) { k.header("x-a", "b\r\nx-road-client: c") }, fault.MessageMalformed, false},
		"a line break in a header's name":         {func(k *attack) { k.header("x-a\r\nx-b", "c") }, fault.MessageMalformed, false},
		"a method of two lines":                   {func(k *attack) { k.r.Method = "GET / HTTP/1.1\r\nX:" }, fault.MessageMalformed, false},
		"a space in the path":                     {func(k *attack) { k.r.Path = "/x HTTP/1.1" }, fault.MessageMalformed, false},
		"a way out of the path":                   {func(k *attack) { k.r.Path = "/x/..%2f..%2fadmin" }, fault.BadPath, false},
		"a path to another host":                  {func(k *attack) { k.r.Path = "//evil.example/x" }, fault.BadPath, false},
		"a validity of a year":                    {func(k *attack) { k.r.NotAfter += 365 * 24 * time.Hour.Milliseconds() }, fault.MessageMalformed, false},
		"a body changed":                          {func(k *attack) { k.sent = []byte("B0DY") }, fault.MessageMismatch, false},
		"a large body changed":                    {func(k *attack) { k.body, k.sent = long, append(long[:len(long)-1:len(long)-1], 'y') }, fault.MessageMismatch, false},
		"a body cut short":                        {func(k *attack) { k.sent = []byte("bod") }, fault.BodyTruncated, false},
		"a large body cut short":                  {func(k *attack) { k.body, k.sent = long, long[:150<<10] }, fault.BodyTruncated, false},
		"a body where none was sealed":            {func(k *attack) { k.body, k.sent = nil, []byte("x") }, fault.BodyTruncated, false},
		"a body that was sealed and is not there": {func(k *attack) { k.sent = []byte{} }, fault.BodyTruncated, false},
		"an unknown service":                      {func(k *attack) { k.r.Service = offered("BH", "nothing") }, fault.UnknownService, true},
		"an unknown purpose":                      {func(k *attack) { k.r.Purpose = "fun" }, fault.UnknownPurpose, true},
		"a purpose that no agreement allows":      {func(k *attack) { k.r.Purpose = "other" }, fault.PolicyDenied, true},
		"a service that was not granted":          {func(k *attack) { k.r.Service = offered("BH", "closed") }, fault.PolicyDenied, true},
		"a subsystem without an agreement":        {func(k *attack) { k.r.Client.Subsystem = "ghost" }, fault.UnknownClient, true},
		"the member in its subsystem's place":     {func(k *attack) { k.r.Client.Subsystem = "" }, fault.PolicyDenied, true},
		"another member under its own seal":       {func(k *attack) { k.by, k.r.Client = colleague, under(k.r.Client, "other") }, fault.PolicyDenied, true},
		"a service that nothing stands behind":    {func(k *attack) { k.r.Service = offered("BH", "idem") }, fault.ServiceDisabled, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := &attack{from: "SA", r: u.request("SA", things), body: []byte("body"), by: sa, at: time.Now()}
			id, before := k.r.ID, bh.size(t)
			c.change(k)
			bh.forget()
			a, b, err := u.deliver(k.from, "BH", k.message(t))
			if !c.sealed {
				if fault.CodeOf(err) != c.code || !errors.Is(err, link.ErrRefused) && !errors.Is(err, link.ErrNotSent) && !errors.Is(err, link.ErrBroken) {
					t.Errorf("%v %s: %v, wanted %s", a, b, err, c.code)
				}
				if n := bh.size(t); n != before {
					t.Errorf("%d records were left: %s", n-before, bh.held(t, id))
				}
				if !strings.HasSuffix(name, "is not there") && !strings.HasSuffix(name, "cut short") || c.code != fault.BodyTruncated {
					bh.observed(t, c.code)
				}
			} else {
				if err != nil || a.Fault != string(c.code) || a.ID != id {
					t.Fatalf("%+v %s %v, wanted %s", a, b, err, c.code)
				}
				var e xroadError
				if err := json.Unmarshal(b, &e); err != nil || e.Code != string(c.code) || e.Message == "" || e.MessageAr == "" || !uuidForm.MatchString(e.Detail) {
					t.Errorf("%s %v", b, err)
				}
				if got := bh.held(t, id); got != "request received, answer sent" {
					t.Errorf("records: %s", got)
				}
				bh.observed(t, c.code)
			}
		})
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the service was called %d times", n)
	}
	if n := bh.claims(t, sideProvider, claimUnknown); n != 0 {
		t.Errorf("%d outcomes are unknown", n)
	}
	u.sound(t)
}

func headLen(envelope []byte) int { return int(binary.BigEndian.Uint32(envelope)) }

func under(s union.SubsystemID, member string) union.SubsystemID {
	s.Code = member
	return s
}

func (k *attack) shift(d time.Duration) {
	k.r.NotBefore += d.Milliseconds()
	k.r.NotAfter += d.Milliseconds()
}

func (k *attack) header(name, value string) {
	k.r.Headers = append(k.r.Headers, message.Header{Name: name, Value: value})
}

// TestReplay sends a sealed request again: the same state's node gets what it
// had got, without a second call of the service; nobody else gets anything.
func TestReplay(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA", "AE"})
	var calls atomic.Int64
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.WriteString(w, "secret")
	})
	k := &attack{r: u.request("SA", offered("BH", "things")), body: []byte("body"), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
	envelope := k.message(t).Envelope
	send := func(from union.State) (*message.Answer, []byte, error) {
		return u.deliver(from, "BH", link.NewMessage(envelope, k.body))
	}
	first, b, err := send("SA")
	if err != nil || string(b) != "secret" {
		t.Fatal(string(b), err)
	}
	again, b, err := send("SA")
	if err != nil || string(b) != "secret" || again.Request != first.Request || again.RequestID != first.RequestID {
		t.Errorf("%+v %s %v", again, b, err)
	}
	if _, b, err := send("AE"); fault.CodeOf(err) != fault.MessageMismatch {
		t.Errorf("a third state got %s %v", b, err)
	}
	// The same id in another request of the same client is no replay.
	other := *k.r
	other.RequestID, other.Path = uuid.NewString(), "/y"
	k.r = &other
	if a, _, err := u.deliver("SA", "BH", k.message(t)); err != nil || a.Fault != string(fault.IDConflict) {
		t.Errorf("%+v %v", a, err)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("the service was called %d times", n)
	}
	u.sound(t)
}

// TestRevokedOnALiveLink revokes certificates between two messages on one
// connection: the next message is refused already.
func TestRevokedOnALiveLink(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cert func(n *testNode) [32]byte
		call bool // also a client's call shows it
	}{
		"the member's seal": {func(n *testNode) [32]byte { return sha256.Sum256(n.seals[desk("SA").MemberID].Cert.Raw) }, true},
		"the node's TLS":    {func(n *testNode) [32]byte { return sha256.Sum256(n.tls.Raw) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUnion(t, []union.State{"BH", "SA"})
			var calls atomic.Int64
			u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { calls.Add(1) })
			if a := u.call("SA", "GET", offered("BH", "things"), "/", nil); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			check(t, u.nodes["SA"].dir.Revoke(t.Context(), c.cert(u.nodes["SA"]), "keyCompromise"))
			u.refresh()
			bh := u.nodes["BH"]
			bh.forget()
			k := &attack{r: u.request("SA", offered("BH", "things")), by: u.nodes["SA"].seals[desk("SA").MemberID], at: time.Now()}
			if _, _, err := u.deliver("SA", "BH", k.message(t)); fault.CodeOf(err) != fault.CertRevoked {
				t.Errorf("the next message: %v", err)
			}
			bh.observed(t, fault.CertRevoked)
			if b, err := u.nodes["SA"].link.Query(t.Context(), u.target("BH"), evidenceKind, []byte(`{"id":"x"}`)); !c.call && fault.CodeOf(err) != fault.CertRevoked {
				t.Errorf("a question: %s %v", b, err)
			}
			if a := u.call("SA", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: after"); a.fault(t).Code != string(fault.CertRevoked) {
				t.Errorf("a call: %d %s", a.status, a.body)
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("the service was called %d times", n)
			}
			if got := bh.held(t, "after"); got != "" {
				t.Errorf("the provider's node holds %s", got)
			}
			u.sound(t)
		})
	}
}
