package p256

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"sync"
	"testing"

	"filippo.io/nistec"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"pgregory.net/rapid"
)

func order() *big.Int { return elliptic.P256().Params().N }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// multiple is the k-fold of a point; nil is the generator.
func multiple(p *nistec.P256Point, k *big.Int) *nistec.P256Point {
	b := new(big.Int).Mod(k, order()).FillBytes(make([]byte, 32))
	if p == nil {
		return must(nistec.NewP256Point().ScalarBaseMult(b))
	}
	return must(nistec.NewP256Point().ScalarMult(p, b))
}

func public(t testing.TB, p *nistec.P256Point) *ecdsa.PublicKey {
	t.Helper()
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), p.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func encoded(r, s *big.Int) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	return b.BytesOrPanic()
}

// crafted is a digest and a signature for which the verifier of a key comes to
// these two scalars; r is as given, or where it is nil that of their point.
func crafted(key *nistec.P256Point, u1, u2, r *big.Int) (digest [32]byte, sig []byte) {
	if r == nil {
		sum := nistec.NewP256Point().Add(multiple(nil, u1), multiple(key, u2))
		if r = big.NewInt(1); sum.IsInfinity() == 0 {
			r = new(big.Int).Mod(new(big.Int).SetBytes(must(sum.BytesX())), order())
		}
	}
	s := new(big.Int).ModInverse(u2, order())
	if s == nil {
		s = big.NewInt(1) // no signature leads there
	}
	s.Mul(s, r).Mod(s, order())
	e := new(big.Int).Mul(u1, s)
	e.Mod(e, order()).FillBytes(digest[:])
	return digest, encoded(r, s)
}

// same holds a table against crypto/ecdsa.
func same(t testing.TB, table *Table, pub *ecdsa.PublicKey, digest [32]byte, sig []byte) bool {
	t.Helper()
	want := ecdsa.VerifyASN1(pub, digest[:], sig)
	if got := table.Verify(&digest, sig); got != want {
		t.Fatalf("key %x, digest %x, signature %x: %v, and crypto/ecdsa says %v", must(pub.Bytes()), digest, sig, got, want)
	}
	return want
}

func TestWycheproof(t *testing.T) {
	f, err := os.Open("testdata/ecdsa_secp256r1_sha256_test.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var vectors struct {
		NumberOfTests int
		TestGroups    []struct {
			PublicKey struct{ Uncompressed string }
			Tests     []struct {
				TcID              int
				Comment, Msg, Sig string
				Result            string
			}
		}
	}
	if err := json.NewDecoder(must(gzip.NewReader(f))).Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	count, valid := 0, 0
	for _, g := range vectors.TestGroups {
		pub := must(ecdsa.ParseUncompressedPublicKey(elliptic.P256(), must(hex.DecodeString(g.PublicKey.Uncompressed))))
		table, keys := must(New(pub)), new(Keys)
		for _, v := range g.Tests {
			sig, digest := must(hex.DecodeString(v.Sig)), sha256.Sum256(must(hex.DecodeString(v.Msg)))
			count++
			if got := table.Verify(&digest, sig); got != (v.Result == "valid") {
				t.Errorf("%d, %s: %v", v.TcID, v.Comment, got)
			}
			if same(t, table, pub, digest, sig) {
				valid++
			}
			if got := keys.Verify([32]byte{}, pub, &digest, sig); got != (v.Result == "valid") {
				t.Errorf("%d, %s: %v by Keys", v.TcID, v.Comment, got)
			}
		}
	}
	if count != vectors.NumberOfTests || valid < 100 {
		t.Errorf("%d of %d vectors, %d valid", count, vectors.NumberOfTests, valid)
	}
}

// TestGolden: RFC 6979 A.2.5, SHA-256, "sample".
func TestGolden(t *testing.T) {
	key := must(ecdsa.ParseRawPrivateKey(elliptic.P256(), must(hex.DecodeString("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"))))
	number := func(s string) *big.Int { return new(big.Int).SetBytes(must(hex.DecodeString(s))) }
	r, s := number("efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"), number("f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8")
	table, digest := must(New(&key.PublicKey)), sha256.Sum256([]byte("sample"))
	if !same(t, table, &key.PublicKey, digest, encoded(r, s)) {
		t.Error("it does not verify")
	}
	if digest[31]++; same(t, table, &key.PublicKey, digest, encoded(r, s)) {
		t.Error("of another digest")
	}
}

// edges are scalars at the ends of digits, of carries and of the order.
func edges() (k []*big.Int) {
	one, n := big.NewInt(1), order()
	add := func(v *big.Int) { k = append(k, new(big.Int).Mod(v, n)) }
	for i := range int64(3) {
		add(big.NewInt(i))
		add(new(big.Int).Sub(n, big.NewInt(i+1)))
		add(new(big.Int).Add(new(big.Int).Rsh(n, 1), big.NewInt(i-1)))
	}
	run := new(big.Int)
	for i := 0; i < 256; i += window {
		at := new(big.Int).Lsh(one, uint(i))
		add(at)                                            // the digit 1
		add(new(big.Int).Sub(at, one))                     // carries all the way
		add(new(big.Int).Lsh(big.NewInt(half), uint(i)))   // the greatest digit
		add(new(big.Int).Lsh(big.NewInt(half+1), uint(i))) // the least one
		run.Or(run, new(big.Int).Lsh(big.NewInt(half), uint(i)))
		add(run)
	}
	return k
}

func TestEdges(t *testing.T) {
	all, n := edges(), order()
	few := []*big.Int{new(big.Int), big.NewInt(1), new(big.Int).Sub(n, big.NewInt(1)), all[len(all)-1]}
	random := must(rand.Int(rand.Reader, n))
	for _, d := range []*big.Int{big.NewInt(1), big.NewInt(half), new(big.Int).Sub(n, big.NewInt(1)), random} {
		key := multiple(nil, d)
		pub := public(t, key)
		table := must(New(pub))
		good := 0
		for _, u2 := range all {
			opposite := new(big.Int).Mul(u2, d)
			opposite.Sub(n, opposite.Mod(opposite, n))
			// Of the last two the sum is infinity, and a doubling on the way.
			for _, u1 := range append(few, opposite, new(big.Int).Mod(new(big.Int).Mul(u2, d), n)) {
				digest, sig := crafted(key, u1, u2, nil)
				if same(t, table, pub, digest, sig) {
					good++
				}
				digest[0] ^= 1
				same(t, table, pub, digest, sig)
			}
		}
		if good < 4*len(all) {
			t.Errorf("%d good signatures", good)
		}
	}
}

// TestValues: r and s where no signature has them.
func TestValues(t *testing.T) {
	key := multiple(nil, must(rand.Int(rand.Reader, order())))
	pub := public(t, key)
	table := must(New(pub))
	digest, sig := crafted(key, big.NewInt(5), big.NewInt(7), nil)
	var inner cryptobyte.String
	in := cryptobyte.String(sig)
	r, s := new(big.Int), new(big.Int)
	if !in.ReadASN1(&inner, asn1.SEQUENCE) || !inner.ReadASN1Integer(r) || !inner.ReadASN1Integer(s) || !same(t, table, pub, digest, sig) {
		t.Fatal("no signature to begin with")
	}
	n, zero, one := order(), new(big.Int), big.NewInt(1)
	p := elliptic.P256().Params().P
	values := func(v *big.Int) []*big.Int {
		return []*big.Int{v, zero, one, n, p, new(big.Int).Sub(n, one), new(big.Int).Add(n, one), new(big.Int).Add(v, n), new(big.Int).Sub(n, v), new(big.Int).Neg(v), new(big.Int).Lsh(one, 256), new(big.Int).Add(v, new(big.Int).Lsh(one, 256))}
	}
	good := 0
	for _, r := range values(r) {
		for _, s := range values(s) {
			for _, d := range [][32]byte{digest, {}, [32]byte(n.Bytes()), [32]byte(bytes.Repeat([]byte{0xff}, 32))} {
				if same(t, table, pub, d, encoded(r, s)) {
					good++
				}
			}
		}
	}
	if good != 2 { // s and n-s
		t.Errorf("%d of them verify", good)
	}
	for i := range sig {
		for _, b := range [][]byte{sig[:i], append(bytes.Clone(sig[:i]), append([]byte{0}, sig[i:]...)...)} {
			same(t, table, pub, digest, b)
		}
		for bit := range 8 {
			b := bytes.Clone(sig)
			b[i] ^= 1 << bit
			same(t, table, pub, digest, b)
		}
	}
}

// TestLargeX: the point's x lies between the order and the field's prime, so
// that r is x less the order.
func TestLargeX(t *testing.T) {
	n, found := order(), 0
	for i := int64(0); found < 3; i++ {
		x := new(big.Int).Add(n, big.NewInt(i))
		point, err := nistec.NewP256Point().SetBytes(append([]byte{2}, x.Bytes()...))
		if err != nil {
			continue
		}
		found++
		// The key for which u1·G + u2·key is that point.
		u1, u2 := big.NewInt(3), big.NewInt(11)
		rest := nistec.NewP256Point().Add(point, multiple(nil, new(big.Int).Sub(n, u1)))
		key := multiple(rest, new(big.Int).ModInverse(u2, n))
		pub := public(t, key)
		table := must(New(pub))
		if i > 0 {
			digest, sig := crafted(key, u1, u2, big.NewInt(i))
			if !same(t, table, pub, digest, sig) {
				t.Errorf("x = n + %d does not verify", i)
			}
		}
		digest, sig := crafted(key, u1, u2, x)
		if same(t, table, pub, digest, sig) {
			t.Errorf("r = n + %d verifies", i)
		}
	}
}

func scalar(b []byte) *big.Int { return new(big.Int).Mod(new(big.Int).SetBytes(b), order()) }

func TestAsTheStandardLibrary(t *testing.T) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	table := must(New(&key.PublicKey))
	point := must(nistec.NewP256Point().SetBytes(must(key.PublicKey.Bytes())))
	rapid.Check(t, func(rt *rapid.T) {
		digest := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "digest"))
		sig := must(ecdsa.SignASN1(rand.Reader, key, digest[:]))
		if !same(t, table, &key.PublicKey, digest, sig) {
			rt.Fatal("a good signature")
		}
		sig[rapid.IntRange(0, len(sig)-1).Draw(rt, "at")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "bits"))
		same(t, table, &key.PublicKey, digest, sig)
		u1, u2 := scalar(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(rt, "u1")), scalar(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(rt, "u2"))
		digest, sig = crafted(point, u1, u2, nil)
		same(t, table, &key.PublicKey, digest, sig)
	})
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte{1}, []byte{0}, []byte{1}, []byte(nil), []byte(nil))
	f.Add([]byte{2}, []byte{3}, bytes.Repeat([]byte{0xff}, 32), []byte{1}, []byte{1})
	f.Add(order().Bytes()[:31], []byte{9}, bytes.Repeat([]byte{0x40}, 32), []byte(nil), []byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, d, u1, u2, flipDigest, flipSig []byte) {
		if len(d) > 40 || len(u1) > 40 || len(u2) > 40 || scalar(d).Sign() == 0 {
			return
		}
		key := multiple(nil, scalar(d))
		pub := public(t, key)
		digest, sig := crafted(key, scalar(u1), scalar(u2), nil)
		for i, b := range flipDigest[:min(len(flipDigest), len(digest))] {
			digest[i] ^= b
		}
		for i, b := range flipSig[:min(len(flipSig), len(sig))] {
			sig[i] ^= b
		}
		same(t, must(New(pub)), pub, digest, sig)
	})
}

func TestOtherCurves(t *testing.T) {
	key := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	if _, err := New(&key.PublicKey); err == nil {
		t.Error("a table of a key on P-384")
	}
}

func TestKeys(t *testing.T) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	digest := sha256.Sum256([]byte("x"))
	sig := must(ecdsa.SignASN1(rand.Reader, key, digest[:]))
	other := sha256.Sum256([]byte("y"))
	name := func(i int) (n [32]byte) { n[0], n[1] = byte(i), byte(i>>8); return n }
	var none *Keys
	if !none.Verify(name(0), &key.PublicKey, &digest, sig) || none.Verify(name(0), &key.PublicKey, &other, sig) {
		t.Error("without tables")
	}
	k := &Keys{}
	made := func(i int) bool { return k.known[name(i)] != nil && k.known[name(i)].table != nil }
	use := func(i, times int) {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range times / 4 {
					if !k.Verify(name(i), &key.PublicKey, &digest, sig) || k.Verify(name(i), &key.PublicKey, &other, sig) {
						t.Error("judged otherwise")
					}
				}
			})
		}
		all.Wait()
	}
	for range 2 * worth {
		k.Verify(name(0), &key.PublicKey, &other, sig)
	}
	if len(k.known) != 0 {
		t.Error("keys are counted that signed nothing")
	}
	if use(0, worth-4); made(0) {
		t.Error("a table of a key that has hardly been seen")
	}
	use(0, 8)
	if fips140.Enabled() {
		if len(k.known) != 0 {
			t.Error("keys are counted in FIPS 140 mode")
		}
		return
	}
	if !made(0) {
		t.Fatal("no table")
	}
	use(0, 100)
	// A table that is wrong refuses nothing.
	wrong := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	k.known[name(0)].table = must(New(&wrong.PublicKey))
	use(0, 4)

	// The tables are bounded, and the one that was not used for longest goes.
	for i := 1; i <= maxTables; i++ {
		if i == maxTables {
			use(0, 4) // and so it is not the oldest
		}
		use(i, worth)
	}
	tables := 0
	for _, e := range k.known {
		if e.table != nil {
			tables++
		}
	}
	if tables != maxTables || k.tables != maxTables || !made(0) || made(1) || !made(2) || !made(maxTables) {
		t.Errorf("%d tables, %d counted", tables, k.tables)
	}
	for i := maxTables; i < 2*maxKeys; i++ {
		k.Verify(name(i), &key.PublicKey, &digest, sig)
		if len(k.known) > maxKeys {
			t.Fatal("too many keys are counted")
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	table := must(New(&key.PublicKey))
	var digests [256][32]byte
	var sigs [256][]byte
	for i := range digests {
		_, _ = rand.Read(digests[i][:])
		sigs[i] = must(ecdsa.SignASN1(rand.Reader, key, digests[i][:]))
	}
	b.Run("standard", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			ecdsa.VerifyASN1(&key.PublicKey, digests[i%256][:], sigs[i%256])
		}
	})
	b.Run("table", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			table.Verify(&digests[i%256], sigs[i%256])
		}
	})
	b.Run("make", func(b *testing.B) {
		for b.Loop() {
			_, _ = New(&key.PublicKey)
		}
	})
}
