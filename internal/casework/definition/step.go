package definition

import (
	"context"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// Values are facts by name, in the types that JSON gives them here: string,
// int64, bool, time.Time (instants), map[string]any, []any. There are no
// floats.
type Values map[string]any

// Half is what one party's half of a case is at a moment.
type Half struct {
	Party  string
	State  string
	Facts  Values               // its own, and the other's as last told
	Clocks map[string]time.Time // deadlines that run, by name
	// Fired holds the deadlines with `at`, and those of `always`, that have
	// fired and would run here still, with the instant for which they did: such
	// a one runs again only when its instant is another.
	Fired  map[string]time.Time
	Opened time.Time
}

// Actor is who stands behind a form: as the subsystem asserts it.
type Actor struct {
	Role string
	User string // X-Road-UserId, of an officer or a citizen
}

// Input is one thing that happens to a half.
type Input struct {
	Trigger string    // a form, a message, a call or a deadline
	At      time.Time // case time; for a deadline not before it
	Actor   Actor     // of a form
	Fields  Values    // of a form, a message, or a call's answer under its mask
	Status  int       // of a call's answer: HTTP, 0 where there is none
	// Let holds the results of the trigger's hooks where the step is taken
	// again, as Outcome.Let gave them; nil: the hooks are asked.
	Let Values
}

// Outcome is what a step did. It is a function of the definition, the half,
// the input and Let alone.
type Outcome struct {
	Half     // as it is now
	Branch   int
	Let      Values // results of hooks; Broken holds why one of them failed
	Send     []Sent
	Ask      []Asked
	Notices  []string
	Decision *Decided
	Effects  []Effect
	Held     string // why it went to the hold state, "" where it did not
}

// Sent is a message that leaves, with what its mask lets through.
type Sent struct {
	Message string
	Fields  Values
}

// Asked is a call to a register.
type Asked struct {
	Call string
	Path string
	Body Values // of a POST
}

// Decided is a decision with its texts, times fixed.
type Decided struct {
	Outcome string     `json:"outcome"`
	Reason  string     `json:"reason"`
	Text    union.Text `json:"text"`
	Rule    string     `json:"rule"`
	Appeal  time.Time  `json:"appeal,omitzero"` // until when
	By      string     `json:"by,omitempty"`
}

// Effect is Go that writes in the event's transaction, with its arguments.
type Effect struct {
	Run  string
	With Values
}

// Hooks are the functions that a definition may name, by versioned name.
type Hooks map[string]Func

// Func computes from its arguments alone, and from the state's own signed
// tables and calendar; what it gives is kept with the event. Its error must
// quote no value. One that gives nothing is an effect: the engine runs it.
type Func struct {
	Args  map[string]Type // all of them are given
	Gives Type            // "": it is an effect
	Call  func(ctx context.Context, now time.Time, args Values) (any, error)
}

// Why says how an input was not taken.
type Why string

// The ways. None of them changes the half.
const (
	Invalid    Why = "invalid"    // the fields are not what form or message says
	Actors     Why = "actor"      // not this actor's to do
	Unexpected Why = "unexpected" // not in this state
	Closed     Why = "closed"     // the case has ended, and this is not what it still accepts
	Refused    Why = "refused"    // a branch of the definition refused it, for Reason
)

// Refusal is the error of an input that was not taken.
type Refusal struct {
	Why    Why
	Reason string     // of the definition's reasons, where Why is Refused
	Text   union.Text // for people
	Detail string     // which field, which state: holds no value of a personal fact
}

func (r *Refusal) Error() string { return string(r.Why) + ": " + r.Text.En + r.detail() }

func (r *Refusal) detail() string {
	if r.Detail == "" {
		return ""
	}
	return " (" + r.Detail + ")"
}
