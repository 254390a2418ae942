package union_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/union"
	"pgregory.net/rapid"
)

func TestParseService(t *testing.T) {
	for _, c := range []struct{ in, state, class, member, subsystem, service string }{
		{"BH/GOV/interior/traffic/violations", "BH", "GOV", "interior", "traffic", "violations"},
		{"SA/GOV/1010.x/a-b/get=it%3F", "SA", "GOV", "1010.x", "a-b", "get=it?"},
		{"%42%48/GOV/i/t/v", "BH", "GOV", "i", "t", "v"},
		{"BH/GOV/(a,b)/'t'/v+w", "BH", "GOV", "(a,b)", "'t'", "v+w"},
		{"BH/GOV/%28a%2Cb%29/%27t%27/v%2Bw", "BH", "GOV", "(a,b)", "'t'", "v+w"},
		{"BH/G/i/.../v", "BH", "G", "i", "...", "v"},
	} {
		id, err := union.ParseService(c.in)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if string(id.State) != c.state || id.Class != c.class || id.Code != c.member || id.Subsystem != c.subsystem || id.Service != c.service {
			t.Errorf("%q: %+v", c.in, id)
		}
	}
}

func TestRefuseService(t *testing.T) {
	for _, in := range []string{
		"", "/", "BH", "BH/GOV/i/t", "BH/GOV/i/t/v/w", "/BH/GOV/i/t/v", "BH/GOV/i/t/v/", "BH/GOV//t/v", "BH//i/t/v",
		"bh/GOV/i/t/v", "BHR/GOV/i/t/v", "B1/GOV/i/t/v", "ب/GOV/i/t/v",
		"BH/GOV/i/../v", "BH/GOV/i/%2e%2e/v", "BH/GOV/i/%2E/v", "BH/GOV/i/./v", "BH/GOV/..%2fi/t/v",
		"BH/GOV/i%2Fj/t/v", "BH/GOV/i%252Fj/t/v", "BH/GOV/i/t/%", "BH/GOV/i/t/%4", "BH/GOV/i/t/%zz",
		"BH/GOV/i/t/v%00", "BH/GOV/i/t/v%0d%0a", "BH/GOV/i/t/a b", "BH/GOV/i/t/a%20b", "BH/GOV/i/t/a:b", "BH/GOV/i/t/a_b", "BH/GOV/i/t/a\\b",
		"BH/GOV/i/t/v;w", "BH/GOV/i/t/%D8%A8", "BH/GOV/i/t/%ff", "BH/GOV/i/t/\xff",
		"BH/GOV/i/t/" + strings.Repeat("a", union.MaxPart+1), "BH/GOV/i/t/" + strings.Repeat("%41", union.MaxPart+1), strings.Repeat("/", 1<<20),
	} {
		id, err := union.ParseService(in)
		if !errors.Is(err, union.ErrIdentifier) {
			t.Errorf("%.40q: %+v, %v", in, id, err)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%.40q: an error of %d bytes", in, len(err.Error()))
		}
	}
	if _, err := union.ParseService("BH/GOV/i/t/" + strings.Repeat("%41", union.MaxPart)); err != nil {
		t.Errorf("the greatest part: %v", err)
	}
}

func TestParseClient(t *testing.T) {
	three, err := union.ParseClient("BH/GOV/interior")
	if err != nil || three.Subsystem != "" || three.String() != "BH/GOV/interior" {
		t.Errorf("%+v %v", three, err)
	}
	four, err := union.ParseClient("BH/GOV/interior/traffic")
	if err != nil || four.Subsystem != "traffic" || four.String() != "BH/GOV/interior/traffic" {
		t.Errorf("%+v %v", four, err)
	}
	for _, in := range []string{"BH/GOV", "BH/GOV/i/t/v", "BH/GOV/i/"} {
		if _, err := union.ParseClient(in); !errors.Is(err, union.ErrIdentifier) {
			t.Errorf("%q: %v", in, err)
		}
	}
	if _, err := union.ParseSubsystem("BH/GOV/interior"); err == nil {
		t.Error("a subsystem of three parts")
	}
	if _, err := union.ParseMember("BH/GOV/interior/traffic"); err == nil {
		t.Error("a member of four parts")
	}
}

const alphabet = "ABCXYZabcxyz019'()+,-.=?"

func parts(t *rapid.T, n int) []string {
	return rapid.SliceOfN(rapid.StringOfN(rapid.SampledFrom([]rune(alphabet)), 1, 40, -1).Filter(func(s string) bool {
		return s != "." && s != ".."
	}), n, n).Draw(t, "parts")
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := parts(t, 4)
		id := union.ServiceID{Service: p[3]}
		id.State, id.Class, id.Code, id.Subsystem = "OM", p[0], p[1], p[2]
		if got, err := union.ParseService(id.String()); err != nil || got != id {
			t.Fatalf("service %q: %+v, %v", id, got, err)
		}
		if got, err := union.ParseSubsystem(id.SubsystemID.String()); err != nil || got != id.SubsystemID {
			t.Fatalf("subsystem %q: %+v, %v", id.SubsystemID, got, err)
		}
		if got, err := union.ParseMember(id.MemberID.String()); err != nil || got != id.MemberID {
			t.Fatalf("member %q: %+v, %v", id.MemberID, got, err)
		}
		// As a URL path between other segments, and as a JSON object's key.
		if strings.Count(id.String(), "/") != 4 || strings.ContainsAny(id.String(), "?#; \r\n") {
			t.Fatalf("%q is not safe in a path", id)
		}
	})
}

func TestJSON(t *testing.T) {
	type doc struct {
		Member  union.MemberID
		Client  union.SubsystemID
		Service union.ServiceID
		By      map[union.ServiceID]int
	}
	var in doc
	in.Client.State, in.Client.Class, in.Client.Code = "QA", "GOV", "m"
	in.By = map[union.ServiceID]int{}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Member":"","Client":"QA/GOV/m","Service":"","By":{}}`; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	out := doc{Service: union.ServiceID{Service: "leftover"}}
	if err := json.Unmarshal(b, &out); err != nil || out.Member != in.Member || out.Client != in.Client || out.Service != in.Service {
		t.Errorf("%+v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"Service":"//"}`), &out); err == nil {
		t.Error("// is no service")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"BH/GOV/interior/traffic/violations", "BH/GOV/i", "BH/GOV/i/t", "%42H/G/%3F/a/b", "BH/../i/%2e%2e/%2f", "//", "%", "BH/G/i/t/\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := union.ParseService(s); err == nil {
			if again, err := union.ParseService(id.String()); err != nil || again != id {
				t.Errorf("service %q: %+v then %+v, %v", s, id, again, err)
			}
			for _, p := range []string{string(id.State), id.Class, id.Code, id.Subsystem, id.Service} {
				if p == "" || p == "." || p == ".." || strings.ContainsAny(p, "/\\\x00\r\n %") {
					t.Errorf("%q: part %q", s, p)
				}
			}
		}
		if id, err := union.ParseClient(s); err == nil {
			if again, err := union.ParseClient(id.String()); err != nil || again != id {
				t.Errorf("client %q: %+v then %+v, %v", s, id, again, err)
			}
		}
	})
}
