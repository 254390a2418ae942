package seal

import (
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
)

func TestFaultsOfTheSpool(t *testing.T) {
	for err, want := range map[error]fault.Code{
		&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}: fault.DiskFull,
		&os.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}: fault.DiskFull,
		&os.PathError{Op: "write", Path: "x", Err: syscall.EIO}:    fault.StoreFailed,
		fault.New(fault.TooLarge, "x"):                             fault.TooLarge,
		errors.New("x"):                                            fault.StoreFailed,
	} {
		if got := fault.CodeOf(spoolFault(err)); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// The moment between a Seal's look for the mark and its making of the key, in
// which another process destroys the period, cannot be timed from outside.
func TestKeyMadeBehindItsDestruction(t *testing.T) {
	k, err := OpenKeys(t.TempDir()+"/k", KeyConfig{})
	if err != nil {
		t.Fatal(err)
	}
	n := periodName{"exchange", 202603}
	if err := k.periods.destroy(n); err != nil {
		t.Fatal(err)
	}
	if err := k.periods.create(n); !errors.Is(err, ErrDestroyed) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(k.periods.path(n, periodSuffix)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key is left: %v", err)
	}
}

// Records of one process share a derived key until it is used up, and only
// then: their heads show it.
func TestDerivedKeyIsUsedUp(t *testing.T) {
	k, err := OpenKeys(t.TempDir()+"/k", KeyConfig{})
	if err != nil {
		t.Fatal(err)
	}
	r, at := k.Records(), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	head := func() string {
		sealed, err := r.Seal(nil, "exchange", at, []byte("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := r.Open(sealed, nil); err != nil || string(b) != "x" {
			t.Fatalf("%q, %v", b, err)
		}
		_, n, _ := parseHead(sealed)
		return string(sealed[:n+idBytes])
	}
	first := head()
	if head() != first {
		t.Error("a new key for each record")
	}
	k.periods.keys[periodName{"exchange", 202603}].pen.Load().left.Store(1)
	if head() != first {
		t.Error("a new key before the old one was used up")
	}
	second := head()
	if second == first || head() != second {
		t.Error("a key used beyond its measure")
	}
}

func TestDER(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 255, 256, 1<<16 - 1, 1 << 16, 1 << 24} {
		value := strings.Repeat("x", n)
		want, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagOctetString, Bytes: []byte(value)})
		if err != nil {
			t.Fatal(err)
		}
		if der(tagOctets, value) != string(want) {
			t.Errorf("%d bytes", n)
		}
	}
}

// TestJudgedOnce: what was judged is not judged again, and no more is remembered
// than maxJudged, the newest.
func TestJudgedOnce(t *testing.T) {
	var c Checker
	asked := 0
	judge := func(n int) {
		if !c.judge(sha256.Sum256([]byte(strconv.Itoa(n))), func() bool { asked++; return true }) {
			t.Fatalf("%d is forgotten while it is judged", n)
		}
	}
	for n := range 2 * maxJudged {
		judge(n)
		judge(n)
	}
	if asked != 2*maxJudged || len(c.known) != maxJudged || len(c.order) != maxJudged {
		t.Errorf("asked %d times; %d known, %d in order", asked, len(c.known), len(c.order))
	}
	judge(2*maxJudged - 1)
	judge(maxJudged)
	if asked != 2*maxJudged {
		t.Error("what is new was forgotten")
	}
	if judge(0); asked != 2*maxJudged+1 {
		t.Error("what is old was not forgotten")
	}
}
