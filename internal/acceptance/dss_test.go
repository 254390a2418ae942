//go:build dss

package acceptance_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDSS has implementations that are not ours judge what a fresh union
// exports: DSS the seals, time-stamps and evidence records of a call, and
// Bouncy Castle the evidence records once more. What was changed must not pass.
func TestDSS(t *testing.T) {
	u := startUp(t, filepath.Join(t.TempDir(), "union"), base(t))
	id := u.read(t, "SA", "BH", "vehicles")
	dir := t.TempDir()
	var both []string
	for _, state := range []string{"SA", "BH"} {
		to := filepath.Join(dir, state+".asice")
		eventually(t, "the time-stamp at "+state, func() error {
			u.falaj(t, state, "evidence", "export", id, "-o", to)
			for name := range unzip(t, to) {
				if strings.HasSuffix(name, ".ers") {
					return nil
				}
			}
			return fmt.Errorf("no evidence record in %s", to)
		})
		both = append(both, to)
	}

	judge(t, 0, "ers", both...)
	for i, said := range verdicts(judge(t, 0, "dss", both...)) {
		for _, want := range []string{"signature001.p7s: TOTAL_PASSED", "signature002.p7s: TOTAL_PASSED", ".tst: PASSED", "request-3.ers: PASSED", "answer-4.ers: PASSED"} {
			if !strings.Contains(said, want) {
				t.Errorf("DSS does not say %q of %s:\n%s", want, both[i], said)
			}
		}
	}

	call := unzip(t, both[0])
	broken := []struct {
		what, says string
		change     func(map[string][]byte)
	}{
		{"another answer", "signature002.p7s: TOTAL_FAILED HASH_FAILURE", func(f map[string][]byte) {
			f["answer/body.bin"] = append(f["answer/body.bin"], ' ')
		}},
		{"another manifest", "signature001.p7s: TOTAL_FAILED HASH_FAILURE", func(f map[string][]byte) {
			const name = "META-INF/ASiCManifest001.xml"
			f[name] = bytes.Replace(f[name], []byte("application/json"), []byte("application/JSON"), 1)
		}},
		{"another signature", "signature001.p7s: TOTAL_FAILED SIG_CRYPTO_FAILURE", func(f map[string][]byte) {
			b := f["META-INF/signature001.p7s"]
			b[len(b)-1] ^= 1
		}},
		{"no revocation lists", "signature001.p7s: INDETERMINATE CERTIFICATE_CHAIN_GENERAL_FAILURE", func(f map[string][]byte) {
			maps.DeleteFunc(f, func(name string, _ []byte) bool { return strings.Contains(name, "crl.") })
		}},
		{"another record", "request-3.ers: INDETERMINATE SIGNED_DATA_NOT_FOUND", func(f map[string][]byte) {
			f["META-INF/falaj/stamp/SA-request-3.leaf"][70] ^= 1
		}},
		{"another log", ".tst: FAILED HASH_FAILURE", func(f map[string][]byte) {
			for name, b := range f {
				if strings.HasSuffix(name, ".root") {
					b[0] ^= 1
				}
			}
		}},
	}
	var names []string
	for i, b := range broken {
		files := maps.Clone(call)
		for name := range files {
			files[name] = bytes.Clone(files[name])
		}
		b.change(files)
		names = append(names, rezip(t, filepath.Join(dir, fmt.Sprintf("broken-%d.asice", i)), files))
	}
	for i, said := range verdicts(judge(t, 1, "dss", names...)) {
		if !strings.Contains(said, "✗ ") || !strings.Contains(said, broken[i].says) {
			t.Errorf("of a container with %s DSS does not say %q:\n%s", broken[i].what, broken[i].says, said)
		}
	}

	// With the authority of one state the seals of the other lead nowhere.
	anchor := filepath.Join(dir, "authority.pem")
	check(t, os.WriteFile(anchor, call["META-INF/falaj/certificate/request-authority.pem"], 0o600))
	said := judge(t, 1, "dss", "--anchor", anchor, both[0])
	for _, want := range []string{"signature001.p7s: TOTAL_PASSED", "signature002.p7s: INDETERMINATE NO_CERTIFICATE_CHAIN_FOUND"} {
		if !strings.Contains(said, want) {
			t.Errorf("DSS does not say %q:\n%s", want, said)
		}
	}
}

// TestDSSBatch: of messages that were sealed with others DSS proves the seal of
// the batch; the rest is for falaj verify and the README.
func TestDSSBatch(t *testing.T) {
	u := startUp(t, filepath.Join(t.TempDir(), "union"), "--state=BH,SA", base(t))
	dir := t.TempDir()
	good := u.inBatches(t, "SA", "BH", dir)
	files := unzip(t, good)
	files["answer/batch.txt"] = append(files["answer/batch.txt"], ' ')
	bad := rezip(t, filepath.Join(dir, "bad.asice"), files)
	for _, want := range []string{"signature001.p7s: TOTAL_PASSED", "signature002.p7s: TOTAL_PASSED"} {
		if said := judge(t, 0, "dss", good); !strings.Contains(said, want) {
			t.Errorf("DSS does not say %q:\n%s", want, said)
		}
	}
	if said := judge(t, 1, "dss", bad); !strings.Contains(said, "signature002.p7s: TOTAL_FAILED HASH_FAILURE") {
		t.Errorf("of another batch DSS says:\n%s", said)
	}
}

// judge runs a script of scripts/ that asks Java; the first time it loads
// libraries, as long as that takes.
func judge(t *testing.T, want int, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../../scripts/"+name+"/"+name, args...).CombinedOutput()
	if code := exitCode(err); code != want {
		t.Fatalf("%s %v: %v, wanted code %d\n%s", name, args, err, want, out)
	}
	t.Logf("%s", out)
	return string(out)
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	} else if err != nil {
		return -1
	}
	return 0
}

// verdicts are what was said of each container.
func verdicts(out string) []string {
	return strings.SplitAfter(strings.TrimSuffix(out, "falaj verify.\n"), "falaj verify.\n")
}

func unzip(t *testing.T, name string) map[string][]byte {
	t.Helper()
	r, err := zip.OpenReader(name)
	check(t, err)
	defer r.Close()
	files := map[string][]byte{}
	for _, f := range r.File {
		in, err := f.Open()
		check(t, err)
		files[f.Name], err = io.ReadAll(in)
		check(t, err)
	}
	return files
}

// rezip makes a container with mimetype first, as ASiC wants it.
func rezip(t *testing.T, name string, files map[string][]byte) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(n string) bool { return n == "mimetype" })
	for _, n := range append([]string{"mimetype"}, names...) {
		to, err := w.Create(n)
		check(t, err)
		_, err = to.Write(files[n])
		check(t, err)
	}
	check(t, w.Close())
	check(t, os.WriteFile(name, b.Bytes(), 0o600))
	return name
}
