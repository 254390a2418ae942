package seal

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// The DER of the attributes around their values. Everything but the time has
// one length, so the encoding is a template, and the order that DER asks of a
// SET OF (shortest first here, since the first bytes are 30 and the length) is
// always: content-type, mime-type, signing-time, message-digest,
// signing-certificate-v2.
const (
	// Attribute content-type (RFC 5652 11.1), value id-data.
	attrContentType = "\x30\x18\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03\x31\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"
	// Attribute mime-type (EN 319 122-1 5.2.4.2), value application/xml: what a
	// manifest is. A baseline signature should say so (6.3 requirement t).
	attrMIME = "\x30\x1b\x06\x06\x04\x00\x8d\x45\x02\x01\x31\x11\x0c\x0fapplication/xml"
	// Attribute signing-time (RFC 5652 11.3) up to its value: UTCTime, GeneralizedTime.
	attrTimeUTC         = "\x30\x1c\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05\x31\x0f\x17\x0d"
	attrTimeGeneralized = "\x30\x1e\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05\x31\x11\x18\x0f"
	// Attribute message-digest (RFC 5652 11.2) up to the 32 bytes of its value.
	attrDigest = "\x30\x2f\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04\x31\x22\x04\x20"
	// Attribute signing-certificate-v2 (RFC 5035 section 3) up to the 32 bytes of
	// its one ESSCertIDv2. The hash algorithm is the default SHA-256, which DER
	// leaves out. issuerSerial should not stand there (EN 319 122-1 6.3
	// requirement g); without it the attributes follow from the certificate's
	// hash alone, which is all that travels.
	attrCert = "\x30\x37\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x2f\x31\x28\x30\x26\x30\x24\x30\x22\x04\x20"

	maxAttributes = 3 + len(attrContentType) + len(attrMIME) + len(attrTimeGeneralized) + 15 + len(attrDigest) + 32 + len(attrCert) + 32
)

// SignedAttributes is what a seal's key signs: the DER SET OF of the signed
// attributes of a CAdES-B signature (ETSI EN 319 122-1 clause 6.3; RFC 5652
// section 5.4) over the manifest. The time counts in whole seconds and must lie
// between 1950 and 9999.
func SignedAttributes(manifest []byte, at time.Time, cert Digest) []byte {
	return appendAttributes(make([]byte, 0, maxAttributes), sha256.Sum256(manifest), at, cert)
}

func appendAttributes(b []byte, manifest Digest, at time.Time, cert Digest) []byte {
	at = at.UTC()
	year, month, day := at.Date()
	hour, minute, second := at.Clock()

	// RFC 5652 11.3: UTCTime through 2049, GeneralizedTime from 2050.
	general := year >= 2050
	n := maxAttributes - 3
	if !general {
		n -= 2
	}
	b = append(b, 0x31, 0x81, byte(n))
	b = append(b, attrContentType...)
	b = append(b, attrMIME...)
	if general {
		b = append(b, attrTimeGeneralized...)
		b = twoDigits(b, year/100)
	} else {
		b = append(b, attrTimeUTC...)
	}
	for _, v := range [...]int{year, int(month), day, hour, minute, second} {
		b = twoDigits(b, v%100)
	}
	b = append(b, 'Z')
	b = append(append(b, attrDigest...), manifest[:]...)
	return append(append(b, attrCert...), cert[:]...)
}

func twoDigits(b []byte, v int) []byte { return append(b, '0'+byte(v/10), '0'+byte(v%10)) }

// The DER of what is the same in every signature: CMS (RFC 5652) and its
// algorithms (RFC 5754, RFC 5758).
const (
	derOne        = "\x02\x01\x01"                                                 // version 1
	derSignedData = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"                 // id-signedData
	derDetached   = "\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"         // EncapsulatedContentInfo: id-data, no content
	derSHA256     = "\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01"         // parameters absent, as RFC 5754 section 2 wants
	derECDSA      = "\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"             // ecdsa-with-SHA256
	derRSA        = "\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00" // sha256WithRSAEncryption, with the NULL of RFC 4055 section 5

	tagOctets   = 0x04
	tagSequence = 0x30
	tagSet      = 0x31
	tagContext0 = 0xa0
)

// der is the DER of a value, which has these parts, with this tag.
func der(tag byte, parts ...string) string {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	var b strings.Builder
	b.Grow(10 + n)
	b.WriteByte(tag)
	if n < 0x80 {
		b.WriteByte(byte(n))
	} else {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(n))
		least := bytes.TrimLeft(size[:], "\x00")
		b.WriteByte(0x80 | byte(len(least)))
		b.Write(least)
	}
	for _, p := range parts {
		b.WriteString(p)
	}
	return b.String()
}

// CMS wraps a seal as a detached CAdES-B signature of the manifest that it
// signed (Seal.Signed): a DER ContentInfo (RFC 5652), the .p7s file of a
// container. It needs no key. The seal is verified first, so that nothing broken
// is exported. The chain is put beside the signing certificate.
func CMS(part Part, manifest []byte, cert *x509.Certificate, s Seal, chain ...*x509.Certificate) ([]byte, error) {
	if err := Verify(cert, part, manifest, s); err != nil {
		return nil, err
	}
	certs := make([]string, 0, 1+len(chain))
	for _, c := range append([]*x509.Certificate{cert}, chain...) {
		certs = append(certs, string(c.Raw))
	}
	slices.Sort(certs) // DER: a SET OF is sorted
	var number cryptobyte.Builder
	number.AddASN1BigInt(cert.SerialNumber)
	serial, err := number.Bytes()
	if err != nil {
		return nil, fmt.Errorf("wrapping a seal as CMS: %w", err)
	}
	// The attributes stand in the container under the tag [0] in place of SET OF.
	attributes := SignedAttributes(s.Signed(part, manifest), s.At, s.Cert)
	attributes[0] = tagContext0
	algorithm := derECDSA
	if s.Alg == RSAPKCS1 {
		algorithm = derRSA
	}
	signer := der(tagSequence, derOne, // SignerInfo
		der(tagSequence, string(cert.RawIssuer), string(serial)),
		derSHA256, string(attributes), algorithm, der(tagOctets, string(s.Sig)))
	signed := der(tagSequence, derOne, // SignedData
		der(tagSet, derSHA256), derDetached,
		der(tagContext0, slices.Compact(certs)...),
		der(tagSet, signer))
	return []byte(der(tagSequence, derSignedData, der(tagContext0, signed))), nil // ContentInfo
}
