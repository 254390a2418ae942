package cli

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/registry"
	"github.com/falaj/falaj/internal/union"
)

type nodeCmd struct {
	configFlags
}

// Run runs one state's node until the process is told to end.
func (c *nodeCmd) Run(s *session) error {
	cfg, err := c.load(s)
	if err != nil {
		return err
	}
	defer operation.Memory()()
	n, err := node.New(s.ctx, cfg, node.Deps{Log: operation.Logger(s.Err, cfg.Log.Format, cfg.Log.Level)})
	if err != nil {
		return err
	}
	return n.Run(s.ctx)
}

type secretariatCmd struct {
	Data          string `type:"path" required:"" placeholder:"DIR"`
	Listen        string `required:"" placeholder:"HOST:PORT"`
	Root          string `type:"path" placeholder:"FILE"`
	Demonstration bool
	LogLevel      string `enum:"debug,info,warn,error" default:"info"`
}

// Run runs the union's secretariat until the process is told to end.
func (c *secretariatCmd) Run(s *session) error {
	log := operation.Logger(s.Err, "text", c.LogLevel)
	x, err := node.NewSecretariat(s.ctx, node.SecretariatConfig{
		Data: c.Data, Root: c.Root, Listen: c.Listen, Demonstration: c.Demonstration,
	}, node.Deps{Log: log})
	if err != nil {
		return err
	}
	log.Info("the secretariat serves", "address", x.Address())
	defer log.Info("the secretariat stopped")
	return x.Run(s.ctx)
}

type registryCmd struct {
	Country string `arg:"" name:"country"`
	Kind    string `enum:"all,persons,vehicles,companies" default:"all"`
	Listen  string `default:"127.0.0.1:8090" placeholder:"HOST:PORT"`
	Seed    uint64 `default:"1"`
}

// Run serves one state's simulated registers.
func (c *registryCmd) Run(s *session) error {
	st, err := union.ParseState(strings.ToUpper(c.Country))
	if err != nil {
		return fault.New(fault.Usage, "%v", err)
	}
	r, err := registry.New(st, c.Seed)
	if err != nil {
		return fault.New(fault.Usage, "%v", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(s.ctx, "tcp", c.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fault.Wrap(fault.PortTaken, err, "--listen: %s", c.Listen)
	}
	if err != nil {
		return fault.New(fault.Usage, "--listen: %v", err)
	}
	s.printf("%s http://%s (%s)\n", s.say(t("Simulated registers at", "سجلات محاكاة على")), l.Addr(), st)
	for _, k := range registry.Kinds() {
		if c.Kind == "all" || c.Kind == string(k) {
			for _, p := range r.Samples(k, 1) {
				s.printf("  http://%s%s\n", l.Addr(), p)
			}
		}
	}
	srv := operation.Server(r.Handler(registry.Kind(c.Kind)), 64<<10, 10*time.Second, time.Minute, time.Minute)
	go func() {
		<-s.ctx.Done()
		srv.Close()
	}()
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

type backupCmd struct {
	Folder      string `arg:"" type:"path"`
	WithoutKeys bool
}

// Run asks the running node for a copy of itself.
func (c *backupCmd) Run(s *session) error {
	n, err := s.node("")
	if err != nil {
		return err
	}
	folder, err := filepath.Abs(c.Folder)
	if err != nil {
		return err
	}
	return s.changed(n, "backup", node.Backup{Folder: folder, Keys: !c.WithoutKeys}, nil, func() {
		s.printf("%s %s\n", s.say(t("A copy of the node is in", "نسخة العقدة محفوظة في")), folder)
		if !c.WithoutKeys {
			s.line(t("It holds the private keys: keep it as secret as the node, and no longer than the shortest retention.",
				"تحوي النسخة المفاتيح الخاصة: احفظها بسرية العقدة نفسها، ولا تُبقها أطول من أقصر مدة حفظ."))
		}
	})
}

type restoreCmd struct {
	Folder string `arg:"" type:"path"`
	configFlags
}

// Run restores a copy into the empty place of a node that does not run.
func (c *restoreCmd) Run(s *session) error {
	cfg, err := c.load(s)
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.Folder); err != nil {
		return fault.New(fault.Usage, "%v", err)
	}
	if err := node.Restore(cfg, c.Folder); err != nil {
		return err
	}
	return s.show(map[string]string{"restored": cfg.Data}, func() {
		s.printf("%s %s\n", s.say(t("Restored into", "استُعيدت النسخة إلى")), cfg.Data)
		s.line(t("Before you go on: falaj fsck --config FILE; after the start, unless the copy is the node's last state: falaj log renew. Others have seen a longer log, and it signs nothing before.",
			"قبل المتابعة: falaj fsck --config FILE، وبعد التشغيل، ما لم تكن النسخة آخر حال للعقدة: falaj log renew؛ فقد رأى الآخرون سجلاً أطول، ولن توقّع العقدة شيئاً قبل ذلك."))
		s.line(t("What happened after the copy was made is not in it: compare with the other states' evidence (falaj evidence show).",
			"ما حدث بعد أخذ النسخة غير موجود فيها، فقارنها بأدلة الدول الأخرى (falaj evidence show)."))
	})
}
