package seal

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted, embedded in every type that holds a secret, prints as nothing
// whatever the verb, the logger or the encoder. fmt does not ask the methods of
// values in unexported fields of other types, and for a wrong verb it follows
// even a pointer; so the secret itself stands behind a function or two
// pointers, of which fmt prints the address.
type redacted struct{}

const redaction = "[secret]"

// Format implements fmt.Formatter for every verb.
func (redacted) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redaction) }

// String implements fmt.Stringer.
func (redacted) String() string { return redaction }

// GoString implements fmt.GoStringer.
func (redacted) GoString() string { return redaction }

// LogValue implements slog.LogValuer.
func (redacted) LogValue() slog.Value { return slog.StringValue(redaction) }

// MarshalText implements encoding.TextMarshaler, and so JSON's and YAML's form.
func (redacted) MarshalText() ([]byte, error) { return []byte(redaction), nil }
