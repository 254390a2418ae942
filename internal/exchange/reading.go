package exchange

import (
	"context"
	"slices"

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
	// Whose data was read, and for which purposes it had been asked for.
	Subjects []message.Digest `json:"subjects,omitempty"`
	Purposes []string         `json:"purposes,omitempty"`

	shows func(client, service union.SubsystemID) bool // whose calls were shown; nil: what was shown is nobody's data
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
	if refused == nil && r.shows != nil {
		if err := x.whose(ctx, &r); err != nil {
			return err
		}
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

// whose adds to a reading whose data this node's records of the calls are
// about: it belongs to the trace of these persons.
func (x *Exchange) whose(ctx context.Context, r *reading) error {
	for from, scanned := int64(0), 0; scanned < maxScanned; {
		found, err := x.deps.Journal.FindFrom(ctx, r.ID, from)
		if err != nil {
			return storeFault(err, "looking for whose data is read")
		}
		for _, s := range found {
			from = s.Index + 1
			if client, service, ok := parties(s.Envelope); !ok || !r.shows(client, service) {
				continue
			}
			for _, p := range persons(&s) {
				if !slices.Contains(r.Subjects, p) {
					r.Subjects = append(r.Subjects, p)
				}
			}
			if e, ok := entry(&s); ok && e.Purpose != nil && !slices.Contains(r.Purposes, e.Purpose.Code) {
				r.Purposes = append(r.Purposes, e.Purpose.Code)
			}
		}
		if scanned += len(found); len(found) < journal.MaxFound {
			break
		}
	}
	if len(r.Subjects) == 0 {
		r.Purposes = nil
	}
	return nil
}
