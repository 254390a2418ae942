package acceptance_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nginx runs Debian's, as it was installed, on a folder; uploads is where it
// takes them (WebDAV). It gives the base address of the folder.
func nginx(t *testing.T, folder, uploads string) string {
	t.Helper()
	dir := t.TempDir()
	at := fmt.Sprintf("127.0.0.1:%d", ports(t, 1))
	who := ""
	if os.Getuid() == 0 {
		who = "user root;" // else it would go on as somebody who may not enter a test's folder
	}
	write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(`
%s daemon off; worker_processes 1; pid %[2]s/pid; error_log stderr;
events {}
http {
  include /etc/nginx/mime.types; default_type application/octet-stream; charset utf-8;
  access_log %[2]s/access; client_max_body_size 0; client_body_temp_path %[2]s/body;
  proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi; uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
  server {
    listen %[3]s; root %[4]s; gzip_static on;
    location = /gone { return 204; }
    location = /moved { return 307 /readme.txt?from=here; }
    location = /echo { default_type text/plain; return 200 "$request_method $request_uri $http_cookie|$http_accept_encoding"; }
    location /uploads/ { alias %[5]s/; dav_methods PUT DELETE; create_full_put_path on; autoindex on; }
  }
}`, who, dir, at, folder, uploads))
	p := start(t, nil, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
	eventually(t, "nginx", func() error {
		if !p.running() {
			t.Fatal(read(t, p.log))
		}
		_, err := tryCurl(t.Context(), "http://"+at+"/gone")
		return err
	})
	t.Cleanup(func() { p.end(syscall.SIGTERM, 10*time.Second) })
	return "http://" + at
}

// files fills a folder with what breaks careless carriers of bytes, and gives
// the names, as they stand in a path.
func files(t *testing.T, dir string) []string {
	t.Helper()
	random := make([]byte, 20<<20+1)
	rand.NewChaCha8([32]byte{2}).Read(random)
	for name, text := range map[string]string{
		"readme.txt":                 "plain\n",
		"empty.txt":                  "",
		"zero.bin":                   "\x00\r\n\x00\xff\xfe",
		"تقرير سنوي ٢٠٢٦.txt":        "هذا نص عربي، فيه أرقام ٠١٢٣٤٥٦٧٨٩ و0123456789.\r\n",
		"a+b c&d=e,f;g'(h)!.txt":     "signs",
		"مجلد/ملف.json":              `{"اسم":"قيمة"}`,
		"index/index.html":           "<p dir=rtl>مرحبا",
		"inline.bin":                 string(random[:64<<10]),
		"spooled.bin":                string(random[:64<<10+1]),
		"large.bin":                  string(random),
		"packed.css":                 "body{}",
		"packed.css.gz":              gzipped(t, strings.Repeat("body{} ", 999)),
		"looks-packed-is-not.tar.gz": "not gzip",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	return under(t, dir)
}

// under lists the files of a folder as paths of addresses.
func under(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, (&url.URL{Path: "/" + rel}).EscapedPath())
		}
		return err
	}))
	return out
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x")
	write(t, file, text)
	r := do(t, nil, "gzip", "-c", file)
	if r.code != 0 {
		t.Fatal(r.err)
	}
	return r.out
}

// realInput brings an nginx that runs already to its first call across a
// border with two commands, and compares what arrives with what it serves.
func realInput(t *testing.T, u *union) {
	own, uploads := t.TempDir(), t.TempDir()
	paths := files(t, own)
	at := nginx(t, own, uploads)
	const service = "BH/GOV/egov/portal/files"
	u.falaj(t, "BH", "service", "add", service, at)
	u.falaj(t, "BH", "access", "grant", "SA/GOV/egov/portal", service, "--purpose", "trial")
	u.granted(t, "SA", service)
	via := func(path string, args ...string) answer {
		t.Helper()
		return curl(t, append(u.as(t, "SA", "trial", service+path), args...)...)
	}

	t.Run("every byte", func(t *testing.T) {
		for _, p := range paths {
			got, want := via(p).want(t, 200), curl(t, at+p).want(t, 200)
			same(t, p, got, want)
			if f := filepath.Join(own, unescaped(t, p)); got.sum() != sum(t, f) {
				t.Errorf("%s is not the file", p)
			}
		}
	})
	t.Run("as nginx answers", func(t *testing.T) {
		known := curl(t, at+"/readme.txt").header
		if known.Get("Etag") == "" || known.Get("Last-Modified") == "" {
			t.Fatalf("nginx gives no marks: %v", known)
		}
		for _, x := range []struct {
			name, path string
			status     int
			args       []string
		}{
			{"HEAD", "/large.bin", 200, []string{"-I"}},
			{"HEAD of nothing", "/nothing", 404, []string{"-I"}},
			{"a range", "/large.bin", 206, []string{"-r", "1000000-1999999"}},
			{"beyond the end", "/readme.txt", 416, []string{"-r", "1000-"}},
			{"not modified", "/readme.txt", 304, []string{"-H", "If-None-Match: " + known.Get("Etag")}},
			{"since", "/readme.txt", 304, []string{"-H", "If-Modified-Since: " + known.Get("Last-Modified")}},
			{"no content", "/gone", 204, nil},
			{"nothing there", "/nothing", 404, nil},
			{"a folder without its slash", "/index", 301, nil},
			{"a folder of Arabic name without its slash", "/%D9%85%D8%AC%D9%84%D8%AF", 301, nil},
			{"Arabic that nobody encoded", "/مجلد/ملف.json", 200, nil},
			{"a folder", "/index/", 200, nil},
			{"no folder to look into", "/%D9%85%D8%AC%D9%84%D8%AF/", 403, nil},
			{"moved", "/moved", 307, nil},
			{"packed", "/packed.css", 200, []string{"-H", "Accept-Encoding: gzip"}},
			{"not packed", "/packed.css", 200, []string{"-H", "Accept-Encoding: identity"}},
			{"a query", "/echo?a=1&b=%D8%A7&a=2&&c", 200, []string{"-H", "Cookie: k=v"}},
			{"a query alone", "?x=1", 403, nil},
			{"the root", "", 403, nil},
			{"POST", "/readme.txt", 405, []string{"-X", "POST", "--data-binary", "x"}},
			{"PATCH", "/echo", 200, []string{"-X", "PATCH", "--data-binary", "x"}},
			{"DELETE", "/readme.txt", 405, []string{"-X", "DELETE"}},
			{"OPTIONS", "/readme.txt", 405, []string{"-X", "OPTIONS"}},
			{"TRACE", "/readme.txt", 405, []string{"-X", "TRACE"}},
		} {
			same(t, x.name, via(x.path, x.args...).want(t, x.status), curl(t, append([]string{at + x.path}, x.args...)...))
		}
		if a := via("/packed.css", "-H", "Accept-Encoding: gzip"); a.header.Get("Content-Encoding") != "gzip" || string(a.body) != read(t, filepath.Join(own, "packed.css.gz")) {
			t.Errorf("what was packed already: %v", a.header)
		}
		if to := via("/index").header.Get("Location"); to != at+"/index/" {
			t.Errorf("a redirect to %s was not passed on as it was", to)
		}
	})
	t.Run("as a person types it", func(t *testing.T) {
		got := u.falaj(t, "SA", "call", service, "/تقرير سنوي ٢٠٢٦.txt", "--purpose", "trial")
		if want := read(t, filepath.Join(own, "تقرير سنوي ٢٠٢٦.txt")); got != want {
			t.Errorf("%q", got)
		}
	})
	t.Run("refused without a grant", func(t *testing.T) {
		for from, purpose := range map[string]string{"KW": "trial", "SA": "traffic"} {
			a := curl(t, u.as(t, from, purpose, service+"/readme.txt")...).want(t, 500)
			if a.header.Get("X-Road-Error") != "Server.ServerProxy.AccessDenied" {
				t.Errorf("%s for %s: %s", from, purpose, a.body)
			}
		}
	})
	t.Run("the union's own data", func(t *testing.T) {
		data, err := filepath.Abs("../../../shared/data")
		check(t, err)
		if _, err := os.Stat(data); err != nil {
			t.Skip("../shared/data is absent; the other files are tried all the same")
		}
		at := nginx(t, data, uploads)
		u.falaj(t, "BH", "service", "move", service, at)
		paths := under(t, data)
		var bytes int
		for _, p := range paths {
			got := via(p).want(t, 200)
			same(t, p, got, curl(t, at+p))
			if got.sum() != sum(t, filepath.Join(data, unescaped(t, p))) {
				t.Errorf("%s is not the file", p)
			}
			bytes += len(got.body)
		}
		if len(paths) < 10 {
			t.Errorf("only %v", paths)
		}
		t.Logf("%d files, %d bytes", len(paths), bytes)
	})
	t.Run("taken back", func(t *testing.T) {
		u.falaj(t, "BH", "service", "remove", service)
		eventually(t, "the service is gone", func() error {
			if a := via("/readme.txt"); !strings.Contains(string(a.body), "directory.service.unknown") {
				return fmt.Errorf("%d %s", a.status, a.body)
			}
			return nil
		})
	})
}

// uploads has nginx take files, from its description.
func uploads(t *testing.T, u *union) {
	own, folder := t.TempDir(), t.TempDir()
	paths := files(t, own)
	at := nginx(t, own, folder)
	const service = "OM/COM/archive/documents/uploads"
	description := filepath.Join(t.TempDir(), "openapi.yaml")
	write(t, description, `
openapi: 3.0.3
info: {title: Archive of documents, x-title-ar: أرشيف الوثائق, version: "1"}
paths:
  /{name}:
    get: {responses: {"200": {description: The document}}}
    head: {responses: {"200": {description: There is one}}}
    put: {responses: {"201": {description: Filed}, "204": {description: Replaced}}}
  /{folder}/{name}:
    get: {responses: {"200": {description: The document}}}
    put: {responses: {"201": {description: Filed}, "204": {description: Replaced}}}
`)
	// A member and a subsystem that are new to the union come with it.
	u.falaj(t, "OM", "service", "add", service, at+"/uploads/", "--openapi", description)
	u.falaj(t, "OM", "access", "grant", "QA/GOV/egov/portal", service, "--purpose", "trial", "--default-purpose", "trial",
		"--endpoint", "PUT /**", "--endpoint", "GET /**")
	u.granted(t, "QA", service)
	qa := u.node(t, "QA")
	plain := func(path string) []string { // no purpose: the grant has one for who sends none
		return []string{"-H", "X-Road-Client: " + qa.Client, qa.R1 + "/r1/" + service + path}
	}
	via := func(path string, args ...string) answer {
		t.Helper()
		return curl(t, append(plain(path), args...)...)
	}
	for _, p := range paths {
		from := filepath.Join(own, unescaped(t, p))
		stored := filepath.Join(folder, unescaped(t, p))
		a := via(p, "-T", from).want(t, 201)
		if to := a.header.Get("Location"); !strings.HasPrefix(to, at+"/uploads/") {
			t.Errorf("PUT %s: Location %q", p, to)
		}
		if sum(t, from) != sum(t, stored) {
			t.Errorf("%s did not arrive as it was", p)
		}
		if got := via(p).want(t, 200); got.sum() != sum(t, from) {
			t.Errorf("%s did not come back as it was", p)
		}
		// Chunked, as one sends what one does not know the length of.
		r := do(t, nil, "sh", append([]string{"-c", `cat "$0" | curl -sS -o /dev/null -w '%{http_code}' -H 'Transfer-Encoding: chunked' -T - "$@"`, from}, plain(p)...)...)
		if r.out != "204" || sum(t, from) != sum(t, stored) {
			t.Errorf("%s in chunks: %s %s", p, r.out, r.err)
		}
	}
	// What the grant does not name, no rule allows.
	if a := via(paths[0], "-X", "DELETE").want(t, 500); a.header.Get("X-Road-Error") != "Server.ServerProxy.AccessDenied" {
		t.Errorf("DELETE: %s", a.body)
	}
	meta := curl(t, "-H", "X-Road-Client: "+qa.Client, qa.R1+"/r1/OM/COM/archive/documents/getOpenAPI?serviceCode=uploads").want(t, 200)
	if !strings.Contains(string(meta.body), "أرشيف الوثائق") {
		t.Errorf("%s", meta.body)
	}
}

// hops are what belongs to one connection, and what a node writes itself.
var hops = []string{"Connection", "Keep-Alive", "Server", "Content-Length", "Transfer-Encoding", "Date"}

// same holds an answer that came through two nodes against the service's own.
func same(t *testing.T, what string, got, want answer) {
	t.Helper()
	if got.status != want.status || got.sum() != want.sum() {
		t.Errorf("%s: %d and %d bytes, wanted %d and %d bytes", what, got.status, len(got.body), want.status, len(want.body))
	}
	for name, values := range want.header {
		if !slices.Contains(hops, name) && !slices.Equal(got.header[name], values) {
			t.Errorf("%s: %s is %q, wanted %q", what, name, got.header[name], values)
		}
	}
	for name := range got.header {
		if want.header[name] == nil && !strings.HasPrefix(name, "X-Road-") && name != "Falaj-Evidence" && !slices.Contains(hops, name) {
			t.Errorf("%s: %s was added", what, name)
		}
	}
}

func sum(t *testing.T, file string) string {
	t.Helper()
	return fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, file))))
}

func unescaped(t *testing.T, path string) string {
	t.Helper()
	name, err := url.PathUnescape(path)
	check(t, err)
	return name
}
