package definition

import _ "embed"

// Schema is the JSON Schema (2020-12) of the format, for editors. What it
// cannot say, such as that a name exists, Read says.
func Schema() []byte { return []byte(schemaText) }

//go:embed service-1.json
var schemaText string
