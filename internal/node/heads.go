package node

import (
	"context"
	"net/url"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// Witnessed is which heads the states' witnesses have cosigned last.
type Witnessed struct {
	Logs  Logs                           `json:"logs"`
	Heads map[union.State][]witness.Head `json:"heads"` // by the state whose log it is
	Away  []union.State                  `json:"away"`  // whose witness did not answer
}

// headsTime is how long the witnesses have to answer.
const headsTime = 5 * time.Second

// listHeads asks each state's witness, this one's own too, what it has seen.
func (n *Node) listHeads(ctx context.Context, who admin.Person, q url.Values) (any, error) {
	within, cancel := context.WithTimeout(ctx, headsTime)
	defer cancel()
	all, err := n.listLogs(ctx, who, q)
	if err != nil {
		return nil, err
	}
	u := n.parties()
	out := Witnessed{Logs: all.(Logs), Heads: map[union.State][]witness.Head{}, Away: []union.State{}}
	answers := make([][]byte, len(u.Parties))
	errs := make([]error, len(u.Parties))
	var asked sync.WaitGroup
	for i, p := range u.Parties {
		asked.Go(func() {
			if p.State == n.cfg.State {
				answers[i], errs[i] = n.witness.Heads(within)
				return
			}
			if p.State == witness.Secretariat {
				answers[i], errs[i] = n.askSecretariat(within, witness.KindHeads, nil)
				return
			}
			answers[i], errs[i] = n.asker(p.State)(within, witness.KindHeads, nil)
		})
	}
	asked.Wait()
	for i, p := range u.Parties {
		if errs[i] != nil {
			out.Away = append(out.Away, p.State)
			continue
		}
		for _, of := range u.Parties {
			if of.State != p.State {
				out.Heads[of.State] = append(out.Heads[of.State], witness.Known(string(p.State), answers[i], of.Log)...)
			}
		}
	}
	return out, nil
}
