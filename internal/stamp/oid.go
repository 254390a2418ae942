package stamp

import (
	"crypto"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"
	encoding "encoding/asn1"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

type oid = encoding.ObjectIdentifier

// Object identifiers of RFC 3161, RFC 5035, RFC 5652, RFC 5754, RFC 5758.
func oidSignedData() oid    { return oid{1, 2, 840, 113549, 1, 7, 2} }
func oidInfo() oid          { return oid{1, 2, 840, 113549, 1, 9, 16, 1, 4} } // id-ct-TSTInfo
func oidContentType() oid   { return oid{1, 2, 840, 113549, 1, 9, 3} }
func oidMessageDigest() oid { return oid{1, 2, 840, 113549, 1, 9, 4} }

func oidCertificate() oid     { return oid{1, 2, 840, 113549, 1, 9, 16, 2, 47} } // id-aa-signingCertificateV2
func oidExtendedUsage() oid   { return oid{2, 5, 29, 37} }
func oidRSA() oid             { return oid{1, 2, 840, 113549, 1, 1, 1} }
func oidSHA256() oid          { return oid{2, 16, 840, 1, 101, 3, 4, 2, 1} }
func oidECDSAWithSHA256() oid { return oid{1, 2, 840, 10045, 4, 3, 2} }

// hashOf reads which digest an identifier names; 0 for one that is not taken.
func hashOf(id oid) crypto.Hash {
	switch id.String() {
	case "2.16.840.1.101.3.4.2.1":
		return crypto.SHA256
	case "2.16.840.1.101.3.4.2.2":
		return crypto.SHA384
	case "2.16.840.1.101.3.4.2.3":
		return crypto.SHA512
	}
	return 0
}

// signatureOf tells whether an identifier names signatures of such a key over
// such a digest.
func signatureOf(id oid, rsa bool, hash crypto.Hash) bool {
	if rsa && id.Equal(oidRSA()) {
		return true
	}
	named := map[string]crypto.Hash{"1.2.840.10045.4.3.2": crypto.SHA256, "1.2.840.10045.4.3.3": crypto.SHA384, "1.2.840.10045.4.3.4": crypto.SHA512}
	if rsa {
		named = map[string]crypto.Hash{"1.2.840.113549.1.1.11": crypto.SHA256, "1.2.840.113549.1.1.12": crypto.SHA384, "1.2.840.113549.1.1.13": crypto.SHA512}
	}
	return named[id.String()] == hash
}

func addAlgorithm(b *cryptobyte.Builder, id oid) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(id) })
}

// readAlgorithm reads an AlgorithmIdentifier whose parameters are absent or
// NULL.
func readAlgorithm(s *cryptobyte.String) (id oid, ok bool) {
	var a, null cryptobyte.String
	ok = s.ReadASN1(&a, asn1.SEQUENCE) && a.ReadASN1ObjectIdentifier(&id)
	if ok && !a.Empty() {
		ok = a.ReadASN1(&null, asn1.NULL) && null.Empty() && a.Empty()
	}
	return id, ok
}

func context(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific() }

func inside(n uint8) asn1.Tag { return context(n).Constructed() }

var errForm = errors.New("not DER of the form that RFC 3161 gives it")
