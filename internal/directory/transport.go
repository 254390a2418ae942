package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"github.com/go-json-experiment/json"
)

// The kinds of question that nodes ask each other over their links.
const (
	KindFetch  = "directory.fetch"  // body: a file's name; answer: the file
	KindCosign = "directory.cosign" // body: a proposal; answer: the signed snapshot and time-stamp
	KindOffer  = "directory.offer"  // body: a time-stamp; no answer
)

// Answer answers a node's question. from is the way back to the node that
// asks, for what it offers. Another kind than the three above is NotFound.
func (d *Directory) Answer(ctx context.Context, kind string, body []byte, from Fetcher) ([]byte, error) {
	switch kind {
	case KindFetch:
		return d.Serve(ctx, string(body))
	case KindCosign:
		return d.Cosign(ctx, body)
	case KindOffer:
		return nil, d.Offer(ctx, body, from)
	}
	return nil, fault.New(fault.NotFound, "the directory answers no question of kind %q", clip(kind))
}

// Ask puts a question to another node, over a link.
type Ask func(ctx context.Context, kind string, body []byte) ([]byte, error)

// LinkPeer is the node of a state as a peer.
func LinkPeer(state union.State, ask Ask) Peer {
	return Peer{
		State:   state,
		Fetcher: ask,
		Cosign: func(ctx context.Context, proposal []byte) ([]byte, error) {
			return ask(ctx, KindCosign, proposal)
		},
		Offer: func(ctx context.Context, stamp []byte, _ func() ([]byte, error)) error {
			_, err := ask(ctx, KindOffer, stamp)
			return err
		},
	}
}

// Fetch asks for a file.
func (a Ask) Fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	b, err := a(ctx, KindFetch, []byte(name))
	if fault.CodeOf(err) == fault.NotFound {
		return nil, fmt.Errorf("%s: %w", clip(name), fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return b, within(name, len(b), limit)
}

// What the secretariat takes at a time: its place is on the open internet, and
// whoever keeps it busy must not fill its memory.
const (
	maxPosts     = 4
	postPatience = 30 * time.Second
)

// Handler serves a directory over HTTP, as any TUF client expects it: GET of
// metadata and, under /targets/, of target files. POST /cosign takes a
// proposal and POST /offer a whole release, from a node that has news for a
// secretariat which has no way to the nodes.
func (d *Directory) Handler() http.Handler {
	busy := make(chan struct{}, maxPosts)
	post := func(do func(ctx context.Context, body []byte) ([]byte, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			select {
			case busy <- struct{}{}:
				defer func() { <-busy }()
			default:
				w.Header().Set("Retry-After", "1")
				d.problem(w, fault.New(fault.Overloaded, "the directory is busy"))
				return
			}
			// Not every writer can; the server's own limits hold besides.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(postPatience))
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBundle))
			if err != nil {
				d.problem(w, fault.Wrap(fault.TooLarge, err, "a body of at most %d bytes is read", maxBundle))
				return
			}
			reply, err := do(r.Context(), body)
			if err != nil {
				d.problem(w, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(reply)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cosign", post(d.Cosign))
	mux.HandleFunc("POST /offer", post(func(ctx context.Context, body []byte) ([]byte, error) {
		return nil, d.Take(ctx, body)
	}))
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		b, err := d.Serve(r.Context(), name)
		if err != nil {
			d.problem(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if strings.HasSuffix(name, ".json") {
			w.Header().Set("Content-Type", "application/json")
		}
		w.Header().Set("Cache-Control", "no-cache")
		if name != timestampName {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		_, _ = w.Write(b)
	})
	return mux
}

// problem tells who asks of a fault; one of the directory's own stands in the
// log too, under the support number that he is given.
func (d *Directory) problem(w http.ResponseWriter, err error) {
	f := fault.From(err)
	if f.Code == fault.Internal {
		d.deps.Log.Error("an error of the directory's own", "support", f.ID, "error", f)
	}
	w.Header().Set("Content-Type", fault.ProblemType)
	w.WriteHeader(f.Entry().Status)
	_, _ = w.Write(f.Problem())
}

// Take looks at a whole release that somebody brought.
func (d *Directory) Take(ctx context.Context, raw []byte) error {
	b, err := decodeBundle(raw)
	if err != nil {
		return fault.Wrap(fault.DirectoryInvalid, err, "offered directory")
	}
	return d.Offer(ctx, b[timestampName], b)
}

// HTTPPeer is the secretariat, or any place that serves a directory, under a
// base address. signs says that it can be asked to cosign.
func HTTPPeer(base string, client *http.Client, signs bool) (Peer, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return Peer{}, fault.New(fault.ConfigInvalid, "directory address %q is no http address", clip(base))
	}
	h := httpPeer{base: u, client: client}
	p := Peer{Fetcher: h}
	if signs {
		p.Cosign = func(ctx context.Context, proposal []byte) ([]byte, error) {
			return h.do(ctx, http.MethodPost, "cosign", proposal, maxBundle)
		}
		p.Offer = func(ctx context.Context, stamp []byte, whole func() ([]byte, error)) error {
			// Everybody tells it of a change; most find that it knows.
			if has, err := h.Fetch(ctx, timestampName, maxTimestamp); err == nil && bytes.Equal(has, stamp) {
				return nil
			}
			b, err := whole()
			if err == nil {
				_, err = h.do(ctx, http.MethodPost, "offer", b, maxBundle)
			}
			return err
		}
	}
	return p, nil
}

type httpPeer struct {
	base   *url.URL
	client *http.Client
}

// Fetch gets a file.
func (h httpPeer) Fetch(ctx context.Context, name string, limit int64) ([]byte, error) {
	b, err := h.do(ctx, http.MethodGet, name, nil, limit)
	if fault.CodeOf(err) == fault.NotFound {
		return nil, fmt.Errorf("%s: %w", clip(name), fs.ErrNotExist)
	}
	return b, err
}

func (h httpPeer) do(ctx context.Context, method, name string, body []byte, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.base.JoinPath(name).String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", clip(name), err)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.PeerUnreachable, err, "the directory at %s", h.base.Host)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fault.Wrap(fault.PeerUnreachable, err, "the directory at %s", h.base.Host)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, refusalOf(resp.StatusCode, b, h.base.Host)
	}
	return b, within(name, len(b), limit)
}

// refusalOf keeps the code of a fault that came over HTTP, if it is one of the
// catalogue's.
func refusalOf(status int, body []byte, host string) error {
	var p struct {
		Code   fault.Code `json:"code"`
		Detail string     `json:"detail"`
	}
	if json.Unmarshal(body, &p) == nil && fault.Lookup(p.Code).Code == p.Code {
		return fault.New(p.Code, "%s: %s", host, p.Detail)
	}
	if status == http.StatusNotFound {
		return fault.New(fault.NotFound, "%s has no such file", host)
	}
	return fault.New(fault.PeerUnreachable, "%s answered with status %d", host, status)
}
