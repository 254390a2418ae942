package exchange

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// thief holds what stays of a node, and knows all that may be asked: of the
// request everything but which of the plates it was about.
type thief struct {
	knows  *message.Request
	plates []string
	secret map[string][]byte // what must not stand anywhere, by what it is
	leaves [][32]byte
	shape  []journal.Stored // of the records: what the thief guesses of them is all but the salt
}

const darkPlate, darkID = "BH-104731", "person-880512345"

func pathOf(plate string) string { return "/vehicles/" + plate + "/owner" }

// learn takes down, before it is gone, what a node holds of a call.
func learn(t *testing.T, n *testNode) *thief {
	t.Helper()
	found, err := n.journal.Find(t.Context(), darkID)
	if err != nil || len(found) != 2 {
		t.Fatalf("%d records, %v", len(found), err)
	}
	k := &thief{plates: []string{"BH-000001", darkPlate, "SA-999999", "QA-5"}, secret: map[string][]byte{}, shape: found}
	put := func(what string, b []byte) {
		if len(b) >= 8 {
			k.secret[what] = b
			d := sha256.Sum256(b)
			k.secret["the digest of "+what] = d[:]
		}
	}
	for i, s := range found {
		kind := s.Kind.String()
		head, raw, err := message.Open(s.Envelope)
		check(t, err)
		p := s.Parts()
		digest := p.Digest()
		var body *message.Body
		if i == 0 {
			k.knows, err = message.ParseRequest(head)
			check(t, err)
			body = k.knows.Body
		} else {
			a, err := message.ParseAnswer(head)
			check(t, err)
			body = a.Body
		}
		part := seal.Request
		if i == 1 {
			part = seal.Answer
		}
		put(kind+": envelope", s.Envelope)
		put(kind+": head", head)
		put(kind+": seal", raw)
		put(kind+": manifest", manifest(part, head, body))
		put(kind+": body", s.Body)
		put(kind+": note", s.Local)
		put(kind+": salt", s.Salt[:])
		k.secret[kind+": digest"] = digest[:]
		if body != nil {
			k.secret[kind+": digest of the body"] = body.SHA256[:]
		}
		k.leaves = append(k.leaves, s.Leaf)
	}
	content := k.knows.Content()
	k.secret["digest of what was asked"] = content[:]
	put("plate", []byte(darkPlate))
	put("id", []byte(darkID))
	put("path", []byte(pathOf(darkPlate)))
	return k
}

// search tells what a thief finds in what stays: a secret as it is, or a plate
// for which some 32 bytes that stand there are the salt of a leaf.
func (k *thief) search(t *testing.T, stays []byte) (found []string) {
	t.Helper()
	for what, b := range k.secret {
		if bytes.Contains(stays, b) {
			found = append(found, what)
		}
	}
	for n, plate := range k.plates {
		guess := *k.knows
		guess.Path = pathOf(plate)
		content := guess.Content()
		for what, b := range map[string][]byte{"path": []byte(guess.Path), "content": content[:]} {
			if d := sha256.Sum256(b); bytes.Contains(stays, b) || bytes.Contains(stays, d[:]) {
				found = append(found, "guessed "+what+" of "+plate)
			}
		}
		for i, s := range k.shape {
			record := s.Record
			record.Envelope = bytes.ReplaceAll(s.Envelope, []byte(darkPlate), []byte(plate))
			record.Body = bytes.ReplaceAll(s.Body, []byte(darkPlate), []byte(plate))
			digest := record.Digest()
			if bytes.Contains(stays, digest[:]) {
				found = append(found, "guessed digest of "+plate)
			}
			for at := 0; n < 2 && at+32 <= len(stays); at++ { // the right one and another: each takes its time
				if w := stays[at : at+32]; w[0]|w[1]|w[2]|w[3] != 0 && journal.Leaf([32]byte(w), digest) == k.leaves[i] {
					found = append(found, "guessed leaf of "+plate)
				}
			}
		}
	}
	return found
}

// stays are all bytes of a node's database: of SQLite the file, free pages in
// it and the log beside it, of PostgreSQL the files of the tables, dead rows in
// them; and of the spool.
func (n *testNode) stays(t *testing.T, cfg store.Config) (all []byte) {
	t.Helper()
	add := func(pattern string) {
		files, err := filepath.Glob(pattern)
		check(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			check(t, err)
			all = append(all, b...)
		}
	}
	add(filepath.Join(n.spool, strings.Repeat("?", 32)))
	if n.db.Dialect() == store.SQLite {
		add(cfg.DSN + "*")
		return all
	}
	storetest.Admin(t, "CHECKPOINT")
	var folder string
	check(t, n.db.QueryRow(t.Context(), "SELECT current_setting('data_directory')").Scan(&folder))
	rows, err := n.db.Query(t.Context(), `SELECT pg_relation_filepath(c.oid) FROM pg_class c WHERE c.relkind IN ('r', 'i', 't') AND
		(c.relnamespace = current_schema()::regnamespace OR c.oid IN (SELECT reltoastrelid FROM pg_class WHERE relnamespace = current_schema()::regnamespace))`)
	check(t, err)
	defer rows.Close()
	for rows.Next() {
		var path string
		check(t, rows.Scan(&path))
		add(filepath.Join(folder, path) + "*")
	}
	check(t, rows.Err())
	return all
}

// dark makes a union in which one call has been made, and gives each node's
// database with what a thief is to look for.
func dark(t *testing.T, on engine) (*testUnion, map[union.State]store.Config, map[union.State]*thief) {
	t.Helper()
	places := map[union.State]store.Config{}
	var made []store.Config
	u := newUnionOn(t, func(t testing.TB) store.Config { made = append(made, on(t)); return made[len(made)-1] }, []union.State{"BH", "SA"})
	places["BH"], places["SA"] = made[0], made[1]
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "the owner of "+r.URL.Path) })
	large := strings.Repeat(darkPlate+" ", 20_000)
	if a := u.call("SA", "POST", offered("BH", "things"), pathOf(darkPlate), strings.NewReader(large), "X-Road-Id: "+darkID); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for i := range 20 { // others' calls
		u.call("SA", "POST", offered("BH", "things"), fmt.Sprintf("/other/%d", i), strings.NewReader("x"))
	}
	thieves := map[union.State]*thief{}
	for s, n := range u.nodes {
		thieves[s] = learn(t, n)
	}
	return u, places, thieves
}

// TestEndedIsDark: of a call whose month has ended nothing is found by who holds
// everything that stays, a backup made before and the key folder as well, and
// knows all that may have been asked. Without the salt's protection it would be.
func TestEndedIsDark(t *testing.T) {
	for name, on := range map[string]engine{"sqlite": onSQLite, "postgres": storetest.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, places, thieves := dark(t, on)
			for s, n := range u.nodes {
				k := thieves[s]
				backup := n.stays(t, places[s])
				if n.db.Dialect() == store.SQLite {
					copied := filepath.Join(t.TempDir(), "copy.db")
					check(t, n.db.Backup(t.Context(), copied))
					b, err := os.ReadFile(copied)
					check(t, err)
					backup = append(backup, b...)
				}
				check(t, n.keys.Records().Destroy("exchange", seal.PeriodOf(time.Now())))
				check(t, n.Bury(t.Context()))
				var keys []byte
				check(t, filepath.Walk(filepath.Join(n.home, "keys"), func(path string, info os.FileInfo, err error) error {
					if err != nil || info.IsDir() {
						return err
					}
					b, err := os.ReadFile(path)
					keys = append(keys, b...)
					return err
				}))
				if len(keys) == 0 {
					t.Fatal("no keys")
				}
				for what, b := range map[string][]byte{"what stays": n.stays(t, places[s]), "the backup": backup, "the keys": keys} {
					if found := k.search(t, b); len(found) > 0 {
						t.Errorf("%s: in %s: %v", s, what, found)
					}
				}
				// With the keys that are left, nothing of it opens.
				for _, was := range k.shape {
					if r, err := n.journal.Get(t.Context(), was.Index); err != nil || !r.Erased {
						t.Errorf("%s: record %d: %+v %v", s, was.Index, r, err)
					}
				}
				// The search is one that finds.
				for i, was := range k.shape {
					if found := k.search(t, append(bytes.Repeat([]byte("stays "), 50), was.Salt[:]...)); len(found) < 2 {
						t.Errorf("salt %d stands there, and is not found: %v", i, found)
					}
				}
			}
		})
	}
}

// sealedBytes are a record's as the database holds them.
func sealedBytes(t *testing.T, n *testNode, index int64) []byte {
	t.Helper()
	var first int64
	var ends, records []byte
	check(t, n.db.QueryRow(t.Context(), "SELECT first, ends, records FROM journal_commit WHERE first <= ? ORDER BY first DESC LIMIT 1", index).Scan(&first, &ends, &records))
	from, i := 0, int(index-first)
	if i > 0 {
		from = int(binary.BigEndian.Uint32(ends[4*(i-1):]))
	}
	return bytes.Clone(records[from:binary.BigEndian.Uint32(ends[4*i:])])
}

// TestErasedIsDark: of a call that was erased by itself nothing is found either,
// although the key of its month is there: not even what was encrypted. What was
// copied before is dark only to who lacks the key.
func TestErasedIsDark(t *testing.T) {
	for name, on := range map[string]engine{"sqlite": onSQLite, "postgres": storetest.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, places, thieves := dark(t, on)
			for s, n := range u.nodes {
				k := thieves[s]
				backup := n.stays(t, places[s])
				var leaves []int64
				cipher := map[string][]byte{}
				for _, r := range k.shape {
					leaves = append(leaves, r.Index)
					b := sealedBytes(t, n, r.Index)
					for at := 0; at+48 <= len(b); at += 48 { // whichever part of it is left
						cipher[fmt.Sprintf("ciphertext of record %d at %d", r.Index, at)] = b[at : at+48]
					}
					note, err := readNote(r.Local)
					check(t, err)
					if note.Spool != "" {
						f, err := os.ReadFile(filepath.Join(n.spool, note.Spool))
						check(t, err)
						cipher["large body"] = f[1000:1048]
						id, err := n.deps.Spool.Open(note.Spool)
						check(t, err)
						check(t, id.Close())
					}
				}
				if found := k.search(t, backup); len(found) > 0 {
					t.Errorf("%s: in the backup, without the keys: %v", s, found)
				}
				_, err := n.Erase(t.Context(), journal.Erasure{Leaves: leaves, By: []string{"officer"}, Reason: "a decision", At: time.Now(), Class: "admin"}, nil, nil, func() error { return nil })
				check(t, err)
				check(t, n.db.Settle(t.Context(), n.db.Dialect() == store.Postgres)) // as docs/operations.md tells for PostgreSQL
				for what, b := range cipher {
					if strings.HasPrefix(what, "ciphertext") && strings.HasSuffix(what, " at 0") {
						continue // its head names class, month and a random id that other records share
					}
					k.secret[what] = b
				}
				after := n.stays(t, places[s])
				if found := k.search(t, after); len(found) > 0 {
					t.Errorf("%s: %d secrets stand there: %v", s, len(found), found)
				}
				r, err := n.journal.Verify(t.Context())
				if err != nil || !r.OK() || r.Erased != 2 {
					t.Errorf("%s: %+v %v", s, r, err)
				}
				if left, err := n.journal.Find(t.Context(), darkID); err != nil || len(left) != 0 {
					t.Errorf("%s: found %d by its id, %v", s, len(left), err)
				}
				i, err := Inspect(t.Context(), n.db, n.journal, n.deps.Records, n.deps.Names, n.deps.Spool, largeOf(t.Context(), n.journal), func(string, int64) {})
				if err != nil || len(i.Wrong) > 0 {
					t.Errorf("%s: %+v %v", s, i, err)
				}
				all, err := n.journal.Find(t.Context(), "erasure")
				if err != nil || len(all) != 1 || !bytes.Contains(all[0].Local, []byte("a decision")) {
					t.Errorf("%s: the decision: %+v %v", s, all, err)
				}
			}
			// The id is not used anew: what it was used for is gone.
			if a := u.call("SA", "POST", offered("BH", "things"), pathOf(darkPlate), strings.NewReader("again"), "X-Road-Id: "+darkID); a.status == 200 {
				t.Errorf("the id is used again: %d %s", a.status, a.body)
			}
		})
	}
}
