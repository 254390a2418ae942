package acceptance_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/node/up"
)

// TestWeeksLater starts a union again after all that it signed has run out,
// piece by piece. A program cannot be told another time, so the later runs are
// in this process, with a later clock; the folder, the first run and all that
// asks are real.
func TestWeeksLater(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "union")
	u := startUp(t, dir, base(t), "--state=BH,SA")
	first := u.read(t, "SA", "BH", "vehicles")
	u.all.stop(t, syscall.SIGTERM)
	began := time.Now()
	for _, x := range []struct {
		days int
		over string
	}{{8, "time-stamp"}, {40, "revocation lists"}, {130, "parts and the links' certificates"}, {530, "seals"}} {
		later := func() time.Time { return time.Now().AddDate(0, 0, x.days) }
		ctx, cancel := context.WithCancel(t.Context())
		var again *up.Union
		eventually(t, fmt.Sprintf("%d days later, the %s are over", x.days, x.over), func() (err error) {
			// A child that another test is just starting may hold the folder's lock
			// of the last run, until it is a program of its own.
			if again, err = up.Open(ctx, up.Config{Data: dir}, up.Deps{Now: later}); fault.CodeOf(err) != fault.Conflict && err != nil {
				t.Fatal(err)
			}
			return err
		})
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- again.Run(ctx, func(up.Ready) error { close(ready); return nil }) }()
		select {
		case <-ready:
		case err := <-done:
			t.Fatalf("%d days later, the %s are over: %v", x.days, x.over, err)
		}
		id := u.read(t, "SA", "BH", "vehicles")
		u.read(t, "BH", "SA", "persons")
		for _, call := range []string{first, id} {
			if e := evidence(t, u, "SA", call); len(e.Halves) != 2 {
				t.Errorf("%d days later: %+v", x.days, e)
			}
		}
		u.falaj(t, "SA", "evidence", "verify", id)
		u.falaj(t, "SA", "evidence", "verify", first)
		// What was recorded last before may have waited for its time-stamp ever
		// since, and authorities stamp once they have compared their clocks.
		eventually(t, fmt.Sprintf("%d days later, nothing wrong at SA", x.days), func() error {
			if said := u.falaj(t, "SA", "doctor"); strings.Contains(said, "\n  ") {
				return errors.New(said)
			}
			return nil
		})
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%d days later: %v", x.days, err)
		}
	}
	t.Logf("four later runs took %v", time.Since(began))
}

// TestExpired lets a node alone for longer than it may go by its directory: it
// refuses, says so, and doctor says what to do.
func TestExpired(t *testing.T) {
	t.Parallel()
	u := startUp(t, filepath.Join(t.TempDir(), "union"), base(t), "--state=BH,SA")
	service, purpose := register("BH", "vehicles")
	path, _ := u.sample(t, "BH", "vehicles")
	u.all.stop(t, syscall.SIGTERM)
	sa := u.node(t, "SA")
	cfg, err := config.Load(config.Source{File: sa.Config})
	check(t, err)
	alone, err := node.New(t.Context(), cfg, node.Deps{Now: func() time.Time { return time.Now().AddDate(0, 0, 8) }})
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- alone.Run(ctx) }()
	eventually(t, "the node", func() error { _, err := tryCurl(t.Context(), sa.Operations+"/healthz"); return err })

	curl(t, sa.Operations+"/readyz").want(t, 503)
	if a := curl(t, u.as(t, "SA", purpose, service+path)...).want(t, 500); a.header.Get("X-Road-Error") != "Server.ClientProxy.OutdatedGlobalConf" {
		t.Errorf("%s", a.body)
	}
	for lang, text := range map[string]string{"en": "the node takes no calls", "ar": "العقدة لا تقبل الطلبات"} {
		r := do(t, nil, "falaj", "--lang", lang, "--admin", sa.Admin, "doctor")
		if r.code != 1 || !strings.Contains(r.out, text) || !strings.Contains(r.out, "[directory.expired]") {
			t.Errorf("%d %s%s", r.code, r.out, r.err)
		}
	}
	cancel()
	check(t, <-done)
}
