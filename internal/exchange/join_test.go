package exchange

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/union"
)

// TestNothingJoins: two states hold of calls about one person whom both know by
// one number nothing of him by which their stores could be joined: neither in
// the databases as they are nor in what is decrypted. What both hold is the
// messages, with commitments of which no two are the same.
func TestNothingJoins(t *testing.T) {
	t.Parallel()
	const person = "1098765432"
	about, nobody := joinable(t, person), joinable(t, "")
	if common := about.common(nobody); len(common) > 0 {
		t.Errorf("both hold %d pieces, such as %q", len(common), common[:min(len(common), 9)])
	}
	for _, s := range []union.State{"BH", "SA"} {
		if len(about.held[s]) < 10_000 || len(about.local[s]) == 0 {
			t.Errorf("of %s only %d pieces were looked at", s, len(about.held[s]))
		}
	}
	if n := len(about.commitments); n < 8 || len(slices.Compact(slices.Sorted(slices.Values(about.commitments)))) != n {
		t.Errorf("%d commitments, and some are the same: %q", n, about.commitments)
	}
	hash := sha256.Sum256([]byte(person))
	for s, held := range about.held {
		for _, secret := range [][]byte{[]byte(person), hash[:], []byte(hex.EncodeToString(hash[:]))} {
			if held[window(secret)] {
				t.Errorf("%s holds the person", s)
			}
		}
	}
}

// TestJoiningIsFound: states with one key for persons would be found out.
func TestJoiningIsFound(t *testing.T) {
	t.Parallel()
	var first Persons
	same := func(_ *Config, d *Deps) {
		if first == nil {
			first = d.Persons
		}
		d.Persons = first
	}
	if len(joinable(t, "1098765432", same).common(joinable(t, ""))) == 0 {
		t.Error("what joins two stores was not found")
	}
}

type piece [8]byte

func window(b []byte) piece { return piece(b[:8]) }

// holdings are all pieces of eight bytes of what states store.
type holdings struct {
	held        map[union.State]map[piece]bool
	local       map[union.State][]string // of the records, what a node alone knows
	shared      map[piece]bool           // of what travelled
	commitments []string
}

func slide(into map[piece]bool, b []byte) {
	for ; len(b) >= len(piece{}); b = b[1:] {
		into[window(b)] = true
	}
}

// common is what both states hold and neither travelled nor is there in calls
// about nobody, nor is the length of something encrypted before its class.
func (h *holdings) common(nobody *holdings) (out []piece) {
	for p := range h.held["BH"] {
		if h.held["SA"][p] && !h.shared[p] && !bytes.Contains(p[:], []byte("\x01\x08ex")) && !(nobody.held["BH"][p] && nobody.held["SA"][p]) {
			out = append(out, p)
		}
	}
	return out
}

// joinable makes calls of every kind about a person, or about nobody, and
// collects what both nodes hold then.
func joinable(t *testing.T, person string, options ...kitOption) *holdings {
	t.Helper()
	u := newUnion(t, []union.State{"BH", "SA"}, append([]kitOption{smallBlocks}, options...)...)
	serve := func(w http.ResponseWriter, r *http.Request) {
		if person != "" {
			w.Header().Set("Falaj-Subject", person)
		}
		_, _ = io.Copy(w, r.Body)
	}
	u.backend("BH", "things", serve)
	u.backend("BH", "later", serve)
	large := strings.Repeat("large ", 50_000)
	h := &holdings{held: map[union.State]map[piece]bool{}, local: map[union.State][]string{}, shared: map[piece]bool{}}
	for i, c := range []struct{ service, body, purpose string }{
		{"things", "small", "test"}, {"things", large, "test"}, {"later", "small", "test"}, {"later", large, "test"},
		{"closed", "", "test"}, {"things", "", "other"}, {"things", "", "fun"}, {"things", "again", "test"},
	} {
		id := fmt.Sprintf("joined-%d", i)
		headers := []string{"X-Road-Id: " + id, "Falaj-Purpose: " + c.purpose, "Falaj-Conversation: together"}
		if person != "" {
			headers = append(headers, "Falaj-Subject: "+person)
		}
		u.call("SA", "POST", offered("BH", c.service), "/", strings.NewReader(c.body), headers...)
		u.call("SA", "POST", offered("BH", c.service), "/", strings.NewReader(c.body), headers...)
		slide(h.shared, []byte(id))
	}
	for _, n := range u.nodes {
		_, err := n.Evidence(t.Context(), "joined-0", auditor, Page{})
		check(t, err)
		_, err = n.Trace(t.Context(), TraceQuestion{Subject: person + "0"}, auditor) // makes the index
		check(t, err)
		_, err = n.Trace(t.Context(), TraceQuestion{Subject: person + "0"}, auditor)
		check(t, err)
	}
	for s, n := range u.nodes {
		h.held[s] = map[piece]bool{}
		n.dump(t, h.held[s])
		for i := range n.size(t) {
			r, err := n.journal.Get(t.Context(), i)
			check(t, err)
			for _, b := range [][]byte{r.Envelope, r.Body} {
				slide(h.shared, b)
			}
			own, err := readNote(r.Local)
			check(t, err)
			slide(h.shared, own.Promise)
			slide(h.shared, []byte(base64.StdEncoding.EncodeToString(own.Promise)))
			if head, _, err := message.Open(r.Envelope); err == nil {
				var m struct{ Subject string }
				check(t, json.Unmarshal(head, &m))
				if m.Subject != "" && !slices.Contains(h.commitments, m.Subject) {
					h.commitments = append(h.commitments, m.Subject)
				}
			}
			h.local[s] = append(h.local[s], string(r.Local))
			var v any
			check(t, json.Unmarshal(r.Local, &v))
			leafs(v, func(text string) { coded(h.held[s], text) })
		}
		var blocks int64
		check(t, n.db.QueryRow(t.Context(), "SELECT COUNT(*) FROM exchange_trace").Scan(&blocks))
		for b := range blocks {
			var row []byte
			check(t, n.db.QueryRow(t.Context(), "SELECT parts FROM exchange_trace WHERE block = ?", b).Scan(&row))
			parts, err := n.unfoldRow(b, row)
			check(t, err)
			slide(h.held[s], bytes.Join(parts, nil))
		}
		if blocks == 0 {
			t.Error("there is no index of the trace")
		}
	}
	return h
}

// coded takes a text and what it may be the digits of.
func coded(into map[piece]bool, text string) {
	slide(into, []byte(text))
	if b, err := hex.DecodeString(text); err == nil {
		slide(into, b)
	}
	if b, err := base64.StdEncoding.DecodeString(text); err == nil {
		slide(into, b)
	}
}

// leafs goes through the texts of a JSON value.
func leafs(v any, fn func(string)) {
	switch v := v.(type) {
	case string:
		fn(v)
	case []any:
		for _, x := range v {
			leafs(x, fn)
		}
	case map[string]any:
		for _, x := range v {
			leafs(x, fn)
		}
	}
}

// dump cuts every value of every table of a node's database.
func (n *testNode) dump(t *testing.T, into map[piece]bool) {
	t.Helper()
	names, err := n.db.Query(t.Context(), "SELECT name FROM sqlite_master WHERE type = 'table'")
	check(t, err)
	var tables []string
	for names.Next() {
		var name string
		check(t, names.Scan(&name))
		tables = append(tables, name)
	}
	check(t, names.Close())
	for _, name := range tables {
		rows, err := n.db.Query(t.Context(), `SELECT * FROM "`+name+`"`)
		check(t, err)
		columns, err := rows.Columns()
		check(t, err)
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			check(t, rows.Scan(values...))
			for _, v := range values {
				switch v := (*v.(*any)).(type) {
				case []byte:
					slide(into, v)
				case string:
					coded(into, v)
				}
			}
		}
		check(t, rows.Err())
		check(t, rows.Close())
	}
	if len(tables) < 10 {
		t.Errorf("only the tables %q", tables)
	}
}
