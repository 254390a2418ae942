package stamp

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Authority makes tokens, with a P-256 key.
type Authority struct {
	Cert     *x509.Certificate
	Key      crypto.Signer
	Accuracy time.Duration // declared; whole milliseconds
}

// Serial makes a serial number that no process of an authority gives twice,
// restarted, doubled or restored from an old copy: the time to the nanosecond
// and 88 bits of chance (RFC 3161 §2.4.2 allows 160 bits).
func Serial(at time.Time) (*big.Int, error) {
	var b [19]byte
	binary.BigEndian.PutUint64(b[:], uint64(max(1, at.UnixNano())))
	if _, err := rand.Read(b[8:]); err != nil {
		return nil, fmt.Errorf("a serial number: %w", err)
	}
	return new(big.Int).SetBytes(b[:]), nil
}

// Stamp makes a token for a request, at a time, to the millisecond.
func (a *Authority) Stamp(r Request, serial *big.Int, at time.Time) ([]byte, error) {
	var b cryptobyte.Builder
	a.addInfo(&b, r, serial, at)
	info, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("stamp: %w", err)
	}
	attributes, err := a.attributes(info)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(attributes)
	sig, err := a.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("stamp: signing: %w", err)
	}
	attributes[0] = 0xa0 // in the token [0] stands in place of SET OF
	b = cryptobyte.Builder{}
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // ContentInfo
		b.AddASN1ObjectIdentifier(oidSignedData())
		b.AddASN1(inside(0), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // SignedData
				b.AddASN1Int64(3)
				b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { addAlgorithm(b, oidSHA256()) })
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidInfo())
					b.AddASN1(inside(0), func(b *cryptobyte.Builder) { b.AddASN1OctetString(info) })
				})
				if r.Certificate {
					b.AddASN1(inside(0), func(b *cryptobyte.Builder) { b.AddBytes(a.Cert.Raw) })
				}
				b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // SignerInfo
						b.AddASN1Int64(1)
						b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddBytes(a.Cert.RawIssuer)
							b.AddASN1BigInt(a.Cert.SerialNumber)
						})
						addAlgorithm(b, oidSHA256())
						b.AddBytes(attributes)
						addAlgorithm(b, oidECDSAWithSHA256())
						b.AddASN1OctetString(sig)
					})
				})
			})
		})
	})
	out, err := b.Bytes()
	if err == nil && len(out) > MaxToken {
		err = errors.New("the authority's certificate is too large")
	}
	if err != nil {
		return nil, fmt.Errorf("stamp: %w", err)
	}
	return out, nil
}

func (a *Authority) addInfo(b *cryptobyte.Builder, r Request, serial *big.Int, at time.Time) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(Policy)) })
		addImprint(b, r.Imprint)
		b.AddASN1BigInt(serial)
		b.AddASN1(asn1.GeneralizedTime, func(b *cryptobyte.Builder) {
			b.AddBytes([]byte(at.UTC().Truncate(time.Millisecond).Format(timeForm)))
		})
		if s, ms := a.Accuracy/time.Second, a.Accuracy%time.Second/time.Millisecond; s > 0 || ms > 0 {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				if s > 0 {
					b.AddASN1Int64(int64(s))
				}
				if ms > 0 {
					b.AddASN1Int64WithTag(int64(ms), context(0))
				}
			})
		}
		if r.Nonce != nil {
			b.AddASN1BigInt(r.Nonce)
		}
	})
}

// attributes are what is signed: the DER SET OF content-type, message-digest
// and signing-certificate-v2, the last with SHA-256, its default, left out.
func (a *Authority) attributes(info []byte) ([]byte, error) {
	sum, cert := sha256.Sum256(info), sha256.Sum256(a.Cert.Raw)
	var list [][]byte
	for _, x := range []struct {
		id    oid
		value func(*cryptobyte.Builder)
	}{
		{oidContentType(), func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidInfo()) }},
		{oidMessageDigest(), func(b *cryptobyte.Builder) { b.AddASN1OctetString(sum[:]) }},
		{oidCertificate(), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString(cert[:]) })
				})
			})
		}},
	} {
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(x.id)
			b.AddASN1(asn1.SET, x.value)
		})
		one, err := b.Bytes()
		if err != nil {
			return nil, fmt.Errorf("stamp: %w", err)
		}
		list = append(list, one)
	}
	slices.SortFunc(list, bytes.Compare) // DER: a SET OF is sorted
	var b cryptobyte.Builder
	b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
		for _, x := range list {
			b.AddBytes(x)
		}
	})
	return b.Bytes()
}
