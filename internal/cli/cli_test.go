package cli

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/falaj/falaj/internal/services/residence"
)

// TestMain lets the scripts run this test's own binary as falaj.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"falaj": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(Run(ctx, os.Args[1:], World{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.LookupEnv, Home: os.UserHomeDir}))
		},
	})
}

// TestScripts: the scripts are the command line's specification.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds:                words(),
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "LC_ALL=C", "FALAJ_UP_DATA="+e.WorkDir+"/u")
			// A joint service, for a purpose of the demonstration and for another.
			loan := strings.Replace(string(residence.Definition), "name: residence\n", "name: loan\n", 1)
			for file, purpose := range map[string]string{"loan.yaml": "trial", "other.yaml": "customs"} {
				text := strings.Replace(loan, "purpose: residence\n", "purpose: "+purpose+"\n", 1)
				if err := os.WriteFile(e.WorkDir+"/"+file, []byte(text), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// TestEverythingIsSaidTwice: each command, flag and argument has its text in
// both languages, and no text is about nothing.
func TestEverythingIsSaidTwice(t *testing.T) {
	k, err := kong.New(&root{}, kong.Name("falaj"))
	if err != nil {
		t.Fatal(err)
	}
	texts := helpTexts()
	used := map[string]bool{"falaj": true}
	walk(k.Model.Node, "", func(path, name string, _ *string) {
		for _, key := range []string{strings.TrimSpace(path + " " + name), name} {
			if text, ok := texts[key]; ok {
				used[key] = true
				if !text.Complete() {
					t.Errorf("%q lacks a language", key)
				}
				return
			}
		}
		t.Errorf("%q has no help text", strings.TrimSpace(path+" "+name))
	})
	for key := range texts {
		if !used[key] {
			t.Errorf("a help text for %q, which is nothing", key)
		}
	}
}
