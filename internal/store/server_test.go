package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
)

// again tries until the database can be written to.
func again(t *testing.T, db *store.DB, id int) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err = db.Exec(t.Context(), "INSERT INTO shop_item (id, n) VALUES (?, 1)", id); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// TestServer: whoever looks at the number of the server sees that another one
// answers, one that was started anew or promoted, and no connection is left
// that leads to the one before.
func TestServer(t *testing.T) {
	t.Parallel()
	first := storetest.NewServer(t)
	second := first.Standby()
	// The standby stands first: it is not the one to write to.
	db := storetest.Open(t, store.Config{DSN: second.DSN(first)}, shop())
	put(t, db, 1, 1)
	one := db.Server()
	if put(t, db, 2, 1); db.Server() != one {
		t.Error("a server became another while it ran")
	}

	first.Kill()
	first.Start()
	again(t, db, 3)
	two := db.Server()
	if two <= one {
		t.Errorf("a server that was started anew is number %d, the one before %d", two, one)
	}

	// A process that still leads to the old primary writes nothing.
	old := storetest.Open(t, store.Config{DSN: first.DSN()}, shop())
	first.Kill()
	second.Promote()
	again(t, db, 4)
	three := db.Server()
	if three <= two {
		t.Errorf("a promoted standby is number %d, the primary %d", three, two)
	}
	if n := count(t, db); n != 4 {
		t.Errorf("%d rows on the promoted standby", n)
	}
	first.Start()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := old.Exec(short, "INSERT INTO shop_item (id, n) VALUES (5, 1)"); err == nil {
		t.Error("the old primary took a row that no standby has")
	}
	if put(t, db, 5, 1); db.Server() != three {
		t.Error("the old primary was asked again")
	}
}

// TestServerExchanged: another server stands behind the same address, while the
// connections to the one before are alive. Once one leads to it, all do.
func TestServerExchanged(t *testing.T) {
	t.Parallel()
	first := storetest.NewServer(t)
	door := storetest.NewDoor(t, first)
	db := storetest.Open(t, store.Config{DSN: door.DSN()}, shop())
	put(t, db, 1, 1)
	second := first.Copy()
	second.Start()
	put(t, db, 2, 1)
	before := db.Server()
	door.Lead(second)
	if n := count(t, db); n != 2 || db.Server() != before {
		t.Errorf("%d rows, number %d after %d", n, db.Server(), before)
	}
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		n, beside := 0, 0
		if err := tx.QueryRow(t.Context(), "SELECT COUNT(*) FROM shop_item").Scan(&n); err != nil {
			return err
		}
		beside = count(t, db) // takes a new connection
		if n != 2 || beside != 1 || db.Server() == before {
			t.Errorf("in the old transaction %d rows, beside it %d, number %d after %d", n, beside, db.Server(), before)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for range 20 {
		if n := count(t, db); n != 1 {
			t.Fatalf("the server before still answers: %d rows", n)
		}
	}
}

// TestUnconfirmed: a commit that waits for its standby can be seen by nobody,
// also after its caller has given up, and a server that shows after a crash what
// its standby never had shows it to nobody of ours.
func TestUnconfirmed(t *testing.T) {
	t.Parallel()
	s := storetest.NewServer(t)
	db := storetest.Open(t, store.Config{DSN: s.DSN()}, shop())
	put(t, db, 1, 1)
	beside := storetest.Open(t, store.Config{DSN: s.DSN()}, shop())
	s.Set("synchronous_standby_names", "nobody")
	for id, write := range map[int]func(context.Context) error{
		2: func(ctx context.Context) error {
			_, err := db.Exec(ctx, "INSERT INTO shop_item (id, n) VALUES (2, 1)")
			return err
		},
		3: func(ctx context.Context) error {
			return beside.Write(ctx, func(tx *store.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO shop_item (id, n) VALUES (3, 1)")
				return err
			})
		},
	} {
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := write(short); fault.CodeOf(err) != fault.Timeout {
			t.Errorf("the row %d: %v", id, err)
		}
		cancel()
	}
	time.Sleep(200 * time.Millisecond) // a request to cancel would have come by now
	if n := s.Do("SELECT count(*) FROM shop_item"); n != "1" {
		t.Errorf("%s rows can be read, and one is confirmed", n)
	}
	s.Kill()
	s.Start()
	if n := s.Do("SELECT count(*) FROM shop_item"); n != "3" {
		t.Errorf("after a crash the server shows %s rows", n)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var n int
	if err := db.QueryRow(short, "SELECT COUNT(*) FROM shop_item").Scan(&n); err == nil {
		t.Errorf("%d rows can be read, and one is confirmed", n)
	}
	short, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := store.Open(short, store.Config{DSN: s.DSN()}); err == nil || !strings.Contains(err.Error(), "standby") {
		t.Errorf("opening it: %v", err)
	}
	s.Set("synchronous_standby_names", "")
	again(t, db, 4)
	if n := count(t, db); n != 4 {
		t.Errorf("%d rows", n)
	}
	s.Set("synchronous_standby_names", "nobody")
	if _, err := store.Open(t.Context(), store.Config{DSN: s.DSN() + "&synchronous_commit=local"}); fault.CodeOf(err) != fault.ConfigInvalid {
		t.Errorf("without waiting for the standby: %v", err)
	}
	s.Set("synchronous_standby_names", "")
}

// TestFrozen: who stops in the middle of a transaction holds up the others for
// a bounded time.
func TestFrozen(t *testing.T) {
	t.Parallel()
	cfg := storetest.Postgres(t)
	db := storetest.Open(t, cfg, shop())
	put(t, db, 1, 1)
	cfg.DSN += "&idle_in_transaction_session_timeout=300ms" // what the URL says stands
	frozen := storetest.Open(t, cfg, shop())
	err := frozen.Write(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec(t.Context(), "UPDATE shop_item SET n = 2"); err != nil {
			return err
		}
		if _, err := db.Exec(t.Context(), "UPDATE shop_item SET n = 3"); err != nil {
			t.Error(err)
		}
		return nil
	})
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("who froze: %v", err)
	}
	if n := get(t, db, 1); n != 3 {
		t.Errorf("n is %d", n)
	}
	var idle string
	if err := db.QueryRow(t.Context(), "SELECT current_setting('idle_in_transaction_session_timeout')").Scan(&idle); err != nil || idle != "10s" {
		t.Errorf("by default it is %q, %v", idle, err)
	}
}
