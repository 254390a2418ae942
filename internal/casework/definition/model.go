package definition

import (
	"slices"

	"github.com/falaj/falaj/internal/union"
)

// Limits of the exploration. A definition that cannot be explored with three
// messages under way in each direction is explored with two, and with one.
const (
	maxUnderway       = 3
	maxConfigurations = 1 << 18
	maxEdges          = 24 // for each of them, on the average
)

// Model is what both halves of a case can do to each other, with messages
// under way in both directions, each direction in order. Guards hold or do
// not, deadlines pass, calls are answered and people act at any time: what
// cannot happen here cannot happen.
type Model struct {
	Configurations int        `json:"configurations"`
	Underway       int        `json:"underway"` // messages at most under way in each direction
	Complete       bool       `json:"complete"` // false: there were too many configurations
	Crossings      []Crossing `json:"crossings"`
	Closed         []Meeting  `json:"closed"` // messages that find the case closed

	unexpected []Meeting // messages that meet a state which says nothing of them
	unreached  []Meeting // states that no run reaches
	never      []place   // what is handled where it never happens
	stuck      []dead
	order      []string     // the messages, by when they can first be under way
	storm      []union.Text // the run of a circle of messages and answers alone
	circle     []union.Text // the run of one that takes time as well
}

// Meeting is a message and a state that it meets.
type Meeting struct {
	Party   string       `json:"party"`
	State   string       `json:"state"`
	Message string       `json:"message"`
	held    bool         // only after a half was held
	run     []union.Text // to where it first happens
}

// dead is where both halves stand when no end can be reached any more.
type dead struct {
	states [2]string
	run    []union.Text
}

// configuration is where a case stands as a whole: no more than what decides what can come.
type configuration struct {
	asked uint32                // calls that are not answered, and held
	at    [2]uint8              // states, from 1; 0: this half has not begun
	line  [2][maxUnderway]uint8 // messages from each half, from 1, the oldest first
}

// held is the bit of asked that says that a half was held on the way. From
// then on one message is under way at most in each direction besides those
// that were.
const held = 1 << 31

// move is one way that a trigger can go.
type move struct {
	trigger uint16
	branch  int8
	message bool
	refused bool
	to      uint8
	send    []uint8
	answers uint32 // the call that it is the answer of
	ask     uint32
	need    need // of this way
	fails   need // of the step's failing
}

// How a step went that took no branch.
const (
	wasHeld       = -1
	wasClosed     = -2
	wasUnexpected = -3
)

// taken is the step that first led to a configuration.
type taken struct {
	from    int32
	trigger uint16
	half    uint8
	branch  int8
}

// edge leads to a configuration, and says what it takes to go there.
type edge struct {
	to   int32
	need need
}

// need is what a step needs: a person or luck; nothing but a message or an
// answer that arrives, while no guard holds; or time, likewise.
type need uint8

const (
	chance need = iota
	arrival
	passing
)

// explorer goes through all configurations, the nearest first.
type explorer struct {
	d         *Definition
	parties   []string
	machines  [2]Machine
	states    [2][]string
	final     [2][]bool
	hold      [2]uint8
	triggers  []string // forms, calls and deadlines; messages first
	messages  int
	calls     []string
	moves     [2][][]move // by half and state; of state 0, what begins the half
	certain   [2]map[string]map[string]bool
	concludes [2]bool
	underway  int

	known map[configuration]int32
	all   []configuration
	how   []taken
	edges []edge
	first []int32 // of all's edges
	cut   []bool  // whose steps found no room under way

	met       [2][2][]int32 // held, half, state*triggers+trigger -> 1 + the first configuration
	crossings map[[2]uint8]*[2]map[uint8]bool
}

// Explore goes through everything that the two halves can do.
func Explore(d *Definition) *Model { return explore(d, maxConfigurations) }

func explore(d *Definition, most int) *Model {
	x := newExplorer(d)
	if x == nil {
		return &Model{}
	}
	for x.underway = maxUnderway; x.underway > 0; x.underway-- {
		if x.run(most) {
			return x.model()
		}
	}
	return &Model{Configurations: len(x.all), Underway: 1}
}

// newExplorer numbers everything; it gives nil for more than can be numbered.
func newExplorer(d *Definition) *explorer {
	x := &explorer{d: d, parties: d.parties(), triggers: order(d.Messages), calls: order(d.Calls), known: map[configuration]int32{}}
	x.messages = len(x.triggers)
	if len(x.parties) != 2 || x.messages > 255 || len(x.calls) > 31 {
		return nil
	}
	number := map[string]uint16{}
	for _, party := range x.parties {
		m := d.Halves[party]
		on := order(m.Always.On)
		for _, state := range order(m.States) {
			on = append(on, order(m.States[state].On)...)
		}
		x.triggers = append(x.triggers, on...)
	}
	slices.Sort(x.triggers[x.messages:])
	var kept []string
	for _, t := range x.triggers {
		if _, ok := number[t]; !ok {
			number[t] = uint16(len(kept))
			kept = append(kept, t)
		}
	}
	x.triggers = kept
	for i, party := range x.parties {
		m := d.Halves[party]
		x.machines[i], x.states[i], x.certain[i] = m, order(m.States), d.certain(party, m)
		if len(x.states[i]) > 250 {
			return nil
		}
		x.concludes[i] = slices.ContainsFunc(order(m.Always.Deadlines), func(deadline string) bool { return d.concludes(party, m, deadline, x.certain[i]) })
		x.final[i] = make([]bool, len(x.states[i])+1)
		x.moves[i] = make([][]move, len(x.states[i])+1)
		x.hold[i] = x.state(i, m.Hold)
		for s, state := range x.states[i] {
			x.final[i][s+1] = m.States[state].Final
			for t, trigger := range x.triggers {
				x.moves[i][s+1] = append(x.moves[i][s+1], x.ways(i, state, uint16(t), trigger)...)
			}
			if state == m.Start {
				x.begins(i, uint8(s+1))
			}
		}
	}
	return x
}

// state numbers a state of a half; 0 where there is none of the name.
func (x *explorer) state(half int, name string) uint8 {
	return uint8(slices.Index(x.states[half], name) + 1)
}

// ways lists where a trigger can lead in a state.
func (x *explorer) ways(half int, state string, number uint16, trigger string) []move {
	on, _, ok := x.machines[half].handled(x.parties[half], state, trigger)
	if !ok {
		return nil
	}
	var out []move
	needs, fails := x.needs(half, state, trigger), chance
	if !x.d.sure(trigger, on, x.certain[half][state]) {
		fails = needs
	}
	for i, b := range on.Branches {
		w := move{trigger: number, branch: int8(i), message: int(number) < x.messages, refused: b.Refuse != "", to: x.state(half, state), fails: fails}
		if n := slices.Index(x.calls, trigger); n >= 0 {
			w.answers = 1 << n
		}
		if b.To != "" {
			w.to = x.state(half, b.To)
		}
		for _, name := range b.Send {
			if n := slices.Index(x.triggers[:x.messages], name); n >= 0 {
				w.send = append(w.send, uint8(n+1))
			}
		}
		for _, name := range b.Call {
			if n := slices.Index(x.calls, name); n >= 0 {
				w.ask |= 1 << n
			}
		}
		if b.If == "" && (b.To != "" || needs != passing) {
			w.need = needs // a deadline that passes and leaves the state alone has passed for good
		}
		if out = append(out, w); b.If == "" {
			break
		}
	}
	return out
}

// needs tells what a trigger needs. A deadline that is the case's own and not
// the state's passes once: what passes once leads around in no circle. Nor does
// a half whose time ends anyway.
func (x *explorer) needs(half int, state, trigger string) need {
	m := x.machines[half]
	switch x.d.kind(trigger) {
	case "message", "call":
		return arrival
	case "":
		if _, own := m.States[state].Deadlines[trigger]; own && !x.concludes[half] {
			return passing
		}
	}
	return chance
}

// begins keeps of the start's moves those with which a half can begin.
func (x *explorer) begins(half int, start uint8) {
	for _, w := range x.moves[half][start] {
		if x.d.begins(x.parties[half], x.triggers[w.trigger]) {
			x.moves[half][0] = append(x.moves[half][0], w)
		}
	}
}

// run explores; false: there are more configurations than may be.
func (x *explorer) run(most int) bool {
	clear(x.known)
	x.all, x.how, x.edges, x.first, x.cut = x.all[:0], x.how[:0], x.edges[:0], x.first[:0], x.cut[:0]
	x.crossings = map[[2]uint8]*[2]map[uint8]bool{}
	for h := range x.met {
		for i := range x.parties {
			x.met[h][i] = make([]int32, (len(x.states[i])+1)*len(x.triggers))
		}
	}
	x.reach(configuration{}, taken{from: -1})
	for i := 0; i < len(x.all); i++ {
		if len(x.all) > most || len(x.edges) > maxEdges*most {
			return false
		}
		x.first = append(x.first, int32(len(x.edges)))
		x.cross(x.all[i])
		x.cut = append(x.cut, x.steps(int32(i), func(next configuration, by taken, need need) {
			x.edges = append(x.edges, edge{x.reach(next, by), need})
		}))
	}
	x.first = append(x.first, int32(len(x.edges)))
	return true
}

// reach numbers a configuration.
func (x *explorer) reach(c configuration, by taken) int32 {
	n, ok := x.known[c]
	if !ok {
		n = int32(len(x.all))
		x.known[c], x.all, x.how = n, append(x.all, c), append(x.how, by)
	}
	return n
}

// steps gives every step that a configuration allows, and tells whether one
// found no room for its messages.
func (x *explorer) steps(n int32, give func(configuration, taken, need)) (cut bool) {
	c := x.all[n]
	for half := range x.parties {
		from := 1 - half
		head, after := c.line[from][0], c
		if head != 0 {
			after.line[from] = [maxUnderway]uint8{}
			copy(after.line[from][:], c.line[from][1:])
			x.meet(n, half, uint16(head-1))
			if !x.handles(half, c.at[half], uint16(head-1)) {
				how := taken{from: n, trigger: uint16(head - 1), half: uint8(half), branch: wasUnexpected}
				if x.final[half][c.at[half]] {
					how.branch = wasClosed
				}
				give(after, how, arrival)
			}
		}
		var failed [3]bool
		for _, w := range x.moves[half][c.at[half]] {
			before := c
			switch {
			case w.message && int(w.trigger)+1 != int(head) || c.asked&w.answers != w.answers:
				continue
			case w.message:
				before = after
			default:
				before.asked &^= w.answers
				x.meet(n, half, w.trigger)
			}
			by := taken{from: n, trigger: w.trigger, half: uint8(half), branch: w.branch}
			if fails := before; c.at[half] != x.hold[half] && (before != c || !failed[w.fails]) {
				failed[w.fails] = failed[w.fails] || before == c // all that leave nothing behind fail alike
				if !x.final[half][c.at[half]] {
					fails.asked, fails.at[half] = fails.asked|held, x.hold[half]
				}
				hold := by
				hold.branch = wasHeld
				give(fails, hold, w.fails)
			}
			if w.refused {
				if before != c {
					give(before, by, w.need)
				}
				continue
			}
			next, ok := x.send(before, half, w.send)
			if !ok {
				cut = true
				continue
			}
			next.at[half], next.asked = w.to, next.asked|w.ask
			give(next, by, w.need)
		}
	}
	return cut
}

func (x *explorer) handles(half int, state uint8, trigger uint16) bool {
	return slices.ContainsFunc(x.moves[half][state], func(w move) bool { return w.trigger == trigger })
}

// send puts messages under way, if there is room.
func (x *explorer) send(c configuration, half int, messages []uint8) (configuration, bool) {
	n := 0
	for n < maxUnderway && c.line[half][n] != 0 {
		n++
	}
	most := x.underway
	if c.asked&held != 0 {
		most = 1
	}
	if len(messages) > 0 && n+len(messages) > min(maxUnderway, max(most, len(messages))) {
		return c, false
	}
	copy(c.line[half][n:], messages)
	return c, true
}

// meet notes that a trigger has met a state.
func (x *explorer) meet(n int32, half int, trigger uint16) {
	c, after := x.all[n], 0
	if c.asked&held != 0 {
		after = 1
	}
	if at := &x.met[after][half][int(c.at[half])*len(x.triggers)+int(trigger)]; *at == 0 {
		*at = n + 1
	}
}

// cross notes where both halves come to if the oldest message of each is
// under way, and both now arrive.
func (x *explorer) cross(c configuration) {
	pair := [2]uint8{c.line[0][0], c.line[1][0]}
	if c.asked&held != 0 || pair[0] == 0 || pair[1] == 0 {
		return
	}
	ends := x.crossings[pair]
	if ends == nil {
		ends = &[2]map[uint8]bool{{}, {}}
		x.crossings[pair] = ends
	}
	for half := range x.parties {
		at, handled := c.at[half], false
		for _, w := range x.moves[half][at] {
			if int(w.trigger)+1 != int(pair[1-half]) {
				continue
			}
			if handled = true; w.refused {
				ends[half][at] = true
			} else {
				ends[half][w.to] = true
			}
		}
		if !handled {
			ends[half][at] = true
		}
	}
}

// end tells whether a case is over: both halves final, or the other never
// begun, and nothing under way.
func (x *explorer) end(c configuration) bool {
	return c.at[0] != 0 && x.final[0][c.at[0]] && (c.at[1] == 0 || x.final[1][c.at[1]]) && c.line[0][0] == 0 && c.line[1][0] == 0
}

// ending tells of each configuration whether an end can be reached from it.
// One whose every step found no room is not judged.
func (x *explorer) ending() []bool {
	good := make([]bool, len(x.all))
	for changed := true; changed; {
		changed = false
		for i := len(x.all) - 1; i >= 0; i-- {
			if good[i] {
				continue
			}
			to := x.edges[x.first[i]:x.first[i+1]]
			if x.end(x.all[i]) || len(to) == 0 && x.cut[i] || slices.ContainsFunc(to, func(e edge) bool { return good[e.to] }) {
				good[i], changed = true, true
			}
		}
	}
	return good
}

// circle finds configurations that lead around to the first of them by steps
// that need nothing but these; nil where there are none.
func (x *explorer) circle(needs ...need) []int32 {
	const fresh, open, done = 0, 1, 2
	colour, next := make([]uint8, len(x.all)), slices.Clone(x.first)
	for root := range x.all {
		if colour[root] != fresh {
			continue
		}
		way := []int32{int32(root)}
		colour[root] = open
		for len(way) > 0 {
			n := way[len(way)-1]
			if next[n] == x.first[n+1] {
				colour[n], way = done, way[:len(way)-1]
				continue
			}
			e := x.edges[next[n]]
			next[n]++
			switch {
			case !slices.Contains(needs, e.need) || colour[e.to] == done:
			case colour[e.to] == open:
				return way[slices.Index(way, e.to):]
			default:
				colour[e.to], way = open, append(way, e.to)
			}
		}
	}
	return nil
}
