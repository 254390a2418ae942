package exchange

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// Promises holds other states to the promises that come with their messages:
// witness.Promises.
type Promises interface {
	Hold(witness.Held)
}

// promised reads the promise in what released a message; nil: there was none.
func promised(word []byte, err error) (*message.Promise, error) {
	if err != nil || len(word) == 0 {
		return nil, err
	}
	p, err := message.ParsePromise(word)
	if err != nil {
		return nil, fault.Wrap(fault.MessageMalformed, err, "%v", err)
	}
	return p, nil
}

// promiseBytes is a promise as it travels, and as a record's note keeps it.
func promiseBytes(p *message.Promise) []byte {
	if p == nil {
		return nil
	}
	return p.Append(make([]byte, 0, message.PromiseSize))
}

// expect remembers a message whose record must be in its sender's log. own is
// the leaf of this node's record of it.
func (x *Exchange) expect(own int64, from union.State, id string, kind journal.Kind, p *message.Promise, envelope []byte) {
	if x.deps.Promises != nil && from != x.cfg.State {
		x.deps.Promises.Hold(held(own, from, id, kind, p, envelope, x.deps.Now()))
	}
}

// held is what is expected of a message's sender. A promise of another kind of
// record than the sender's own of this message is none.
func held(own int64, from union.State, id string, kind journal.Kind, p *message.Promise, envelope []byte, at time.Time) witness.Held {
	h := witness.Held{Own: own, From: from, Envelope: sha256.Sum256(envelope), At: at, Index: -1}
	if p != nil && p.Kind == kind {
		h.Index, h.Leaf = p.Index, p.Leaf(id, h.Envelope)
	}
	return h
}

// Received reads, of count records from a leaf on, what others' messages are
// held to, and the next leaf to read; of the last record on, that is where the
// log ends. Records that are erased, archived or damaged hold
// nobody to anything.
func (x *Exchange) Received(ctx context.Context, from int64, count int) (out []witness.Held, next int64, err error) {
	for next = from; next < from+int64(count); next++ {
		s, err := x.deps.Journal.Get(ctx, next)
		if fault.CodeOf(err) == fault.NotFound {
			return out, next, nil
		}
		if err != nil && away(err) {
			continue
		}
		if err != nil {
			return out, next, err
		}
		if h, ok := x.receivedIn(s); ok {
			out = append(out, h)
		}
	}
	return out, next, nil
}

// receivedIn reads what a record holds another state to.
func (x *Exchange) receivedIn(s journal.Stored) (witness.Held, bool) {
	if s.Erased || s.Kind != journal.RequestReceived && s.Kind != journal.AnswerReceived {
		return witness.Held{}, false
	}
	client, service, ok := parties(s.Envelope)
	n, err := readNote(s.Local)
	if !ok || err != nil {
		return witness.Held{}, false // written so by nobody; fsck says what is wrong with it
	}
	p, err := message.ParsePromise(n.Promise)
	if err != nil {
		p = nil
	}
	from, kind := client.State, journal.RequestSent
	if s.Kind == journal.AnswerReceived {
		from, kind = service.State, journal.AnswerSent
	}
	return held(s.Index, from, s.Key, kind, p, s.Envelope, s.At), from != x.cfg.State
}
