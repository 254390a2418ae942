package seal

import (
	"crypto/elliptic"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// An ECDSA signature (r, s) is as valid as (r, n-s): whoever relays one could
// make a second that verifies. We seal with the s that is at most n/2 and take
// no other, so that one act of sealing has one form in evidence.

// parts reads an ECDSA-Sig-Value (RFC 5480 Appendix A) in strict DER.
func parts(sig []byte) (r, s []byte, ok bool) {
	in := cryptobyte.String(sig)
	var inner cryptobyte.String
	ok = in.ReadASN1(&inner, asn1.SEQUENCE) && in.Empty() &&
		inner.ReadASN1Integer(&r) && inner.ReadASN1Integer(&s) && inner.Empty()
	return r, s, ok
}

// Half the orders of the curves (SEC 2), rounded down, as big-endian bytes.
const (
	halfP256 = "\x7f\xff\xff\xff\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff" +
		"\xde\x73\x7d\x56\xd3\x8b\xcf\x42\x79\xdc\xe5\x61\x7e\x31\x92\xa8"
	halfP384 = "\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
		"\xff\xff\xff\xff\xff\xff\xff\xff\xe3\xb1\xa6\xc0\xfa\x1b\x96\xef" +
		"\xac\x0d\x06\xd9\x24\x58\x53\xbd\x76\x76\x0c\xb5\x66\x62\x94\xb9"
)

func order(alg Algorithm) *big.Int {
	if alg == ECDSAP384 {
		return elliptic.P384().Params().N
	}
	return elliptic.P256().Params().N
}

// isLowS tells whether sig is strict DER of two positive integers of the
// curve's size, the second at most n/2. Verification does the rest.
func isLowS(sig []byte, alg Algorithm) bool {
	half := halfP256
	if alg == ECDSAP384 {
		half = halfP384
	}
	r, s, ok := parts(sig)
	if !ok || len(r) > len(half) || len(s) > len(half) || r[0] == 0 || s[0] == 0 {
		return false
	}
	// parts leaves no leading zero, so the shorter integer is the smaller.
	return len(s) < len(half) || string(s) <= half
}

// lowS turns (r, s) into its form with the low s.
func lowS(sig []byte, alg Algorithm) ([]byte, error) {
	if isLowS(sig, alg) {
		return sig, nil
	}
	rb, sb, ok := parts(sig)
	if !ok {
		return nil, errors.New("sealing: the signer gave no ECDSA-Sig-Value in DER")
	}
	r, s := new(big.Int).SetBytes(rb), new(big.Int).SetBytes(sb)
	s.Sub(order(alg), s)
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	out, err := b.Bytes()
	if err != nil || !isLowS(out, alg) {
		return nil, errors.New("sealing: the signer gave a signature outside the curve's order")
	}
	return out, nil
}
