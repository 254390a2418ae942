package casework

import (
	"context"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/falaj/falaj/internal/fault"
)

// edited is a definition with texts replaced, each once: old, new, …
func edited(t testing.TB, yaml string, edits ...string) string {
	t.Helper()
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(yaml, edits[i]) {
			t.Fatalf("no %q", edits[i])
		}
		yaml = strings.Replace(yaml, edits[i], edits[i+1], 1)
	}
	return yaml
}

// named is permit with a citizen of whom a fact says who he is, in both halves.
func named(t testing.TB) string {
	return edited(t, permit,
		"citizen: {party: home, kind: citizen, title: {en: Citizen, ar: مواطن}}", "citizen: {party: home, kind: citizen, title: {en: Citizen, ar: مواطن}, person: name}\n  clerk: {party: home, kind: officer, title: {en: Clerk, ar: كاتب}}\n  sponsor: {party: host, kind: citizen, title: {en: Sponsor, ar: كفيل}, person: who}",
		"  stay: {owner: home", "  who: {owner: host, type: text, title: {en: Sponsor, ar: كفيل}, schema: {maxLength: 200}}\n  stay: {owner: home",
		"  withdraw: {role: citizen", "  correct: {role: clerk, title: {en: Correct, ar: تصحيح}, fields: [name]}\n  call: {role: officer, title: {en: Call, ar: استدعاء}, fields: [who]}\n  back: {role: sponsor, title: {en: Back, ar: دعم}}\n  withdraw: {role: citizen",
		"          silence: {branches: [{to: UNANSWERED}]}\n", "          silence: {branches: [{to: UNANSWERED}]}\n          correct: {branches: [{}]}\n",
		"          late: {branches: [{to: REFUSED, send: [refused]}]}\n", "          late: {branches: [{to: REFUSED, send: [refused]}]}\n          call: {branches: [{}]}\n          back: {branches: [{}]}\n")
}

// Whose case it is a fact says where there is one: as it is now, and before who
// acted in the role.
func TestWhoseCase(t *testing.T) {
	w := newWorld(t, named(t))
	ctx := context.Background()
	if _, err := w.home.act("citizen", "u1", "", "ask", `{"name":"u2","stay":30}`); fault.CodeOf(err) != fault.CaseActor {
		t.Errorf("u1 opened the case of u2: %v", err)
	}
	id := w.home.must("citizen", "u1", "", "ask", `{"name":"u1","stay":30}`).Case
	w.host.reaches(id, "READY")
	reads := func(s *side, role, user string) bool {
		_, err := s.Read(ctx, id, Reader{system(s.state, role), user})
		listed, _, bad := s.List(ctx, Filter{Mine: true}, Reader{system(s.state, role), user})
		if bad != nil || (len(listed) == 1) != (err == nil) {
			t.Errorf("%s %s: reads: %v; has %d cases: %v", role, user, err, len(listed), bad)
		}
		return err == nil
	}
	if !reads(w.home, "citizen", "u1") || reads(w.home, "citizen", "u2") {
		t.Error("the case is not u1's alone")
	}
	w.home.must("clerk", "c1", id, "correct", `{"name":"u2"}`)
	if reads(w.home, "citizen", "u1") || !reads(w.home, "citizen", "u2") {
		t.Error("the case is not u2's alone, though the fact says so")
	}
	if _, err := w.home.act("citizen", "u1", id, "withdraw", `{}`); fault.CodeOf(err) != fault.CaseActor {
		t.Errorf("u1 withdrew the case of u2: %v", err)
	}
	// In the half that did not open it nobody takes the role by acting first.
	if _, err := w.host.act("sponsor", "stranger", id, "back", `{}`); fault.CodeOf(err) != fault.CaseActor {
		t.Errorf("a stranger acts: %v", err)
	}
	w.host.must("officer", "o1", id, "call", `{"who":"u9"}`)
	if reads(w.host, "sponsor", "stranger") || !reads(w.host, "sponsor", "u9") {
		t.Error("the host's half is not u9's")
	}
	w.host.must("sponsor", "u9", id, "back", `{}`)
	for _, s := range []*side{w.home, w.host} {
		if err := s.Replay(ctx, id); err != nil {
			t.Error(err)
		}
	}
}

// An officer is named, and acts and reads under his name; who speaks for nobody
// in a case is not even told that it is there.
func TestNobodyReads(t *testing.T) {
	w := newWorld(t, permit)
	ctx := context.Background()
	id := w.home.must("citizen", "u1", "", "ask", asking).Case
	w.host.reaches(id, "READY")
	if _, err := w.host.Read(ctx, id, Reader{system("SA", "officer"), ""}); fault.CodeOf(err) != fault.CaseUnknown {
		t.Errorf("an unnamed officer reads: %v", err)
	}
	if _, err := w.host.act("officer", "", id, "grant", `{"fee":{"minor":1,"currency":"SAR"}}`); fault.CodeOf(err) != fault.CaseActor {
		t.Errorf("an unnamed officer grants: %v", err)
	}
	for _, id := range []string{id, "0f4c2a4e-6d0e-4a5c-9a55-3f2d4c1b7e60"} {
		if _, err := w.home.act("police", "p", id, "ask", asking); fault.CodeOf(err) != fault.CaseUnknown {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// What a citizen is shown names no official, no register's address and nothing
// that only the state's own registers said.
func TestCitizenSees(t *testing.T) {
	w := newWorld(t, edited(t, named(t), "keep: {known: /known}", "keep: {known: /known, remark: /remark}",
		"  stay: {owner: home", "  remark: {owner: host, type: text, title: {en: Remark, ar: ملاحظة}, schema: {maxLength: 200}}\n  stay: {owner: home"))
	w.register = func() (int, string) { return 200, `{"known":true,"remark":"wanted"}` }
	ctx := context.Background()
	id := w.home.must("citizen", "u1", "", "ask", `{"name":"u1","stay":30}`).Case
	w.host.reaches(id, "READY")
	w.host.must("officer", "o1", id, "call", `{"who":"u9"}`)
	w.host.must("officer", "o1", id, "refuse", `{}`)
	told := func(role, user string) string {
		s, err := w.host.Read(ctx, id, Reader{system("SA", role), user})
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	citizen, officer := told("sponsor", "u9"), told("officer", "o2")
	for _, hidden := range []string{`"o1"`, "wanted", "/persons/", `"act":`} {
		if strings.Contains(citizen, hidden) || !strings.Contains(officer, hidden) {
			t.Errorf("%s: the citizen is shown\n%s\nthe officer\n%s", hidden, citizen, officer)
		}
	}
	if !strings.Contains(citizen, `"u9"`) {
		t.Error("the citizen does not see himself")
	}
}
