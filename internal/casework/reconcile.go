package casework

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Standing is what one half says of a case so that the other can see whether
// they agree: no fact, only digests.
type Standing struct {
	Case  string `json:"case"`
	Sent  int64  `json:"sent"`
	Heard int64  `json:"heard"`
	Told  string `json:"told"`  // SHA-256 over its own facts as it told them
	Known string `json:"known"` // SHA-256 over the other's facts as it knows them
}

// standings is a page of them: POST …/casework/standings.
type standings struct {
	Format string     `json:"falaj"`
	After  string     `json:"after"` // cases with greater identifiers, in their order
	Cases  []Standing `json:"cases,omitempty"`
	More   bool       `json:"more,omitempty"`
}

// standingPage is how many cases a page holds.
const standingPage = 500

// Difference is a case of which the two halves do not agree.
type Difference struct {
	Case  string    `json:"case"`
	What  string    `json:"what"` // missing, behind, facts
	Here  *Standing `json:"here,omitempty"`
	There *Standing `json:"there,omitempty"`
}

// The ways in which halves differ.
const (
	DiffersMissing = "missing" // one half has no such case
	DiffersBehind  = "behind"  // messages are on their way, or lost
	DiffersFacts   = "facts"   // the same messages, other facts
)

func (c *Case) standing() (Standing, error) {
	d, known := c.program.Definition(), definition.Values{}
	for name, v := range c.Facts {
		if d.Facts[name].Owner != c.Party {
			known[name] = v
		}
	}
	s := Standing{Case: c.ID, Sent: c.Sent, Heard: c.Heard}
	var err error
	if s.Told, err = digest(c.ID, c.Told); err != nil {
		return s, err
	}
	s.Known, err = digest(c.ID, known)
	return s, err
}

// digest is over the case too, so that equal facts of two cases look
// different. It is not for outsiders: facts can be guessed.
func digest(id string, v definition.Values) (string, error) {
	b, err := v.AppendJSON([]byte("falaj case facts v1\n" + id + "\n"))
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:]), err
}

// Standings is this state's page of what it says to another one.
func (e *Engine) Standings(ctx context.Context, peer union.State, after string) ([]Standing, bool, error) {
	rows, err := e.deps.DB.Query(ctx, `SELECT `+caseColumns+` FROM casework_case WHERE peer = ? AND id > ? ORDER BY id LIMIT ?`, string(peer), after, standingPage+1)
	if err != nil {
		return nil, false, fmt.Errorf("reading the cases with %s: %w", peer, err)
	}
	defer rows.Close()
	var out []Standing
	for rows.Next() {
		c, body, err := scanCase(rows)
		if err != nil {
			return nil, false, err
		}
		if err := e.unfold(c, body); err != nil {
			return nil, false, err
		}
		s, err := c.standing()
		if err != nil {
			return nil, false, err
		}
		out = append(out, s)
	}
	if len(out) > standingPage {
		return out[:standingPage], true, rows.Err()
	}
	return out, false, rows.Err()
}

// Reconcile compares all cases with another state, tells lost messages and
// facts anew, and lists what differed. What is on its way looks like a
// difference too: what counts is what a second run still finds.
func (e *Engine) Reconcile(ctx context.Context, peer union.State) ([]Difference, error) {
	var found []Difference
	for after := ""; ; {
		here, more, err := e.Standings(ctx, peer, after)
		if err != nil {
			return found, err
		}
		there, moreThere, err := e.theirs(ctx, peer, after)
		if err != nil {
			return found, err
		}
		// Beyond the end of the shorter page nothing can be said yet.
		end := "~"
		if more {
			end = here[len(here)-1].Case
		}
		if moreThere && there[len(there)-1].Case < end {
			end = there[len(there)-1].Case
		}
		page, err := e.compare(ctx, here, there, end)
		found = append(found, page...)
		if err != nil || !more && !moreThere {
			return found, err
		}
		after = end
	}
}

func (e *Engine) compare(ctx context.Context, here, there []Standing, end string) (found []Difference, err error) {
	other := make(map[string]*Standing, len(there))
	for i := range there {
		if there[i].Case <= end {
			other[there[i].Case] = &there[i]
		}
	}
	for i := range here {
		if here[i].Case > end {
			continue
		}
		mine, theirs := &here[i], other[here[i].Case]
		delete(other, mine.Case)
		d := Difference{Case: mine.Case, Here: mine, There: theirs}
		switch {
		case theirs == nil:
			d.What = DiffersMissing
			err = e.again(ctx, 0, `number > ? AND number <= ? AND work = 0`, mine.Case, 0, mine.Sent)
		case mine.Sent != theirs.Heard || mine.Heard != theirs.Sent:
			d.What = DiffersBehind
			err = e.again(ctx, 0, `number > ? AND number <= ? AND work = 0`, mine.Case, theirs.Heard, mine.Sent)
		case mine.Told != theirs.Known:
			d.What = DiffersFacts
			err = e.amend(ctx, mine.Case)
		case mine.Known != theirs.Told:
			d.What = DiffersFacts // theirs to tell anew
		default:
			continue
		}
		found = append(found, d)
		if err != nil {
			return found, err
		}
	}
	for id, s := range other {
		found = append(found, Difference{Case: id, What: DiffersMissing, There: s})
	}
	return found, nil
}

// amend tells this half's facts anew.
func (e *Engine) amend(ctx context.Context, id string) error {
	_, err := e.happen(ctx, id, func(*Case) (*happening, error) { return &happening{kind: KindAmend, at: e.now()}, nil }, nil)
	return err
}

// theirs asks the other state for its page.
func (e *Engine) theirs(ctx context.Context, peer union.State, after string) ([]Standing, bool, error) {
	r, err := e.request(peer)
	if err != nil {
		return nil, false, err
	}
	if r.Body, err = json.Marshal(standings{Format: format, After: after}); err != nil {
		return nil, false, err
	}
	r.Path = "/standings"
	a, err := e.deps.Exchange.Fetch(ctx, r)
	if err != nil {
		return nil, false, err
	}
	var page standings
	if a.Fault != "" || a.Status != http.StatusOK || json.Unmarshal(a.Body, &page, json.RejectUnknownMembers(true)) != nil || len(page.Cases) > standingPage || page.More && len(page.Cases) == 0 {
		return nil, false, fault.New(fault.BackendFailed, "standings: status %d %s", a.Status, a.Fault)
	}
	return page.Cases, page.More, nil
}
