package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Backup says where a copy goes: a folder of the node's machine that is not
// there yet.
type Backup struct {
	Folder string `json:"folder"`
	Keys   bool   `json:"keys"` // with the key folder: the copy is then as secret as the node
}

// backupFile describes a copy. It is written last: a copy without it is half.
const backupFile = "backup.json"

type backupNote struct {
	What  string      `json:"what"`
	State union.State `json:"state"`
	Node  string      `json:"node"`
	At    time.Time   `json:"at"`
	Size  int64       `json:"log_size"`
	Root  string      `json:"log_root"`
	Keys  bool        `json:"keys"`
}

const backupMark = "falaj node backup"

// backup copies database, spool, directory and, if asked, keys, while the node
// goes on. The database comes first: a body or key is there before a record
// names it, so the copy holds all that the copied records name. A copied key folder lets the copy outlive the destruction of a
// retention period: it is to be kept no longer than the shortest of them.
func (n *Node) backup(ctx context.Context, _ admin.Person, p Backup) (admin.Done, error) {
	if !filepath.IsAbs(p.Folder) {
		return admin.Done{}, fault.New(fault.BadRequest, "folder: an absolute path on the node's machine is wanted")
	}
	p.Folder = filepath.Clean(p.Folder)
	if n.db.Dialect() != store.SQLite {
		return admin.Done{}, fault.New(fault.BadRequest, "the database is a PostgreSQL: back it up with pg_basebackup or pg_dump, and the data and key folders with the file system")
	}
	copies := map[string]string{n.cfg.Spool: "spool", filepath.Join(n.cfg.Data, "directory"): "directory"}
	if p.Keys {
		copies[n.cfg.Keys.Folder] = "keys"
	}
	for from := range copies {
		if in, err := inside(p.Folder, from); err != nil {
			return admin.Done{}, fault.Wrap(fault.BadRequest, err, "folder: %v", err)
		} else if in {
			return admin.Done{}, fault.New(fault.BadRequest, "folder: %s lies in %s, which is to be copied; name one outside the node's folders", p.Folder, from)
		}
	}
	if err := os.Mkdir(p.Folder, 0o700); errors.Is(err, fs.ErrExist) {
		return admin.Done{}, fault.New(fault.Conflict, "%s is there already", p.Folder)
	} else if err != nil {
		return admin.Done{}, fault.Wrap(fault.BadRequest, err, "folder: %v", err)
	}
	note := backupNote{What: backupMark, State: n.cfg.State, Node: n.cfg.Name, At: n.now().UTC(), Keys: p.Keys}
	size, root, err := n.journal.Head(ctx)
	if err != nil {
		return admin.Done{}, err
	}
	note.Size, note.Root = size, root.String()
	if err := n.db.Backup(ctx, filepath.Join(p.Folder, "node.db")); err != nil {
		return admin.Done{}, fault.Wrap(fault.StoreFailed, err, "copying the database")
	}
	for from, to := range copies {
		if err := copyTree(from, filepath.Join(p.Folder, to)); err != nil {
			return admin.Done{}, fmt.Errorf("copying %s: %w", to, err)
		}
	}
	if err := copyFile(n.cfg.Directory.Root, filepath.Join(p.Folder, "root.json")); err != nil {
		return admin.Done{}, fmt.Errorf("copying the pinned root: %w", err)
	}
	b, err := json.MarshalIndent(note, "", "  ")
	if err != nil {
		return admin.Done{}, err
	}
	// All that it vouches for is on the disk before it is.
	err = syncTree(p.Folder)
	if err == nil {
		err = os.WriteFile(filepath.Join(p.Folder, backupFile+".new"), append(b, '\n'), 0o600)
	}
	if err == nil {
		err = syncPath(filepath.Join(p.Folder, backupFile+".new"))
	}
	if err == nil {
		err = os.Rename(filepath.Join(p.Folder, backupFile+".new"), filepath.Join(p.Folder, backupFile))
	}
	if err == nil {
		err = syncPath(p.Folder)
	}
	if err == nil {
		err = syncPath(filepath.Dir(p.Folder))
	}
	if err != nil {
		return admin.Done{}, fmt.Errorf("closing the copy: %w", err)
	}
	return admin.Done{Result: note, After: note}, nil
}

// Restore brings a copy into the empty place of a node that does not run.
func Restore(cfg config.Config, from string) error {
	b, err := os.ReadFile(filepath.Join(from, backupFile))
	if err != nil {
		return fault.Wrap(fault.NotFound, err, "%s holds no whole copy of a node", from)
	}
	var note backupNote
	if err := json.Unmarshal(b, &note); err != nil || note.What != backupMark {
		return fault.New(fault.BadRequest, "%s holds no copy of a node", from)
	}
	switch {
	case note.State != cfg.State:
		return fault.New(fault.Conflict, "the copy is of %s, the configuration of %s", note.State, cfg.State)
	case cfg.Store.DSN.Postgres():
		return fault.New(fault.Conflict, "the configuration names a PostgreSQL, the copy holds a SQLite database")
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	lock, err := lockFolder(cfg.Data)
	if err != nil {
		return err
	}
	defer lock.Close()
	steps := []struct{ from, to string }{
		{"spool", cfg.Spool}, {"directory", filepath.Join(cfg.Data, "directory")},
		{"root.json", cfg.Directory.Root}, {"node.db", string(cfg.Store.DSN)},
	}
	if note.Keys {
		steps = append(steps, struct{ from, to string }{"keys", cfg.Keys.Folder})
	}
	for _, s := range steps {
		if s.from == "root.json" {
			if err := sameRoot(filepath.Join(from, s.from), s.to); err != nil {
				return err
			}
			continue
		}
		if _, err := os.Lstat(s.to); err == nil {
			return fault.New(fault.Conflict, "%s is there already; a copy is restored into an empty place", s.to)
		}
	}
	for _, s := range steps {
		from := filepath.Join(from, s.from)
		info, err := os.Stat(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && info.IsDir() {
			err = copyTree(from, s.to)
		} else if err == nil {
			err = copyFile(from, s.to)
		}
		if err == nil && info.IsDir() {
			err = syncTree(s.to)
		}
		if err == nil {
			err = syncPath(filepath.Dir(s.to))
		}
		if err != nil {
			return fmt.Errorf("restoring %s: %w", s.from, err)
		}
	}
	return nil
}

// sameRoot refuses a copy of another union than the one whose root is pinned
// here: what a node trusts comes to it by a trusted way alone.
func sameRoot(copied, pinned string) error {
	have, err := os.ReadFile(pinned)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the pinned root: %w", err)
	}
	brought, err := os.ReadFile(copied)
	if err != nil {
		return fault.Wrap(fault.NotFound, err, "the copy holds no root")
	}
	if !bytes.Equal(have, brought) {
		return fault.New(fault.Conflict, "the root pinned in %s is not the copy's; if the copy's is to be trusted, remove yours first", pinned)
	}
	return nil
}

// inside tells whether a path that is not there yet lies in a folder, whatever
// links lead there.
func inside(path, folder string) (bool, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return false, err
	}
	folder, err = filepath.EvalSymlinks(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return false, err
	}
	rel, err := filepath.Rel(folder, parent)
	return err == nil && filepath.IsLocal(rel), err
}

// copyTree copies a folder of plain files. One that vanishes meanwhile was not
// wanted any more.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		case d.Type().IsRegular():
			if err := copyFile(path, filepath.Join(to, rel)); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// syncTree makes the entries of a folder and of those in it durable; their files
// are.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}
