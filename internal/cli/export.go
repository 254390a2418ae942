package cli

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/falaj/falaj/internal/evidence"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
)

type evidenceExportCmd struct {
	ID      string `arg:"" name:"id"`
	Output  string `short:"o" required:"" type:"path" placeholder:"FILE"`
	Client  string `placeholder:"CLIENT"`
	Request string `placeholder:"ID"`
}

// exported says what is in a container that was written.
type exported struct {
	File     string             `json:"file"`
	Bytes    int64              `json:"bytes"`
	SHA256   string             `json:"sha256"`
	Replaced bool               `json:"replaced,omitzero"` // a file of this name was there before
	ID       string             `json:"id"`
	Parts    []exportedPart     `json:"parts"`
	Absent   []evidence.Absence `json:"absent,omitempty"`
	Records  []string           `json:"records"`         // the nodes whose records are in it
	Tries    []string           `json:"tries,omitempty"` // X-Road-Request-Id of each, where there were several: the last is in it
}

type exportedPart struct {
	Part    string `json:"part"`
	Type    string `json:"type"`
	Client  string `json:"client"`
	Status  int    `json:"status,omitempty"`
	Fault   string `json:"fault,omitempty"`
	Service string `json:"service"`
	Body    int64  `json:"body"` // bytes, as the head says
}

// Run writes the container beside its place and moves it there when it is
// whole: a file of that name is never half of one.
func (c *evidenceExportCmd) Run(s *session) error {
	folder := filepath.Dir(c.Output)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.File, "--output: there is no folder %s", folder).Arabic("--output: لا وجود للمجلد %s", folder)
	}
	old, err := os.Stat(c.Output)
	if err == nil && !old.Mode().IsRegular() {
		return fault.New(fault.File, "--output: %s is no file: name one, such as call.asice", c.Output).Arabic("--output: %s ليس ملفاً، فسمِّ ملفاً مثل call.asice", c.Output)
	}
	f, err := os.CreateTemp(folder, ".falaj-export-*")
	if err != nil {
		return fault.New(fault.File, "--output: %v", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	sum := sha256.New()
	err = s.find(func(n *target) error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		sum.Reset()
		q := url.Values{"id": {c.ID}, "client": {c.Client}, "request": {c.Request}}
		return n.Save(s.ctx, "container", q, io.MultiWriter(f, sum), s.progress())
	})
	if err != nil {
		return err
	}
	e, err := inspect(f)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing the container: %w", err)
	}
	if err := os.Rename(f.Name(), c.Output); err != nil {
		return fmt.Errorf("writing the container: %w", err)
	}
	e.Replaced = old != nil
	e.File, e.SHA256 = c.Output, fmt.Sprintf("%x", sum.Sum(nil))
	if c.Request == "" {
		e.Tries = c.tries(s)
	}
	return s.show(e, func() {
		s.printf("%s %s\n", s.say(t("The container is in", "الحاوية محفوظة في")), e.File)
		s.printf(s.say(t("  %d bytes, SHA-256 %s\n", "  %d بايت، SHA-256 %s\n")), e.Bytes, e.SHA256)
		if e.Replaced {
			s.line(t("  in the place of the file that was there", "  وقد حلّت محل الملف السابق"))
		}
		for _, p := range e.Parts {
			what := s.say(t("request", "الطلب"))
			if p.Part == "answer" {
				what = s.say(t("answer", "الرد"))
			}
			if p.Status != 0 {
				what = strings.TrimSpace(fmt.Sprintf("%s %d %s", what, p.Status, p.Fault))
			}
			s.printf(s.say(t("  %s: %s → %s, body of %d bytes\n", "  %s: %s → %s، محتواه %d بايت\n")), what, p.Client, p.Service, p.Body)
		}
		for _, a := range e.Absent {
			s.printf(s.say(t("  not in it: %s: %s\n", "  ليس فيها: %s: %s\n")), a.Name, s.say(a.Why))
		}
		s.printf("%s %s\n", s.say(t("  records of:", "  قيود العقد:")), strings.Join(e.Records, ", "))
		if len(e.Tries) > 0 {
			s.printf(s.say(t("The call was tried %d times; the last is in the file. Another one: --request with its X-Road-Request-Id:\n  %s\n",
				"جرت %d محاولات لهذا الطلب، وفي الملف آخرها. ولغيرها: --request مع معرّفها X-Road-Request-Id:\n  %s\n")), len(e.Tries), strings.Join(e.Tries, "\n  "))
		}
		s.line(t("It holds what was said in the call: hand it only to who may read that. README.txt in it says how it is checked.",
			"فيها ما قيل في الطلب، فلا تسلّمها إلا لمن يحق له الاطلاع عليه. وطريقة التحقق منها في الملف README.txt داخلها."))
	})
}

// tries lists the request ids of a call that was tried several times.
func (c *evidenceExportCmd) tries(s *session) []string {
	var e exchange.Evidence
	if s.ask("evidence", c.ID, &e) != nil {
		return nil // the container is written; this is only a word on it
	}
	var ids []string
	for _, h := range e.Halves {
		for _, r := range h.Records {
			head := headOf(r)
			if id := head.RequestID; id != "" && (c.Client == "" || head.Client == c.Client) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) < 2 {
		return nil
	}
	return ids
}

// inspect reads what is in a container.
func inspect(f *os.File) (exported, error) {
	e := exported{Parts: []exportedPart{}, Records: []string{}}
	st, err := f.Stat()
	if err != nil {
		return e, err
	}
	box, err := evidence.Open(f, st.Size())
	if err != nil {
		return e, fault.Wrap(fault.Corrupt, err, "the node sent something else than a container")
	}
	in, err := box.Contents()
	if err != nil {
		return e, fault.Wrap(fault.Corrupt, err, "the container's contents")
	}
	e.Bytes, e.ID, e.Absent = st.Size(), in.ID, in.Absent
	for _, r := range in.Records {
		if n := string(r.State) + "/" + r.Node; !slices.Contains(e.Records, n) {
			e.Records = append(e.Records, n)
		}
	}
	for i, part := range []seal.Part{seal.Request, seal.Answer} {
		b, err := box.Read(part.Names().Head, evidence.MaxHead)
		if err != nil {
			continue // there is none
		}
		var head struct {
			Type, Client, Service, Fault string
			Status                       int
			Body                         struct{ Size int64 }
		}
		if err := json.Unmarshal(b, &head); err != nil {
			return e, fault.Wrap(fault.Corrupt, err, "a head in the container")
		}
		e.Parts = append(e.Parts, exportedPart{
			Part: []string{"request", "answer"}[i], Type: head.Type, Client: head.Client, Service: head.Service,
			Status: head.Status, Fault: head.Fault, Body: head.Body.Size,
		})
	}
	return e, nil
}

// progress tells a person who waits at a terminal how far a large file is.
func (s *session) progress() func(done, all int64) {
	f, ok := s.Err.(*os.File)
	if ok {
		st, err := f.Stat()
		ok = err == nil && st.Mode()&os.ModeCharDevice != 0
	}
	if !ok || s.JSON {
		return func(int64, int64) {}
	}
	told := int64(-1)
	return func(done, all int64) {
		const large = 16 << 20
		if all < large || done*100/all == told {
			return
		}
		told = done * 100 / all
		fmt.Fprintf(s.Err, "\r%3d %%  ", told)
		if done == all {
			fmt.Fprint(s.Err, "\r       \r")
		}
	}
}
