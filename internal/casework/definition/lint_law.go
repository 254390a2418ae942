package definition

// law looks at what is about persons, and at what leaves a state.
func (l *linter) law() {
	d := l.d
	l.seen["basis "+d.Retention.Basis] = true
	for _, f := range d.Facts {
		l.seen["basis "+f.Personal] = true
	}
	for _, c := range d.Calls {
		l.seen["basis "+c.Basis] = true
	}
	for _, name := range order(d.Roles) {
		if r := d.Roles[name]; r.Kind == Citizen && r.Person == "" && !d.opener(name) {
			l.fails("law.person", "roles."+name, say("Nothing says who the citizen is: only one who opens the case himself is known by that. Name the fact that holds him: person.", "لا شيء يحدد هوية المواطن: لا يُعرف إلا من يفتح المعاملة بنفسه. اذكر المعلومة التي تحدده: person."))
		}
	}
	for _, name := range order(d.Forms) {
		f := d.Forms[name]
		if f.Two && d.Roles[f.Role].Kind != Officer {
			l.fails("law.two", "forms."+name+".two", say("Two persons can only be officers: of a citizen there is one, of a system none.", "لا يكون الشخصان إلا موظفين: فالمواطن واحد، والنظام لا شخص فيه."))
		}
		if d.Roles[f.Role].Kind != Citizen {
			continue
		}
		for _, fact := range f.Fields {
			if d.Facts[fact].Personal == "" {
				l.warns("law.personal", "facts."+fact, say("A citizen enters it (%s), and it is not marked as personal.", "يُدخله المواطن (%s) ولم يوسم بأنه شخصي.", name))
			}
		}
	}
	for _, name := range order(d.Messages) {
		l.mask(name, d.Messages[name])
	}
}

// opener tells whether a role opens every case.
func (d *Definition) opener(role string) bool {
	m := d.Halves[d.Opens]
	for trigger := range m.triggers(m.Start) {
		if d.begins(d.Opens, trigger) && d.Forms[trigger].Role != role {
			return false
		}
	}
	return d.Roles[role].Party == d.Opens
}

// mask looks at what a message lets out of a state.
func (l *linter) mask(name string, m Message) {
	owned := 0
	for _, f := range l.d.Facts {
		if f.Owner == m.From {
			owned++
		}
	}
	if owned >= 3 && len(m.Fields) == owned {
		l.warns("message.everything", "messages."+name+".fields", say("The message sends everything that %s holds (%d facts): name only what the other state needs.", "ترسل الرسالة كل ما لدى %s (عدد المعلومات %d): لا يُذكر إلا ما تحتاج إليه الدولة الأخرى.", m.From, owned))
	}
}

// Leaving is what one message takes out of a state.
type Leaving struct {
	Message  string            `json:"message"`
	From     string            `json:"from"`
	To       string            `json:"to"`
	Facts    []string          `json:"facts"`
	Personal map[string]string `json:"personal"` // those about a person -> legal basis
}

// Leaves lists for each message what it takes out of its state.
func (d *Definition) Leaves() []Leaving {
	var out []Leaving
	for _, name := range order(d.Messages) {
		m := d.Messages[name]
		x := Leaving{Message: name, From: m.From, To: d.other(m.From), Facts: append([]string{}, m.Fields...), Personal: map[string]string{}}
		for _, fact := range m.Fields {
			if by := d.Facts[fact].Personal; by != "" {
				x.Personal[fact] = by
			}
		}
		out = append(out, x)
	}
	return out
}
