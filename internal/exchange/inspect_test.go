package exchange

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
)

// inspected says of each column that the room stores where a change of it is
// named, or why it need not be.
func inspected() map[string][]string {
	const no = "-"
	return map[string][]string{
		"exchange_claim.side":       {PlaceClaim},
		"exchange_claim.id":         {PlaceClaim},
		"exchange_claim.content":    {PlaceClaim},
		"exchange_claim.state":      {no, "of a call without an answer no record tells whether it is open or of unknown outcome: neither is repeated by itself"},
		"exchange_claim.process":    {no, "which process is at it; one that is none lists the call for a decision"},
		"exchange_claim.asked":      {PlaceClaim},
		"exchange_claim.answered":   {PlaceClaim},
		"exchange_claim.changed_at": {no, "when the id is forgotten"},

		"exchange_delivery.id":           {PlaceDelivery},
		"exchange_delivery.client":       {PlaceDelivery},
		"exchange_delivery.request":      {PlaceDelivery},
		"exchange_delivery.service":      {PlaceDelivery},
		"exchange_delivery.conversation": {PlaceDelivery},
		"exchange_delivery.asked":        {PlaceDelivery},
		"exchange_delivery.answered":     {PlaceDelivery},
		"exchange_delivery.state":        {PlaceDelivery},
		"exchange_delivery.work":         {no, "of a call that has ended: whether its outcome is still to be pushed"},
		"exchange_delivery.lane":         {no, "of a call that has ended: to whom its work went"},
		"exchange_delivery.attempts":     {no, "how often it was tried"},
		"exchange_delivery.pushes":       {no, "how often it was pushed"},
		"exchange_delivery.next_at":      {no, "when it is tried again"},
		"exchange_delivery.expires_at":   {no, "until when it is tried: the request's own end stands in its head"},
		"exchange_delivery.pushed_at":    {no, "when its outcome was pushed"},
		"exchange_delivery.lease":        {no, "who is at it; nobody is where that process does not live"},
		"exchange_delivery.code":         {PlaceDelivery},
		"exchange_delivery.spool":        {PlaceDelivery, PlaceBody},
		"exchange_delivery.accepted_at":  {no, "shown to people; the record has its own time"},
		"exchange_delivery.changed_at":   {no, "when the row is forgotten"},

		"exchange_spool.id":      {PlaceBody},
		"exchange_spool.leaf":    {PlaceBody},
		"exchange_spool.kept_at": {no, "read by nobody"},

		"exchange_place.name":  {PlaceSpool},
		"exchange_place.value": {PlaceSpool},

		"exchange_process.id":      {no, "who lives; each process writes it every two seconds"},
		"exchange_process.beat_at": {no, "who lives; each process writes it every two seconds"},

		"exchange_client.id":          {no, "a setting of this node; what it was set to stands in the journal, by its digest"},
		"exchange_client.entry":       {no, "a setting of this node; what it was set to stands in the journal, by its digest"},
		"exchange_client.changed_at":  {no, "when it was set"},
		"exchange_backend.id":         {no, "a setting of this node; what it was set to stands in the journal, by its digest"},
		"exchange_backend.entry":      {no, "a setting of this node; what it was set to stands in the journal, by its digest"},
		"exchange_backend.changed_at": {no, "when it was set"},

		"exchange_trace.block": {no, "made from the records; one that is not what was written is made anew when it is looked into"},
		"exchange_trace.parts": {no, "made from the records; one that is not what was written is made anew when it is looked into"},
	}
}

// largeOf shows the collector what the journal's inspection shows it.
func largeOf(ctx context.Context, j *journal.Journal) *Large {
	l := &Large{}
	if size, _, err := j.Head(ctx); err == nil {
		_ = j.Each(ctx, 0, size, func(s journal.Stored, err error) error {
			if err == nil && !s.Erased {
				l.See(s)
			}
			return nil
		})
	}
	return l
}

// TestInspect: every bit that is changed of what stands beside the journal is
// found and named, or does not matter.
func TestInspect(t *testing.T) {
	for name, on := range map[string]engine{"sqlite": onSQLite, "postgres": storetest.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inspectOn(t, on)
		})
	}
}

func inspectOn(t *testing.T, on engine) {
	u := newUnionOn(t, on, []union.State{"BH", "SA"})
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	for _, s := range []string{"things", "later", "fleeting"} {
		u.backend("BH", s, echo)
	}
	large := func() io.Reader { return bytes.NewReader(bytes.Repeat([]byte("large "), 20_000)) }
	for _, id := range []string{"one", "two"} {
		if a := u.call("SA", "POST", offered("BH", "things"), "/", large(), "X-Road-Id: "+id); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	u.call("SA", "POST", offered("BH", "later"), "/", large(), "X-Road-Id: done", "Falaj-Conversation: talk")
	u.becomes("SA", "done", StatusAnswered)
	check(t, u.nodes["BH"].Local().DropBackend(t.Context(), offered("BH", "later")))
	for _, id := range []string{"waits", "behind"} {
		u.call("SA", "POST", offered("BH", "later"), "/", large(), "X-Road-Id: "+id, "Falaj-Conversation: talk")
	}
	u.soon("it was tried", func() bool { return u.status("SA", "waits").Code != "" })
	sa := u.nodes["SA"]
	// From here on nobody but this test changes a row.
	u.soon("nothing is tried again", func() bool {
		res, err := sa.db.Exec(t.Context(), "UPDATE exchange_delivery SET next_at = ? WHERE work = 1 AND lease = ''", time.Now().Add(time.Hour).UnixMilli())
		check(t, err)
		n, err := res.RowsAffected()
		check(t, err)
		return n == 2
	})
	look := func() Inspected {
		t.Helper()
		i, err := Inspect(context.Background(), sa.db, sa.journal, sa.deps.Records, sa.deps.Names, sa.deps.Spool, largeOf(context.Background(), sa.journal), func(string, int64) {})
		check(t, err)
		return i
	}
	whole := look()
	if len(whole.Wrong) > 0 || whole.Bodies == 0 || whole.Claims < 5 || whole.Deliveries != 3 || whole.Dark > 0 {
		t.Fatalf("%+v", whole)
	}
	keys := map[string][]string{}
	columns := storetest.Columns(t, sa.db)
	for _, c := range columns {
		if c.Key {
			keys[c.Table] = append(keys[c.Table], c.Name)
		}
	}
	known := inspected()
	for _, c := range columns {
		places, ok := known[c.Table+"."+c.Name]
		if c.Table[:8] != "exchange" {
			continue
		}
		if !ok {
			t.Errorf("nobody says what becomes of %s.%s when it is changed", c.Table, c.Name)
			continue
		}
		if places[0] == "-" {
			continue
		}
		for range 3 {
			what, undo := storetest.Flip(t, sa.db, c.Table, c.Name, keys[c.Table]...)
			if undo == nil { // it is empty wherever it stands: something comes in
				value := any([]byte{1})
				if c.Type == "text" {
					value = "x"
				}
				_, err := sa.db.Exec(t.Context(), "UPDATE "+c.Table+" SET "+c.Name+" = ?", value)
				check(t, err)
				what, undo = c.Table+"."+c.Name, func() {
					value := any([]byte{})
					if c.Type == "text" {
						value = ""
					}
					_, err := sa.db.Exec(t.Context(), "UPDATE "+c.Table+" SET "+c.Name+" = ?", value)
					check(t, err)
				}
			}
			if got := look(); !slices.ContainsFunc(got.Wrong, func(w Wrong) bool { return slices.Contains(places, w.Place) }) {
				t.Errorf("%s: %+v", what, got)
			}
			undo()
		}
	}
	if got := look(); len(got.Wrong) > 0 {
		t.Fatalf("repaired: %+v", got.Wrong)
	}

	// A body is not destroyed, nor no longer kept, by who changes its row.
	for _, change := range []string{"UPDATE exchange_spool SET leaf = -1", "UPDATE exchange_spool SET leaf = -2 - leaf WHERE leaf >= 0", "DELETE FROM exchange_spool"} {
		rows, err := sa.db.Query(t.Context(), "SELECT id, leaf, kept_at FROM exchange_spool")
		check(t, err)
		var was [][]any
		for rows.Next() {
			var id string
			var leaf, at int64
			check(t, rows.Scan(&id, &leaf, &at))
			was = append(was, []any{id, leaf, at})
		}
		check(t, rows.Err())
		check(t, rows.Close())
		_, err = sa.db.Exec(t.Context(), change)
		check(t, err)
		check(t, sa.Forgotten(t.Context()))
		if got := look(); !slices.ContainsFunc(got.Wrong, func(w Wrong) bool { return w.Place == PlaceBody }) {
			t.Errorf("%s: %+v", change, got)
		}
		_, err = sa.db.Exec(t.Context(), "DELETE FROM exchange_spool")
		check(t, err)
		for _, r := range was {
			_, err = sa.db.Exec(t.Context(), "INSERT INTO exchange_spool (id, leaf, kept_at) VALUES (?, ?, ?)", r...)
			check(t, err)
		}
	}
	if got := look(); len(got.Wrong) > 0 || got.Bodies != whole.Bodies {
		t.Fatalf("put back: %+v", got.Wrong)
	}

	files, err := filepath.Glob(filepath.Join(sa.spool, "????????????????????????????????"))
	check(t, err)
	if len(files) == 0 {
		t.Fatal("no spool files")
	}
	files = append(files, filepath.Join(sa.spool, "mark"))
	for range 20 {
		path := files[rand.IntN(len(files))]
		b, err := os.ReadFile(path)
		check(t, err)
		bit := rand.IntN(8 * len(b))
		if path == files[len(files)-1] {
			bit = rand.IntN(8 * (len(b) - 1)) // the line's end says nothing
		}
		changed := bytes.Clone(b)
		changed[bit/8] ^= 1 << (bit % 8)
		check(t, os.WriteFile(path, changed, 0o600))
		if got := look(); len(got.Wrong) == 0 {
			t.Errorf("bit %d of %s: not named", bit, filepath.Base(path))
		}
		check(t, os.WriteFile(path, b, 0o600))
	}
	check(t, os.Rename(files[0], files[0]+"-away"))
	if got := look(); len(got.Wrong) != 1 || got.Wrong[0].Place != PlaceBody || got.Wrong[0].Name != filepath.Base(files[0]) {
		t.Errorf("a missing body: %+v", got.Wrong)
	}
}
