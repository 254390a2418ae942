package directory_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// TestFoundApart founds a union of parties who never meet: the draft alone
// goes from one to the next, as bytes.
func TestFoundApart(t *testing.T) {
	t.Parallel()
	kit := directorytest.New(t, []union.State{"BH", "SA", "KW"}, nil) // its keys and authorities
	online := func(s union.State) *directorytest.Keys { return kit.Keys[s] }
	secretariat, err := online("").Signer(directory.OnlineKey)
	must(t, err)
	dr, err := directory.Found(directory.Founding{Name: "Apart", Demonstration: true, Threshold: 2, Secretariat: secretariat.Public(), Now: kit.Now()})
	must(t, err)
	for _, s := range []union.State{"BH", "SA", "KW"} {
		must(t, dr.AddState(kit.Enrol(s, 1, nil)))
	}
	var root []byte
	folders := map[union.State]string{}
	at := func(s union.State, keys directory.Keys) *directory.Directory {
		t.Helper()
		if folders[s] == "" {
			folders[s] = t.TempDir()
		}
		d, err := directory.Open(t.Context(), directory.Config{Dir: folders[s], Root: root, State: s, Demonstration: true}, directory.Deps{Now: kit.Now, Keys: keys})
		must(t, err)
		return d
	}
	carry := func() {
		t.Helper()
		raw, err := dr.Encode()
		must(t, err)
		dr, err = directory.DecodeDraft(raw)
		must(t, err)
	}
	vote := func(s union.State) error {
		key, err := kit.Keys[s].Signer(directory.RootKey)
		must(t, err)
		carry()
		return dr.Sign(key)
	}
	enact := func(s union.State, keys directory.Keys) (*directory.Directory, bool, error) {
		t.Helper()
		carry()
		d := at(s, keys)
		done, err := d.Enact(t.Context(), dr)
		return d, done, err
	}
	before, err := dr.Fingerprint()
	must(t, err)
	must(t, vote("BH"))
	root, err = dr.Root()
	must(t, err)
	_, _, err = enact("BH", online("BH"))
	wantCode(t, err, fault.DirectoryInvalid, "1 of the 2")
	must(t, vote("SA"))
	if after, err := dr.Fingerprint(); err != nil || after != before {
		t.Errorf("%s before and %s after the votes: %v", before, after, err)
	}
	root, err = dr.Root()
	must(t, err)

	// Who is no party signs nothing.
	_, _, err = enact("QA", &directorytest.Keys{})
	wantCode(t, err, fault.NotAllowed, "no party")
	_, done, err := enact("BH", online("BH"))
	if must(t, err); done || dr.Parties() != 1 {
		t.Error("one party is enough")
	}
	_, done, err = enact("BH", online("BH"))
	if must(t, err); done {
		t.Error("one party signed for two")
	}
	wantCode(t, vote("KW"), fault.DirectoryConflict, "no more")

	// It lay for too long: it is signed anew, as a later version, since nobody
	// signs two of one.
	kit.Advance(8 * 24 * time.Hour)
	_, done, err = enact("BH", online("BH"))
	if must(t, err); done {
		t.Error("one party signed for two")
	}
	changed := *dr
	d, done, err := enact("", online(""))
	if must(t, err); !done || d.View().Version() != 2 || d.Fresh() != nil {
		t.Errorf("in force: %v, version %d, %v", done, d.View().Version(), d.Fresh())
	}
	wantCode(t, func() error { _, err := d.Enact(t.Context(), &changed); return err }(), fault.DirectoryConflict, "")

	// All others take it over, those without keys too; twice is once.
	for s, keys := range map[union.State]directory.Keys{"BH": online("BH"), "SA": online("SA"), "KW": nil} {
		for range 2 {
			d, done, err := enact(s, keys)
			if must(t, err); !done || d.View().Version() != 2 {
				t.Errorf("%s: %v, version %d", s, done, d.View().Version())
			}
		}
	}

	// From here on they change it as ever.
	b := at("SA", online("SA"))
	a, err := directory.Open(t.Context(), directory.Config{Dir: folders["BH"], Root: root, State: "BH", Demonstration: true},
		directory.Deps{Now: kit.Now, Keys: online("BH"), Peers: func() []directory.Peer {
			return []directory.Peer{{State: "SA", Fetcher: b, Cosign: b.Cosign}}
		}})
	must(t, err)
	must(t, a.Publish(t.Context(), func(e *directory.Edition) error { e.Nodes[0].Address = "127.0.0.1:2"; return nil }))
	if b.View().Version() != 3 {
		t.Errorf("version %d", b.View().Version())
	}
}

// TestOpeningTampered: what travels in the draft is verified by whoever signs
// or takes it over.
func TestOpeningTampered(t *testing.T) {
	t.Parallel()
	kit := directorytest.New(t, []union.State{"BH", "SA"}, nil)
	dr, err := directory.Found(directory.Founding{Name: "Apart", Demonstration: true, Threshold: 2, Now: kit.Now()})
	must(t, err)
	for _, s := range []union.State{"BH", "SA"} {
		must(t, dr.AddState(kit.Enrol(s, 1, nil)))
	}
	for _, s := range []union.State{"BH", "SA"} {
		key, err := kit.Keys[s].Signer(directory.RootKey)
		must(t, err)
		must(t, dr.Sign(key))
	}
	root, err := dr.Root()
	must(t, err)
	open := func(s union.State) *directory.Directory {
		d, err := directory.Open(t.Context(), directory.Config{Root: root, State: s, Demonstration: true}, directory.Deps{Now: kit.Now, Keys: kit.Keys[s]})
		must(t, err)
		return d
	}
	_, err = open("BH").Enact(t.Context(), dr)
	must(t, err)
	good, err := dr.Encode()
	must(t, err)
	for name, edit := range map[string]func(map[string]string){
		"no snapshot":     func(f map[string]string) { delete(f, "1.snapshot.json") },
		"another version": func(f map[string]string) { f["2.snapshot.json"] = f["1.snapshot.json"]; delete(f, "1.snapshot.json") },
		"no JSON":         func(f map[string]string) { f["timestamp.json"] = "[" },
		"an empty stamp":  func(f map[string]string) { f["timestamp.json"] = f["1.snapshot.json"] },
		"another part":    func(f map[string]string) { f["1.BH.json"] = f["1.SA.json"] },
	} {
		var doc struct {
			Files map[string]string `json:"files"`
			Data  map[string][]byte `json:"data,omitempty"`
		}
		must(t, json.Unmarshal(good, &doc))
		edit(doc.Files)
		raw, err := json.Marshal(doc)
		must(t, err)
		if dr, err := directory.DecodeDraft(raw); err == nil {
			d := open("SA")
			done, err := d.Enact(t.Context(), dr)
			if err == nil || done || d.View().Version() != 0 {
				t.Errorf("%s: taken: %v", name, err)
			}
		}
	}
}
