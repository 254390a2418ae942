package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/union"
)

type directoryPublishCmd struct {
	Draft string `arg:"" name:"draft" type:"existingfile"`
	Keys  string `type:"existingdir" placeholder:"DIR"`
	Dir   string `type:"path" placeholder:"DIR"`
	Pin   string `type:"path" placeholder:"FILE"`
}

// Run brings a draft into force. A union that is there is changed by a running
// node, which signs as its state and asks another party. Of a new one each
// party does its step at its own place, and hands the draft on.
func (c *directoryPublishCmd) Run(s *session) error {
	d, err := readDraft(c.Draft)
	if err != nil {
		return err
	}
	if d.Ready() != nil {
		if err := s.drafted(d, c.Draft); err != nil {
			return err
		}
		if got, need, _ := d.Votes(); !s.JSON {
			fmt.Fprintf(s.Err, s.say(t("falaj: not published: the draft has %d of the %d votes that it takes.\n", "falaj: لم تُنشر: للمسودة %d من %d أصوات لازمة.\n")), got, need)
		}
		return errExit(ExitFailed)
	}
	if version, _ := d.Versions(); version == 1 {
		return c.found(s, d)
	}
	if c.Keys != "" || c.Dir != "" || c.Pin != "" {
		return fault.New(fault.Usage, "a union that is there is changed by a running node: leave --keys, --dir and --pin out")
	}
	n, err := s.node("")
	if err != nil {
		return err
	}
	raw, err := d.Encode()
	if err != nil {
		return err
	}
	var done node.Version
	return s.changed(n, "directory.install", node.Draft{Draft: string(raw)}, &done, func() {
		s.printf("%s %d\n", s.say(t("In force: directory version", "نافذ الآن: إصدار الدليل")), done.Version)
	})
}

// found does this party's step: it signs the first snapshot as the first or the
// second of two, or takes over what two have signed. Its directory and the root
// that it pins go where a node's data folder has them, beside the keys.
func (c *directoryPublishCmd) found(s *session, d *directory.Draft) error {
	switch {
	case c.Dir != "":
	case c.Keys != "":
		c.Dir = filepath.Join(filepath.Dir(filepath.Clean(c.Keys)), "directory")
	default:
		return fault.New(fault.Usage, "--keys: this party's key folder; its directory and root.json are put beside it")
	}
	if c.Pin == "" {
		c.Pin = filepath.Join(filepath.Dir(filepath.Clean(c.Dir)), "root.json")
	}
	root, err := d.Root()
	if err != nil {
		return err
	}
	switch pinned, err := os.ReadFile(c.Pin); {
	case err == nil && !bytes.Equal(pinned, root):
		return fault.New(fault.Conflict, "%s is the root of another union, or of another draft, than %s", c.Pin, c.Draft)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.File, "--pin: %v", err)
	}
	book, party, err := c.open(s, d, root)
	if err != nil {
		return err
	}
	inForce, err := book.Enact(s.ctx, d)
	if err != nil {
		return err
	}
	if err := replaceFile(c.Draft, d.Encode); err != nil {
		return err
	}
	if err := replaceFile(c.Pin, func() ([]byte, error) { return root, nil }); err != nil {
		return err
	}
	out := struct {
		InForce bool                  `json:"in_force"`
		Dir     *node.DirectoryStatus `json:"directory,omitempty"`
		Root    string                `json:"root"` // file
		SHA256  string                `json:"root_sha256"`
	}{InForce: inForce, Root: c.Pin}
	sum := sha256.Sum256(root)
	out.SHA256 = hex.EncodeToString(sum[:])
	if inForce {
		status := node.StatusOf(book.View(), time.Now())
		out.Dir = &status
	}
	return s.show(out, func() {
		if inForce {
			s.surveyed(*out.Dir)
			s.printf("\n")
		}
		s.printf("%s %s\n  SHA-256 %s\n", s.say(t("The root that every party pins:", "الجذر الذي يثبّته كل طرف:")), c.Pin, out.SHA256)
		s.line(t("Compare it with the other parties by telephone before you trust the file.", "قارن البصمة مع بقية الأطراف هاتفياً قبل الوثوق بالملف."))
		s.step(d, c.Draft)
		if inForce && c.Keys != "" {
			s.begin(d, party, filepath.Dir(c.Pin))
		}
	})
}

// begin says how this party starts.
func (s *session) begin(d *directory.Draft, party union.State, data string) {
	trial, command := "", "falaj node --config node.yaml"
	if d.Charter().Demonstration {
		trial = " --demonstration"
	}
	if party == "" {
		command = "falaj secretariat --data " + data + " --listen HOST:PORT" + trial
	}
	s.printf("%s %s\n  %s\n", s.say(t("This party can start. Its data folder:", "يمكن لهذا الطرف أن يبدأ. مجلد بياناته:")), data, command)
}

// open opens this party's copy of the directory, and tells which party it is.
// Who has no key folder here can only take over what others signed.
func (c *directoryPublishCmd) open(s *session, d *directory.Draft, root []byte) (*directory.Directory, union.State, error) {
	cfg, deps := directory.Config{Dir: c.Dir, Root: root, Demonstration: true}, directory.Deps{Now: time.Now}
	if c.Keys != "" {
		keys, err := openKeys(c.Keys, d.Charter().Demonstration)
		if err != nil {
			return nil, "", err
		}
		online, err := keys.Signer(directory.OnlineKey)
		if errors.Is(err, fs.ErrNotExist) {
			err = noKey(c.Keys, directory.OnlineKey)
		}
		if err != nil {
			return nil, "", err
		}
		cfg.State, deps.Keys = d.Party(online.Public()), keys
	}
	book, err := directory.Open(s.ctx, cfg, deps)
	return book, cfg.State, err
}

func noKey(dir, name string) error {
	return fault.New(fault.NotAllowed, "there is no key %q in %s: the party that these keys are of signs nothing here", name, dir)
}
