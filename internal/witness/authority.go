package witness

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/falaj/falaj/internal/stamp"
)

// KindStamp asks another node for a time-stamp: a TimeStampReq (RFC 3161),
// answered by a TimeStampResp.
const KindStamp = "stamp"

// AuthorityDeps are what a time-stamp authority stands on.
type AuthorityDeps struct {
	// Signer is this state's, with the certificate that the directory shows.
	Signer func() (stamp.Authority, error)
	Clock  *Clock
	Now    func() time.Time
	Log    *slog.Logger
}

// Authority is this state's time-stamp authority for the others (RFC 3161).
// It keeps nothing: its serial numbers come from the time and from chance.
type Authority struct{ deps AuthorityDeps }

// NewAuthority makes the authority.
func NewAuthority(deps AuthorityDeps) *Authority { return &Authority{deps} }

// Answer gives a TimeStampResp to a TimeStampReq: a token, or why there is
// none.
func (a *Authority) Answer(_ context.Context, request []byte) []byte {
	token, err := a.stamp(request)
	if err == nil {
		return stamp.Grant(token)
	}
	var r *stamp.Refusal
	if !errors.As(err, &r) {
		a.deps.Log.Error("the time-stamp authority", "error", err)
		r = &stamp.Refusal{Failure: stamp.SystemFailure, Text: "this authority cannot stamp now"}
	}
	return stamp.Reject(r)
}

func (a *Authority) stamp(request []byte) ([]byte, error) {
	r, err := stamp.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	if r.Policy != "" && r.Policy != stamp.Policy {
		return nil, &stamp.Refusal{Failure: stamp.UnacceptedPolicy, Text: "this authority stamps under its one policy"}
	}
	if a.deps.Clock.Err() != nil {
		return nil, &stamp.Refusal{Failure: stamp.TimeNotAvailable, Text: "this authority's clock may be off by more than it declares"}
	}
	signer, err := a.deps.Signer()
	if err != nil {
		return nil, err
	}
	signer.Accuracy = a.deps.Clock.Accuracy()
	now := a.deps.Now()
	serial, err := stamp.Serial(now)
	if err != nil {
		return nil, err
	}
	return signer.Stamp(r, serial, now)
}
