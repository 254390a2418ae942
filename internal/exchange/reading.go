package exchange

import (
	"context"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

// reading is what a journalled reading says: of evidence, by a person or a
// system; or of a delivery, where it was refused.
type reading struct {
	Action string      `json:"action"`
	By     string      `json:"by"`
	Door   string      `json:"door,omitzero"` // how a system proved itself
	ID     string      `json:"id,omitzero"`   // of the call
	State  union.State `json:"state,omitzero"`
	From   int64       `json:"from,omitzero"`
	Code   fault.Code  `json:"code,omitzero"` // why it was refused
}

// recordReading journals a reading, or that it was refused. Each is a record:
// they come through doors that bound how often a system may ask, as calls do.
// Without its record nothing is shown; a refusal is told all the same.
func (x *Exchange) recordReading(ctx context.Context, r reading, refused error) error {
	if refused != nil {
		r.Code = fault.CodeOf(refused)
	}
	if !message.ValidID(r.ID) {
		r.ID = ""
	}
	_, err := x.deps.Journal.Append(context.WithoutCancel(ctx), journal.Record{
		Kind: journal.Decision, Key: readingKey(r.ID), At: x.deps.Now(), Class: "exchange", Local: r.bytes(),
	})
	if err != nil && refused != nil {
		x.deps.Log.Error("a refusal left no record", "code", r.Code, "error", err)
	}
	if refused != nil {
		return refused
	}
	return storeFault(err, "recording who reads evidence")
}

// readingKey is the name under which the readings of an id stand in the
// journal. It holds a space, as no id does: no call stands among them.
func readingKey(id string) string { return "reading " + id }

func (r reading) bytes() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // texts and numbers alone
	}
	return b
}
