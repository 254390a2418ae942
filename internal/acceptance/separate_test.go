package acceptance_test

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/falaj/falaj/internal/store/storetest"
)

// TestSeparateProcesses runs the union that `falaj up` founded as a process a
// node, a process for the secretariat and one a register, Oman's node on
// PostgreSQL: the same suite.
func TestSeparateProcesses(t *testing.T) {
	t.Parallel()
	u := apart(t, map[string][]string{"OM": {"FALAJ_STORE_DSN=" + storetest.Postgres(t).DSN}})
	suite(t, u)
	t.Run("no personal data in the logs", func(t *testing.T) {
		var all strings.Builder
		for _, p := range u.parts {
			all.WriteString(read(t, p.log))
		}
		nobodyIn(t, u, all.String())
	})
	for _, p := range u.parts {
		p.stop(t, syscall.SIGTERM)
	}
}

// apart has `falaj up` found a union and runs its folders as separate
// processes; env is what the nodes of single states find around them.
func apart(t *testing.T, env map[string][]string, args ...string) *union {
	t.Helper()
	founded := startUp(t, filepath.Join(t.TempDir(), "union"), append(args, base(t))...)
	founded.all.stop(t, syscall.SIGTERM)
	u := &union{ready: founded.ready, root: t, parts: map[string]*process{}, env: env}
	u.startRegisters(t)
	for _, n := range u.Nodes { // the nodes first: they wait for nobody
		u.startNode(t, n.State)
	}
	u.startSecretariat(t)
	for state, own := range env {
		if !strings.HasPrefix(strings.Join(own, " "), "FALAJ_STORE_DSN=") {
			continue
		}
		// An empty database is not the log that the others were shown.
		eventually(t, "a new name for the log of "+state, func() error {
			if r := do(t, []string{"FALAJ_ADMIN=" + u.node(t, state).Admin}, "falaj", "log", "renew"); r.code != 0 {
				return errors.New(r.err)
			}
			return nil
		})
	}
	u.waitReady(t)
	return u
}

func (u *union) startRegisters(t *testing.T) {
	for _, n := range u.Nodes {
		for kind, at := range n.Registers {
			start(t, nil, "falaj", "registry", n.State, "--kind", kind, "--listen", strings.TrimPrefix(at, "http://"))
		}
	}
}

func (u *union) startNode(t *testing.T, state string) {
	t.Helper()
	u.parts[state] = start(u.root, append(u.env[state], "FALAJ_LOG_LEVEL=debug"), "falaj", "node", "--config", u.node(t, state).Config)
}

func (u *union) startSecretariat(t *testing.T) {
	t.Helper()
	at, err := url.Parse(u.Secretariat)
	check(t, err)
	u.parts["secretariat"] = start(u.root, nil, "falaj", "secretariat", "--data", filepath.Join(u.Data, "secretariat"), "--listen", at.Host, "--demonstration")
}

// waitReady waits until every node takes calls and every register answers.
func (u *union) waitReady(t *testing.T) {
	t.Helper()
	for _, n := range u.Nodes {
		for _, at := range n.Registers {
			eventually(t, "a register of "+n.State, func() error { _, err := tryCurl(t.Context(), at+"/health"); return err })
		}
		u.waitNode(t, n.State)
	}
}

func (u *union) waitNode(t *testing.T, state string) {
	t.Helper()
	eventually(t, "the node of "+state, func() error {
		if !u.parts[state].running() {
			t.Fatalf("it ended with code %d", u.parts[state].cmd.ProcessState.ExitCode())
		}
		a, err := tryCurl(t.Context(), u.node(t, state).Operations+"/readyz")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
}
