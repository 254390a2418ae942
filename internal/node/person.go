package node

import (
	"fmt"
	"sync/atomic"

	"github.com/falaj/falaj/internal/seal"
)

// persons hides whom data is about, under the newest of the keys person-1,
// person-2, …; none of them ever goes, since what was hashed is found by them.
type persons struct {
	keys *seal.Keys
	now  atomic.Pointer[seal.HMAC]
}

func personKey(version int) string { return fmt.Sprintf("person-%d", version) }

// newest is the highest version that there is, at least 1. Another process may
// make a higher one; this one goes on with its own until it starts again, and
// looks for people under all.
func (p *persons) newest() int {
	v := 1
	for p.keys.HasHMAC(personKey(v + 1)) {
		v++
	}
	return v
}

// use hashes under a version from now on; its key is made where there is none.
func (p *persons) use(version int) error {
	key, err := p.keys.HMAC(personKey(version))
	if err != nil {
		return fmt.Errorf("the key that hides persons: %w", err)
	}
	p.now.Store(&key)
	return nil
}

// Sum hashes a person's name under the newest key.
func (p *persons) Sum(name []byte) [32]byte { return p.now.Load().Sum(name) }

// Every hashes it under all keys that there were, the newest first.
func (p *persons) Every(name []byte) ([][32]byte, error) {
	var out [][32]byte
	for v := p.newest(); v > 0; v-- {
		key, err := p.keys.HMAC(personKey(v))
		if err != nil {
			return nil, fmt.Errorf("the key that hides persons: %w", err)
		}
		out = append(out, key.Sum(name))
	}
	return out, nil
}
