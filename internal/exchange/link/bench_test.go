package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// drive runs b.N calls, so many at a time, and reports the processor time that
// one takes at both ends together: the number to compare on a busy machine.
func drive(b *testing.B, callers int, call func() error) {
	b.ReportAllocs()
	calls := func(n int) {
		var left atomic.Int64
		left.Store(int64(n))
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if err := call(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	calls(4 * callers) // all connections are made
	before := cpu()
	b.ResetTimer()
	calls(b.N)
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkExchange is a round trip of an envelope of 1 KiB each way over
// mutual TLS 1.3, by the link and by stock net/http with HTTP/1.1.
func BenchmarkExchange(b *testing.B) {
	envelope := noise(1<<10, 1)
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("link/%d", callers), func(b *testing.B) {
			p := newPair(b, Config{}, Config{}, hands{exchange: func(_ context.Context, _ Peer, m *Message) (*Message, error) {
				return NewMessage(m.Envelope, nil), nil
			}})
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			defer cancel()
			drive(b, callers, func() error {
				m, err := p.bh.Exchange(ctx, p.to, NewMessage(envelope, nil))
				if err == nil && len(m.Envelope) != len(envelope) {
					err = io.ErrShortWrite
				}
				return err
			})
		})
		b.Run(fmt.Sprintf("http/%d", callers), func(b *testing.B) {
			post := newHTTP(b, callers)
			drive(b, callers, func() error {
				n, err := post(bytes.NewReader(envelope))
				if err == nil && n != int64(len(envelope)) {
					err = io.ErrShortWrite
				}
				return err
			})
		})
	}
}

// BenchmarkLarge moves a body one way and throws it away.
func BenchmarkLarge(b *testing.B) {
	const size = 16 << 20
	body := noise(size, 1)
	b.Run("link", func(b *testing.B) {
		p := newPair(b, Config{}, Config{}, hands{exchange: func(_ context.Context, _ Peer, m *Message) (*Message, error) {
			n, err := io.Copy(io.Discard, m.Body)
			return NewMessage(fmt.Append(nil, n), nil), err
		}})
		b.SetBytes(size)
		drive(b, 1, func() error {
			_, err := p.bh.Exchange(context.Background(), p.to, NewMessage(nil, body))
			return err
		})
	})
	b.Run("http", func(b *testing.B) {
		post := newHTTP(b, 1)
		b.SetBytes(size)
		drive(b, 1, func() error {
			_, err := post(bytes.NewReader(body))
			return err
		})
	})
}

// newHTTP gives a POST to a server that echoes small bodies and counts large ones.
func newHTTP(b *testing.B, callers int) func(*bytes.Reader) (int64, error) {
	ca := newAuthority(b)
	l := New(Config{}, ca.deps(ca.issue("SA", "sa-1")), hands{})
	serverTLS := l.config("", &identity{})
	client := New(Config{}, ca.deps(ca.issue("BH", "bh-1")), hands{})
	clientTLS := client.config("SA", &identity{})
	for _, c := range []*tls.Config{serverTLS, clientTLS} {
		c.NextProtos = []string{"http/1.1"}
		verify := c.VerifyConnection
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			cs.NegotiatedProtocol = protocol
			return verify(cs)
		}
	}
	ln := listen(b)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > maxInline {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		w.Write(body)
	})}
	go srv.Serve(tls.NewListener(ln, serverTLS))
	tr := &http.Transport{TLSClientConfig: clientTLS, MaxIdleConnsPerHost: callers, MaxConnsPerHost: callers}
	b.Cleanup(func() {
		tr.CloseIdleConnections()
		srv.Close()
	})
	url := "https://" + ln.Addr().String() + "/"
	return func(body *bytes.Reader) (int64, error) {
		req, err := http.NewRequest(http.MethodPost, url, body)
		if err != nil {
			return 0, err
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return io.Copy(io.Discard, resp.Body)
	}
}

// BenchmarkBeside measures small calls while three large bodies fill a slow
// path (10 MB/s) on the same connection: p50 and p99 of a round trip.
func BenchmarkBeside(b *testing.B) {
	p := newPair(b, Config{}, Config{}, hands{exchange: func(_ context.Context, _ Peer, m *Message) (*Message, error) {
		if m.Body != nil {
			if _, err := io.Copy(io.Discard, m.Body); err != nil {
				return nil, err
			}
		}
		return NewMessage(nil, nil), nil
	}})
	to := Target{State: "SA", Addrs: []string{throttle(b, p.to.Addrs[0], 10<<20)}}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = p.bh.Exchange(ctx, to, NewMessage(nil, noise(16<<20, 1)))
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		start := time.Now()
		if _, err := p.bh.Exchange(ctx, to, NewMessage(nil, nil)); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	cancel()
	wg.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// throttle passes connections on, so many bytes a second upwards.
func throttle(b *testing.B, to string, rate int) string {
	ln := listen(b)
	b.Cleanup(func() { ln.Close() })
	pass := func(dst, src net.Conn, rate int) {
		defer dst.Close()
		defer src.Close()
		buf := make([]byte, 8<<10)
		for next := time.Now(); ; {
			n, err := src.Read(buf)
			if err != nil {
				return
			}
			if rate > 0 {
				next = next.Add(time.Duration(n) * time.Second / time.Duration(rate))
				time.Sleep(time.Until(next))
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			// Little waits in the path itself: what is measured is the sender.
			_ = down.(*net.TCPConn).SetReadBuffer(32 << 10)
			go pass(up, down, rate)
			go pass(down, up, 0)
		}
	}()
	return ln.Addr().String()
}
