package message

import (
	"bytes"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/journal"
)

// TestPromise: a promise opens the leaf of the record that it is of, before
// whatever envelope; an envelope without one is none.
func TestPromise(t *testing.T) {
	envelope := Envelope([]byte(`{"type":"x"}`), []byte("seal"))
	at := time.UnixMilli(1790000000123)
	r := journal.Record{Kind: journal.RequestSent, At: at, Key: "id", Class: "exchange", Envelope: envelope, Body: []byte("b"), Local: []byte("l")}
	e := journal.Entry{Index: 7, Salt: [32]byte{1, 2}}
	e.Leaf = journal.Leaf(e.Salt, r.Digest())
	p := PromiseOf(e, &r)
	sent := Promised(p, envelope)
	got, rest, err := Split(sent)
	if err != nil || *got != *p || !bytes.Equal(rest, envelope) {
		t.Fatalf("%+v %q %v", got, rest, err)
	}
	if got, rest, err := Split(envelope); got != nil || err != nil || !bytes.Equal(rest, envelope) {
		t.Errorf("no promise: %+v %q %v", got, rest, err)
	}
	if _, _, err := Split(sent[:PromiseSize-1]); err == nil {
		t.Error("half a promise")
	}
	if got.Leaf("id", sha256.Sum256(envelope)) != e.Leaf || got.Leaf("other", sha256.Sum256(envelope)) == e.Leaf {
		t.Error("another message has the same leaf")
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add(Promised(&Promise{Kind: 1, Index: 3}, []byte("e")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, envelope, err := Split(b)
		if err != nil {
			return
		}
		if p != nil && !bytes.Equal(Promised(p, envelope), b) || p == nil && !bytes.Equal(envelope, b) {
			t.Errorf("%x is read as something else", b)
		}
	})
}
