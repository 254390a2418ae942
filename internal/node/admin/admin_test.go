package admin

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// counter is a real counter on a real socket and a real TLS door, over a real
// database. What it lacks of a node is the journal: records are kept in memory.
type counter struct {
	*Server
	socket, https string
	mu            sync.Mutex
	now           time.Time
	records       []Entry
	full          bool // the journal refuses
	made          []string
	log           strings.Builder // under mu
}

// Write takes what the counter logs.
func (c *counter) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.Write(b)
}

func (c *counter) logged() string { c.mu.Lock(); defer c.mu.Unlock(); return c.log.String() }

func (c *counter) clock() time.Time        { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *counter) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now = c.now.Add(d) }
func (c *counter) phases() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, e := range c.records {
		out = append(out, e.Phase)
	}
	return out
}

type addition struct {
	ID string `json:"id"`
}

func open(t *testing.T, cfg config.Admin) *counter {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{DSN: filepath.Join(t.TempDir(), "node.db")}, Migrations())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c := &counter{now: time.Unix(1_700_000_000, 0)}
	if cfg.Expiry == 0 {
		cfg.Expiry = time.Hour
	}
	deps := Deps{
		DB: db, Now: c.clock, Log: slog.New(slog.NewTextHandler(c, nil)),
		Record: func(_ context.Context, local []byte) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.full {
				return fault.New(fault.DiskFull, "")
			}
			var e Entry
			if err := json.Unmarshal(local, &e); err != nil {
				return err
			}
			c.records = append(c.records, e)
			return nil
		},
	}
	c.Server = New(cfg, deps, []Action{
		{Name: "client.add", Event: "client.added", Text: t2("Register a client.", "تسجيل عميل."), Roles: []config.Role{config.Registrar}, Two: true,
			Do: Params(func(_ context.Context, _ Person, p addition) (Done, error) {
				if p.ID == "bad" {
					return Done{}, fault.New(fault.Conflict, "there already")
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				before := slices.Clone(c.made)
				c.made = append(c.made, p.ID)
				return Done{Result: map[string]int{"clients": len(c.made)}, Before: before, After: c.made}, nil
			})},
		{Name: "outcome.resolve", Event: "outcome.resolved", Text: t2("Decide.", "بتّ."), Roles: []config.Role{config.ServiceAdministrator},
			Do: Params(func(_ context.Context, _ Person, p addition) (Done, error) { return Done{}, nil })},
	}, []Query{
		{Name: "secrets", Text: t2("x", "س"), Roles: []config.Role{config.Auditor}, Do: func(_ context.Context, p Person, q url.Values) (any, error) {
			return map[string]string{"who": p.Name, "q": q.Get("q")}, nil
		}},
		{Name: "broken", Text: t2("x", "س"), Do: func(context.Context, Person, url.Values) (any, error) { return nil, errors.New("boom") }},
		{Name: "unanswerable", Text: t2("x", "س"), Do: func(context.Context, Person, url.Values) (any, error) { return func() {}, nil }},
		{Name: "file", Text: t2("x", "س"), Do: func(_ context.Context, _ Person, q url.Values) (any, error) {
			return File{Type: "text/plain", Size: 6, Write: func(_ context.Context, w io.Writer) error {
				_, err := io.WriteString(w, q.Get("say"))
				if q.Get("say") != "whole!" {
					err = errors.New("the rest is gone")
				}
				return err
			}}, nil
		}},
		{Name: "confided", Text: t2("x", "س"), Roles: []config.Role{config.Auditor}, Ask: func(_ context.Context, _ Person, params json.RawMessage) (any, error) {
			if !bytes.Contains(params, []byte("880512345")) {
				return nil, fault.New(fault.BadRequest, "nobody is named")
			}
			return "found", nil
		}},
		{Name: "mistaken", Text: t2("x", "س"), Do: func(context.Context, Person, url.Values) (any, error) {
			return nil, fault.New(fault.UnknownService, "no such")
		}},
	})
	dir := t.TempDir()
	c.socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := c.HTTP()
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	cert := identity(t, "node")
	tl, err := tls.Listen("tcp", "127.0.0.1:0", TLS(func() (*tls.Certificate, error) { return &cert, nil }, cfg.Persons, func() int64 { return time.Now().Unix() }))
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(tl)
	c.https = "https://" + tl.Addr().String()
	return c
}

func t2(en, ar string) union.Text { return union.Text{En: en, Ar: ar} }

func identity(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// at gives somebody's client over TLS.
func (c *counter) at(cert tls.Certificate) *Client {
	return Dial(c.https, &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true})
}

func digest(c tls.Certificate) []config.Digest {
	return []config.Digest{sha256.Sum256(c.Certificate[0])}
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Code != code {
		t.Fatalf("got %v, wanted %s", err, code)
	}
	if !r.Title.Complete() || !r.Do.Complete() {
		t.Errorf("%s is not said in both languages", code)
	}
}

func TestSecondPerson(t *testing.T) {
	fatima, khalid, omar := identity(t, "fatima"), identity(t, "khalid"), identity(t, "omar")
	c := open(t, config.Admin{SecondPerson: config.Required, Persons: []config.Person{
		{Name: "Fatima", Roles: []config.Role{config.Registrar}, Certificates: digest(fatima)},
		{Name: "Khalid", Roles: []config.Role{config.Registrar, config.Auditor}, Certificates: digest(khalid)},
		{Name: "Omar", Roles: []config.Role{config.Auditor}, Certificates: digest(omar)},
	}})
	ctx := t.Context()
	a, err := c.at(fatima).Change(ctx, "client.add", addition{"one"}, nil)
	if err != nil || a.Approval == nil || a.Approval.State != "waiting" || a.Approval.RequestedBy != "Fatima" {
		t.Fatalf("%+v, %v", a, err)
	}
	if len(c.made) != 0 {
		t.Fatal("it was made before the second person agreed")
	}
	approve := func(who tls.Certificate, id, verb string) (Answer, error) {
		return c.at(who).Change(ctx, "approvals/"+id+"/"+verb, struct{}{}, nil)
	}
	_, err = approve(fatima, a.Change, "approve")
	wantCode(t, err, fault.NeedsSecondPerson)
	_, err = approve(omar, a.Change, "approve")
	wantCode(t, err, fault.NotAllowed)
	done, err := approve(khalid, a.Change, "approve")
	if err != nil || done.Approval.State != "done" || done.Approval.DecidedBy != "Khalid" {
		t.Fatalf("%+v, %v", done, err)
	}
	_, err = approve(khalid, a.Change, "approve")
	wantCode(t, err, fault.Conflict)
	if !slices.Equal(c.made, []string{"one"}) {
		t.Errorf("made %v", c.made)
	}
	if got := c.phases(); !slices.Equal(got, []string{"requested", "refused", "ordered", "done"}) {
		t.Errorf("recorded %v", got)
	}
	for _, e := range c.records {
		if e.Change != a.Change || e.Person != "Fatima" || e.ParamsSHA256 == "" || string(e.Params) != `{"id":"one"}` {
			t.Errorf("record %+v", e)
		}
	}
	if last := c.records[3]; last.Second != "Khalid" || last.Before == "" || last.After == "" || last.Before == last.After {
		t.Errorf("last record %+v", last)
	}

	// One that comes too late, one rejected, one that fails.
	late, _ := c.at(fatima).Change(ctx, "client.add", addition{"late"}, nil)
	c.advance(2 * time.Hour)
	_, err = approve(khalid, late.Change, "approve")
	wantCode(t, err, fault.Conflict)
	no, _ := c.at(khalid).Change(ctx, "client.add", addition{"no"}, nil)
	if a, err := approve(khalid, no.Change, "reject"); err != nil || a.Approval.State != "rejected" {
		t.Errorf("one's own request, rejected: %+v, %v", a, err)
	}
	bad, _ := c.at(fatima).Change(ctx, "client.add", addition{"bad"}, nil)
	_, err = approve(khalid, bad.Change, "approve")
	wantCode(t, err, fault.Conflict)
	var list []Approval
	if err := c.at(omar).Query(ctx, "approvals", nil, &list); err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, a := range list {
		states[a.ID] = a.State + a.Note
	}
	for id, want := range map[string]string{a.Change: "done", late.Change: "expired", no.Change: "rejected", bad.Change: "failedadmin.conflict"} {
		if states[id] != want {
			t.Errorf("%s is %s, wanted %s", id, states[id], want)
		}
	}
	if !slices.Equal(c.made, []string{"one"}) {
		t.Errorf("made %v", c.made)
	}
}

// TestTwoApproveAtOnce: of two persons who agree at the same moment, one does.
func TestTwoApproveAtOnce(t *testing.T) {
	people := []tls.Certificate{identity(t, "a"), identity(t, "b"), identity(t, "c")}
	cfg := config.Admin{SecondPerson: config.Required}
	for i, p := range people {
		cfg.Persons = append(cfg.Persons, config.Person{Name: string(rune('A' + i)), Roles: config.Roles(), Certificates: digest(p)})
	}
	c := open(t, cfg)
	a, err := c.at(people[0]).Change(t.Context(), "client.add", addition{"x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	for _, p := range people[1:] {
		go func() {
			_, err := c.at(p).Change(t.Context(), "approvals/"+a.Change+"/approve", struct{}{}, nil)
			errs <- err
		}()
	}
	first, second := <-errs, <-errs
	if (first == nil) == (second == nil) {
		t.Errorf("%v and %v", first, second)
	}
	if len(c.made) != 1 {
		t.Errorf("made %v", c.made)
	}
}

func TestOneMakesDirectlyWhereWaived(t *testing.T) {
	c := open(t, config.Admin{SecondPerson: config.Waived})
	var got map[string]int
	a, err := Dial("unix:"+c.socket, nil).Change(t.Context(), "client.add", addition{"one"}, &got)
	if err != nil || !a.Waived || got["clients"] != 1 {
		t.Fatalf("%+v %v %v", a, got, err)
	}
	if got := c.phases(); !slices.Equal(got, []string{"ordered", "done"}) || !c.records[0].Waived {
		t.Errorf("recorded %v", got)
	}
}

// TestNothingWithoutRecord: where the journal cannot write, nothing is changed.
func TestNothingWithoutRecord(t *testing.T) {
	c := open(t, config.Admin{SecondPerson: config.Waived})
	c.full = true
	_, err := Dial(c.socket, nil).Change(t.Context(), "client.add", addition{"one"}, nil)
	wantCode(t, err, fault.DiskFull)
	if len(c.made) != 0 {
		t.Error("changed without a record")
	}
}

func TestStrangersAndRoles(t *testing.T) {
	fatima, stranger := identity(t, "fatima"), identity(t, "stranger")
	c := open(t, config.Admin{SecondPerson: config.Required, Persons: []config.Person{
		{Name: "Fatima", Roles: []config.Role{config.Registrar}, Certificates: digest(fatima)},
	}})
	ctx := t.Context()
	if _, err := c.at(stranger).Describe(ctx); err == nil || errors.As(err, new(*Refusal)) {
		t.Errorf("an unknown certificate got past the handshake: %v", err)
	}
	if _, err := Dial(c.https, &tls.Config{InsecureSkipVerify: true}).Describe(ctx); err == nil {
		t.Error("no certificate got past the handshake")
	}
	_, err := Dial(c.socket, nil).Describe(ctx)
	wantCode(t, err, fault.NotAllowed) // this account is none of the persons
	err = c.at(fatima).Query(ctx, "secrets", nil, nil)
	wantCode(t, err, fault.NotAllowed)
	_, err = c.at(fatima).Change(ctx, "outcome.resolve", addition{"x"}, nil)
	wantCode(t, err, fault.NotAllowed)
	if got := c.phases(); !slices.Equal(got, []string{"refused"}) {
		t.Errorf("recorded %v", got)
	}
	d, err := c.at(fatima).Describe(ctx)
	if err != nil || d.Person.Name != "Fatima" || len(d.Actions) != 2 || !d.Actions[0].Allowed || d.Actions[1].Allowed {
		t.Errorf("described %+v, %v", d, err)
	}
}

func TestBadRequests(t *testing.T) {
	c := open(t, config.Admin{SecondPerson: config.Waived})
	cl := Dial(c.socket, nil)
	ctx := t.Context()
	_, err := cl.Change(ctx, "no.such", struct{}{}, nil)
	wantCode(t, err, fault.NotFound)
	wantCode(t, cl.Query(ctx, "no.such", nil, nil), fault.NotFound)
	_, err = cl.Change(ctx, "client.add", map[string]string{"id": "x", "extra": "y"}, nil)
	wantCode(t, err, fault.BadRequest)
	_, err = cl.Change(ctx, "client.add", map[string]string{"id": strings.Repeat("x", maxParams)}, nil)
	wantCode(t, err, fault.TooLarge)
	_, err = cl.Change(ctx, "approvals/none/approve", struct{}{}, nil)
	wantCode(t, err, fault.NotFound)
	post := func(ctype, key, body string) int {
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://falaj/v1/client.add", strings.NewReader(body))
		req.Header.Set("Content-Type", ctype)
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		resp, err := cl.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := post("text/plain", "", "{}"); got != 400 {
		t.Errorf("a form of another site: %d", got)
	}
	if got := post("application/json", "", "{"); got != 400 {
		t.Errorf("half a JSON: %d", got)
	}
	if got := post("application/json", "k", `{"id":"once"}`); got != 200 {
		t.Errorf("first: %d", got)
	}
	if got := post("application/json", "k", `{"id":"once"}`); got != 200 || len(c.made) != 1 {
		t.Errorf("again: %d, made %v", got, c.made)
	}
	if got := post("application/json", "k", `{"id":"other"}`); got != 400 || len(c.made) != 1 {
		t.Errorf("another under the same key: %d, made %v", got, c.made)
	}
	if got := post("application/json", "fails", `{"id":"bad"}`); got != 409 {
		t.Errorf("one that fails: %d", got)
	}
	if got := post("application/json", "fails", `{"id":"good"}`); got != 200 {
		t.Errorf("its key again: %d", got)
	}
}

// TestErrors: an error of the node's own stands in the log under the number
// that the person was given; his own mistake is no error of the node's.
func TestErrors(t *testing.T) {
	c := open(t, config.Admin{})
	at := func(query string) (line, id string) {
		before := len(c.logged())
		err := Dial(c.socket, nil).Query(t.Context(), query, nil, nil)
		var r *Refusal
		if !errors.As(err, &r) || len(r.ID) < 16 {
			t.Fatalf("%s: %v", query, err)
		}
		return c.logged()[before:], r.ID
	}
	for _, query := range []string{"broken", "unanswerable"} {
		if line, id := at(query); !strings.Contains(line, "level=ERROR") || !strings.Contains(line, id) {
			t.Errorf("%s: told of %s, logged %s", query, id, line)
		}
	}
	if line, id := at("mistaken"); strings.Contains(line, "level=ERROR") || !strings.Contains(line, id) {
		t.Errorf("told of %s, logged %s", id, line)
	}
}

// TestConfided: a question that names a person is asked in a body, of which
// nothing is kept and nothing logged, and by who may ask it.
func TestConfided(t *testing.T) {
	auditor, registrar := identity(t, "auditor"), identity(t, "registrar")
	c := open(t, config.Admin{SecondPerson: config.Required, Persons: []config.Person{
		{Name: "Omar", Roles: []config.Role{config.Auditor}, Certificates: digest(auditor)},
		{Name: "Fatima", Roles: []config.Role{config.Registrar}, Certificates: digest(registrar)},
	}})
	ctx := t.Context()
	about := map[string]string{"subject": "880512345"}
	var got string
	if err := c.at(auditor).Confide(ctx, "confided", about, &got); err != nil || got != "found" {
		t.Errorf("%q %v", got, err)
	}
	wantCode(t, c.at(auditor).Confide(ctx, "confided", map[string]string{"subject": "1"}, nil), fault.BadRequest)
	wantCode(t, c.at(registrar).Confide(ctx, "confided", about, nil), fault.NotAllowed)
	wantCode(t, c.at(auditor).Query(ctx, "confided", nil, nil), fault.MethodNotAllowed)
	_, err := c.at(auditor).Change(ctx, "confided", about, nil) // which sends an Idempotency-Key
	if err == nil {
		t.Error("answered like a change")
	}
	req, _ := http.NewRequestWithContext(ctx, "POST", c.https+"/v1/confided", strings.NewReader(`{"subject":"880512345"}`))
	req.Header.Set("Content-Type", "text/plain")
	wantCode(t, c.at(auditor).do(req, nil), fault.BadHeader)
	var kept int
	if err := c.deps.DB.QueryRow(ctx, "SELECT COUNT(*) FROM admin_request").Scan(&kept); err != nil || kept != 0 {
		t.Errorf("%d requests are kept, %v", kept, err)
	}
	if len(c.phases()) != 0 || strings.Contains(c.logged(), "880512345") {
		t.Errorf("recorded %v, logged %s", c.phases(), c.logged())
	}
}

// TestOldApprovals: what waited or was decided long ago is listed no more.
func TestOldApprovals(t *testing.T) {
	fatima, khalid := identity(t, "fatima"), identity(t, "khalid")
	c := open(t, config.Admin{SecondPerson: config.Required, Persons: []config.Person{
		{Name: "Fatima", Roles: []config.Role{config.Registrar}, Certificates: digest(fatima)},
		{Name: "Khalid", Roles: []config.Role{config.Registrar}, Certificates: digest(khalid)},
	}})
	one := c.at(fatima)
	listed := func(want int) {
		t.Helper()
		var list []Approval
		if err := one.Query(t.Context(), "approvals", nil, &list); err != nil || len(list) != want {
			t.Errorf("%d are listed, not %d: %v", len(list), want, err)
		}
	}
	ask := func() {
		t.Helper()
		if _, err := one.Change(t.Context(), "client.add", addition{ID: "a"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	c.advance(keepApproval - time.Hour)
	ask()
	listed(2)
	c.advance(3 * time.Hour)
	ask()
	listed(2)
}

func TestCatalogue(t *testing.T) {
	c := open(t, config.Admin{})
	seen := map[string]bool{}
	for _, e := range c.Catalogue() {
		if seen[e.Name] || !e.Text.Complete() || e.Where == "" {
			t.Errorf("event %+v", e)
		}
		seen[e.Name] = true
	}
	if !seen["client.added"] {
		t.Error("the actions' events are missing")
	}
}

// TestFiles: a file comes as it is written; one that breaks off is no file.
func TestFiles(t *testing.T) {
	c := open(t, config.Admin{})
	client := Dial(c.socket, nil)
	for say, whole := range map[string]bool{"whole!": true, "half": false} {
		var b bytes.Buffer
		var seen, of int64
		err := client.Save(t.Context(), "file", url.Values{"say": {say}}, &b, func(done, all int64) { seen, of = done, all })
		if (err == nil) != whole {
			t.Errorf("%q: %v", say, err)
		}
		if err == nil && (b.String() != say || seen != 6 || of != 6) {
			t.Errorf("%q came as %q, %d of %d", say, b.String(), seen, of)
		}
	}
	var r *Refusal
	if err := client.Save(t.Context(), "mistaken", nil, io.Discard, func(int64, int64) {}); !errors.As(err, &r) || r.Code != fault.UnknownService {
		t.Errorf("%v", err)
	}
}
