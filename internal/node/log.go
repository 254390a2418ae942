package node

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// Logs are the states' logs and witnesses as the directory names them.
type Logs struct {
	Quorum  int        `json:"quorum"`           // witnesses of others that a head takes
	Witness merkle.Key `json:"witness,omitzero"` // the secretariat's
	Logs    []LogPlace `json:"logs"`
}

// LogPlace is one state's log and witness.
type LogPlace struct {
	State union.State `json:"state"`
	directory.Log
}

func (n *Node) listLogs(context.Context, admin.Person, url.Values) (any, error) {
	v := n.directory.View()
	out := Logs{v.Quorum(), v.Witness(), []LogPlace{}}
	for _, s := range v.States() {
		if s.Log != (directory.Log{}) {
			out.Logs = append(out.Logs, LogPlace{s.Code, s.Log})
		}
	}
	return out, nil
}

// Union is what Logs say, as receipts and audits are held against it.
func (l Logs) Union() witness.Union {
	u := witness.Union{Quorum: l.Quorum}
	for _, p := range l.Logs {
		u.Parties = append(u.Parties, witness.Party{State: p.State, Log: p.Key, Witness: p.Witness, Quantum: p.Quantum})
	}
	if l.Witness != (merkle.Key{}) {
		u.Parties = append(u.Parties, witness.Party{State: witness.Secretariat, Witness: l.Witness})
	}
	return u
}

// renewLog names a new log of this state: the old one can no longer be
// believed. Its receipts stay what they are.
func (n *Node) renewLog(ctx context.Context, _ admin.Person, _ struct{}) (admin.Done, error) {
	var before, after directory.Log
	err := n.publish(ctx, func(e *directory.Edition) (err error) {
		s, _ := n.directory.View().State(n.cfg.State)
		before = s.Log
		if after, err = before.Renewed(); err != nil {
			return err
		}
		return e.SetLog(after)
	})
	return admin.Done{Result: after, Before: before, After: after}, err
}

// LogOpen says where everybody reads this state's log.
type LogOpen struct {
	Public    string `json:"public,omitempty"`     // base URL of its public door, such as https://node.example; "": as it was
	UnionOnly bool   `json:"union_only,omitempty"` // nowhere: only the other states' nodes read it
}

// openPublic names a log and a witness of this state in the directory, where
// that names none, and where they and its time-stamp authority are found.
func (n *Node) openPublic(ctx context.Context, _ admin.Person, p LogOpen) (admin.Done, error) {
	if p.Public != "" && p.UnionOnly {
		return admin.Done{}, fault.New(fault.BadRequest, "it is read at an address, or by the union alone")
	}
	base := strings.TrimSuffix(p.Public, "/")
	named := func(l directory.Log) bool { return l.Key != (merkle.Key{}) && l.Witness != (merkle.Key{}) }
	if s, _ := n.directory.View().State(n.cfg.State); !named(s.Log) {
		for _, name := range []string{directory.LogKey, directory.WitnessKey} {
			if _, err := n.keys.Create(name, seal.Ed25519); err != nil && !errors.Is(err, fs.ErrExist) {
				return admin.Done{}, fmt.Errorf("the key %s: %w", name, err)
			}
		}
	}
	if err := n.renew(ctx); err != nil { // the time-stamp authority, where there is none
		return admin.Done{}, err
	}
	stamps, err := n.keys.Signer(directory.StampKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return admin.Done{}, fmt.Errorf("the key %s: %w", directory.StampKey, err)
	}
	var before, after directory.Log
	err = n.publish(ctx, func(e *directory.Edition) (err error) {
		s, _ := n.directory.View().State(n.cfg.State)
		before = s.Log
		after = before
		if !named(before) {
			host, _, _ := net.SplitHostPort(n.cfg.Link.Advertise)
			if after, err = directory.NewLog(n.cfg.State, host, before.Address, n.keys); err != nil {
				return err
			}
		}
		switch {
		case p.UnionOnly:
			after.Address = ""
		case base != "":
			after.Address = base + strings.TrimSuffix(logPath, "/")
		}
		for i, x := range e.Stamps {
			if own, ok := x.Certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || stamps == nil || !own.Equal(stamps.Public()) {
				continue // a national authority's, or one of before
			}
			switch {
			case p.UnionOnly:
				e.Stamps[i].Address = ""
			case base != "":
				e.Stamps[i].Address = base + stampPath
			}
		}
		if err := e.SetLog(after); err != nil {
			return fault.Wrap(fault.BadRequest, err, "%v", err)
		}
		return nil
	})
	return admin.Done{Result: after, Before: before, After: after}, err
}

// Quantum says whether this state's witness cosigns with ML-DSA-44 as well.
type Quantum struct {
	On bool `json:"on"`
}

// setQuantum gives this state's witness its second key, in the directory, or
// takes it away. The key itself stays in the folder.
func (n *Node) setQuantum(ctx context.Context, _ admin.Person, p Quantum) (admin.Done, error) {
	var before, after directory.Log
	err := n.publish(ctx, func(e *directory.Edition) error {
		s, _ := n.directory.View().State(n.cfg.State)
		before = s.Log
		after = before
		after.Quantum = merkle.Key{}
		if before.Witness == (merkle.Key{}) {
			return fault.New(fault.NotFound, "the directory names no witness of %s", n.cfg.State)
		}
		if p.On {
			key, err := n.keys.Signer(directory.QuantumKey)
			if errors.Is(err, fs.ErrNotExist) {
				key, err = n.keys.Create(directory.QuantumKey, seal.MLDSA44)
			}
			if err != nil {
				return fmt.Errorf("the witness's second key: %w", err)
			}
			if after.Quantum, err = merkle.NewKey(before.Witness.Name(), merkle.Quantum, key.Public()); err != nil {
				return err
			}
		}
		return e.SetLog(after)
	})
	return admin.Done{Result: after, Before: before, After: after}, err
}

// openLog opens what publishes this state's log, and what cosigns the others'.
// Where the directory names neither, nothing comes of it.
func (n *Node) openLog() {
	ask := func(ctx context.Context, state union.State, kind string, body []byte) ([]byte, error) {
		if state == witness.Secretariat {
			return n.askSecretariat(ctx, kind, body)
		}
		return n.asker(state)(ctx, kind, body)
	}
	signer := func(name string, kind merkle.Kind, named func(directory.Log) merkle.Key) func() (merkle.Signer, error) {
		return func() (merkle.Signer, error) {
			s, _ := n.directory.View().State(n.cfg.State)
			if named(s.Log) == (merkle.Key{}) {
				return merkle.Signer{}, fault.New(fault.NotFound, "the directory names no key %q of %s", name, n.cfg.State)
			}
			key, err := n.keys.Signer(name)
			if err != nil {
				return merkle.Signer{}, err
			}
			return merkle.NewSigner(named(s.Log).Name(), kind, key)
		}
	}
	deps := witness.LogDeps{
		DB: n.db, Source: n.journal, State: n.cfg.State, Union: n.parties, Ask: ask, Now: n.now, Log: n.log,
		Signer: signer(directory.LogKey, merkle.LogSignature, func(l directory.Log) merkle.Key { return l.Key }),
	}
	n.publisher = witness.NewLog(witness.LogConfig{}, deps)
	n.openPromises(deps)
	n.witness = witness.New(witness.Deps{
		DB: n.db, State: n.cfg.State, Union: n.parties, Ask: ask, Now: n.now, Log: n.log,
		Signer: signer(directory.WitnessKey, merkle.Cosignature, func(l directory.Log) merkle.Key { return l.Witness }),
		Second: func() (merkle.Signer, error) {
			if s, _ := n.directory.View().State(n.cfg.State); s.Log.Quantum == (merkle.Key{}) {
				return merkle.Signer{}, nil
			}
			return signer(directory.QuantumKey, merkle.Quantum, func(l directory.Log) merkle.Key { return l.Quantum })()
		},
	})
}

// parties are the logs and witnesses that the directory names now.
func (n *Node) parties() witness.Union { return partiesOf(n.directory.View()) }

func partiesOf(v *directory.View) witness.Union {
	u := witness.Union{Quorum: v.Quorum()}
	for _, s := range v.States() {
		u.Parties = append(u.Parties, witness.Party{State: s.Code, Log: s.Log.Key, Witness: s.Log.Witness, Quantum: s.Log.Quantum})
	}
	if k := v.Witness(); k != (merkle.Key{}) {
		u.Parties = append(u.Parties, witness.Party{State: witness.Secretariat, Witness: k})
	}
	return u
}

// askLog answers other nodes about this state's log, its witness, its
// time-stamp authority and its clock.
func (n *Node) askLog(ctx context.Context, peer link.Peer, kind string, body []byte) ([]byte, error) {
	if !n.identity.known(peer) {
		return nil, fault.New(fault.CertUnknown, "the directory no longer names the certificate of this node of %s", peer.State)
	}
	switch kind {
	case witness.KindAdd:
		a, err := n.witness.Add(ctx, body)
		if err != nil {
			return nil, err
		}
		return a.Bytes(), nil
	case witness.KindHeads:
		return n.witness.Heads(ctx)
	case witness.KindStamp:
		return n.authority.Answer(ctx, body), nil
	case witness.KindTime:
		return n.clock.Answer(), nil
	case witness.KindHead:
		return n.publisher.Signed()
	case witness.KindAlarm:
		return n.hearAlarm(ctx, peer, body)
	}
	return n.readLog(ctx, string(body))
}

// readLog reads what C2SP tlog-tiles serves under a path.
func (n *Node) readLog(ctx context.Context, path string) ([]byte, error) {
	if path == "checkpoint" {
		return n.publisher.Checkpoint()
	}
	level, number, width, ok := merkle.ParsePath(path)
	switch {
	case !ok:
		return nil, fault.New(fault.NotFound, "a log has a checkpoint, tiles and entries")
	case level == merkle.Entries:
		return n.journal.Bundle(ctx, number, width)
	}
	return n.journal.Tile(ctx, level, number, width)
}

const (
	logPath = "/log/"
	// submitTime bounds how long a submission may take to arrive.
	submitTime = 10 * time.Second
)

// public is what everybody may ask at the public door: this state's log (C2SP
// tlog-tiles), its witness (C2SP tlog-witness) and its time-stamp authority
// (RFC 3161).
func (n *Node) public() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+logPath, func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, logPath)
		b, err := n.readLog(r.Context(), path)
		if err != nil {
			n.plain(w, err)
			return
		}
		h := w.Header()
		if path == "checkpoint" {
			h.Set("Content-Type", "text/plain; charset=utf-8")
			h.Set("Cache-Control", "max-age=1")
		} else {
			h.Set("Content-Type", "application/octet-stream")
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		_, _ = w.Write(b)
	})
	mux.HandleFunc("POST "+stampPath, n.serveStamp)
	witnessDoor(mux, logPath, n.witness, n.log)
	return mux
}

// witnessDoor lets everybody submit a head to a witness (C2SP tlog-witness), and
// see which heads it has cosigned: each is signed by its log.
func witnessDoor(mux *http.ServeMux, under string, of *witness.Witness, log *slog.Logger) {
	mux.HandleFunc("POST "+under+"add-checkpoint", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(submitTime))
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, merkle.MaxSubmission))
		if err != nil {
			plain(w, log, fault.Wrap(fault.TooLarge, err, "a submission of more than %d bytes, or one that did not end", merkle.MaxSubmission))
			return
		}
		a, err := of.Add(r.Context(), b)
		if err != nil {
			plain(w, log, err)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		if a.Status == witness.Behind {
			h.Set("Content-Type", "text/x.tlog.size")
		}
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(a.Status)
		_, _ = w.Write(a.Body)
	})
	mux.HandleFunc("GET "+under+"heads", func(w http.ResponseWriter, r *http.Request) {
		b, err := of.Heads(r.Context())
		if err != nil {
			plain(w, log, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(b)
	})
}

func (n *Node) plain(w http.ResponseWriter, err error) { plain(w, n.log, err) }

// plain answers a stranger with a fault in both languages, without its cause.
func plain(w http.ResponseWriter, log *slog.Logger, err error) {
	f := fault.From(err)
	if f.Code == fault.Internal || f.Code == fault.StoreFailed {
		log.Error("the public door", "error", err)
	}
	e := f.Entry()
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(e.Status)
	_, _ = io.WriteString(w, e.What.En+" "+e.What.Ar+"\n")
}

// heldToWord says why this state's log can no longer be believed.
func (n *Node) heldToWord(context.Context) error { return n.publisher.Err() }

// cosigned says what keeps the newest records from having receipts.
func (n *Node) cosigned(context.Context) error {
	if _, ok := n.parties().Trust(n.cfg.State); !ok {
		return fault.New(fault.NotFound, "the directory names no log of %s; falaj log open gives it one", n.cfg.State)
	}
	return n.publisher.Late()
}

func logChecks(n *Node) []operation.Check {
	return []operation.Check{
		{Name: "log", Text: union.Text{En: "The log is the one that the others have seen.", Ar: "سجل الشفافية هو الذي رآه الآخرون."}, Run: n.heldToWord},
		{Name: "witnesses", Hint: true, Text: union.Text{En: "Other states' witnesses cosign the log.", Ar: "شهود الدول الأخرى يوقّعون على سجل الشفافية."},
			What: union.Text{En: "The log's newest head lacks the cosignatures that a receipt takes.", Ar: "أحدث رأس لسجل الشفافية تنقصه تواقيع الشهود اللازمة للإيصال."},
			Do:   union.Text{En: "See whether the other states' nodes run and can be reached; calls go on meanwhile.", Ar: "تحقق من أن عقد الدول الأخرى تعمل ويمكن الوصول إليها؛ وتستمر الطلبات في هذه الأثناء."}, Run: n.cosigned},
	}
}
