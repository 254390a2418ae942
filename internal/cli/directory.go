package cli

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
)

// directoryCmd founds a union and changes who is in it. Each state signs with
// its own keys at its own place; what goes round between them is one file.
type directoryCmd struct {
	Init     directoryInitCmd    `cmd:""`
	Enrol    directoryEnrolCmd   `cmd:""`
	AddState directoryAddCmd     `cmd:""`
	Amend    directoryAmendCmd   `cmd:""`
	Sign     directorySignCmd    `cmd:""`
	Publish  directoryPublishCmd `cmd:""`
	Show     directoryShowCmd    `cmd:""`
	Verify   directoryVerifyCmd  `cmd:""`
}

const sourcePatience = 30 * time.Second

// where says which directory a command reads: a folder's, a source's, or the
// one that a running node has.
type where struct {
	Dir    string   `type:"existingdir" placeholder:"DIR"`
	Source []string `placeholder:"URL"`
	Root   string   `type:"path" placeholder:"FILE"`
}

func (w where) named() bool { return w.Dir != "" || len(w.Source) > 0 }

// open reads the directory and verifies it from the pinned root. It writes
// nothing.
func (w where) open(s *session) (*directory.Directory, error) {
	if inside := filepath.Join(w.Dir, "directory"); w.Dir != "" {
		if st, err := os.Stat(inside); err == nil && st.IsDir() { // a node's data folder
			w.Dir = inside
		}
	}
	name := w.Root
	if name == "" && w.Dir != "" {
		name = filepath.Join(filepath.Dir(filepath.Clean(w.Dir)), "root.json") // where a node's data folder has it
	}
	if name == "" {
		return nil, fault.New(fault.Usage, "--root: the union's pinned root is needed, by which all else is known")
	}
	root, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.New(fault.File, "--root: %v", err)
	}
	peers, err := sources(w.Source)
	if err != nil {
		return nil, err
	}
	if w.Dir != "" {
		peers = append(peers, directory.Peer{Fetcher: directory.Folder(w.Dir)})
	}
	d, err := directory.Open(s.ctx, directory.Config{Root: root, Demonstration: true}, directory.Deps{Now: time.Now, Peers: func() []directory.Peer { return peers }})
	if err != nil {
		return nil, err
	}
	if err := d.Refresh(s.ctx); err != nil {
		return nil, err
	}
	if d.View().Version() == 0 {
		return nil, fault.New(fault.NotFound, "there is no directory in %s", w.Dir)
	}
	return d, nil
}

func sources(list []string) ([]directory.Peer, error) {
	var peers []directory.Peer
	for _, base := range list {
		p, err := directory.HTTPPeer(base, &http.Client{Timeout: sourcePatience}, true)
		if err != nil {
			return nil, err
		}
		peers = append(peers, p)
	}
	return peers, nil
}

type directoryShowCmd struct {
	Draft string `arg:"" optional:"" name:"draft" type:"existingfile"`
	where
}

// Run shows a draft, or a directory: of a folder or source, else that of a
// running node.
func (c *directoryShowCmd) Run(s *session) error {
	if c.Draft != "" {
		d, err := readDraft(c.Draft)
		if err != nil {
			return err
		}
		return s.drafted(d, c.Draft)
	}
	if !c.named() {
		n, err := s.node("")
		if err != nil {
			return err
		}
		var d node.DirectoryStatus
		if err := n.Query(s.ctx, "directory", nil, &d); err != nil {
			return err
		}
		return s.show(d, func() { s.surveyed(d) })
	}
	d, err := c.open(s)
	if err != nil {
		return err
	}
	status := node.StatusOf(d.View(), time.Now())
	return s.show(status, func() { s.surveyed(status) })
}

type directoryVerifyCmd struct {
	where
	All bool
}

// verdict is what a verification found.
type verdict struct {
	Valid    bool               `json:"valid"`
	Versions []directoryVersion `json:"versions"`
}

type directoryVersion struct {
	Version  int64               `json:"version"`
	Expires  time.Time           `json:"expires"`
	Valid    bool                `json:"valid"`
	Error    string              `json:"error,omitempty"`
	Problems []directory.Problem `json:"problems,omitempty"`
}

// Run verifies a directory from the pinned root: every signature, threshold,
// digest, certificate and list, and with --all every old version that is
// there. The answer is no if something is wrong, or the newest has expired.
func (c *directoryVerifyCmd) Run(s *session) error {
	if !c.named() {
		return fault.New(fault.Usage, "--dir or --source: which directory is to be verified")
	}
	d, err := c.open(s)
	if err != nil {
		return err
	}
	v := verdict{Valid: true}
	newest := d.View().Version()
	for n := newest; n > 0 && (n == newest || c.All); n-- {
		x := directoryVersion{Version: n, Valid: true}
		view, err := d.ViewAt(s.ctx, n)
		if fault.CodeOf(err) == fault.NotFound {
			continue // numbers may be skipped
		}
		if err == nil && n == newest {
			err = view.Fresh(time.Now())
		}
		if err != nil {
			x.Valid, x.Error = false, err.Error()
		}
		if view != nil {
			x.Expires, x.Problems = view.Expires(), view.Problems()
			x.Valid = x.Valid && len(x.Problems) == 0
		}
		v.Valid = v.Valid && x.Valid
		v.Versions = append(v.Versions, x)
	}
	err = s.show(v, func() {
		for _, x := range v.Versions {
			say := t("holds", "صحيح")
			if !x.Valid {
				say = t("does not hold", "غير صحيح")
			}
			s.printf("%s %d %s", s.say(t("Version", "الإصدار")), x.Version, s.say(say))
			if x.Error != "" {
				s.printf(": %s", x.Error)
			}
			s.printf("\n")
			s.problems(x.Problems)
		}
	})
	if err == nil && !v.Valid {
		return errExit(ExitFailed)
	}
	return err
}

func (s *session) surveyed(d node.DirectoryStatus) {
	if d.Version == 0 {
		s.line(t("The node has received no directory yet.", "لم تتلقَّ العقدة دليلاً بعد."))
		return
	}
	fresh := t("in force", "سارٍ")
	if !d.Fresh {
		fresh = t("expired", "منتهي الصلاحية")
	}
	s.printf(s.say(t("%s: version %d, %s (until %s)\n\n", "%s: الإصدار %d، %s (حتى %s)\n\n")), d.Union, d.Version, s.say(fresh), d.Expires.UTC().Format(time.RFC3339))
	var rows [][]string
	for _, x := range d.States {
		rows = append(rows, []string{
			string(x.Code), s.say(x.Name), fmt.Sprint(x.Version), x.Expires.UTC().Format(time.DateOnly), strings.Join(x.Nodes, " "),
			fmt.Sprint(x.Members), fmt.Sprint(x.Services),
		})
	}
	s.table([]string{"", s.say(t("state", "الدولة")), s.say(t("part", "الجزء")), s.say(t("until", "حتى")), s.say(t("nodes", "العقد")),
		s.say(t("members", "الجهات")), s.say(t("services", "الخدمات"))}, rows)
	s.problems(d.Problems)
}

func (s *session) problems(list []directory.Problem) {
	for _, p := range list {
		s.printf("  %s %s: %s\n", s.say(t("Refused, the last good part stays:", "مرفوض، ويبقى آخر جزء سليم:")), p.State, p.Detail)
	}
}
