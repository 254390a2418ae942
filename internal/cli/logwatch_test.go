package cli

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/node/up"
	"github.com/falaj/falaj/internal/witness"
)

// TestLogWatch: what was seen is remembered from one run to the next; a log that
// shows another history then is shown loudly with both heads, and the memory
// keeps the first. One process at a time has it, and what is no memory is not
// replaced.
func TestLogWatch(t *testing.T) {
	seed := sha256.Sum256([]byte("log"))
	signer, err := merkle.NewSigner("log.example/BH/log1", merkle.LogSignature, ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	head := func(word string) string {
		c := merkle.Checkpoint{Origin: signer.Name(), Size: 1, Root: merkle.Leaf([]byte(word))}
		line, err := signer.Line(c.Text(), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return c.Text() + "\n" + line
	}
	shown := head("one")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, shown) }))
	defer srv.Close()
	place := node.LogPlace{State: "BH", Log: directory.Log{Key: signer.Key, Address: srv.URL + "/log"}}
	w := node.Witnessed{Logs: node.Logs{Logs: []node.LogPlace{place}}}

	var out bytes.Buffer
	s := &session{World: World{Out: &out}, root: &root{}, ctx: t.Context()}
	c := &logWatchCmd{Once: true, Memory: filepath.Join(t.TempDir(), "memory.json")}
	look := func() witness.Sight {
		t.Helper()
		m, err := c.open(s)
		if err != nil {
			t.Fatal(err)
		}
		defer m.lock.Close()
		if _, err := c.open(s); fault.CodeOf(err) != fault.Conflict {
			t.Errorf("two processes with one memory: %v", err)
		}
		x, ok := c.look(s, m, w, place)
		if !ok {
			t.Error("nothing to say")
		}
		if err := m.save(); err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, want := range []string{witness.SightNew, witness.SightGrown} {
		if x := look(); x.What != want {
			t.Errorf("%+v", x)
		}
	}
	shown = head("another")
	for range 2 { // it is not forgotten with the first finding
		x := look()
		if x.What != witness.SightDivided {
			t.Fatalf("%+v", x)
		}
		out.Reset()
		s.sight(x)
		if text := out.String(); !strings.Contains(text, head("one")) || !strings.Contains(text, shown) || !strings.Contains(text, "TWO HISTORIES") {
			t.Errorf("%s", text)
		}
		s.JSON = true
		out.Reset()
		s.sight(x)
		s.JSON = false
		var again witness.Sight
		if err := json.Unmarshal(out.Bytes(), &again); err != nil || strings.Count(out.String(), "\n") != 1 || len(again.Heads) != 2 {
			t.Errorf("%s: %v", out.String(), err)
		}
	}
	if _, err := (&logWatchCmd{Memory: filepath.Join(t.TempDir(), "none", "memory.json")}).open(s); fault.CodeOf(err) != fault.Usage {
		t.Errorf("a memory in a folder that is not there: %v", err)
	}
	if err := (&logWatchCmd{Memory: c.Memory}).Run(s); fault.CodeOf(err) != fault.Usage {
		t.Errorf("looks without a pause: %v", err)
	}
	for _, bad := range []string{"", "x", "[]"} {
		if err := os.WriteFile(c.Memory, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.open(s); fault.CodeOf(err) != fault.Usage {
			t.Errorf("%q as a memory: %v", bad, err)
		}
	}
}

// TestLogWatchRenewed: a log that goes on under a new name is told from one
// that merely grows; where what was seen of the old one is not in it, that is
// said with the head that proves it, and fails once.
func TestLogWatchRenewed(t *testing.T) {
	seed := sha256.Sum256([]byte("log"))
	signer, err := merkle.NewSigner("log.example/BH/log1", merkle.LogSignature, ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	signers := []merkle.Signer{signer}
	for _, name := range []string{"log.example/BH/log2", "log.example/BH/log3"} {
		next, err := signer.As(name)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, next)
	}
	var shown string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "tile") {
			h := merkle.Leaf([]byte("another"))
			w.Write(h[:])
			return
		}
		fmt.Fprint(w, shown)
	}))
	defer srv.Close()
	var out bytes.Buffer
	s := &session{World: World{Out: &out}, root: &root{}, ctx: t.Context()}
	c := &logWatchCmd{Once: true, Memory: filepath.Join(t.TempDir(), "memory.json")}
	look := func(of merkle.Signer, word string) (text string, fails bool, note string) {
		t.Helper()
		head := merkle.Checkpoint{Origin: of.Name(), Size: 1, Root: merkle.Leaf([]byte(word))}
		line, err := of.Line(head.Text(), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		shown = head.Text() + "\n" + line
		place := node.LogPlace{State: "BH", Log: directory.Log{Key: of.Key, Address: srv.URL + "/log"}}
		m, err := c.open(s)
		if err != nil {
			t.Fatal(err)
		}
		defer m.lock.Close()
		x, _ := c.look(s, m, node.Witnessed{Logs: node.Logs{Logs: []node.LogPlace{place}}}, place)
		fails = m.ends(x)
		if err := m.save(); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		s.sight(x)
		return out.String(), fails, shown
	}
	text, fails, old := look(signers[0], "one")
	if fails || !strings.Contains(text, "seen for the first time") || strings.Contains(text, "NEW LOG") {
		t.Errorf("%v: %s", fails, text)
	}
	for i := range 2 {
		text, fails, _ = look(signers[1], "another")
		if fails != (i == 0) || !strings.Contains(text, "A HISTORY ENDED: the state goes on as a new log; log.example/BH/log1 had 1 entries") || !strings.Contains(text, old) {
			t.Errorf("%d: %v: %s", i, fails, text)
		}
	}
	text, fails, _ = look(signers[2], "another") // holds log2, and not log1
	if !fails || !strings.Contains(text, "GOES ON AS A NEW LOG: log.example/BH/log2 ended at 1 entries") || !strings.Contains(text, "log.example/BH/log1 had 1 entries") {
		t.Errorf("%v: %s", fails, text)
	}
}

// TestStuck: who starts a union is told, in his language, which node takes no
// calls and what to do.
func TestStuck(t *testing.T) {
	for lang, want := range map[string]string{"en": "✗ SA the node takes no calls", "ar": "✗ SA العقدة لا تقبل الطلبات"} {
		var out bytes.Buffer
		s := &session{World: World{Err: &out}, root: &root{}, ctx: t.Context(), ar: lang == "ar"}
		entry := fault.New(fault.LogDivided, "x").Entry()
		if err := s.stuck([]up.Unready{{State: "SA", Checks: []operation.Finding{{Name: "log", Code: fault.LogDivided, What: entry.What, Do: entry.Do}}}}); err != nil {
			t.Fatal(err)
		}
		if text := out.String(); !strings.Contains(text, want) || !strings.Contains(text, "falaj --state SA log renew") {
			t.Errorf("%s: %s", lang, text)
		}
	}
}

// TestLogAudit: who audits a log with a key of his own is told what is wrong
// with the address or the key, and what was not held against anything.
func TestLogAudit(t *testing.T) {
	seed := sha256.Sum256([]byte("log"))
	signer, err := merkle.NewSigner("log.example/BH/log1", merkle.LogSignature, ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	other, err := merkle.NewSigner("log.example/SA/log1", merkle.LogSignature, ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	head := merkle.Checkpoint{Origin: signer.Name(), Root: sha256.Sum256(nil)}
	line, err := signer.Line(head.Text(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/log/checkpoint" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, head.Text()+"\n"+line)
	}))
	defer srv.Close()
	for _, x := range []struct {
		url, key string
		code     fault.Code // "": it is whole
		says     string
	}{
		{srv.URL + "/log", signer.Key.String(), "", "No cosignatures were asked for"},
		{srv.URL + "/log", other.Key.String(), fault.LogUnsigned, "names log.example/BH/log1, and is not signed by the key of log.example/SA/log1"},
		{srv.URL, signer.Key.String(), fault.LogUnreadable, "try " + srv.URL + "/log"},
		{"http://127.0.0.1:1/log", signer.Key.String(), fault.LogUnreadable, "127.0.0.1:1"},
		{srv.URL + "/log", "", fault.NoNode, "--log-key"},
	} {
		var out bytes.Buffer
		s := &session{World: World{Out: &out, Env: func(string) (string, bool) { return "", false }, Home: func() (string, error) { return t.TempDir(), nil }}, root: &root{}, ctx: t.Context()}
		err := (&logAuditCmd{URL: x.url, LogKey: x.key, Quorum: -1}).Run(s)
		if x.code == "" && err != nil || x.code != "" && fault.CodeOf(err) != x.code {
			t.Errorf("%s %s: %v", x.url, x.key, err)
		}
		if err != nil {
			out.WriteString(fault.From(err).Detail)
		}
		if !strings.Contains(out.String(), x.says) {
			t.Errorf("%s %s: %s", x.url, x.key, out.String())
		}
	}
}
