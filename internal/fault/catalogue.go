package fault

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/falaj/falaj/internal/union"
)

// The codes, by the room that raises them.
const (
	Internal Code = "internal"
	Timeout  Code = "timeout"

	// The edge: what a client sent.
	BadRequest         Code = "request.malformed"
	BadIdentifier      Code = "request.identifier"
	BadPath            Code = "request.path"
	BadHeader          Code = "request.header"
	RepeatedHeader     Code = "request.header.repeated"
	MissingClient      Code = "request.client.missing"
	UnknownClient      Code = "request.client.unknown"
	ClientNotAuthentic Code = "request.client.authentication"
	TooLarge           Code = "request.too-large"
	MethodNotAllowed   Code = "request.method"
	BodyTruncated      Code = "request.body.truncated"
	MissingPurpose     Code = "request.purpose.missing"
	UnknownPurpose     Code = "request.purpose.unknown"
	IDConflict         Code = "request.id.conflict"
	InFlight           Code = "request.id.in-flight"
	NotFound           Code = "not-found"

	// Directory.
	UnknownService    Code = "directory.service.unknown"
	UnknownState      Code = "directory.state.unknown"
	DirectoryExpired  Code = "directory.expired"
	DirectoryInvalid  Code = "directory.invalid"
	DirectoryConflict Code = "directory.conflict"
	CertUnknown       Code = "certificate.unknown"
	CertRevoked       Code = "certificate.revoked"
	CertExpired       Code = "certificate.expired"

	// Policy.
	PolicyDenied Code = "policy.denied"

	// Seals and messages.
	SealInvalid      Code = "seal.invalid"
	SealExpired      Code = "seal.expired"
	SealNotYetValid  Code = "seal.not-yet-valid"
	MessageMalformed Code = "message.malformed"
	MessageMismatch  Code = "message.mismatch"
	MessageReplayed  Code = "message.replayed"

	// Delivery.
	PeerUnreachable   Code = "peer.unreachable"
	PeerRefused       Code = "peer.refused"
	BackendFailed     Code = "backend.failed"
	BackendTimeout    Code = "backend.timeout"
	BackendRefused    Code = "backend.address"
	ServiceDisabled   Code = "service.disabled"
	OutcomeUnknown    Code = "outcome.unknown"
	Overloaded        Code = "node.overloaded"
	Draining          Code = "node.draining"
	StoreFailed       Code = "node.store"
	DiskFull          Code = "node.disk-full"
	NotAllowed        Code = "admin.not-allowed"
	NeedsSecondPerson Code = "admin.second-person"
	Conflict          Code = "admin.conflict"
	ConfigInvalid     Code = "config.invalid"
	DemoRefused       Code = "config.demonstration"
)

const (
	client   = "Client.BadRequest"
	consumer = "Server.ClientProxy."
	provider = "Server.ServerProxy."
)

func t(en, ar string) union.Text { return union.Text{En: en, Ar: ar} }

// Lookup gives the entry of a code. A code that the catalogue lacks reads as
// Internal: a test keeps that from happening.
func Lookup(code Code) Entry {
	all := catalogue()
	if e, ok := all[code]; ok {
		return e
	}
	return all[Internal]
}

// All gives every entry, ordered by code: for documents and tests.
func All() []Entry {
	all := catalogue()
	return slices.SortedFunc(maps.Values(all), func(a, b Entry) int { return strings.Compare(string(a.Code), string(b.Code)) })
}

var catalogue = sync.OnceValue(func() map[Code]Entry {
	m := map[Code]Entry{}
	for _, e := range entries() {
		m[e.Code] = e
	}
	return m
})

func entries() []Entry {
	return []Entry{
		{Internal, provider + "InternalError", 500,
			t("The node met an error of its own.", "واجهت العقدة خطأً داخلياً."),
			t("Try again; if it stays, give the operator the support number.", "أعد المحاولة، وإن تكرر الخطأ فأبلغ المشغّل برقم الدعم.")},
	}
}
