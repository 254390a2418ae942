package acceptance_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// ready is what the ready file of `falaj up` says.
type ready struct {
	Data        string
	Nodes       []place
	Secretariat string
	Examples    []string
}

// place is where a state's node is.
type place struct {
	State, R1, Link, Admin, Operations, Public, Client, Config string
	Name                                                       struct{ En, Ar string }
	Registers                                                  map[string]string
}

func (r ready) states() []string {
	var out []string
	for _, n := range r.Nodes {
		out = append(out, n.State)
	}
	return out
}

// union is a union that runs, whichever way it was started.
type union struct {
	ready
	all   *process            // of `falaj up`
	root  *testing.T          // as long as whose test the parts run
	parts map[string]*process // or of each part: by state, and "secretariat"
	env   map[string][]string // of parts that have one of their own
}

func (u *union) node(t *testing.T, state string) place {
	t.Helper()
	i := slices.Index(u.states(), state)
	if i < 0 {
		t.Fatalf("%s is not in the union of %v", state, u.states())
	}
	return u.Nodes[i]
}

// startUp starts `falaj up` and waits for its ready file.
func startUp(t *testing.T, dir string, args ...string) *union {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ready.json")
	p := start(t, nil, "falaj", append([]string{"up", "--data", dir, "--ready-file", file}, args...)...)
	u := &union{all: p}
	eventually(t, "the ready file", func() error {
		if !p.running() {
			t.Fatalf("falaj up ended with code %d", p.cmd.ProcessState.ExitCode())
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &u.ready)
	})
	return u
}

// base is --base-port with ports that are free.
func base(t *testing.T) string { return "--base-port=" + strconv.Itoa(ports(t, 80)) }

// register is the service of a state's simulated register, and the purpose
// for which it is asked.
func register(state, kind string) (service, purpose string) {
	x := map[string][2]string{
		"persons": {"interior/civil", "identity"}, "vehicles": {"interior/traffic", "traffic"}, "companies": {"commerce/business", "business"},
	}[kind]
	return state + "/GOV/" + x[0] + "/registry", x[1]
}

// as are curl's arguments for a call by a state's portal.
func (u *union) as(t *testing.T, state, purpose, path string) []string {
	t.Helper()
	n := u.node(t, state)
	return []string{"-H", "X-Road-Client: " + n.Client, "-H", "Falaj-Purpose: " + purpose, n.R1 + "/r1/" + path}
}

// sample is the path of an entry of a state's register: the register itself is
// asked, past all nodes.
func (u *union) sample(t *testing.T, state, kind string) (path string, entry answer) {
	t.Helper()
	at := u.node(t, state).Registers[kind]
	var list struct{ Items []struct{ ID string } }
	into(t, string(curl(t, at+"/"+kind+"?limit=1").want(t, 200).body), &list)
	path = "/" + kind + "/" + url.PathEscape(list.Items[0].ID)
	return path, curl(t, at+path).want(t, 200)
}

// read reads an entry of one state's register from another, and holds it
// against what the register itself says. It gives the call's id.
func (u *union) read(t *testing.T, from, to, kind string, args ...string) string {
	t.Helper()
	path, entry := u.sample(t, to, kind)
	service, purpose := register(to, kind)
	a := curl(t, append(u.as(t, from, purpose, service+path), args...)...).want(t, 200)
	if a.sum() != entry.sum() || a.header.Get("Content-Type") != entry.header.Get("Content-Type") {
		t.Fatalf("%s asked %s: %s, and the register says: %s", from, to, a.body, entry.body)
	}
	return a.header.Get("X-Road-Id")
}

// falaj runs a command about a state's node, as its people would. In a union
// of one process the union's folder says where that is.
func (u *union) falaj(t *testing.T, state string, args ...string) string {
	t.Helper()
	r := u.do(t, state, args...)
	if r.code != 0 {
		t.Fatalf("%s: code %d\n%s%s", r.line, r.code, r.out, r.err)
	}
	return r.out
}

func (u *union) do(t *testing.T, state string, args ...string) result {
	t.Helper()
	if u.all != nil {
		return do(t, []string{"FALAJ_UP_DATA=" + u.Data}, "falaj", append([]string{"--state", state}, args...)...)
	}
	return do(t, nil, "falaj", append([]string{"--admin", u.node(t, state).Admin}, args...)...)
}

// granted waits until the caller's node has heard of a grant.
func (u *union) granted(t *testing.T, from, service string) {
	t.Helper()
	began := time.Now()
	eventually(t, "the grant reaches "+from, func() error {
		r := u.do(t, from, "policy", "explain", u.node(t, from).Client, service, "--purpose", "trial")
		if r.code != 0 {
			return fmt.Errorf("%d %s%s", r.code, r.out, r.err)
		}
		return nil
	})
	t.Logf("the grant had reached %s after %v", from, time.Since(began))
}
