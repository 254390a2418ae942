package directory_test

import (
	"bytes"
	"context"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// sealed is what a good message of a state's first member says of itself now.
func sealed(u *directorytest.Union, s union.State) directory.Named {
	id := union.MemberID{State: s, Class: "GOV", Code: "interior"}
	_, cert := u.Seal(id)
	return directory.Named{
		Version: u.Dirs[s].View().Version(), Union: u.Name, State: s, Member: id,
		Cert: directory.Cert{Certificate: cert}.SHA256(), At: u.Now(),
	}
}

// wantProof wants no error where no code is given.
func wantProof(t *testing.T, err error, code fault.Code, part string) {
	t.Helper()
	if code == "" {
		must(t, err)
		return
	}
	wantCode(t, err, code, part)
}

// TestProve: a seal is taken by the version that its message names, and by
// nothing else that the node knows.
func TestProve(t *testing.T) {
	u := directorytest.New(t, four[:3], nil)
	bh, sa := u.Dirs["BH"], u.Dirs["SA"]
	office := union.MemberID{State: "BH", Class: "GOV", Code: "office"}
	end := sa.View().Expires()
	must(t, bh.Publish(t.Context(), func(e *directory.Edition) error { // 2
		e.Members = append(e.Members, u.Member("BH", "GOV", "office"))
		return nil
	}))
	first := sealed(u, "BH")
	first.Version = 1
	second := first
	second.Version = 2
	late := second
	_, cert := u.Seal(office)
	late.Member, late.Cert = office, directory.Cert{Certificate: cert}.SHA256()
	must(t, bh.Revoke(t.Context(), first.Cert, "superseded"))     // 3
	must(t, bh.Publish(t.Context(), addSubsystem("a")))           // 4
	must(t, u.Dirs["SA"].Publish(t.Context(), addSubsystem("b"))) // 5
	u.Refresh()

	for name, c := range map[string]struct {
		version int64
		change  func(*directory.Named)
		seal    directory.Named
		code    fault.Code
		why     string
	}{
		"of the newest":                {5, nil, late, "", ""},
		"of one before":                {4, nil, late, "", ""},
		"of the first with it":         {2, nil, late, "", ""},
		"not listed yet":               {1, nil, late, fault.SealInvalid, "does not list"},
		"another member's":             {4, func(n *directory.Named) { n.Member.Code = "interior" }, late, fault.SealInvalid, "does not list"},
		"any member's":                 {4, func(n *directory.Named) { n.Member = union.MemberID{} }, late, "", ""},
		"another state's":              {4, func(n *directory.Named) { n.State = "SA" }, late, fault.SealInvalid, "does not list"},
		"of a state that is none":      {4, func(n *directory.Named) { n.State = "OM" }, late, fault.SealInvalid, "proves nothing"},
		"another union's":              {4, func(n *directory.Named) { n.Union = "other" }, late, fault.SealInvalid, "another name"},
		"another union's, newest":      {5, func(n *directory.Named) { n.Union = "other" }, late, fault.SealInvalid, "another name"},
		"before it was revoked":        {2, nil, first, "", ""},
		"revoked there":                {4, nil, first, fault.SealInvalid, "revoked"},
		"revoked there, sealed before": {4, func(n *directory.Named) { n.At = n.At.Add(-time.Minute) }, first, "", ""},
		"when it had just expired":     {2, func(n *directory.Named) { n.At = end.Add(time.Second) }, late, fault.SealInvalid, "expired"},
		"when it was to expire":        {2, func(n *directory.Named) { n.At = end }, late, "", ""},
		"the newest, expired":          {5, func(n *directory.Named) { n.At = end.Add(time.Second) }, late, fault.SealInvalid, "expired"},
		"of a version to come":         {6, nil, late, fault.DirectoryUnknown, "does not hold it"},
	} {
		t.Run(name, func(t *testing.T) {
			n := c.seal
			n.Version = c.version
			if c.change != nil {
				c.change(&n)
			}
			for range 2 { // looked up, then remembered
				wantProof(t, sa.Prove(t.Context(), sa.View(), n), c.code, c.why)
			}
		})
	}
}

// TestProveBrokenPart: two parties sign a version in which a state's part
// cannot be followed; nodes hold on to its last good one. By the version itself
// nobody could judge the state's seals, so its messages name the one before. A
// part that only this program cannot read, others may: its seals are looked at.
func TestProveBrokenPart(t *testing.T) {
	u := directorytest.New(t, four[:3], nil)
	files := u.Dirs["BH"].PartFiles("BH")
	newer := maps.Clone(files)
	newer["BH/state.json"] = bytes.Replace(files["BH/state.json"], []byte(`"nodes"`), []byte(`"of-a-later-version": 1, "nodes"`), 1)
	foreign, bad := newer, newer
	for _, c := range []struct {
		name  string
		key   union.State
		files map[string][]byte
		code  fault.Code
	}{
		{"a field of a later version", "BH", newer, ""},
		{"signed by another", "SA", foreign, fault.SealInvalid},
		{"without its seals", "BH", func() map[string][]byte {
			bad = maps.Clone(newer)
			bad["BH/state.json"] = bytes.Replace(newer["BH/state.json"], []byte(`"seals"`), []byte(`"seal"`), 1)
			return bad
		}(), fault.SealInvalid},
		{"nonsense", "BH", map[string][]byte{"BH/state.json": []byte("[")}, fault.SealInvalid},
		{"an authority that is missing", "BH", map[string][]byte{"BH/state.json": []byte(`{"state":"BH","authorities":[{}]}`)}, fault.SealInvalid},
		{"a seal that is missing", "BH", map[string][]byte{"BH/state.json": []byte(`{"state":"BH","members":[{"seals":[null]}]}`)}, fault.SealInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := reader(u)
			must(t, d.Refresh(t.Context()))
			n := sealed(u, "BH")
			raw, named := directory.SignPart(2, u.Now().Add(time.Hour), c.files, key(t, u.Keys[c.key], directory.StateKey))
			b := u.Dirs["BH"].Forge(2, u.Now().Add(time.Hour), func(f *directory.Forgery) { f.Set("BH", 2, raw); maps.Copy(f.Files(), named) }, online(u, "BH", "SA")...)
			must(t, d.Offer(t.Context(), b["timestamp.json"], b))
			v := d.View()
			if v.Version() != 2 || len(v.Problems()) != 1 || v.Proves("BH") != 1 || v.Proves("SA") != 2 {
				t.Fatalf("version %d, problems %v, BH's seals by %d, SA's by %d", v.Version(), v.Problems(), v.Proves("BH"), v.Proves("SA"))
			}
			must(t, d.Prove(t.Context(), v, n))
			n.Version = 2
			wantProof(t, d.Prove(t.Context(), v, n), c.code, "")
			other := sealed(u, "SA")
			other.Version = 2
			must(t, d.Prove(t.Context(), v, other))
		})
	}
}

// TestProveExpiredPart: the state's own part may end before the version does.
func TestProveExpiredPart(t *testing.T) {
	u := directorytest.New(t, four[:3], nil)
	raw, named := directory.SignPart(2, u.Now().Add(time.Hour), u.Dirs["BH"].PartFiles("BH"), key(t, u.Keys["BH"], directory.StateKey))
	b := u.Dirs["BH"].Forge(2, u.Now().Add(2*time.Hour), func(f *directory.Forgery) { f.Set("BH", 2, raw); maps.Copy(f.Files(), named) }, online(u, "BH", "SA")...)
	for _, d := range u.Dirs {
		must(t, d.Offer(t.Context(), b["timestamp.json"], b))
	}
	n := sealed(u, "BH")
	sa := u.Dirs["SA"]
	for i := range 2 { // the newest, then one before
		n.At = u.Now().Add(time.Hour)
		must(t, sa.Prove(t.Context(), sa.View(), n))
		n.At = n.At.Add(time.Second)
		wantCode(t, sa.Prove(t.Context(), sa.View(), n), fault.SealInvalid, "expired")
		if i == 0 {
			must(t, sa.Publish(t.Context(), addSubsystem("a")))
		}
	}
}

// counted counts what is fetched of a peer by names that end so.
func counted(p directory.Peer, n *atomic.Int64, end string) directory.Peer {
	p.Fetcher = fetcher(func(ctx context.Context, f directory.Fetcher, name string, limit int64) ([]byte, error) {
		if strings.HasSuffix(name, end) {
			n.Add(1)
		}
		return f.Fetch(ctx, name, limit)
	}).of(p.Fetcher)
	return p
}

type fetcher func(context.Context, directory.Fetcher, string, int64) ([]byte, error)

type through struct {
	f  fetcher
	to directory.Fetcher
}

func (f fetcher) of(to directory.Fetcher) directory.Fetcher { return through{f, to} }

func (t through) Fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	return t.f(ctx, t.to, name, limit)
}

// TestReach: a version that a message names and the node has not is fetched,
// once for all that name it; one that there is not costs next to nothing,
// whoever names it how often.
func TestReach(t *testing.T) {
	u := directorytest.New(t, four[:3], nil)
	var asked atomic.Int64
	d, err := directory.Open(t.Context(), directory.Config{Root: u.Root, Demonstration: true}, directory.Deps{Now: u.Now, Peers: func() (out []directory.Peer) {
		for _, p := range u.Peers("") {
			out = append(out, counted(p, &asked, "timestamp.json"))
		}
		return out
	}})
	must(t, err)
	must(t, d.Refresh(t.Context()))
	reach := func(version int64, by union.State) (failed int64) {
		var wg sync.WaitGroup
		var n atomic.Int64
		asked.Store(0)
		for range 50 {
			wg.Go(func() {
				if err := d.Reach(t.Context(), version, by); err != nil {
					wantCode(t, err, fault.DirectoryUnknown, "")
					n.Add(1)
				}
			})
		}
		wg.Wait()
		return n.Load()
	}
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("a"))) // 2
	if failed := reach(2, "BH"); failed != 0 || asked.Load() != 1 || d.View().Version() != 2 {
		t.Errorf("%d failed, %d questions, version %d", failed, asked.Load(), d.View().Version())
	}
	all := int64(len(u.Peers("")))
	if failed := reach(1<<60, "SA"); failed != 50 || asked.Load() > all+1 {
		t.Errorf("%d failed, %d questions", failed, asked.Load())
	}
	if failed := reach(3, "SA"); failed != 50 || asked.Load() != 0 {
		t.Errorf("again at once: %d failed, %d questions", failed, asked.Load())
	}
	// Others do not suffer from it, and it is forgiven after a while.
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("b"))) // 3
	if failed := reach(3, "BH"); failed != 0 || asked.Load() != 1 {
		t.Errorf("for BH: %d failed, %d questions", failed, asked.Load())
	}
	u.Advance(11 * time.Second)
	must(t, u.Dirs["SA"].Publish(t.Context(), addSubsystem("c"))) // 4
	if failed := reach(4, "SA"); failed != 0 || asked.Load() != 1 {
		t.Errorf("later: %d failed, %d questions", failed, asked.Load())
	}
	// Who is not reached himself, others may speak for.
	must(t, u.Dirs["SA"].Publish(t.Context(), addSubsystem("d"))) // 5
	must(t, u.Dirs["AE"].Refresh(t.Context()))
	u.Away(true, "SA")
	if failed := reach(5, "SA"); failed != 0 {
		t.Errorf("by way of others: %d failed", failed)
	}
}

// TestSkippedVersion: a node that came from one version to the one after the
// next fetches what lies between when a message names it, once, and keeps it:
// later it takes nobody to show the evidence.
func TestSkippedVersion(t *testing.T) {
	u := directorytest.New(t, four[:3], nil)
	dir := t.TempDir()
	open := func() *directory.Directory { return u.Open("", directory.Config{Dir: dir}, nil) }
	d := open()
	must(t, d.Refresh(t.Context()))
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("a"))) // 2
	n := sealed(u, "BH")
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("b"))) // 3
	u.Refresh()
	must(t, d.Refresh(t.Context()))
	u.Away(true, "BH", "SA", "AE")
	wantCode(t, d.Prove(t.Context(), d.View(), n), fault.DirectoryUnknown, "")
	u.Away(false, "BH", "SA", "AE")
	wantCode(t, d.Prove(t.Context(), d.View(), n), fault.DirectoryUnknown, "does not hold it") // in vain a moment ago
	u.Advance(11 * time.Second)
	must(t, d.Prove(t.Context(), d.View(), n))
	u.Away(true, "BH", "SA", "AE")
	d = open()
	must(t, d.Prove(t.Context(), d.View(), n))
	if files, err := d.Chain(t.Context(), 2, "BH"); err != nil || files["2.timestamp.json"] == nil {
		t.Errorf("%d files, %v", len(files), err)
	}
}

// TestProveBounded: a state that goes through all versions that ever were has
// only so many read in a minute; what is known stays free, and others do not
// suffer.
func TestProveBounded(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	for i := range 40 {
		must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("s"+strings.Repeat("x", i))))
	}
	u.Refresh()
	sa := u.Dirs["SA"]
	prove := func(s union.State, version int64) fault.Code {
		n := sealed(u, s)
		n.Version = version
		return fault.CodeOf(sa.Prove(t.Context(), sa.View(), n))
	}
	refused := 0
	for v := int64(1); v <= 40; v++ {
		if prove("BH", v) == fault.DirectoryUnknown {
			refused++
		}
	}
	if refused != 40-32 || prove("BH", 1) != "" || prove("SA", 40) != "" || prove("BH", 41) != "" {
		t.Errorf("%d refused; %q %q %q", refused, prove("BH", 1), prove("SA", 40), prove("BH", 41))
	}
	u.Advance(time.Minute)
	if c := prove("BH", 40); c != "" {
		t.Errorf("a minute later: %s", c)
	}
}

func BenchmarkProve(b *testing.B) {
	u := directorytest.New(b, four, nil)
	n := sealed(u, "BH")
	must(b, u.Dirs["BH"].Publish(b.Context(), addSubsystem("a")))
	u.Refresh()
	d := u.Dirs["SA"]
	for name, version := range map[string]int64{"newest": 2, "known": 1} {
		n.Version = version
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must(b, d.Prove(b.Context(), d.View(), n))
			}
		})
	}
}
