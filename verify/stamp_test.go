package verify

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
)

// stamping is a time-stamp in the making; a test spoils what it likes.
type stamping struct {
	by         union.State // who is named
	authority  stamp.Authority
	at         time.Time
	checkpoint []byte
	tree       []stamp.Digest // beside the record's leaf
	directory  int64
}

// both gives a call a record of the answer too, so that each message has one.
func (w *world) both(c evidence.Call) evidence.Call {
	w.t.Helper()
	r := c.Records[0]
	r.Message, r.Kind, r.Leaf, r.Salt = "answer", 4, 1, evidence.Digest{2}
	w.leaf(&r, c)
	w.leaf(&c.Records[0], c)
	c.Records = append(c.Records, r)
	return c
}

// leaf computes a record's digest and leaf.
func (w *world) leaf(r *evidence.Record, c evidence.Call) {
	m := c.Request
	if r.Message == "answer" {
		m = c.Answer
	}
	envelope := append([]byte{0, 0, byte(len(m.Head) >> 8), byte(len(m.Head))}, append(slices.Clone(m.Head), m.Seal...)...)
	p := journal.Parts{Kind: journal.Kind(r.Kind), At: r.At, Key: r.Key, Envelope: sha256.Sum256(envelope)}
	r.Digest = p.Digest()
	r.Hash = sha256.Sum256(r.Opening(r.Digest))
}

// stamp has all records of a call stamped, each by itself.
func (w *world) stamp(c evidence.Call, change func(*stamping)) evidence.Call {
	w.t.Helper()
	for i := range c.Records {
		r := &c.Records[i]
		key, cert := w.Stamp("AE")
		text := merkle.Checkpoint{Origin: w.logs[r.State].Name(), Size: r.Leaf + 1, Root: merkle.Leaf(r.Hash[:])}.Text()
		note := text + "\n"
		for _, s := range []merkle.Signer{w.logs[r.State], w.witnesses["BH"]} {
			line, err := s.Line(text, w.Now())
			must(w.t, err)
			note += line
		}
		x := &stamping{
			by: "AE", authority: stamp.Authority{Cert: cert, Key: key, Accuracy: time.Second}, at: w.Now().Add(20 * time.Second), checkpoint: []byte(note),
			tree: []stamp.Digest{{1}, {2}, {3}}, directory: w.Dirs["SA"].View().Version(),
		}
		if change != nil {
			change(x)
		}
		tree, others := stamp.Path(append([]stamp.Digest{stamp.Digest(r.Hash)}, x.tree...), 0)
		root := []stamp.Digest{tree, sha256.Sum256(x.checkpoint)}
		raw, err := x.authority.Stamp(stamp.Request{Imprint: stamp.Join(root...), Certificate: true}, big.NewInt(int64(i+1)), x.at)
		must(w.t, err)
		token, err := stamp.ParseToken(raw)
		must(w.t, err)
		record := stamp.Record{stamp.NewLink(stamp.Digest(r.Hash), append(others, root[1]), token)}
		r.Stamp = &evidence.StampPlace{End: r.Leaf + 1, Judge: evidence.Judge{Authority: x.by, Directory: x.directory}}
		e := evidence.Stamp{State: r.State, End: r.Leaf + 1, By: string(x.by), Token: token, Root: stamp.Preimage(root...), Checkpoint: x.checkpoint}
		e.Authority = w.judged(c, x.by, x.directory)
		r.Proof, err = record.Bytes()
		must(w.t, err)
		c.Stamps = append(c.Stamps, e)
	}
	return c
}

// judged puts a state's part of a version into a call's directory.
func (w *world) judged(c evidence.Call, by union.State, version int64) *x509.Certificate {
	w.t.Helper()
	if by == "" {
		return nil
	}
	chain, err := w.Dirs["SA"].Chain(w.t.Context(), version, by)
	must(w.t, err)
	maps.Copy(c.Directory, chain)
	return w.CA[by].Cert
}

// renew has all time-stamps of a call renewed by a state's authority, at its
// time.
func (w *world) renew(c evidence.Call, by union.State, at time.Time) evidence.Call {
	w.t.Helper()
	key, cert := w.Stamp(by)
	authority, version := stamp.Authority{Cert: cert, Key: key, Accuracy: time.Second}, w.Dirs["SA"].View().Version()
	c.Directory, c.Records, c.Stamps = maps.Clone(c.Directory), slices.Clone(c.Records), slices.Clone(c.Stamps)
	for i := range c.Records {
		r, e := &c.Records[i], &c.Stamps[i]
		record, err := stamp.ParseRecord(r.Proof)
		must(w.t, err)
		of := record[len(record)-1].Token.Digest()
		tree, others := stamp.Path([]stamp.Digest{{1}, of, {3}}, 1)
		raw, err := authority.Stamp(stamp.Request{Imprint: tree, Certificate: true}, big.NewInt(int64(100*i+len(record))), at)
		must(w.t, err)
		token, err := stamp.ParseToken(raw)
		must(w.t, err)
		r.Proof, err = append(record, stamp.NewLink(of, others, token)).Bytes()
		must(w.t, err)
		place := *r.Stamp
		place.Renewals = append(slices.Clone(place.Renewals), evidence.Judge{Authority: by, Directory: version})
		r.Stamp = &place
		e.Renewals = append(slices.Clone(e.Renewals), evidence.Renewal{By: string(by), At: at, Authority: w.judged(c, by, version)})
	}
	return c
}

// TestRenewals: when the certificate has ended by which a call was stamped, its
// time is proven by time-stamps that renewed that one before, and by nothing
// else; who judges without a time is not told that anything has ended.
func TestRenewals(t *testing.T) {
	const almost, day = 1700 * 24 * time.Hour, 24 * time.Hour // of the five years of a certificate
	w := newWorld(t)
	w.Advance(20 * time.Minute)
	sealed := w.Now()
	base := w.stamp(w.both(w.call(nil)), nil)
	w.Later(almost)
	good := w.renew(base, "BH", w.Now()) // it sealed the answer: for that, its word is none
	paired := w.renew(good, "AE", w.Now().Add(time.Minute))
	w.Later(almost)
	again := w.renew(w.renew(paired, "AE", w.Now()), "BH", w.Now().Add(time.Minute))
	late := w.renew(base, "AE", w.Now())
	at := func(years int) time.Time { return sealed.AddDate(years, 0, 0) }
	for name, c := range map[string]struct {
		call  evidence.Call
		at    time.Time
		part  string // whose record's check it is
		stamp Result
		what  string
		ar    string
		age   Result
	}{
		"at its time":                    {base, at(1), "leaf 0", Passed, "has stamped the time", "وثّقت", Passed},
		"at no time":                     {base, time.Time{}, "leaf 0", Passed, "has stamped the time", "وثّقت", Passed},
		"after its end":                  {base, at(6), "leaf 0", Unchecked, "no longer proven", "لم يعد", Unchecked},
		"renewed":                        {paired, at(6), "leaf 0", Passed, "has stamped the time", "وثّقت", Passed},
		"renewed, its answer":            {paired, at(6), "leaf 1", Passed, "has stamped the time", "وثّقت", Passed},
		"by who sealed":                  {good, at(6), "leaf 1", Unchecked, "no longer proven", "لم يعد", Unchecked},
		"renewed, after the second end":  {paired, at(11), "leaf 0", Unchecked, "no longer proven", "لم يعد", Unchecked},
		"renewed twice":                  {again, at(11), "leaf 1", Passed, "has stamped the time", "وثّقت", Passed},
		"renewed too late":               {late, at(11), "leaf 0", Unchecked, "renewed too late", "بعد فوات الأوان", Unchecked},
		"renewed too late, says no time": {late, time.Time{}, "leaf 0", Unchecked, "renewed too late", "بعد فوات الأوان", Unchecked},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := New(w.Root)
			must(t, err)
			v.At(c.at)
			b := pack(t, c.call)
			r := v.Container(bytes.NewReader(b), int64(len(b)))
			i := slices.IndexFunc(r.Checks, func(x Check) bool { return strings.Contains(x.What, c.part) && strings.Contains(x.What, c.what) })
			if failed := bad(r, Failed); r.Verdict != Holds || failed != nil || i < 0 {
				t.Fatalf("%d %q %+v", r.Verdict, failed, r.Checks)
			}
			if got := r.Checks[i]; got.Result != c.stamp || !strings.Contains(got.WhatAr, c.ar) {
				t.Errorf("%+v", got)
			}
			if got := stampCheck(t, r, checkAge); got.Result != c.age || strings.Contains(got.Detail, "holds no time-stamp") {
				t.Errorf("%+v", got)
			}
		})
	}
	spoilt := func(change func(*evidence.Record)) evidence.Call {
		c := paired
		c.Records = slices.Clone(c.Records)
		place := *c.Records[0].Stamp
		place.Renewals = slices.Clone(place.Renewals)
		c.Records[0].Stamp = &place
		change(&c.Records[0])
		return c
	}
	chain := func(change func(stamp.Record) stamp.Record) evidence.Call {
		return spoilt(func(r *evidence.Record) {
			p, err := stamp.ParseRecord(r.Proof)
			must(t, err)
			r.Proof, err = change(p).Bytes()
			must(t, err)
		})
	}
	for name, c := range map[string]struct {
		call evidence.Call
		want string
	}{
		"another authority":       {spoilt(func(r *evidence.Record) { r.Stamp.Renewals[0].Authority = "AE" }), "names no time-stamp authority of AE"},
		"the log's own authority": {spoilt(func(r *evidence.Record) { r.Stamp.Renewals[0].Authority = "SA" }), "a party's word about itself"},
		"one is not named":        {spoilt(func(r *evidence.Record) { r.Stamp.Renewals = r.Stamp.Renewals[:1] }), "the authorities of 2 are named"},
		"one is left out":         {chain(func(p stamp.Record) stamp.Record { return stamp.Record{p[0], p[2]} }), "not of this digest"},
		"another renewal":         {chain(func(p stamp.Record) stamp.Record { return stamp.Record{p[0], p[2], p[1]} }), "not of this digest"},
		"before what it renews":   {w.renew(paired, "AE", sealed), "older than the one that it renews"},
		"another's root beside it": {func() evidence.Call {
			c := paired
			c.Stamps = slices.Clone(c.Stamps)
			c.Stamps[0].Renewals = slices.Clone(c.Stamps[0].Renewals)
			c.Stamps[0].Renewals[0].Authority = w.CA["AE"].Cert
			return c
		}(), "-1-authority.pem is another"},
		"a version before it was so": {spoilt(func(r *evidence.Record) { r.Stamp.Renewals[0].Directory = base.Records[0].Stamp.Directory }), "names no time-stamp authority of BH"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.verify(pack(t, c.call))
			if got := stampCheck(t, r, checkStamp); r.Verdict != Broken || got.Result != Failed || !strings.Contains(got.Detail, c.want) {
				t.Errorf("%d %+v", r.Verdict, got)
			}
		})
	}
}

func stampCheck(t *testing.T, r *Report, what string) Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return strings.Contains(c.What, what) })
	if i < 0 {
		t.Fatalf("no check %q in %+v", what, r.Checks)
	}
	return r.Checks[i]
}

const (
	checkStamp = "stamped the time"
	checkAge   = "as old as they say"
)

// TestTimeStamps: a time-stamp of another state shows by when a record was
// there, and with that how old the seals are; nothing else does.
func TestTimeStamps(t *testing.T) {
	w := newWorld(t)
	w.Advance(20 * time.Minute)
	r := w.verify(pack(t, w.stamp(w.both(w.call(nil)), nil)))
	if failed := bad(r, Failed); r.Verdict != Holds || failed != nil {
		t.Fatalf("%d %q", r.Verdict, failed)
	}
	if c := stampCheck(t, r, checkStamp); c.Result != Passed || !strings.Contains(c.Detail, "authority of AE") {
		t.Errorf("%+v", c)
	}
	if c := stampCheck(t, r, checkAge); c.Result != Passed || !strings.Contains(c.Detail, "request: sealed 2026-11-22T08:20:00Z, there by 2026-11-22T08:20:21Z; answer: ") {
		t.Errorf("%+v", c)
	}
	as := func(s union.State) stamp.Authority {
		key, cert := w.Stamp(s)
		return stamp.Authority{Cert: cert, Key: key, Accuracy: time.Second}
	}
	for name, c := range map[string]struct {
		change  func(*stamping)
		result  Result
		verdict Verdict
		check   string
		want    string
	}{
		"the own state's authority":                      {func(x *stamping) { x.by, x.authority = "SA", as("SA") }, Failed, Broken, checkStamp, "the log's own state's"},
		"the own state's authority under another's name": {func(x *stamping) { x.authority = as("SA") }, Failed, Broken, checkStamp, "names no time-stamp authority of AE"},
		"the other party's, of the request":              {func(x *stamping) { x.by, x.authority = "BH", as("BH") }, Passed, Holds, checkStamp, "authority of BH"},
		"the other party's, of its own answer":           {func(x *stamping) { x.by, x.authority = "BH", as("BH") }, Unchecked, Holds, checkAge, "no time-stamp of the answer that is in the container proves it"},
		"a member's seal": {func(x *stamping) {
			key, cert := w.Seal(union.MemberID{State: "BH", Class: "GOV", Code: "interior"})
			x.authority = stamp.Authority{Cert: cert, Key: key}
		}, Failed, Broken, checkStamp, "names no time-stamp authority"},
		"a certificate that the state does not name": {func(x *stamping) {
			var err error
			x.authority.Cert, err = w.CA["AE"].Stamp(x.authority.Key.Public())
			must(t, err)
		}, Failed, Broken, checkStamp, "names no time-stamp authority"},
		"before the certificate":       {func(x *stamping) { x.at = x.authority.Cert.NotBefore.Add(-time.Hour) }, Failed, Broken, checkStamp, "is good from"},
		"outside of the union":         {func(x *stamping) { x.by, x.directory = "", 0 }, Unchecked, Holds, checkStamp, "none that the directory names"},
		"hours after the seal":         {func(x *stamping) { x.at = x.at.Add(3 * time.Hour) }, Unchecked, Holds, checkAge, "its maker's word alone"},
		"long before the seal":         {func(x *stamping) { x.at, x.checkpoint = x.at.Add(-10*time.Minute), w.shortened(2) }, Failed, Broken, checkAge, "says that it was sealed at 2026-11-22T08:20:00Z, and was there by 2026-11-22T08:10:21Z"},
		"long before the cosignatures": {func(x *stamping) { x.at = x.at.Add(-10 * time.Minute) }, Failed, Broken, checkStamp, "cosigned by log.example/BH"},
		"a clock a little slow":        {func(x *stamping) { x.at = x.at.Add(-4 * time.Minute) }, Passed, Holds, checkAge, "there by"},
		"a checkpoint of fewer":        {func(x *stamping) { x.checkpoint = w.shortened(0) }, Failed, Broken, checkStamp, "of 0 entries"},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.verify(pack(t, w.stamp(w.both(w.call(nil)), c.change)))
			if got := stampCheck(t, r, c.check); r.Verdict != c.verdict || got.Result != c.result || !strings.Contains(got.Detail, c.want) {
				t.Errorf("%d %+v", r.Verdict, got)
			}
		})
	}
	for name, c := range map[string]struct {
		change func(c *evidence.Call)
		want   string
	}{
		"another record's":        {func(c *evidence.Call) { c.Records[0].Proof = c.Records[1].Proof }, "not of this digest"},
		"no evidence record":      {func(c *evidence.Call) { c.Records[0].Proof = []byte("x") }, "not an evidence record"},
		"half of one":             {func(c *evidence.Call) { c.Records[0].Proof = c.Records[0].Proof[:300] }, "not an evidence record"},
		"another token beside it": {func(c *evidence.Call) { c.Stamps[0].Token = c.Stamps[1].Token }, "hold two time-stamps"},
		"another root":            {func(c *evidence.Call) { c.Stamps[0].Root = c.Stamps[1].Root }, "checkpoint is not the one"},
		"another checkpoint":      {func(c *evidence.Call) { c.Stamps[0].Checkpoint = c.Stamps[1].Checkpoint }, "checkpoint is not the one"},
		"another authority":       {func(c *evidence.Call) { c.Stamps[0].Authority = w.CA["BH"].Cert }, "-authority.pem is another"},
		"another opening":         {func(c *evidence.Call) { c.Records[0].Digest[0]++ }, ".leaf is another"},
	} {
		t.Run(name, func(t *testing.T) {
			call := w.stamp(w.both(w.call(nil)), nil)
			c.change(&call)
			r := w.verify(pack(t, call))
			if got := stampCheck(t, r, checkStamp); r.Verdict != Broken || got.Result != Failed || !strings.Contains(got.Detail, c.want) {
				t.Errorf("%d %+v", r.Verdict, got)
			}
		})
	}
}

// TestOwnSeal: a state that labels its record as another's, and stamps it with
// its own authority at whatever time, shows no age of what it sealed itself;
// nor does a record whose log nothing proves.
func TestOwnSeal(t *testing.T) {
	w := newWorld(t)
	w.Advance(20 * time.Minute)
	as := func(s union.State) stamp.Authority {
		key, cert := w.Stamp(s)
		return stamp.Authority{Cert: cert, Key: key, Accuracy: time.Second}
	}
	for name, c := range map[string]struct {
		label, by union.State
		part      int
		own       bool // the checkpoint is the labelled log's
		receipt   bool
		result    Result
		want      string
	}{
		"the request, labelled":                   {"BH", "SA", 0, false, false, Unchecked, "is not signed by the log of BH"},
		"the request, of the other's log":         {"BH", "SA", 0, true, false, Unchecked, "of SA, which sealed the message"},
		"the request, with the other's receipt":   {"BH", "SA", 0, false, true, Unchecked, "of SA, which sealed the message"},
		"the answer, labelled":                    {"SA", "BH", 1, false, false, Unchecked, "is not signed by the log of SA"},
		"the answer, of the other's log":          {"SA", "BH", 1, true, false, Unchecked, "of BH, which sealed the message"},
		"another's word, of an unknown log":       {"BH", "AE", 0, false, false, Unchecked, "is not signed by the log of BH"},
		"another's word, that the receipt proves": {"BH", "AE", 0, false, true, Passed, "authority of AE"},
	} {
		t.Run(name, func(t *testing.T) {
			call := w.both(w.call(nil))
			r := &call.Records[c.part]
			r.State, r.Kind, r.Leaf = c.label, []uint8{2, 4}[c.part], 0
			w.leaf(r, call)
			call.Records = []evidence.Record{*r}
			stranger, err := merkle.NewSigner(w.logs[c.label].Name(), merkle.LogSignature, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
			must(t, err)
			x := w.stamp(call, func(x *stamping) {
				x.by, x.authority = c.by, as(c.by)
				if !c.own {
					text := merkle.Checkpoint{Origin: stranger.Name(), Size: 1}.Text()
					line, err := stranger.Line(text, w.Now())
					must(t, err)
					x.checkpoint = []byte(text + "\n" + line)
				}
			})
			if c.receipt {
				w.receipt(&x.Records[0], w.logs[c.label], w.witnesses["SA"], w.witnesses["AE"])
			}
			got := w.verify(pack(t, x))
			if s := stampCheck(t, got, checkStamp); got.Verdict != Holds || s.Result != c.result || !strings.Contains(s.Detail, c.want) {
				t.Errorf("%d %+v", got.Verdict, s)
			}
			if age := stampCheck(t, got, checkAge); c.result != Passed && (age.Result != Unchecked || !strings.Contains(age.Detail, "no time-stamp of")) {
				t.Errorf("%+v", age)
			}
		})
	}
}

// TestRely: what an authority outside of the union stamped shows a time to who
// has its root, and to nobody else.
func TestRely(t *testing.T) {
	w, outside := newWorld(t), newWorld(t)
	key, cert := outside.Stamp("BH")
	b := pack(t, w.stamp(w.both(w.call(nil)), func(x *stamping) {
		x.by, x.directory, x.authority = "", 0, stamp.Authority{Key: key, Cert: cert, Accuracy: time.Second}
	}))
	for name, c := range map[string]struct {
		root   *x509.Certificate
		result Result
		want   string
	}{
		"none":      {nil, Unchecked, "has to be given"},
		"its own":   {outside.CA["BH"].Cert, Passed, "outside of the union"},
		"another's": {outside.CA["AE"].Cert, Unchecked, "by the root certificates that were given"},
	} {
		v, err := New(w.Root)
		must(t, err)
		if c.root != nil {
			v.Rely(c.root)
		}
		r := v.Container(bytes.NewReader(b), int64(len(b)))
		if got := stampCheck(t, r, checkStamp); r.Verdict != Holds || got.Result != c.result || !strings.Contains(got.Detail, c.want) {
			t.Errorf("%s: %d %+v", name, r.Verdict, got)
		}
		if got := stampCheck(t, r, checkAge); got.Result != c.result {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// The own state's authority does not pass under no name either: it says
	// nothing to who does not trust its root himself.
	v, err := New(w.Root)
	must(t, err)
	v.Rely(outside.CA["BH"].Cert)
	own, ownCert := w.Stamp("SA")
	x := pack(t, w.stamp(w.both(w.call(nil)), func(x *stamping) {
		x.by, x.directory, x.authority = "", 0, stamp.Authority{Key: own, Cert: ownCert}
	}))
	if got := stampCheck(t, v.Container(bytes.NewReader(x), int64(len(x))), checkStamp); got.Result != Unchecked {
		t.Errorf("%+v", got)
	}
}

// TestRevokedStamps: what an authority stamped after its certificate's
// revocation proves nothing; what it stamped before does.
func TestRevokedStamps(t *testing.T) {
	w := newWorld(t)
	before := pack(t, w.stamp(w.both(w.call(nil)), nil))
	_, cert := w.Stamp("AE")
	w.Advance(time.Minute)
	must(t, w.Dirs["AE"].Revoke(t.Context(), sha256.Sum256(cert.Raw), "keyCompromise"))
	w.Refresh()
	if r := w.verify(before); r.Verdict != Holds {
		t.Errorf("%q", bad(r, Failed))
	}
	r := w.verify(pack(t, w.stamp(w.both(w.call(nil)), nil)))
	if c := stampCheck(t, r, checkStamp); r.Verdict != Broken || !strings.Contains(c.Detail, "revoked at") {
		t.Errorf("%d %+v", r.Verdict, c)
	}
}

// TestStampedBytesCount: no bit of a container with time-stamps can be changed.
func TestStampedBytesCount(t *testing.T) {
	w := newWorld(t)
	b := pack(t, w.stamp(w.both(w.call(nil)), nil))
	v, err := New(w.Root)
	must(t, err)
	for _, name := range []string{".ers", ".tst", ".root", ".checkpoint", ".leaf"} {
		from := bytes.Index(b, []byte(name)) + len(name)
		for i := from; i < from+60; i += 3 {
			x := slices.Clone(b)
			x[i] ^= 4
			if v.Container(bytes.NewReader(x), int64(len(x))).Verdict == Holds {
				t.Errorf("the byte %d of %s does not count", i-from, name)
			}
		}
	}
}

// shortened is a checkpoint that no witness has seen.
func (w *world) shortened(size int64) []byte {
	text := merkle.Checkpoint{Origin: w.logs["SA"].Name(), Size: size}.Text()
	line, err := w.logs["SA"].Line(text, w.Now())
	must(w.t, err)
	return []byte(text + "\n" + line)
}
