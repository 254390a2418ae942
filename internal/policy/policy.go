// Package policy is the room of rules: it asks one state's Cedar policies and
// agreements whether a call may pass, and names the rules that decided. It
// knows nothing of where rules come from.
package policy

import (
	"time"

	"github.com/falaj/falaj/internal/union"
)

// Source is one document of Cedar policies of a state. Each rule in it carries
// @id, unique within the state's sources of that name, and what it says in
// both languages: @en, @ar. The names "agreement" and "falaj" are taken.
type Source struct {
	Name  string
	State union.State
	Text  string
}

// Endpoint is a method and a path (see Pattern) that an agreement opens.
// Method * stands for all.
type Endpoint struct {
	Method string `json:"method"`
	Path   string `json:"path"`
}

// String is the endpoint as context.endpoints holds it.
func (e Endpoint) String() string { return e.Method + " " + e.Path }

// Agreement lets one client call one service for named purposes. It becomes a
// Cedar permit of the serving state, asked in the role of provider alone. That
// the serving state signed it is for the directory to see to.
type Agreement struct {
	ID        string            `json:"id"` // unique within the serving state
	Client    union.SubsystemID `json:"client"`
	Service   union.ServiceID   `json:"service"`
	Endpoints []Endpoint        `json:"endpoints,omitempty"` // none = all of the service
	Purposes  []string          `json:"purposes"`            // at least one
	From      time.Time         `json:"from,omitzero"`       // zero = always has been
	Until     time.Time         `json:"until,omitzero"`      // exclusive; zero = without end
	Basis     union.Text        `json:"basis"`               // the legal basis, for people
}

// Role is the side for which a node decides.
type Role string

// The consumer's node asks the rules of the client's state, the provider's
// node those of the serving state.
const (
	Consumer Role = "consumer"
	Provider Role = "provider"
)

// Question is a call about which to decide. Texts that are unknown stay empty.
type Question struct {
	Role      Role
	Client    union.SubsystemID
	Service   union.ServiceID
	Method    string
	Path      string // after the service, percent-encoded as the backend will get it, without query
	Purpose   string
	Basis     string // the legal basis that the directory gives the purpose; empty if the union does not know the purpose
	DataClass string
	At        time.Time // counts in whole seconds
}

// The effects of a rule.
const (
	Permit = "permit"
	Forbid = "forbid"
)

// Rule is what people see of a rule that decided.
type Rule struct {
	ID     string `json:"id"`
	Source string `json:"source"`
	En     string `json:"en"`
	Ar     string `json:"ar"`
	Effect string `json:"effect"`
}

// Decision is the answer. Rules is never empty: where no rule of a state
// decided, it holds one of our own (Source "falaj") that says why. Errors name
// the rules that could not be evaluated, without any value of the question.
type Decision struct {
	Allow  bool     `json:"allow"`
	Rules  []Rule   `json:"rules"`
	Errors []string `json:"errors,omitempty"`
}

// The sources of rules that no document of a state holds.
const (
	ownSource       = "falaj"
	agreementSource = "agreement"
)

// Our own rules: the ones that hold whatever the states' rules say.
func ownRule(id, en, ar string) Rule {
	return Rule{ID: id, Source: ownSource, En: en, Ar: ar, Effect: Forbid}
}

func noRule() Rule {
	return ownRule("no-rule", "No rule and no agreement allows this call.", "لا توجد قاعدة ولا اتفاق يسمح بهذا الطلب.")
}

func badPath() Rule {
	return ownRule("path", "The path could be read in more than one way.", "يمكن قراءة المسار بأكثر من طريقة.")
}

func badQuestion() Rule {
	return ownRule("question", "The call is not described completely.", "وصف الطلب غير مكتمل.")
}

func ruleError() Rule {
	return ownRule("rule-error", "A rule could not be evaluated; the call is refused until it is corrected.",
		"تعذّر تقييم إحدى القواعد، ولذلك يُرفض الطلب إلى أن تُصحَّح.")
}

func sourceError() Rule {
	return ownRule("source-error", "The state's rules are faulty; all its calls are refused until they are corrected.",
		"قواعد الدولة معيبة، ولذلك تُرفض جميع طلباتها إلى أن تُصحَّح.")
}
