package policy

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrPath is wrapped by every error about a path. The errors never quote the
// path: it may hold a person's number.
var ErrPath = errors.New("path is not allowed")

const (
	maxPath     = 8 << 10 // bytes
	maxSegments = 256
)

// Path is a request's path in the one form about which rules are asked:
// segments, each percent-decoded once. A trailing slash is a last, empty
// segment.
type Path struct{ segments []string }

// ParsePath reads the path exactly as it will be sent to the backend, still
// percent-encoded and without the query. It refuses every path that a backend
// might read otherwise than the rules do: dot segments, slashes and
// backslashes that are encoded, once or several times, empty segments, control
// characters, what is not UTF-8. A wildcard rule must not be left by traversal.
func ParsePath(raw string) (Path, error) {
	if len(raw) > maxPath {
		return Path{}, fmt.Errorf("%w: %d bytes are too many", ErrPath, len(raw))
	}
	if raw == "" || raw == "/" {
		return Path{}, nil
	}
	if raw[0] != '/' {
		return Path{}, fmt.Errorf("%w: it does not start with a slash", ErrPath)
	}
	segments := strings.Split(raw[1:], "/")
	if len(segments) > maxSegments {
		return Path{}, fmt.Errorf("%w: %d segments are too many", ErrPath, len(segments))
	}
	for i, s := range segments {
		if s == "" && i < len(segments)-1 {
			return Path{}, fmt.Errorf("%w: an empty segment", ErrPath)
		}
		decoded, err := decode(s)
		if err != nil {
			return Path{}, err
		}
		segments[i] = decoded
	}
	return Path{segments: segments}, nil
}

func decode(raw string) (string, error) {
	if strings.ContainsAny(raw, "?#") {
		return "", fmt.Errorf("%w: a query or fragment in it", ErrPath)
	}
	s, err := url.PathUnescape(raw)
	if err != nil {
		return "", fmt.Errorf("%w: broken percent-encoding", ErrPath)
	}
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%w: it is not UTF-8", ErrPath)
	}
	// Backends exist that decode again, or cut path parameters off ("..;x"),
	// before they resolve dots: each reading has to be harmless.
	for deeper := s; ; {
		if name, _, _ := strings.Cut(deeper, ";"); name == "." || name == ".." {
			return "", fmt.Errorf("%w: a dot segment", ErrPath)
		}
		if strings.ContainsAny(deeper, `/\`) {
			return "", fmt.Errorf("%w: an encoded slash or a backslash", ErrPath)
		}
		if strings.ContainsFunc(deeper, unicode.IsControl) {
			return "", fmt.Errorf("%w: a control character", ErrPath)
		}
		next, err := url.PathUnescape(deeper)
		if err != nil || next == deeper {
			return s, nil
		}
		deeper = next
	}
}

// String is the decoded path, as context.path shows it to Cedar. It is without
// ambiguity, since no segment can hold a slash.
func (p Path) String() string { return "/" + strings.Join(p.segments, "/") }

// Pattern is the path of an endpoint: literal segments, * or {name} for
// exactly one segment that is not empty, and as the last segment ** for any
// number of segments, also none.
type Pattern struct {
	segments []segment
	rest     bool // ends in **
}

type segment struct {
	any     bool
	literal string // decoded
}

// ParsePattern reads a pattern. A wildcard is a whole segment; a literal
// asterisk is written %2A.
func ParsePattern(s string) (Pattern, error) {
	if s == "" || s == "/" {
		return Pattern{}, nil
	}
	var p Pattern
	if strings.HasSuffix(s, "/**") {
		s, p.rest = strings.TrimSuffix(s, "/**"), true
		if s == "" {
			return p, nil
		}
	}
	path, err := ParsePath(s)
	if err != nil {
		return Pattern{}, fmt.Errorf("pattern: %w", err)
	}
	for i, raw := range strings.Split(s, "/")[1:] {
		switch {
		case raw == "*", len(raw) > 2 && raw[0] == '{' && strings.IndexByte(raw, '}') == len(raw)-1 && !strings.Contains(raw[1:], "{"):
			p.segments = append(p.segments, segment{any: true})
		case strings.ContainsAny(raw, "*{}"):
			return Pattern{}, errors.New("pattern: a wildcard is a whole segment, and ** only the last")
		case raw == "" && p.rest:
			return Pattern{}, errors.New("pattern: an empty segment before **")
		default:
			p.segments = append(p.segments, segment{literal: path.segments[i]})
		}
	}
	return p, nil
}

// Match tells whether the whole path fits the pattern.
func (p Pattern) Match(path Path) bool {
	got := path.segments
	if len(got) > len(p.segments) && p.rest {
		got = got[:len(p.segments)]
	}
	return slices.EqualFunc(p.segments, got, func(want segment, s string) bool {
		return want.any && s != "" || !want.any && s == want.literal
	})
}
