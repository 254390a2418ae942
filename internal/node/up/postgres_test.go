package up

import (
	"context"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// TestPostgres: two processes of Bahrain's node share keys, spool and one
// PostgreSQL; an id that one has served is known to the other. One with a spool
// of its own does not start.
func TestPostgres(t *testing.T) {
	dsn := storetest.Postgres(t).DSN
	dir := t.TempDir()
	if err := play(t, dir, Deps{}, "BH", "SA").stop(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	defer func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	}()
	plan, err := readPlan(dir)
	if err != nil {
		t.Fatal(err)
	}
	secretariat, err := node.NewSecretariat(ctx, node.SecretariatConfig{Data: filepath.Join(dir, "secretariat"), Listen: plan.at("", doorDirectory), Demonstration: true}, node.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	group.Go(func() error { return secretariat.Run(ctx) })
	start := func(s union.State, set ...string) node.Addresses {
		t.Helper()
		cfg, err := config.Load(config.Source{File: filepath.Join(dir, string(s), "node.yaml"), Set: set})
		if err != nil {
			t.Fatal(err)
		}
		n, err := node.New(ctx, cfg, node.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() error { return n.Run(ctx) })
		return n.Addresses()
	}
	elsewhere := []string{"r1.http=127.0.0.1:0", "r1.https=off", "operations.listen=off", "public.listen=off", "store.dsn=" + dsn}
	shared := "spool=" + filepath.Join(dir, "shared")
	first := start("BH", "store.dsn="+dsn, shared)
	second := start("BH", append(elsewhere, "link.listen=127.0.0.1:0", "data="+filepath.Join(dir, "BH2"),
		"keys.folder="+filepath.Join(dir, "BH", "keys"), shared, "directory.root="+filepath.Join(dir, "BH", "root.json"))...)
	start("SA")
	alone, err := config.Load(config.Source{File: filepath.Join(dir, "BH", "node.yaml"), Set: append(elsewhere, "link.listen=127.0.0.1:0",
		"data="+filepath.Join(dir, "BH3"), "keys.folder="+filepath.Join(dir, "BH", "keys"), "directory.root="+filepath.Join(dir, "BH", "root.json"))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.New(ctx, alone, node.Deps{}); fault.CodeOf(err) != fault.SpoolElsewhere {
		t.Errorf("a process with a spool of its own: %v", err)
	}

	const path = "/r1/SA/GOV/interior/civil/registry/listMethods"
	head := []string{"X-Road-Client: " + portal("BH").String(), "X-Road-Id: shared-1"}
	metas := "/r1/SA/GOV/interior/civil/listMethods"
	if resp, body := ask(t, http.DefaultTransport, first.R1+metas, head...); resp.StatusCode != 200 {
		t.Fatalf("the first process: %s %s", resp.Status, body)
	}
	if resp, body := ask(t, http.DefaultTransport, second.R1+metas, head...); resp.StatusCode != 200 || resp.Header.Get("X-Road-Id") != "shared-1" {
		t.Errorf("the same call at the second process: %s %s", resp.Status, body)
	}
	if resp, body := ask(t, http.DefaultTransport, second.R1+path, head...); resp.StatusCode != 400 {
		t.Errorf("another call under its id: %s %s", resp.Status, body)
	}
	var e exchange.Evidence
	if err := admin.Dial(second.Admin, nil).Query(t.Context(), "evidence", url.Values{"id": {"shared-1"}}, &e); err != nil || len(e.Halves) != 2 {
		t.Errorf("what both hold: %+v, %v", e, err)
	}
	for _, h := range e.Halves {
		if h.State == "SA" && len(h.Records) != 2 {
			t.Errorf("Saudi Arabia was asked %d times", len(h.Records)/2)
		}
	}
}
