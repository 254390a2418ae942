package exchange

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/verify"
)

// container asks a node for it, as a subsystem of that state.
func (u *testUnion) container(t testing.TB, client union.SubsystemID, id, query string) (*evidence.Container, answer) {
	t.Helper()
	req, err := http.NewRequest("GET", u.nodes[client.State].edge.URL+"/evidence/"+url.PathEscape(id)+"/container"+query, nil)
	check(t, err)
	req.Header.Set("X-Road-Client", client.String())
	a := do(t, req)
	if a.status != 200 {
		return nil, a
	}
	if got := a.header.Get("Content-Type"); got != "application/vnd.etsi.asic-e+zip" {
		t.Errorf("of type %q", got)
	}
	c, err := evidence.Open(bytes.NewReader(a.body), int64(len(a.body)))
	check(t, err)
	return c, a
}

// unzip unpacks a container as a person does.
func unzip(t testing.TB, b []byte) string {
	t.Helper()
	dir := t.TempDir()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	check(t, err)
	check(t, os.CopyFS(dir, z))
	return dir
}

// printed are the lines that a README tells its reader to run.
func printed(t testing.TB, dir string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "README.txt"))
	check(t, err)
	for line := range strings.Lines(string(text)) {
		if run, ok := strings.CutPrefix(line, "    "); ok {
			lines = append(lines, strings.TrimSuffix(run, "\n"))
		}
	}
	return lines
}

// failing runs the lines and gives those that do not end well.
func failing(t testing.TB, dir string, lines []string) (out []string) {
	t.Helper()
	for _, line := range lines {
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = dir
		if said, err := cmd.CombinedOutput(); err != nil {
			out = append(out, line+": "+string(said))
		}
	}
	return out
}

// TestContainerByStockTools: the lines that the README prints, run exactly,
// find the container of a real call right, and each change to it wrong.
func TestContainerByStockTools(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "an answer") })
	if a := u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("a question"), "X-Road-Id: proof"); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	_, a := u.container(t, desk("SA"), "proof", "")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	dir := unzip(t, a.body)
	lines := printed(t, dir)
	if len(lines) != 14 {
		t.Errorf("%d lines to run: %q", len(lines), lines)
	}
	if wrong := failing(t, dir, lines); wrong != nil {
		t.Errorf("found wrong: %q", wrong)
	}
	// The list of digests finds everything; the other lines find on their own
	// what they are there for.
	for name, want := range map[string]string{
		"request/head.json": "grep", "request/body.bin": "grep", "answer/head.json": "grep", "answer/body.bin": "grep",
		"META-INF/ASiCManifest001.xml": "cms", "META-INF/ASiCManifest002.xml": "cms", "META-INF/signature001.p7s": "cms",
		"META-INF/falaj/certificate/answer.pem": "openssl verify", "META-INF/falaj/certificate/answer-crl.pem": "openssl verify",
		"META-INF/falaj/certificate/request-authority.pem": "openssl cms", "META-INF/falaj/container.json": "sha256sum",
	} {
		for how, change := range map[string]func(string) error{ // a line that reads nothing must not pass either
			"changed": func(path string) error {
				b, err := os.ReadFile(path)
				check(t, err)
				b[len(b)/2] ^= 1
				return os.WriteFile(path, b, 0o600)
			},
			"gone": os.Remove,
		} {
			if how == "gone" && want != "grep" {
				continue
			}
			dir := unzip(t, a.body)
			check(t, change(filepath.Join(dir, name)))
			wrong := failing(t, dir, slices.DeleteFunc(slices.Clone(lines), func(s string) bool {
				return !strings.Contains(s, want) && !strings.HasPrefix(s, "sha256sum")
			}))
			if !slices.ContainsFunc(wrong, func(s string) bool { return strings.Contains(s, want) }) || !strings.HasPrefix(wrong[0], "sha256sum") {
				t.Errorf("%s %s: found %q, wanted by %s", name, how, wrong, want)
			}
		}
	}
	// Another call's answer in the place of this one's.
	u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("another question"), "X-Road-Id: other")
	_, o := u.container(t, desk("SA"), "other", "")
	other := unzip(t, o.body)
	check(t, os.Rename(filepath.Join(other, "answer/head.json"), filepath.Join(dir, "answer/head.json")))
	check(t, os.Rename(filepath.Join(other, "META-INF/ASiCManifest002.xml"), filepath.Join(dir, "META-INF/ASiCManifest002.xml")))
	check(t, os.Rename(filepath.Join(other, "META-INF/signature002.p7s"), filepath.Join(dir, "META-INF/signature002.p7s")))
	wrong := failing(t, dir, lines)
	if len(wrong) != 2 || !strings.HasPrefix(wrong[1], `grep -c "\"request\"`) {
		t.Errorf("another call's answer: %q", wrong)
	}
}

// TestContainerOfACall: what is in it, for whom, and which of several calls.
func TestContainerOfACall(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA", "AE"})
	large := make([]byte, 1<<20+7) // lies in the spool
	_, _ = rand.Read(large)
	for _, name := range []string{"things", "fleeting"} {
		u.backend("BH", name, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(append([]byte("re: "), b...))
		})
	}
	stranger := union.SubsystemID{MemberID: desk("SA").MemberID, Subsystem: "stranger"}
	check(t, u.nodes["SA"].Local().PutClient(t.Context(), Client{ID: stranger}))
	for _, from := range []union.State{"SA", "AE"} {
		if a := u.call(from, "POST", offered("BH", "things"), "/x", bytes.NewReader(large), "X-Road-Id: a/b?c"); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	text := func(c *evidence.Container, name string) string {
		t.Helper()
		b, err := c.Read(name, 2<<20)
		check(t, err)
		return string(b)
	}
	same := map[union.State][]byte{}
	for _, asker := range []union.State{"SA", "BH"} {
		c, a := u.container(t, desk(asker), "a/b?c", map[union.State]string{"BH": "?client=SA/GOV/office/desk"}[asker])
		if c == nil {
			t.Fatalf("%s: %d %s", asker, a.status, a.body)
		}
		if text(c, "request/body.bin") != string(large) || text(c, "answer/body.bin") != "re: "+string(large) {
			t.Errorf("%s: the bodies are others", asker)
		}
		q, err := message.ParseRequest([]byte(text(c, "request/head.json")))
		if err != nil || q.Client != desk("SA") || q.ID != "a/b?c" {
			t.Errorf("%s: %+v %v", asker, q, err)
		}
		in, err := c.Contents()
		if err != nil || len(in.Records) != 4 || in.Absent != nil || in.ID != "a/b?c" {
			t.Fatalf("%s: %+v %v", asker, in, err)
		}
		for _, r := range in.Records { // each opens its leaf
			head, raw := text(c, r.Message+"/head.json"), text(c, "META-INF/falaj/"+r.Message+".seal")
			s := journal.Parts{Kind: journal.Kind(r.Kind), At: r.At, Class: r.Class, Key: r.Key, Body: r.Body, Local: r.Local, Envelope: sum(message.Envelope([]byte(head), []byte(raw))).SHA256}
			if leaf := journal.Leaf(r.Salt, s.Digest()); leaf != r.Hash {
				t.Errorf("%s: the opening of %+v gives %x", asker, r, leaf)
			}
		}
		_, b := u.container(t, desk(asker), "a/b?c", "?client=SA/GOV/office/desk")
		if same[asker] = a.body; !bytes.Equal(a.body, b.body) {
			t.Errorf("%s gets another container of the same call", asker)
		}
	}
	if !bytes.Equal(same["SA"], same["BH"]) {
		t.Error("the two sides export the same call as different containers")
	}
	root, err := verify.New(u.nodes["SA"].dir.View().Root())
	check(t, err)
	holds := func(b []byte, unknown ...string) {
		t.Helper()
		r := root.Container(bytes.NewReader(b), int64(len(b)))
		for _, c := range r.Checks {
			if c.Result == verify.Failed || c.Result == verify.Unchecked && !slices.ContainsFunc(append(unknown, "log", "time-stamp", "afterwards", "README.txt"), func(s string) bool { return strings.Contains(c.What+c.Detail, s) }) {
				t.Errorf("%s: %s %s", c.Result, c.What, c.Detail)
			}
		}
		if r.Verdict != verify.Holds {
			t.Errorf("verdict %d", r.Verdict)
		}
	}
	holds(same["SA"])
	for query, want := range map[string]int{
		"": 400, "?client=AE/GOV/office/desk": 200, "?client=KW/GOV/office/desk": 404, "?client=x": 400,
		"?client=SA/GOV/office/desk&request=none": 404,
	} {
		c, a := u.container(t, desk("BH"), "a/b?c", query)
		if a.status != want || query == "" && !strings.Contains(string(a.body), "AE/GOV/office/desk, SA/GOV/office/desk") {
			t.Errorf("%q: %d %s", query, a.status, a.body[:min(len(a.body), 400)])
		}
		if c != nil && !strings.Contains(text(c, "request/head.json"), `"client":"AE/`) {
			t.Errorf("%q gives another client's", query)
		}
	}
	for _, asker := range []union.SubsystemID{stranger, {MemberID: desk("SA").MemberID, Subsystem: "nobody"}} {
		if c, a := u.container(t, asker, "a/b?c", ""); c != nil || bytes.Contains(a.body, []byte("office/desk\"")) {
			t.Errorf("%s gets %d", asker, a.status)
		}
	}

	// Of several tries the last, unless one is named.
	var tries []string
	for range 2 {
		a := u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("again"), "X-Road-Id: twice")
		tries = append(tries, a.header.Get("X-Road-Request-Id"))
	}
	for query, want := range map[string]string{"": tries[1], "?request=" + tries[0]: tries[0]} {
		if c, a := u.container(t, desk("SA"), "twice", query); c == nil || !strings.Contains(text(c, "answer/head.json"), want) || !strings.Contains(text(c, "request/head.json"), want) {
			t.Errorf("%q gives another try: %d", query, a.status)
		}
	}

	// Refused before it was sent: there is no request.
	u.call("SA", "GET", offered("BH", "things"), "/x", nil, "X-Road-Id: unsent", "Falaj-Purpose: fun")
	c, a := u.container(t, desk("SA"), "unsent", "")
	if c == nil || !strings.Contains(text(c, "answer/head.json"), message.TypeRefusal) || slices.Contains(c.Names(), "request/head.json") {
		t.Errorf("%d %s", a.status, a.body)
	} else {
		holds(a.body)
		if wrong := failing(t, unzip(t, a.body), printed(t, unzip(t, a.body))); wrong != nil {
			t.Errorf("a refusal: %q", wrong)
		}
	}

	// Of what is not kept, the digest alone.
	u.call("SA", "POST", offered("BH", "fleeting"), "/x", strings.NewReader("secret"), "X-Road-Id: brief")
	c, a = u.container(t, desk("SA"), "brief", "")
	holds(a.body, "body")
	in, err := c.Contents()
	check(t, err)
	if len(in.Absent) != 2 || in.Absent[0].Name != "answer/body.bin" || bytes.Contains(a.body, []byte("secret")) {
		t.Errorf("%+v", in.Absent)
	}
	if _, err := c.Size("request/body.bin"); err == nil || !strings.Contains(err.Error(), fs.ErrNotExist.Error()) {
		t.Errorf("%v", err)
	}

	// The other side is away: the container holds what is here.
	u.nodes["BH"].link.Close()
	c, a = u.container(t, desk("SA"), "a/b?c", "")
	if c == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	holds(a.body)
	if in, err := c.Contents(); err != nil || len(in.Records) != 2 {
		t.Errorf("%+v %v", in, err)
	}
	// Each reading stands in the journal.
	found, err := u.nodes["SA"].journal.Find(t.Context(), readingKey("a/b?c"))
	if err != nil || len(found) < 4 || !strings.Contains(string(found[0].Local), `"evidence.export"`) {
		t.Errorf("%d records of readings, %v", len(found), err)
	}
}

// TestContainerOfMuch: who uses an id for ever larger calls makes this node
// hold no more of them than a little at a time.
func TestContainerOfMuch(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	sa := u.nodes["SA"]
	u.call("SA", "GET", offered("BH", "closed"), "/", nil, "X-Road-Id: much", "X-Big: "+strings.Repeat("b", 200<<10))
	found, err := sa.journal.Find(t.Context(), "much")
	check(t, err)
	fill := func(n int) {
		for range n {
			_, err := sa.journal.Append(t.Context(), found[0].Record)
			check(t, err)
		}
	}
	fill(10)
	if _, a := u.container(t, desk("SA"), "much", ""); a.status != 200 {
		t.Errorf("%d %.200s", a.status, a.body)
	}
	fill(40)
	if _, a := u.container(t, desk("SA"), "much", ""); !bytes.Contains(a.body, []byte(fault.TooLarge)) {
		t.Errorf("%d %.200s", a.status, a.body)
	}
}

// TestContainerBesideALiar: what the other side says untruly of its records
// does not get into this side's container, and does not spoil it.
func TestContainerBesideALiar(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "an answer") })
	u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("a question"), "X-Road-Id: spoilt")
	sa := u.nodes["SA"]
	root, err := verify.New(sa.dir.View().Root())
	check(t, err)
	truth, _ := u.evidence(t, desk("SA"), "spoilt")
	for name, c := range map[string]struct {
		change func(*Half)
		want   int // records in the container
	}{
		"the truth":    {func(*Half) {}, 4},
		"its name":     {func(h *Half) { h.Node = "\x1b[2J" }, 4},
		"no place":     {func(h *Half) { h.Records[0].Leaf = -1 }, 3},
		"another leaf": {func(h *Half) { h.Records[1].Hash[0]++ }, 3},
		"another kind": {func(h *Half) { h.Records[0].Kind = "decision" }, 3},
		"another head": {func(h *Half) {
			h.Records[0].Envelope = bytes.Replace(h.Records[0].Envelope, []byte("POST"), []byte("HEAD"), 1)
		}, 3},
		"another state": {func(h *Half) { h.State = "XX" }, 4}, // nobody believes that
	} {
		t.Run(name, func(t *testing.T) {
			h := truth.Halves[1]
			h.Records = slices.Clone(h.Records)
			c.change(&h)
			b, err := json.Marshal(h)
			check(t, err)
			sa.SetLink(&liar{sa.link, b})
			t.Cleanup(func() { sa.SetLink(sa.link) })
			box, a := u.container(t, desk("SA"), "spoilt", "")
			if box == nil {
				t.Fatalf("%d %s", a.status, a.body)
			}
			in, err := box.Contents()
			if err != nil || len(in.Records) != c.want {
				t.Errorf("%+v %v", in, err)
			}
			if r := root.Container(bytes.NewReader(a.body), int64(len(a.body))); r.Verdict != verify.Holds {
				t.Errorf("%+v", r)
			}
		})
	}
}
