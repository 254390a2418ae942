package journal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/merkle"
)

// TestArchiveVector holds the archive's file to the protocol's document.
func TestArchiveVector(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocols/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```archive file\n(.*?)```").FindSubmatch(doc)
	if m == nil {
		t.Fatal("the document has no file of an archive")
	}
	const name = "log.example/BH/log1"
	seed := sha256.Sum256([]byte(name))
	signer, err := merkle.NewSigner(name, merkle.LogSignature, ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := archiveWriter{file: f, first: 3, at: int64(archiveHead)}
	for i := range 2 {
		if err := w.add(sha256.Sum256(fmt.Appendf(nil, "entry %d", i)), fmt.Appendf(nil, "sealed record %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.finish(func(text string) (string, error) { return signer.Line(text, time.Time{}) }); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	var wrapped strings.Builder
	for h := hex.EncodeToString(b); h != ""; {
		n := min(64, len(h))
		wrapped.WriteString(h[:n] + "\n")
		h = h[n:]
	}
	if string(m[1]) != wrapped.String() {
		t.Errorf("the document has\n%sand this writes\n%s", m[1], wrapped.String())
	}
	a, err := readArchive(f)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.record(1); err != nil || string(got) != "sealed record 1" {
		t.Errorf("%q %v", got, err)
	}
	if err := a.whole(func(note []byte) error { _, err := merkle.OpenNote(note, signer.Key); return err }); err != nil {
		t.Error(err)
	}
}
