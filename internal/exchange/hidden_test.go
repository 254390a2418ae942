package exchange

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// TestHiddenNames: what a client calls its calls and conversations does not
// stand in the database in the clear, and is shown all the same.
func TestHiddenNames(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	u.backend("BH", "later", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	const id, talk = "person-880512345", "case-of-880512345"
	if a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: "+id); a.fault(t).Code != string(fault.BackendFailed) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	check(t, u.nodes["BH"].Local().DropBackend(t.Context(), offered("BH", "later")))
	for _, n := range []string{"-1", "-2"} {
		if a := u.call("SA", "POST", offered("BH", "later"), "/", nil, "X-Road-Id: "+id+n, "Falaj-Conversation: "+talk); a.status != 202 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if list, err := u.nodes["BH"].Outcomes(t.Context(), 9); err != nil || len(list) != 1 || list[0].ID != id || list[0].Client != desk("SA").String() || list[0].Service != offered("BH", "things").String() {
		t.Errorf("%+v %v", list, err)
	}
	sa := u.nodes["SA"]
	list, err := sa.Deliveries(t.Context(), DeliveryFilter{Conversation: talk}, 9)
	if err != nil || len(list) != 2 || list[0].ID != id+"-1" || list[0].Conversation != talk || list[1].ID != id+"-2" || list[1].Behind != id+"-1" {
		t.Errorf("%+v %v", list, err)
	}
	if v, _, err := sa.findDelivery(t.Context(), desk("SA"), id+"-2"); err != nil || v.ID != id+"-2" || v.Conversation != talk || v.Behind != id+"-1" {
		t.Errorf("%+v %v", v, err)
	}
	for s, n := range u.nodes {
		var path string
		check(t, n.db.QueryRow(t.Context(), `SELECT file FROM pragma_database_list WHERE name = 'main'`).Scan(&path))
		for _, suffix := range []string{"", "-wal"} {
			b, err := os.ReadFile(path + suffix)
			check(t, err)
			if bytes.Contains(b, []byte("880512345")) {
				t.Errorf("%s has it in the clear", s)
			}
		}
	}
}

// TestHiddenFromLogs: nor is it logged where an answer, or what proves the
// call, breaks off on its way.
func TestHiddenFromLogs(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, d *Deps) {
		if c.State == "SA" {
			d.Log = slog.New(slog.NewTextHandler(&log, nil))
		}
	})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "an answer") })
	const id = "person-880512345"
	if a := u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: "+id); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for i, c := range [][2]string{{"POST", "/r1/" + offered("BH", "things").String() + "/"}, {"GET", "/evidence/" + id + "/container"}} {
		req := httptest.NewRequest(c[0], c[1], nil)
		for name, value := range map[string]string{"X-Road-Client": desk("SA").String(), "Falaj-Purpose": "test", "X-Road-Id": id} {
			req.Header.Set(name, value)
		}
		func() {
			defer func() { _ = recover() }()
			u.nodes["SA"].Edge().ServeHTTP(jammed{}, req)
		}()
		if strings.Count(log.String(), "broke off") != i+1 || strings.Contains(log.String(), "880512345") {
			t.Errorf("%s: %s", c[1], log.String())
		}
	}
}

// jammed is a client's connection that takes nothing.
type jammed http.Header

func (w jammed) Header() http.Header       { return http.Header(w) }
func (w jammed) WriteHeader(int)           {}
func (w jammed) Write([]byte) (int, error) { return 0, errors.New("jammed") }

// TestErasedDelivery: a delivery whose records' retention ends while it waits
// ends too, although nobody knows any more what it was called.
func TestErasedDelivery(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.publish("BH", func(e *directory.Edition) { e.Members[0].Subsystems[0].Services[2].Retention = "short" })
	sa := u.nodes["SA"]
	if a := u.call("SA", "POST", offered("BH", "later"), "/", nil, "X-Road-Id: erased"); a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	check(t, sa.keys.Records().Destroy("short", seal.PeriodOf(time.Now())))
	u.soon("it has ended", func() bool {
		v, _, err := sa.findDelivery(context.Background(), desk("SA"), "erased")
		return err == nil && v.Status == StatusRefused && v.Code == fault.AnswerGone
	})
	if a := u.at("SA", "/async/erased/answer"); !strings.Contains(string(a.body), string(fault.AnswerGone)) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if list, err := sa.Deliveries(t.Context(), DeliveryFilter{}, 9); err != nil || len(list) != 1 || list[0].ID != "" {
		t.Errorf("%+v %v", list, err)
	}
}

// TestLogKeepsUnknownNamesOut: what a caller names and the directory does not
// know may hold anything, a person's number too: it stands in no log.
func TestLogKeepsUnknownNamesOut(t *testing.T) {
	log := newLogs()
	u := newUnion(t, []union.State{"BH", "SA"}, func(_ *Config, d *Deps) { d.Log = slog.New(slog.NewTextHandler(log, nil)) })
	alone := offered("SA", "listMethods")
	alone.Code = "Fatima-Haddad"
	for _, service := range []union.ServiceID{offered("SA", "Fatima-Haddad"), alone} {
		if got := u.call("BH", "GET", service, "/", nil).fault(t); got.Code != string(fault.UnknownService) {
			t.Fatalf("%+v", got)
		}
		r := u.request("BH", service)
		head, err := r.Encode()
		check(t, err)
		_, _, _ = u.deliver("BH", "SA", &link.Message{Envelope: enclose(t, u.nodes["BH"].seals[desk("BH").MemberID], head, nil, time.Now())})
	}
	if got := log.String(); strings.Contains(got, "Haddad") || strings.Count(got, "code="+string(fault.UnknownService)) < 3 {
		t.Errorf("logged: %s", got)
	}
}
