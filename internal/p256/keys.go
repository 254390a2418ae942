package p256

import (
	"crypto/ecdsa"
	"crypto/fips140"
	"sync"
)

// What is remembered of keys. To make a table takes as long as to verify some
// 15 signatures; it saves more than half of each that follows.
const (
	worth     = 64   // good signatures of a key, after which it has a table made
	maxTables = 64   // of Size bytes
	maxKeys   = 1024 // that are counted
)

// Keys verifies signatures, by tables of the keys that sign often. The zero
// Keys is ready, and safe for concurrent use; nil never makes a table. In FIPS
// 140 mode none is made either.
type Keys struct {
	mu     sync.Mutex
	known  map[[32]byte]*key
	tables int
	clock  int64
}

type key struct {
	table *Table
	good  int   // signatures before there was a table
	used  int64 // by the clock, which each question advances
}

// Verify is ecdsa.VerifyASN1 of a P-256 key. The name stands for the key: a
// digest of what the key was read from. What a table does not take, crypto/ecdsa
// judges.
func (k *Keys) Verify(name [32]byte, pub *ecdsa.PublicKey, digest *[32]byte, sig []byte) bool {
	if k == nil || fips140.Enabled() {
		return ecdsa.VerifyASN1(pub, digest[:], sig)
	}
	if t := k.table(name); t != nil && t.Verify(digest, sig) {
		return true
	}
	if !ecdsa.VerifyASN1(pub, digest[:], sig) {
		return false
	}
	if k.counted(name) {
		if t, err := New(pub); err == nil {
			k.keep(name, t)
		}
	}
	return true
}

func (k *Keys) table(name [32]byte) *Table {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.known[name]
	if e == nil {
		return nil
	}
	k.clock++
	e.used = k.clock
	return e.table
}

// counted counts a good signature, and tells whether a table is to be made now.
func (k *Keys) counted(name [32]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.known[name]
	if e == nil {
		if k.known == nil || len(k.known) >= maxKeys {
			k.known, k.tables = map[[32]byte]*key{}, 0
		}
		e = &key{}
		k.known[name] = e
	}
	e.good++
	return e.good == worth
}

// keep keeps a table, in the place of the one that was not used for longest
// where there are many.
func (k *Keys) keep(name [32]byte, t *Table) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.known[name]
	if e == nil {
		return // forgotten meanwhile
	}
	if k.tables == maxTables {
		var oldest [32]byte
		least := k.clock + 1
		for n, o := range k.known {
			if o.table != nil && o.used < least {
				oldest, least = n, o.used
			}
		}
		delete(k.known, oldest)
		k.tables--
	}
	e.table, e.used = t, k.clock
	k.tables++
}
