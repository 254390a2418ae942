package registry

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// description is the OpenAPI description of all registers.
//
//go:embed openapi.json
var description []byte

// describe gives the description of what a handler serves: operations of other
// registers, and the schemas that they alone use, are left out.
func (r *Registry) describe(k Kind) ([]byte, error) {
	var doc struct {
		OpenAPI    string                                `json:"openapi"`
		Info       map[string]any                        `json:"info"`
		Simulator  bool                                  `json:"x-simulator"`
		State      string                                `json:"x-state"`
		Servers    []map[string]string                   `json:"servers"`
		Tags       []map[string]string                   `json:"tags"`
		Paths      map[string]map[string]json.RawMessage `json:"paths"`
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(description, &doc); err != nil {
		return nil, fmt.Errorf("read the description: %w", err)
	}
	names := map[Kind][2]string{
		Persons: {"Persons", "الأشخاص"}, Vehicles: {"Vehicles", "المركبات"}, Companies: {"Companies", "الشركات"}, All: {"All registers", "جميع السجلات"},
	}
	c, _ := countryOf(r.state)
	doc.State = string(r.state)
	doc.Info["title"] = fmt.Sprintf("%s, %s (simulator) / %s، %s (محاكٍ)", names[k][0], c.name.En, names[k][1], c.name.Ar)
	doc.Servers = []map[string]string{{"url": "/"}}
	var tags []map[string]string
	for _, tag := range doc.Tags {
		if serves(k, tag["name"]) {
			tags = append(tags, tag)
		}
	}
	doc.Tags = tags
	var used strings.Builder
	for path, item := range doc.Paths {
		for method, raw := range item {
			var op struct {
				Tags []string `json:"tags"`
			}
			if err := json.Unmarshal(raw, &op); err != nil {
				return nil, fmt.Errorf("read the description of %s %s: %w", method, path, err)
			}
			if !serves(k, op.Tags[0]) {
				delete(item, method)
				continue
			}
			used.Write(raw)
		}
		if len(item) == 0 {
			delete(doc.Paths, path)
		}
	}
	keep := map[string]bool{}
	for text := used.String(); text != ""; {
		var more strings.Builder
		for name, raw := range doc.Components.Schemas {
			if !keep[name] && strings.Contains(text, `"#/components/schemas/`+name+`"`) {
				keep[name] = true
				more.Write(raw)
			}
		}
		text = more.String()
	}
	for name := range doc.Components.Schemas {
		if !keep[name] {
			delete(doc.Components.Schemas, name)
		}
	}
	return json.Marshal(doc)
}

func serves(k Kind, tag string) bool { return k == All || tag == "operation" || tag == string(k) }
