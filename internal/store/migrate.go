package store

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// migrate brings every room's tables up to date.
func migrate(ctx context.Context, db *sql.DB, dialect Dialect, rooms []Migrations) error {
	d := database.DialectSQLite3
	if dialect == Postgres {
		d = database.DialectPostgres
	}
	for _, room := range rooms {
		dir, err := fs.Sub(room.FS, string(dialect))
		if err != nil {
			return fmt.Errorf("migrations of %s: %w", room.Room, err)
		}
		p, err := goose.NewProvider(d, db, dir,
			goose.WithTableName(room.Room+"_migration"), goose.WithDisableGlobalRegistry(true))
		if err != nil {
			return fmt.Errorf("migrations of %s: %w", room.Room, err)
		}
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrating %s: %w", room.Room, err)
		}
	}
	return nil
}
