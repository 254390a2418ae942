package exchange

import (
	"crypto"
	"crypto/x509"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// batches tells whether both states take seals of batches.
func batches(v *directory.View, a, b union.State) bool {
	one, _ := v.State(a)
	other, _ := v.State(b)
	return one.Batch && other.Batch
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
// signs for all.
func (b *batcher) sign(key batchKey, s crypto.Signer, manifest []byte, at time.Time) (seal.Seal, error) {
	b.mu.Lock()
	if g := b.open[key]; g != nil {
		place := len(g.manifests)
		if g.manifests = append(g.manifests, manifest); len(g.manifests) == seal.MaxBatch {
			delete(b.open, key)
		}
		b.mu.Unlock()
		<-g.done
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
