package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/falaj/falaj/internal/fault"
)

// declared reads the code constants from the source, so that a constant
// without an entry cannot hide.
func declared(t *testing.T) map[string]fault.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "catalogue.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]fault.Code{}
	for _, d := range file.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, spec := range gen.Specs {
			v := spec.(*ast.ValueSpec)
			if typ, ok := v.Type.(*ast.Ident); !ok || typ.Name != "Code" {
				continue
			}
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes[v.Names[0].Name] = fault.Code(s)
		}
	}
	if len(codes) < 40 {
		t.Fatalf("found only %d codes in catalogue.go", len(codes))
	}
	return codes
}

func TestEveryCodeHasOneEntry(t *testing.T) {
	seen := map[fault.Code]string{}
	for name, code := range declared(t) {
		if other, dup := seen[code]; dup {
			t.Errorf("%s and %s share the code %q", name, other, code)
		}
		seen[code] = name
		if got := fault.Lookup(code).Code; got != code {
			t.Errorf("%s (%q) has no entry", name, code)
		}
		if strings.ToLower(string(code)) != string(code) || strings.ContainsAny(string(code), " /_\"") {
			t.Errorf("%s: %q is not a lower-case dotted name", name, code)
		}
	}
	for _, e := range fault.All() {
		if _, ok := seen[e.Code]; !ok {
			t.Errorf("an entry for %q, which no constant declares", e.Code)
		}
	}
}

func TestTypeFitsStatus(t *testing.T) {
	for _, e := range fault.All() {
		name, isClient := strings.CutPrefix(e.Type, "Client.")
		if !isClient {
			side, rest, _ := strings.Cut(strings.TrimPrefix(e.Type, "Server."), ".")
			name = rest
			if side != "ClientProxy" && side != "ServerProxy" {
				t.Errorf("%s: type %q is none of X-Road's", e.Code, e.Type)
			}
		}
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r > 'z' || !unicode.IsLetter(r) }) {
			t.Errorf("%s: type %q has no plain name", e.Code, e.Type)
		}
		switch {
		case isClient && e.Status/100 != 4, !isClient && e.Status != 500 && e.Status != 503:
			t.Errorf("%s: type %q with status %d", e.Code, e.Type, e.Status)
		case strings.HasPrefix(string(e.Code), "request.") && isClient && e.Status != 400:
			t.Errorf("%s: an X-Road client expects 400, not %d", e.Code, e.Status)
		}
	}
}

func TestBothLanguages(t *testing.T) {
	texts := map[string]fault.Code{}
	for _, e := range fault.All() {
		for _, s := range []string{e.What.En, e.Do.En} {
			if len(s) < 10 || !strings.HasSuffix(s, ".") || strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Arabic, r) }) {
				t.Errorf("%s: English text %q", e.Code, s)
			}
		}
		for _, s := range []string{e.What.Ar, e.Do.Ar} {
			if !strings.HasSuffix(s, ".") || !mostlyArabic(s) {
				t.Errorf("%s: Arabic text %q", e.Code, s)
			}
		}
		for _, s := range []string{e.What.En, e.What.Ar} {
			if other, dup := texts[s]; dup {
				t.Errorf("%s and %s say the same: %q", e.Code, other, s)
			}
			texts[s] = e.Code
		}
	}
}

// mostlyArabic allows for names of headers and commands, which stay Latin.
func mostlyArabic(s string) bool {
	arabic, other := 0, 0
	for _, r := range s {
		switch {
		case unicode.Is(unicode.Arabic, r):
			arabic++
		case unicode.IsLetter(r):
			other++
		}
	}
	return arabic >= 8 && arabic > other
}

func TestXRoad(t *testing.T) {
	e := fault.Wrap(fault.PeerUnreachable, errors.New("secret cause"), "state %s", "SA")
	var got map[string]string
	if err := json.Unmarshal(e.XRoad(), &got); err != nil {
		t.Fatal(err)
	}
	want := e.Message()
	for k, v := range map[string]string{
		"type": "Server.ClientProxy.NetworkError", "detail": e.ID, "code": "peer.unreachable",
		"message": want.En, "message_ar": want.Ar,
	} {
		if got[k] != v {
			t.Errorf("%s = %q, want %q", k, got[k], v)
		}
	}
	if len(got) != 5 {
		t.Errorf("%d members: %v", len(got), got)
	}
	if !strings.HasSuffix(got["message"], " (state SA)") || !strings.HasSuffix(got["message_ar"], " (\u2066state SA\u2069)") {
		t.Errorf("the detail is missing: %q, %q", got["message"], got["message_ar"])
	}
	if strings.Contains(string(e.XRoad())+string(e.Problem()), "secret") {
		t.Error("the cause is shown")
	}
}

// TestArabicDetail: a detail that is a sentence is said in both languages.
func TestArabicDetail(t *testing.T) {
	e := fault.New(fault.PolicyDenied, "no rule").Arabic("لا %s", "قاعدة")
	if m := e.Message(); !strings.HasSuffix(m.En, " (no rule)") || !strings.HasSuffix(m.Ar, " (لا قاعدة)") {
		t.Errorf("%+v", m)
	}
	var got map[string]any
	if err := json.Unmarshal(e.Problem(), &got); err != nil || got["detail"] != "no rule" || got["detail_ar"] != "لا قاعدة" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestProblem(t *testing.T) {
	e := fault.New(fault.NotFound, "no record %d", 7)
	var got struct {
		Type, Title, Detail, Instance, Code, Action string
		TitleAr                                     string `json:"title_ar"`
		ActionAr                                    string `json:"action_ar"`
		Status                                      int
	}
	if err := json.Unmarshal(e.Problem(), &got); err != nil {
		t.Fatal(err)
	}
	entry := e.Entry()
	if got.Type != "urn:falaj:fault:not-found" || got.Status != 404 || got.Code != "not-found" || got.Detail != "no record 7" ||
		got.Instance != "urn:uuid:"+e.ID || got.Title != entry.What.En || got.TitleAr != entry.What.Ar ||
		got.Action != entry.Do.En || got.ActionAr != entry.Do.Ar {
		t.Errorf("%s", e.Problem())
	}
}

func TestHostileDetail(t *testing.T) {
	for _, detail := range []string{
		"a\r\nX-Injected: 1", "\x1b[31mred", "\u202egnp.exe", "\xff\xfe\xff", strings.Repeat("ش", 4000), strings.Repeat("\x80", 4000), "\u2069 out",
	} {
		e := &fault.Error{Code: fault.BadHeader, Detail: detail, ID: "x"}
		for _, b := range [][]byte{e.XRoad(), e.Problem()} {
			var m map[string]any
			if err := json.Unmarshal(b, &m); err != nil {
				t.Errorf("%q: %v", detail, err)
			}
			if len(b) > 8192 {
				t.Errorf("%.10q: %d bytes", detail, len(b))
			}
		}
		if m := e.Message(); strings.ContainsAny(m.En, "\r\n\x1b\u202e\u2069") || strings.Count(m.Ar, "\u2069") != 1 {
			t.Errorf("%q survives: %q", detail, m)
		}
	}
}

func TestFrom(t *testing.T) {
	denied := fault.New(fault.PolicyDenied, "")
	for _, c := range []struct {
		err  error
		want fault.Code
	}{
		{nil, ""},
		{denied, fault.PolicyDenied},
		{fmt.Errorf("calling: %w", denied), fault.PolicyDenied},
		{fmt.Errorf("calling: %w", context.DeadlineExceeded), fault.Timeout},
		{context.Canceled, fault.Timeout},
		{errors.New("anything"), fault.Internal},
	} {
		if got := fault.CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %q, want %q", c.err, got, c.want)
		}
	}
	if !errors.Is(fmt.Errorf("x: %w", denied), &fault.Error{Code: fault.PolicyDenied}) || errors.Is(denied, &fault.Error{Code: fault.Timeout}) {
		t.Error("errors.Is does not match by code")
	}
	if e := fault.New("no.such", ""); e.Entry().Code != fault.Internal || !json.Valid(e.XRoad()) {
		t.Error("an unknown code should read as internal")
	}
}
