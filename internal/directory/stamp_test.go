package directory_test

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/directory/directorytest"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/stamp"
	"github.com/falaj/falaj/internal/union"
)

func stampedBy(t *testing.T, a stamp.Authority, at time.Time) *stamp.Token {
	t.Helper()
	b, err := a.Stamp(stamp.Request{Imprint: [32]byte{1}}, big.NewInt(5), at)
	must(t, err)
	k, err := stamp.ParseToken(b)
	must(t, err)
	return k
}

// TestStamped: a time-stamp is a state's if an authority made it that the
// state names in the directory, for that use, and has not revoked.
func TestStamped(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	of := func(s union.State) stamp.Authority {
		key, cert := u.Stamp(s)
		return stamp.Authority{Key: key, Cert: cert}
	}
	bh := stampedBy(t, of("BH"), u.Now())
	c, err := u.Dirs["SA"].View().Stamped(bh, "BH")
	must(t, err)
	if c.State != "BH" || c.Use != directory.UseStamp {
		t.Errorf("%+v", c)
	}
	_, err = u.Dirs["SA"].View().Stamped(bh, "SA")
	wantCode(t, err, fault.CertUnknown, "names no time-stamp authority")

	// Its authority issued this one too, and the state does not name it.
	unnamed := of("BH")
	unnamed.Cert, err = u.CA["BH"].Stamp(unnamed.Key.Public())
	must(t, err)
	_, err = u.Dirs["SA"].View().Stamped(stampedBy(t, unnamed, u.Now()), "BH")
	wantCode(t, err, fault.CertUnknown, "names no time-stamp authority")

	// A member's seal is no time-stamp authority.
	key, cert := u.Seal(union.MemberID{State: "BH", Class: "GOV", Code: "interior"})
	_, err = u.Dirs["SA"].View().Stamped(stampedBy(t, stamp.Authority{Key: key, Cert: cert}, u.Now()), "BH")
	wantCode(t, err, fault.CertUnknown, "names no time-stamp authority")

	if _, err = u.Dirs["SA"].View().Stamped(stampedBy(t, of("BH"), cert.NotBefore.Add(-time.Hour)), "BH"); err == nil || !strings.Contains(err.Error(), "is good from") {
		t.Errorf("before its certificate: %v", err)
	}
	must(t, u.Dirs["BH"].Revoke(t.Context(), sha256.Sum256(of("BH").Cert.Raw), "keyCompromise"))
	u.Refresh()
	_, err = u.Dirs["SA"].View().Stamped(bh, "BH")
	wantCode(t, err, fault.CertRevoked, "revoked")
}

// TestStampsUncritical: a certificate that is not marked for time-stamps alone
// makes a state's part invalid.
func TestStampsUncritical(t *testing.T) {
	u := directorytest.New(t, four[:2], nil)
	key, _ := u.Stamp("SA")
	err := u.Dirs["SA"].Publish(t.Context(), func(e *directory.Edition) error {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{Country: []string{"SA"}, CommonName: "x"}, NotBefore: u.Now(), NotAfter: u.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(nil, c, u.CA["SA"].Cert, key.Public(), u.CA["SA"].Key)
		must(t, err)
		c, err = x509.ParseCertificate(der)
		must(t, err)
		e.Stamps = []directory.Stamp{{Certificate: directory.Cert{Certificate: c}}}
		return nil
	})
	wantCode(t, err, fault.DirectoryInvalid, "critical")
}

// TestStampsGrow: a state that was founded without a time-stamp authority gets
// one when its node has the key; a new key gets a certificate beside the old
// one, at the same address.
func TestStampsGrow(t *testing.T) {
	u := directorytest.New(t, four[:2], func(s union.State, e *directory.Edition) {
		if s == "SA" {
			e.Stamps = nil
		}
	})
	sa := u.Dirs["SA"]
	named := func() []directory.Stamp {
		s, _ := sa.View().State("SA")
		return s.Stamps
	}
	if len(named()) != 0 {
		t.Fatal("it has one")
	}
	must(t, sa.Renew(t.Context()))
	if len(named()) != 1 || named()[0].Address != "" {
		t.Fatalf("%+v", named())
	}
	before := sa.View().Version()
	must(t, sa.Renew(t.Context()))
	if sa.View().Version() != before {
		t.Error("renewed again at once")
	}
	must(t, sa.Publish(t.Context(), func(e *directory.Edition) error {
		e.Stamps[0].Address = "http://tsa.example/tsa"
		return nil
	}))
	u.Keys["SA"].Replace(directory.StampKey)
	must(t, sa.Renew(t.Context()))
	if s := named(); len(s) != 2 || s[1].Address != "http://tsa.example/tsa" {
		t.Errorf("%+v", s)
	}
	for range 10 {
		u.Keys["SA"].Replace(directory.StampKey)
		must(t, sa.Renew(t.Context()))
	}
	if n := len(named()); n != 8 {
		t.Errorf("%d are listed", n)
	}
	u.Refresh()
	key, cert := u.Stamp("SA")
	_, err := u.Dirs["BH"].View().Stamped(stampedBy(t, stamp.Authority{Key: key, Cert: cert}, u.Now()), "SA")
	must(t, err)
}
