package exchange

import (
	"context"
	"sync"

	"github.com/falaj/falaj/internal/fault"
)

// flights lets one call at a time go on with an id: a second one with the same
// id waits, and then finds the answer of the first.
type flights struct {
	mu   sync.Mutex
	busy map[string]chan struct{}
}

// enter waits until nobody else is busy with the key, or until ctx ends.
func (f *flights) enter(ctx context.Context, key string) (leave func(), err error) {
	for {
		f.mu.Lock()
		wait, taken := f.busy[key]
		if !taken {
			if f.busy == nil {
				f.busy = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			f.busy[key] = mine
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				delete(f.busy, key)
				f.mu.Unlock()
				close(mine)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fault.Wrap(fault.InFlight, ctx.Err(), "the same id is still being answered")
		}
	}
}
