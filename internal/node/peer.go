package node

import (
	"context"
	"runtime/debug"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

const (
	// patience bounds what one round with the keepers of the directory takes.
	patience = 20 * time.Second
	// renewEvery is how often the node looks whether something of its own
	// needs renewal.
	renewEvery = 10 * time.Minute
)

// software is what this node calls itself to others: its name and version.
func software() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "falaj"
	}
	return "falaj " + info.Main.Version
}

// Query answers the questions of other nodes: about the directory here, about
// calls in the exchange, about the log and its witness.
func (n *Node) Query(ctx context.Context, peer link.Peer, kind string, body []byte) ([]byte, error) {
	if strings.HasPrefix(kind, "directory.") {
		return n.directory.Answer(ctx, kind, body, n.asker(peer.State))
	}
	switch kind {
	case witness.KindAdd, witness.KindHeads, witness.KindLog, witness.KindStamp, witness.KindTime, witness.KindHead, witness.KindAlarm:
		return n.askLog(ctx, peer, kind, body)
	}
	return n.exchange.Query(ctx, peer, kind, body)
}

// Exchange answers a sealed request of another node.
func (n *Node) Exchange(ctx context.Context, peer link.Peer, req *link.Message) (*link.Message, error) {
	return n.exchange.Exchange(ctx, peer, req)
}

// sources are the keepers of the directory that the configuration names.
func (n *Node) openSources() error {
	n.overseer = overseerClient(n.net)
	for _, s := range n.cfg.Directory.Sources {
		p, err := directory.HTTPPeer(s, n.overseer, true)
		if err != nil {
			return err
		}
		n.sources = append(n.sources, p)
	}
	return nil
}

// peers are the keepers of the directory whom this node reaches: its sources,
// then the other states over the link.
func (n *Node) peers() []directory.Peer {
	out := n.sources[:len(n.sources):len(n.sources)]
	if n.link == nil {
		return out
	}
	for _, s := range n.directory.View().States() {
		if s.Code != n.cfg.State && len(s.Nodes) > 0 {
			out = append(out, directory.LinkPeer(s.Code, n.asker(s.Code)))
		}
	}
	return out
}

// asker puts questions to another state's node.
func (n *Node) asker(state union.State) directory.Ask {
	return func(ctx context.Context, kind string, body []byte) ([]byte, error) {
		s, ok := n.directory.View().State(state)
		if !ok || len(s.Nodes) == 0 {
			return nil, fault.New(fault.PeerUnreachable, "the directory names no node of %s", state)
		}
		to := link.Target{State: state}
		for _, x := range s.Nodes {
			to.Addrs = append(to.Addrs, x.Address)
		}
		return n.link.Query(ctx, to, kind, body)
	}
}

// follow acts on each new version of the directory: whom it no longer names
// is cut off at once, and the peers hear of it, so that a revocation arrives
// while any of them does.
func (n *Node) follow(ctx context.Context) error {
	news := make(chan struct{}, 1)
	defer close(news)
	go func() {
		for range news {
			n.directory.PassOn(ctx)
		}
	}()
	changed := n.directory.Watch()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			changed = n.directory.Watch()
			n.link.Drop(func(p link.Peer) bool { return !n.identity.known(p) })
			select {
			case news <- struct{}{}:
			default: // what is being passed on next is this version too
			}
		}
	}
}

// renew renews what is due. A state whose node has no time-stamp authority yet,
// and could certify one, gets it.
func (n *Node) renew(ctx context.Context) error {
	if _, err := n.directory.Authority(); err == nil {
		if _, err := n.key(directory.StampKey); err != nil {
			return err
		}
	}
	return n.directory.Renew(ctx)
}

// keepYoung refreshes the directory and renews what is due.
func (n *Node) keepYoung(ctx context.Context) error {
	refresh, renew := time.NewTicker(n.cfg.Directory.Refresh), time.NewTicker(renewEvery)
	defer refresh.Stop()
	defer renew.Stop()
	alarm := operation.NewAlarm(n.log, n.now)
	do := func(what string, f func(context.Context) error) {
		within, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := f(within); ctx.Err() == nil {
			alarm.Report(what, err)
		}
	}
	for {
		do("renewal of what is due", n.renew)
		for due := false; !due; {
			select {
			case <-ctx.Done():
				return nil
			case <-refresh.C:
				do("refresh of the directory", n.directory.Refresh)
			case <-renew.C:
				due = true
			}
		}
	}
}
