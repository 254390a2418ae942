package seal

import (
	"errors"
	"os"
	"syscall"
	"testing"

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
