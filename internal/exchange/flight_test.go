package exchange

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

func TestFlightsOneAtATime(t *testing.T) {
	var f flights
	var mu sync.Mutex
	inside, most := 0, 0
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			leave, err := f.enter(t.Context(), "k")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			inside++
			most = max(most, inside)
			mu.Unlock()
			time.Sleep(time.Microsecond)
			mu.Lock()
			inside--
			mu.Unlock()
			leave()
		})
	}
	wg.Wait()
	if most != 1 || len(f.busy) != 0 {
		t.Fatalf("%d at once, %d keys left", most, len(f.busy))
	}
	leave, _ := f.enter(t.Context(), "k")
	defer leave()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := f.enter(ctx, "k"); fault.CodeOf(err) != fault.InFlight {
		t.Fatalf("waiting past the deadline: %v", err)
	}
	other, err := f.enter(ctx, "another key")
	if err != nil {
		t.Fatal(err)
	}
	other()
}

// TestShare: a client whose calls stay long is turned away beyond its share;
// the others go on, and it too once a call of its own has ended.
func TestShare(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, _ *Deps) { c.Share = 2 })
	enter, leave := make(chan struct{}), make(chan struct{})
	u.backend("SA", "things", func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/slow") {
			enter <- struct{}{}
			<-leave
		}
	})
	other := desk("BH")
	other.Subsystem = ""
	check(t, u.nodes["BH"].Local().PutClient(t.Context(), Client{ID: other}))
	ended := make(chan answer, 2)
	for range 2 {
		go func() { ended <- u.call("BH", "GET", offered("SA", "things"), "/slow", nil) }()
		<-enter
	}
	for _, path := range []string{"/r1/" + offered("SA", "things").String() + "/x", "/evidence/x", "/async/x"} {
		for who, refused := range map[string]bool{desk("BH").String(): true, other.String(): false, "SA/GOV/office/desk": false} {
			req, err := http.NewRequest("GET", u.nodes["BH"].edge.URL+path, nil)
			check(t, err)
			req.Header.Set("X-Road-Client", who)
			got := do(t, req)
			if refused != (got.status == 503) || refused != (got.header.Get("Retry-After") == "1") {
				t.Errorf("%s of %s: %d %v", path, who, got.status, got.header)
			}
		}
	}
	close(leave)
	for range 2 {
		if got := <-ended; got.status != 200 {
			t.Errorf("a call within the share: %d %s", got.status, got.body)
		}
	}
	if got := u.call("BH", "GET", offered("SA", "things"), "/x", nil); got.status != 200 {
		t.Errorf("after the others ended: %d %s", got.status, got.body)
	}
	if held := u.nodes["BH"].shares.held; len(held) != 0 {
		t.Errorf("places left: %v", held)
	}
}
