package definition

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Program is a definition ready to be run: nothing in it changes, any number
// of steps can be taken at once.
type Program struct {
	d       *Definition
	hooks   Hooks
	schemas map[string]*jsonschema.Schema // by fact; none where the type says it all
	says    map[string]fieldset           // by trigger
	halves  map[string]*machine
}

// machine is a compiled half.
type machine struct {
	party  string
	start  string
	hold   string
	states map[string]*state
	vars   map[string]variable
}

type state struct {
	name      string
	final     bool
	on        map[string]*on // with those of always
	deadlines []deadline     // with those of always, by name
}

type deadline struct {
	name   string
	where  string
	at     *expression // nil: after
	after  time.Duration
	always bool
}

type on struct {
	where    string
	let      []call // by name
	branches []branch
}

// call is a hook or an effect with its arguments.
type call struct {
	name  string // of the result
	where string
	run   string
	gives Type
	args  []argument
}

type argument struct {
	name  string
	kind  Type
	value *expression
}

type branch struct {
	*Branch
	where  string
	guard  *expression // nil: always
	set    []argument  // by fact
	effect []call
	appeal time.Duration
}

// Definition is what the program was compiled from. It is not to be changed.
func (p *Program) Definition() *Definition { return p.d }

// Compile types each expression, bounds its cost, and compiles the schemas.
// Its error is *Problems. Hooks are those that the definition may name: one
// with a result under `let`, one without (Gives is "") as an effect.
func Compile(d *Definition, hooks Hooks) (*Program, error) {
	base, err := standard()
	if err != nil {
		return nil, fmt.Errorf("making the language of expressions: %w", err)
	}
	c := &checker{d: d, p: &Problems{}}
	p := &Program{d: d, hooks: hooks, schemas: map[string]*jsonschema.Schema{}, says: d.says(), halves: map[string]*machine{}}
	full := map[string]map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(d.Facts)) {
		full[name] = factSchema(d.Facts[name])
		schema, err := compileSchema(name, full[name])
		if err != nil {
			c.add("facts."+name+".schema", "%s", clip(err.Error(), 300))
			continue
		}
		p.schemas[name] = schema
	}
	for _, party := range slices.Sorted(maps.Keys(d.Halves)) {
		p.halves[party] = c.machine(party, d.Halves[party], base, full, hooks)
	}
	slices.SortStableFunc(c.p.List, func(a, b Problem) int { return a.Line - b.Line })
	if err := c.p.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// compiler compiles one half.
type compiler struct {
	*checker
	m     *machine
	env   *cel.Env
	sizes map[string]map[string]any
	hooks Hooks
}

func (c *checker) machine(party string, half Machine, base *cel.Env, schemas map[string]map[string]any, hooks Hooks) *machine {
	m := &machine{party: party, start: half.Start, hold: half.Hold, states: map[string]*state{}, vars: map[string]variable{
		"now": {space: inNow}, "opened": {space: inOpened}, "actor": {space: inActor}, "call.status": {space: inStatus},
	}}
	sizes := map[string]map[string]any{}
	var options []cel.EnvOption
	for _, name := range slices.Sorted(maps.Keys(c.d.Facts)) {
		if !c.d.knows(party, name) {
			continue
		}
		t := c.d.Facts[name].Type
		options = append(options, declare(m.vars, inFacts, "fact", name, t)...)
		options = append(options, declare(m.vars, inWas, "was", name, t)...)
		options = append(options, declare(m.vars, inKnown, "known", name, Truth)...)
		for _, of := range []string{"fact.", "was."} {
			sizes[of+name] = schemas[name]
			sizes[of+name+".currency"] = map[string]any{"type": "string", "maxLength": int64(3)}
		}
	}
	env, err := base.Extend(options...)
	if err != nil {
		c.add("halves."+party, "%v", err)
		return m
	}
	k := &compiler{checker: c, m: m, env: env, sizes: sizes, hooks: hooks}
	at := "halves." + party
	always := map[string]*on{}
	for _, name := range slices.Sorted(maps.Keys(half.Always.On)) {
		always[name] = k.on(at+".always.on."+name, name, half.Always.On[name])
	}
	running := k.deadlines(at+".always.deadlines", half.Always.Deadlines, true)
	for _, name := range slices.Sorted(maps.Keys(half.States)) {
		m.states[name] = k.state(at+".states."+name, name, half.States[name], always, running)
	}
	return m
}

func (k *compiler) state(at, name string, s State, always map[string]*on, running []deadline) *state {
	out := &state{name: name, final: s.Final, on: map[string]*on{}, deadlines: k.deadlines(at+".deadlines", s.Deadlines, false)}
	for _, trigger := range slices.Sorted(maps.Keys(s.On)) {
		out.on[trigger] = k.on(at+".on."+trigger, trigger, s.On[trigger])
	}
	if s.Final {
		return out
	}
	for trigger, o := range always {
		if out.on[trigger] == nil {
			out.on[trigger] = o
		}
	}
	for _, d := range running {
		if _, own := s.Deadlines[d.name]; !own {
			out.deadlines = append(out.deadlines, d)
		}
	}
	return out
}

func (k *compiler) deadlines(at string, all map[string]Deadline, always bool) []deadline {
	var out []deadline
	for _, name := range slices.Sorted(maps.Keys(all)) {
		d := deadline{name: name, where: at + "." + name, always: always}
		if source := all[name].At; source != "" {
			d.at = k.compile(k.env, nil, d.where+".at", source, cel.TimestampType)
			// Its instant is looked at again after each step, so that it follows
			// the facts: it must not follow the time of looking.
			if tree, issues := k.env.Compile(source); d.at != nil && issues.Err() == nil && uses(tree, "now") {
				k.add(d.where+".at", "`now` would move it with each step: say after, or set a fact and name that")
			}
		} else {
			d.after, _ = ParseDuration(all[name].After)
		}
		out = append(out, d)
	}
	return out
}

func (k *compiler) compile(env *cel.Env, let map[string]map[string]any, where, source string, want *cel.Type) *expression {
	all := k.sizes
	if len(let) > 0 {
		all = maps.Clone(k.sizes)
		maps.Copy(all, let)
	}
	x := &expressions{c: k.checker, env: env, vars: k.m.vars, size: all}
	return x.compile(where, source, k.m.party, want)
}

func (k *compiler) on(where, trigger string, o On) *on {
	out := &on{where: where}
	env := k.env
	var options []cel.EnvOption
	if _, ok := k.d.Calls[trigger]; ok {
		options = append(options, cel.Variable("call.status", cel.IntType))
	}
	if _, ok := k.d.Forms[trigger]; ok {
		options = append(options, cel.Variable("actor", cel.StringType))
	}
	env = k.extend(where, env, options)
	options = nil
	for _, name := range slices.Sorted(maps.Keys(o.Let)) {
		h := o.Let[name]
		one := k.call(env, where+".let."+name, h, true)
		one.name = name
		out.let = append(out.let, one)
		if one.gives != "" {
			options = append(options, declare(k.m.vars, inLet, "result", name, one.gives)...)
		}
	}
	env = k.extend(where, env, options)
	for i := range o.Branches {
		out.branches = append(out.branches, k.branch(env, fmt.Sprintf("%s.branches[%d]", where, i), &o.Branches[i]))
	}
	return out
}

func (k *compiler) extend(where string, env *cel.Env, options []cel.EnvOption) *cel.Env {
	if len(options) == 0 {
		return env
	}
	more, err := env.Extend(options...)
	if err != nil {
		k.add(where, "%v", err)
		return env
	}
	return more
}

// call compiles the arguments of a hook, or of an effect.
func (k *compiler) call(env *cel.Env, where string, h Hook, result bool) call {
	out := call{where: where, run: h.Run}
	f, ok := k.hooks[h.Run]
	switch {
	case !ok:
		known(k.checker, where+".run", h.Run, k.hooks, "function")
		return out
	case result && f.Gives == "":
		k.add(where+".run", "%s gives nothing: name it under `effect`", h.Run)
		return out
	case !result && f.Gives != "":
		k.add(where+".run", "%s gives a value and writes nothing: name it under `let`", h.Run)
		return out
	}
	out.gives = f.Gives
	for _, name := range slices.Sorted(maps.Keys(f.Args)) {
		if _, ok := h.With[name]; !ok {
			k.add(where+".with", "%s needs %s (%s)", h.Run, name, f.Args[name])
			continue
		}
		out.args = append(out.args, argument{name, f.Args[name], k.compile(env, nil, where+".with."+name, h.With[name], f.Args[name].celType())})
	}
	for _, name := range slices.Sorted(maps.Keys(h.With)) {
		if _, ok := f.Args[name]; !ok {
			k.add(where+".with."+name, "%s takes no %s", h.Run, clip(name, 80))
		}
	}
	return out
}

func (k *compiler) branch(env *cel.Env, where string, b *Branch) branch {
	out := branch{Branch: b, where: where}
	if b.If != "" {
		out.guard = k.compile(env, nil, where+".if", b.If, cel.BoolType)
	}
	for _, name := range slices.Sorted(maps.Keys(b.Set)) {
		t := k.d.Facts[name].Type
		out.set = append(out.set, argument{name, t, k.compile(env, nil, where+".set."+name, b.Set[name], t.celType())})
	}
	for i, h := range b.Effect {
		out.effect = append(out.effect, k.call(env, fmt.Sprintf("%s.effect[%d]", where, i), h, false))
	}
	if b.Decision != nil && b.Decision.Appeal != "" {
		out.appeal, _ = ParseDuration(b.Decision.Appeal)
	}
	return out
}
