package witness

import "context"

// Renew renews one group of time-stamps, if any are due.
func Renew(ctx context.Context, s *Stamps) (did bool, err error) {
	r := s.renewSome(ctx, s.deps.Now())
	return r.did, r.err
}

// SplitHeads is splitHeads.
func SplitHeads(b []byte) ([][]byte, error) { return splitHeads(b) }

// ParseAlarm is parseAlarm.
func ParseAlarm(text string) (Alarm, error) { return parseAlarm(text) }
