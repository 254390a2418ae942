package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/seal"
)

// Erase names records to be erased, by their leaves: nothing else of them
// stands in what stays.
type Erase struct {
	Leaves []int64 `json:"leaves"`
	Reason string  `json:"reason"` // stays: it names no person
}

// Erased says what was erased.
type Erased struct {
	Leaves   []int64 `json:"leaves"`
	Decision int64   `json:"decision"` // leaf of its record
}

// maxReason bounds what people give as a reason, in bytes.
const maxReason = 1 << 10

func checkReason(reason string) error {
	if strings.TrimSpace(reason) == "" || len(reason) > maxReason {
		return fault.New(fault.BadRequest, "reason: wanted, in at most %d bytes", maxReason)
	}
	return nil
}

// mayErase refuses, before a second person is asked, what a hold keeps.
func (n *Node) mayErase(ctx context.Context, raw json.RawMessage) error {
	var p Erase
	if err := admin.Decode(raw, &p); err != nil {
		return err
	}
	if err := checkReason(p.Reason); err != nil {
		return err
	}
	held, err := n.heldRecords(ctx, p.Leaves)
	if err != nil {
		return err
	}
	return held()
}

func (n *Node) erase(ctx context.Context, who admin.Person, p Erase) (admin.Done, error) {
	held, err := n.heldRecords(ctx, p.Leaves)
	if err != nil {
		return admin.Done{}, err
	}
	d, err := n.exchange.Erase(ctx, journal.Erasure{
		Leaves: p.Leaves, By: []string{who.Name}, Reason: p.Reason, At: n.now(), Class: "admin",
	}, n.signArchive, n.vouch, held)
	if err != nil {
		return admin.Done{}, err
	}
	done := Erased{p.Leaves, d.Index}
	return admin.Done{Result: done, After: done}, nil
}

// heldRecords reads where records lie, and gives what tells whether a hold
// keeps one of them.
func (n *Node) heldRecords(ctx context.Context, leaves []int64) (func() error, error) {
	if len(leaves) == 0 || len(leaves) > journal.MaxFound {
		return nil, fault.New(fault.BadRequest, "leaves: wanted are 1 to %d", journal.MaxFound)
	}
	var all []journal.Stored
	for _, i := range leaves {
		s, err := n.journal.Get(ctx, i)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return func() error {
		holds, err := n.holds()
		if err != nil {
			return err
		}
		for _, s := range all {
			var by []string
			for _, h := range holds {
				if !s.Erased && h.Class == s.Class && (h.Month == "" || h.Month == seal.PeriodOf(s.At).String()) && (len(h.Leaves) == 0 || slices.Contains(h.Leaves, s.Index)) {
					by = append(by, h.Name)
				}
			}
			if by != nil {
				return fault.New(fault.Held, "record %d: %s", s.Index, strings.Join(by, ", "))
			}
		}
		return nil
	}, nil
}

// HoldAdd asks for a hold: of a class's month, of all its months, or of records
// by their leaves.
type HoldAdd struct {
	Name   string  `json:"name"`
	Class  string  `json:"class,omitempty"`
	Month  string  `json:"month,omitempty"` // yyyy-mm; "": every month
	Leaves []int64 `json:"leaves,omitempty"`
	Reason string  `json:"reason"`
}

// Hold keeps the records of a class and month: their key is not destroyed at
// the end of their retention. Where it names leaves, others of that month may
// still be erased by themselves.
type Hold struct {
	Name   string    `json:"name"`
	Class  string    `json:"class"`
	Month  string    `json:"month,omitempty"` // "": every month
	Leaves []int64   `json:"leaves,omitempty"`
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

func (n *Node) holds() ([]Hold, error) {
	all, err := n.keys.Records().Holds()
	if err != nil {
		return nil, err
	}
	out := []Hold{}
	for _, h := range all {
		// A note that cannot be read holds all the same.
		x := Hold{}
		_ = json.Unmarshal(h.Note, &x)
		x.Name, x.Class, x.Month = h.Name, h.Class, ""
		if h.Period != 0 {
			x.Month = h.Period.String()
		}
		out = append(out, x)
	}
	return out, nil
}

func (n *Node) listHolds(context.Context, admin.Person, url.Values) (any, error) { return n.holds() }

func (n *Node) addHold(ctx context.Context, who admin.Person, p HoldAdd) (admin.Done, error) {
	if err := checkReason(p.Reason); err != nil {
		return admin.Done{}, err
	}
	if (p.Class == "") == (len(p.Leaves) == 0) || p.Class == "" && p.Month != "" || len(p.Leaves) > journal.MaxFound {
		return admin.Done{}, fault.New(fault.BadRequest, "wanted: a class, with or without a month, or 1 to %d leaves", journal.MaxFound)
	}
	before, err := n.holds()
	if err != nil {
		return admin.Done{}, err
	}
	if slices.ContainsFunc(before, func(h Hold) bool { return h.Name == p.Name }) {
		return admin.Done{}, fault.New(fault.Conflict, "there is a hold %q already", p.Name)
	}
	var all []Hold
	put := func(class, month string, leaves ...int64) {
		for i := range all {
			if h := &all[i]; h.Class == class && h.Month == month {
				h.Leaves = append(h.Leaves, leaves...)
				return
			}
		}
		all = append(all, Hold{Name: p.Name, Class: class, Month: month, Leaves: leaves, Reason: p.Reason, By: who.Name, At: n.now().UTC()})
	}
	if p.Class != "" {
		if err := n.knownClass(p.Class); err != nil {
			return admin.Done{}, err
		}
		put(p.Class, p.Month)
	}
	for _, i := range p.Leaves {
		s, err := n.journal.Get(ctx, i)
		if err != nil {
			return admin.Done{}, err
		}
		if s.Erased {
			return admin.Done{}, fault.New(fault.Conflict, "record %d is erased or ended: there is nothing to hold", i)
		}
		put(s.Class, seal.PeriodOf(s.At).String(), i)
	}
	for _, h := range all {
		var period seal.Period
		if h.Month != "" {
			if period, err = seal.ParsePeriod(h.Month); err != nil {
				return admin.Done{}, fault.New(fault.BadRequest, "month: %v", err)
			}
		}
		if now := seal.PeriodOf(n.now()); period > now {
			return admin.Done{}, fault.New(fault.BadRequest, "month: %s has not begun", h.Month)
		} else if period != 0 && period < now { // of the present one records may come
			if of, err := n.keys.Records().Periods(h.Class); err != nil {
				return admin.Done{}, err
			} else if !slices.Contains(of, period) {
				return admin.Done{}, fault.New(fault.NotFound, "no record of %s of %s is here, or all are ended: there is nothing to hold", h.Class, h.Month)
			}
		}
		note, err := json.Marshal(h)
		if err != nil {
			return admin.Done{}, err
		}
		err = n.keys.Records().Hold(seal.Hold{Name: h.Name, Class: h.Class, Period: period, Note: note})
		switch {
		case errors.Is(err, fs.ErrExist):
			return admin.Done{}, fault.New(fault.Conflict, "there is a hold %q already", h.Name)
		case errors.Is(err, seal.ErrDestroyed):
			return admin.Done{}, fault.New(fault.Conflict, "the records of %s of %s are ended: there is nothing to hold", h.Class, h.Month)
		case err != nil:
			return admin.Done{}, fault.Wrap(fault.BadRequest, err, "%v", err)
		}
	}
	// What was erased before the hold was there, it does not keep.
	err = n.journal.Settled(ctx)
	for _, i := range p.Leaves {
		var s journal.Stored
		if err == nil {
			s, err = n.journal.Get(ctx, i)
		}
		if err == nil && s.Erased {
			err = fault.New(fault.Conflict, "record %d was erased or ended meanwhile: there is nothing to hold", i)
		}
	}
	if err != nil {
		_, releaseErr := n.keys.Records().Release(p.Name)
		return admin.Done{}, errors.Join(err, releaseErr)
	}
	return admin.Done{Result: all, Before: before, After: all}, nil
}

// knownClass refuses a class that neither is configured nor has keys.
func (n *Node) knownClass(class string) error {
	if slices.ContainsFunc(n.classes(), func(c config.Class) bool { return c.Name == class }) {
		return nil
	}
	periods, err := n.keys.Records().Periods(class)
	if err != nil || len(periods) == 0 {
		return fault.Wrap(fault.BadRequest, err, "class: there is no retention class %.64q", class)
	}
	return nil
}

// HoldRelease ends a hold.
type HoldRelease struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

func (n *Node) releaseHold(_ context.Context, _ admin.Person, p HoldRelease) (admin.Done, error) {
	if err := checkReason(p.Reason); err != nil {
		return admin.Done{}, err
	}
	before, err := n.holds()
	if err != nil {
		return admin.Done{}, err
	}
	gone, err := n.keys.Records().Release(p.Name)
	if err != nil {
		return admin.Done{}, err
	}
	if len(gone) == 0 {
		return admin.Done{}, fault.New(fault.NotFound, "there is no hold %q", p.Name)
	}
	after, err := n.holds()
	return admin.Done{Before: before, After: after}, err
}

// Archive says which records are to be archived.
type Archive struct {
	Before  string `json:"before,omitempty"`  // yyyy-mm: months before it; default: this month
	Compact bool   `json:"compact,omitempty"` // give the database's free space back; calls wait meanwhile
}

// Archived is what was archived.
type Archived struct {
	Folder string             `json:"folder"`
	Files  []journal.Archived `json:"files"`
	More   bool               `json:"more"` // there is more to archive: ask again
}

// archiveTime is how long one change archives; what is left then takes another.
const archiveTime = time.Minute

// archive moves old records into the archive's folder.
func (n *Node) archive(ctx context.Context, _ admin.Person, p Archive) (admin.Done, error) {
	now := seal.PeriodOf(n.now())
	before := now
	if p.Before != "" {
		var err error
		if before, err = seal.ParsePeriod(p.Before); err != nil {
			return admin.Done{}, fault.New(fault.BadRequest, "before: %v", err)
		}
	}
	if before > now {
		return admin.Done{}, fault.New(fault.BadRequest, "before: %s has not begun; only closed months are archived", before)
	}
	begun := time.Now()
	out := Archived{Folder: n.cfg.Archive, Files: []journal.Archived{}}
	err := n.journal.Archive(ctx, before, n.signArchive, n.vouch, func(a journal.Archived) bool {
		out.Files = append(out.Files, a)
		out.More = time.Since(begun) >= archiveTime
		return !out.More
	})
	if err == nil && !out.More {
		err = n.db.Settle(ctx, p.Compact)
	}
	if err != nil {
		return admin.Done{}, fmt.Errorf("archiving: %w", err)
	}
	return admin.Done{Result: out, After: out}, nil
}

// signArchive signs a note as this state's log.
func (n *Node) signArchive(text string) (string, error) {
	s, _ := n.directory.View().State(n.cfg.State)
	if s.Log.Key == (merkle.Key{}) {
		return "", fault.New(fault.NotFound, "the directory names no log of %s, by whose key the archive is signed", n.cfg.State)
	}
	key, err := n.keys.Signer(directory.LogKey)
	if err != nil {
		return "", err
	}
	signer, err := merkle.NewSigner(s.Log.Key.Name(), merkle.LogSignature, key)
	if err != nil {
		return "", err
	}
	return signer.Line(text, n.now())
}
