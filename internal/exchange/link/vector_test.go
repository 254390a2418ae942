package link

import (
	"bytes"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/fault"
)

// TestVectors holds the encoders and decoders to the protocol's document.
func TestVectors(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/protocols/node.md")
	ok(t, err)
	comment := regexp.MustCompile(`#[^\n]*|\s`)
	found := map[string][]byte{}
	for _, m := range regexp.MustCompile("(?s)```vector ([a-z-]+)\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		b, err := hex.DecodeString(comment.ReplaceAllString(m[2], ""))
		if err != nil {
			t.Fatalf("%s: %v", m[1], err)
		}
		found[m[1]] = b
	}
	envelope := []byte(`{"h":1}`)
	busy := &fault.Error{Code: fault.Overloaded, ID: "67e55044-10b1-426f-9247-bb680e5fe0c8", Detail: "busy"}
	want := map[string][]byte{
		"hello":         appendHello(nil, hello{min: 1, max: 1, software: "falaj 1.0"}),
		"request":       appendOpening(nil, typeRequest, 1, opening{deadline: 1500, head: envelope, size: 2, inline: []byte("hi")}),
		"request-large": appendOpening(nil, typeRequest, 2, opening{head: envelope, size: 65537}),
		"body":          append(appendHeader(nil, header{length: 3, typ: typeBody, stream: 2}), "abc"...),
		"window":        appendWindow(nil, 2, 32768),
		"answer":        appendOpening(nil, typeAnswer, 1, opening{head: []byte("{}")}),
		"query":         appendOpening(nil, typeQuery, 3, opening{head: []byte("directory.get"), size: 8, inline: []byte("snapshot")}),
		"reply":         appendOpening(nil, typeReply, 3, opening{size: 2, inline: []byte("ok")}),
		"reset":         appendReset(nil, 1, busy, flagNotBegun),
		"ping":          appendPing(nil, typePing, 7),
		"pong":          appendPing(nil, typePong, 7),
		"goaway":        appendGoaway(nil, 3, &fault.Error{Code: fault.Draining}),
	}
	for name, w := range want {
		if !bytes.Equal(found[name], w) {
			t.Errorf("%s: the document has %x, the encoder writes %x", name, found[name], w)
		}
		h := parseHeader(w)
		if err := h.check(); err != nil || int(h.length) != len(w)-headerSize {
			t.Errorf("%s: header %+v, %v", name, h, err)
		}
	}
	if len(found) < len(want) {
		t.Errorf("the document has %d vectors", len(found))
	}
	e, err := parseNotice(found["reset"][headerSize:])
	ok(t, err)
	if *e != *busy {
		t.Errorf("the reset says %+v", e)
	}
	o, err := parseOpening(typeRequest, 0, found["request"][headerSize:])
	ok(t, err)
	if o.deadline != 1500 || !bytes.Equal(o.head, envelope) || string(o.inline) != "hi" {
		t.Errorf("the request says %+v", o)
	}
	h, err := parseHello(append(found["hello"][headerSize:], "a later version's field"...))
	ok(t, err)
	if h != (hello{1, 1, "falaj 1.0"}) {
		t.Errorf("the hello says %+v", h)
	}
}

// TestNotice: what a peer says of itself is made safe for logs.
func TestNotice(t *testing.T) {
	for name, c := range map[string]struct {
		payload string
		want    fault.Error
	}{
		"code outside the alphabet": {"\x03a b\x00", fault.Error{Code: fault.Internal}},
		"no code":                   {"\x00\x00x", fault.Error{Code: fault.Internal, Detail: "x"}},
		"id that is none":           {"\x01a\x02\n1x", fault.Error{Code: "a", Detail: "x"}},
		"control characters":        {"\x01a\x00one\ntwo\x1b[31m\xff", fault.Error{Code: "a", Detail: "one?two?[31m?"}},
		"Arabic":                    {"\x01a\x00قاعدة", fault.Error{Code: "a", Detail: "قاعدة"}},
		"long detail":               {"\x01a\x00" + strings.Repeat("x", maxDetail+5), fault.Error{Code: "a", Detail: strings.Repeat("x", maxDetail)}},
	} {
		e, err := parseNotice([]byte(c.payload))
		if err != nil || *e != c.want {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}
