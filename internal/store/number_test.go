package store

import (
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "",
		"a = ? AND b = ?":                        "a = $1 AND b = $2",
		"a = '?' AND b = ?":                      "a = '?' AND b = $1",
		"a = 'it''s ?' AND \"?\"=?":              "a = 'it''s ?' AND \"?\"=$1",
		"a = 'ف?' OR ?":                          "a = 'ف?' OR $1",
		"(?, ?), (?, ?), (?, ?), (?, ?), (?, ?)": "($1, $2), ($3, $4), ($5, $6), ($7, $8), ($9, $10)",
	} {
		if got := number(in); got != want {
			t.Errorf("%s: %s, not %s", in, got, want)
		}
	}
}

func FuzzNumber(f *testing.F) {
	f.Add("a = '?' AND b = ?")
	f.Fuzz(func(t *testing.T, q string) {
		got := number(q)
		if !strings.ContainsAny(q, `'"?`) && got != q {
			t.Errorf("%q became %q", q, got)
		}
		if len(got) < len(q) {
			t.Errorf("%q lost something: %q", q, got)
		}
	})
}
