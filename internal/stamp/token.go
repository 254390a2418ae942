// Package stamp is what time-stamps are made of: requests and tokens by RFC
// 3161, and evidence records by RFC 4998. It does no I/O, and knows neither
// whom to ask nor whom to trust; docs/protocols/evidence.md says how the union
// uses it.
package stamp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// MaxToken bounds a token, in bytes: those of others carry chains of
// certificates.
const MaxToken = 48 << 10

const (
	maxSerial       = 160 // bits
	maxCertificates = 16
	maxRSA          = 8192 // bits: a signature of larger keys may take seconds to verify
)

// Token is a TimeStampToken as it was read. Nothing of it is believed before
// Verify.
type Token struct {
	Raw      []byte
	Imprint  [32]byte
	Policy   string // DER content of the object identifier
	Serial   *big.Int
	At       time.Time     // genTime, UTC
	Accuracy time.Duration // 0: none is declared
	Nonce    *big.Int      // nil: none
	Carried  []*x509.Certificate

	info         []byte // TSTInfo, which the signature covers by its digest
	attributes   []byte // as signed: DER SET OF
	digest       []byte // message-digest
	digestHash   crypto.Hash
	algorithm    oid
	signature    []byte
	certHash     crypto.Hash // of signing-certificate-v2
	cert         []byte
	issuer       []byte // of the signer's identifier; nil where it is by key
	issuerSerial *big.Int
}

// ParseToken reads a token: CMS SignedData of one signer over a TSTInfo, in
// DER, with signing-certificate-v2 (RFC 5816) among its signed attributes.
func ParseToken(b []byte) (*Token, error) {
	if len(b) > MaxToken {
		return nil, fmt.Errorf("stamp: a token of %d bytes; at most %d", len(b), MaxToken)
	}
	t := &Token{Raw: bytes.Clone(b)}
	if err := t.read(cryptobyte.String(t.Raw)); err != nil {
		return nil, fmt.Errorf("stamp: the token: %w", err)
	}
	return t, nil
}

func (t *Token) read(s cryptobyte.String) error {
	var outer, explicit, data, algorithms, content, wrapped, info, certs, signers cryptobyte.String
	var kind, of oid
	var version int64
	var present bool
	if !s.ReadASN1(&outer, asn1.SEQUENCE) || !s.Empty() ||
		!outer.ReadASN1ObjectIdentifier(&kind) || !kind.Equal(oidSignedData()) ||
		!outer.ReadASN1(&explicit, inside(0)) || !outer.Empty() ||
		!explicit.ReadASN1(&data, asn1.SEQUENCE) || !explicit.Empty() ||
		!data.ReadASN1Integer(&version) || version != 3 ||
		!data.ReadASN1(&algorithms, asn1.SET) ||
		!data.ReadASN1(&content, asn1.SEQUENCE) ||
		!content.ReadASN1ObjectIdentifier(&of) || !of.Equal(oidInfo()) ||
		!content.ReadASN1(&wrapped, inside(0)) || !content.Empty() ||
		!wrapped.ReadASN1(&info, asn1.OCTET_STRING) || !wrapped.Empty() ||
		!data.ReadOptionalASN1(&certs, &present, inside(0)) ||
		!data.SkipOptionalASN1(inside(1)) ||
		!data.ReadASN1(&signers, asn1.SET) || !data.Empty() {
		return errForm
	}
	for !certs.Empty() {
		var raw cryptobyte.String
		if !certs.ReadASN1Element(&raw, asn1.SEQUENCE) || len(t.Carried) == maxCertificates {
			return errForm
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			return fmt.Errorf("a certificate in it: %w", err)
		}
		if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > maxRSA {
			return fmt.Errorf("a certificate in it has a key of more than %d bits", maxRSA)
		}
		t.Carried = append(t.Carried, c)
	}
	t.info = info
	if err := t.readInfo(info); err != nil {
		return err
	}
	if err := t.readSigner(signers); err != nil {
		return err
	}
	for !algorithms.Empty() {
		id, ok := readAlgorithm(&algorithms)
		if !ok {
			return errForm
		}
		if hashOf(id) == t.digestHash {
			return nil
		}
	}
	return errForm
}

// readInfo reads a TSTInfo.
func (t *Token) readInfo(s cryptobyte.String) error {
	var all, policy, at, accuracy cryptobyte.String
	var version int64
	if !s.ReadASN1(&all, asn1.SEQUENCE) || !s.Empty() || !all.ReadASN1Integer(&version) || version != 1 ||
		!all.ReadASN1(&policy, asn1.OBJECT_IDENTIFIER) || len(policy) == 0 {
		return errForm
	}
	t.Policy = string(policy)
	sum, known, ok := readImprint(&all)
	if !ok {
		return errForm
	}
	if !known {
		return errors.New("its imprint is not a SHA-256 digest")
	}
	t.Imprint, t.Serial = sum, new(big.Int)
	if !all.ReadASN1Integer(t.Serial) || t.Serial.Sign() <= 0 || t.Serial.BitLen() > maxSerial {
		return errors.New("its serial number is none of 1 to 160 bits")
	}
	var declared bool
	if !all.ReadASN1(&at, asn1.GeneralizedTime) || !all.ReadOptionalASN1(&accuracy, &declared, asn1.SEQUENCE) {
		return errForm
	}
	var err error
	if t.At, err = readTime(string(at)); err != nil {
		return err
	}
	if declared {
		if t.Accuracy, ok = readAccuracy(accuracy); !ok {
			return errForm
		}
	}
	if !all.SkipOptionalASN1(asn1.BOOLEAN) { // ordering, which nothing here relies on
		return errForm
	}
	if all.PeekASN1Tag(asn1.INTEGER) {
		t.Nonce = new(big.Int)
		if !all.ReadASN1Integer(t.Nonce) || t.Nonce.BitLen() > maxNonce {
			return errForm
		}
	}
	if !all.SkipOptionalASN1(inside(0)) || !all.Empty() { // tsa: a hint; extensions: none is known
		return errForm
	}
	return nil
}

const timeForm = "20060102150405.999999999Z"

// readTime reads a GeneralizedTime in its one form of RFC 3161 §2.4.2: UTC, a
// fraction without closing zeros.
func readTime(text string) (time.Time, error) {
	at, err := time.Parse("20060102150405Z", text)
	if err != nil || at.Format(timeForm) != text {
		return time.Time{}, fmt.Errorf("its time %.32q is not of the form of RFC 3161", text)
	}
	return at, nil
}

// readAccuracy adds up seconds, milliseconds and microseconds.
func readAccuracy(s cryptobyte.String) (time.Duration, bool) {
	var total time.Duration
	if s.PeekASN1Tag(asn1.INTEGER) {
		var n int64
		if !s.ReadASN1Integer(&n) || n < 0 || n > 1<<31 {
			return 0, false
		}
		total = time.Duration(n) * time.Second
	}
	for i, unit := range []time.Duration{time.Millisecond, time.Microsecond} {
		if tag := context(uint8(i)); s.PeekASN1Tag(tag) {
			var n int64
			if !s.ReadASN1Int64WithTag(&n, tag) || n < 1 || n > 999 {
				return 0, false
			}
			total += time.Duration(n) * unit
		}
	}
	return total, s.Empty()
}

// readSigner reads the one SignerInfo.
func (t *Token) readSigner(s cryptobyte.String) error {
	var all, issuer, attributes, signature cryptobyte.String
	var version int64
	if !s.ReadASN1(&all, asn1.SEQUENCE) || !s.Empty() || !all.ReadASN1Integer(&version) {
		return errForm
	}
	switch version {
	case 1:
		var id cryptobyte.String
		t.issuerSerial = new(big.Int)
		if !all.ReadASN1(&id, asn1.SEQUENCE) || !id.ReadASN1Element(&issuer, asn1.SEQUENCE) || !id.ReadASN1Integer(t.issuerSerial) || !id.Empty() {
			return errForm
		}
		t.issuer = issuer
	case 3:
		if !all.SkipASN1(context(0)) {
			return errForm
		}
	default:
		return errForm
	}
	digest, ok := readAlgorithm(&all)
	if t.digestHash = hashOf(digest); !ok || t.digestHash == 0 {
		return errors.New("its digest is none of SHA-256, SHA-384, SHA-512")
	}
	var element cryptobyte.String
	if !all.ReadASN1Element(&element, inside(0)) {
		return errForm
	}
	t.attributes = append([]byte{0x31}, element[1:]...) // signed as SET OF (RFC 5652 §5.4)
	if !element.ReadASN1(&attributes, inside(0)) {
		return errForm
	}
	if t.algorithm, ok = readAlgorithm(&all); !ok || !all.ReadASN1(&signature, asn1.OCTET_STRING) || !all.SkipOptionalASN1(inside(1)) || !all.Empty() {
		return errForm
	}
	t.signature = signature
	return t.readAttributes(attributes)
}

func (t *Token) readAttributes(s cryptobyte.String) error {
	seen := map[string]bool{}
	for !s.Empty() {
		var a, values, value cryptobyte.String
		var id oid
		if !s.ReadASN1(&a, asn1.SEQUENCE) || !a.ReadASN1ObjectIdentifier(&id) || !a.ReadASN1(&values, asn1.SET) || !a.Empty() {
			return errForm
		}
		if seen[id.String()] {
			return errors.New("a signed attribute stands twice")
		}
		seen[id.String()] = true
		switch {
		case id.Equal(oidContentType()):
			var of oid
			if !values.ReadASN1ObjectIdentifier(&of) || !values.Empty() || !of.Equal(oidInfo()) {
				return errors.New("it was signed as another content")
			}
		case id.Equal(oidMessageDigest()):
			if !values.ReadASN1(&value, asn1.OCTET_STRING) || !values.Empty() {
				return errForm
			}
			t.digest = value
		case id.Equal(oidCertificate()):
			if err := t.readCertificate(values); err != nil {
				return err
			}
		}
	}
	if !seen[oidContentType().String()] || t.digest == nil {
		return errors.New("its signed attributes lack content type or digest")
	}
	if t.cert == nil {
		return errors.New("it does not name its signer's certificate (signing-certificate-v2)")
	}
	return nil
}

// readCertificate reads a SigningCertificateV2, of which the first entry is
// the signer's (RFC 5035 §5.4).
func (t *Token) readCertificate(s cryptobyte.String) error {
	var all, list, one, hash cryptobyte.String
	if !s.ReadASN1(&all, asn1.SEQUENCE) || !s.Empty() || !all.ReadASN1(&list, asn1.SEQUENCE) ||
		!all.SkipOptionalASN1(asn1.SEQUENCE) || !all.Empty() || !list.ReadASN1(&one, asn1.SEQUENCE) {
		return errForm
	}
	t.certHash = crypto.SHA256
	if one.PeekASN1Tag(asn1.SEQUENCE) {
		id, ok := readAlgorithm(&one)
		if t.certHash = hashOf(id); !ok || t.certHash == 0 {
			return errors.New("it names its signer's certificate by a digest that is not taken")
		}
	}
	if !one.ReadASN1(&hash, asn1.OCTET_STRING) || !one.SkipOptionalASN1(asn1.SEQUENCE) || !one.Empty() || len(hash) != t.certHash.Size() {
		return errForm
	}
	t.cert = hash
	return nil
}

// Names tells whether a certificate is the one that the token names as its
// signer's.
func (t *Token) Names(c *x509.Certificate) bool {
	h := t.certHash.New()
	_, _ = h.Write(c.Raw)
	return bytes.Equal(h.Sum(nil), t.cert)
}

// Digest is what a renewal stamps of the token (RFC 4998 §5.2).
func (t *Token) Digest() Digest { return sha256.Sum256(t.Raw) }

// By is the digest by which the token names its signer's certificate.
func (t *Token) By() []byte { return bytes.Clone(t.cert) }

// Signer finds the signer's certificate among those that the token carries;
// nil where it carries another, or none.
func (t *Token) Signer() *x509.Certificate {
	if i := slices.IndexFunc(t.Carried, t.Names); i >= 0 {
		return t.Carried[i]
	}
	return nil
}

// Verify holds the token against the certificate of the authority that is to
// have made it: named by the token, in its validity at the token's time, for
// time-stamps alone and marked so critically (RFC 3161 §2.3), and the
// signature's. Whether that authority is to be believed, and had not revoked
// the certificate, is for the caller to judge.
func (t *Token) Verify(c *x509.Certificate) error {
	if !t.Names(c) {
		return errors.New("stamp: the token names another certificate as its signer's")
	}
	if t.issuer != nil && (!bytes.Equal(t.issuer, c.RawIssuer) || t.issuerSerial.Cmp(c.SerialNumber) != 0) {
		return errors.New("stamp: the token's signer is another than its certificate's")
	}
	if err := Fit(c); err != nil {
		return err
	}
	if t.At.Before(c.NotBefore) || t.At.After(c.NotAfter) {
		return fmt.Errorf("stamp: stamped at %s, and the certificate is good from %s to %s", t.At.Format(time.RFC3339), c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
	}
	h := t.digestHash.New()
	_, _ = h.Write(t.info)
	if !bytes.Equal(h.Sum(nil), t.digest) {
		return errors.New("stamp: the token's content is not the one that was signed")
	}
	h.Reset()
	_, _ = h.Write(t.attributes)
	sum, good := h.Sum(nil), false
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		good = signatureOf(t.algorithm, false, t.digestHash) && ecdsa.VerifyASN1(k, sum, t.signature)
	case *rsa.PublicKey:
		good = k.N.BitLen() >= 2048 && k.N.BitLen() <= maxRSA && signatureOf(t.algorithm, true, t.digestHash) && rsa.VerifyPKCS1v15(k, t.digestHash, sum, t.signature) == nil
	}
	if !good {
		return errors.New("stamp: the token's signature is not its authority's")
	}
	return nil
}

// Chain holds the token against root certificates that are trusted, through
// the certificates that it carries (RFC 5280 §6), at its own time, and gives
// its signer's. Nobody is asked about revocation.
func (t *Token) Chain(anchors ...*x509.Certificate) (*x509.Certificate, error) {
	c := t.Signer()
	if c == nil {
		return nil, errors.New("stamp: the token does not carry its signer's certificate")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range anchors {
		roots.AddCert(a)
	}
	for _, x := range t.Carried {
		between.AddCert(x)
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: t.At, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}}); err != nil {
		return nil, fmt.Errorf("stamp: the certificate of the token's signer: %w", err)
	}
	return c, t.Verify(c)
}

// Fit tells whether a certificate is one of a time-stamp authority: that use
// alone, marked critical, and a key for signatures.
func Fit(c *x509.Certificate) error {
	critical := false
	for _, e := range c.Extensions {
		critical = critical || e.Critical && e.Id.Equal(oidExtendedUsage())
	}
	switch {
	case !critical, len(c.UnknownExtKeyUsage) > 0, !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}):
		return errors.New("stamp: a time-stamp authority's certificate has that use alone, marked critical (RFC 3161 §2.3)")
	case c.IsCA, c.KeyUsage != 0 && c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0:
		return errors.New("stamp: the certificate is not for signatures")
	}
	return nil
}
