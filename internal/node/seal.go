package node

import (
	"context"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/node/admin"
)

// Batch says whether one signature of this state may seal many messages to a
// state that says the same.
type Batch struct {
	On bool `json:"on"`
}

// setBatch says so in the directory. The law of either state may be against it:
// it takes both.
func (n *Node) setBatch(ctx context.Context, _ admin.Person, p Batch) (admin.Done, error) {
	before := Batch{}
	err := n.publish(ctx, func(e *directory.Edition) error {
		before.On, e.Batch = e.Batch, p.On
		return nil
	})
	return admin.Done{Result: p, Before: before, After: p}, err
}
