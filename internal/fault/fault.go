// Package fault holds the one error type of falaj and its catalogue. Inside
// the node an error is a Go error; the one that a person or a peer is to see
// carries a Code, and only the edge turns it into HTTP.
package fault

import (
	"context"
	"errors"
	"fmt"

	"github.com/falaj/falaj/internal/union"
	"github.com/google/uuid"
)

// Code is a stable name from the catalogue. Codes cross the wire and stand in
// records: one is never renamed and never reused for another meaning.
type Code string

// Entry is what the catalogue knows of a code.
type Entry struct {
	Code   Code
	Type   string     // X-Road error type: Client.…, Server.ClientProxy.…, Server.ServerProxy.…
	Status int        // HTTP status
	What   union.Text // what happened
	Do     union.Text // what the reader can do about it
}

// Error is a fault with its code. Detail is technical, in English, free of
// secrets and of personal data: it is logged and shown.
type Error struct {
	Code     Code
	Detail   string
	DetailAr string // the same in Arabic, where the detail is a sentence
	Cause    error
	ID       string // UUID for support; also in the log
}

// New makes a fault. The detail follows fmt.Sprintf.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...), ID: uuid.NewString()}
}

// Wrap makes a fault with a cause; the cause stays inside the node.
func Wrap(code Code, cause error, format string, args ...any) *Error {
	e := New(code, format, args...)
	e.Cause = cause
	return e
}

// Arabic gives the detail in Arabic too. It is not logged.
func (e *Error) Arabic(format string, args ...any) *Error {
	e.DetailAr = fmt.Sprintf(format, args...)
	return e
}

// Error is for logs: code, detail, cause.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is matches another fault by code alone, so that
// errors.Is(err, &fault.Error{Code: fault.PolicyDenied}) reads well.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Entry gives the catalogue's entry of the error's code.
func (e *Error) Entry() Entry { return Lookup(e.Code) }

// From finds the fault in an error. A cancelled or late context becomes
// Timeout; anything else without a code becomes Internal, its text kept as
// cause and never shown.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Wrap(Timeout, err, "")
	}
	return Wrap(Internal, err, "")
}

// CodeOf gives the code of an error, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return From(err).Code
}
