package directory_test

import (
	"testing"

	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/union"
)

func TestUnion(t *testing.T) {
	u := directorytest.New(t, []union.State{"BH", "SA", "KW"}, nil)
	for s, d := range u.Dirs {
		v := d.View()
		if v.Version() != 1 || len(v.States()) != 3 || len(v.Problems()) != 0 {
			t.Errorf("%s: version %d, %d states, problems %v", s, v.Version(), len(v.States()), v.Problems())
		}
		_, cert := u.Seal(union.MemberID{State: "BH", Class: "GOV", Code: "interior"})
		if cert == nil {
			t.Error("no certificate")
		}
	}
}

func BenchmarkUnion(b *testing.B) {
	for b.Loop() {
		directorytest.New(b, []union.State{"BH", "SA", "AE", "KW", "OM", "QA", "EG"}, nil)
	}
}
