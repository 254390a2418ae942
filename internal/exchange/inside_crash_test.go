package exchange

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// diary is a part of a node that writes down what it serves and hears of.
func diary(t testing.TB, state union.State, home string) *part {
	note := func(name, line string) error {
		f, err := os.OpenFile(filepath.Join(home, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString(line + "\n")
		return errors.Join(err, f.Close())
	}
	return &part{
		state: state,
		serve: func(_ context.Context, c Call) (Answer, error) {
			time.Sleep(rand.N(20 * time.Millisecond))
			return Answer{Status: 200, Body: c.Body}, note("served", c.ID)
		},
		hear: func(e End) error { return note("ended", e.ID+" "+string(e.Status)+" "+string(e.Answer.Body)) },
	}
}

// postAll posts what is to be posted, all of it at each start: whoever cannot
// know what was accepted before a crash posts it once more.
func postAll(ctx context.Context, n *testNode, count string) {
	most, _ := strconv.Atoi(count)
	to := map[union.State]union.State{"BH": "SA", "SA": "BH"}[n.state]
	for i := 0; i < most && ctx.Err() == nil; {
		l := letter(n.state, offered(to, "things"), fmt.Sprintf("%s-%03d", n.state, i), fmt.Sprint(i))
		l.Conversation = fmt.Sprint("case ", i%5)
		if err := n.Post(ctx, l); err == nil {
			i++
		} else if fault.CodeOf(err) != fault.InFlight {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// TestKillsInside: what a part of a node posts is served, once but for what a
// kill cut off, and its end is told, whichever processes are killed when; and
// what was answered is not served again because it is posted again.
func TestKillsInside(t *testing.T) {
	t.Parallel()
	const posts, kills = 60, 6
	states := []union.State{"BH", "SA"}
	u, listeners := foundUnion(t, states)
	self, err := os.Executable()
	check(t, err)
	nodes := u.processes(listeners, self, crashInside+"="+fmt.Sprint(posts))
	for range kills {
		time.Sleep(100*time.Millisecond + rand.N(400*time.Millisecond))
		for _, s := range states {
			if rand.N(3) > 0 {
				nodes[s].kill()
				nodes[s].start(t)
			}
		}
	}
	lines := func(s union.State, name string) map[string]int {
		b, _ := os.ReadFile(filepath.Join(nodes[s].home, name))
		out := map[string]int{}
		for line := range strings.Lines(string(b)) {
			out[strings.TrimSpace(line)]++
		}
		return out
	}
	for end := time.Now().Add(40 * time.Second); len(lines("BH", "ended")) < posts || len(lines("SA", "ended")) < posts; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			break // what is missing is said below
		}
	}
	again := 0
	for from, to := range map[union.State]union.State{"BH": "SA", "SA": "BH"} {
		served, ended := lines(to, "served"), lines(from, "ended")
		for i := range posts {
			id := fmt.Sprintf("%s-%03d", from, i)
			if n := served[id]; n < 1 || n > kills+1 {
				t.Errorf("%s was served %d times", id, n)
			}
			again += served[id] - 1
			if ended[fmt.Sprintf("%s answered %d", id, i)] < 1 {
				t.Errorf("%s was not told answered", id)
			}
		}
		if len(served) != posts || len(ended) != posts {
			t.Errorf("%s: %d served, %d ended", from, len(served), len(ended))
		}
	}
	t.Logf("%d of %d served again after a kill", again, 2*posts)
	if again > posts {
		t.Errorf("%d were served again", again)
	}
	for _, s := range states {
		nodes[s].kill()
	}
}
