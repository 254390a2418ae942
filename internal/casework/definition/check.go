package definition

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// Limits of a definition's parts.
const (
	maxNames    = 300    // of one kind: facts, forms, states of a half, …
	maxFields   = 100    // of a form, a message, a call
	maxOns      = 100    // triggers of a state
	maxBranches = 30     // of a trigger
	maxActs     = 30     // of one kind in a branch: facts set, messages sent, …
	maxText     = 10_000 // bytes of a text in one language
	maxName     = 64     // bytes
	maxCall     = time.Minute
)

var (
	factName    = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	plainName   = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)
	stateName   = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	ruleName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	hookName    = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*@[1-9][0-9]{0,5}$`)
	placeholder = regexp.MustCompile(`\{([^{}]*)\}`)
)

// reserved are the words that CEL keeps for itself.
var reserved = []string{"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop", "namespace", "null", "package", "return", "true", "var", "void", "while"}

// checker gathers the problems of a definition.
type checker struct {
	d *Definition
	p *Problems
}

func (d *Definition) check() error {
	c := &checker{d: d, p: &Problems{}}
	c.head()
	if len(c.p.List) == 0 { // names can be resolved
		c.parts()
		for _, party := range slices.Sorted(maps.Keys(d.Halves)) {
			c.half(party, d.Halves[party])
		}
		c.crossings()
	}
	slices.SortStableFunc(c.p.List, func(a, b Problem) int { return a.Line - b.Line })
	return c.p.err()
}

func (c *checker) add(where, format string, args ...any) {
	c.p.add(c.d.Line(where), where, format, args...)
}

// head checks what each other check takes for granted: the names, how many
// there are, and that a name means one thing.
func (c *checker) head() {
	d := c.d
	if d.Format != Format {
		c.add("falaj", "%q is not a format that is read here: write %q", clip(d.Format, 40), Format)
	}
	if !plainName.MatchString(d.Name) || len(d.Name) > maxName {
		c.add("name", "a service is named in small letters, digits and hyphens, as in residence-certificate")
	}
	if d.Version < 1 {
		c.add("version", "versions count from 1 on")
	}
	if d.Purpose == "" || len(d.Purpose) > maxName {
		c.add("purpose", "say for which purpose of the union's charter its messages cross")
	}
	if d.Retention.Days < 1 || d.Retention.Days > 36_525 {
		c.add("retention.days", "say for how many days after its end a case is kept: from 1 to 36525")
	}
	if len(d.Parties) != 2 {
		c.add("parties", "a case has two parties; here are %d", len(d.Parties))
	}
	names(c, "basis", d.Basis, plainName)
	names(c, "parties", d.Parties, plainName)
	names(c, "roles", d.Roles, plainName)
	names(c, "facts", d.Facts, factName)
	names(c, "forms", d.Forms, plainName)
	names(c, "messages", d.Messages, plainName)
	names(c, "calls", d.Calls, plainName)
	names(c, "reasons", d.Reasons, plainName)
	names(c, "notices", d.Notices, plainName)
	known(c, "opens", d.Opens, d.Parties, "party")
	for party := range d.Parties {
		if _, ok := d.Halves[party]; !ok {
			c.add("halves", "there is no half for the party %s", party)
		}
	}
	triggers := map[string]string{}
	one := func(kind, name string) {
		if other, ok := triggers[name]; ok && other != kind {
			c.add(kind+"s."+name, "%s is a %s already: forms, messages, calls and deadlines share one space of names", name, other)
		}
		triggers[name] = kind
	}
	for name := range d.Forms {
		one("form", name)
	}
	for name := range d.Messages {
		one("message", name)
	}
	for name := range d.Calls {
		one("call", name)
	}
	for party, m := range d.Halves {
		at := "halves." + party
		if known(c, at, party, d.Parties, "party") {
			names(c, at+".states", m.States, stateName)
			names(c, at+".always.deadlines", m.Always.Deadlines, plainName)
		}
		for name, s := range m.States {
			names(c, at+".states."+name+".deadlines", s.Deadlines, plainName)
			for deadline := range s.Deadlines {
				one("deadline", deadline)
			}
		}
		for deadline := range m.Always.Deadlines {
			one("deadline", deadline)
		}
	}
}

// names checks the names of one kind, and how many there are.
func names[V any](c *checker, where string, m map[string]V, form *regexp.Regexp) {
	if len(m) > maxNames {
		c.add(where, "%d are too many; at most %d", len(m), maxNames)
		return
	}
	for name := range m {
		switch {
		case !form.MatchString(name) || len(name) > maxName:
			c.add(where+"."+name, "%q is no name here: %s", clip(name, 80), nameRule(form))
		case form == factName && slices.Contains(reserved, name):
			c.add(where+"."+name, "%q is a word that expressions keep for themselves: take another", name)
		}
	}
}

func nameRule(form *regexp.Regexp) string {
	switch form {
	case factName:
		return "small letters, digits and _, a letter first, at most 64"
	case stateName:
		return "capital letters, digits and _, a letter first, at most 64"
	}
	return "small letters, digits, _ and -, a letter first, at most 64"
}

// known refuses a name that nothing has, and says which there are.
func known[V any](c *checker, where, name string, in map[string]V, what string) bool {
	if _, ok := in[name]; ok {
		return true
	}
	hint := "there is none"
	if all := slices.Sorted(maps.Keys(in)); len(all) > 0 {
		hint = "there are " + clip(strings.Join(all, ", "), 200)
	}
	c.add(where, "there is no %s %q: %s", what, clip(name, 80), hint)
	return false
}

func (c *checker) text(where string, t union.Text) {
	if len(t.En) > maxText || len(t.Ar) > maxText {
		c.add(where, "a text of more than %d bytes", maxText)
	}
}

// duration checks one that is there.
func (c *checker) duration(where, s string) time.Duration {
	d, err := ParseDuration(s)
	if err != nil {
		c.add(where, "%v", err)
	}
	return d
}

// parts checks everything beside the halves.
func (c *checker) parts() {
	d := c.d
	c.text("title", d.Title)
	for name, t := range d.Basis {
		c.text("basis."+name, t)
	}
	for name, t := range d.Parties {
		c.text("parties."+name, t)
	}
	for name, t := range d.Reasons {
		c.text("reasons."+name, t)
	}
	known(c, "retention.basis", d.Retention.Basis, d.Basis, "basis")
	whose := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(d.Roles)) {
		r := d.Roles[name]
		at := "roles." + name
		c.text(at, r.Title)
		known(c, at+".party", r.Party, d.Parties, "party")
		switch r.Kind {
		case Citizen, Officer, System:
		default:
			c.add(at+".kind", "%q is no kind of role: citizen, officer or system", clip(string(r.Kind), 40))
		}
		if r.Kind == Citizen {
			if first, ok := whose[r.Party]; ok {
				c.add(at, "%s has a citizen's role already, %s: a half is one citizen's case", r.Party, first)
			}
			whose[r.Party] = name
		}
		if r.Person != "" && known(c, at+".person", r.Person, d.Facts, "fact") {
			if f := d.Facts[r.Person]; f.Type != Text || f.Owner != r.Party {
				c.add(at+".person", "%s is not a text that %s owns: it holds an X-Road-UserId", r.Person, r.Party)
			}
		}
	}
	for name, f := range d.Facts {
		at := "facts." + name
		c.text(at, f.Title)
		c.text(at, f.Help)
		known(c, at+".owner", f.Owner, d.Parties, "party")
		if f.Personal != "" {
			known(c, at+".personal", f.Personal, d.Basis, "basis")
		}
		c.fact(at, f)
	}
	for name, f := range d.Forms {
		at := "forms." + name
		c.text(at, f.Title)
		if known(c, at+".role", f.Role, d.Roles, "role") {
			c.owned(at+".fields", f.Fields, d.Roles[f.Role].Party)
		}
		c.among(at+".optional", f.Optional, f.Fields)
	}
	for name, m := range d.Messages {
		at := "messages." + name
		c.text(at, m.Title)
		if known(c, at+".from", m.From, d.Parties, "party") {
			c.owned(at+".fields", m.Fields, m.From)
		}
		c.among(at+".needs", m.Needs, m.Fields)
	}
	for name, call := range d.Calls {
		c.call("calls."+name, call)
	}
	for name, n := range d.Notices {
		at := "notices." + name
		c.text(at, n.Title)
		c.text(at, n.Text)
		if known(c, at+".role", n.Role, d.Roles, "role") {
			party := d.Roles[n.Role].Party
			for _, s := range []string{n.Title.En, n.Title.Ar, n.Text.En, n.Text.Ar} {
				c.placeholders(at, s, party)
			}
		}
	}
}

// owned checks a list of facts that one party owns.
func (c *checker) owned(where string, list []string, party string) {
	if len(list) > maxFields {
		c.add(where, "%d fields are too many; at most %d", len(list), maxFields)
		return
	}
	for i, name := range list {
		at := fmt.Sprintf("%s[%d]", where, i)
		if slices.Contains(list[:i], name) {
			c.add(at, "%s stands here twice", name)
		}
		if known(c, at, name, c.d.Facts, "fact") && c.d.Facts[name].Owner != party {
			c.add(at, "%s is not %s's to say: its owner is %s, and each fact has one writer", name, party, c.d.Facts[name].Owner)
		}
	}
}

func (c *checker) among(where string, list, fields []string) {
	for i, name := range list {
		if !slices.Contains(fields, name) {
			c.add(fmt.Sprintf("%s[%d]", where, i), "%s is not one of the fields", clip(name, 80))
		}
	}
}

// knows tells whether a half can know a fact: it is its own, or a message
// brings it.
func (d *Definition) knows(party, fact string) bool {
	if d.Facts[fact].Owner == party {
		return true
	}
	for _, m := range d.Messages {
		if m.From != party && slices.Contains(m.Fields, fact) {
			return true
		}
	}
	return false
}

// knownTo checks that a half can know a fact.
func (c *checker) knownTo(where, fact, party string) bool {
	if !known(c, where, fact, c.d.Facts, "fact") {
		return false
	}
	if !c.d.knows(party, fact) {
		c.add(where, "%s does not know %s: no message brings it there", party, fact)
		return false
	}
	return true
}

// placeholders checks each {fact} of a text.
func (c *checker) placeholders(where, text, party string) {
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		if c.knownTo(where, m[1], party) {
			if t := c.d.Facts[m[1]].Type; t == Object || t == List {
				c.add(where, "{%s} is of type %s, which a text cannot show", m[1], t)
			}
		}
	}
}

func (c *checker) call(at string, call Call) {
	if !known(c, at+".party", call.Party, c.d.Parties, "party") {
		return
	}
	known(c, at+".basis", call.Basis, c.d.Basis, "basis")
	if !plainName.MatchString(call.Service) || len(call.Service) > maxName {
		c.add(at+".service", "name the service as each state's adoption binds it: %s", nameRule(plainName))
	}
	switch call.Method {
	case "GET":
		if len(call.Send) > 0 {
			c.add(at+".send", "a GET has no body: put the facts into the path, or ask by POST")
		}
	case "POST":
	default:
		c.add(at+".method", "%q is not GET or POST", clip(call.Method, 20))
	}
	if !strings.HasPrefix(call.Path, "/") || len(call.Path) > 1000 || strings.ContainsAny(call.Path, " \t\r\n#\\") {
		c.add(at+".path", "a path begins with / and holds no spaces: as in /persons/{person}")
	}
	for _, m := range placeholder.FindAllStringSubmatch(call.Path, -1) {
		if c.knownTo(at+".path", m[1], call.Party) {
			switch c.d.Facts[m[1]].Type {
			case Object, List, Money:
				c.add(at+".path", "{%s} is of type %s, which a path cannot hold", m[1], c.d.Facts[m[1]].Type)
			}
		}
	}
	if len(call.Send) > maxFields || len(call.Keep) > maxFields {
		c.add(at, "more than %d fields", maxFields)
	}
	for i, name := range call.Send {
		c.knownTo(fmt.Sprintf("%s.send[%d]", at, i), name, call.Party)
	}
	c.owned(at+".keep", slices.Sorted(maps.Keys(call.Keep)), call.Party)
	for name, pointer := range call.Keep {
		if pointer != "" && !strings.HasPrefix(pointer, "/") || len(pointer) > 200 {
			c.add(at+".keep."+name, "%q is not a JSON pointer into the answer, as in /address/city", clip(pointer, 80))
		}
	}
	if d := c.duration(at+".timeout", call.Timeout); d <= 0 || d > maxCall {
		c.add(at+".timeout", "a call may take at most PT60S: what takes longer is a message")
	}
}

func (c *checker) crossings() {
	for i, x := range c.d.Crossings {
		at := fmt.Sprintf("crossings[%d]", i)
		c.text(at, x.Why)
		a, b := c.d.Messages[x.Pair[0]], c.d.Messages[x.Pair[1]]
		known(c, at+".pair", x.Pair[0], c.d.Messages, "message")
		known(c, at+".pair", x.Pair[1], c.d.Messages, "message")
		if a.From == b.From {
			c.add(at+".pair", "messages that cross come one from each party")
		}
		for party, ends := range x.Ends {
			if !known(c, at+".ends", party, c.d.Halves, "party") {
				continue
			}
			for j, s := range ends {
				known(c, fmt.Sprintf("%s.ends.%s[%d]", at, party, j), s, c.d.Halves[party].States, "state")
			}
		}
	}
}
