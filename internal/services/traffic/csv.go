package traffic

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/falaj/falaj/internal/union"
)

// columns of a list of violations, in order. "course" may follow.
func columns() []string {
	return []string{"state", "local_code", "text_en", "text_ar", "category", "eu_2015_413", "fine_min", "fine_max",
		"currency", "points", "vehicle_impound_days", "law", "as_of", "source", "confidence"}
}

// Where the law's text says from or until when a row is in force.
var (
	inForce    = regexp.MustCompile(`in force ([0-9]{4}-[0-9]{2}-[0-9]{2})`)
	superseded = regexp.MustCompile(`superseded ([0-9]{4}-[0-9]{2}-[0-9]{2})`)
)

// ReadCSV reads the violations of one state from a list of one or more states:
// UTF-8, a header row, amounts in major units. All that it gives is a sample:
// no state has signed it. A column "course" says what may travel; where it is
// absent the careful guess is made: a code that ends with -COURT, and a fine
// without an amount, are the court's; drink, drugs, flight, prison, injury and
// death are a crime. A code that begins with OLD- is superseded: since the day
// that its law names, or it counts for no day.
func ReadCSV(r io.Reader, state union.State, zone string) (*Table, error) {
	t := &Table{State: state, Zone: zone, Sample: true, Violations: []Violation{}}
	in := csv.NewReader(io.LimitReader(r, maxTable+1))
	head, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("%w: the header row: %w", ErrTable, err)
	}
	head[0] = strings.TrimPrefix(head[0], "\ufeff")
	courses := slices.Equal(head, append(columns(), "course"))
	if !courses && !slices.Equal(head, columns()) {
		return nil, fmt.Errorf("%w: wanted the columns %s, and course or not", ErrTable, strings.Join(columns(), ","))
	}
	for n := 0; ; n++ {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTable, err)
		}
		if n >= maxRows || in.InputOffset() > maxTable {
			return nil, fmt.Errorf("%w: too much of it", ErrTable)
		}
		if union.State(row[0]) != state {
			continue
		}
		v, err := rowOf(row, state)
		if err != nil {
			line, _ := in.FieldPos(0)
			return nil, fmt.Errorf("%w: line %d: %w", ErrTable, line, err)
		}
		if courses {
			v.Course = Course(row[len(row)-1])
		}
		t.Violations = append(t.Violations, v)
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTable, err)
	}
	return t, nil
}

func rowOf(row []string, state union.State) (v Violation, err error) {
	v = Violation{Code: row[1], Text: union.Text{En: row[2], Ar: row[3]}, Category: row[4], Union: row[5],
		Law: row[11], AsOf: row[12], Source: row[13], Confidence: row[14]}
	if c := union.CurrencyOf(state); row[8] != string(c) {
		return v, fmt.Errorf("its currency is not %s", c)
	}
	if v.Min, err = fineOf(row[6], row[8]); err != nil {
		return v, err
	}
	if v.Max, err = fineOf(row[7], row[8]); err != nil {
		return v, err
	}
	if row[9] != "" {
		n, err := strconv.ParseInt(row[9], 10, 64)
		if err != nil {
			return v, errors.New("its points are no number")
		}
		v.Points = &n
	}
	if row[10] != "" {
		if v.Impound, err = strconv.ParseInt(row[10], 10, 64); err != nil {
			return v, errors.New("its days of impounding are no number")
		}
	}
	if m := inForce.FindStringSubmatch(v.Law); m != nil {
		err = v.From.UnmarshalText([]byte(m[1]))
	}
	if m := superseded.FindStringSubmatch(v.Law); m != nil && err == nil {
		err = v.Until.UnmarshalText([]byte(m[1]))
	}
	v.Superseded = strings.HasPrefix(v.Code, "OLD-") && v.Until == ""
	v.Course = guess(v)
	return v, err
}

// fineOf reads major units as minor ones.
func fineOf(s, currency string) (*int64, error) {
	if s == "" {
		return nil, nil
	}
	m, err := union.ParseMoney(s + " " + currency)
	if err != nil {
		return nil, err
	}
	return &m.Minor, nil
}

func guess(v Violation) Course {
	about := strings.ToLower(v.Text.En)
	switch {
	case v.Category == "drink_drug" || v.Category == "hit_and_run":
		return Criminal
	case strings.Contains(about, "prison") || strings.Contains(about, "injury") || strings.Contains(about, "death"):
		return Criminal
	case strings.HasSuffix(v.Code, "-COURT") || v.Min == nil && v.Max == nil:
		return Court
	}
	return Settleable
}
