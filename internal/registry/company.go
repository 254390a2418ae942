package registry

import (
	"net/http"
	"strings"

	"github.com/falaj/falaj/internal/union"
)

type companyView struct {
	Simulator  bool        `json:"simulator"`
	ID         string      `json:"id"`
	State      union.State `json:"state"`
	Name       union.Text  `json:"name"`
	Form       union.Text  `json:"form"`
	Activity   activity    `json:"activity"`
	Status     string      `json:"status"`
	Registered string      `json:"registered"`
	Capital    money       `json:"capital"`
	Address    union.Text  `json:"address"`
	Owners     []member    `json:"owners"`
	Managers   []member    `json:"managers"`
	Vehicles   []string    `json:"vehicles"`
}

type activity struct {
	ISIC string     `json:"isic"`
	Name union.Text `json:"name"`
}

type money struct {
	Minor    int64  `json:"minor"`
	Currency string `json:"currency"`
}

// member is a person's part in a company.
type member struct {
	ID     string     `json:"id"`
	Name   union.Text `json:"name"`
	Points int16      `json:"basis_points,omitempty"`
}

func (r *Registry) showCompany(d *data, i int16) companyView {
	c := d.companies[i]
	v := companyView{Simulator: true, ID: c.number, State: r.state, Name: d.companyName(c), Form: d.country.form,
		Activity: activity{trades[c.trade].isic, trades[c.trade].name}, Status: "active", Registered: c.registered.Format(dateForm),
		Capital: money{c.capital * d.country.minor, d.country.currency}, Address: d.address(c.home), Vehicles: []string{}}
	if c.dissolved {
		v.Status = "dissolved"
	}
	for _, s := range c.owners {
		p := d.persons[s.person]
		v.Owners = append(v.Owners, member{p.number, d.name(p), s.points})
	}
	for _, m := range c.managers {
		p := d.persons[m]
		v.Managers = append(v.Managers, member{p.number, d.name(p), 0})
	}
	for _, i := range c.vehicles {
		v.Vehicles = append(v.Vehicles, d.vehicles[i].key)
	}
	return v
}

func (r *Registry) getCompany(d *data, w http.ResponseWriter, req *http.Request) error {
	number := union.FoldDigits(req.PathValue("id"))
	if len(number) != d.country.company || strings.Trim(number, "0123456789") != "" {
		return bad("a company's number in %s has %d digits", r.state, d.country.company)
	}
	i, ok := d.byCompany[number]
	if !ok {
		return notFound()
	}
	return send(w, http.StatusOK, "", r.showCompany(d, i))
}

func (r *Registry) findCompanies(d *data, w http.ResponseWriter, req *http.Request) error {
	q, err := readQuery(req, "name", "owner")
	if err != nil {
		return err
	}
	owner, subject := int16(-1), ""
	if s := q.values.Get("owner"); s != "" {
		if owner, err = d.person(s); err != nil {
			return err
		}
		subject = d.persons[owner].number
	}
	name := fold(q.values.Get("name"))
	var found []int16
	for i := range d.companies {
		c := &d.companies[i]
		if (owner < 0 || c.owns(owner)) && (name == "" || named(d.companyName(*c), name)) {
			found = append(found, int16(i))
		}
	}
	return send(w, http.StatusOK, subject, newPage(q, found, func(i int16) companyView { return r.showCompany(d, i) }))
}
