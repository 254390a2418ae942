package witness

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/union"
)

// What a look at a log may find.
const (
	SightNew      = "new"      // nothing was known of it, nor of one before it
	SightGrown    = "grown"    // it continues all that is known of it
	SightRenewed  = "renewed"  // it does, and is a new log of the state, in which all that is known of the ones before it stands
	SightFew      = "few"      // one of these, and fewer witnesses have cosigned its head than it takes
	SightSilent   = "silent"   // it cannot be read now
	SightUnsigned = "unsigned" // what it shows as its head does not verify
	SightDivided  = "divided"  // another head that its key signed is not part of what it shows: a split view, or a rewritten history
	SightEnded    = "ended"    // it is a new log of the state, and what was signed under an old name is not in it: that history ended
)

// Head is a head of a log that somebody has seen.
type Head struct {
	By   string     `json:"by"` // a state, whose witness cosigned it; "" for whoever watches
	Note string     `json:"note"`
	Key  merkle.Key `json:"-"` // that signed it; zero: the public key of the state's log now, under whatever name
}

// Former is a log that a state had before the one that it shows, as far as it
// was seen.
type Former struct {
	Log       string `json:"log"`
	Size      int64  `json:"size"`
	Root      string `json:"root"`
	Contained bool   `json:"contained"` // the log of now holds all of it
	Head      Head   `json:"head"`
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
	Known     int64       `json:"known,omitzero"` // of a division: how many entries the head has that was known
	Detail    string      `json:"detail,omitzero"`
	Heads     []Head      `json:"heads,omitempty"`  // of a division: the head that was known, and the one that is shown
	Former    []Former    `json:"former,omitempty"` // the state's logs before this one
}

// Look reads a log's head and holds it against the heads that are known of it:
// of two, the longer must have grown out of the other, as the log's own tiles
// say, which are believed only under a signed root. It gives the head that is
// to be remembered: the longest that belongs to all that is known, or the one
// of before where something does not. Of the state's logs before this one,
// under other names, it looks whether their last known heads are in it.
func Look(ctx context.Context, state union.State, get Get, trust merkle.Trust, known []Head) (s Sight, keep string) {
	s = Sight{State: state, Log: trust.Log.Name(), Quorum: trust.Quorum, What: SightNew}
	var before merkle.Signed
	var seen []merkle.Signed
	var of []Head
	ended := map[string]merkle.Signed{}
	by := map[string]Head{}
	for _, h := range known {
		k, err := h.open(trust.Log)
		if err != nil {
			continue // nobody's
		}
		if k.Origin != trust.Log.Name() {
			if last, ok := ended[k.Origin]; earlier(k.Origin, trust.Log.Name()) && (!ok || last.Size < k.Size) {
				ended[k.Origin], by[k.Origin] = k, h
			}
			continue
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
	if len(seen) > 0 {
		s.What = SightGrown
	}
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
			s.Detail = fmt.Sprintf("it signed %d entries, and shows %d that do not hold them (%s)", k.Size, head.Size, fault.From(err).Detail)
		default:
			s.Detail = fmt.Sprintf("the heads of %d and %d entries do not belong together", k.Size, head.Size)
		}
		s.Known = k.Size
		s.What, s.Heads = SightDivided, []Head{of[i], {By: string(state), Note: string(head.Note())}}
		return s, keep
	}
	for _, origin := range slices.Sorted(maps.Keys(ended)) {
		k := ended[origin]
		f := Former{Log: origin, Size: k.Size, Root: k.Root.String(), Head: by[origin]}
		if k.Size <= head.Size { // the tiles of the old log are nobody's to show any more
			f.Contained, err = grown(k, head, public(ctx, get))
			if err != nil && fault.CodeOf(err) != fault.NotFound {
				s.What, s.Detail = SightSilent, fault.From(err).Error()
				return s, keep
			}
		}
		s.Former = append(s.Former, f)
		if s.What == SightNew || s.What == SightGrown {
			s.What = SightRenewed
		}
	}
	if head.Witnesses() < trust.Quorum {
		s.What = SightFew
	}
	for _, f := range s.Former {
		if !f.Contained {
			s.What = SightEnded
		}
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

// open verifies a head of the log, or of one that the state had before it.
func (h Head) open(log merkle.Key) (merkle.Signed, error) {
	key := h.Key
	if key == (merkle.Key{}) {
		var err error
		if key, err = log.Named(merkle.Origin([]byte(h.Note))); err != nil {
			return merkle.Signed{}, err
		}
	}
	return merkle.OpenCheckpoint([]byte(h.Note), key)
}

// earlier tells whether a state's log of one name was before that of another:
// log9 was before log10; of names that are counted otherwise, the other is the
// one of now.
func earlier(name, than string) bool {
	stem := strings.TrimRight(name, "0123456789")
	n, err := strconv.ParseUint(name[len(stem):], 10, 16)
	m, bad := strconv.ParseUint(strings.TrimPrefix(than, stem), 10, 16)
	return err != nil || bad != nil || n < m
}

// Known reads, from an answer about heads, those of one log, and of those that
// its key signed before under other names.
func Known(by string, answer []byte, log merkle.Key) (out []Head) {
	heads, err := splitHeads(answer)
	if err != nil {
		return nil
	}
	for _, b := range heads {
		h := Head{By: by, Note: string(b)}
		if _, err := h.open(log); err == nil {
			out = append(out, h)
		}
	}
	return out
}
