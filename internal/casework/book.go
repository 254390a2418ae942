package casework

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/falaj/falaj/internal/casework/adoption"
	"github.com/falaj/falaj/internal/casework/definition"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Library makes a Book of each version of the directory. Definitions are
// compiled when they are first asked for, and once.
type Library struct {
	state union.State
	hooks definition.Hooks
	view  func() (*directory.View, error)
	log   *slog.Logger

	mu       sync.Mutex
	book     *shelf
	programs map[[32]byte]*compiling // by the SHA-256 of the text
	told     map[[32]byte]bool       // adoptions of which it is logged that they cannot be read
}

// compiling is a definition as it is compiled: by whoever asks first, while
// those who ask for another wait for nobody.
type compiling struct {
	once    sync.Once
	program *definition.Program
	err     error
}

// NewLibrary makes a library for a state over its directory.
func NewLibrary(state union.State, hooks definition.Hooks, view func() (*directory.View, error), log *slog.Logger) *Library {
	return &Library{state: state, hooks: hooks, view: view, log: log, programs: map[[32]byte]*compiling{}, told: map[[32]byte]bool{}}
}

// Book is what the directory says now.
func (l *Library) Book() (Book, error) {
	v, err := l.view()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.book == nil || l.book.view != v {
		b := &shelf{l: l, view: v, adoptions: map[union.State]*adoption.Adoption{}, broken: map[union.State]error{}}
		for _, s := range v.States() {
			raw, ok := v.File(s.Code, adoption.File)
			if !ok {
				continue
			}
			// What a state says that cannot be read is as if it had adopted nothing.
			a, err := adoption.Decode(s.Code, raw)
			if err == nil {
				b.adoptions[s.Code] = a
				continue
			}
			b.broken[s.Code] = err
			if h := sha256.Sum256(raw); !l.told[h] {
				l.told[h] = true
				l.log.Error("what a state has adopted cannot be read", "state", s.Code, "error", err)
			}
		}
		l.book = b
	}
	return l.book, nil
}

// Adoption is what a state says of joint services now, and one of the files
// that it names there.
func (l *Library) Adoption(st union.State) (*adoption.Adoption, func(name string) ([]byte, bool), error) {
	b, err := l.Book()
	if err != nil {
		return nil, nil, err
	}
	s := b.(*shelf)
	a, ok := s.adoptions[st]
	if !ok {
		return nil, nil, fault.New(fault.CaseVersion, "%s", st)
	}
	return a, func(name string) ([]byte, bool) { return s.view.File(st, name) }, nil
}

// program compiles a text, or finds it compiled.
func (l *Library) program(name string, text []byte) (*definition.Program, error) {
	key := sha256.Sum256(text)
	l.mu.Lock()
	c, ok := l.programs[key]
	if !ok {
		c = new(compiling)
		l.programs[key] = c
	}
	l.mu.Unlock()
	c.once.Do(func() {
		d, err := definition.Read(text)
		if err == nil {
			c.program, err = definition.Compile(d, l.hooks)
		}
		if err != nil {
			l.log.Error("a joint service cannot run here", "service", name, "error", err)
			c.err = fault.New(fault.CaseVersion, "%s: this falaj cannot run it: %.300s", name, err)
		}
	})
	return c.program, c.err
}

// Problems is what keeps joint services that this state has adopted from
// running here, and adoptions that cannot be read.
func (l *Library) Problems() ([]error, error) {
	if _, err := l.Book(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	b := l.book
	l.mu.Unlock()
	var out []error
	for _, st := range slices.Sorted(maps.Keys(b.broken)) {
		out = append(out, fmt.Errorf("%s: %s: %w", st, adoption.File, b.broken[st]))
	}
	if own, ok := b.adoptions[l.state]; ok {
		for _, d := range own.Adopts {
			if _, err := b.Program(d.Service, d.Version); err != nil {
				out = append(out, err)
			}
		}
	}
	return out, nil
}

// shelf is the Book of one view.
type shelf struct {
	l         *Library
	view      *directory.View
	adoptions map[union.State]*adoption.Adoption
	broken    map[union.State]error // why others cannot be read
}

func (b *shelf) Program(service string, version int) (*definition.Program, error) {
	name := fmt.Sprintf("%.64s@%d", service, version)
	text, ok := b.view.Definition(service, version)
	if !ok {
		return nil, fault.New(fault.CaseVersion, "%s: the states have signed none", name)
	}
	return b.l.program(name, text)
}

func (b *shelf) Version(service string, peer union.State, at time.Time) (int, bool) {
	return adoption.Highest(service, b.adoptions[b.l.state], b.adoptions[peer], at)
}

func (b *shelf) Opens(service string, version int, peer union.State, at time.Time) bool {
	own, ok := b.adoptions[b.l.state]
	other, ok2 := b.adoptions[peer]
	return ok && ok2 && own.Opens(service, version, at) && other.Opens(service, version, at)
}

func (b *shelf) Speaks(sub union.SubsystemID, service string, version int, role string) bool {
	return b.adoptions[b.l.state].Speaks(sub, service, version, role)
}

func (b *shelf) System(st union.State) (union.SubsystemID, bool) {
	a, ok := b.adoptions[st]
	if !ok {
		return union.SubsystemID{}, false
	}
	return a.System, true
}

func (b *shelf) Peers() map[union.State]string {
	out := map[union.State]string{}
	own, ok := b.adoptions[b.l.state]
	if !ok {
		return out
	}
	for st, a := range b.adoptions {
		for _, d := range own.Adopts {
			if _, both := a.Adopted(d.Service, d.Version); !both || st == b.l.state || out[st] != "" {
				continue
			}
			if p, err := b.Program(d.Service, d.Version); err == nil {
				out[st] = p.Definition().Purpose
			}
		}
	}
	return out
}

func (b *shelf) Register(service string, version int, name string) (union.ServiceID, bool) {
	return b.adoptions[b.l.state].Register(service, version, name)
}

func (b *shelf) Zone() *time.Location {
	if a, ok := b.adoptions[b.l.state]; ok {
		return a.Location()
	}
	return time.UTC
}
