package merkle_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/merkle"
)

// private is a key that anyone can make again from its name.
func private(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func signer(t testing.TB, name string, kind merkle.Kind) merkle.Signer {
	t.Helper()
	s, err := merkle.NewSigner(name, kind, private(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func line(t testing.TB, s merkle.Signer, text string, at time.Time) string {
	t.Helper()
	l, err := s.Line(text, at)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var (
	at     = time.Unix(1679315147, 5e8)
	origin = "log.example/BH/log1"
	head   = merkle.Checkpoint{Origin: origin, Size: 7, Root: sha256.Sum256([]byte("root"))}
)

// TestNoteIsTheOthers: Go's note package verifies what is signed here, and the
// other way round.
func TestNoteIsTheOthers(t *testing.T) {
	s := signer(t, origin, merkle.LogSignature)
	theirs, err := note.NewVerifier(s.Key.String())
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte(head.Text() + "\n" + line(t, s, head.Text(), at))
	if _, err := note.Open(msg, note.VerifierList(theirs)); err != nil {
		t.Error(err)
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + strings.SplitN(head.Text(), "\n", 2)[1]))
	if err != nil || tree.N != head.Size || tree.Hash != head.Root {
		t.Errorf("%+v, %v", tree, err)
	}
	skey, vkey, err := note.GenerateKey(nil, origin)
	if err != nil {
		t.Fatal(err)
	}
	k, err := merkle.ParseKey(vkey)
	if err != nil || k.String() != vkey || k.Kind() != merkle.LogSignature {
		t.Fatalf("%v, %v", k, err)
	}
	other, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	if msg, err = note.Sign(&note.Note{Text: head.Text()}, other); err != nil {
		t.Fatal(err)
	}
	got, err := merkle.OpenCheckpoint(msg, k)
	if err != nil || got.Checkpoint != head || !bytes.Equal(got.Note(), msg) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestCosignature computes one as the specification says, beside the code.
func TestCosignature(t *testing.T) {
	w := signer(t, "log.example/SA/witness1", merkle.Cosignature)
	key := private(w.Name())
	id := sha256.Sum256(append([]byte(w.Name()+"\n\x04"), key.Public().(ed25519.PublicKey)...))
	sig := ed25519.Sign(key, []byte("cosignature/v1\ntime 1679315147\n"+head.Text()))
	want := append(append(id[:4:4], 0, 0, 0, 0, 0x64, 0x18, 0x50, 0xcb), sig...)
	got := line(t, w, head.Text(), at)
	if got != "— "+w.Name()+" "+base64.StdEncoding.EncodeToString(want)+"\n" {
		t.Errorf("%q", got)
	}
	l := signer(t, origin, merkle.LogSignature)
	msg := []byte(head.Text() + "\n" + line(t, l, head.Text(), at) + got)
	s, err := merkle.OpenCheckpoint(msg, l.Key, w.Key)
	if err != nil || len(s.Cosignatures) != 1 || !s.Cosignatures[0].At.Equal(at.Truncate(time.Second)) || s.Cosignatures[0].Key != w.Key {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestOpenCheckpoint(t *testing.T) {
	l, w := signer(t, origin, merkle.LogSignature), signer(t, "w.example/SA/w", merkle.Cosignature)
	asLog := signer(t, "w.example/SA/w", merkle.LogSignature)
	text := head.Text()
	own, co := line(t, l, text, at), line(t, w, text, at)
	elsewhere := merkle.Checkpoint{Origin: "other.example/SA/log1", Size: 7, Root: head.Root}.Text()
	more := head
	more.Size++
	for _, x := range []struct {
		name, msg string
		want      int // cosignatures; -1: refused; -2: unsigned
	}{
		{"signed", text + "\n" + own, 0},
		{"cosigned", text + "\n" + own + co, 1},
		{"cosigned first", text + "\n" + co + own, 1},
		{"twice by one", text + "\n" + own + co + line(t, w, text, at.Add(time.Hour)), 1},
		{"by a stranger too", text + "\n" + own + line(t, signer(t, "x", merkle.Cosignature), text, at), 0},
		{"the witness's key as a log's", text + "\n" + own + line(t, asLog, text, at), 0},
		{"cosigned only", text + "\n" + co, -2},
		{"unsigned", text + "\n", -1},
		{"the log's signature of another head", text + "\n" + line(t, l, more.Text(), at), -2},
		{"a cosignature of another head", text + "\n" + own + line(t, w, more.Text(), at), -1},
		{"another's origin", elsewhere + "\n" + line(t, l, elsewhere, at), -2},
		{"an extension line", text + "more\n\n" + line(t, l, text+"more\n", at), -1},
		{"a blank line within", "\n" + text + "\n" + line(t, l, "\n"+text, at), -1},
		{"cut off", (text + "\n" + own)[:len(text)+20], -1},
		{"nothing", "", -1},
		{"too long", text + "\n" + own + strings.Repeat(co, 1000), -1},
	} {
		t.Run(x.name, func(t *testing.T) {
			s, err := merkle.OpenCheckpoint([]byte(x.msg), l.Key, w.Key)
			switch {
			case x.want >= 0 && (err != nil || len(s.Cosignatures) != x.want || s.Checkpoint != head):
				t.Errorf("%+v, %v", s, err)
			case x.want < 0 && (err == nil || errors.Is(err, merkle.ErrUnsigned) != (x.want == -2)):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestParseCheckpoint(t *testing.T) {
	if c, err := merkle.ParseCheckpoint(head.Text()); err != nil || c != head {
		t.Fatalf("%+v, %v", c, err)
	}
	root := strings.Split(head.Text(), "\n")[2]
	for _, bad := range []string{
		"", "\n", "a\n1\n", "a\n1\n" + root, "a\n01\n" + root + "\n", "a\n+1\n" + root + "\n", "a\n-1\n" + root + "\n",
		"a\n1099511627777\n" + root + "\n", "a b\n1\n" + root + "\n", "a+b\n1\n" + root + "\n", "\n1\n" + root + "\n",
		"a\n1\n" + root[:40] + "\n", "a\n1\n" + root[:43] + "\n", "a\n1\n" + root[:42] + "B=\n", "a\n1\n" + root + "\nx\n", "a\r\n1\n" + root + "\n",
	} {
		if c, err := merkle.ParseCheckpoint(bad); err == nil {
			t.Errorf("%q: %+v", bad, c)
		}
	}
}

func TestParseKey(t *testing.T) {
	good := signer(t, "a.example/BH/log1", merkle.LogSignature).Key.String()
	name, rest, _ := strings.Cut(good, "+")
	hash, b64, _ := strings.Cut(rest, "+")
	for _, bad := range []string{
		"", "+", "++", name, name + "+" + hash, "+" + hash + "+" + b64, name + "+00000000+" + b64, "b" + good,
		good + "=", name + " x+" + hash + "+" + b64, name + "+" + strings.ToUpper(hash) + "+" + b64, strings.Repeat("a", 300) + "+" + hash + "+" + b64,
		name + "+" + hash + "+" + b64 + "\n",
	} {
		if k, err := merkle.ParseKey(bad); err == nil {
			t.Errorf("%q: %v", bad, k)
		}
	}
	mldsa := append([]byte{6}, make([]byte, 32)...)
	if _, err := merkle.ParseKey(name + "+" + hash + "+" + base64.StdEncoding.EncodeToString(mldsa)); err == nil {
		t.Error("a kind that is not known was taken")
	}
	if (merkle.Key{}).String() != "" || (merkle.Key{}).Verify([]byte("x"), make([]byte, 64)) {
		t.Error("no key is one")
	}
}

// TestGrowth: what is proved is verified, and nothing else is.
func TestGrowth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 700).Draw(t, "size")
		l := grow(t, int(size))
		old := rapid.Int64Range(0, size).Draw(t, "old")
		proof, before, now, err := merkle.ProveGrowth(old, size, l.tile)
		if err != nil || now != l.edge.Root() || old > 0 && before != grow(t, int(old)).edge.Root() {
			t.Fatalf("%v", err)
		}
		if err := merkle.CheckGrowth(proof, old, before, size, now); err != nil {
			t.Fatal(err)
		}
		if old > 0 && old < size {
			if want, err := tlog.ProveTree(size, old, tlog.HashReaderFunc(l.read)); err != nil || fmt.Sprint(want) != fmt.Sprint(proof) {
				t.Fatalf("the measure proves it otherwise: %v", err)
			}
		}
		switch rapid.IntRange(0, 4).Draw(t, "harm") {
		case 0:
			before[3] ^= 1
		case 1:
			if old == 0 && size > 0 {
				return // whatever the first head is: there is nothing that it could deny
			}
			now[3] ^= 1
		case 2:
			if old == 0 {
				return
			}
			old--
		case 3:
			proof = append(proof, merkle.Hash{})
		case 4:
			old = size + 1
		}
		if err := merkle.CheckGrowth(proof, old, before, size, now); err == nil {
			t.Fatal("a false proof holds")
		}
	})
}

func TestReceipt(t *testing.T) {
	tree := grow(t, 300)
	l, a, b := signer(t, origin, merkle.LogSignature), signer(t, "a/SA/w", merkle.Cosignature), signer(t, "b/AE/w", merkle.Cosignature)
	proof, root, err := merkle.Prove(300, 5, tree.tile)
	if err != nil {
		t.Fatal(err)
	}
	text := merkle.Checkpoint{Origin: origin, Size: 300, Root: root}.Text()
	r := merkle.Receipt{Extra: []byte("x"), Index: 5, Proof: proof, Note: []byte(text + "\n" + line(t, l, text, at) + line(t, a, text, at))}
	entry := []byte{0, 0, 0, 0, 0, 0, 0, 5}
	trust := merkle.Trust{Log: l.Key, Witnesses: []merkle.Key{a.Key, b.Key}, Quorum: 1}

	got, err := merkle.ParseReceipt(r.Bytes())
	if err != nil || !bytes.Equal(got.Bytes(), r.Bytes()) {
		t.Fatalf("%+v, %v", got, err)
	}
	if s, err := got.Verify(entry, trust); err != nil || s.Witnesses() != 1 || s.Size != 300 {
		t.Errorf("%+v, %v", s, err)
	}
	trust.Quorum = 2
	if s, err := got.Verify(entry, trust); !errors.Is(err, merkle.ErrQuorum) || s.Witnesses() != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	trust.Quorum = 1
	for name, harm := range map[string]func(r *merkle.Receipt, tr *merkle.Trust, e *[]byte){
		"another entry":   func(_ *merkle.Receipt, _ *merkle.Trust, e *[]byte) { *e = []byte("another") },
		"another index":   func(r *merkle.Receipt, _ *merkle.Trust, _ *[]byte) { r.Index++ },
		"an index beyond": func(r *merkle.Receipt, _ *merkle.Trust, _ *[]byte) { r.Index = 300 },
		"another proof": func(r *merkle.Receipt, _ *merkle.Trust, _ *[]byte) {
			r.Proof = append([]merkle.Hash{{}}, r.Proof[1:]...)
		},
		"another log":            func(_ *merkle.Receipt, tr *merkle.Trust, _ *[]byte) { tr.Log = a.Key },
		"no witness that counts": func(_ *merkle.Receipt, tr *merkle.Trust, _ *[]byte) { tr.Witnesses = tr.Witnesses[1:] },
		"no signature":           func(r *merkle.Receipt, _ *merkle.Trust, _ *[]byte) { r.Note = []byte(text + "\n") },
	} {
		bad, tr, e := got, trust, bytes.Clone(entry)
		harm(&bad, &tr, &e)
		if _, err := bad.Verify(e, tr); err == nil {
			t.Errorf("%s: it verifies", name)
		}
	}
	good := string(r.Bytes())
	for _, bad := range []string{
		"", strings.Replace(good, "@v1", "@v2", 1), strings.Replace(good, "index 5", "index 05", 1), strings.Replace(good, "index 5\n", "", 1),
		strings.Replace(good, "extra eA==\n", "extra eA\n", 1), strings.Replace(good, "extra eA==\n", "extra eA==\nextra eA==\n", 1),
		strings.ReplaceAll(good, "\n\n", "\n"), strings.Replace(good, "index 5\n", "index 5\nAA==\n", 1), good + strings.Repeat("x", merkle.MaxReceipt),
	} {
		if r, err := merkle.ParseReceipt([]byte(bad)); err == nil {
			if _, err := r.Verify(entry, trust); err == nil {
				t.Errorf("%.200q verifies", bad)
			}
		}
	}
}

func TestSubmission(t *testing.T) {
	s := merkle.Submission{Old: 3, Proof: []merkle.Hash{{1}, {2}}, Note: []byte("note\n\nsig\n")}
	got, err := merkle.ParseSubmission(s.Bytes())
	if err != nil || !bytes.Equal(got.Bytes(), s.Bytes()) || got.Old != 3 || len(got.Proof) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "old 1", "old 1\n", "old 01\n\nx", "old -1\n\nx", "old  1\n\nx", "1\n\nx", "old 1\nAA==\n\nx", "old 1 \n\nx",
		"old 1\n" + strings.Repeat(base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n", 64) + "\nx", "old 9223372036854775808\n\nx"} {
		if s, err := merkle.ParseSubmission([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
	most := merkle.Submission{Old: math.MaxInt64, Proof: make([]merkle.Hash, 63), Note: make([]byte, merkle.MaxNote)}
	if len(most.Bytes()) > merkle.MaxSubmission {
		t.Errorf("the largest submission has %d bytes", len(most.Bytes()))
	}
}

func TestParsePath(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		level := rapid.IntRange(merkle.Entries, merkle.MaxLevel).Draw(t, "level")
		n := rapid.Int64Range(0, merkle.MaxSize/merkle.TileWidth).Draw(t, "n")
		width := rapid.IntRange(1, merkle.TileWidth).Draw(t, "width")
		path := merkle.BundlePath(n, width)
		if level != merkle.Entries {
			path = merkle.Path(level, n, width)
		}
		l, m, w, ok := merkle.ParsePath(path)
		if !ok || l != level || m != n || w != width {
			t.Fatalf("%s: %d %d %d %v", path, l, m, w, ok)
		}
	})
	for _, bad := range []string{"", "tile", "tile/0", "tile/0/1", "tile/00/001", "tile/6/000", "tile/-1/000", "tile/0/x000/001", "tile/0/000.p/0",
		"tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p", "tile/0/001/002", "tile/0/x001/x002", "tile/entries/", "tile/0/000/", "xile/0/000", "tile/0/x1/000",
		"tile/0/" + strings.Repeat("x999/", 30) + "999"} {
		if l, n, w, ok := merkle.ParsePath(bad); ok {
			t.Errorf("%q: %d %d %d", bad, l, n, w)
		}
	}
}

// FuzzSigned: nothing that is read makes a reader fail in another way than by
// an error, and what is read is written as it was.
func FuzzSigned(f *testing.F) {
	l, w := signer(f, origin, merkle.LogSignature), signer(f, "w/SA/w", merkle.Cosignature)
	text := head.Text()
	msg := text + "\n" + line(f, l, text, at) + line(f, w, text, at)
	f.Add([]byte(msg))
	f.Add(merkle.Receipt{Index: 6, Proof: make([]merkle.Hash, 3), Note: []byte(msg)}.Bytes())
	f.Add(merkle.Receipt{Index: 6, Extra: []byte{}, Note: []byte(msg)}.Bytes())
	f.Add(merkle.Submission{Old: 6, Proof: make([]merkle.Hash, 3), Note: []byte(msg)}.Bytes())
	f.Add([]byte(l.Key.String()))
	f.Add([]byte(w.Key.String()))
	f.Add([]byte("tile/0/x001/234.p/5"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := merkle.OpenCheckpoint(b, l.Key, w.Key); err == nil && s.Text() != text {
			t.Errorf("a forged checkpoint: %q", b)
		}
		if c, err := merkle.ParseCheckpoint(string(b)); err == nil && c.Text() != string(b) {
			t.Errorf("%q is read as %q", b, c.Text())
		}
		if r, err := merkle.ParseReceipt(b); err == nil {
			if !bytes.Equal(r.Bytes(), b) {
				t.Errorf("%q is read as %q", b, r.Bytes())
			}
			_, _ = r.Verify(b, merkle.Trust{Log: l.Key, Witnesses: []merkle.Key{w.Key}, Quorum: 1})
		}
		if s, err := merkle.ParseSubmission(b); err == nil && !bytes.Equal(s.Bytes(), b) {
			t.Errorf("%q is read as %q", b, s.Bytes())
		}
		if k, err := merkle.ParseKey(string(b)); err == nil && k.String() != string(b) {
			t.Errorf("%q is read as %q", b, k)
		}
		merkle.Origin(b)
		merkle.ParsePath(string(b))
	})
}
