package cli

import (
	"strings"
	"testing"
	"time"
)

// TestSpan: lengths of time are counted as each language counts.
func TestSpan(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration][2]string{
		30 * time.Second:                 {"still less than a minute", "بقي أقل من دقيقة"},
		time.Minute:                      {"still 1 minute", "بقي دقيقة واحدة"},
		2*time.Hour + 3*time.Minute:      {"still 2 hours 3 minutes", "بقي ساعتان و3 دقائق"},
		day + 11*time.Hour + 1:           {"still 1 day 11 hours", "بقي يوم واحد و11 ساعة"},
		10 * day:                         {"still 10 days", "بقي 10 أيام"},
		14*day + 59*time.Minute:          {"still 14 days", "بقي 14 يوماً"},
		100 * day:                        {"still 100 days", "بقي 100 يوم"},
		103*day + time.Hour:              {"still 103 days 1 hour", "بقي 103 أيام وساعة واحدة"},
		-(2*day + 30*time.Minute):        {"over for 2 days", "مضى على حلوله يومان"},
		-(time.Hour + 11*time.Minute/10): {"over for 1 hour 1 minute", "مضى على حلوله ساعة واحدة ودقيقة واحدة"},
	} {
		en, ar := (&session{}).left(d), (&session{ar: true}).left(d)
		if en != want[0] || ar != want[1] {
			t.Errorf("%v: %q, %q", d, en, ar)
		}
	}
}

// TestPlain: what another state wrote steers no terminal.
func TestPlain(t *testing.T) {
	if got := plain("a\x1b[2Jb\u202ec\n\u2068سارة\u2069"); strings.ContainsAny(got, "\x1b\u202e") || !strings.HasSuffix(got, "c\n\u2068سارة\u2069") {
		t.Errorf("%q", got)
	}
}
