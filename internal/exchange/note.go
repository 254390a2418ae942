package exchange

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/store"
	"github.com/go-json-experiment/json"
)

// note is what this node alone knows of a recorded message: the record's own
// part, which never crosses.
type note struct {
	Door    string   `json:"door,omitzero"`     // how the client proved itself
	Peer    string   `json:"peer,omitzero"`     // the node that brought the message
	Rules   []string `json:"rules,omitempty"`   // the rules that allowed or refused
	Version int64    `json:"version,omitzero"`  // of the directory by which this node judged
	Method  string   `json:"method,omitzero"`   // of a request that was refused before it had a sealed head
	Path    string   `json:"path,omitzero"`     // the same
	Purpose string   `json:"purpose,omitzero"`  // the same
	Spool   string   `json:"spool,omitzero"`    // where the large body lies
	Repeat  bool     `json:"repeat,omitzero"`   // answered from the record of an earlier call
	Effect  string   `json:"effect,omitzero"`   // what became of the backend
	Subject *subject `json:"subject,omitempty"` // whose data
	Wide    []byte   `json:"wide,omitempty"`    // SHA-512 of the body of a request that is delivered later
	Blind   []byte   `json:"blind"`             // random: the note's digest is shown to others, who must not guess the note from it
}

func (n note) bytes() []byte {
	n.Blind = make([]byte, 16)
	_, _ = rand.Read(n.Blind) // never fails
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // strings and numbers alone
	}
	return b
}

func readNote(b []byte) (n note, err error) {
	return n, json.Unmarshal(b, &n)
}

// subject stands for a person: in this state's store as a keyed hash, in the
// message's head as a commitment that only Key opens.
type subject struct {
	Hash message.Digest `json:"hash"`
	Key  message.Digest `json:"key"`
	name string
}

// person hides whose data a message is about; nil where nobody said.
func (x *Exchange) person(name string) *subject {
	if name == "" {
		return nil
	}
	s := &subject{Hash: x.deps.Subject.Sum([]byte(name)), name: name}
	_, _ = rand.Read(s.Key[:]) // never fails
	return s
}

// commitment is SHA-256 over a random key and the person's name in his own
// state's register: without the key no dictionary finds him.
func (s *subject) commitment() *message.Digest {
	if s == nil {
		return nil
	}
	d := message.Digest(sha256.Sum256(append(s.Key[:], s.name...)))
	return &d
}

// kept is the spool file that a record is to name, "" where none stays.
func kept(b *body, offer directory.Service) string {
	if b == nil || offer.DigestOnly {
		return ""
	}
	return b.spool
}

// inline is the small body that a record is to hold, nil where none stays.
func inline(b *body, offer directory.Service) []byte {
	if b == nil || offer.DigestOnly {
		return nil
	}
	return b.inline
}

// hold notes in the record's transaction that its spool file is wanted, so
// that the sweep at the next start leaves it.
func (x *Exchange) hold(ctx context.Context, tx *store.Tx, b *body, offer directory.Service, leaf int64) error {
	id := kept(b, offer)
	if id == "" {
		return nil
	}
	if _, err := tx.Exec(ctx, `INSERT INTO exchange_spool (id, leaf, kept_at) VALUES (?, ?, ?)`, id, leaf, x.deps.Now().UnixMilli()); err != nil {
		return fmt.Errorf("keeping a spool file: %w", err)
	}
	return nil
}

// sweep removes spool files that no record names: what a crash left.
func (x *Exchange) sweep(ctx context.Context) error {
	wanted := map[string]bool{}
	err := x.deps.DB.Read(ctx, func(tx *store.Tx) error {
		clear(wanted)
		rows, err := tx.Query(ctx, `SELECT id FROM exchange_spool`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			wanted[id] = true
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("reading which bodies are kept: %w", err)
	}
	n, err := x.deps.Spool.Sweep(func(id string) bool { return wanted[id] })
	if err != nil {
		return fmt.Errorf("sweeping the spool: %w", err)
	}
	if n > 0 {
		x.deps.Log.Info("removed unfinished bodies of an earlier run", "files", n)
	}
	return nil
}
