package verify

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/falaj/falaj/internal/evidence"
)

// TestRemembering: a verifier that has just found good evidence good says of
// other evidence, which differs from it in one byte of what it remembers, the
// same as one that knows nothing.
func TestRemembering(t *testing.T) {
	w := newWorld(t)
	good := w.stamp(w.both(w.call(nil)), nil)
	for i := range good.Records {
		r := &good.Records[i]
		r.Leaf = 0
		w.receipt(r, w.logs["SA"], w.witnesses["BH"], w.witnesses["AE"])
	}
	v, err := New(w.Root)
	must(t, err)
	b := pack(t, good)
	noise := bytes.Repeat([]byte{0xaa}, 2*len(b))
	v.Container(bytes.NewReader(noise), int64(len(noise)))
	if r := v.Container(bytes.NewReader(b), int64(len(b))); r.Verdict != Holds {
		t.Fatalf("%q", bad(r, Failed))
	}
	random := rand.New(rand.NewPCG(3, 4))
	spoil := func(b []byte) []byte {
		x := slices.Clone(b)
		x[random.IntN(len(x))] ^= 1 << random.IntN(8)
		return x
	}
	same := func(what string, c evidence.Call) {
		t.Helper()
		b := pack(t, c)
		v.Container(bytes.NewReader(noise), int64(len(noise))) // whatever was only lent is gone
		warm, cold := v.Container(bytes.NewReader(b), int64(len(b))), w.verify(b)
		if !reflect.DeepEqual(warm, cold) {
			t.Errorf("%s:\n%+v\n%+v", what, warm, cold)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(good.Directory)) {
		for range 3 {
			c := good
			c.Directory = maps.Clone(good.Directory)
			c.Directory[name] = spoil(c.Directory[name])
			same(name, c)
		}
	}
	for range 24 {
		c := good
		c.Records = slices.Clone(good.Records)
		c.Records[0].Receipt = spoil(c.Records[0].Receipt)
		same("the receipt", c)
		c.Records = slices.Clone(good.Records)
		c.Records[1].Proof = spoil(c.Records[1].Proof)
		same("the time-stamp", c)
	}
	v.Container(bytes.NewReader(noise), int64(len(noise)))
	if got := v.Container(bytes.NewReader(b), int64(len(b))); got.Verdict != Holds {
		t.Error("it does not hold any more")
	}
}

// TestForgetting: what is remembered stays within its bytes.
func TestForgetting(t *testing.T) {
	var m memo[int]
	for i := range 100 {
		got, err := m.of([32]byte{byte(i)}, func(int) int { return maxMemoBytes / 10 }, func() (int, error) { return i, nil })
		if must(t, err); got != i || len(m.known) < 1 || len(m.known) > 10 {
			t.Fatalf("%d of %d, %d known", got, i, len(m.known))
		}
	}
	w := newWorld(t)
	v, err := New(w.Root)
	must(t, err)
	c := w.call(nil)
	for i := range 2 * maxKnown {
		c.Directory["junk"] = []byte{byte(i)}
		b := pack(t, c)
		if r := v.Container(bytes.NewReader(b), int64(len(b))); r.Verdict != Holds {
			t.Fatalf("%q", bad(r, Failed))
		}
		size := 0
		for _, e := range v.known {
			for _, f := range e.files {
				size += len(f)
			}
		}
		if size != v.bytes || len(v.known) > maxKnown {
			t.Fatalf("%d bytes are known, %d counted; %d editions", size, v.bytes, len(v.known))
		}
	}
}
