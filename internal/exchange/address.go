package exchange

import (
	"net/url"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// address parts the target of a /r1 request, taken raw from the request line
// and never cleaned: instance/class/member/subsystem/service, then the rest
// with its query, byte for byte as the client wrote it.
func address(target string) (union.ServiceID, string, error) {
	rest, ok := strings.CutPrefix(target, "/r1/")
	if !ok {
		return union.ServiceID{}, "", fault.New(fault.BadPath, "the address does not begin with /r1/")
	}
	path, query := rest, ""
	if i := strings.IndexByte(rest, '?'); i >= 0 {
		path, query = rest[:i], rest[i:]
	}
	// The service's identifier ends at the fifth slash.
	end, slashes := len(path), 0
	for i := range len(path) {
		if path[i] == '/' {
			if slashes++; slashes == 5 {
				end = i
				break
			}
		}
	}
	id, err := union.ParseService(path[:end])
	if err != nil {
		return union.ServiceID{}, "", fault.Wrap(fault.BadIdentifier, err, "%v", err)
	}
	tail := path[end:]
	if err := safePath(tail); err != nil {
		return union.ServiceID{}, "", err
	}
	return id, tail + query, nil
}

// safePath refuses what a backend might read as a way out of the address that
// the service is mapped to: dot segments, also encoded, behind an encoded or
// backward slash, or before a path parameter. It never changes a path.
func safePath(path string) error {
	if strings.HasPrefix(path, "//") {
		// On its own a request target of this form names a host (RFC 9112 §3.2).
		return fault.New(fault.BadPath, "a path may not begin with two slashes")
	}
	for segment := range strings.SplitSeq(path, "/") {
		plain, err := url.PathUnescape(segment)
		if err != nil {
			return fault.New(fault.BadPath, "a path segment is not percent-encoded as RFC 3986 says")
		}
		for part := range strings.FieldsFuncSeq(plain, func(r rune) bool { return r == '/' || r == '\\' }) {
			name, _, _ := strings.Cut(part, ";")
			if name == "." || name == ".." {
				return fault.New(fault.BadPath, "a path may not hold the segments . or .., in any encoding")
			}
			// Encoded once more: refuse what a second decoding would turn into one.
			if again, err := url.PathUnescape(name); err == nil && (again == "." || again == "..") {
				return fault.New(fault.BadPath, "a path may not hold the segments . or .., in any encoding")
			}
		}
		for i := range len(plain) {
			if plain[i] < ' ' || plain[i] == 0x7f {
				return fault.New(fault.BadPath, "a path may not hold control characters")
			}
		}
	}
	return nil
}
