package exchange

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// proof is what a journal holds of sealed messages: how often by envelope, and
// how often by the X-Road-Request-Id that is in it. That each record has its
// leaf in the log, and each leaf its record, is Verify's part.
type proof struct {
	sealed map[journal.Kind]map[[32]byte]int
	named  map[journal.Kind]map[string]int
}

func proven(t *testing.T, j *journal.Journal) proof {
	t.Helper()
	p := proof{map[journal.Kind]map[[32]byte]int{}, map[journal.Kind]map[string]int{}}
	for k := journal.RequestSent; k <= journal.AnswerReceived; k++ {
		p.sealed[k], p.named[k] = map[[32]byte]int{}, map[string]int{}
	}
	size, _, err := j.Head(t.Context())
	check(t, err)
	check(t, j.Each(t.Context(), 0, size, func(s journal.Stored, err error) error {
		if err != nil || p.sealed[s.Kind] == nil {
			return err
		}
		head, _, err := message.Open(s.Envelope)
		if err != nil {
			return err
		}
		var m struct {
			RequestID string `json:"request_id"`
		}
		if err := json.Unmarshal(head, &m); err != nil {
			return err
		}
		p.sealed[s.Kind][sha256.Sum256(s.Envelope)]++
		p.named[s.Kind][m.RequestID]++
		return nil
	}))
	return p
}

// compared holds the nodes' proofs against each other and against what the clients
// saw: an answer that somebody saw is once in both journals, as is its request,
// and nobody has recorded a message that its sender has not.
func compared(proofs map[union.State]proof, calls []sent) (broken []string) {
	for from, near := range proofs {
		for to, far := range proofs {
			if from == to {
				continue
			}
			for receiver, kind := range map[*proof]journal.Kind{&near: journal.AnswerReceived, &far: journal.RequestReceived} {
				sender := &far
				if receiver == &far {
					sender = &near
				}
				was := map[journal.Kind]journal.Kind{journal.AnswerReceived: journal.AnswerSent, journal.RequestReceived: journal.RequestSent}[kind]
				for envelope := range receiver.sealed[kind] {
					if n := sender.sealed[was][envelope]; n != 1 {
						broken = append(broken, fmt.Sprintf("%s-%s: of a message, %s, the sender has %d records", from, to, kind, n))
					}
				}
			}
			for _, s := range calls {
				if s.from != from || s.status != 200 {
					continue
				}
				for kind, p := range map[journal.Kind]proof{journal.RequestSent: near, journal.RequestReceived: far, journal.AnswerSent: far, journal.AnswerReceived: near} {
					if n := p.named[kind][s.request]; n != 1 {
						broken = append(broken, fmt.Sprintf("%s was answered to its client, and has %d records, %s", s.id, n, kind))
					}
				}
			}
		}
	}
	return broken
}

// beside is the rest of falaj fsck: what stands beside the journal.
func beside(t *testing.T, s union.State, home string, db *store.DB, j *journal.Journal, keys *seal.Keys) (broken []string) {
	t.Helper()
	names, err := keys.HMAC("exchange-1")
	check(t, err)
	spool, err := seal.OpenSpool(filepath.Join(home, "spool"), keys.Records())
	check(t, err)
	found, err := Inspect(t.Context(), db, j, keys.Records(), names, spool, largeOf(t.Context(), j), func(string, int64) {})
	check(t, err)
	check(t, spool.Close())
	for _, w := range found.Wrong {
		broken = append(broken, fmt.Sprintf("beside the journal of %s: %+v", s, w))
	}
	return broken
}

// hasty builds this test with a journal that lets a received answer go on to
// its client before it is written: the line that waits is changed on the way to
// the compiler, so that no such line stands in the product.
func hasty(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../journal/journal.go")
	check(t, err)
	right, err := os.ReadFile(path)
	check(t, err)
	line := []byte("\tselect {\n\tcase <-w.done:\n\t\treturn w.result()\n")
	if bytes.Count(right, line) != 1 {
		t.Fatal("the line that waits for the commit is no longer found")
	}
	dir := t.TempDir()
	wrong := bytes.Replace(right, line, append([]byte("\tif r.Kind == AnswerReceived {\n\t\treturn w.entry, nil\n\t}\n"), line...), 1)
	check(t, os.WriteFile(filepath.Join(dir, "journal.go"), wrong, 0o600))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: filepath.Join(dir, "journal.go")}})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "overlay"), overlay, 0o600))
	cmd := exec.Command("go", "test", "-c", "-mod=readonly", "-overlay", filepath.Join(dir, "overlay"), "-o", filepath.Join(dir, "hasty"), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building a node that is too early: %v\n%s", err, out)
	}
	return filepath.Join(dir, "hasty")
}
