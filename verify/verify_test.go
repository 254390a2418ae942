package verify

import (
	"bytes"
	"context"
	"crypto/ed25519"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/mldsa"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a union with calls to prove.
type world struct {
	*directorytest.Union
	t               testing.TB
	logs, witnesses map[union.State]merkle.Signer
	seconds         map[union.State]merkle.Signer // the witnesses', of ML-DSA-44
	company         int                           // messages sealed together with each
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, logs: map[union.State]merkle.Signer{}, witnesses: map[union.State]merkle.Signer{}, seconds: map[union.State]merkle.Signer{}}
	w.Union = directorytest.New(t, []union.State{"BH", "SA", "AE"}, func(s union.State, e *directory.Edition) {
		for to, kind := range map[*map[union.State]merkle.Signer]merkle.Kind{&w.logs: merkle.LogSignature, &w.witnesses: merkle.Cosignature} {
			_, key, err := ed25519.GenerateKey(cryptorand.Reader)
			must(t, err)
			(*to)[s], err = merkle.NewSigner(directory.LogName("log.example", s, fmt.Sprintf("k%d", kind)), kind, key)
			must(t, err)
		}
		key, err := mldsa.GenerateKey(mldsa.MLDSA44())
		must(t, err)
		w.seconds[s], err = merkle.NewSigner(w.witnesses[s].Name(), merkle.Quantum, key)
		must(t, err)
		must(t, e.SetLog(directory.Log{Key: w.logs[s].Key, Witness: w.witnesses[s].Key, Quantum: w.seconds[s].Key}))
	})
	return w
}

// together lets all states seal many messages at once.
func (w *world) together() {
	w.t.Helper()
	for _, s := range []union.State{"BH", "SA", "AE"} {
		must(w.t, w.Dirs[s].Publish(w.t.Context(), func(e *directory.Edition) error { e.Batch = true; return nil }))
	}
	for _, d := range w.Dirs {
		must(w.t, d.Refresh(w.t.Context()))
	}
}

// receipt proves a record that is alone in its state's log.
func (w *world) receipt(r *evidence.Record, log merkle.Signer, witnesses ...merkle.Signer) {
	w.t.Helper()
	text := merkle.Checkpoint{Origin: log.Name(), Size: 1, Root: merkle.Leaf(r.Hash[:])}.Text()
	note := text + "\n"
	for _, s := range append([]merkle.Signer{log}, witnesses...) {
		line, err := s.Line(text, w.Now())
		must(w.t, err)
		note += line
	}
	r.Receipt = merkle.Receipt{Index: r.Leaf, Note: []byte(note)}.Bytes()
}

var (
	client  = union.SubsystemID{MemberID: union.MemberID{State: "SA", Class: "GOV", Code: "interior"}, Subsystem: "desk"}
	service = union.ServiceID{SubsystemID: union.SubsystemID{MemberID: union.MemberID{State: "BH", Class: "GOV", Code: "interior"}, Subsystem: "desk"}, Service: "things"}
)

// message seals a head and a body as a member does, and puts the directory of
// the version that the head names beside it.
func (w *world) message(part seal.Part, by union.MemberID, head map[string]any, body string, files map[string][]byte) *evidence.Message {
	w.t.Helper()
	d := w.Dirs[by.State]
	maps.Copy(head, map[string]any{
		"type": []string{typeRequest, typeAnswer}[part], "union": w.Name, "id": "id-1", "request_id": "try-1",
		"client": client.String(), "service": service.String(), "directory": d.View().Version(),
	})
	m := &evidence.Message{}
	var digest *seal.Digest
	if body != "" {
		sum := sha256.Sum256([]byte(body))
		digest = &sum
		head["body"] = map[string]any{"size": len(body), "sha256": hex.EncodeToString(sum[:])}
		m.Body = &evidence.Body{Size: int64(len(body)), SHA256: sum, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }}
	}
	var err error
	m.Head, err = json.Marshal(head)
	must(w.t, err)
	key, cert := w.Seal(by)
	batch := [][]byte{seal.Manifest(part, sha256.Sum256(m.Head), digest)}
	for i := range w.company {
		batch = append(batch, seal.Manifest(part, seal.Digest{byte(i)}, nil))
	}
	seals, err := seal.SignBatch(key, cert, part, batch, w.Now())
	must(w.t, err)
	m.Seal, err = seals[0].AppendBinary(nil)
	must(w.t, err)
	p, err := d.View().Part(by.State)
	must(w.t, err)
	m.Cert, m.Authority = cert, p.Authorities[0].Certificate.Certificate
	m.CRL, _ = d.View().File(by.State, p.Authorities[0].CRL)
	chain, err := d.Chain(w.t.Context(), d.View().Version(), by.State)
	must(w.t, err)
	maps.Copy(files, chain)
	return m
}

// call is a request with its answer; change may alter the answer's head.
func (w *world) call(change func(answer map[string]any)) evidence.Call {
	w.t.Helper()
	c := evidence.Call{ID: "id-1", Union: w.Name, Directory: map[string][]byte{}}
	c.Request = w.message(seal.Request, client.MemberID, map[string]any{}, "question", c.Directory)
	sum := sha256.Sum256(seal.Manifest(seal.Request, sha256.Sum256(c.Request.Head), &c.Request.Body.SHA256))
	answer := map[string]any{"request": hex.EncodeToString(sum[:]), "status": 200}
	if change != nil {
		change(answer)
	}
	c.Answer = w.message(seal.Answer, service.MemberID, answer, "answer", c.Directory)
	envelope := append([]byte{0, 0, byte(len(c.Request.Head) >> 8), byte(len(c.Request.Head))}, append(slices.Clone(c.Request.Head), c.Request.Seal...)...)
	r := evidence.Record{State: "SA", Node: "n1", Message: "request", Kind: uint8(journal.RequestSent), At: w.Now().UnixMilli(), Key: sha256.Sum256([]byte("id-1")), Salt: evidence.Digest{1}}
	p := journal.Parts{Kind: journal.RequestSent, At: r.At, Key: r.Key, Envelope: sha256.Sum256(envelope)}
	r.Hash = journal.Leaf(r.Salt, p.Digest())
	c.Records = []evidence.Record{r}
	return c
}

func pack(t testing.TB, c evidence.Call) []byte {
	t.Helper()
	p, err := evidence.New(t.Context(), c)
	must(t, err)
	var b bytes.Buffer
	must(t, p.Write(t.Context(), &b))
	return b.Bytes()
}

func (w *world) verify(b []byte) *Report {
	w.t.Helper()
	v, err := New(w.Root)
	must(w.t, err)
	return v.Container(bytes.NewReader(b), int64(len(b)))
}

// bad lists the checks that did not pass.
func bad(r *Report, result Result) (out []string) {
	for _, c := range r.Checks {
		if c.Result == result {
			out = append(out, c.What+": "+c.Detail)
		}
		if c.What == "" || c.WhatAr == "" {
			out = append(out, "a check without a name")
		}
	}
	return out
}

func TestACallHolds(t *testing.T) {
	w := newWorld(t)
	r := w.verify(pack(t, w.call(nil)))
	if failed := bad(r, Failed); r.Verdict != Holds || failed != nil || r.ID != "id-1" || r.Union != w.Name || !r.Demonstration {
		t.Errorf("%d %q %+v", r.Verdict, failed, r)
	}
	got := bad(r, Unchecked)
	for i, want := range []string{"no receipt of SA leaf 0", "no time-stamp of SA leaf 0", "no time-stamp of others for the request", "revoked afterwards", "README.txt"} {
		if len(got) != 5 || !strings.Contains(got[i], want) {
			t.Errorf("not checked: %q, wanted %q", got, want)
		}
	}
	two := w.both(w.call(nil)) // of two records one has a receipt
	w.receipt(&two.Records[0], w.logs["SA"], w.witnesses["BH"], w.witnesses["AE"])
	if got := bad(w.verify(pack(t, two)), Unchecked); len(got) != 5 || !strings.HasSuffix(got[0], "no receipt of SA leaf 1") {
		t.Errorf("not checked: %q", got)
	}
	if len(r.Checks) != 23 {
		t.Errorf("%d checks", len(r.Checks))
	}
}

// TestABatchHolds: the same of messages that were sealed together with others.
func TestABatchHolds(t *testing.T) {
	w := newWorld(t)
	w.company = 4
	r := w.verify(pack(t, w.call(nil)))
	if r.Verdict != Holds || !slices.ContainsFunc(r.Checks, func(c Check) bool { return strings.Contains(c.Detail, "nothing of batches by BH") }) {
		t.Errorf("of states that give none: %d %q", r.Verdict, bad(r, Failed))
	}
	w.together()
	r = w.verify(pack(t, w.call(nil)))
	if r.Verdict != Holds || len(r.Checks) != 23 || !slices.ContainsFunc(r.Checks, func(c Check) bool { return strings.Contains(c.Detail, "message 1 of 5") }) {
		t.Errorf("%d %q %+v", r.Verdict, bad(r, Failed), r)
	}
}

// TestABatchByItsFiles: each file that stands there because of the batch is held
// against what was sealed, also where the container is whole as such.
func TestABatchByItsFiles(t *testing.T) {
	w := newWorld(t)
	w.together()
	w.company = 4
	b := pack(t, w.call(nil))
	box, err := evidence.OpenBytes(b)
	must(t, err)
	for _, name := range []string{"request/batch.txt", "META-INF/falaj/answer-leaf.xml", "META-INF/falaj/request-way.txt", "META-INF/ASiCManifest002.xml"} {
		was, err := box.Read(name, evidence.MaxFile)
		must(t, err)
		is := bytes.Clone(was)
		is[len(is)-3] ^= 1
		crc := func(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }
		x := bytes.ReplaceAll(bytes.ReplaceAll(b, was, is), crc(was), crc(is))
		if got := bad(w.verify(x), Failed); len(got) == 0 || !strings.Contains(got[0], "the manifest names head and body") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestWhatDoesNotHold: each lie about a call is found, by the check that is
// there for it; and what merely lacks is not called a lie.
func TestWhatDoesNotHold(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		call    func() evidence.Call
		verdict Verdict
		want    string
	}{
		"an answer to another request": {func() evidence.Call {
			return w.call(func(a map[string]any) { a["request"] = strings.Repeat("0", 64) })
		}, Broken, "names another request"},
		"sealed by another member's state": {func() evidence.Call {
			c := w.call(nil)
			c.Answer = w.message(seal.Answer, union.MemberID{State: "AE", Class: "GOV", Code: "interior"}, map[string]any{"status": 200}, "answer", c.Directory)
			return c
		}, Broken, "names no seal certificate"},
		"a record of another id": {func() evidence.Call {
			c := w.call(nil)
			c.Records[0].Key[0]++
			return c
		}, Broken, "of another id"},
		"a record of another message": {func() evidence.Call {
			c := w.call(nil)
			c.Records[0].Message, c.Records[0].Kind = "answer", uint8(journal.AnswerSent)
			return c
		}, Broken, "another message's"},
		"a record of a third state": {func() evidence.Call {
			c := w.call(nil)
			c.Records[0].State = "AE"
			return c
		}, Broken, "took no part"},
		"another id": {func() evidence.Call { c := w.call(nil); c.ID = "id-2"; return c }, Broken, "another id than the container says"},
		"no request": {func() evidence.Call { c := w.call(nil); c.Request, c.Records = nil, nil; return c }, Unprovable, "not in the container"},
		"no answer":  {func() evidence.Call { c := w.call(nil); c.Answer = nil; return c }, Holds, "none in the container"},
		"no body": {func() evidence.Call {
			c := w.call(nil)
			c.Answer.Body.Open, c.Answer.Body.Absent = nil, union.Text{En: "not kept", Ar: "لم يُحفظ"}
			return c
		}, Holds, "not kept"},
		"no directory": {func() evidence.Call { c := w.call(nil); clear(c.Directory); return c }, Unprovable, "the container lacks"},
		"no state's part": {func() evidence.Call {
			c := w.call(nil)
			maps.DeleteFunc(c.Directory, func(name string, _ []byte) bool { return strings.HasSuffix(name, ".BH.json") })
			return c
		}, Unprovable, "the container lacks"},
		"a changed certificate list": {func() evidence.Call {
			c := w.call(nil)
			for name, b := range c.Directory {
				if strings.HasSuffix(name, ".state.json") {
					c.Directory[name] = bytes.Replace(b, []byte("interior"), []byte("exterior"), 1)
				}
			}
			return c
		}, Broken, "not the file that was signed for"},
		"a foreign authority for other tools": {func() evidence.Call {
			c := w.call(nil)
			c.Answer.Authority = c.Request.Authority
			return c
		}, Broken, "is another than the directory's"},
		"no revocation list for other tools": {func() evidence.Call { c := w.call(nil); c.Answer.CRL = nil; return c }, Broken, "is another than the directory's"},
		"of another union": {func() evidence.Call {
			name := w.Name
			defer func() { w.Name = name }()
			w.Name = "Other"
			return w.call(nil)
		}, Broken, "the message of"},
		"sealed too late": {func() evidence.Call {
			w.Advance(8 * 24 * time.Hour)
			defer w.Advance(-8 * 24 * time.Hour)
			return w.call(nil)
		}, Broken, "had expired"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.verify(pack(t, c.call()))
			if all := append(bad(r, Failed), bad(r, Unchecked)...); r.Verdict != c.verdict || !slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Errorf("verdict %d, wanted %d; %q, wanted %q", r.Verdict, c.verdict, all, c.want)
			}
		})
	}
	// A receipt of no record, under which anything might lie.
	one := w.call(nil)
	one.Records[0].Receipt = []byte("x")
	odd, name := pack(t, one), []byte("SA-request-0")
	for range 2 { // in the two headers
		i := bytes.LastIndex(odd, name)
		odd[i+len(name)-1]++
	}
	if r := w.verify(odd); r.Verdict != Broken || !strings.Contains(strings.Join(bad(r, Failed), ""), "does not belong in it") {
		t.Errorf("%d %q", r.Verdict, bad(r, Failed))
	}
	for name, b := range map[string][]byte{"nothing": nil, "a text": []byte("PK\x03\x04"), "half": pack(t, w.call(nil))[:2000]} {
		if r := w.verify(b); r.Verdict != Broken {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestReceipts: a receipt proves a record to whoever has the union's root, by
// the log's signature and the witnesses of other states; fewer of them, or
// others, prove less, and say so.
func TestReceipts(t *testing.T) {
	w := newWorld(t)
	stranger := newWorld(t)
	for name, c := range map[string]struct {
		make    func(r *evidence.Record)
		result  Result
		verdict Verdict
		want    string
	}{
		"by two others": {func(r *evidence.Record) { w.receipt(r, w.logs["SA"], w.witnesses["BH"], w.witnesses["AE"]) }, Passed, Holds, "2 witnesses, 2 needed, by 2026-11-22T08:00:00Z: AE BH"},
		"by two others, with their second keys too": {func(r *evidence.Record) {
			w.receipt(r, w.logs["SA"], w.witnesses["BH"], w.seconds["BH"], w.witnesses["AE"], w.seconds["AE"])
		}, Passed, Holds, "2 witnesses, 2 needed, by 2026-11-22T08:00:00Z: AE BH"},
		"by one other, with both its keys": {func(r *evidence.Record) {
			w.receipt(r, w.logs["SA"], w.witnesses["BH"], w.seconds["BH"])
		}, Unchecked, Holds, "1 of 2"},
		"by one other": {func(r *evidence.Record) { w.receipt(r, w.logs["SA"], w.witnesses["BH"]) }, Unchecked, Holds, "1 of 2"},
		"by one other and its own": {func(r *evidence.Record) {
			w.receipt(r, w.logs["SA"], w.witnesses["BH"], w.witnesses["SA"])
		}, Unchecked, Holds, "1 of 2"},
		"by one other, twice": {func(r *evidence.Record) {
			w.receipt(r, w.logs["SA"], w.witnesses["BH"], w.witnesses["BH"])
		}, Unchecked, Holds, "1 of 2"},
		"by strangers": {func(r *evidence.Record) {
			w.receipt(r, w.logs["SA"], stranger.witnesses["BH"], stranger.witnesses["AE"])
		}, Unchecked, Holds, "0 of 2"},
		"of another log": {func(r *evidence.Record) { w.receipt(r, w.logs["BH"], w.witnesses["AE"], w.witnesses["SA"]) }, Unchecked, Holds, "not signed"},
		"of another record": {func(r *evidence.Record) {
			o := *r
			o.Hash[0]++
			w.receipt(&o, w.logs["SA"], w.witnesses["BH"], w.witnesses["AE"])
			r.Receipt = o.Receipt
		}, Failed, Broken, "not in the tree"},
		"of another place": {func(r *evidence.Record) {
			w.receipt(r, w.logs["SA"], w.witnesses["BH"], w.witnesses["AE"])
			r.Receipt = bytes.Replace(r.Receipt, []byte("index 0"), []byte("index 1"), 1)
		}, Failed, Broken, "of leaf 1"},
		"nonsense": {func(r *evidence.Record) { r.Receipt = []byte("x") }, Failed, Broken, "not a receipt"},
	} {
		t.Run(name, func(t *testing.T) {
			call := w.call(nil)
			c.make(&call.Records[0])
			r := w.verify(pack(t, call))
			i := slices.IndexFunc(r.Checks, func(c Check) bool { return strings.Contains(c.What, "other states have seen") })
			if i < 0 || r.Verdict != c.verdict || r.Checks[i].Result != c.result || !strings.Contains(r.Checks[i].Detail, c.want) {
				t.Errorf("%d %+v", r.Verdict, r.Checks)
			}
		})
	}
}

// TestRevoked: what was sealed before a revocation holds by a later directory,
// what was sealed after it does not.
func TestRevoked(t *testing.T) {
	w := newWorld(t)
	_, cert := w.Seal(service.MemberID)
	before := w.call(nil)
	w.Advance(time.Hour)
	must(t, w.Dirs["BH"].Revoke(t.Context(), sha256.Sum256(cert.Raw), "keyCompromise"))
	w.Refresh()
	if r := w.verify(pack(t, before)); r.Verdict != Holds {
		t.Errorf("of before: %q", bad(r, Failed))
	}
	r := w.verify(pack(t, w.call(nil)))
	if got := bad(r, Failed); r.Verdict != Broken || len(got) != 1 || !strings.Contains(got[0], "revoked at") {
		t.Errorf("of after: %d %q", r.Verdict, got)
	}
}

// TestEachByteCounts: a container with any bit changed does not hold.
func TestEachByteCounts(t *testing.T) {
	w := newWorld(t)
	w.together()
	r := rand.New(rand.NewPCG(1, 2))
	for _, w.company = range []int{0, 4} {
		b := pack(t, w.call(nil))
		v, err := New(w.Root)
		must(t, err)
		for range 300 {
			x := slices.Clone(b)
			i := r.IntN(len(x))
			x[i] ^= 1 << r.IntN(8)
			if v.Container(bytes.NewReader(x), int64(len(x))).Verdict == Holds {
				t.Errorf("with %d others the byte %d does not count: %q", w.company, i, b[max(0, i-20):min(len(b), i+20)])
			}
		}
	}
}

// TestWhatNobodySigned: lines put into README.txt are found by the list of
// digests; where that is changed too, it is said that nobody signed either.
func TestWhatNobodySigned(t *testing.T) {
	w := newWorld(t)
	b := pack(t, w.call(nil))
	box, err := evidence.OpenBytes(b)
	must(t, err)
	swap := func(b []byte, name, from, to string) (string, []byte) { // of the same length
		old, err := box.Read(name, evidence.MaxFile)
		must(t, err)
		if len(from) != len(to) || !bytes.Contains(old, []byte(from)) {
			t.Fatalf("%s: %q", name, from)
		}
		changed := bytes.Replace(old, []byte(from), []byte(to), 1)
		b = bytes.Replace(b, old, changed, 1)
		crc := func(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }
		return fmt.Sprintf("%x", sha256.Sum256(changed)), bytes.ReplaceAll(b, crc(old), crc(changed))
	}
	readme, err := box.Read(evidence.ReadmeName, evidence.MaxFile)
	must(t, err)
	was := fmt.Sprintf("%x", sha256.Sum256(readme))
	is, lie := swap(b, evidence.ReadmeName, "    sha256sum -c ", "    sh -c evil;# ")
	if r := w.verify(lie); r.Verdict != Broken || !strings.Contains(strings.Join(bad(r, Failed), ""), "SHA256SUMS is not that of the files") {
		t.Errorf("%d %q", r.Verdict, bad(r, Failed))
	}
	_, lie = swap(lie, evidence.SumsName, was, is)
	if r := w.verify(lie); r.Verdict != Holds || !strings.Contains(strings.Join(bad(r, Unchecked), ""), "nobody signed it") {
		t.Errorf("%d %q", r.Verdict, bad(r, Failed))
	}
}

// fetcher is a directory's files, as a peer has them.
type fetcher struct {
	files map[string][]byte
	rest  directory.Fetcher
}

func (f fetcher) Fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	if b, ok := f.files[name]; ok {
		return b, nil
	}
	return f.rest.Fetch(ctx, name, limit)
}

// TestAgainstTUF holds the small check of the directory against go-tuf's, by
// which nodes live: what it accepts, they accept; and of true editions of every
// version both say the same.
func TestAgainstTUF(t *testing.T) {
	w := newWorld(t)
	for i := range 2 {
		must(t, w.Dirs["SA"].Publish(t.Context(), func(e *directory.Edition) error {
			e.Files["note.txt"] = []byte(fmt.Sprint(i))
			return nil
		}))
		w.Refresh()
	}
	all := fetcher{rest: w.Dirs["SA"], files: map[string][]byte{}} // everything that a node holds
	pinned, err := New(w.Root)
	must(t, err)
	for version := int64(1); version <= 3; version++ {
		chain, err := w.Dirs["SA"].Chain(t.Context(), version, "SA")
		must(t, err)
		maps.Copy(all.files, chain)
	}
	ours := func(files fetcher, version int64) error {
		e, err := follow(pinned.pin, version, "SA", func(name string, _ int64) ([]byte, error) {
			b, ok := files.files[name]
			if !ok {
				return nil, away("%s", name)
			}
			return b, nil
		})
		if err == nil {
			_, cert := w.Seal(client.MemberID)
			_, err = e.certificate("SA", sha256.Sum256(cert.Raw))
		}
		return err
	}
	theirs := func(files fetcher, version int64) error {
		d, err := directory.Open(t.Context(), directory.Config{Root: w.Root, Demonstration: true}, directory.Deps{Now: w.Now, Peers: func() []directory.Peer { return []directory.Peer{{Fetcher: files}} }})
		if err != nil {
			return err
		}
		view, err := d.ViewAt(t.Context(), version)
		if err != nil {
			return err
		}
		_, cert := w.Seal(client.MemberID)
		if _, ok := view.Certificate(sha256.Sum256(cert.Raw)); !ok {
			return fmt.Errorf("it is not named: %v", view.Problems())
		}
		return nil
	}
	for version := int64(1); version <= 3; version++ {
		if err := ours(all, version); err != nil {
			t.Errorf("version %d by ours: %v", version, err)
		}
		if err := theirs(all, version); err != nil {
			t.Errorf("version %d by theirs: %v", version, err)
		}
	}
	// Files exchanged, cut, changed at a place.
	chain, err := w.Dirs["SA"].Chain(t.Context(), 3, "SA")
	must(t, err)
	names := slices.Sorted(maps.Keys(chain))
	r := rand.New(rand.NewPCG(3, 4))
	refused, agreed := 0, 0
	for i := range 100 {
		files := fetcher{maps.Clone(all.files), all.rest}
		name := names[i%len(names)]
		b := slices.Clone(files.files[name])
		switch at := r.IntN(len(b)); r.IntN(4) {
		case 0:
			b[at] ^= 1 << r.IntN(7)
		case 1:
			b[at] = "0123456789\"{}[],:ae \\"[r.IntN(21)]
		case 2:
			b = append(b[:at], b[at+1:]...)
		case 3:
			b = files.files[names[r.IntN(len(names))]]
		}
		files.files[name] = b
		mine, reference := ours(files, 3), theirs(files, 3)
		if mine == nil && reference != nil {
			t.Errorf("%s changed is taken here, and nodes say: %v", name, reference)
		}
		if mine != nil {
			refused++
		}
		if (mine == nil) == (reference == nil) {
			agreed++
		}
	}
	if refused < 75 || agreed < 95 {
		t.Errorf("of 100 changes %d are refused, in %d both say the same", refused, agreed)
	}
}

func TestRoots(t *testing.T) {
	w := newWorld(t)
	for name, b := range map[string][]byte{
		"nothing": nil, "JSON": []byte(`{}`), "unsigned": bytes.Replace(w.Root, []byte(`"sig":"30`), []byte(`"sig":"31`), -1),
		"null": []byte(`{"signed":null,"signatures":[]}`), "a fraction": bytes.Replace(w.Root, []byte(`"version":1`), []byte(`"version":1.0`), 1),
		"twice": append(slices.Clone(w.Root), w.Root...), "huge": make([]byte, maxRoot+1),
	} {
		if bytes.Equal(b, w.Root) {
			t.Fatalf("%s: the control changes nothing", name)
		}
		if _, err := New(b); err == nil {
			t.Errorf("%s is taken for a root", name)
		}
	}
	// Another union's root proves nothing of this one's calls, and refutes nothing,
	// neither seals nor time-stamps; what is wrong without a root is still wrong.
	other, err := New(newWorld(t).Root)
	must(t, err)
	judge := func(c evidence.Call) *Report {
		b := pack(t, c)
		return other.Container(bytes.NewReader(b), int64(len(b)))
	}
	stamped := w.stamp(w.both(w.call(nil)), nil)
	if r := judge(stamped); r.Verdict != Unprovable || bad(r, Failed) != nil || !strings.Contains(strings.Join(bad(r, Unchecked), ""), "of two unions") {
		t.Errorf("%d %q %q", r.Verdict, bad(r, Failed), bad(r, Unchecked))
	}
	lie := w.call(func(a map[string]any) { a["request"] = strings.Repeat("0", 64) })
	if r := judge(lie); r.Verdict != Broken {
		t.Errorf("%+v", r)
	}
	// One signature by a key that the root knows makes it this union's, and wrong.
	half := w.call(nil)
	half.Directory["1.snapshot.json"] = bytes.Replace(half.Directory["1.snapshot.json"], []byte(`"keyid":"`), []byte(`"keyid":"0`), -1)
	if r := w.verify(pack(t, half)); r.Verdict != Broken || !strings.Contains(strings.Join(bad(r, Failed), ""), "1.snapshot.json: 0 of the 2") {
		t.Errorf("%d %q", r.Verdict, bad(r, Failed))
	}
	// The same where a root lies between.
	far := w.call(nil)
	for _, version := range []string{`"root.json":{"version":1`, `"root.json": {"version": 1`} {
		far.Directory["1.snapshot.json"] = bytes.Replace(far.Directory["1.snapshot.json"], []byte(version), []byte(version[:len(version)-1]+"2"), 1)
	}
	far.Directory["2.root.json"] = w.Root
	if r := judge(far); r.Verdict != Unprovable || bad(r, Failed) != nil || !strings.Contains(strings.Join(bad(r, Unchecked), ""), "of two unions") {
		t.Errorf("%d %q", r.Verdict, bad(r, Failed))
	}
	if r := w.verify(pack(t, far)); r.Verdict != Broken || !strings.Contains(strings.Join(bad(r, Failed), ""), "2.root.json is version 1") {
		t.Errorf("%d %q", r.Verdict, bad(r, Failed))
	}
}

func FuzzContainer(f *testing.F) {
	w := newWorld(f)
	v, err := New(w.Root)
	must(f, err)
	c := w.call(nil)
	for _, name := range []string{"1.snapshot.json", "1.timestamp.json", "1.targets.json", "1.SA.json"} {
		f.Add(name, c.Directory[name])
	}
	f.Add("container", pack(f, c))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if name == "container" {
			if r := v.Container(bytes.NewReader(b), int64(len(b))); len(r.Checks) == 0 {
				t.Error("nothing was looked at")
			}
			return
		}
		e, err := follow(v.pin, 1, "SA", func(n string, _ int64) ([]byte, error) {
			if n == name {
				return b, nil
			}
			if x, ok := c.Directory[n]; ok {
				return x, nil
			}
			return nil, away("%s", n)
		})
		if err == nil && e.union != w.Name {
			t.Errorf("of the union %q", e.union)
		}
	})
}

func BenchmarkContainer(b *testing.B) {
	w := newWorld(b)
	c := pack(b, w.call(nil))
	v, err := New(w.Root)
	must(b, err)
	for b.Loop() {
		if v.Container(bytes.NewReader(c), int64(len(c))).Verdict != Holds {
			b.Fatal("it does not hold")
		}
	}
}

// TestNoRoomForMore: beside a message without a body there is no body, and
// beside an authority without a revocation list none: nothing holds them
// against anything.
func TestNoRoomForMore(t *testing.T) {
	w := newWorld(t)
	b := pack(t, w.call(nil))
	for _, part := range []seal.Part{seal.Request, seal.Answer} {
		for name, change := range map[string]func(*message){
			part.Names().Body:          func(m *message) { m.head.Body = nil },
			evidence.AsideOf(part).CRL: func(m *message) { m.cert = &certificate{cert: m.cert.cert} },
		} {
			v, err := New(w.Root)
			must(t, err)
			opened, err := evidence.OpenBytes(b)
			must(t, err)
			box := &container{Container: opened}
			in, err := box.Contents()
			must(t, err)
			var messages [2]*message
			for part := range messages {
				messages[part] = v.message(&Report{}, box, in, seal.Part(part))
			}
			must(t, v.whole(box, in, messages))
			change(messages[part])
			if err := v.whole(box, in, messages); err == nil || !strings.Contains(err.Error(), name+" does not belong in it") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestNoQuorum: where the union asks for no witness, a log's own word is not
// taken for others'.
func TestNoQuorum(t *testing.T) {
	w := newWorld(t)
	r := w.call(nil).Records[0]
	e := &edition{}
	e.logs = map[string]merkle.Trust{"SA": e.trust("SA", map[string]logKeys{"SA": {Log: w.logs["SA"].Key}, "BH": {Witness: w.witnesses["BH"].Key}})}
	w.receipt(&r, w.logs["SA"])
	if said, err := e.receipt(&r); !errors.Is(err, errAway) {
		t.Errorf("%q, %v", said, err)
	}
	w.receipt(&r, w.logs["SA"], w.witnesses["BH"])
	if said, err := e.receipt(&r); err != nil {
		t.Errorf("%q, %v", said, err)
	}
}
