package exchange

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/seal"
)

// vectors reads the golden vectors of messages from the protocol's document:
// what another implementation is written from is what ours is held to.
func vectors(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/protocols/node.md")
	check(t, err)
	out := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```message ([a-z-]+)\n(.*?)\n```").FindAllStringSubmatch(string(b), -1) {
		out[m[1]] = m[2]
	}
	return out
}

func TestGoldenMessages(t *testing.T) {
	v := vectors(t)
	block, _ := pem.Decode([]byte(v["certificate"]))
	if block == nil {
		t.Fatal("no certificate in the document")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	check(t, err)
	open := func(name string) (head []byte, s seal.Seal) {
		raw, err := hex.DecodeString(strings.Join(strings.Fields(v[name]), ""))
		check(t, err)
		head, tail, err := message.Open(raw)
		check(t, err)
		s, err = seal.ParseSeal(tail)
		check(t, err)
		return head, s
	}

	head, s := open("request-envelope")
	if string(head) != v["request-head"] {
		t.Errorf("head of the request: %s", head)
	}
	r, err := message.ParseRequest(head)
	check(t, err)
	again, err := r.Encode()
	check(t, err)
	if !bytes.Equal(again, head) {
		t.Errorf("written again the head is %s", again)
	}
	m := manifest(seal.Request, head, r.Body)
	if err := seal.Verify(cert, seal.Request, m, s); err != nil {
		t.Errorf("seal of the request: %v", err)
	}
	if sum := sha256.Sum256([]byte(v["request-body"])); r.Body == nil || message.Digest(sum) != r.Body.SHA256 {
		t.Error("the body is not the one named")
	}

	head, s = open("answer-envelope")
	if string(head) != v["answer-head"] {
		t.Errorf("head of the answer: %s", head)
	}
	a, err := message.ParseAnswer(head)
	check(t, err)
	if err := seal.Verify(cert, seal.Answer, manifest(seal.Answer, head, a.Body), s); err != nil {
		t.Errorf("seal of the answer: %v", err)
	}
	if a.Request != message.Digest(sha256.Sum256(m)) {
		t.Error("the answer is not bound to the request")
	}
	sum := sha512.Sum512([]byte(v["request-body"]))
	if a.Hash != requestHash(r, &sum) {
		t.Errorf("request hash %s", a.Hash)
	}
}
