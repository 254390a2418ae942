package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

type logWatchCmd struct {
	Once   bool
	Every  time.Duration `default:"10s"`
	Memory string        `placeholder:"FILE"`
}

// Run follows the states' logs until it is stopped. What it finds wrong is
// printed with the heads that prove it, and is the exit code in the end.
func (c *logWatchCmd) Run(s *session) error {
	if c.Every < time.Second {
		return fault.New(fault.Usage, "--every %v: at least 1s", c.Every).Arabic("--every %v: ثانية واحدة على الأقل", c.Every)
	}
	m, err := c.open(s)
	if err != nil {
		return err
	}
	defer m.lock.Close()
	wrong := false
	few := map[union.State]bool{} // at the last look: cosignatures may follow a head
	for {
		var w node.Witnessed
		err := s.find(func(n *target) error { return n.Query(s.ctx, "heads", nil, &w) })
		if err != nil && (c.Once || w.Logs.Logs == nil && m.heard == nil) {
			return err
		}
		if err != nil {
			w = *m.heard // the node may be back soon; the logs go on meanwhile
		} else {
			m.heard = &w
		}
		for _, p := range w.Logs.Logs {
			x, ok := c.look(s, m, w, p)
			few[p.State] = x.Root != "" && x.Witnesses < x.Quorum
			if !ok {
				continue
			}
			wrong = m.ends(x) || wrong || x.What == witness.SightDivided || x.What == witness.SightUnsigned
			s.sight(x)
		}
		if err := m.save(); err != nil {
			return err
		}
		if !c.Once {
			select {
			case <-s.ctx.Done():
			case <-time.After(c.Every):
				continue
			}
		}
		if wrong || slices.Contains(slices.Collect(maps.Values(few)), true) {
			return errExit(ExitFailed)
		}
		return nil
	}
}

// look looks at one log; false where nothing is new.
func (c *logWatchCmd) look(s *session, m *memory, w node.Witnessed, p node.LogPlace) (witness.Sight, bool) {
	trust, ok := w.Logs.Union().Trust(p.State)
	if !ok {
		return witness.Sight{}, false
	}
	x := witness.Sight{State: p.State, Log: p.Key.Name(), What: witness.SightSilent, Detail: "the directory names no address where everybody may read it"}
	if p.Address != "" {
		known := slices.Clone(w.Heads[p.State])
		if note := m.Heads[p.Key.String()]; note != "" {
			known = append(known, witness.Head{Note: note})
		}
		known = append(known, m.former(p)...)
		audit := logAuditCmd{URL: p.Address}
		var keep string
		x, keep = witness.Look(s.ctx, p.State, audit.get(&http.Client{Timeout: 10 * time.Second}), trust, known)
		if keep != "" {
			m.Heads[p.Key.String()] = keep
		}
	}
	last := m.said[p.State]
	m.said[p.State] = fmt.Sprint(x.What, x.Log, x.Detail, x.Former)
	return x, c.Once || last != m.said[p.State] || x.What == witness.SightDivided
}

// sight prints what was found of a log: a line a finding, for machines JSON.
func (s *session) sight(x witness.Sight) {
	if s.JSON {
		e := json.NewEncoder(s.Out)
		e.SetEscapeHTML(false)
		_ = e.Encode(x) // a broken pipe is the reader's affair
		return
	}
	at := time.Now().UTC().Format(time.RFC3339)
	for _, f := range x.Former {
		line := t("%s  %s  GOES ON AS A NEW LOG: %s ended at %d entries, and all of them are in the new one\n", "%s  %s  استُؤنف سجلاً جديداً: انتهى %s عند القيد رقم %d، وقيوده كلها في السجل الجديد\n")
		if !f.Contained {
			line = t("%s  %s  A HISTORY ENDED: the state goes on as a new log; %s had %d entries, and the new one does not hold them as they were\n", "%s  %s  انقطع التاريخ: تتابع الدولة بسجل جديد؛ وكان السجل %s قد بلغ القيد رقم %d، والسجل الجديد لا يحويه كما كان\n")
		}
		s.printf(s.say(line), at, x.Log, f.Log, f.Size)
		if !f.Contained {
			s.line(seenBy(f.Head))
			s.printf("%s\n", f.Head.Note)
		}
	}
	switch x.What {
	case witness.SightNew, witness.SightGrown, witness.SightRenewed, witness.SightEnded, witness.SightFew:
		word := map[string]union.Text{
			witness.SightNew:     t("seen for the first time", "يُرى للمرة الأولى"),
			witness.SightGrown:   t("continues all that is known", "متصل بكل ما عُرف عنه"),
			witness.SightRenewed: t("continues all that is known", "متصل بكل ما عُرف عنه"),
			witness.SightEnded:   t("does not continue the log before it", "غير متصل بالسجل الذي قبله"),
			witness.SightFew:     t("TOO FEW WITNESSES: another history could be shown to others", "الشهود أقل من اللازم: قد يُعرض على غيرك تاريخ آخر"),
		}[x.What]
		s.printf(s.say(t("%s  %s  entries: %d, cosigned by: %d (needed: %d): %s\n", "%s  %s  القيود: %d، الشهود الموقّعون: %d (اللازم: %d): %s\n")), at, x.Log, x.Size, x.Witnesses, x.Quorum, s.say(word))
	case witness.SightSilent:
		s.printf(s.say(t("%s  %s  cannot be read: %s\n", "%s  %s  تعذّرت قراءته: %s\n")), at, x.Log, x.Detail)
	case witness.SightUnsigned:
		s.printf(s.say(t("%s  %s  WHAT IT SHOWS IS NOT SIGNED BY ITS KEY: %s\n", "%s  %s  ما يعرضه غير موقّع بمفتاحه: %s\n")), at, x.Log, x.Detail)
	case witness.SightDivided:
		s.printf(s.say(t("%s  %s  TWO HISTORIES: it signed a head of %d entries, and now shows one of %d that does not belong to it\n", "%s  %s  تاريخان مختلفان: وقّع رأساً بلغ القيد رقم %d، ويعرض الآن رأساً بلغ القيد رقم %d لا يتصل به\n")), at, x.Log, x.Known, x.Size)
		for i, h := range x.Heads {
			who := seenBy(h)
			if i == 1 {
				who = t("shown now:", "المعروض الآن:")
			}
			s.line(who)
			s.printf("%s\n", h.Note)
		}
	}
}

// seenBy says who saw a head.
func seenBy(h witness.Head) union.Text {
	if h.By == "" {
		return t("seen here before:", "شوهد هنا من قبل:")
	}
	return union.Text{En: "seen by the witness of " + h.By + ":", Ar: "رآه شاهد " + h.By + ":"}
}

// memory is what is known of the logs from one run to the next: a file that
// one process at a time has.
type memory struct {
	Heads map[string]string `json:"heads"`           // by the log's key, the newest head that was seen
	Ended []string          `json:"ended,omitempty"` // ends of logs that were told: the log, the one before it, its size and root

	file  string
	lock  *os.File
	said  map[union.State]string
	heard *node.Witnessed
}

const maxMemory = 16 << 20

func (c *logWatchCmd) open(s *session) (*memory, error) {
	m := &memory{file: c.Memory, said: map[union.State]string{}}
	if m.file == "" { // a folder that somebody named is not made: it may be mistyped
		home, err := s.Home()
		if err != nil {
			return nil, fault.Wrap(fault.Usage, err, "there is no home folder here; name a file with --memory")
		}
		m.file = filepath.Join(home, ".falaj", "watch.json")
		if err := os.MkdirAll(filepath.Dir(m.file), 0o700); err != nil {
			return nil, fault.Wrap(fault.Usage, err, "--memory: %v", err)
		}
	}
	var err error
	if m.lock, err = os.OpenFile(m.file+".lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fault.Wrap(fault.Usage, err, "--memory: %v", err)
	}
	if err := unix.Flock(int(m.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		m.lock.Close()
		return nil, fault.Wrap(fault.Conflict, err, "another falaj watches with %s; name another file with --memory", m.file)
	}
	info, err := os.Stat(m.file)
	var b []byte
	if err == nil && info.Size() <= maxMemory {
		b, err = os.ReadFile(m.file)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
	case len(b) == 0 || json.Unmarshal(b, m) != nil:
		err = errors.New("it holds something else; what was seen before is in it, so it is not replaced")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.lock.Close()
		return nil, fault.Wrap(fault.Usage, err, "%s: %v", m.file, err)
	}
	if m.Heads == nil {
		m.Heads = map[string]string{}
	}
	return m, nil
}

// former are the last heads that were seen of the logs that a state had before,
// whatever key signed them.
func (m *memory) former(p node.LogPlace) (out []witness.Head) {
	for text, note := range m.Heads {
		k, err := merkle.ParseKey(text)
		if err == nil && k.Name() != p.Key.Name() && path.Base(path.Dir(k.Name())) == string(p.State) {
			out = append(out, witness.Head{Note: note, Key: k})
		}
	}
	return out
}

// ends tells whether a log before this one ended otherwise than in it, which
// was not told yet: people answer for it once, and the watch goes on.
func (m *memory) ends(x witness.Sight) (fresh bool) {
	for _, f := range x.Former {
		end := fmt.Sprintf("%s %s %d %s", x.Log, f.Log, f.Size, f.Root)
		if !f.Contained && !slices.Contains(m.Ended, end) {
			fresh, m.Ended = true, append(m.Ended, end)
		}
	}
	return fresh
}

// save replaces the file as a whole.
func (m *memory) save() error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(m.file), "."+filepath.Base(m.file)+"-*")
	if err == nil {
		_, err = f.WriteString(strings.TrimSpace(string(b)) + "\n")
		err = errors.Join(err, f.Sync(), f.Close())
		if err == nil {
			err = os.Rename(f.Name(), m.file)
		}
		if err != nil {
			os.Remove(f.Name())
		}
	}
	if err != nil {
		return fault.Wrap(fault.Usage, err, "remembering what was seen: %v", err)
	}
	return nil
}
