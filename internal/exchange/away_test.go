package exchange

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// TestOneUnreadable: a record that cannot be read hides its own call from the
// lists, and no other.
func TestOneUnreadable(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	for _, id := range []string{"first", "second"} {
		u.call("SA", "POST", offered("BH", "things"), "/", nil, "X-Road-Id: "+id)
		u.call("SA", "POST", offered("BH", "later"), "/", nil, "X-Road-Id: later-"+id)
	}
	for _, s := range []union.State{"BH", "SA"} {
		n := u.nodes[s]
		id := map[union.State]string{"BH": "first", "SA": "later-first"}[s]
		found, err := n.journal.Find(t.Context(), id)
		if err != nil || len(found) == 0 {
			t.Fatal(len(found), err)
		}
		_, err = n.db.Exec(t.Context(), "UPDATE journal_commit SET records = zeroblob(length(records)) WHERE first = (SELECT MAX(first) FROM journal_commit WHERE first <= ?)", found[0].Index)
		check(t, err)
	}
	outcomes, err := u.nodes["BH"].Outcomes(t.Context(), 9)
	if err != nil || len(outcomes) != 2 || outcomes[0].ID != "" || outcomes[1].ID != "second" {
		t.Errorf("%+v %v", outcomes, err)
	}
	deliveries, err := u.nodes["SA"].Deliveries(t.Context(), DeliveryFilter{}, 9)
	if err != nil || len(deliveries) != 2 || deliveries[0].ID != "" || deliveries[1].ID != "later-second" {
		t.Errorf("%+v %v", deliveries, err)
	}
}

// TestEndedBody: a body whose key has ended is gone, and that is said.
func TestEndedBody(t *testing.T) {
	t.Parallel()
	x := newUnion(t, []union.State{"BH", "SA"}).nodes["BH"]
	b, err := x.Exchange.spool(strings.NewReader("a body"), -1, "short", false)
	check(t, err)
	check(t, x.keys.Records().Destroy("short", seal.PeriodOf(time.Now())))
	if _, err := x.open(b); fault.CodeOf(err) != fault.AnswerGone {
		t.Error(err)
	}
}

// TestPages: parts of evidence are joined to the whole.
func TestPages(t *testing.T) {
	asked := 0
	e, err := Pages(func(p Page) (*Evidence, error) {
		asked++
		h := Half{State: "BH", Node: "n1", Records: []Record{{Leaf: p.From}}}
		if p.From < 20 {
			h.More = p.From + 10
		}
		out := &Evidence{Halves: []Half{h}}
		if p.State == "" {
			out.Halves = append(out.Halves, Half{State: "SA", Node: "n1"})
		}
		return out, nil
	})
	if err != nil || asked != 3 || len(e.Halves) != 2 || len(e.Halves[0].Records) != 3 || e.Halves[0].More != 0 || e.Halves[0].Records[2].Leaf != 20 {
		t.Errorf("%d %+v %v", asked, e, err)
	}
}
