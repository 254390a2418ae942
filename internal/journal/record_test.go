package journal

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/merkle"
)

// TestGolden holds digest, leaf and its hash against values computed by
// another program from the comments alone: evidence made today must verify in
// twenty years.
func TestGolden(t *testing.T) {
	r := Record{
		Kind: RequestReceived, At: time.UnixMilli(1795248000123), Class: "exchange",
		Key:      "BH/GOV/interior/traffic|6f1e3e0a-0000-4000-8000-000000000001",
		Envelope: []byte("ظرف"), Local: []byte(`{"peer":"SA"}`),
	}
	var salt [32]byte
	for i := range salt {
		salt[i] = byte(i)
	}
	digest := r.Digest()
	leaf := Leaf(salt, digest)
	node := merkle.Leaf(leaf[:])
	for _, c := range []struct {
		got  [32]byte
		want string
	}{
		{digest, "6fb20e5847538ac856917447e5ed759c019194ee436c93b8549f657f17b075be"},
		{leaf, "30b9d5646d7ff69d56dd0b329de9f33d1ea1e24793dbd048e98c51ea401495e8"},
		{node, "570ad3bfc66b2944d40cd0baeecbb1c1bab2f4924f377a81e2c8e9bc973ec66c"},
	} {
		if hex.EncodeToString(c.got[:]) != c.want {
			t.Errorf("%x, not %s", c.got, c.want)
		}
	}
}

func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for k := range Kind(10) {
		s := k.String()
		if known := k >= RequestSent && k <= CaseEvent; known == (s == "unknown kind") || known && seen[s] {
			t.Errorf("kind %d is called %q", k, s)
		}
		seen[s] = true
	}
}

func TestForm(t *testing.T) {
	part := func(limit int) *rapid.Generator[[]byte] { return rapid.SliceOfN(rapid.Byte(), 0, limit) }
	rapid.Check(t, func(t *rapid.T) {
		r := Record{
			Kind:  Kind(rapid.Byte().Draw(t, "kind")),
			At:    time.UnixMilli(rapid.Int64Range(0, 253402300799999).Draw(t, "at")),
			Class: string(part(MaxClass).Draw(t, "class")), Key: string(part(MaxKey).Draw(t, "key")),
			Envelope: part(300).Draw(t, "envelope"), Body: part(300).Draw(t, "body"), Local: part(300).Draw(t, "local"),
		}
		salt := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "salt"))
		b := r.encode(nil, salt)
		back, s, err := decode(b)
		if err != nil || s != salt || back.Digest() != r.Digest() || back.Class != r.Class || !back.At.Equal(r.At) {
			t.Fatalf("%+v came back as %+v, %v", r, back, err)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, _, err := decode(b[:cut]); err == nil {
			t.Fatalf("%d of %d bytes were read as a record", cut, len(b))
		}
		if _, _, err := decode(append(b, 0)); err == nil {
			t.Fatal("a record with something after it was read")
		}
	})
}

func FuzzDecode(f *testing.F) {
	r := Record{Kind: RequestSent, At: time.UnixMilli(1), Class: "c", Key: "k", Envelope: []byte("e"), Body: []byte("b"), Local: []byte("l")}
	f.Add(r.encode(nil, [32]byte{1}))
	f.Add([]byte{})
	f.Add([]byte(strings.Repeat("\x01", 60)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, salt, err := decode(b)
		if err != nil {
			return
		}
		if string(r.encode(nil, salt)) != string(b) {
			t.Fatal("a record has two forms")
		}
	})
}

// FuzzSpan: ends come from the database, which others may have written.
func FuzzSpan(f *testing.F) {
	f.Add([]byte{0, 0, 0, 5, 0, 0, 0, 9}, 1)
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0}, 1)
	f.Fuzz(func(t *testing.T, ends []byte, i int) {
		if i < 0 || i > 1<<20 {
			return
		}
		if from, to, ok := span(ends, i); ok && (from < 0 || to < from) {
			t.Fatalf("from %d to %d", from, to)
		}
	})
}
