package directory_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// full is a union whose documents have something in every field.
func full(t testing.TB) *directorytest.Union {
	t.Helper()
	return directorytest.New(t, four[:2], func(s union.State, e *directory.Edition) {
		sub := union.SubsystemID{MemberID: union.MemberID{State: s, Class: "GOV", Code: "interior"}, Subsystem: "traffic"}
		client := sub
		client.State = "KW"
		e.Files["openapi/vehicles.json"] = []byte(`{"openapi":"3.0.3"}`)
		e.Policy = `@id("all") @en("All") @ar("الكل") permit(principal, action, resource);`
		e.Members[0].Subsystems = []directory.Subsystem{{Code: "traffic", Name: directorytest.Text("Traffic"), Services: []directory.Service{{
			Code: "vehicles", Name: directorytest.Text("Vehicles"), OpenAPI: "openapi/vehicles.json",
			Endpoints: []policy.Endpoint{{Method: "GET", Path: "/vehicles/{plate}"}, {Method: "*", Path: "/open/**"}},
			TimeoutMS: 5000, Retention: "exchange", DataClass: "personal", Idempotent: true, Async: true, DigestOnly: true,
		}}}}
		e.Agreements = []directory.Agreement{{
			Agreement: policy.Agreement{
				ID: "a-1", Client: client, Service: union.ServiceID{SubsystemID: sub, Service: "vehicles"},
				Purposes: []string{"traffic"}, From: directorytest.Start(), Until: directorytest.Start().AddDate(1, 0, 0), Basis: directorytest.Text("Agreement"),
			},
			DefaultPurpose: "traffic",
		}}
	})
}

func TestView(t *testing.T) {
	u := full(t)
	v := u.Dirs["SA"].View()
	sub := union.SubsystemID{MemberID: union.MemberID{State: "BH", Class: "GOV", Code: "interior"}, Subsystem: "traffic"}
	id := union.ServiceID{SubsystemID: sub, Service: "vehicles"}
	s, ok := v.Service(id)
	if !ok || s.ID != id || s.Timeout().Seconds() != 5 || !s.Idempotent || !s.Async || !s.DigestOnly || len(s.Endpoints) != 2 {
		t.Errorf("service %+v %v", s, ok)
	}
	if b, ok := v.OpenAPI(id); !ok || !strings.Contains(string(b), "3.0.3") {
		t.Errorf("description %s %v", b, ok)
	}
	client := sub
	client.State = "KW"
	if p, ok := v.DefaultPurpose(client, id); !ok || p != "traffic" {
		t.Errorf("default purpose %q %v", p, ok)
	}
	if len(v.Agreements()) != 2 || len(v.Policies()) != 2 || v.Policies()[0].Name != "BH/policy.cedar" {
		t.Errorf("agreements %v, policies %v", v.Agreements(), v.Policies())
	}
	for _, missing := range []union.State{"EG"} {
		if _, ok := v.State(missing); ok {
			t.Error("a state that is not there")
		}
		id.State = missing
		if _, ok := v.Service(id); ok {
			t.Error("a service that is not there")
		}
		if _, ok := v.OpenAPI(id); ok {
			t.Error("a description that is not there")
		}
		if _, ok := v.File(missing, "crl.der"); ok {
			t.Error("a file that is not there")
		}
	}
	// A description that no service names any more goes.
	must(t, u.Dirs["BH"].Publish(t.Context(), func(e *directory.Edition) error {
		e.Members[0].Subsystems, e.Agreements = nil, nil
		return nil
	}))
	if _, ok := u.Dirs["BH"].View().File("BH", "openapi/vehicles.json"); ok {
		t.Error("the description stays")
	}
}

// change puts a value into a JSON document at a path like members.0.code;
// nil takes it away.
func change(t testing.TB, doc []byte, path string, value any) []byte {
	t.Helper()
	var root any
	must(t, json.Unmarshal(doc, &root))
	steps := strings.Split(path, ".")
	at := root
	for _, s := range steps[:len(steps)-1] {
		switch v := at.(type) {
		case map[string]any:
			at = v[s]
		case []any:
			at = v[s[0]-'0']
		}
	}
	m, last := at.(map[string]any), steps[len(steps)-1]
	if m == nil {
		t.Fatalf("nothing at %s", path)
	}
	if m[last] = value; value == nil {
		delete(m, last)
	}
	b, err := json.Marshal(root)
	must(t, err)
	return b
}

func TestStrictPart(t *testing.T) {
	files := full(t).Dirs["BH"].PartFiles("BH")
	whole := files["BH/state.json"]
	if _, err := directory.DecodePart(whole); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 2000)
	for _, tt := range []struct {
		path  string
		value any
		want  string
	}{
		{"extra", 1, "unknown"},
		{"members.0.extra", 1, "unknown"},
		{"State", "BH", "unknown"},
		{"state", "bh", "two capital letters"},
		{"state", nil, "two capital letters"},
		{"state", 7, "number"},
		{"members.0.code", "", "empty part"},
		{"members.0.code", "..", "path segment"},
		{"members.0.code", "a b", "character"},
		{"members.0.name.ar", nil, "missing in Arabic"},
		{"members.0.name.en", "", "missing in Arabic or English"},
		{"members.0.name.en", long, "over"},
		{"members.0.name", nil, "missing in Arabic"},
		{"members.0.seals", []any{"x"}, "PEM"},
		{"members.0.seals", []any{"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "certificate"},
		{"members.0.seals", []any{nil}, "missing"},
		{"members.0.subsystems.0.code", "a/b", "character"},
		{"members.0.subsystems.0.services.0.openapi", "../x.json", "openapi"},
		{"members.0.subsystems.0.services.0.openapi", "openapi/x.yaml", "openapi"},
		{"members.0.subsystems.0.services.0.timeout_ms", -1, "time-out"},
		{"members.0.subsystems.0.services.0.timeout_ms", 1e12, "time-out"},
		{"members.0.subsystems.0.services.0.endpoints", []any{map[string]any{"method": "get", "path": "/"}}, "method"},
		{"members.0.subsystems.0.services.0.endpoints", []any{map[string]any{"method": "GET", "path": "/a/../b"}}, "endpoint"},
		{"members.0.subsystems.0.services.0.retention", "", "retention"},
		{"members.0.subsystems.0.services.0.data_class", nil, "data class"},
		{"nodes.0.address", "nowhere", "host:port"},
		{"nodes.0.address", "host:0", "host:port"},
		{"nodes.0.address", ":1", "host:port"},
		{"nodes.0.name", "n/1", "node"},
		{"authorities.0.crl", "../crl.der", "CRL"},
		{"authorities.0.certificate", nil, "missing"},
		{"stamps", []any{map[string]any{"address": "file:///etc/passwd"}}, "http"},
		{"agreements.0.id", "", "agreement"},
		{"agreements.0.service", "SA/GOV/x/y/z", "serving state"},
		{"agreements.0.service", "BH/GOV", "parts"},
		{"agreements.0.default_purpose", "other", "default purpose"},
	} {
		_, err := directory.DecodePart(change(t, whole, tt.path, tt.value))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s = %v: %v, wanted %q", tt.path, tt.value, err, tt.want)
		}
	}
	for name, b := range map[string][]byte{
		"a name twice":       bytes.Replace(whole, []byte(`"state": "BH"`), []byte(`"state": "BH", "state": "BH"`), 1),
		"a member twice":     twice(t, whole, "members"),
		"a node twice":       twice(t, whole, "nodes"),
		"an agreement twice": twice(t, whole, "agreements"),
		"too long":           append(bytes.Clone(whole), bytes.Repeat([]byte(" "), 5<<20)...),
		"two documents":      append(bytes.Clone(whole), whole...),
		"not UTF-8":          bytes.Replace(whole, []byte(`Member interior`), []byte("Member \xff"), 1),
		"nothing":            nil,
	} {
		if _, err := directory.DecodePart(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func twice(t testing.TB, doc []byte, list string) []byte {
	t.Helper()
	var root map[string]any
	must(t, json.Unmarshal(doc, &root))
	l := root[list].([]any)
	root[list] = append(l, l[0])
	b, err := json.Marshal(root)
	must(t, err)
	return b
}

func TestStrictCharter(t *testing.T) {
	var whole []byte
	for name, b := range full(t).Dirs["BH"].Files() {
		if strings.HasSuffix(name, ".union.json") {
			whole = b
		}
	}
	for _, tt := range []struct {
		path  string
		value any
		want  string
	}{
		{"extra", 1, "unknown"},
		{"name", "", "name"},
		{"quorum", -1, "quorum"},
		{"purposes.0.name.ar", nil, "Arabic"},
		{"purposes.0.basis.en", nil, "Arabic or English"},
		{"purposes.0.code", "a b", "purpose"},
		{"purposes.0.code", "audit", "twice"},
		{"states.0.code", "B", "two capital"},
		{"states.0.code", "SA", "twice"},
		{"states.0.name.en", nil, "missing"},
	} {
		_, err := directory.DecodeCharter(change(t, whole, tt.path, tt.value))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s = %v: %v, wanted %q", tt.path, tt.value, err, tt.want)
		}
	}
}

func FuzzPart(f *testing.F) {
	for _, b := range full(f).Dirs["BH"].PartFiles("BH") {
		f.Add(b)
	}
	f.Add([]byte(`{"state":"BH","authorities":[],"nodes":[],"members":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := directory.DecodePart(b)
		if err != nil {
			return
		}
		// What is taken survives being written and read again.
		again, err := json.Marshal(p)
		must(t, err)
		if _, err := directory.DecodePart(again); err != nil {
			t.Errorf("%v\n%s", err, again)
		}
	})
}

func FuzzCharter(f *testing.F) {
	for name, b := range full(f).Dirs["BH"].Files() {
		if strings.HasSuffix(name, ".union.json") {
			f.Add(b)
		}
	}
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = directory.DecodeCharter(b) })
}

// FuzzRole reads what a state signed, before and after it is verified: a state
// must not be able to stop others' nodes.
func FuzzRole(f *testing.F) {
	for name, b := range full(f).Dirs["BH"].Files() {
		if strings.HasSuffix(name, ".BH.json") {
			f.Add(b)
		}
	}
	f.Add([]byte(`{"signed":{"_type":"targets","targets":{"BH/x":null}},"signatures":[]}`))
	f.Add([]byte(`{"signed":{"_type":"targets","delegations":{"keys":{"a":null}}},"signatures":[{}]}`))
	f.Fuzz(func(_ *testing.T, b []byte) { _ = directory.RoleFromBytes(b) })
}

// FuzzRelease puts hostile bytes in the place of each file of a release.
func FuzzRelease(f *testing.F) {
	u := full(f)
	files := u.Dirs["BH"].Files()
	names := []string{"timestamp.json", "1.snapshot.json", "1.targets.json", "1.BH.json", "2.root.json"}
	for i, n := range names {
		f.Add(uint8(i), files[n])
	}
	whole, err := files.Encode()
	must(f, err)
	f.Add(uint8(len(names)), whole)
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		d, err := directory.Open(t.Context(), directory.Config{Root: u.Root, Demonstration: true}, directory.Deps{Now: u.Now})
		must(t, err)
		if int(which) >= len(names) {
			_ = d.Take(t.Context(), b)
			return
		}
		files := maps.Clone(files)
		files[names[which]] = b
		if d.Offer(t.Context(), files["timestamp.json"], files) == nil && len(d.View().Problems()) != 0 {
			t.Errorf("taken with problems: %v", d.View().Problems())
		}
	})
}

func FuzzProposal(f *testing.F) {
	u := full(f)
	raw, err := u.Dirs["BH"].Forge(2, u.Now().Add(-time.Second), nil, online(u, "BH")...).Encode()
	must(f, err)
	f.Add(raw)
	f.Add([]byte(`{"files":{"timestamp.json":"{}","1.snapshot.json":"{}"}}`))
	f.Add([]byte(`{"files":{"a":"b"},"data":{"a":"Yg=="}}`))
	d := u.Dirs["SA"]
	f.Fuzz(func(t *testing.T, b []byte) {
		if reply, err := d.Cosign(t.Context(), b); err == nil || reply != nil || d.View().Version() != 1 {
			t.Errorf("it signed: version %d", d.View().Version())
		}
	})
}

func FuzzDraft(f *testing.F) {
	u := full(f)
	dr, err := u.Dirs["BH"].Draft()
	must(f, err)
	raw, err := dr.Encode()
	must(f, err)
	f.Add(raw)
	n, err := u.Enrol("SA", 2, nil).Encode()
	must(f, err)
	f.Add(n)
	f.Fuzz(func(_ *testing.T, b []byte) {
		if n, err := directory.DecodeEnrolment(b); err == nil {
			dr, err := u.Dirs["BH"].Draft()
			if err == nil {
				_ = dr.AddState(n)
			}
		}
		if dr, err := directory.DecodeDraft(b); err == nil {
			_ = dr.Ready()
			_, _, _ = dr.Votes()
		}
	})
}
