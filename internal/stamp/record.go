package stamp

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// MaxRecord bounds an evidence record, in bytes; MaxLinks its time-stamps;
// MaxLeaves the digests of one hash tree.
const (
	MaxRecord = 1 << 20
	MaxLinks  = 64
	MaxLeaves = 1 << 16

	maxLists  = 64
	maxHashes = 16
)

// Digest is a SHA-256 digest.
type Digest = [sha256.Size]byte

// Join is the parent of some digests in a hash tree of RFC 4998 §4.2.1: their
// digest in ascending order.
func Join(list ...Digest) Digest {
	if len(list) == 2 {
		return pair(&list[0], &list[1])
	}
	return sha256.Sum256(Preimage(list...))
}

// Preimage is what Join digests.
func Preimage(list ...Digest) []byte {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
	b := make([]byte, 0, len(list)*sha256.Size)
	for _, d := range list {
		b = append(b, d[:]...)
	}
	return b
}

// pair is Join of two, without memory of its own: there may be many.
func pair(a, b *Digest) Digest {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	var both [2 * sha256.Size]byte
	copy(both[:], a[:])
	copy(both[sha256.Size:], b[:])
	return sha256.Sum256(both[:])
}

// Root is the root of the binary hash tree over digests, in pairs from the
// first; who is left over rises alone. It overwrites what it is given, of
// which there must be one at least.
func Root(list []Digest) Digest {
	root, _ := path(list, -1)
	return root
}

// Path gives, beside the root, the digests that lead to it from the one at i:
// of each pair the other. It overwrites what it is given.
func Path(list []Digest, i int) (Digest, []Digest) { return path(list, i) }

func path(list []Digest, i int) (root Digest, others []Digest) {
	for len(list) > 1 {
		if other := i ^ 1; i >= 0 && other < len(list) {
			others = append(others, list[other])
		}
		n := 0
		for j := 0; j < len(list); j += 2 {
			if j+1 < len(list) {
				list[n] = pair(&list[j], &list[j+1])
			} else {
				list[n] = list[j]
			}
			n++
		}
		list = list[:n]
		if i >= 0 {
			i /= 2
		}
	}
	return list[0], others
}

// Link is an archive time-stamp: a time-stamp over the root of a hash tree, and
// the way from a digest to it.
type Link struct {
	Lists [][]Digest // reducedHashtree: the first holds the digest itself; none where that was stamped alone
	Token *Token
}

// Record is an evidence record (RFC 4998) of one chain. Its first link is of a
// digest; each other renews the one before: it is of the digest of that one's
// time-stamp (§5.2).
type Record []Link

// NewLink leads from a digest, by those beside its way, to a token's imprint.
func NewLink(of Digest, others []Digest, token *Token) Link {
	l := Link{Token: token}
	for i, o := range others {
		list := []Digest{o}
		if i == 0 {
			list = append(list, of)
			slices.SortFunc(list, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
		}
		l.Lists = append(l.Lists, list)
	}
	return l
}

// Verify holds the record's trees against a digest and the tokens' imprints,
// and the order of their times. The tokens are for Token.Verify.
func (r Record) Verify(of Digest) error {
	if len(r) == 0 {
		return errors.New("stamp: the evidence record has no time-stamp")
	}
	for i, l := range r {
		if i > 0 {
			of = r[i-1].Token.Digest()
		}
		if err := l.verify(of); err != nil {
			return err
		}
		if i > 0 && l.Token.At.Before(r[i-1].Token.At) {
			return errors.New("stamp: a time-stamp of the evidence record is older than the one that it renews")
		}
	}
	return nil
}

func (l Link) verify(of Digest) error {
	if len(l.Lists) > 0 && !slices.Contains(l.Lists[0], of) {
		return errors.New("stamp: the evidence record is not of this digest")
	}
	for i, list := range l.Lists {
		switch {
		case i == 0:
			of = Join(list...)
		case len(list) == 1:
			of = pair(&list[0], &of)
		default:
			of = Join(append(slices.Clip(list), of)...)
		}
	}
	if of != l.Token.Imprint {
		return errors.New("stamp: the evidence record's tree does not lead to what was stamped")
	}
	return nil
}

// Bytes is the EvidenceRecord in DER.
func (r Record) Bytes() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addAlgorithm(b, oidSHA256()) })
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // ArchiveTimeStampSequence
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // ArchiveTimeStampChain
				for _, l := range r {
					b.AddASN1(asn1.SEQUENCE, l.add)
				}
			})
		})
	})
	out, err := b.Bytes()
	if err == nil && (len(out) > MaxRecord || len(r) == 0 || len(r) > MaxLinks) {
		err = fmt.Errorf("%d bytes, %d time-stamps; at most %d and %d", len(out), len(r), MaxRecord, MaxLinks)
	}
	if err != nil {
		return nil, fmt.Errorf("stamp: an evidence record: %w", err)
	}
	return out, nil
}

// add writes the ArchiveTimeStamp. Its digestAlgorithm is the token's.
func (l Link) add(b *cryptobyte.Builder) {
	if len(l.Lists) > 0 {
		b.AddASN1(inside(2), func(b *cryptobyte.Builder) {
			for _, list := range l.Lists {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					for _, d := range list {
						b.AddASN1OctetString(d[:])
					}
				})
			}
		})
	}
	b.AddBytes(l.Token.Raw)
}

// ParseRecord reads what Bytes wrote: an evidence record of one chain of
// archive time-stamps, by SHA-256. It verifies nothing.
func ParseRecord(raw []byte) (Record, error) { return ReadRecord(raw, ParseToken) }

var errRecord = errors.New("stamp: not an evidence record of one chain of archive time-stamps (RFC 4998), in DER")

// ReadRecord is ParseRecord for who has read the tokens before: many records
// have the same one.
func ReadRecord(raw []byte, token func([]byte) (*Token, error)) (Record, error) {
	if len(raw) > MaxRecord {
		return nil, fmt.Errorf("stamp: an evidence record of %d bytes; at most %d", len(raw), MaxRecord)
	}
	s := cryptobyte.String(raw)
	var all, algorithms, sequence, chain cryptobyte.String
	var version int64
	if !s.ReadASN1(&all, asn1.SEQUENCE) || !s.Empty() || !all.ReadASN1Integer(&version) || version != 1 ||
		!all.ReadASN1(&algorithms, asn1.SEQUENCE) ||
		!all.ReadASN1(&sequence, asn1.SEQUENCE) || !all.Empty() || !sequence.ReadASN1(&chain, asn1.SEQUENCE) || !sequence.Empty() || chain.Empty() {
		return nil, errRecord
	}
	id, ok := readAlgorithm(&algorithms)
	if !ok || !algorithms.Empty() || !id.Equal(oidSHA256()) {
		return nil, errRecord
	}
	var r Record
	for !chain.Empty() {
		var one cryptobyte.String
		if !chain.ReadASN1(&one, asn1.SEQUENCE) || len(r) == MaxLinks {
			return nil, errRecord
		}
		l, err := readLink(one, token)
		if err != nil {
			return nil, err
		}
		r = append(r, l)
	}
	return r, nil
}

func readLink(one cryptobyte.String, token func([]byte) (*Token, error)) (l Link, err error) {
	var tree cryptobyte.String
	var reduced bool
	if !one.ReadOptionalASN1(&tree, &reduced, inside(2)) || reduced && tree.Empty() {
		return l, errRecord
	}
	const least = 2 + sha256.Size // bytes of a hash
	hashes := make([]Digest, 0, len(tree)/least)
	l.Lists = make([][]Digest, 0, min(maxLists, len(tree)/(2+least)))
	for !tree.Empty() {
		var list, hash cryptobyte.String
		if !tree.ReadASN1(&list, asn1.SEQUENCE) || list.Empty() || len(l.Lists) == maxLists {
			return l, errRecord
		}
		first := len(hashes)
		for !list.Empty() {
			if !list.ReadASN1(&hash, asn1.OCTET_STRING) || len(hash) != sha256.Size || len(hashes)-first == maxHashes {
				return l, errRecord
			}
			hashes = append(hashes, Digest(hash))
		}
		l.Lists = append(l.Lists, hashes[first:len(hashes):len(hashes)])
	}
	l.Token, err = token(one)
	return l, err
}
