package exchange

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json/jsontext"
)

// Check is one thing that was verified of evidence.
type Check struct {
	What   string `json:"what"`
	WhatAr string `json:"what_ar"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitzero"`
}

// VerifyEvidence holds the halves against the directory and against each
// other. It says nothing of a record's place in the log: that takes proofs.
func (x *Exchange) VerifyEvidence(ctx context.Context, e *Evidence) ([]Check, error) {
	v, err := x.deps.Directory()
	if err != nil {
		return nil, err
	}
	books := books{now: v, at: x.deps.Archive, old: map[int64]*directory.View{}}
	var out []Check
	check := func(en, ar string, err error) {
		c := Check{What: en, WhatAr: ar, OK: err == nil}
		if err != nil {
			c.Detail = err.Error()
		}
		out = append(out, c)
	}
	var said []statement
	for _, h := range e.Halves {
		last := int64(-1)
		for _, r := range h.Records {
			s, err := books.read(ctx, r)
			s.state = h.State
			en, ar := s.name()
			check(en+": seal, certificate and time", ar+": الختم والشهادة والوقت", err)
			check(en+": leaf opens to the record", ar+": الورقة ورقة هذا القيد", opens(r))
			err = shown(e.ID, h.State, s, r)
			if err == nil && r.Leaf <= last {
				err = errors.New("it is out of its order")
			}
			last = r.Leaf
			check(en+": shown as it was sealed", ar+": معروض كما خُتم", err)
			said = append(said, s)
		}
	}
	if len(said) == 0 {
		check("records", "القيود", errors.New("there is none"))
	}
	for _, s := range said {
		if s.kind == journal.RequestSent || s.answer != nil && s.answer.Request != (message.Digest{}) {
			en, ar := s.name()
			check(en+": stands with the rest of its call", ar+": متسق مع بقية طلبه", s.among(said))
		}
	}
	check("each record has a salt of its own", "لكل قيد ملح خاص به", e.salted())
	check("both sides' halves", "ما لدى كلا الطرفين", e.complete(said))
	for _, s := range said {
		if twin := twins[s.kind]; twin != 0 && !e.unheard(s) {
			en, ar := s.name()
			check(en+": the other side holds the same", ar+": لدى الطرف الآخر مثله", s.paired(twin, said))
		}
	}
	return out, nil
}

// salted tells whether no two leaves have one salt: then whoever opens the one
// could guess at the other.
func (e *Evidence) salted() error {
	type place struct {
		state union.State
		leaf  int64
	}
	of := map[message.Digest]place{}
	for _, h := range e.Halves {
		for _, r := range h.Records {
			here := place{h.State, r.Leaf}
			if was, ok := of[r.Salt]; ok && was != here {
				return fmt.Errorf("leaf %d of %s and leaf %d of %s have one", was.leaf, was.state, here.leaf, here.state)
			}
			of[r.Salt] = here
		}
	}
	return nil
}

// complete tells whether each state that a message went to or came from is
// asked, be it that it holds nothing.
func (e *Evidence) complete(said []statement) error {
	if e.Missing != "" {
		return errors.New(e.Missing)
	}
	for _, h := range e.Halves {
		if h.More != 0 {
			return fmt.Errorf("of %s what stands from leaf %d on was left out", h.State, h.More)
		}
	}
	for _, s := range said {
		for _, state := range s.states() {
			if !slices.ContainsFunc(e.Halves, func(h Half) bool { return h.State == state }) {
				return fmt.Errorf("that of %s is missing", state)
			}
		}
	}
	return nil
}

// unheard tells whether a side that the message went to or came from could not
// be asked: of it nothing can be said, neither that it holds the same nor not.
func (e *Evidence) unheard(s statement) bool {
	return e.Missing != "" && slices.ContainsFunc(s.states(), func(state union.State) bool {
		return !slices.ContainsFunc(e.Halves, func(h Half) bool { return h.State == state })
	})
}

// statement is a record's sealed message, read.
type statement struct {
	state    union.State // whose node shows it
	kind     journal.Kind
	leaf     int64
	envelope string
	request  *message.Request
	answer   *message.Answer
	manifest message.Digest // of what is sealed
}

// name is how a person is told of it, in both languages.
func (s *statement) name() (en, ar string) {
	return fmt.Sprintf("%s, %s, leaf %d", s.state, s.kind, s.leaf), fmt.Sprintf("%s، %s، الورقة %d", s.state, s.kind.Text().Ar, s.leaf)
}

// states are those of client and service, where the message crossed.
func (s *statement) states() []union.State {
	switch {
	case s.request != nil:
		return []union.State{s.request.Client.State, s.request.Service.State}
	case s.answer != nil && s.kind != journal.Refused:
		return []union.State{s.answer.Client.State, s.answer.Service.State}
	}
	return nil
}

// asked is the manifest of the request that it is, or that it answers.
func (s *statement) asked() message.Digest {
	if s.answer != nil {
		return s.answer.Request
	}
	return s.manifest
}

// twins are the kinds of record that two nodes keep of one message.
var twins = map[journal.Kind]journal.Kind{
	journal.RequestSent: journal.RequestReceived, journal.RequestReceived: journal.RequestSent,
	journal.AnswerSent: journal.AnswerReceived, journal.AnswerReceived: journal.AnswerSent,
}

// ofProvider tells whether a record is one that the provider's node keeps.
func ofProvider(k journal.Kind) bool {
	return k == journal.RequestReceived || k == journal.AnswerSent
}

// among looks for what belongs to it: a request's answer, or why there was
// none; an answer's request, of the same call.
func (s *statement) among(all []statement) error {
	for _, o := range all {
		switch {
		case o.asked() != s.asked():
		case s.request != nil && o.answer != nil && !ofProvider(o.kind):
			return nil
		case s.answer != nil && o.request != nil && ofProvider(s.kind) == ofProvider(o.kind):
			q, a := o.request, s.answer
			if q.ID != a.ID || q.RequestID != a.RequestID || q.Client != a.Client || q.Service != a.Service || q.Union != a.Union {
				return errors.New("it answers a request of another call")
			}
			return nil
		}
	}
	if s.request != nil {
		return errors.New("it has neither answer nor refusal here")
	}
	return errors.New("it answers a request that is not here")
}

// paired looks for the other side's record of the same message. What was sent
// may not have arrived: then the caller's node says that it had no answer.
func (s *statement) paired(twin journal.Kind, all []statement) error {
	for _, o := range all {
		lost := (s.kind == journal.RequestSent || s.kind == journal.AnswerSent) && o.kind == journal.Unanswered && o.asked() == s.asked()
		if o.kind == twin && o.envelope == s.envelope || lost {
			return nil
		}
	}
	return errors.New("it is held by one side alone")
}

// opens computes the leaf from the envelope and the parts that are shown.
func opens(r Record) error {
	p := journal.Parts{
		Kind: r.Parts.Kind, At: r.Parts.At, Class: r.Parts.Class, Key: r.Parts.Key,
		Envelope: sha256.Sum256(r.Envelope), Body: r.Parts.Body, Local: r.Parts.Local,
	}
	switch {
	case message.Digest(p.Digest()) != r.Digest:
		return errors.New("the digest is not that of this envelope and these parts")
	case message.Digest(journal.Leaf(r.Salt, r.Digest)) != r.Hash:
		return errors.New("the leaf is not that of this record")
	case r.Note != nil && message.Digest(sha256.Sum256(r.Note)) != r.Parts.Local:
		return errors.New("the note is not the one that was recorded")
	}
	return nil
}

// shown holds what a person reads beside an envelope against the envelope.
func shown(id string, state union.State, s statement, r Record) error {
	head, raw, err := message.Open(r.Envelope)
	if err != nil {
		return err
	}
	sl, err := seal.ParseSeal(raw)
	if err != nil {
		return err
	}
	said, owner, request := id, union.State(""), s.request != nil
	switch {
	case request:
		said, owner = s.request.ID, s.request.Client.State
		if ofProvider(r.Parts.Kind) {
			owner = s.request.Service.State
		}
	case s.answer != nil:
		said, owner = s.answer.ID, s.answer.Client.State
		if ofProvider(r.Parts.Kind) {
			owner = s.answer.Service.State
		}
	}
	was, is := jsontext.Value(slices.Clone(head)), jsontext.Value(slices.Clone(r.Head))
	kind := map[journal.Kind]string{
		journal.RequestSent: message.TypeRequest, journal.RequestReceived: message.TypeRequest,
		journal.AnswerSent: message.TypeAnswer, journal.AnswerReceived: message.TypeAnswer,
		journal.Refused: message.TypeRefusal, journal.Unanswered: message.TypeRefusal,
	}[r.Parts.Kind]
	switch {
	case errors.Join(was.Canonicalize(), is.Canonicalize()) != nil || string(was) != string(is):
		return errors.New("the head is not the envelope's")
	case !r.Sealed.Equal(sl.At) || r.Cert != sl.Cert:
		return errors.New("time or certificate is not the seal's")
	case r.Kind != r.Parts.Kind.String() || kind != message.Kind(head):
		return errors.New("a message of this type makes no record of this kind")
	case r.At.UnixMilli() != r.Parts.At || r.At.Nanosecond()%1e6 != 0:
		return errors.New("the time is not the record's")
	case said != id || message.Digest(sha256.Sum256([]byte(id))) != r.Parts.Key:
		return errors.New("it is of another id")
	case owner != state:
		return fmt.Errorf("a node of %s keeps no such record", state)
	}
	return nil
}

// books are the directories by which evidence is judged: the one in force,
// which knows the latest revocations; and for a certificate that it names no
// more, the one of the message's day.
type books struct {
	now *directory.View
	at  func(ctx context.Context, version int64) (*directory.View, error)
	old map[int64]*directory.View
}

// maxOld bounds how many earlier directories are read for one call: its honest
// messages name one or two.
const maxOld = 8

func (b *books) certificate(ctx context.Context, sum [32]byte, version int64) (directory.Certificate, error) {
	c, ok := b.now.Certificate(sum)
	if !ok && b.at != nil && version < b.now.Version() {
		v, seen := b.old[version]
		if !seen && len(b.old) < maxOld {
			var err error
			v, err = b.at(ctx, version)
			if b.old[version] = v; err != nil {
				return c, err
			}
		}
		if v != nil {
			c, ok = v.Certificate(sum)
		}
	}
	if !ok {
		return c, fault.New(fault.CertUnknown, "the directory does not name the certificate")
	}
	return c, nil
}

// read reads a recorded message and judges its seal by the time at which it
// was made.
func (b *books) read(ctx context.Context, r Record) (statement, error) {
	s := statement{kind: r.Parts.Kind, leaf: r.Leaf, envelope: string(r.Envelope)}
	head, raw, err := message.Open(r.Envelope)
	if err != nil {
		return s, err
	}
	var version int64
	part := seal.Answer
	var body *message.Body
	var by union.MemberID // who has to have sealed it; a refusal may be by any member of the state
	if message.Kind(head) == message.TypeRequest {
		if s.request, err = message.ParseRequest(head); err != nil {
			s.request = nil
			return s, err
		}
		part = seal.Request
		version, body, by = s.request.Directory, s.request.Body, s.request.Client.MemberID
	} else {
		if s.answer, err = message.ParseAnswer(head); err != nil {
			s.answer = nil
			return s, err
		}
		version, body, by = s.answer.Directory, s.answer.Body, s.answer.Service.MemberID
		if s.answer.Type == message.TypeRefusal {
			by = s.answer.Client.MemberID
		}
		if s.answer.Fault != "" {
			by = union.MemberID{State: by.State}
		}
	}
	m := manifest(part, head, body)
	s.manifest = sha256.Sum256(m)
	sl, err := seal.ParseSeal(raw)
	if err != nil {
		return s, err
	}
	c, err := b.certificate(ctx, sl.Cert, version)
	switch {
	case err != nil:
		return s, err
	case c.Use != directory.UseSeal || c.State != by.State || by.Code != "" && c.Member != by:
		return s, fault.New(fault.MessageMismatch, "sealed by %s of %s, who speaks not for %s", c.Member, c.State, by)
	}
	if err := c.At(sl.At); err != nil {
		return s, err
	}
	return s, seal.Verify(c.Cert, part, m, sl)
}
