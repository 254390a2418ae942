package journal_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

// spot is a column in which a bit can flip.
type spot struct {
	table, column string
	keys          []string // the columns that name its row
	part          journal.Part
}

func spots() []spot {
	commit, key, tile, head := []string{"first"}, []string{"part", "era"}, []string{"level", "n"}, []string{"id"}
	return []spot{
		{"journal_commit", "first", commit, journal.PartCommit},
		{"journal_commit", "leaves", commit, journal.PartLeaf},
		{"journal_commit", "keys", commit, journal.PartKey},
		{"journal_commit", "ends", commit, journal.PartRecord},
		{"journal_commit", "records", commit, journal.PartRecord},
		{"journal_key", "part", key, journal.PartKey},
		{"journal_key", "era", key, journal.PartKey},
		{"journal_key", "keys", key, journal.PartKey},
		{"journal_tile", "level", tile, journal.PartTile},
		{"journal_tile", "n", tile, journal.PartTile},
		{"journal_tile", "hashes", tile, journal.PartTile},
		{"journal_head", "size", head, journal.PartHead},
		{"journal_head", "root", head, journal.PartHead},
		{"journal_head", "edge", head, journal.PartHead},
	}
}

// TestDamage flips one bit after another, anywhere in what is stored: Verify
// names the changed value, and nothing else.
func TestDamage(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		j, db := open(t, cfg)
		fill(t, j, 600)
		for _, s := range spots() {
			if s.table != "journal_key" {
				damaged(t, j, db, s)
			}
		}
		if r := verify(t, j); !r.OK() || r.Read != 600 {
			t.Errorf("repaired: %+v", r)
		}
	})
}

func damaged(t *testing.T, j *journal.Journal, db *store.DB, s spot) {
	t.Helper()
	d := pick(t, db, s)
	where := fmt.Sprintf("%s.%s of row %v, bit %d, record %d", s.table, s.column, d.row, d.bit, d.index)
	d.flip(t, db)
	r := verify(t, j)
	if !slices.ContainsFunc(r.Wrong, d.is) {
		t.Errorf("%s: not named: %+v", where, r.Wrong)
	}
	for _, w := range r.Wrong {
		// A wrong end spoils the record that begins there, too.
		if !d.is(w) && (s.column != "ends" || w.Part != s.part || w.Index != d.index+1) {
			t.Errorf("%s: names another: %+v", where, w)
		}
	}
	d.flip(t, db)
}

// damage is one bit of a stored value.
type damage struct {
	spot
	row   []int64
	bit   int
	index int64 // of the record or hash that the bit is in; -1: of none
}

func (d *damage) is(w journal.Wrong) bool {
	return w.Part == d.part && (d.index < 0 || w.Index == d.index)
}

// pick draws a row and a bit by lot.
func pick(t *testing.T, db *store.DB, s spot) *damage {
	t.Helper()
	columns := strings.Join(s.keys, ", ")
	row := make([]int64, len(s.keys))
	into := make([]any, len(row))
	for i := range row {
		into[i] = &row[i]
	}
	if err := db.QueryRow(t.Context(), "SELECT "+columns+" FROM "+s.table+" ORDER BY random() LIMIT 1").Scan(into...); err != nil {
		t.Fatal(err)
	}
	d := &damage{spot: s, row: row, index: -1}
	if d.isNumber() {
		// A low bit would make one commit or part take another's place.
		d.bit = 20 + rand.IntN(20)
		return d
	}
	b := d.bytes(t, db, s.column)
	d.bit = rand.IntN(8 * len(b))
	at := d.bit / 8
	switch s.table + "." + s.column {
	case "journal_commit.leaves":
		d.index = row[0] + int64(at/32)
	case "journal_commit.keys":
		d.index = row[0] + int64(at/16)
	case "journal_commit.ends":
		d.index = row[0] + int64(at/4)
	case "journal_commit.records":
		ends := d.bytes(t, db, "ends")
		d.index = row[0]
		for ; int(binary.BigEndian.Uint32(ends)) <= at; ends = ends[4:] {
			d.index++
		}
	case "journal_tile.hashes":
		d.index = int64(at / 32)
	}
	return d
}

func (d *damage) isNumber() bool { return d.column == "size" || slices.Contains(d.keys, d.column) }

func (d *damage) where() string {
	var terms []string
	for i, k := range d.keys {
		terms = append(terms, fmt.Sprintf("%s = %d", k, d.row[i]))
	}
	return strings.Join(terms, " AND ")
}

func (d *damage) read(t *testing.T, db *store.DB, column string, into any) {
	t.Helper()
	if err := db.QueryRow(t.Context(), "SELECT "+column+" FROM "+d.table+" WHERE "+d.where()).Scan(into); err != nil {
		t.Fatal(err)
	}
}

func (d *damage) bytes(t *testing.T, db *store.DB, column string) (b []byte) {
	t.Helper()
	d.read(t, db, column, &b)
	return b
}

// flip flips the bit; flipping again repairs.
func (d *damage) flip(t *testing.T, db *store.DB) {
	t.Helper()
	var value any
	if d.isNumber() {
		var n int64
		d.read(t, db, d.column, &n)
		value = n ^ 1<<d.bit
	} else {
		b := d.bytes(t, db, d.column)
		b[d.bit/8] ^= 1 << (d.bit % 8)
		value = b
	}
	if _, err := db.Exec(t.Context(), "UPDATE "+d.table+" SET "+d.column+" = ? WHERE "+d.where(), value); err != nil {
		t.Fatal(err)
	}
	if i := slices.Index(d.keys, d.column); i >= 0 {
		d.row[i] ^= 1 << d.bit
	}
}
