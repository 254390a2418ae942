package exchange

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// forgery is an answer as a hostile provider's node may change it.
type forgery struct {
	a     *message.Answer
	body  []byte
	by    Credential
	at    time.Time
	after func([]byte) []byte // changes the envelope
	sent  []byte              // the body that travels, if not body
}

func forge(t testing.TB, m *link.Message, by Credential, change func(*forgery)) *link.Message {
	t.Helper()
	head, _, err := message.Open(m.Envelope)
	check(t, err)
	k := &forgery{by: by, at: time.Now()}
	k.a, err = message.ParseAnswer(head)
	check(t, err)
	if m.Body != nil {
		k.body, err = io.ReadAll(m.Body)
		check(t, err)
	}
	change(k)
	if k.a.Body != nil {
		k.a.Body = sum(k.body)
	}
	head, err = json.Marshal(k.a)
	check(t, err)
	if h, err := k.a.Encode(); err == nil {
		head = h
	}
	env := enclose(t, k.by, head, k.a.Body, k.at)
	if k.after != nil {
		env = k.after(env)
	}
	b := k.body
	if k.sent != nil {
		b = k.sent
	}
	return &link.Message{Envelope: env, Body: io.NopCloser(bytes.NewReader(b)), Size: int64(len(b))}
}

// TestHostileAnswers lets a provider's node answer with what the caller's node
// must not believe. The client gets a fault and no byte of the answer; the
// call stays in evidence as unanswered, sealed by the caller's own side.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA", "AE"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("secret"), 1+len(r.URL.Path)/5*20_000))
	})
	things, node := offered("BH", "things"), u.nodes["SA"]
	bh, ae, sa := u.nodes["BH"].seals[desk("BH").MemberID], u.nodes["AE"].seals[desk("AE").MemberID], node.seals[desk("SA").MemberID]
	colleague := u.enlist("BH", "other", *u.nodes["BH"].issuer)
	tlsKey, err := u.nodes["BH"].keys.Signer("tls")
	check(t, err)

	var before []byte // the answer to another request
	node.through(t, func(m *link.Message, err error) (*link.Message, error) {
		before = m.Envelope
		return m, err
	})
	if a := u.call("SA", "GET", things, "/", nil); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for name, c := range map[string]struct {
		path   string
		change func(*forgery)
		code   fault.Code
	}{
		"sealed by another member":             {"/", func(k *forgery) { k.by = colleague }, fault.MessageMismatch},
		"sealed by another state":              {"/", func(k *forgery) { k.by = ae }, fault.MessageMismatch},
		"sealed with our own seal":             {"/", func(k *forgery) { k.by = sa }, fault.MessageMismatch},
		"sealed with the TLS certificate":      {"/", func(k *forgery) { k.by = Credential{tlsKey, u.nodes["BH"].tls} }, fault.SealInvalid},
		"sealed in the future":                 {"/", func(k *forgery) { k.at = k.at.Add(time.Hour) }, fault.SealNotYetValid},
		"valid from an hour on":                {"/", func(k *forgery) { k.a.NotBefore += 3600_000; k.a.NotAfter += 3600_000 }, fault.SealNotYetValid},
		"valid until an hour ago":              {"/", func(k *forgery) { k.a.NotBefore -= 7200_000; k.a.NotAfter -= 7200_000 }, fault.SealExpired},
		"to another request":                   {"/", func(k *forgery) { k.after = func([]byte) []byte { return before } }, fault.MessageMismatch},
		"to another request of the same id":    {"/", func(k *forgery) { k.a.Request[0] ^= 1 }, fault.MessageMismatch},
		"to another try":                       {"/", func(k *forgery) { k.a.RequestID = "other" }, fault.MessageMismatch},
		"to another client":                    {"/", func(k *forgery) { k.a.Client = desk("AE") }, fault.MessageMismatch},
		"of another service":                   {"/", func(k *forgery) { k.a.Service.Service = "idem" }, fault.MessageMismatch},
		"of another union":                     {"/", func(k *forgery) { k.a.Union = "other" }, fault.MessageMismatch},
		"with another request hash":            {"/", func(k *forgery) { k.a.Hash = strings.Repeat("A", 86) + "==" }, fault.MessageMismatch},
		"without a request hash":               {"/", func(k *forgery) { k.a.Hash = "" }, fault.MessageMismatch},
		"a refusal of the caller's own node":   {"/", func(k *forgery) { k.a.Type, k.a.Fault, k.a.Status = message.TypeRefusal, "policy.denied", 500 }, fault.MessageMismatch},
		"a refusal as of AE":                   {"/", func(k *forgery) { k.a.Fault, k.a.Status, k.by = "policy.denied", 500, ae }, fault.MessageMismatch},
		"a fault that looks like success":      {"/", func(k *forgery) { k.a.Fault, k.by = "policy.denied", colleague }, fault.MessageMalformed},
		"a request in the answer's place":      {"/", func(k *forgery) { k.a.Type = message.TypeRequest }, fault.MessageMalformed},
		"changed after it was sealed":          {"/", func(k *forgery) { k.after = swap(`"status":200`, `"status":201`) }, fault.SealInvalid},
		"a seal cut short":                     {"/", func(k *forgery) { k.after = func(b []byte) []byte { return b[:len(b)-9] } }, fault.SealInvalid},
		"a key that stands twice":              {"/", func(k *forgery) { k.after = swap(`"status":200`, `"status":200,"status":200`) }, fault.MessageMalformed},
		"a header that nodes write":            {"/", func(k *forgery) { k.header("x-road-id", "forged") }, fault.MessageMalformed},
		"a header of the connection":           {"/", func(k *forgery) { k.header("content-length", "1") }, fault.MessageMalformed},
		"a line break in a header":             {"/", func(k *forgery) { k.header("x-a", "b\r\nset-cookie: c") }, fault.MessageMalformed},
		"status 999":                           {"/", func(k *forgery) { k.a.Status = 999 }, fault.MessageMalformed},
		"status 101":                           {"/", func(k *forgery) { k.a.Status = 101 }, fault.MessageMalformed},
		"a body with 204":                      {"/", func(k *forgery) { k.a.Status = 204 }, fault.MessageMalformed},
		"a body changed":                       {"/", func(k *forgery) { k.sent = []byte("forged") }, fault.MessageMismatch},
		"a body cut short":                     {"/", func(k *forgery) { k.sent = []byte("sec") }, fault.BodyTruncated},
		"no body":                              {"/", func(k *forgery) { k.sent = []byte{} }, fault.BodyTruncated},
		"a body where none was sealed":         {"/", func(k *forgery) { k.a.Body = nil }, fault.BodyTruncated},
		"a large body changed":                 {"/large", func(k *forgery) { k.sent = bytes.Repeat([]byte("S"), len(k.body)) }, fault.MessageMismatch},
		"a large body cut short":               {"/large", func(k *forgery) { k.sent = k.body[:len(k.body)-1] }, fault.BodyTruncated},
		"an envelope that is none":             {"/", func(k *forgery) { k.after = func(b []byte) []byte { return []byte("hello") } }, fault.MessageMalformed},
		"nothing at all":                       {"/", func(k *forgery) { k.after = func(b []byte) []byte { return nil } }, fault.MessageMalformed},
		"an envelope that says it is too long": {"/", func(k *forgery) { k.after = func(b []byte) []byte { b[0] = 0xff; return b } }, fault.MessageMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			node.through(t, func(m *link.Message, err error) (*link.Message, error) {
				check(t, err)
				return forge(t, m, bh, c.change), nil
			})
			id := "forged-" + strings.ReplaceAll(name, " ", "-")
			node.forget()
			a := u.call("SA", "GET", things, c.path, nil, "X-Road-Id: "+id)
			if e := a.fault(t); e.Code != string(c.code) || bytes.Contains(a.body, []byte("secret")) || a.header.Get("Set-Cookie") != "" {
				t.Errorf("%d %s, wanted %s", a.status, a.body, c.code)
			}
			node.observed(t, c.code)
			if got := node.held(t, id); got != "request sent, unanswered" {
				t.Errorf("records: %s", got)
			}
			head, _, err := message.Open(node.last(t, id).Envelope)
			check(t, err)
			said, err := message.ParseAnswer(head)
			if err != nil || said.Type != message.TypeRefusal || said.Fault != string(c.code) || said.Request == (message.Digest{}) {
				t.Errorf("the record says %s", head)
			}
		})
	}
	u.sound(t)
	// The provider did answer: asked again, it gives what it recorded.
	node.SetLink(node.link)
	if a := u.call("SA", "GET", things, "/", nil, "X-Road-Id: forged-no-body"); a.status != 200 || string(a.body) != "secret" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func (k *forgery) header(name, value string) {
	k.a.Headers = append(k.a.Headers, message.Header{Name: name, Value: value})
}

// TestAPeersFault shows that whatever code a peer answers with, the caller's
// own evidence is written: none of them is taken for a fault of its own store.
func TestAPeersFault(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	node := u.nodes["SA"]
	for _, code := range []fault.Code{fault.StoreFailed, fault.DiskFull, fault.Draining, fault.Overloaded, fault.Corrupt, fault.Internal, "a.code-of-the-future"} {
		t.Run(string(code), func(t *testing.T) {
			node.through(t, func(m *link.Message, err error) (*link.Message, error) {
				return nil, &fault.Error{Code: code, Detail: "theirs", Cause: link.ErrRefused} // as the link gives it
			})
			id := "theirs-" + string(code)
			a := u.call("SA", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: "+id)
			want := fault.Lookup(code).Code // of one that is not known here it is "internal"
			if e := a.fault(t); e.Code != string(want) {
				t.Errorf("%d %s", a.status, a.body)
			}
			if got := node.held(t, id); got != "request sent, unanswered" {
				t.Errorf("records: %s", got)
			}
		})
	}
}

// TestAnswersAreNotExchanged lets two calls run at a time and gives each the
// other's authentic answer.
func TestAnswersAreNotExchanged(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "secret of "+r.URL.Path) })
	meet := make(chan *link.Message)
	var turn atomic.Int32
	u.nodes["SA"].through(t, func(m *link.Message, err error) (*link.Message, error) {
		if turn.Add(1)%2 == 1 {
			meet <- m
			return <-meet, err
		}
		other := <-meet
		meet <- m
		return other, err
	})
	got := make(chan answer, 2)
	for _, path := range []string{"/a", "/b"} {
		go func() { got <- u.call("SA", "GET", offered("BH", "things"), path, nil) }()
	}
	for range 2 {
		if a := <-got; a.fault(t).Code != string(fault.MessageMismatch) || bytes.Contains(a.body, []byte("secret")) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	u.sound(t)
}

// TestRevokedWhileAnswering revokes the provider's seal while its answer is on
// the way: what arrives is judged by the directory of its arrival.
func TestRevokedWhileAnswering(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	bh := u.nodes["BH"]
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/revoke" {
			check(t, bh.dir.Revoke(t.Context(), directory.Cert{Certificate: bh.seals[desk("BH").MemberID].Cert}.SHA256(), "keyCompromise"))
			check(t, u.nodes["SA"].dir.Refresh(t.Context()))
		} else {
			t.Error("the service was asked under a seal that is void")
		}
		_, _ = io.WriteString(w, "secret")
	})
	a := u.call("SA", "POST", offered("BH", "things"), "/revoke", nil, "X-Road-Id: r-1")
	if a.fault(t).Code != string(fault.CertRevoked) || bytes.Contains(a.body, []byte("secret")) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := bh.held(t, "r-1"); got != "request received, answer sent" {
		t.Errorf("the provider holds %s", got)
	}
	// From now on it knows that nobody would believe its answers: it does not
	// even ask the service.
	if a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: r-2"); a.fault(t).Code == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := bh.held(t, "r-2"); got != "" && !strings.HasSuffix(got, "answer sent") {
		t.Errorf("the provider holds %s", got)
	}
	u.sound(t)
}
