package seal_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/seal"
)

// TestMain lets the test binary be the second process of tests that need one.
func TestMain(m *testing.M) {
	switch dir := os.Getenv("SEAL_TEST_DIR"); os.Getenv("SEAL_TEST_CHILD") {
	case "":
		os.Exit(m.Run())
	case "record":
		// Waits for the file "go", then encrypts one record in a class that has
		// no key yet, and hashes under a key that is not there yet.
		k, err := seal.OpenKeys(dir+"/keys", seal.KeyConfig{})
		must(err)
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if _, err := os.Stat(dir + "/go"); err == nil {
				break
			}
		}
		sealed, err := k.Records().Seal(nil, "exchange", noon, []byte("record"), nil)
		must(err)
		h, err := k.HMAC("person-1")
		must(err)
		sum := h.Sum([]byte("x"))
		_, createErr := k.Create("tls", seal.ECDSAP256)
		fmt.Printf("%s %s %v\n", hex.EncodeToString(sealed), hex.EncodeToString(sum[:]), createErr == nil)
	case "spool":
		// Writes a body without end, to be killed in the middle of it.
		k, err := seal.OpenKeys(dir+"/keys", seal.KeyConfig{})
		must(err)
		s, err := seal.OpenSpool(dir+"/spool", k.Records())
		must(err)
		w, err := s.Create(seal.SpoolConfig{Class: "exchange", At: noon, Limit: 1 << 40})
		must(err)
		for b := make([]byte, 1000); ; time.Sleep(time.Microsecond) {
			_, err := w.Write(b)
			must(err)
		}
	}
}

// Everything here works where only what FIPS 140-3 approves may run.
func TestUnderFIPSAlone(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), must1(os.Executable()), "-test.count=1",
		"-test.run=^(TestSealOfEachKindOfKey|TestGoldenVectors|TestKeysAreMadeAndReadBack|TestWrappedFolder|TestHMAC|TestDestroyedKeyDarkensEverything|TestBodiesComeBack)$/^(P-256|RSA-2048)$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func must1[T any](v T, err error) T {
	must(err)
	return v
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
