package acceptance_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inBatches lets two states seal many messages at once, has one call the other
// by many at once, and gives a container of a call whose messages both were
// sealed so.
func (u *union) inBatches(t *testing.T, from, to, dir string) string {
	t.Helper()
	for _, state := range []string{from, to} {
		u.falaj(t, state, "seal", "batch")
	}
	path, _ := u.sample(t, to, "vehicles")
	service, purpose := register(to, "vehicles")
	as := u.as(t, from, purpose, service+path)
	args := append([]string{"-sS", "--parallel", "--parallel-immediate", "--parallel-max", "64", "-w", "%{http_code} %header{x-road-id}\n"}, as[:len(as)-1]...)
	for range 64 {
		args = append(args, "-o", "/dev/null", as[len(as)-1])
	}
	container := filepath.Join(dir, "batch.asice")
	eventually(t, "a call in batches", func() error {
		r := do(t, nil, "curl", args...)
		ids := strings.Split(strings.TrimSpace(r.out), "\n")
		if r.code != 0 || len(ids) != 64 {
			return fmt.Errorf("%d %s%s", r.code, r.out, r.err)
		}
		slices.Reverse(ids)
		for _, line := range ids[:16] {
			id, ok := strings.CutPrefix(line, "200 ")
			if !ok {
				return fmt.Errorf("%s", line)
			}
			u.falaj(t, from, "evidence", "export", id, "-o", container)
			if said := u.falaj(t, from, "verify", container, "--root", filepath.Join(filepath.Dir(u.node(t, from).Config), "root.json")); strings.Count(said, "under one seal") == 2 {
				return nil
			}
		}
		return fmt.Errorf("of 16 calls none was sealed in two batches")
	})
	return container
}

// TestBatchSeals: by a command of each state, and back.
func TestBatchSeals(t *testing.T) {
	t.Parallel()
	u := startUp(t, filepath.Join(t.TempDir(), "union"), "--state=BH,SA", base(t))
	u.inBatches(t, "SA", "BH", t.TempDir())
	if said := u.falaj(t, "BH", "seal", "batch", "--off"); !strings.Contains(said, "by itself") {
		t.Errorf("%s", said)
	}
	u.read(t, "SA", "BH", "vehicles")
}
