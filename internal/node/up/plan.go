package up

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// planFile marks a folder as a union's. Only a folder that has it is ever
// emptied.
const planFile = "up.json"

// plan is what a union on one machine remembers of itself.
type plan struct {
	What    string                         `json:"what"` // planMark
	Founded bool                           `json:"founded"`
	States  []union.State                  `json:"states"`
	Base    int                            `json:"base_port"`
	Ports   map[union.State]map[string]int `json:"ports"` // "": the secretariat
}

const planMark = "falaj union on one machine"

// The doors of a node, in the order of its ports. A state's ports are ten
// apart; the registers' follow the node's own.
const (
	doorR1         = "r1"
	doorR1TLS      = "r1-tls"
	doorLink       = "link"
	doorOperations = "operations"
	doorPublic     = "public"
	doorDirectory  = "directory" // of the secretariat
)

// DefaultBase is the first port where nobody names another.
const DefaultBase = 8100

const portsEach = 10

func doorsOf(s union.State) []string {
	if s == "" {
		return []string{doorDirectory}
	}
	doors := []string{doorR1, doorR1TLS, doorLink, doorOperations}
	for _, x := range served() {
		doors = append(doors, string(x.kind))
	}
	return append(doors, doorPublic)
}

func (p *plan) at(s union.State, door string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Ports[s][door]))
}

func (p *plan) link(s union.State) string { return p.at(s, doorLink) }

// log is where everybody reads a state's log.
func (p *plan) public(s union.State) string { return "http://" + p.at(s, doorPublic) }

// assign gives every door its port: from base on, or with base 0 any that are
// free now.
func (p *plan) assign(base int) error {
	last := base + (len(p.States)+1)*portsEach
	if base < 0 || base > 0 && base < 1024 || last > 65535 {
		return fault.New(fault.Usage, "--base-port: %d is not between 1024 and %d (or 0, for any free ports)", base, 65535-(len(p.States)+1)*portsEach)
	}
	p.Base, p.Ports = base, map[union.State]map[string]int{}
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for i, s := range append(slices.Clone(p.States), "") {
		p.Ports[s] = map[string]int{}
		for k, door := range doorsOf(s) {
			if base > 0 {
				p.Ports[s][door] = base + i*portsEach + k
				continue
			}
			l, err := anyPort()
			if err != nil {
				return fmt.Errorf("looking for a free port: %w", err)
			}
			held = append(held, l)
			p.Ports[s][door] = l.Addr().(*net.TCPAddr).Port
		}
	}
	return nil
}

// whole tells whether every door has a port: a plan of an earlier version may
// lack some.
func (p *plan) whole() bool {
	for _, s := range append(slices.Clone(p.States), "") {
		for _, door := range doorsOf(s) {
			if p.Ports[s][door] == 0 {
				return false
			}
		}
	}
	return true
}

// anyPort listens on a free port below those that systems give to outgoing
// connections: one of these could be taken again before the union starts.
func anyPort() (l net.Listener, err error) {
	for range 100 {
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.N(20_000))); err == nil {
			return l, nil
		}
	}
	return nil, err
}

// free refuses ports on which another program listens: it names the first.
func (p *plan) free() error {
	for _, s := range append(slices.Clone(p.States), "") {
		for _, door := range doorsOf(s) {
			l, err := net.Listen("tcp", p.at(s, door))
			if err != nil {
				return p.taken(err, fmt.Sprintf("%s, for %s", p.at(s, door), strings.TrimSpace(door+" "+string(s))))
			}
			l.Close()
		}
	}
	return nil
}

// taken adds to the error of a taken port what helps here.
func (p *plan) taken(err error, where string) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	last := p.Base + (len(p.States)+1)*portsEach - 1
	return fault.Wrap(fault.PortTaken, err, "%s\nthe union's ports here are %d to %d; --base-port N takes others, --base-port 0 any that are free", where, p.Base, last).
		Arabic("%s\nمنافذ الاتحاد هنا من %d إلى %d؛ يأخذ --base-port N غيرها، و--base-port 0 أي منافذ شاغرة", where, p.Base, last)
}

// readPlan reads a folder's plan; nil where there is none.
func readPlan(dir string) (*plan, error) {
	b, err := os.ReadFile(filepath.Join(dir, planFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the union's folder: %w", err)
	}
	var p plan
	if err := json.Unmarshal(b, &p); err != nil || p.What != planMark {
		return nil, fault.New(fault.Conflict, "%s is not a union's folder: its %s is another's", dir, planFile)
	}
	return &p, nil
}

func (p *plan) write(dir string) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, planFile), append(b, '\n'))
}

// replace writes a file whole or not at all.
func replace(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// empty removes what a union put into its folder, and only that.
func empty(dir string, p *plan) error {
	for _, s := range p.States {
		if err := os.RemoveAll(filepath.Join(dir, string(s))); err != nil {
			return fmt.Errorf("removing the old union: %w", err)
		}
	}
	for _, name := range []string{"secretariat", ReadyFile, planFile} { // the mark last
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("removing the old union: %w", err)
		}
	}
	return nil
}
