// Package p256 is the room of tables: it verifies ECDSA signatures of P-256
// keys that sign often, by their multiples made beforehand. It sees public data
// alone and takes no constant time. What a table does not accept crypto/ecdsa
// judges, so that no table ever refuses a signature (ADR 18).
package p256

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"math/big"

	"filippo.io/nistec"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const (
	window  = 7                       // bits of a digit
	half    = 1 << (window - 1)       // digits are 1-half to half
	windows = (256 + window) / window // for one bit more than a scalar has: the last carry
)

// Size is about what a table takes in bytes.
const Size = windows * half * 3 * 32

// Table holds the multiples of a public key: of its 2^(window·i)-fold the 1- to
// half-fold. It never changes.
type Table struct {
	multiples [windows][half]nistec.P256Point
}

// New makes the table of a key.
func New(pub *ecdsa.PublicKey) (*Table, error) {
	if pub.Curve != elliptic.P256() {
		return nil, errors.New("p256: a key of another curve")
	}
	b, err := pub.Bytes()
	if err != nil {
		return nil, err
	}
	base, err := nistec.NewP256Point().SetBytes(b)
	if err != nil {
		return nil, err
	}
	t := new(Table)
	for i := range t.multiples {
		m := &t.multiples[i]
		m[0].Set(base)
		for j := 1; j < half; j++ {
			m[j].Add(&m[j-1], base)
		}
		base.Double(&m[half-1])
	}
	return t, nil
}

// Verify tells whether sig, an ECDSA-Sig-Value in DER, is the key's over a
// digest (FIPS 186-5 section 6.4.2).
func (t *Table) Verify(digest *[32]byte, sig []byte) bool {
	var rb, sb []byte
	var both cryptobyte.String
	in := cryptobyte.String(sig)
	if !in.ReadASN1(&both, asn1.SEQUENCE) || !in.Empty() ||
		!both.ReadASN1Integer(&rb) || !both.ReadASN1Integer(&sb) || !both.Empty() {
		return false
	}
	n := elliptic.P256().Params().N
	var r, s, u big.Int
	r.SetBytes(rb)
	s.SetBytes(sb)
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return false
	}
	var u1, u2 [32]byte
	s.ModInverse(&s, n)
	u.SetBytes(digest[:])
	u.Mul(&u, &s).Mod(&u, n).FillBytes(u1[:])
	u.Mul(&r, &s).Mod(&u, n).FillBytes(u2[:])
	sum, err := nistec.NewP256Point().ScalarBaseMult(u1[:])
	if err != nil {
		return false
	}
	t.add(sum, &u2)
	x, err := sum.BytesX()
	if err != nil {
		return false // infinity
	}
	return u.SetBytes(x).Mod(&u, n).Cmp(&r) == 0
}

// add adds the k-fold of the key, k being big-endian, to a point.
func (t *Table) add(sum *nistec.P256Point, k *[32]byte) {
	var negative nistec.P256Point
	carry := 0
	for i := range t.multiples {
		d := digit(k, i*window) + carry
		if carry = 0; d > half {
			d, carry = d-2*half, 1
		}
		switch {
		case d > 0:
			sum.Add(sum, &t.multiples[i][d-1])
		case d < 0:
			sum.Add(sum, negative.Negate(&t.multiples[i][-d-1]))
		}
	}
}

// digit is the window's bits of k from a bit on, the lowest of k being bit 0.
func digit(k *[32]byte, from int) (d int) {
	for i := range min(window, 256-from) {
		d |= int(k[31-(from+i)/8]>>((from+i)%8)&1) << i
	}
	return d
}
