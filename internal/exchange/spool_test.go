package exchange

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// newShared starts a union on PostgreSQL, whose last state's database another
// process can join.
func newShared(t *testing.T, states ...union.State) (*testUnion, store.Config) {
	t.Helper()
	var dsn store.Config
	return newUnionOn(t, func(t testing.TB) store.Config {
		dsn = storetest.Postgres(t)
		return dsn
	}, states, quick, func(c *Config, _ *Deps) { c.Alone = false }), dsn
}

// beside is another process of a node: its own way to the database, to the
// keys and to the spool folder. It neither runs nor has a link.
func (n *testNode) beside(t *testing.T, dsn store.Config, folder string) *Exchange {
	t.Helper()
	deps, cfg := n.Exchange.deps, n.Exchange.cfg
	var err error
	deps.DB, err = store.Open(t.Context(), dsn)
	check(t, err)
	t.Cleanup(func() { _ = deps.DB.Close() })
	keys, err := seal.OpenKeys(filepath.Join(n.home, "keys"), seal.KeyConfig{Demonstration: true})
	check(t, err)
	hidden, err := keys.HMAC("journal-1")
	check(t, err)
	deps.Journal, err = journal.New(journal.Config{}, journal.Deps{DB: deps.DB, Records: keys.Records(), Keys: hidden})
	check(t, err)
	t.Cleanup(func() { _ = deps.Journal.Close(context.Background()) })
	deps.Spool, err = seal.OpenSpool(folder, keys.Records())
	check(t, err)
	t.Cleanup(func() { _ = deps.Spool.Close() })
	local, err := OpenLocal(t.Context(), deps.DB, deps.Now)
	check(t, err)
	x, err := New(cfg, deps, local)
	check(t, err)
	return x
}

// TestAnotherDeliversTheBody: a process accepts a large call for delivery and
// ends without a word; another sends it, and the body is whole.
func TestAnotherDeliversTheBody(t *testing.T) {
	t.Parallel()
	u, dsn := newShared(t, "BH", "SA")
	sa := u.nodes["SA"]
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	})
	first := sa.beside(t, dsn, sa.spool)
	check(t, first.Start(t.Context()))
	door := httptest.NewServer(first.Edge())
	c := u.cut("SA")
	c.fail(unreachable)
	big := make([]byte, 200<<10)
	_, _ = rand.Read(big)
	a := u.callAt(door.URL, "SA", "POST", offered("BH", "things"), "", bytes.NewReader(big), respond, "X-Road-Id: handed-over")
	door.Close()
	check(t, first.deps.Spool.Close())
	if a.status != 202 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	check(t, sa.sweep(t.Context())) // a recorded body outlives its process
	c.fail(nil)
	d := u.becomes("SA", "handed-over", StatusAnswered)
	if got := u.at("SA", d.Answer); got.status != 200 || !bytes.Equal(got.body, big) {
		t.Errorf("%d, %d bytes", got.status, len(got.body))
	}
	u.sound(t)
}

// TestSpoolElsewhere: a process whose spool is not the one that its database
// knows would neither find bodies nor be found; it does not start.
func TestSpoolElsewhere(t *testing.T) {
	t.Parallel()
	u, dsn := newShared(t, "SA", "BH")
	bh, sa := u.nodes["BH"], u.nodes["SA"]
	wrong := func(what, folder string) {
		t.Helper()
		if err := bh.beside(t, dsn, folder).Start(t.Context()); fault.CodeOf(err) != fault.SpoolElsewhere {
			t.Errorf("%s: %v", what, err)
		}
	}
	wrong("an empty folder", filepath.Join(t.TempDir(), "spool"))
	wrong("another database's", sa.spool)
	check(t, bh.beside(t, dsn, bh.spool).Start(t.Context()))
	// It is lost, and they go on without what lay there, as the manual says.
	mark, err := os.ReadFile(filepath.Join(bh.spool, "mark"))
	check(t, err)
	next := filepath.Join(t.TempDir(), "spool")
	x := bh.beside(t, dsn, next)
	check(t, os.WriteFile(filepath.Join(next, "mark"), mark, 0o600))
	check(t, x.Start(t.Context()))
}
