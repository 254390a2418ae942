package merkle_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/mldsa"

	"github.com/falaj/falaj/internal/merkle"
)

func quantum(t testing.TB, name string) merkle.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	s, err := merkle.NewSigner(name, merkle.Quantum, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestQuantum: a cosignature of ML-DSA-44 is C2SP's, of this witness, this log,
// this head and this time; it stands beside that of Ed25519 and counts for no
// quorum.
func TestQuantum(t *testing.T) {
	log, wit := signer(t, "log.example/BH/log1", merkle.LogSignature), signer(t, "log.example/SA/witness1", merkle.Cosignature)
	second := quantum(t, wit.Name())
	at := time.Unix(1790000000, 0).UTC()
	c := merkle.Checkpoint{Origin: log.Name(), Size: 3, Root: merkle.Leaf([]byte("root"))}
	text := c.Text()
	cosigned := line(t, second, text, at)
	msg := text + "\n" + line(t, log, text, at) + line(t, wit, text, at) + cosigned
	s, err := merkle.OpenCheckpoint([]byte(msg), log.Key, wit.Key, second.Key)
	if err != nil || s.Witnesses() != 1 || s.Quantum() != 1 || len(s.Cosignatures) != 2 || !s.Cosignatures[1].At.Equal(at) || string(s.Note()) != msg {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err := merkle.OpenCheckpoint([]byte(msg), log.Key, wit.Key); err != nil || s.Witnesses() != 1 || s.Quantum() != 0 {
		t.Errorf("whoever does not know the second key: %+v, %v", s, err)
	}
	alone := text + "\n" + line(t, log, text, at) + cosigned
	if s, err := merkle.OpenCheckpoint([]byte(alone), log.Key, wit.Key, second.Key); err != nil || s.Witnesses() != 0 {
		t.Errorf("alone: %+v, %v", s, err)
	}
	again, err := merkle.ParseKey(second.Key.String())
	if err != nil || again != second.Key {
		t.Errorf("the key written and read: %v", err)
	}

	// What the document says, built here byte by byte.
	var b bytes.Buffer
	b.WriteString("subtree/v1\n\x00")
	b.WriteByte(byte(len(wit.Name())))
	b.WriteString(wit.Name())
	_ = binary.Write(&b, binary.BigEndian, at.Unix())
	b.WriteByte(byte(len(c.Origin)))
	b.WriteString(c.Origin)
	_ = binary.Write(&b, binary.BigEndian, [2]int64{0, 3})
	b.Write(c.Root[:])
	raw, err := base64.StdEncoding.DecodeString(strings.Fields(cosigned)[2])
	if err != nil || len(raw) != 4+8+2420 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	seed := sha256.Sum256([]byte(wit.Name()))
	key, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := mldsa.Verify(key.PublicKey(), b.Bytes(), raw[12:], nil); err != nil {
		t.Errorf("the message is another than the document's: %v", err)
	}
	for name, x := range map[string]struct {
		text string
		sig  []byte
	}{
		"another head":     {merkle.Checkpoint{Origin: c.Origin, Size: 4, Root: c.Root}.Text(), raw[4:]},
		"another log":      {merkle.Checkpoint{Origin: "log.example/AE/log1", Size: 3, Root: c.Root}.Text(), raw[4:]},
		"another time":     {text, append([]byte{0, 0, 0, 0, 1}, raw[9:]...)},
		"no checkpoint":    {"x\n", raw[4:]},
		"cut off":          {text, raw[4 : len(raw)-1]},
		"a time alone":     {text, raw[4:12]},
		"after the future": {text, append([]byte{0x80}, raw[5:]...)},
	} {
		if second.Verify([]byte(x.text), x.sig) {
			t.Error(name)
		}
	}
	if other := quantum(t, "log.example/AE/witness1"); other.Verify([]byte(text), raw[4:]) {
		t.Error("another witness")
	}
	if named, err := second.Named("log.example/AE/witness1"); err != nil || named.Verify([]byte(text), raw[4:]) {
		t.Errorf("the same key under another name: %v", err)
	}
	for _, kind := range []merkle.Kind{merkle.LogSignature, merkle.Cosignature} {
		if _, err := merkle.NewKey("x", kind, key.Public()); err == nil {
			t.Errorf("an ML-DSA key for kind %d", kind)
		}
	}
	if _, err := merkle.NewKey("x", merkle.Quantum, ed25519.PublicKey(make([]byte, 32))); err == nil {
		t.Error("an Ed25519 key for ML-DSA")
	}
	if _, err := second.Line("x\n", at); err == nil {
		t.Error("it cosigns what is no checkpoint")
	}

	doc, err := os.ReadFile("../../docs/protocols/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(second.Key.String()))
	want := hex.EncodeToString(sum[:])
	if m := regexp.MustCompile("(?s)```quantum key\n(.*?)\n```").FindSubmatch(doc); m == nil || string(m[1]) != want {
		t.Errorf("the document's verifier key is another: %s", want)
	}
}
