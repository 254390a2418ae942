package exchange

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// TestTheSubjectStaysAtHome follows two persons' numbers, one named by the
// client and one by the service, and finds them nowhere: not in a head, not at
// the other state, not in what service or client get, not in logs, not in the
// databases' files. What each state keeps opens the commitment that crossed.
func TestTheSubjectStaysAtHome(t *testing.T) {
	t.Parallel()
	const asked, answered = "1098765432", "880311234"
	logs := map[union.State]*logs{"BH": newLogs(), "SA": newLogs()}
	files := map[union.State]string{}
	u := newUnionOn(t, func(t testing.TB) store.Config {
		cfg := onSQLite(t)
		files[[]union.State{"BH", "SA"}[len(files)]] = cfg.DSN
		return cfg
	}, []union.State{"BH", "SA"}, func(c *Config, d *Deps) {
		d.Log = slog.New(slog.NewTextHandler(logs[c.State], &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	var seen bytes.Buffer
	serve := func(w http.ResponseWriter, r *http.Request) {
		check(t, r.Write(&seen))
		w.Header().Set("Falaj-Subject", answered)
		if r.URL.Path == "/broken" {
			w.Header().Set("Content-Length", "9")
		}
		_, _ = io.WriteString(w, "ok")
	}
	u.backend("BH", "things", serve)
	srv := u.backend("BH", "idem", serve)
	srv.Close()

	about := "Falaj-Subject: " + asked
	var got strings.Builder
	for i, c := range []struct {
		code, path string
		headers    []string
		status     int
	}{
		{"things", "/", nil, 200},
		{"things", "/", []string{"X-Road-Id: s-0"}, 200}, // once more
		{"things", "/broken", nil, 500},
		{"idem", "/", nil, 500},                                 // nothing stands behind it
		{"closed", "/", nil, 500},                               // refused by the provider
		{"nothing", "/", nil, 500},                              // refused by the caller's node
		{"things", "/", []string{"Falaj-Purpose: fun"}, 400},    // before it is a request
		{"things", "/", []string{"X-Road-Id: a b"}, 400},        // and before that
		{"things", "/%2e%2e/" + asked, nil, 400},                // in a path that is refused
		{"things", "/", []string{"X-Road-Client: SA/GOV"}, 400}, // by nobody known
	} {
		a := u.call("SA", "POST", offered("BH", c.code), c.path, strings.NewReader("x"), append([]string{about, fmt.Sprintf("X-Road-Id: s-%d", i)}, c.headers...)...)
		if a.status != c.status {
			t.Errorf("%s%s: %d %s", c.code, c.path, a.status, a.body)
		}
		fmt.Fprintf(&got, "%v %s\n", a.header, a.body)
	}
	hidden := func(where, s string) {
		t.Helper()
		for _, number := range []string{asked, answered} {
			if i := strings.Index(s, number); i >= 0 {
				t.Errorf("%s tells %s: …%q", where, number, s[max(0, i-80):min(len(s), i+80)])
			}
		}
	}
	hidden("the service's request", seen.String())
	hidden("the client's answer", got.String())
	for s, n := range u.nodes {
		hidden("the log of "+string(s), logs[s].String())
		for i := range n.size(t) {
			r, err := n.journal.Get(t.Context(), i)
			check(t, err)
			hidden("an envelope at "+string(s), string(r.Envelope))
			hidden("a note at "+string(s), string(r.Local))
			hidden("a body at "+string(s), string(r.Body))
		}
		found, err := filepath.Glob(files[s] + "*")
		check(t, err)
		for _, f := range found {
			b, err := os.ReadFile(f)
			check(t, err)
			hidden("the file "+filepath.Base(f)+" of "+string(s), string(b))
		}
		if len(found) == 0 {
			t.Error("no database was looked into")
		}
	}

	// Each state has its own person, and the key to its own commitment.
	for _, c := range []struct {
		state union.State
		kind  string
		name  string
	}{{"SA", "request sent", asked}, {"BH", "answer sent", answered}} {
		n := u.nodes[c.state]
		records, err := n.journal.Find(t.Context(), "s-0")
		check(t, err)
		for _, r := range records {
			note, err := readNote(r.Local)
			check(t, err)
			if r.Kind.String() != c.kind {
				if note.Subject != nil {
					t.Errorf("%s, %s: names a person", c.state, r.Kind)
				}
				continue
			}
			head, _, err := message.Open(r.Envelope)
			check(t, err)
			commitment := message.Digest(sha256.Sum256(append(note.Subject.Key[:], c.name...)))
			if !bytes.Contains(head, []byte(`"subject":"`+hexOf(commitment)+`"`)) {
				t.Errorf("%s: %s does not commit to the person", c.state, head)
			}
			if note.Subject.Hash != message.Digest(n.Exchange.deps.Persons.Sum([]byte(c.name))) {
				t.Errorf("%s: the person cannot be found again", c.state)
			}
			if plain := message.Digest(sha256.Sum256([]byte(c.name))); note.Subject.Hash == plain || commitment == plain {
				t.Errorf("%s: the person can be guessed", c.state)
			}
		}
	}
	// Of one person two calls show nothing in common.
	var commitments []string
	for _, id := range []string{"s-0", "s-2"} {
		found, err := u.nodes["SA"].journal.Find(t.Context(), id)
		check(t, err)
		head, _, _ := message.Open(found[0].Envelope)
		q, err := message.ParseRequest(head)
		check(t, err)
		commitments = append(commitments, hexOf(*q.Subject))
	}
	if commitments[0] == commitments[1] {
		t.Error("two calls about one person can be linked")
	}
}

func hexOf(d message.Digest) string {
	b, _ := d.MarshalText()
	return string(b)
}
