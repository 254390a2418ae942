package message

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestGoldenPromise holds the promise against the document.
func TestGoldenPromise(t *testing.T) {
	read := func(file, kind string) map[string]string {
		doc, err := os.ReadFile("../../../docs/protocols/" + file)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, m := range regexp.MustCompile("(?s)```"+kind+" ([a-z-]+)\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
			found[m[1]] = strings.Join(strings.Fields(m[2]), "")
		}
		return found
	}
	envelope, err := hex.DecodeString(read("node.md", "message")["request-envelope"])
	if err != nil {
		t.Fatal(err)
	}
	sum := func(s string) [32]byte { return sha256.Sum256([]byte(s)) }
	p := Promise{Kind: 1, Index: 7, At: 1790000000123, Salt: sum("salt"), Class: sum("class"), Body: sum("body"), Local: sum("local")}
	leaf := p.Leaf("0f8e4a1c", sha256.Sum256(envelope))
	golden := read("promise.md", "promise")
	if b := hex.EncodeToString(p.Append(nil)); golden["bytes"] != b {
		t.Errorf("the document has %s and this writes %s", golden["bytes"], b)
	}
	if e := hex.EncodeToString(leaf[:]); golden["entry"] != e {
		t.Errorf("the document has %s and this computes %s", golden["entry"], e)
	}
}
