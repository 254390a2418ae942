package casework

import (
	"crypto/sha256"
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

	mu       sync.Mutex
	book     *shelf
	programs map[[32]byte]*definition.Program // by the SHA-256 of the text; nil: it cannot be compiled
}

// NewLibrary makes a library for a state over its directory.
func NewLibrary(state union.State, hooks definition.Hooks, view func() (*directory.View, error)) *Library {
	return &Library{state: state, hooks: hooks, view: view, programs: map[[32]byte]*definition.Program{}}
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
		b := &shelf{l: l, view: v, adoptions: map[union.State]*adoption.Adoption{}}
		for _, s := range v.States() {
			raw, ok := v.File(s.Code, adoption.File)
			if !ok {
				continue
			}
			// What a state says that cannot be read is as if it had adopted nothing.
			if a, err := adoption.Decode(s.Code, raw); err == nil {
				b.adoptions[s.Code] = a
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
func (l *Library) program(text []byte) *definition.Program {
	key := sha256.Sum256(text)
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.programs[key]
	if !ok {
		if d, err := definition.Read(text); err == nil {
			p, _ = definition.Compile(d, l.hooks)
		}
		l.programs[key] = p
	}
	return p
}

// shelf is the Book of one view.
type shelf struct {
	l         *Library
	view      *directory.View
	adoptions map[union.State]*adoption.Adoption
}

func (b *shelf) Program(service string, version int) (*definition.Program, bool) {
	text, ok := b.view.Definition(service, version)
	if !ok {
		return nil, false
	}
	p := b.l.program(text)
	return p, p != nil
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
			if p, ok := b.Program(d.Service, d.Version); ok {
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
