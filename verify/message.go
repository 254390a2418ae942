package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

// The type labels of heads (docs/protocols/node.md §15, §16).
const (
	typeRequest = "falaj.request/1"
	typeAnswer  = "falaj.answer/1"
	typeRefusal = "falaj.refusal/1"
)

const zeroDigest = "0000000000000000000000000000000000000000000000000000000000000000"

// message is a sealed message as it is judged.
type message struct {
	raw      []byte // head, byte for byte
	seal     []byte // wire form
	head     head
	manifest []byte
	sum      *seal.Digest      // of the body that is in the container; nil where it was not read
	batch    map[string][]byte // what has to lie in the container if it was sealed in a batch
	at       time.Time
	edition  *edition       // of the directory that the head names; nil where it could not be followed
	cert     *certificate   // that it was sealed with; nil where none was found good
	sealer   union.MemberID // who has to have sealed it; with a fault any member of his state
}

// head is what is read of a head, of either kind. Repeated names and invalid
// UTF-8 are errors; what a node adds besides is covered by the seal.
type head struct {
	Type      string            `json:"type"`
	Union     string            `json:"union"`
	Directory int64             `json:"directory"`
	ID        string            `json:"id"`
	RequestID string            `json:"request_id"`
	Client    union.SubsystemID `json:"client"`
	Service   union.ServiceID   `json:"service"`
	Request   string            `json:"request"`
	Fault     string            `json:"fault"`
	Body      *struct {
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	} `json:"body"`
}

func (m *message) read(part seal.Part, id string) error {
	h := &m.head
	if err := json.Unmarshal(m.raw, h); err != nil {
		return fmt.Errorf("the head: %w", err)
	}
	switch {
	case part == seal.Request && h.Type != typeRequest, part == seal.Answer && h.Type != typeAnswer && h.Type != typeRefusal:
		return fmt.Errorf("a message of type %.32q lies in the place of the other", h.Type)
	case h.ID != id:
		return errors.New("the message is of another id than the container says")
	case h.Directory < 1 || h.Client.IsZero() || h.Service.Service == "":
		return errors.New("the head names no directory, client or service")
	}
	switch {
	case h.Type == typeAnswer:
		m.sealer = h.Service.MemberID
	default: // the caller's own node refuses in the caller's name
		m.sealer = h.Client.MemberID
	}
	var digest *seal.Digest
	if h.Body != nil {
		b, err := hex.DecodeString(h.Body.SHA256)
		if err != nil || len(b) != sha256.Size || h.Body.Size < 1 {
			return errors.New("the head names no digest of its body")
		}
		digest = (*seal.Digest)(b)
	}
	m.manifest = seal.Manifest(part, sha256.Sum256(m.raw), digest)
	return nil
}

// body holds the body against the head, reading it once.
func (m *message) body(box *container, in *evidence.Contents, name string) error {
	size, err := box.Size(name)
	if errors.Is(err, fs.ErrNotExist) {
		for _, a := range in.Absent {
			if a.Name == name {
				return away("it is not in the container: %.200s", a.Why.En)
			}
		}
		return errors.New("it is not in the container, and the container does not say why")
	}
	sum := sha256.New()
	if err := box.Copy(sum, name); err != nil {
		return err
	}
	m.sum = (*seal.Digest)(sum.Sum(nil))
	if size != m.head.Body.Size || hex.EncodeToString(m.sum[:]) != m.head.Body.SHA256 {
		return errors.New("it is another")
	}
	return nil
}

// answers tells whether an answer is to a request.
func (m *message) answers(q *message) error {
	if m.manifest == nil || q.manifest == nil {
		return errors.New("one of the two cannot be read")
	}
	sum := sha256.Sum256(q.manifest)
	a, r := &m.head, &q.head
	switch {
	case a.Request != hex.EncodeToString(sum[:]):
		return errors.New("it names another request")
	case a.Union != r.Union || a.RequestID != r.RequestID || a.Client != r.Client || a.Service != r.Service:
		return errors.New("it repeats another request's identifiers")
	}
	return nil
}
