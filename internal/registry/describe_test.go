package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/falaj/falaj/internal/registry"
)

type schema struct {
	Ref        string `json:"$ref"`
	Type       string
	Format     string
	Pattern    string
	Enum       []any
	Required   []string
	Properties map[string]schema
	Additional *bool `json:"additionalProperties"`
	Items      *schema
	Minimum    *float64
	MinLength  int
	MaxLength  int
}

type media map[string]struct{ Schema schema }

type operation struct {
	OperationID string `json:"operationId"`
	Tags        []string
	Summary     string
	Parameters  []struct{ Name, In string }
	RequestBody *struct{ Content media } `json:"requestBody"`
	Responses   map[string]struct {
		Description string
		Headers     map[string]any
		Content     media
	}
}

type openAPI struct {
	OpenAPI    string `json:"openapi"`
	Info       struct{ Title, Version, Description string }
	Simulator  bool   `json:"x-simulator"`
	State      string `json:"x-state"`
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]schema }
}

// check holds a value against a schema: as much of JSON Schema as the
// description uses.
func (d openAPI) check(s schema, v any, at string) error {
	if s.Ref != "" {
		name := strings.TrimPrefix(s.Ref, "#/components/schemas/")
		to, ok := d.Components.Schemas[name]
		if !ok {
			return fmt.Errorf("%s: no schema %q", at, s.Ref)
		}
		return d.check(to, v, at)
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		return fmt.Errorf("%s: %v is none of %v", at, v, s.Enum)
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Type != "object" || s.Additional == nil || *s.Additional {
			return fmt.Errorf("%s: an object where %q is described", at, s.Type)
		}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("%s: %s is missing", at, name)
			}
		}
		for name, member := range v {
			p, ok := s.Properties[name]
			if !ok {
				return fmt.Errorf("%s: %s is not described", at, name)
			}
			if err := d.check(p, member, at+"."+name); err != nil {
				return err
			}
		}
	case []any:
		if s.Type != "array" {
			return fmt.Errorf("%s: an array where %q is described", at, s.Type)
		}
		for i, item := range v {
			if err := d.check(*s.Items, item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case string:
		n := utf8.RuneCountInString(v)
		if s.Type != "string" || n < s.MinLength || s.MaxLength > 0 && n > s.MaxLength || s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) {
			return fmt.Errorf("%s: %q does not fit %+v", at, v, s)
		}
		if layout := map[string]string{"date": "2006-01-02", "date-time": time.RFC3339}[s.Format]; layout != "" {
			if _, err := time.Parse(layout, v); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
		}
	case float64:
		if s.Type != "integer" || v != math.Trunc(v) || s.Minimum != nil && v < *s.Minimum {
			return fmt.Errorf("%s: %v does not fit %+v", at, v, s)
		}
	case bool:
		if s.Type != "boolean" {
			return fmt.Errorf("%s: a boolean where %q is described", at, s.Type)
		}
	default:
		return fmt.Errorf("%s: %v", at, v)
	}
	return nil
}

func TestDescriptionMatchesBehaviour(t *testing.T) {
	for _, st := range states() {
		r := open(t, st)
		for _, k := range append(registry.Kinds(), registry.All) {
			t.Run(fmt.Sprint(st, " ", k), func(t *testing.T) {
				h := r.Handler(k)
				d := get[openAPI](t, h, "/openapi.json")
				if d.OpenAPI != "3.0.3" || !d.Simulator || d.State != string(st) || !strings.Contains(d.Info.Title, "simulator") ||
					!strings.Contains(d.Info.Title, "محاكٍ") || !strings.HasPrefix(d.Info.Description, "A SIMULATOR") {
					t.Errorf("%+v", d.Info)
				}
				asked := 0
				for path, item := range d.Paths {
					for method, op := range item {
						asked += ask(t, d, r, h, path, strings.ToUpper(method), op)
					}
				}
				if want := map[registry.Kind]int{registry.Persons: 4, registry.Vehicles: 7, registry.Companies: 3, registry.All: 12}[k]; asked != want {
					t.Errorf("%d operations, want %d", asked, want)
				}
			})
		}
	}
}

// ask makes a good and a bad request of an operation, and holds the answers
// against the description.
func ask(t *testing.T, d openAPI, r *registry.Registry, h http.Handler, path, method string, op operation) int {
	t.Helper()
	if op.OperationID == "" || op.Summary == "" || len(op.Tags) != 1 {
		t.Errorf("%s %s is not described: %+v", method, path, op)
	}
	plate := strings.TrimPrefix(r.Samples(registry.Vehicles, 1)[0], "/vehicles/")
	number := strings.TrimPrefix(r.Samples(registry.Persons, 1)[0], "/persons/")
	good := strings.NewReplacer("/notices/{id}", "/notices/none", "/persons/{id}", "/persons/"+number, "/companies/{id}", r.Samples(registry.Companies, 1)[0],
		"{plate}", url.PathEscape(plate)).Replace(path)
	bad := strings.NewReplacer("{id}", "x", "{plate}", "x").Replace(path)
	query := url.Values{}
	for _, p := range op.Parameters {
		if p.In == "query" {
			query.Set(p.Name, map[string]string{"offset": "0", "limit": "100", "name": "محمد", "born": "1990-01-01", "holder": number, "owner": number}[p.Name])
			if query.Get(p.Name) == "" {
				t.Errorf("%s %s: parameter %s is unknown to this test", method, path, p.Name)
			}
		}
	}
	body := map[string]string{
		"putVehicleAddress": `{"address":{"en":"x","ar":"س"}}`,
		"postNotice":        `{"plate":"` + plate + `","code":"c","text":{"en":"x","ar":"س"},"at":"2026-03-01T12:00:00Z","fine":{"minor":1,"currency":"BHD"}}`,
		"checkResident":     `{"residence_number":"` + number + `","name":"x","birth":"1990-01-01"}`,
	}[op.OperationID]
	if op.RequestBody != nil {
		var v any
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatal(err)
		}
		if err := d.check(op.RequestBody.Content["application/json"].Schema, v, "request"); err != nil {
			t.Errorf("%s %s: %v", method, path, err)
		}
	}
	targets := []string{good, bad}
	if len(query) > 0 {
		targets = append(targets, good+"?"+query.Encode(), good+"?unknown=1", good+"?offset=0&limit=7")
	}
	for _, target := range targets {
		w := call(t, h, method, target, body)
		answer, ok := op.Responses[fmt.Sprint(w.Code)]
		if !ok {
			t.Errorf("%s %s: status %d is not described", method, target, w.Code)
			continue
		}
		content, ok := answer.Content[w.Header().Get("Content-Type")]
		if !ok {
			t.Errorf("%s %s: type %q is not described", method, target, w.Header().Get("Content-Type"))
		}
		var v any
		if err := json.NewDecoder(bytes.NewReader(w.Body.Bytes())).Decode(&v); err != nil {
			t.Fatal(err)
		}
		if err := d.check(content.Schema, v, "answer"); err != nil {
			t.Errorf("%s %s: %v", method, target, err)
		}
		for name := range w.Header() {
			if _, ok := answer.Headers[name]; !ok && !slices.Contains([]string{"Content-Type", "Content-Length"}, name) {
				t.Errorf("%s %s: header %s is not described", method, target, name)
			}
		}
	}
	return 1
}
