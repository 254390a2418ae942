package directory_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/union"
)

// noteKey is a verifier key of some name and kind.
func noteKey(t testing.TB, name string, kind merkle.Kind) merkle.Key {
	t.Helper()
	public := sha256.Sum256([]byte(name))
	k, err := merkle.NewKey(name, kind, ed25519.PublicKey(public[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestLog: a state's log and witness stand in the view of all; a part that
// names another state's is refused, and the last good one stays.
func TestLog(t *testing.T) {
	log := directory.Log{
		Key: noteKey(t, "bh.example/BH/log1", merkle.LogSignature), Witness: noteKey(t, "bh.example/BH/witness1", merkle.Cosignature),
		Address: "https://bh.example/log",
	}
	u := directorytest.New(t, []union.State{"BH", "SA"}, func(s union.State, e *directory.Edition) {
		if s != "BH" {
			return
		}
		if err := e.SetLog(log); err != nil {
			t.Fatal(err)
		}
	})
	for _, of := range []union.State{"BH", "SA", ""} {
		if s, ok := u.Dirs[of].View().State("BH"); !ok || s.Log != log {
			t.Errorf("%s sees %+v", of, s.Log)
		}
	}
	if s, _ := u.Dirs["BH"].View().State("SA"); s.Log != (directory.Log{}) {
		t.Errorf("a state without a log: %+v", s.Log)
	}
	stolen := log
	stolen.Key = noteKey(t, "sa.example/SA/log1", merkle.LogSignature)
	err := u.Dirs["BH"].Publish(t.Context(), func(e *directory.Edition) error { return e.SetLog(stolen) })
	if err == nil {
		t.Error("another state's log was published")
	}
	b := []byte(`{"key":"` + stolen.Key.String() + `"}`)
	if err := u.Dirs["BH"].Publish(t.Context(), func(e *directory.Edition) error { e.Files["log.json"] = b; return nil }); err == nil {
		t.Error("another state's log was published as a file")
	}
}

func TestDecodeLog(t *testing.T) {
	log, wit := noteKey(t, "a/BH/log1", merkle.LogSignature).String(), noteKey(t, "a/BH/w", merkle.Cosignature).String()
	for _, good := range []string{`{}`, `{"key":"` + log + `"}`, `{"key":"` + log + `","witness":"` + wit + `","address":"http://x.example:8080/log"}`} {
		if _, err := directory.DecodeLog("BH", []byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		``, `[]`, `{"key":"x"}`, `{"key":"` + wit + `"}`, `{"witness":"` + log + `"}`, `{"key":"` + log + `","key":"` + log + `"}`, `{"Key":"` + log + `"}`,
		`{"key":"` + noteKey(t, "a/SA/log1", merkle.LogSignature).String() + `"}`, `{"key":"` + noteKey(t, "a/BH/Log", merkle.LogSignature).String() + `"}`,
		`{"key":"` + noteKey(t, "BH/log1", merkle.LogSignature).String() + `"}`, `{"address":"ftp://x/"}`, `{"address":"http://a@x/"}`, `{"address":"http://x/?q"}`,
		`{"address":"http:///x"}`, `{"address":"http://` + strings.Repeat("x", 2000) + `/"}`, `{"more":1}`, `{} {}`, `{"address":"` + strings.Repeat(" ", 9000) + `"}`,
	} {
		if l, err := directory.DecodeLog("BH", []byte(bad)); err == nil {
			t.Errorf("%.100s: %+v", bad, l)
		}
	}
	for host, want := range map[string]string{"N1.example": "n1.example/BH/log1", "127.0.0.1": "127.0.0.1/BH/log1", "::1": "falaj/BH/log1", "": "falaj/BH/log1"} {
		if got := directory.LogName(host, "BH", "log1"); got != want {
			t.Errorf("%q: %s", host, got)
		}
	}
}

func TestRenewed(t *testing.T) {
	for was, want := range map[string]string{"a/BH/log1": "a/BH/log2", "a/BH/log9": "a/BH/log10", "a/BH/log": "a/BH/log1", "a/BH/7": "a/BH/8"} {
		l := directory.Log{Key: noteKey(t, was, merkle.LogSignature), Address: "http://x/"}
		n, err := l.Renewed()
		if err != nil || n.Key.Name() != want || n.Address != l.Address || n.Key.KeyHash() == l.Key.KeyHash() {
			t.Errorf("%s: %+v, %v", was, n, err)
		}
		e := directory.Edition{Part: &directory.Part{State: "BH"}}
		if err := e.SetLog(n); err != nil {
			t.Error(err)
		}
	}
	for _, was := range []directory.Log{{}, {Key: noteKey(t, "a/BH/99999999", merkle.LogSignature)}} {
		if n, err := was.Renewed(); err == nil {
			t.Errorf("%+v", n)
		}
	}
}

func FuzzDecodeLog(f *testing.F) {
	f.Add([]byte(`{"key":"` + noteKey(f, "a/BH/log1", merkle.LogSignature).String() + `","witness":"` + noteKey(f, "a/BH/w", merkle.Cosignature).String() + `","address":"http://x/"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := directory.DecodeLog("BH", b)
		if err != nil {
			return
		}
		e := directory.Edition{Part: &directory.Part{State: "BH"}}
		if err := e.SetLog(l); err != nil {
			t.Errorf("%s: what was read cannot be written: %v", b, err)
		}
	})
}
