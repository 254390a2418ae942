package exchange

import (
	"crypto/rand"
	"crypto/sha256"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/go-json-experiment/json"
)

// note is what this node alone knows of a recorded message: the record's own
// part, which never crosses.
type note struct {
	Door    string   `json:"door,omitzero"`     // how the client proved itself
	Peer    string   `json:"peer,omitzero"`     // the node that brought the message
	Rules   []string `json:"rules,omitempty"`   // the rules that allowed or refused
	Version int64    `json:"version,omitzero"`  // of the directory by which this node judged
	Method  string   `json:"method,omitzero"`   // of a request that the record holds no head of: it was refused, or this is the answer
	Path    string   `json:"path,omitzero"`     // of a request that was refused before it had a sealed head
	Purpose string   `json:"purpose,omitzero"`  // as Method
	Spool   string   `json:"spool,omitzero"`    // where the large body lies
	Repeat  bool     `json:"repeat,omitzero"`   // answered from the record of an earlier call
	Effect  string   `json:"effect,omitzero"`   // what became of the backend
	Subject *subject `json:"subject,omitempty"` // whose data
	Promise []byte   `json:"promise,omitempty"` // where the sender's own record of the message is to be
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
	s := &subject{Hash: x.deps.Persons.Sum([]byte(name)), name: name}
	_, _ = rand.Read(s.Key[:]) // never fails
	return s
}

// hash is the person's; zeros where nobody said.
func (s *subject) hash() message.Digest {
	if s == nil {
		return message.Digest{}
	}
	return s.Hash
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
