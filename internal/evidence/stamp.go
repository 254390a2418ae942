package evidence

import (
	"crypto/x509"
	"strconv"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
)

// Stamp is a time-stamp over a state's log.
type Stamp struct {
	State      union.State // whose log
	End        int64
	By         string // the authority's name
	Token      *stamp.Token
	Root       []byte            // what the token's imprint is the digest of
	Checkpoint []byte            // whose digest stands in Root
	Authority  *x509.Certificate // that issued the signer's certificate; nil where the directory does not say
	Renewals   []Renewal         // each of the one before
}

// Renewal is a time-stamp over one before it. It lies in the evidence records
// alone.
type Renewal struct {
	By        string
	At        time.Time
	Authority *x509.Certificate // as in Stamp
}

// StampNames are where a record's time-stamp lies: by itself, and what leads
// from the record to it.
type StampNames struct{ Token, Root, Checkpoint, Authority, Proof, Leaf string }

// Renewer names the file of what issued the certificate of the n-th renewal's
// authority, from 1 on.
func (n StampNames) Renewer(i int) string {
	return strings.TrimSuffix(n.Authority, "authority.pem") + strconv.Itoa(i) + "-authority.pem"
}

// StampNames names the files of the record's time-stamp.
func (r *Record) StampNames() StampNames {
	n := stampNames(r.State, r.Stamp.End)
	n.Proof, n.Leaf = r.name(StampDir, ".ers"), r.name(StampDir, ".leaf")
	return n
}

// name is that of a file which is of the record alone.
func (r *Record) name(dir, kind string) string {
	return dir + string(r.State) + "-" + r.Message + "-" + strconv.FormatInt(r.Leaf, 10) + kind
}

func stampNames(state union.State, end int64) StampNames {
	of := StampDir + string(state) + "-" + strconv.FormatInt(end, 10)
	return StampNames{Token: of + ".tst", Root: of + ".root", Checkpoint: of + ".checkpoint", Authority: of + "-authority.pem"}
}

// Opening is what the record's leaf is the digest of, given the record's own
// digest (docs/protocols/node.md §20).
func (r *Record) Opening(digest [32]byte) []byte {
	const label = "falaj leaf v1\n"
	b := append(make([]byte, 0, len(label)+len(r.Salt)+len(digest)), label...)
	return append(append(b, r.Salt[:]...), digest[:]...)
}

func (p *Pack) stamp(s Stamp) {
	n := stampNames(s.State, s.End)
	p.files[n.Token], p.files[n.Root], p.files[n.Checkpoint] = s.Token.Raw, s.Root, s.Checkpoint
	if s.Authority != nil {
		p.files[n.Authority] = pemOf("CERTIFICATE", s.Authority.Raw)
	}
	for i, r := range s.Renewals {
		if r.Authority != nil {
			p.files[n.Renewer(i+1)] = pemOf("CERTIFICATE", r.Authority.Raw)
		}
	}
}
