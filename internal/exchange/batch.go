package exchange

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// agreed remembers of each state since when it and this one both take seals of
// batches, or no more do: the other's directory may be older, or newer, than
// ours.
type agreed struct {
	mu sync.Mutex
	of map[union.State]agreement
}

type agreement struct {
	on    bool
	since time.Time // zero: it was never otherwise, as far as this process knows
}

// with brings what is known up to the directory of now.
func (a *agreed) with(v *directory.View, own, other union.State, now time.Time) agreement {
	mine, _ := v.State(own)
	theirs, _ := v.State(other)
	on := mine.Batch && theirs.Batch
	a.mu.Lock()
	defer a.mu.Unlock()
	was, known := a.of[other]
	if known && was.on == on {
		return was
	}
	is := agreement{on: on}
	if known || on {
		is.since = now
	}
	if a.of == nil {
		a.of = map[union.State]agreement{}
	}
	a.of[other] = is
	return is
}

// givesBatches tells whether to seal for a state in batches: once it has had the
// time to learn that both do.
func (x *Exchange) givesBatches(v *directory.View, to union.State) bool {
	now := x.deps.Now()
	a := x.agreed.with(v, x.cfg.State, to, now)
	return a.on && now.Sub(a.since) >= x.cfg.Settle
}

// takesBatches tells whether a seal of a batch from a state is good: also as
// long as it may not have learnt that one of the two gave them up.
func (x *Exchange) takesBatches(v *directory.View, from union.State) bool {
	now := x.deps.Now()
	a := x.agreed.with(v, x.cfg.State, from, now)
	return a.on || !a.since.IsZero() && now.Sub(a.since) < x.cfg.Settle
}

// batcher seals together what is to be sealed at once by one key for one state:
// whoever gets one message gets all of its batch, and verifies one signature.
type batcher struct {
	mu   sync.Mutex
	open map[batchKey]*batch // nothing that nobody seals
}

type batchKey struct {
	cert *x509.Certificate
	part seal.Part
	to   union.State
}

// batch is sealed once done is closed.
type batch struct {
	manifests [][]byte
	done      chan struct{}
	seals     []seal.Seal
	err       error
}

// yields is how often those are let run who are about to come. Calls come in
// groups, as the journal's commits let them go, and under load the others are
// waiting for a processor: nobody waits for the clock.
const yields = 8

// sign seals a manifest with those that come at the same time: who comes first
// signs for all. Who comes later waits for the signature as long as ctx lets
// him; the batch does without him then.
func (b *batcher) sign(ctx context.Context, key batchKey, s crypto.Signer, manifest []byte, at time.Time) (seal.Seal, error) {
	b.mu.Lock()
	if g := b.open[key]; g != nil {
		place := len(g.manifests)
		if g.manifests = append(g.manifests, manifest); len(g.manifests) == seal.MaxBatch {
			delete(b.open, key)
		}
		b.mu.Unlock()
		select {
		case <-g.done:
		case <-ctx.Done():
			return seal.Seal{}, fmt.Errorf("waiting for the seal of a batch: %w", ctx.Err())
		}
		if g.err != nil {
			return seal.Seal{}, g.err
		}
		return g.seals[place], nil
	}
	g := &batch{manifests: [][]byte{manifest}, done: make(chan struct{}), err: errors.New("sealing a batch was broken off")}
	defer close(g.done)
	if b.open == nil {
		b.open = map[batchKey]*batch{}
	}
	b.open[key] = g
	for range yields {
		was := len(g.manifests)
		b.mu.Unlock()
		runtime.Gosched()
		b.mu.Lock()
		if len(g.manifests) == was {
			break
		}
	}
	if b.open[key] == g {
		delete(b.open, key)
	}
	b.mu.Unlock()
	if g.seals, g.err = seal.SignBatch(s, key.cert, key.part, g.manifests, at); g.err != nil {
		return seal.Seal{}, g.err
	}
	return g.seals[0], nil
}
