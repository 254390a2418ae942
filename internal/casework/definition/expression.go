package definition

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	cost "github.com/google/cel-go/checker"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/env"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// Limits of an expression. A unit of cost is about one operation, some tens
// of nanoseconds; what compiles costs at most maxCost with facts as large as
// their schemas let them be, and what is evaluated is stopped there.
const (
	maxExpression = 2_000 // characters
	maxCost       = 50_000
	otherText     = 20_000 // characters of a text that no schema bounds: of a hook
	otherSize     = 1_000  // elements of a list, members of an object likewise
)

// expression is a compiled one.
type expression struct {
	where string
	run   cel.Program
}

// celType is a type's in expressions. An amount is a map there, whose two
// members also are variables of their own, typed: see declare.
func (t Type) celType() *cel.Type {
	switch t {
	case Text, Date:
		return cel.StringType
	case Whole:
		return cel.IntType
	case Truth:
		return cel.BoolType
	case Instant:
		return cel.TimestampType
	case List:
		return cel.ListType(cel.DynType)
	}
	return cel.MapType(cel.StringType, cel.DynType)
}

// standard is the environment of all expressions: CEL's standard functions
// without what is not whole (double), not bounded (matches), or not the same
// on each machine (time zones, whose rules come from its tables). Two are
// ours: days(n), a duration, and money(minor, currency).
func standard() (*cel.Env, error) {
	without := &env.LibrarySubset{ExcludeFunctions: []*env.Function{{Name: "double"}, {Name: "matches"}}}
	for _, f := range []struct{ name, zoned string }{
		{"getFullYear", "timestamp_to_year_with_tz"}, {"getMonth", "timestamp_to_month_with_tz"},
		{"getDayOfYear", "timestamp_to_day_of_year_with_tz"}, {"getDayOfMonth", "timestamp_to_day_of_month_with_tz"},
		{"getDate", "timestamp_to_day_of_month_1_based_with_tz"}, {"getDayOfWeek", "timestamp_to_day_of_week_with_tz"},
		{"getHours", "timestamp_to_hours_with_tz"}, {"getMinutes", "timestamp_to_minutes_with_tz"},
		{"getSeconds", "timestamp_to_seconds_tz"}, {"getMilliseconds", "timestamp_to_milliseconds_with_tz"},
	} {
		without.ExcludeFunctions = append(without.ExcludeFunctions, &env.Function{Name: f.name, Overloads: []*env.Overload{{ID: f.zoned}}})
	}
	return cel.NewCustomEnv(
		cel.StdLib(cel.StdLibSubset(without)),
		cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(50), cel.ParserErrorRecoveryLimit(2),
		cel.Function("days", cel.Overload("days_int", []*cel.Type{cel.IntType}, cel.DurationType, cel.UnaryBinding(func(n ref.Val) ref.Val {
			d := n.(types.Int)
			if most := types.Int(maxDuration / (24 * time.Hour)); d > most || d < -most {
				return types.NewErr("more days than a hundred years")
			}
			return types.Duration{Duration: time.Duration(d) * 24 * time.Hour}
		}))),
		cel.Function("money", cel.Overload("money_int_string", []*cel.Type{cel.IntType, cel.StringType}, Money.celType(), cel.BinaryBinding(func(minor, currency ref.Val) ref.Val {
			return types.NewStringInterfaceMap(types.DefaultTypeAdapter, map[string]any{"minor": int64(minor.(types.Int)), "currency": string(currency.(types.String))})
		}))),
		cel.Variable("now", cel.TimestampType), cel.Variable("opened", cel.TimestampType),
	)
}

// space is where a variable's value comes from.
type space uint8

const (
	inFacts space = iota
	inWas
	inKnown
	inLet
	inNow
	inOpened
	inActor
	inStatus
)

// variable says where the value of a name in expressions stands.
type variable struct {
	space space
	name  string
	part  string // of an amount: minor or currency
}

// declare gives a fact or the result of a hook its variables.
func declare(vars map[string]variable, s space, prefix, name string, t Type) []cel.EnvOption {
	full := prefix + "." + name
	vars[full] = variable{s, name, ""}
	out := []cel.EnvOption{cel.Variable(full, t.celType())}
	if t == Money {
		vars[full+".minor"], vars[full+".currency"] = variable{s, name, "minor"}, variable{s, name, "currency"}
		out = append(out, cel.Variable(full+".minor", cel.IntType), cel.Variable(full+".currency", cel.StringType))
	}
	return out
}

// scope is what an expression sees: a cel.Activation.
type scope struct {
	vars       map[string]variable
	facts, was Values
	let        Values
	now        time.Time
	opened     time.Time
	actor      string
	status     int
	missing    string // the last name that had no value
}

func (s *scope) Parent() cel.Activation { return nil }

func (s *scope) ResolveName(name string) (any, bool) {
	v, ok := s.vars[name]
	if !ok {
		return nil, false
	}
	var value any
	switch v.space {
	case inNow:
		return s.now, true
	case inOpened:
		return s.opened, true
	case inActor:
		return s.actor, true
	case inStatus:
		return int64(s.status), true
	case inKnown:
		_, ok := s.facts[v.name]
		return ok, true
	case inFacts:
		value, ok = s.facts[v.name]
	case inWas:
		value, ok = s.was[v.name]
	case inLet:
		value, ok = s.let[v.name]
	}
	if ok && v.part != "" {
		m, _ := value.(map[string]any)
		value, ok = m[v.part]
	}
	if !ok {
		s.missing = name
	}
	return value, ok
}

// errUnknown says that an expression needs a fact that the half does not know.
type errUnknown string

func (e errUnknown) Error() string { return string(e) + " is not known" }

// value evaluates. The error says what went wrong without any value.
func (e *expression) value(s *scope) (ref.Val, error) {
	s.missing = ""
	v, _, err := e.run.Eval(s)
	switch {
	case err == nil:
		return v, nil
	case s.missing != "" && strings.Contains(err.Error(), "no such attribute"):
		return nil, errUnknown(s.missing)
	}
	// CEL's own texts quote values.
	for _, known := range []string{"cost limit exceeded", "overflow", "division by zero", "modulus by zero", "no such key", "index out of bounds", "no such overload", "no such attribute", "out of range"} {
		if strings.Contains(err.Error(), known) {
			return nil, errors.New(known)
		}
	}
	return nil, errors.New("a value that the expression cannot take")
}

func (e *expression) truth(s *scope) (bool, error) {
	v, err := e.value(s)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, errors.New("neither true nor false")
	}
	return bool(b), nil
}

// take evaluates to a value of a type.
func (e *expression) take(s *scope, t Type) (any, error) {
	v, err := e.value(s)
	if err != nil {
		return nil, err
	}
	left := maxValues
	plain, err := native(v, maxDepth, &left)
	if err != nil {
		return nil, err
	}
	return t.Take(plain)
}

// native brings a CEL value into the types of Values.
func native(v ref.Val, depth int, left *int) (any, error) {
	if *left--; *left < 0 || depth == 0 {
		return nil, errors.New("too many values, or too deep")
	}
	switch v := v.(type) {
	case types.String:
		return string(v), nil
	case types.Int:
		return int64(v), nil
	case types.Bool:
		return bool(v), nil
	case types.Timestamp:
		return v.Time, nil
	case traits.Lister:
		out := []any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			e, err := native(it.Next(), depth-1, left)
			if err != nil {
				return nil, err
			}
			out = append(out, e)
		}
		return out, nil
	case traits.Mapper:
		out := map[string]any{}
		for it := v.Iterator(); it.HasNext() == types.True; {
			k := it.Next()
			name, ok := k.(types.String)
			if !ok {
				return nil, errors.New("a member whose name is no text")
			}
			e, err := native(v.Get(k), depth-1, left)
			if err != nil {
				return nil, err
			}
			out[string(name)] = e
		}
		return out, nil
	}
	return nil, errors.New("a value of a type that no fact has")
}

// expressions compiles those of one place in the definition.
type expressions struct {
	c    *checker
	env  *cel.Env
	vars map[string]variable
	size map[string]map[string]any // schemas by variable, for the cost
}

// mention finds the variables that an expression names, well enough to teach.
var mention = regexp.MustCompile(`\b(fact|was|known|result)\.([A-Za-z0-9_]+)`)

// compile compiles one expression of the type. What is wrong is noted, and nil
// comes back.
func (x *expressions) compile(where, source, party string, want *cel.Type) *expression {
	if source == "" {
		x.c.add(where, "there is no expression")
		return nil
	}
	tree, issues := x.env.Compile(source)
	if issues.Err() != nil {
		x.explain(where, source, party, issues.Errors()[0])
		return nil
	}
	for _, t := range tree.NativeRep().TypeMap() {
		if t.Kind() == types.DoubleKind {
			x.c.add(where, fractions)
			return nil
		}
	}
	if got := tree.OutputType(); !want.IsAssignableType(got) && got.Kind() != types.DynKind {
		x.c.add(where, "it gives %s, and %s is wanted", cel.FormatCELType(got), cel.FormatCELType(want))
		return nil
	}
	estimate, err := x.env.EstimateCost(tree, sizes(x.size))
	if err != nil || estimate.Max > maxCost {
		x.c.add(where, "it could cost more than %d operations with facts as large as they may be: tighten maxItems or maxLength, or do it in a hook", maxCost)
		return nil
	}
	run, err := x.env.Program(tree, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		x.c.add(where, "%s", clip(err.Error(), 300))
		return nil
	}
	return &expression{where: where, run: run}
}

// explain teaches what is wrong with an expression that CEL does not take.
func (x *expressions) explain(where, source, party string, e *cel.Error) {
	_, name, undeclared := strings.Cut(e.Message, "undeclared reference to '")
	name, _, _ = strings.Cut(name, "'")
	for _, m := range mention.FindAllStringSubmatch(source, -1) {
		if _, ok := x.vars[m[0]]; !undeclared || m[1] != name || ok && name != "result" {
			continue
		}
		switch _, fact := x.c.d.Facts[m[2]]; {
		case name == "result":
			x.c.add(where, "there is no result.%s here: name its hook under `let` of the same trigger", clip(m[2], 80))
		case fact:
			x.c.add(where, "%s does not know %s: no message brings it there", party, m[2])
		default:
			x.c.add(where, "there is no fact %q", clip(m[2], 80))
		}
		return
	}
	switch {
	case undeclared && name == "call":
		x.c.add(where, "call.status is there where a call's answer is the trigger, and nowhere else")
	case undeclared && name == "actor":
		x.c.add(where, "actor is there where a form is the trigger, and nowhere else")
	case strings.Contains(e.Message, "double"):
		x.c.add(where, fractions)
	default:
		text, _, _ := strings.Cut(e.Message, " (in container")
		x.c.add(where, "at column %d: %s", e.Location.Column()+1, clip(text, 300))
	}
}

const fractions = "there are no fractions: write rates as two whole numbers, as in n * 3 / 100"

// uses tells whether an expression names a variable: of its checked tree.
func uses(e *cel.Ast, names ...string) bool {
	found := false
	for _, r := range e.NativeRep().ReferenceMap() {
		found = found || slices.Contains(names, r.Name)
	}
	return found
}

// sizes estimates for CEL how large values can be: by path into the facts'
// schemas.
type sizes map[string]map[string]any

// EstimateSize gives the greatest size that a schema lets in.
func (s sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	path := n.Path()
	if len(path) > 0 {
		if schema, ok := s[path[0]]; ok {
			return &cost.SizeEstimate{Max: greatest(schema, path[1:])}
		}
	}
	if n.Expr().Kind() == ast.LiteralKind {
		return nil
	}
	switch n.Type().Kind() {
	case types.StringKind, types.BytesKind, types.DynKind:
		return &cost.SizeEstimate{Max: otherText}
	case types.ListKind, types.MapKind:
		if n.Expr().Kind() == ast.IdentKind || n.Expr().Kind() == ast.SelectKind {
			return &cost.SizeEstimate{Max: otherSize}
		}
	}
	return nil
}

// EstimateCallCost knows how long what is written out becomes.
func (s sizes) EstimateCallCost(function, overload string, _ *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	if function == "string" && len(args) == 1 && args[0].Type().Kind() != types.StringKind && args[0].Type().Kind() != types.DynKind {
		return &cost.CallEstimate{CostEstimate: cost.FixedCostEstimate(1), ResultSize: &cost.SizeEstimate{Min: 1, Max: 64}}
	}
	return nil
}

// greatest walks a schema down a path of CEL's cost model.
func greatest(schema map[string]any, path []string) uint64 {
	for _, step := range path {
		var next any
		switch properties, _ := schema["properties"].(map[string]any); {
		case step == "@items":
			next = schema["items"]
		case step == "@keys":
			return otherText
		case properties[step] != nil:
			next = properties[step]
		default: // a member that is named by an expression, or another one
			next = schema["additionalProperties"]
			for _, p := range properties {
				if one, ok := p.(map[string]any); ok && step == "@values" {
					if now, ok := next.(map[string]any); !ok || greatest(one, nil) > greatest(now, nil) {
						next = one
					}
				}
			}
		}
		inner, ok := next.(map[string]any)
		if !ok {
			return otherText
		}
		schema = inner
	}
	most := func(key string, other uint64) uint64 {
		if n, ok := schema[key].(int64); ok {
			return uint64(n)
		}
		return other
	}
	switch schema["type"] {
	case "array":
		return most("maxItems", otherSize)
	case "object":
		properties, _ := schema["properties"].(map[string]any)
		return most("maxProperties", max(uint64(len(properties)), 1))
	case "string":
		var longest uint64
		if list, ok := schema["enum"].([]any); ok {
			for _, v := range list {
				longest = max(longest, uint64(len(fmt.Sprint(v))))
			}
			return longest
		}
		if v, ok := schema["const"].(string); ok {
			return uint64(len(v))
		}
		return most("maxLength", 64)
	}
	return 1
}
