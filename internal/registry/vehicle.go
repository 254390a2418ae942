package registry

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/union"
)

type vehicleView struct {
	Simulator bool        `json:"simulator"`
	ID        string      `json:"id"`
	Plate     union.Plate `json:"plate"`
	Make      union.Text  `json:"make"`
	Colour    union.Text  `json:"colour"`
	Year      int16       `json:"year"`
	Chassis   string      `json:"vin_last6"`
	Expires   string      `json:"expires"`
	Holder    holder      `json:"holder"`
	Address   union.Text  `json:"address"`
}

type holder struct {
	Kind string     `json:"kind"` // person or company
	ID   string     `json:"id"`
	Name union.Text `json:"name"`
}

func (r *Registry) showVehicle(d *data, i int16) vehicleView {
	v := d.vehicles[i]
	view := vehicleView{Simulator: true, ID: v.key, Plate: v.plate, Make: makes[v.make], Colour: colours[v.colour],
		Year: v.year, Chassis: v.chassis, Expires: v.expires.Format(dateForm), Address: r.addressOf(d, v)}
	if v.company {
		c := d.companies[v.holder]
		view.Holder = holder{"company", c.number, d.companyName(c)}
	} else {
		p := d.persons[v.holder]
		view.Holder = holder{"person", p.number, d.name(p)}
	}
	return view
}

// addressOf is where the vehicle is kept: what was last put, or the holder's.
func (r *Registry) addressOf(d *data, v vehicle) union.Text {
	r.mu.Lock()
	put, ok := r.addresses[v.key]
	r.mu.Unlock()
	switch {
	case ok:
		return put
	case v.company:
		return d.address(d.companies[v.holder].home)
	}
	return d.address(d.persons[v.holder].home)
}

// subject is the person to whom a vehicle leads.
func (d *data) subject(v vehicle) string {
	if v.company {
		return ""
	}
	return d.persons[v.holder].number
}

// vehicle finds a plate in whatever way it is written.
func (d *data) vehicle(plate string) (int16, error) {
	p, err := union.ParsePlate(d.state, plate)
	if err != nil {
		return 0, bad("not a plate of %s", d.state)
	}
	i, ok := d.byPlate[p.String()]
	if !ok {
		return 0, notFound()
	}
	return i, nil
}

func (r *Registry) getVehicle(d *data, w http.ResponseWriter, req *http.Request) error {
	i, err := d.vehicle(req.PathValue("plate"))
	if err != nil {
		return err
	}
	return send(w, http.StatusOK, d.subject(d.vehicles[i]), r.showVehicle(d, i))
}

func (r *Registry) findVehicles(d *data, w http.ResponseWriter, req *http.Request) error {
	q, err := readQuery(req, "holder")
	if err != nil {
		return err
	}
	wanted, subject := int16(-1), ""
	if s := q.values.Get("holder"); s != "" {
		if wanted, err = d.person(s); err != nil {
			return err
		}
		subject = d.persons[wanted].number
	}
	var found []int16
	for i, v := range d.vehicles {
		if wanted < 0 || !v.company && v.holder == wanted {
			found = append(found, int16(i))
		}
	}
	if one := q.page(found); len(one) == 1 {
		subject = d.subject(d.vehicles[one[0]])
	}
	return send(w, http.StatusOK, subject, newPage(q, found, func(i int16) vehicleView { return r.showVehicle(d, i) }))
}

type addressView struct {
	Simulator bool       `json:"simulator"`
	Plate     string     `json:"plate"`
	Address   union.Text `json:"address"`
}

func (r *Registry) getAddress(d *data, w http.ResponseWriter, req *http.Request) error {
	i, err := d.vehicle(req.PathValue("plate"))
	if err != nil {
		return err
	}
	v := d.vehicles[i]
	return send(w, http.StatusOK, d.subject(v), addressView{true, v.key, r.addressOf(d, v)})
}

// putAddress changes where a vehicle is kept. Putting it twice does no more
// than putting it once.
func (r *Registry) putAddress(d *data, w http.ResponseWriter, req *http.Request) error {
	i, err := d.vehicle(req.PathValue("plate"))
	if err != nil {
		return err
	}
	var in struct {
		Address union.Text `json:"address"`
	}
	if _, err := readBody(w, req, &in); err != nil {
		return err
	}
	if !bilingual(in.Address) {
		return bad("address is a text of at most %d bytes in each language", maxText)
	}
	v := d.vehicles[i]
	r.mu.Lock()
	r.addresses[v.key] = in.Address
	r.mu.Unlock()
	return send(w, http.StatusOK, d.subject(v), addressView{true, v.key, in.Address})
}

// maxNotices is how many notices a simulator remembers.
const maxNotices = 10000

// notice is a notice to a vehicle's holder, such as of a violation.
type notice struct {
	vehicle int16
	digest  [32]byte // of the request's body
	view    noticeView
}

// notifier names one request of one client, so that its repetition has no
// second effect.
type notifier struct{ client, id string }

type noticeView struct {
	Simulator bool       `json:"simulator"`
	ID        string     `json:"id"`
	Status    string     `json:"status"`
	Plate     string     `json:"plate"`
	Code      string     `json:"code"`
	Text      union.Text `json:"text"`
	At        time.Time  `json:"at"`
	Fine      *money     `json:"fine,omitempty"`
}

// postNotice serves a notice on a vehicle's holder, once for each
// Idempotency-Key or, without one, X-Road-Id of a client.
func (r *Registry) postNotice(d *data, w http.ResponseWriter, req *http.Request) error {
	by := notifier{req.Header.Get("X-Road-Client"), req.Header.Get("Idempotency-Key")}
	if by.id == "" {
		by.id = req.Header.Get("X-Road-Id")
	}
	if len(by.id) > maxValue || len(by.client) > 4*maxValue {
		return bad("Idempotency-Key, X-Road-Id or X-Road-Client is too long")
	}
	var in struct {
		Plate string     `json:"plate"`
		Code  string     `json:"code"`
		Text  union.Text `json:"text"`
		At    time.Time  `json:"at"`
		Fine  *money     `json:"fine"`
	}
	body, err := readBody(w, req, &in)
	if err != nil {
		return err
	}
	i, err := d.vehicle(in.Plate)
	if err != nil {
		return err
	}
	switch {
	case in.Code == "" || len(in.Code) > 64 || !printable(in.Code):
		return bad("code is a printable text of at most 64 bytes")
	case !bilingual(in.Text):
		return bad("text is a text of at most %d bytes in each language", maxText)
	case in.At.Year() < 2000 || in.At.Year() > 2100:
		return bad("at is a time of this century")
	case in.Fine != nil && (in.Fine.Minor < 0 || len(in.Fine.Currency) != 3 || strings.Trim(in.Fine.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != ""):
		return bad("fine takes minor units and a currency (ISO 4217)")
	}
	n, err := r.record(by, notice{vehicle: i, digest: sha256.Sum256(body), view: noticeView{
		Simulator: true, Status: "served", Plate: d.vehicles[i].key, Code: in.Code, Text: in.Text, At: in.At.UTC(), Fine: in.Fine}})
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/notices/"+n.view.ID)
	return send(w, http.StatusCreated, d.subject(d.vehicles[n.vehicle]), n.view)
}

// record keeps a notice, or gives the one that the same request made before.
func (r *Registry) record(by notifier, n notice) (notice, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.notified[by]; ok && by.id != "" {
		if r.notices[at].digest != n.digest {
			return notice{}, &problem{http.StatusConflict, t("سبق استخدام هذا المعرّف لطلب آخر.", "This id was used for another request."), ""}
		}
		return r.notices[at], nil
	}
	if len(r.notices) == maxNotices {
		return notice{}, &problem{http.StatusInsufficientStorage, t("امتلأ المحاكي.", "The simulator is full."), ""}
	}
	n.view.ID = fmt.Sprintf("%s-%d", r.state, len(r.notices)+1)
	if by.id != "" {
		r.notified[by] = len(r.notices)
	}
	r.notices = append(r.notices, n)
	return n, nil
}

func (r *Registry) getNotice(d *data, w http.ResponseWriter, req *http.Request) error {
	n, ok := r.noticeOf(req.PathValue("id"))
	if !ok {
		return notFound()
	}
	return send(w, http.StatusOK, d.subject(d.vehicles[n.vehicle]), n.view)
}

func (r *Registry) noticeOf(id string) (notice, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.notices, func(n notice) bool { return n.view.ID == id })
	if i < 0 {
		return notice{}, false
	}
	return r.notices[i], true
}
