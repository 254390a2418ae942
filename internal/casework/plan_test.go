package casework

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/store/storetest"
)

// TestPlans: SQLite finds what each statement of this room asks for by an
// index, in its order: nothing is read whole or sorted that grows with the
// cases. inspect.go looks through everything, as is its task.
func TestPlans(t *testing.T) {
	w := &world{t: t, on: storetest.SQLite, program: compiled(t, permit)}
	db := w.side("BH").db
	begin := regexp.MustCompile(`^(SELECT|UPDATE|DELETE|INSERT)\b`)
	whole := regexp.MustCompile(`SCAN (casework_\w+|\w)\b|TEMP B-TREE`)
	// What is read by an index in its order, up to a limit, is no more than that.
	page := regexp.MustCompile(`^SCAN casework_\w+ USING (COVERING )?INDEX`)
	may := map[string]bool{ // by indexes of what waits, or of what has not ended
		`SELECT COUNT(*) FROM casework_message WHERE work = 1`:                         true,
		`SELECT service, COUNT(*) FROM casework_case WHERE ended = 0 GROUP BY service`: true,
	}
	const list = `SELECT ` + caseColumns + ` FROM casework_case` // its conditions stand elsewhere
	found := 0
	explain := func(query string) {
		rows, err := db.Query(context.Background(), "EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
		if err != nil {
			return // a part of one
		}
		defer rows.Close()
		found++
		for rows.Next() {
			var id, parent, unused int
			var plan string
			if err := rows.Scan(&id, &parent, &unused, &plan); err != nil {
				t.Fatal(err)
			}
			if whole.MatchString(plan) && !(page.MatchString(plan) && (may[query] || strings.Contains(query, "LIMIT"))) && query != list ||
				strings.Contains(query, "length(person)") && !strings.Contains(plan, "casework_case_person") {
				t.Errorf("%s\n\t%s", query, plan)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || name == "inspect.go" {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			var text func(x ast.Expr) (string, bool)
			text = func(x ast.Expr) (string, bool) {
				switch x := x.(type) {
				case *ast.BasicLit:
					s, err := strconv.Unquote(x.Value)
					return s, err == nil && x.Kind == token.STRING
				case *ast.Ident:
					return caseColumns, x.Name == "caseColumns"
				case *ast.BinaryExpr:
					a, ok := text(x.X)
					b, also := text(x.Y)
					return a + b, ok && also
				}
				return "", false
			}
			if x, ok := n.(ast.Expr); ok {
				if query, ok := text(x); ok && begin.MatchString(query) {
					explain(query)
					return false
				}
			}
			return true
		})
	}
	for _, f := range []Filter{{}, {Mine: true}, {Service: "a"}, {State: "A"}, {Trouble: true}, {Service: "a", State: "A"}, {Mine: true, State: "A"}, {Mine: true, Service: "a", Trouble: true}, {State: "A", Trouble: true}} {
		for _, f.After = range []string{"", "1.x"} {
			query, _, err := f.query([]byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			explain(query)
		}
	}
	if found < 40 {
		t.Errorf("only %d statements were found", found)
	}
}
