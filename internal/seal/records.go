package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Errors of opening what was encrypted under record keys.
var (
	// ErrDestroyed says that the period's key was destroyed: the record is gone
	// for good, as was wanted.
	ErrDestroyed = errors.New("the key of this retention class and period was destroyed")
	// ErrDamaged says that the bytes are not what was encrypted, or not for
	// this place.
	ErrDamaged = errors.New("encrypted data are damaged or belong elsewhere")
)

// Period is a calendar month, UTC: year*100 + month.
type Period uint32

// PeriodOf gives the month of a time.
func PeriodOf(t time.Time) Period {
	t = t.UTC()
	return Period(t.Year()*100 + int(t.Month()))
}

// ParsePeriod reads yyyy-mm.
func ParsePeriod(s string) (Period, error) {
	t, err := time.Parse("2006-01", s)
	if err != nil {
		return 0, fmt.Errorf("period %.16q is not a month yyyy-mm", s)
	}
	return PeriodOf(t), nil
}

// String is the form yyyy-mm.
func (p Period) String() string { return fmt.Sprintf("%04d-%02d", p/100, p%100) }

// End is the first moment after the period.
func (p Period) End() time.Time {
	return time.Date(int(p/100), time.Month(p%100)+1, 1, 0, 0, 0, 0, time.UTC)
}

func (p Period) valid() bool {
	return p/100 >= 1970 && p/100 <= 9999 && p%100 >= 1 && p%100 <= 12
}

// RecordKeys encrypts records with AES-256-GCM under keys derived (HKDF-SHA-256,
// RFC 5869) from a random id and the key of their retention class and month;
// each process draws ids of its own, one for at most 65,536 records. The key of
// class and month is a file; destroying it makes everything under it
// unreadable, in whatever copy. Safe for concurrent use; several processes may
// share the folder.
type RecordKeys struct {
	redacted
	p *periods
}

// Records gives the record keys of the folder.
func (k *Keys) Records() RecordKeys { return RecordKeys{p: k.periods} }

const (
	recordFolder    = "records"
	periodSuffix    = ".key"
	tombstoneSuffix = ".destroyed"

	recordVersion = 1
	idBytes       = 16
	aeadOverhead  = 12 + 16 // nonce and tag
	maxClass      = 32

	// recordsPerKey bounds what is encrypted under one derived key: far below
	// the 2³² random nonces of NIST SP 800-38D 8.3.
	recordsPerKey = 1 << 16
)

// Seal encrypts a record of a retention class, made at a time, and appends it to
// out; aad is bound to it and not stored. What is appended names class and
// month, so that Open needs neither:
//
//	version (1) | length of class (1) | class | period (4, big-endian) | id (16) | nonce (12) | ciphertext | tag (16)
func (r RecordKeys) Seal(out []byte, class string, at time.Time, plaintext, aad []byte) ([]byte, error) {
	name := periodName{class, PeriodOf(at)}
	key, err := r.p.forSealing(name)
	if err != nil {
		return nil, err
	}
	pen, err := key.take(name)
	if err != nil {
		return nil, fmt.Errorf("encrypting a record: %w", err)
	}
	out = append(slices.Grow(out, len(pen.head)+aeadOverhead+len(plaintext)), pen.head...)
	return pen.aead.Seal(out, nil, plaintext, aad), nil
}

// Open decrypts what Seal gave, for the same aad. Errors wrap ErrDestroyed,
// ErrDamaged, or fs.ErrNotExist where a key is missing that nobody destroyed.
func (r RecordKeys) Open(sealed, aad []byte) ([]byte, error) {
	name, n, err := parseHead(sealed)
	if err != nil {
		return nil, err
	}
	if len(sealed) < n+idBytes+aeadOverhead {
		return nil, fmt.Errorf("opening a record: %w: too short", ErrDamaged)
	}
	key, err := r.p.forOpening(name)
	if err != nil {
		return nil, err
	}
	aead, err := key.derive(recordUse, sealed[:n+idBytes])
	if err != nil {
		return nil, fmt.Errorf("opening a record: %w", err)
	}
	plain, err := aead.Open(nil, nil, sealed[n+idBytes:], aad)
	if err != nil {
		return nil, fmt.Errorf("opening a record of %s: %w", name, ErrDamaged)
	}
	return plain, nil
}

// PeriodOfRecord reads from what Seal gave under which class and month it
// lies; false where it is of another form.
func PeriodOfRecord(sealed []byte) (class string, period Period, ok bool) {
	n, _, err := parseHead(sealed)
	return n.class, n.period, err == nil
}

// RecordHead is the part of what Seal gave that names the key: records with one
// random id have one head. False where it is of another form.
func RecordHead(sealed []byte) (head []byte, id [idBytes]byte, ok bool) {
	_, n, err := parseHead(sealed)
	if err != nil || len(sealed) < n+idBytes {
		return nil, id, false
	}
	return sealed[: n+idBytes : n+idBytes], [idBytes]byte(sealed[n:]), true
}

// Destroy removes the key of a class and month for ever: what was encrypted
// under it, in every copy, can no longer be read, and nothing more can be
// encrypted under it. It leaves a mark; destroying twice is no error. The bytes
// are overwritten first, which a copying or wearing file system may defeat:
// keep the folder on an encrypted disk and out of backups that live longer.
func (r RecordKeys) Destroy(class string, period Period) error {
	return r.p.destroy(periodName{class, period})
}

// Periods lists the months of a class that have a key, oldest first: what a
// retention run walks through.
func (r RecordKeys) Periods(class string) ([]Period, error) {
	if err := checkClass(class); err != nil {
		return nil, err
	}
	names, err := namesIn(filepath.Join(r.p.dir, class), periodSuffix)
	if err != nil {
		return nil, fmt.Errorf("listing the periods of %s: %w", class, err)
	}
	var out []Period
	for _, n := range names {
		if p, err := ParsePeriod(n); err == nil {
			out = append(out, p)
		}
	}
	return out, nil
}

// Destroyed counts the keys that are gone for good, of whatever class: it grows
// when this or another process has ended a period.
func (r RecordKeys) Destroyed() (int, error) {
	classes, err := os.ReadDir(r.p.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("counting destroyed keys: %w", err)
	}
	count := 0
	for _, c := range classes {
		if checkClass(c.Name()) != nil {
			continue
		}
		names, err := namesIn(filepath.Join(r.p.dir, c.Name()), tombstoneSuffix)
		if err != nil {
			return 0, fmt.Errorf("counting destroyed keys: %w", err)
		}
		for _, n := range names {
			if period, err := ParsePeriod(n); err == nil && r.p.destroyed(periodName{c.Name(), period}) {
				count++
			}
		}
	}
	return count, nil
}

type periodName struct {
	class  string
	period Period
}

func (n periodName) String() string { return n.class + "/" + n.period.String() }

func (n periodName) check() error {
	if !n.period.valid() {
		return fmt.Errorf("%d is not a month", n.period)
	}
	return checkClass(n.class)
}

func (n periodName) appendHead(b []byte) []byte {
	b = append(b, recordVersion, byte(len(n.class)))
	b = append(b, n.class...)
	return binary.BigEndian.AppendUint32(b, uint32(n.period))
}

// parseHead reads what appendHead wrote and gives its length.
func parseHead(b []byte) (periodName, int, error) {
	if len(b) < 2 || b[0] != recordVersion || int(b[1]) > maxClass || len(b) < 2+int(b[1])+4 {
		return periodName{}, 0, fmt.Errorf("opening encrypted data: %w: not their form", ErrDamaged)
	}
	end := 2 + int(b[1])
	n := periodName{string(b[2:end]), Period(binary.BigEndian.Uint32(b[end:]))}
	if err := n.check(); err != nil {
		return periodName{}, 0, fmt.Errorf("opening encrypted data: %w: %w", ErrDamaged, err)
	}
	return n, end + 4, nil
}

func checkClass(class string) error { return checkWord("retention class", class) }

// checkWord accepts lower-case words joined by hyphens, at most 32 bytes.
func checkWord(what, class string) error {
	ok := class != "" && len(class) <= maxClass && class[0] != '-'
	for i := range len(class) {
		c := class[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%s %.64q is not a word of a-z, 0-9 and - of at most %d bytes", what, class, maxClass)
	}
	return nil
}

// periodKey is the key of a class and month, and where it lies.
type periodKey struct {
	secret [32]byte
	path   string
	pen    atomic.Pointer[pen]
}

// pen is what records are being encrypted with.
type pen struct {
	head []byte // of each of these records, random id included
	aead cipher.AEAD
	left atomic.Int32
}

const recordUse = "falaj record v1\n"

// take gives the pen in use, or a new one where that is used up.
func (k *periodKey) take(name periodName) (*pen, error) {
	if p := k.pen.Load(); p != nil && p.left.Add(-1) >= 0 {
		return p, nil
	}
	head := append(name.appendHead(nil), make([]byte, idBytes)...)
	_, _ = rand.Read(head[len(head)-idBytes:]) // never fails
	aead, err := k.derive(recordUse, head)
	if err != nil {
		return nil, err
	}
	p := &pen{head: head, aead: aead}
	p.left.Store(recordsPerKey - 1)
	k.pen.Store(p)
	return p, nil
}

// derive gives the cipher of one record or file: its head, which holds class,
// month and random id, goes into the key, so nothing of it can be changed.
func (k *periodKey) derive(label string, head []byte) (cipher.AEAD, error) {
	// The period key is uniformly random: Expand alone will do (RFC 5869 3.3).
	key, err := hkdf.Expand(sha256.New, k.secret[:], label+string(head), 32)
	if err != nil {
		return nil, err
	}
	return newAEAD(key)
}

// periods keeps the files of period keys and those in use in memory.
type periods struct {
	dir    string
	coding *coding
	mu     sync.RWMutex
	keys   map[periodName]*periodKey
}

func (p *periods) path(n periodName, suffix string) string {
	return filepath.Join(p.dir, n.class, n.period.String()+suffix)
}

// cached gives a key from memory as long as its file is there: another process
// may have destroyed it, and what is then still encrypted under it is lost.
func (p *periods) cached(n periodName) *periodKey {
	p.mu.RLock()
	k := p.keys[n]
	p.mu.RUnlock()
	if k == nil {
		return nil
	}
	if _, err := os.Lstat(k.path); err == nil {
		return k
	}
	p.mu.Lock()
	delete(p.keys, n)
	p.mu.Unlock()
	return nil
}

// condemned tells whether a key is marked as destroyed, destroyed whether it
// is gone, too.
func (p *periods) condemned(n periodName) bool {
	_, err := os.Lstat(p.path(n, tombstoneSuffix))
	return err == nil
}

func (p *periods) destroyed(n periodName) bool {
	_, err := os.Lstat(p.path(n, periodSuffix))
	return p.condemned(n) && errors.Is(err, fs.ErrNotExist)
}

func (p *periods) forOpening(n periodName) (*periodKey, error) {
	if k := p.cached(n); k != nil {
		return k, nil
	}
	return p.load(n)
}

func (p *periods) forSealing(n periodName) (*periodKey, error) {
	if k := p.cached(n); k != nil {
		return k, nil
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	k, err := p.load(n)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := p.create(n); err != nil {
		return nil, fmt.Errorf("creating the record key of %s: %w", n, err)
	}
	return p.load(n)
}

// load reads a key's file into memory, and makes sure of its entry in the
// folder: the process that made it may not have come so far.
func (p *periods) load(n periodName) (*periodKey, error) {
	if p.condemned(n) {
		return nil, fmt.Errorf("record key of %s: %w", n, ErrDestroyed)
	}
	file, err := readFile(p.path(n, periodSuffix))
	if err != nil {
		return nil, fmt.Errorf("reading the record key of %s: %w", n, err)
	}
	b, err := p.coding.decode(recordLabel, n.String(), file)
	if err != nil {
		return nil, err
	}
	if len(b) != 32 {
		return nil, fmt.Errorf("the record key of %s has %d bytes, not 32", n, len(b))
	}
	if err := syncFolder(filepath.Join(p.dir, n.class)); err != nil {
		return nil, fmt.Errorf("reading the record key of %s: %w", n, err)
	}
	k := &periodKey{secret: [32]byte(b), path: p.path(n, periodSuffix)}
	p.mu.Lock()
	p.keys[n] = k
	p.mu.Unlock()
	return k, nil
}

func (p *periods) create(n periodName) error {
	if err := makeFolder(p.dir); err != nil {
		return err
	}
	if err := makeFolder(filepath.Join(p.dir, n.class)); err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	file, err := p.coding.encode(recordLabel, n.String(), key)
	if err != nil {
		return err
	}
	err = createFile(p.path(n, periodSuffix), file)
	// A Destroy in another process may have come between: its mark wins.
	if p.condemned(n) {
		_ = os.Remove(p.path(n, periodSuffix))
		return ErrDestroyed
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was first
	}
	return err
}

func (p *periods) destroy(n periodName) error {
	if err := n.check(); err != nil {
		return err
	}
	folder := filepath.Join(p.dir, n.class)
	lock, err := p.lock(n.class)
	if err != nil {
		return fmt.Errorf("destroying the record key of %s: %w", n, err)
	}
	defer func() { _ = lock.Close() }()
	// A destruction that has begun is not held any more, unless it broke off
	// before it came to the key.
	if !p.condemned(n) || p.whole(n) {
		if err := p.held(n); err != nil {
			return fmt.Errorf("destroying the record key of %s: %w", n, errors.Join(err, p.reprieve(n)))
		}
	}
	// The mark comes first: from here on nobody makes the key anew.
	if err = createFile(p.path(n, tombstoneSuffix), nil); errors.Is(err, fs.ErrExist) {
		err = syncFolder(folder)
	}
	if err != nil {
		return fmt.Errorf("destroying the record key of %s: %w", n, err)
	}
	p.mu.Lock()
	delete(p.keys, n)
	p.mu.Unlock()

	// Overwriting reaches every name of the file, also one that a crash left.
	err = overwrite(p.path(n, periodSuffix))
	entries, listErr := os.ReadDir(folder)
	err = errors.Join(err, listErr)
	for _, e := range entries {
		if e.Name() == n.period.String()+periodSuffix || strings.HasPrefix(e.Name(), tempPrefix+n.period.String()+periodSuffix) {
			if rm := os.Remove(filepath.Join(folder, e.Name())); !errors.Is(rm, fs.ErrNotExist) {
				err = errors.Join(err, rm)
			}
		}
	}
	if err = errors.Join(err, syncFolder(folder)); err != nil {
		return fmt.Errorf("destroying the record key of %s: %w", n, err)
	}
	return nil
}

// lock keeps holds and destructions of a class, of all processes, apart from
// each other until the file is closed. It makes the class's folder.
func (p *periods) lock(class string) (*os.File, error) {
	if err := makeFolder(p.dir); err != nil {
		return nil, err
	}
	if err := makeFolder(filepath.Join(p.dir, class)); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(p.dir, class))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// whole tells whether a key's file is there and was not overwritten.
func (p *periods) whole(n periodName) bool {
	file, err := readFile(p.path(n, periodSuffix))
	return !errors.Is(err, fs.ErrNotExist) && (err != nil || len(bytes.Trim(file, "\x00")) > 0)
}

// reprieve takes the mark of a destruction away that broke off before it came
// to the key.
func (p *periods) reprieve(n periodName) error {
	if !p.condemned(n) || !p.whole(n) {
		return nil
	}
	return errors.Join(os.Remove(p.path(n, tombstoneSuffix)), syncFolder(filepath.Join(p.dir, n.class)))
}

// overwrite puts zeros over a file's bytes. No file is no error.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write(make([]byte, info.Size()))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
