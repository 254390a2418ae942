package evidence

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

var noon = time.Date(2026, 11, 22, 9, 0, 1, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// message seals a head and a body as a member of a state would.
func message(t testing.TB, part seal.Part, head, body string) *Message {
	t.Helper()
	ck, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca, err := directory.NewAuthority("BH", "Bahrain", ck, func() time.Time { return noon })
	must(t, err)
	cert, err := ca.Seal(union.MemberID{State: "BH", Class: "GOV", Code: "office"}, "Office", k.Public())
	must(t, err)
	crl, err := ca.CRL(nil)
	must(t, err)
	m := &Message{Head: []byte(head), Cert: cert, Authority: ca.Cert, CRL: crl}
	var digest *seal.Digest
	if body != "" {
		m.Body = &Body{Size: int64(len(body)), SHA256: sha256.Sum256([]byte(body)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(iotest.HalfReader(strings.NewReader(body))), nil
		}}
		digest = &m.Body.SHA256
	}
	s, err := seal.Sign(k, cert, seal.Manifest(part, sha256.Sum256(m.Head), digest), noon)
	must(t, err)
	m.Seal, err = s.AppendBinary(nil)
	must(t, err)
	return m
}

func call(t testing.TB) Call {
	r := Record{State: "BH", Node: "n1", Message: "request", Kind: uint8(journal.RequestSent), At: noon.UnixMilli(), Leaf: 7, Receipt: []byte("c2sp.org/tlog-proof@v1\n")}
	return Call{
		ID: "id-1", Union: "test", Request: message(t, seal.Request, `{"a":1}`, "question"), Answer: message(t, seal.Answer, `{"b":2}`, "answer"),
		Records: []Record{r}, Directory: map[string][]byte{"1.root.json": []byte("{}"), "targets/BH/00.state.json": []byte("{}")},
	}
}

func pack(t testing.TB, c Call) []byte {
	t.Helper()
	p, err := New(t.Context(), c)
	must(t, err)
	var b bytes.Buffer
	must(t, p.Write(t.Context(), &b))
	if p.Size() != int64(b.Len()) {
		t.Errorf("said to have %d bytes, has %d", p.Size(), b.Len())
	}
	return b.Bytes()
}

func read(b []byte) (*Container, error) { return Open(bytes.NewReader(b), int64(len(b))) }

// TestPacked: a container holds what it was made of, in the form that ASiC
// wants, and any ZIP reader reads the same.
func TestPacked(t *testing.T) {
	in := call(t)
	b := pack(t, in)
	if !bytes.Equal(b, pack(t, in)) {
		t.Error("equal calls give unequal bytes")
	}
	// EN 319 162-1 A.1: the type stands where magic numbers are looked for.
	if string(b[:4]) != "PK\x03\x04" || string(b[30:38]) != "mimetype" || string(b[38:38+len(MIME)]) != MIME {
		t.Errorf("it begins with %q", b[:80])
	}
	c, err := read(b)
	must(t, err)
	want := []string{
		"mimetype", "META-INF/ASiCManifest001.xml", "META-INF/ASiCManifest002.xml", "META-INF/falaj/SHA256SUMS",
		"META-INF/falaj/answer.seal", "META-INF/falaj/certificate/answer-authority.pem", "META-INF/falaj/certificate/answer-crl.pem", "META-INF/falaj/certificate/answer.pem",
		"META-INF/falaj/certificate/request-authority.pem", "META-INF/falaj/certificate/request-crl.pem", "META-INF/falaj/certificate/request.pem",
		"META-INF/falaj/container.json", "META-INF/falaj/directory/1.root.json", "META-INF/falaj/directory/targets/BH/00.state.json",
		"META-INF/falaj/receipt/BH-request-7.tlog-proof", "META-INF/falaj/request.seal", "META-INF/signature001.p7s", "META-INF/signature002.p7s",
		"README.txt", "answer/body.bin", "answer/head.json", "request/body.bin", "request/head.json",
	}
	if !slices.Equal(c.Names(), want) {
		t.Errorf("it holds %q", c.Names())
	}
	for name, text := range map[string]string{"request/head.json": `{"a":1}`, "answer/body.bin": "answer", "META-INF/falaj/request.seal": string(in.Request.Seal)} {
		if b, err := c.Read(name, 1000); err != nil || string(b) != text {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
	}
	if _, err := c.Read("README.txt", 10); !errors.Is(err, ErrForm) {
		t.Errorf("read beyond its limit: %v", err)
	}
	if _, err := c.Read("README", 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	agree(t, b, c)
	got, err := c.Contents()
	if err != nil || got.ID != "id-1" || len(got.Records) != 1 || string(got.Records[0].Receipt) != "c2sp.org/tlog-proof@v1\n" {
		t.Errorf("%+v %v", got, err)
	}
}

// agree holds a container against the standard library's reading of it.
func agree(t testing.TB, b []byte, c *Container) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	must(t, err)
	if len(z.File) != len(c.Names()) {
		t.Fatalf("%d files for one reader, %d for the other", len(c.Names()), len(z.File))
	}
	for i, name := range c.Names() {
		f := z.File[i]
		if f.Name != name || f.Method != zip.Store || len(f.Extra) > 0 || f.Mode() != 0o644 {
			t.Errorf("%s is %s, method %d, mode %v, extra %x", name, f.Name, f.Method, f.Mode(), f.Extra)
		}
		var ours bytes.Buffer
		err := c.Copy(&ours, name)
		r, oerr := f.Open()
		must(t, oerr)
		theirs, oerr := io.ReadAll(r)
		if (err == nil) != (oerr == nil) || err == nil && !bytes.Equal(ours.Bytes(), theirs) {
			t.Errorf("%s: %v, %v", name, err, oerr)
		}
	}
}

// TestNothingBrokenIsPacked: what does not verify is not handed out.
func TestNothingBrokenIsPacked(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Call)
		want   fault.Code
	}{
		"nothing":            {func(c *Call) { c.Request, c.Answer = nil, nil }, fault.NotFound},
		"another head":       {func(c *Call) { c.Request.Head = []byte("{}") }, fault.SealInvalid},
		"another body named": {func(c *Call) { c.Request.Body.SHA256[0]++ }, fault.SealInvalid},
		"another body kept": {func(c *Call) {
			c.Answer.Body.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("ANSWER")), nil }
		}, fault.Corrupt},
		"a longer body kept": {func(c *Call) {
			c.Answer.Body.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("answer+")), nil }
		}, fault.Corrupt},
		"the parts exchanged": {func(c *Call) { c.Request, c.Answer = c.Answer, c.Request }, fault.SealInvalid},
		"no seal":             {func(c *Call) { c.Answer.Seal = nil }, fault.SealInvalid},
		"too many records":    {func(c *Call) { c.Records = make([]Record, MaxRecords+1) }, fault.TooLarge},
		"a large file":        {func(c *Call) { c.Directory["x"] = make([]byte, MaxFile+1) }, fault.TooLarge},
		"a file outside":      {func(c *Call) { c.Directory["../x"] = nil }, fault.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			c := call(t)
			tt.change(&c)
			if _, err := New(t.Context(), c); fault.CodeOf(err) != tt.want {
				t.Errorf("%v, wanted %s", err, tt.want)
			}
		})
	}
	// A body that changes between the two readings leaves no whole container.
	c, n := call(t), 0
	c.Answer.Body.Open = func() (io.ReadCloser, error) {
		n++
		return io.NopCloser(strings.NewReader(map[bool]string{true: "answer", false: "enswar"}[n == 1])), nil
	}
	p, err := New(t.Context(), c)
	must(t, err)
	var b bytes.Buffer
	if err := p.Write(t.Context(), &b); fault.CodeOf(err) != fault.Corrupt {
		t.Errorf("%v", err)
	}
	if _, err := read(b.Bytes()); !errors.Is(err, ErrForm) {
		t.Errorf("half a container opens: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ctx, call(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits, and: %v", err)
	}
}

// TestAbsentIsNamed: what is not there is said, and nothing in its place.
func TestAbsentIsNamed(t *testing.T) {
	c := call(t)
	why := union.Text{En: "not kept", Ar: "لم يُحفظ"}
	c.Answer.Body.Open, c.Answer.Body.Absent, c.Request, c.Answer.CRL = nil, why, nil, nil
	r, err := read(pack(t, c))
	must(t, err)
	if _, err := r.Size("answer/body.bin"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	got, err := r.Contents()
	if err != nil || !slices.Equal(got.Absent, []Absence{{"answer/body.bin", why}}) {
		t.Errorf("%+v %v", got, err)
	}
	text, err := r.Read(ReadmeName, MaxFile)
	if err != nil || !strings.Contains(string(text), "لم يُحفظ") || strings.Contains(string(text), "body.bin |") || strings.Contains(string(text), "crl_check") || strings.Contains(string(text), "ASiCManifest001") {
		t.Errorf("%s %v", text, err)
	}
}

// raw writes entries as they are, in any order and of any name.
func raw(entries []*entry, data map[string]string) []byte {
	var b, central []byte
	for _, e := range entries {
		e.offset = int64(len(b))
		e.size, e.crc = int64(len(data[e.name])), crc32.ChecksumIEEE([]byte(data[e.name]))
		b = append(e.appendLocal(b), data[e.name]...)
		central = e.appendCentral(central)
	}
	n := len(b)
	b = append(b, central...)
	return appendEnd(b, len(entries), int64(len(central)), int64(n))
}

func TestHostileContainers(t *testing.T) {
	good := pack(t, call(t))
	data := map[string]string{mimeName: MIME, "a": "1", "b": "2", "a/c": "3", "../e": "4", "/f": "5", "a\\g": "6", "h//i": "7", "./j": "8", "k\x00l": "9", ".m": "0", "n..o": "1", "p/": "", "con.": "2", "a-b": "3"}
	list := func(names ...string) []byte {
		var entries []*entry
		for _, n := range names {
			entries = append(entries, &entry{name: n, stamp: stampOf(noon)})
		}
		return raw(entries, data)
	}
	if _, err := read(list(mimeName, "a", "b")); err != nil {
		t.Fatalf("the control: %v", err)
	}
	other := func(change func(b []byte)) []byte {
		b := list(mimeName, "a", "b")
		change(b)
		return b
	}
	deflated := func() []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for _, n := range []string{mimeName, "bomb"} {
			w, err := z.CreateHeader(&zip.FileHeader{Name: n, Method: map[bool]uint16{true: zip.Store, false: zip.Deflate}[n == mimeName]})
			must(t, err)
			_, err = io.WriteString(w, map[bool]string{true: MIME, false: strings.Repeat("0", 10<<20)}[n == mimeName])
			must(t, err)
		}
		must(t, z.Close())
		return b.Bytes()
	}
	for name, b := range map[string][]byte{
		"nothing": {}, "an end alone": good[len(good)-endRecord:], "cut": good[:len(good)-1], "cut in front": good[1:],
		"something before": append([]byte("#!/bin/sh\n"), good...), "something behind": append(slices.Clone(good), 0),
		"two containers": append(slices.Clone(good), good...), "a bomb": deflated(),
		"no type": list("a", "b"), "the type second": list("a", mimeName), "the type twice": list(mimeName, mimeName), "the type at the end": list(mimeName, "a", mimeName),
		"out of order": list(mimeName, "b", "a"), "one name twice": list(mimeName, "a", "a"), "a file and a folder": list(mimeName, "a", "a/c"), "a file and a folder, another between": list(mimeName, "a", "a-b", "a/c"),
		"out of the folder": list(mimeName, "../e"), "absolute": list(mimeName, "/f"), "a backslash": list(mimeName, "a\\g"), "an empty segment": list(mimeName, "h//i"),
		"a dot segment": list(mimeName, "./j"), "a NUL": list(mimeName, "k\x00l"), "a hidden file": list(mimeName, ".m"), "two dots": list(mimeName, "n..o"), "a folder": list(mimeName, "p/"), "a dot at the end": list(mimeName, "con."),
		"another type":            raw([]*entry{{name: mimeName}}, map[string]string{mimeName: strings.Repeat("x", len(MIME))}),
		"another name in front":   other(func(b []byte) { b[bytes.Index(b, []byte("a1"))] = 'A' }),
		"a size in front":         other(func(b []byte) { b[bytes.Index(b, []byte("a1"))-8]++ }),
		"an extra field in front": other(func(b []byte) { b[bytes.Index(b, []byte("a1"))-2] = 1 }),
		"a link":                  other(func(b []byte) { b[bytes.LastIndex(b, []byte("PK\x01\x02"))+41] = 0xa1 }),
		"encrypted":               other(func(b []byte) { b[bytes.LastIndex(b, []byte("PK\x01\x02"))+8] = 1 }),
		"a comment":               other(func(b []byte) { b[len(b)-2] = 1 }),
		"more entries than said":  other(func(b []byte) { b[len(b)-14], b[len(b)-12] = 2, 2 }),
		"fewer entries than said": other(func(b []byte) { b[len(b)-14], b[len(b)-12] = 4, 4 }),
		"overlapping":             other(func(b []byte) { b[bytes.LastIndex(b, []byte("PK\x01\x02"))+42]-- }),
		"a huge size": other(func(b []byte) {
			copy(b[bytes.LastIndex(b, []byte("PK\x01\x02"))+20:], "\xff\xff\xff\xff\xff\xff\xff\xff")
		}),
		"a huge directory": other(func(b []byte) { copy(b[len(b)-10:], "\xff\xff\xff\xff") }),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := read(b); !errors.Is(err, ErrForm) {
				t.Errorf("it opens: %v", err)
			}
		})
	}
	// What is damaged is found when it is read.
	b := slices.Clone(good)
	b[bytes.Index(b, []byte("question"))] ^= 1
	c, err := read(b)
	must(t, err)
	if err := c.Copy(io.Discard, "request/body.bin"); !errors.Is(err, ErrForm) {
		t.Errorf("a damaged file is copied: %v", err)
	}
	if _, err := c.Read("request/body.bin", 100); !errors.Is(err, ErrForm) {
		t.Errorf("a damaged file is read: %v", err)
	}
}

// TestHostileContents: what nobody signed is not shown or used as it comes.
func TestHostileContents(t *testing.T) {
	const record = `{"state":"BH","node":"n1","message":"request","kind":1,"at":0,"leaf":0,"salt":"","class":"","key":"","body":"","local":"","hash":""}`
	zero := strings.ReplaceAll(record, `""`, `"`+strings.Repeat("0", 64)+`"`)
	contents := func(s string) error {
		c, err := read(raw([]*entry{{name: mimeName}, {name: ContentsName}}, map[string]string{mimeName: MIME, ContentsName: s}))
		must(t, err)
		_, err = c.Contents()
		return err
	}
	good := `{"type":"falaj.container/1","id":"a","absent":[{"name":"answer/body.bin","why":{"en":"a","ar":"b"}}],"records":[` + zero + `]}`
	must(t, contents(good))
	stamped := func(judge string, n int) string {
		renewals := strings.TrimSuffix(strings.Repeat(judge+",", n), ",")
		return strings.TrimSuffix(zero, "}") + `,"stamp":{"end":1,"authority":"SA","directory":1,"renewals":[` + renewals + `]}}`
	}
	const judge = `{"authority":"SA","directory":1}`
	if err := contents(strings.Replace(good, zero, stamped(judge, 63), 1)); !errors.Is(err, fs.ErrNotExist) { // its files
		t.Errorf("renewals: %v", err)
	}
	for _, change := range [][2]string{
		{"container/1", "container/2"}, {`"id":"a"`, `"id":"\u001b[2J"`}, {`"id":"a"`, `"id":"` + strings.Repeat("a", 256) + `"`}, {`"id":"a"`, `"id":"a","id":"a"`},
		{"answer/body.bin", "answer/head.json"}, {`"en":"a"`, `"en":"\u001b[2J"`}, {`"ar":"b"`, `"ar":"\n"`}, {`"en":"a"`, `"en":"` + strings.Repeat("a", 2000) + `"`},
		{`"BH"`, `"../B"`}, {`"n1"`, `"\u001b"`}, {`"message":"request"`, `"message":"../../x"`}, {`"leaf":0`, `"leaf":-1`}, {`"kind":1`, `"kind":256`},
		{zero, record}, {zero, zero + strings.Repeat(","+zero, MaxRecords)}, {`"records"`, `"more":1,"records"`}, {good, "null"}, {good, good + good}, {good, ""},
		{zero, stamped(judge, 64)}, {zero, stamped(`{"authority":"../S","directory":1}`, 1)}, {zero, stamped(`{"authority":"SA","directory":-1}`, 1)}, {zero, stamped(`{"end":1}`, 1)},
		{zero, stamped(judge, 63) + strings.Repeat(","+stamped(judge, 63), MaxRenewals/63)},
	} {
		if err := contents(strings.Replace(good, change[0], change[1], 1)); !errors.Is(err, ErrForm) {
			t.Errorf("%.60s: %v", change[1], err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	good := pack(f, call(f))
	f.Add(good)
	f.Add(raw([]*entry{{name: mimeName}, {name: "a"}}, map[string]string{mimeName: MIME, "a": "1"}))
	f.Add(raw([]*entry{{name: mimeName}}, map[string]string{mimeName: MIME}))
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := read(b)
		if err != nil {
			if !errors.Is(err, ErrForm) {
				t.Errorf("%v", err)
			}
			return
		}
		agree(t, b, c)
		_, _ = c.Contents()
	})
}

func TestStamps(t *testing.T) {
	for _, at := range []time.Time{noon, time.Unix(0, 0), time.Date(2108, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC)} {
		b := raw([]*entry{{name: mimeName, stamp: stampOf(at)}}, map[string]string{mimeName: MIME})
		z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		want := at.UTC().Truncate(2 * time.Second)
		if at.Year() < 1980 || at.Year() > 2107 {
			want = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		if got := z.File[0].Modified; !got.Equal(want) {
			t.Errorf("%s is %s", at, got)
		}
	}
}
