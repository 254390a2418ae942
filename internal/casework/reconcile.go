package casework

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/union"
)

// Standing is what one half says of a case so that the other can see whether
// they agree: no fact, only digests.
type Standing struct {
	Case  string `json:"case"`
	Sent  int64  `json:"sent"`
	Heard int64  `json:"heard"`
	Told  string `json:"told"`          // SHA-256 over its own facts as it told them
	Known string `json:"known"`         // SHA-256 over the other's facts as it knows them
	Over  bool   `json:"over,omitzero"` // it has ended so long ago that the other half may be forgotten
	Dark  bool   `json:"dark,omitzero"` // its facts are no longer kept: only the numbers are known
}

// standings is a page of them: POST …/casework/standings.
type standings struct {
	Format string     `json:"falaj"`
	After  string     `json:"after"` // cases with greater identifiers, in their order
	Cases  []Standing `json:"cases,omitempty"`
	More   bool       `json:"more,omitzero"`
}

const (
	// standingPage is the most cases that a page holds.
	standingPage = 500
	// maxDifferences bounds what one comparison finds: another state says which
	// cases it has.
	maxDifferences = 10_000
)

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

func (e *Engine) standing(c *Case, body []byte) (Standing, error) {
	s := Standing{Case: c.ID, Sent: c.Sent, Heard: c.Heard}
	if err := e.unfold(c, body); errors.Is(err, errDark) {
		s.Dark = true
		return s, nil
	} else if err != nil {
		e.deps.Log.Error("a case cannot be read; falaj fsck says more", "case", c.ID, "error", err)
		return s, nil // without digests it differs from every other
	}
	d, known := c.program.Definition(), definition.Values{}
	for name, v := range c.Facts {
		if d.Facts[name].Owner != c.Party {
			known[name] = v
		}
	}
	s.Over = c.Ended && !c.Opened.AddDate(0, 0, d.Retention.Days).After(e.now())
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
	if _, err := e.deps.Book(); err != nil {
		return nil, false, err
	}
	rows, err := e.deps.DB.Query(ctx, `SELECT `+caseColumns+` FROM casework_case WHERE peer = ? AND id > ? ORDER BY id LIMIT ?`, string(peer), after, e.cfg.Page+1)
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
		s, err := e.standing(c, body)
		if err != nil {
			return nil, false, err
		}
		out = append(out, s)
	}
	if len(out) > e.cfg.Page {
		return out[:e.cfg.Page], true, rows.Err()
	}
	return out, false, rows.Err()
}

// Reconcile holds this state's cases with another one against the other's
// standings. What is this half's to mend it mends: it sends messages again and
// facts anew, and lists what differed. What is on its way looks like a
// difference too: what counts is what a second run still finds.
func (e *Engine) Reconcile(ctx context.Context, peer union.State) ([]Difference, error) {
	found := []Difference{}
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
		end := ""
		if more {
			end = here[len(here)-1].Case
		}
		if moreThere && (!more || there[len(there)-1].Case < end) {
			end = there[len(there)-1].Case
		}
		page, err := e.compare(ctx, upToCase(here, end), upToCase(there, end))
		found = append(found, page...)
		switch {
		case err != nil || end == "":
			return found, err
		case len(found) > maxDifferences:
			return found[:maxDifferences], fault.New(fault.CaseDiffers, "%s: more than %d", peer, maxDifferences)
		}
		after = end
	}
}

// upToCase is the part of a page that can be compared; all of it where it is
// the last one.
func upToCase(page []Standing, end string) []Standing {
	if end == "" {
		return page
	}
	i, there := slices.BinarySearchFunc(page, end, func(s Standing, end string) int { return strings.Compare(s.Case, end) })
	if there {
		i++
	}
	return page[:i]
}

// compare goes through two lists of the same stretch of identifiers.
func (e *Engine) compare(ctx context.Context, here, there []Standing) (found []Difference, err error) {
	for len(here)+len(there) > 0 {
		var d Difference
		if len(here) > 0 && (len(there) == 0 || here[0].Case <= there[0].Case) {
			d.Case, d.Here, here = here[0].Case, &here[0], here[1:]
		}
		if len(there) > 0 && (d.Here == nil || there[0].Case == d.Case) {
			d.Case, d.There, there = there[0].Case, &there[0], there[1:]
		}
		if d.What, err = e.differs(ctx, d.Here, d.There); err != nil {
			return found, fmt.Errorf("comparing case %s: %w", d.Case, err)
		}
		if d.What != "" {
			found = append(found, d)
		}
	}
	return found, nil
}

// differs says how two halves of a case differ, "" where they do not, and does
// what this one can do about it.
func (e *Engine) differs(ctx context.Context, here, there *Standing) (string, error) {
	switch {
	case here == nil:
		if there.Over {
			// What was erased at the end of its retention is found no more.
			left, err := e.deps.Journal.Find(ctx, key(there.Case))
			if err != nil || !slices.ContainsFunc(left, func(s journal.Stored) bool { return !s.Erased }) {
				return "", err
			}
		}
		return DiffersMissing, nil // theirs to send again
	case here.Dark || there == nil && here.Over || there != nil && there.Dark:
		return "", nil
	case there == nil:
		return DiffersMissing, e.again(ctx, 0, `number > ? AND number <= ? AND work = 0`, here.Case, 0, here.Sent)
	case here.Sent != there.Heard || here.Heard != there.Sent:
		return DiffersBehind, e.again(ctx, 0, `number > ? AND number <= ? AND work = 0`, here.Case, there.Heard, here.Sent)
	case here.Told != there.Known:
		if err := e.amend(ctx, here.Case); err != nil {
			e.deps.Log.Error("a case's facts cannot be told anew", "case", here.Case, "error", err)
		}
		return DiffersFacts, nil
	case here.Known != there.Told:
		return DiffersFacts, nil // theirs to tell anew
	}
	return "", nil
}

// amend tells this half's facts anew.
func (e *Engine) amend(ctx context.Context, id string) error {
	_, err := e.happen(ctx, id, func(*Case) (*happening, error) { return &happening{kind: KindAmend, at: e.now()}, nil }, nil)
	return err
}

// theirs asks the other state for its page. What it says it must say in order,
// each case once.
func (e *Engine) theirs(ctx context.Context, peer union.State, after string) ([]Standing, bool, error) {
	r, err := e.request(peer)
	if err != nil {
		return nil, false, err
	}
	b, err := e.deps.Book()
	if err != nil {
		return nil, false, err
	}
	if r.Body, err = json.Marshal(standings{Format: format, After: after}); err != nil {
		return nil, false, err
	}
	r.Path, r.Purpose = "/standings", b.Peers()[peer]
	a, err := e.deps.Exchange.Fetch(ctx, r)
	switch {
	case err != nil:
		return nil, false, err
	case a.Fault != "":
		return nil, false, fault.New(a.Fault, "%s: /standings", peer)
	}
	var page standings
	sound := a.Status == http.StatusOK && json.Unmarshal(a.Body, &page, json.RejectUnknownMembers(true)) == nil &&
		len(page.Cases) <= standingPage && !(page.More && len(page.Cases) == 0)
	last := after
	for _, s := range page.Cases {
		sound = sound && isCase(s.Case) && s.Case > last
		last = s.Case
	}
	if !sound {
		return nil, false, fault.New(fault.BackendFailed, "%s: /standings: status %d, or no page of cases in their order", peer, a.Status)
	}
	return page.Cases, page.More, nil
}
