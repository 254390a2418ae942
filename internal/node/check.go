package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/union"
)

// soon is how long before its end a certificate or the directory is worth a
// word: long enough for a person to act.
const soon = 14 * 24 * time.Hour

// checks are what the node needs to serve, and what its people should know.
func (n *Node) checks() []operation.Check {
	text := func(en, ar string) union.Text { return union.Text{En: en, Ar: ar} }
	return append([]operation.Check{
		{Name: "journal", Text: text("The journal accepts records.", "السجل يقبل القيود."), Run: func(context.Context) error { return n.journal.Err() }},
		{Name: "store", Text: text("The database answers.", "قاعدة البيانات تستجيب."), Run: func(ctx context.Context) error {
			var one int
			if err := n.db.QueryRow(ctx, `SELECT 1`).Scan(&one); err != nil {
				return fault.Wrap(fault.StoreFailed, err, "it does not answer")
			}
			return nil
		}},
		{Name: "directory", Text: text("The directory is in force.", "الدليل ساري المفعول."), Run: func(context.Context) error {
			v, err := n.view()
			if err == nil {
				err = v.Fresh(n.now(), n.cfg.State)
			}
			return err
		}},
		{Name: "tls", Text: text("The node has a valid certificate for the link.", "لدى العقدة شهادة صالحة للربط."),
			What: text("The directory holds no certificate with which this node can show itself on the link.", "لا يحوي الدليل شهادة تُعرّف بها هذه العقدة نفسها على الربط."),
			Do:   text("See that its name, its key folder and the directory agree.", "تحقق من توافق اسمها ومجلد مفاتيحها والدليل."), Run: func(context.Context) error {
				_, err := n.identity.TLS()
				return err
			}},
		{Name: "seals", Hint: true, Text: text("The members of the clients and services have their seals here.", "أختام الجهات صاحبة الأنظمة موجودة هنا."), Run: func(context.Context) error {
			for _, c := range n.exchange.Local().Clients() {
				if _, err := n.identity.Seal(c.ID.MemberID); err != nil {
					return err
				}
			}
			for _, b := range n.exchange.Local().Backends() {
				if _, err := n.identity.Seal(b.Service.MemberID); err != nil {
					return err
				}
			}
			return nil
		}},
		{Name: "expiry", Hint: true, Text: text("No certificate of this node ends soon.", "لا تنتهي أي شهادة لهذه العقدة قريباً."),
			What: text("A certificate of this node ends soon.", "تنتهي قريباً شهادة لهذه العقدة."),
			Do:   text("Renew it with falaj key renew.", "جدّدها بالأمر falaj key renew."), Run: func(context.Context) error { return n.ending() }},
		{Name: "parts", Hint: true, Text: text("The directory's parts are what the states last signed.", "أجزاء الدليل هي آخر ما وقّعته الدول."),
			What: text("What a state last signed in the directory is refused here; its last good part stays in force.", "رُفض هنا آخر ما وقّعته إحدى الدول في الدليل، ويبقى آخر جزء سليم منها سارياً."),
			Do:   text("That state's operator should correct it.", "على مشغّل تلك الدولة تصحيحه."), Run: func(context.Context) error {
				for _, p := range n.directory.View().Problems() {
					return fault.New(fault.DirectoryInvalid, "%s: %s", p.State, p.Detail)
				}
				return nil
			}},
		{Name: "sources", Hint: true, Text: text("The directory can be fetched where the configuration says.", "يمكن جلب الدليل من حيث تقول الإعدادات."),
			What: text("The directory cannot be fetched where the configuration says.", "تعذّر جلب الدليل من حيث تقول الإعدادات."),
			Do:   text("Name the secretariat's address under directory.sources, and see that the network lets this node through to it.", "اذكر عنوان الأمانة العامة تحت directory.sources، وتحقق من أن الشبكة تسمح لهذه العقدة بالوصول إليه."), Run: n.sourced},
		{Name: "peers", Hint: true, Text: text("The other states' nodes can be reached.", "يمكن الوصول إلى عقد الدول الأخرى."),
			What: text("Other states' nodes cannot be reached from here.", "تعذّر الوصول من هنا إلى عقد دول أخرى."),
			Do:   text("See whether they run, and whether the network lets this node through to their addresses.", "تحقق من أنها تعمل، ومن أن الشبكة تسمح لهذه العقدة بالوصول إلى عناوينها."), Run: n.reach},
		{Name: "persons", Hint: true, Text: text("Whatever takes two persons finds them.", "كل ما يتطلب شخصين يجدهما."),
			What: text("What takes two persons cannot be done at this node.", "لا يمكن في هذه العقدة تنفيذ ما يتطلب شخصين."),
			Do:   text("List at least two persons with the roles under admin.persons in its configuration.", "أدرج في إعداداتها تحت admin.persons شخصين على الأقل يحملان الأدوار."), Run: n.seconded},
		{Name: "outcomes", Hint: true, Text: text("No call's outcome is unknown.", "لا يوجد طلب مجهول النتيجة."),
			What: text("Of some calls nobody knows whether they took effect.", "توجد طلبات لا يُعرف هل نُفّذت."),
			Do:   text("Decide each; falaj outcome list has them all.", "بُتّ في كل منها، وكلها في falaj outcome list."), Run: func(ctx context.Context) error {
				list, err := n.exchange.Outcomes(ctx, 3) // falaj outcome list has them all
				if err != nil || len(list) == 0 {
					return err
				}
				var commands []string
				for _, o := range list {
					commands = append(commands, fmt.Sprintf("falaj outcome resolve %s '%s' --happened|--nothing --reason TEXT", o.Client, o.ID))
				}
				return fault.New(fault.OutcomeUnknown, "%s", strings.Join(commands, "\n"))
			}},
		{Name: "pushes", Hint: true, Text: text("The outcomes of asynchronous calls reach those who asked for them.", "نتائج الطلبات غير المتزامنة تصل إلى طالبيها."),
			What: text("Outcomes could not be pushed to the address that a client named; they are tried again.", "تعذّر دفع نتائج إلى العنوان الذي حدّده العميل، وستُعاد المحاولة."),
			Do:   text("See whether its system runs, and correct the address with falaj client add --push; falaj delivery list has them all.", "تحقق من أن نظامه يعمل، وصحّح العنوان بالأمر falaj client add --push، وكلها في falaj delivery list."), Run: func(ctx context.Context) error {
				waiting, err := n.exchange.Unpushed(ctx)
				if err != nil || len(waiting) == 0 {
					return err
				}
				var lines []string
				for _, client := range slices.Sorted(maps.Keys(waiting)) {
					lines = append(lines, fmt.Sprintf("%s: %d", client, waiting[client]))
				}
				return fault.New(fault.DeliveryPending, "%s", strings.Join(lines, "\n"))
			}},
	}, slices.Concat(logChecks(n), stampChecks(n), alarmChecks(n), caseChecks(n), jointChecks(n))...)
}

// seconded tells which changes nobody can make for want of a second person.
func (n *Node) seconded(context.Context) error {
	if n.cfg.Admin.SecondPerson == config.Waived {
		return nil
	}
	var lost []string
	for _, a := range n.actions() {
		able := slices.ContainsFunc(n.cfg.Admin.Persons, func(p config.Person) bool {
			return admin.Person{Roles: p.Roles}.Has(a.Roles) && admin.Seconded(n.cfg.Admin.Persons, a.Roles, p.Name)
		})
		if a.Two && !able {
			lost = append(lost, a.Name)
		}
	}
	if lost == nil {
		return nil
	}
	return fault.New(fault.NeedsSecondPerson, "%s", strings.Join(lost, ", "))
}

// ending names a certificate in this node's use that ends soon.
func (n *Node) ending() error {
	v := n.directory.View()
	s, _ := v.State(n.cfg.State)
	certs := map[string][]directory.Cert{}
	for _, x := range s.Nodes {
		if x.Name == n.cfg.Name {
			certs["of node "+x.Name] = x.Certificates
		}
	}
	for _, m := range s.Members {
		if n.keys.Has(directory.SealKey(m.ID)) {
			certs["of the seal of "+m.ID.String()] = m.Seals
		}
	}
	for what, list := range certs {
		var last time.Time
		for _, c := range list {
			if known, ok := v.Certificate(sha256.Sum256(c.Raw)); ok && known.Revoked == nil && c.NotAfter.After(last) {
				last = c.NotAfter
			}
		}
		if last.Sub(n.now()) < soon {
			return fault.New(fault.CertExpired, "the certificate %s ends at %s; falaj key renew gives it a new one", what, last.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// sourced asks each of the configuration's sources for a small file.
func (n *Node) sourced(ctx context.Context) error {
	if len(n.sources) == 0 {
		return fault.New(fault.ConfigInvalid, "directory.sources names none")
	}
	errs := make([]error, len(n.sources))
	var asked sync.WaitGroup
	for i, p := range n.sources {
		asked.Go(func() { _, errs[i] = p.Fetcher.Fetch(ctx, "timestamp.json", 64<<10) })
	}
	asked.Wait()
	var lost []string
	for i, err := range errs {
		if err != nil {
			lost = append(lost, n.cfg.Directory.Sources[i]+": "+fault.From(err).Detail)
		}
	}
	if lost == nil {
		return nil
	}
	return fault.New(fault.PeerUnreachable, "%s", strings.Join(lost, "\n"))
}

// reach asks each state's node for a small file.
func (n *Node) reach(ctx context.Context) error {
	errs := make(chan error)
	states := n.directory.View().States()
	asked := 0
	for _, s := range states {
		if s.Code == n.cfg.State || len(s.Nodes) == 0 {
			continue
		}
		asked++
		go func() {
			_, err := n.asker(s.Code)(ctx, directory.KindFetch, []byte("timestamp.json"))
			if err != nil {
				err = fault.Wrap(fault.PeerUnreachable, err, "%s: %s", s.Code, fault.From(err).Detail)
			}
			errs <- err
		}()
	}
	var lost []string
	for range asked {
		if err := <-errs; err != nil {
			lost = append(lost, fault.From(err).Detail)
		}
	}
	if lost == nil {
		return nil
	}
	slices.Sort(lost)
	return fault.New(fault.PeerUnreachable, "%s", strings.Join(lost, "\n"))
}
