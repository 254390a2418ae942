package witness

import (
	"context"
	"fmt"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/union"
)

// What a look at a log may find.
const (
	SightGrown    = "grown"    // it continues all that is known of it
	SightFew      = "few"      // it does, and fewer witnesses have cosigned its head than it takes
	SightSilent   = "silent"   // it cannot be read now
	SightUnsigned = "unsigned" // what it shows as its head does not verify
	SightDivided  = "divided"  // another head that its key signed is not part of what it shows: a split view, or a rewritten history
)

// Head is a head of a log that somebody has seen.
type Head struct {
	By   string `json:"by"` // a state, whose witness cosigned it; "" for whoever watches
	Note string `json:"note"`
}

// Sight is what one look at one log found.
type Sight struct {
	State     union.State `json:"state"`
	Log       string      `json:"log"`
	What      string      `json:"what"`
	Size      int64       `json:"size"`
	Root      string      `json:"root,omitzero"`
	Witnesses int         `json:"witnesses"`
	Quorum    int         `json:"quorum"`
	Detail    string      `json:"detail,omitzero"`
	Heads     []Head      `json:"heads,omitempty"` // of a division: the head that was known, and the one that is shown
}

// Look reads a log's head and holds it against the heads that are known of it:
// of two, the longer must have grown out of the other, as the log's own tiles
// say, which are believed only under a signed root. It gives the head that is
// to be remembered: the longest that belongs to all that is known, or the one
// of before where something does not.
func Look(ctx context.Context, state union.State, get Get, trust merkle.Trust, known []Head) (s Sight, keep string) {
	s = Sight{State: state, Log: trust.Log.Name(), Quorum: trust.Quorum, What: SightGrown}
	var before merkle.Signed
	var seen []merkle.Signed
	var of []Head
	for _, h := range known {
		k, err := merkle.OpenCheckpoint([]byte(h.Note), trust.Log)
		if err != nil {
			continue // of the log before this one, or nobody's
		}
		seen, of = append(seen, k), append(of, h)
		if h.By == "" {
			before, keep = k, h.Note
		}
	}
	b, err := get(ctx, "checkpoint")
	if err != nil {
		s.What, s.Detail = SightSilent, fault.From(err).Error()
		return s, keep
	}
	head, err := merkle.OpenCheckpoint(b, trust.Log, trust.Witnesses...)
	if err != nil {
		s.What, s.Detail = SightUnsigned, err.Error()
		return s, keep
	}
	s.Size, s.Root, s.Witnesses = head.Size, head.Root.String(), head.Witnesses()
	for i, k := range seen {
		if k.Checkpoint == head.Checkpoint {
			continue
		}
		one := k.Size != head.Size
		var err error
		if one {
			one, err = grown(k, head, public(ctx, get))
		}
		switch {
		case err == nil && one:
			continue
		case err != nil && fault.CodeOf(err) != fault.NotFound:
			s.What, s.Detail = SightSilent, fault.From(err).Error()
			return s, keep
		case err != nil: // it does not even show the tiles of what was signed
			s.Detail = fault.From(err).Error()
		default:
			s.Detail = fmt.Sprintf("the heads of %d and %d entries do not belong together", k.Size, head.Size)
		}
		s.What, s.Heads = SightDivided, []Head{of[i], {By: string(state), Note: string(head.Note())}}
		return s, keep
	}
	if head.Witnesses() < trust.Quorum {
		s.What = SightFew
	}
	if head.Size >= before.Size {
		keep = string(head.Note())
	}
	return s, keep
}

// public reads tiles as everybody may; the beginning of a whole one where the
// log no longer has it by itself.
func public(ctx context.Context, get Get) merkle.Tiles {
	return func(level int, n int64, width int) ([]byte, error) {
		b, err := get(ctx, merkle.Path(level, n, width))
		if fault.CodeOf(err) == fault.NotFound && width < merkle.TileWidth {
			if b, err = get(ctx, merkle.Path(level, n, merkle.TileWidth)); err == nil && len(b) > width*merkle.HashSize {
				b = b[:width*merkle.HashSize]
			}
		}
		return b, err
	}
}

// Known reads, from an answer about heads, those of one log.
func Known(by string, answer []byte, log merkle.Key) (out []Head) {
	heads, err := splitHeads(answer)
	if err != nil {
		return nil
	}
	for _, b := range heads {
		if _, err := merkle.OpenCheckpoint(b, log); err == nil {
			out = append(out, Head{by, string(b)})
		}
	}
	return out
}
