package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/falaj/falaj/internal/fault"
)

// update rewrites the golden files: go test ./internal/node/config -update
var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden holds each human configuration against the effective one, or
// against what is said of its faults.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			var got []byte
			c, err := Load(Source{File: file})
			if strings.HasSuffix(name, ".bad") {
				if fault.CodeOf(err) != fault.ConfigInvalid {
					t.Fatalf("got %v, wanted %s", err, fault.ConfigInvalid)
				}
				got = []byte(fault.From(err).Detail + "\n")
			} else {
				if err != nil {
					t.Fatal(err)
				}
				if got, err = c.Marshal(); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(string(got), "secret@") || strings.Contains(string(got), "alsosecret") {
				t.Error("a secret is shown")
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("effective configuration differs from %s:\n%s", golden, got)
			}
		})
	}
}

// TestEffectiveIsStable: what is shown, read again, shows the same.
func TestEffectiveIsStable(t *testing.T) {
	c, err := Load(Source{File: "testdata/full.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir()) // relative paths are relative to the file
	if err := os.WriteFile("again.yaml", first, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Load(Source{File: "again.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := again.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("shown twice, differing:\n%s\n---\n%s", first, second)
	}
}

func TestOrderOfSources(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte("state: BH\nlog: {level: warn}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	look := func(k string) (string, bool) { v, ok := env[k]; return v, ok }
	level := func(set ...string) string {
		t.Helper()
		c, err := Load(Source{File: file, Env: look, Set: set})
		if err != nil {
			t.Fatal(err)
		}
		return c.Log.Level
	}
	if got := level(); got != "warn" {
		t.Errorf("file over default: %s", got)
	}
	env["FALAJ_LOG_LEVEL"] = "error"
	if got := level(); got != "error" {
		t.Errorf("environment over file: %s", got)
	}
	if got := level("log.level=debug"); got != "debug" {
		t.Errorf("flag over environment: %s", got)
	}
}

func TestOverlayErrors(t *testing.T) {
	env := func(k string) (string, bool) { return "s3cret", k == "FALAJ_LIMITS_BODY" }
	_, err := Load(Source{Env: env, Set: []string{"state=BH", "no.such=1", "limits.connections=many"}})
	if fault.CodeOf(err) != fault.ConfigInvalid {
		t.Fatal(err)
	}
	for _, want := range []string{"FALAJ_LIMITS_BODY", "no.such", "limits.connections"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Error("a value is shown that may be a secret")
	}
}

// TestEveryKeyReaches: a key of the table names an existing value of the file,
// and setting it changes what is shown.
func TestEveryKeyReaches(t *testing.T) {
	value := map[string]string{
		"state": "OM", "demonstration": "true", "r1.remote_http": "true", "admin.second_person": "required",
		"log.level": "debug", "log.format": "json", "r1.http": "127.0.0.1:1", "r1.https": ":2", "link.listen": ":3",
		"link.advertise": "x:4", "operations.listen": ":6", "public.listen": ":7", "store.dsn_file": "",
		"limits.headers": "5KiB", "limits.body": "5KiB", "limits.inline": "5KiB",
		"limits.connections": "5", "limits.requests": "5", "limits.client_rate": "5", "limits.client_burst": "5",
		"limits.client_requests": "5", "stamp.accuracy": "2s", "stamp.renew": "48h", "seal.verify": "table",
	}
	secretFile := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(secretFile, []byte("/other.db\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	value["store.dsn_file"] = secretFile
	plain, err := Load(Source{Set: []string{"state=BH"}})
	if err != nil {
		t.Fatal(err)
	}
	before, _ := plain.Marshal()
	for _, key := range Keys() {
		switch key {
		case "r1.certificate", "r1.key", "admin.https":
			continue // useless alone; the golden files hold them
		}
		v, ok := value[key]
		if !ok {
			v = "7m"
		}
		c, err := Load(Source{Set: []string{"state=BH", key + "=" + v}})
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		after, _ := c.Marshal()
		if key != "admin.second_person" && string(after) == string(before) {
			t.Errorf("%s=%s changes nothing", key, v)
		}
	}
}

func TestSecretFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte("postgres://u:p@h/d\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	set := []string{"state=BH", "store.dsn_file=" + file}
	if _, err := Load(Source{Set: set}); !errors.Is(err, &fault.Error{Code: fault.ConfigInvalid}) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("an open secret file: %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Source{Set: set})
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Store.DSN) != "postgres://u:p@h/d" || strings.Contains(c.Store.DSN.String(), ":p@") {
		t.Errorf("DSN %q shown as %s", string(c.Store.DSN), c.Store.DSN)
	}
}

func TestWrapFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wrap")
	for _, x := range []struct {
		text string
		ok   bool
	}{{strings.Repeat("0a", 32) + "\n", true}, {strings.Repeat("0a", 31), false}, {"no", false}} {
		if err := os.WriteFile(file, []byte(x.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (KeyFolder{WrapFile: file}).Wrap(); (err == nil) != x.ok {
			t.Errorf("%d characters: %v", len(x.text), err)
		}
	}
	if _, err := (KeyFolder{}).Wrap(); err != nil {
		t.Errorf("without a file: %v", err)
	}
}

func TestSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Size(rapid.Int64Range(0, 1<<50).Draw(t, "size"))
		var got Size
		if err := got.UnmarshalText([]byte(s.String())); err != nil || got != s {
			t.Fatalf("%d → %s → %d, %v", int64(s), s, int64(got), err)
		}
	})
}

func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		b, _ := os.ReadFile(file)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := defaults()
		if decode(b, &c) != nil || c.finish("") != nil || len(c.check()) > 0 {
			return
		}
		if _, err := c.Marshal(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestShare(t *testing.T) {
	for _, c := range []struct{ requests, client, want int }{{1024, 0, 256}, {3, 0, 1}, {8, 5, 5}, {8, 9, 8}} {
		if got := (Limits{Requests: c.requests, ClientRequests: c.client}).Share(); got != c.want {
			t.Errorf("%d of %d: %d, wanted %d", c.client, c.requests, got, c.want)
		}
	}
}
