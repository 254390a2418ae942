package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// server is an HTTP/1.1 server on a loopback port of its own.
type server struct {
	URL    string
	http   *http.Server
	served chan struct{} // closed when no more connections come
}

func serve(h http.Handler, config *tls.Config) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	scheme := "http"
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	s := &http.Server{
		Handler: h, Protocols: &protocols,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // what fails, the client counts
	}
	if config != nil {
		scheme = "https"
		l = tls.NewListener(l, config)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // Close makes it return
	}()
	return &server{URL: scheme + "://" + l.Addr().String(), http: s, served: served}, nil
}

// Close ends the server with all its connections, one too that came at the
// very last moment.
func (s *server) Close() error {
	err := s.http.Close()
	<-s.served
	return errors.Join(err, s.http.Close())
}

// serveEcho starts the backend of all variants: it answers with what it got.
func serveEcho() (*server, error) {
	return serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, max(0, min(r.ContentLength, maxSize)))
		_, err := io.ReadFull(r.Body, body)
		if err == nil && r.ContentLength < 0 {
			body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxSize))
		}
		if err != nil {
			http.Error(w, "unreadable", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}), nil)
}

// stock starts two hops of httputil.ReverseProxy: plain HTTP into the first,
// mutual TLS 1.3 over HTTP/1.1 between the two, plain HTTP to the backend, as
// many idle connections as the load has.
func stock(pooled bool) func(context.Context, World) (Target, error) {
	return func(_ context.Context, w World) (Target, error) {
		first, second, err := hops(w, pooled)
		if err != nil {
			return Target{}, err
		}
		return Target{
			URL:   first.URL + "/echo",
			Close: func() error { return errors.Join(first.Close(), second.Close()) },
		}, nil
	}
}

func hops(w World, pooled bool) (first, second *server, err error) {
	certs, err := makeCertificates()
	if err != nil {
		return nil, nil, fmt.Errorf("make certificates: %w", err)
	}
	var pool httputil.BufferPool
	if pooled {
		pool = &bufferPool{}
	}
	second, err = hop(w.Backend, w.Concurrency, pool, nil, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certs.second},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: certs.authority,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("second hop: %w", err)
	}
	first, err = hop(second.URL, w.Concurrency, pool, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certs.first},
		RootCAs: certs.authority,
	}, nil)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("first hop: %w", err), second.Close())
	}
	return first, second, nil
}

func hop(to string, idle int, pool httputil.BufferPool, out, in *tls.Config) (*server, error) {
	target, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{
			TLSClientConfig: out, MaxIdleConnsPerHost: idle, DisableCompression: true,
		},
		BufferPool: pool,
		ErrorLog:   slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Otherwise the server closes the request's body when the answer begins,
		// and an answer that comes before the transport has looked for the body's
		// end is cut off: seen with bodies of 100 KB on a busy machine.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			panic(err) // HTTP/1.1 alone is served here
		}
		proxy.ServeHTTP(w, r)
	}), in)
}

// bufferPool lends the copy buffers that the stock proxy makes anew for each
// message.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 32<<10)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put(&b) }

// certificates are of one throw-away authority, P-256 as between nodes.
type certificates struct {
	authority     *x509.CertPool
	first, second tls.Certificate
}

func makeCertificates() (*certificates, error) {
	now := time.Now()
	sign := func(serial int64, isCA bool, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		cert := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprintf("bench %d", serial)},
			NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour),
			IsCA: isCA, BasicConstraintsValid: true,
		}
		if isCA {
			cert.KeyUsage = x509.KeyUsageCertSign
			parent, by = cert, key
		} else {
			cert.KeyUsage = x509.KeyUsageDigitalSignature
			cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
			cert.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), by)
		if err != nil {
			return nil, nil, err
		}
		cert, err = x509.ParseCertificate(der)
		return cert, key, err
	}
	ca, caKey, err := sign(1, true, nil, nil)
	if err != nil {
		return nil, err
	}
	c := &certificates{authority: x509.NewCertPool()}
	c.authority.AddCert(ca)
	for serial, into := range map[int64]*tls.Certificate{2: &c.first, 3: &c.second} {
		cert, key, err := sign(serial, false, ca, caKey)
		if err != nil {
			return nil, err
		}
		*into = tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	}
	return c, nil
}
