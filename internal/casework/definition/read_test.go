package definition

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// changed is the small service of the tests, in which nothing is wrong.
func changed(t testing.TB, changes ...string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/loan.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(s, changes[i]) {
			t.Fatalf("testdata/loan.yaml has no %q", changes[i])
		}
		s = strings.Replace(s, changes[i], changes[i+1], 1)
	}
	return []byte(s)
}

func loanHooks() Hooks {
	return Hooks{"library.until@1": {
		Args: map[string]Type{"from": Instant}, Gives: Instant,
		Call: func(_ context.Context, _ time.Time, args Values) (any, error) {
			return args["from"].(time.Time).Add(14 * 24 * time.Hour), nil
		},
	}}
}

func TestReadLoan(t *testing.T) {
	d, err := Read(changed(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Compile(d, loanHooks()); err != nil {
		t.Fatal(err)
	}
	if line := d.Line("halves.home.states.SENT.on.answer.branches[0]"); line == 0 || line != d.Line("halves.home.states.SENT.on.answer.branches[0].send[7]") {
		t.Errorf("line %d", line)
	}
}
