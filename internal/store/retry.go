package store

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	tries     = 12
	firstWait = time.Millisecond
	lastWait  = 200 * time.Millisecond
)

// retry runs a transaction until it happens, fails for another reason than
// its neighbours, or tries (about a second) run out. The waits are random so
// that two who collided do not collide again.
func retry(ctx context.Context, once func() error) error {
	wait := firstWait
	for n := 1; ; n++ {
		err := once()
		if err == nil || n == tries || !again(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, lastWait)
	}
}
