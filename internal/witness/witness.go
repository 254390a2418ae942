// Package witness is how others hold a log to its word: it signs the heads of
// this state's log, has the other states' witnesses cosign them, and cosigns
// theirs, so that nobody can show two histories. Formats and mathematics are
// merkle's; the log itself is the journal's.
package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
)

// Party is a state as the directory shows it here. A zero key: it has none.
type Party struct {
	State   union.State
	Log     merkle.Key // its name is the log's origin
	Witness merkle.Key
	Quantum merkle.Key // the witness's second key, of ML-DSA-44; it counts for no quorum
}

// Secretariat stands in the place of a state for the secretariat's witness: it
// has no log.
const Secretariat union.State = "secretariat"

// States counts the states.
func (u Union) States() (n int) {
	for _, p := range u.Parties {
		if p.State != Secretariat {
			n++
		}
	}
	return n
}

// Union is what the directory says now: the states, and how many witnesses a
// head needs.
type Union struct {
	Parties []Party
	Quorum  int
}

// Ask puts a question to another state's node.
type Ask func(ctx context.Context, state union.State, kind string, body []byte) ([]byte, error)

// The kinds of question between nodes.
const (
	KindAdd   = "witness"       // a submission; answered by an Answer
	KindHeads = "witness.heads" // no body; answered by the newest heads that the witness has cosigned
	KindLog   = "log"           // a path under the log's address; answered by what is served there
	KindHead  = "log.head"      // no body; answered by the newest head that the log's key has signed
	KindAlarm = "alarm"         // an alarm; answered by nothing
)

//go:embed migration
var migration embed.FS

// Migrations are the room's tables.
func Migrations() store.Migrations {
	dir, err := fs.Sub(migration, "migration")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	return store.Migrations{Room: "witness", FS: dir}
}

// Deps are what a witness stands on.
type Deps struct {
	DB     *store.DB // opened with Migrations
	State  union.State
	Union  func() Union
	Signer func() (merkle.Signer, error) // this state's, for cosignatures
	Second func() (merkle.Signer, error) // of ML-DSA-44; of no key: it has none. nil the same
	Ask    Ask
	Now    func() time.Time
	Log    *slog.Logger
}

// Witness cosigns the heads of the other states' logs: C2SP tlog-witness. Its
// memory is the database, which all processes of the state share.
type Witness struct {
	deps Deps

	mu      sync.Mutex
	heard   bool              // enough of the other witnesses said what they know
	server  uint64            // of the database, when they did
	blocked map[string]string // origins that are not cosigned, and why
}

// New makes a witness. It cosigns nothing until Unlock has heard the others:
// its database may be an old one.
func New(deps Deps) *Witness {
	return &Witness{deps: deps, blocked: map[string]string{}}
}

// Answer is what add-checkpoint gives: an HTTP status and a body.
type Answer struct {
	Status int
	Body   []byte
}

// The statuses of C2SP tlog-witness, and Locked for a witness that does not
// yet know whether its memory is whole.
const (
	Done         = 200
	Malformed    = 400
	NotSigned    = 403
	UnknownLog   = 404
	Behind       = 409
	NotGrown     = 422
	Locked       = 503
	maxAnswer    = 16 << 10
	statusDigits = 3
)

// Bytes is the answer as it crosses the link: its status, a newline, its body.
func (a Answer) Bytes() []byte {
	return append(append(strconv.AppendInt(nil, int64(a.Status), 10), '\n'), a.Body...)
}

// ParseAnswer reads an answer from the link.
func ParseAnswer(b []byte) (Answer, error) {
	if len(b) < statusDigits+1 || len(b) > maxAnswer || b[statusDigits] != '\n' {
		return Answer{}, errors.New("witness: not an answer to a submission")
	}
	n, err := strconv.ParseUint(string(b[:statusDigits]), 10, 16)
	if err != nil || n < 100 {
		return Answer{}, errors.New("witness: not an answer to a submission")
	}
	return Answer{int(n), b[statusDigits+1:]}, nil
}

func refuse(status int, format string, args ...any) Answer {
	return Answer{status, []byte(fmt.Sprintf(format, args...) + "\n")}
}

// behind is the answer to a log that does not know where the witness stands.
func behind(n int64) Answer { return refuse(Behind, "%d", n) }

// Add judges a submission. Where all holds, the head is this witness's newest
// of that log before the cosignature is made: rolled back or divided, the log
// gets none. The error is the store's or the key's.
func (w *Witness) Add(ctx context.Context, body []byte) (Answer, error) {
	s, err := merkle.ParseSubmission(body)
	if err != nil {
		return refuse(Malformed, "%v", err), nil
	}
	log, ok := w.log(merkle.Origin(s.Note))
	if !ok {
		return refuse(UnknownLog, "the directory names no log of this origin of another state"), nil
	}
	head, err := merkle.OpenCheckpoint(s.Note, log)
	switch {
	case errors.Is(err, merkle.ErrUnsigned):
		return refuse(NotSigned, "%v", err), nil
	case err != nil:
		return refuse(Malformed, "%v", err), nil
	case s.Old > head.Size:
		return refuse(Malformed, "the old size %d is above the checkpoint's %d", s.Old, head.Size), nil
	}
	server := w.deps.DB.Server()
	if why := w.locked(head.Origin, server); why != "" {
		return refuse(Locked, "%s", why), nil
	}
	signer, err := w.deps.Signer()
	if err != nil {
		return Answer{}, fmt.Errorf("the witness's key: %w", err)
	}
	refused, at, err := w.advance(ctx, s, head, server)
	if err != nil || refused.Status != 0 {
		return refused, err
	}
	line, err := signer.Line(head.Text(), at)
	if err != nil || w.deps.Second == nil {
		return Answer{Done, []byte(line)}, err
	}
	if signer, err = w.deps.Second(); err != nil {
		return Answer{}, fmt.Errorf("the witness's second key: %w", err)
	}
	if signer.Key == (merkle.Key{}) {
		return Answer{Done, []byte(line)}, nil
	}
	second, err := signer.Line(head.Text(), at)
	return Answer{Done, []byte(line + second)}, err
}

// log finds the log of another state by its origin.
func (w *Witness) log(origin string) (merkle.Key, bool) {
	for _, p := range w.deps.Union().Parties {
		if p.State != w.deps.State && p.Log != (merkle.Key{}) && p.Log.Name() == origin {
			return p.Log, true
		}
	}
	return merkle.Key{}, false
}

// advance moves the witness's record of a log, on the database server on which
// it is known to be whole, from the old head to the new one, or says why not. The time is taken while the record is held, so that
// the cosignatures' times stand in the order of the heads.
func (w *Witness) advance(ctx context.Context, s merkle.Submission, head merkle.Signed, server uint64) (refused Answer, at time.Time, err error) {
	err = w.deps.DB.WriteLocked(ctx, func(tx *store.Tx) error {
		refused = Answer{}
		last, err := readLast(ctx, tx, head.Origin)
		if err != nil {
			return err
		}
		at = w.deps.Now()
		switch {
		case w.deps.DB.Server() != server:
			refused = refuse(Locked, "another database server answers than when this began")
		case s.Old != last.Size:
			refused = behind(last.Size)
		case head.Size == last.Size && head.Root != last.Root:
			w.deps.Log.Error("two heads of one size: the log is divided", "origin", head.Origin, "size", head.Size)
			refused = behind(last.Size)
		case merkle.CheckGrowth(s.Proof, last.Size, last.Root, head.Size, head.Root) != nil:
			refused = refuse(NotGrown, "the checkpoint is not shown to have grown out of the last")
		default:
			err = move(ctx, tx, last, head)
		}
		return err
	})
	if errors.Is(err, errMoved) && ctx.Err() == nil {
		return w.advance(ctx, s, head, server)
	}
	if err != nil {
		return Answer{}, at, fault.Wrap(fault.StoreFailed, err, "the witness's record of %s", head.Origin)
	}
	return refused, at, nil
}

// readLast reads and holds the newest head of a log; of a log never seen, the
// empty tree.
func readLast(ctx context.Context, tx *store.Tx, origin string) (merkle.Checkpoint, error) {
	last := merkle.Checkpoint{Origin: origin, Root: sha256.Sum256(nil)}
	var root []byte
	err := tx.QueryRow(ctx, "SELECT size, root FROM witness_head WHERE origin = ? FOR UPDATE", origin).Scan(&last.Size, &root)
	if errors.Is(err, sql.ErrNoRows) {
		return last, nil
	}
	if err == nil && len(root) != merkle.HashSize {
		err = fault.New(fault.Corrupt, "the witness's record of %s", origin)
	}
	if err != nil {
		return last, err
	}
	last.Root = merkle.Hash(root)
	return last, nil
}

// errMoved says that another process moved the record meanwhile: of a log never
// seen there is none to hold.
var errMoved = errors.New("witness: another process moved the record")

// move is the compare-and-set that all processes of the state share.
func move(ctx context.Context, tx *store.Tx, last merkle.Checkpoint, head merkle.Signed) error {
	alone := head
	alone.Cosignatures = nil
	r, err := tx.Exec(ctx, `INSERT INTO witness_head (origin, size, root, note) VALUES (?, ?, ?, ?)
		ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note
		WHERE witness_head.size = ? AND witness_head.root = ?`,
		head.Origin, head.Size, head.Root[:], alone.Note(), last.Size, last.Root[:])
	if err != nil {
		return err
	}
	n, err := r.RowsAffected()
	if err == nil && n != 1 {
		err = errMoved
	}
	return err
}

// Heads are the newest heads that this witness has cosigned, each signed by
// its log: for witnesses and logs that may have lost their memory.
func (w *Witness) Heads(ctx context.Context) ([]byte, error) {
	rows, err := w.deps.DB.Query(ctx, "SELECT note FROM witness_head ORDER BY origin")
	if err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "the witness's records")
	}
	defer rows.Close()
	var out [][]byte
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, fault.Wrap(fault.StoreFailed, err, "the witness's records")
		}
		out = append(out, b)
	}
	if err := rows.Err(); err != nil {
		return nil, fault.Wrap(fault.StoreFailed, err, "the witness's records")
	}
	return bytes.Join(out, []byte(headEnd)), nil
}

// headEnd stands between two heads: no note holds an empty line after its
// signatures.
const headEnd = "\n"

// maxHeads bounds the answer about heads, in bytes.
const maxHeads = 1 << 20

// splitHeads reads what Heads wrote. Each is opened by whoever knows its key.
func splitHeads(b []byte) ([][]byte, error) {
	if len(b) > maxHeads {
		return nil, fmt.Errorf("witness: heads of %d bytes; at most %d", len(b), maxHeads)
	}
	var out [][]byte
	for len(b) > 0 {
		text := bytes.Index(b, []byte("\n\n"))
		if text < 0 {
			return nil, errors.New("witness: a head without signatures")
		}
		end := len(b)
		if i := bytes.Index(b[text+2:], []byte("\n\n")); i >= 0 {
			end = text + 2 + i + 1
		}
		out = append(out, b[:end])
		b = bytes.TrimPrefix(b[end:], []byte(headEnd))
	}
	return out, nil
}

// locked says why nothing of a log is cosigned from what a database server
// remembers; "" where it is.
func (w *Witness) locked(origin string, server uint64) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.heard || w.server != server {
		return "this witness has not yet heard from the others what they have seen"
	}
	return w.blocked[origin]
}
