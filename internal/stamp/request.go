package stamp

import (
	"errors"
	"fmt"
	"math/big"

	encoding "encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Media types and limits (RFC 3161 §3.4; the limits are ours, in bytes).
const (
	QueryMIME   = "application/timestamp-query"
	ReplyMIME   = "application/timestamp-reply"
	MaxRequest  = 4 << 10
	MaxResponse = 64 << 10
	maxNonce    = 256 // bits
)

// Policy is the DER content of 2.25.301603271107532128036984457848976264938:
// the object identifier under which falaj's nodes stamp
// (docs/protocols/evidence.md).
const Policy = "\x69\x83\xc5\xe6\xd6\xd5\xed\xa8\xaa\xb2\xb5\x91\x92\xb7\x80\xcc\xb5\x8d\x9d\x6a"

// Request asks for a time-stamp over a SHA-256 digest: TimeStampReq.
type Request struct {
	Imprint     [32]byte
	Policy      string   // DER content of an object identifier; "": the authority's own
	Nonce       *big.Int // nil: none
	Certificate bool     // the token is to carry the authority's certificate
}

// Failure is a bit of PKIFailureInfo (RFC 3161 §2.4.2).
type Failure int

// The failures.
const (
	BadAlg              Failure = 0
	BadRequest          Failure = 2
	BadDataFormat       Failure = 5
	TimeNotAvailable    Failure = 14
	UnacceptedPolicy    Failure = 15
	UnacceptedExtension Failure = 16
	SystemFailure       Failure = 25
)

// Refusal is a response without a token, or the reason for one.
type Refusal struct {
	Failure Failure // -1: none was given
	Text    string
}

func (r *Refusal) Error() string {
	name, ok := map[Failure]string{
		BadAlg: "badAlg", BadRequest: "badRequest", BadDataFormat: "badDataFormat", TimeNotAvailable: "timeNotAvailable",
		UnacceptedPolicy: "unacceptedPolicy", UnacceptedExtension: "unacceptedExtension", SystemFailure: "systemFailure",
	}[r.Failure]
	if !ok {
		name = fmt.Sprintf("failure %d", r.Failure)
	}
	return fmt.Sprintf("stamp: %s: %.200q", name, r.Text)
}

// Bytes is the request in DER.
func (r Request) Bytes() []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		addImprint(b, r.Imprint)
		if r.Policy != "" {
			b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(r.Policy)) })
		}
		if r.Nonce != nil {
			b.AddASN1BigInt(r.Nonce)
		}
		if r.Certificate {
			b.AddASN1Boolean(true)
		}
	})
	return b.BytesOrPanic() // nothing in it can be too large
}

func addImprint(b *cryptobyte.Builder, sum [32]byte) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addAlgorithm(b, oidSHA256())
		b.AddASN1OctetString(sum[:])
	})
}

// readImprint reads a MessageImprint; ok is its form, known whether it is
// SHA-256.
func readImprint(s *cryptobyte.String) (sum [32]byte, known, ok bool) {
	var m, digest cryptobyte.String
	if !s.ReadASN1(&m, asn1.SEQUENCE) {
		return sum, false, false
	}
	id, ok := readAlgorithm(&m)
	if !ok || !m.ReadASN1(&digest, asn1.OCTET_STRING) || !m.Empty() {
		return sum, false, false
	}
	if !id.Equal(oidSHA256()) {
		return sum, false, true
	}
	return sum, digest.CopyBytes(sum[:]) && digest.Empty(), true
}

// ParseRequest reads a request. Its error is a *Refusal.
func ParseRequest(b []byte) (Request, error) {
	var r Request
	s, all := cryptobyte.String(b), cryptobyte.String(nil)
	var version int64
	if len(b) > MaxRequest || !s.ReadASN1(&all, asn1.SEQUENCE) || !s.Empty() || !all.ReadASN1Integer(&version) || version != 1 {
		return r, &Refusal{BadDataFormat, "not a TimeStampReq of version 1 in DER"}
	}
	sum, known, ok := readImprint(&all)
	switch {
	case !ok:
		return r, &Refusal{BadDataFormat, "not a message imprint"}
	case !known:
		return r, &Refusal{BadAlg, "a message imprint here is a SHA-256 digest"}
	}
	r.Imprint = sum
	var policy, rest cryptobyte.String
	var named, extended bool
	ok = all.ReadOptionalASN1(&policy, &named, asn1.OBJECT_IDENTIFIER)
	if ok && all.PeekASN1Tag(asn1.INTEGER) {
		r.Nonce = new(big.Int)
		ok = all.ReadASN1Integer(r.Nonce) && r.Nonce.BitLen() <= maxNonce
	}
	if ok && all.PeekASN1Tag(asn1.BOOLEAN) {
		ok = all.ReadASN1Boolean(&r.Certificate)
	}
	ok = ok && all.ReadOptionalASN1(&rest, &extended, inside(0)) && all.Empty() && !(named && len(policy) == 0)
	switch {
	case !ok:
		return r, &Refusal{BadDataFormat, "a part of the request is not of its form"}
	case extended:
		return r, &Refusal{UnacceptedExtension, "no extension is known here"}
	}
	r.Policy = string(policy)
	return r, nil
}

// Reject is the response of an authority that gives no token.
func Reject(r *Refusal) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(2) // rejection
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(r.Text)) })
			})
			b.AddASN1(asn1.BIT_STRING, func(b *cryptobyte.Builder) {
				bits := make([]byte, 2+r.Failure/8)
				bits[0] = byte(7 - r.Failure%8)
				bits[1+r.Failure/8] = 0x80 >> (r.Failure % 8)
				b.AddBytes(bits)
			})
		})
	})
	return b.BytesOrPanic()
}

// Grant is the response with a token.
func Grant(token []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1Int64(0) })
		b.AddBytes(token)
	})
	return b.BytesOrPanic()
}

// ParseResponse gives the token of a TimeStampResp, not yet looked at. The
// error of one without is a *Refusal.
func ParseResponse(b []byte) ([]byte, error) {
	if len(b) > MaxResponse {
		return nil, fmt.Errorf("stamp: a response of %d bytes; at most %d", len(b), MaxResponse)
	}
	s := cryptobyte.String(b)
	var all, info, texts, text cryptobyte.String
	var status int64
	var said, why bool
	if !s.ReadASN1(&all, asn1.SEQUENCE) || !s.Empty() || !all.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1Integer(&status) ||
		!info.ReadOptionalASN1(&texts, &said, asn1.SEQUENCE) {
		return nil, errors.New("stamp: not a TimeStampResp in DER")
	}
	r := &Refusal{Failure: -1}
	if said && texts.ReadASN1(&text, asn1.UTF8String) {
		r.Text = string(text[:min(len(text), 500)])
	}
	if why = info.PeekASN1Tag(asn1.BIT_STRING); why {
		var bits encoding.BitString
		if !info.ReadASN1BitString(&bits) {
			return nil, errors.New("stamp: not a TimeStampResp in DER")
		}
		for i := range bits.BitLength {
			if bits.At(i) == 1 {
				r.Failure = Failure(i)
				break
			}
		}
	}
	if !info.Empty() {
		return nil, errors.New("stamp: not a TimeStampResp in DER")
	}
	if status != 0 && status != 1 {
		return nil, r
	}
	if why || all.Empty() {
		return nil, errors.New("stamp: a response that grants, and gives no token")
	}
	return []byte(all), nil
}
