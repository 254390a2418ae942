package seal

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

const (
	liveFolder   = "live" // of lock files, one a session
	markFile     = "mark"
	sessionBytes = 6
	maxSessions  = 256 // that one sweep ends
	listed       = 1000

	// settle is how old a finished body of a process that is gone must be
	// before it counts as forgotten: the database may still be busy with the
	// last transaction that the process sent.
	settle = time.Minute
)

// session is one opening of the folder. The ids of its bodies begin with its
// own. Its lock file is locked while it lasts, which the system ends with the
// process however that ends, and stays until a sweep has removed what the
// session left: so whoever sweeps knows whose bodies may still be wanted.
type session struct {
	id   [sessionBytes]byte
	lock *os.File
}

// enter begins a session.
func enter(dir string) (session, error) {
	var s session
	if err := makeFolder(dir); err != nil {
		return s, err
	}
	for {
		_, _ = rand.Read(s.id[:]) // never fails
		path := filepath.Join(dir, hex.EncodeToString(s.id[:]))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return s, err
		}
		// A sweep that came between took it for one that had ended.
		ours, err := lockFile(f)
		if err == nil && ours {
			err = syncFolder(dir)
		}
		if err == nil && ours {
			s.lock = f
			return s, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return s, err
		}
	}
}

// lockFile locks an open file and tells whether it did, and the file is still
// there under its name.
func lockFile(f *os.File) (bool, error) {
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return false, nil
	case err != nil:
		return false, fault.Wrap(fault.ConfigInvalid, err, "the file system of %s carries no locks, so the spool cannot lie there", filepath.Dir(f.Name()))
	}
	held, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(f.Name())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(held, named), err
}

// Close ends the session: a sweep may now remove what it left. Nothing may be
// created after it.
func (s *Spool) Close() error { return s.session.lock.Close() }

// Sweep removes what processes that are gone left behind: unfinished bodies,
// and finished ones older than a minute that nobody wants. What this and other
// live processes write, or have written and not yet recorded, stays. wanted
// tells which of some ids records name; it is asked after it is known who is
// gone, and only about bodies of these. Sweep tells how many it removed.
func (s *Spool) Sweep(wanted func(ids []string) (map[string]bool, error)) (removed int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("sweeping the spool: %w", err)
		}
	}()
	gone, err := s.gone()
	defer func() {
		for _, f := range gone {
			_ = f.Close()
		}
	}()
	if err != nil || len(gone) == 0 {
		return 0, err
	}
	now, err := s.clock()
	if err != nil {
		return 0, err
	}
	young := map[string]bool{}
	err = s.each(func(names []string) error {
		var finished []string
		for _, name := range names {
			if id, part := strings.CutSuffix(name, partSuffix); !part && gone[id[:2*sessionBytes]] != nil {
				finished = append(finished, id)
			}
		}
		var keep map[string]bool
		if len(finished) > 0 {
			var err error
			if keep, err = wanted(finished); err != nil {
				return err
			}
		}
		for _, name := range names {
			id, part := strings.CutSuffix(name, partSuffix)
			owner := id[:2*sessionBytes]
			if gone[owner] == nil || !part && keep[id] {
				continue
			}
			if info, err := os.Lstat(filepath.Join(s.dir, name)); !part && err == nil && now.Sub(info.ModTime()) < settle {
				young[owner] = true
				continue
			}
			if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			removed++
		}
		return nil
	})
	if err == nil {
		err = syncFolder(s.dir) // before the locks, which tell that there is something to sweep
	}
	for owner, f := range gone {
		if err == nil && !young[owner] {
			err = os.Remove(f.Name())
		}
	}
	return removed, err
}

// gone finds the sessions that have ended and takes over their locks.
func (s *Spool) gone() (map[string]*os.File, error) {
	out := map[string]*os.File{}
	entries, err := os.ReadDir(filepath.Join(s.dir, liveFolder))
	for _, e := range entries {
		if len(out) == maxSessions {
			break
		}
		if e.Name() == hex.EncodeToString(s.session.id[:]) {
			continue
		}
		f, oerr := os.OpenFile(filepath.Join(s.dir, liveFolder, e.Name()), os.O_RDWR|syscall.O_NOFOLLOW, 0)
		if errors.Is(oerr, os.ErrNotExist) {
			continue // another sweep was first
		}
		if oerr != nil {
			return out, oerr
		}
		ended, lerr := lockFile(f)
		if !ended || lerr != nil {
			_ = f.Close()
		} else {
			out[e.Name()] = f
		}
		if lerr != nil {
			return out, lerr
		}
	}
	return out, err
}

// clock is the time of the file system, which machines that share it agree on.
func (s *Spool) clock() (time.Time, error) {
	f := s.session.lock
	if _, err := f.WriteAt([]byte{'\n'}, 0); err != nil {
		return time.Time{}, err
	}
	if err := f.Sync(); err != nil {
		return time.Time{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// each gives the names of the bodies, finished or not, some at a time.
func (s *Spool) each(do func(names []string) error) error {
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(listed)
		bodies := names[:0]
		for _, name := range names {
			if checkSpoolID(strings.TrimSuffix(name, partSuffix)) == nil {
				bodies = append(bodies, name)
			}
		}
		if derr := do(bodies); derr != nil {
			return derr
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Bury removes the bodies whose keys were destroyed, and tells how many. Of
// some at a time, forget is told before they go: where it fails, or the process
// ends in between, the next Bury finds the rest by their own heads.
func (s *Spool) Bury(ctx context.Context, forget func(ids []string) error) (int, error) {
	known := map[periodName]bool{}
	buried := 0
	err := s.each(func(names []string) error {
		var ids []string
		for _, id := range names {
			name, ok := s.period(id)
			if !ok {
				continue
			}
			ended, seen := known[name]
			if !seen {
				ended = s.keys.p.destroyed(name)
				known[name] = ended
			}
			if ended {
				ids = append(ids, id)
			}
		}
		if err := ctx.Err(); err != nil || len(ids) == 0 {
			return err
		}
		if err := forget(ids); err != nil {
			return err
		}
		for _, id := range ids {
			if err := s.Remove(id); err != nil {
				return err
			}
			buried++
		}
		return nil
	})
	if err != nil {
		return buried, fmt.Errorf("removing bodies whose keys were destroyed: %w", err)
	}
	return buried, nil
}

// period reads under which key a finished body lies; false where that cannot
// be told.
func (s *Spool) period(id string) (periodName, bool) {
	if checkSpoolID(id) != nil {
		return periodName{}, false
	}
	f, err := os.Open(s.path(id))
	if err != nil {
		return periodName{}, false
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 2+maxClass+4)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return periodName{}, false
	}
	name, _, err := parseHead(head[:n])
	return name, err == nil
}

// Mark tells which folder this is, by a random name that lies in it, and the
// database whose bodies it holds. The first to ask makes the mark, for his own.
// One who is new, since his database knows no spool yet, may also take over an
// empty folder in which nobody works any more.
func (s *Spool) Mark(database string, isNew bool) (folder, owner string, err error) {
	folder, owner, err = s.mark(database)
	if err != nil || owner == database || !isNew {
		return folder, owner, err
	}
	vacant, err := s.vacant()
	if err != nil {
		return "", "", fmt.Errorf("looking into the spool: %w", err)
	}
	if !vacant {
		return folder, owner, nil
	}
	if err := os.Remove(filepath.Join(s.dir, markFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", "", fmt.Errorf("marking the spool anew: %w", err)
	}
	return s.mark(database)
}

func (s *Spool) mark(database string) (folder, owner string, err error) {
	path := filepath.Join(s.dir, markFile)
	if _, err = os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		err = createFile(path, []byte(hex.EncodeToString(b[:])+" "+database+"\n"))
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", "", fmt.Errorf("marking the spool: %w", err)
	}
	return s.Marked()
}

// Marked tells what Mark told, and makes nothing.
func (s *Spool) Marked() (folder, owner string, err error) {
	b, err := readFile(filepath.Join(s.dir, markFile))
	if err != nil {
		return "", "", fmt.Errorf("reading the mark of the spool: %w", err)
	}
	folder, owner, ok := strings.Cut(strings.TrimSpace(string(b)), " ")
	if !ok || folder == "" || owner == "" || len(b) > 200 {
		return "", "", fault.New(fault.Corrupt, "%s does not hold two names", filepath.Join(s.dir, markFile))
	}
	return folder, owner, nil
}

// vacant tells whether the folder holds no body and nobody else works in it.
func (s *Spool) vacant() (bool, error) {
	bodies := 0
	if err := s.each(func(names []string) error { bodies += len(names); return nil }); err != nil || bodies > 0 {
		return false, err
	}
	gone, err := s.gone()
	for _, f := range gone {
		_ = f.Close()
	}
	if err != nil {
		return false, err
	}
	all, err := os.ReadDir(filepath.Join(s.dir, liveFolder))
	return len(all) == len(gone)+1, err
}
