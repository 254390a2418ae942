package casework

import "github.com/falaj/falaj/internal/casework/definition"

// mask takes of a register's answer what the definition lets in, each fact in
// its type; the rest is not kept anywhere.
func mask(d *definition.Definition, keep map[string]string, body []byte, status int) definition.Values {
	out := definition.Values{}
	if status < 200 || status > 299 {
		return out
	}
	for fact, pointer := range keep {
		raw, ok := definition.Find(body, pointer)
		if !ok {
			continue
		}
		v, err := definition.ReadValue(raw)
		if err != nil {
			continue
		}
		if v, err = d.Facts[fact].Type.Take(v); err == nil {
			out[fact] = v
		}
	}
	return out
}
