package witness_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/store/storetest"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// times is a world whose states also stamp for each other.
type times struct {
	*world
	dir   *directorytest.Union
	skew  map[union.State]time.Duration
	ahead time.Duration // of everybody's clock, but the logs'
	asked atomic.Int64
	spoil map[union.State]func(r stamp.Request, a *stamp.Authority, at time.Time) []byte // nil result: as it should be
}

func newTimes(t *testing.T, states ...union.State) *times {
	w := &times{world: newWorld(t, 1, states...), skew: map[union.State]time.Duration{}, spoil: map[union.State]func(stamp.Request, *stamp.Authority, time.Time) []byte{}}
	w.dir = directorytest.NewAt(t, time.Now(), states, nil)
	return w
}

func (w *times) authority(s union.State) stamp.Authority {
	key, cert := w.dir.Stamp(s)
	return stamp.Authority{Key: key, Cert: cert, Accuracy: time.Second}
}

// stampers are the authorities of the other states, as a node asks them.
func (w *times) stampers(of union.State) func() []witness.Stamper {
	return func() (out []witness.Stamper) {
		for _, s := range w.order {
			if s == of {
				continue
			}
			clock := witness.NewClock(witness.ClockConfig{}, witness.ClockDeps{
				State: s, Union: w.union, Now: time.Now, Log: quiet(), Kernel: func() (time.Duration, bool) { return 0, true },
			})
			real := witness.NewAuthority(witness.AuthorityDeps{
				Signer: func() (stamp.Authority, error) { return w.authority(s), nil },
				Clock:  clock, Now: func() time.Time { return time.Now().Add(w.ahead + w.skew[s]) }, Log: quiet(),
			})
			out = append(out, witness.Stamper{
				Name: string(s), State: s,
				Ask: func(ctx context.Context, request []byte) ([]byte, error) {
					w.asked.Add(1)
					w.mu.Lock()
					away, spoil := w.away[s], w.spoil[s]
					w.mu.Unlock()
					if away {
						<-ctx.Done()
						return nil, fault.Wrap(fault.PeerUnreachable, ctx.Err(), "away")
					}
					if spoil != nil {
						r, err := stamp.ParseRequest(request)
						if err != nil {
							return nil, err
						}
						a := w.authority(s)
						if b := spoil(r, &a, time.Now()); b != nil {
							return b, nil
						}
					}
					return real.Answer(ctx, request), nil
				},
				Judge: func(t *stamp.Token) (int64, error) {
					v := w.dir.Dirs[of].View()
					_, err := v.Stamped(t, s)
					return v.Version(), err
				},
			})
		}
		return out
	}
}

func (w *times) stamps(s union.State) *witness.Stamps {
	n := w.nodes[s]
	return witness.NewStamps(witness.StampConfig{Most: 100, Every: 50 * time.Millisecond, Look: 10 * time.Millisecond, Answer: 300 * time.Millisecond}, witness.StampDeps{
		DB: n.db, Source: n.journal, Log: n.log, Stampers: w.stampers(s), Logger: quiet(), Revoked: w.revoked(s),
		Now: func() time.Time { return time.Now().Add(w.ahead) },
		Written: func(ctx context.Context, i int64) (time.Time, error) {
			r, err := n.journal.Get(ctx, i)
			return r.At, err
		},
	})
}

// running runs until the test's end, or until the function given is called.
func running(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// stamped waits for a record's time-stamp and verifies all of it.
func (w *times) stamped(s *witness.Stamps, of union.State, index int64, leaf [32]byte) *witness.Stamp {
	w.t.Helper()
	var st *witness.Stamp
	for end := time.Now().Add(10 * time.Second); st == nil; time.Sleep(5 * time.Millisecond) {
		var err error
		if st, err = s.Of(w.t.Context(), index); err != nil {
			w.t.Fatal(err)
		}
		if time.Now().After(end) {
			w.t.Fatalf("no time-stamp: %v", s.LateErr())
		}
	}
	r, root, err := s.Record(w.t.Context(), st, index)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := r.Bytes()
	if err != nil {
		w.t.Fatal(err)
	}
	if r, err = stamp.ParseRecord(b); err != nil {
		w.t.Fatal(err)
	}
	if err := r.Verify(leaf); err != nil {
		w.t.Error(err)
	}
	if st.State == of {
		w.t.Error("its own state's authority")
	}
	if _, err := w.dir.Dirs[of].View().Stamped(r[0].Token, st.State); err != nil {
		w.t.Error(err)
	}
	note := sha256.Sum256(st.Note)
	if sha256.Sum256(root) != r[0].Token.Imprint || !strings.Contains(string(root), string(note[:])) {
		w.t.Error("the checkpoint is not what was stamped")
	}
	if _, err := merkle.OpenCheckpoint(st.Note, w.nodes[of].signers[merkle.LogSignature].Key); err != nil {
		w.t.Error(err)
	}
	return st
}

// TestStamps: every record gets a time-stamp of another state, on both
// engines, whoever is away; and a later run goes on where the one before ended.
func TestStamps(t *testing.T) {
	storetest.Each(t, func(t *testing.T, cfg store.Config) {
		w := newTimes(t, "BH", "SA", "AE")
		bh := w.nodes["BH"]
		w.open(bh, cfg)
		w.unlocked("SA", "AE")
		w.run("BH")
		s := w.stamps("BH")
		stop := running(t, s.Run)
		from := map[union.State]bool{}
		for _, n := range []int{1, 300, 5, 1} {
			e := bh.fill(t, n)
			from[w.stamped(s, "BH", e.Index, e.Leaf).State] = true
		}
		if len(from) != 2 {
			t.Errorf("not in turn: %v", from)
		}
		if s.Age() != 0 || s.LateErr() != nil {
			t.Errorf("%v %v", s.Age(), s.LateErr())
		}
		w.mu.Lock()
		w.away["SA"] = true // for time-stamps; its witness is another matter
		w.mu.Unlock()
		for range 2 {
			e := bh.fill(t, 2)
			if st := w.stamped(s, "BH", e.Index, e.Leaf); st.State != "AE" {
				t.Errorf("by %s, which is away", st.State)
			}
		}
		stop()
		again := w.stamps("BH") // another process
		running(t, again.Run)
		e := bh.fill(t, 3)
		st := w.stamped(again, "BH", e.Index, e.Leaf)
		for i, next := int64(0), int64(0); i <= e.Index; i++ {
			one, err := again.Of(t.Context(), i)
			if err != nil || one == nil {
				t.Fatalf("the record %d: %v", i, err)
			}
			if r, err := bh.journal.Get(t.Context(), i); err != nil {
				t.Fatal(err)
			} else if i%40 == 0 {
				w.stamped(again, "BH", i, r.Leaf)
			}
			if i == one.First && i != next || one.Size-one.First > 100 {
				t.Errorf("the record %d is in two time-stamps, or in too large a one: %d to %d", i, one.First, one.Size)
			}
			next = one.Size
		}
		if _, _, err := again.Record(t.Context(), st, st.Size); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("a record that it does not cover: %v", err)
		}
	})
}

// TestNobodyStamps: without any authority the log goes on, and says since when
// records wait.
func TestNobodyStamps(t *testing.T) {
	w := newTimes(t, "BH", "SA")
	bh := w.nodes["BH"]
	w.unlocked("SA")
	w.run("BH")
	e := bh.fill(t, 3)
	w.receipt("BH", e.Index, e.Leaf)
	w.leave("SA")
	var ahead atomic.Int64
	n := w.nodes["BH"]
	s := witness.NewStamps(witness.StampConfig{Look: 5 * time.Millisecond, Answer: 20 * time.Millisecond}, witness.StampDeps{
		DB: n.db, Source: n.journal, Log: n.log, Stampers: w.stampers("BH"), Logger: quiet(), Revoked: w.revoked("BH"),
		Now:     func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		Written: func(context.Context, int64) (time.Time, error) { return time.Now(), nil },
	})
	running(t, s.Run)
	for s.Age() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := s.LateErr(); err != nil {
		t.Errorf("late already: %v", err)
	}
	ahead.Store(int64(61 * time.Second))
	time.Sleep(50 * time.Millisecond)
	if err := s.LateErr(); fault.CodeOf(err) != fault.StampPending || !strings.Contains(err.Error(), "1m1s") || !strings.Contains(err.Error(), "SA") {
		t.Errorf("%v", err)
	}
	ahead.Store(0)
	w.back("SA")
	w.stamped(s, "BH", e.Index, e.Leaf)
	if s.LateErr() != nil {
		t.Error("still late")
	}
}

// TestStampLies: what an authority gives that is not what was asked of it, or
// not by whom it should be, is refused, and the next one is asked.
func TestStampLies(t *testing.T) {
	w := newTimes(t, "BH", "SA", "AE")
	bh := w.nodes["BH"]
	w.unlocked("SA", "AE")
	w.run("BH")
	var replayed []byte
	grant := func(r stamp.Request, a *stamp.Authority, at time.Time, serial *big.Int) []byte {
		b, err := a.Stamp(r, serial, at)
		if err != nil {
			t.Error(err)
		}
		return stamp.Grant(b)
	}
	number := int64(1)
	fresh := func() *big.Int { number++; return big.NewInt(number) }
	learnt := make(chan struct{})
	for _, c := range []struct {
		name string
		give func(r stamp.Request, a *stamp.Authority, at time.Time) []byte
		want string
	}{
		{"another imprint", func(r stamp.Request, a *stamp.Authority, at time.Time) []byte {
			r.Imprint[0]++
			return grant(r, a, at, fresh())
		}, "something else"},
		{"no nonce", func(r stamp.Request, a *stamp.Authority, at time.Time) []byte {
			r.Nonce = nil
			return grant(r, a, at, fresh())
		}, "nonce"},
		{"another nonce", func(r stamp.Request, a *stamp.Authority, at time.Time) []byte {
			r.Nonce = big.NewInt(1)
			return grant(r, a, at, fresh())
		}, "nonce"},
		{"a clock that is slow", func(r stamp.Request, a *stamp.Authority, at time.Time) []byte {
			return grant(r, a, at.Add(-time.Hour), fresh())
		}, "apart"},
		{"a clock that is fast", func(r stamp.Request, a *stamp.Authority, at time.Time) []byte {
			return grant(r, a, at.Add(time.Hour), fresh())
		}, "apart"},
		{"the own state's authority", func(r stamp.Request, _ *stamp.Authority, at time.Time) []byte {
			own := w.authority("BH")
			return grant(r, &own, at, fresh())
		}, "no time-stamp authority of SA"},
		{"a third state's authority", func(r stamp.Request, _ *stamp.Authority, at time.Time) []byte {
			other := w.authority("AE")
			return grant(r, &other, at, fresh())
		}, "no time-stamp authority of SA"},
		{"a serial number given before", func(r stamp.Request, a *stamp.Authority, at time.Time) []byte {
			return grant(r, a, at, big.NewInt(1))
		}, "serial number 1 before"},
		{"a token of before", func(stamp.Request, *stamp.Authority, time.Time) []byte { return replayed }, "something else"},
		{"half a token", func(r stamp.Request, a *stamp.Authority, at time.Time) []byte {
			b := grant(r, a, at, fresh())
			return b[:len(b)-20]
		}, "not a TimeStampResp"},
		{"noise", func(stamp.Request, *stamp.Authority, time.Time) []byte { return []byte("<html>") }, "not a TimeStampResp"},
		{"a refusal", func(stamp.Request, *stamp.Authority, time.Time) []byte {
			return stamp.Reject(&stamp.Refusal{Failure: stamp.TimeNotAvailable, Text: "no time"})
		}, "timeNotAvailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.mu.Lock()
			w.spoil["SA"], w.away["AE"] = nil, true
			learn := replayed == nil // first one that is right, of which serial number and token are then known
			w.spoil["SA"] = func(r stamp.Request, a *stamp.Authority, at time.Time) []byte {
				if replayed == nil {
					replayed = grant(r, a, at, big.NewInt(1))
					close(learnt)
					return replayed
				}
				return c.give(r, a, at)
			}
			w.mu.Unlock()
			var said atomic.Pointer[string]
			s := w.stampsSaying("BH", &said)
			e := bh.fill(t, 1)
			stop := running(t, s.Run)
			if learn {
				<-learnt
				w.stamped(s, "BH", e.Index, e.Leaf)
				e = bh.fill(t, 1)
			}
			for end := time.Now().Add(10 * time.Second); said.Load() == nil; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("nothing was said")
				}
			}
			if got := *said.Load(); !strings.Contains(got, c.want) {
				t.Errorf("%s; wanted %q", got, c.want)
			}
			if st, err := s.Of(t.Context(), e.Index); st != nil || err != nil {
				t.Errorf("kept all the same: %+v %v", st, err)
			}
			w.mu.Lock()
			w.away["AE"] = false
			w.mu.Unlock()
			if st := w.stamped(s, "BH", e.Index, e.Leaf); st.State != "AE" {
				t.Errorf("by %s", st.State)
			}
			stop()
		})
	}
}

// stampsSaying notes the first refusal of SA's.
func (w *times) stampsSaying(of union.State, said *atomic.Pointer[string]) *witness.Stamps {
	n := w.nodes[of]
	return witness.NewStamps(witness.StampConfig{Every: time.Millisecond, Look: 5 * time.Millisecond, Answer: 50 * time.Millisecond}, witness.StampDeps{
		DB: n.db, Source: n.journal, Log: n.log, Stampers: w.stampers(of), Now: time.Now, Revoked: w.revoked(of),
		Logger:  loggerOf(func(text string) { said.CompareAndSwap(nil, &text) }),
		Written: func(context.Context, int64) (time.Time, error) { return time.Now(), nil },
	})
}

// TestClock: who has another time than the other states, or whom nobody
// vouches for, stamps nothing, and says so.
func TestClock(t *testing.T) {
	request := stamp.Request{Imprint: [32]byte{1}}.Bytes()
	for _, c := range []struct {
		name   string
		own    time.Duration
		others map[union.State]time.Duration
		slow   map[union.State]time.Duration
		away   []union.State
		kernel bool
		want   string
	}{
		{name: "all agree", others: map[union.State]time.Duration{"SA": 300 * time.Millisecond, "AE": -200 * time.Millisecond}},
		{name: "the kernel does not know, the others do", others: map[union.State]time.Duration{"SA": 0}},
		{name: "fast", own: 3 * time.Second, kernel: true, want: "2 of 2"},
		{name: "slow", own: -3 * time.Second, kernel: true, want: "2 of 2"},
		{name: "one is wrong", others: map[union.State]time.Duration{"SA": time.Hour, "AE": 0, "KW": 0}},
		{name: "half are wrong", others: map[union.State]time.Duration{"SA": time.Hour, "AE": 0}, kernel: true, want: "1 of 2"},
		{name: "nobody answers", away: []union.State{"SA", "AE"}, want: "does not vouch"},
		{name: "nobody answers, the kernel vouches", away: []union.State{"SA", "AE"}, kernel: true},
		{name: "answers that take too long", slow: map[union.State]time.Duration{"SA": 2 * time.Second, "AE": 2 * time.Second}, want: "does not vouch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.others == nil {
					c.others = map[union.State]time.Duration{"SA": 0, "AE": 0}
				}
				u := witness.Union{Parties: []witness.Party{{State: "BH"}}}
				for s := range c.others {
					u.Parties = append(u.Parties, witness.Party{State: s})
				}
				now := func() time.Time { return time.Now().Add(c.own) }
				clock := witness.NewClock(witness.ClockConfig{}, witness.ClockDeps{
					State: "BH", Union: func() witness.Union { return u }, Now: now, Log: quiet(),
					Kernel: func() (time.Duration, bool) { return 10 * time.Millisecond, c.kernel },
					Ask: func(ctx context.Context, s union.State, kind string, _ []byte) ([]byte, error) {
						for _, a := range c.away {
							if a == s {
								<-ctx.Done()
								return nil, ctx.Err()
							}
						}
						time.Sleep(10*time.Millisecond + c.slow[s])
						if kind != witness.KindTime {
							return nil, errors.New(kind)
						}
						return binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(c.others[s]).UnixMilli())), nil
					},
				})
				a := witness.NewAuthority(witness.AuthorityDeps{Clock: clock, Now: now, Log: quiet(), Signer: func() (stamp.Authority, error) {
					return stamp.Authority{}, errors.New("asked for its key")
				}})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); _ = clock.Run(ctx) }()
				time.Sleep(5 * time.Second)
				err := clock.Err()
				_, refusal := stamp.ParseResponse(a.Answer(ctx, request))
				var r *stamp.Refusal
				if !errors.As(refusal, &r) || (r.Failure == stamp.TimeNotAvailable) != (c.want != "") {
					t.Errorf("the authority says %v", refusal)
				}
				if c.want == "" && err != nil || c.want != "" && (fault.CodeOf(err) != fault.ClockDoubtful || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%v; wanted %q", err, c.want)
				}
				cancel()
				<-done
				if len(clock.Answer()) != 8 {
					t.Error("its own answer")
				}
			})
		})
	}
}

// TestClockSet: a clock that is set is in doubt at once, until it has been
// compared again.
func TestClockSet(t *testing.T) {
	for _, by := range []time.Duration{-time.Minute, -2 * time.Second, 2 * time.Second, time.Minute, 500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			var set atomic.Int64
			now := func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
			clock := witness.NewClock(witness.ClockConfig{}, witness.ClockDeps{
				State: "BH", Union: func() witness.Union { return witness.Union{Parties: []witness.Party{{State: "BH"}, {State: "SA"}}} }, Now: now, Log: quiet(),
				Kernel: func() (time.Duration, bool) { return 0, true },
				Ask: func(context.Context, union.State, string, []byte) ([]byte, error) {
					return binary.BigEndian.AppendUint64(nil, uint64(now().UnixMilli())), nil
				},
			})
			if err := clock.Err(); err != nil {
				t.Errorf("before it was compared: %v", err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = clock.Run(ctx) }()
			time.Sleep(5 * time.Second)
			if err := clock.Err(); err != nil {
				t.Error(err)
			}
			set.Store(int64(by))
			if err := clock.Err(); (fault.CodeOf(err) == fault.ClockDoubtful) != (by.Abs() > time.Second) {
				t.Errorf("set by %v: %v", by, err)
			}
			time.Sleep(30 * time.Second)
			if err := clock.Err(); err != nil {
				t.Errorf("compared again: %v", err)
			}
			cancel()
			<-done
		})
	}
}

// TestAuthorityAnswers: the authority answers every request, and no two with
// the same serial number, of however many processes.
func TestAuthorityAnswers(t *testing.T) {
	w := newTimes(t, "BH", "SA")
	ask := func() witness.Stamper { return w.stampers("BH")()[0] }
	seen := map[string]bool{}
	for i := range 20 {
		r := stamp.Request{Imprint: [32]byte{byte(i)}, Certificate: i%2 == 0, Policy: []string{"", stamp.Policy}[i%2]}
		b, err := ask().Ask(t.Context(), r.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := stamp.ParseResponse(b)
		if err != nil {
			t.Fatal(err)
		}
		k, err := stamp.ParseToken(raw)
		if err != nil {
			t.Fatal(err)
		}
		if n := fmt.Sprint(k.Serial); seen[n] || k.Accuracy != time.Second || k.Imprint != r.Imprint {
			t.Errorf("%+v", k)
		}
		seen[fmt.Sprint(k.Serial)] = true
	}
	for want, request := range map[stamp.Failure][]byte{
		stamp.UnacceptedPolicy: stamp.Request{Policy: "\x2a\x03"}.Bytes(),
		stamp.BadDataFormat:    []byte("x"),
	} {
		b, err := ask().Ask(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		var r *stamp.Refusal
		if _, err := stamp.ParseResponse(b); !errors.As(err, &r) || r.Failure != want {
			t.Errorf("%v; wanted %d", err, want)
		}
	}
}

// loggerOf hands on what is said at the level of warnings and above.
func loggerOf(say func(string)) *slog.Logger {
	return slog.New(slog.NewTextHandler(writer(say), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type writer func(string)

func (w writer) Write(b []byte) (int, error) { w(string(b)); return len(b), nil }
