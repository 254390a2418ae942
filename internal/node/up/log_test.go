package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// trust is whom a state's log is held against, as its directory says.
func (p *played) trust(s union.State) merkle.Trust {
	p.t.Helper()
	v := p.union.nodes[0].Directory().View()
	u := witness.Union{Quorum: v.Quorum(), Parties: []witness.Party{{State: witness.Secretariat, Witness: v.Witness()}}}
	for _, x := range v.States() {
		u.Parties = append(u.Parties, witness.Party{State: x.Code, Log: x.Log.Key, Witness: x.Log.Witness})
	}
	trust, ok := u.Trust(s)
	if !ok {
		p.t.Fatalf("no log of %s", s)
	}
	return trust
}

// fetch reads from a state's log as everybody may.
func (p *played) fetch(s union.State) witness.Get {
	return func(ctx context.Context, path string) ([]byte, error) {
		resp, err := http.Get(p.at(s).Public + "/log/" + path)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != 200 {
			err = fmt.Errorf("%s: %s", resp.Status, b)
		}
		return b, err
	}
}

// TestPublicLog: calls are in both states' logs within seconds, cosigned by
// the others; anybody recomputes a log from what it serves, and a witness
// answers as C2SP says.
func TestPublicLog(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA", "AE")
	for range 3 {
		if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons"); resp.StatusCode != 200 {
			t.Fatalf("%s %s", resp.Status, body)
		}
	}
	for _, s := range []union.State{"BH", "SA"} {
		var a witness.Audited
		var err error
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && (err != nil || a.Entries < 6); time.Sleep(50 * time.Millisecond) {
			a, err = witness.Audit(t.Context(), p.fetch(s), p.trust(s))
		}
		if err != nil || a.Entries < 6 || a.Head.Witnesses() < 1 {
			t.Fatalf("%s: %+v, %v", s, a, err)
		}
	}
	if _, err := witness.Audit(t.Context(), p.fetch("BH"), p.trust("SA")); fault.CodeOf(err) != fault.LogUnsigned {
		t.Errorf("BH's log under SA's key: %v", err)
	}

	// What the calls' messages promised was found in both logs, and is no alarm.
	for _, s := range []union.State{"BH", "SA"} {
		var a node.Alarms
		for end := time.Now().Add(20 * time.Second); a.Settled < 6 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if err := p.admin(s).Query(t.Context(), "alarms", nil, &a); err != nil {
				t.Fatal(err)
			}
		}
		if a.Settled < 6 || len(a.Alarms)+len(a.Silent) > 0 {
			t.Errorf("%s: %+v", s, a)
		}
	}

	get := func(path string) (*http.Response, string) {
		return ask(t, http.DefaultTransport, p.at("BH").Public+path)
	}
	for path, want := range map[string]string{
		"/log/checkpoint":           "200 text/plain; charset=utf-8 max-age=1",
		"/log/tile/0/000.p/2":       "200 application/octet-stream public, max-age=31536000, immutable",
		"/log/tile/entries/000.p/2": "200 application/octet-stream public, max-age=31536000, immutable",
		"/log/tile/0/000":           "404 text/plain; charset=utf-8 no-store",
		"/log/tile/0/000.p/200":     "404 text/plain; charset=utf-8 no-store",
		"/log/tile/0/0":             "404 text/plain; charset=utf-8 no-store",
		"/log/":                     "404 text/plain; charset=utf-8 no-store",
		"/log/add-checkpoint":       "404 text/plain; charset=utf-8 no-store",
	} {
		resp, _ := get(path)
		if got := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Content-Type"), " ", resp.Header.Get("Cache-Control")); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	if resp, _ := get("/r1/BH"); resp.StatusCode != 404 {
		t.Errorf("the public door leads elsewhere: %s", resp.Status)
	}

	checkpoint, err := p.fetch("BH")(t.Context(), "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	head, err := merkle.OpenCheckpoint(checkpoint, p.trust("BH").Log)
	if err != nil {
		t.Fatal(err)
	}
	submit := func(at union.State, body string) (int, string, string) {
		resp, err := http.Post(p.at(at).Public+"/log/add-checkpoint", "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
	}
	again := string(merkle.Submission{Old: head.Size, Note: checkpoint}.Bytes())
	if status, _, body := submit("SA", again); status != 200 {
		t.Errorf("what it cosigned before: %d %s", status, body)
	} else if s, err := merkle.OpenCheckpoint([]byte(string(head.Note())+body), p.trust("BH").Log, p.trust("BH").Witnesses...); err != nil || s.Witnesses() != 1 {
		t.Errorf("its cosignature: %+v, %v", s, err)
	}
	if status, kind, body := submit("SA", string(merkle.Submission{Old: 0, Note: checkpoint}.Bytes())); status != 409 || kind != "text/x.tlog.size" || body != fmt.Sprintf("%d\n", head.Size) {
		t.Errorf("from where it is not: %d %s %q", status, kind, body)
	}
	if status, _, _ := submit("BH", again); status != 404 {
		t.Errorf("its own log: %d", status)
	}
	if status, _, _ := submit("SA", "old 0\n\nx"); status != 404 {
		t.Errorf("nonsense: %d", status)
	}
	if status, _, _ := submit("SA", again+strings.Repeat("x", merkle.MaxSubmission)); status != 400 {
		t.Errorf("too much: %d", status)
	}
	if err := errors.Join(p.stop()); err != nil {
		t.Error(err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestCallReceipt: an answer names its evidence and waits for its receipt; the
// receipt verifies by the directory's keys alone, for caller and provider, and
// says what a union of two is worth. Where no witness answers, the answer
// comes without.
func TestCallReceipt(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA")
	const path = "BH/GOV/interior/civil/registry"
	resp, body := p.call("SA", path, "/persons", "X-Road-Id: first", "Falaj-Receipt: wait")
	if resp.StatusCode != 200 || resp.Header.Get("Falaj-Evidence") != "first" || resp.Header.Get("Falaj-Receipt") != "cosigned" {
		t.Fatalf("%s %v %s", resp.Status, resp.Header, body)
	}
	if resp, _ := p.call("SA", path, "/persons"); resp.Header.Get("Falaj-Evidence") == "" || resp.Header.Get("Falaj-Receipt") != "" {
		t.Errorf("unasked: %v", resp.Header)
	}
	if resp, body := p.call("SA", path, "/persons", "Falaj-Receipt: now"); resp.StatusCode != 400 || code(body) != fault.BadHeader {
		t.Errorf("another word: %s %s", resp.Status, body)
	}
	receipt := func(of union.State, id, client string) (*http.Response, exchange.CallReceipt) {
		resp, body := ask(t, http.DefaultTransport, p.at(of).R1+"/evidence/"+id+"/receipt", "X-Road-Client: "+client)
		var r exchange.CallReceipt
		if resp.StatusCode == 200 {
			if err := json.Unmarshal([]byte(body), &r); err != nil {
				t.Fatal(err)
			}
		}
		return resp, r
	}
	for _, of := range []union.State{"SA", "BH"} {
		var r exchange.CallReceipt
		if of == "SA" {
			if resp, r = receipt(of, "first", p.at("SA").Client); resp.StatusCode != 200 {
				t.Fatal(resp.Status)
			}
		} else { // whose records the call did not wait for
			for end := time.Now().Add(10 * time.Second); r.ID == "" && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				err := p.admin(of).Query(t.Context(), "receipt", url.Values{"id": {"first"}}, &r)
				if refusal, ok := err.(*admin.Refusal); err != nil && (!ok || refusal.Code != fault.ReceiptPending) {
					t.Fatal(err)
				}
			}
		}
		other := map[union.State]union.State{"SA": "BH", "BH": "SA"}[of]
		q := r.Quorum
		if r.Stage != "cosigned" && r.Stage != "stamped" || len(r.Records) != 2 || q.Needed != 1 || q.Met < 1 || q.Others != 2 || len(q.Witnesses) != q.Met {
			t.Errorf("%s: %+v", of, r)
		}
		independent := false
		for _, x := range q.Witnesses {
			independent = independent || x.State == witness.Secretariat
			if x.State != witness.Secretariat && x.State != other {
				t.Errorf("%s: cosigned by %s", of, x.State)
			}
		}
		if strings.Contains(q.Note.En, "two states") == independent || strings.Contains(q.Note.Ar, "دولتين") == independent {
			t.Errorf("%s: %+v", of, q)
		}
		for _, x := range r.Records {
			proof, err := merkle.ParseReceipt([]byte(x.Proof))
			if err != nil || proof.Index != x.Leaf {
				t.Fatalf("%s: %v", of, err)
			}
			if s, err := proof.Verify(x.Hash[:], p.trust(of)); err != nil || s.Witnesses() < 1 {
				t.Errorf("%s, %s: %v", of, x.Kind, err)
			}
		}
	}
	if resp, _ := receipt("SA", "none", p.at("SA").Client); resp.StatusCode != 404 {
		t.Errorf("of no call: %s", resp.Status)
	}
	if resp, _ := receipt("BH", "first", p.at("BH").Client); resp.StatusCode != 404 {
		t.Errorf("of another's call: %s", resp.Status)
	}
}

// TestSecretariatWitness: the secretariat's witness, which the directory names,
// cosigns every state's log beside the states', says what it has seen, and
// takes alarms that a state has signed.
func TestSecretariatWitness(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA")
	if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons"); resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	own := p.union.nodes[0].Directory().View().Witness()
	for _, s := range []union.State{"BH", "SA"} {
		trust := p.trust(s)
		trust.Witnesses = []merkle.Key{own}
		var err error
		var a witness.Audited
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if a, err = witness.Audit(t.Context(), p.fetch(s), trust); err == nil && a.Entries > 0 && a.Head.Witnesses() == 1 {
				break
			}
		}
		if err != nil || a.Head.Witnesses() != 1 {
			t.Errorf("%s: %+v, %v", s, a.Head, err)
		}
	}
	at := p.union.secretariat.Address() + "/witness/"
	resp, heads := ask(t, http.DefaultTransport, at+"heads")
	if resp.StatusCode != 200 || len(witness.Known("secretariat", []byte(heads), p.trust("BH").Log)) != 1 {
		t.Errorf("what it has seen: %s %s", resp.Status, heads)
	}
	post := func(path, body string) int {
		resp, err := http.Post(at+path, "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := post("add-checkpoint", "old 0\n\nx"); got != 404 {
		t.Errorf("nonsense: %d", got)
	}
	if got := post("alarm", "falaj alarm v1\n{}\n\n— x y\n"); got != 400 {
		t.Errorf("an alarm of nobody: %d", got)
	}
	if got := post("alarm", strings.Repeat("x", 1<<20)); got != 400 {
		t.Errorf("an endless alarm: %d", got)
	}
	keys, err := seal.OpenKeys(filepath.Join(p.union.folder("BH"), "keys"), seal.KeyConfig{Demonstration: true})
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.Signer("log")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := merkle.NewSigner(p.trust("BH").Log.Name(), merkle.LogSignature, key)
	if err != nil {
		t.Fatal(err)
	}
	note, err := witness.Alarm{From: "BH", Of: "SA", Kind: witness.AlarmLate, At: time.Now().UTC(), Count: 1}.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	if got := post("alarm", string(note)); got != 204 {
		t.Errorf("a true alarm: %d", got)
	}
	if resp, _ := ask(t, http.DefaultTransport, p.union.secretariat.Address()+"/timestamp.json"); resp.StatusCode != 200 {
		t.Errorf("the directory: %s", resp.Status)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// TestQuantumWitness: a state has its witness cosign with ML-DSA-44 as well;
// the other states' logs take it, receipts tell of it, and it is taken away.
func TestQuantumWitness(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA")
	p.change("SA", "log.mldsa", node.Quantum{On: true})
	s, _ := p.union.nodes[0].Directory().View().State("SA")
	if s.Log.Quantum.Name() != s.Log.Witness.Name() || s.Log.Quantum.Kind() != merkle.Quantum {
		t.Fatalf("the directory names %v", s.Log.Quantum)
	}
	trust := p.trust("BH")
	trust.Witnesses = []merkle.Key{s.Log.Witness, s.Log.Quantum}
	var a witness.Audited
	var err error
	for end := time.Now().Add(30 * time.Second); a.Head.Quantum() != 1 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons"); resp.StatusCode != 200 {
			t.Fatalf("%s %s", resp.Status, body)
		}
		a, err = witness.Audit(t.Context(), p.fetch("BH"), trust)
	}
	if err != nil || a.Head.Quantum() != 1 || a.Head.Witnesses() != 1 {
		t.Errorf("%+v, %v", a.Head, err)
	}
	var keys []node.Key
	if err := p.admin("SA").Query(t.Context(), "keys", nil, &keys); err != nil || !slices.ContainsFunc(keys, func(k node.Key) bool { return k.Name == "witness-mldsa" }) {
		t.Errorf("the keys: %+v, %v", keys, err)
	}
	p.change("SA", "log.mldsa", node.Quantum{})
	if s, _ := p.union.nodes[0].Directory().View().State("SA"); s.Log.Quantum != (merkle.Key{}) || s.Log.Witness == (merkle.Key{}) {
		t.Errorf("it is still there: %+v", s.Log)
	}
}

// TestLaterLog: a running union whose states have no logs, time-stamp
// authorities or overseer of the secretariat's gets them by ordinary
// administration, and its calls have receipts with all three.
func TestLaterLog(t *testing.T) {
	dir := t.TempDir()
	p := play(t, dir, Deps{}, "BH", "SA")
	root := func(change func(*directory.Draft) error) {
		t.Helper()
		draft, err := p.union.nodes[0].Directory().Draft()
		must(t, err)
		must(t, change(draft))
		for _, s := range []union.State{"BH", "SA"} {
			x := &party{state: s, dir: filepath.Join(dir, string(s))}
			must(t, x.open())
			key, err := x.keys.Signer(directory.RootKey)
			must(t, err)
			must(t, draft.Sign(key))
		}
		b, err := draft.Encode()
		must(t, err)
		p.change("BH", "directory.install", node.Draft{Draft: string(b)})
		p.heard()
	}
	root(func(d *directory.Draft) error { return d.SetWitness(merkle.Key{}) })
	for i, s := range []union.State{"BH", "SA"} {
		for _, key := range []string{directory.LogKey, directory.WitnessKey, directory.StampKey} {
			must(t, os.Remove(filepath.Join(dir, string(s), "keys", key+".pem")))
		}
		must(t, p.union.nodes[i].Directory().Publish(t.Context(), func(e *directory.Edition) error {
			delete(e.Files, "log.json")
			e.Stamps = nil
			return nil
		}))
	}
	p.heard()
	if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons", "X-Road-Id: before"); resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	var r exchange.CallReceipt
	if err := p.admin("SA").Query(t.Context(), "receipt", url.Values{"id": {"before"}}, &r); err == nil {
		t.Errorf("a receipt without a log: %+v", r)
	}

	for _, s := range []union.State{"BH", "SA"} {
		p.change(s, "log.open", node.LogOpen{Public: p.at(s).Public + "/"})
	}
	secretariat := &party{dir: filepath.Join(dir, "secretariat")}
	must(t, secretariat.open())
	overseer, err := directory.SecretariatWitness(logHost, secretariat.keys)
	must(t, err)
	root(func(d *directory.Draft) error { return errors.Join(d.SetWitness(overseer), d.SetQuorum(2)) })
	if resp, body := p.call("SA", "BH/GOV/interior/civil/registry", "/persons", "X-Road-Id: after"); resp.StatusCode != 200 {
		t.Fatalf("%s %s", resp.Status, body)
	}
	for _, id := range []string{"before", "after"} {
		r := stamped(t, p.admin("SA"), id)
		if r.Quorum.Met != 2 || len(r.Quorum.Witnesses) != 2 || r.Records[0].Stamp.State != "BH" {
			t.Errorf("%s: %+v", id, r)
		}
	}
	s, _ := p.union.nodes[1].Directory().View().State("BH")
	if s.Log.Address != p.at("BH").Public+"/log" || len(s.Stamps) != 1 || s.Stamps[0].Address != p.at("BH").Public+"/tsa" {
		t.Errorf("%+v %+v", s.Log, s.Stamps)
	}
	if _, err := witness.Audit(t.Context(), p.fetch("BH"), p.trust("BH")); err != nil {
		t.Error(err)
	}
	p.change("BH", "log.open", node.LogOpen{UnionOnly: true})
	key := s.Log.Key
	if s, _ := p.union.nodes[0].Directory().View().State("BH"); s.Log.Address != "" || s.Log.Key != key || s.Stamps[0].Address != "" {
		t.Errorf("%+v %+v", s.Log, s.Stamps)
	}
	_, err = p.admin("BH").Change(t.Context(), "log.open", node.LogOpen{Public: "nowhere"}, nil)
	wantRefusal(t, err, fault.BadRequest)
}
