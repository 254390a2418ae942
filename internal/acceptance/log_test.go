package acceptance_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"

	"github.com/falaj/falaj/internal/merkle"
)

// spoiler changes a byte of one answer on its way.
type spoiler struct {
	path string
	met  bool
}

func (s *spoiler) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Close = true
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || r.URL.Path != s.path {
		return resp, err
	}
	s.met = true
	b, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if len(b) > 0 {
		b[min(len(b)/2, 50)] ^= 1 // of a checkpoint, what the log signed: others' lines are not judged here
	}
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp, err
}

// TestTessera: an implementation that is not ours recomputes a node's whole
// log from what it serves, and sees each byte that is changed on the way.
func TestTessera(t *testing.T) {
	t.Parallel()
	u := startUp(t, filepath.Join(t.TempDir(), "union"), "--state=BH,SA", "--base-port=0")
	sa := u.node(t, "SA")
	path, _ := u.sample(t, "BH", "persons")
	service, purpose := register("BH", "persons")
	call := func(head ...string) *http.Response {
		req, err := http.NewRequest(http.MethodGet, sa.R1+"/r1/"+service+path, http.NoBody)
		check(t, err)
		req.Header = http.Header{"X-Road-Client": {sa.Client}, "Falaj-Purpose": {purpose}, "Falaj-Receipt": head}
		resp, err := http.DefaultClient.Do(req)
		check(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		check(t, errors.Join(err, resp.Body.Close()))
		return resp
	}
	for range 140 {
		if resp := call(); resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
	}
	if resp := call("wait"); resp.Header.Get("Falaj-Receipt") != "cosigned" {
		t.Fatalf("no receipt: %v", resp.Header)
	}
	var ours struct {
		Key     string
		Entries int64
	}
	into(t, falaj(t, "--admin", sa.Admin, "--json", "log", "audit", sa.Public+"/log"), &ours)
	if ours.Entries < 280 {
		t.Errorf("%d entries", ours.Entries)
	}
	key, err := note.NewVerifier(ours.Key)
	check(t, err)
	root, err := url.Parse(sa.Public + "/log/")
	check(t, err)
	leaves := func(bundle []byte) (out [][]byte, err error) {
		var b api.EntryBundle
		err = b.UnmarshalText(bundle)
		for _, e := range b.Entries {
			h := merkle.Leaf(e)
			out = append(out, h[:])
		}
		return out, err
	}
	audit := func(via *spoiler) error {
		from, err := client.NewHTTPFetcher(root, &http.Client{Transport: via, Timeout: time.Minute})
		check(t, err)
		return fsck.New(key.Name(), key, from, leaves, fsck.Opts{N: 2}).Check(t.Context())
	}
	check(t, audit(&spoiler{}))
	for _, path := range []string{"checkpoint", "tile/entries/000", "tile/0/000", "tile/1/000.p/1"} {
		via := &spoiler{path: "/log/" + path}
		if err := audit(via); err == nil || !via.met {
			t.Errorf("%s: %v", path, err)
		}
	}
}
