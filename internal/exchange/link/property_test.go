package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// jerky reads in pieces of given sizes and yields in between, so that streams
// interleave in every way.
type jerky struct {
	io.Reader
	sizes []int
	i     int
}

func (j *jerky) Read(p []byte) (int, error) {
	j.i++
	n := j.sizes[j.i%len(j.sizes)]
	if n%3 == 0 {
		runtime.Gosched()
	}
	return j.Reader.Read(p[:min(n, len(p))])
}

func (j *jerky) Close() error { return nil }

// TestEveryByte: whatever the sizes, the windows and the order, each stream
// delivers every byte in both directions, and nothing is left afterwards.
func TestEveryByte(t *testing.T) {
	pieces := rapid.SliceOfN(rapid.IntRange(1, 40<<10), 1, 8)
	sizes := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(maxInline-2, maxInline+2), rapid.IntRange(0, 140<<10))
	type plan struct {
		up, down   int
		slow, fast []int
		stop       bool // closes the answer's body unread
	}
	var mu sync.Mutex
	plans := map[string]plan{}
	serve := hands{exchange: func(_ context.Context, _ Peer, m *Message) (*Message, error) {
		mu.Lock()
		pl := plans[string(m.Envelope)]
		mu.Unlock()
		sum := sha256.New()
		if m.Body != nil {
			n, err := io.Copy(sum, &jerky{Reader: m.Body, sizes: pl.slow})
			if err != nil || n != int64(pl.up) {
				return nil, fmt.Errorf("%d bytes of %d: %w", n, pl.up, err)
			}
		}
		return &Message{
			Envelope: sum.Sum(nil), Size: int64(pl.down),
			Body: &jerky{Reader: bytes.NewReader(noise(pl.down, uint64(pl.down))), sizes: pl.fast},
		}, nil
	}}
	for name, cfg := range map[string]Config{"wide": {}, "narrow": {Window: firstCredit, Memory: 1}} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, cfg, cfg, serve)
			rapid.Check(t, func(t *rapid.T) {
				var wg sync.WaitGroup
				errs := make(chan error, 20)
				for i := range rapid.IntRange(1, 6).Draw(t, "streams") {
					pl := plan{up: sizes.Draw(t, "up"), down: sizes.Draw(t, "down"),
						slow: pieces.Draw(t, "slow"), fast: pieces.Draw(t, "fast"), stop: rapid.IntRange(0, 9).Draw(t, "stop") == 0}
					name := fmt.Sprint(i)
					mu.Lock()
					plans[name] = pl
					mu.Unlock()
					wg.Go(func() {
						up := noise(pl.up, uint64(i))
						m, err := p.bh.Exchange(context.Background(), p.to, &Message{
							Envelope: []byte(name), Size: int64(pl.up), Body: &jerky{Reader: bytes.NewReader(up), sizes: pl.fast},
						})
						if err != nil {
							errs <- err
							return
						}
						if sum := sha256.Sum256(up); !bytes.Equal(m.Envelope, sum[:]) {
							errs <- errors.New("other bytes went up")
						}
						if m.Body == nil {
							return
						}
						defer m.Body.Close()
						if pl.stop {
							return
						}
						got, err := io.ReadAll(&jerky{Reader: m.Body, sizes: pl.slow})
						if err != nil {
							errs <- err
						} else if !bytes.Equal(got, noise(pl.down, uint64(pl.down))) {
							errs <- errors.New("other bytes came down")
						}
					})
				}
				wg.Wait()
				close(errs)
				for err := range errs {
					t.Fatal(err)
				}
			})
			eventually(t, "nothing is left", func() bool {
				return p.bh.Peers()[0].Streams+p.sa.Peers()[0].Streams == 0 && p.sa.memory.Load() == 0 && p.bh.memory.Load() == 0
			})
			if len(p.bh.Peers()) != 1 {
				t.Error("the connection broke")
			}
		})
	}
}
