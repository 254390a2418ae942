package verify

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/go-json-experiment/json"
)

// logKeys are what a state's log and its witness are known by: log.json of its
// part (docs/protocols/directory.md). The zero key is none.
type logKeys struct {
	Log     merkle.Key `json:"key"`
	Witness merkle.Key `json:"witness"`
	Quantum merkle.Key `json:"witness_mldsa"`
}

// readLog reads a state's log.json. A key that is not named as the state's is
// none, so that no state presents another's as its own.
func readLog(state string, b []byte) (l logKeys) {
	if json.Unmarshal(b, &l) != nil {
		return logKeys{}
	}
	for k, kind := range map[*merkle.Key]merkle.Kind{&l.Log: merkle.LogSignature, &l.Witness: merkle.Cosignature, &l.Quantum: merkle.Quantum} {
		if parts := strings.Split(k.Name(), "/"); len(parts) != 3 || parts[1] != state || k.Kind() != kind {
			*k = merkle.Key{}
		}
	}
	return l
}

// trust is whom a state's log is held against, given all that the directory in
// the container names; the zero Trust where it names no log of the state.
func (e *edition) trust(state string, logs map[string]logKeys) (trust merkle.Trust) {
	if logs[state].Log == (merkle.Key{}) {
		return trust
	}
	trust = merkle.Trust{Log: logs[state].Log, Quorum: e.quorum}
	for other, l := range logs {
		if other != state && l.Witness != (merkle.Key{}) {
			trust.Witnesses = append(trust.Witnesses, l.Witness)
			if l.Quantum != (merkle.Key{}) {
				trust.Witnesses = append(trust.Witnesses, l.Quantum)
			}
		}
	}
	if e.witness != (merkle.Key{}) {
		trust.Witnesses = append(trust.Witnesses, e.witness)
	}
	return trust
}

// head opens a checkpoint of a state's log; the same one once.
func (e *edition) head(state string, note []byte, trust merkle.Trust) (merkle.Signed, error) {
	sum := sha256.New()
	_, _ = io.WriteString(sum, state+"\n")
	_, _ = sum.Write(note)
	return e.heads.of([32]byte(sum.Sum(nil)), func(merkle.Signed) int { return 2 * len(note) }, func() (merkle.Signed, error) {
		return merkle.OpenCheckpoint(note, trust.Log, trust.Witnesses...)
	})
}

// receipt holds a record's receipt against its leaf, the state's log, and the
// other states' witnesses, and says who has cosigned.
func (e *edition) receipt(r *evidence.Record) (string, error) {
	trust := e.logs[string(r.State)]
	if trust.Log == (merkle.Key{}) {
		return "", away("the directory in the container names no log of %.2s", r.State)
	}
	p, err := merkle.ParseReceipt(r.Receipt)
	if err != nil {
		return "", err
	}
	if p.Index != r.Leaf {
		return "", fmt.Errorf("the receipt is of leaf %d", p.Index)
	}
	s, err := e.head(string(r.State), p.Note, trust)
	if err == nil {
		err = p.Under(s, r.Hash[:], trust.Quorum)
	}
	switch {
	case errors.Is(err, merkle.ErrQuorum), errors.Is(err, merkle.ErrUnsigned):
		// Keys change: those of the receipt may be younger than this directory.
		return "", away("%v", err)
	case err != nil:
		return "", err
	}
	if s.Witnesses() == 0 { // the union asks for none: the log's own word
		return "", away("it stands in that state's log, and no other state has cosigned it")
	}
	var names []string
	var at time.Time // by when so many had seen it
	for _, w := range s.Cosignatures {
		names = append(names, party(w.Key))
		if w.At.After(at) {
			at = w.At
		}
	}
	slices.Sort(names)
	return fmt.Sprintf("%d witnesses, %d needed, by %s: %s", s.Witnesses(), trust.Quorum, at.Format(time.RFC3339), strings.Join(slices.Compact(names), " ")), nil
}

// party is whose witness's key it is: the middle of its name, a state's code or
// the secretariat (docs/protocols/directory.md).
func party(k merkle.Key) string {
	if parts := strings.Split(k.Name(), "/"); len(parts) == 3 {
		return parts[1]
	}
	return k.Name()
}
