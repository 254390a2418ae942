package up

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/registry"
	"github.com/falaj/falaj/internal/union"
)

// ReadyFile is the name, in the union's folder, of the file that says where
// everything is while it runs.
const ReadyFile = "ready.json"

// Ready says where everything of a running union is. It is a contract with
// scripts: fields are added, none is changed.
type Ready struct {
	Data        string   `json:"data"`
	Nodes       []Place  `json:"nodes"`
	Secretariat string   `json:"secretariat"`
	Examples    []string `json:"examples"` // lines for a shell
}

// Place is where a state's node is.
type Place struct {
	State union.State `json:"state"`
	Name  union.Text  `json:"name"`
	node.Addresses
	Client    string            `json:"client"`    // subsystem that may call, for X-Road-Client
	Registers map[string]string `json:"registers"` // the simulated registers, by kind
	Config    string            `json:"config"`
}

func (r *Ready) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := replace(path, append(b, '\n')); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// Write writes the file that scripts wait for: whole, or not at all.
func (r *Ready) Write(path string) error { return r.write(path) }

func (u *Union) ready() (Ready, error) {
	r := Ready{Data: u.dir, Secretariat: u.secretariat.Address()}
	for i, s := range u.plan.States {
		x, err := seat(s)
		if err != nil {
			return r, err
		}
		p := Place{State: s, Name: x.Name, Addresses: u.nodes[i].Addresses(), Client: portal(s).String(), Registers: map[string]string{}, Config: u.folder(string(s)) + "/node.yaml"}
		for _, x := range served() {
			p.Registers[string(x.kind)] = "http://" + u.plan.at(s, string(x.kind))
		}
		r.Nodes = append(r.Nodes, p)
	}
	for i, x := range served() {
		// The second state asks the first about a vehicle, the third about a
		// company, and so on round.
		from := r.Nodes[(i+len(served())-1)%len(served())%len(r.Nodes)]
		if len(r.Nodes) > 1 {
			from = r.Nodes[1+(i+len(served())-1)%len(served())%(len(r.Nodes)-1)]
		}
		r.Examples = append(r.Examples, fmt.Sprintf("curl -H 'X-Road-Client: %s' -H 'Falaj-Purpose: %s' %s/r1/%s/%s%s",
			from.Client, x.purpose, from.R1, id(u.plan.States[0], x.member, x.code), service, u.samples[x.kind]))
	}
	return r, nil
}

// Unready is a node that runs and takes no calls, and why.
type Unready struct {
	State  union.State         `json:"state"`
	Checks []operation.Finding `json:"checks"`
}

const (
	// startTime is how long a union may take to start.
	startTime = 2 * time.Minute
	// patience is how long a node may say why it takes no calls before people
	// are told: what is over by itself, is over by then.
	patience = 5 * time.Second
)

// await asks until every node takes calls and a first call has crossed. Where
// a node keeps saying that something is wrong with it, stuck is called once;
// then it is for people, however long they take.
func (u *Union) await(ctx context.Context, stuck func(Ready, []Unready) error) (Ready, error) {
	r, err := u.ready()
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(startTime, cancel)
	defer late.Stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(url string, head map[string]string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		for k, v := range head {
			req.Header.Set(k, v)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fault.New(fault.Internal, "%s answered %s: %s", url, resp.Status, strings.TrimSpace(string(b)))
		}
		return err
	}
	// failing asks what is wrong with the nodes that answer.
	failing := func() (out []Unready) {
		for _, n := range r.Nodes {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Operations+"/readyz", http.NoBody)
			if err != nil {
				continue
			}
			resp, err := client.Do(req)
			if err != nil {
				continue
			}
			var x Unready
			err = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&x)
			resp.Body.Close()
			x.State = n.State
			x.Checks = slices.DeleteFunc(x.Checks, func(f operation.Finding) bool { return f.OK })
			if err == nil && len(x.Checks) > 0 {
				out = append(out, x)
			}
		}
		return out
	}
	began, told := time.Now(), false
	until := func(try func() error) error {
		for {
			err := try()
			if err == nil {
				return nil
			}
			if !told && time.Since(began) >= patience {
				if list := failing(); list != nil {
					told = true
					late.Stop()
					if err := stuck(r, list); err != nil {
						return err
					}
				}
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	for _, n := range r.Nodes {
		if err := until(func() error { return get(n.Operations+"/readyz", nil) }); err != nil {
			return r, err
		}
	}
	// The first call opens the links and fills the registers.
	from, to := r.Nodes[len(r.Nodes)-1], u.plan.States[0]
	if len(r.Nodes) > 1 {
		from = r.Nodes[1]
	}
	x := served()[1]
	err = until(func() error {
		return get(fmt.Sprintf("%s/r1/%s/%s%s", from.R1, id(to, x.member, x.code), service, u.samples[registry.Vehicles]),
			map[string]string{"X-Road-Client": from.Client, "Falaj-Purpose": x.purpose})
	})
	return r, err
}
