package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/falaj/falaj/internal/node/config"
)

// configFlags say where a node's configuration comes from.
type configFlags struct {
	Config string   `short:"c" type:"path" env:"FALAJ_CONFIG" placeholder:"FILE"`
	Set    []string `sep:"none" placeholder:"KEY=VALUE"`
}

func (f configFlags) load(s *session) (config.Config, error) {
	return config.Load(config.Source{File: f.Config, Env: s.Env, Set: f.Set})
}

type configCmd struct {
	Check configCheckCmd `cmd:""`
	Show  configShowCmd  `cmd:""`
	Keys  configKeysCmd  `cmd:""`
}

type configCheckCmd struct {
	configFlags
}

func (c *configCheckCmd) Run(s *session) error {
	if _, err := c.load(s); err != nil {
		return err
	}
	return s.show(map[string]bool{"valid": true}, func() { s.line(textValid) })
}

type configShowCmd struct {
	configFlags
}

func (c *configShowCmd) Run(s *session) error {
	conf, err := c.load(s)
	if err != nil {
		return err
	}
	text, err := conf.Marshal()
	if err != nil {
		return err
	}
	_, err = s.Out.Write(text)
	return err
}

type configKeysCmd struct{}

func (c *configKeysCmd) Run(s *session) error {
	type key struct {
		Key string `json:"key"`
		Env string `json:"env,omitempty"` // none for a list: it stands in the file
	}
	var keys []key
	var rows [][]string
	for _, k := range config.Keys() {
		keys = append(keys, key{k, config.Env(k)})
		rows = append(rows, []string{k, config.Env(k)})
	}
	for _, k := range config.Lists() {
		keys = append(keys, key{Key: k})
		rows = append(rows, []string{k, s.say(t("(a list: in the file alone)", "(قائمة: في الملف وحده)"))})
	}
	return s.show(keys, func() { s.table([]string{"--set", "env"}, rows) })
}

type versionCmd struct{}

// version is what the build knows of itself.
type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (c *versionCmd) Run(s *session) error {
	v := version{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version = info.Main.Version
		for _, x := range info.Settings {
			switch x.Key {
			case "vcs.revision":
				v.Revision = x.Value
			case "vcs.modified":
				v.Modified = x.Value == "true"
			}
		}
	}
	return s.show(v, func() { s.printf("falaj %s (%s, %s)\n", v.Version, v.Go, v.Platform) })
}
