package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Source is where a configuration comes from. Everything is handed in, so
// that a test reaches for neither disk nor environment.
type Source struct {
	File string                      // path of the YAML file; "" for none
	Env  func(string) (string, bool) // os.LookupEnv; nil for none
	Set  []string                    // flags: "key=value", with the keys of Keys
}

// Load reads, overlays, fills in and checks. Its errors are
// fault.ConfigInvalid and list everything that is wrong, not the first thing.
func Load(src Source) (Config, error) {
	c := defaults()
	base := ""
	if src.File != "" {
		b, err := read(src.File)
		if errors.Is(err, fs.ErrNotExist) {
			return Config{}, fault.Wrap(fault.ConfigInvalid, err, "there is no file %s", src.File)
		}
		if err != nil {
			return Config{}, fault.Wrap(fault.ConfigInvalid, err, "%v", err)
		}
		if err := decode(b, &c); err != nil {
			return Config{}, fault.New(fault.ConfigInvalid, "%s: %v", src.File, err)
		}
		base = filepath.Dir(src.File)
	}
	c.anchor(base)
	if err := c.overlay(src); err != nil {
		return Config{}, err
	}
	if src.File == "" && c.State == "" {
		return Config{}, fault.New(fault.ConfigInvalid, "no configuration file is named: --config FILE, or FALAJ_CONFIG")
	}
	if err := c.finish(base); err != nil {
		return Config{}, err
	}
	if problems := c.check(); len(problems) > 0 {
		return Config{}, fault.New(fault.ConfigInvalid, "%s", strings.Join(problems, "\n"))
	}
	return c, nil
}

// Marshal writes the configuration as YAML, secrets left out.
func (c Config) Marshal() ([]byte, error) {
	if c.Store.DSNFile != "" {
		c.Store.DSN = "" // it came from there
	}
	return yaml.MarshalWithOptions(c, yaml.IndentSequence(true))
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return b, err
}

func decode(b []byte, c *Config) error {
	err := yaml.UnmarshalWithOptions(b, c, yaml.Strict())
	if err == nil {
		return nil
	}
	// The line and the reason, without the source: the lines around an error
	// may hold a password.
	return errors.New(yaml.FormatError(err, false, false))
}

// anchor makes the file's relative paths relative to the file, so that a
// folder can be moved and a node started from anywhere.
func (c *Config) anchor(base string) {
	if base == "" {
		return
	}
	at := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(base, *p)
		}
	}
	for _, p := range []*string{&c.Data, &c.Spool, &c.Archive, &c.Keys.Folder, &c.Keys.WrapFile, &c.R1.Certificate, &c.Admin.Socket, &c.Store.DSNFile, &c.Directory.Root, &c.Directory.Rules} {
		at(p)
	}
	if !c.Store.DSN.Postgres() {
		at((*string)(&c.Store.DSN))
	}
	for i := range c.Services {
		at(&c.Services[i].Authorities)
	}
	for i := range c.Stamp.Authorities {
		at(&c.Stamp.Authorities[i].Anchor)
	}
}

// setting is one value that environment and flags can name.
type setting struct {
	key string
	set func(string) error
}

// settings is the table of what environment and flags can name: every single
// value; lists stay in the file.
func (c *Config) settings() []setting {
	return []setting{
		{"state", func(s string) error { c.State = union.State(s); return nil }},
		{"name", text(&c.Name)},
		{"data", text(&c.Data)},
		{"spool", text(&c.Spool)},
		{"archive", text(&c.Archive)},
		{"demonstration", toggle(&c.Demonstration)},
		{"keys.folder", text(&c.Keys.Folder)},
		{"keys.wrap_file", text(&c.Keys.WrapFile)},
		{"r1.http", text(&c.R1.HTTP)},
		{"r1.remote_http", toggle(&c.R1.RemoteHTTP)},
		{"r1.https", text(&c.R1.HTTPS)},
		{"r1.certificate", text(&c.R1.Certificate)},
		{"r1.key", text(&c.R1.Key)},
		{"link.listen", text(&c.Link.Listen)},
		{"link.advertise", text(&c.Link.Advertise)},
		{"admin.socket", text(&c.Admin.Socket)},
		{"admin.group", text(&c.Admin.Group)},
		{"admin.https", text(&c.Admin.HTTPS)},
		{"admin.second_person", func(s string) error { c.Admin.SecondPerson = SecondPerson(s); return nil }},
		{"admin.approval_expiry", duration(&c.Admin.Expiry)},
		{"operations.listen", text(&c.Operations.Listen)},
		{"operations.drain", duration(&c.Operations.Drain)},
		{"public.listen", text(&c.Public.Listen)},
		{"stamp.accuracy", duration(&c.Stamp.Accuracy)},
		{"stamp.renew", duration(&c.Stamp.Renew)},
		{"seal.verify", func(s string) error { c.Seal.Verify = Verify(s); return nil }},
		{"store.dsn", func(s string) error { c.Store.DSN, c.Store.DSNFile = DSN(s), ""; return nil }},
		{"store.dsn_file", func(s string) error { c.Store.DSN, c.Store.DSNFile = "", s; return nil }},
		{"directory.root", text(&c.Directory.Root)},
		{"directory.rules", text(&c.Directory.Rules)},
		{"directory.refresh", duration(&c.Directory.Refresh)},
		{"limits.headers", size(&c.Limits.Headers)},
		{"limits.body", size(&c.Limits.Body)},
		{"limits.inline", size(&c.Limits.Inline)},
		{"limits.connections", number(&c.Limits.Connections)},
		{"limits.requests", number(&c.Limits.Requests)},
		{"limits.client_requests", number(&c.Limits.ClientRequests)},
		{"limits.client_rate", func(s string) (err error) { c.Limits.ClientRate, err = strconv.ParseFloat(s, 64); return err }},
		{"limits.client_burst", number(&c.Limits.ClientBurst)},
		{"limits.header_time", duration(&c.Limits.HeaderTime)},
		{"limits.idle_time", duration(&c.Limits.IdleTime)},
		{"limits.call_time", duration(&c.Limits.CallTime)},
		{"log.level", text(&c.Log.Level)},
		{"log.format", text(&c.Log.Format)},
	}
}

func text(p *string) func(string) error { return func(s string) error { *p = s; return nil } }
func toggle(p *bool) func(string) error {
	return func(s string) (err error) { *p, err = strconv.ParseBool(s); return err }
}
func number(p *int) func(string) error {
	return func(s string) (err error) { *p, err = strconv.Atoi(s); return err }
}
func duration(p *time.Duration) func(string) error {
	return func(s string) (err error) { *p, err = time.ParseDuration(s); return err }
}
func size(p *Size) func(string) error {
	return func(s string) error { return p.UnmarshalText([]byte(s)) }
}

// Keys lists what environment and flags can name.
func Keys() []string {
	var c Config
	all := c.settings()
	keys := make([]string, len(all))
	for i, s := range all {
		keys[i] = s.key
	}
	return keys
}

// Lists are the keys that hold lists: the file alone can name them.
func Lists() []string {
	return []string{"admin.persons", "stamp.authorities", "directory.sources", "retention", "backends.allow", "clients", "services"}
}

// Env is the environment variable of a key.
func Env(key string) string {
	return "FALAJ_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

func (c *Config) overlay(src Source) error {
	all := c.settings()
	var problems []string
	apply := func(s setting, value, from string) {
		if s.set(value) != nil { // the value itself may be a secret: name only where it stands
			problems = append(problems, fmt.Sprintf("%s: cannot be read as a value of %s", from, s.key))
		}
	}
	if src.Env != nil {
		for _, s := range all {
			if v, ok := src.Env(Env(s.key)); ok {
				apply(s, v, "environment "+Env(s.key))
			}
		}
	}
next:
	for _, kv := range src.Set {
		key, value, _ := strings.Cut(kv, "=")
		for _, s := range all {
			if s.key == key {
				apply(s, value, "flag "+key)
				continue next
			}
		}
		problems = append(problems, fmt.Sprintf("flag %q: no such key; `falaj config keys` lists them", clip(key)))
	}
	if len(problems) > 0 {
		return fault.New(fault.ConfigInvalid, "%s", strings.Join(problems, "\n"))
	}
	return nil
}

// NodeName is the name of a state's node where nobody gives it one: in its
// configuration, and in the directory when the state enrols.
func NodeName(state union.State) string { return strings.ToLower(string(state)) + "1" }

// finish fills in what follows from other values.
func (c *Config) finish(base string) error {
	if c.Name == "" && c.State != "" {
		c.Name = NodeName(c.State)
	}
	if c.Data == "" {
		c.Data = filepath.Join(base, "data", string(c.State))
	}
	if c.Store.DSNFile != "" {
		if c.Store.DSN != "" {
			return fault.New(fault.ConfigInvalid, "store: dsn and dsn_file are both given; keep one")
		}
		b, err := secret(c.Store.DSNFile)
		if err != nil {
			return fault.Wrap(fault.ConfigInvalid, err, "store.dsn_file: %v", err)
		}
		c.Store.DSN = DSN(b)
	}
	fill := func(p *string, value string) {
		if *p == "" {
			*p = value
		}
	}
	fill((*string)(&c.Store.DSN), filepath.Join(c.Data, "node.db"))
	fill(&c.Spool, filepath.Join(c.Data, "spool"))
	fill(&c.Archive, filepath.Join(c.Data, "archive"))
	fill(&c.Admin.Socket, filepath.Join(c.Data, "admin.sock"))
	fill(&c.Keys.Folder, filepath.Join(c.Data, "keys"))
	fill(&c.Directory.Rules, filepath.Join(c.Data, "rules"))
	fill(&c.Directory.Root, filepath.Join(c.Data, "root.json"))
	fill(&c.Link.Advertise, c.Link.Listen)
	if c.Admin.SecondPerson == "" {
		c.Admin.SecondPerson = Required
		if c.Demonstration {
			c.Admin.SecondPerson = Waived
		}
	}
	for i := range c.Clients {
		if c.Clients[i].Mode == "" {
			c.Clients[i].Mode = HTTP
			if len(c.Clients[i].Certificates) > 0 {
				c.Clients[i].Mode = Mutual
			}
		}
	}
	return nil
}

// Wrap is the key that encrypts the key files, none where no file is named.
func (k KeyFolder) Wrap() (seal.WrapKey, error) {
	if k.WrapFile == "" {
		return seal.WrapKey{}, nil
	}
	text, err := secret(k.WrapFile)
	if err != nil {
		return seal.WrapKey{}, fault.Wrap(fault.ConfigInvalid, err, "keys.wrap_file: %v", err)
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 32 {
		return seal.WrapKey{}, fault.New(fault.ConfigInvalid, "keys.wrap_file: it does not hold 32 bytes in hexadecimal")
	}
	return seal.NewWrapKey(b)
}

// secret reads a file that only its owner (and his group) may read.
func secret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%s is open to everybody (mode %04o); close it with chmod 600", path, info.Mode().Perm())
	}
	b, err := read(path)
	return strings.TrimSpace(string(b)), err
}
