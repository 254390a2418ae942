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
	mu    sync.Mutex
	lines map[batchKey]*line
}

type batchKey struct {
	cert *x509.Certificate
	part seal.Part
	to   union.State
}

// line is where messages of one key wait for each other.
type line struct {
	open *batch // nil: the next one to come begins a batch, and signs it
	pace [crowd]time.Time
	turn int // in pace: the oldest
}

// batch is sealed once done is closed.
type batch struct {
	manifests [][]byte
	done      chan struct{}
	seals     []seal.Seal
	err       error
}

// As a commit of the journal, a signature waits for company under load: once
// crowd messages were sealed within crowdTime, the next signature comes no
// sooner than crowdTime after the first of them. Who seals alone, or with few,
// never waits.
const (
	crowd     = 8
	crowdTime = 3 * time.Millisecond
	yields    = 8    // how often those are let run who are about to come
	maxLines  = 1024 // each new certificate has lines of its own
)

// sign seals a manifest with those that come at the same time.
func (b *batcher) sign(key batchKey, s crypto.Signer, manifest []byte, at time.Time) (seal.Seal, error) {
	b.mu.Lock()
	l := b.line(key)
	g := l.open
	if g != nil {
		place := len(g.manifests)
		if g.manifests = append(g.manifests, manifest); len(g.manifests) == seal.MaxBatch {
			l.open = nil
		}
		b.mu.Unlock()
		<-g.done
		if g.err != nil {
			return seal.Seal{}, g.err
		}
		return g.seals[place], nil
	}
	g = &batch{manifests: [][]byte{manifest}, done: make(chan struct{}), err: errors.New("sealing a batch was broken off")}
	defer close(g.done)
	l.open = g
	b.company(l, g)
	b.mu.Unlock()
	if g.seals, g.err = seal.SignBatch(s, key.cert, key.part, g.manifests, at); g.err != nil {
		return seal.Seal{}, g.err
	}
	return g.seals[0], nil
}

// line finds a key's line. Under mu.
func (b *batcher) line(key batchKey) *line {
	l := b.lines[key]
	if l == nil {
		if b.lines == nil || len(b.lines) == maxLines {
			b.lines = map[batchKey]*line{}
		}
		l = &line{}
		b.lines[key] = l
	}
	return l
}

// company waits for others under load, and until no more come, and closes the
// batch. Under mu, which it lets go meanwhile.
func (b *batcher) company(l *line, g *batch) {
	if wait := crowdTime - time.Since(l.pace[l.turn]); wait > 0 {
		b.mu.Unlock()
		time.Sleep(wait)
		b.mu.Lock()
	}
	for range yields {
		n := len(g.manifests)
		b.mu.Unlock()
		runtime.Gosched()
		b.mu.Lock()
		if len(g.manifests) == n {
			break
		}
	}
	if l.open == g {
		l.open = nil
	}
	for now, n := time.Now(), min(len(g.manifests), crowd); n > 0; n-- {
		l.pace[l.turn] = now
		l.turn = (l.turn + 1) % crowd
	}
}
