package exchange

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// TestBatchOfOneState: what is sealed at once for two states is in batches of
// each: a message leads to no other state's. All of a batch have the time of
// this node's clock.
func TestBatchOfOneState(t *testing.T) {
	var at atomic.Int64
	clock := func() time.Time { return time.Unix(at.Load(), 5e8) }
	at.Store(time.Now().Unix() + 10)
	u := newUnion(t, []union.State{"AE", "BH", "SA"}, func(_ *Config, d *Deps) { d.Now = clock })
	u.allow(true, "AE", "BH", "SA")
	sa := u.nodes["SA"]
	cred, v := sa.seals[desk("SA").MemberID], sa.dir.View()
	for _, to := range []union.State{"AE", "BH"} {
		sa.givesBatches(v, to)
	}
	now := time.Unix(at.Add(1), 0)      // the change has settled
	batches := map[string]union.State{} // by their documents
	sizes := map[union.State]int{}
	for round := 0; round < 50 && (sizes["AE"] < 2 || sizes["BH"] < 2 || round < 3); round++ { // who comes at once, the scheduler decides
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i := range 400 {
			to := []union.State{"AE", "BH"}[i%2]
			wg.Go(func() {
				head := fmt.Appendf(nil, "%d %d", round, i)
				s, err := sa.sealTo(t.Context(), v, to, cred, seal.Request, head, nil)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				_, raw, err := message.Open(s.envelope)
				var sl seal.Seal
				if err == nil {
					sl, err = seal.ParseSeal(raw)
				}
				if err == nil {
					err = seal.Verify(cred.Cert, seal.Request, s.manifest, sl)
				}
				if err != nil || !sl.At.Equal(now) {
					t.Errorf("sealed at %s, not at %s: %v", sl.At, now, err)
				}
				if sl.Batch == nil {
					return
				}
				sizes[to] = max(sizes[to], sl.Batch.Size)
				root := string(sl.Document(s.manifest))
				if other, ok := batches[root]; ok && other != to {
					t.Errorf("one batch holds messages to %s and %s", other, to)
				}
				batches[root] = to
			})
		}
		wg.Wait()
	}
	if sizes["AE"] < 2 || sizes["BH"] < 2 {
		t.Errorf("no batches: %v", sizes)
	}
}

// TestFullBatch: the message that fills a batch closes it, and none before.
func TestFullBatch(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	cred := u.nodes["SA"].seals[desk("SA").MemberID]
	synctest.Test(t, func(t *testing.T) {
		key := batchKey{cred.Cert, seal.Request, "BH"}
		g := &batch{manifests: make([][]byte, seal.MaxBatch-2), done: make(chan struct{}), err: errors.New("test")}
		b := batcher{open: map[batchKey]*batch{key: g}}
		for _, open := range []bool{true, false} {
			go func() { _, _ = b.sign(t.Context(), key, cred.Signer, []byte("m"), time.Now()) }()
			synctest.Wait()
			if (b.open[key] == g) != open {
				t.Errorf("with %d messages it is open: %v", len(g.manifests), !open)
			}
		}
		if len(g.manifests) != seal.MaxBatch {
			t.Errorf("%d messages", len(g.manifests))
		}
		close(g.done)
	})
}

// TestBatchWithoutPatience: who waits for a signer that hangs waits no longer
// than he may; the others of the batch are sealed.
func TestBatchWithoutPatience(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	cred := u.nodes["SA"].seals[desk("SA").MemberID]
	synctest.Test(t, func(t *testing.T) {
		key := batchKey{cred.Cert, seal.Request, "BH"}
		b := batcher{open: map[batchKey]*batch{}}
		g := &batch{manifests: [][]byte{[]byte("first")}, done: make(chan struct{})}
		b.open[key] = g // its signer hangs
		begin := time.Now()
		within, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.sign(within, key, cred.Signer, []byte("second"), begin); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 5*time.Second {
				t.Errorf("after %v: %v", time.Since(begin), err)
			}
		})
		wg.Go(func() {
			if s, err := b.sign(t.Context(), key, cred.Signer, []byte("third"), begin); err != nil || s.Batch == nil {
				t.Errorf("%+v, %v", s, err)
			}
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		g.seals, g.err = seal.SignBatch(cred.Signer, cred.Cert, seal.Request, g.manifests, cred.Cert.NotBefore.Add(time.Minute))
		close(g.done)
		wg.Wait()
	})
}
