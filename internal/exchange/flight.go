package exchange

import (
	"context"
	"sync"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
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

// shares bounds what one client has in flight at this node's door, so that one
// that is slow, or busy, leaves room for the others. Only clients that have
// proved themselves stand here: nobody spends another's share.
type shares struct {
	mu   sync.Mutex
	held map[union.SubsystemID]int
}

// enter takes one place of a client's share, or says that it has none left.
func (s *shares) enter(id union.SubsystemID, most int) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[union.SubsystemID]int{}
	}
	if s.held[id] >= most {
		return nil, fault.New(fault.Overloaded, "%d calls of %s are in flight", most, id)
	}
	s.held[id]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[id]--; s.held[id] == 0 {
			delete(s.held, id)
		}
	}, nil
}
