package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/witness"
)

// SecretariatConfig describes the union's secretariat: it keeps a copy of the
// directory, gives it to whoever asks, and signs snapshots as the second
// party. It can publish; it can neither forge nor read.
type SecretariatConfig struct {
	Data          string // folder with keys (online), directory and, unless Root says otherwise, root.json
	Root          string // the union's pinned root
	Listen        string
	Demonstration bool
}

// Secretariat is a running secretariat.
type Secretariat struct {
	directory *directory.Directory
	db        *store.DB
	witness   *witness.Witness
	alarms    *witness.Promises // hears, and holds nobody
	client    *http.Client      // of the witness
	listener  net.Listener
	server    *http.Server
	lock      *os.File
}

// NewSecretariat opens the secretariat. Nothing is answered before Run.
func NewSecretariat(ctx context.Context, cfg SecretariatConfig, deps Deps) (_ *Secretariat, err error) {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Root == "" {
		cfg.Root = filepath.Join(cfg.Data, "root.json")
	}
	s := &Secretariat{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	if s.lock, err = lockFolder(cfg.Data); err != nil {
		return nil, err
	}
	root, err := os.ReadFile(cfg.Root)
	if err != nil {
		return nil, fault.Wrap(fault.ConfigInvalid, err, "the union's pinned root cannot be read from %s; falaj directory publish writes it out of the draft that founds the union", cfg.Root)
	}
	keys, err := seal.OpenKeys(filepath.Join(cfg.Data, "keys"), seal.KeyConfig{Demonstration: cfg.Demonstration})
	if err != nil {
		return nil, fmt.Errorf("opening the secretariat's key folder: %w", err)
	}
	s.directory, err = directory.Open(ctx, directory.Config{
		Dir: filepath.Join(cfg.Data, "directory"), Root: root, Demonstration: cfg.Demonstration,
	}, directory.Deps{Now: deps.Now, Log: deps.Log, Keys: keys})
	if err != nil {
		return nil, fmt.Errorf("opening the secretariat's directory: %w", err)
	}
	if keys.Has(directory.WitnessKey) {
		if err := s.openWitness(ctx, cfg, deps, keys); err != nil {
			return nil, err
		}
	}
	l, err := deps.listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, listenFault(err, "the secretariat's door", cfg.Listen)
	}
	s.listener = operation.Bound(l, operation.Connections(operation.Descriptors(), deps.Doors, 1024))
	s.server = operation.Server(s.handler(deps), 16<<10, 10*time.Second, time.Minute, time.Minute)
	s.server.ReadTimeout = time.Minute
	return s, nil
}

// Address is where it answers.
func (s *Secretariat) Address() string { return "http://" + s.listener.Addr().String() }

// Directory is its copy.
func (s *Secretariat) Directory() *directory.Directory { return s.directory }

// Run serves until ctx ends.
func (s *Secretariat) Run(ctx context.Context) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	var unlocking sync.WaitGroup
	if s.witness != nil {
		unlocking.Go(func() { _ = s.witness.Unlock(working) })
	}
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(s.listener) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		s.server.Shutdown(within)
		err = <-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	stop()
	unlocking.Wait()
	s.Close()
	return err
}

// Close gives everything back. It is called by Run, or instead of it.
func (s *Secretariat) Close() {
	if s.listener != nil {
		s.listener.Close()
	}
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	if s.db != nil {
		_ = s.db.Close()
		s.db = nil
	}
	if s.lock != nil {
		s.lock.Close()
		s.lock = nil
	}
}
