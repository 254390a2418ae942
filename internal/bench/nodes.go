package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/node/up"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// twoNodes are nodes without any setting.
func twoNodes(ctx context.Context, w World) (Target, error) { return nodes(ctx, w, false, nil) }

// nodes starts a demonstration union of two states and brings the backend into
// it as a person would: offered by one state, granted to a system of the other.
// Every duty is on; nothing knows that it is being measured. With batch one seal
// may be over many messages; set is configuration of both nodes.
func nodes(ctx context.Context, w World, batch bool, set []string) (_ Target, err error) {
	const asks, answers = "SA", "BH"
	anyPort := 0
	u, err := up.Open(ctx, up.Config{Data: w.Dir, States: []union.State{answers, asks}, Base: &anyPort, Set: set}, up.Deps{})
	if err != nil {
		return Target{}, fmt.Errorf("found a union: %w", err)
	}
	undo := operation.Memory() // as the commands do
	ctx, stop := context.WithCancel(ctx)
	running, ready := make(chan error, 1), make(chan up.Ready, 1)
	go func() { running <- u.Run(ctx, func(r up.Ready) error { ready <- r; return nil }) }()
	end := func() error { stop(); defer undo(); return <-running }
	defer func() {
		if err != nil {
			err = errors.Join(err, end())
		}
	}()
	var r up.Ready
	select {
	case r = <-ready:
	case err := <-running:
		running <- err
		return Target{}, fmt.Errorf("the union ended: %w", err)
	}
	provider, consumer := r.Nodes[0], r.Nodes[1]
	client, err := union.ParseSubsystem(consumer.Client)
	if err != nil {
		return Target{}, err
	}
	service, err := union.ParseService(answers + "/GOV/bench/echo/all")
	if err != nil {
		return Target{}, err
	}
	counter := admin.Dial(provider.Admin, nil)
	if _, err := counter.Change(ctx, "service.add", node.ServiceAdd{
		ID: service, Address: w.Backend, Endpoints: []policy.Endpoint{{Method: "*", Path: "/**"}},
	}, nil); err != nil {
		return Target{}, fmt.Errorf("offer the backend: %w", err)
	}
	const purpose = "trial"
	if _, err := counter.Change(ctx, "access.grant", node.Grant{Client: client, Service: service, Purposes: []string{purpose}}, nil); err != nil {
		return Target{}, fmt.Errorf("grant the call: %w", err)
	}
	if batch {
		for _, at := range []up.Place{provider, consumer} {
			if _, err := admin.Dial(at.Admin, nil).Change(ctx, "seal.batch", node.Batch{On: true}, nil); err != nil {
				return Target{}, fmt.Errorf("let seals be of many messages: %w", err)
			}
		}
	}
	target := Target{
		URL:    consumer.R1 + "/r1/" + service.String() + "/echo",
		Header: http.Header{"X-Road-Client": {client.String()}, "Falaj-Purpose": {purpose}},
		Close:  end,
		caller: consumer,
	}
	if err := await(ctx, target); err != nil {
		return Target{}, fmt.Errorf("first call: %w", err)
	}
	if batch {
		// Nodes of a demonstration ask for a directory each second; from the first
		// call on by a new one they give each other twice that time to hear of it.
		for range 3 {
			sleep(ctx, 1500*time.Millisecond)
			if err := await(ctx, target); err != nil {
				return Target{}, fmt.Errorf("a call before batches begin: %w", err)
			}
		}
	}
	return target, nil
}

// await calls until the directory's news has arrived at the asking state.
func await(ctx context.Context, t Target) error {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		err := call(ctx, client, t)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func call(ctx context.Context, client *http.Client, t Target) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	req.Header = t.Header.Clone()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err == nil && (resp.StatusCode != http.StatusOK || string(b) != "{}") {
		err = fmt.Errorf("status %s: %.300q", resp.Status, b)
	}
	return err
}
