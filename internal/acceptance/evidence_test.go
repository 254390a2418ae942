package acceptance_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/seal"
)

// half is what one node holds of a call.
type half struct {
	State   string
	Node    string
	Records []record
}

// record is one record of a call.
type record struct {
	Kind                            string
	Leaf                            int64
	Salt, Digest, Hash, Certificate string
	Head                            json.RawMessage
	Sealed                          time.Time `json:"sealed_at"`
	Envelope                        []byte
	Note                            json.RawMessage
}

// held is what both sides hold of a call.
type held struct {
	ID      string
	Halves  []half
	Missing string
}

// evidence asks a state's node, as the system that called.
func evidence(t *testing.T, u *union, state, id string) held {
	t.Helper()
	n := u.node(t, state)
	a := curl(t, "-H", "X-Road-Client: "+n.Client, n.R1+"/evidence/"+id).want(t, 200)
	var e held
	into(t, string(a.body), &e)
	return e
}

// cades has openssl judge the seals of recorded messages: an envelope, the
// member's certificate and its authority's are all that it takes.
func cades(t *testing.T, u *union, id string) {
	var e held
	into(t, u.falaj(t, "SA", "--json", "evidence", "show", id), &e)
	certs := published(t, u)
	for _, h := range e.Halves {
		for _, r := range h.Records {
			// docs/protocols/node.md: length of the head, head, seal.
			n := int(binary.BigEndian.Uint32(r.Envelope))
			raw, rest := r.Envelope[4:4+n], r.Envelope[4+n:]
			var head struct {
				Type string
				Body *struct{ SHA256 string }
			}
			into(t, string(raw), &head)
			var body *seal.Digest
			if head.Body != nil {
				b, err := hex.DecodeString(head.Body.SHA256)
				check(t, err)
				body = (*seal.Digest)(b)
			}
			part := seal.Answer
			if head.Type == "falaj.request/1" {
				part = seal.Request
			}
			manifest := seal.Manifest(part, sha256.Sum256(raw), body)
			s, err := seal.ParseSeal(rest)
			check(t, err)
			cert, ok := certs[r.Certificate]
			if !ok {
				t.Fatalf("the directory publishes no certificate %s", r.Certificate)
			}
			p7s, err := seal.CMS(part, manifest, cert.own, s)
			check(t, err)
			dir := t.TempDir()
			for name, b := range map[string][]byte{"manifest.xml": manifest, "seal.p7s": p7s, "authority.pem": []byte(cert.authority)} {
				check(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			}
			verify := []string{"cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", dir + "/seal.p7s", "-CAfile", dir + "/authority.pem", "-purpose", "any", "-content"}
			if r := do(t, nil, "openssl", append(verify, dir+"/manifest.xml")...); r.code != 0 {
				t.Errorf("%s, %s: %s", h.State, r.line, r.err)
			}
			if r := do(t, nil, "openssl", append(verify, dir+"/authority.pem")...); r.code == 0 {
				t.Errorf("%s: openssl takes the seal for another text's", h.State)
			}
		}
	}
}

type sealCert struct {
	own       *x509.Certificate
	authority string // PEM
}

// published reads the seals' certificates from the signed parts of the states,
// as a node keeps them, by SHA-256.
func published(t *testing.T, u *union) map[string]sealCert {
	t.Helper()
	parts, err := filepath.Glob(filepath.Join(u.Data, "SA", "directory", "targets", "*", "*.state.json"))
	check(t, err)
	out := map[string]sealCert{}
	for _, file := range parts {
		var part struct {
			Authorities []struct{ Certificate string }
			Members     []struct{ Seals []string }
		}
		into(t, read(t, file), &part)
		for _, m := range part.Members {
			for _, text := range m.Seals {
				block, _ := pem.Decode([]byte(text))
				cert, err := x509.ParseCertificate(block.Bytes)
				check(t, err)
				out[fmt.Sprintf("%x", sha256.Sum256(cert.Raw))] = sealCert{cert, part.Authorities[0].Certificate}
			}
		}
	}
	return out
}
