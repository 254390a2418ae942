package directory_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io/fs"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

var four = []union.State{"BH", "SA", "AE", "KW"}

func online(u *directorytest.Union, states ...union.State) []crypto.Signer {
	var keys []crypto.Signer
	for _, s := range states {
		k, err := u.Keys[s].Signer(directory.OnlineKey)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
}

func key(t testing.TB, k *directorytest.Keys, name string) crypto.Signer {
	t.Helper()
	s, err := k.Signer(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// addSubsystem is a small change that can be seen.
func addSubsystem(code string) func(*directory.Edition) error {
	return func(e *directory.Edition) error {
		e.Members[0].Subsystems = append(e.Members[0].Subsystems, directory.Subsystem{Code: code, Name: directorytest.Text(code)})
		return nil
	}
}

func has(d *directory.Directory, s union.State, code string) bool {
	_, ok := d.View().Subsystem(union.SubsystemID{MemberID: union.MemberID{State: s, Class: "GOV", Code: "interior"}, Subsystem: code})
	return ok
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, code fault.Code, part string) {
	t.Helper()
	if fault.CodeOf(err) != code || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, wanted %s with %q", err, code, part)
	}
}

// reader is a node that signs nothing: it cannot heal what it is shown.
func reader(u *directorytest.Union) *directory.Directory {
	return u.Open("", directory.Config{}, nil)
}

// TestForgedReleases: whoever holds some keys makes a release with them and
// shows it to a node that has version 2 already.
func TestForgedReleases(t *testing.T) {
	u := directorytest.New(t, four, nil)
	first := u.Dirs["BH"].Files()
	bh := u.Dirs["BH"]
	must(t, bh.Publish(t.Context(), addSubsystem("traffic")))
	u.Refresh()
	other := directorytest.New(t, four, nil)
	soon := u.Now().Add(time.Hour)
	colluding := online(u, "SA", "AE")

	tests := []struct {
		name string
		make func() directory.Bundle
		want string // part of the error; "" where the node quietly stays
	}{
		{"an older release", func() directory.Bundle { return first }, ""},
		{"one signature", func() directory.Bundle { return bh.Forge(3, soon, nil, colluding[0]) }, "not enough signatures"},
		{"one signature twice", func() directory.Bundle {
			b := bh.Forge(3, soon, nil, colluding[0], colluding[0])
			ts := string(b["timestamp.json"])
			i, j := strings.Index(ts, `"signatures":[`)+14, strings.Index(ts, `],"signed"`)
			b["timestamp.json"] = []byte(ts[:j] + "," + ts[i:j] + ts[j:])
			return b
		}, "multiple signatures"},
		{"a key of the state's part instead of the online one", func() directory.Bundle {
			return bh.Forge(3, soon, nil, colluding[0], key(t, u.Keys["AE"], directory.StateKey))
		}, "not enough signatures"},
		{"another union's", func() directory.Bundle { return other.Dirs["BH"].Forge(9, soon, nil, online(other, "BH", "SA")...) }, "not enough signatures"},
		{"rollback of a part", func() directory.Bundle {
			return bh.Forge(3, soon, func(f *directory.Forgery) {
				raw := first["1.BH.json"]
				f.Set("BH", 1, raw)
				maps.Copy(f.Files(), first)
			}, colluding...)
		}, "rollback"},
		{"removal of a part", func() directory.Bundle {
			return bh.Forge(3, soon, func(f *directory.Forgery) { delete(f.Meta(), "BH.json") }, colluding...)
		}, "rollback"},
		{"another release of the same version", func() directory.Bundle { return bh.Forge(2, soon, nil, colluding...) }, "rollback"},
		{"mix: a role's file is of another version", func() directory.Bundle {
			b := bh.Forge(3, soon, func(f *directory.Forgery) { f.Meta()["BH.json"].Version = 9 }, colluding...)
			b["9.BH.json"] = first["1.BH.json"]
			return b
		}, "BH.json"},
		{"mix: the snapshot is of another time-stamp", func() directory.Bundle {
			b := bh.Forge(3, soon, nil, colluding...)
			b["3.snapshot.json"] = bh.Forge(3, soon.Add(time.Hour), nil, colluding...)["3.snapshot.json"]
			return b
		}, "not the snapshot"},
		{"made under another root", func() directory.Bundle {
			return bh.Forge(3, soon, func(f *directory.Forgery) { f.Meta()["root.json"].Version = 7 }, colluding...)
		}, "root"},
		{"targets of the forgers' own", func() directory.Bundle {
			return bh.Forge(3, soon, func(f *directory.Forgery) { f.Set("targets", 2, first["1.targets.json"]) }, colluding...)
		}, "targets"},
		{"null where an object is expected", func() directory.Bundle {
			return bh.Forge(3, soon, func(f *directory.Forgery) {
				raw, _ := directory.SignPart(9, soon, nil, key(t, u.Keys["SA"], directory.StateKey))
				f.Set("SA", 9, bytes.Replace(raw, []byte(`"targets":{}`), []byte(`"targets":{"SA/x":null}`), 1))
			}, colluding...)
		}, "problem SA"},
		{"a state's part under another state's path", func() directory.Bundle {
			return bh.Forge(3, soon, func(f *directory.Forgery) {
				files := bh.PartFiles("SA")
				files["BH/state.json"] = files["SA/state.json"]
				raw, named := directory.SignPart(9, soon, files, key(t, u.Keys["SA"], directory.StateKey))
				f.Set("SA", 9, raw)
				maps.Copy(f.Files(), named)
			}, colluding...)
		}, "problem SA"},
		{"another state's part under the own path", func() directory.Bundle {
			return bh.Forge(3, soon, func(f *directory.Forgery) {
				files := map[string][]byte{"SA/state.json": bh.PartFiles("BH")["BH/state.json"]}
				raw, named := directory.SignPart(9, soon, files, key(t, u.Keys["SA"], directory.StateKey))
				f.Set("SA", 9, raw)
				maps.Copy(f.Files(), named)
			}, colluding...)
		}, "problem SA"},
		{"a part signed by another state's key", func() directory.Bundle {
			return bh.Forge(3, soon, func(f *directory.Forgery) {
				raw, named := directory.SignPart(9, soon, bh.PartFiles("BH"), key(t, u.Keys["SA"], directory.StateKey))
				f.Set("BH", 9, raw)
				maps.Copy(f.Files(), named)
			}, colluding...)
		}, "problem BH"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := reader(u)
			must(t, d.Refresh(t.Context()))
			before := d.View()
			b := tt.make()
			err := d.Offer(t.Context(), b["timestamp.json"], b)
			state, isProblem := strings.CutPrefix(tt.want, "problem ")
			switch {
			case isProblem:
				// The signers of the release were wrong, and a state's key
				// is bad: the harm stays with that state, whose last good
				// part stays.
				must(t, err)
				v := d.View()
				if p := v.Problems(); v.Version() != 3 || len(p) != 1 || p[0].State != union.State(state) {
					t.Errorf("version %d, problems %v", v.Version(), v.Problems())
				}
				for _, s := range four {
					st, _ := v.State(s)
					old, _ := before.State(s)
					if len(st.Members) != 1 || st.Version != old.Version {
						t.Errorf("%s has %d members, version %d after %d", s, len(st.Members), st.Version, old.Version)
					}
				}
				return
			case tt.want == "":
				must(t, err)
			default:
				wantCode(t, err, fault.DirectoryInvalid, tt.want)
			}
			if d.View() != before {
				t.Errorf("the node took it: version %d", d.View().Version())
			}
		})
	}
}

// TestTampered changes each file of a release in the middle: none is believed.
func TestTampered(t *testing.T) {
	u := directorytest.New(t, four[:2], func(s union.State, e *directory.Edition) {
		e.Policy = `@id("all") @en("All") @ar("الكل") permit(principal, action, resource);`
	})
	files := u.Dirs["BH"].Files()
	root := directory.Versioned(1, "root")
	for name, whole := range files {
		if name == root || name == "1.timestamp.json" {
			continue // the pin; the archive's copy of timestamp.json
		}
		t.Run(name, func(t *testing.T) {
			for _, at := range []int{0, len(whole) / 3, len(whole) / 2, len(whole) - 2} {
				b := maps.Clone(files)
				changed := bytes.Clone(whole)
				changed[at] ^= 1
				b[name] = changed
				d, err := directory.Open(t.Context(), directory.Config{Root: u.Root, Demonstration: true}, directory.Deps{Now: u.Now})
				must(t, err)
				if err := d.Offer(t.Context(), b["timestamp.json"], b); err == nil {
					t.Errorf("byte %d of %d changed, and it was believed", at, len(whole))
				}
			}
			b := maps.Clone(files)
			delete(b, name)
			if _, err := directory.LoadFrom(u.Root, b["timestamp.json"], b); err == nil {
				t.Error("it is gone, and nobody missed it")
			}
		})
	}
}

func TestAnotherUnionsFolder(t *testing.T) {
	u, other := directorytest.New(t, four[:2], nil), directorytest.New(t, four[:2], nil)
	dir := t.TempDir()
	d := other.Open("", directory.Config{Dir: dir}, nil)
	must(t, d.Refresh(t.Context()))
	_, err := directory.Open(t.Context(), directory.Config{Dir: dir, Root: u.Root, Demonstration: true}, directory.Deps{Now: u.Now})
	wantCode(t, err, fault.DirectoryInvalid, "another union")
}

func TestDemonstrationRefused(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	_, err := directory.Open(t.Context(), directory.Config{Root: u.Root}, directory.Deps{Now: u.Now})
	wantCode(t, err, fault.DemoRefused, "demonstration")
}

// TestFreeze: nobody signs any more. The last directory is served until it
// expires, is loaded after that, and is renewed by whoever has keys.
func TestFreeze(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	dir := t.TempDir()
	d := u.Open("", directory.Config{Dir: dir}, nil)
	must(t, d.Refresh(t.Context()))
	must(t, d.Fresh("BH", "SA"))
	u.Advance(directory.StampLife + time.Second)
	must(t, d.Refresh(t.Context()))
	wantCode(t, d.Fresh(), fault.DirectoryExpired, "expired")
	d = u.Open("", directory.Config{Dir: dir}, nil)
	wantCode(t, d.Fresh(), fault.DirectoryExpired, "expired")
	if _, ok := d.View().State("BH"); !ok {
		t.Error("the expired directory is not there to be renewed from")
	}
	must(t, u.Dirs["SA"].Renew(t.Context()))
	must(t, d.Refresh(t.Context()))
	must(t, d.Fresh("BH", "SA"))

	// A part that its state does not renew expires by itself.
	u.Keys["BH"].Missing = []string{directory.StateKey, directory.OnlineKey}
	for range 30 {
		u.Advance(2 * 24 * time.Hour)
		for _, s := range []union.State{"", "SA", "BH"} {
			must(t, u.Dirs[s].Refresh(t.Context()))
			must(t, u.Dirs[s].Renew(t.Context()))
		}
	}
	u.Advance(24 * time.Hour)
	must(t, d.Refresh(t.Context()))
	must(t, d.Fresh("SA"))
	wantCode(t, d.Fresh("SA", "BH"), fault.DirectoryExpired, "part of BH")
}

// endless is a source that never stops: it looks at no limit.
type endless struct{ directory.Fetcher }

func (e endless) Fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	b, err := e.Fetcher.Fetch(ctx, name, limit)
	if err != nil {
		return nil, err
	}
	return append(bytes.Clone(b), make([]byte, limit)...), nil
}

func TestEndlessData(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	d := reader(u)
	err := d.Offer(t.Context(), u.Dirs["BH"].Files()["timestamp.json"], endless{u.Dirs["BH"]})
	wantCode(t, err, fault.DirectoryInvalid, "bytes")
	err = d.Offer(t.Context(), make([]byte, 1<<20), u.Dirs["BH"])
	wantCode(t, err, fault.DirectoryInvalid, "bytes")
	err = u.Dirs["BH"].Publish(t.Context(), func(e *directory.Edition) error {
		for _, n := range []string{"a", "b", "c"} {
			e.Files[n+".bin"] = make([]byte, 4<<20)
		}
		return nil
	})
	wantCode(t, err, fault.DirectoryInvalid, "at most 8388608")
}

// TestWeakPin: a root by which one party alone could sign snapshots is none.
func TestWeakPin(t *testing.T) {
	u := directorytest.New(t, four[:3], nil) // k = 2
	for n := range 4 {
		parts := bytes.Split(u.Root, []byte(`"threshold":2`))
		if len(parts) != 5 {
			t.Fatalf("%d thresholds", len(parts)-1)
		}
		weak := bytes.Join(parts[:n+1], []byte(`"threshold":2`))
		weak = append(append(weak, []byte(`"threshold":0`)...), bytes.Join(parts[n+1:], []byte(`"threshold":2`))...)
		_, err := directory.Open(t.Context(), directory.Config{Root: weak, Demonstration: true}, directory.Deps{Now: u.Now})
		wantCode(t, err, fault.DirectoryInvalid, "root")
	}
	one := bytes.ReplaceAll(u.Root, []byte(`"threshold":2`), []byte(`"threshold":1`))
	_, err := directory.Open(t.Context(), directory.Config{Root: one, Demonstration: true}, directory.Deps{Now: u.Now})
	wantCode(t, err, fault.DirectoryInvalid, "fewer than 2")
}

// TestOddDelegations: even k of n states give no state more than its own path.
func TestOddDelegations(t *testing.T) {
	u := directorytest.New(t, four, nil)
	for name, edit := range map[string]func(r *directory.DelegatedRole){
		"not terminating":  func(r *directory.DelegatedRole) { r.Terminating = false },
		"a wider path":     func(r *directory.DelegatedRole) { r.Paths = append(r.Paths, "*/*") },
		"another's path":   func(r *directory.DelegatedRole) { r.Paths = []string{"SA/*", "SA/*/*"} },
		"no path":          func(r *directory.DelegatedRole) { r.Paths = nil },
		"hash bins":        func(r *directory.DelegatedRole) { r.PathHashPrefixes = []string{""}; r.Paths = nil },
		"two keys":         func(r *directory.DelegatedRole) { r.KeyIDs = append(r.KeyIDs, r.KeyIDs[0]) },
		"no key":           func(r *directory.DelegatedRole) { r.KeyIDs = []string{} },
		"a threshold of 0": func(r *directory.DelegatedRole) { r.Threshold = 0 },
		"a threshold of 2": func(r *directory.DelegatedRole) { r.Threshold = 2 },
		"of nobody":        func(r *directory.DelegatedRole) { r.Name = "QA" },
	} {
		t.Run(name, func(t *testing.T) {
			dr, err := u.Dirs["SA"].Draft()
			must(t, err)
			edit(dr.Delegation("BH"))
			vote(t, u, dr)
			wantCode(t, u.Dirs["SA"].Install(t.Context(), dr), fault.DirectoryInvalid, "")
			for s, d := range u.Dirs {
				if v := d.View().Version(); v != 1 {
					t.Errorf("%q took it: version %d", s, v)
				}
			}
		})
	}
}

// TestStolenStateKey: a thief with BH's state key publishes, with the help of
// parties who cannot know, until the key is replaced.
func TestStolenStateKey(t *testing.T) {
	u := directorytest.New(t, four, nil)
	thief := u.Keys["BH"].Clone()
	evil := u.Open("BH", directory.Config{}, thief)
	must(t, evil.Refresh(t.Context()))
	must(t, evil.Publish(t.Context(), addSubsystem("thief")))
	u.Refresh()
	for s, d := range u.Dirs {
		if !has(d, "BH", "thief") || len(d.View().Problems()) != 0 {
			t.Errorf("%s: the thief's change to BH's own part is not there: %v", s, d.View().Problems())
		}
	}
	old := key(t, u.Keys["BH"], directory.StateKey)
	for _, name := range []string{directory.StateKey, directory.OnlineKey, directory.RootKey} {
		u.Keys["BH"].Replace(name)
	}
	replace(t, u, "BH", old)
	for s, d := range u.Dirs {
		if has(d, "BH", "thief") || len(d.View().Problems()) != 0 {
			t.Errorf("%s: thief's change %v, problems %v", s, has(d, "BH", "thief"), d.View().Problems())
		}
	}
	if err := evil.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := evil.Publish(t.Context(), addSubsystem("again"))
	wantCode(t, err, fault.DirectoryInvalid, "another key")

	// Even if two others sign what the thief made by hand.
	raw, named := directory.SignPart(50, u.Now().Add(time.Hour), evil.PartFiles("BH"), key(t, thief, directory.StateKey))
	b := u.Dirs["SA"].Forge(50, u.Now().Add(time.Hour), func(f *directory.Forgery) {
		f.Set("BH", 50, raw)
		maps.Copy(f.Files(), named)
	}, online(u, "SA", "AE")...)
	d := u.Dirs["KW"]
	must(t, d.Offer(t.Context(), b["timestamp.json"], b))
	if p := d.View().Problems(); len(p) != 1 || p[0].State != "BH" || has(d, "BH", "again") {
		t.Errorf("problems %v", p)
	}
	st, _ := d.View().State("BH")
	if len(st.Members) != 1 {
		t.Error("BH's last good part is gone")
	}
}

// replace gives a state new keys by a ceremony of all states.
func replace(t testing.TB, u *directorytest.Union, s union.State, old crypto.Signer) {
	t.Helper()
	must(t, tryReplace(t, u, s, old))
	u.Refresh()
}

// tryReplace tries it with the old key's word, or without (nil).
func tryReplace(t testing.TB, u *directorytest.Union, s union.State, old crypto.Signer) error {
	t.Helper()
	must(t, u.Dirs["SA"].Refresh(t.Context()))
	dr, err := u.Dirs["SA"].Draft()
	must(t, err)
	n := u.Enrol(s, u.Dirs["SA"].RoleVersion(string(s))+1, nil)
	if old != nil {
		n.Succession, err = directory.Succeed(u.Name, s, old, key(t, u.Keys[s], directory.StateKey).Public())
		must(t, err)
	}
	must(t, dr.AddState(n))
	vote(t, u, dr)
	return u.Dirs["SA"].Install(t.Context(), dr)
}

func vote(t testing.TB, u *directorytest.Union, dr *directory.Draft) {
	t.Helper()
	for _, s := range []union.State{"SA", "AE", "KW"} {
		must(t, dr.Sign(key(t, u.Keys[s], directory.RootKey)))
	}
}

// TestSilentReplacement: k of n states name another key for a state, and
// nothing says that the state wants it.
func TestSilentReplacement(t *testing.T) {
	u := directorytest.New(t, four, nil)
	own := u.Keys["BH"]
	u.Keys["BH"] = &directorytest.Keys{} // made by the others
	err := tryReplace(t, u, "BH", nil)
	wantCode(t, err, fault.DirectoryInvalid, "replaced neither")

	// Announced, but not for seven days.
	dr, err := u.Dirs["SA"].Draft()
	must(t, err)
	must(t, dr.Announce("BH", pem(t, u.Keys["BH"])))
	vote(t, u, dr)
	must(t, u.Dirs["SA"].Install(t.Context(), dr))
	u.Refresh()
	step := func(days int) {
		for range days {
			u.Advance(24 * time.Hour)
			for _, s := range []union.State{"", "SA", "AE", "KW"} {
				must(t, u.Dirs[s].Refresh(t.Context()))
				must(t, u.Dirs[s].Renew(t.Context()))
			}
		}
	}
	step(6)
	err = tryReplace(t, u, "BH", nil)
	wantCode(t, err, fault.DirectoryInvalid, "replaced neither")

	// A node that sleeps through the announcement counts from when it sees
	// it: until then BH's last good part stays.
	late := u.Open("", directory.Config{}, nil)
	must(t, late.Offer(t.Context(), u.Dirs["SA"].Files()["timestamp.json"], u.Dirs["SA"]))
	step(2)
	must(t, tryReplace(t, u, "BH", nil))
	for _, s := range []union.State{"", "SA", "AE", "KW"} {
		must(t, u.Dirs[s].Refresh(t.Context()))
		if p := u.Dirs[s].View().Problems(); len(p) != 0 {
			t.Errorf("%s: %v", s, p)
		}
	}
	must(t, late.Offer(t.Context(), u.Dirs["SA"].Files()["timestamp.json"], u.Dirs["SA"]))
	if p := late.View().Problems(); len(p) != 1 || p[0].State != "BH" {
		t.Errorf("the late node: %v", p)
	}
	if st, _ := late.View().State("BH"); len(st.Members) != 1 {
		t.Error("the late node lost BH's last good part")
	}

	// BH itself, with its own key, never believes it.
	d := u.Open("BH", directory.Config{}, own)
	must(t, d.Refresh(t.Context()))
	if p := d.View().Problems(); len(p) != 1 || !strings.Contains(p[0].Detail, "than this node holds") {
		t.Errorf("BH's own node: %v", p)
	}
}

// TestForgedSuccession: a word that the old key did not give.
func TestForgedSuccession(t *testing.T) {
	u := directorytest.New(t, four, nil)
	old := key(t, u.Keys["BH"], directory.StateKey)
	u.Keys["BH"] = &directorytest.Keys{}
	now := key(t, u.Keys["BH"], directory.StateKey)
	succeed := func(name string, s union.State, by crypto.Signer) *directory.Succession {
		w, err := directory.Succeed(name, s, by, now.Public())
		must(t, err)
		return w
	}
	honest := succeed(u.Name, "BH", old)
	forged := succeed(u.Name, "BH", now)
	forged.Old = honest.Old
	elsewhere := succeed("Another union", "BH", old)
	otherState := succeed(u.Name, "SA", old)
	otherState.State = "BH"
	otherKey, err := directory.Succeed(u.Name, "BH", old, old.Public())
	must(t, err)
	otherKey.Key = honest.Key
	for name, w := range map[string]*directory.Succession{
		"signed by the new key": forged, "of another union": elsewhere, "of another state": otherState, "for another key": otherKey,
	} {
		dr, err := u.Dirs["SA"].Draft()
		must(t, err)
		n := u.Enrol("BH", 2, nil)
		n.Succession = w
		must(t, dr.AddState(n))
		vote(t, u, dr)
		err = u.Dirs["SA"].Install(t.Context(), dr)
		wantCode(t, err, fault.DirectoryInvalid, "replaced neither")
		if t.Failed() {
			t.Fatal(name)
		}
	}
	dr, err := u.Dirs["SA"].Draft()
	must(t, err)
	n := u.Enrol("BH", 2, nil)
	n.Succession = honest
	must(t, dr.AddState(n))
	vote(t, u, dr)
	must(t, u.Dirs["SA"].Install(t.Context(), dr))
}

// TestOldPartUnderNewKey: what the old key signed is not taken over when the
// new key is in force, though the file is the same.
func TestOldPartUnderNewKey(t *testing.T) {
	u := directorytest.New(t, four, nil)
	old := key(t, u.Keys["BH"], directory.StateKey)
	u.Keys["BH"].Replace(directory.StateKey)
	dr, err := u.Dirs["SA"].Draft()
	must(t, err)
	for _, name := range []string{directory.OnlineKey, directory.RootKey} {
		u.Keys["BH"].Replace(name)
	}
	n := u.Enrol("BH", 2, nil)
	n.Succession, err = directory.Succeed(u.Name, "BH", old, key(t, u.Keys["BH"], directory.StateKey).Public())
	must(t, err)
	must(t, dr.AddState(n))
	vote(t, u, dr)
	raw, err := dr.Encode()
	must(t, err)
	files, err := directory.DecodeBundle(raw)
	must(t, err)
	b := u.Dirs["SA"].Forge(2, u.Now().Add(time.Hour), func(f *directory.Forgery) {
		maps.Copy(f.Files(), files)
		f.Meta()["root.json"].Version = 2
		f.Set("targets", 2, files["2.targets.json"])
	}, online(u, "SA", "AE")...)
	d := u.Dirs["KW"]
	must(t, d.Offer(t.Context(), b["timestamp.json"], b))
	if p := d.View().Problems(); d.View().Version() != 2 || len(p) != 1 || p[0].State != "BH" || !strings.Contains(p[0].Detail, "not enough signatures") {
		t.Errorf("version %d, problems %v", d.View().Version(), p)
	}
}

func pem(t testing.TB, k *directorytest.Keys) string {
	t.Helper()
	p, err := directory.PublicPEM(key(t, k, directory.StateKey).Public())
	must(t, err)
	return p
}

func TestAbsentSecretariat(t *testing.T) {
	u := directorytest.New(t, four, nil)
	u.Away(true, "")
	must(t, u.Dirs["SA"].Publish(t.Context(), addSubsystem("alone")))
	for _, s := range four {
		must(t, u.Dirs[s].Refresh(t.Context()))
		if !has(u.Dirs[s], "SA", "alone") {
			t.Errorf("%s does not see the change", s)
		}
	}
	u.Away(true, "BH", "AE", "KW")
	err := u.Dirs["SA"].Publish(t.Context(), addSubsystem("nobody"))
	wantCode(t, err, fault.DirectoryUnsigned, "nobody")

	// It comes back, and is brought up to date before it signs again.
	u.Away(false, "", "BH", "AE", "KW")
	must(t, u.Dirs["KW"].Publish(t.Context(), addSubsystem("together")))
	if d := u.Dirs[""]; !has(d, "SA", "alone") || !has(d, "KW", "together") {
		t.Error("the secretariat is behind")
	}
}

func TestOneVoteShort(t *testing.T) {
	u := directorytest.New(t, four, nil) // k = 3
	dr, err := u.Dirs["SA"].Draft()
	must(t, err)
	for _, s := range four[:2] {
		must(t, dr.Sign(key(t, u.Keys[s], directory.RootKey)))
	}
	wantCode(t, u.Dirs["SA"].Install(t.Context(), dr), fault.DirectoryInvalid, "2 of the 3")
	wantCode(t, dr.Sign(key(t, u.Keys["SA"], directory.StateKey)), fault.NotAllowed, "no vote")

	// Two parties that publish it all the same are not believed.
	raw, err := dr.Encode()
	must(t, err)
	b, err := directory.DecodeBundle(raw)
	must(t, err)
	forged := u.Dirs["SA"].Forge(2, u.Now().Add(time.Hour), func(f *directory.Forgery) {
		maps.Copy(f.Files(), b)
		f.Set("targets", 2, b["2.targets.json"])
		f.Meta()["root.json"].Version = 2
	}, online(u, "SA", "AE")...)
	wantCode(t, u.Dirs["KW"].Offer(t.Context(), forged["timestamp.json"], forged), fault.DirectoryInvalid, "not enough signatures")
}

// TestSharedKeys: two parties with one key would be one signature.
func TestSharedKeys(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	dr, err := u.Dirs["SA"].Draft()
	must(t, err)
	u.Keys["KW"] = u.Keys["BH"].Clone()
	if err := dr.AddState(u.Enrol("KW", 1, nil)); err == nil || !strings.Contains(err.Error(), "another party's") {
		t.Error(err)
	}
}

func TestServe(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	d := u.Open("", directory.Config{Dir: t.TempDir()}, nil)
	must(t, d.Refresh(t.Context()))
	for _, name := range []string{"", "local.json", "held/BH.json", "../timestamp.json", "targets/../local.json", "targets/BH/../../x", "/etc/passwd", "0.root.json", "1.bh.json", "2.root.json"} {
		_, err := d.Serve(t.Context(), name)
		wantCode(t, err, fault.NotFound, "")
		if _, err := d.Fetch(t.Context(), name, 10); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name := range d.Files() {
		if _, err := d.Serve(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
