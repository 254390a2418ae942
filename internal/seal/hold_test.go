package seal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestHold: a held key is not destroyed by anybody, in this process or another;
// one that is gone is not held.
func TestHold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	open := func() RecordKeys {
		k, err := OpenKeys(dir, KeyConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return k.Records()
	}
	r, other := open(), open()
	at := time.Date(2026, 9, 5, 0, 0, 0, 0, time.UTC)
	sealed, err := r.Seal(nil, "exchange", at, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []Hold{{Name: "month", Class: "exchange", Period: 202609}, {Name: "class", Class: "exchange"}} {
		if err := r.Hold(h); err != nil {
			t.Fatal(err)
		}
		if err := r.Hold(h); !errors.Is(err, fs.ErrExist) {
			t.Errorf("held twice: %v", err)
		}
		if err := other.Destroy("exchange", 202609); !errors.Is(err, ErrHeld) {
			t.Errorf("%s: %v", h.Name, err)
		}
		if _, err := r.Open(sealed, nil); err != nil {
			t.Errorf("%s: %v", h.Name, err)
		}
		if held, err := other.Held("exchange", 202610); err != nil || held != (h.Period == 0) {
			t.Errorf("%s holds another month: %v %v", h.Name, held, err)
		}
		if gone, err := other.Release(h.Name); err != nil || len(gone) != 1 {
			t.Errorf("%+v %v", gone, err)
		}
	}
	for _, bad := range []Hold{{Name: "../x", Class: "exchange"}, {Name: "x", Class: "../exchange"}, {Name: "x", Class: "exchange", Period: 13}, {Class: "exchange"}} {
		if err := r.Hold(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	// What cannot be read holds: better too long than gone.
	strange := filepath.Join(dir, recordFolder, "exchange", "2026-09.x.hold")
	if err := os.WriteFile(strange, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.Destroy("exchange", 202609); err == nil {
		t.Error("destroyed beside a hold that cannot be read")
	}
	if err := os.Remove(strange); err != nil {
		t.Fatal(err)
	}
	if err := r.Destroy("exchange", 202609); err != nil {
		t.Fatal(err)
	}
	if err := r.Hold(Hold{Name: "late", Class: "exchange", Period: 202609}); !errors.Is(err, ErrDestroyed) {
		t.Errorf("held too late: %v", err)
	}
	if all, err := r.Holds(); err != nil || len(all) != 0 {
		t.Errorf("%+v %v", all, err)
	}
	// A class that is held as a whole does not keep what was condemned before.
	if err := r.Hold(Hold{Name: "class", Class: "exchange"}); err != nil {
		t.Fatal(err)
	}
	if err := r.Destroy("exchange", 202609); err != nil {
		t.Errorf("destroying again: %v", err)
	}
}

// TestHoldAfterBreakingOff: a destruction that broke off before it came to the
// key is held up; the records are there.
func TestHoldAfterBreakingOff(t *testing.T) {
	for _, h := range []Hold{{Name: "month", Class: "exchange", Period: 202609}, {Name: "class", Class: "exchange"}} {
		for _, first := range []bool{true, false} {
			dir := filepath.Join(t.TempDir(), "keys")
			k, err := OpenKeys(dir, KeyConfig{})
			if err != nil {
				t.Fatal(err)
			}
			r := k.Records()
			sealed, err := r.Seal(nil, "exchange", time.Date(2026, 9, 5, 0, 0, 0, 0, time.UTC), []byte("x"), nil)
			if err != nil {
				t.Fatal(err)
			}
			hold := func() {
				if err := r.Hold(h); err != nil {
					t.Fatal(err)
				}
			}
			if first {
				hold()
			}
			if err := os.WriteFile(filepath.Join(dir, recordFolder, "exchange", "2026-09"+tombstoneSuffix), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if !first {
				hold()
			}
			if err := r.Destroy("exchange", 202609); !errors.Is(err, ErrHeld) {
				t.Errorf("%s: %v", h.Name, err)
			}
			if k, err = OpenKeys(dir, KeyConfig{}); err != nil {
				t.Fatal(err)
			}
			if b, err := k.Records().Open(sealed, nil); err != nil || string(b) != "x" {
				t.Errorf("%s: %q %v", h.Name, b, err)
			}
		}
	}
}
