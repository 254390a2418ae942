package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

const (
	stampPath = "/tsa"
	// Strangers together get so many time-stamps a second, each of which takes a
	// signature; the other states' nodes ask over the link.
	publicStamps = 20
	publicBurst  = 100
)

// openStamps opens the time-stamp authority of this state, the watch over its
// clock, and the stamping of its own log by others.
func (n *Node) openStamps() error {
	ask := func(ctx context.Context, state union.State, kind string, body []byte) ([]byte, error) {
		return n.asker(state)(ctx, kind, body)
	}
	n.clock = witness.NewClock(witness.ClockConfig{Accuracy: n.cfg.Stamp.Accuracy}, witness.ClockDeps{
		State: n.cfg.State, Union: n.parties, Ask: ask, Kernel: kernelClock, Now: n.now, Log: n.log,
	})
	n.authority = witness.NewAuthority(witness.AuthorityDeps{Signer: n.identity.Stamp, Clock: n.clock, Now: n.now, Log: n.log})
	n.stampDoor = rate.NewLimiter(publicStamps, publicBurst)
	var outside []witness.Stamper
	for _, a := range n.cfg.Stamp.Authorities {
		x, err := n.outsider(a)
		if err != nil {
			return err
		}
		outside = append(outside, x)
	}
	pace := witness.StampConfig{Renew: n.cfg.Stamp.Renew}
	if n.cfg.Demonstration {
		pace.Every = 5 * time.Second // who tries it out waits for it
	}
	n.stamps = witness.NewStamps(pace, witness.StampDeps{
		DB: n.db, Source: n.journal, Log: n.publisher, Now: n.now, Logger: n.log,
		Stampers: func() []witness.Stamper { return append(n.stampers(), outside...) },
		Revoked: func(signer []byte) bool {
			if len(signer) != sha256.Size {
				return false // by another digest: none of the directory's
			}
			c, ok := n.directory.View().Certificate([32]byte(signer))
			return ok && c.Revoked != nil
		},
		Written: func(ctx context.Context, index int64) (time.Time, error) {
			r, err := n.journal.Get(ctx, index)
			return r.At, err
		},
	})
	return nil
}

// stampers are the authorities of the other states' nodes. This state's own is
// none: its word about itself counts for nothing.
func (n *Node) stampers() (out []witness.Stamper) {
	for _, s := range n.directory.View().States() {
		if s.Code == n.cfg.State || len(s.Nodes) == 0 || len(s.Stamps) == 0 {
			continue
		}
		out = append(out, witness.Stamper{
			Name: string(s.Code), State: s.Code,
			Ask: func(ctx context.Context, request []byte) ([]byte, error) {
				return n.asker(s.Code)(ctx, witness.KindStamp, request)
			},
			Judge: func(t *stamp.Token) (int64, error) {
				v := n.directory.View()
				_, err := v.Stamped(t, s.Code)
				return v.Version(), err
			},
		})
	}
	return out
}

// outsider is an authority outside of the union, which the configuration names.
func (n *Node) outsider(a config.Authority) (witness.Stamper, error) {
	raw, err := os.ReadFile(a.Anchor)
	if err != nil {
		return witness.Stamper{}, fault.Wrap(fault.ConfigInvalid, err, "stamp.authorities: %s cannot be read", a.Anchor)
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "CERTIFICATE" {
		return witness.Stamper{}, fault.New(fault.ConfigInvalid, "stamp.authorities: %s holds no PEM certificate", a.Anchor)
	}
	anchor, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return witness.Stamper{}, fault.Wrap(fault.ConfigInvalid, err, "stamp.authorities: %s: %v", a.Anchor, err)
	}
	client := &http.Client{
		Transport:     &http.Transport{DialContext: n.net.Dial, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}, // it is asked now and then
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return witness.Stamper{
		Name: a.Address,
		Ask: func(ctx context.Context, request []byte) ([]byte, error) {
			return askOutside(ctx, client, a.Address, request)
		},
		Judge: func(t *stamp.Token) (int64, error) { return 0, n.judgeOutside(t, anchor) },
	}, nil
}

// askOutside asks by HTTP (RFC 3161 §3.4).
func askOutside(ctx context.Context, client *http.Client, address string, request []byte) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(request))
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", address, err)
	}
	q.Header.Set("Content-Type", stamp.QueryMIME)
	r, err := client.Do(q)
	if err != nil {
		return nil, fault.Wrap(fault.PeerUnreachable, err, "%v", err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, fault.New(fault.PeerRefused, "it answered %s", r.Status)
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, stamp.MaxResponse+1))
	if err != nil {
		return nil, fault.Wrap(fault.PeerUnreachable, err, "%v", err)
	}
	return b, nil
}

// judgeOutside holds a token against its authority's anchor, through the
// certificates that it carries.
func (n *Node) judgeOutside(t *stamp.Token, anchor *x509.Certificate) error {
	c, err := t.Chain(anchor)
	if err != nil {
		return err
	}
	if p, err := n.directory.View().Part(n.cfg.State); err == nil && slices.ContainsFunc(p.Authorities, func(a directory.Issuer) bool {
		return c.CheckSignatureFrom(a.Certificate.Certificate) == nil
	}) {
		return errors.New("its authority is this state's own: a party's word about itself counts for nothing")
	}
	return nil
}

// serveStamp is the time-stamp authority for everybody (RFC 3161 §3.4).
func (n *Node) serveStamp(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") != stamp.QueryMIME {
		n.plain(w, fault.New(fault.BadRequest, "a time-stamp is asked for with %s", stamp.QueryMIME))
		return
	}
	if !n.stampDoor.AllowN(n.now(), 1) {
		w.Header().Set("Retry-After", "1")
		n.plain(w, fault.New(fault.Overloaded, "more time-stamps are asked for than are given"))
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(submitTime))
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, stamp.MaxRequest))
	if err != nil {
		n.plain(w, fault.Wrap(fault.TooLarge, err, "a request of more than %d bytes, or one that did not end", stamp.MaxRequest))
		return
	}
	h := w.Header()
	h.Set("Content-Type", stamp.ReplyMIME)
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(n.authority.Answer(r.Context(), b))
}

func stampChecks(n *Node) []operation.Check {
	return []operation.Check{
		{Name: "stamps", Hint: true, Text: union.Text{En: "The records are time-stamped by another's authority within a minute.", Ar: "تنال القيود طابعاً زمنياً من سلطة أخرى خلال دقيقة."},
			Run: func(context.Context) error { return n.stamps.LateErr() }},
		{Name: "renewals", Hint: true, Text: union.Text{En: "Time-stamps are renewed before the certificates end on which they rest.", Ar: "تُجدَّد الطوابع الزمنية قبل انتهاء الشهادات التي تستند إليها."},
			Run: func(context.Context) error { return n.stamps.AgingErr() }},
		{Name: "clock", Hint: true, Text: union.Text{En: "The clock is as right as this node's time-stamps declare.", Ar: "الساعة مضبوطة بالدقة التي تعلنها الطوابع الزمنية لهذه العقدة."},
			Run: func(context.Context) error { return n.clock.Err() }},
	}
}
