package exchange

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/verify"
)

// allow says of states whether they take seals of batches.
func (u *testUnion) allow(on bool, states ...union.State) {
	u.t.Helper()
	for _, s := range states {
		check(u.t, u.nodes[s].dir.Publish(u.t.Context(), func(e *directory.Edition) error { e.Batch = on; return nil }))
	}
	u.refresh()
}

// crowdOf calls n times at once and gives the ids.
func (u *testUnion) crowdOf(n int, name string) (ids []string) {
	u.t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		id := fmt.Sprintf("%s-%d", name, i)
		ids = append(ids, id)
		wg.Go(func() {
			a := u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("question "+id), "X-Road-Id: "+id)
			if a.status != 200 || string(a.body) != "question "+id {
				u.t.Errorf("%s: %d %q", id, a.status, a.body)
			}
		})
	}
	wg.Wait()
	return ids
}

// seals reads the seals that a node has recorded of a call, by kind of message.
func (u *testUnion) seals(at union.State, id string) (out [2]seal.Seal) {
	u.t.Helper()
	found, err := u.nodes[at].journal.Find(u.t.Context(), id)
	check(u.t, err)
	for _, s := range found {
		head, raw, err := message.Open(s.Envelope)
		check(u.t, err)
		part := seal.Answer
		if message.Kind(head) == message.TypeRequest {
			part = seal.Request
		}
		out[part], err = seal.ParseSeal(raw)
		check(u.t, err)
	}
	return out
}

// TestBatches: where both states allow it, calls at once share seals; each
// stands alone as evidence, by openssl and sha256sum, and by falaj verify.
func TestBatches(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"})
	var together sync.WaitGroup // lets answers come at once
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) {
		together.Done()
		together.Wait()
		_, _ = io.Copy(w, r.Body)
	})
	u.allow(true, "BH")
	u.allow(true, "SA")
	pick := ""
	for round := 0; pick == ""; round++ { // who comes at once, the scheduler decides
		if round == 10 {
			t.Fatal("of 240 calls none had both messages sealed in a batch")
		}
		together.Add(24)
		for _, id := range u.crowdOf(24, fmt.Sprintf("many-%d", round)) {
			for _, at := range []union.State{"SA", "BH"} {
				if s := u.seals(at, id); s[seal.Request].Batch != nil && s[seal.Answer].Batch != nil {
					pick = id
				}
			}
		}
	}
	_, a := u.container(t, desk("SA"), pick, "")
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	dir := unzip(t, a.body)
	lines := printed(t, dir)
	if len(lines) != 18 {
		t.Errorf("%d lines to run: %q", len(lines), lines)
	}
	if wrong := failing(t, dir, lines); wrong != nil {
		t.Errorf("found wrong: %q", wrong)
	}
	for name, want := range map[string]string{
		"request/batch.txt": "openssl dgst", "answer/batch.txt": "basenc", "META-INF/falaj/request-leaf.xml": "basenc", "META-INF/falaj/answer-leaf.xml": "basenc",
		"META-INF/falaj/answer-way.txt": "basenc", "META-INF/ASiCManifest002.xml": "cms",
	} {
		dir := unzip(t, a.body)
		b, err := os.ReadFile(filepath.Join(dir, name))
		check(t, err)
		b[len(b)/2] ^= 1
		check(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
		if wrong := failing(t, dir, lines[1:]); !slices.ContainsFunc(wrong, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%s changed: found %q, wanted by %s", name, wrong, want)
		}
	}
	// Digests that the shell would drop lead nowhere either.
	way := filepath.Join(dir, "META-INF/falaj/request-way.txt")
	b, err := os.ReadFile(way)
	check(t, err)
	check(t, os.WriteFile(way, append(b, "left "+strings.Repeat("0", 128)+"zz\n"...), 0o600))
	if wrong := failing(t, dir, slices.DeleteFunc(slices.Clone(lines), func(s string) bool { return !strings.Contains(s, "request-way") })); len(wrong) != 1 || strings.Contains(wrong[0], "basenc: ") {
		t.Errorf("a way that is none: %q", wrong)
	}
	v, err := verify.New(u.nodes["SA"].dir.View().Root())
	check(t, err)
	if r := v.Container(strings.NewReader(string(a.body)), int64(len(a.body))); r.Verdict != verify.Holds {
		t.Errorf("%+v", r)
	}
}

// TestBatchTakesBoth: one state's word is not enough; a node gives batches once
// the other has had time to learn that it may, and takes them as long as the
// other may not have learnt that it may no more. What may wait for days is never
// in one.
func TestBatchTakesBoth(t *testing.T) {
	t.Parallel()
	u := newUnion(t, []union.State{"BH", "SA"}, func(c *Config, _ *Deps) { c.Settle = time.Minute })
	u.backend("BH", "things", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	sa, bh := u.nodes["SA"], u.nodes["BH"]
	gives := func() bool { return sa.givesBatches(sa.dir.View(), "BH") || bh.givesBatches(bh.dir.View(), "SA") }
	later := func() {
		for _, n := range u.nodes {
			n.shift.Add(int64(61 * time.Second))
		}
	}
	u.allow(true, "SA")
	gives()
	later()
	if gives() {
		t.Error("batches on the word of one")
	}
	for _, id := range u.crowdOf(16, "alone") {
		if s := u.seals("BH", id); s[0].Batch != nil || s[1].Batch != nil {
			t.Fatalf("%s was sealed in a batch", id)
		}
	}
	cred := u.nodes["SA"].seals[desk("SA").MemberID]
	send := func() fault.Code {
		var heads, manifests [][]byte
		for range 2 {
			r := u.request("SA", offered("BH", "things"))
			r.NotBefore, r.NotAfter = sa.now().UnixMilli(), sa.now().Add(time.Minute).UnixMilli()
			head, err := r.Encode()
			check(t, err)
			heads, manifests = append(heads, head), append(manifests, manifest(seal.Request, head, nil))
		}
		seals, err := seal.SignBatch(cred.Signer, cred.Cert, seal.Request, manifests, sa.now())
		check(t, err)
		raw, err := seals[1].AppendBinary(nil)
		check(t, err)
		a, _, err := u.deliver("SA", "BH", &link.Message{Envelope: message.Envelope(heads[1], raw)})
		if err != nil {
			return fault.CodeOf(err)
		}
		return fault.Code(a.Fault)
	}
	if got := send(); got != fault.SealInvalid {
		t.Errorf("a batch that BH takes not: %q", got)
	}
	u.allow(true, "BH")
	if got := send(); got != "" {
		t.Errorf("a batch that both take: %q", got)
	}
	if gives() {
		t.Error("batches for who may not have heard that he takes them")
	}
	later()
	if !gives() {
		t.Error("no batches though both have long said so")
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			u.call("SA", "POST", offered("BH", "things"), "/x", strings.NewReader("q"), fmt.Sprintf("X-Road-Id: late-%d", i), "Prefer: respond-async")
		})
	}
	wg.Wait()
	for i := range 16 {
		found, err := sa.journal.Find(t.Context(), fmt.Sprintf("late-%d", i))
		if err != nil || len(found) == 0 {
			t.Fatalf("late-%d: %v", i, err)
		}
		if u.seals("SA", fmt.Sprintf("late-%d", i))[seal.Request].Batch != nil {
			t.Errorf("late-%d was sealed in a batch", i)
		}
	}
	u.allow(false, "SA")
	if got := send(); got != "" || gives() {
		t.Errorf("a batch of who may not have heard that SA gives none any more: %q", got)
	}
	later()
	if got := send(); got != fault.SealInvalid {
		t.Errorf("a batch that SA gives no more: %q", got)
	}
}

// TestBatcher: who comes alone is sealed by himself, and nobody waits for the
// clock; a signer that fails fails all that waited; nothing is left behind.
func TestBatcher(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	cred := u.nodes["SA"].seals[desk("SA").MemberID]
	synctest.Test(t, func(t *testing.T) {
		var b batcher
		at := cred.Cert.NotBefore.Add(time.Minute)
		key := batchKey{cred.Cert, seal.Request, "BH"}
		sign := func(n int) (sizes []int) {
			var wg sync.WaitGroup
			var mu sync.Mutex
			for i := range n {
				wg.Go(func() {
					m := manifest(seal.Request, fmt.Append(nil, i), nil)
					s, err := b.sign(t.Context(), key, cred.Signer, m, at)
					if err == nil {
						err = seal.Verify(cred.Cert, seal.Request, m, s)
					}
					if err != nil {
						t.Error(err)
					}
					size := 1
					if s.Batch != nil {
						size = s.Batch.Size
					}
					mu.Lock()
					sizes = append(sizes, size)
					mu.Unlock()
				})
			}
			wg.Wait()
			return sizes
		}
		begin := time.Now()
		for range 20 {
			if got := sign(1); got[0] != 1 {
				t.Fatalf("alone in a batch of %d", got[0])
			}
		}
		if got := sign(seal.MaxBatch + 100); slices.Max(got) > seal.MaxBatch {
			t.Errorf("a batch of %d", slices.Max(got))
		}
		var calls atomic.Int64
		broken := failingSigner{cred.Signer, &calls}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := b.sign(t.Context(), key, broken, []byte("m"), at); err == nil {
					t.Error("sealed by nobody")
				}
			})
		}
		wg.Wait()
		if calls.Load() == 0 || calls.Load() > 20 {
			t.Errorf("%d signatures were tried", calls.Load())
		}
		panics := make(chan any, 20)
		for range 20 {
			wg.Go(func() {
				defer func() { panics <- recover() }()
				if _, err := b.sign(t.Context(), key, panickingSigner{cred.Signer}, []byte("m"), at); err == nil {
					t.Error("sealed by nobody")
				}
			})
		}
		wg.Wait()
		if len(b.open) != 0 {
			t.Errorf("%d batches are left", len(b.open))
		}
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("somebody waited %v", waited)
		}
	})
}

// failingSigner has the key's public half alone.
type failingSigner struct {
	crypto.Signer
	calls *atomic.Int64
}

func (f failingSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	f.calls.Add(1)
	return nil, errors.New("no key")
}

// panickingSigner has one bad day.
type panickingSigner struct{ crypto.Signer }

func (panickingSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { panic("broken") }
