// Package up plays a whole union on one machine: every state's node, the
// secretariat and the simulated registries in one process, each with its own
// keys, database, folder and ports, founded by the same ceremony that separate
// machines hold. Its folders are those of `falaj node` and `falaj secretariat`.
package up

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/registry"
	"github.com/falaj/falaj/internal/union"
)

func t(en, ar string) union.Text { return union.Text{En: en, Ar: ar} }

// States lists the states that take part where nobody says otherwise.
func States() []union.State {
	var out []union.State
	for _, s := range seats() {
		out = append(out, s.Code)
	}
	return out
}

func seats() []directory.Seat {
	return []directory.Seat{
		{Code: "BH", Name: t("Bahrain", "البحرين")},
		{Code: "SA", Name: t("Saudi Arabia", "السعودية")},
		{Code: "AE", Name: t("United Arab Emirates", "الإمارات")},
		{Code: "KW", Name: t("Kuwait", "الكويت")},
		{Code: "OM", Name: t("Oman", "عُمان")},
		{Code: "QA", Name: t("Qatar", "قطر")},
		{Code: "EG", Name: t("Egypt", "مصر"), Partner: true},
	}
}

func seat(code union.State) (directory.Seat, error) {
	i := slices.IndexFunc(seats(), func(s directory.Seat) bool { return s.Code == code })
	if i < 0 {
		return directory.Seat{}, fault.New(fault.Usage, "--state: %q is none of %v", code, States())
	}
	return seats()[i], nil
}

// The purposes of the demonstration. Their bases say that they are none.
func purposes() []directory.Purpose {
	basis := func(en, ar string) union.Text {
		return t("Demonstration: stands for an agreement on "+en+".", "عرض تجريبي: يمثّل اتفاقاً بشأن "+ar+".")
	}
	return []directory.Purpose{
		{Code: "identity", Name: t("Checking an identity", "التحقق من الهوية"), Basis: basis("the recognition of identity documents", "الاعتراف بوثائق الهوية")},
		{Code: "traffic", Name: t("Following up a traffic violation", "متابعة مخالفة مرورية"), Basis: basis("traffic violations", "المخالفات المرورية")},
		{Code: "business", Name: t("Licensing a business", "ترخيص نشاط تجاري"), Basis: basis("the practice of business", "ممارسة الأنشطة التجارية")},
		{Code: "residence", Name: t("Certifying a residence", "إثبات الإقامة"), Basis: basis("certificates of residence", "شهادات الإقامة")},
		{Code: "trial", Name: t("Trying out the exchange", "تجربة التبادل"), Basis: basis("trying out connections, with made-up data alone", "تجربة الربط ببيانات مصطنعة فقط")},
	}
}

// office is a member of every state of the demonstration.
type office struct {
	code       string
	name       union.Text
	subsystems []system
}

// system is a subsystem; one with a register serves it.
type system struct {
	code    string
	name    union.Text
	kind    registry.Kind
	purpose string // the default of its agreements
	offers  union.Text
}

// service is the code of every register's service.
const service = "registry"

// callers are the subsystems of a state that call through its node.
func callers(s union.State) (out []union.SubsystemID) {
	for _, o := range offices() {
		for _, x := range o.subsystems {
			if own := id(s, o.code, x.code); x.kind == "" && own != cases(s) { // which is the node itself
				out = append(out, own)
			}
		}
	}
	return out
}

// portal is the subsystem that calls where nobody says which.
func portal(s union.State) union.SubsystemID { return id(s, "egov", "portal") }

func id(s union.State, member, subsystem string) union.SubsystemID {
	return union.SubsystemID{MemberID: union.MemberID{State: s, Class: "GOV", Code: member}, Subsystem: subsystem}
}

func offices() []office {
	return []office{
		{"interior", t("Ministry of Interior (demonstration)", "وزارة الداخلية (عرض تجريبي)"), []system{
			{"civil", t("Civil registry", "السجل المدني"), registry.Persons, "identity", t("Persons (simulator)", "الأشخاص (محاكٍ)")},
			{"traffic", t("Traffic department", "إدارة المرور"), registry.Vehicles, "traffic", t("Vehicles (simulator)", "المركبات (محاكٍ)")},
			{"residence", t("Residence department", "إدارة الإقامة"), "", "", union.Text{}},
			{"cameras", t("Traffic cameras", "كاميرات المرور"), "", "", union.Text{}},
			{"violations", t("Violations department", "إدارة المخالفات"), "", "", union.Text{}},
		}},
		{"commerce", t("Ministry of Commerce (demonstration)", "وزارة التجارة (عرض تجريبي)"), []system{
			{"business", t("Commercial register", "السجل التجاري"), registry.Companies, "business", t("Companies (simulator)", "الشركات (محاكٍ)")},
		}},
		{"egov", t("Digital government authority (demonstration)", "هيئة الحكومة الرقمية (عرض تجريبي)"), []system{
			{"portal", t("National portal", "البوابة الوطنية"), "", "", union.Text{}},
			{"payments", t("Government payments", "المدفوعات الحكومية"), "", "", union.Text{}},
			{"cases", t("Cases of joint services", "معاملات الخدمات المشتركة"), "", "", union.Text{}},
		}},
	}
}

// served lists the subsystems that serve a register, with their member.
func served() []struct {
	member string
	system
} {
	var out []struct {
		member string
		system
	}
	for _, o := range offices() {
		for _, s := range o.subsystems {
			if s.kind != "" {
				out = append(out, struct {
					member string
					system
				}{o.code, s})
			}
		}
	}
	return out
}

// describe asks a register for its OpenAPI description.
func describe(h http.Handler) ([]byte, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "/openapi.json", http.NoBody)
	if err != nil {
		return nil, err
	}
	var w page
	h.ServeHTTP(&w, req)
	if w.status != 0 && w.status != http.StatusOK {
		return nil, fmt.Errorf("a register's description: status %d", w.status)
	}
	return w.Bytes(), nil
}

// page is an answer in memory.
type page struct {
	bytes.Buffer
	head   http.Header
	status int
}

func (p *page) Header() http.Header {
	if p.head == nil {
		p.head = http.Header{}
	}
	return p.head
}

func (p *page) WriteHeader(status int) { p.status = status }
