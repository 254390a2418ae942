package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/up"
	"github.com/falaj/falaj/internal/union"
)

// words are what scripts may say beside falaj.
func words() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		// await FILE waits until a file is there.
		"await": func(ts *testscript.TestScript, neg bool, args []string) {
			for range 6000 {
				if _, err := os.Stat(ts.MkAbs(args[0])); (err == nil) != neg {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			ts.Fatalf("%s: waited in vain", args[0])
		},
		// soon PROGRAM ARGUMENTS… runs it until it succeeds: a state that was
		// away is tried again after a pause.
		"soon": func(ts *testscript.TestScript, _ bool, args []string) {
			var err error
			for range 100 {
				if err = ts.Exec(args[0], args[1:]...); err == nil {
					return
				}
				time.Sleep(200 * time.Millisecond)
			}
			ts.Check(err)
		},
		// serve NAME DIR serves a folder over HTTP; $NAME is its address.
		"serve": func(ts *testscript.TestScript, _ bool, args []string) {
			srv := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[1]))))
			ts.Defer(srv.Close)
			ts.Setenv(args[0], srv.URL)
		},
		// occupy NAME listens on a port and answers nothing; $NAME is the port.
		"occupy": func(ts *testscript.TestScript, _ bool, args []string) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			ts.Check(err)
			ts.Defer(func() { l.Close() })
			_, port, err := net.SplitHostPort(l.Addr().String())
			ts.Check(err)
			ts.Setenv(args[0], port)
		},
		// person NAME makes somebody's certificate NAME.pem and key
		// NAME-keys/key.pem; $NAME is the certificate's SHA-256.
		"person": func(ts *testscript.TestScript, _ bool, args []string) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			ts.Check(err)
			tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
			der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
			ts.Check(err)
			raw, err := x509.MarshalPKCS8PrivateKey(key)
			ts.Check(err)
			dir := ts.MkAbs(args[0] + "-keys")
			ts.Check(os.Mkdir(dir, 0o700))
			ts.Check(os.WriteFile(dir+"/key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600))
			ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
			sum := sha256.Sum256(der)
			ts.Setenv(args[0], hex.EncodeToString(sum[:]))
			me, err := user.Current()
			ts.Check(err)
			ts.Setenv("ME", me.Username)
		},
		// fill FILE writes the environment into a file: $NAME becomes its value.
		"fill": func(ts *testscript.TestScript, _ bool, args []string) {
			text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
			ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
		},
		// place FILE STATE sets $R1, $ADMIN, $OPS, $LINK, $SECRETARIAT and the
		// state's registers ($PERSONS …) from a ready file.
		"place": func(ts *testscript.TestScript, _ bool, args []string) {
			var r up.Ready
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
			for _, n := range r.Nodes {
				if string(n.State) == args[1] {
					ts.Setenv("R1", n.R1)
					ts.Setenv("ADMIN", n.Admin)
					ts.Setenv("OPS", n.Operations)
					ts.Setenv("LINK", n.Link)
					ts.Setenv("PUBLIC", n.Public)
					ts.Setenv("VEHICLES", hostOf(n.Registers["vehicles"]))
				}
			}
			ts.Setenv("SECRETARIAT", hostOf(r.Secretariat))
		},
		// edit FILE OLD NEW changes a file.
		"edit": func(ts *testscript.TestScript, _ bool, args []string) {
			text := strings.Replace(ts.ReadFile(args[0]), args[1], args[2], 1)
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
		},
		// port NAME sets $NAME to an address that is free now.
		"port": func(ts *testscript.TestScript, _ bool, args []string) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			ts.Check(err)
			ts.Setenv(args[0], l.Addr().String())
			ts.Check(l.Close())
		},
		// waiting FILE NAME sets $NAME to the oldest change of a list of approvals.
		"waiting": func(ts *testscript.TestScript, _ bool, args []string) {
			var list []admin.Approval
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &list))
			ts.Setenv(args[1], list[len(list)-1].ID)
		},
		// member FILE KEY NAME sets $NAME to a text of a JSON object.
		"member": func(ts *testscript.TestScript, _ bool, args []string) {
			var all map[string]json.RawMessage
			var text string
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &all))
			ts.Check(json.Unmarshal(all[args[1]], &text))
			ts.Setenv(args[2], text)
		},
		// digits FILE KEY NAME sets $NAME to the first digits of the oldest
		// certificate of a key in a list of keys.
		"digits": func(ts *testscript.TestScript, _ bool, args []string) {
			var list []node.Key
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &list))
			for _, k := range list {
				if k.Name == args[1] {
					ts.Setenv(args[2], k.Certificates[0].SHA256[:16])
				}
			}
		},
		// authority NODE STATE FILE writes the certificate of a state's
		// authority, as the directory in a node's folder has it.
		"authority": func(ts *testscript.TestScript, _ bool, args []string) {
			d, err := directory.Open(context.Background(), directory.Config{
				Dir: ts.MkAbs(args[0] + "/directory"), Root: []byte(ts.ReadFile(args[0] + "/root.json")), Demonstration: true,
			}, directory.Deps{Now: time.Now})
			ts.Check(err)
			part, err := d.View().Part(union.State(args[1]))
			ts.Check(err)
			text, err := part.Authorities[0].Certificate.MarshalText()
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs(args[2]), text, 0o600))
		},
		// heard FILE waits until the nodes of a ready file have the same
		// directory: on a busy machine news may take longer than a change waits.
		"heard": func(ts *testscript.TestScript, _ bool, args []string) {
			var r up.Ready
			ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
			for range 3000 {
				versions := map[int64]bool{}
				for _, n := range r.Nodes {
					var d node.DirectoryStatus
					ts.Check(admin.Dial(n.Admin, nil).Query(context.Background(), "directory", nil, &d))
					versions[d.Version] = true
				}
				if len(versions) == 1 {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			ts.Fatalf("the nodes do not agree on a directory")
		},
		// status URL CODE fetches and wants that status.
		"status": func(ts *testscript.TestScript, _ bool, args []string) {
			resp, err := http.Get(args[0])
			ts.Check(err)
			resp.Body.Close()
			if resp.Status[:3] != args[1] {
				ts.Fatalf("%s answered %s", args[0], resp.Status)
			}
		},
	}
}

func hostOf(url string) string { return url[len("http://"):] }
