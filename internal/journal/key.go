package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/store"
)

const (
	keySize = 16
	// eraSize is how many records share an index of their keys. The keys of
	// the last, unfinished era are looked for in the commits themselves.
	eraSize = 1 << 12
	// MaxFound bounds what Find returns.
	MaxFound = 256
)

// hash is what stands for a key in the clear: enough of its hash that nobody
// finds another key of the same.
func (j *Journal) hash(key string) [keySize]byte {
	if key == "" {
		return [keySize]byte{}
	}
	sum := j.keys.Sum([]byte(key))
	return [keySize]byte(sum[:])
}

// An era's index has a place for each record: the hash of its key, and the
// lower bits of its index, big-endian. They stand in order, in parts by the
// first byte of the hash. Records without a key have none.
const placeSize = keySize + 2

type eraIndex [256][]byte

// indexEra makes the index of an era from the hashes of its keys.
func indexEra(keys []byte) *eraIndex {
	var e eraIndex
	places := make([][placeSize]byte, 0, eraSize)
	for i := 0; i < len(keys); i += keySize {
		k := [keySize]byte(keys[i:])
		if k == [keySize]byte{} {
			continue
		}
		var p [placeSize]byte
		copy(p[:], k[:])
		binary.BigEndian.PutUint16(p[keySize:], uint16(i/keySize))
		places = append(places, p)
	}
	slices.SortFunc(places, func(a, b [placeSize]byte) int { return bytes.Compare(a[:], b[:]) })
	for _, p := range places {
		e[p[0]] = append(e[p[0]], p[:]...)
	}
	return &e
}

// writeEra indexes an era whose last record has just been written.
func writeEra(ctx context.Context, tx *store.Tx, era int64) error {
	keys, err := readColumn(ctx, tx, "keys", keySize, era*eraSize, eraSize)
	if err != nil {
		return err
	}
	index := indexEra(keys)
	// A few long statements rather than many: each is a round trip on
	// PostgreSQL.
	const rows = 64
	query := "INSERT INTO journal_key (part, era, keys) VALUES (?, ?, ?)" + strings.Repeat(", (?, ?, ?)", rows-1)
	for part := 0; part < len(index); part += rows {
		args := make([]any, 0, 3*rows)
		for i, places := range index[part : part+rows] {
			args = append(args, part+i, era, append([]byte{}, places...))
		}
		if _, err := tx.Exec(ctx, query, args...); err != nil {
			return err
		}
	}
	return nil
}

// Find reads the records of a key in their order: the first MaxFound.
func (j *Journal) Find(ctx context.Context, key string) ([]Stored, error) {
	return j.FindFrom(ctx, key, 0)
}

// FindFrom is Find from a leaf on, for keys with more records than one answer
// holds.
func (j *Journal) FindFrom(ctx context.Context, key string, from int64) ([]Stored, error) {
	var found []int64
	err := j.db.Read(ctx, func(tx *store.Tx) (err error) {
		found, err = findKey(ctx, tx, j.hash(key), from)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("finding a key: %w", err)
	}
	out := make([]Stored, 0, len(found))
	for _, i := range found {
		s, err := j.Get(ctx, i)
		if err != nil {
			return nil, err
		}
		if s.Key == key || s.Erased {
			out = append(out, s)
		}
	}
	return out, nil
}

func findKey(ctx context.Context, tx *store.Tx, hash [keySize]byte, from int64) (found []int64, err error) {
	if hash == [keySize]byte{} {
		return nil, nil
	}
	size, _, _, err := readHead(ctx, tx)
	if err != nil {
		return nil, err
	}
	err = each(ctx, tx, func(era int64, places []byte) bool {
		for ; len(places) >= placeSize; places = places[placeSize:] {
			i := era*eraSize + int64(binary.BigEndian.Uint16(places[keySize:]))
			if i >= from && string(places[:keySize]) == string(hash[:]) {
				found = append(found, i)
			}
		}
		return len(found) < MaxFound
	}, "SELECT era, keys FROM journal_key WHERE part = ? AND era >= ? ORDER BY era", hash[0], from/eraSize)
	if err != nil || len(found) >= MaxFound {
		return found[:min(len(found), MaxFound)], err
	}
	tail := size / eraSize * eraSize
	keys, err := readColumn(ctx, tx, "keys", keySize, tail, int(size-tail))
	for i := 0; i < len(keys) && len(found) < MaxFound; i += keySize {
		if n := tail + int64(i/keySize); n >= from && string(keys[i:i+keySize]) == string(hash[:]) {
			found = append(found, n)
		}
	}
	return found, err
}

// each goes through rows of a number and bytes until fn returns false.
func each(ctx context.Context, q querier, fn func(n int64, b []byte) bool, query string, args ...any) error {
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var n int64
		var b []byte
		if err := rows.Scan(&n, &b); err != nil {
			return err
		}
		if !fn(n, b) {
			return nil
		}
	}
	return rows.Err()
}
