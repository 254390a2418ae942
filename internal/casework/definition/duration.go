package definition

import (
	"fmt"
	"strings"
	"time"
)

// maxDuration bounds each duration of a definition: a hundred years.
const maxDuration = 36_525 * 24 * time.Hour

// ParseDuration reads an ISO 8601 duration of weeks, days and less: P30D,
// PT12H, P1DT6H. Years and months are refused, since their length depends on
// the calendar: a hook over the state's calendar gives such an instant.
func ParseDuration(s string) (time.Duration, error) {
	bad := func() (time.Duration, error) {
		return 0, fmt.Errorf("%q is not a duration: write weeks, days or less as in P30D, PT12H or P1DT6H", clip(s, 40))
	}
	rest, ok := strings.CutPrefix(s, "P")
	if !ok || rest == "" || len(s) > 40 {
		return bad()
	}
	units := "WDHMS"
	var sum time.Duration
	inTime := false
	for rest != "" {
		if rest[0] == 'T' && !inTime {
			inTime, rest, units = true, rest[1:], strings.TrimLeft(units, "WD")
			if rest == "" {
				return bad()
			}
			continue
		}
		n := 0
		i := 0
		for ; i < len(rest) && rest[i] >= '0' && rest[i] <= '9'; i++ {
			if n = n*10 + int(rest[i]-'0'); n > 1e10 {
				return bad()
			}
		}
		if i == 0 || i == len(rest) {
			return bad()
		}
		at := strings.IndexByte(units, rest[i])
		if at < 0 || strings.IndexByte("WD", rest[i]) >= 0 == inTime {
			return bad()
		}
		each := map[byte]time.Duration{'W': 7 * 24 * time.Hour, 'D': 24 * time.Hour, 'H': time.Hour, 'M': time.Minute, 'S': time.Second}[rest[i]]
		if time.Duration(n) > maxDuration/each {
			return 0, fmt.Errorf("%s is more than a hundred years", s)
		}
		if sum += time.Duration(n) * each; sum > maxDuration {
			return 0, fmt.Errorf("%s is more than a hundred years", s)
		}
		units, rest = units[at+1:], rest[i+1:]
	}
	return sum, nil
}
