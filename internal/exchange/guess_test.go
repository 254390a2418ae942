package exchange

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/union"
)

// TestGuesses: who reads the database and knows everything that may be asked
// does not find out what was asked.
func TestGuesses(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	const id = "a-call-of-a-name"
	path := func(plate int) string { return fmt.Sprintf("/vehicles/%d", plate) }
	if a := u.call("SA", "GET", offered("BH", "things"), path(7), nil, "X-Road-Id: "+id); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	found, err := u.nodes["SA"].journal.Find(t.Context(), id)
	if err != nil || len(found) != 2 {
		t.Fatal(len(found), err)
	}
	head, _, err := message.Open(found[0].Envelope)
	check(t, err)
	r, err := message.ParseRequest(head)
	check(t, err)
	for s, n := range u.nodes {
		stored := n.databaseBytes(t)
		for plate := range 10 {
			guess := *r
			guess.Path = path(plate)
			content, digest := guess.Content(), sha256.Sum256([]byte(guess.Path))
			for what, secret := range map[string][]byte{"path": []byte(guess.Path), "its digest": digest[:], "digest of the request": content[:]} {
				if bytes.Contains(stored, secret) {
					t.Errorf("%s: the %s of plate %d stands there", s, what, plate)
				}
			}
		}
	}
}

// databaseBytes are those of a node's database file and of what is beside it.
func (n *testNode) databaseBytes(t *testing.T) (all []byte) {
	t.Helper()
	var path string
	check(t, n.db.QueryRow(t.Context(), `SELECT file FROM pragma_database_list WHERE name = 'main'`).Scan(&path))
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		check(t, err)
		all = append(all, b...)
	}
	return all
}
