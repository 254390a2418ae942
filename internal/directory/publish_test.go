package directory_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"pgregory.net/rapid"
)

func TestUnion(t *testing.T) {
	u := directorytest.New(t, four, nil)
	for s, d := range u.Dirs {
		v := d.View()
		if v.Version() != 1 || v.Union() != u.Name || !v.Demonstration() || v.Quorum() != 2 || len(v.States()) != 4 || len(v.Problems()) != 0 {
			t.Errorf("%q: version %d, %d states, problems %v", s, v.Version(), len(v.States()), v.Problems())
		}
		for _, of := range four {
			id := union.MemberID{State: of, Class: "GOV", Code: "interior"}
			_, cert := u.Seal(id)
			c, ok := v.Certificate(directory.Cert{Certificate: cert}.SHA256())
			if !ok || c.Use != directory.UseSeal || c.State != of || c.Member != id || c.At(u.Now()) != nil {
				t.Errorf("%q: certificate of %s: %+v %v", s, id, c, ok)
			}
			leaf := u.TLS(of).Leaf
			c, ok = v.Certificate(directory.Cert{Certificate: leaf}.SHA256())
			if !ok || c.Use != directory.UseTLS || c.State != of || c.Node != "n1" || !c.Member.IsZero() {
				t.Errorf("%q: certificate of %s's node: %+v %v", s, of, c, ok)
			}
		}
		if p, ok := v.Purpose("audit"); !ok || p.Basis.Ar == "" || len(v.Purposes()) != 2 {
			t.Errorf("%q: purposes %v", s, v.Purposes())
		}
	}
}

func TestWatch(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	d := u.Dirs["SA"]
	ch := d.Watch()
	must(t, d.Refresh(t.Context()))
	select {
	case <-ch:
		t.Error("nothing changed")
	default:
	}
	must(t, u.Dirs["BH"].Publish(t.Context(), func(*directory.Edition) error { return nil }))
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("x")))
	if v := u.Dirs["BH"].View().Version(); v != 2 {
		t.Errorf("version %d: to change nothing is to publish nothing", v)
	}
	u.Dirs["BH"].PassOn(t.Context())
	select {
	case <-ch:
	default:
		t.Error("the change was not passed on")
	}
	if !has(d, "BH", "x") {
		t.Error("the change did not arrive")
	}
}

// TestNoTwoOfOneVersion: a party that signed one release of a version never
// signs another, also after it was stopped at any moment since.
func TestNoTwoOfOneVersion(t *testing.T) {
	u := directorytest.New(t, four, nil)
	dir := t.TempDir()
	signer := u.Open("SA", directory.Config{Dir: dir}, u.Keys["SA"])
	must(t, signer.Refresh(t.Context()))
	propose := func(d *directory.Directory, version int64, end time.Time) []byte {
		b := d.Forge(version, end, nil, online(u, "BH")...)
		raw, err := b.Encode()
		must(t, err)
		return raw
	}
	soon := u.Now().Add(time.Hour)
	first, second := propose(u.Dirs["BH"], 2, soon), propose(u.Dirs["BH"], 2, soon.Add(time.Second))
	before := copyFolder(t, dir)
	if _, err := signer.Cosign(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	_, err := signer.Cosign(t.Context(), second)
	wantCode(t, err, fault.DirectoryConflict, "already has version 2")

	// Stopped after the vote and before anything else of it was written.
	crashed := t.TempDir()
	must(t, os.CopyFS(crashed, os.DirFS(before)))
	vote, err := os.ReadFile(filepath.Join(dir, "local.json"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(crashed, "local.json"), vote, 0o644))
	signer = u.Open("SA", directory.Config{Dir: crashed}, u.Keys["SA"])
	if v := signer.View().Version(); v != 1 {
		t.Fatalf("version %d", v)
	}
	_, err = signer.Cosign(t.Context(), second)
	wantCode(t, err, fault.DirectoryConflict, "signed another version 2")
	if _, err := signer.Cosign(t.Context(), first); err != nil {
		t.Errorf("the same again: %v", err)
	}
	// Its own proposals go above what it signed.
	must(t, u.Open("SA", directory.Config{Dir: crashed}, u.Keys["SA"]).Publish(t.Context(), addSubsystem("later")))
}

// TestVoteBeforeAsking: what a party proposed is a vote too, also if nobody
// answered and it was stopped then.
func TestVoteBeforeAsking(t *testing.T) {
	u := directorytest.New(t, four, nil)
	dir := t.TempDir()
	d := u.Open("SA", directory.Config{Dir: dir}, u.Keys["SA"])
	must(t, d.Refresh(t.Context()))
	u.Away(true, "", "BH", "AE", "KW")
	wantCode(t, d.Publish(t.Context(), addSubsystem("x")), fault.DirectoryUnsigned, "nobody")
	d = u.Open("SA", directory.Config{Dir: dir}, u.Keys["SA"])
	raw, err := u.Dirs["BH"].Forge(2, u.Now().Add(time.Hour), nil, online(u, "BH")...).Encode()
	must(t, err)
	_, err = d.Cosign(t.Context(), raw)
	wantCode(t, err, fault.DirectoryConflict, "signed another version 2")

	// Nor does it sign two parts of its own under one number.
	u.Away(false, "")
	must(t, d.Publish(t.Context(), addSubsystem("y")))
	if v := d.RoleVersion("SA"); v != 3 || d.View().Version() != 3 {
		t.Errorf("part %d in version %d", v, d.View().Version())
	}
}

// TestLostAnswer: the other party signed, and its answer did not arrive.
func TestLostAnswer(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	lose := true
	peers := func() []directory.Peer {
		p := u.Peers("BH")[0]
		cosign := p.Cosign
		p.Cosign = func(ctx context.Context, proposal []byte) ([]byte, error) {
			reply, err := cosign(ctx, proposal)
			if lose {
				lose = false
				return nil, fault.New(fault.DirectoryConflict, "the line was cut")
			}
			return reply, err
		}
		return []directory.Peer{p}
	}
	d, err := directory.Open(t.Context(), directory.Config{Root: u.Root, State: "BH", Demonstration: true}, directory.Deps{Now: u.Now, Keys: u.Keys["BH"], Peers: peers})
	must(t, err)
	must(t, d.Refresh(t.Context()))
	must(t, d.Publish(t.Context(), addSubsystem("once")))
	if v := d.View().Version(); v != 2 || !has(d, "BH", "once") {
		t.Errorf("version %d", v)
	}
}

// TestStubbornSecretariat: a secretariat that always claims to be ahead, or
// that never answers, does not stop the others.
func TestStubbornSecretariat(t *testing.T) {
	for name, cosign := range map[string]func(context.Context, []byte) ([]byte, error){
		"conflict": func(context.Context, []byte) ([]byte, error) {
			return nil, fault.New(fault.DirectoryConflict, "me first")
		},
		"silence": func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() },
		"rubbish": func(context.Context, []byte) ([]byte, error) { return []byte("{}"), nil },
	} {
		t.Run(name, func(t *testing.T) {
			u := directorytest.New(t, four, nil)
			synctest.Test(t, func(t *testing.T) {
				d, err := directory.Open(t.Context(), directory.Config{Root: u.Root, State: "SA", Demonstration: true}, directory.Deps{
					Now: u.Now, Keys: u.Keys["SA"], Peers: func() []directory.Peer {
						peers := u.Peers("SA")
						peers[0].Cosign = cosign
						return peers
					}})
				must(t, err)
				must(t, d.Refresh(t.Context()))
				start := time.Now()
				must(t, d.Publish(t.Context(), addSubsystem("anyway")))
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

func copyFolder(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	must(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

func TestCosignRefuses(t *testing.T) {
	u := directorytest.New(t, four, nil)
	d := u.Dirs["SA"]
	soon := u.Now().Add(time.Hour)
	tests := []struct {
		name string
		make func() directory.Bundle
		code fault.Code
		want string
	}{
		{"nobody's signature", func() directory.Bundle { return d.Forge(2, soon, nil, key(t, u.Keys["BH"], directory.StateKey)) }, fault.DirectoryInvalid, "not enough"},
		{"an expiry far ahead", func() directory.Bundle { return d.Forge(2, u.Now().Add(30*24*time.Hour), nil, online(u, "BH")...) }, fault.DirectoryInvalid, "expiry"},
		{"an expiry in the past", func() directory.Bundle { return d.Forge(2, u.Now().Add(-time.Second), nil, online(u, "BH")...) }, fault.DirectoryInvalid, "expiry"},
		{"a version far ahead", func() directory.Bundle { return d.Forge(1<<40, soon, nil, online(u, "BH")...) }, fault.DirectoryInvalid, "too far"},
		{"a part's version far ahead", func() directory.Bundle {
			raw, named := directory.SignPart(1<<40, soon, d.PartFiles("BH"), key(t, u.Keys["BH"], directory.StateKey))
			return d.Forge(2, soon, func(f *directory.Forgery) { f.Set("BH", 1<<40, raw); maps.Copy(f.Files(), named) }, online(u, "BH")...)
		}, fault.DirectoryInvalid, "too far"},
		{"a role that nobody has", func() directory.Bundle {
			return d.Forge(2, soon, func(f *directory.Forgery) { f.Meta()["other.json"] = &directory.Metadata{Version: 1} }, online(u, "BH")...)
		}, fault.DirectoryInvalid, "does not belong"},
		{"the version in force", func() directory.Bundle { return d.Forge(1, soon, nil, online(u, "BH")...) }, fault.DirectoryConflict, "already"},
		{"a part taken away", func() directory.Bundle {
			return d.Forge(2, soon, func(f *directory.Forgery) { delete(f.Meta(), "KW.json") }, online(u, "BH")...)
		}, fault.DirectoryConflict, "rollback"},
		{"a part that nobody can use", func() directory.Bundle {
			raw, named := directory.SignPart(2, soon, map[string][]byte{"BH/state.json": []byte("{}")}, key(t, u.Keys["BH"], directory.StateKey))
			return d.Forge(2, soon, func(f *directory.Forgery) { f.Set("BH", 2, raw); maps.Copy(f.Files(), named) }, online(u, "BH")...)
		}, fault.DirectoryInvalid, "the part of BH"},
		{"a part by another state's key", func() directory.Bundle {
			raw, named := directory.SignPart(2, soon, d.PartFiles("KW"), key(t, u.Keys["BH"], directory.StateKey))
			return d.Forge(2, soon, func(f *directory.Forgery) { f.Set("KW", 2, raw); maps.Copy(f.Files(), named) }, online(u, "BH")...)
		}, fault.DirectoryInvalid, "the part of KW"},
		{"another part of the same version", func() directory.Bundle {
			raw, named := directory.SignPart(1, soon, d.PartFiles("BH"), key(t, u.Keys["BH"], directory.StateKey))
			return d.Forge(2, soon, func(f *directory.Forgery) { f.Set("BH", 1, raw); maps.Copy(f.Files(), named) }, online(u, "BH")...)
		}, fault.DirectoryInvalid, "two different parts"},
		{"no proposal", func() directory.Bundle { return directory.Bundle{} }, fault.DirectoryInvalid, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := tt.make().Encode()
			must(t, err)
			reply, err := d.Cosign(t.Context(), raw)
			wantCode(t, err, tt.code, tt.want)
			if reply != nil || d.View().Version() != 1 {
				t.Error("it signed, or took it over")
			}
		})
	}
	if _, err := reader(u).Cosign(t.Context(), []byte(`{"files":{}}`)); fault.CodeOf(err) != fault.NotAllowed {
		t.Errorf("a party without keys: %v", err)
	}
}

// TestForkHeals: two pairs that cannot see each other publish; when they can,
// nobody's change is lost and nothing is taken back.
func TestForkHeals(t *testing.T) {
	u := directorytest.New(t, four, nil)
	u.Away(true, "", "AE", "KW")
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("west")))
	must(t, u.Dirs["SA"].Refresh(t.Context()))
	u.Away(false, "AE", "KW")
	u.Away(true, "BH", "SA")
	must(t, u.Dirs["AE"].Publish(t.Context(), addSubsystem("east")))
	must(t, u.Dirs["AE"].Publish(t.Context(), addSubsystem("east2")))
	must(t, u.Dirs["KW"].Refresh(t.Context()))
	if a, b := u.Dirs["SA"].View().Version(), u.Dirs["KW"].View().Version(); a != 2 || b != 3 {
		t.Fatalf("versions %d and %d", a, b)
	}
	u.Away(false, "", "BH", "SA")
	for range 8 { // whoever is asked in turn comes up
		u.Refresh()
	}
	for s, d := range u.Dirs {
		if !has(d, "BH", "west") || !has(d, "AE", "east") || !has(d, "AE", "east2") || len(d.View().Problems()) != 0 {
			t.Errorf("%q at version %d: west %v, east %v %v", s, d.View().Version(), has(d, "BH", "west"), has(d, "AE", "east"), has(d, "AE", "east2"))
		}
	}
}

func TestAllPublishAtOnce(t *testing.T) {
	u := directorytest.New(t, four, nil)
	var wg sync.WaitGroup
	for i, s := range four {
		wg.Go(func() {
			for n := range 3 {
				if err := u.Dirs[s].Publish(t.Context(), addSubsystem(fmt.Sprintf("s%d-%d", i, n))); err != nil {
					t.Errorf("%s: %v", s, err)
				}
			}
		})
	}
	wg.Wait()
	u.Refresh()
	for who, d := range u.Dirs {
		for i, s := range four {
			for n := range 3 {
				if !has(d, s, fmt.Sprintf("s%d-%d", i, n)) {
					t.Errorf("%q at version %d misses s%d-%d", who, d.View().Version(), i, n)
				}
			}
		}
	}
}

// TestBadPartAcrossRestart: two parties publish a part that nobody can use.
// The last good one stays, also when the node is started again.
func TestBadPartAcrossRestart(t *testing.T) {
	u := directorytest.New(t, four[:3], nil)
	dir := t.TempDir()
	d := u.Open("", directory.Config{Dir: dir}, nil)
	must(t, d.Refresh(t.Context()))
	bad := u.Dirs["BH"].PartFiles("BH")
	bad["BH/state.json"] = bytes.Replace(bad["BH/state.json"], []byte(`"nodes"`), []byte(`"nodez"`), 1)
	raw, named := directory.SignPart(2, u.Now().Add(time.Hour), bad, key(t, u.Keys["BH"], directory.StateKey))
	b := u.Dirs["BH"].Forge(2, u.Now().Add(time.Hour), func(f *directory.Forgery) { f.Set("BH", 2, raw); maps.Copy(f.Files(), named) }, online(u, "BH", "SA")...)
	for _, d := range append([]*directory.Directory{d}, u.Dirs["BH"], u.Dirs["SA"], u.Dirs["AE"], u.Dirs[""]) {
		must(t, d.Offer(t.Context(), b["timestamp.json"], b))
	}
	for range 2 {
		v := d.View()
		if p := v.Problems(); v.Version() != 2 || len(p) != 1 || p[0].State != "BH" {
			t.Fatalf("version %d, problems %v", v.Version(), p)
		}
		if st, _ := v.State("BH"); len(st.Nodes) != 1 || st.Version != 1 {
			t.Fatalf("BH's last good part is gone: %+v", st)
		}
		d = u.Open("", directory.Config{Dir: dir}, nil)
	}
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("good")))
	must(t, d.Refresh(t.Context()))
	if !has(d, "BH", "good") || len(d.View().Problems()) != 0 {
		t.Errorf("problems %v", d.View().Problems())
	}
}

func TestRevoke(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	_, cert := u.Seal(union.MemberID{State: "BH", Class: "GOV", Code: "interior"})
	sum := directory.Cert{Certificate: cert}.SHA256()
	sealed := u.Now()
	u.Advance(time.Hour)
	wantCode(t, u.Dirs["SA"].Revoke(t.Context(), sum, "keyCompromise"), fault.CertUnknown, "SA")
	wantCode(t, u.Dirs["BH"].Revoke(t.Context(), sum, "boredom"), fault.BadRequest, "keyCompromise")
	must(t, u.Dirs["BH"].Revoke(t.Context(), sum, "keyCompromise"))
	at := u.Now()
	u.Refresh()
	u.Advance(time.Hour)
	must(t, u.Dirs["BH"].Revoke(t.Context(), sum, "superseded")) // the first counts
	u.Refresh()
	for s, d := range u.Dirs {
		c, ok := d.View().Certificate(sum)
		if !ok || c.Revoked == nil || c.Revoked.Reason != "keyCompromise" || !c.Revoked.At.Equal(at) {
			t.Errorf("%q: %+v", s, c.Revoked)
		}
		if err := c.At(sealed); err != nil {
			t.Errorf("what was sealed before: %v", err)
		}
		wantCode(t, c.At(u.Now()), fault.CertRevoked, "keyCompromise")
	}
}

// TestRenew: a union that is left alone for a year goes on: nothing that its
// keys may renew ever runs out, and old certificates overlap with new ones.
func TestRenew(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	first := u.Dirs["BH"].View().Version()
	seals := map[[32]byte]bool{}
	for range 390 / 5 {
		u.Advance(5 * 24 * time.Hour)
		for _, s := range []union.State{"BH", "SA", ""} {
			must(t, u.Dirs[s].Refresh(t.Context()))
			must(t, u.Dirs[s].Renew(t.Context()))
		}
		u.Refresh()
		d := u.Dirs["SA"]
		must(t, d.Fresh("BH", "SA"))
		st, _ := d.View().State("BH")
		if _, err := st.Nodes[0].Current(key(t, u.Keys["BH"], directory.TLSKey).Public(), u.Now()); err != nil {
			t.Fatal(err)
		}
		if n := len(st.Nodes[0].Certificates); n > 4 {
			t.Fatalf("%d certificates of one node", n)
		}
		_, cert := u.Seal(st.Members[0].ID)
		c, ok := d.View().Certificate(directory.Cert{Certificate: cert}.SHA256())
		if !ok || c.At(u.Now()) != nil {
			t.Fatalf("the seal's certificate: %v %v", ok, c.At(u.Now()))
		}
		seals[c.SHA256] = true
		crl, _ := d.View().File("BH", "crl.der")
		if n := parseCRL(t, crl).NextUpdate; n.Before(u.Now()) {
			t.Fatalf("the CRL's next update was at %s", n)
		}
	}
	if len(seals) != 2 {
		t.Errorf("%d seal certificates in 390 days", len(seals))
	}
	if n := u.Dirs["BH"].View().Version() - first; n > 390/3 {
		t.Errorf("%d publications: several parties renew the same", n)
	}
}

// TestWeeksLater: a union that was off for longer than anything of it holds,
// but for its root and authorities, renews itself when it is started.
func TestWeeksLater(t *testing.T) {
	u := directorytest.New(t, four, nil)
	u.Advance(200 * 24 * time.Hour)
	for _, s := range append([]union.State{""}, four...) {
		must(t, u.Dirs[s].Refresh(t.Context()))
		must(t, u.Dirs[s].Renew(t.Context()))
	}
	u.Refresh()
	for s, d := range u.Dirs {
		must(t, d.Fresh(four...))
		if p := d.View().Problems(); len(p) != 0 {
			t.Errorf("%q: %v", s, p)
		}
		for _, st := range d.View().States() {
			if _, err := st.Nodes[0].Current(key(t, u.Keys[st.Code], directory.TLSKey).Public(), u.Now()); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestViewAt: yesterday's directory, also from before a change of the root's
// keys.
func TestViewAt(t *testing.T) {
	u := directorytest.New(t, four, nil)
	d := u.Open("", directory.Config{Dir: t.TempDir()}, nil)
	must(t, d.Refresh(t.Context()))
	must(t, u.Dirs["SA"].Publish(t.Context(), addSubsystem("two")))
	must(t, d.Refresh(t.Context()))
	old := key(t, u.Keys["BH"], directory.StateKey)
	for _, name := range []string{directory.StateKey, directory.OnlineKey, directory.RootKey} {
		u.Keys["BH"].Replace(name)
	}
	replace(t, u, "BH", old)
	must(t, d.Refresh(t.Context()))
	for version, want := range map[int64]bool{1: false, 2: true, 3: true} {
		v, err := d.ViewAt(t.Context(), version)
		must(t, err)
		_, ok := v.Subsystem(union.SubsystemID{MemberID: union.MemberID{State: "SA", Class: "GOV", Code: "interior"}, Subsystem: "two"})
		if v.Version() != version || ok != want || len(v.Problems()) != 0 {
			t.Errorf("version %d is %d: %v, problems %v", version, v.Version(), ok, v.Problems())
		}
	}
	_, err := d.ViewAt(t.Context(), 4)
	wantCode(t, err, fault.NotFound, "4")

	// What others need to follow a version, from the pin on and of one state.
	for version, want := range map[int64][]string{
		2: {"1.root.json", "2.SA.json", "2.snapshot.json", "2.timestamp.json", "1.targets.json", "crl.der", "state.json", "union.json"},
		3: {"1.root.json", "2.root.json", "2.SA.json", "3.snapshot.json", "3.timestamp.json", "2.targets.json", "crl.der", "state.json", "union.json"},
	} {
		files, err := d.Chain(t.Context(), version, "SA", "XX")
		must(t, err)
		var names []string
		for name, b := range files {
			if served, err := d.Serve(t.Context(), name); name != "timestamp.json" && (err != nil || !bytes.Equal(served, b)) {
				t.Errorf("%s is not the file of that name: %v", name, err)
			}
			if i := strings.LastIndex(name, "/"); i >= 0 { // targets/SA/<digest>.state.json
				_, name, _ = strings.Cut(name[i:], ".")
			}
			names = append(names, name)
		}
		slices.Sort(names)
		slices.Sort(want)
		if !slices.Equal(names, want) {
			t.Errorf("version %d takes %q, wanted %q", version, names, want)
		}
	}
	_, err = d.Chain(t.Context(), 4, "SA")
	wantCode(t, err, fault.NotFound, "4")

	// A new node, which trusts the newest root alone, follows from there.
	fresh := u.Open("", directory.Config{Root: d.View().Root()}, nil)
	must(t, fresh.Refresh(t.Context()))
	if fresh.View().Version() != 3 {
		t.Errorf("version %d", fresh.View().Version())
	}
}

// TestPropertyUnion drives a union at random, some parties out of reach at
// each moment. At no node does anything ever go back, and when all see each
// other again every change that was reported as done is everywhere.
func TestPropertyUnion(t *testing.T) {
	all := []union.State{"", "BH", "SA", "AE", "KW"}
	must(t, flag.Set("rapid.checks", "8")) // each makes a union
	rapid.Check(t, func(r *rapid.T) {
		u := directorytest.New(t, four, nil)
		done := map[union.State][]string{}
		versions := map[union.State]int64{}
		for i := range rapid.IntRange(1, 12).Draw(r, "steps") {
			away := rapid.SliceOfDistinct(rapid.SampledFrom(all), func(s union.State) union.State { return s }).Draw(r, "away")
			u.Away(false, all...)
			u.Away(true, away...)
			s := rapid.SampledFrom(all).Draw(r, "who")
			if s != "" && rapid.Bool().Draw(r, "publish") {
				name := fmt.Sprintf("s%d", i)
				if err := u.Dirs[s].Publish(t.Context(), addSubsystem(name)); err == nil {
					done[s] = append(done[s], name)
				}
			} else {
				_ = u.Dirs[s].Refresh(t.Context())
			}
			for s, d := range u.Dirs {
				if v := d.View().Version(); v < versions[s] {
					r.Fatalf("%q went back from %d to %d", s, versions[s], v)
				} else {
					versions[s] = v
				}
			}
		}
		u.Away(false, all...)
		for range 10 {
			u.Advance(time.Minute) // what was refused is looked at again
			u.Refresh()
		}
		want := u.Dirs[""].View().Version()
		for s, d := range u.Dirs {
			if v := d.View(); v.Version() != want || len(v.Problems()) != 0 {
				r.Errorf("%q is at version %d, the secretariat at %d; problems %v", s, v.Version(), want, v.Problems())
			}
			for of, names := range done {
				for _, n := range names {
					if !has(d, of, n) {
						r.Errorf("%q misses %s of %s", s, n, of)
					}
				}
			}
		}
	})
}

// TestCrash stops a node between any two writes of a new version: it starts
// with the old one or with the new one.
func TestCrash(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	dir := t.TempDir()
	d := u.Open("", directory.Config{Dir: dir}, nil)
	must(t, d.Refresh(t.Context()))
	before := copyFolder(t, dir)
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("new")))
	must(t, d.Refresh(t.Context()))
	var written []string
	must(t, filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, p)
		if err == nil && !e.IsDir() {
			if a, err := os.ReadFile(filepath.Join(before, name)); err != nil || !bytes.Equal(a, read(t, p)) {
				written = append(written, name)
			}
		}
		return err
	}))
	if !slices.Contains(written, "timestamp.json") || len(written) < 4 {
		t.Fatalf("written: %v", written)
	}
	// timestamp.json is last, the others in any order.
	for i, name := range written {
		if name == "timestamp.json" {
			continue
		}
		at := copyFolder(t, before)
		for _, n := range append(written[:i:i], written[i+1:]...) {
			if n == "timestamp.json" {
				continue
			}
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(at, n)), 0o755))
			must(t, os.WriteFile(filepath.Join(at, n), read(t, filepath.Join(dir, n)), 0o644))
		}
		must(t, os.WriteFile(filepath.Join(at, ".new-123"), []byte("half"), 0o600))
		d := u.Open("", directory.Config{Dir: at}, nil)
		if v := d.View().Version(); v != 1 {
			t.Errorf("without %s: version %d", name, v)
		}
		must(t, d.Refresh(t.Context()))
		if !has(d, "BH", "new") {
			t.Errorf("without %s: it does not recover", name)
		}
	}
	// A file that cannot be written: timestamp.json is not touched.
	at := copyFolder(t, before)
	must(t, os.MkdirAll(filepath.Join(at, "2.BH.json", "x"), 0o755))
	stuck := u.Open("", directory.Config{Dir: at}, nil)
	_ = stuck.Refresh(t.Context()) // the other peer has no news
	if stuck.View().Version() != 1 || !bytes.Equal(read(t, filepath.Join(at, "timestamp.json")), read(t, filepath.Join(before, "timestamp.json"))) {
		t.Errorf("version %d in memory, or timestamp.json changed", stuck.View().Version())
	}
	must(t, os.Truncate(filepath.Join(dir, "2.snapshot.json"), 100))
	_, err := directory.Open(t.Context(), directory.Config{Dir: dir, Root: u.Root, Demonstration: true}, directory.Deps{Now: u.Now})
	wantCode(t, err, fault.DirectoryInvalid, "fetches it anew")
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return b
}

// TestLeaving: a state goes, with its keys, members and vote.
func TestLeaving(t *testing.T) {
	u := directorytest.New(t, four, nil)
	dr, err := u.Dirs["SA"].Draft()
	must(t, err)
	wantCode(t, dr.RemoveState("QA"), fault.UnknownState, "QA")
	must(t, dr.RemoveState("BH"))
	must(t, dr.SetThreshold(2))
	wantCode(t, dr.Sign(key(t, &directorytest.Keys{}, directory.RootKey)), fault.NotAllowed, "no vote")
	vote(t, u, dr)
	must(t, u.Dirs["SA"].Install(t.Context(), dr))
	for _, s := range []union.State{"", "SA", "AE", "KW"} {
		must(t, u.Dirs[s].Refresh(t.Context()))
		v := u.Dirs[s].View()
		if _, ok := v.State("BH"); ok || len(v.States()) != 3 || len(v.Problems()) != 0 {
			t.Errorf("%q: %d states, problems %v", s, len(v.States()), v.Problems())
		}
		if _, ok := v.Member(union.MemberID{State: "BH", Class: "GOV", Code: "interior"}); ok {
			t.Errorf("%q: BH's member stays", s)
		}
	}
	// Its keys sign no snapshot any more.
	b := u.Dirs["SA"].Forge(9, u.Now().Add(time.Hour), nil, online(u, "BH", "AE")...)
	wantCode(t, u.Dirs["KW"].Offer(t.Context(), b["timestamp.json"], b), fault.DirectoryInvalid, "not enough")
}

func BenchmarkUnion(b *testing.B) {
	for b.Loop() {
		directorytest.New(b, []union.State{"BH", "SA", "AE", "KW", "OM", "QA", "EG"}, nil)
	}
}

func BenchmarkRefreshUnchanged(b *testing.B) {
	u := directorytest.New(b, four, nil)
	for b.Loop() {
		must(b, u.Dirs["BH"].Refresh(b.Context()))
	}
}

func BenchmarkPublish(b *testing.B) {
	u := directorytest.New(b, []union.State{"BH", "SA", "AE", "KW", "OM", "QA", "EG"}, nil)
	n := 0
	for b.Loop() {
		n++
		must(b, u.Dirs["BH"].Publish(b.Context(), func(e *directory.Edition) error {
			e.Members[0].Name.En = fmt.Sprint(n)
			return nil
		}))
	}
}
