package seal

import "encoding/base64"

// The names that a manifest gives to the parts of a message, which are also
// their paths in an exported ASiC-E container.
const (
	HeadName      = "head.json"
	BodyName      = "body.bin"
	ManifestName  = "META-INF/ASiCManifest001.xml"
	SignatureName = "META-INF/signature001.p7s"
)

const (
	manifestStart = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<asic:ASiCManifest xmlns:asic="http://uri.etsi.org/02918/v1.2.1#" xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` +
		`<asic:SigReference URI="` + SignatureName + `" MimeType="application/pkcs7-signature"/>` +
		`<asic:DataObjectReference URI="` + HeadName + `" MimeType="application/json">` + digestStart
	manifestBody = digestEnd +
		`<asic:DataObjectReference URI="` + BodyName + `" MimeType="application/octet-stream">` + digestStart
	manifestEnd = digestEnd + `</asic:ASiCManifest>` + "\n"

	digestStart = `<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue>`
	digestEnd   = `</ds:DigestValue></asic:DataObjectReference>`
)

// Manifest is the ASiCManifest (ETSI EN 319 162-1 clause A.4) of a message with
// the SHA-256 of its head and, unless nil, of its body. Equal digests give
// equal bytes: the receiver makes the manifest anew and never gets it sent.
func Manifest(head Digest, body *Digest) []byte {
	const most = len(manifestStart) + 44 + len(manifestBody) + 44 + len(manifestEnd)
	b := make([]byte, 0, most)
	b = append(b, manifestStart...)
	b = base64.StdEncoding.AppendEncode(b, head[:])
	if body != nil {
		b = append(b, manifestBody...)
		b = base64.StdEncoding.AppendEncode(b, body[:])
	}
	return append(b, manifestEnd...)
}
