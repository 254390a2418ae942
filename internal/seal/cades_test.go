package seal_test

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
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/seal"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// party is a certificate with its key and its authority.
type party struct {
	key  crypto.Signer
	cert *x509.Certificate
	ca   *x509.Certificate
}

func generate(t testing.TB, alg string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case "P-224":
		key, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "RSA-2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "RSA-3072":
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		t.Fatalf("no algorithm %s", alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newParty(t testing.TB, key crypto.Signer, from, until time.Time) party {
	t.Helper()
	caKey := generate(t, "P-384")
	issue := func(serial int64, name string, ca bool, pub crypto.PublicKey, parent *x509.Certificate) *x509.Certificate {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name, Country: []string{"BH"}},
			NotBefore: from, NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
			BasicConstraintsValid: true, IsCA: ca,
		}
		if ca {
			c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		}
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, caKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	ca := issue(1, "Bahrain", true, caKey.Public(), nil)
	return party{key: key, cert: issue(2, "GOV/interior", false, key.Public(), ca), ca: ca}
}

func manifest() []byte {
	body := sha256.Sum256([]byte("body"))
	return seal.Manifest(sha256.Sum256([]byte("head")), &body)
}

// openssl asks the machine's OpenSSL whether a container's signature is a valid
// CAdES signature of the manifest.
func openssl(t *testing.T, manifest, p7s []byte, ca *x509.Certificate) error {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{
		"manifest.xml": manifest, "signature.p7s": p7s,
		"ca.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}),
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", "cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", "signature.p7s",
		"-content", "manifest.xml", "-CAfile", "ca.pem", "-purpose", "any", "-out", os.DevNull)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("openssl: %s", bytes.TrimSpace(out))
	}
	return err
}

func TestOpenSSLAcceptsWhatWeWrap(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("this test needs openssl: see scripts/deps")
	}
	// OpenSSL holds the certificates against the clock of the machine.
	now := time.Now()
	for _, alg := range []string{"P-256", "P-384", "RSA-2048", "RSA-3072"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			p := newParty(t, generate(t, alg), now.Add(-time.Hour), now.Add(time.Hour))
			m := manifest()
			s, err := seal.Sign(p.key, p.cert, m, now)
			if err != nil {
				t.Fatal(err)
			}
			for name, chain := range map[string][]*x509.Certificate{"alone": nil, "with its chain": {p.ca, p.cert}} {
				p7s, err := seal.CMS(m, p.cert, s, chain...)
				if err != nil {
					t.Fatal(err)
				}
				if err := openssl(t, m, p7s, p.ca); err != nil {
					t.Errorf("refused %s: %v", name, err)
				}
				// The negative control: neither another manifest nor another
				// certificate hash may pass, or the test proves nothing.
				other := bytes.Replace(m, []byte("body.bin"), []byte("b0dy.bin"), 1)
				if openssl(t, other, p7s, p.ca) == nil {
					t.Error("accepted another manifest")
				}
				for what, part := range map[string][]byte{"certificate hash": s.Cert[:], "signature": s.Sig, "time": []byte(now.UTC().Format("060102150405Z"))} {
					i := bytes.LastIndex(p7s, part)
					if i < 0 {
						t.Fatalf("the container does not hold the %s", what)
					}
					bad := bytes.Clone(p7s)
					bad[i+len(part)-2] ^= 1
					if openssl(t, m, bad, p.ca) == nil {
						t.Errorf("accepted with a mutated %s", what)
					}
				}
			}
		})
	}
}
