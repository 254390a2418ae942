package definition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func format(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("service-1.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("service-1.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// judge tells what the schema and Read say of a file that is given as JSON.
func judge(t *testing.T, s *jsonschema.Schema, file any) (text []byte, schema, read error) {
	t.Helper()
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	_, read = Read(text)
	return text, s.Validate(plain), read
}

// TestSchemaAgrees changes a definition everywhere: what the schema refuses,
// Read or Lint refuses, and what is of another shape, both do.
func TestSchemaAgrees(t *testing.T) {
	s := format(t)
	for _, name := range []string{"testdata/loan.yaml", "../../services/residence/residence.yaml"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var file any
		if err := yaml.Unmarshal(b, &file); err != nil {
			t.Fatal(err)
		}
		if _, schema, read := judge(t, s, file); schema != nil || read != nil {
			t.Fatalf("%s: the schema says %v, Read says %v", name, schema, read)
		}
		if !strings.Contains(name, "testdata") {
			continue // the small one is enough to break
		}
		n := 0
		change(file, "", func(what string, shape bool) {
			if n++; n%8 != 0 {
				return // all of them take too long for every day
			}
			text, schema, read := judge(t, s, file)
			switch {
			case shape && (schema == nil || read == nil):
				t.Errorf("%s: the schema says %v, Read says %v", what, schema, read)
			case schema != nil && read == nil:
				d, _ := Read(text)
				if found, _ := Lint(d); !slices.ContainsFunc(found, func(f Finding) bool { return f.Severity == Error }) {
					t.Errorf("%s: the schema says %v, and nobody else minds", what, schema)
				}
			}
		})
	}
}

// change changes one thing of a tree at a time: a member more, one fewer, and
// a value of another type.
func change(v any, path string, try func(what string, shape bool)) {
	switch v := v.(type) {
	case map[string]any:
		if _, named := v["start"]; named || strings.Count(path, ".") <= 1 && path != "" || v["branches"] != nil || v["to"] != nil || v["title"] != nil {
			v["unheard of"] = "x"
			try(path+" with a member more", true)
			delete(v, "unheard of")
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			at, was := path+"."+k, v[k]
			if k == "schema" {
				continue // of a fact, which Compile looks at
			}
			delete(v, k)
			try("without "+at, false)
			v[k] = []any{map[string]any{"x": []any{}}}
			try(at+" of another type", true)
			v[k] = was
			change(was, at, try)
		}
	case []any:
		for i, was := range v {
			at := fmt.Sprintf("%s[%d]", path, i)
			v[i] = []any{map[string]any{"x": []any{}}}
			try(at+" of another type", true)
			v[i] = was
			change(was, at, try)
		}
	}
}
