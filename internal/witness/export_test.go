package witness

// SplitHeads is splitHeads.
func SplitHeads(b []byte) ([][]byte, error) { return splitHeads(b) }

// ParseAlarm is parseAlarm.
func ParseAlarm(text string) (Alarm, error) { return parseAlarm(text) }
