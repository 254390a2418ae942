package store

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// migrateTries: processes that start together race to create the tables; the
// losers' transactions fail whole, and find the work done next time.
const migrateTries = 5

// migrate brings every room's tables up to date.
func migrate(ctx context.Context, db *sql.DB, dialect Dialect, rooms []Migrations) error {
	for _, room := range rooms {
		for n := 1; ; n++ {
			err := migrateRoom(ctx, db, dialect, room)
			if err == nil {
				break
			}
			if n == migrateTries || ctx.Err() != nil {
				return fmt.Errorf("migrating %s: %w", room.Room, err)
			}
			time.Sleep(20*time.Millisecond + rand.N(100*time.Millisecond))
		}
	}
	return nil
}

func migrateRoom(ctx context.Context, db *sql.DB, dialect Dialect, room Migrations) error {
	dir, err := fs.Sub(room.FS, string(dialect))
	if err != nil {
		return err
	}
	d := database.DialectSQLite3
	if dialect == Postgres {
		d = database.DialectPostgres
	}
	p, err := goose.NewProvider(d, db, dir,
		goose.WithTableName(room.Room+"_migration"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}
