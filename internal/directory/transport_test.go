package directory_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// TestSecretariatHTTP: a state whose only way is the secretariat's address
// follows, publishes and brings the secretariat up to date.
func TestSecretariatHTTP(t *testing.T) {
	u := directorytest.New(t, four, nil)
	srv := httptest.NewServer(u.Dirs[""].Handler())
	defer srv.Close()
	peer, err := directory.HTTPPeer(srv.URL, srv.Client(), true)
	must(t, err)
	d, err := directory.Open(t.Context(), directory.Config{Root: u.Root, State: "BH", Demonstration: true, Dir: t.TempDir()},
		directory.Deps{Now: u.Now, Keys: u.Keys["BH"], Peers: func() []directory.Peer { return []directory.Peer{peer} }})
	must(t, err)
	must(t, d.Refresh(t.Context()))
	must(t, d.Publish(t.Context(), addSubsystem("http")))
	if !has(u.Dirs[""], "BH", "http") {
		t.Error("the secretariat does not have what it signed")
	}
	u.Away(true, "")
	must(t, u.Dirs["SA"].Refresh(t.Context()))
	must(t, u.Dirs["SA"].Publish(t.Context(), addSubsystem("meanwhile")))
	must(t, d.Offer(t.Context(), u.Dirs["SA"].Files()["timestamp.json"], u.Dirs["SA"]))
	must(t, d.Refresh(t.Context()))
	if !has(u.Dirs[""], "SA", "meanwhile") {
		t.Error("the secretariat was not brought up to date")
	}

	get := func(method, path, body string) (int, string, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		must(t, err)
		resp, err := srv.Client().Do(req)
		must(t, err)
		b, err := io.ReadAll(resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		return resp.StatusCode, string(b), resp.Header
	}
	if code, _, h := get("GET", "/timestamp.json", ""); code != 200 || h.Get("Cache-Control") != "no-cache" || h.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v", code, h)
	}
	if code, _, h := get("GET", "/1.root.json", ""); code != 200 || !strings.Contains(h.Get("Cache-Control"), "immutable") {
		t.Errorf("%d %v", code, h)
	}
	for _, path := range []string{"/", "/local.json", "/..%2flocal.json", "/held/BH.json", "/targets/", "/9.root.json"} {
		if code, body, _ := get("GET", path, ""); code != 404 || !strings.Contains(body, string(fault.NotFound)) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	for _, path := range []string{"/cosign", "/offer"} {
		if code, body, _ := get("POST", path, "x"); code < 400 || !strings.Contains(body, string(fault.DirectoryInvalid)) {
			t.Errorf("%s: %d %s", path, code, body)
		}
		if code, body, _ := get("POST", path, strings.Repeat(" ", directory.MaxBundle+1)); code != 400 || !strings.Contains(body, string(fault.TooLarge)) {
			t.Errorf("%s: %d %s", path, code, body)
		}
		if code, _, _ := get("PUT", path, ""); code != 405 {
			t.Errorf("PUT %s: %d", path, code)
		}
	}
	if _, err := peer.Fetcher.Fetch(t.Context(), "9.root.json", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := peer.Fetcher.Fetch(t.Context(), "1.root.json", 100); err == nil {
		t.Error("more than was asked for")
	}
	for _, bad := range []string{"", "ftp://x", "http://", "::"} {
		_, err := directory.HTTPPeer(bad, srv.Client(), true)
		wantCode(t, err, fault.ConfigInvalid, "address")
	}
}

// TestBusySecretariat: whoever keeps it busy is told so, and takes no memory.
func TestBusySecretariat(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	srv := httptest.NewServer(u.Dirs[""].Handler())
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var slow []*io.PipeWriter
	for range 4 {
		r, w := io.Pipe()
		slow = append(slow, w)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/cosign", r)
		must(t, err)
		go func() {
			resp, err := srv.Client().Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
		}()
		_, err = w.Write([]byte("{")) // it is being read
		must(t, err)
	}
	peer, err := directory.HTTPPeer(srv.URL, srv.Client(), true)
	must(t, err)
	for {
		_, err = peer.Cosign(t.Context(), []byte("{}"))
		if fault.CodeOf(err) != fault.DirectoryInvalid {
			break // the four have all arrived
		}
	}
	wantCode(t, err, fault.Overloaded, "busy")
	if _, err := peer.Fetcher.Fetch(t.Context(), "timestamp.json", 1<<14); err != nil {
		t.Errorf("reading goes on: %v", err)
	}
	for _, w := range slow {
		must(t, w.Close())
	}
}

// TestHostileHTTP: what answers at the secretariat's address is not the
// secretariat.
func TestHostileHTTP(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<16)); err != nil {
					return
				}
			}
		},
		"a page":        func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "<html>") },
		"an error page": func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) },
		"made-up faults": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, `{"code":"root.is.mine"}`, http.StatusInternalServerError)
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := directorytest.New(t, four[:2], nil)
			srv := httptest.NewServer(h)
			defer srv.Close()
			peer, err := directory.HTTPPeer(srv.URL, srv.Client(), true)
			must(t, err)
			d, err := directory.Open(t.Context(), directory.Config{Root: u.Root, Demonstration: true}, directory.Deps{Now: u.Now, Peers: func() []directory.Peer { return []directory.Peer{peer} }})
			must(t, err)
			if err := d.Refresh(t.Context()); err == nil || d.View().Version() != 0 {
				t.Errorf("version %d, %v", d.View().Version(), err)
			}
			if _, err := peer.Cosign(t.Context(), nil); name != "a page" && err == nil {
				t.Error("signed")
			}
		})
	}
}

// TestStockClient: a TUF client that knows nothing of falaj follows the
// directory from the root that it is given.
func TestStockClient(t *testing.T) {
	u := directorytest.NewAt(t, time.Now(), four[:2], nil)
	must(t, u.Dirs["BH"].Publish(t.Context(), addSubsystem("x")))
	srv := httptest.NewServer(u.Dirs[""].Handler())
	defer srv.Close()
	cfg, err := config.New(srv.URL, u.Root)
	must(t, err)
	cfg.LocalMetadataDir, cfg.LocalTargetsDir = t.TempDir(), t.TempDir()
	cfg.RemoteTargetsURL = srv.URL + "/targets"
	cfg.PrefixTargetsWithHash = true
	c, err := updater.New(cfg)
	must(t, err)
	must(t, c.Refresh())
	for _, name := range []string{"union.json", "BH/state.json", "SA/crl.der"} {
		info, err := c.GetTargetInfo(name)
		must(t, err)
		_, b, err := c.DownloadTarget(info, "", "")
		must(t, err)
		if want, ok := u.Dirs["BH"].View().File(union.State(name[:2]), name[3:]); ok && !bytes.Equal(b, want) {
			t.Errorf("%s differs", name)
		}
	}
	if _, err := c.GetTargetInfo("BH/nothing.json"); err == nil {
		t.Error("found what is not there")
	}
}

// TestSupportNumberHTTP: an error of the directory's own stands in the log
// under the number that is told, and nothing of it is told.
func TestSupportNumberHTTP(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	dir := t.TempDir()
	var log bytes.Buffer
	d, err := directory.Open(t.Context(), directory.Config{Root: u.Root, Demonstration: true, Dir: dir},
		directory.Deps{Now: u.Now, Log: slog.New(slog.NewTextHandler(&log, nil)), Peers: func() []directory.Peer { return u.Peers("") }})
	must(t, err)
	must(t, d.Refresh(t.Context()))
	var broken string
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e.Name() == "1.targets.json" {
			broken = path
		}
		return err
	}))
	must(t, os.Remove(broken))
	must(t, os.Mkdir(broken, 0o700)) // it can be opened and not be read
	w := httptest.NewRecorder()
	d.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/1.targets.json", nil))
	var told struct{ Instance string }
	must(t, json.Unmarshal(w.Body.Bytes(), &told))
	if id := strings.TrimPrefix(told.Instance, "urn:uuid:"); w.Code != 500 || len(id) != 36 || !strings.Contains(log.String(), id) || strings.Contains(w.Body.String(), dir) {
		t.Errorf("%d told %s, logged %s", w.Code, w.Body, log.String())
	}
}
