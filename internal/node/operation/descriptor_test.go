package operation

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestConnections(t *testing.T) {
	for _, c := range []struct{ descriptors, doors, wanted, want int }{
		{1 << 20, 7, 4096, 4096},
		{1024, 7, 4096, 73},
		{1024, 7, 50, 50},
		{4096, 1, 4096, 2816},
		{65536, 71, 4096, 688},
		{256, 7, 4096, 1},
		{0, 0, 4096, 1},
	} {
		got := Connections(c.descriptors, c.doors, c.wanted)
		if got != c.want {
			t.Errorf("%d descriptors, %d doors, %d wanted: %d, not %d", c.descriptors, c.doors, c.wanted, got, c.want)
		}
		if free := c.descriptors - got*c.doors; c.descriptors >= 1024 && (free < 256 || free < c.descriptors/4) {
			t.Errorf("%d descriptors, %d doors: %d are left", c.descriptors, c.doors, free)
		}
	}
}

// TestDescriptors: the limit that holds is the one that is gone by.
func TestDescriptors(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	lower := was
	lower.Cur = min(was.Cur, 777)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	if got := Descriptors(); got != int(lower.Cur) {
		t.Errorf("%d, not %d", got, lower.Cur)
	}
}
