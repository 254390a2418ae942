package definition

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

var (
	indexForm  = regexp.MustCompile(`^(0|[1-9][0-9]{0,8})$`)
	unescape   = strings.NewReplacer("~1", "/", "~0", "~")
	badEscapes = regexp.MustCompile(`~([^01]|$)`)
)

// Find follows a JSON pointer (RFC 6901) into a document; "" is all of it, and
// null is not there.
func Find(doc jsontext.Value, pointer string) (jsontext.Value, bool) {
	tokens := strings.Split(pointer, "/")
	if tokens[0] != "" || badEscapes.MatchString(pointer) {
		return nil, false
	}
	for _, token := range tokens[1:] {
		token = unescape.Replace(token)
		switch doc.Kind() {
		case '{':
			var members map[string]jsontext.Value
			if json.Unmarshal(doc, &members) != nil {
				return nil, false
			}
			doc = members[token]
		case '[':
			var elements []jsontext.Value
			i, _ := strconv.Atoi(token)
			if !indexForm.MatchString(token) || json.Unmarshal(doc, &elements) != nil || i >= len(elements) {
				return nil, false
			}
			doc = elements[i]
		default:
			return nil, false
		}
	}
	return doc, len(doc) > 0 && doc.Kind() != 'n'
}
