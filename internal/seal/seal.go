// Package seal is the room of keys: it makes and checks the seals on messages,
// and keeps every private key, keyed hash and encryption key of a node. No
// other room touches a secret; they get handles that sign, hash or encrypt.
package seal

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// Algorithm names how a key signs. The numbers cross the wire and stand in
// evidence: one is never reused.
type Algorithm uint8

// The algorithms. Every one hashes with SHA-256, P-384 too: so that manifest,
// attributes and container are the same bytes whoever seals.
const (
	ECDSAP256 Algorithm = 1 // ecdsa-with-SHA256 on P-256: ours
	ECDSAP384 Algorithm = 2 // ecdsa-with-SHA256 on P-384: certificate authorities, national certificates
	RSAPKCS1  Algorithm = 3 // sha256WithRSAEncryption, 2048 to 4096 bits: national certificates
	Ed25519   Algorithm = 4 // keys of logs and notes; never a seal
	MLDSA44   Algorithm = 5 // FIPS 204: a witness's second key; never a seal
)

// String names the algorithm for people.
func (a Algorithm) String() string {
	switch a {
	case ECDSAP256:
		return "ECDSA P-256"
	case ECDSAP384:
		return "ECDSA P-384"
	case RSAPKCS1:
		return "RSA PKCS #1 v1.5"
	case Ed25519:
		return "Ed25519"
	case MLDSA44:
		return "ML-DSA-44"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Digest is a SHA-256 digest.
type Digest = [sha256.Size]byte

// Seal is what travels of a CAdES-B signature (ETSI EN 319 122-1): the parts
// that a receiver cannot rebuild from the message. It holds no secret.
type Seal struct {
	Alg  Algorithm
	At   time.Time // claimed signing time: UTC, whole seconds
	Cert Digest    // SHA-256 of the signing certificate's DER
	Sig  []byte    // ECDSA-Sig-Value in DER with the low s, or RSA PKCS #1 v1.5

	Batch *Place // nil: the signature is of this message alone
}

// MaxSeal is the greatest length of a seal's wire form in bytes.
const MaxSeal = sealHead + maxRSABytes + maxPlace

const (
	sealHead    = 1 + 8 + sha256.Size + 2
	minRSABytes = 2048 / 8
	maxRSABytes = 4096 / 8
	// latest is 9999-12-31T23:59:59Z: GeneralizedTime has four digits for a year.
	latest = 253402300799
)

// Sign seals a manifest with the certificate's key. The signer's key must be
// the certificate's, and the time, cut to whole seconds, must lie in the
// certificate's validity (fault SealNotYetValid, SealExpired): what Verify
// would refuse is not made.
func Sign(s crypto.Signer, cert *x509.Certificate, manifest []byte, at time.Time) (Seal, error) {
	at = at.UTC().Truncate(time.Second)
	alg, err := algorithmOf(cert.PublicKey)
	if err != nil {
		return Seal{}, err
	}
	if pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(s.Public()) {
		return Seal{}, errors.New("sealing: the key is not the certificate's")
	}
	if err := inValidity(cert, at); err != nil {
		return Seal{}, err
	}
	out := Seal{Alg: alg, At: at, Cert: sha256.Sum256(cert.Raw)}
	digest := toSign(manifest, &out)
	if out.Sig, err = s.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		return Seal{}, fmt.Errorf("sealing: %w", err)
	}
	if alg != RSAPKCS1 {
		if out.Sig, err = lowS(out.Sig, alg); err != nil {
			return Seal{}, err
		}
	}
	return out, nil
}

// Verify holds a seal against the manifest of a message and the certificate that
// its hash names: the fault is SealInvalid, or SealNotYetValid or SealExpired
// where the seal's time lies outside the certificate's validity. Whether the
// certificate is to be believed at all is for the directory to say.
func Verify(cert *x509.Certificate, part Part, manifest []byte, s Seal) error {
	return new(Checker).Verify(cert, part, manifest, s)
}

// Verify is Verify, which asks nothing twice of one batch.
func (c *Checker) Verify(cert *x509.Certificate, part Part, manifest []byte, s Seal) error {
	alg, err := algorithmOf(cert.PublicKey)
	if err != nil {
		return err
	}
	if alg != s.Alg {
		return fault.New(fault.SealInvalid, "the seal says %v, its certificate's key is %v", s.Alg, alg)
	}
	if s.Cert != sha256.Sum256(cert.Raw) {
		return fault.New(fault.SealInvalid, "the seal names another certificate")
	}
	if err := s.check(); err != nil {
		return err
	}
	if err := inValidity(cert, s.At); err != nil {
		return err
	}
	digest := toSign(s.Signed(part, manifest), &s)
	verify := func() bool {
		switch pub := cert.PublicKey.(type) {
		case *ecdsa.PublicKey:
			if alg == ECDSAP256 && c.Tables {
				return c.keys.Verify(s.Cert, pub, &digest, s.Sig) // the hash is that of the key's certificate: see above
			}
			return ecdsa.VerifyASN1(pub, digest[:], s.Sig)
		case *rsa.PublicKey:
			return rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], s.Sig) == nil
		}
		return false
	}
	var ok bool
	if s.Batch == nil {
		ok = verify()
	} else {
		// The digest is of the certificate's hash too.
		ok = c.judge(sha256.Sum256(append(digest[:], s.Sig...)), verify)
	}
	if !ok {
		return fault.New(fault.SealInvalid, "the signature does not fit manifest, time and certificate")
	}
	return nil
}

// toSign is the SHA-256 of the signed attributes: what the key really signs.
func toSign(manifest []byte, s *Seal) Digest {
	var buf [maxAttributes]byte
	return sha256.Sum256(appendAttributes(buf[:0], sha256.Sum256(manifest), s.At, s.Cert))
}

// algorithmOf names the only algorithm that a seal under this public key may
// have. It refuses weak, odd and needlessly large keys.
func algorithmOf(pub crypto.PublicKey) (Algorithm, error) {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return ECDSAP256, nil
		case elliptic.P384():
			return ECDSAP384, nil
		}
	case *rsa.PublicKey:
		// The lower bound is strength; the upper bounds what a hostile
		// certificate can make us compute.
		if n := pub.N.BitLen(); n >= 8*minRSABytes && n <= 8*maxRSABytes && pub.E >= 1<<16+1 {
			return RSAPKCS1, nil
		}
	}
	return 0, fault.New(fault.SealInvalid, "a certificate for seals holds a key of P-256, P-384 or RSA of 2048 to 4096 bits")
}

func inValidity(cert *x509.Certificate, at time.Time) error {
	switch {
	case at.Before(cert.NotBefore):
		return fault.New(fault.SealNotYetValid, "sealed at %s, the certificate begins at %s", stamp(at), stamp(cert.NotBefore))
	case at.After(cert.NotAfter):
		return fault.New(fault.SealExpired, "sealed at %s, the certificate ended at %s", stamp(at), stamp(cert.NotAfter))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// AppendBinary appends the wire form: algorithm (1 byte; its high bit set for a
// message of a batch), signing time (Unix seconds, 8 bytes, big-endian),
// certificate hash (32), length of the signature (2 bytes, big-endian),
// signature; of a batch also the message's place.
func (s Seal) AppendBinary(b []byte) ([]byte, error) {
	if err := s.check(); err != nil {
		return b, err
	}
	b = slices.Grow(b, sealHead+len(s.Sig)+maxPlace)
	alg := byte(s.Alg)
	if s.Batch != nil {
		alg |= batched
	}
	b = append(b, alg)
	b = binary.BigEndian.AppendUint64(b, uint64(s.At.Unix()))
	b = append(b, s.Cert[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Sig)))
	b = append(b, s.Sig...)
	if s.Batch != nil {
		b = s.Batch.append(b)
	}
	return b, nil
}

// ParseSeal reads a wire form and nothing behind it; the fault is SealInvalid.
// The signature is a copy. What parses, AppendBinary writes back to the byte.
func ParseSeal(b []byte) (Seal, error) {
	if len(b) < sealHead || len(b) > MaxSeal {
		return Seal{}, fault.New(fault.SealInvalid, "a seal of %d bytes", len(b))
	}
	at := binary.BigEndian.Uint64(b[1:])
	if at > latest {
		return Seal{}, fault.New(fault.SealInvalid, "the seal's time lies beyond the year 9999")
	}
	s := Seal{Alg: Algorithm(b[0] &^ batched), At: time.Unix(int64(at), 0).UTC(), Cert: Digest(b[9:41])}
	rest, n := b[sealHead:], int(binary.BigEndian.Uint16(b[41:]))
	if n > len(rest) || n < len(rest) && b[0]&batched == 0 {
		return Seal{}, fault.New(fault.SealInvalid, "a signature of %d bytes, said to be %d", len(rest), n)
	}
	s.Sig = append([]byte(nil), rest[:n]...)
	if b[0]&batched != 0 {
		var err error
		if s.Batch, err = parsePlace(rest[n:]); err != nil {
			return Seal{}, err
		}
	}
	return s, s.check()
}

// check holds the parts that need no certificate against their forms.
func (s Seal) check() error {
	if t := s.At.Unix(); t < 0 || t > latest || s.At.Nanosecond() != 0 {
		return fault.New(fault.SealInvalid, "the seal's time is not a whole second between 1970 and 9999")
	}
	switch s.Alg {
	case ECDSAP256, ECDSAP384:
		if !isLowS(s.Sig, s.Alg) {
			return fault.New(fault.SealInvalid, "the signature is not an ECDSA-Sig-Value in DER with the low s")
		}
	case RSAPKCS1:
		if len(s.Sig) < minRSABytes || len(s.Sig) > maxRSABytes {
			return fault.New(fault.SealInvalid, "an RSA signature of %d bytes", len(s.Sig))
		}
	default:
		return fault.New(fault.SealInvalid, "a seal by %v", s.Alg)
	}
	if s.Batch != nil {
		return s.Batch.check()
	}
	return nil
}
