package operation

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

// linger is how long a connection stays whose request was answered before its
// body had come: an honest client still sends what it had begun, and would
// lose the answer if the connection were torn from under it.
const linger = 500 * time.Millisecond

// arriving is the body of a request at a door for strangers. Until it has been
// read to its end, the answer announces the end of the connection: net/http
// would otherwise wait for the rest before it answers, for as long as a client
// cares to send it byte after byte. And it has to make progress: no byte for
// Limits.Stall, or less than Limits.Pace on the whole, gives the place that
// it holds to somebody else.
type arriving struct {
	io.ReadCloser
	header http.Header // of the answer
	door   *http.ResponseController
	limits Limits
	until  time.Time // when it has to be here, whatever its pace

	size   int64         // bytes that came
	waited time.Duration // for them; the time that the node took over them is not the client's
	ended  bool
}

// arrive puts arriving in the place of the request's body; leave is called
// when the request is answered.
func (g *Gate) arrive(w http.ResponseWriter, r *http.Request) (leave func()) {
	if r.Body == nil || r.Body == http.NoBody {
		return func() {}
	}
	b := &arriving{ReadCloser: r.Body, header: w.Header(), door: http.NewResponseController(w), limits: g.limits, until: time.Now().Add(g.limits.Time)}
	b.header.Set("Connection", "close")
	r.Body = b
	return b.leave
}

func (b *arriving) Read(p []byte) (int, error) {
	begun := time.Now()
	late := begun.Add(min(b.limits.Stall, b.limits.Stall+b.earned()-b.waited))
	if late.After(b.until) {
		late = b.until
	}
	_ = b.door.SetReadDeadline(late) // writers that know no deadlines are tests'
	n, err := b.ReadCloser.Read(p)
	b.size += int64(n)
	b.waited += time.Since(begun)
	switch {
	case err == io.EOF && !b.ended:
		b.ended = true
		b.header.Del("Connection")
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fault.Wrap(fault.BodyTruncated, err, "%d bytes came in %v; send at least %d a second, and pause for at most %v", b.size, b.waited.Round(time.Second), b.limits.Pace, b.limits.Stall)
	}
	return n, err
}

// earned is how long what has come may have taken.
func (b *arriving) earned() time.Duration {
	return time.Duration(float64(b.size) / float64(b.limits.Pace) * float64(time.Second))
}

func (b *arriving) leave() {
	if !b.ended {
		_ = b.door.SetReadDeadline(time.Now().Add(linger))
	}
}
