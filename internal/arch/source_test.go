package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maxLines is the length at which a file surely holds more than one topic.
const maxLines = 800

// keyCalls make or read private keys. Only seal does; bench makes throw-away
// keys for the stock proxies that it measures against.
var keyCalls = map[string][]string{
	"crypto/ecdsa":   {"GenerateKey", "PrivateKey", "ParseRawPrivateKey"},
	"crypto/ed25519": {"GenerateKey", "PrivateKey", "NewKeyFromSeed"},
	"crypto/rsa":     {"GenerateKey", "PrivateKey"},
	"crypto/tls":     {"LoadX509KeyPair", "X509KeyPair"},
	"crypto/x509": {"MarshalECPrivateKey", "MarshalPKCS1PrivateKey", "MarshalPKCS8PrivateKey",
		"ParseECPrivateKey", "ParsePKCS1PrivateKey", "ParsePKCS8PrivateKey"},
}

var keyRooms = []string{"internal/seal", "internal/bench"}

// brokenSource names each breach in one file of a room.
func brokenSource(fset *token.FileSet, file *ast.File, path string) []string {
	var bad []string
	report := func(n ast.Node, format string, args ...any) {
		pos := fset.Position(n.Pos())
		bad = append(bad, fmt.Sprintf("%s:%d: %s", path, pos.Line, fmt.Sprintf(format, args...)))
	}
	if n := fset.File(file.Pos()).LineCount(); n > maxLines {
		report(file, "%d lines; at most %d: which two topics are in it?", n, maxLines)
	}
	test := strings.HasSuffix(path, "_test.go") || strings.HasSuffix(file.Name.Name, "test")
	imports := importNames(file)
	in, _ := roomOf(filepath.ToSlash(filepath.Dir(path)))

	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == "init" {
				report(d, "init runs unasked; let the caller call it")
			}
		case *ast.GenDecl:
			if d.Tok == token.VAR && !test {
				for _, s := range d.Specs {
					if why := mutable(s.(*ast.ValueSpec), d.Doc, imports); why != "" {
						report(s, "package-level variable %s: %s", s.(*ast.ValueSpec).Names[0].Name, why)
					}
				}
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && !test && !slices.Contains(keyRooms, in.path) {
			if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(keyCalls[imports[x.Name]], sel.Sel.Name) {
				report(n, "%s.%s: only seal touches private keys", x.Name, sel.Sel.Name)
			}
		}
		return true
	})
	if test {
		for _, call := range skips(file) {
			if !strings.Contains(literals(call), "shared/data") {
				report(call, "skips for another reason than an absent ../shared/data")
			}
		}
	}
	return bad
}

// importNames maps the name that a file uses to the import path it stands for.
func importNames(file *ast.File) map[string]string {
	m := map[string]string{}
	for _, imp := range file.Imports {
		path := strings.Trim(imp.Path.Value, `"`)
		name := filepath.Base(path)
		if imp.Name != nil {
			name = imp.Name.Name
		}
		m[name] = path
	}
	return m
}

// mutable says why a package-level variable may change while the program
// runs, "" where it does not: errors, expressions, embedded files, tables; and
// pools, which hold nothing that anyone may count on. Whether a table is
// written to, written tells.
func mutable(s *ast.ValueSpec, decl *ast.CommentGroup, imports map[string]string) string {
	if s.Names[0].Name == "_" {
		return ""
	}
	if len(s.Values) == 0 {
		for _, doc := range []*ast.CommentGroup{decl, s.Doc} {
			if doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") }) {
				return ""
			}
		}
		return "has no value yet, so something will change it"
	}
	for _, v := range s.Values {
		switch v := v.(type) {
		case *ast.UnaryExpr:
			if v.Op == token.AND {
				return "points to state that all share"
			}
		case *ast.CompositeLit:
			if sel, ok := v.Type.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && (imports[x.Name] == "sync" && sel.Sel.Name != "Pool" || imports[x.Name] == "sync/atomic") {
					return "is state that all share"
				}
			}
		case *ast.CallExpr:
			switch f := v.Fun.(type) {
			case *ast.Ident:
				if f.Name == "make" || f.Name == "new" {
					return "is empty, so something will fill it"
				}
			case *ast.SelectorExpr:
				x, ok := f.X.(*ast.Ident)
				if !ok {
					break
				}
				made := imports[x.Name] + "." + f.Sel.Name
				if imports[x.Name] != "" && !strings.HasPrefix(f.Sel.Name, "Must") && !slices.Contains(constants, made) {
					return made + " is not known to give something that never changes"
				}
			}
		}
	}
	return ""
}

// constants are the calls whose results never change, beside Must….
var constants = []string{
	"errors.New", "fmt.Errorf", "strings.NewReplacer", "sync.OnceValue", "sync.OnceValues",
	"time.Date", "math/big.NewInt",
}

// written names each package-level variable that a function of the package
// assigns to. A name that the function declares itself is another variable.
func written(fset *token.FileSet, files map[string]*ast.File) []string {
	vars := map[string]bool{}
	for _, f := range files {
		for _, decl := range f.Decls {
			if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.VAR {
				for _, s := range d.Specs {
					for _, name := range s.(*ast.ValueSpec).Names {
						vars[name.Name] = name.Name != "_"
					}
				}
			}
		}
	}
	var bad []string
	for _, path := range slices.Sorted(maps.Keys(files)) {
		for _, decl := range files[path].Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			own := declared(fn)
			check := func(target ast.Expr) {
				if id := rootOf(target); id != nil && vars[id.Name] && !own[id.Name] {
					bad = append(bad, fmt.Sprintf("%s:%d: %s writes the package-level variable %s",
						path, fset.Position(target.Pos()).Line, fn.Name.Name, id.Name))
				}
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					if n.Tok != token.DEFINE {
						for _, target := range n.Lhs {
							check(target)
						}
					}
				case *ast.IncDecStmt:
					check(n.X)
				}
				return true
			})
		}
	}
	return bad
}

// rootOf finds x in x, x.f, x[i], (*x).f.
func rootOf(e ast.Expr) *ast.Ident {
	for {
		switch v := e.(type) {
		case *ast.Ident:
			return v
		case *ast.SelectorExpr:
			e = v.X
		case *ast.IndexExpr:
			e = v.X
		case *ast.StarExpr:
			e = v.X
		case *ast.ParenExpr:
			e = v.X
		default:
			return nil
		}
	}
}

// declared gathers every name that a function declares, wherever in it.
func declared(fn *ast.FuncDecl) map[string]bool {
	own := map[string]bool{}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			for _, name := range n.Names {
				own[name.Name] = true
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				own[name.Name] = true
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, e := range n.Lhs {
					if id, ok := e.(*ast.Ident); ok {
						own[id.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, e := range []ast.Expr{n.Key, n.Value} {
				if id, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
					own[id.Name] = true
				}
			}
		}
		return true
	})
	return own
}

// skips finds the calls that skip a test. A property test's Skip, on a
// *rapid.T, only throws one drawn example away.
func skips(file *ast.File) []*ast.CallExpr {
	var found []*ast.CallExpr
	var walk func(n ast.Node, testing map[string]bool)
	walk = func(n ast.Node, testing map[string]bool) {
		ast.Inspect(n, func(m ast.Node) bool {
			if m == n {
				return true
			}
			switch m := m.(type) {
			case *ast.FuncDecl:
				walk(m.Body, params(m.Type, testing))
				return false
			case *ast.FuncLit:
				walk(m.Body, params(m.Type, testing))
				return false
			case *ast.CallExpr:
				if sel, ok := m.Fun.(*ast.SelectorExpr); ok {
					x, ok := sel.X.(*ast.Ident)
					if ok && testing[x.Name] && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
						found = append(found, m)
					}
				}
			}
			return true
		})
	}
	walk(file, nil)
	return found
}

// params adds to the outer names those of a function's parameters that are
// tests, and takes away those that are something else now.
func params(f *ast.FuncType, outer map[string]bool) map[string]bool {
	names := maps.Clone(outer)
	if names == nil {
		names = map[string]bool{}
	}
	for _, field := range f.Params.List {
		typ := field.Type
		if star, ok := typ.(*ast.StarExpr); ok {
			typ = star.X
		}
		sel, ok := typ.(*ast.SelectorExpr)
		x, isIdent := (*ast.Ident)(nil), false
		if ok {
			x, isIdent = sel.X.(*ast.Ident)
		}
		for _, name := range field.Names {
			names[name.Name] = isIdent && x.Name == "testing"
		}
	}
	return names
}

// literals joins the string literals of a call's arguments.
func literals(call *ast.CallExpr) string {
	var b strings.Builder
	for _, arg := range call.Args {
		ast.Inspect(arg, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				b.WriteString(lit.Value)
			}
			return true
		})
	}
	return b.String()
}

func TestSource(t *testing.T) {
	top := root(t)
	for _, p := range packages(t) {
		fset := token.NewFileSet()
		code := map[string]*ast.File{}
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles) {
			full := filepath.Join(p.Dir, name)
			file, err := parser.ParseFile(fset, full, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			path, err := filepath.Rel(top, full)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(name, "_test.go") {
				code[path] = file
			}
			for _, bad := range brokenSource(fset, file, path) {
				t.Error(bad)
			}
		}
		for _, bad := range written(fset, code) {
			t.Error(bad)
		}
	}
}

// TestRulesSeeSource shows that each rule about source refuses what it is for.
func TestRulesSeeSource(t *testing.T) {
	tests := []struct{ name, path, src, want string }{
		{"init", "internal/node/a.go", "func init() {}", "init runs unasked"},
		{"a method called init", "internal/node/a.go", "type T int\nfunc (T) init() {}", ""},
		{"an empty variable", "internal/node/a.go", "var x int", "has no value yet"},
		{"a lock", "internal/node/a.go", "import \"sync\"\nvar x = sync.Mutex{}", "is state that all share"},
		{"a pool of buffers", "internal/node/a.go", "import \"sync\"\nvar x = sync.Pool{}", ""},
		{"a pointer", "internal/node/a.go", "type T struct{}\nvar x = &T{}", "points to state"},
		{"an empty map", "internal/node/a.go", "var x = make(map[string]int)", "is empty"},
		{"a cache from elsewhere", "internal/node/a.go", "import \"a.example/lru\"\nvar x = lru.New(9)", "not known"},
		{"an error", "internal/node/a.go", "import \"errors\"\nvar ErrX = errors.New(\"x\")", ""},
		{"an expression", "internal/node/a.go", "import \"regexp\"\nvar x = regexp.MustCompile(`x`)", ""},
		{"embedded files", "internal/node/a.go", "import \"embed\"\n//go:embed sql\nvar x embed.FS", ""},
		{"a table", "internal/node/a.go", "var x = map[string]int{\"a\": 1}\nfunc f() int { return x[\"a\"] }", ""},
		{"a table that is written", "internal/node/a.go", "var x = map[string]int{\"a\": 1}\nfunc f() { x[\"a\"]++ }", "writes the package-level variable x"},
		{"a variable that is replaced", "internal/node/a.go", "import \"errors\"\nvar x = errors.New(\"\")\nfunc f() { x = nil }", "writes the package-level variable x"},
		{"another of the same name", "internal/node/a.go", "var x = []int{1}\nfunc f() { x := 1; x = 2; _ = x }", ""},
		{"an interface guard", "internal/node/a.go", "import \"io\"\nvar _ io.Reader = (*T)(nil)\ntype T struct{ io.Reader }", ""},
		{"a key made", "internal/node/a.go", "import \"crypto/ecdsa\"\nvar _ = ecdsa.GenerateKey", "only seal"},
		{"a key read", "internal/cli/a.go", "import std \"crypto/x509\"\nvar _ = std.ParsePKCS8PrivateKey", "only seal"},
		{"a key for tests", "internal/directory/directorytest/a.go", "import \"crypto/ecdsa\"\nvar _ = ecdsa.GenerateKey", ""},
		{"a key in seal", "internal/seal/a.go", "import \"crypto/ecdsa\"\nvar _ = ecdsa.GenerateKey", ""},
		{"a public key", "internal/node/a.go", "import \"crypto/ecdsa\"\nvar _ ecdsa.PublicKey", ""},
		{"a skip", "internal/node/a_test.go", "import \"testing\"\nfunc TestX(t *testing.T) { t.Skip(\"slow\") }", "another reason"},
		{"a skip without a word", "internal/node/a_test.go", "import \"testing\"\nfunc x(b testing.TB) { b.SkipNow() }", "another reason"},
		{"a skip in a sub-test", "internal/node/a_test.go", "import \"testing\"\nfunc TestX(t *testing.T) { t.Run(\"\", func(t *testing.T) { t.Skipf(\"no %s\", \"x\") }) }", "another reason"},
		{"a skip for want of data", "internal/node/a_test.go", "import \"testing\"\nfunc TestX(t *testing.T) { t.Skip(\"../shared/data is absent\") }", ""},
		{"a drawn example thrown away", "internal/node/a_test.go", "import \"pgregory.net/rapid\"\nfunc x(t *rapid.T) { t.Skip(\"even\") }", ""},
		{"a long file", "internal/node/a.go", strings.Repeat("\n", maxLines), "which two topics"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, tt.path, "package "+filepath.Base(filepath.Dir(tt.path))+"\n"+tt.src, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			got := brokenSource(fset, file, tt.path)
			wantBreach(t, append(got, written(fset, map[string]*ast.File{tt.path: file})...), tt.want)
		})
	}
}
