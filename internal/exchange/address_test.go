package exchange

import (
	"net/http"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/exchange/message"
	"github.com/falaj/falaj/internal/fault"
)

func TestAddress(t *testing.T) {
	const svc = "BH/GOV/interior/traffic/vehicles"
	good := map[string][2]string{
		"/r1/" + svc:                               {svc, ""},
		"/r1/" + svc + "/":                         {svc, "/"},
		"/r1/" + svc + "?a=1&a=2":                  {svc, "?a=1&a=2"},
		"/r1/" + svc + "/a/b?q=/../":               {svc, "/a/b?q=/../"},
		"/r1/" + svc + "/%D9%85%D8%B1%D9%83%D8%A8": {svc, "/%D9%85%D8%B1%D9%83%D8%A8"},
		"/r1/" + svc + "/...":                      {svc, "/..."},
		"/r1/" + svc + "/a;v=1/b":                  {svc, "/a;v=1/b"},
		"/r1/BH/GOV/int%65rior/traffic/vehicles/x": {svc, "/x"},
		"/r1/BH/GOV/a%3Fb/traffic/vehicles/x":      {"BH/GOV/a%3Fb/traffic/vehicles", "/x"},
	}
	for in, want := range good {
		id, path, err := address(in)
		if err != nil || id.String() != want[0] || path != want[1] {
			t.Errorf("%s: %s %q %v", in, id, path, err)
		}
	}
	bad := map[string]fault.Code{
		"/r1/BH/GOV/interior/traffic":               fault.BadIdentifier,
		"/r1/BH/GOV/interior":                       fault.BadIdentifier,
		"/r1/bh/GOV/interior/traffic/vehicles":      fault.BadIdentifier,
		"/r1/BH//interior/traffic/vehicles":         fault.BadIdentifier,
		"/r1/BH/GOV/../traffic/vehicles":            fault.BadIdentifier,
		"/r1/BH/GOV/%2e%2e/traffic/vehicles":        fault.BadIdentifier,
		"/r1/BH/GOV/a%2Fb/traffic/vehicles":         fault.BadIdentifier,
		"/r1/BH/GOV/a%00b/traffic/vehicles":         fault.BadIdentifier,
		"/r1/BH/GOV/a%zz/traffic/vehicles":          fault.BadIdentifier,
		"/r1/" + svc + "/..":                        fault.BadPath,
		"/r1/" + svc + "/a/../b":                    fault.BadPath,
		"/r1/" + svc + "/./b":                       fault.BadPath,
		"/r1/" + svc + "/%2e%2e/b":                  fault.BadPath,
		"/r1/" + svc + "/%2E./b":                    fault.BadPath,
		"/r1/" + svc + "/..%2fb":                    fault.BadPath,
		"/r1/" + svc + "/a%2f..%2fb":                fault.BadPath,
		"/r1/" + svc + "/..%5cb":                    fault.BadPath,
		"/r1/" + svc + "/%252e%252e/b":              fault.BadPath,
		"/r1/" + svc + "/..;x=1/b":                  fault.BadPath,
		"/r1/" + svc + "/a%0d%0ab":                  fault.BadPath,
		"/r1/" + svc + "/a%00":                      fault.BadPath,
		"/r1/" + svc + "/%":                         fault.BadPath,
		"/r1/" + svc + "/a//b":                      fault.BadPath,
		"/r1/" + svc + "/a%2Fb":                     fault.BadPath,
		"/r1/" + svc + "/%E9":                       fault.BadPath,
		"/r1/" + svc + "//evil.example/x":           fault.BadPath,
		"/r2/" + svc:                                fault.BadPath,
		"/r1/" + strings.Repeat("A", 9000) + "/b/c": fault.BadIdentifier,
	}
	for in, want := range bad {
		if _, path, err := address(in); fault.CodeOf(err) != want {
			t.Errorf("%.80s: %q, %v; wanted %s", in, path, err, want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("/r1/BH/GOV/interior/traffic/vehicles/a?b")
	f.Add("/r1/BH/GOV/a%2e/t/v/%2e%2e;/x")
	f.Fuzz(func(t *testing.T, s string) {
		id, path, err := address(s)
		if err != nil {
			return
		}
		if !strings.HasSuffix(s, path) {
			t.Fatalf("%q: the path %q was changed", s, path)
		}
		for _, segment := range strings.Split(pathOnly(path), "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("%q lets %q through", s, segment)
			}
		}
		if id2, _, err := address("/r1/" + id.String()); err != nil || id2 != id {
			t.Fatalf("%q: identifier %s reads back as %s, %v", s, id, id2, err)
		}
	})
}

func TestPassed(t *testing.T) {
	got, err := passed(http.Header{
		"Accept":        {"b", "a"},
		"Cache-Control": {"no-store"},
		"Authorization": {"Bearer x"},
		"Connection":    {"close, X-Private"}, "X-Private": {"1"}, "Keep-Alive": {"1"}, "Te": {"trailers"},
		"User-Agent": {"curl"}, "Host": {"h"}, "Content-Length": {"3"}, "Server": {"s"}, "Expect": {"100-continue"},
		"Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"}, "Trailer": {"x"}, "Proxy-Authorization": {"x"},
		"X-Road-Client": {"a"}, "X-Road-Id": {"1"}, "X-Road-Request-Hash": {"forged"}, "X-Road-Request-Id": {"forged"},
		"X-Road-Error": {"forged"}, "Falaj-Purpose": {"p"}, "Falaj-Subject": {"123"},
		"X-Road-Userid": {"SA1"}, "X-Road-Issue": {"7"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []message.Header{{Name: "accept", Value: "b"}, {Name: "accept", Value: "a"}, {Name: "authorization", Value: "Bearer x"},
		{Name: "cache-control", Value: "no-store"}, {Name: "x-road-issue", Value: "7"}, {Name: "x-road-userid", Value: "SA1"}}
	if len(got) != len(want) {
		t.Fatalf("passed on %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("header %d is %v, wanted %v", i, got[i], want[i])
		}
	}
	for _, h := range []http.Header{{"X-A": {"a\r\nB: c"}}, {"X-A": {"\xff"}}, {"X A": {"b"}}} {
		if _, err := passed(h); fault.CodeOf(err) != fault.BadHeader {
			t.Errorf("%v: %v", h, err)
		}
	}
}
