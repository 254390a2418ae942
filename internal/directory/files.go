package directory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
)

// A directory is a TUF repository with consistent snapshots (TUF
// specification §6.2): every file but timestamp.json carries its version or its
// digest in its name and never changes. So old versions stay beside new ones,
// a reader never sees half a publication, and timestamp.json, written last, is
// what commits one.
const (
	timestampName = "timestamp.json"

	maxTimestamp = 16 << 10
	maxRoot      = 1 << 20
	maxMetadata  = 4 << 20 // snapshot, targets, a state's role
	maxTargets   = 4096    // target files of one role
	maxPartSize  = 8 << 20
	maxRootSteps = 1024
)

var fileName = regexp.MustCompile(`^(timestamp\.json` +
	`|[1-9][0-9]{0,18}\.(root|timestamp|snapshot|targets|[A-Z]{2})\.json` +
	`|targets/service/[a-z][a-z0-9_-]{0,63}/[0-9a-f]{64}\.[1-9][0-9]{0,8}\.yaml` +
	`|targets/([A-Z]{2}/([a-z0-9][a-z0-9-]{0,63}/)?)?[0-9a-f]{64}\.[A-Za-z0-9][A-Za-z0-9._-]{0,127})$`)

// metaName is what a snapshot names.
var metaName = regexp.MustCompile(`^(root|targets|[A-Z]{2})\.json$`)

// targetPath is what a target may be called in metadata: union.json, the
// definition of a joint service, or a file under a state, at most one folder
// deep.
var targetPath = regexp.MustCompile(`^(union\.json|service/[a-z][a-z0-9_-]{0,63}/[1-9][0-9]{0,8}\.yaml|[A-Z]{2}/([a-z0-9][a-z0-9-]{0,63}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127})$`)

// Fetcher gives a file of a directory by its name, at most limit bytes of it.
// A file that it does not have is fs.ErrNotExist.
type Fetcher interface {
	Fetch(ctx context.Context, name string, limit int64) ([]byte, error)
}

func versioned(version int64, role string) string {
	return strconv.FormatInt(version, 10) + "." + role + ".json"
}

func targetFile(name string, digest []byte) string {
	dir, base := path.Split(name)
	return "targets/" + dir + hex.EncodeToString(digest) + "." + base
}

// Memory is a directory's files in memory: for drafts and tests.
type Memory struct {
	mu sync.RWMutex
	m  map[string][]byte
}

// Fetch gives the file.
func (f *Memory) Fetch(_ context.Context, name string, limit int64) ([]byte, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	b, ok := f.m[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return b, within(name, len(b), limit)
}

func (f *Memory) write(files map[string][]byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = map[string][]byte{}
	}
	maps.Copy(f.m, files)
	return nil
}

// Folder is a directory's files on disk: one that a node keeps, or one that
// was brought on a stick.
type Folder string

// Fetch reads the file.
func (f Folder) Fetch(_ context.Context, name string, limit int64) ([]byte, error) {
	if !fileName.MatchString(name) && !localName.MatchString(name) {
		return nil, fmt.Errorf("%q: %w", clip(name), fs.ErrNotExist)
	}
	p := filepath.Join(string(f), filepath.FromSlash(name))
	if st, err := os.Stat(p); err != nil {
		return nil, fmt.Errorf("read directory file: %w", err)
	} else if err := within(name, int(st.Size()), limit); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(p)
	if err != nil {
		return nil, fmt.Errorf("read directory file: %w", err)
	}
	return b, within(name, len(b), limit)
}

// localName is what a node writes for itself beside the repository's files.
var localName = regexp.MustCompile(`^(local\.json|held/[A-Z]{2}\.json)$`)

// write puts the files in place durably, timestamp.json after all others are
// safe: after a crash the folder holds the version before or the one after.
func (f Folder) write(files map[string][]byte) error {
	same := func(n string) bool {
		old, err := os.ReadFile(filepath.Join(string(f), filepath.FromSlash(n)))
		return err == nil && bytes.Equal(old, files[n])
	}
	names := slices.DeleteFunc(slices.Collect(maps.Keys(files)), func(n string) bool { return n == timestampName || same(n) })
	var g errgroup.Group
	g.SetLimit(16) // the file system commits what is synced at the same time together
	for _, n := range names {
		g.Go(func() error { return f.put(n, files[n]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	dirs := map[string]bool{string(f): true}
	for _, n := range names {
		for d := path.Dir(n); d != "."; d = path.Dir(d) {
			dirs[filepath.Join(string(f), filepath.FromSlash(d))] = true
		}
	}
	if len(names) > 0 {
		for d := range dirs {
			if err := syncDir(d); err != nil {
				return err
			}
		}
	}
	if ts, ok := files[timestampName]; ok && !same(timestampName) {
		if err := f.put(timestampName, ts); err != nil {
			return err
		}
		return syncDir(string(f))
	}
	return nil
}

func (f Folder) put(name string, b []byte) (err error) {
	p := filepath.Join(string(f), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return fmt.Errorf("write directory file: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(p), ".new-*")
	if err != nil {
		return fmt.Errorf("write directory file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write directory file %s: %w", name, err), os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), p)
	}
	return err
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func within(name string, n int, limit int64) error {
	if int64(n) > limit {
		return fmt.Errorf("%s: %d bytes; at most %d were expected", clip(name), n, limit)
	}
	return nil
}

// chain asks several fetchers in turn; the first whose answer stands the check
// wins. A local copy that disagrees with what the others signed is passed over.
type chain []Fetcher

func (c chain) get(ctx context.Context, name string, limit int64, check func([]byte) error) ([]byte, error) {
	var first error
	for _, f := range c {
		b, err := f.Fetch(ctx, name, limit)
		if err == nil {
			err = within(name, len(b), limit)
		}
		if err == nil && check != nil {
			err = check(b)
		}
		if err == nil {
			return b, nil
		}
		if first == nil || errors.Is(first, fs.ErrNotExist) {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if first == nil {
		first = fs.ErrNotExist
	}
	return nil, fmt.Errorf("fetch %s: %w", clip(name), first)
}

// bundle is a set of directory files that travels as one: proposals, drafts.
type bundle map[string][]byte

func (b bundle) Fetch(_ context.Context, name string, limit int64) ([]byte, error) {
	v, ok := b[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", clip(name), fs.ErrNotExist)
	}
	return v, within(name, len(v), limit)
}

const (
	maxBundle      = 16 << 20
	maxBundleFiles = 8192
)

type bundleDocument struct {
	Files map[string]string `json:"files"`          // what is UTF-8
	Data  map[string][]byte `json:"data,omitempty"` // what is not, such as CRLs
}

// encode writes the bundle as JSON: text as text, so that a person can read
// what he is asked to sign, other bytes as base64.
func (b bundle) encode() ([]byte, error) {
	text, data := b.split()
	return encode(bundleDocument{Files: text, Data: data})
}

func (b bundle) split() (text map[string]string, data map[string][]byte) {
	text, data = map[string]string{}, map[string][]byte{}
	for name, v := range b {
		if utf8.Valid(v) {
			text[name] = string(v)
		} else {
			data[name] = v
		}
	}
	return text, data
}

// join is the other way round.
func join(text map[string]string, data map[string][]byte) (bundle, error) {
	if n := len(text) + len(data); n > maxBundleFiles {
		return nil, fmt.Errorf("%d files; at most %d", n, maxBundleFiles)
	}
	b := bundle(maps.Clone(data))
	if b == nil {
		b = bundle{}
	}
	for name, v := range text {
		if _, twice := b[name]; twice {
			return nil, fmt.Errorf("%s stands twice", clip(name))
		}
		b[name] = []byte(v)
	}
	for name := range b {
		if !fileName.MatchString(name) {
			return nil, fmt.Errorf("%q is no file of a directory", clip(name))
		}
	}
	return b, nil
}

func decodeBundle(raw []byte) (bundle, error) {
	if len(raw) > maxBundle {
		return nil, fmt.Errorf("bundle of %d bytes; at most %d", len(raw), maxBundle)
	}
	var d bundleDocument
	if err := unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	b, err := join(d.Files, d.Data)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }
