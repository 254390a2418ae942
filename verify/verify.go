// Package verify checks, offline, what proves a call between states: given a
// container (ASiC-E) and the union's root, and nothing else, it says whether
// the messages are those that were sealed, by whom, and what cannot be known
// from the container. It needs no node, network, clock or key.
package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
)

// Result says what came of a check.
type Result string

// The results.
const (
	Passed    Result = "passed"
	Failed    Result = "failed"
	Unchecked Result = "unchecked" // what it takes is not here; nothing speaks against it
)

// Verdict is what the checks come to. Its numbers are exit codes.
type Verdict int

// The verdicts.
const (
	Holds      Verdict = 0 // seals, senders and contents are proven
	Broken     Verdict = 1 // something in it is not what it should be
	Unprovable Verdict = 2 // by this root, or from this container, they cannot be judged
)

// Check is one thing that was looked at, in both languages.
type Check struct {
	What   string `json:"what"`
	WhatAr string `json:"what_ar"`
	Result Result `json:"result"`
	Detail string `json:"detail,omitzero"` // why not, or what was found

	needed bool // without it nothing is proven
}

// Report is what was found of a container.
type Report struct {
	Verdict       Verdict `json:"verdict"`
	ID            string  `json:"id,omitzero"` // X-Road-Id
	Union         string  `json:"union,omitzero"`
	Demonstration bool    `json:"demonstration,omitzero"` // the union is one for trying out: its word binds nobody
	Checks        []Check `json:"checks"`
}

func (r *Report) add(en, ar string, needed bool, detail string, err error) {
	c := Check{What: en, WhatAr: ar, Result: Passed, Detail: detail, needed: needed}
	switch {
	case errors.Is(err, errAway):
		c.Result, c.Detail = Unchecked, err.Error()
	case err != nil:
		c.Result, c.Detail = Failed, err.Error()
	}
	r.Checks = append(r.Checks, c)
}

func (r *Report) judge() *Report {
	for _, c := range r.Checks {
		switch {
		case c.Result == Failed:
			r.Verdict = Broken
			return r
		case c.Result == Unchecked && c.needed:
			r.Verdict = Unprovable
		}
	}
	return r
}

// Verifier checks containers by one union's root. It is safe for concurrent
// use, and follows each version of the directory once.
type Verifier struct {
	pin    *statement
	now    time.Time             // at which time-stamps are judged; zero: as if none had aged
	roots  []*x509.Certificate   // of time-stamp authorities outside of the union
	tokens memo[*stamp.Token]    // by their digest
	last   atomic.Pointer[chain] // directory that was read
	held   sync.Pool             // *[]byte, that containers are read into

	mu    sync.Mutex
	known map[edited]*edition
	bytes int // of the files of what is known
}

// edited names an edition by the bytes that it was followed from.
type edited struct {
	version int64
	state   union.State
	files   [32]byte
}

// maxKnown and maxKnownBytes bound what editions are remembered; maxDirectory what is read
// of one container's directory, maxHeld a container that is held in memory as a
// whole, both in bytes.
const (
	maxKnown      = 64
	maxKnownBytes = 32 << 20
	maxDirectory  = 64 << 20
	maxHeld       = 1 << 20
)

// New makes a verifier that trusts this root: <n>.root.json of the union, got
// from a state or the secretariat by a way that is trusted.
func New(root []byte) (*Verifier, error) {
	if len(root) > maxRoot {
		return nil, fmt.Errorf("a root of %d bytes; at most %d", len(root), maxRoot)
	}
	m, s, err := parse(root, "root")
	if err == nil {
		err = m.verify(s.Keys, s.Roles["root"])
	}
	if err == nil {
		err = checkRoot(s)
	}
	if err != nil {
		return nil, fmt.Errorf("the union's root: %w", err)
	}
	return &Verifier{pin: s, known: map[edited]*edition{}}, nil
}

// Rely takes the root certificate of a time-stamp authority that no state of
// the union names, got by a way that is trusted. It is for before the first
// container.
func (v *Verifier) Rely(root *x509.Certificate) { v.roots = append(v.roots, root) }

// At has time-stamps judged as at a time: that one proves anything whose
// authority's certificate has ended since takes others, which renewed it before
// (RFC 4998 §5.2). Without it nothing is said of that. It is for before the
// first container.
func (v *Verifier) At(now time.Time) { v.now = now }

// Container checks a container of size bytes. It reads bodies of any size
// without keeping them.
func (v *Verifier) Container(r io.ReaderAt, size int64) *Report {
	out := &Report{Checks: make([]Check, 0, 32)}
	opened, done, err := v.open(r, size)
	defer done()
	box := &container{Container: opened}
	var in *evidence.Contents
	if err == nil {
		in, err = box.Contents()
	}
	out.add("the file is a container of falaj's form", "الملف حاوية على هيئة falaj", true, "", err)
	if err != nil {
		return out.judge()
	}
	out.ID = in.ID
	var messages [2]*message
	for part := range messages {
		messages[part] = v.message(out, box, in, seal.Part(part))
	}
	q, a := messages[seal.Request], messages[seal.Answer]
	switch {
	case q != nil && a != nil:
		out.add("the answer is to this request", "الرد على هذا الطلب", true, "", a.answers(q))
	case q == nil && a == nil:
		out.add("a message", "رسالة", true, "", errors.New("there is none"))
	case q == nil:
		var err error
		if a.head.Type != typeRefusal || a.head.Request != "" && a.head.Request != zeroDigest {
			err = away("the request that it answers is not in the container")
		}
		out.add("the request was refused before it was sealed", "رُفض الطلب قبل ختمه", true, "", err)
	default:
		out.add("the answer", "الرد", false, "", away("there is none in the container"))
	}
	v.records(out, box, in, messages)
	out.add("no certificate was revoked afterwards for a time before its seal", "لم تُلغَ أي شهادة بعد ذلك بأثر يسبق ختمها", false, "", errLater)
	out.add("nothing else is in it, and nothing damaged", "ليس فيها غير ذلك، ولا تلف فيها", true, "", v.whole(box, in, messages))
	out.add("README.txt is as it was written", "الملف README.txt كما كُتب", false, "", errReadme)
	return out.judge()
}

// message checks one of the two messages; nil where there is none.
func (v *Verifier) message(out *Report, box *container, in *evidence.Contents, part seal.Part) *message {
	names, aside := part.Names(), evidence.AsideOf(part)
	en, ar := "request: ", "الطلب: "
	if part == seal.Answer {
		en, ar = "answer: ", "الرد: "
	}
	raw, err := box.Read(names.Head, evidence.MaxHead)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	m := &message{raw: raw}
	if err == nil {
		err = m.read(part, in.ID)
	}
	var sl seal.Seal
	if err == nil {
		if m.seal, err = box.Read(aside.Seal, seal.MaxSeal); err == nil {
			sl, err = seal.ParseSeal(m.seal)
		}
	}
	out.add(en+"head and seal are well formed", ar+"الرأس والختم سليما الصيغة", true, "", err)
	if err != nil {
		return m
	}
	m.at = sl.At
	m.batch = evidence.Batch(part, m.manifest, sl)
	kept, err := box.Read(names.Manifest, evidence.MaxFile)
	if err == nil && !bytes.Equal(kept, sl.Signed(part, m.manifest)) {
		err = errors.New("the manifest is not that of head and body")
	}
	for name, b := range m.batch {
		if kept, bad := box.Read(name, evidence.MaxFile); err == nil && (bad != nil || !bytes.Equal(kept, b)) {
			err = errors.Join(fmt.Errorf("%s is not that of head, body and seal", name), bad)
		}
	}
	out.add(en+"the manifest names head and body", ar+"البيان يسمي الرأس والمحتوى", true, "", err)
	if m.head.Body != nil {
		out.add(en+"the body is the one that was sealed", ar+"المحتوى هو الذي خُتم", false, "", m.body(box, in, names.Body))
	}

	e, err := v.edition(box, m.head.Directory, m.sealer.State)
	if err == nil {
		switch {
		case m.at.After(e.expires), m.at.After(e.partExpires):
			err = fmt.Errorf("sealed at %s, when that directory had expired", m.at.Format(time.RFC3339))
		case e.union != m.head.Union:
			err = fmt.Errorf("the directory is of the union %.64q, the message of %.64q", e.union, m.head.Union)
		}
	}
	out.add(en+"the directory of the day follows from the union's root", ar+"دليل ذلك اليوم يتبع جذر الاتحاد", true, "version "+strconv.FormatInt(m.head.Directory, 10), err)
	if err != nil {
		return m
	}
	m.edition = e
	out.Union, out.Demonstration = e.union, out.Demonstration || e.demonstration
	c, err := e.certificate(m.sealer.State, sl.Cert)
	if err == nil {
		err = c.at(m.at)
	}
	if err == nil && m.head.Fault == "" && c.member != m.sealer.String() {
		err = fmt.Errorf("it is the certificate of %s, and the message speaks for %s", c.member, m.sealer)
	}
	if err != nil {
		out.add(en+"the certificate was its sender's, and not revoked", ar+"الشهادة شهادة المرسل ولم تكن ملغاة", true, "", err)
		return m
	}
	detail := c.member
	if c.crl == nil {
		detail += "; its authority publishes no revocation list"
	}
	m.cert = c
	out.add(en+"the certificate was its sender's, and not revoked", ar+"الشهادة شهادة المرسل ولم تكن ملغاة", true, detail, nil)
	p7s, err := seal.CMS(part, m.manifest, c.cert, sl, c.authority) // verifies before it wraps
	how := m.at.Format(time.RFC3339)
	if sl.Batch != nil {
		how += fmt.Sprintf("; message %d of %d under one seal", sl.Batch.Index+1, sl.Batch.Size)
		if !c.batch { // it is his seal all the same; which nodes take it, nodes decide
			how += fmt.Sprintf(", though the directory of that day says nothing of batches by %s", m.sealer.State)
		}
	}
	out.add(en+"the seal is right", ar+"الختم صحيح", true, how, err)
	if err == nil {
		out.add(en+"the files for other tools are the same evidence", ar+"ملفات الأدوات الأخرى هي الأدلة نفسها", false, "", m.aside(box, part, c, p7s))
	}
	return m
}

// aside holds what the container keeps for stock tools against what was
// verified: both prove the same, or one of them lies.
func (m *message) aside(box *container, part seal.Part, c *certificate, p7s []byte) error {
	names, aside := part.Names(), evidence.AsideOf(part)
	files := map[string][]byte{names.Signature: p7s, aside.Certificate: c.certPEM, aside.Authority: c.authorityPEM}
	if c.crl != nil {
		files[aside.CRL] = c.crlPEM
	}
	for name, want := range files {
		if b, err := box.Read(name, evidence.MaxFile); err != nil || !bytes.Equal(b, want) {
			return errors.Join(fmt.Errorf("%s is another than the directory's", name), err)
		}
	}
	return nil
}

var errReadme = away("nobody signed it: who packed the container may have put other lines in; nothing that is said here rests on it")

var errLater = away("a container ends with its day: the revocation lists that the states publish now tell")

var errNoDirectory = away("without its directory nothing tells whose log it is")

// records holds the openings of the states' records against the messages.
func (v *Verifier) records(out *Report, box *container, in *evidence.Contents, messages [2]*message) {
	if len(in.Records) == 0 {
		out.add("the states' records", "قيود الدول", false, "", away("the container holds none"))
	}
	var bare, unstamped []string // records that have no receipt, no time-stamp
	var there [2]time.Time       // by when each message was, as others say
	var stamped [2]bool
	for i := range in.Records {
		r := &in.Records[i]
		leaf := strconv.FormatInt(r.Leaf, 10)
		record, recordAr := "record of "+string(r.State)+", leaf "+leaf+": ", "قيد "+string(r.State)+"، الورقة "+leaf+": "
		opening, opened := opens(r, in.ID, messages)
		out.add(record+"it opens to the "+r.Message, recordAr+"ورقته ورقة هذه الرسالة", false, "", opened)
		received := false
		if r.Receipt == nil {
			bare = append(bare, string(r.State)+" leaf "+leaf)
		} else {
			var detail string
			err := errNoDirectory
			for _, m := range messages {
				if m != nil && m.edition != nil && err != nil {
					detail, err = m.edition.receipt(r)
				}
			}
			out.add(record+"it stands in that state's log, and other states have seen it there", recordAr+"مدرج في سجل تلك الدولة وشهدت عليه دول أخرى", false, detail, err)
			received = err == nil
		}
		if r.Stamp == nil {
			unstamped = append(unstamped, string(r.State)+" leaf "+leaf)
			continue
		}
		part := seal.Answer
		if r.Message == "request" {
			part = seal.Request
		}
		stamped[part] = true
		at, detail, err := v.stamp(box, r, messages[part], opening, received)
		en, ar := "another's time-stamp authority has stamped the time by which it was there", "وثّقت سلطة طوابع زمنية لغير تلك الدولة وقت وجوده"
		var aged *agedError
		if errors.As(err, &aged) {
			en, ar = aged.en, aged.ar
		}
		out.add(record+en, recordAr+ar, false, detail, err)
		if (err == nil || aged != nil) && !at.IsZero() && opened == nil && (there[part].IsZero() || at.Before(there[part])) {
			there[part] = at
		}
	}
	if len(bare) > 0 {
		out.add("all records stand in the states' witnessed logs", "القيود كلها في سجلات الدول المشهودة", false, "", away("the container holds no receipt of %s", strings.Join(bare, ", ")))
	}
	if len(unstamped) > 0 {
		out.add("others' time-stamp authorities have stamped when all records were there", "وثّقت سلطات طوابع زمنية لغير دولها وقت وجود القيود كلها", false, "", away("the container holds no time-stamp of %s", strings.Join(unstamped, ", ")))
	}
	ages(out, messages, there, stamped)
}

var kinds = map[string][]uint8{"request": {1, 2}, "answer": {3, 4, 5, 6}} // journal's numbers, docs/protocols/node.md §20

// opens computes the leaf of a record, and gives what that is the digest of.
func opens(r *evidence.Record, id string, messages [2]*message) ([]byte, error) {
	m := messages[seal.Answer]
	if r.Message == "request" {
		m = messages[seal.Request]
	}
	if m == nil || m.seal == nil || !bytes.Contains(kinds[r.Message], []byte{r.Kind}) {
		return nil, errors.New("there is no such message")
	}
	if r.State != m.head.Client.State && r.State != m.head.Service.State {
		return nil, fmt.Errorf("%.2s took no part in the call", r.State)
	}
	envelope := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(m.raw)+len(m.seal)), uint32(len(m.raw)))
	envelope = append(append(envelope, m.raw...), m.seal...)
	sum, key := sha256.Sum256(envelope), sha256.Sum256([]byte(id))
	if r.Key != evidence.Digest(key) {
		return nil, errors.New("it is of another id")
	}
	b := append(append(make([]byte, 0, 256), "falaj record v1\n"...), r.Kind)
	b = binary.BigEndian.AppendUint64(b, uint64(r.At))
	for _, d := range [...][32]byte{r.Class, r.Key, sum, r.Body, r.Local} {
		b = append(b, d[:]...)
	}
	opening := r.Opening(sha256.Sum256(b))
	if sha256.Sum256(opening) != [32]byte(r.Hash) {
		return nil, errors.New("its leaf is another message's")
	}
	return opening, nil
}
