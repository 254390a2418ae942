package exchange

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/union"
)

// BenchmarkTraceIndex looks for a person in the index of ten million records
// that are all about somebody.
func BenchmarkTraceIndex(b *testing.B) {
	u := newUnion(b, []union.State{"BH", "SA"})
	n := u.nodes["SA"]
	const blocks = 10_000_000 / traceBlock
	at := n.now()
	key, err := n.keys.HMAC("person-1")
	check(b, err)
	for block := range int64(blocks) {
		places := make([]place, traceBlock)
		for i := range places {
			hash := key.Sum(fmt.Appendf(nil, "p-%d", (block*traceBlock+int64(i))%100_000))
			places[i] = place(binary.BigEndian.AppendUint16(slices.Clone(hash[:placeHash]), uint16(i)))
		}
		slices.SortFunc(places, func(a, b place) int { return bytes.Compare(a[:], b[:]) })
		var plain []byte
		for _, p := range places {
			plain = append(plain, p[:]...)
		}
		sealed, err := n.Exchange.deps.Records.Seal(nil, "exchange", at, plain, traceAAD(block, 0, 1))
		check(b, err)
		_, err = n.db.Exec(b.Context(), "INSERT INTO exchange_trace (block, parts) VALUES (?, ?)", block, append(binary.BigEndian.AppendUint32(nil, uint32(len(sealed))), sealed...))
		check(b, err)
	}
	who := []message.Digest{message.Digest(n.Exchange.deps.Persons.Sum([]byte("p-7")))}
	for b.Loop() {
		found, missing, err := n.lookAll(b.Context(), blocks, who)
		if err != nil || len(missing) > 0 || len(found) != 100 {
			b.Fatal(len(found), len(missing), err)
		}
	}
}

// BenchmarkTraceCondense makes the index of a block of real records.
func BenchmarkTraceCondense(b *testing.B) {
	u := newUnion(b, []union.State{"BH", "SA"}, func(c *Config, _ *Deps) { c.traceBlock = 512 })
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for i := range 256 {
		u.call("SA", "GET", offered("BH", "things"), "/", nil, fmt.Sprintf("Falaj-Subject: p-%d", i))
	}
	for b.Loop() {
		_, unread, err := u.nodes["SA"].condense(b.Context(), 0)
		if err != nil || unread != 0 {
			b.Fatal(unread, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/512, "µs/record")
}
