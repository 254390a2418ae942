package node

import (
	"fmt"

	"github.com/falaj/falaj/internal/casework"
)

// openCases opens this state's half of the union's cases, as a system of the
// state inside the binary.
func (n *Node) openCases() error {
	names, err := n.keys.HMAC("casework-1")
	if err != nil {
		return fmt.Errorf("the key that hides the acts in cases: %w", err)
	}
	n.cases = casework.New(casework.Config{State: n.cfg.State}, casework.Deps{
		DB: n.db, Journal: n.journal, Records: n.keys.Records(), Names: names, Exchange: n.exchange,
		Book: casework.NewLibrary(n.cfg.State, nil, n.view).Book, Now: n.now, Log: n.log,
	})
	n.exchange.SetInside(n.cases)
	n.exchange.Mount("cases", n.cases.Door(n.exchange))
	return nil
}
