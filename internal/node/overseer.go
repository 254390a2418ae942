package node

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// The secretariat has no link: its witness is asked, and asks, over HTTP.
const (
	overseerPath = "/witness/"
	// maxOverseen bounds what it says or is told, in bytes.
	maxOverseen = 1 << 20
	alarmBytes  = 64 << 10
)

// overseerClient has connections of its own, which end with whoever made it.
func overseerClient(n Network) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: n.Dial, Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute}}
}

// openWitness opens the secretariat's witness: of all states' logs. It reads
// them, and what the states' witnesses have seen, where everybody may.
func (s *Secretariat) openWitness(ctx context.Context, cfg SecretariatConfig, deps Deps, keys *seal.Keys) (err error) {
	path := filepath.Join(cfg.Data, "witness.db")
	if s.db, err = store.Open(ctx, store.Config{DSN: path}, witness.Migrations()); err != nil {
		return fault.Wrap(fault.StoreFailed, err, "opening %s: %v", path, err)
	}
	parties := func() witness.Union { return partiesOf(s.directory.View()) }
	s.client = overseerClient(deps.Network)
	client := s.client
	ask := func(ctx context.Context, state union.State, kind string, body []byte) ([]byte, error) {
		x, ok := s.directory.View().State(state)
		if !ok || x.Log.Address == "" {
			return nil, fault.New(fault.PeerUnreachable, "the directory names no address of %s's log where everybody may read it", state)
		}
		switch base := strings.TrimSuffix(x.Log.Address, "/") + "/"; kind {
		case witness.KindHeads:
			return overHTTP(ctx, client, http.MethodGet, base+"heads", nil)
		case witness.KindLog:
			return overHTTP(ctx, client, http.MethodGet, base+string(body), nil)
		}
		return nil, fault.New(fault.NotFound, "no question of kind %q is put over HTTP", kind)
	}
	s.witness = witness.New(witness.Deps{
		DB: s.db, State: witness.Secretariat, Union: parties, Ask: ask, Now: deps.Now, Log: deps.Log,
		Signer: func() (merkle.Signer, error) {
			named := s.directory.View().Witness()
			if named == (merkle.Key{}) {
				return merkle.Signer{}, fault.New(fault.NotFound, "the directory names no witness of the secretariat")
			}
			key, err := keys.Signer(directory.WitnessKey)
			if err != nil {
				return merkle.Signer{}, err
			}
			signer, err := merkle.NewSigner(named.Name(), merkle.Cosignature, key)
			if err == nil && signer.Key != named {
				err = fault.New(fault.ConfigInvalid, "the directory names another key for the secretariat's witness than the one in its folder")
			}
			return signer, err
		},
	})
	s.alarms = witness.NewPromises(witness.PromiseConfig{}, witness.PromiseDeps{DB: s.db, State: witness.Secretariat, Union: parties, Now: deps.Now, Log: deps.Log})
	return nil
}

// handler is the secretariat's door: the directory, and its witness.
func (s *Secretariat) handler(deps Deps) http.Handler {
	if s.witness == nil {
		return s.directory.Handler()
	}
	mux := http.NewServeMux()
	mux.Handle("/", s.directory.Handler())
	witnessDoor(mux, overseerPath, s.witness, deps.Log)
	mux.HandleFunc("GET "+overseerPath+"alarms", func(w http.ResponseWriter, r *http.Request) {
		list, err := s.alarms.Alarms(r.Context(), deps.Now().Add(-alarmed))
		if err != nil {
			plain(w, deps.Log, err)
			return
		}
		size := 0
		for i, a := range list { // the newest, as many as an answer may hold
			if size += 3 * len(a.Note); size > maxOverseen {
				list = list[:i]
				break
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(list)
	})
	mux.HandleFunc("POST "+overseerPath+"alarm", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(submitTime))
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, alarmBytes))
		if err != nil {
			plain(w, deps.Log, fault.Wrap(fault.TooLarge, err, "an alarm of more than %d bytes, or one that did not end", alarmBytes))
			return
		}
		// It is signed by the state that it is of, whoever brings it.
		a, err := witness.OpenAlarm(b, partiesOf(s.directory.View()))
		if err != nil {
			err = fault.Wrap(fault.BadRequest, err, "the alarm")
		} else {
			err = s.alarms.Hear(r.Context(), a.From, b)
		}
		if err != nil {
			plain(w, deps.Log, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// askSecretariat puts a question to the secretariat's witness, at whichever of
// the directory's sources answers for it.
func (n *Node) askSecretariat(ctx context.Context, kind string, body []byte) ([]byte, error) {
	client := n.overseer
	err := fault.New(fault.PeerUnreachable, "directory.sources names none that has a witness")
	for _, source := range n.cfg.Directory.Sources {
		base := strings.TrimSuffix(source, "/") + overseerPath
		var b []byte
		var e error
		switch kind {
		case witness.KindAdd:
			b, e = submitHTTP(ctx, client, base+"add-checkpoint", body)
		case witness.KindHeads:
			b, e = overHTTP(ctx, client, http.MethodGet, base+"heads", nil)
		case witness.KindAlarm:
			b, e = overHTTP(ctx, client, http.MethodPost, base+"alarm", body)
		default:
			return nil, fault.New(fault.NotFound, "the secretariat answers no question of kind %q", kind)
		}
		switch {
		case e != nil:
			err = fault.From(e)
		case bytes.HasPrefix(b, []byte("404\n")): // it is no witness, or knows no such log; another may be
			err = fault.New(fault.PeerRefused, "%s: %.200q", base, b)
		default:
			return b, nil
		}
	}
	return nil, err
}

// overHTTP asks and takes an answer of success alone.
func overHTTP(ctx context.Context, client *http.Client, method, url string, body []byte) ([]byte, error) {
	status, b, err := requestHTTP(ctx, client, method, url, body)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound:
		return nil, fault.New(fault.NotFound, "%s", url)
	case status/100 != 2:
		return nil, fault.New(fault.PeerRefused, "%s: %d", url, status)
	}
	return b, nil
}

// submitHTTP brings a submission and gives the answer as it crosses the link.
func submitHTTP(ctx context.Context, client *http.Client, url string, body []byte) ([]byte, error) {
	status, b, err := requestHTTP(ctx, client, http.MethodPost, url, body)
	if err != nil {
		return nil, err
	}
	return append(append(strconv.AppendInt(nil, int64(status), 10), '\n'), b...), nil
}

func requestHTTP(ctx context.Context, client *http.Client, method, url string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fault.Wrap(fault.ConfigInvalid, err, "%s", url)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fault.Wrap(fault.PeerUnreachable, err, "%s", url)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxOverseen+1))
	switch {
	case err != nil:
		return 0, nil, fault.Wrap(fault.PeerUnreachable, err, "%s", url)
	case len(b) > maxOverseen:
		return 0, nil, fault.New(fault.TooLarge, "%s", url)
	}
	return resp.StatusCode, b, nil
}
