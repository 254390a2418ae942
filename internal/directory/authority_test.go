package directory_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	encpem "encoding/pem"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

func parseCRL(t testing.TB, b []byte) *x509.RevocationList {
	t.Helper()
	crl, err := x509.ParseRevocationList(b)
	must(t, err)
	return crl
}

func writePEM(t testing.TB, kind string, der []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "x.pem")
	must(t, os.WriteFile(p, encpem.EncodeToMemory(&encpem.Block{Type: kind, Bytes: der}), 0o600))
	return p
}

func openssl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	return string(out), err
}

// TestOpenSSL: what the authority issues is accepted by stock tools, for its
// purpose and no other, and not after it is revoked.
func TestOpenSSL(t *testing.T) {
	keys := &directorytest.Keys{}
	pub := func(name string) crypto.PublicKey { return key(t, keys, name).Public() }
	id := union.MemberID{State: "BH", Class: "GOV", Code: "interior"}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	for name, caKey := range map[string]crypto.Signer{"P-256": key(t, keys, directory.AuthorityKey), "P-384": p384} {
		t.Run(name, func(t *testing.T) {
			ca, err := directory.NewAuthority("BH", "Kingdom of Bahrain", caKey, time.Now)
			must(t, err)
			seal, err := ca.Seal(id, "Ministry of Interior", pub("seal"))
			must(t, err)
			tls, err := ca.TLS("n1", []string{"node.bh.example", "192.0.2.7"}, pub("tls"))
			must(t, err)
			stamp, err := ca.Stamp(pub("tsa"))
			must(t, err)
			client, err := ca.Client(union.SubsystemID{MemberID: id, Subsystem: "traffic"}, pub("client"))
			must(t, err)
			crl, err := ca.CRL(nil)
			must(t, err)
			second, err := ca.CRL(crl, x509.RevocationListEntry{SerialNumber: seal.SerialNumber, RevocationTime: time.Now(), ReasonCode: 1})
			must(t, err)
			third, err := ca.CRL(second, x509.RevocationListEntry{SerialNumber: tls.SerialNumber, RevocationTime: time.Now(), ReasonCode: 4})
			must(t, err)

			caFile := writePEM(t, "CERTIFICATE", ca.Cert.Raw)
			verify := func(cert *x509.Certificate, list []byte, more ...string) (string, error) {
				args := append([]string{"verify", "-x509_strict", "-crl_check", "-CAfile", caFile, "-CRLfile", writePEM(t, "X509 CRL", list)}, more...)
				return openssl(t, append(args, writePEM(t, "CERTIFICATE", cert.Raw))...)
			}
			for what, v := range map[string]struct {
				cert    *x509.Certificate
				purpose string
			}{
				"seal": {seal, "smimesign"}, "server": {tls, "sslserver"}, "as client": {tls, "sslclient"},
				"time-stamp": {stamp, "timestampsign"}, "client": {client, "sslclient"},
			} {
				if out, err := verify(v.cert, crl, "-purpose", v.purpose); err != nil {
					t.Errorf("%s: %s", what, out)
				}
			}
			if out, err := verify(client, crl, "-purpose", "sslserver"); err == nil {
				t.Errorf("a client's certificate serves: %s", out)
			}
			if out, err := verify(tls, crl, "-purpose", "sslserver", "-verify_hostname", "node.bh.example"); err != nil {
				t.Error(out)
			}
			for _, c := range []*x509.Certificate{seal, tls} {
				if out, err := verify(c, third); err == nil || !strings.Contains(out, "revoked") {
					t.Errorf("revoked, but: %s", out)
				}
			}
			out, err := openssl(t, "crl", "-in", writePEM(t, "X509 CRL", third), "-CAfile", caFile, "-noout", "-text")
			if err != nil || !strings.Contains(out, "verify OK") || !strings.Contains(out, "Key Compromise") || !strings.Contains(out, "Superseded") {
				t.Errorf("crl: %v %s", err, out)
			}
			if n := parseCRL(t, third); n.Number.Int64() != 3 || len(n.RevokedCertificateEntries) != 2 {
				t.Errorf("CRL %d with %d entries", n.Number, len(n.RevokedCertificateEntries))
			}
			out, err = openssl(t, "x509", "-in", writePEM(t, "CERTIFICATE", seal.Raw), "-noout", "-text")
			must(t, err)
			for _, want := range []string{"serialNumber = BH/GOV/interior", "organizationIdentifier = FA:BH-BH/GOV/interior", "URI:falaj:BH/GOV/interior", "Non Repudiation", "C = BH"} {
				if !strings.Contains(out, want) {
					t.Errorf("the seal's certificate lacks %q:\n%s", want, out)
				}
			}
		})
	}
}

// TestCertificatesOfAnother: what a state lists must be its own.
func TestCertificatesOfAnother(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	sa := u.Keys["SA"]
	saCA := key(t, sa, directory.AuthorityKey)
	bhSeal := u.Member("BH", "GOV", "interior").Seals[0]
	self := func(edit func(*x509.Certificate)) directory.Cert {
		tmpl := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{Country: []string{"SA"}, CommonName: "x"},
			NotBefore: u.Now(), NotAfter: u.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		}
		edit(tmpl)
		der, err := x509.CreateCertificate(rand.Reader, tmpl, u.CA["SA"].Cert, saCA.Public(), saCA)
		must(t, err)
		c, err := x509.ParseCertificate(der)
		must(t, err)
		return directory.Cert{Certificate: c}
	}
	tests := []struct {
		name string
		edit func(e *directory.Edition)
		want string
	}{
		{"another state's authority", func(e *directory.Edition) {
			e.Authorities = append(e.Authorities, directory.Issuer{Certificate: directory.Cert{Certificate: u.CA["BH"].Cert}})
		}, "country is not SA"},
		{"another state's seal", func(e *directory.Edition) { e.Members[0].Seals = append(e.Members[0].Seals, bhSeal) }, "names BH/GOV/interior"},
		{"a seal that names another state's member", func(e *directory.Edition) {
			e.Members[0].Seals = append(e.Members[0].Seals, self(func(c *x509.Certificate) {
				c.URIs = []*url.URL{{Scheme: "falaj", Opaque: "BH/GOV/interior"}}
			}))
		}, "names BH/GOV/interior"},
		{"a seal that nobody known issued", func(e *directory.Edition) {
			k := key(t, &directorytest.Keys{}, "x")
			rogue, err := directory.NewAuthority("SA", "State SA", k, u.Now)
			must(t, err)
			c, err := rogue.Seal(union.MemberID{State: "SA", Class: "GOV", Code: "interior"}, "x", k.Public())
			must(t, err)
			e.Members[0].Seals = append(e.Members[0].Seals, directory.Cert{Certificate: c})
		}, "verification failure"},
		{"an authority as a seal", func(e *directory.Edition) {
			e.Members[0].Seals = append(e.Members[0].Seals, directory.Cert{Certificate: u.CA["SA"].Cert})
		}, "authority's"},
		{"an end certificate as an authority", func(e *directory.Edition) { e.Authorities[0].Certificate = e.Members[0].Seals[0] }, "not a certificate authority"},
		{"a node's certificate as a seal", func(e *directory.Edition) {
			e.Members[0].Seals = append(e.Members[0].Seals, e.Nodes[0].Certificates[0])
		}, "TLS"},
		{"a seal as a node's certificate", func(e *directory.Edition) {
			e.Nodes[0].Certificates = append(e.Nodes[0].Certificates, self(func(*x509.Certificate) {}))
		}, "does not allow tls"},
		{"the same twice", func(e *directory.Edition) { e.Members[0].Seals = append(e.Members[0].Seals, e.Members[0].Seals[0]) }, "twice"},
		{"a seal for encryption", func(e *directory.Edition) {
			e.Members[0].Seals = append(e.Members[0].Seals, self(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }))
		}, "not for signatures"},
		{"a time-stamp authority with a second use", func(e *directory.Edition) {
			e.Stamps = append(e.Stamps, directory.Stamp{Address: "http://tsa.example", Certificate: self(func(c *x509.Certificate) {
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}
			})})
		}, "critical"},
		{"another's CRL", func(e *directory.Edition) { e.Files["crl.der"], _ = u.Dirs["BH"].View().File("BH", "crl.der") }, "another authority's"},
		{"a CRL by another key", func(e *directory.Edition) {
			rogue, err := directory.NewAuthority("SA", "State SA", key(t, &directorytest.Keys{}, "x"), u.Now)
			must(t, err)
			e.Files["crl.der"], err = rogue.CRL(nil)
			must(t, err)
		}, "CRL"},
		{"a CRL that is none", func(e *directory.Edition) { e.Files["crl.der"] = []byte("x") }, "CRL"},
		{"no CRL", func(e *directory.Edition) { delete(e.Files, "crl.der") }, "CRL"},
		{"rules that do not compile", func(e *directory.Edition) { e.Policy = "permit(" }, "policy.cedar"},
		{"an agreement about another state's service", func(e *directory.Edition) {
			e.Agreements = append(e.Agreements, directory.Agreement{})
			e.Agreements[0].ID = "a"
			e.Agreements[0].Service.State = "BH"
		}, "agreement"},
		{"a description that is not there", func(e *directory.Edition) {
			e.Members[0].Subsystems = []directory.Subsystem{{Code: "s", Name: directorytest.Text("s"), Services: []directory.Service{{
				Code: "v", Name: directorytest.Text("v"), OpenAPI: "openapi/v.json", Retention: "exchange", DataClass: "public",
			}}}}
		}, "not in the part"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := u.Dirs["SA"].Publish(t.Context(), func(e *directory.Edition) error { tt.edit(e); return nil })
			wantCode(t, err, fault.DirectoryInvalid, tt.want)
			if v := u.Dirs["SA"].View().Version(); v != 1 {
				t.Errorf("version %d", v)
			}
		})
	}
}

// TestNationalAuthority: a state may name a national authority, which knows
// nothing of falaj's names, beside or instead of its own.
func TestNationalAuthority(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"SA"}, CommonName: "National CA"}, NotBefore: u.Now(), NotAfter: u.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, k.Public(), k)
	must(t, err)
	root, err = x509.ParseCertificate(der)
	must(t, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{Country: []string{"SA"}, Organization: []string{"وزارة الداخلية"}},
		NotBefore: u.Now(), NotAfter: u.Now().Add(time.Hour), KeyUsage: x509.KeyUsageContentCommitment}
	der, err = x509.CreateCertificate(rand.Reader, leaf, root, key(t, u.Keys["SA"], "x").Public(), k)
	must(t, err)
	leaf, err = x509.ParseCertificate(der)
	must(t, err)
	must(t, u.Dirs["SA"].Publish(t.Context(), func(e *directory.Edition) error {
		e.Authorities = append(e.Authorities, directory.Issuer{Certificate: directory.Cert{Certificate: root}})
		e.Members[0].Seals = append(e.Members[0].Seals, directory.Cert{Certificate: leaf})
		return nil
	}))
	u.Refresh()
	sum := directory.Cert{Certificate: leaf}.SHA256()
	if c, ok := u.Dirs["BH"].View().Certificate(sum); !ok || c.Member.Code != "interior" {
		t.Errorf("%+v %v", c, ok)
	}
	wantCode(t, u.Dirs["SA"].Revoke(t.Context(), sum, "superseded"), fault.NotAllowed, "another authority")
}
