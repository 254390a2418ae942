package directory_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// BenchmarkCeremony is the whole of what a first start does: keys, authorities
// and certificates of seven states and a secretariat on disk, the ceremony,
// and eight copies of the directory on disk.
func BenchmarkCeremony(b *testing.B) {
	states := []union.State{"BH", "SA", "AE", "KW", "OM", "QA", "EG"}
	for b.Loop() {
		dir := b.TempDir()
		start := time.Now()
		lap := func(what string) {
			b.ReportMetric(float64(time.Since(start).Milliseconds()), what+"-ms")
			start = time.Now()
		}
		keys := map[union.State]*seal.Keys{}
		open := func(s union.State, names ...string) {
			k, err := seal.OpenKeys(filepath.Join(dir, "keys-"+string(s)), seal.KeyConfig{Demonstration: true})
			must(b, err)
			for _, n := range names {
				_, err := k.Create(n, seal.ECDSAP256)
				must(b, err)
			}
			keys[s] = k
		}
		open("", directory.OnlineKey)
		for _, s := range states {
			id := union.MemberID{State: s, Class: "GOV", Code: "interior"}
			open(s, directory.RootKey, directory.StateKey, directory.OnlineKey, directory.AuthorityKey, directory.TLSKey, directory.SealKey(id))
		}
		lap("keys")
		online, err := keys[""].Signer(directory.OnlineKey)
		must(b, err)
		dr, err := directory.Found(directory.Founding{Name: "x", Demonstration: true, Threshold: 4, Secretariat: online.Public(), Now: time.Now()})
		must(b, err)
		for _, s := range states {
			caKey, err := keys[s].Signer(directory.AuthorityKey)
			must(b, err)
			ca, err := directory.NewAuthority(s, "State", caKey, time.Now)
			must(b, err)
			id := union.MemberID{State: s, Class: "GOV", Code: "interior"}
			sealKey, err := keys[s].Signer(directory.SealKey(id))
			must(b, err)
			sealCert, err := ca.Seal(id, "Interior", sealKey.Public())
			must(b, err)
			tlsKey, err := keys[s].Signer(directory.TLSKey)
			must(b, err)
			tlsCert, err := ca.TLS("n1", []string{"localhost"}, tlsKey.Public())
			must(b, err)
			crl, err := ca.CRL(nil)
			must(b, err)
			n, err := directory.Enrol(directory.Seat{Code: s, Name: directorytest.Text("x")}, true, keys[s], 1, time.Now(), &directory.Edition{
				Files: map[string][]byte{"crl.der": crl}, Part: &directory.Part{
					State: s, Authorities: []directory.Issuer{{Certificate: directory.Cert{Certificate: ca.Cert}, CRL: "crl.der"}},
					Nodes:   []directory.Node{{Name: "n1", Address: "127.0.0.1:1", Certificates: []directory.Cert{{Certificate: tlsCert}}}},
					Members: []directory.Member{{Class: "GOV", Code: "interior", Name: directorytest.Text("x"), Seals: []directory.Cert{{Certificate: sealCert}}}},
				}})
			must(b, err)
			must(b, dr.AddState(n))
		}
		for _, s := range states {
			k, err := keys[s].Signer(directory.RootKey)
			must(b, err)
			must(b, dr.Sign(k))
		}
		root, err := dr.Root()
		must(b, err)
		lap("enrol")
		dirs := map[union.State]*directory.Directory{}
		peers := func(of union.State) func() []directory.Peer {
			return func() (list []directory.Peer) {
				for _, s := range append([]union.State{""}, states...) {
					if d := dirs[s]; s != of && d != nil {
						list = append(list, directory.Peer{State: s, Fetcher: d, Cosign: d.Cosign})
					}
				}
				return list
			}
		}
		for _, s := range append([]union.State{""}, states...) {
			dirs[s], err = directory.Open(b.Context(), directory.Config{Dir: filepath.Join(dir, "dir-"+string(s)), Root: root, State: s, Demonstration: true},
				directory.Deps{Now: time.Now, Keys: keys[s], Peers: peers(s)})
			must(b, err)
		}
		must(b, dirs[""].Install(b.Context(), dr))
		lap("install")
		for _, s := range states {
			must(b, dirs[s].Refresh(b.Context()))
		}
		lap("refresh")
	}
}
