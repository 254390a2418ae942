package definition

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/falaj/falaj/internal/union"
)

// Limits of what a fact's schema may let in.
const (
	maxLength     = 20_000 // characters of a text
	maxItems      = 1_000
	maxProperties = 200
	maxSchema     = 6   // schemas in one another
	maxPattern    = 500 // bytes of a regular expression
	maxMachine    = 500 // instructions that it becomes: each may be tried at each character
)

// keywords are those of JSON Schema 2020-12 that a fact's schema may use, by
// the JSON type that it stands for: few enough that each value has a greatest
// size, and that a portal can show a field for each. x-labels gives the values
// of an enum their texts.
var keywords = map[string][]string{
	"string":  {"minLength", "maxLength", "pattern", "enum", "const", "x-labels"},
	"integer": {"minimum", "maximum", "multipleOf", "enum", "const", "x-labels"},
	"boolean": {"const"},
	"object":  {"properties", "required", "additionalProperties", "maxProperties", "minProperties"},
	"array":   {"items", "minItems", "maxItems", "uniqueItems"},
}

// jsonType is what a type's values are in JSON.
func (t Type) jsonType() string {
	switch t {
	case Text, Instant, Date:
		return "string"
	case Whole:
		return "integer"
	case Truth:
		return "boolean"
	case Money, Object:
		return "object"
	case List:
		return "array"
	}
	return ""
}

// fact checks a fact's type and schema.
func (c *checker) fact(at string, f Fact) {
	switch f.Type {
	case Text, Whole, Truth, Object, List:
		c.schema(at+".schema", f.Type.jsonType(), f.Schema, 1)
	case Instant, Date:
		if len(f.Schema) > 0 {
			c.add(at+".schema", "a fact of type %s has no schema beside its type", f.Type)
		}
	case Money:
		c.moneySchema(at+".schema", f.Schema)
	default:
		c.add(at+".type", "%q is no type: text, whole, truth, instant, date, money, object or list", clip(string(f.Type), 40))
	}
}

// moneySchema lets bounds of the amount and the currencies be said.
func (c *checker) moneySchema(at string, s map[string]any) {
	for key := range s {
		if key != "properties" {
			c.add(at+"."+key, "an amount's schema has properties alone: minor and currency")
		}
	}
	properties, _ := s["properties"].(map[string]any)
	for key, v := range properties {
		sub, ok := v.(map[string]any)
		switch {
		case ok && key == "minor":
			c.schema(at+".properties.minor", "integer", sub, 2)
		case ok && key == "currency":
			list, ok := sub["enum"].([]any)
			if !ok || len(sub) > 1 {
				c.add(at+".properties.currency", "list the currencies: enum: [BHD, AED]")
			}
			for _, v := range list {
				if name, _ := v.(string); !slices.Contains(union.Currencies(), union.Currency(name)) {
					c.add(at+".properties.currency.enum", "the currencies are %v", union.Currencies())
				}
			}
		default:
			c.add(at+".properties."+key, "an amount has minor and currency alone")
		}
	}
}

// schema checks one schema: that it uses what is read here, and lets nothing
// in that has no greatest size. Numbers in it become int64.
func (c *checker) schema(at, kind string, s map[string]any, depth int) {
	if depth > maxSchema {
		c.add(at, "more than %d schemas in one another", maxSchema)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if key == "type" && depth > 1 {
			continue
		}
		if !slices.Contains(keywords[kind], key) {
			c.add(at+"."+key, "%q says nothing here that is understood of a %s: there are %v", clip(key, 40), kind, keywords[kind])
			return
		}
		s[key] = whole(s[key])
		if err := keyword(key, s[key]); err != "" {
			c.add(at+"."+key, "%s", err)
			return
		}
	}
	_, enum := s["enum"]
	_, constant := s["const"]
	switch kind {
	case "string":
		if !bounded(s["maxLength"], maxLength) && !enum && !constant {
			c.add(at, "a text needs its bound: maxLength, at most %d, or enum", maxLength)
		}
		c.labels(at, s)
	case "integer":
		c.labels(at, s)
	case "array":
		if !bounded(s["maxItems"], maxItems) {
			c.add(at, "a list needs its bound: maxItems, at most %d", maxItems)
		}
		c.inner(at+".items", s["items"], depth)
	case "object":
		properties, _ := s["properties"].(map[string]any)
		if len(properties) > maxProperties {
			c.add(at+".properties", "more than %d", maxProperties)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(properties)) {
			c.inner(at+".properties."+name, properties[name], depth)
		}
		switch more := s["additionalProperties"].(type) {
		case nil, bool:
			if more == true {
				c.add(at+".additionalProperties", "say what they are, or leave it out")
			}
			if len(properties) == 0 {
				c.add(at, "an object needs its properties")
			}
			s["additionalProperties"] = false
		default:
			if !bounded(s["maxProperties"], maxProperties) {
				c.add(at, "an object with other properties needs its bound: maxProperties, at most %d", maxProperties)
			}
			c.inner(at+".additionalProperties", more, depth)
		}
	}
}

// inner checks a schema in a schema: it says its own type.
func (c *checker) inner(at string, v any, depth int) {
	s, _ := v.(map[string]any)
	kind, _ := s["type"].(string)
	if keywords[kind] == nil {
		c.add(at, "say its type: string, integer, boolean, object or array (fractions are not taken)")
		return
	}
	c.schema(at, kind, s, depth+1)
}

// labels checks that x-labels names values of the enum, in both languages.
func (c *checker) labels(at string, s map[string]any) {
	labels, ok := s["x-labels"].(map[string]any)
	if !ok {
		return
	}
	values, _ := s["enum"].([]any)
	for value, l := range labels {
		text, _ := l.(map[string]any)
		en, _ := text["en"].(string)
		ar, _ := text["ar"].(string)
		if en == "" || ar == "" || len(text) != 2 {
			c.add(at+".x-labels."+value, "a label is a text in both languages: en and ar")
		}
		if !slices.ContainsFunc(values, func(v any) bool { return fmt.Sprint(v) == value }) {
			c.add(at+".x-labels."+value, "%s is no value of enum", clip(value, 80))
		}
	}
}

// keyword says what is wrong with a keyword's value, "" where nothing is.
func keyword(key string, v any) string {
	switch key {
	case "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties":
		if n, ok := v.(int64); !ok || n < 0 {
			return "wanted a whole number from 0 on"
		}
	case "minimum", "maximum":
		if _, ok := v.(int64); !ok {
			return "wanted a whole number"
		}
	case "multipleOf":
		if n, ok := v.(int64); !ok || n < 1 {
			return "wanted a whole number from 1 on"
		}
	case "pattern":
		s, ok := v.(string)
		if !ok || len(s) > maxPattern {
			return fmt.Sprintf("wanted a regular expression of at most %d bytes", maxPattern)
		}
		if _, err := regexp.Compile(s); err != nil {
			return "wanted a regular expression as RE2 reads it"
		}
		if instructions(s) > maxMachine {
			return "the regular expression is too large: repeat less in it"
		}
	case "enum", "required":
		list, ok := v.([]any)
		if !ok || len(list) == 0 || len(list) > maxItems {
			return fmt.Sprintf("wanted a list of 1 to %d values", maxItems)
		}
		for _, e := range list {
			switch e := e.(type) {
			case string:
				if len(e) > maxLength {
					return "too long a value"
				}
			case int64:
				if key == "required" {
					return "wanted names"
				}
			default:
				return "wanted texts or whole numbers"
			}
		}
	case "const":
		switch v.(type) {
		case string, int64, bool:
		default:
			return "wanted a text, a whole number or a truth"
		}
	case "uniqueItems":
		if _, ok := v.(bool); !ok {
			return "wanted true or false"
		}
	case "properties", "x-labels":
		if _, ok := v.(map[string]any); !ok {
			return "wanted a mapping"
		}
	}
	return ""
}

// instructions is how large a program a regular expression becomes.
func instructions(pattern string) int {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return math.MaxInt
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return math.MaxInt
	}
	return len(prog.Inst)
}

func bounded(v any, most int64) bool {
	n, ok := v.(int64)
	return ok && n <= most
}

// whole makes numbers of YAML int64 where they fit, in lists as well.
func whole(v any) any {
	switch v := v.(type) {
	case int:
		return int64(v)
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v)
		}
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	}
	return v
}

// factSchema is the whole JSON Schema of a fact's value: what its type says,
// and what the definition says beside it.
func factSchema(f Fact) map[string]any {
	s := map[string]any{"type": f.Type.jsonType()}
	switch f.Type {
	case Instant:
		s["format"] = "date-time"
	case Date:
		s["format"] = "date"
	case Money:
		minor := map[string]any{"type": "integer"}
		known := []any{}
		for _, c := range union.Currencies() {
			known = append(known, string(c))
		}
		currency := map[string]any{"type": "string", "enum": known}
		if said, ok := f.Schema["properties"].(map[string]any); ok {
			for key, into := range map[string]map[string]any{"minor": minor, "currency": currency} {
				if more, ok := said[key].(map[string]any); ok {
					maps.Copy(into, more)
				}
			}
		}
		s["properties"] = map[string]any{"minor": minor, "currency": currency}
		s["required"] = []any{"minor", "currency"}
		s["additionalProperties"] = false
		return s
	}
	maps.Copy(s, f.Schema)
	return s
}

// compileSchema compiles a schema that names no other one.
func compileSchema(name string, s map[string]any) (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("fact:"+name, s); err != nil {
		return nil, err
	}
	return c.Compile("fact:" + name)
}
