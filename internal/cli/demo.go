package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/up"
	"github.com/falaj/falaj/internal/services/traffic"
	"github.com/falaj/falaj/internal/union"
)

type demoCmd struct {
	Traffic demoTrafficCmd `cmd:""`
}

type demoTrafficCmd struct {
	Offence string `placeholder:"AE"`
	Home    string `placeholder:"BH"`
}

// playing is what a demonstration shows: steps with what proves them.
type playing struct {
	Case    string     `json:"case"`
	Seconds float64    `json:"seconds"`
	Steps   []playStep `json:"steps"`
}

type playStep struct {
	AfterMS  int64       `json:"after_ms"`
	State    union.State `json:"state"`
	What     union.Text  `json:"what"`
	Evidence []string    `json:"evidence,omitempty"` // X-Road-Id of what crossed: falaj evidence show
	Leaf     *int64      `json:"leaf,omitempty"`     // of the step's record in that state's log
}

// Run plays a violation from the camera to the receipt, as the systems and
// people of two states of the running demonstration would.
func (c *demoTrafficCmd) Run(s *session) error {
	offence, home, err := c.places(s)
	if err != nil {
		return err
	}
	p := &trafficPlay{s: s, begin: time.Now(), offence: offence.State, home: home.State}
	if !s.JSON {
		s.printf(s.say(t("A traffic violation, from the camera in %s to the receipt in %s (demonstration; made-up people)\n\n",
			"مخالفة مرورية من الكاميرا في %s إلى الإيصال في %s (عرض تجريبي بأشخاص مصطنعين)\n\n")), s.say(offence.Name), s.say(home.Name))
	}
	if err := p.play(home.Registers["vehicles"]); err != nil {
		return err
	}
	p.Seconds = time.Since(p.begin).Seconds()
	return s.show(p.playing, func() {
		s.printf(s.say(t("\n%.1f s. Everything that both halves hold of it:\n", "\n%.1f ث. كل ما لدى الشقين عنها:\n")), p.Seconds)
		s.printf("  falaj case show %s --client %s/GOV/interior/violations --user officer-1\n", p.Case, p.offence)
		s.printf("  falaj case show %s --client %s/GOV/egov/portal --user %s\n", p.Case, p.home, p.holder)
	})
}

// places finds the two states among those that run here.
func (c *demoTrafficCmd) places(s *session) (offence, home up.Place, err error) {
	all, err := s.nodes("")
	if err != nil {
		return offence, home, err
	}
	find := func(flag, said, usual string, not union.State) (up.Place, error) {
		wants := []string{strings.ToUpper(said)}
		if said == "" {
			wants = []string{usual, ""}
		}
		for _, want := range wants {
			for _, n := range all {
				if p := n.place; p.State != not && p.Registers["vehicles"] != "" && (want == "" || want == string(p.State)) {
					return p, nil
				}
			}
		}
		return up.Place{}, fault.New(fault.Usage, "%s: no such state of a demonstration (falaj up) runs here", flag).
			Arabic("%s: لا تعمل هنا دولة كهذه من عرض تجريبي (falaj up)", flag)
	}
	if offence, err = find("--offence", c.Offence, "AE", union.State(strings.ToUpper(c.Home))); err == nil {
		home, err = find("--home", c.Home, "BH", offence.State)
	}
	return offence, home, err
}

type trafficPlay struct {
	s             *session
	begin         time.Time
	offence, home union.State
	holder        string
	playing
}

// vehicle is what the simulated register shows everybody in the demonstration.
type vehicle struct {
	ID     string     `json:"id"`
	Make   union.Text `json:"make"`
	Colour union.Text `json:"colour"`
	Holder struct {
		Kind string `json:"kind"`
		ID   string `json:"id"`
	} `json:"holder"`
}

func (p *trafficPlay) play(register string) error {
	v, err := p.vehicle(register)
	if err != nil {
		return err
	}
	p.holder = v.Holder.ID
	number := strings.ToUpper(fmt.Sprintf("%s-%.8s", p.offence, uuid.NewString()))
	fine := traffic.SampleFine(union.CurrencyOf(p.offence))
	digest := strings.Repeat("ab", 32)
	make, _, _ := strings.Cut(v.Make.En, " ")
	r, err := p.act(p.offence, "interior/cameras", "camera-17", "", map[string]any{
		"service": "traffic", "peer": p.home, "form": "record", "fields": map[string]any{
			"number": number, "offence_state": p.offence, "registered_in": p.home, "plate_seen": v.ID, "make_seen": make, "colour_seen": v.Colour.En,
			"code": "SPEED-20", "what_en": "Speeding", "what_ar": "تجاوز السرعة", "offended_at": time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339),
			"place": "Corniche Road", "amount": fine, "original": digest, "photo": digest,
		},
	})
	if err != nil {
		return err
	}
	p.Case = r.Case
	p.tell(p.offence, t(fmt.Sprintf("A camera saw the plate %s and the colour %s: violation %s", v.ID, v.Colour.En, number),
		fmt.Sprintf("رصدت كاميرا اللوحة %s واللون %s: المخالفة %s", v.ID, v.Colour.Ar, number)), r.Messages, &r.Leaf)
	home := caseAs{Client: string(p.home) + "/GOV/egov/portal", User: p.holder}
	story, err := p.reaches(home, "SERVING")
	if err != nil {
		return err
	}
	p.events(p.home, story, "vehicle", t("The register knows the vehicle; who holds it stays at home", "المركبة معروفة لدى السجل، ويبقى مالكها معروفاً في دولته فقط"))
	p.events(p.home, story, "notice", t("The notice is there for the holder", "وصل الإشعار إلى المالك"))
	if !p.s.JSON && len(story.Notices) > 0 {
		p.s.printf("            %s\n            %s\n", story.Notices[0].Text.Ar, story.Notices[0].Text.En)
	}
	if r, err = p.act(p.home, "egov/portal", "server", "/delivered", map[string]any{}); err != nil {
		return err
	}
	p.tell(p.home, t("The notice was delivered: clocks run from now", "سُلّم الإشعار، ومن الآن تسري المهل"), r.Messages, &r.Leaf)
	if story, err = p.has(home, "terms"); err != nil {
		return err
	}
	p.events(p.home, story, "terms", t("Until when it can be paid and objected to, by the calendar of the state of the offence", "مواعيد الدفع والاعتراض بحسب تقويم دولة المخالفة"))
	if r, err = p.act(p.home, "egov/portal", p.holder, "/price", map[string]any{}); err != nil {
		return err
	}
	if story, err = p.has(home, "price"); err != nil {
		return err
	}
	price, err := quoted(story.Facts)
	if err != nil {
		return err
	}
	p.tell(p.home, t("The price at home: "+price.Text().En, "السعر في دولته: "+price.Text().Ar), nil, &r.Leaf)
	if r, err = p.act(p.home, "egov/payments", "collector", "/pay", map[string]any{"fields": map[string]any{
		"receipt": "R-" + number, "paid": map[string]any{"minor": price.Minor, "currency": price.Currency}, "collected_by": "benefit",
	}}); err != nil {
		return err
	}
	p.tell(p.home, t("Paid: the state of registration undertakes to pay, and any block is lifted", "سُدّدت: تعهدت دولة التسجيل بالدفع ورُفع أي قيد"), r.Messages, &r.Leaf)
	story, err = p.reaches(caseAs{Client: string(p.offence) + "/GOV/interior/violations", User: "officer-1"}, "PAID")
	if err != nil {
		return err
	}
	p.events(p.offence, story, "undertaking", t("The state of the offence has the undertaking in its books", "قيّدت دولة المخالفة التعهد في دفاترها"))
	return nil
}

// quoted is the price in a case's quote.
func quoted(facts definition.Values) (union.Money, error) {
	raw, err := json.Marshal(facts["quote"])
	if err != nil {
		return union.Money{}, err
	}
	var q struct {
		Price union.Money `json:"price"`
	}
	if err := json.Unmarshal(raw, &q); err != nil || q.Price.Currency == "" {
		return union.Money{}, fault.New(fault.Corrupt, "the case has no quote")
	}
	return q.Price, nil
}

// vehicle takes one of a person from the simulated register.
func (p *trafficPlay) vehicle(register string) (v vehicle, err error) {
	req, err := http.NewRequestWithContext(p.s.ctx, http.MethodGet, register+"/vehicles?limit=50", nil)
	if err != nil {
		return v, err
	}
	caller, err := p.s.caller(caseTime)
	if err != nil {
		return v, err
	}
	resp, err := caller.Do(req)
	if err != nil {
		return v, fault.Wrap(fault.NoNode, err, "%v", err)
	}
	defer resp.Body.Close()
	var page struct {
		Items []vehicle `json:"items"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return v, fault.Wrap(fault.Corrupt, err, "the register of vehicles")
	}
	for _, v := range page.Items {
		if v.Holder.Kind == "person" {
			return v, nil
		}
	}
	return v, fault.New(fault.NotFound, "no vehicle of a person")
}

// act does something in the case, or opens it.
func (p *trafficPlay) act(at union.State, system, user, form string, body any) (casework.Receipt, error) {
	path := ""
	if form != "" {
		path = url.PathEscape(p.Case) + form
	}
	raw, err := caseAs{Client: string(at) + "/GOV/" + system, User: user}.at(p.s, "", http.MethodPost, path, uuid.NewString(), body)
	var r casework.Receipt
	if err == nil {
		err = jsonv2.Unmarshal(raw, &r)
	}
	return r, err
}

// until reads the case until it is as wanted, ten seconds at most.
func (p *trafficPlay) until(as caseAs, wanted func(casework.Story) bool, what string) (story casework.Story, err error) {
	for end := time.Now().Add(10 * time.Second); ; {
		raw, err := as.at(p.s, "", http.MethodGet, url.PathEscape(p.Case), "", nil)
		if err == nil {
			story = casework.Story{}
			if err = jsonv2.Unmarshal(raw, &story); err == nil && wanted(story) {
				return story, nil
			}
		}
		if time.Now().After(end) {
			return story, fault.Wrap(fault.OutOfTime, err, "%s: %s, %s", p.Case, what, story.State)
		}
		select {
		case <-p.s.ctx.Done():
			return story, p.s.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *trafficPlay) reaches(as caseAs, state string) (casework.Story, error) {
	return p.until(as, func(s casework.Story) bool { return s.State == state }, state)
}

func (p *trafficPlay) has(as caseAs, trigger string) (casework.Story, error) {
	return p.until(as, func(s casework.Story) bool {
		for _, ev := range s.Events {
			if ev.Trigger == trigger {
				return true
			}
		}
		return false
	}, trigger)
}

// events tells of the last event with a trigger.
func (p *trafficPlay) events(at union.State, story casework.Story, trigger string, what union.Text) {
	var messages []string
	var leaf *int64
	for _, ev := range story.Events {
		if ev.Trigger == trigger {
			messages, leaf = ev.Messages, &ev.Leaf
		}
	}
	p.tell(at, what, messages, leaf)
}

func (p *trafficPlay) tell(at union.State, what union.Text, evidence []string, leaf *int64) {
	step := playStep{time.Since(p.begin).Milliseconds(), at, what, evidence, leaf}
	p.Steps = append(p.Steps, step)
	if p.s.JSON {
		return
	}
	p.s.printf("  %5.2f s  %s  %s\n", float64(step.AfterMS)/1000, at, p.s.say(what))
	if leaf != nil {
		p.s.printf("            %s %d\n", p.s.say(t("record", "القيد")), *leaf)
	}
	for _, id := range evidence {
		p.s.printf("            %s falaj evidence show %s\n", p.s.say(t("evidence:", "الأدلة:")), id)
	}
}
