package directory_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

type fetch func(ctx context.Context, name string, limit int64) ([]byte, error)

func (f fetch) Fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	return f(ctx, name, limit)
}

// stalled never answers.
func stalled(ctx context.Context, _ string, _ int64) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// follower opens a copy that has peers of the test's choice, asked in that order
// unless the test shuffles them.
func follower(t *testing.T, u *directorytest.Union, peers []directory.Peer, shuffle func(int, func(i, j int))) *directory.Directory {
	t.Helper()
	if shuffle == nil {
		shuffle = func(int, func(i, j int)) {}
	}
	d, err := directory.Open(t.Context(), directory.Config{Root: u.Root, Demonstration: true},
		directory.Deps{Now: u.Now, Peers: func() []directory.Peer { return peers }, Shuffle: shuffle})
	must(t, err)
	return d
}

// TestStalledPeers: peers that answer nothing hold a revocation back neither
// together nor for long.
func TestStalledPeers(t *testing.T) {
	u := directorytest.New(t, four, nil)
	var peers []directory.Peer
	for _, s := range []union.State{"SA", "AE", "KW"} {
		peers = append(peers, directory.Peer{State: s, Fetcher: fetch(stalled)})
	}
	peers = append(peers, directory.Peer{State: "BH", Fetcher: u.Dirs["BH"]})
	for n := 1; n <= len(peers); n++ {
		asked := peers[len(peers)-n:] // as many but one stalled, before the one that has news
		synctest.Test(t, func(t *testing.T) {
			d := follower(t, u, asked, nil)
			began, arrived := time.Now(), time.Duration(-1)
			changed, done := d.Watch(), make(chan error)
			go func() { done <- d.Refresh(t.Context()) }()
			select {
			case <-changed:
				arrived = time.Since(began)
				must(t, <-done)
			case err := <-done:
				t.Errorf("%d peers: no news, %v", n, err)
			}
			whole := time.Since(began)
			if most := 2 * time.Second; n < len(peers) && arrived != 0 || arrived > most || whole > most {
				t.Errorf("%d peers: news after %s, over after %s", n, arrived, whole)
			}
		})
	}
}

// TestOrderOfChance: which peers are asked first is as the shuffle has it, and
// the list that was handed out stays as it was.
func TestOrderOfChance(t *testing.T) {
	u := directorytest.New(t, four, nil)
	var mu sync.Mutex
	var asked []union.State
	var peers []directory.Peer
	for _, s := range four {
		peers = append(peers, directory.Peer{State: s, Fetcher: fetch(func(context.Context, string, int64) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, s)
			return nil, errors.New("no")
		})})
	}
	d := follower(t, u, peers, func(n int, swap func(i, j int)) { swap(0, n-1) })
	if err := d.Refresh(t.Context()); err == nil || len(asked) != len(four) || asked[0] == four[0] {
		t.Errorf("asked %v, %v", asked, err)
	}
	if peers[0].State != four[0] {
		t.Errorf("the list became %v", peers)
	}
}

// TestHalfANewsBlocksNobody: a peer that shows the newest time-stamp and
// cannot, or will not, give the rest keeps nobody from taking it elsewhere.
func TestHalfANewsBlocksNobody(t *testing.T) {
	u := directorytest.New(t, four, nil)
	u.Refresh()
	liar := fetch(func(ctx context.Context, name string, limit int64) ([]byte, error) {
		if name == "timestamp.json" {
			return u.Dirs["BH"].Fetch(ctx, name, limit)
		}
		return nil, errors.New("no")
	})
	peers := []directory.Peer{{State: "SA", Fetcher: liar}}
	d := follower(t, u, []directory.Peer{{State: "BH", Fetcher: u.Dirs["BH"]}}, nil)
	must(t, d.Refresh(t.Context()))
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("news")))
	d = follower(t, u, peers, nil)
	if err := d.Refresh(t.Context()); err == nil {
		t.Error("half a directory was taken")
	}
	if err := d.Offer(t.Context(), u.Dirs["BH"].Files()["timestamp.json"], liar); fault.CodeOf(err) != fault.DirectoryInvalid {
		t.Error(err)
	}
	peers[0] = directory.Peer{State: "BH", Fetcher: u.Dirs["BH"]}
	must(t, d.Refresh(t.Context()))
	if !has(d, "BH", "news") {
		t.Error("the news did not arrive")
	}
}
