package seal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/falaj/falaj/internal/fault"
)

// maxKeyFile bounds what is read as a key file, in bytes.
const maxKeyFile = 32 << 10

// tempPrefix begins the names of files that are still being written.
const tempPrefix = ".new-"

// makeFolder makes a folder of mode 0700, its entry durable, and refuses one
// that others may enter.
func makeFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil {
		if err := syncFolder(filepath.Dir(dir)); err != nil {
			return err
		}
	} else if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			return err
		}
		return makeFolder(dir)
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return fault.New(fault.ConfigInvalid, "folder %s has mode %04o; it holds keys and must be 0700 (chmod 700)", dir, m)
	}
	return nil
}

// writeTemp writes a new file of mode 0600 beside path and makes it durable.
func writeTemp(path string, data []byte) (temp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+filepath.Base(path)+"-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// createFile makes a file whole or not at all, durable, and never over another:
// of several processes one wins and the others get fs.ErrExist.
func createFile(path string, data []byte) error {
	temp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp) }()
	if err := os.Link(temp, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// readFile reads a key file and refuses links, special files, files that others
// may read, and large ones.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s is not a regular file", path)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return nil, fault.New(fault.ConfigInvalid, "key file %s has mode %04o; it must be 0600 (chmod 600)", path, m)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("key file %s is larger than %d bytes", path, maxKeyFile)
	}
	return b, nil
}

// syncFolder makes the folder's entries durable.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// namesIn lists the files of a folder that end in suffix, without it, sorted.
// A folder that is not there is empty.
func namesIn(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if ok && !e.IsDir() && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names, nil
}
