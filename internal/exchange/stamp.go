package exchange

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"time"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// Stamps are the time-stamps, by authorities of others, that this node keeps
// of its log: witness.Stamps.
type Stamps interface {
	Of(ctx context.Context, index int64) (*witness.Stamp, error) // nil: there is none yet
	Record(ctx context.Context, s *witness.Stamp, index int64) (r stamp.Record, root []byte, err error)
}

// The stages of a receipt.
const (
	stageCosigned = "cosigned"
	stageStamped  = "stamped"
)

// StampReceipt says by when a record was there, and who says so.
type StampReceipt struct {
	Stamping
	Record   []byte     `json:"record"`             // RFC 4998, with the tokens (RFC 3161) in it; base64
	Renewals []Stamping `json:"renewals,omitempty"` // each of the time-stamp before
}

// Stamping is one time-stamp.
type Stamping struct {
	Authority  string      `json:"authority"`      // its state, or its address
	State      union.State `json:"state,omitzero"` // "": the authority is no state's
	At         time.Time   `json:"at"`
	AccuracyMS int64       `json:"accuracy_ms"`        // 0: none is declared
	Serial     string      `json:"serial"`             // hexadecimal
	Directory  int64       `json:"directory,omitzero"` // version that names the authority
}

func stamping(s *witness.Stamp) Stamping {
	return Stamping{
		Authority: s.Name, State: s.State, At: s.Token.At, AccuracyMS: s.Token.Accuracy.Milliseconds(),
		Serial: fmt.Sprintf("%x", s.Token.Serial), Directory: s.Edition,
	}
}

// stampOf is the second stage of a record's receipt; nil where there is none
// yet.
func (x *Exchange) stampOf(ctx context.Context, r Record) (*StampReceipt, error) {
	if x.deps.Stamps == nil {
		return nil, nil
	}
	s, err := x.deps.Stamps.Of(ctx, r.Leaf)
	if s == nil || err != nil {
		return nil, err
	}
	proof, _, err := x.deps.Stamps.Record(ctx, s, r.Leaf)
	if err != nil {
		return nil, err
	}
	if err := proof.Verify(r.Hash); err != nil {
		return nil, fault.Wrap(fault.Corrupt, err, "the record %d is not the one that was stamped", r.Leaf)
	}
	out := &StampReceipt{Stamping: stamping(s)}
	for _, renewal := range s.Renewals {
		out.Renewals = append(out.Renewals, stamping(renewal))
	}
	if out.Record, err = proof.Bytes(); err != nil {
		return nil, err
	}
	return out, nil
}

// timeNote says in both languages how far the time of a call's records is
// proven.
func timeNote(states int, records []RecordReceipt) union.Text {
	var last *StampReceipt
	for _, r := range records {
		if r.Stamp == nil {
			return union.Text{
				En: "Not all records have a time-stamp of another's authority yet: until then their time is bounded by the cosignatures alone.",
				Ar: "لم تنل كل القيود بعد طابعاً زمنياً من سلطة أخرى، وإلى ذلك الحين لا يحدّ وقتها إلا تواقيع الشهود.",
			}
		}
		if last == nil || r.Stamp.At.After(last.At) {
			last = r.Stamp
		}
	}
	at := last.At.UTC().Format("2006-01-02 15:04:05 UTC")
	n := union.Text{
		En: fmt.Sprintf("The records were there by %s: so says the time-stamp authority %s.", at, last.Authority),
		Ar: fmt.Sprintf("كانت القيود موجودة في %s، بشهادة سلطة الطوابع الزمنية %s.", at, last.Authority),
	}
	switch {
	case last.State == "":
		n.En += " The directory does not name it: whoever reads this decides whether to rely on it."
		n.Ar += " والدليل لا يسمّيها، فالاعتماد عليها متروك لمن يطّلع على الإيصال."
	case states == 2:
		n.En += " The union has two states: the authority is the other one's, which may be a party to the call."
		n.Ar += " والاتحاد من دولتين، فالسلطة هي سلطة الدولة الأخرى، وقد تكون طرفاً في الطلب."
	}
	return n
}

// stamped puts beside this node's records their time-stamps, and beside the
// call the directory by which those are judged.
func (x *Exchange) stamped(ctx context.Context, out *evidence.Call) error {
	if x.deps.Stamps == nil {
		return nil
	}
	there := map[int64]bool{}
	for i := range out.Records {
		r := &out.Records[i]
		if r.State != x.cfg.State {
			continue // the other side gives out its own
		}
		s, err := x.deps.Stamps.Of(ctx, r.Leaf)
		if err != nil {
			return err
		}
		if s == nil {
			continue // one that is not there yet comes with a later export
		}
		proof, root, err := x.deps.Stamps.Record(ctx, s, r.Leaf)
		if err != nil {
			return err
		}
		if !there[s.Size] {
			e := evidence.Stamp{State: x.cfg.State, End: s.Size, By: s.Name, Token: s.Token, Root: root, Checkpoint: s.Note}
			if e.Authority, err = x.judgedStamp(ctx, s, out.Directory); err != nil {
				x.deps.Log.Warn("a time-stamp is left out of a container: its day's directory is not to be had", "version", s.Edition, "error", err)
				continue
			}
			for _, renewal := range s.Renewals {
				authority, err := x.judgedStamp(ctx, renewal, out.Directory)
				if err != nil { // who verifies is told that it cannot be judged
					x.deps.Log.Warn("a time-stamp's renewal cannot be judged by a container: its day's directory is not to be had", "version", renewal.Edition, "error", err)
				}
				e.Renewals = append(e.Renewals, evidence.Renewal{By: renewal.Name, At: renewal.Token.At, Authority: authority})
			}
			out.Stamps, there[s.Size] = append(out.Stamps, e), true
		}
		r.Stamp = &evidence.StampPlace{End: s.Size, Judge: judgeOf(s)}
		for _, renewal := range s.Renewals {
			r.Stamp.Renewals = append(r.Stamp.Renewals, judgeOf(renewal))
		}
		if r.Proof, err = proof.Bytes(); err != nil {
			return err
		}
	}
	return nil
}

func judgeOf(s *witness.Stamp) evidence.Judge {
	return evidence.Judge{Authority: s.State, Directory: s.Edition}
}

// judgedStamp puts into a directory what a time-stamp is judged by, that by
// which this node took it, and gives the authority that issued its signer's
// certificate; nil where no state did.
func (x *Exchange) judgedStamp(ctx context.Context, s *witness.Stamp, files map[string][]byte) (*x509.Certificate, error) {
	if s.State == "" {
		return nil, nil
	}
	v, err := x.deps.Archive(ctx, s.Edition)
	if err != nil {
		return nil, err
	}
	c, err := v.Stamped(s.Token, s.State)
	if err != nil {
		return nil, err
	}
	authority, _, err := issuer(v, c)
	if err != nil {
		return nil, err
	}
	chain, err := x.deps.Chain(ctx, s.Edition, s.State)
	maps.Copy(files, chain)
	return authority, err
}
