package exchange

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
)

// evidence asks a node for it, as a subsystem of that state.
func (u *testUnion) evidence(t testing.TB, client union.SubsystemID, id string) (*Evidence, answer) {
	t.Helper()
	req, err := http.NewRequest("GET", u.nodes[client.State].edge.URL+"/evidence/"+url.PathEscape(id), nil)
	check(t, err)
	req.Header.Set("X-Road-Client", client.String())
	a := do(t, req)
	if a.status != 200 {
		return nil, a
	}
	var e Evidence
	check(t, json.Unmarshal(a.body, &e))
	return &e, a
}

// failing names the checks that evidence does not pass.
func (n *testNode) failing(t testing.TB, e *Evidence) (out []string) {
	t.Helper()
	checks, err := n.VerifyEvidence(t.Context(), e)
	check(t, err)
	for _, c := range checks {
		if !c.OK {
			out = append(out, c.What+": "+c.Detail)
		}
	}
	return out
}

// TestEvidenceIsForItsParties: the calling and the serving subsystem see both
// halves of a call, each with the notes of its own node alone; nobody else
// sees anything.
func TestEvidenceIsForItsParties(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA", "AE"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	stranger := union.SubsystemID{MemberID: desk("SA").MemberID, Subsystem: "stranger"}
	check(t, u.nodes["SA"].Local().PutClient(t.Context(), Client{ID: stranger}))
	for _, id := range []string{"plain-1", "a/b?c=%41#d;", "../..", "%2e%2e"} {
		if a := u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("body"), "X-Road-Id: "+id); a.status != 200 {
			t.Fatalf("%q: %d %s", id, a.status, a.body)
		}
		// Another client's call of the same id is another call.
		if a := u.call("AE", "GET", offered("BH", "things"), "/x", nil, "X-Road-Id: "+id); a.status != 200 {
			t.Fatalf("%q: %d %s", id, a.status, a.body)
		}
		for _, asker := range []union.SubsystemID{desk("SA"), desk("AE")} {
			e, a := u.evidence(t, asker, id)
			if e == nil || len(e.Halves) != 2 || e.Missing != "" {
				t.Fatalf("%s, %q: %d %s", asker, id, a.status, a.body)
			}
			for i, h := range e.Halves {
				for _, r := range h.Records {
					if client, _, _ := parties(r.Envelope); client != asker || (r.Note != nil) != (i == 0) {
						t.Errorf("%s is shown %s of %s, note %s", asker, r.Kind, client, r.Note)
					}
				}
				if len(h.Records) != 2 {
					t.Errorf("%s is shown %d records of %s", asker, len(h.Records), h.State)
				}
			}
			if wrong := u.nodes[asker.State].failing(t, e); wrong != nil {
				t.Error(wrong)
			}
		}
		if e, a := u.evidence(t, desk("BH"), id); e == nil || len(e.Halves) != 3 || len(e.Halves[0].Records) != 4 {
			t.Errorf("the serving subsystem gets %d %s", a.status, a.body)
		} else if wrong := u.nodes["BH"].failing(t, e); wrong != nil {
			t.Error(wrong)
		}
		if e, a := u.evidence(t, stranger, id); e != nil || a.status != 404 || strings.Contains(string(a.body), "office/desk") {
			t.Errorf("a stranger gets %d %s", a.status, a.body)
		}
	}
	if _, a := u.evidence(t, union.SubsystemID{MemberID: desk("SA").MemberID, Subsystem: "nobody"}, "plain-1"); a.status != 400 {
		t.Errorf("who is not registered gets %d %s", a.status, a.body)
	}
	for _, path := range []string{"/evidence/", "/evidence/%00", "/evidence/a%20b", "/evidence/" + strings.Repeat("x", 300), "/evidence/%D8%A7"} {
		if a := u.at("SA", path); a.status != 400 || !strings.Contains(string(a.body), `"code":"request.malformed"`) {
			t.Errorf("%.40s: %d %s", path, a.status, a.body)
		}
	}

	// Over the link a state is told of its own calls alone.
	ask := func(from union.State, q string) string {
		b, err := u.nodes[from].link.Query(t.Context(), u.target("BH"), evidenceKind, []byte(q))
		if err != nil {
			return string(fault.CodeOf(err))
		}
		var h Half
		check(t, json.Unmarshal(b, &h))
		for _, r := range h.Records {
			if r.Note != nil {
				t.Errorf("%s is sent the note %s", from, r.Note)
			}
		}
		return fmt.Sprint(len(h.Records))
	}
	for _, c := range []struct {
		from    union.State
		q, want string
	}{
		{"SA", `{"id":"plain-1","client":"SA/GOV/office/desk"}`, "2"},
		{"AE", `{"id":"plain-1","client":"SA/GOV/office/desk"}`, "0"},
		{"AE", `{"id":"plain-1","client":"AE/GOV/office/desk"}`, "2"},
		{"SA", `{"id":"other","client":"SA/GOV/office/desk"}`, "0"},
		{"SA", `{"id":"plain-1"}`, "message.malformed"},
		{"SA", `{"client":"SA/GOV/office/desk"}`, "message.malformed"},
		{"SA", `{"id":"plain-1","id":"plain-1","client":"SA/GOV/office/desk"}`, "message.malformed"},
		{"SA", `{"id":"plain-1","client":"SA/GOV/office/desk","all":true}`, "message.malformed"},
		{"SA", `null`, "message.malformed"},
		{"SA", ``, "message.malformed"},
	} {
		if got := ask(c.from, c.q); got != c.want {
			t.Errorf("%s asks %s and gets %s, wanted %s", c.from, c.q, got, c.want)
		}
	}
	if _, err := u.nodes["SA"].link.Query(t.Context(), u.target("BH"), "everything", nil); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a question of another kind: %v", err)
	}

	// What was refused before it was sent is no business of the other state.
	u.call("SA", "GET", offered("BH", "things"), "/x", nil, "X-Road-Id: unsent", "Falaj-Purpose: fun")
	b, err := u.nodes["BH"].link.Query(t.Context(), u.target("SA"), evidenceKind, []byte(`{"id":"unsent","client":"SA/GOV/office/desk"}`))
	if err != nil || strings.Contains(string(b), "falaj.refusal") {
		t.Errorf("%s %v", b, err)
	}
	if e, a := u.evidence(t, desk("SA"), "unsent"); e == nil || len(e.Halves) != 1 || len(e.Halves[0].Records) != 1 {
		t.Errorf("%d %s", a.status, a.body)
	} else if wrong := u.nodes["SA"].failing(t, e); wrong != nil {
		t.Error(wrong)
	}
}

// samples are the evidence of calls that ended in every way.
func samples(t *testing.T, u *testUnion) map[string]*Evidence {
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("body"), "X-Road-Id: answered", "Falaj-Subject: p")
	u.call("SA", "GET", offered("BH", "closed"), "/x", nil, "X-Road-Id: refused")
	u.call("SA", "GET", offered("BH", "nothing"), "/x", nil, "X-Road-Id: unsent")
	lose := func(id string, in func(*link.Message, error) (*link.Message, error)) {
		u.nodes["SA"].SetLink(&wire{Caller: u.nodes["SA"].link, in: in})
		u.call("SA", "GET", offered("BH", "things"), "/x", nil, "X-Road-Id: "+id)
		u.nodes["SA"].SetLink(u.nodes["SA"].link)
	}
	lose("lost", func(*link.Message, error) (*link.Message, error) {
		return nil, fault.Wrap(fault.PeerUnreachable, link.ErrBroken, "lost")
	})
	out := map[string]*Evidence{}
	for _, id := range []string{"answered", "refused", "unsent", "lost"} {
		e, a := u.evidence(t, desk("SA"), id)
		if e == nil {
			t.Fatalf("%s: %d %s", id, a.status, a.body)
		}
		if wrong := u.nodes["SA"].failing(t, e); wrong != nil {
			t.Errorf("%s: %v", id, wrong)
		}
		out[id] = e
	}
	return out
}

// TestChangedEvidenceFails changes every single value of evidence, and takes
// away or repeats every record: something is always noticed.
func TestChangedEvidenceFails(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	n := u.nodes["SA"]
	for name, e := range samples(t, u) {
		for i := range e.Halves[0].Records {
			r := &e.Halves[0].Records[i]
			note := r.Note
			r.Note = append(slices.Clone(note), ' ')
			if n.failing(t, e) == nil {
				t.Errorf("%s: nobody noticed another note", name)
			}
			r.Note = nil // what follows would not keep its bytes
		}
		raw, err := json.Marshal(e)
		check(t, err)
		tries := 0
		try := func(what string, tree any) {
			tries++
			b, err := json.Marshal(tree)
			check(t, err)
			var changed Evidence
			if json.Unmarshal(b, &changed) != nil {
				return
			}
			if n.failing(t, &changed) == nil {
				t.Errorf("%s: nobody noticed %s", name, what)
			}
		}
		var tree any
		check(t, json.Unmarshal(raw, &tree))
		b, err := json.Marshal(tree)
		check(t, err)
		var same Evidence
		check(t, json.Unmarshal(b, &same))
		if wrong := n.failing(t, &same); wrong != nil {
			t.Fatalf("%s, unchanged: %v", name, wrong)
		}
		var walk func(path string, v any, set func(any))
		walk = func(path string, v any, set func(any)) {
			defer set(v)
			switch v := v.(type) {
			case map[string]any:
				for k, inner := range v {
					// A record's place is the log's to prove, a node's name its
					// state's to say.
					// One head is changed value by value, the others at one.
					if k != "leaf" && k != "node" && (!strings.Contains(path, "/head") || strings.HasPrefix(path, "/halves/0/records/0") || k == "id") {
						walk(path+"/"+k, inner, func(x any) { v[k] = x })
					}
				}
			case []any:
				for i, inner := range v {
					walk(fmt.Sprintf("%s/%d", path, i), inner, func(x any) { v[i] = x })
				}
				if !strings.Contains(path, "/head") && !strings.Contains(path, "/note") {
					for i := range v {
						set(slices.Delete(slices.Clone(v), i, i+1))
						// Whether it answered what the caller's node says was lost
						// is the provider's to say.
						if what := fmt.Sprintf("that %s lacks %d", path, i); name+what != "lostthat /halves/1/records lacks 1" {
							try(what, tree)
						}
						if i > 0 { // a half that stands twice says nothing new
							set(append(slices.Clone(v), v[i]))
							if strings.HasSuffix(path, "/records") {
								try("that "+path+" repeats "+fmt.Sprint(i), tree)
							}
						}
					}
				}
			case string:
				if v == "" {
					set("x")
				} else {
					b := []byte(v)
					b[len(b)/2] ^= 1
					set(string(b))
				}
				try(path, tree)
			case float64:
				set(v + 1)
				try(path, tree)
			}
		}
		walk("", tree, func(any) {})
		if tries < 20 {
			t.Errorf("%s: only %d changes", name, tries)
		}
	}
}

// TestForgedEvidenceFails puts authentic parts together wrongly, as a node
// could that wants to be believed.
func TestForgedEvidenceFails(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	colleague := u.enlist("SA", "other", *u.nodes["SA"].issuer)
	all := samples(t, u)
	u.call("SA", "POST", offered("BH", "things"), "/y", strings.NewReader("body"), "X-Road-Id: another")
	another, _ := u.evidence(t, desk("SA"), "another")
	copyOf := func(e *Evidence) *Evidence {
		b, err := json.Marshal(e)
		check(t, err)
		var out Evidence
		check(t, json.Unmarshal(b, &out))
		return &out
	}
	// fit makes everything beside an envelope fit it, leaf and all.
	fit := func(r *Record, envelope []byte) {
		s, err := show(journal.Stored{Entry: journal.Entry{Index: r.Leaf, Salt: r.Salt}, Record: journal.Record{Kind: r.Parts.Kind, At: r.At, Envelope: envelope}})
		check(t, err)
		s.Parts.Class, s.Parts.Key, s.Parts.Body, s.Parts.Local, s.Note = r.Parts.Class, r.Parts.Key, r.Parts.Body, r.Parts.Local, r.Note
		p := journal.Parts{Kind: s.Parts.Kind, At: s.Parts.At, Class: s.Parts.Class, Key: s.Parts.Key, Envelope: sha256.Sum256(envelope), Body: s.Parts.Body, Local: s.Parts.Local}
		s.Digest = p.Digest()
		s.Hash = journal.Leaf(s.Salt, s.Digest)
		*r = s
	}
	for name, c := range map[string]struct {
		from   string
		change func(e *Evidence)
		by     string // the check that has to notice
	}{
		"another call's envelope under this leaf": {"answered", func(e *Evidence) {
			for i := range e.Halves {
				for j := range e.Halves[i].Records {
					r, o := &e.Halves[i].Records[j], another.Halves[i].Records[j]
					r.Envelope, r.Head, r.Sealed, r.Cert = o.Envelope, o.Head, o.Sealed, o.Cert
					r.Parts.Key = o.Parts.Key
				}
			}
			e.ID = "another"
		}, "leaf opens"},
		"another call's half": {"answered", func(e *Evidence) { e.Halves[1] = another.Halves[1] }, "shown as"},
		"another call's answer, leaf and all": {"answered", func(e *Evidence) {
			for i := range e.Halves {
				e.Halves[i].Records[1] = another.Halves[i].Records[1]
			}
		}, "stands with"},
		"a request sealed by a colleague": {"answered", func(e *Evidence) {
			for i := range e.Halves {
				r := &e.Halves[i].Records[0]
				head, _, _ := message.Open(r.Envelope)
				q, err := message.ParseRequest(head)
				check(t, err)
				fit(r, enclose(t, colleague, head, q.Body, time.Now()))
			}
		}, "seal, certificate"},
		"a request of another purpose, sealed anew at one side": {"answered", func(e *Evidence) {
			r := &e.Halves[0].Records[0]
			head, _, _ := message.Open(r.Envelope)
			q, err := message.ParseRequest(head)
			check(t, err)
			q.Purpose = "other"
			head, err = q.Encode()
			check(t, err)
			fit(r, enclose(t, u.nodes["SA"].seals[desk("SA").MemberID], head, q.Body, time.Now()))
		}, "the other side holds"},
		"the halves exchanged":    {"answered", func(e *Evidence) { e.Halves[0].State, e.Halves[1].State = "BH", "SA" }, "shown as"},
		"the caller's side alone": {"answered", func(e *Evidence) { e.Halves = e.Halves[:1] }, "the other side holds"},
		"no answer at all": {"answered", func(e *Evidence) {
			for i := range e.Halves {
				e.Halves[i].Records = e.Halves[i].Records[:1]
			}
		}, "stands with"},
		"an answer as a request's record": {"answered", func(e *Evidence) {
			r := &e.Halves[0].Records[1]
			r.Parts.Kind, r.Kind = journal.RequestSent, journal.RequestSent.String()
			fit(r, r.Envelope)
		}, "shown as"},
		"an answer that was said to be lost": {"answered", func(e *Evidence) {
			e.Halves[0].Records[1] = all["lost"].Halves[0].Records[1]
		}, "stands with"},
		"one salt for two records": {"answered", func(e *Evidence) {
			one, two := &e.Halves[0].Records[0], &e.Halves[0].Records[1]
			two.Salt = one.Salt
			fit(two, two.Envelope)
		}, "salt of its own"},
		"nothing": {"unsent", func(e *Evidence) { e.Halves[0].Records = nil }, "records"},
	} {
		t.Run(name, func(t *testing.T) {
			e := copyOf(all[c.from])
			c.change(e)
			wrong := u.nodes["SA"].failing(t, copyOf(e))
			if !slices.ContainsFunc(wrong, func(s string) bool { return strings.Contains(s, c.by) }) {
				t.Errorf("noticed: %q, wanted %q", wrong, c.by)
			}
		})
	}
}

// TestEvidenceWithoutTheOtherSide says that it is missing, and why.
func TestEvidenceWithoutTheOtherSide(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {})
	u.call("SA", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: alone")
	u.nodes["BH"].link.Close()
	e, a := u.evidence(t, desk("SA"), "alone")
	if e == nil || len(e.Halves) != 1 || !strings.HasPrefix(e.Missing, "BH: ") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if wrong := u.nodes["SA"].failing(t, e); len(wrong) == 0 {
		t.Error("one half counts as two")
	}
}

// TestALyingHalf: a node that answers a question for evidence with something
// else is not believed, and cannot say what this node holds.
func TestALyingHalf(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA", "AE"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {})
	u.call("SA", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: asked")
	u.call("AE", "GET", offered("BH", "things"), "/", nil, "X-Road-Id: asked")
	ae, _ := u.evidence(t, desk("AE"), "asked")
	for name, c := range map[string]struct {
		half any
		want string
	}{
		"of another call":    {ae.Halves[1], "0 records of BH"},
		"as of the asker":    {Half{State: "SA", Records: ae.Halves[1].Records}, "0 records of BH"},
		"no JSON":            {json.RawMessage(`"x"`), "missing"},
		"more than is asked": {json.RawMessage(`{"state":"BH","node":"n1","records":[],"extra":1}`), "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := json.Marshal(c.half)
			check(t, err)
			u.nodes["SA"].SetLink(&liar{u.nodes["SA"].link, b})
			t.Cleanup(func() { u.nodes["SA"].SetLink(u.nodes["SA"].link) })
			e, a := u.evidence(t, desk("SA"), "asked")
			if e == nil {
				t.Fatalf("%d %s", a.status, a.body)
			}
			got := "missing"
			if len(e.Halves) == 2 {
				got = fmt.Sprintf("%d records of %s", len(e.Halves[1].Records), e.Halves[1].State)
			}
			if got != c.want || (got == "missing") != (e.Missing != "") {
				t.Errorf("%s %q", got, e.Missing)
			}
			if u.nodes["SA"].failing(t, e) == nil {
				t.Error("it is believed")
			}
		})
	}
}
