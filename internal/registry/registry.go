// Package registry is the room of simulators: for each state registers of
// persons, vehicles and companies as ordinary HTTP services, since the real
// ones cannot be had. Everything in them is made up from a seed, the same for
// ever, and says of itself that it is simulated; the way to them is real.
package registry

import (
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/falaj/falaj/internal/union"
)

// Kind is a register.
type Kind string

// The registers, and all of them in one service.
const (
	Persons   Kind = "persons"
	Vehicles  Kind = "vehicles"
	Companies Kind = "companies"
	All       Kind = "all"
)

// Kinds lists the registers.
func Kinds() []Kind { return []Kind{Persons, Vehicles, Companies} }

// DefaultSeed is the seed of demonstrations.
const DefaultSeed = 1

// Registry is one state's registers. What is written to it (a keeper's
// address, notices) lasts as long as the process.
type Registry struct {
	state union.State
	build func() (*data, error)

	mu        sync.Mutex
	addresses map[string]union.Text // by plate
	notices   []notice
	notified  map[notifier]int // index into notices
}

// New gives the registers of one of the seven states. They are filled when
// they are first asked.
func New(st union.State, seed uint64) (*Registry, error) {
	if _, ok := countryOf(st); !ok {
		return nil, fmt.Errorf("no registers are simulated for state %q", st)
	}
	r := &Registry{state: st, addresses: map[string]union.Text{}, notified: map[notifier]int{}}
	r.build = sync.OnceValues(func() (*data, error) { return newData(st, seed) })
	return r, nil
}

// Samples are paths that have an answer, for those who try the service out:
// the first persons, plates of persons, companies. They are not yet
// percent-encoded.
func (r *Registry) Samples(k Kind, n int) []string {
	d, err := r.build()
	if err != nil {
		return nil
	}
	var paths []string
	switch k {
	case Persons:
		for _, p := range d.persons {
			paths = append(paths, "/persons/"+p.number)
		}
	case Vehicles:
		for _, v := range d.vehicles {
			if !v.company {
				paths = append(paths, "/vehicles/"+v.key)
			}
		}
	case Companies:
		for _, c := range d.companies {
			paths = append(paths, "/companies/"+c.number)
		}
	}
	return slices.Clip(paths[:min(n, len(paths))])
}

// Handler serves one register, or all, together with /health and
// /openapi.json. Handlers of one Registry share its data.
func (r *Registry) Handler(k Kind) http.Handler {
	mux := http.NewServeMux()
	serve := func(kind Kind, pattern string, f func(d *data, w http.ResponseWriter, req *http.Request) error) {
		if kind == k || k == All || kind == All {
			mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) { r.answer(w, req, f) })
		}
	}
	serve(All, "GET /health", r.health)
	serve(All, "GET /openapi.json", func(d *data, w http.ResponseWriter, req *http.Request) error {
		b, err := r.describe(k)
		if err != nil {
			return err
		}
		return reply(w, http.StatusOK, b)
	})
	serve(Persons, "GET /persons", r.findPersons)
	serve(Persons, "GET /persons/{id}", r.getPerson)
	serve(Persons, "POST /residents/check", r.checkResident)
	serve(Vehicles, "GET /vehicles", r.findVehicles)
	serve(Vehicles, "GET /vehicles/{plate}", r.getVehicle)
	serve(Vehicles, "GET /vehicles/{plate}/address", r.getAddress)
	serve(Vehicles, "PUT /vehicles/{plate}/address", r.putAddress)
	serve(Vehicles, "POST /notices", r.postNotice)
	serve(Vehicles, "GET /notices/{id}", r.getNotice)
	serve(Companies, "GET /companies", r.findCompanies)
	serve(Companies, "GET /companies/{id}", r.getCompany)
	return withProblems(mux)
}
