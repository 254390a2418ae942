package journal

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzArchive: whatever stands in the archive's folder, reading it takes no more
// memory than a record may have, and gives no bytes beyond the file's own.
func FuzzArchive(f *testing.F) {
	dir := f.TempDir()
	file, err := os.Create(filepath.Join(dir, "seed"))
	if err != nil {
		f.Fatal(err)
	}
	w := archiveWriter{file: file, first: 3, at: int64(archiveHead)}
	for i := range byte(3) {
		if err := w.add([leafSize]byte{i}, []byte{1, i}); err != nil {
			f.Fatal(err)
		}
	}
	if _, err := w.finish(func(string) (string, error) { return "— a b\n", nil }); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(file.Name())
	if err != nil {
		f.Fatal(err)
	}
	_ = file.Close()
	f.Add(whole)
	f.Add(whole[:archiveHead])
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(archiveTitle))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		a, err := readArchive(in)
		if err != nil {
			return
		}
		_ = a.whole(func([]byte) error { return nil })
		for i := range min(a.count, 16) {
			if r, err := a.record(i); err == nil && len(r) > len(b) {
				t.Errorf("a record of %d bytes from a file of %d", len(r), len(b))
			}
		}
	})
}
