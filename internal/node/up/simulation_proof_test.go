package up

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// calm waits until the union has come to rest, and tells what keeps it from
// that: everybody has the same directory and takes calls, every log is cosigned
// by its quorum to its end and stamped, is a continuation of every head that
// any witness has ever cosigned, and nobody waits for anything or accuses
// anybody.
func (s *simulation) calm(office *node.Secretariat) (restless []string) {
	via := &http.Transport{DialContext: s.net.host(secretariatSite).dial}
	defer via.CloseIdleConnections()
	for begun := time.Now(); time.Since(begun) < 10*time.Minute; time.Sleep(5 * time.Second) {
		if restless = s.restless(via, office); len(restless) == 0 {
			break
		}
	}
	union := unionOf(office)
	for _, x := range s.sites { // the whole of each log, entry by entry
		trust, _ := union.Trust(x.state)
		if _, err := witness.Audit(context.Background(), s.public(via, x), trust); err != nil {
			restless = append(restless, fmt.Sprintf("the log of %s: %v", x.state, err))
		}
	}
	return restless
}

func (s *simulation) restless(via *http.Transport, office *node.Secretariat) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	union := unionOf(office)
	known := map[string][]byte{}
	for _, x := range s.sites {
		b, err := get(via, s.plan.public(x.state)+"/log/heads")
		if err != nil {
			say("the witness of %s: %v", x.state, err)
		}
		known[string(x.state)] = b
	}
	b, err := get(via, "http://"+s.plan.at("", doorDirectory)+"/witness/heads")
	if err != nil {
		say("the secretariat's witness: %v", err)
	}
	known["secretariat"] = b
	for _, x := range s.sites {
		if v, w := x.node.Directory().View().Version(), office.Directory().View().Version(); v != w {
			say("%s has version %d of the directory, the secretariat %d", x.state, v, w)
		}
		operations := "http://" + s.plan.at(x.state, doorOperations)
		if _, err := get(via, operations+"/readyz"); err != nil {
			say("%s is not ready: %v", x.state, err)
		}
		meters, err := get(via, operations+"/metrics")
		if err != nil {
			say("the meters of %s: %v", x.state, err)
		}
		for _, meter := range []string{"falaj_alarms", "falaj_promises_waiting", "falaj_stamp_waiting_seconds", "falaj_requests_in_flight"} {
			if !strings.Contains(string(meters), "\n"+meter+" 0\n") {
				_, v, _ := strings.Cut(string(meters), "\n"+meter+" ")
				v, _, _ = strings.Cut(v, "\n")
				say("%s: %s is %s", x.state, meter, v)
			}
		}
		trust, _ := union.Trust(x.state)
		var heads []witness.Head
		for by, b := range known {
			heads = append(heads, witness.Known(by, b, trust.Log)...)
		}
		if len(heads) < len(s.sites) { // the others' and the secretariat's
			say("%d witnesses know the log of %s", len(heads), x.state)
		}
		if sight, _ := witness.Look(context.Background(), x.state, s.public(via, x), trust, heads); sight.What != witness.SightGrown {
			say("the log of %s: %+v", x.state, sight)
		}
	}
	return out
}

func (s *simulation) public(via *http.Transport, x *site) witness.Get {
	return func(_ context.Context, path string) ([]byte, error) {
		return get(via, s.plan.public(x.state)+"/log/"+path)
	}
}

func get(via *http.Transport, url string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := via.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, fault.New(fault.NotFound, "%s", url)
	case err == nil && resp.StatusCode != http.StatusOK:
		err = fmt.Errorf("%s: %s %.300s", url, resp.Status, b)
	}
	return b, err
}

func unionOf(office *node.Secretariat) witness.Union {
	v := office.Directory().View()
	u := witness.Union{Quorum: v.Quorum(), Parties: []witness.Party{{State: witness.Secretariat, Witness: v.Witness()}}}
	for _, x := range v.States() {
		u.Parties = append(u.Parties, witness.Party{State: x.Code, Log: x.Log.Key, Witness: x.Log.Witness})
	}
	return u
}

// records are what a journal holds of sealed messages: how often by envelope,
// and by the X-Road-Request-Id in it how often in all, and how often but for
// refusals and what was said before.
type records struct {
	sealed map[journal.Kind]map[[32]byte]int
	named  map[journal.Kind]map[string]int
	first  map[journal.Kind]map[string]int
}

// audit looks through what the nodes have stored, once they have stopped, and
// holds it against each other and against what clients and services saw.
func (s *simulation) audit() (broken []string) {
	say := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	all := map[union.State]records{}
	for _, x := range s.sites {
		cfg, err := config.Load(config.Source{File: filepath.Join(x.dir, "node.yaml")})
		s.must(err)
		found, err := node.Fsck(s.t.Context(), cfg, func(string, int64, int64) {})
		s.must(err)
		for _, f := range found.Flaws {
			say("fsck of %s: %s %s: %s", x.state, f.Place, f.Name, f.Detail)
		}
		for _, g := range found.Gaps {
			say("fsck of %s: %s %s", x.state, g.What.En, g.Detail)
		}
		db, err := store.Open(s.t.Context(), store.Config{DSN: string(cfg.Store.DSN)})
		s.must(err)
		for what, query := range map[string]string{
			"calls that were begun and have not ended": `SELECT COUNT(*) FROM exchange_claim WHERE state = 1`,
			"deliveries that have not ended":           `SELECT COUNT(*) FROM exchange_delivery WHERE work <> 0`,
			"alarms":                                   `SELECT COUNT(*) FROM witness_alarm`,
		} {
			var n int
			s.must(db.QueryRow(s.t.Context(), query).Scan(&n))
			if n > 0 {
				say("%s has %d %s", x.state, n, what)
			}
		}
		all[x.state] = s.read(db, cfg)
		s.must(db.Close())
	}
	// Nobody has recorded a message that its sender has not, once.
	for kind, was := range map[journal.Kind]journal.Kind{journal.RequestReceived: journal.RequestSent, journal.AnswerReceived: journal.AnswerSent} {
		for state, r := range all {
			for envelope := range r.sealed[kind] {
				n := 0
				for _, o := range all {
					n += o.sealed[was][envelope]
				}
				if n != 1 {
					say("of a message that %s has received (%s) there are %d records at its sender", state, kind, n)
				}
			}
		}
	}
	for _, id := range s.load.spoilt {
		say("%s did not arrive as it was sent", id)
	}
	for _, c := range s.load.calls {
		for _, w := range c.wrong {
			say("%s (%s %s of %s): %s", c.id, c.from, c.method, c.to, w)
		}
		for _, w := range s.judge(c, all) {
			say("%s (%s %s of %s): %s", c.id, c.from, c.method, c.to, w)
		}
	}
	return broken
}

// judge holds a call to what it was promised.
func (s *simulation) judge(c *call, all map[union.State]records) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	acted, closed := s.load.effects[c.id], c.purpose == denied || c.purpose == refused && c.to == refusing
	if acted > 1 && c.method != http.MethodGet {
		say("it took effect %d times", acted)
	}
	if len(slices.Compact(slices.Clone(c.ends))) > 1 {
		say("sent twice at once, it ended as %v", c.ends)
	}
	for _, end := range c.ends {
		switch {
		case end == "200" && (closed || acted == 0):
			say("it was answered, took effect %d times, and was to be denied: %v", acted, closed)
		case end == string(fault.PolicyDenied) && (!closed || acted > 0):
			say("it was denied and took effect %d times; to be denied: %v", acted, closed)
		case end == string(fault.OutcomeUnknown) && c.method == http.MethodGet:
			say("it may be repeated, and its outcome is unknown")
		case end != "200" && end != string(fault.PolicyDenied) && end != string(fault.OutcomeUnknown):
			say("it ended as %s", end)
		}
	}
	for _, request := range c.requests { // of each answer that the client saw
		for kind, at := range map[journal.Kind]union.State{journal.RequestSent: c.from, journal.RequestReceived: c.to, journal.AnswerSent: c.to, journal.AnswerReceived: c.from} {
			n := all[at].named[kind][request]
			if c.async {
				// The same bytes are sent until they are answered, and each time
				// that they arrive is a record.
				if n = all[at].first[kind][request]; kind == journal.RequestReceived {
					n = min(n, 1)
				}
			}
			if n != 1 {
				say("its client has an answer, and %s has %d records (%s)", at, n, kind)
			}
		}
	}
	return wrong
}

func (s *simulation) read(db *store.DB, cfg config.Config) records {
	keys, err := seal.OpenKeys(cfg.Keys.Folder, seal.KeyConfig{Demonstration: true})
	s.must(err)
	names, err := keys.HMAC("journal-1")
	s.must(err)
	j, err := journal.NewReader(journal.Deps{DB: db, Records: keys.Records(), Keys: names})
	s.must(err)
	size, _, err := j.Head(s.t.Context())
	s.must(err)
	r := records{map[journal.Kind]map[[32]byte]int{}, map[journal.Kind]map[string]int{}, map[journal.Kind]map[string]int{}}
	for k := journal.RequestSent; k <= journal.AnswerReceived; k++ {
		r.sealed[k], r.named[k], r.first[k] = map[[32]byte]int{}, map[string]int{}, map[string]int{}
	}
	s.must(j.Each(s.t.Context(), 0, size, func(x journal.Stored, err error) error {
		if err != nil || r.sealed[x.Kind] == nil {
			return err
		}
		head, _, err := message.Open(x.Envelope)
		if err != nil {
			return err
		}
		var m struct {
			RequestID string `json:"request_id"`
			Fault     string
		}
		var beside struct{ Repeat bool }
		if err := errors.Join(json.Unmarshal(head, &m), json.Unmarshal(x.Local, &beside)); err != nil {
			return err
		}
		r.sealed[x.Kind][sha256.Sum256(x.Envelope)]++
		r.named[x.Kind][m.RequestID]++
		if m.Fault == "" && !beside.Repeat {
			r.first[x.Kind][m.RequestID]++
		}
		return nil
	}))
	return r
}
