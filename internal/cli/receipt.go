package cli

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/witness"
)

// receiptTime is how long a person waits for a receipt before he is told that
// there is none yet.
const receiptTime = 10 * time.Second

type evidenceReceiptCmd struct {
	ID string `arg:"" name:"id"`
}

func (c *evidenceReceiptCmd) Run(s *session) error {
	var r exchange.CallReceipt
	for end := time.Now().Add(receiptTime); ; {
		err := s.ask("receipt", c.ID, &r)
		if err == nil {
			break
		}
		var pending *admin.Refusal
		if !errors.As(err, &pending) || pending.Code != fault.ReceiptPending || time.Now().After(end) {
			return err
		}
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return s.show(r, func() {
		s.printf("%s %s\n", s.say(t("Log:", "سجل الشفافية:")), r.Log)
		s.line(r.Quorum.Note)
		slices.SortFunc(r.Quorum.Witnesses, func(a, b exchange.Cosigner) int { return strings.Compare(a.Name, b.Name) })
		for _, w := range r.Quorum.Witnesses {
			state := string(w.State)
			if w.State == witness.Secretariat {
				state = s.say(t("secretariat", "الأمانة العامة"))
			}
			s.printf("  %s  %s  %s\n", pad(state, len("secretariat")+2), w.At.UTC().Format(time.RFC3339), w.Name)
		}
		s.line(r.Time)
		for _, x := range r.Records {
			s.printf(s.say(t("\nReceipt of %s, leaf %d:\n", "\nإيصال %s، الورقة %d:\n")), s.kind(x.Kind), x.Leaf)
			s.printf("%s", x.Proof)
			if x.Stamp != nil {
				const form = "2006-01-02T15:04:05.000Z07:00"
				s.printf("%s %s  %s\n", s.say(t("Time-stamp:", "الطابع الزمني:")), x.Stamp.At.Format(form), x.Stamp.Authority)
				for _, r := range x.Stamp.Renewals {
					s.printf("%s %s  %s\n", s.say(t("Renewed:", "جُدّد:")), r.At.Format(form), r.Authority)
				}
			}
		}
	})
}

// kind is the name of a kind of record in the person's language.
func (s *session) kind(name string) string {
	for k := journal.RequestSent; k <= journal.CaseEvent; k++ {
		if k.String() == name {
			return s.say(k.Text())
		}
	}
	return name
}

type logRenewCmd struct{}

func (c *logRenewCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var log directory.Log
	return s.changed(n, "log.renew", struct{}{}, &log, func() {
		s.printf("%s %s\n", s.say(t("The state's log is now:", "سجل الشفافية للدولة الآن:")), log.Key.Name())
	})
}

type logOpenCmd struct {
	Public    string `placeholder:"URL" xor:"public"`
	UnionOnly bool   `xor:"public"`
}

func (c *logOpenCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var log directory.Log
	return s.changed(n, "log.open", node.LogOpen{Public: c.Public, UnionOnly: c.UnionOnly}, &log, func() {
		s.printf("%s %s\n", s.say(t("The state's log:", "سجل الشفافية للدولة:")), log.Key)
		s.printf("%s %s\n", s.say(t("Its witness of the others':", "شاهدها على سجلات الدول الأخرى:")), log.Witness)
		if log.Address == "" {
			s.line(t("Only the union reads it.", "لا يطّلع عليه إلا الاتحاد."))
		} else {
			s.printf("%s %s\n", s.say(t("Everybody reads it at:", "يطّلع عليه الجميع في:")), log.Address)
		}
	})
}

type logMLDSACmd struct {
	Off bool
}

func (c *logMLDSACmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var log directory.Log
	return s.changed(n, "log.mldsa", node.Quantum{On: !c.Off}, &log, func() {
		if log.Quantum == (merkle.Key{}) {
			s.line(t("The state's witness cosigns with Ed25519 alone.", "شاهد الدولة يوقّع بخوارزمية Ed25519 وحدها."))
			return
		}
		s.line(t("The state's witness cosigns with Ed25519 and ML-DSA-44.", "شاهد الدولة يوقّع بخوارزميتي Ed25519 وML-DSA-44."))
	})
}

type sealCmd struct {
	Batch sealBatchCmd `cmd:""`
}

type sealBatchCmd struct {
	Off bool
}

func (c *sealBatchCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	var now node.Batch
	return s.changed(n, "seal.batch", node.Batch{On: !c.Off}, &now, func() {
		if now.On {
			s.line(t("One signature of this state may seal many messages, to states that allow it too.", "يجوز أن يختم توقيع واحد لهذه الدولة رسائل كثيرة إلى الدول التي تقبل ذلك."))
			return
		}
		s.line(t("Each message of this state is sealed by itself.", "كل رسالة من هذه الدولة تُختم وحدها."))
	})
}

type logCmd struct {
	Alarms logAlarmsCmd `cmd:""`
	Open   logOpenCmd   `cmd:""`
	Renew  logRenewCmd  `cmd:""`
	Audit  logAuditCmd  `cmd:""`
	Watch  logWatchCmd  `cmd:""`
	MLDSA  logMLDSACmd  `cmd:"" name:"mldsa"`
}

type logAuditCmd struct {
	URL     string   `arg:"" name:"url"`
	LogKey  string   `placeholder:"KEY"`
	Witness []string `sep:"none" placeholder:"KEY"`
	Quorum  int      `default:"-1" placeholder:"N"`
}

// auditedLog is what came of an audit.
type auditedLog struct {
	Log       string   `json:"log"`
	Key       string   `json:"key"`
	Entries   int64    `json:"entries"`
	Tiles     int64    `json:"tiles"`
	Root      string   `json:"root"`
	Witnesses []string `json:"witnesses"`
	Quorum    int      `json:"quorum"`
	OK        bool     `json:"ok"`
}

// Run recomputes a log. Whose keys count, the command line says, or else the
// directory of a running node.
func (c *logAuditCmd) Run(s *session) error {
	if !strings.HasPrefix(c.URL, "http://") && !strings.HasPrefix(c.URL, "https://") {
		return fault.New(fault.Usage, "%q is not an http(s) address", c.URL)
	}
	get := c.get(&http.Client{Timeout: time.Minute})
	trust, err := c.trust(s, get)
	if err != nil {
		return err
	}
	a, err := witness.Audit(s.ctx, get, trust)
	few := errors.Is(err, merkle.ErrQuorum)
	if err != nil && !few {
		return err
	}
	out := auditedLog{Log: a.Head.Origin, Key: trust.Log.String(), Entries: a.Entries, Tiles: a.Tiles, Root: a.Head.Root.String(), Witnesses: []string{}, Quorum: trust.Quorum, OK: !few}
	for _, w := range a.Head.Cosignatures {
		out.Witnesses = append(out.Witnesses, w.Key.Name())
	}
	if err := s.show(out, func() {
		s.printf(s.say(t("%s is whole: its entries and tiles give the root that it signed (entries: %d, tiles: %d).\n", "سجل الشفافية %s سليم: قيوده وألواحه تعطي الجذر الذي وقّعه (القيود: %d، الألواح: %d).\n")), out.Log, out.Entries, out.Tiles)
		if trust.Quorum == 0 {
			s.line(t("! No cosignatures were asked for: another history could be shown to others. Name the witnesses with --witness and how many it takes with --quorum.", "! لم يُطلب أي توقيع للشهود، فقد يُعرض على غيرك تاريخ آخر. سمِّ الشهود بالخيار --witness والعدد اللازم منهم بالخيار --quorum."))
		} else {
			s.printf(s.say(t("Cosigned by: %d (needed: %d).\n", "الشهود الموقّعون: %d (اللازم: %d).\n")), a.Head.Witnesses(), trust.Quorum)
		}
		for _, w := range out.Witnesses {
			s.printf("  %s\n", w)
		}
		if few {
			s.line(t("Fewer witnesses vouch for it than it takes: another history could be shown to others.", "الشهود أقل من اللازم، فقد يُعرض على غيرك سجل شفافية مختلف."))
		}
	}); err != nil {
		return err
	}
	if few {
		return errExit(ExitFailed)
	}
	return nil
}

// maxPart bounds one part of a log, in bytes: a bundle of the largest entries.
const maxPart = 17 << 20

func (c *logAuditCmd) get(client *http.Client) witness.Get {
	base := strings.TrimSuffix(c.URL, "/") + "/"
	return func(ctx context.Context, path string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
		if err != nil {
			return nil, fault.New(fault.Usage, "%v", err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, fault.Wrap(fault.LogUnreadable, err, "%v", err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxPart+1))
		switch {
		case err != nil:
			return nil, fault.Wrap(fault.LogUnreadable, err, "%v", err)
		case resp.StatusCode == http.StatusNotFound && path == "checkpoint" && !strings.HasSuffix(base, "/log/"):
			return nil, fault.New(fault.LogUnreadable, "%s: %s; try %slog", base+path, resp.Status, base)
		case resp.StatusCode == http.StatusNotFound && path == "checkpoint":
			return nil, fault.New(fault.LogUnreadable, "%s: %s", base+path, resp.Status)
		case resp.StatusCode == http.StatusNotFound:
			return nil, fault.New(fault.NotFound, "%s: %s", base+path, resp.Status)
		case resp.StatusCode != http.StatusOK:
			return nil, fault.New(fault.LogUnreadable, "%s: %s", base+path, resp.Status)
		case len(b) > maxPart:
			return nil, fault.New(fault.TooLarge, "%s", base+path)
		}
		return b, nil
	}
}

func (c *logAuditCmd) trust(s *session, get witness.Get) (trust merkle.Trust, err error) {
	if c.LogKey != "" {
		if trust.Log, err = merkle.ParseKey(c.LogKey); err != nil {
			return trust, fault.New(fault.Usage, "--log-key: %v", err)
		}
		for _, text := range c.Witness {
			k, err := merkle.ParseKey(text)
			if err != nil {
				return trust, fault.New(fault.Usage, "--witness: %v", err)
			}
			trust.Witnesses = append(trust.Witnesses, k)
		}
		trust.Quorum = max(0, c.Quorum)
		return trust, nil
	}
	if len(c.Witness) > 0 {
		return trust, fault.New(fault.Usage, "--witness goes with --log-key")
	}
	head, err := get(s.ctx, "checkpoint")
	if err != nil {
		return trust, err
	}
	var logs node.Logs
	if err := s.find(func(n *target) error { return n.Query(s.ctx, "logs", nil, &logs) }); err != nil {
		if fault.CodeOf(err) == fault.NoNode {
			return trust, fault.Wrap(fault.NoNode, err, "whose key the log must be signed with, the directory of a node tells, or --log-key KEY with --witness KEY and --quorum N").
				Arabic("المفتاح الذي يجب أن يوقّع السجل يُعرف من دليل عقدة، أو من الخيارات --log-key KEY و--witness KEY و--quorum N")
		}
		return trust, err
	}
	origin := merkle.Origin(head)
	for _, p := range logs.Logs {
		if p.Key.Name() == origin {
			trust, _ = logs.Union().Trust(p.State)
			if c.Quorum >= 0 {
				trust.Quorum = c.Quorum
			}
			return trust, nil
		}
	}
	return trust, fault.New(fault.NotFound, "the directory names no log %.200q; its key may be given with --log-key", origin)
}
