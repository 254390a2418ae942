package definition

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Limits of values from outside.
const (
	maxDepth  = 8       // of objects and lists in one another
	maxValues = 4 << 10 // members and elements in all
)

// ErrValue is in every error about a value. The errors name the fact and
// quote nothing: it may be about a person.
var ErrValue = errors.New("not the value of a fact")

// AppendJSON writes values in one form only: members by name, instants as RFC
// 3339 in UTC.
func (v Values) AppendJSON(out []byte) ([]byte, error) {
	b, err := json.Marshal(map[string]any(v), json.Deterministic(true))
	return append(out, b...), err
}

// MarshalJSON is AppendJSON.
func (v Values) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil) }

// ReadValues reads a JSON object whose members are facts of the definition,
// each in its type. Repeated names, fractions and unknown facts are errors.
func (d *Definition) ReadValues(b []byte) (Values, error) {
	return ReadTyped(b, func(name string) (Type, bool) {
		f, ok := d.Facts[name]
		return f.Type, ok
	})
}

// ReadTyped reads a JSON object whose members' types are told.
func ReadTyped(b []byte, typeOf func(name string) (Type, bool)) (Values, error) {
	var raw map[string]jsontext.Value
	if err := json.Unmarshal(b, &raw); err != nil || raw == nil {
		return nil, fmt.Errorf("%w: not a JSON object with each name once", ErrValue)
	}
	out, left := make(Values, len(raw)), maxValues
	for name, r := range raw {
		t, ok := typeOf(name)
		if !ok {
			return nil, fmt.Errorf("%w: there is no fact %.64q", ErrValue, name)
		}
		v, err := readValue(r, t, &left)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %s", ErrValue, name, err)
		}
		out[name] = v
	}
	return out, nil
}

func readValue(raw jsontext.Value, t Type, left *int) (any, error) {
	v, err := plain(raw, maxDepth, left)
	if err != nil {
		return nil, err
	}
	return t.Take(v)
}

// ReadValue reads any JSON value as plain data, without floats.
func ReadValue(b []byte) (any, error) {
	left := maxValues
	return plain(b, maxDepth, &left)
}

// Take brings a value of plain JSON into the type, or says why not.
func (t Type) Take(v any) (any, error) {
	switch t {
	case Text:
		if s, ok := v.(string); ok {
			return s, nil
		}
	case Whole:
		if n, ok := v.(int64); ok {
			return n, nil
		}
	case Truth:
		if b, ok := v.(bool); ok {
			return b, nil
		}
	case Instant:
		switch v := v.(type) {
		case time.Time:
			return v.UTC().Truncate(time.Millisecond), nil
		case string:
			if at, err := time.Parse(time.RFC3339, v); err == nil && at.Year() >= 1900 && at.Year() < 10_000 {
				return at.UTC().Truncate(time.Millisecond), nil
			}
		}
	case Date:
		if s, ok := v.(string); ok {
			if _, err := time.Parse(time.DateOnly, s); err == nil {
				return s, nil
			}
		}
	case Money:
		m, ok := v.(map[string]any)
		if !ok || len(m) != 2 {
			break
		}
		_, minor := m["minor"].(int64)
		_, currency := m["currency"].(string)
		if minor && currency {
			return m, nil
		}
	case Object:
		if m, ok := v.(map[string]any); ok {
			return m, nil
		}
	case List:
		if l, ok := v.([]any); ok {
			return l, nil
		}
	}
	return nil, fmt.Errorf("wanted %s", t)
}

// plain reads JSON without floats: numbers are int64.
func plain(raw jsontext.Value, depth int, left *int) (any, error) {
	if *left--; *left < 0 || depth == 0 {
		return nil, errors.New("too many values, or too deep")
	}
	switch raw.Kind() {
	case 't', 'f':
		return raw.Kind() == 't', nil
	case '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	case '0':
		var n int64
		if err := json.Unmarshal(raw, &n); err != nil {
			return nil, fmt.Errorf("a number that is no whole one between %d and %d", math.MinInt64, int64(math.MaxInt64))
		}
		return n, nil
	case '{':
		var members map[string]jsontext.Value
		if err := json.Unmarshal(raw, &members); err != nil {
			return nil, errors.New("a name twice")
		}
		out := make(map[string]any, len(members))
		for k, r := range members {
			v, err := plain(r, depth-1, left)
			if err != nil {
				return nil, err
			}
			out[k] = v
		}
		return out, nil
	case '[':
		var elements []jsontext.Value
		if err := json.Unmarshal(raw, &elements); err != nil {
			return nil, err
		}
		out := make([]any, len(elements))
		for i, r := range elements {
			v, err := plain(r, depth-1, left)
			if err != nil {
				return nil, err
			}
			out[i] = v
		}
		return out, nil
	}
	return nil, errors.New("null is no value: leave it out")
}
