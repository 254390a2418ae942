package seal_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"io"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
)

func code(t testing.TB, err error, want fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != want {
		t.Errorf("got fault %q (%v), want %q", got, err, want)
	}
}

func TestSealOfEachKindOfKey(t *testing.T) {
	for alg, want := range map[string]seal.Algorithm{
		"P-256": seal.ECDSAP256, "P-384": seal.ECDSAP384, "RSA-2048": seal.RSAPKCS1,
	} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			p := newParty(t, generate(t, alg), noon.Add(-time.Hour), noon.Add(time.Hour))
			m := manifest()
			s, err := seal.Sign(p.key, p.cert, m, noon.Add(999*time.Millisecond).In(time.FixedZone("AST", 3*3600)))
			if err != nil {
				t.Fatal(err)
			}
			if s.Alg != want || !s.At.Equal(noon) || s.At.Location() != time.UTC || s.Cert != sha256.Sum256(p.cert.Raw) {
				t.Errorf("seal %v %v %x", s.Alg, s.At, s.Cert)
			}
			wire, err := s.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			back, err := seal.ParseSeal(wire)
			if err != nil {
				t.Fatal(err)
			}
			if err := seal.Verify(p.cert, seal.Request, m, back); err != nil {
				t.Fatal(err)
			}
			// No byte of the wire form may change, nor the manifest.
			step := 1
			if p.cert.PublicKeyAlgorithm == x509.RSA || s.Alg == seal.ECDSAP384 {
				step = 7 // long or slow
			}
			for i := 0; i < len(wire); i += step {
				bad := bytes.Clone(wire)
				bad[i] ^= 1 << (i % 8)
				b, err := seal.ParseSeal(bad)
				if err == nil {
					err = seal.Verify(p.cert, seal.Request, m, b)
				}
				if err == nil {
					t.Fatalf("byte %d of the seal may change", i)
				}
				switch c := fault.CodeOf(err); c {
				case fault.SealInvalid, fault.SealExpired, fault.SealNotYetValid:
				default:
					t.Fatalf("byte %d: fault %q: %v", i, c, err)
				}
			}
			code(t, seal.Verify(p.cert, seal.Request, append(m, ' '), s), fault.SealInvalid)
			other := newParty(t, p.key, noon.Add(-time.Hour), noon.Add(time.Hour))
			code(t, seal.Verify(other.cert, seal.Request, m, s), fault.SealInvalid) // same key, other certificate
		})
	}
}

func TestSealOutsideTheCertificatesValidity(t *testing.T) {
	from, until := noon.Add(-time.Hour), noon.Add(time.Hour)
	p := newParty(t, generate(t, "P-256"), from, until)
	m := manifest()
	s, err := seal.Sign(p.key, p.cert, m, noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		at   time.Time
		want fault.Code
	}{
		{from.Add(-time.Second), fault.SealNotYetValid}, {from, ""}, {until, ""}, {until.Add(time.Second), fault.SealExpired},
	} {
		_, err := seal.Sign(p.key, p.cert, m, tc.at)
		code(t, err, tc.want)
		if tc.want != "" {
			s.At = tc.at
			code(t, seal.Verify(p.cert, seal.Request, m, s), tc.want)
		}
	}
	s.At = noon.Add(time.Nanosecond)
	code(t, seal.Verify(p.cert, seal.Request, m, s), fault.SealInvalid)
}

// An ECDSA signature has a twin (r, n-s), and BER a second spelling of each:
// neither may pass for the seal.
func TestOneSealHasOneForm(t *testing.T) {
	for alg, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()} {
		t.Run(alg, func(t *testing.T) {
			p := newParty(t, generate(t, alg), noon, noon.Add(time.Hour))
			n := curve.Params().N
			var half = new(big.Int).Rsh(n, 1)
			type value struct{ R, S *big.Int }
			for range 16 { // half of all raw signatures have the high s
				s, err := seal.Sign(p.key, p.cert, manifest(), noon)
				if err != nil {
					t.Fatal(err)
				}
				if err := seal.Verify(p.cert, seal.Request, manifest(), s); err != nil {
					t.Fatal(err)
				}
				var v value
				if rest, err := asn1.Unmarshal(s.Sig, &v); err != nil || len(rest) > 0 {
					t.Fatal(err)
				}
				if v.S.Cmp(half) > 0 {
					t.Fatal("sealed with the high s")
				}
				twin, err := asn1.Marshal(value{v.R, new(big.Int).Sub(n, v.S)})
				if err != nil {
					t.Fatal(err)
				}
				long := slices.Concat([]byte{0x30, 0x81, s.Sig[1]}, s.Sig[2:])
				zero, _ := asn1.Marshal(value{big.NewInt(0), big.NewInt(0)})
				negative, _ := asn1.Marshal(value{v.R, big.NewInt(-1)})
				more, _ := asn1.Marshal(value{new(big.Int).Lsh(n, 8), v.S})
				for what, sig := range map[string][]byte{
					"twin": twin, "long form of length": long, "byte behind": append(slices.Clone(s.Sig), 0),
					"zeros": zero, "negative": negative, "too large": more, "empty": nil, "cut": s.Sig[:len(s.Sig)-1],
				} {
					bad := s
					bad.Sig = sig
					code(t, seal.Verify(p.cert, seal.Request, manifest(), bad), fault.SealInvalid)
					if _, err := bad.AppendBinary(nil); err == nil {
						t.Errorf("%s: has a wire form", what)
					}
				}
			}
		})
	}
}

func TestSignerThatDoesNotFit(t *testing.T) {
	p := newParty(t, generate(t, "P-256"), noon, noon.Add(time.Hour))
	if _, err := seal.Sign(generate(t, "P-256"), p.cert, manifest(), noon); err == nil {
		t.Error("sealed with another key than the certificate's")
	}
	for what, sig := range map[string][]byte{"noise": []byte("noise"), "zeros": {0x30, 6, 2, 1, 0, 2, 1, 0}} {
		if _, err := seal.Sign(brokenSigner{p.key, sig}, p.cert, manifest(), noon); err == nil {
			t.Errorf("took %s for a signature", what)
		}
	}
}

// brokenSigner is a device that gives nonsense.
type brokenSigner struct {
	crypto.Signer
	sig []byte
}

func (b brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return b.sig, nil }

func TestKeysThatMayNotSeal(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big3 := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 3071), big.NewInt(1)), E: 3}
	huge := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 16383), big.NewInt(1)), E: 65537}
	small := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 2046), big.NewInt(1)), E: 65537}
	for what, pub := range map[string]crypto.PublicKey{
		"P-224": generate(t, "P-224").Public(), "P-521": generate(t, "P-521").Public(), "Ed25519": ed.Public(),
		"RSA with exponent 3": big3, "RSA of 16384 bits": huge, "RSA of 2047 bits": small, "none": nil,
	} {
		t.Run(what, func(t *testing.T) {
			cert := &x509.Certificate{Raw: []byte(what), PublicKey: pub, NotBefore: noon, NotAfter: noon}
			for a := range seal.Algorithm(6) {
				s := seal.Seal{Alg: a, At: noon, Cert: sha256.Sum256(cert.Raw), Sig: make([]byte, 384)}
				code(t, seal.Verify(cert, seal.Request, manifest(), s), fault.SealInvalid)
			}
			_, err := seal.Sign(ed, cert, manifest(), noon)
			code(t, err, fault.SealInvalid)
		})
	}
}

func TestMalformedWireForms(t *testing.T) {
	p := newParty(t, generate(t, "P-256"), noon, noon.Add(time.Hour))
	s, err := seal.Sign(p.key, p.cert, manifest(), noon)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := s.AppendBinary(nil)
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for what, b := range map[string][]byte{
		"nothing":          nil,
		"cut":              good[:len(good)-1],
		"byte behind":      append(bytes.Clone(good), 0),
		"very long":        make([]byte, seal.MaxSeal+1),
		"algorithm 0":      edit(func(b []byte) []byte { b[0] = 0; return b }),
		"Ed25519":          edit(func(b []byte) []byte { b[0] = byte(seal.Ed25519); return b }),
		"RSA of 70 bytes":  edit(func(b []byte) []byte { b[0] = byte(seal.RSAPKCS1); return b }),
		"year 10000":       edit(func(b []byte) []byte { binary.BigEndian.PutUint64(b[1:], 253402300800); return b }),
		"before 1970":      edit(func(b []byte) []byte { binary.BigEndian.PutUint64(b[1:], 1<<64-1); return b }),
		"length of nought": edit(func(b []byte) []byte { b[41], b[42] = 0, 0; return b }),
	} {
		_, err := seal.ParseSeal(b)
		if code(t, err, fault.SealInvalid); err == nil {
			t.Errorf("%s parsed", what)
		}
	}
	for what, at := range map[string]time.Time{"year 10000": time.Unix(253402300800, 0), "1969": time.Unix(-1, 0), "fraction": noon.Add(1)} {
		s.At = at
		if _, err := s.AppendBinary(nil); err == nil {
			t.Errorf("%s has a wire form", what)
		}
	}
}

// Property: the signed attributes are what encoding/asn1 makes of the structures
// of RFC 5652 and RFC 5035, in every year that a seal can name.
func TestSignedAttributesAreDER(t *testing.T) {
	type attribute struct {
		Type   asn1.ObjectIdentifier
		Values []any `asn1:"set"`
	}
	type certID struct{ Hash []byte }
	type signingCertificate struct{ Certs []certID }
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 253402300799).Draw(t, "at"), 0)
		m := rapid.SliceOf(rapid.Byte()).Draw(t, "manifest")
		cert := sha256.Sum256(m)
		digest := sha256.Sum256(m)
		var all [][]byte
		for _, a := range []attribute{
			{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}, []any{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}}},
			{asn1.ObjectIdentifier{0, 4, 0, 1733, 2, 1}, []any{asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("application/xml")}}},
			{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}, []any{at.UTC()}},
			{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}, []any{digest[:]}},
			{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}, []any{signingCertificate{[]certID{{cert[:]}}}}},
		} {
			der, err := asn1.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, der)
		}
		slices.SortFunc(all, bytes.Compare)
		want, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: bytes.Join(all, nil)})
		if err != nil {
			t.Fatal(err)
		}
		if got := seal.SignedAttributes(m, at, cert); !bytes.Equal(got, want) {
			t.Fatalf("at %v\ngot  %x\nwant %x", at, got, want)
		}
	})
}

func FuzzParseSeal(f *testing.F) {
	for _, alg := range []string{"P-256", "RSA-2048"} {
		p := newParty(f, generate(f, alg), noon, noon.Add(time.Hour))
		s, err := seal.Sign(p.key, p.cert, manifest(), noon)
		if err != nil {
			f.Fatal(err)
		}
		b, _ := s.AppendBinary(nil)
		f.Add(b)
		f.Add(b[:40])
		batch, err := seal.SignBatch(p.key, p.cert, seal.Request, manifests(5), noon)
		ok(f, err)
		b, _ = batch[3].AppendBinary(nil)
		f.Add(b)
	}
	p := newParty(f, generate(f, "P-256"), noon, noon.Add(time.Hour))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := seal.ParseSeal(b)
		if err != nil {
			code(t, err, fault.SealInvalid)
			return
		}
		back, err := s.AppendBinary(nil)
		if err != nil || !bytes.Equal(back, b) {
			t.Fatalf("%x became %x (%v)", b, back, err)
		}
		if seal.Verify(p.cert, seal.Request, manifest(), s) == nil {
			t.Fatal("a seal out of nothing")
		}
	})
}

func BenchmarkManifest(b *testing.B) {
	h := sha256.Sum256(nil)
	for b.Loop() {
		seal.Manifest(seal.Answer, h, &h)
	}
}

func BenchmarkSignedAttributes(b *testing.B) {
	m := manifest()
	for b.Loop() {
		seal.SignedAttributes(m, noon, seal.Digest{})
	}
}

func BenchmarkSign(b *testing.B) {
	p := newParty(b, generate(b, "P-256"), noon, noon.Add(time.Hour))
	m := manifest()
	for b.Loop() {
		if _, err := seal.Sign(p.key, p.cert, m, noon); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	p := newParty(b, generate(b, "P-256"), noon, noon.Add(time.Hour))
	m := manifest()
	s, err := seal.Sign(p.key, p.cert, m, noon)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := seal.Verify(p.cert, seal.Request, m, s); err != nil {
			b.Fatal(err)
		}
	}
}
