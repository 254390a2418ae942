package exchange

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
)

// hold notes in the record's transaction that its spool file is wanted, so
// that the sweep at the next start leaves it.
func (x *Exchange) hold(ctx context.Context, tx *store.Tx, b *body, offer directory.Service, leaf int64) error {
	id := kept(b, offer)
	if id == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, `INSERT INTO exchange_spool (id, leaf, kept_at) VALUES (?, ?, ?)`, id, leaf, x.deps.Now().UnixMilli()); err != nil {
		return fmt.Errorf("keeping a spool file: %w", err)
	}
	return nil
}

// atHome makes sure that spool and database belong together: all processes on
// one database are to find each other's bodies, and no other database's sweep
// is to find them. The first process to come joins the two for good.
func (x *Exchange) atHome(ctx context.Context) error {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	database, err := x.remember(ctx, "database", hex.EncodeToString(b[:]))
	if err != nil {
		return err
	}
	known, err := x.remember(ctx, "spool", "")
	if err != nil {
		return err
	}
	folder, owner, err := x.deps.Spool.Mark(database, known == "")
	if err != nil {
		return err
	}
	if owner != database {
		return fault.New(fault.SpoolElsewhere, "the spool folder holds the bodies of the database %s, not of this one, %s", owner, database)
	}
	if known, err = x.remember(ctx, "spool", folder); err != nil {
		return err
	}
	if known != folder {
		return fault.New(fault.SpoolElsewhere, "the database's bodies lie in the spool folder whose file \"mark\" says %q; here it says %q", known+" "+database, folder+" "+owner)
	}
	return nil
}

// remember gives what the database knows under a name: the value handed in, if
// nobody was before and there is one.
func (x *Exchange) remember(ctx context.Context, name, value string) (known string, err error) {
	err = x.deps.DB.Write(ctx, func(tx *store.Tx) error {
		if value != "" {
			if _, err := tx.Exec(ctx, `INSERT INTO exchange_place (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING`, name, value); err != nil {
				return err
			}
		}
		err := tx.QueryRow(ctx, `SELECT value FROM exchange_place WHERE name = ?`, name).Scan(&known)
		if errors.Is(err, sql.ErrNoRows) {
			known, err = "", nil
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading which %s belongs here: %w", name, err)
	}
	return known, nil
}

// sweep removes spool files that no record names, of processes that are gone:
// what a crash left.
func (x *Exchange) sweep(ctx context.Context) error {
	if err := x.Forgotten(ctx); err != nil {
		return err
	}
	n, err := x.deps.Spool.Sweep(func(ids []string) (map[string]bool, error) { return x.wanted(ctx, ids) })
	if n > 0 {
		x.deps.Log.Info("removed bodies that an earlier run left unrecorded", "files", n)
	}
	return err
}

// wanted are those of some spool files that records name.
func (x *Exchange) wanted(ctx context.Context, ids []string) (map[string]bool, error) {
	wanted := map[string]bool{}
	err := x.deps.DB.Read(ctx, func(tx *store.Tx) error {
		clear(wanted)
		for _, id := range ids {
			var n int
			if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM exchange_spool WHERE id = ?`, id).Scan(&n); err != nil {
				return err
			}
			wanted[id] = n > 0
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading which bodies are kept: %w", err)
	}
	return wanted, nil
}

// Bury removes the bodies whose keys were destroyed, and what the database
// says of them. It may be broken off and asked again.
func (x *Exchange) Bury(ctx context.Context) error {
	n, err := x.deps.Spool.Bury(ctx, func(ids []string) error {
		return x.deps.DB.Write(ctx, func(tx *store.Tx) error {
			for _, id := range ids {
				if _, err := tx.Exec(ctx, `DELETE FROM exchange_spool WHERE id = ?`, id); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if n > 0 {
		x.deps.Log.Info("removed bodies whose keys were destroyed", "files", n)
	}
	return err
}
