package registry

import (
	"net/http"
	"time"

	"github.com/falaj/falaj/internal/union"
)

const dateForm = "2006-01-02"

type personView struct {
	Simulator   bool        `json:"simulator"`
	ID          string      `json:"id"`
	State       union.State `json:"state"`
	Name        union.Text  `json:"name"`
	Sex         string      `json:"sex"`
	Born        string      `json:"born"`
	Nationality union.State `json:"nationality"`
	Address     union.Text  `json:"address"`
	Vehicles    []string    `json:"vehicles"`
	Companies   []string    `json:"companies"`
}

func (r *Registry) showPerson(d *data, i int16) personView {
	p := d.persons[i]
	v := personView{Simulator: true, ID: p.number, State: r.state, Name: d.name(p), Sex: "male", Born: p.born.Format(dateForm),
		Nationality: r.state, Address: d.address(p.home), Vehicles: []string{}, Companies: []string{}}
	if p.female {
		v.Sex = "female"
	}
	for _, i := range p.vehicles {
		v.Vehicles = append(v.Vehicles, d.vehicles[i].key)
	}
	for _, i := range p.companies {
		v.Companies = append(v.Companies, d.companies[i].number)
	}
	return v
}

// person finds who has a national number.
func (d *data) person(number string) (int16, error) {
	id, err := union.ParseNational(d.state, number)
	if err != nil {
		return 0, bad("not a national number of %s", d.state)
	}
	i, ok := d.byNumber[id.Number]
	if !ok {
		return 0, notFound()
	}
	return i, nil
}

func (r *Registry) getPerson(d *data, w http.ResponseWriter, req *http.Request) error {
	i, err := d.person(req.PathValue("id"))
	if err != nil {
		return err
	}
	return send(w, http.StatusOK, d.persons[i].number, r.showPerson(d, i))
}

func (r *Registry) findPersons(d *data, w http.ResponseWriter, req *http.Request) error {
	q, err := readQuery(req, "name", "born")
	if err != nil {
		return err
	}
	born := union.FoldDigits(q.values.Get("born"))
	if _, err := time.Parse(dateForm, born); born != "" && err != nil {
		return bad("born is a date, YYYY-MM-DD")
	}
	name := fold(q.values.Get("name"))
	var found []int16
	for i, p := range d.persons {
		if (born == "" || p.born.Format(dateForm) == born) && (name == "" || named(d.name(p), name)) {
			found = append(found, int16(i))
		}
	}
	subject := ""
	if one := q.page(found); len(one) == 1 {
		subject = d.persons[one[0]].number
	}
	return send(w, http.StatusOK, subject, newPage(q, found, func(i int16) personView { return r.showPerson(d, i) }))
}

// residentView answers what a certificate of residence asks.
type residentView struct {
	Simulator bool          `json:"simulator"`
	Match     bool          `json:"match"`
	Resident  bool          `json:"resident"`
	Extract   *residentFile `json:"extract,omitempty"` // of somebody who matches and lives here
}

type residentFile struct {
	Number  string `json:"number"` // of the extract
	Address string `json:"address"`
	Since   string `json:"since"`
}

// checkResident tells no more of a person than somebody knows already, unless
// he knows who it is.
func (r *Registry) checkResident(d *data, w http.ResponseWriter, req *http.Request) error {
	var in struct {
		Number string `json:"residence_number"`
		Name   string `json:"name"`
		Birth  string `json:"birth"`
	}
	if _, err := readBody(w, req, &in); err != nil {
		return err
	}
	if _, err := time.Parse(dateForm, in.Birth); err != nil || in.Name == "" || len(in.Name) > maxText {
		return bad("name is a name, and birth a date, YYYY-MM-DD")
	}
	i, err := d.person(in.Number)
	if err != nil {
		return err
	}
	p, v := d.persons[i], residentView{Simulator: true}
	name := d.name(p)
	v.Match = p.born.Format(dateForm) == in.Birth && (fold(name.En) == fold(in.Name) || fold(name.Ar) == fold(in.Name))
	// One of eight has moved away.
	if v.Resident = v.Match && p.home.road%8 != 0; v.Resident {
		at := d.address(p.home)
		v.Extract = &residentFile{
			Number: string(d.state) + "-R/" + p.number, Address: at.Ar + " / " + at.En,
			Since: time.Date(2010+int(p.home.building%14), time.Month(1+p.home.road%12), 1+int(p.home.building%28), 0, 0, 0, 0, time.UTC).Format(dateForm),
		}
	}
	return send(w, http.StatusOK, p.number, v)
}
