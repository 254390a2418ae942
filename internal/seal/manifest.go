package seal

import "encoding/base64"

// Part is the place of a message in its call. It decides the names in its
// manifest, so that both messages of a call lie in one ASiC-E container, and a
// request's seal never fits an answer. The type label of the head tells which.
type Part uint8

// The parts of a call.
const (
	Request Part = iota
	Answer       // a refusal too
)

// Names are those that a manifest gives to the parts of a message, which are
// also their paths in an ASiC-E container. Batch is the document of the batch
// that a message was sealed in, if it was.
type Names struct{ Head, Body, Manifest, Signature, Batch string }

// Names of a message's parts.
func (p Part) Names() Names { return names[p] }

var names = [...]Names{
	Request: {requestDir + headName, requestDir + bodyName, manifestPath + "001.xml", signaturePath + "001.p7s", requestDir + batchName},
	Answer:  {answerDir + headName, answerDir + bodyName, manifestPath + "002.xml", signaturePath + "002.p7s", answerDir + batchName},
}

const (
	requestDir, answerDir = "request/", "answer/"
	headName, bodyName    = "head.json", "body.bin"
	batchName             = "batch.txt"
	manifestPath          = "META-INF/ASiCManifest"
	signaturePath         = "META-INF/signature"

	manifestStart = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<asic:ASiCManifest xmlns:asic="http://uri.etsi.org/02918/v1.2.1#" xmlns:ds="http://www.w3.org/2000/09/xmldsig#">` +
		`<asic:SigReference URI="` + signaturePath
	manifestHead = `.p7s" MimeType="application/pkcs7-signature"/>` + objectStart
	headEnd      = headName + `" MimeType="application/json">` + digestStart
	batchEnd     = batchName + `" MimeType="text/plain">` + digestStart
	bodyStart    = digestEnd + objectStart
	bodyEnd      = bodyName + `" MimeType="application/octet-stream">` + digestStart
	manifestEnd  = digestEnd + `</asic:ASiCManifest>` + "\n"

	objectStart = `<asic:DataObjectReference URI="`
	digestStart = `<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue>`
	digestEnd   = `</ds:DigestValue></asic:DataObjectReference>`
)

// around is what stands before the digests of a head, of a body, of a batch's
// document.
var around = [...]struct{ head, body, batch string }{
	Request: {manifestStart + "001" + manifestHead + requestDir + headEnd, bodyStart + requestDir + bodyEnd, manifestStart + "001" + manifestHead + requestDir + batchEnd},
	Answer:  {manifestStart + "002" + manifestHead + answerDir + headEnd, bodyStart + answerDir + bodyEnd, manifestStart + "002" + manifestHead + answerDir + batchEnd},
}

// Manifest is the ASiCManifest (ETSI EN 319 162-1 clause A.4) of a message with
// the SHA-256 of its head and, unless nil, of its body. Equal digests give
// equal bytes: the receiver makes the manifest anew and never gets it sent.
func Manifest(part Part, head Digest, body *Digest) []byte {
	// The longer of the two parts' names: one allocation of one size.
	const most = len(manifestStart) + 3 + len(manifestHead) + len(requestDir) + len(headEnd) + 44 +
		len(bodyStart) + len(requestDir) + len(bodyEnd) + 44 + len(manifestEnd)
	a := &around[part]
	b := make([]byte, 0, most)
	b = append(b, a.head...)
	b = base64.StdEncoding.AppendEncode(b, head[:])
	if body != nil {
		b = append(b, a.body...)
		b = base64.StdEncoding.AppendEncode(b, body[:])
	}
	return append(b, manifestEnd...)
}

// batchManifest is the ASiCManifest of a batch with the SHA-256 of its document.
func batchManifest(part Part, document Digest) []byte {
	b := append(make([]byte, 0, 1<<10), around[part].batch...)
	b = base64.StdEncoding.AppendEncode(b, document[:])
	return append(b, manifestEnd...)
}
