package stamp

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestVectors holds what is written and read here to the protocol's document.
func TestVectors(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocols/evidence.md")
	must(t, err)
	text := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```(log|stamp) ([a-z-]+)\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		text[m[1]+" "+m[2]] = m[3]
	}
	raw := func(name string) []byte {
		t.Helper()
		b, err := hex.DecodeString(strings.ReplaceAll(text["stamp "+name], "\n", ""))
		must(t, err)
		if len(b) == 0 {
			t.Fatalf("the document has no %s", name)
		}
		return b
	}
	_, note, ok := strings.Cut(text["log receipt"], "\n\n")
	if !ok {
		t.Fatal("the document has no checkpoint")
	}
	var entries []Digest
	for i := range 3 {
		entries = append(entries, sha256.Sum256(fmt.Appendf(nil, "entry %d", i)))
	}
	sum := sha256.Sum256([]byte(note))
	tree, others := Path(append([]Digest{}, entries...), 1)
	imprint := Join(tree, sum)
	request := Request{Imprint: imprint, Nonce: big.NewInt(1790000000), Certificate: true}
	same := func(name string, got []byte) {
		t.Helper()
		if want := raw(name); hex.EncodeToString(want) != hex.EncodeToString(got) {
			t.Errorf("%s: the document has %x, this gives %x", name, want, got)
		}
	}
	same("tree", tree[:])
	same("root", Preimage(tree, sum))
	same("request", request.Bytes())
	token, err := ParseResponse(raw("response"))
	must(t, err)
	k, err := ParseToken(token)
	must(t, err)
	cert, err := x509.ParseCertificate(raw("certificate"))
	must(t, err)
	must(t, k.Verify(cert))
	if k.Imprint != imprint || k.Nonce.Cmp(request.Nonce) != 0 || k.Policy != Policy || k.Accuracy != time.Second || k.At.Format(time.RFC3339Nano) != "2026-09-21T14:13:25.25Z" || k.Serial.Text(16) != "18d0" {
		t.Errorf("%+v", k)
	}
	record, err := Record{NewLink(entries[1], append(others, sum), k)}.Bytes()
	must(t, err)
	same("record", record)
	r, err := ParseRecord(record)
	must(t, err)
	must(t, r.Verify(entries[1]))

	list := []Digest{sha256.Sum256([]byte("time-stamp 0")), k.Digest(), sha256.Sum256([]byte("time-stamp 2"))}
	tree, others = Path(list, 1)
	next, err := ParseToken(raw("renewal"))
	must(t, err)
	cert, err = x509.ParseCertificate(raw("renewing-certificate"))
	must(t, err)
	must(t, next.Verify(cert))
	if next.Imprint != tree || next.At.Format(time.RFC3339) != "2031-02-27T17:06:40Z" || next.Serial.Text(16) != "18d1" {
		t.Errorf("%+v", next)
	}
	renewed, err := append(r, NewLink(k.Digest(), others, next)).Bytes()
	must(t, err)
	same("renewed-record", renewed)
	r, err = ParseRecord(renewed)
	must(t, err)
	must(t, r.Verify(entries[1]))
}
