package seal_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
)

func open(t testing.TB, dir string, cfg seal.KeyConfig) *seal.Keys {
	t.Helper()
	k, err := seal.OpenKeys(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysAreMadeAndReadBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "keys")
	k := open(t, dir, seal.KeyConfig{})
	for name, alg := range map[string]seal.Algorithm{"tls": seal.ECDSAP256, "ca": seal.ECDSAP384, "log": seal.Ed25519, "seal-GOV.(x)'s,=?+_-1": seal.ECDSAP256} {
		if k.Has(name) {
			t.Errorf("%s is there before it is made", name)
		}
		if _, err := k.Signer(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		made, err := k.Create(name, alg)
		if err != nil {
			t.Fatal(err)
		}
		read, err := open(t, dir, seal.KeyConfig{}).Signer(name)
		if err != nil {
			t.Fatal(err)
		}
		if !k.Has(name) || !made.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(read.Public()) {
			t.Errorf("%s was not read back", name)
		}
		info, err := os.Stat(filepath.Join(dir, name+".pem"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		digest := sha256.Sum256([]byte("x"))
		opts, msg := crypto.SignerOpts(crypto.SHA256), digest[:]
		if alg == seal.Ed25519 {
			opts, msg = crypto.Hash(0), []byte("x")
		}
		sig, err := read.Sign(rand.Reader, msg, opts)
		if err != nil {
			t.Fatal(err)
		}
		switch pub := made.Public().(type) {
		case *ecdsa.PublicKey:
			if (pub.Curve == elliptic.P384()) != (alg == seal.ECDSAP384) || !ecdsa.VerifyASN1(pub, msg, sig) {
				t.Errorf("%s signed wrongly", name)
			}
		case ed25519.PublicKey:
			if !ed25519.Verify(pub, msg, sig) {
				t.Errorf("%s signed wrongly", name)
			}
		}
	}
	names, err := k.Names()
	if want := []string{"ca", "log", "seal-GOV.(x)'s,=?+_-1", "tls"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := k.Create("rsa", seal.RSAPKCS1); err == nil {
		t.Error("made an RSA key")
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestKeyNames(t *testing.T) {
	k := open(t, t.TempDir()+"/k", seal.KeyConfig{})
	for _, name := range []string{"", ".", "..", ".x", "../x", "a/b", "a\x00b", "a b", "a%2f", "مفتاح", "-x", strings.Repeat("x", 201)} {
		if _, err := k.Create(name, seal.ECDSAP256); err == nil {
			t.Errorf("made %q", name)
		}
		if _, err := k.Signer(name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("looked for %q", name)
		}
		if _, err := k.HMAC(name); err == nil {
			t.Errorf("made a keyed hash %q", name)
		}
		if _, err := k.Replace(name, seal.ECDSAP256, noon); err == nil || k.Has(name) {
			t.Errorf("replaced %q", name)
		}
	}
	if _, err := k.Create(strings.Repeat("x", 200), seal.ECDSAP256); err != nil {
		t.Error(err)
	}
}

func TestKeyIsNeverOverwritten(t *testing.T) {
	dir := t.TempDir() + "/k"
	// Every goroutine has its own Keys, as processes do.
	var mu sync.Mutex
	var made []crypto.Signer
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			k, err := seal.OpenKeys(dir, seal.KeyConfig{})
			if err != nil {
				t.Error(err)
				return
			}
			s, err := k.Create("tls", seal.ECDSAP256)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				made = append(made, s)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(made) != 1 {
		t.Fatalf("%d made the key", len(made))
	}
	s, err := open(t, dir, seal.KeyConfig{}).Signer("tls")
	if err != nil || !s.Public().(*ecdsa.PublicKey).Equal(made[0].Public()) {
		t.Errorf("another key than the one handed out: %v", err)
	}
	onlyThese(t, dir, "tls.pem")
}

// onlyThese asserts that a folder holds these files and no leftovers.
func onlyThese(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func TestReplaceKeepsTheOldKey(t *testing.T) {
	dir := t.TempDir() + "/k"
	k := open(t, dir, seal.KeyConfig{Wrap: wrapKey(t, 0)})
	if _, err := k.Replace("tls", seal.ECDSAP256, noon); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("replaced what is not there: %v", err)
	}
	old, err := k.Create("tls", seal.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(dir + "/tls.pem")
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := k.Replace("tls", seal.ECDSAP256, noon)
	if err != nil {
		t.Fatal(err)
	}
	now, err := k.Signer("tls")
	if err != nil {
		t.Fatal(err)
	}
	if pub := now.Public().(*ecdsa.PublicKey); !pub.Equal(fresh.Public()) || pub.Equal(old.Public()) {
		t.Error("the name does not give the new key")
	}
	kept, err := os.ReadFile(dir + "/archive/tls.20260314T120000.000000000Z.pem")
	if err != nil || !bytes.Equal(kept, first) {
		t.Errorf("the old key was not kept as it was: %v", err)
	}
	// At the very same time nothing may be lost: the second is refused.
	if _, err := k.Replace("tls", seal.ECDSAP256, noon); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
	onlyThese(t, dir, "archive", "tls.pem")
	onlyThese(t, dir+"/archive", "tls.20260314T120000.000000000Z.pem")
}

func TestKeyFilesThatAreRefused(t *testing.T) {
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	p256 := generate(t, "P-256").(*ecdsa.PrivateKey)
	good := pkcs8(p256)
	small, err := os.ReadFile("testdata/rsa1024.pem") // some modes make none so weak
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte, mode fs.FileMode) func(string) error {
		return func(path string) error { return errors.Join(os.WriteFile(path, data, 0o600), os.Chmod(path, mode)) }
	}
	for _, tc := range []struct {
		name string
		ok   bool
		make func(path string) error
	}{
		{"as openssl writes it", true, write(good, 0o600)},
		{"read-only", true, write(good, 0o400)},
		{"RSA-2048", true, write(pkcs8(generate(t, "RSA-2048")), 0o600)},
		{"readable by the group", false, write(good, 0o640)},
		{"readable by others", false, write(good, 0o604)},
		{"empty", false, write(nil, 0o600)},
		{"noise", false, write([]byte("noise"), 0o600)},
		{"two keys", false, write(append(bytes.Clone(good), good...), 0o600)},
		{"text before", false, write(append([]byte("x\n"), good...), 0o600)},
		{"PEM header", false, write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x"), Headers: map[string]string{"a": "b"}}), 0o600)},
		{"another label", false, write(bytes.ReplaceAll(good, []byte("PRIVATE"), []byte("PUBLIC")), 0o600)},
		{"no PKCS #8", false, write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}), 0o600)},
		{"P-521", false, write(pkcs8(generate(t, "P-521")), 0o600)},
		{"RSA-1024", false, write(small, 0o600)},
		{"very large", false, write(append(bytes.Clone(good), bytes.Repeat([]byte("\n"), 64<<10)...), 0o600)},
		{"a folder", false, func(path string) error { return os.Mkdir(path, 0o700) }},
		{"a link", false, func(path string) error {
			return errors.Join(os.WriteFile(path+".target", good, 0o600), os.Symlink(path+".target", path))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir() + "/k"
			k := open(t, dir, seal.KeyConfig{})
			if err := tc.make(dir + "/tls.pem"); err != nil {
				t.Fatal(err)
			}
			_, err := k.Signer("tls")
			if (err == nil) != tc.ok {
				t.Errorf("read it: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes the file: %v", err)
			}
			if _, err := k.Create("tls", seal.ECDSAP256); !errors.Is(err, fs.ErrExist) {
				t.Errorf("overwrote it: %v", err)
			}
		})
	}
	for _, mode := range []fs.FileMode{0o750, 0o701, 0o777} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.OpenKeys(dir, seal.KeyConfig{}); err == nil {
			t.Errorf("opened a folder of mode %v", mode)
		}
	}
}

// TestReadKey: a person's key lies where he keeps it, beside his certificate.
func TestReadKey(t *testing.T) {
	dir := t.TempDir() // of a mode that a key folder may not have
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir() + "/k"
	made, err := open(t, folder, seal.KeyConfig{Demonstration: true}).Create("mine", seal.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(folder + "/mine.pem")
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"key.pem": 0o600, "open.pem": 0o640} {
		if err := errors.Join(os.WriteFile(dir+"/"+name, text, 0o600), os.Chmod(dir+"/"+name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/cert.pem", []byte("-----BEGIN CERTIFICATE-----"), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := seal.ReadKey(dir + "/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	if !made.Public().(*ecdsa.PublicKey).Equal(read.Public()) {
		t.Error("another key")
	}
	for _, name := range []string{"open.pem", "cert.pem", "none.pem"} {
		if _, err := seal.ReadKey(dir + "/" + name); err == nil {
			t.Errorf("read %s", name)
		}
	}
}

func TestDemonstrationKeysStayInTheDemonstration(t *testing.T) {
	for _, wrap := range []seal.WrapKey{{}, wrapKey(t, 7)} {
		demo, earnest := seal.KeyConfig{Demonstration: true, Wrap: wrap}, seal.KeyConfig{Wrap: wrap}
		for what, make := range map[string]func(k *seal.Keys) error{
			"signing key": func(k *seal.Keys) error { _, err := k.Create("tls", seal.ECDSAP256); return err },
			"keyed hash":  func(k *seal.Keys) error { _, err := k.HMAC("person-1"); return err },
		} {
			dir := t.TempDir() + "/k"
			if err := make(open(t, dir, demo)); err != nil {
				t.Fatal(err)
			}
			if err := make(open(t, dir, demo)); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
			if _, err := seal.OpenKeys(dir, earnest); fault.CodeOf(err) != fault.DemoRefused {
				t.Errorf("%s: %v", what, err)
			}
		}

		// One that is put there later is refused when it is used.
		from, to := t.TempDir()+"/from", t.TempDir()+"/to"
		d, e := open(t, from, demo), open(t, to, earnest)
		if _, err := d.Create("tls", seal.ECDSAP256); err != nil {
			t.Fatal(err)
		}
		sealed, err := d.Records().Seal(nil, "exchange", noon, []byte("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		tighten(t, to)
		_, err = e.Signer("tls")
		code(t, err, fault.DemoRefused)
		_, err = e.Records().Open(sealed, nil)
		code(t, err, fault.DemoRefused)
	}

	// The mark leaves the file readable by stock tools.
	dir := t.TempDir() + "/k"
	if _, err := open(t, dir, seal.KeyConfig{Demonstration: true}).Create("tls", seal.ECDSAP256); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("openssl", "pkey", "-in", dir+"/tls.pem", "-noout", "-check").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// tighten gives copied files and folders the modes that keys need.
func tighten(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		} else if err == nil {
			return os.Chmod(path, 0o600)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func wrapKey(t *testing.T, b byte) seal.WrapKey {
	t.Helper()
	w, err := seal.NewWrapKey(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWrappedFolder(t *testing.T) {
	wrap := wrapKey(t, 1)
	dir := t.TempDir() + "/k"
	k := open(t, dir, seal.KeyConfig{Wrap: wrap})
	for _, name := range []string{"tls", "ca"} {
		if _, err := k.Create(name, seal.ECDSAP256); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.HMAC("person-1"); err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Records().Seal(nil, "exchange", noon, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, seal.KeyConfig{Wrap: wrap})
	if _, err := again.Signer("tls"); err != nil {
		t.Error(err)
	}
	if _, err := again.Records().Open(sealed, nil); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := seal.NewWrapKey(make([]byte, n)); err == nil {
			t.Errorf("took a wrapping key of %d bytes", n)
		}
	}
	for what, other := range map[string]seal.WrapKey{"without": {}, "with another": wrapKey(t, 2)} {
		if _, err := seal.OpenKeys(dir, seal.KeyConfig{Wrap: other}); err == nil {
			t.Errorf("opened %s wrapping key", what)
		}
	}
	file, err := os.ReadFile(dir + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/tls.pem", file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Signer("tls"); err == nil {
		t.Error("took one key's file for another's")
	}
	// An unwrapped key may not be smuggled in.
	der, err := x509.MarshalPKCS8PrivateKey(generate(t, "P-256"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/tls.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Signer("tls"); err == nil {
		t.Error("took an unwrapped key")
	}
}

func TestHMAC(t *testing.T) {
	dir := t.TempDir() + "/k"
	k := open(t, dir, seal.KeyConfig{})
	one, err := k.HMAC("person-1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := open(t, dir, seal.KeyConfig{}).HMAC("person-1")
	if err != nil {
		t.Fatal(err)
	}
	two, err := k.HMAC("person-2")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(dir + "/person-1.hmac")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(file)
	m := hmac.New(sha256.New, block.Bytes)
	m.Write([]byte("1001"))
	want := [32]byte(m.Sum(nil))
	if got := one.Sum([]byte("1001")); got != want || again.Sum([]byte("1001")) != want {
		t.Errorf("%x, want %x", got, want)
	}
	if two.Sum([]byte("1001")) == want {
		t.Error("two names, one key")
	}
	if err := os.WriteFile(dir+"/person-3.hmac", pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: []byte("short")}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.HMAC("person-3"); err == nil {
		t.Error("took a key of 5 bytes")
	}
}

// Whatever prints a value that holds a secret must not print the secret.
func TestSecretsDoNotPrint(t *testing.T) {
	dir := t.TempDir() + "/k"
	wrap := bytes.Repeat([]byte{0xab}, 32)
	cfg := seal.KeyConfig{Wrap: wrapKey(t, 0xab)}
	k := open(t, dir, seal.KeyConfig{})
	signer, err := k.Create("tls", seal.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	logKey, err := k.Create("log", seal.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	h, err := k.HMAC("person-1")
	if err != nil {
		t.Fatal(err)
	}
	records := k.Records()
	if _, err := records.Seal(nil, "exchange", noon, nil, nil); err != nil {
		t.Fatal(err)
	}
	spool, err := seal.OpenSpool(t.TempDir()+"/s", records)
	if err != nil {
		t.Fatal(err)
	}
	w, err := spool.Create(seal.SpoolConfig{Class: "exchange", At: noon, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte{0xcd}, 64)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}

	secrets := [][]byte{wrap, plain}
	for _, name := range []string{"tls.pem", "log.pem", "person-1.hmac", "records/exchange/2026-03.key"} {
		file, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(file)
		secret := block.Bytes
		if block.Type == "PRIVATE KEY" {
			switch key := must1(x509.ParsePKCS8PrivateKey(block.Bytes)).(type) {
			case *ecdsa.PrivateKey:
				secret = must1(key.Bytes())
			case ed25519.PrivateKey:
				secret = key.Seed()
			}
		}
		secrets = append(secrets, secret)
	}
	type inside struct {
		open   any
		hidden any
		cfg    seal.KeyConfig
		hmac   seal.HMAC
		keys   *seal.Keys
		rec    seal.RecordKeys
		signer crypto.Signer
	}
	for _, v := range []any{cfg, &cfg, k, *k, signer, logKey, h, &h, records, &records, spool, w} {
		var out strings.Builder
		holders := []any{v, []any{v}, map[string]any{"k": v}, inside{v, v, cfg, h, k, records, signer}, &inside{v, v, cfg, h, k, records, signer}}
		for _, x := range holders {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
				fmt.Fprintf(&out, verb+"\n", x)
			}
			fmt.Fprintln(&out, fmt.Errorf("%v", x))
			if b, err := json.Marshal(x); err == nil {
				out.Write(b)
			}
			slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", x, "g", slog.GroupValue(slog.Any("v", x)))
			slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", x)
		}
		for _, s := range secrets {
			s = s[:16] // also half a key is too much
			for form, text := range map[string]string{
				"hex": hex.EncodeToString(s), "base64": base64.StdEncoding.EncodeToString(s[:15]), "raw": string(s),
				"decimal": strings.Trim(fmt.Sprint(s), "[]"), "commas": strings.ReplaceAll(strings.Trim(fmt.Sprint(s), "[]"), " ", ", "),
				"Go":         strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", s), "[]byte{"), "}"),
				"spaced hex": fmt.Sprintf("% x", s),
			} {
				if strings.Contains(strings.ToLower(out.String()), strings.ToLower(text)) {
					t.Errorf("%T prints a secret as %s", v, form)
				}
			}
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %s", k, signer, h, records); s != "[secret] [secret] [secret] [secret]" {
		t.Errorf("prints %q", s)
	}
	if b, err := json.Marshal(k); err != nil || string(b) != `"[secret]"` {
		t.Errorf("encodes %s, %v", b, err)
	}
}

// FuzzKeyFile: no file may crash the reader, and only whole ones are keys.
func FuzzKeyFile(f *testing.F) {
	dir := f.TempDir() + "/k"
	k := open(f, dir, seal.KeyConfig{Demonstration: true})
	for name, alg := range map[string]seal.Algorithm{"a": seal.ECDSAP256, "b": seal.ECDSAP384, "c": seal.Ed25519} {
		if _, err := k.Create(name, alg); err != nil {
			f.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join(dir, name+".pem"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
		f.Add(file[len("Demonstration: true\n"):])
		f.Add(file[:len(file)/2])
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(dir+"/x.pem", file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := k.Signer("x")
		if err == nil && s.Public() == nil {
			t.Error("a key without a public half")
		}
		if err == nil && !bytes.Contains(file, []byte("BEGIN PRIVATE KEY")) {
			t.Error("a key from nowhere")
		}
	})
}
