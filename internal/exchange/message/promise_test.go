package message

import (
	"bytes"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/journal"
)

// TestPromise: a promise opens the leaf of the record that it is of.
func TestPromise(t *testing.T) {
	envelope := Envelope([]byte(`{"type":"x"}`), []byte("seal"))
	at := time.UnixMilli(1790000000123)
	r := journal.Record{Kind: journal.RequestSent, At: at, Key: "id", Class: "exchange", Envelope: envelope, Body: []byte("b"), Local: []byte("l")}
	e := journal.Entry{Index: 7, Salt: [32]byte{1, 2}}
	e.Leaf = journal.Leaf(e.Salt, r.Digest())
	p := PromiseOf(e, &r)
	sent := p.Append(nil)
	got, err := ParsePromise(sent)
	if err != nil || *got != *p {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := ParsePromise(sent[:PromiseSize-1]); err == nil {
		t.Error("half a promise")
	}
	if got.Leaf("id", sha256.Sum256(envelope)) != e.Leaf || got.Leaf("other", sha256.Sum256(envelope)) == e.Leaf {
		t.Error("another message has the same leaf")
	}
}

func FuzzPromise(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add((&Promise{Kind: 1, Index: 3}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePromise(b); err == nil && !bytes.Equal(p.Append(nil), b) {
			t.Errorf("%x is read as something else", b)
		}
	})
}
