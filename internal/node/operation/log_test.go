package operation

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/union"
)

func TestLogKeepsPeopleOut(t *testing.T) {
	const number = "1087654321"
	id, err := union.ParseService("BH/GOV/interior/vehicles/registry")
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log := Logger(&out, format, "debug")
		log.Error("person "+number+" asked "+number+","+number,
			"error", errors.New("no row for 784198712345678"),
			"subject", "Fatima", "body", "Fatima", "path_query", "Fatima", "key", "Fatima", "dsn", "postgres://u:Fatima@h",
			"request", http.Header{"Cookie": {"Fatima"}}, "bytes", []byte("Fatima"), "struct", struct{ Name string }{"Fatima"},
			"beside a letter", "x"+number, "beside a hyphen", "x-"+number+"-y", "a path", "/persons/id"+number+"z?n=0"+number, "persian", "۲۹۸۰۱۰۱۱۲۳۴۵",
			"many", number+number+number,
			"arabic", "٢٩٨٠١٠١١٢٣٤٥",
			"service", id, "state", union.State("OM"), "long", strings.Repeat("x", 10_000))
		log.WithGroup("g").With("token", "Fatima").Info("in a group", "inner", slog.GroupValue(slog.String("password", "Fatima")))
		got := out.String()
		for _, never := range []string{number, "۲۹۸۰۱۰۱۱۲۳۴۵", "784198712345678", "٢٩٨٠١٠١١٢٣٤٥", "Fatima", strings.Repeat("x", 600)} {
			if strings.Contains(got, never) {
				t.Errorf("%s: %q is in the log:\n%s", format, never, got)
			}
		}
		for _, kept := range []string{"BH/GOV/interior/vehicles/registry", "OM", "in a group"} {
			if !strings.Contains(got, kept) {
				t.Errorf("%s: %q is not in the log:\n%s", format, kept, got)
			}
		}
	}
}

func TestLogKeepsNames(t *testing.T) {
	var out bytes.Buffer
	Logger(&out, "text", "info").Info("said", "id", "0190f3a2-1111-2222-3333-123456789012", "port", "127.0.0.1:55001",
		"digest", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "took", 123456789012)
	for _, kept := range []string{"123456789012", "127.0.0.1:55001", "9f86d081884c7d65", "took=123456789012"} {
		if !strings.Contains(out.String(), kept) {
			t.Errorf("%q is not in the log: %s", kept, out.String())
		}
	}
}
