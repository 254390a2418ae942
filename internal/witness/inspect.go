package witness

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// The kinds of value that Inspect names.
const (
	PlaceCheckpoint = "checkpoint" // a head of this state's log, as signed and cosigned
	PlaceStamp      = "time-stamp" // of this state's log, by an authority of another
	PlaceAlarm      = "alarm"      // that somebody raised over a log
	PlaceHead       = "head seen"  // what this state's witness remembers of another state's log
)

// Wrong is one stored value that is not what was written.
type Wrong struct {
	Place  string
	Name   string
	Detail string
	Unsure bool // only its signature could not be checked: the directory no longer names the key
}

// Inspect holds each stored checkpoint and head against its signatures, the
// columns beside it and, where it is of this state's log, the log itself. It
// tells how many it looked at; the error is only of reading.
func Inspect(ctx context.Context, db *store.DB, state union.State, u Union, size int64, log Source) (seen int, wrong []Wrong, err error) {
	i := inspection{state: state, union: u, size: size, log: log, tiles: func(level int, n int64, width int) ([]byte, error) {
		return log.Tile(ctx, level, n, width)
	}}
	for _, q := range []struct {
		place, query string
		judge        func(*row)
	}{
		{PlaceCheckpoint, "SELECT origin, stage, size, note FROM witness_checkpoint ORDER BY origin, stage", i.checkpoint},
		{PlaceHead, "SELECT origin, size, root, note FROM witness_head ORDER BY origin", i.head},
	} {
		rows, err := db.Query(ctx, q.query)
		if err != nil {
			return 0, nil, fault.Wrap(fault.StoreFailed, err, "the witness's records")
		}
		var all []row
		for rows.Next() {
			r := row{place: q.place}
			into := []any{&r.origin, &r.stage, &r.size, &r.note}
			if q.place == PlaceHead {
				into = []any{&r.origin, &r.size, &r.root, &r.note}
			}
			if err := rows.Scan(into...); err != nil {
				return 0, nil, errors.Join(fault.Wrap(fault.StoreFailed, err, "the witness's records"), rows.Close())
			}
			all = append(all, r)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return 0, nil, fault.Wrap(fault.StoreFailed, err, "the witness's records")
		}
		for _, r := range all {
			seen++
			q.judge(&r)
			if i.err != nil {
				return seen, nil, i.err
			}
		}
	}
	n, err := i.stamps(ctx, db)
	if err == nil {
		err = i.alarms(ctx, db)
	}
	return seen + n, i.wrong, err
}

type row struct {
	place, origin string
	stage, size   int64
	root, note    []byte
}

type inspection struct {
	state union.State
	union Union
	size  int64
	log   Source
	tiles merkle.Tiles
	wrong []Wrong
	err   error
}

func (i *inspection) add(r *row, unsure bool, format string, args ...any) {
	name := r.origin
	switch r.place {
	case PlaceStamp:
		if name == "" {
			name = fmt.Sprint(r.stage)
		}
	case PlaceCheckpoint:
		name = fmt.Sprintf("%s (stage %d)", r.origin, r.stage)
	}
	i.wrong = append(i.wrong, Wrong{Place: r.place, Name: name, Detail: fmt.Sprintf(format, args...), Unsure: unsure})
}

// checkpoint judges one of this state's log.
func (i *inspection) checkpoint(r *row) {
	if r.stage != stageSigned && r.stage != stageCosigned {
		i.add(r, false, "there is no such stage")
		return
	}
	var own merkle.Key
	for _, p := range i.union.Parties {
		if p.State == i.state {
			own = p.Log
		}
	}
	s, ok := i.open(r, []merkle.Key{own}, others(i.union, i.state))
	if !ok || r.origin != own.Name() {
		return // an earlier log of the state is not the one that is here
	}
	if s.Size > i.size {
		i.add(r, false, "it has %d entries, the log %d", s.Size, i.size)
		return
	}
	_, root, _, err := merkle.ProveGrowth(s.Size, s.Size, i.tiles)
	if err != nil && fault.CodeOf(err) != fault.Corrupt { // what is corrupt is named by itself
		i.err = err
	} else if err == nil && root != s.Root {
		i.add(r, false, "the first %d entries of the log have another root", s.Size)
	}
}

// head judges one of another state's log.
func (i *inspection) head(r *row) {
	var logs []merkle.Key
	for _, p := range i.union.Parties {
		if p.State != i.state && p.Log != (merkle.Key{}) {
			logs = append(logs, p.Log)
		}
	}
	if s, ok := i.open(r, logs, nil); ok && string(s.Root[:]) != string(r.root) {
		i.add(r, false, "its root is not the signed one")
	}
}

// open holds a note against the columns beside it and against the keys: under
// its name, or one that the log had before.
func (i *inspection) open(r *row, logs, witnesses []merkle.Key) (s merkle.Signed, ok bool) {
	if merkle.Origin(r.note) != r.origin {
		i.add(r, false, "it is of the log %.200q", merkle.Origin(r.note))
		return s, false
	}
	err, live := error(merkle.ErrUnsigned), false
	for _, log := range logs {
		if log == (merkle.Key{}) {
			continue
		}
		live = live || log.Name() == r.origin
		named, nerr := log.Named(r.origin)
		if nerr != nil {
			continue
		}
		if s, err = merkle.OpenCheckpoint(r.note, named, witnesses...); !errors.Is(err, merkle.ErrUnsigned) {
			break
		}
	}
	switch {
	case errors.Is(err, merkle.ErrUnsigned) && !live:
		i.add(r, true, "the directory no longer names the key of this log")
		return s, false
	case err != nil:
		i.add(r, false, "%v", err)
		return s, false
	case s.Size != r.size:
		i.add(r, false, "its size is not the signed one: %d, not %d", r.size, s.Size)
		return s, false
	case string(s.Note()) != string(r.note) || !strict(r.note):
		i.add(r, false, "it holds a signature of nobody whom the directory names")
		return s, false
	}
	return s, true
}

// stamps judges the time-stamps, level by level.
func (i *inspection) stamps(ctx context.Context, db *store.DB) (seen int, err error) {
	for next, last := int64(0), int64(math.MinInt64); ; next++ {
		err := db.QueryRow(ctx, "SELECT level FROM witness_stamp WHERE level > ? ORDER BY level LIMIT 1", last).Scan(&last)
		if errors.Is(err, sql.ErrNoRows) {
			return seen, nil
		}
		if err != nil {
			return seen, fault.Wrap(fault.StoreFailed, err, "the time-stamps")
		}
		if last != next {
			i.wrong = append(i.wrong, Wrong{Place: PlaceStamp, Name: fmt.Sprintf("level %d", last), Detail: fmt.Sprintf("the one before is %d", next-1)})
			next = last
		}
		n, err := i.level(ctx, db, last)
		if seen += n; err != nil {
			return seen, err
		}
	}
}

// level judges the time-stamps of a level: they stand one behind the other from
// the log's beginning, each over the entries that it names and the head in it,
// or over the time-stamps of the level beneath.
func (i *inspection) level(ctx context.Context, db *store.DB, level int64) (seen int, err error) {
	for next, last := int64(0), int64(math.MinInt64); ; seen++ {
		r, st := row{place: PlaceStamp}, Stamp{Level: level}
		var token, signer, serial, digest []byte
		err := db.QueryRow(ctx, "SELECT first, size, note, token, signer, serial, authority, name, edition, digest FROM witness_stamp WHERE level = ? AND first > ? ORDER BY first LIMIT 1", level, last).
			Scan(&r.stage, &r.size, &r.note, &token, &signer, &serial, &st.State, &st.Name, &st.Edition, &digest)
		if errors.Is(err, sql.ErrNoRows) {
			return seen, nil
		}
		if err != nil {
			return seen, fault.Wrap(fault.StoreFailed, err, "the time-stamps")
		}
		first := r.stage
		st.First, st.Size = first, r.size
		if level > 0 {
			r.origin = fmt.Sprintf("%d, renewal %d", first, level)
		}
		last = first
		if first != next || r.size <= first || level == 0 && r.size-first > stamp.MaxLeaves {
			i.add(&r, false, "it is over the entries %d to %d; the one before ends at %d", first, r.size-1, next-1)
			next = r.size
			continue
		}
		next = r.size
		t, err := stamp.ParseToken(token)
		if err != nil {
			i.add(&r, false, "%v", err)
			continue
		}
		if string(t.By()) != string(signer) || string(t.Serial.Bytes()) != string(serial) {
			i.add(&r, false, "its signer or its serial number is not the token's")
			continue
		}
		if r.size > i.size {
			i.add(&r, false, "it is over %d entries, the log has %d", r.size, i.size)
			continue
		}
		var imprint stamp.Digest
		if level == 0 {
			s := Stamps{deps: StampDeps{Source: i.log}}
			list, err := s.entries(ctx, first, r.size)
			if fault.CodeOf(err) == fault.Corrupt {
				continue // what is corrupt is named by itself
			}
			if err != nil {
				return seen, err
			}
			imprint = stamp.Join(sha256.Sum256(r.note), stamp.Root(list))
		} else {
			list, _, err := tree(ctx, db, &st, first)
			if fault.CodeOf(err) == fault.Corrupt {
				i.add(&r, false, "%v", err)
				continue
			}
			if err != nil {
				return seen, err
			}
			imprint = stamp.Root(list)
		}
		if t.Imprint != imprint || level > 0 && len(r.note) > 0 {
			i.add(&r, false, "it is not over these entries and this head, or these time-stamps")
			continue
		}
		if len(digest) > 0 && string(digest) != string(st.digest()) || st.State == i.state || (st.State == "") != (st.Edition == 0) || st.State != "" && st.Name != string(st.State) {
			i.add(&r, false, "it is kept as of %.32q, named %.64q, by version %d of the directory", st.State, st.Name, st.Edition)
			continue
		}
		c := t.Signer()
		if c == nil {
			i.add(&r, len(t.Carried) == 0, "it does not carry its signer's certificate: its signature was not looked at")
			continue
		}
		if err := t.Verify(c); err != nil {
			i.add(&r, false, "%v", err)
		}
	}
}

// alarms judges the alarms: each stands under its note's digest, and for whom
// the note says.
func (i *inspection) alarms(ctx context.Context, db *store.DB) error {
	for last := []byte{}; ; {
		r := row{place: PlaceAlarm}
		var id []byte
		var raiser string
		err := db.QueryRow(ctx, "SELECT id, raiser, note FROM witness_alarm WHERE id > ? ORDER BY id LIMIT 1", last).Scan(&id, &raiser, &r.note)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.StoreFailed, err, "the alarms")
		}
		last, r.origin = id, fmt.Sprintf("%x", id)
		text, _, _ := strings.Cut(string(r.note), "\n\n")
		a, err := parseAlarm(text + "\n")
		if sum := sha256.Sum256(r.note); string(sum[:]) != string(id) || err != nil || string(a.From) != raiser {
			i.add(&r, false, "it is not the alarm that was kept under this digest and this state")
		}
	}
}

// strict tells whether each signature is written as there is only one way to:
// the last letter of base64 may hold bits that say nothing.
func strict(note []byte) bool {
	_, lines, _ := strings.Cut(string(note), "\n\n")
	for line := range strings.Lines(lines) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if _, err := base64.StdEncoding.Strict().DecodeString(f[len(f)-1]); err != nil {
			return false
		}
	}
	return true
}

// Confront holds this log against the heads that the other states' witnesses
// have seen of it, now. It tells whose agree with it and who did not answer; a
// head that is not a beginning of the log is LogDivided.
func (l *Log) Confront(ctx context.Context) (heard, lost []union.State, err error) {
	own, u, ok := l.own()
	if !ok {
		return nil, nil, fault.New(fault.NotFound, "the directory names no log of %s", l.deps.State)
	}
	for _, p := range u.Parties {
		if p.State == own.State || p.Witness == (merkle.Key{}) {
			continue
		}
		within, cancel := context.WithTimeout(ctx, l.cfg.Answer)
		e := l.held(within, own, p)
		cancel()
		switch {
		case e == nil:
			heard = append(heard, p.State)
		case fault.CodeOf(e) == fault.LogDivided:
			err = e
		default:
			lost = append(lost, p.State)
		}
	}
	return heard, lost, err
}
