package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrHeld says that a hold keeps a period's key from being destroyed.
var ErrHeld = errors.New("a hold keeps the key of this retention class and period")

const (
	holdSuffix = ".hold"
	everyMonth = "all"
)

// Hold keeps the key of a class and month, or of all months of a class, from
// being destroyed. It lies beside the keys, so that no copy of a database that
// is restored forgets it.
type Hold struct {
	Name   string // a word, as a class is
	Class  string
	Period Period // 0: every month
	Note   []byte // whatever the one who holds wants to have there, at most 16 KiB
}

func (h *Hold) file() string {
	period := everyMonth
	if h.Period != 0 {
		period = h.Period.String()
	}
	return period + "." + h.Name + holdSuffix
}

// Hold sets a hold; fs.ErrExist where one of its name is there for this class
// and month, ErrDestroyed where there is nothing left to hold.
func (r RecordKeys) Hold(h Hold) error {
	if err := checkWord("the name of a hold", h.Name); err != nil {
		return err
	}
	n := periodName{h.Class, h.Period}
	if err := checkClass(h.Class); err != nil {
		return err
	}
	if h.Period != 0 && !h.Period.valid() || len(h.Note) > maxKeyFile/2 {
		return fmt.Errorf("a hold of %s with a note of %d bytes", n, len(h.Note))
	}
	folder := filepath.Join(r.p.dir, h.Class)
	lock, err := r.p.lock(h.Class)
	if err != nil {
		return fmt.Errorf("holding %s: %w", n, err)
	}
	defer func() { _ = lock.Close() }()
	if h.Period != 0 && r.p.condemned(n) && !r.p.whole(n) {
		return fmt.Errorf("holding %s: %w", n, ErrDestroyed)
	}
	periods, err := r.Periods(h.Class)
	if err == nil {
		err = createFile(filepath.Join(folder, h.file()), h.Note)
	}
	for _, p := range periods {
		if err == nil && (h.Period == 0 || h.Period == p) {
			err = r.p.reprieve(periodName{h.Class, p})
		}
	}
	if err != nil {
		return fmt.Errorf("holding %s: %w", n, err)
	}
	return nil
}

// Release ends all holds of a name and tells which they were.
func (r RecordKeys) Release(name string) ([]Hold, error) {
	all, err := r.Holds()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(h Hold) bool { return h.Name != name })
	for _, h := range all {
		folder := filepath.Join(r.p.dir, h.Class)
		err := os.Remove(filepath.Join(folder, h.file()))
		if err == nil {
			err = syncFolder(folder)
		}
		if err != nil {
			return nil, fmt.Errorf("releasing a hold: %w", err)
		}
	}
	return all, nil
}

// Holds lists the holds by class, month and name.
func (r RecordKeys) Holds() (all []Hold, err error) {
	classes, err := os.ReadDir(r.p.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing holds: %w", err)
	}
	for _, c := range classes {
		if checkClass(c.Name()) != nil {
			continue
		}
		of, err := r.p.holds(c.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, of...)
	}
	return all, nil
}

// Held tells whether a hold keeps a class and month.
func (r RecordKeys) Held(class string, period Period) (bool, error) {
	err := r.p.held(periodName{class, period})
	if errors.Is(err, ErrHeld) {
		return true, nil
	}
	return false, err
}

func (p *periods) holds(class string) (all []Hold, err error) {
	names, err := namesIn(filepath.Join(p.dir, class), holdSuffix)
	if err != nil {
		return nil, fmt.Errorf("listing holds: %w", err)
	}
	for _, n := range names {
		period, name, _ := strings.Cut(n, ".")
		h := Hold{Name: name, Class: class}
		if period != everyMonth {
			if h.Period, err = ParsePeriod(period); err != nil {
				return nil, fmt.Errorf("the hold %s of %s: %w", n, class, err)
			}
		}
		h.Note, err = readFile(filepath.Join(p.dir, class, n+holdSuffix))
		if errors.Is(err, fs.ErrNotExist) {
			continue // released meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("reading a hold: %w", err)
		}
		all = append(all, h)
	}
	return all, nil
}

// held tells whether a hold keeps a key. What cannot be read is taken for one.
func (p *periods) held(n periodName) error {
	all, err := p.holds(n.class)
	if err != nil {
		return err
	}
	for _, h := range all {
		if h.Period == 0 || h.Period == n.period {
			return fmt.Errorf("%w: %s", ErrHeld, h.Name)
		}
	}
	return nil
}
