package node

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// description is what a service's OpenAPI description says that the directory
// wants to know.
type description struct {
	title     union.Text
	endpoints []policy.Endpoint
}

// maxDescription bounds a description, in bytes: the directory's own limit.
const maxDescription = 4 << 20

func readDescription(raw json.RawMessage) (description, error) {
	var d description
	if len(raw) == 0 {
		return d, nil
	}
	if len(raw) > maxDescription {
		return d, fault.New(fault.TooLarge, "a description of %d bytes; at most %d", len(raw), maxDescription)
	}
	var doc struct {
		OpenAPI string `json:"openapi"`
		Info    struct {
			Title   string `json:"title"`
			TitleAr string `json:"x-title-ar"`
		} `json:"info"`
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.") {
		return d, fault.New(fault.BadRequest, "the description is not OpenAPI 3 in JSON")
	}
	d.title = union.Text{En: doc.Info.Title, Ar: or(doc.Info.TitleAr, doc.Info.Title)}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			switch method {
			case "get", "put", "post", "delete", "options", "head", "patch", "trace":
				d.endpoints = append(d.endpoints, policy.Endpoint{Method: strings.ToUpper(method), Path: path})
			}
		}
	}
	return d, nil
}
