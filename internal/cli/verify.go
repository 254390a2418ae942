package cli

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/verify"
)

type verifyCmd struct {
	Files []string `arg:"" name:"container" type:"path"`
	Root  string   `required:"" type:"path" placeholder:"FILE"`

	StampRoot []string `sep:"none" type:"path" placeholder:"FILE"`
	At        string   `placeholder:"DATE"`
}

// verified is what was found of one file.
type verified struct {
	File string `json:"file"`
	*verify.Report
}

// Run checks containers without a node. The exit code is the worst verdict: 1
// where something is wrong, 2 where what it takes is missing.
func (c *verifyCmd) Run(s *session) error {
	defer operation.Memory()()
	root, err := os.ReadFile(c.Root)
	if err != nil {
		return fault.New(fault.File, "--root: %v", err)
	}
	v, err := verify.New(root)
	if err != nil {
		return fault.New(fault.Usage, "--root: %s: %v", c.Root, err)
	}
	for _, name := range c.StampRoot {
		cert, err := readCertificate(name)
		if err != nil {
			return fault.New(fault.File, "--stamp-root: %v", err)
		}
		v.Rely(cert)
	}
	at, err := moment("--at", c.At)
	if err != nil {
		return err
	}
	if at.IsZero() {
		at = time.Now()
	}
	v.At(at)
	worst := verify.Holds
	all := make([]verified, 0, len(c.Files))
	for _, name := range containers(c.Files) {
		r := read(v, name)
		all = append(all, verified{name, r})
		if worst == verify.Holds || r.Verdict == verify.Broken {
			worst = r.Verdict
		}
	}
	if err := s.show(all, func() {
		for _, r := range all {
			s.report(r)
		}
	}); err != nil {
		return err
	}
	switch worst {
	case verify.Broken:
		return errExit(ExitFailed)
	case verify.Unprovable:
		return errExit(ExitUsage)
	}
	return nil
}

// readCertificate reads a file that is one certificate in PEM.
func readCertificate(name string) (*x509.Certificate, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no PEM certificate", name)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// containers puts in a folder's place the containers (*.asice) that lie in it;
// one without any stays, to be reported.
func containers(names []string) (out []string) {
	for _, name := range names {
		entries, _ := os.ReadDir(name) // none of what is no folder
		before := len(out)
		for _, e := range entries {
			if filepath.Ext(e.Name()) == ".asice" {
				out = append(out, filepath.Join(name, e.Name()))
			}
		}
		if len(out) == before {
			out = append(out, name)
		}
	}
	return out
}

// read checks a file. Of one that cannot be read nothing is known: it refutes
// no evidence, and keeps no other file from being checked.
func read(v *verify.Verifier, name string) *verify.Report {
	f, err := os.Open(name)
	var st fs.FileInfo
	if err == nil {
		defer f.Close()
		st, err = f.Stat()
	}
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file, and no folder with .asice files in it", name)
	}
	if err != nil {
		return &verify.Report{Verdict: verify.Unprovable, Checks: []verify.Check{{
			What: "the file can be read", WhatAr: "الملف مقروء", Result: verify.Unchecked, Detail: err.Error(),
		}}}
	}
	return v.Container(f, st.Size())
}

// report says what was found to a person.
func (s *session) report(r verified) {
	s.printf("%s", r.File)
	if r.ID != "" {
		s.printf("  X-Road-Id %q", r.ID)
	}
	s.printf("\n")
	for _, c := range r.Checks {
		sign := map[verify.Result]string{verify.Passed: "✓", verify.Failed: "✗", verify.Unchecked: "–"}[c.Result]
		s.printf("  %s %s\n", sign, s.say(t(c.What, c.WhatAr)))
		if c.Detail != "" {
			s.indent("      ", c.Detail)
		}
	}
	switch r.Verdict {
	case verify.Holds:
		s.line(t("It holds: what is marked ✓ is proven by the union's root alone. What is marked – could not be checked.",
			"الأدلة صحيحة: ما عليه ✓ مُثبت بجذر الاتحاد وحده، وما عليه – تعذّر التحقق منه."))
	case verify.Broken:
		s.line(t("It does not hold: what is marked ✗ is not what it should be.", "الأدلة غير صحيحة: ما عليه ✗ ليس كما ينبغي."))
	case verify.Unprovable:
		s.line(t("It can be judged neither way: what is marked – is missing, or the root is another union's or another time's.",
			"لا يمكن الحكم على الأدلة: ما عليه – مفقود، أو أن الجذر لاتحاد آخر أو لزمن آخر."))
	}
	if r.Demonstration {
		s.line(t("The union is a demonstration: its word binds nobody.", "الاتحاد تجريبي، فلا تُلزم كلمته أحداً."))
	}
}
