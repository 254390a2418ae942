package definition

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a file, beside those of each part in check.go.
const (
	maxFile   = 1 << 20 // bytes
	maxTokens = 100_000
	maxNested = 12 // flow collections in one another, and block sequences begun on one line
	maxIndent = 64 // columns
)

// ErrDefinition is in every error about a definition or its scenarios.
var ErrDefinition = errors.New("the definition cannot be used")

// Problems is all that is wrong with a definition: each with its line, what is
// wrong there, why, and what to do.
type Problems struct {
	List []Problem
	More int // those that were found and not listed
}

// Problem is one of them.
type Problem struct {
	Line  int    // 0 where it is nowhere in particular
	Where string // path in the file: halves.home.states.OPEN.on.apply.branches[0]
	Text  string
}

func (p Problem) String() string {
	s := p.Text
	if p.Where != "" {
		s = p.Where + ": " + s
	}
	if p.Line > 0 {
		s = "line " + strconv.Itoa(p.Line) + ": " + s
	}
	return s
}

func (p *Problems) Error() string {
	lines := make([]string, len(p.List))
	for i, one := range p.List {
		lines[i] = one.String()
	}
	if p.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", p.More))
	}
	return strings.Join(lines, "\n")
}

// Is tells errors.Is that these are ErrDefinition.
func (p *Problems) Is(target error) bool { return target == ErrDefinition }

// maxProblems is how many are listed.
const maxProblems = 25

func (p *Problems) add(line int, where, format string, args ...any) {
	if len(p.List) == maxProblems {
		p.More++
		return
	}
	p.List = append(p.List, Problem{Line: line, Where: where, Text: fmt.Sprintf(format, args...)})
}

func (p *Problems) err() error {
	if len(p.List) == 0 {
		return nil
	}
	return p
}

// Read reads a definition and resolves each name in it. Its error is *Problems
// and lists all that is wrong, not the first thing. What expressions say,
// Compile checks; what would be unwise, Lint.
func Read(b []byte) (*Definition, error) {
	d := &Definition{}
	lines, err := decode(b, d)
	if err != nil {
		return nil, err
	}
	d.lines = lines
	if err := d.check(); err != nil {
		return nil, err
	}
	return d, nil
}

// Line is the line of a path in the file that the definition was read from, or
// of the nearest part above it that the file has; 0 where it has none.
func (d *Definition) Line(where string) int {
	for {
		if line, ok := d.lines[where]; ok {
			return line
		}
		i := strings.LastIndexAny(where, ".[")
		if i < 0 {
			return 0
		}
		where = where[:i]
	}
}

// decode reads one YAML document strictly into v, and gives the line of each
// path in it.
func decode(b []byte, v any) (lines map[string]int, err error) {
	if len(b) > maxFile {
		return nil, problem(0, "the file is larger than %d bytes: a service that needs more is two services", maxFile)
	}
	tokens := lexer.Tokenize(string(b))
	// The parser takes the square of the depth in time, and anchors can be
	// folded into one another without end: so both are looked for first.
	if err := plainTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		return nil, malformed(err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, problem(0, "the file does not hold one YAML document")
	}
	if err := yaml.NodeToValue(file.Docs[0].Body, v, yaml.Strict()); err != nil {
		return nil, malformed(err)
	}
	lines = map[string]int{}
	mark(lines, "", file.Docs[0].Body)
	return lines, nil
}

func problem(line int, format string, args ...any) error {
	p := &Problems{}
	p.add(line, "", format, args...)
	return p
}

// malformed is an error of the YAML library in our form.
func malformed(err error) error {
	line := 0
	var at yaml.Error
	if errors.As(err, &at) && at.GetToken() != nil && at.GetToken().Position != nil {
		line = at.GetToken().Position.Line
		return problem(line, "%s", clip(at.GetMessage(), 300))
	}
	return problem(line, "%s", clip(yaml.FormatError(err, false, false), 300))
}

// plainTokens refuses what a definition does not need and a parser can be
// kept busy with: anchors, aliases, merges, tags, directives, complex keys,
// several documents, deep nesting.
func plainTokens(tokens token.Tokens) error {
	if len(tokens) > maxTokens {
		return problem(0, "the file has more than %d words and signs", maxTokens)
	}
	depth, row, dashes := 0, 0, 0
	for i, t := range tokens {
		line := t.Position.Line
		refuse := func(what string) error {
			return problem(line, "%s is not taken: write out what is meant", what)
		}
		switch t.Type {
		case token.AnchorType:
			return refuse("an anchor (&)")
		case token.AliasType:
			return refuse("an alias (*)")
		case token.MergeKeyType:
			return refuse("a merge (<<)")
		case token.TagType:
			return refuse("a tag (!)")
		case token.MappingKeyType:
			return refuse("a complex key (?)")
		case token.DirectiveType:
			return refuse("a directive (%)")
		case token.DocumentHeaderType, token.DocumentEndType:
			if i > 0 {
				return refuse("a second document (---)")
			}
		case token.SequenceStartType, token.MappingStartType:
			if depth++; depth > maxNested {
				return problem(line, "more than %d brackets in one another", maxNested)
			}
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			if line != row {
				row, dashes = line, 0
			}
			if dashes++; dashes > maxNested {
				return problem(line, "more than %d lists in one another", maxNested)
			}
		}
		if t.Type == token.MappingValueType && depth == 0 && t.Prev != nil && t.Prev.Position.Column > maxIndent {
			return problem(line, "indented by more than %d columns", maxIndent)
		}
	}
	return nil
}

// mark notes the line of each path.
func mark(lines map[string]int, path string, n ast.Node) {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			mark(lines, path, v)
		}
	case *ast.MappingValueNode:
		under := n.Key.String()
		if s, ok := n.Key.(*ast.StringNode); ok {
			under = s.Value
		}
		if path != "" {
			under = path + "." + under
		}
		lines[under] = n.Key.GetToken().Position.Line
		mark(lines, under, n.Value)
	case *ast.SequenceNode:
		for i, v := range n.Values {
			under := fmt.Sprintf("%s[%d]", path, i)
			lines[under] = v.GetToken().Position.Line
			mark(lines, under, v)
		}
	}
}

// clip keeps hostile input short in messages.
func clip(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}
