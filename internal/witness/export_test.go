package witness

// SplitHeads is splitHeads.
func SplitHeads(b []byte) ([][]byte, error) { return splitHeads(b) }
