package policy_test

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/policy"
	"pgregory.net/rapid"
)

func TestParsePath(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "/",
		"/":                               "/",
		"/persons":                        "/persons",
		"/persons/":                       "/persons/",
		"/persons/7%20a":                  "/persons/7 a",
		"/%70ersons":                      "/persons",
		"/%D8%A7%D9%84%D8%A8%D8%AD%D8%B1": "/البحر",
		"/البحر":                          "/البحر",
		"/a.b/..c/...":                    "/a.b/..c/...",
		"/a;v=1/b":                        "/a;v=1/b",
		"/100%25":                         "/100%",
		"/a+b":                            "/a+b",
	} {
		if p, err := policy.ParsePath(in); err != nil || p.String() != want {
			t.Errorf("%q: %q, %v", in, p, err)
		}
	}
}

// hostilePaths are the ways out of a wildcard rule: each is refused whatever
// the rules say.
func hostilePaths() []string {
	return []string{
		"/public/../secret", "/public/..", "/public/./x", "/..", "/.", "/../", "/public/%2e%2e/secret", "/public/%2E./secret", "/public/.%2e/secret",
		"/public/%252e%252e/secret", "/public/%25252e%25252e/secret", "/public/%252e./secret",
		"/public/..%2fsecret", "/public/..%2Fsecret", "/public%2f..%2fsecret", "/public/..%252fsecret", "/public/x%2fsecret", "/public%2fx",
		`/public/..\secret`, "/public/..%5csecret", "/public/%5c..%5csecret", "/public/..%255csecret", `/public\..\secret`,
		"/public/..;/secret", "/public/..;x=1/secret", "/public/%2e%2e;/secret", "/public/.;/x", "/public/..%3b/secret", "/public/..%253b/secret",
		"//secret", "/public//secret", "//", "/public/x//",
		"/public/%c0%ae%c0%ae/secret", "/public/%c0%afsecret", "/public/%e0%80%ae/secret", "/public/%ff", "/public/\xff",
		"/public/x%00", "/public/x%2500", "/public/%0d%0aHost:x", "/public/%250d%250a", "/public/x\r\n", "/public/%7f", "/public/%c2%85",
		"/public/%", "/public/%2", "/public/%zz", "/public/%u002e",
		"/public?x", "/public#x", "public", "../secret", "*", "http://other/secret", "/" + strings.Repeat("a", 9000), strings.Repeat("/a", 300),
	}
}

func TestHostilePaths(t *testing.T) {
	for _, in := range hostilePaths() {
		if p, err := policy.ParsePath(in); !errors.Is(err, policy.ErrPath) {
			t.Errorf("%.60q passes as %q: %v", in, p, err)
		}
	}
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, yes, no string // space-separated; "-" is the empty path
	}{
		{"", "- /", "/a"},
		{"/", "- /", "/a //"},
		{"/**", "- / /a /a/ /a/b/c", ""},
		{"/persons", "/persons /%70ersons", "- /persons/ /persons/1 /person /personsx /Persons"},
		{"/persons/", "/persons/", "/persons /persons/1"},
		{"/persons/*", "/persons/1 /persons/%2A /persons/a%20b /persons/...", "/persons /persons/ /persons/1/ /persons/1/2 /x/1"},
		{"/persons/{id}", "/persons/1", "/persons/ /persons/1/2"},
		{"/persons/*/vehicles/**", "/persons/1/vehicles /persons/1/vehicles/ /persons/1/vehicles/2/3", "/persons/vehicles /persons/1/2/vehicles /persons/1/vehicle"},
		{"/persons/%2A", "/persons/* /persons/%2a", "/persons/1"},
		{"/a%20b/البحر", "/a%20b/%D8%A7%D9%84%D8%A8%D8%AD%D8%B1", "/a+b/البحر"},
	} {
		p, err := policy.ParsePattern(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
			continue
		}
		for want, list := range map[bool]string{true: c.yes, false: c.no} {
			for _, in := range strings.Fields(list) {
				parsed, err := policy.ParsePath(strings.TrimPrefix(in, "-"))
				if err != nil {
					if want {
						t.Errorf("%q: %v", in, err)
					}
					continue
				}
				if p.Match(parsed) != want {
					t.Errorf("%q matches %q: %v", c.pattern, in, !want)
				}
			}
		}
	}
	for _, bad := range []string{
		"persons", "*", "**", "/a*", "/*a", "/***", "/**/a", "/a/**/b", "/a//b", "/a//**", "/../a", "/%2e%2e/a", "/a/{", "/a/{}", "/a/{x}.json", "/a/{x}{y}", "/a/{{x}}",
		"/a?b", "/a%2fb", "/a%", "//**",
	} {
		if _, err := policy.ParsePattern(bad); err == nil {
			t.Errorf("pattern %q is accepted", bad)
		}
	}
}

// However a backend reads a path, once it fits /public/** it stays inside.
func TestNoWayOut(t *testing.T) {
	public, err := policy.ParsePattern("/public/**")
	if err != nil {
		t.Fatal(err)
	}
	pieces := []string{"/", "..", ".", "%2e", "%2E", "%2f", "%5c", "%25", "2e", "2f", "5c", "3b", "%3b", ";", `\`, "public", "secret", "x", "%c0%ae", "%00", "u002e", "*"}
	rapid.Check(t, func(t *rapid.T) {
		raw := "/public/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 12).Draw(t, "path"), "")
		p, err := policy.ParsePath(raw)
		if err != nil || !public.Match(p) {
			return
		}
		for reading, times := raw, 0; times < 4; times++ {
			for _, r := range []string{reading, strings.ReplaceAll(reading, `\`, "/"), withoutParameters(reading), withoutParameters(strings.ReplaceAll(reading, `\`, "/"))} {
				if clean := path.Clean(r); clean != "/public" && !strings.HasPrefix(clean, "/public/") {
					t.Fatalf("%q is accepted and can be read as %q", raw, clean)
				}
			}
			next, err := url.PathUnescape(reading)
			if err != nil {
				return
			}
			reading = next
		}
	})
}

func withoutParameters(p string) string {
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.Join(segments, "/")
}

func FuzzPath(f *testing.F) {
	for _, p := range hostilePaths() {
		f.Add(p, "/public/**")
	}
	f.Add("/persons/1", "/persons/{id}")
	f.Add("/a/*/b", "/a/%2A/*")
	f.Fuzz(func(t *testing.T, raw, pattern string) {
		p, err := policy.ParsePath(raw)
		if err == nil {
			escaped := (&url.URL{Path: p.String()}).EscapedPath()
			if again, err := policy.ParsePath(escaped); err != nil || again.String() != p.String() {
				t.Errorf("%q: %q then %q, %v", raw, p, again, err)
			}
		}
		if pat, badPattern := policy.ParsePattern(pattern); err == nil && badPattern == nil {
			pat.Match(p)
		}
	})
}
