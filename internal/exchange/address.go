package exchange

import (
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/policy"
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
		return id, "", err // whom it was meant for is told all the same
	}
	return id, tail + query, nil
}

// safePath refuses every path that a backend might read otherwise than the
// rules do: policy judges the very bytes that the backend will get. It never
// changes a path.
func safePath(path string) error {
	if _, err := policy.ParsePath(path); err != nil {
		return fault.Wrap(fault.BadPath, err, "%v", err)
	}
	return nil
}

// pathOnly cuts the query off.
func pathOnly(target string) string {
	path, _, _ := strings.Cut(target, "?")
	return path
}
