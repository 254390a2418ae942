package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
)

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("got %v, wanted %s", err, code)
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "s")
	l, err := openSocket(path, "")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	_, err = openSocket(path, "")
	wantCode(t, err, fault.ConfigInvalid) // another listens there

	// One that a killed process left is replaced.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	again, err := openSocket(path, "")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	_, err = openSocket(path, "no such group")
	wantCode(t, err, fault.ConfigInvalid)
}

// TestSocketUmask: between its making and anything that could be done to it
// later, the socket is its owner's alone.
func TestSocketUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "s")
	l, err := listenAlone(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestLockFolder(t *testing.T) {
	dir := t.TempDir()
	f, err := lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockFolder(dir)
	wantCode(t, err, fault.Conflict)
	f.Close()
	f, err = lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestRules(t *testing.T) {
	dir := t.TempDir()
	none, err := readRules(filepath.Join(dir, "none"), "BH")
	if err != nil || len(none()) != 0 {
		t.Errorf("without a folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.cedar"), []byte("forbid (principal"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = readRules(dir, "BH")
	wantCode(t, err, fault.ConfigInvalid)
}

func TestDescription(t *testing.T) {
	for _, bad := range []string{`{`, `[]`, `{"openapi":"2.0"}`, `"3.0.0"`} {
		_, err := readDescription(json.RawMessage(bad))
		wantCode(t, err, fault.BadRequest)
	}
	_, err := readDescription(bytes.Repeat([]byte(" "), maxDescription+1))
	wantCode(t, err, fault.TooLarge)
	d, err := readDescription(json.RawMessage(`{"openapi":"3.1.0","info":{"title":"T"},"paths":{"/b":{"get":{},"summary":"x","post":{}},"/a":{"put":{}}}}`))
	if err != nil || d.title.En != "T" || d.title.Ar != "T" || len(d.endpoints) != 3 || d.endpoints[0].String() != "PUT /a" {
		t.Errorf("%+v, %v", d, err)
	}
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(`{"openapi":"3.1.0","info":{"title":"T"},"paths":{"/b":{"get":{}}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if d, err := readDescription(raw); err == nil && len(raw) > 0 {
			for _, e := range d.endpoints {
				if e.Method != strings.ToUpper(e.Method) {
					t.Errorf("method %q", e.Method)
				}
			}
		}
	})
}

// kept is a node with a journal and nothing else.
func kept(t *testing.T) (*Node, *time.Time) {
	t.Helper()
	dir := t.TempDir()
	now := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	n := &Node{log: slog.New(slog.DiscardHandler), now: func() time.Time { return now }}
	n.cfg.Data = dir
	n.cfg.Keys.Folder = filepath.Join(dir, "keys")
	n.cfg.Store.DSN = config.DSN(filepath.Join(dir, "node.db"))
	n.cfg.Directory.Root = filepath.Join(dir, "root.json")
	n.cfg.State = "BH"
	var err error
	if n.keys, err = seal.OpenKeys(n.cfg.Keys.Folder, seal.KeyConfig{}); err != nil {
		t.Fatal(err)
	}
	if n.db, err = store.Open(t.Context(), store.Config{DSN: string(n.cfg.Store.DSN)}, journal.Migrations(), exchange.Migrations()); err != nil {
		t.Fatal(err)
	}
	n.cfg.Spool = filepath.Join(dir, "elsewhere")
	if n.spool, err = seal.OpenSpool(n.cfg.Spool, n.keys.Records()); err != nil {
		t.Fatal(err)
	}
	if n.exchange, err = exchange.New(exchange.Config{}, exchange.Deps{DB: n.db, Spool: n.spool, Now: n.now, Log: n.log}, nil); err != nil {
		t.Fatal(err)
	}
	if n.journal, err = journal.New(journal.Config{}, journal.Deps{DB: n.db, Records: n.keys.Records()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.journal.Close(context.Background())
		n.db.Close()
	})
	return n, &now
}

// TestRetention: at the end of its time a month's records can no longer be
// read; the others can, and the journal says what was ended.
func TestRetention(t *testing.T) {
	n, now := kept(t)
	n.cfg.Retention = []config.Class{{Name: "exchange", KeepDays: 3650}, {Name: "short", KeepDays: 30}, {Name: "admin", KeepDays: 3650}}
	append := func(class string) int64 {
		e, err := n.journal.Append(t.Context(), journal.Record{Kind: journal.RequestSent, Key: "k", At: *now, Class: class, Local: []byte(`{}`)})
		if err != nil {
			t.Fatal(err)
		}
		return e.Index
	}
	long, short := append("exchange"), append("short")
	*now = now.AddDate(0, 1, 0) // 15 February: January ended 15 days ago
	later := append("short")
	erased := func(i int64) bool {
		s, err := n.journal.Get(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		return s.Erased
	}
	if err := n.retain(t.Context()); err != nil || erased(short) {
		t.Fatalf("ended too early: %v", err)
	}
	*now = now.AddDate(0, 0, 20) // 7 March
	for range 2 {
		if err := n.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !erased(short) || erased(long) || erased(later) {
		t.Errorf("erased: short %v, long %v, later %v", erased(short), erased(long), erased(later))
	}
	found, err := n.journal.Find(t.Context(), changeKey(*now))
	if err != nil || len(found) != 1 || !strings.Contains(string(found[0].Local), admin.EventRetained) || !strings.Contains(string(found[0].Local), "2026-01") {
		t.Errorf("recorded %d times, %v", len(found), err)
	}
	if r, err := n.journal.Verify(t.Context()); err != nil || !r.OK() || r.Erased != 1 {
		t.Errorf("the journal: %+v, %v", r, err)
	}
}

// TestHold: what a hold keeps is not ended, and is once it is released.
func TestHold(t *testing.T) {
	n, now := kept(t)
	n.cfg.Retention = []config.Class{{Name: "short", KeepDays: 1}}
	var at []int64
	for range 2 {
		e, err := n.journal.Append(t.Context(), journal.Record{Kind: journal.RequestSent, Key: "k", At: *now, Class: "short", Local: []byte(`{}`)})
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, e.Index)
		*now = now.AddDate(0, 1, 0)
	}
	ended := func() (out [2]bool) {
		t.Helper()
		if err := n.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range at {
			s, err := n.journal.Get(t.Context(), at[i])
			if err != nil {
				t.Fatal(err)
			}
			out[i] = s.Erased
		}
		return out
	}
	*now = now.AddDate(0, 1, 0)
	for _, p := range []HoldAdd{{Name: "a", Leaves: at[:1], Reason: "r"}, {Name: "b", Class: "short", Reason: "r"}} {
		if _, err := n.addHold(t.Context(), admin.Person{Name: "x"}, p); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []HoldAdd{{Name: "c", Reason: "r"}, {Name: "c", Class: "short"}, {Name: "../c", Class: "short", Reason: "r"}, {Name: "c", Class: "shrot", Reason: "r"}, {Name: "c", Class: "short", Month: "x", Reason: "r"}, {Name: "c", Leaves: at, Month: "2026-01", Reason: "r"}} {
		_, err := n.addHold(t.Context(), admin.Person{}, bad)
		wantCode(t, err, fault.BadRequest)
	}
	release := func(name string) {
		t.Helper()
		if _, err := n.releaseHold(t.Context(), admin.Person{}, HoldRelease{Name: name, Reason: "r"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := ended(); got != [2]bool{} {
		t.Errorf("held, and ended: %v", got)
	}
	release("b")
	if got := ended(); got != [2]bool{false, true} {
		t.Errorf("one of two is held: %v", got)
	}
	release("a")
	if got := ended(); got != [2]bool{true, true} {
		t.Errorf("nothing is held: %v", got)
	}
	_, err := n.addHold(t.Context(), admin.Person{}, HoldAdd{Name: "late", Leaves: at, Reason: "r"})
	wantCode(t, err, fault.Conflict)
	_, err = n.addHold(t.Context(), admin.Person{}, HoldAdd{Name: "late", Class: "short", Month: "2026-01", Reason: "r"})
	wantCode(t, err, fault.NotFound) // of a month whose key is gone nothing tells whether it ever was
}

// TestHoldTooLate: what is erased while a hold is being set is not said to be
// held.
func TestHoldTooLate(t *testing.T) {
	n, now := kept(t)
	e, err := n.journal.Append(t.Context(), journal.Record{Kind: journal.RequestSent, Key: "k", At: *now, Class: "exchange", Local: []byte(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	n.now = func() time.Time {
		_, err := n.journal.Erase(t.Context(), journal.Erasure{Leaves: []int64{e.Index}, At: *now, Class: "admin"}, nil, nil, nil)
		if err != nil {
			t.Error(err)
		}
		return *now
	}
	_, err = n.addHold(t.Context(), admin.Person{Name: "x"}, HoldAdd{Name: "late", Leaves: []int64{e.Index}, Reason: "r"})
	wantCode(t, err, fault.Conflict)
	if all, err := n.holds(); err != nil || len(all) > 0 {
		t.Errorf("%+v %v", all, err)
	}
}

// TestLongDay: however many changes a day had, all of them are listed.
func TestLongDay(t *testing.T) {
	n, now := kept(t)
	const most = 2*journal.MaxFound + 10
	var group errgroup.Group
	for i := range most {
		group.Go(func() error { return n.record(t.Context(), fmt.Appendf(nil, `{"n":%d}`, i)) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	q, got, pages := url.Values{"day": {now.Format(time.DateOnly)}}, 0, 0
	for last := int64(-1); ; pages++ {
		v, err := n.listChanges(t.Context(), admin.Person{}, q)
		if err != nil {
			t.Fatal(err)
		}
		list := v.([]Change)
		if len(list) == 0 {
			break
		}
		for _, c := range list {
			if c.Leaf <= last {
				t.Fatalf("leaf %d after %d", c.Leaf, last)
			}
			last = c.Leaf
		}
		got += len(list)
		q.Set("from", fmt.Sprint(last+1))
	}
	if got != most || pages != 3 {
		t.Errorf("%d of %d changes on %d pages", got, most, pages)
	}
	for _, bad := range []string{"-1", "x"} {
		_, err := n.listChanges(t.Context(), admin.Person{}, url.Values{"from": {bad}})
		wantCode(t, err, fault.BadRequest)
	}
}

// TestRetentionOfBodies: with a month's key go the large bodies that lay under
// it, and what the database says of them, whoever destroyed it.
func TestRetentionOfBodies(t *testing.T) {
	n, now := kept(t)
	n.cfg.Retention = []config.Class{{Name: "exchange", KeepDays: 3650}, {Name: "short", KeepDays: 30}, {Name: "admin", KeepDays: 3650}}
	put := func() string {
		w, err := n.spool.Create(seal.SpoolConfig{Class: "short", At: *now, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		done, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.db.Exec(t.Context(), `INSERT INTO exchange_spool (id, leaf, kept_at) VALUES (?, 0, 0)`, done.ID); err != nil {
			t.Fatal(err)
		}
		return done.ID
	}
	there := func(id string) bool {
		_, gone := os.Stat(filepath.Join(n.cfg.Spool, id))
		var rows int
		if err := n.db.QueryRow(t.Context(), `SELECT COUNT(*) FROM exchange_spool WHERE id = ?`, id).Scan(&rows); err != nil || (rows == 1) != (gone == nil) {
			t.Errorf("%s: %d rows, %v", id, rows, err)
		}
		return gone == nil
	}
	january := put()
	*now = now.AddDate(0, 1, 0)
	february := put()
	*now = now.AddDate(0, 1, 0)
	march := put()
	if err := n.keys.Records().Destroy("short", 202601); err != nil { // and here a process was killed
		t.Fatal(err)
	}
	buried, err := n.endWhatIsOver(t.Context(), -1)
	if err != nil || buried != 1 || there(january) || !there(february) || !there(march) {
		t.Errorf("after the start: %d, %v", buried, err)
	}
	*now = now.AddDate(0, 1, 0)
	buried, err = n.endWhatIsOver(t.Context(), buried)
	if err != nil || buried != 2 || there(february) || !there(march) {
		t.Errorf("after a month: %d, %v", buried, err)
	}
}

// TestBackup: a copy holds what was durable when it was made, and goes only
// into an empty place of the same state.
func TestBackup(t *testing.T) {
	n, now := kept(t)
	if err := os.WriteFile(n.cfg.Directory.Root, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.journal.Append(t.Context(), journal.Record{Kind: journal.Decision, Key: "k", At: *now, Class: "admin", Local: []byte(`{"a":1}`)}); err != nil {
		t.Fatal(err)
	}
	_, err := n.backup(t.Context(), admin.Person{}, Backup{Folder: "relative"})
	wantCode(t, err, fault.BadRequest)
	copied := filepath.Join(t.TempDir(), "copy")
	if _, err := n.backup(t.Context(), admin.Person{}, Backup{Folder: copied, Keys: true}); err != nil {
		t.Fatal(err)
	}
	_, err = n.backup(t.Context(), admin.Person{}, Backup{Folder: copied})
	wantCode(t, err, fault.Conflict)
	// A copy inside what is copied would copy itself.
	within := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(n.cfg.Spool, within); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{filepath.Join(n.cfg.Spool, "copy"), filepath.Join(n.cfg.Keys.Folder, "records", "..", "copy"), filepath.Join(within, "copy")} {
		_, err = n.backup(t.Context(), admin.Person{}, Backup{Folder: folder, Keys: true})
		wantCode(t, err, fault.BadRequest)
		if _, err := os.Stat(folder); err == nil {
			t.Errorf("%s was begun", folder)
		}
	}

	dir := filepath.Join(t.TempDir(), "new")
	cfg := config.Config{State: "BH", Data: dir, Spool: filepath.Join(dir, "large"), Store: config.Store{DSN: config.DSN(filepath.Join(dir, "node.db"))}}
	cfg.Keys.Folder, cfg.Directory.Root = filepath.Join(dir, "keys"), filepath.Join(dir, "root.json")
	other := cfg
	other.State = "SA"
	wantCode(t, Restore(other, copied), fault.Conflict)
	wantCode(t, Restore(cfg, t.TempDir()), fault.NotFound)
	// A root that is trusted here is never replaced by what a copy brings.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Directory.Root, []byte("{ }"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantCode(t, Restore(cfg, copied), fault.Conflict)
	if b, err := os.ReadFile(cfg.Directory.Root); err != nil || string(b) != "{ }" {
		t.Errorf("the trusted root became %q, %v", b, err)
	}
	if _, err := os.Stat(string(cfg.Store.DSN)); err == nil {
		t.Error("restored before it refused")
	}
	if err := os.WriteFile(cfg.Directory.Root, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Restore(cfg, copied); err != nil {
		t.Fatal(err)
	}
	wantCode(t, Restore(cfg, copied), fault.Conflict)
	keys, err := seal.OpenKeys(cfg.Keys.Folder, seal.KeyConfig{}) // its modes are right, or it refuses
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Config{DSN: string(cfg.Store.DSN)}, journal.Migrations())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	j, err := journal.New(journal.Config{}, journal.Deps{DB: db, Records: keys.Records()})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close(context.Background())
	if s, err := j.Get(t.Context(), 0); err != nil || string(s.Local) != `{"a":1}` {
		t.Errorf("restored: %+v, %v", s, err)
	}
}

// TestNoCallAmongChanges: no client can give a call an id under which it would
// stand among a day's changes, or hide them behind many.
func TestNoCallAmongChanges(t *testing.T) {
	if key := changeKey(time.Unix(2e9, 0)); message.ValidID(key) {
		t.Errorf("%q may be an id", key)
	}
}
