package casework

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/falaj/falaj/internal/fault"
)

// Filter narrows a list of cases. Zero values narrow nothing.
type Filter struct {
	Service string
	State   string
	Trouble bool
	Mine    bool   // of the person whom the reader names
	After   string // "<changed, Unix ms>.<case>" of the last one of the page before
}

// listPage is how many cases a page of a list holds.
const listPage = 100

// unreadable is the trouble of a case whose facts cannot be read.
const unreadable = "unreadable"

// query is the statement that gives a page of the list, each served by an index
// from its beginning to its end.
func (f Filter) query(person []byte) (query string, args []any, err error) {
	var conds []string
	add := func(cond string, arg ...any) { conds, args = append(conds, cond), append(args, arg...) }
	if f.Mine {
		add(`person = ? AND length(person) > 0`, person)
	}
	if f.Service != "" {
		add(`service = ?`, f.Service)
	}
	if f.State != "" {
		add(`state = ?`, f.State)
	}
	if f.Trouble {
		add(`trouble <> ''`)
	}
	if f.After != "" {
		ms, id, ok := strings.Cut(f.After, ".")
		at, err := strconv.ParseInt(ms, 10, 64)
		if !ok || err != nil {
			return "", nil, fault.New(fault.BadRequest, "after=%.64q", f.After)
		}
		add(`(changed_at, id) < (?, ?)`, at, id)
	}
	query = `SELECT ` + caseColumns + ` FROM casework_case`
	if conds != nil {
		query += ` WHERE ` + strings.Join(conds, ` AND `)
	}
	return query + ` ORDER BY changed_at DESC, id DESC LIMIT ?`, append(args, listPage), nil
}

// List is a page of the cases that the reader's system may see, the latest
// changed first, and where the next page begins. One that cannot be read is
// listed as such; one whose definition is not at hand is not, since nobody
// knows who may see it.
func (e *Engine) List(ctx context.Context, f Filter, r Reader) ([]Summary, string, error) {
	if f.Mine && r.User == "" {
		return nil, "", fault.New(fault.BadHeader, "X-Road-UserId")
	}
	if _, err := e.deps.Book(); err != nil {
		return nil, "", err
	}
	query, args, err := f.query(e.nameOf(r.User))
	if err != nil {
		return nil, "", err
	}
	rows, err := e.deps.DB.Query(ctx, query, args...)
	if err != nil {
		return nil, "", fmt.Errorf("listing cases: %w", err)
	}
	defer rows.Close()
	var out []Summary
	next, n := "", 0
	for rows.Next() {
		c, body, err := scanCase(rows)
		if err != nil {
			return nil, "", err
		}
		if n++; n == listPage {
			next = fmt.Sprintf("%d.%s", c.Changed.UnixMilli(), c.ID)
		}
		if err := e.unfold(c, body); errors.Is(err, errDark) {
			continue // its retention has ended
		} else if err != nil {
			if c.program == nil {
				e.deps.Log.Error("a case is not listed: its definition is not at hand", "case", c.ID, "error", err)
				continue
			}
			c.Trouble = unreadable
		}
		if _, err := e.rolesOf(c, r); err == nil {
			out = append(out, c.summary())
		}
	}
	return out, next, rows.Err()
}
