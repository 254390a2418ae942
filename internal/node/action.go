package node

import "github.com/falaj/falaj/internal/node/admin"

func (n *Node) actions() []admin.Action { return nil }
func (n *Node) queries() []admin.Query  { return nil }
