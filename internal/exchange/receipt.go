package exchange

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
	"github.com/go-json-experiment/json"
)

// Receipts prove that records are under heads of the log that other states'
// witnesses have cosigned: witness.Log.
type Receipts interface {
	Receipt(ctx context.Context, index int64) (merkle.Receipt, error)
	Wait(ctx context.Context, index int64) error
	Union() witness.Union // whom they are held against
}

// CallReceipt is what proves that this node's records of a call stand in its
// state's log, who has seen the log's head above them, and by when they were
// there.
type CallReceipt struct {
	ID      string          `json:"id"`
	Stage   string          `json:"stage"` // cosigned, or stamped: all records have time-stamps too
	Log     string          `json:"log"`   // its origin
	Quorum  Quorum          `json:"quorum"`
	Time    union.Text      `json:"time"` // how far the records' time is proven
	Records []RecordReceipt `json:"records"`
}

// Quorum says whose cosignatures a receipt has, and how much they are.
type Quorum struct {
	Needed    int        `json:"needed"` // as the directory says now
	Met       int        `json:"met"`
	Others    int        `json:"others"` // witnesses there are, of other states than the log's
	Witnesses []Cosigner `json:"witnesses"`
	Quantum   int        `json:"mldsa,omitzero"` // how many have cosigned with ML-DSA-44 as well
	Note      union.Text `json:"note"`
}

// Cosigner is a witness that has cosigned.
type Cosigner struct {
	State union.State `json:"state"`
	Name  string      `json:"name"`
	At    time.Time   `json:"at"`
}

// RecordReceipt is the receipt of one record.
type RecordReceipt struct {
	Kind  string         `json:"kind"`
	Leaf  int64          `json:"leaf"`
	Hash  message.Digest `json:"hash"`  // the log's entry
	Proof string         `json:"proof"` // C2SP tlog-proof
	Stamp *StampReceipt  `json:"stamp,omitzero"`
}

// Receipt proves this node's records of a call. Each that is given out has
// been verified against the directory. The fault ReceiptPending asks for
// patience. That it was asked for is a record of its own, as all reading is.
func (x *Exchange) Receipt(ctx context.Context, id string, by Reader) (*CallReceipt, error) {
	r, err := x.receipt(ctx, id, by)
	if err := x.recordReading(ctx, reading{Action: "evidence.receipt", By: by.Name, Door: by.Door, ID: id}, err); err != nil {
		return nil, err
	}
	return r, nil
}

func (x *Exchange) receipt(ctx context.Context, id string, by Reader) (*CallReceipt, error) {
	if !message.ValidID(id) {
		return nil, fault.New(fault.BadRequest, "an id has 1 to %d visible ASCII characters", message.MaxID)
	}
	if x.deps.Receipts == nil {
		return nil, fault.New(fault.NotFound, "this node gives no receipts")
	}
	u := x.deps.Receipts.Union()
	trust, ok := u.Trust(x.cfg.State)
	if !ok {
		return nil, fault.New(fault.NotFound, "the directory names no log of %s: its records have no receipts", x.cfg.State)
	}
	records, err := x.halves(ctx, id, by)
	if err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, fault.New(fault.NotFound, "this node holds no record of the id that the asker may see")
	}
	out := &CallReceipt{ID: id, Stage: stageStamped, Log: trust.Log.Name(), Records: []RecordReceipt{}}
	var head merkle.Signed
	for _, r := range records {
		p, err := x.deps.Receipts.Receipt(ctx, r.Leaf)
		if err != nil {
			return nil, err
		}
		if head, err = p.Verify(r.Hash[:], trust); err != nil {
			return nil, fault.Wrap(fault.ReceiptPending, err, "the record %d: %v", r.Leaf, err)
		}
		s, err := x.stampOf(ctx, r)
		if err != nil { // the first stage stands without
			x.deps.Log.Error("a record's time-stamp cannot be given out", "leaf", r.Leaf, "error", err)
		}
		if s == nil {
			out.Stage = stageCosigned
		}
		out.Records = append(out.Records, RecordReceipt{Kind: r.Kind, Leaf: r.Leaf, Hash: r.Hash, Proof: string(p.Bytes()), Stamp: s})
	}
	out.Quorum, out.Time = quorumOf(u, x.cfg.State, trust, head), timeNote(u.States(), out.Records)
	return out, nil
}

// halves collects all that this node holds of an id, as far as it may be seen.
func (x *Exchange) halves(ctx context.Context, id string, by Reader) (out []Record, err error) {
	for from := int64(0); ; {
		h, _, err := x.half(ctx, id, from, by.May, false)
		if err != nil {
			return nil, err
		}
		if out = append(out, h.Records...); h.More == 0 {
			return out, nil
		}
		if from = h.More; len(out) > maxScanned {
			return nil, fault.New(fault.TooLarge, "more than %d records have this id", maxScanned)
		}
	}
}

// quorumOf says in both languages what a head's cosignatures are worth.
func quorumOf(u witness.Union, own union.State, trust merkle.Trust, head merkle.Signed) Quorum {
	q := Quorum{Needed: trust.Quorum, Met: head.Witnesses(), Witnesses: []Cosigner{}, Quantum: head.Quantum()}
	for _, k := range trust.Witnesses {
		if k.Kind() == merkle.Cosignature {
			q.Others++
		}
	}
	for _, c := range head.Cosignatures {
		for _, p := range u.Parties {
			if p.State != own && p.Witness == c.Key {
				q.Witnesses = append(q.Witnesses, Cosigner{p.State, c.Key.Name(), c.At})
			}
		}
	}
	q.Note = union.Text{
		En: fmt.Sprintf("Cosigned by %d of %d witnesses of others; the directory asks for %d.", q.Met, q.Others, q.Needed),
		Ar: fmt.Sprintf("وقّع %d من أصل %d من شهود الآخرين، والدليل يشترط %d.", q.Met, q.Others, q.Needed),
	}
	switch {
	case q.Needed == 0:
		q.Note.En += " So the log's own word is all that there is."
		q.Note.Ar += " فلا يُعتمد إلا على قول صاحب سجل الشفافية نفسه."
	case u.States() == 2 && !slices.ContainsFunc(q.Witnesses, func(c Cosigner) bool { return c.State == witness.Secretariat }):
		q.Note.En += " The union has two states: only the other one has cosigned, which may be a party to the call."
		q.Note.Ar += " الاتحاد من دولتين، ولم يوقّع إلا الدولة الأخرى، وقد تكون طرفاً في الطلب."
	}
	return q
}

// serveReceipt gives the subsystem that called or served its receipt.
func (x *Exchange) serveReceipt(w http.ResponseWriter, r *http.Request, id string, by Reader) {
	var c *CallReceipt
	var err error
	if r.Method == http.MethodGet {
		c, err = x.Receipt(r.Context(), id, by)
	} else {
		err = x.recordReading(r.Context(), reading{Action: "evidence.receipt", By: by.Name, Door: by.Door, ID: id}, fault.New(fault.MethodNotAllowed, "a receipt is read with GET"))
	}
	if err != nil {
		if fault.CodeOf(err) == fault.ReceiptPending {
			w.Header().Set("Retry-After", "1")
		}
		x.problem(w, err)
		return
	}
	b, err := json.Marshal(c)
	if err != nil {
		x.problem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

const (
	headerEvidence = "Falaj-Evidence" // names the evidence of an answer
	headerReceipt  = "Falaj-Receipt"  // asks for the receipt, and says whether there is one
	receiptWait    = "wait"
	receiptThere   = stageCosigned
	receiptPending = "pending"
	// receiptTime is how long an answer waits for its receipt: it has been
	// given, and goes to the client whatever becomes of that.
	receiptTime = 5 * time.Second
)

// wantsReceipt reads whether an answer is to wait for its receipt.
func wantsReceipt(h http.Header) (bool, error) {
	if len(h[headerReceipt]) == 0 {
		return false, nil
	}
	v, err := one(h, headerReceipt)
	if err == nil && v != receiptWait {
		err = fault.New(fault.BadHeader, "%s knows one word: %s", headerReceipt, receiptWait)
	}
	return err == nil, err
}

// await waits until this node's records of a call have their receipts, and
// tells whether they do.
func (x *Exchange) await(ctx context.Context, client union.SubsystemID, id string) string {
	if x.deps.Receipts == nil {
		return receiptPending
	}
	ctx, cancel := context.WithTimeout(ctx, receiptTime)
	defer cancel()
	last := int64(-1)
	for from, scanned := int64(0), 0; ; {
		found, err := x.deps.Journal.FindFrom(ctx, id, from)
		if err != nil {
			return receiptPending
		}
		for _, s := range found {
			from = s.Index + 1
			if c, _, ok := parties(s.Envelope); ok && c == client {
				last = s.Index
			}
		}
		if scanned += len(found); len(found) < journal.MaxFound || scanned >= maxScanned {
			break
		}
	}
	if last < 0 || x.deps.Receipts.Wait(ctx, last) != nil {
		return receiptPending
	}
	return receiptThere
}
