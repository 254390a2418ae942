package cli

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falaj/falaj/internal/fault"
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
	m, err := c.open(s)
	if err != nil {
		return err
	}
	defer m.lock.Close()
	wrong := false
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
			if !ok {
				continue
			}
			wrong = wrong || x.What == witness.SightDivided || x.What == witness.SightUnsigned
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
		if wrong {
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
		audit := logAuditCmd{URL: p.Address}
		var keep string
		x, keep = witness.Look(s.ctx, p.State, audit.get(&http.Client{Timeout: 10 * time.Second}), trust, known)
		if keep != "" {
			m.Heads[p.Key.String()] = keep
		}
	}
	last := m.said[p.State]
	m.said[p.State] = x.What + x.Log + x.Detail
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
	switch x.What {
	case witness.SightGrown:
		s.printf(s.say(t("%s  %s  %d entries, cosigned by %d of %d: continues all that is known\n", "%s  %s  %d قيداً، وقّع عليه %d واللازم %d: متصل بكل ما عُرف عنه\n")), at, x.Log, x.Size, x.Witnesses, x.Quorum)
	case witness.SightFew:
		s.printf(s.say(t("%s  %s  %d entries, cosigned by %d, which is fewer than %d\n", "%s  %s  %d قيداً، وقّع عليه %d وهو أقل من %d\n")), at, x.Log, x.Size, x.Witnesses, x.Quorum)
	case witness.SightSilent:
		s.printf(s.say(t("%s  %s  cannot be read: %s\n", "%s  %s  تعذّرت قراءته: %s\n")), at, x.Log, x.Detail)
	case witness.SightUnsigned:
		s.printf(s.say(t("%s  %s  WHAT IT SHOWS IS NOT SIGNED BY ITS KEY: %s\n", "%s  %s  ما يعرضه غير موقّع بمفتاحه: %s\n")), at, x.Log, x.Detail)
	case witness.SightDivided:
		s.printf(s.say(t("%s  %s  TWO HISTORIES: %s\n", "%s  %s  تاريخان مختلفان: %s\n")), at, x.Log, x.Detail)
		for i, h := range x.Heads {
			who := t("seen here before:", "شوهد هنا من قبل:")
			if h.By != "" {
				who = union.Text{En: "seen by the witness of " + h.By + ":", Ar: "رآه شاهد " + h.By + ":"}
			}
			if i == 1 {
				who = t("shown now:", "المعروض الآن:")
			}
			s.line(who)
			s.printf("%s\n", h.Note)
		}
	}
}

// memory is what is known of the logs from one run to the next: a file that
// one process at a time has.
type memory struct {
	Heads map[string]string `json:"heads"` // by the log's key, the newest head that was seen

	file  string
	lock  *os.File
	said  map[union.State]string
	heard *node.Witnessed
}

const maxMemory = 16 << 20

func (c *logWatchCmd) open(s *session) (*memory, error) {
	m := &memory{file: c.Memory, said: map[union.State]string{}}
	if m.file == "" {
		home, err := s.Home()
		if err != nil {
			return nil, fault.Wrap(fault.Usage, err, "there is no home folder here; name a file with --memory")
		}
		m.file = filepath.Join(home, ".falaj", "watch.json")
	}
	if err := os.MkdirAll(filepath.Dir(m.file), 0o700); err != nil {
		return nil, fault.Wrap(fault.Usage, err, "--memory: %v", err)
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
