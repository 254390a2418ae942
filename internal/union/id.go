// Package union is the vocabulary of falaj: who takes part in a union of
// states, and how each is named. It does no input or output and imports
// nothing of the project.
package union

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// MaxPart is the greatest length, in bytes, of one part of an identifier
// before percent-encoding.
const MaxPart = 255

// ErrIdentifier is wrapped by every error about a malformed identifier.
var ErrIdentifier = errors.New("malformed identifier")

// State is a member state's ISO 3166-1 alpha-2 code in capitals. It is the
// first part ("instance") of every identifier.
type State string

// MemberID names an organisation of a state: instance, class, code.
type MemberID struct {
	State State
	Class string
	Code  string
}

// SubsystemID names a system of a member. Subsystem is empty where an X-Road
// client identifies itself as the member alone.
type SubsystemID struct {
	MemberID
	Subsystem string
}

// ServiceID names a service that a subsystem offers.
type ServiceID struct {
	SubsystemID
	Service string
}

// ParseState accepts two capital ASCII letters.
func ParseState(s string) (State, error) {
	if len(s) != 2 || s[0] < 'A' || s[0] > 'Z' || s[1] < 'A' || s[1] > 'Z' {
		return "", fmt.Errorf("%w: state %q is not two capital letters (ISO 3166-1 alpha-2)", ErrIdentifier, clip(s))
	}
	return State(s), nil
}

// ParseMember parses instance/class/member, each part percent-encoded.
func ParseMember(s string) (MemberID, error) {
	p, err := split(s, 3, 3)
	if err != nil {
		return MemberID{}, err
	}
	return member(p)
}

// ParseClient parses the value of an X-Road-Client header:
// instance/class/member[/subsystem], each part percent-encoded.
func ParseClient(s string) (SubsystemID, error) {
	p, err := split(s, 3, 4)
	if err != nil {
		return SubsystemID{}, err
	}
	return subsystem(p)
}

// ParseSubsystem parses instance/class/member/subsystem: all four parts.
func ParseSubsystem(s string) (SubsystemID, error) {
	p, err := split(s, 4, 4)
	if err != nil {
		return SubsystemID{}, err
	}
	return subsystem(p)
}

// ParseService parses instance/class/member/subsystem/service: X-Road's code,
// unlike its text, wants all five parts.
func ParseService(s string) (ServiceID, error) {
	p, err := split(s, 5, 5)
	if err != nil {
		return ServiceID{}, err
	}
	sub, err := subsystem(p[:4])
	if err != nil {
		return ServiceID{}, err
	}
	return ServiceID{SubsystemID: sub, Service: p[4]}, nil
}

func member(p []string) (MemberID, error) {
	st, err := ParseState(p[0])
	if err != nil {
		return MemberID{}, err
	}
	return MemberID{State: st, Class: p[1], Code: p[2]}, nil
}

func subsystem(p []string) (SubsystemID, error) {
	m, err := member(p)
	if err != nil {
		return SubsystemID{}, err
	}
	id := SubsystemID{MemberID: m}
	if len(p) == 4 {
		id.Subsystem = p[3]
	}
	return id, nil
}

func split(s string, least, most int) ([]string, error) {
	if len(s) > most*(3*MaxPart+1) {
		return nil, fmt.Errorf("%w: %d bytes are too many", ErrIdentifier, len(s))
	}
	raw := strings.Split(s, "/")
	if len(raw) < least || len(raw) > most {
		want := fmt.Sprint(least)
		if most != least {
			want = fmt.Sprintf("%d or %d", least, most)
		}
		return nil, fmt.Errorf("%w: %q: wanted %s parts, there are %d", ErrIdentifier, clip(s), want, len(raw))
	}
	parts := make([]string, len(raw))
	for i, r := range raw {
		p, err := url.PathUnescape(r)
		if err != nil {
			return nil, fmt.Errorf("%w: part %q is not percent-encoded UTF-8", ErrIdentifier, clip(r))
		}
		if err := checkPart(p); err != nil {
			return nil, err
		}
		parts[i] = p
	}
	return parts, nil
}

// checkPart holds one decoded part against X-Road's alphabet
// (A-Z a-z 0-9 ' ( ) + , - . = ?) and refuses the path segments "." and "..".
func checkPart(p string) error {
	switch {
	case p == "":
		return fmt.Errorf("%w: an empty part", ErrIdentifier)
	case len(p) > MaxPart:
		return fmt.Errorf("%w: a part of %d bytes; at most %d", ErrIdentifier, len(p), MaxPart)
	case p == "." || p == "..":
		return fmt.Errorf("%w: part %q is a path segment", ErrIdentifier, p)
	}
	for i := range len(p) {
		if !allowed(p[i]) {
			return fmt.Errorf("%w: part %q holds a character outside A-Z a-z 0-9 ' ( ) + , - . = ?", ErrIdentifier, clip(p))
		}
	}
	return nil
}

func allowed(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("'()+,-.=?", c) >= 0
}

// clip keeps hostile input short in messages.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// encode percent-encodes a part; "/" between parts stays raw.
func encode(parts ...string) string {
	var b strings.Builder
	for i, p := range parts {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

// String is the percent-encoded form, as in a path or a header.
func (m MemberID) String() string { return encode(string(m.State), m.Class, m.Code) }

// String is the percent-encoded form; without a subsystem it has three parts.
func (s SubsystemID) String() string {
	if s.Subsystem == "" {
		return s.MemberID.String()
	}
	return encode(string(s.State), s.Class, s.Code, s.Subsystem)
}

// String is the percent-encoded form of all five parts.
func (s ServiceID) String() string {
	return encode(string(s.State), s.Class, s.Code, s.Subsystem, s.Service)
}

// IsZero tells whether the identifier names nothing.
func (m MemberID) IsZero() bool { return m == MemberID{} }

// MarshalText writes the percent-encoded form; the zero identifier is empty,
// as if it were absent.
func (m MemberID) MarshalText() ([]byte, error) { return text(m) }

// MarshalText writes the percent-encoded form, or nothing for zero.
func (s SubsystemID) MarshalText() ([]byte, error) { return text(s) }

// MarshalText writes the percent-encoded form, or nothing for zero.
func (s ServiceID) MarshalText() ([]byte, error) { return text(s) }

// UnmarshalText reads what MarshalText writes.
func (m *MemberID) UnmarshalText(b []byte) error { return untext(m, b, ParseMember) }

// UnmarshalText reads three or four parts, or nothing.
func (s *SubsystemID) UnmarshalText(b []byte) error { return untext(s, b, ParseClient) }

// UnmarshalText reads five parts, or nothing.
func (s *ServiceID) UnmarshalText(b []byte) error { return untext(s, b, ParseService) }

func text[T interface {
	comparable
	String() string
}](id T) ([]byte, error) {
	var zero T
	if id == zero {
		return nil, nil
	}
	return []byte(id.String()), nil
}

func untext[T any](id *T, b []byte, parse func(string) (T, error)) (err error) {
	if len(b) == 0 {
		var zero T
		*id = zero
		return nil
	}
	*id, err = parse(string(b))
	return err
}

// Text is a text that a person sees: in both languages, or not at all.
type Text struct {
	En string `json:"en" yaml:"en"`
	Ar string `json:"ar" yaml:"ar"`
}

// In returns the text in the language: "ar" gives Arabic, all else English.
func (t Text) In(lang string) string {
	if lang == "ar" {
		return t.Ar
	}
	return t.En
}

// Complete tells whether both languages are there.
func (t Text) Complete() bool { return t.En != "" && t.Ar != "" }
