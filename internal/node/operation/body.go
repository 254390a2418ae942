package operation

import (
	"io"
	"net/http"
	"time"
)

// linger is how long a connection stays whose request was answered before its
// body had come: an honest client still sends what it had begun, and would
// lose the answer if the connection were torn from under it.
const linger = 500 * time.Millisecond

// arriving is the body of a request at a door for strangers. Until it has been
// read to its end, the answer announces the end of the connection: net/http
// would otherwise wait for the rest before it answers, for as long as a client
// cares to send it byte after byte.
type arriving struct {
	io.ReadCloser
	header http.Header // of the answer
	door   *http.ResponseController
	ended  bool
}

// arrive puts arriving in the place of the request's body; leave is called
// when the request is answered.
func (g *Gate) arrive(w http.ResponseWriter, r *http.Request) (leave func()) {
	if r.Body == nil || r.Body == http.NoBody {
		return func() {}
	}
	b := &arriving{ReadCloser: r.Body, header: w.Header(), door: http.NewResponseController(w)}
	b.header.Set("Connection", "close")
	r.Body = b
	return b.leave
}

func (b *arriving) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && !b.ended {
		b.ended = true
		b.header.Del("Connection")
	}
	return n, err
}

func (b *arriving) leave() {
	if !b.ended {
		_ = b.door.SetReadDeadline(time.Now().Add(linger))
	}
}
