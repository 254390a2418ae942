package acceptance_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNewService does what docs/new-service.md says: files are put together of
// its pieces, commands run, and what stands under them is what they say.
func TestNewService(t *testing.T) {
	t.Parallel()
	text := read(t, filepath.Join("..", "..", "docs", "new-service.md"))
	u := startUp(t, filepath.Join(t.TempDir(), "union"), "--state", "BH,SA", base(t))
	text = strings.NewReplacer("http://127.0.0.1:8100", u.node(t, "BH").R1, "http://127.0.0.1:8110", u.node(t, "SA").R1,
		"http://127.0.0.1:8120", u.ready.Secretariat, "~/.falaj/up", u.Data).Replace(text)
	here := t.TempDir()
	blocks := regexp.MustCompile("(?ms)^```(sh|text|yaml) ?([a-z.-]*)\n(.*?)^```$").FindAllStringSubmatch(text, -1)
	var last result
	ran := 0
	for i, b := range blocks {
		switch kind, name, body := b[1], b[2], b[3]; kind {
		case "yaml":
			file := filepath.Join(here, name)
			before, err := os.ReadFile(file)
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			write(t, file, string(before)+body)
		case "sh":
			wrong := i+1 < len(blocks) && strings.Contains(blocks[i+1][3], "✗")
			for try := 0; ; try++ {
				last = do(t, []string{"FALAJ_UP_DATA=" + u.Data}, "sh", "-ec", "cd '"+here+"'\n"+body)
				if try == 20 || !strings.Contains(last.err, "[directory.invalid]") { // it is just being published
					break
				}
				time.Sleep(200 * time.Millisecond)
			}
			if ran++; (last.code != 0) != wrong {
				t.Fatalf("%s\ncode %d\n%s%s", body, last.code, last.out, last.err)
			}
		case "text":
			for line := range strings.Lines(body) {
				if !strings.Contains(last.out, strings.TrimSpace(line)) {
					t.Errorf("not said: %s\nbut %s", line, last.out)
				}
			}
		}
	}
	if ran < 10 {
		t.Errorf("only %d blocks of commands ran", ran)
	}
	u.all.stop(t, syscall.SIGINT)
}
