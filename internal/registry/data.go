package registry

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/union"
)

// How much there is of each in a state.
const (
	personCount  = 1500
	companyCount = 1000
	vehicleCount = 1600
)

// data is a state's registers. It is kept as indexes into the words of name.go:
// seven states lie in memory together, most of them unread.
type data struct {
	state     union.State
	country   country
	persons   []person
	companies []company
	vehicles  []vehicle
	byNumber  map[string]int16 // persons
	byCompany map[string]int16
	byPlate   map[string]int16
}

type person struct {
	number                             string
	born                               time.Time
	female                             bool
	given, father, grandfather, family uint8
	home                               address
	vehicles, companies                []int16
}

type address struct{ city, building, road uint16 }

type company struct {
	number        string
	family, trade uint8
	dissolved     bool
	registered    time.Time
	capital       int64 // whole units of the currency
	owners        []share
	managers      []int16
	home          address
	vehicles      []int16
}

// share is a part of a company in hundredths of a percent.
type share struct {
	person int16
	points int16
}

type vehicle struct {
	plate        union.Plate
	key          string
	make, colour uint8
	year         int16
	chassis      string // its last six characters
	expires      time.Time
	holder       int16 // index of a person, or of a company
	company      bool
}

// dice draws from a generator whose output is specified for good (ChaCha8,
// C2SP chacha8rand), by arithmetic of our own: rand.Rand's methods may change
// with Go, and the same seed must mean the same people for ever.
type dice struct{ rand.Source }

func newDice(st union.State, seed uint64) dice {
	b := append([]byte("falaj registry v1\n"+st+"\n"), make([]byte, 8)...)
	binary.BigEndian.PutUint64(b[len(b)-8:], seed)
	return dice{rand.NewChaCha8(sha256.Sum256(b))}
}

// below gives a number from 0 to n-1.
func (d dice) below(n int) int {
	hi, _ := bits.Mul64(d.Uint64(), uint64(n))
	return int(hi)
}

// day gives a day of the years from and to, both included.
func (d dice) day(from, to int) time.Time {
	first := time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC)
	days := int(time.Date(to+1, 1, 1, 0, 0, 0, 0, time.UTC).Sub(first).Hours() / 24)
	return first.AddDate(0, 0, d.below(days))
}

func (d dice) address(c country) address {
	return address{uint16(d.below(len(c.cities))), uint16(1 + d.below(1900)), uint16(1 + d.below(4900))}
}

func newData(st union.State, seed uint64) (*data, error) {
	c, _ := countryOf(st)
	roll := newDice(st, seed)
	d := &data{state: st, country: c,
		byNumber: make(map[string]int16, personCount), byCompany: make(map[string]int16, companyCount), byPlate: make(map[string]int16, vehicleCount)}
	for len(d.persons) < personCount {
		if err := d.addPerson(roll); err != nil {
			return nil, err
		}
	}
	for len(d.companies) < companyCount {
		d.addCompany(roll)
	}
	for len(d.vehicles) < vehicleCount {
		if err := d.addVehicle(roll); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *data) addPerson(roll dice) error {
	p := person{born: roll.day(1940, 2024), female: roll.below(2) == 1}
	given := len(men)
	if p.female {
		given = len(women)
	}
	p.given, p.father, p.grandfather = uint8(roll.below(given)), uint8(roll.below(len(men))), uint8(roll.below(len(men)))
	p.family = uint8(roll.below(len(d.country.families)))
	p.home = roll.address(d.country)
	id, err := union.NewNational(d.state, p.born, roll)
	if err != nil {
		return err
	}
	if _, taken := d.byNumber[id.Number]; taken {
		return nil
	}
	p.number = id.Number
	d.byNumber[p.number] = int16(len(d.persons))
	d.persons = append(d.persons, p)
	return nil
}

// adult draws a person who may hold a vehicle or a company.
func (d *data) adult(roll dice) int16 {
	for {
		if i := roll.below(len(d.persons)); d.persons[i].born.Year() < 2004 {
			return int16(i)
		}
	}
}

func (d *data) addCompany(roll dice) {
	number := fmt.Sprint(1 + roll.below(9))
	for range d.country.company - 1 {
		number += fmt.Sprint(roll.below(10))
	}
	c := company{number: number, trade: uint8(roll.below(len(trades))), dissolved: roll.below(20) == 0,
		registered: roll.day(1995, 2025), capital: int64(1+roll.below(200)) * 5000, home: roll.address(d.country)}
	left := 10000
	for n := 1 + roll.below(3); n > 0; n-- {
		s := share{person: d.adult(roll), points: int16(left)}
		for c.owns(s.person) {
			s.person = d.adult(roll)
		}
		if n > 1 {
			s.points = int16(100 * (1 + roll.below(left/100-n)))
		}
		left -= int(s.points)
		c.owners = append(c.owners, s)
	}
	c.family = d.persons[c.owners[0].person].family
	c.managers = append(c.managers, c.owners[0].person)
	if m := d.adult(roll); m != c.managers[0] && roll.below(3) == 0 {
		c.managers = append(c.managers, m)
	}
	if _, taken := d.byCompany[number]; taken {
		return
	}
	for _, s := range c.owners {
		p := &d.persons[s.person]
		p.companies = append(p.companies, int16(len(d.companies)))
	}
	d.byCompany[number] = int16(len(d.companies))
	d.companies = append(d.companies, c)
}

func (c *company) owns(person int16) bool {
	return slices.ContainsFunc(c.owners, func(s share) bool { return s.person == person })
}

func (d *data) addVehicle(roll dice) error {
	plate, err := union.NewPlate(d.state, roll)
	if err != nil {
		return err
	}
	v := vehicle{plate: plate, make: uint8(roll.below(len(makes))), colour: uint8(roll.below(len(colours))),
		year: int16(2005 + roll.below(21)), chassis: fmt.Sprintf("%06d", roll.below(1e6)), expires: roll.day(2026, 2029)}
	if v.company = roll.below(7) == 0; v.company {
		v.holder = int16(roll.below(len(d.companies)))
		if roll.below(2) == 0 {
			v.plate.Type = "transport"
		}
	} else {
		v.holder = d.adult(roll)
	}
	v.key = v.plate.String()
	if _, taken := d.byPlate[v.key]; taken {
		return nil
	}
	held := &d.persons[v.holder].vehicles
	if v.company {
		held = &d.companies[v.holder].vehicles
	}
	*held = append(*held, int16(len(d.vehicles)))
	d.byPlate[v.key] = int16(len(d.vehicles))
	d.vehicles = append(d.vehicles, v)
	return nil
}

// name composes a person's name as his state writes it.
func (d *data) name(p person) union.Text {
	given, ar, en := men[:], " بن ", " bin "
	if p.female {
		given, ar, en = women[:], " بنت ", " bint "
	}
	// Beyond the father's name it is "son of" for women too.
	ar2, en2 := " بن ", " bin "
	if !d.country.bin {
		ar, en, ar2, en2 = " ", " ", " ", " "
	}
	g, f, gf, fam := given[p.given], men[p.father], men[p.grandfather], d.country.families[p.family]
	return union.Text{Ar: g.Ar + ar + f.Ar + ar2 + gf.Ar + " " + fam.Ar, En: g.En + en + f.En + en2 + gf.En + " " + fam.En}
}

func (d *data) companyName(c company) union.Text {
	fam, trade := d.country.families[c.family], trades[c.trade].name
	purpose := "ل" + trade.Ar
	if rest, definite := strings.CutPrefix(trade.Ar, "ال"); definite {
		purpose = "لل" + rest // the article loses its alef after the preposition
	}
	return union.Text{Ar: "شركة " + fam.Ar + " " + purpose + " " + d.country.form.Ar, En: fam.En + " " + trade.En + " " + d.country.form.En}
}

func (d *data) address(a address) union.Text {
	city := d.country.cities[a.city]
	return union.Text{
		Ar: fmt.Sprintf("مبنى %d، طريق %d، %s", a.building, a.road, city.Ar),
		En: fmt.Sprintf("Building %d, Road %d, %s", a.building, a.road, city.En),
	}
}

// named tells whether a folded part stands in a name.
func named(n union.Text, part string) bool {
	return strings.Contains(fold(n.Ar), part) || strings.Contains(fold(n.En), part)
}

// fold makes names comparable: small Latin letters, one form of alef, yeh and
// teh marbuta, no vowel signs or tatweel, and "عبد الله" as "عبدالله".
func fold(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == 'أ' || r == 'إ' || r == 'آ' || r == 'ٱ':
			return 'ا'
		case r == 'ى':
			return 'ي'
		case r == 'ة':
			return 'ه'
		case r == 'ـ' || r >= 0x064B && r <= 0x0652:
			return -1
		}
		return r
	}, strings.ToLower(s))
	return strings.ReplaceAll(s, "عبد ", "عبد")
}
