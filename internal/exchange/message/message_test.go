package message

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/union"
	"pgregory.net/rapid"
)

func service(t testing.TB, s string) union.ServiceID {
	t.Helper()
	id, err := union.ParseService(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func sample(t testing.TB) *Request {
	return &Request{
		Type: TypeRequest, Union: "gcc", Directory: 7, ID: "a-1", RequestID: "r-1",
		Client:  service(t, "SA/GOV/transport/fines/x").SubsystemID,
		Service: service(t, "BH/GOV/interior/traffic/vehicles"),
		Method:  "GET", Path: "/v1/%D8%A7?q=1&q=2", Purpose: "traffic",
		Headers:   []Header{{"accept", "application/json"}, {"x-road-userid", "SA123"}},
		NotBefore: 1000, NotAfter: 61000,
	}
}

func TestRequestGolden(t *testing.T) {
	got, err := sample(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"falaj.request/1","union":"gcc","directory":7,"id":"a-1","request_id":"r-1","client":"SA/GOV/transport/fines","service":"BH/GOV/interior/traffic/vehicles","method":"GET","path":"/v1/%D8%A7?q=1&q=2","headers":[["accept","application/json"],["x-road-userid","SA123"]],"purpose":"traffic","not_before":1000,"not_after":61000}`
	if string(got) != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	back, err := ParseRequest(got)
	if err != nil || !reflect.DeepEqual(back, sample(t)) {
		t.Fatalf("read back %+v, %v", back, err)
	}
}

// What a hostile or careless writer may change in a head, and must not get through.
func TestParseRefuses(t *testing.T) {
	good, _ := sample(t).Encode()
	cases := map[string][2]string{
		"duplicate key":        {`"union":"gcc"`, `"union":"gcc","union":"gcc"`},
		"other capitals":       {`"union"`, `"Union"`},
		"unknown field":        {`"union":"gcc"`, `"union":"gcc","more":1`},
		"no purpose":           {`"purpose":"traffic"`, `"purpose":""`},
		"another type label":   {"falaj.request/1", "falaj.answer/1"},
		"four-part service":    {"BH/GOV/interior/traffic/vehicles", "BH/GOV/interior/traffic"},
		"state in lower case":  {"SA/GOV", "sa/GOV"},
		"dots in identifier":   {"transport/fines", "transport/.."},
		"space in path":        {"/v1/", "/v 1/"},
		"path without slash":   {"/v1/", "v1/"},
		"method":               {`"GET"`, `"G T"`},
		"CRLF in header":       {`application/json`, `a\r\nX: y`},
		"hop header":           {`"accept"`, `"connection"`},
		"our header":           {`"accept"`, `"falaj-purpose"`},
		"capital header":       {`"accept"`, `"Accept"`},
		"headers out of order": {`"accept"`, `"zz"`},
		"three in a header":    {`"application/json"]`, `"application/json","x"]`},
		"validity reversed":    {`"not_after":61000`, `"not_after":999`},
		"validity too long":    {`"not_after":61000`, `"not_after":99999999999`},
		"directory zero":       {`"directory":7`, `"directory":0`},
		"directory fraction":   {`"directory":7`, `"directory":7.5`},
		"empty id":             {`"id":"a-1"`, `"id":""`},
		"id with newline":      {`"id":"a-1"`, `"id":"a\n1"`},
		"trailing data":        {`"not_after":61000}`, `"not_after":61000}{}`},
		"empty body named":     {`"not_after":61000}`, `"not_after":61000,"body":{"size":0,"sha256":"` + strings.Repeat("0", 64) + `"}}`},
		"short digest":         {`"not_after":61000}`, `"not_after":61000,"body":{"size":1,"sha256":"00"}}`},
		"invalid UTF-8":        {"SA123", "SA\xff"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := bytes.Replace(good, []byte(c[0]), []byte(c[1]), 1)
			if bytes.Equal(b, good) {
				t.Fatal("the case changes nothing")
			}
			if _, err := ParseRequest(b); !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s\nread with error %v", b, err)
			}
		})
	}
}

func TestAnswerNoBodyWith204(t *testing.T) {
	r := sample(t)
	a := &Answer{Type: TypeAnswer, Union: r.Union, Directory: 1, ID: r.ID, RequestID: r.RequestID, Client: r.Client,
		Service: r.Service, Status: 204, NotBefore: 1, NotAfter: 2, Body: &Body{Size: 1}}
	if _, err := a.Encode(); !errors.Is(err, ErrMalformed) {
		t.Fatalf("a body beside 204: %v", err)
	}
	a.Body = nil
	if _, err := a.Encode(); err != nil {
		t.Fatal(err)
	}
}

func TestContent(t *testing.T) {
	a, b := sample(t), sample(t)
	b.NotBefore, b.NotAfter, b.RequestID = 5, 6, "other"
	if a.Content() != b.Content() {
		t.Error("the time of asking changes the content")
	}
	for name, change := range map[string]func(*Request){
		"path":    func(r *Request) { r.Path += "x" },
		"method":  func(r *Request) { r.Method = "PUT" },
		"header":  func(r *Request) { r.Headers[0].Value = "*/*" },
		"body":    func(r *Request) { r.Body = &Body{Size: 1, SHA256: Digest{1}} },
		"purpose": func(r *Request) { r.Purpose = "audit" },
		"service": func(r *Request) { r.Service.Service = "persons" },
	} {
		c := sample(t)
		change(c)
		if c.Content() == a.Content() {
			t.Errorf("another %s, the same content", name)
		}
	}
}

func TestEnvelope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		head := rapid.SliceOf(rapid.Byte()).Draw(t, "head")
		seal := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "seal")
		h, s, err := Open(Envelope(head, seal))
		if err != nil || !bytes.Equal(h, head) || !bytes.Equal(s, seal) {
			t.Fatalf("%x %x %v", h, s, err)
		}
	})
	for _, b := range [][]byte{nil, {0, 0, 0}, {0, 0, 0, 9, 1}, {0xff, 0xff, 0xff, 0xff, 1}, {0, 0, 0, 1, 1}, append([]byte{0, 0, 0, 0}, make([]byte, MaxSealBytes+1)...)} {
		if _, _, err := Open(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("opened %x: %v", b[:min(len(b), 8)], err)
		}
	}
}

func FuzzParse(f *testing.F) {
	good, _ := sample(f).Encode()
	f.Add(good)
	f.Add([]byte(`{"type":"falaj.answer/1","headers":[["a","b"]]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRequest(b); err == nil {
			again, err := r.Encode()
			if err != nil {
				t.Fatalf("read but cannot be written: %v", err)
			}
			if r2, err := ParseRequest(again); err != nil || r2.Content() != r.Content() {
				t.Fatalf("written and read back: %v", err)
			}
		}
		_, _ = ParseAnswer(b)
		_ = Kind(b)
		_, _, _ = Open(b)
	})
}

func BenchmarkRequest(b *testing.B) {
	r := sample(b)
	good, _ := r.Encode()
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Encode(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseRequest(good); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestIDIsNoPath: an id stands as a segment of addresses, where these two name
// another place.
func TestIDIsNoPath(t *testing.T) {
	for id, want := range map[string]bool{"": false, ".": false, "..": false, "...": true, ".a": true, "a b": false, "a/../b": true} {
		if ValidID(id) != want {
			t.Errorf("%q: %t", id, !want)
		}
	}
}
