package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	expast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
	"github.com/falaj/falaj/internal/union"
)

// Limits on what a state may hand in.
const (
	maxSource     = 256 << 10 // bytes of one source
	maxRule       = 16 << 10  // bytes of one rule
	maxDepth      = 32        // brackets within brackets
	maxRules      = 1000      // of one state
	maxAgreements = 10000     // of one serving state
	maxPair       = 100       // agreements of one client and one service
	maxEndpoints  = 200       // of one agreement
	maxPurposes   = 100       // of one agreement
	maxName       = 128       // bytes of an id, purpose or method
	maxText       = 2000      // bytes of a text for people
)

// Schema describes to authors of rules, and to the validator, what a rule may
// ask. Every attribute is always there; a text that is unknown is empty.
const Schema = `entity State;
entity Member in [State];
entity Subsystem in [Member] { state: String, class: String, member: String, code: String };
entity Service in [Subsystem] { state: String, class: String, member: String, subsystem: String, code: String };
action call appliesTo {
	principal: Subsystem,
	resource: Service,
	context: {
		role: String,           // "consumer" or "provider"
		method: String,
		path: String,           // decoded, "/" first
		endpoints: Set<String>, // those of the pair's agreements that the call fits, as "METHOD pattern"
		purpose: String,
		basis: String,          // empty = the union does not know the purpose
		dataClass: String,
		clientState: String,
		serviceState: String,
		at: datetime
	}
};
`

// rule is a compiled rule. An agreement's has endpoints and a copy of the
// agreement.
type rule struct {
	Rule
	key       cedar.PolicyID
	line      int
	policy    *cedar.Policy
	agreement *Agreement
	endpoints []endpoint
}

type endpoint struct {
	method  string
	pattern Pattern
	line    string // "METHOD pattern", as the rules name it, and a line feed
}

type pair struct {
	client  union.SubsystemID
	service union.ServiceID
}

// accord is what is known of a pair that has an agreement: almost every call
// is of such a pair, and making its entities takes longer than the rules do.
type accord struct {
	entities   *entities
	agreements []*rule
}

// Set is the compiled rules of all states. It does not change and may be used
// by many goroutines.
type Set struct {
	rules   map[union.State][]*rule
	accords map[pair]accord
	faulty  map[union.State]bool
	named   map[cedar.PolicyID]*rule
	paths   map[union.State]bool // whose rules may read the path

	recent memory
}

// Compile reads the rules of all states and their agreements. The Set is never
// nil, so that one state's fault stays that state's: where a source is faulty,
// every call that its state decides is denied (a forbid may be lost in it); a
// faulty agreement is left out, which can only deny. The error names all
// faults; who signs or publishes rules treats it as fatal.
func Compile(sources []Source, agreements []Agreement) (*Set, error) {
	s := &Set{
		rules: map[union.State][]*rule{}, accords: map[pair]accord{},
		faulty: map[union.State]bool{}, named: map[cedar.PolicyID]*rule{}, paths: map[union.State]bool{},
	}
	var doc schema.Schema
	if err := doc.UnmarshalCedar([]byte(Schema)); err != nil {
		return s, fmt.Errorf("policy schema: %w", err)
	}
	resolved, err := doc.Resolve()
	if err != nil {
		return s, fmt.Errorf("policy schema: %w", err)
	}
	check := validate.New(resolved, validate.WithStrict())

	var faults []error
	for _, src := range sources {
		if err := s.add(src, check); err != nil {
			s.faulty[src.State] = true
			faults = append(faults, fmt.Errorf("source %q of %s: %w", clip(src.Name), clip(string(src.State)), err))
		}
	}
	count := map[union.State]int{}
	for i := range agreements {
		a := agreements[i]
		count[a.Service.State]++
		if count[a.Service.State] == maxAgreements+1 {
			faults = append(faults, fmt.Errorf("%s has more than %d agreements", clip(string(a.Service.State)), maxAgreements))
		}
		if count[a.Service.State] > maxAgreements {
			continue
		}
		if err := s.agree(a); err != nil {
			faults = append(faults, fmt.Errorf("agreement %q of %s: %w", clip(a.ID), clip(string(a.Service.State)), err))
		}
	}
	return s, errors.Join(faults...)
}

func (s *Set) add(src Source, check *validate.Validator) error {
	if _, err := union.ParseState(string(src.State)); err != nil {
		return err
	}
	if err := name("the source's name", src.Name); err != nil {
		return err
	}
	if src.Name == ownSource || src.Name == agreementSource {
		return errors.New("the source's name is reserved")
	}
	if err := bounded(src.Text); err != nil {
		return err
	}
	list, err := cedar.NewPolicyListFromBytes(src.Name, []byte(src.Text))
	if err != nil {
		return err
	}
	// Whatever depends on an attribute names it, if only to compare the whole
	// context; an escape could hide the name.
	if strings.Contains(src.Text, "path") || strings.Contains(src.Text, `\`) {
		s.paths[src.State] = true
	}
	for _, p := range list {
		line := p.Position().Line
		notes := p.Annotations()
		r := &rule{line: line, policy: p, Rule: Rule{
			ID: string(notes["id"]), Source: src.Name, En: string(notes["en"]), Ar: string(notes["ar"]), Effect: Permit,
		}}
		if p.Effect() == cedar.Forbid {
			r.Effect = Forbid
		}
		if err := s.enter(src.State, r); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if err := check.Policy(r.ID, (*expast.Policy)(p.AST())); err != nil {
			return fmt.Errorf("line %d: rule %q: %w", line, r.ID, err)
		}
		if len(s.rules[src.State]) == maxRules {
			return fmt.Errorf("more than %d rules", maxRules)
		}
		s.rules[src.State] = append(s.rules[src.State], r)
	}
	return nil
}

// enter holds what all rules need: a name that is unique within state and
// source, which is how evidence names it, and a text in both languages.
func (s *Set) enter(st union.State, r *rule) error {
	if err := name("@id", r.ID); err != nil {
		return err
	}
	if err := bilingual(union.Text{En: r.En, Ar: r.Ar}); err != nil {
		return fmt.Errorf("rule %q: %w", r.ID, err)
	}
	r.key = cedar.PolicyID(string(st) + "\n" + r.Source + "\n" + r.ID)
	if _, taken := s.named[r.key]; taken {
		return fmt.Errorf("rule %q: the id is taken", r.ID)
	}
	s.named[r.key] = r
	return nil
}

func (s *Set) agree(a Agreement) error {
	_, badClient := union.ParseClient(a.Client.String())
	_, badService := union.ParseService(a.Service.String())
	if err := errors.Join(badClient, badService, bilingual(a.Basis)); err != nil {
		return err
	}
	switch {
	case len(a.Purposes) == 0:
		return errors.New("it names no purpose")
	case len(a.Purposes) > maxPurposes:
		return fmt.Errorf("more than %d purposes", maxPurposes)
	case len(a.Endpoints) > maxEndpoints:
		return fmt.Errorf("more than %d endpoints", maxEndpoints)
	case !a.Until.IsZero() && !a.From.Before(a.Until):
		return errors.New("it ends before it begins")
	case len(s.accords[pair{a.Client, a.Service}].agreements) == maxPair:
		return fmt.Errorf("more than %d agreements of this client and service", maxPair)
	}
	for _, p := range a.Purposes {
		if err := name("purpose", p); err != nil {
			return err
		}
	}
	r := &rule{agreement: &a, policy: a.permit(), Rule: Rule{
		ID: a.ID, Source: agreementSource, Effect: Permit,
		En: "Agreement " + a.ID + ": " + a.Basis.En, Ar: "الاتفاق " + a.ID + ": " + a.Basis.Ar,
	}}
	for _, e := range a.Endpoints {
		if err := method(e.Method); err != nil {
			return err
		}
		pattern, err := ParsePattern(e.Path)
		if err != nil {
			return err
		}
		r.endpoints = append(r.endpoints, endpoint{e.Method, pattern, e.String() + "\n"})
	}
	if err := s.enter(a.Service.State, r); err != nil {
		return err
	}
	at := pair{a.Client, a.Service}
	both := s.accords[at]
	if both.entities == nil {
		both.entities = newEntities(a.Client, a.Service)
	}
	both.agreements = append(both.agreements, r)
	s.accords[at] = both
	return nil
}

// Cedar is the permit that the agreement stands for, as Cedar text.
func (a Agreement) Cedar() string { return string(a.permit().MarshalCedar()) }

func (a Agreement) permit() *cedar.Policy {
	when := ast.Context().Access("role").Equal(ast.String(types.String(Provider))).
		And(among(a.Purposes).Contains(ast.Context().Access("purpose")))
	if !a.From.IsZero() {
		when = when.And(ast.Context().Access("at").GreaterThanOrEqual(ast.Value(types.NewDatetime(a.From))))
	}
	if !a.Until.IsZero() {
		when = when.And(ast.Context().Access("at").LessThan(ast.Value(types.NewDatetime(a.Until))))
	}
	if len(a.Endpoints) > 0 {
		var names []string
		for _, e := range a.Endpoints {
			names = append(names, e.String())
		}
		when = when.And(ast.Context().Access("endpoints").ContainsAny(among(names)))
	}
	return cedar.NewPolicyFromAST(ast.Permit().
		Annotate("id", types.String(a.ID)).Annotate("en", types.String(a.Basis.En)).Annotate("ar", types.String(a.Basis.Ar)).
		PrincipalEq(types.NewEntityUID("Subsystem", types.String(a.Client.String()))).
		ActionEq(types.NewEntityUID("Action", "call")).
		ResourceEq(types.NewEntityUID("Service", types.String(a.Service.String()))).
		When(when))
}

func among(names []string) ast.Node {
	values := make([]types.Value, len(names))
	for i, n := range names {
		values[i] = types.String(n)
	}
	return ast.Value(types.NewSet(values...))
}

// bounded refuses text that could exhaust the parser, which recurses.
func bounded(text string) error {
	if len(text) > maxSource {
		return fmt.Errorf("%d bytes; at most %d", len(text), maxSource)
	}
	depth, start := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '/':
			if strings.HasPrefix(text[i:], "//") {
				for i < len(text) && text[i] != '\n' {
					i++
				}
			}
		case '(', '[', '{':
			if depth++; depth > maxDepth {
				return fmt.Errorf("brackets nest deeper than %d", maxDepth)
			}
		case ')', ']', '}':
			depth--
		case ';':
			if depth == 0 {
				start = i + 1
			}
		}
		if i-start > maxRule {
			return fmt.Errorf("a rule is longer than %d bytes", maxRule)
		}
	}
	return nil
}

func bilingual(t union.Text) error {
	switch {
	case !t.Complete():
		return errors.New("it lacks its text in English (@en) or Arabic (@ar)")
	case len(t.En) > maxText || len(t.Ar) > maxText:
		return fmt.Errorf("a text is longer than %d bytes", maxText)
	case !printable(t.En) || !printable(t.Ar):
		return errors.New("a text holds control characters or is not UTF-8")
	case !strings.ContainsFunc(t.Ar, func(r rune) bool { return unicode.Is(unicode.Arabic, r) }):
		return errors.New("the Arabic text is not in Arabic script")
	}
	return nil
}

// name accepts what may stand on one line in evidence and in a header.
func name(what, s string) error {
	if s == "" || len(s) > maxName || !printable(s) {
		return fmt.Errorf("%s is empty, longer than %d bytes or not printable", what, maxName)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func method(s string) error {
	if s == "*" {
		return nil
	}
	if s == "" || len(s) > maxName || strings.ContainsFunc(s, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		return errors.New("a method is * or capital letters")
	}
	return nil
}

// clip keeps hostile names short in messages.
func clip(s string) string {
	if len(s) > maxName {
		s = strings.ToValidUTF8(s[:maxName], "") + "…"
	}
	return s
}
