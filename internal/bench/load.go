package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	minSize     = 64 // room for the number that makes each request another
	maxErrors   = 100
	maxSamples  = 4 << 20 // of one round, over all connections
	maxHeader   = 64 << 10
	callTimeout = 10 * time.Second
)

// load is one round: how much, how long, against what.
type load struct {
	target           Target
	concurrency      int
	size             int
	warmup, duration time.Duration
}

// round is what one round gave. Times are of the measured window alone;
// errors are also those of the warm-up.
type round struct {
	requests int
	elapsed  time.Duration
	cpu      time.Duration // of the whole process: client, proxies or nodes, backend
	objects  uint64        // allocated by the whole process
	bytes    uint64
	p50, p99 time.Duration
	errors   int
	first    error
}

const (
	warming = iota
	measuring
	done
)

// run loads a target with keep-alive connections, each with one request at a
// time. The client is bare sockets and a small parser, so that little of what
// is measured is the client.
func run(ctx context.Context, l load) (round, error) {
	request, addr, err := prepare(l.target, l.size)
	if err != nil {
		return round{}, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var (
		phase   atomic.Int32
		failed  failures
		answers = make(chan struct{}, 1) // full once an answer came within the window
		workers = make([]*worker, l.concurrency)
		wg      sync.WaitGroup
	)
	failed.stop = stop
	for i := range workers {
		w := &worker{addr: addr, request: bytes.Clone(request), number: i, size: l.size, phase: &phase, failed: &failed, answers: answers}
		w.samples = make([]time.Duration, 0, 1024)
		workers[i] = w
		wg.Go(func() { w.work(ctx, maxSamples/l.concurrency) })
	}

	sleep(ctx, l.warmup)
	before := usage()
	start := time.Now()
	phase.Store(measuring)
	sleep(ctx, l.duration)
	select { // a window too short for a busy machine stays open for one answer
	case <-answers:
	case <-ctx.Done():
	case <-time.After(callTimeout):
	}
	phase.Store(done)
	r := round{elapsed: time.Since(start)}
	after := usage()
	wg.Wait()

	r.cpu = after.cpu - before.cpu
	r.objects = after.objects - before.objects
	r.bytes = after.bytes - before.bytes
	var samples []time.Duration
	for _, w := range workers {
		r.requests += w.requests
		samples = append(samples, w.samples...)
	}
	slices.Sort(samples)
	r.p50, r.p99 = quantile(samples, 0.50), quantile(samples, 0.99)
	r.errors, r.first = failed.count, failed.first
	if r.errors == 0 && ctx.Err() != nil {
		return r, ctx.Err()
	}
	if r.errors == 0 && r.requests == 0 {
		return r, fmt.Errorf("no answer within %v", r.elapsed)
	}
	return r, nil
}

// sleep waits, or less if the context ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// prepare makes the bytes of a request, the body last. Only loopback is
// loaded: this is no tool to aim at others.
func prepare(t Target, size int) (request []byte, addr string, err error) {
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, "", fmt.Errorf("target address: %w", err)
	}
	ap, err := netip.ParseAddrPort(u.Host)
	if u.Scheme != "http" || err != nil || !ap.Addr().IsLoopback() {
		return nil, "", fmt.Errorf("target %q is not plain HTTP at a loopback address and port", u.Redacted())
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\n", u.RequestURI(), u.Host)
	header := t.Header.Clone()
	if header == nil {
		header = map[string][]string{}
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(size))
	if err := header.Write(&b); err != nil {
		return nil, "", fmt.Errorf("target header: %w", err)
	}
	b.WriteString("\r\n")
	b.Write(body(size))
	return b.Bytes(), ap.String(), nil
}

// body is JSON of the size: a number in a fixed place, then letters that a
// seed gives.
func body(size int) []byte {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	b := []byte(`{"number":"` + string(make([]byte, numberLen)) + `","data":"`)
	dice := rand.New(rand.NewPCG(1, 2))
	for len(b) < size-2 {
		b = append(b, letters[dice.IntN(len(letters))])
	}
	return append(b, `"}`...)
}

const (
	numberAt  = len(`{"number":"`)
	numberLen = 20
)

// failures gathers what went wrong, and ends the round when it is much.
type failures struct {
	mu    sync.Mutex
	count int
	first error
	stop  context.CancelFunc
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.first == nil {
		f.first = err
	}
	if f.count >= maxErrors {
		f.stop()
	}
}

// worker is one connection. No other goroutine touches its counts before the
// round has ended.
type worker struct {
	addr    string
	request []byte
	number  int
	size    int
	phase   *atomic.Int32
	failed  *failures
	answers chan<- struct{}

	conn     net.Conn
	in       *bufio.Reader
	answer   []byte
	sent     int
	requests int
	samples  []time.Duration
}

func (w *worker) work(ctx context.Context, most int) {
	defer w.hangUp()
	for w.phase.Load() != done && ctx.Err() == nil {
		start := time.Now()
		if err := w.call(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			w.failed.add(err)
			w.hangUp()
			continue
		}
		if w.phase.Load() == measuring {
			w.requests++
			select {
			case w.answers <- struct{}{}:
			default:
			}
			if len(w.samples) < most {
				w.samples = append(w.samples, time.Since(start))
			}
		}
	}
}

// call sends one request and holds the answer against it: an answer that
// belongs to another request is an error too.
func (w *worker) call(ctx context.Context) error {
	if w.conn == nil {
		if err := w.connect(ctx); err != nil {
			return err
		}
	}
	if err := w.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return fmt.Errorf("set the deadline: %w", err)
	}
	w.sent++
	body := w.request[len(w.request)-w.size:]
	number(body[numberAt:numberAt+numberLen], w.number, w.sent)
	if _, err := w.conn.Write(w.request); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	status, keep, err := w.receive()
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if !keep {
		w.hangUp()
	}
	if status != 200 {
		return fmt.Errorf("status %d: %.300q", status, w.answer)
	}
	if !bytes.Equal(w.answer, body) {
		return fmt.Errorf("the answer is not what was sent: %.120q", w.answer)
	}
	return nil
}

func (w *worker) connect(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: callTimeout}).DialContext(ctx, "tcp", w.addr)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() }) // wakes a call that waits
	w.conn, w.in = conn, bufio.NewReaderSize(conn, maxHeader)
	return nil
}

func (w *worker) hangUp() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

// number writes the connection and the count as decimal digits over the whole
// of b.
func number(b []byte, conn, count int) {
	n := conn*1e12 + count
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// receive reads one answer into w.answer, and tells whether the connection
// stays open.
func (w *worker) receive() (status int, keep bool, err error) {
	line, err := w.line()
	if err != nil {
		return 0, false, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, false, fmt.Errorf("not an HTTP/1.1 answer: %.60q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, fmt.Errorf("not a status: %.60q", line)
	}
	length, chunked, keep := -1, false, true
	for read := 0; ; {
		if line, err = w.line(); err != nil {
			return 0, false, err
		}
		if read += len(line); read > maxHeader {
			return 0, false, errors.New("the answer's header does not end")
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, false, fmt.Errorf("not a length: %.60q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			keep = !bytes.EqualFold(value, []byte("close"))
		}
	}
	switch {
	case chunked:
		w.answer, err = io.ReadAll(io.LimitReader(httputil.NewChunkedReader(w.in), maxSize+1))
		if err == nil {
			_, err = w.line() // the trailer's end
		}
	case length < 0 || length > maxSize:
		err = fmt.Errorf("an answer of unknown or excessive length %d", length)
	default:
		w.answer = slices.Grow(w.answer[:0], length)[:length]
		_, err = io.ReadFull(w.in, w.answer)
	}
	return status, keep, err
}

// line reads up to the line's end and cuts that off.
func (w *worker) line() ([]byte, error) {
	b, err := w.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(b, "\r\n"), nil
}

// quantile of sorted samples, 0 of none.
func quantile[T any](sorted []T, q float64) (none T) {
	if len(sorted) == 0 {
		return none
	}
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
