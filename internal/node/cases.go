package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/services/traffic"
	"github.com/falaj/falaj/internal/store"
)

// openCases opens this state's half of the union's cases, as a system of the
// state inside the binary.
func (n *Node) openCases() (err error) {
	if n.cases, n.joint, err = n.caseEngine(n.view); err != nil {
		return err
	}
	n.exchange.SetInside(n.cases)
	n.exchange.Mount("cases", n.cases.Door(n.exchange))
	return nil
}

// caseEngine makes an engine over a directory; where there is no exchange it
// only looks.
func (n *Node) caseEngine(view func() (*directory.View, error)) (*casework.Engine, *casework.Library, error) {
	names, err := n.keys.HMAC("casework-1")
	if err != nil {
		return nil, nil, fmt.Errorf("the key that hides the acts in cases: %w", err)
	}
	t := &tables{state: n.cfg.State}
	t.library = casework.NewLibrary(n.cfg.State, traffic.Hooks(t.deps(n.cfg.Demonstration)), view, n.log)
	return casework.New(casework.Config{State: n.cfg.State, Sandbox: n.cfg.Demonstration}, casework.Deps{
		DB: n.db, Journal: n.journal, Records: n.keys.Records(), Names: names, Exchange: n.exchange,
		Book: t.library.Book, Effects: traffic.Effects(), Erase: n.endCase, Now: n.now, Log: n.log,
	}), t.library, nil
}

func jointChecks(n *Node) []operation.Check {
	return []operation.Check{{
		Name: "services", Hint: true, Text: t("The joint services that this state has adopted run here.", "الخدمات المشتركة التي اعتمدتها هذه الدولة تعمل هنا."),
		What: t("A joint service cannot run here, or what a state has adopted cannot be read.", "تعذّر هنا تشغيل خدمة مشتركة أو قراءة ما اعتمدته إحدى الدول."),
		Do:   t("Run a falaj that knows the service at this node; where it is an adoption, that state's operator should correct it with falaj service adopt.", "شغّل في هذه العقدة إصداراً من falaj يعرف الخدمة، وإن كان اعتماداً فعلى مشغّل تلك الدولة تصحيحه بالأمر falaj service adopt."),
		Run: func(context.Context) error {
			found, err := n.joint.Problems()
			if err != nil || len(found) == 0 {
				return err
			}
			return fault.New(fault.CaseVersion, "%s", errors.Join(found...))
		},
	}}
}

// endCase erases the records of a case whose retention has ended.
func (n *Node) endCase(ctx context.Context, leaves []int64, in func(ctx context.Context, tx *store.Tx) error) error {
	held, err := n.heldRecords(ctx, leaves)
	if err != nil {
		return err
	}
	_, err = n.journal.Erase(ctx, journal.Erasure{
		Leaves: leaves, By: []string{"retention"}, Reason: "the retention of the case has ended", At: n.now(), Class: "admin",
	}, n.signArchive, n.vouch, func(ctx context.Context, tx *store.Tx) error {
		if err := held(); err != nil {
			return err
		}
		return in(ctx, tx)
	})
	return err
}
