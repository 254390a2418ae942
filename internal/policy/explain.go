package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/falaj/falaj/internal/union"
)

// Outcome is what became of a rule that was asked.
type Outcome string

// The outcomes. A rule that failed denies the call.
const (
	Matched    Outcome = "matched"
	NotMatched Outcome = "not-matched"
	Failed     Outcome = "failed"
)

// Considered is a rule that was asked.
type Considered struct {
	Rule
	Outcome Outcome      `json:"outcome"`
	Why     []union.Text `json:"why,omitempty"` // of an agreement that does not match
	Cedar   string       `json:"cedar"`
}

// Explanation is a decision with all rules that were asked for it.
type Explanation struct {
	Decision
	Considered []Considered `json:"considered"`
}

// Explain decides as Decide does and shows every rule that had a say.
func (s *Set) Explain(q Question) Explanation {
	x := Explanation{Decision: s.Decide(q)}
	asked, refusal := s.prepare(q)
	if refusal != nil {
		return x
	}
	request := asked.request()
	for _, list := range [...][]*rule{asked.rules.state, asked.rules.agreements} {
		for _, r := range list {
			_, found := cedar.Authorize(candidates{state: []*rule{r}}, asked.known, request)
			c := Considered{Rule: r.Rule, Outcome: NotMatched, Cedar: string(r.policy.MarshalCedar())}
			switch {
			case len(found.Errors) > 0:
				c.Outcome = Failed
			case len(found.Reasons) > 0:
				c.Outcome = Matched
			case r.agreement != nil:
				c.Why = r.why(q)
			}
			x.Considered = append(x.Considered, c)
		}
	}
	return x
}

// why says which of an agreement's terms the call does not fit.
func (r *rule) why(q Question) []union.Text {
	var why []union.Text
	add := func(en, ar string) { why = append(why, union.Text{En: en, Ar: ar}) }
	a := r.agreement
	if !slices.Contains(a.Purposes, q.Purpose) {
		add("It is not for this purpose.", "لا يشمل الاتفاق هذا الغرض.")
	}
	if q.At.Before(a.From) {
		add("It is not in force yet.", "لم يدخل الاتفاق حيّز النفاذ بعد.")
	}
	if !a.Until.IsZero() && !q.At.Before(a.Until) {
		add("It has ended.", "انتهت مدة الاتفاق.")
	}
	if path, err := ParsePath(q.Path); err == nil && len(r.endpoints) > 0 && r.fits(q.Method, path) == "" {
		add("It does not open this method and path.", "لا يشمل الاتفاق هذه الطريقة وهذا المسار.")
	}
	return why
}
