package exchange

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
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
