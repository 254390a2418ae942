package exchange

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/union"
)

// TestPlans: no statement reads a whole table of those that grow with the calls.
// Each text in this room that is a statement is explained by SQLite, whose
// partial indexes serve only who repeats their condition word for word. What a
// person starts now and then may.
func TestPlans(t *testing.T) {
	u := newUnion(t, []union.State{"BH", "SA"})
	db := u.nodes["BH"].db
	begin := regexp.MustCompile(`^(SELECT|UPDATE|DELETE|INSERT)\b`)
	whole := regexp.MustCompile(`SCAN exchange_(claim|delivery|trace|spool)\b|exchange_claim USING .*\(side=\?\)$`)
	files, err := filepath.Glob("*.go")
	check(t, err)
	may := map[string]bool{
		`UPDATE exchange_spool SET leaf = ? WHERE leaf = ?`:                                                          true, // erasing
		`SELECT COUNT(*) FROM exchange_delivery WHERE spool = ? AND (asked = ? OR answered = ?)`:                     true, // fsck, of what is wrong already
		`SELECT client, COUNT(*) FROM exchange_delivery WHERE work <> 0 AND work = 2 AND pushes > 0 GROUP BY client`: true, // by an index of what is to be done
		`UPDATE exchange_claim SET state = ?, changed_at = ?`:                                                        true, // its condition stands elsewhere
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		check(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			query, err := strconv.Unquote(lit.Value)
			check(t, err)
			if !begin.MatchString(query) || may[query] {
				return true
			}
			rows, err := db.Query(t.Context(), "EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
			if err != nil {
				return true // a part of one
			}
			defer rows.Close()
			found++
			for rows.Next() {
				var id, parent, unused int
				var plan string
				check(t, rows.Scan(&id, &parent, &unused, &plan))
				if whole.MatchString(plan) {
					t.Errorf("%s\n\t%s", query, plan)
				}
			}
			check(t, rows.Err())
			return true
		})
	}
	if found < 30 {
		t.Errorf("only %d statements were found", found)
	}
}
