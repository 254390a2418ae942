package seal_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
)

func manifests(n int) (out [][]byte) {
	for i := range n {
		out = append(out, seal.Manifest(seal.Answer, sha256.Sum256(fmt.Append(nil, i)), nil))
	}
	return out
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBatch: whatever the size, each message's seal holds for it and for no
// other, and its way to the root is that of RFC 6962, as another's code counts it.
func TestBatch(t *testing.T) {
	p := newParty(t, generate(t, "P-256"), noon.Add(-time.Hour), noon.Add(time.Hour))
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 33, 64, 100, seal.MaxBatch} {
		ms := manifests(n)
		seals, err := seal.SignBatch(p.key, p.cert, seal.Answer, ms, noon)
		if err != nil || len(seals) != n {
			t.Fatalf("%d messages: %d seals, %v", n, len(seals), err)
		}
		var check seal.Checker
		var root tlog.Hash
		if n > 1 {
			hashes := make([]tlog.Hash, tlog.StoredHashIndex(0, int64(n)))
			read := tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, err error) {
				for _, i := range at {
					out = append(out, hashes[i])
				}
				return out, nil
			})
			for i, m := range ms {
				h, err := tlog.StoredHashes(int64(i), m, read)
				ok(t, err)
				copy(hashes[tlog.StoredHashIndex(0, int64(i)):], h)
			}
			root, err = tlog.TreeHash(int64(n), read)
			ok(t, err)
		}
		for i, s := range seals {
			wire, err := s.AppendBinary(nil)
			ok(t, err)
			back, err := seal.ParseSeal(wire)
			ok(t, err)
			if again, err := back.AppendBinary(nil); err != nil || !bytes.Equal(again, wire) {
				t.Fatalf("%d of %d: the wire form changed (%v)", i, n, err)
			}
			if err := check.Verify(p.cert, seal.Answer, ms[i], back); err != nil {
				t.Fatalf("%d of %d: %v", i, n, err)
			}
			code(t, check.Verify(p.cert, seal.Answer, ms[(i+1)%n], back), map[bool]fault.Code{false: fault.SealInvalid}[n == 1])
			if p7s, err := seal.CMS(seal.Answer, ms[i], p.cert, s); n == 7 || n == 1 {
				ok(t, err)
				ok(t, openssl(t, noon, s.Signed(seal.Answer, ms[i]), p7s, p.ca))
			}
			if n == 1 {
				if s.Batch != nil {
					t.Fatal("one message alone is a batch")
				}
				continue
			}
			code(t, check.Verify(p.cert, seal.Request, ms[i], back), fault.SealInvalid)
			path := make(tlog.RecordProof, len(back.Batch.Path))
			for j, h := range back.Batch.Path {
				path[j] = tlog.Hash(h)
			}
			ok(t, tlog.CheckRecord(path, int64(n), root, int64(i), tlog.RecordHash(ms[i])))
			if got := string(back.Document(ms[i])); got != string(seal.BatchDocument(n, seal.Digest(root))) {
				t.Fatalf("%d of %d: %q", i, n, got)
			}
		}
	}
	for _, n := range []int{0, seal.MaxBatch + 1} {
		if _, err := seal.SignBatch(p.key, p.cert, seal.Answer, manifests(n), noon); err == nil {
			t.Errorf("a batch of %d was sealed", n)
		}
	}
}

// TestBatchChanged: no bit of a seal of a batch may change, and none of its
// messages' seals fits elsewhere.
func TestBatchChanged(t *testing.T) {
	p := newParty(t, generate(t, "P-256"), noon.Add(-time.Hour), noon.Add(time.Hour))
	ms := manifests(6)
	seals, err := seal.SignBatch(p.key, p.cert, seal.Answer, ms, noon)
	ok(t, err)
	wire, err := seals[4].AppendBinary(nil)
	ok(t, err)
	var check seal.Checker // which knows the batch already
	ok(t, check.Verify(p.cert, seal.Answer, ms[4], seals[4]))
	for bit := range 8 * len(wire) {
		bad := bytes.Clone(wire)
		bad[bit/8] ^= 1 << (bit % 8)
		s, err := seal.ParseSeal(bad)
		if err == nil {
			err = check.Verify(p.cert, seal.Answer, ms[4], s)
		}
		if err == nil {
			t.Errorf("bit %d may be turned", bit)
		}
	}
	for _, cut := range [][]byte{wire[:len(wire)-1], wire[:len(wire)-32], append(bytes.Clone(wire), 0), append(bytes.Clone(wire), make([]byte, 32)...)} {
		if _, err := seal.ParseSeal(cut); err == nil {
			t.Errorf("a seal of %d bytes for one of %d", len(cut), len(wire))
		}
	}
	twice := bytes.Clone(wire) // of another algorithm, which the short signature would fit
	twice[0] = 0x80 | byte(seal.ECDSAP384)
	if s, err := seal.ParseSeal(twice); err == nil {
		code(t, check.Verify(p.cert, seal.Answer, ms[4], s), fault.SealInvalid)
	}
	ended := *p.cert
	ended.NotAfter = noon.Add(-time.Second)
	code(t, check.Verify(&ended, seal.Answer, ms[4], seals[4]), fault.SealExpired)
	// A batch's own manifest is no message's, nor is a batch's seal a single one.
	single := seals[4]
	single.Batch = nil
	code(t, seal.Verify(p.cert, seal.Answer, ms[4], single), fault.SealInvalid)
	one, err := seal.Sign(p.key, p.cert, ms[4], noon)
	ok(t, err)
	one.Batch = seals[4].Batch
	code(t, check.Verify(p.cert, seal.Answer, ms[4], one), fault.SealInvalid)
	for _, place := range []seal.Place{{0, 1, nil}, {-1, 2, make([]seal.Digest, 1)}, {2, 2, make([]seal.Digest, 1)}, {0, 2, nil}, {0, seal.MaxBatch + 1, make([]seal.Digest, 11)}} {
		one.Batch = &place
		code(t, seal.Verify(p.cert, seal.Answer, ms[4], one), fault.SealInvalid)
		if _, err := one.AppendBinary(nil); err == nil {
			t.Errorf("%+v was written", place)
		}
	}
}

// TestLongestSeal: of a full batch under an RSA key.
func TestLongestSeal(t *testing.T) {
	p := newParty(t, generate(t, "RSA-2048"), noon.Add(-time.Hour), noon.Add(time.Hour))
	ms := manifests(seal.MaxBatch)
	seals, err := seal.SignBatch(p.key, p.cert, seal.Answer, ms, noon)
	ok(t, err)
	wire, err := seals[7].AppendBinary(nil)
	ok(t, err)
	back, err := seal.ParseSeal(wire)
	ok(t, err)
	ok(t, seal.Verify(p.cert, seal.Answer, ms[7], back))
}

// TestCheckerForgets: a checker asks each batch once, knows at most so many, and
// never takes a batch's word for another's signature.
func TestCheckerForgets(t *testing.T) {
	p := newParty(t, generate(t, "P-256"), noon.Add(-time.Hour), noon.Add(time.Hour))
	other := newParty(t, p.key, noon.Add(-time.Hour), noon.Add(time.Hour))
	var check seal.Checker
	for i := range 1100 {
		ms := manifests(2)
		ms[0] = append(ms[0], fmt.Sprint(i)...)
		s, err := seal.SignBatch(p.key, p.cert, seal.Answer, ms, noon.Add(time.Duration(i%3)*time.Second))
		ok(t, err)
		bad := s[0]
		bad.Sig = bytes.Clone(bad.Sig)
		bad.Sig[len(bad.Sig)-1] ^= 1
		for range 2 {
			code(t, check.Verify(p.cert, seal.Answer, ms[0], bad), fault.SealInvalid)
			ok(t, check.Verify(p.cert, seal.Answer, ms[0], s[0]))
			ok(t, check.Verify(p.cert, seal.Answer, ms[1], s[1]))
		}
		code(t, check.Verify(other.cert, seal.Answer, ms[0], s[0]), fault.SealInvalid)
	}
}

// TestCheckerWithTables: seals are judged by tables of their keys as without,
// which a checker has here for each key that may have one.
func TestCheckerWithTables(t *testing.T) {
	tables := seal.Checker{Tables: true}
	for _, kind := range []string{"P-256", "P-256", "P-384"} {
		p := newParty(t, generate(t, kind), noon.Add(-time.Hour), noon.Add(time.Hour))
		other := newParty(t, generate(t, kind), noon.Add(-time.Hour), noon.Add(time.Hour))
		for i, m := range manifests(70) {
			s, err := seal.Sign(p.key, p.cert, m, noon)
			ok(t, err)
			ok(t, tables.Verify(p.cert, seal.Answer, m, s))
			broken := s
			broken.Sig = bytes.Clone(s.Sig)
			broken.Sig[len(s.Sig)-1-i%30] ^= 1
			for _, err := range []error{
				tables.Verify(p.cert, seal.Answer, m, broken),
				tables.Verify(p.cert, seal.Answer, append(m, ' '), s),
				tables.Verify(other.cert, seal.Answer, m, s),
			} {
				code(t, err, fault.SealInvalid)
			}
		}
	}
}
