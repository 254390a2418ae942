package up

import (
	"slices"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/casework/adoption"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/policy"
	"github.com/falaj/falaj/internal/union"
)

// joined holds a directory to what every state of the demonstration says of
// joint services.
func joined(t *testing.T, v *directory.View, states ...union.State) {
	t.Helper()
	all := map[union.State]*adoption.Adoption{}
	for _, s := range states {
		raw, _ := v.File(s, adoption.File)
		a, err := adoption.Decode(s, raw)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		all[s] = a
	}
	rules, err := policy.Compile(v.Policies(), v.Agreements())
	if err != nil {
		t.Fatal(err)
	}
	may := func(client union.SubsystemID, service union.ServiceID, path, purpose string) bool {
		offer, ok := v.Service(service)
		code, _ := v.Purpose(purpose)
		q := policy.Question{Role: policy.Provider, Client: client, Service: service, Method: "POST", Path: path, Purpose: purpose, Basis: code.Basis.En, DataClass: offer.DataClass, At: time.Now()}
		return ok && rules.Decide(q).Allow
	}
	for _, j := range joints() {
		d, err := definition.Read(j.text)
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := v.Definition(d.Name, d.Version); !ok || string(text) != string(j.text) {
			t.Errorf("%s@%d is not in the directory", d.Name, d.Version)
		}
		if _, ok := v.Purpose(d.Purpose); !ok {
			t.Errorf("%s: the union has no purpose %q", d.Name, d.Purpose)
		}
		for _, s := range states {
			x, _ := all[s].Adopted(d.Name, d.Version)
			for role := range d.Roles {
				for _, by := range append(x.Roles[role], union.SubsystemID{})[:max(1, len(x.Roles[role]))] {
					if _, ok := v.Subsystem(by); !ok || !slices.Contains(callers(s), by) {
						t.Errorf("%s: nobody speaks for %s of %s, but %q", s, role, d.Name, by)
					}
				}
			}
			for _, call := range d.Calls {
				if !may(all[s].System, x.Calls[call.Service], "/x", d.Purpose) {
					t.Errorf("%s: its cases may not call %s of %s", s, call.Service, d.Name)
				}
			}
			for _, o := range states {
				to := union.ServiceID{SubsystemID: all[s].System, Service: adoption.Service}
				if o != s && !may(all[o].System, to, "/messages", d.Purpose) {
					t.Errorf("the cases of %s may not write to those of %s", o, s)
				}
				if n, ok := adoption.Highest(d.Name, all[s], all[o], time.Now()); o != s && (!ok || n != d.Version) {
					t.Errorf("%s and %s go by version %d of %s", s, o, n, d.Name)
				}
			}
		}
	}
}

// TestJointServices: a new union has the joint services in force, and one that
// was founded before there were any has them from its next start on; what its
// people said themselves stays.
func TestJointServices(t *testing.T) {
	dir := t.TempDir()
	p := play(t, dir, Deps{}, "BH", "AE", "EG")
	joined(t, p.union.nodes[0].Directory().View(), "BH", "AE", "EG")
	newest := p.union.nodes[0].Directory().View().Version()
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	// As a union of earlier days: nothing of joint services, but for BH's own word.
	u := p.union
	all := []*party{{dir: u.folder("secretariat")}}
	for _, s := range u.plan.States {
		all = append(all, &party{state: s, dir: u.folder(string(s))})
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range all {
		check(x.open())
	}
	check(openBooks(t.Context(), all, time.Now))
	dr, err := all[1].book.Draft()
	check(err)
	check(dr.SetPurposes(slices.DeleteFunc(purposes(), func(p directory.Purpose) bool { return p.Code == "residence" })))
	for _, x := range all[1:3] {
		key, err := x.keys.Signer(directory.RootKey)
		check(err)
		check(dr.Sign(key))
	}
	check(all[1].book.Install(t.Context(), dr))
	for _, x := range all[2:] {
		check(x.book.Refresh(t.Context()))
		check(x.book.Publish(t.Context(), func(e *directory.Edition) error {
			delete(e.Files, adoption.File)
			e.Agreements = slices.DeleteFunc(e.Agreements, func(a directory.Agreement) bool { return a.Client.Subsystem == "cases" })
			for i := range e.Members {
				m := &e.Members[i]
				m.Subsystems = slices.DeleteFunc(m.Subsystems, func(s directory.Subsystem) bool { return s.Code == "cases" || s.Code == "residence" })
			}
			return nil
		}))
	}
	check(all[1].book.Refresh(t.Context()))
	check(all[1].book.Publish(t.Context(), func(e *directory.Edition) error {
		a, err := adoption.Decode("BH", e.Files[adoption.File])
		if err != nil {
			return err
		}
		a.Holidays = []adoption.Holiday{{From: "2026-12-16", Until: "2026-12-17", Name: union.Text{En: "National day", Ar: "العيد الوطني"}}}
		e.Files[adoption.File], err = a.Encode()
		return err
	}))

	p = play(t, dir, Deps{})
	v := p.union.nodes[0].Directory().View()
	joined(t, v, "BH", "AE", "EG")
	raw, _ := v.File("BH", adoption.File)
	if a, err := adoption.Decode("BH", raw); err != nil || len(a.Holidays) != 1 {
		t.Errorf("what BH said is gone: %v", err)
	}
	if v.Version() <= newest {
		t.Error("nothing was published")
	}
}
