package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"github.com/falaj/falaj/internal/union"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

const recordName = "local.json"

func heldName(state union.State) string { return "held/" + string(state) + ".json" }

// record is what a node remembers for itself, beside the directory.
type record struct {
	Vote      vote                      `json:"vote"`
	Part      int64                     `json:"part"`      // last version of its own part that it signed
	Pins      map[union.State]string    `json:"pins"`      // key of each state, PEM
	Announced map[union.State]announced `json:"announced"` // keys that it saw announced
}

// vote is the last time-stamp that this party signed; it names the snapshot.
// The vote is on disk before the signature leaves, so that a party never signs
// two of one version.
type vote struct {
	Version int64  `json:"version"`
	Digest  string `json:"digest"`
}

type announced struct {
	Key   string    `json:"key"`
	Since time.Time `json:"since"`
}

func readRecord(ctx context.Context, f Fetcher) (record, error) {
	r := record{Pins: map[union.State]string{}, Announced: map[union.State]announced{}}
	raw, err := f.Fetch(ctx, recordName, maxMetadata)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = unmarshal(raw, &r)
	}
	if err != nil {
		return r, fmt.Errorf("what the node remembers (%s): %w", recordName, err)
	}
	return r, nil
}

// put adds the record to files that are to be written.
func (r record) put(files map[string][]byte) error {
	b, err := encode(r)
	if err != nil {
		return fmt.Errorf("what the node remembers: %w", err)
	}
	files[recordName] = b
	return nil
}

// judge decides for each state whether the key that the union now names for it
// is to be trusted, and gives what to remember. A key that is not puts an error
// on the state's role. own is the key that this node itself holds: another key
// named for its own state is never silently believed.
func (r record) judge(rel *release, ownState union.State, own string, now time.Time) record {
	next := record{Vote: r.Vote, Part: r.Part, Pins: maps.Clone(r.Pins), Announced: map[union.State]announced{}}
	for _, a := range rel.charter.Announcements {
		since := now
		if seen := r.Announced[a.State]; seen.Key == a.Key {
			since = seen.Since
		}
		next.Announced[a.State] = announced{Key: a.Key, Since: since}
	}
	for state, g := range rel.roles {
		key, pin, told := rel.key(state), r.Pins[state], next.Announced[state]
		switch {
		case state == ownState && own != "" && key != own:
			g.err = errors.New("the union names another key for this state than this node holds: if the state did not ask for that, it is an attack; call the other states")
		case state == ownState && own != "",
			pin == "" || pin == key,
			rel.charter.succeeds(state, pin, key),
			told.Key == key && now.Sub(told.Since) >= announcementDelay:
			next.Pins[state] = key
		default:
			g.err = fmt.Errorf("its key was replaced neither by the old key's word nor after %s of announcement", announcementDelay)
		}
	}
	return next
}

// held loads the last good part of a state whose newer one was refused before
// the node was last stopped. It was verified when it came; that key may be
// gone by now.
func (d *Directory) held(ctx context.Context, state union.State) *part {
	raw, err := d.files.Fetch(ctx, heldName(state), maxMetadata)
	if err != nil || plain(raw) != nil {
		return nil
	}
	g := &role{raw: raw}
	if g.meta, err = metadata.Targets().FromBytes(raw); err != nil {
		return nil
	}
	rel := &release{files: bundle{}}
	if g.files, err = rel.fetchFiles(ctx, chain{d.files}, g.meta, string(state)+"/"); err != nil {
		return nil
	}
	p, err := buildPart(state, g, nil)
	if err != nil {
		return nil
	}
	return p
}
