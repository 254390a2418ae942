package traffic

import (
	"errors"
	"math"
	"time"
)

// Sighting is where and when a plate was seen.
type Sighting struct {
	Lat, Lon int64 // millionths of a degree, north and east
	At       time.Time
}

// Earth and the doubt about it. The distance on a sphere differs from the one
// on the ellipsoid by less than 0.6 per cent, and a reading of a camera's
// place and clock is not exact: what is called impossible is so by more than
// that. The floating point's own error, below a millimetre, does not matter
// beside it; and the result is kept with the case, not reckoned again.
const (
	earthM = 6_371_009
	slackM = 500 // of both places
	slackS = 60  // of both clocks
)

// Metres is the least distance that two places can have.
func metres(a, b Sighting) int64 {
	rad := func(micro int64) float64 { return float64(micro) / 1e6 * math.Pi / 180 }
	h := func(x float64) float64 { s := math.Sin(x / 2); return s * s }
	c := h(rad(b.Lat-a.Lat)) + math.Cos(rad(a.Lat))*math.Cos(rad(b.Lat))*h(rad(b.Lon-a.Lon))
	d := int64(2 * earthM * math.Asin(math.Sqrt(min(c, 1))))
	return max(d-d*6/1000-slackM, 0)
}

// Possible tells whether one vehicle can have been at both places, at a speed
// in km/h that no vehicle exceeds.
func Possible(a, b Sighting, speed int64) (bool, error) {
	for _, s := range []Sighting{a, b} {
		if s.Lat < -90e6 || s.Lat > 90e6 || s.Lon < -180e6 || s.Lon > 180e6 {
			return false, errors.New("a place that is not on earth")
		}
	}
	if speed < 1 || speed > 1000 {
		return false, errors.New("a speed of 1 to 1000 km/h is wanted")
	}
	seconds := b.At.Sub(a.At).Abs()/time.Second + slackS
	// metres / seconds <= speed * 1000 / 3600
	return metres(a, b)*18 <= speed*5*int64(seconds), nil
}
