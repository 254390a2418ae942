package node

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
)

// showTrace answers who asked what about a person. He is named in the body, and
// nothing that is wrong with the question may repeat him in a log.
func (n *Node) showTrace(ctx context.Context, who admin.Person, params json.RawMessage) (any, error) {
	var q exchange.TraceQuestion
	if admin.Decode(params, &q) != nil {
		return nil, fault.New(fault.BadRequest, "wanted a JSON object of subject and, if need be, since, until (RFC 3339), before, limit")
	}
	return n.exchange.Trace(ctx, q, exchange.Reader{Name: who.Name, May: everyone})
}

func (n *Node) listDelays(context.Context, admin.Person, url.Values) (any, error) {
	b, _ := n.directory.View().File(n.cfg.State, exchange.DelayFile)
	d, err := exchange.ParseDelays(b)
	if err != nil {
		return nil, fault.Wrap(fault.Corrupt, err, "%v", err)
	}
	return append([]exchange.Delay{}, d.Delays...), nil
}

// setDelay changes how much later persons hear of calls for a purpose. The
// purpose need not be on the union's list any more: records of it are kept.
func (n *Node) setDelay(ctx context.Context, _ admin.Person, p exchange.Delay) (admin.Done, error) {
	var before, after exchange.Delays
	err := n.publish(ctx, func(e *directory.Edition) (err error) {
		if before, err = exchange.ParseDelays(e.Files[exchange.DelayFile]); err != nil {
			return fault.Wrap(fault.Conflict, err, "%v", err)
		}
		if _, known := n.directory.View().Purpose(p.Purpose); !known && p.Days > 0 {
			return fault.New(fault.UnknownPurpose, "%s", p.Purpose)
		}
		if after, err = before.Set(p.Purpose, p.Days); err != nil {
			return fault.Wrap(fault.BadRequest, err, "%v", err)
		}
		e.Files[exchange.DelayFile], err = after.Encode()
		return err
	})
	return admin.Done{Result: p, Before: before, After: after}, err
}
