package seal_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
)

const (
	chunk  = 64 << 10
	sealed = chunk + 28
	head   = 2 + len("exchange") + 4 + 16
)

func newSpool(t testing.TB) (*seal.Spool, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "spool")
	s, err := seal.OpenSpool(dir, open(t, filepath.Join(t.TempDir(), "k"), seal.KeyConfig{}).Records())
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func create(t testing.TB, s *seal.Spool, limit int64) *seal.SpoolWriter {
	t.Helper()
	w, err := s.Create(seal.SpoolConfig{Class: "exchange", At: noon, Limit: limit, SHA512: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func spoolBody(t testing.TB, s *seal.Spool, body []byte) seal.Spooled {
	t.Helper()
	w := create(t, s, int64(len(body)))
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	done, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// noise is n bytes without a pattern that chunks could hide.
func noise(n int) []byte {
	b := make([]byte, 0, n+32)
	for i := 0; len(b) < n; i++ {
		h := sha256.Sum256(fmt.Append(nil, i))
		b = append(b, h[:]...)
	}
	return b[:n]
}

func TestBodiesComeBack(t *testing.T) {
	s, dir := newSpool(t)
	for _, n := range []int{0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 5*chunk + 77} {
		body := noise(n)
		done := spoolBody(t, s, body)
		if done.Size != int64(n) || done.SHA256 != sha256.Sum256(body) || done.SHA512 != sha512.Sum512(body) {
			t.Errorf("%d bytes: wrong size or digests", n)
		}
		file, err := os.ReadFile(filepath.Join(dir, done.ID))
		if err != nil {
			t.Fatal(err)
		}
		chunks := max(1, (n+chunk-1)/chunk)
		if len(file) != head+n+28*chunks || n > 32 && bytes.Contains(file, body[n/2:n/2+16]) {
			t.Errorf("%d bytes: a file of %d, or in clear", n, len(file))
		}
		for range 2 { // a body is read again when a delivery is repeated
			r, err := s.Open(done.ID)
			if err != nil {
				t.Fatal(err)
			}
			if r.Size() != int64(n) {
				t.Errorf("size %d, want %d", r.Size(), n)
			}
			if err := iotest.TestReader(r, body); err != nil {
				t.Errorf("%d bytes: %v", n, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
				t.Errorf("read after close: %v", err)
			}
			if err := r.Close(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("closed twice: %v", err)
			}
		}
	}
}

func TestBodiesComeBackHoweverTheyArrive(t *testing.T) {
	s, _ := newSpool(t)
	rapid.Check(t, func(rt *rapid.T) {
		w := create(t, s, 1<<20)
		var body []byte
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 100_000), 0, 6).Draw(rt, "writes") {
			part := noise(n)
			body = append(body, part...)
			if m, err := w.Write(part); m != n || err != nil {
				rt.Fatal(m, err)
			}
			clear(part) // the writer must not keep what it is given
		}
		done, err := w.Finish()
		if err != nil {
			rt.Fatal(err)
		}
		r, err := s.Open(done.ID)
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, body) {
			rt.Fatalf("%d bytes of %d, %v", len(got), len(body), err)
		}
		if err := s.Remove(done.ID); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestDamagedBodiesAreNotReadOut(t *testing.T) {
	s, dir := newSpool(t)
	body := noise(3*chunk + 100)
	id := spoolBody(t, s, body).ID
	other := spoolBody(t, s, body).ID
	path := filepath.Join(dir, id)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(dir, other))
	if err != nil {
		t.Fatal(err)
	}
	part := func(f []byte, i int) []byte { return f[head+i*sealed : min(len(f), head+(i+1)*sealed)] }
	cat := slices.Concat[[]byte]
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		return b
	}
	tail := head + 3*sealed
	for what, file := range map[string][]byte{
		"empty": nil, "head cut": good[:head-1], "head alone": good[:head], "a byte of the head": flip(0), "class": flip(3), "period": flip(13), "id": flip(20),
		"first nonce": flip(head), "first chunk": flip(head + 100), "second tag": flip(head + 2*sealed - 1), "last chunk": flip(len(good) - 20), "last tag": flip(len(good) - 1),
		"last byte gone": good[:len(good)-1], "last chunk gone": good[:tail], "last chunk's plaintext gone": good[:tail+28], "less than a tag left": good[:tail+5],
		"all but the first chunk gone": good[:head+sealed], "byte added": cat(good, []byte{0}), "chunk added": cat(good[:tail], part(good, 2), good[tail:]),
		"chunks swapped":       cat(good[:head], part(good, 1), part(good, 0), part(good, 2), part(good, 3)),
		"chunk left out":       cat(good[:head], part(good, 0), part(good, 2), part(good, 3)),
		"chunk repeated":       cat(good[:head], part(good, 0), part(good, 0), part(good, 2), part(good, 3)),
		"another body's chunk": cat(good[:head], part(good, 0), part(foreign, 1), good[head+2*sealed:]), "another body": foreign,
	} {
		t.Run(what, func(t *testing.T) {
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := s.Open(id)
			if err == nil {
				defer r.Close()
				var got []byte
				got, err = io.ReadAll(r)
				// What was read out before the damage is the body's beginning.
				if len(got)%chunk != 0 || !bytes.HasPrefix(body, got) {
					t.Errorf("read out %d bytes, among them wrong ones", len(got))
				}
				if _, again := r.Read(make([]byte, 1)); again == nil || again == io.EOF {
					t.Errorf("read on after the damage: %v", again)
				}
			}
			if !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A file that gets shorter under a reader must not look like the body's end.
func TestBodyCutWhileRead(t *testing.T) {
	s, dir := newSpool(t)
	id := spoolBody(t, s, noise(3*chunk)).ID
	r, err := s.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(filepath.Join(dir, id), int64(head+sealed)); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r); n != chunk || !errors.Is(err, seal.ErrDamaged) || errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestSpoolLimit(t *testing.T) {
	s, dir := newSpool(t)
	for _, limit := range []int64{0, 10, chunk, 2*chunk + 5} {
		w := create(t, s, limit)
		if _, err := w.Write(noise(int(limit))); err != nil {
			t.Fatal(err)
		}
		_, err := w.Write([]byte{1})
		code(t, err, fault.TooLarge)
		_, err = w.Write(nil)
		code(t, err, fault.TooLarge)
		_, err = w.Finish()
		code(t, err, fault.TooLarge)
	}
	onlyThese(t, dir, "live")
	w := create(t, s, -1)
	if _, err := w.Write([]byte{1}); err == nil {
		t.Error("wrote beyond a negative limit")
	}
}

func TestBodyGivenUp(t *testing.T) {
	s, dir := newSpool(t)
	w := create(t, s, 1<<20)
	if _, err := w.Write(noise(3 * chunk)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte{1}); err == nil {
		t.Error("wrote after close")
	}
	if _, err := w.Finish(); err == nil {
		t.Error("finished after close")
	}
	onlyThese(t, dir, "live")

	done := spoolBody(t, s, []byte("x"))
	w = create(t, s, 10)
	kept, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil { // deferred: must keep what is finished
		t.Fatal(err)
	}
	if _, err := w.Finish(); err == nil {
		t.Error("finished twice")
	}
	if _, err := s.Open(kept.ID); err != nil {
		t.Error(err)
	}
	r, err := s.Open(done.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // also of one that is not there
		if err := s.Remove(done.ID); err != nil {
			t.Error(err)
		}
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "x" {
		t.Errorf("a reader lost its body: %q, %v", b, err)
	}
	if _, err := s.Open(done.ID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	for _, id := range []string{"", "..", "../k/tls.pem", strings.Repeat("A", 32), strings.Repeat("a", 31), strings.Repeat("a", 32) + ".part"} {
		if _, err := s.Open(id); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("looked for %q", id)
		}
		if err := s.Remove(id); err == nil {
			t.Errorf("removed %q", id)
		}
	}
}

func TestKilledInTheMiddleOfABody(t *testing.T) {
	dir := t.TempDir()
	cmd := child(t, "spool", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	part := func() (name string, size int64) {
		entries, _ := os.ReadDir(dir + "/spool")
		for _, e := range entries {
			if info, err := e.Info(); err == nil && !e.IsDir() {
				return e.Name(), info.Size()
			}
		}
		return "", 0
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, n := part(); n > 2*sealed {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("no body is being written")
		}
	}
	s, err := seal.OpenSpool(dir+"/spool", open(t, dir+"/keys", seal.KeyConfig{}).Records())
	if err != nil {
		t.Fatal(err)
	}
	name, _ := part()
	age(t, dir+"/spool", name)
	if n, err := s.Sweep(nobody); n != 0 || err != nil {
		t.Errorf("swept %d of a process that lives, %v", n, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := s.Open(strings.TrimSuffix(name, ".part")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unfinished body opened: %v", err)
	}
	// Even under a finished body's name it is not one.
	id := strings.TrimSuffix(name, ".part")
	if err := os.Link(dir+"/spool/"+name, dir+"/spool/"+id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(id); !errors.Is(err, seal.ErrDamaged) {
		t.Errorf("an unfinished body opened: %v", err)
	}
	age(t, dir+"/spool", id)
	if n, err := s.Sweep(nobody); n != 2 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	onlyThese(t, dir+"/spool", "live")
}

// A body of any size passes through little memory, in both directions.
func TestSpoolMemoryIsConstant(t *testing.T) {
	s, _ := newSpool(t)
	const size = 16 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := create(t, s, size)
	if n, err := io.Copy(w, io.LimitReader(zeros{}, size)); n != size || err != nil {
		t.Fatal(n, err)
	}
	done, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(done.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); n != size || err != nil {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestSpoolOnAFullDisk(t *testing.T) {
	// A folder that goes away stands for a disk that fails: Finish cannot be
	// made durable, and says so by its code.
	s, dir := newSpool(t)
	w := create(t, s, 10)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, err := w.Finish()
	code(t, err, fault.StoreFailed)
	_, err = s.Create(seal.SpoolConfig{Class: "exchange", At: noon})
	code(t, err, fault.StoreFailed)
}

func FuzzSpoolFile(f *testing.F) {
	s, dir := newSpool(f)
	body := noise(chunk + 50)
	id := spoolBody(f, s, body).ID
	path := filepath.Join(dir, id)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	small, err := os.ReadFile(filepath.Join(dir, spoolBody(f, s, []byte("small")).ID))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(small)
	f.Add(good[:head])
	f.Add(good[:head+sealed])
	f.Add([]byte{1, 8})
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := s.Open(id)
		if err == nil {
			defer r.Close()
			var got []byte
			if got, err = io.ReadAll(r); err == nil && (!bytes.Equal(file, good) || !bytes.Equal(got, body)) {
				t.Fatal("read out what was not written")
			}
		}
		if err != nil && !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	})
}

func BenchmarkSpoolWrite(b *testing.B) {
	s, _ := newSpool(b)
	body := make([]byte, 1<<20)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		w, err := s.Create(seal.SpoolConfig{Class: "exchange", At: noon, Limit: 1 << 30})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			b.Fatal(err)
		}
		done, err := w.Finish()
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Remove(done.ID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSpoolRead(b *testing.B) {
	s, _ := newSpool(b)
	id := spoolBody(b, s, make([]byte, 1<<20)).ID
	b.SetBytes(1 << 20)
	for b.Loop() {
		r, err := s.Open(id)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
		_ = r.Close()
	}
}
