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
	c := &logWatchCmd{Once: true, Memory: filepath.Join(t.TempDir(), "a", "memory.json")}
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
	if x := look(); x.What != witness.SightGrown {
		t.Errorf("%+v", x)
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
	for _, bad := range []string{"", "x", "[]"} {
		if err := os.WriteFile(c.Memory, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.open(s); fault.CodeOf(err) != fault.Usage {
			t.Errorf("%q as a memory: %v", bad, err)
		}
	}
}
