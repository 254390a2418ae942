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
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
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
	return seal.Manifest(seal.Request, sha256.Sum256([]byte("head")), &body)
}

// openssl asks the machine's OpenSSL whether a container's signature is a valid
// CAdES signature of the manifest.
func openssl(t *testing.T, at time.Time, manifest, p7s []byte, ca *x509.Certificate) error {
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
		"-content", "manifest.xml", "-CAfile", "ca.pem", "-purpose", "any", "-out", os.DevNull,
		"-attime", strconv.FormatInt(at.Unix(), 10))
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func TestOpenSSLAcceptsWhatWeWrap(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("this test needs openssl: see scripts/deps")
	}
	for _, alg := range []string{"P-256", "P-384", "RSA-2048", "RSA-3072"} {
		t.Run(alg, func(t *testing.T) { t.Parallel(); wrapAndAsk(t, alg, noon, "060102150405Z") })
	}
	// From 2050 on the signing time is a GeneralizedTime.
	t.Run("2050", func(t *testing.T) {
		t.Parallel()
		wrapAndAsk(t, "P-256", time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), "20060102150405Z")
	})
}

func wrapAndAsk(t *testing.T, alg string, at time.Time, layout string) {
	p := newParty(t, generate(t, alg), at.Add(-time.Hour), at.Add(time.Hour))
	m := manifest()
	s, err := seal.Sign(p.key, p.cert, m, at)
	if err != nil {
		t.Fatal(err)
	}
	for name, chain := range map[string][]*x509.Certificate{"alone": nil, "with its chain": {p.ca, p.cert}} {
		p7s, err := seal.CMS(seal.Request, m, p.cert, s, chain...)
		if err != nil {
			t.Fatal(err)
		}
		if err := openssl(t, at, m, p7s, p.ca); err != nil {
			t.Errorf("refused %s: %v", name, err)
		}
		// The negative controls, without which this test proves nothing.
		other := bytes.Replace(m, []byte("body.bin"), []byte("b0dy.bin"), 1)
		if openssl(t, at, other, p7s, p.ca) == nil {
			t.Error("accepted another manifest")
		}
		for what, part := range map[string][]byte{"certificate hash": s.Cert[:], "signature": s.Sig, "time": []byte(at.Format(layout))} {
			i := bytes.LastIndex(p7s, part)
			if i < 0 {
				t.Fatalf("the container does not hold the %s", what)
			}
			bad := bytes.Clone(p7s)
			bad[i+len(part)-2] ^= 1
			if openssl(t, at, m, bad, p.ca) == nil {
				t.Errorf("accepted with a mutated %s", what)
			}
		}
	}
}

// OpenSSL really reads the signing certificate's attribute: a signature that is
// right but names another certificate is plain CMS, and no CAdES.
func TestOpenSSLWantsTheCertificateNamed(t *testing.T) {
	p := newParty(t, generate(t, "RSA-2048"), noon, noon.Add(time.Hour))
	m := manifest()
	s, err := seal.Sign(p.key, p.cert, m, noon)
	if err != nil {
		t.Fatal(err)
	}
	p7s, err := seal.CMS(seal.Request, m, p.cert, s)
	if err != nil {
		t.Fatal(err)
	}
	wrong := sha256.Sum256(p.ca.Raw)
	digest := sha256.Sum256(seal.SignedAttributes(m, noon, wrong))
	sig, err := p.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Replace(bytes.Replace(p7s, s.Cert[:], wrong[:], 1), s.Sig, sig, 1)
	if err := openssl(t, noon, m, bad, p.ca); err == nil || !strings.Contains(err.Error(), "ESS") {
		t.Errorf("not refused for what is wrong: %v", err)
	}
}

func TestNothingBrokenIsWrapped(t *testing.T) {
	p := newParty(t, generate(t, "P-256"), noon, noon.Add(time.Hour))
	s, err := seal.Sign(p.key, p.cert, manifest(), noon)
	if err != nil {
		t.Fatal(err)
	}
	_, err = seal.CMS(seal.Request, []byte("another manifest"), p.cert, s)
	code(t, err, fault.SealInvalid)
}

var update = flag.Bool("update", false, "make the golden vectors anew, with a new key")

// The golden vectors bind the bytes that two states must agree on: when this
// test fails, nodes of the version before refuse our seals and we theirs.
func TestGoldenVectors(t *testing.T) {
	file := func(name string) string { return filepath.Join("testdata", "golden", name) }
	head, body := sha256.Sum256([]byte("{}")), sha256.Sum256([]byte("body"))
	m := seal.Manifest(seal.Request, head, &body)
	batch := [][]byte{seal.Manifest(seal.Request, body, nil), seal.Manifest(seal.Request, head, nil), m}
	if *update {
		p := newParty(t, generate(t, "P-256"), noon, noon.AddDate(10, 0, 0))
		s, err := seal.Sign(p.key, p.cert, m, noon)
		if err != nil {
			t.Fatal(err)
		}
		wire, _ := s.AppendBinary(nil)
		p7s, err := seal.CMS(seal.Request, m, p.cert, s)
		if err != nil {
			t.Fatal(err)
		}
		together, err := seal.SignBatch(p.key, p.cert, seal.Request, batch, noon)
		if err != nil {
			t.Fatal(err)
		}
		inBatch, _ := together[1].AppendBinary(nil)
		for name, data := range map[string][]byte{
			"batch-seal": inBatch, "batch.txt": together[1].Document(batch[1]), "batch-manifest.xml": together[1].Signed(seal.Request, batch[1]),
			"manifest.xml": m, "manifest-head-only.xml": seal.Manifest(seal.Request, head, nil), "manifest-answer.xml": seal.Manifest(seal.Answer, head, &body), "seal": wire, "signature.p7s": p7s,
			"attributes.der": seal.SignedAttributes(m, s.At, s.Cert), "cert.der": p.cert.Raw, "ca.der": p.ca.Raw,
		} {
			if err := os.WriteFile(file(name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(file(name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	same := func(name string, got []byte) {
		t.Helper()
		if want := read(name); !bytes.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
		}
	}
	cert, err := x509.ParseCertificate(read("cert.der"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(read("ca.der"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := seal.ParseSeal(read("seal"))
	if err != nil {
		t.Fatal(err)
	}
	if err := seal.Verify(cert, seal.Request, m, s); err != nil {
		t.Error(err)
	}
	same("manifest.xml", m)
	same("manifest-head-only.xml", seal.Manifest(seal.Request, head, nil))
	same("manifest-answer.xml", seal.Manifest(seal.Answer, head, &body))
	b, err := seal.ParseSeal(read("batch-seal"))
	if err != nil {
		t.Fatal(err)
	}
	if err := seal.Verify(cert, seal.Request, batch[1], b); err != nil {
		t.Error(err)
	}
	same("batch.txt", b.Document(batch[1]))
	same("batch-manifest.xml", b.Signed(seal.Request, batch[1]))
	same("attributes.der", seal.SignedAttributes(m, s.At, s.Cert))
	p7s, err := seal.CMS(seal.Request, m, cert, s)
	if err != nil {
		t.Fatal(err)
	}
	same("signature.p7s", p7s)
	if err := openssl(t, noon, m, p7s, ca); err != nil {
		t.Error(err)
	}
}

// The manifest against the schema of ETSI EN 319 162-1 clause A.4: names,
// namespaces, order and attributes.
func TestManifestIsAnASiCManifest(t *testing.T) {
	head, body := sha256.Sum256([]byte("head")), sha256.Sum256([]byte("body"))
	for _, tc := range []struct {
		name   string
		part   seal.Part
		dir, n string
		body   *seal.Digest
		want   []string
	}{
		{"a request's head", seal.Request, "request", "001", nil, nil},
		{"an answer's head", seal.Answer, "answer", "002", nil, nil},
		{"a request", seal.Request, "request", "001", &body, []string{"DataObjectReference URI=request/body.bin MimeType=application/octet-stream", "ds:DigestMethod Algorithm=http://www.w3.org/2001/04/xmlenc#sha256", "ds:DigestValue", base64.StdEncoding.EncodeToString(body[:])}},
		{"an answer", seal.Answer, "answer", "002", &body, []string{"DataObjectReference URI=answer/body.bin MimeType=application/octet-stream", "ds:DigestMethod Algorithm=http://www.w3.org/2001/04/xmlenc#sha256", "ds:DigestValue", base64.StdEncoding.EncodeToString(body[:])}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := append([]string{
				"ASiCManifest", "SigReference URI=META-INF/signature" + tc.n + ".p7s MimeType=application/pkcs7-signature",
				"DataObjectReference URI=" + tc.dir + "/head.json MimeType=application/json", "ds:DigestMethod Algorithm=http://www.w3.org/2001/04/xmlenc#sha256",
				"ds:DigestValue", base64.StdEncoding.EncodeToString(head[:]),
			}, tc.want...)
			if n := tc.part.Names(); n != (seal.Names{Head: tc.dir + "/head.json", Body: tc.dir + "/body.bin", Manifest: "META-INF/ASiCManifest" + tc.n + ".xml", Signature: "META-INF/signature" + tc.n + ".p7s", Batch: tc.dir + "/batch.txt"}) {
				t.Errorf("its parts are called %q", n)
			}
			if n := testing.AllocsPerRun(100, func() { seal.Manifest(tc.part, head, tc.body) }); n > 1 {
				t.Errorf("%v allocations on the way of each call", n)
			}
			var got []string
			for d := xml.NewDecoder(bytes.NewReader(seal.Manifest(tc.part, head, tc.body))); ; {
				token, err := d.Token()
				if err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				switch token := token.(type) {
				case xml.StartElement:
					line := token.Name.Local
					switch token.Name.Space {
					case "http://uri.etsi.org/02918/v1.2.1#":
					case "http://www.w3.org/2000/09/xmldsig#":
						line = "ds:" + line
					default:
						t.Errorf("an element of %q", token.Name.Space)
					}
					for _, a := range token.Attr {
						if a.Name.Space != "xmlns" {
							line += " " + a.Name.Local + "=" + a.Value
						}
					}
					got = append(got, line)
				case xml.CharData:
					if s := strings.TrimSpace(string(token)); s != "" {
						got = append(got, s)
					}
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}
