package config

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Size is a number of bytes, written plainly or with KiB, MiB, GiB.
type Size int64

func units() []struct {
	name  string
	shift uint
} {
	return []struct {
		name  string
		shift uint
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}}
}

// UnmarshalText reads "65536", "64KiB", "4 GiB".
func (s *Size) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	number, shift := text, uint(0)
	for _, u := range units() {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			number, shift = strings.TrimSpace(n), u.shift
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return fmt.Errorf("size %q is not a number of bytes such as 65536, 64KiB, 4GiB", clip(text))
	}
	*s = Size(n << shift)
	return nil
}

// UnmarshalYAML is UnmarshalText that knows its place in the file.
func (s *Size) UnmarshalYAML(n ast.Node) error { return placed(n, s.UnmarshalText) }

// MarshalText writes the largest unit that divides the size.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	for _, u := range units() {
		if u.shift > 0 && s != 0 && s%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(s>>u.shift), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Digest is the SHA-256 of a certificate's DER, in hexadecimal; colons, as
// openssl prints them, are accepted.
type Digest [32]byte

// UnmarshalText reads 64 hexadecimal digits.
func (d *Digest) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(strings.ReplaceAll(string(b), ":", ""))
	if err != nil || len(raw) != len(d) {
		return fmt.Errorf("%q is not the SHA-256 of a certificate (64 hexadecimal digits)", clip(string(b)))
	}
	copy(d[:], raw)
	return nil
}

// UnmarshalYAML takes the digits as they are written: YAML would read some of
// them as a number.
func (d *Digest) UnmarshalYAML(n ast.Node) error { return placed(n, d.UnmarshalText) }

// MarshalText writes 64 small hexadecimal digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d[:])), nil }

// DSN names a database and may hold its password: it prints without it.
type DSN string

// Postgres tells whether the DSN names a PostgreSQL.
func (d DSN) Postgres() bool {
	return strings.HasPrefix(string(d), "postgres://") || strings.HasPrefix(string(d), "postgresql://")
}

// String is the DSN without what is secret in it.
func (d DSN) String() string {
	if !d.Postgres() {
		return string(d)
	}
	u, err := url.Parse(string(d))
	if err != nil {
		return "postgres://[redacted]"
	}
	q := u.Query()
	for _, k := range []string{"password", "sslpassword", "passfile", "sslkey"} {
		if q.Has(k) {
			q.Set(k, "xxxxx")
		}
	}
	u.RawQuery = q.Encode()
	return u.Redacted()
}

// MarshalText is String: a configuration that is shown gives no password away.
func (d DSN) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// placed reads a scalar and names its line where it cannot be read.
func placed(n ast.Node, read func([]byte) error) error {
	tok := n.GetToken()
	if err := read([]byte(tok.Value)); err != nil {
		return fmt.Errorf("[%d:%d] %w", tok.Position.Line, tok.Position.Column, err)
	}
	return nil
}

// clip keeps what somebody wrote short in messages.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
