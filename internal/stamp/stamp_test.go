package stamp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	encoding "encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 250e6, time.UTC)

// issued is a key with the certificates that lead to it.
type issued struct {
	key      crypto.Signer
	cert, ca *x509.Certificate
}

// issue makes an authority's certificate; change may spoil it.
func issue(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) issued {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, root, root, caKey.Public(), caKey)
	must(t, err)
	ca, err := x509.ParseCertificate(raw)
	must(t, err)
	usage, err := encoding.Marshal([]encoding.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "time"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtraExtensions: []pkix.Extension{{Id: oidExtendedUsage(), Critical: true, Value: usage}},
	}
	if change != nil {
		change(c)
	}
	raw, err = x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
	must(t, err)
	cert, err := x509.ParseCertificate(raw)
	must(t, err)
	return issued{key, cert, ca}
}

func newAuthority(t testing.TB, change func(*x509.Certificate)) (*Authority, issued) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	i := issue(t, key, change)
	return &Authority{Cert: i.cert, Key: key, Accuracy: 1500 * time.Millisecond}, i
}

func token(t testing.TB, a *Authority, r Request) []byte {
	t.Helper()
	serial, err := Serial(noon)
	must(t, err)
	b, err := a.Stamp(r, serial, noon)
	must(t, err)
	return b
}

func TestToken(t *testing.T) {
	a, _ := newAuthority(t, nil)
	r := Request{Imprint: sha256.Sum256([]byte("what is stamped")), Nonce: big.NewInt(77), Certificate: true}
	k, err := ParseToken(token(t, a, r))
	must(t, err)
	must(t, k.Verify(a.Cert))
	if k.Imprint != r.Imprint || k.Nonce.Cmp(r.Nonce) != 0 || !k.At.Equal(noon) || k.Accuracy != a.Accuracy || k.Policy != Policy || !k.Signer().Equal(a.Cert) {
		t.Errorf("%+v", k)
	}
	bare, err := ParseToken(token(t, a, Request{Imprint: r.Imprint}))
	must(t, err)
	must(t, bare.Verify(a.Cert))
	if bare.Nonce != nil || bare.Signer() != nil || bare.Serial.Cmp(k.Serial) == 0 {
		t.Errorf("%+v", bare)
	}
}

// TestTokenLies: a token is believed for one certificate of the right use and
// for nothing else; and every byte of it counts but the certificates that it
// carries.
func TestTokenLies(t *testing.T) {
	a, _ := newAuthority(t, nil)
	other, _ := newAuthority(t, nil)
	raw := token(t, a, Request{Imprint: sha256.Sum256([]byte("x"))})
	good, err := ParseToken(raw)
	must(t, err)
	if err := good.Verify(other.Cert); err == nil || !strings.Contains(err.Error(), "another certificate") {
		t.Errorf("another authority's: %v", err)
	}
	twin := issue(t, a.Key, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(3) })
	if err := good.Verify(twin.cert); err == nil || !strings.Contains(err.Error(), "another certificate") {
		t.Errorf("the same key's other certificate: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   string
	}{
		"usage not critical": {func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = false }, "critical"},
		"no usage":           {func(c *x509.Certificate) { c.ExtraExtensions = nil }, "critical"},
		"a second usage": {func(c *x509.Certificate) {
			c.ExtraExtensions[0].Value, _ = encoding.Marshal([]encoding.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}, {1, 3, 6, 1, 5, 5, 7, 3, 1}})
		}, "that use alone"},
		"an unknown usage": {func(c *x509.Certificate) {
			c.ExtraExtensions[0].Value, _ = encoding.Marshal([]encoding.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}, {1, 2, 3}})
		}, "that use alone"},
		"for keys":       {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, "not for signatures"},
		"an authority":   {func(c *x509.Certificate) { c.IsCA = true }, "not for signatures"},
		"expired":        {func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Minute) }, "is good from"},
		"not yet in use": {func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Minute) }, "is good from"},
	} {
		bad, _ := newAuthority(t, c.change)
		k, err := ParseToken(token(t, bad, Request{}))
		must(t, err)
		if err := k.Verify(bad.Cert); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range raw {
		for _, bit := range []byte{1, 0x80} {
			x := bytes.Clone(raw)
			x[i] ^= bit
			if k, err := ParseToken(x); err == nil && k.Verify(a.Cert) == nil {
				t.Errorf("byte %d of %d does not count: %x", i, len(raw), raw[max(0, i-8):i+1])
			}
		}
	}
	for i := range raw {
		if _, err := ParseToken(raw[:i]); err == nil {
			t.Errorf("cut off at %d", i)
		}
	}
	if _, err := ParseToken(append(bytes.Clone(raw), 0)); err == nil {
		t.Error("with a byte behind it")
	}
}

func TestSerialsNeverRepeat(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 { // one instant, as after a clock set back
		n, err := Serial(noon)
		must(t, err)
		if seen[n.String()] || n.Sign() <= 0 || n.BitLen() > maxSerial {
			t.Fatal(n)
		}
		seen[n.String()] = true
	}
}

func TestRequest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Request{Imprint: [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "imprint")), Certificate: rapid.Bool().Draw(t, "certificate")}
		if rapid.Bool().Draw(t, "policy") {
			r.Policy = Policy
		}
		if rapid.Bool().Draw(t, "nonce") {
			r.Nonce = new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "n"))
		}
		got, err := ParseRequest(r.Bytes())
		if err != nil || got.Imprint != r.Imprint || got.Policy != r.Policy || got.Certificate != r.Certificate || (got.Nonce == nil) != (r.Nonce == nil) || r.Nonce != nil && r.Nonce.Cmp(got.Nonce) != 0 {
			t.Fatalf("%+v %+v %v", r, got, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	good := Request{Imprint: [32]byte{1}}.Bytes()
	for name, c := range map[string]struct {
		raw  []byte
		want Failure
	}{
		"nothing":   {nil, BadDataFormat},
		"cut off":   {good[:len(good)-1], BadDataFormat},
		"a tail":    {append(bytes.Clone(good), 0), BadDataFormat},
		"version 2": {bytes.Replace(good, []byte{2, 1, 1}, []byte{2, 1, 2}, 1), BadDataFormat},
		"SHA-512":   {bytes.Replace(good, []byte{3, 4, 2, 1}, []byte{3, 4, 2, 3}, 1), BadAlg},
		"extension": {extended(good), UnacceptedExtension},
		"too long":  {make([]byte, MaxRequest+1), BadDataFormat},
	} {
		_, err := ParseRequest(c.raw)
		var r *Refusal
		if !errors.As(err, &r) || r.Failure != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, f := range []Failure{BadAlg, BadRequest, BadDataFormat, TimeNotAvailable, UnacceptedPolicy, UnacceptedExtension, SystemFailure} {
		_, err := ParseResponse(Reject(&Refusal{f, "why — لماذا"}))
		var r *Refusal
		if !errors.As(err, &r) || r.Failure != f || r.Text != "why — لماذا" {
			t.Errorf("%d: %v", f, err)
		}
	}
	if b, err := ParseResponse(Grant([]byte{0x30, 0})); err != nil || len(b) != 2 {
		t.Errorf("%x %v", b, err)
	}
	if _, err := ParseResponse(Grant(nil)); err == nil {
		t.Error("a grant of nothing")
	}
}

// extended puts an extension into a request.
func extended(b []byte) []byte {
	x := append(bytes.Clone(b), 0xa0, 0)
	x[1] += 2
	return x
}

// run runs openssl and gives what it says.
func run(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "openssl", args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	return string(out), err
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	must(t, os.WriteFile(path, b, 0o600))
}

func pemOf(kind string, b []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
}

// TestOpenSSLTakesOurs: openssl asks, takes the answer, and reads all of it.
func TestOpenSSLTakesOurs(t *testing.T) {
	dir := t.TempDir()
	a, i := newAuthority(t, nil)
	write(t, filepath.Join(dir, "data"), []byte("what is stamped"))
	write(t, filepath.Join(dir, "ca.pem"), pemOf("CERTIFICATE", i.ca.Raw))
	for _, certificate := range []bool{true, false} {
		args := []string{"ts", "-query", "-data", "data", "-sha256", "-out", "q"}
		verify := []string{"ts", "-verify", "-queryfile", "q", "-in", "r", "-CAfile", "ca.pem", "-attime", fmt.Sprint(noon.Unix())}
		if certificate {
			args = append(args, "-cert")
		} else {
			write(t, filepath.Join(dir, "tsa.pem"), pemOf("CERTIFICATE", a.Cert.Raw))
			verify = append(verify, "-untrusted", "tsa.pem")
		}
		out, err := run(t, dir, args...)
		if err != nil {
			t.Fatal(out)
		}
		q, err := os.ReadFile(filepath.Join(dir, "q"))
		must(t, err)
		r, err := ParseRequest(q)
		must(t, err)
		if r.Nonce == nil || r.Certificate != certificate || r.Imprint != sha256.Sum256([]byte("what is stamped")) {
			t.Errorf("%+v", r)
		}
		write(t, filepath.Join(dir, "r"), Grant(token(t, a, r)))
		if out, err := run(t, dir, verify...); err != nil || !strings.Contains(out, "Verification: OK") {
			t.Error(out)
		}
	}
	out, err := run(t, dir, "ts", "-reply", "-in", "r", "-text")
	if err != nil || !strings.Contains(out, "2.25.301603271107532128036984457848976264938") || !strings.Contains(out, "Nov 22 12:00:00.25 2026 GMT") || !strings.Contains(out, "0x01 seconds, 0x01F4 millis") {
		t.Error(out, err)
	}
	write(t, filepath.Join(dir, "r"), Reject(&Refusal{TimeNotAvailable, "no time"}))
	if out, err := run(t, dir, "ts", "-reply", "-in", "r", "-text"); err != nil || !strings.Contains(out, "time source is not available") {
		t.Error(out, err)
	}
}

// TestWeTakeOpenSSLs: tokens that others make are read and verified, with ECDSA
// and RSA; without signing-certificate-v2, or over SHA-512, they are not.
func TestWeTakeOpenSSLs(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	for name, c := range map[string]struct {
		key    crypto.Signer
		sign   string
		ess    string
		digest string
		want   string
	}{
		"RSA":       {rsaKey, "sha512", "sha256", "-sha256", ""},
		"P-384":     {curve, "sha384", "sha512", "-sha256", ""},
		"old name":  {curve, "sha256", "sha1", "-sha256", "does not name its signer's certificate"},
		"SHA-512":   {curve, "sha256", "sha256", "-sha512", "not a SHA-256 digest"},
		"weak sign": {rsaKey, "sha1", "sha256", "-sha256", "its digest is none"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			i := issue(t, c.key, nil)
			der, err := x509.MarshalPKCS8PrivateKey(c.key)
			must(t, err)
			write(t, filepath.Join(dir, "key.pem"), pemOf("PRIVATE KEY", der))
			write(t, filepath.Join(dir, "tsa.pem"), pemOf("CERTIFICATE", i.cert.Raw))
			write(t, filepath.Join(dir, "ca.pem"), pemOf("CERTIFICATE", i.ca.Raw))
			write(t, filepath.Join(dir, "data"), []byte("x"))
			write(t, filepath.Join(dir, "cnf"), []byte("[tsa]\ndefault_tsa=t\n[t]\nserial=serial\nsigner_cert=tsa.pem\nsigner_key=key.pem\ncerts=ca.pem\nsigner_digest="+c.sign+
				"\ndefault_policy=1.2.3.4\ndigests=sha256,sha512\naccuracy=secs:1,millisecs:20,microsecs:3\nclock_precision_digits=6\nordering=yes\ntsa_name=yes\ness_cert_id_chain=yes\ness_cert_id_alg="+c.ess+"\n"))
			for _, args := range [][]string{
				{"ts", "-query", "-data", "data", c.digest, "-cert", "-out", "q"},
				{"ts", "-reply", "-config", "cnf", "-queryfile", "q", "-out", "r"},
			} {
				if out, err := run(t, dir, args...); err != nil {
					t.Fatal(out)
				}
			}
			r, err := os.ReadFile(filepath.Join(dir, "r"))
			must(t, err)
			raw, err := ParseResponse(r)
			must(t, err)
			k, err := ParseToken(raw)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Error(err)
				}
				return
			}
			must(t, err)
			k.At = noon // openssl takes the machine's clock, which is not this test's
			must(t, k.Verify(i.cert))
			if s := k.Signer(); s == nil || !s.Equal(i.cert) || k.Accuracy != 1020003*time.Microsecond || k.Nonce == nil || len(k.Carried) != 2 {
				t.Errorf("%+v", k)
			}
		})
	}
}

// TestTree: from every leaf of every tree the path leads to the root, and from
// nothing else.
func TestTree(t *testing.T) {
	a, _ := newAuthority(t, nil)
	for n := 1; n < 40; n++ {
		leaves := make([]Digest, n)
		for i := range leaves {
			leaves[i] = sha256.Sum256([]byte{byte(n), byte(i)})
		}
		fresh := func() []Digest { return append([]Digest{}, leaves...) }
		root := Root(fresh())
		k, err := ParseToken(token(t, a, Request{Imprint: root}))
		must(t, err)
		for i := range leaves {
			got, others := Path(fresh(), i)
			if got != root {
				t.Fatalf("%d of %d: another root", i, n)
			}
			b, err := Record{NewLink(leaves[i], others, k)}.Bytes()
			must(t, err)
			r, err := ParseRecord(b)
			must(t, err)
			must(t, r.Verify(leaves[i]))
			must(t, r[0].Token.Verify(a.Cert))
			again, err := r.Bytes()
			must(t, err)
			if !bytes.Equal(again, b) {
				t.Fatal("written again it is another")
			}
			if r.Verify(sha256.Sum256([]byte("other"))) == nil {
				t.Fatal("of another digest")
			}
			for j := range leaves { // its pair, which stands in it, is proven too
				if j != i && j != i^1 && r.Verify(leaves[j]) == nil {
					t.Fatalf("%d of %d proves %d", i, n, j)
				}
			}
		}
	}
}

func TestRecordLies(t *testing.T) {
	a, _ := newAuthority(t, nil)
	leaves := []Digest{{1}, {2}, {3}}
	_, others := Path(append([]Digest{}, leaves...), 0)
	k, err := ParseToken(token(t, a, Request{Imprint: Root(append([]Digest{}, leaves...))}))
	must(t, err)
	good, err := Record{NewLink(leaves[0], others, k)}.Bytes()
	must(t, err)
	for i := range good {
		if _, err := ParseRecord(good[:i]); err == nil {
			t.Errorf("cut off at %d", i)
		}
	}
	r, err := ParseRecord(good)
	must(t, err)
	r[0].Lists[1][0][0]++
	if r.Verify(leaves[0]) == nil {
		t.Error("a changed path leads there too")
	}
	if (Record{{Token: k}}).Verify(leaves[0]) == nil {
		t.Error("without a path")
	}
	if (Record{}).Verify(leaves[0]) == nil {
		t.Error("without a time-stamp")
	}
	if b, err := (Record{}).Bytes(); err == nil {
		t.Errorf("%x", b)
	}
}

// TestRenewal: a chain leads from the digest through each time-stamp to the
// next, in the order of their times, and over nothing else.
func TestRenewal(t *testing.T) {
	a, _ := newAuthority(t, nil)
	at := noon
	of := func(list ...Digest) (*Token, []Digest) {
		t.Helper()
		root, others := Path(append([]Digest{}, list...), 0)
		raw, err := a.Stamp(Request{Imprint: root}, big.NewInt(7), at)
		must(t, err)
		at = at.Add(time.Minute)
		k, err := ParseToken(raw)
		must(t, err)
		return k, others
	}
	leaf := Digest{1}
	first, others := of(leaf, Digest{2})
	r := Record{NewLink(leaf, others, first)}
	for i := range 3 { // one is stamped alone, the others with more
		list := []Digest{r[len(r)-1].Token.Digest(), {3}, {4}, {5}}[:1+3*(i%2)]
		k, others := of(list...)
		r = append(r, NewLink(list[0], others, k))
	}
	b, err := r.Bytes()
	must(t, err)
	got, err := ParseRecord(b)
	must(t, err)
	must(t, got.Verify(leaf))
	if len(got) != 4 {
		t.Fatalf("%d time-stamps", len(got))
	}
	for name, bad := range map[string]Record{
		"one is left out":   {r[0], r[2], r[3]},
		"the first is gone": r[1:],
		"another order":     {r[0], r[1], r[3], r[2]},
		"one twice":         {r[0], r[0]},
	} {
		if bad.Verify(leaf) == nil {
			t.Error(name)
		}
	}
	at = noon.Add(-time.Hour)
	early, _ := of(r[3].Token.Digest())
	if err := append(slices.Clone(r), Link{Token: early}).Verify(leaf); err == nil || !strings.Contains(err.Error(), "older than the one that it renews") {
		t.Errorf("renewed before it was there: %v", err)
	}
	long := Record{}
	for range MaxLinks + 1 {
		long = append(long, r[0])
	}
	if _, err := long.Bytes(); err == nil {
		t.Error("longer than is read")
	}
	must(t, err)
	if b, err := long[:MaxLinks].Bytes(); err != nil {
		t.Error(err)
	} else if _, err := ParseRecord(b); err != nil {
		t.Error(err)
	}
}

func FuzzToken(f *testing.F) {
	a, _ := newAuthority(f, nil)
	k := token(f, a, Request{Nonce: big.NewInt(5), Certificate: true})
	f.Add(k)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseToken(b); err == nil {
			_ = k.Verify(a.Cert)
			_ = k.Signer()
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(Request{Nonce: big.NewInt(5), Certificate: true, Policy: Policy}.Bytes())
	f.Add(Request{}.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRequest(b); err == nil && r.Certificate {
			if got := r.Bytes(); !bytes.Equal(got, b) {
				// Parameters of SHA-256 may be NULL or absent; nothing else varies.
				if !bytes.Contains(b, []byte{5, 0}) {
					t.Errorf("%x is read as %x", b, got)
				}
			}
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add(Reject(&Refusal{TimeNotAvailable, "x"}))
	f.Add(Grant([]byte{0x30, 0}))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParseResponse(b) })
}

func FuzzRecord(f *testing.F) {
	a, _ := newAuthority(f, nil)
	k, err := ParseToken(token(f, a, Request{}))
	must(f, err)
	b, err := Record{NewLink(Digest{1}, []Digest{{2}, {3}}, k)}.Bytes()
	must(f, err)
	f.Add(b)
	b, err = Record{NewLink(Digest{1}, []Digest{{2}, {3}}, k), {Token: k}}.Bytes()
	must(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRecord(b); err == nil {
			_ = r.Verify(Digest{1})
			if got, err := r.Bytes(); err == nil && len(got) > len(b) {
				t.Errorf("%x is read as %x", b, got)
			}
		}
	})
}

// publicKey is a signer that has no more than a public key.
type publicKey struct {
	crypto.Signer
	of crypto.PublicKey
}

func (k publicKey) Public() crypto.PublicKey { return k.of }

// TestHugeKeys: no certificate in a token has a key that takes long to verify
// with.
func TestHugeKeys(t *testing.T) {
	a, _ := newAuthority(t, nil)
	for bits, fits := range map[uint]bool{maxRSA: true, maxRSA + 1: false, 64 << 10: false} {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		i := issue(t, publicKey{of: &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}}, nil)
		_, err := ParseToken(token(t, &Authority{Cert: i.cert, Key: a.Key, Accuracy: time.Second}, Request{Certificate: true}))
		if fits != (err == nil) {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
}
