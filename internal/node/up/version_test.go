package up

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange/link"
	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/verify"
)

// TestVersionNamed: a node that has the keys of SA's sends what it likes. What
// it sealed by the directory of just before a change is taken, and proven from
// the root alone; what names a version that never was is not carried out.
func TestVersionNamed(t *testing.T) {
	p := play(t, t.TempDir(), Deps{}, "BH", "SA")
	var calls atomic.Int64
	service := p.offer("BH", "counted", func(http.ResponseWriter, *http.Request) { calls.Add(1) }, "SA")
	keys, err := seal.OpenKeys(filepath.Join(p.union.folder("SA"), "keys"), seal.KeyConfig{Demonstration: true})
	must(t, err)
	dir := p.union.nodes[1].Directory()
	sa, _ := dir.View().State("SA")
	bh, _ := dir.View().State("BH")
	if sa.Code != "SA" || len(sa.Nodes) == 0 {
		t.Fatalf("%+v", sa)
	}
	hostile := link.New(link.Config{}, link.Deps{
		Certificate: func() (*tls.Certificate, error) {
			key, err := keys.Signer(directory.TLSKey)
			return &tls.Certificate{Certificate: [][]byte{sa.Nodes[0].Certificates[0].Raw}, PrivateKey: key}, err
		},
		Authenticate: func(cs tls.ConnectionState) (link.Peer, error) {
			c, ok := dir.View().Certificate(sha256.Sum256(cs.PeerCertificates[0].Raw))
			if !ok {
				return link.Peer{}, fault.New(fault.CertUnknown, "")
			}
			return link.Peer{State: c.State, Node: c.Node, Cert: c.SHA256}, nil
		},
	}, nil)
	defer hostile.Close()
	client := portal("SA")
	key, err := keys.Signer(directory.SealKey(client.MemberID))
	must(t, err)
	member, _ := dir.View().Member(client.MemberID)
	served, err := union.ParseService(service)
	must(t, err)
	send := func(id string, version int64) (*message.Answer, error) {
		now := time.Now()
		head, err := (&message.Request{
			Type: message.TypeRequest, Union: dir.View().Union(), Directory: version, ID: id, RequestID: id + "-1", Client: client, Service: served,
			Method: "GET", Path: "/", Purpose: "trial", NotBefore: now.UnixMilli(), NotAfter: now.Add(time.Minute).UnixMilli(),
		}).Encode()
		must(t, err)
		s, err := seal.Sign(key, member.Seals[0].Certificate, seal.Manifest(seal.Request, sha256.Sum256(head), nil), now)
		must(t, err)
		raw, err := s.AppendBinary(nil)
		must(t, err)
		reply, err := hostile.Exchange(t.Context(), link.Target{State: "BH", Addrs: []string{bh.Nodes[0].Address}}, &link.Message{Envelope: message.Envelope(head, raw)})
		if err == nil {
			_, err = reply.Released(t.Context())
		}
		if err != nil {
			return nil, err
		}
		head, _, err = message.Open(reply.Envelope)
		must(t, err)
		return message.ParseAnswer(head)
	}
	before := dir.View().Version()
	p.offer("BH", "another", func(http.ResponseWriter, *http.Request) {})
	if now := dir.View().Version(); now <= before {
		t.Fatalf("version %d after %d", now, before)
	}
	if a, err := send("before", before); err != nil || a.Fault != "" || calls.Load() != 1 || a.Directory <= before {
		t.Fatalf("%+v, %v, %d calls", a, err, calls.Load())
	}
	for id, version := range map[string]int64{"to-come": dir.View().Version() + 1, "never": 1 << 52} {
		if a, err := send(id, version); fault.CodeOf(err) != fault.DirectoryUnknown || !errors.Is(err, link.ErrRefused) || calls.Load() != 1 {
			t.Errorf("%s: %+v, %v, %d calls", id, a, err, calls.Load())
		}
	}
	var file bytes.Buffer
	must(t, p.admin("BH").Save(t.Context(), "container", url.Values{"id": {"before"}}, &file, func(int64, int64) {}))
	root, err := os.ReadFile(filepath.Join(p.union.folder("SA"), "root.json"))
	must(t, err)
	v, err := verify.New(root)
	must(t, err)
	if r := v.Container(bytes.NewReader(file.Bytes()), int64(file.Len())); r.Verdict != verify.Holds {
		t.Errorf("%+v", r)
	}
}
