package merkle_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/merkle"
)

// TestVectors holds what is written and read here to the protocol's document.
func TestVectors(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocols/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```log ([a-z-]+)\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		found[m[1]] = m[2]
	}
	log, wit := signer(t, "log.example/BH/log1", merkle.LogSignature), signer(t, "log.example/SA/witness1", merkle.Cosignature)
	var tree log3
	for i := range 3 {
		e := sha256.Sum256(fmt.Appendf(nil, "entry %d", i))
		tree.add(e[:])
	}
	proof, root, err := merkle.Prove(3, 1, tree.tile)
	if err != nil {
		t.Fatal(err)
	}
	grown, _, _, err := merkle.ProveGrowth(2, 3, tree.tile)
	if err != nil {
		t.Fatal(err)
	}
	text := merkle.Checkpoint{Origin: log.Name(), Size: 3, Root: root}.Text()
	signed := text + "\n" + line(t, log, text, time.Time{})
	answer := line(t, wit, text, time.Unix(1790000000, 0))
	receipt := merkle.Receipt{Index: 1, Proof: proof, Note: []byte(signed + answer)}
	want := map[string]string{
		"entries":     wrap(hex.EncodeToString(tree.entries)),
		"bundle":      wrap(hex.EncodeToString(merkle.Bundle(tree.entries, 32))),
		"tile":        wrap(hex.EncodeToString(tree.leaves)),
		"log-key":     log.Key.String() + "\n",
		"witness-key": wit.Key.String() + "\n",
		"checkpoint":  signed,
		"submission":  string(merkle.Submission{Old: 2, Proof: grown, Note: []byte(signed)}.Bytes()),
		"answer":      answer,
		"receipt":     string(receipt.Bytes()),
	}
	for name, w := range want {
		if found[name] != w {
			t.Errorf("%s: the document has\n%sand this writes\n%s", name, found[name], w)
		}
	}
	if len(found) != len(want) {
		t.Errorf("the document has %d vectors", len(found))
	}

	// What the document has is read, with the document's keys alone.
	var keys [2]merkle.Key
	for i, name := range []string{"log-key", "witness-key"} {
		if keys[i], err = merkle.ParseKey(strings.TrimSpace(found[name])); err != nil {
			t.Fatal(err)
		}
	}
	r, err := merkle.ParseReceipt([]byte(found["receipt"]))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := hex.DecodeString(strings.ReplaceAll(found["entries"], "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Verify(entries[32:64], merkle.Trust{Log: keys[0], Witnesses: keys[1:], Quorum: 1})
	if err != nil || s.Size != 3 || s.Cosignatures[0].At.Unix() != 1790000000 {
		t.Errorf("%+v, %v", s, err)
	}
	sub, err := merkle.ParseSubmission([]byte(found["submission"]))
	if err != nil || sub.Old != 2 || !bytes.Equal(sub.Note, []byte(found["checkpoint"])) {
		t.Errorf("%+v, %v", sub, err)
	}
	before := tree.head(2)
	if err := merkle.CheckGrowth(sub.Proof, 2, before, 3, s.Root); err != nil {
		t.Error(err)
	}
}

// log3 is a small log: its entries and the hashes of its leaves.
type log3 struct{ entries, leaves []byte }

func (l *log3) add(entry []byte) {
	h := merkle.Leaf(entry)
	l.entries, l.leaves = append(l.entries, entry...), append(l.leaves, h[:]...)
}

func (l *log3) tile(_ int, _ int64, width int) ([]byte, error) {
	return l.leaves[:width*merkle.HashSize], nil
}

func (l *log3) head(size int64) merkle.Hash {
	e, err := merkle.EdgeOf(size, l.tile)
	if err != nil {
		panic(err)
	}
	return e.Root()
}

// wrap breaks hexadecimal into lines of one hash.
func wrap(s string) string {
	var b strings.Builder
	for ; len(s) > 64; s = s[64:] {
		b.WriteString(s[:64] + "\n")
	}
	return b.String() + s + "\n"
}
