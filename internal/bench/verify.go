package bench

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/operation"
	"github.com/falaj/falaj/verify"
)

// VerifyConfig says how much evidence to check. The zero value checks 500
// containers with bodies of 1 KiB in five rounds.
type VerifyConfig struct {
	Containers int    // one call each; at most 100,000
	Rounds     int    // at most 100
	Size       int    // bytes of a request's body and of its answer's; at most 1 MiB
	Dir        string // where the union and the containers lie; default a temporary folder, removed after
}

// VerifyReport is what a run measured. Its JSON names are a contract.
type VerifyReport struct {
	Machine    Machine `json:"machine"`
	Rounds     int     `json:"rounds"`
	Size       int     `json:"size"`       // bytes each way
	Containers int     `json:"containers"` // each is one call
	Messages   int     `json:"messages"`   // in them: a request or an answer, with its seal
	Receipts   int     `json:"receipts"`   // in them: of a record, by log and witnesses
	Bytes      int64   `json:"bytes"`      // of all containers
	// Medians of the rounds, on one processor.
	PerSecond float64 `json:"messages_per_second"`
	Spread    Spread  `json:"messages_per_second_spread"`
	CPUMicros float64 `json:"cpu_us"` // of one message
	Objects   float64 `json:"allocations"`
	// What cryptography alone takes: the CPU time of one P-256 and one Ed25519
	// verification.
	P256Micros    float64 `json:"p256_us"`
	Ed25519Micros float64 `json:"ed25519_us"`
}

// Verify measures how many messages a second are checked from a folder of
// containers on one processor. The containers are those of calls that two nodes
// have just carried, with the receipts of their logs; each round reads all files
// and begins with a verifier that knows nothing but the union's root. A
// container that does not hold fails the run.
func Verify(ctx context.Context, cfg VerifyConfig) (_ *VerifyReport, err error) {
	set(&cfg.Containers, 500)
	set(&cfg.Rounds, 5)
	set(&cfg.Size, 1024)
	switch {
	case cfg.Containers < 1 || cfg.Containers > 100_000:
		return nil, fault.New(fault.Usage, "%d containers; 1 to 100000", cfg.Containers)
	case cfg.Rounds < 1 || cfg.Rounds > maxRounds:
		return nil, fault.New(fault.Usage, "%d rounds; 1 to %d", cfg.Rounds, maxRounds)
	case cfg.Size < minSize || cfg.Size > maxSize:
		return nil, fault.New(fault.Usage, "bodies of %d bytes; %d to %d", cfg.Size, minSize, maxSize)
	}
	dir, err := os.MkdirTemp(cfg.Dir, "falaj-bench-")
	if err != nil {
		return nil, fmt.Errorf("bench: make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	folder := filepath.Join(dir, "containers")
	root, err := makeContainers(ctx, cfg, filepath.Join(dir, "union"), folder)
	if err != nil {
		return nil, fmt.Errorf("bench: make containers: %w", err)
	}
	syncs, err := measureSync(dir)
	if err != nil {
		return nil, fmt.Errorf("bench: measure the disk: %w", err)
	}
	out := &VerifyReport{Rounds: cfg.Rounds, Size: cfg.Size, Containers: cfg.Containers}
	defer operation.Memory()() // as the command does
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	out.P256Micros, out.Ed25519Micros = signatureCosts()
	var rates, cpu, objects []float64
	for range cfg.Rounds {
		runtime.GC()
		out.Messages, out.Receipts, out.Bytes = 0, 0, 0
		before, start := usage(), time.Now()
		if err := out.round(ctx, root, folder); err != nil {
			return nil, err
		}
		elapsed, after := time.Since(start), usage()
		n := float64(out.Messages)
		rates = append(rates, n/elapsed.Seconds())
		cpu = append(cpu, micros(after.cpu-before.cpu)/n)
		objects = append(objects, float64(after.objects-before.objects)/n)
	}
	out.PerSecond, out.Spread = median(rates), Spread{slices.Min(rates), slices.Max(rates)}
	out.CPUMicros, out.Objects = median(cpu), median(objects)
	out.Machine = machine(syncs)
	return out, nil
}

func set[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// round checks every container of the folder.
func (out *VerifyReport) round(ctx context.Context, root []byte, folder string) error {
	v, err := verify.New(root)
	if err != nil {
		return err
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := out.container(v, filepath.Join(folder, e.Name())); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}

func (out *VerifyReport) container(v *verify.Verifier, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	r := v.Container(f, st.Size())
	if r.Verdict != verify.Holds {
		return fmt.Errorf("it does not hold: %+v", r.Checks)
	}
	out.Bytes += st.Size()
	for _, c := range r.Checks {
		switch {
		case c.Result != verify.Passed:
		case strings.HasSuffix(c.What, "the seal is right"):
			out.Messages++
		case strings.Contains(c.What, "it stands in that state's log"):
			out.Receipts++
		}
	}
	return nil
}

// makeContainers lets two nodes carry calls, and exports each at the caller's.
func makeContainers(ctx context.Context, cfg VerifyConfig, dir, folder string) (root []byte, err error) {
	for _, d := range []string{dir, folder} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	backend, err := serveEcho()
	if err != nil {
		return nil, fmt.Errorf("start the backend: %w", err)
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	t, err := twoNodes(ctx, World{Backend: backend.URL, Dir: dir, Concurrency: 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	name := func(i int) string { return fmt.Sprintf("bench-%06d", i) }
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for i := range cfg.Containers {
		body := fmt.Sprintf("%0*d", cfg.Size, i)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header = t.Header.Clone()
		req.Header.Set("X-Road-Id", name(i))
		if i == cfg.Containers-1 {
			req.Header.Set("Falaj-Receipt", "wait") // by then the others have theirs
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		got, err := io.ReadAll(io.LimitReader(resp.Body, maxSize+1))
		_ = resp.Body.Close()
		if err != nil || string(got) != body {
			return nil, fmt.Errorf("call %d: %s: %w", i, resp.Status, errors.Join(err, errors.New("another answer")))
		}
	}
	counter := admin.Dial(t.caller.Admin, nil)
	for i := range cfg.Containers {
		var b bytes.Buffer
		if err := counter.Save(ctx, "container", url.Values{"id": {name(i)}}, &b, func(int64, int64) {}); err != nil {
			return nil, fmt.Errorf("export %d: %w", i, err)
		}
		if err := os.WriteFile(filepath.Join(folder, name(i)+".asice"), b.Bytes(), 0o600); err != nil {
			return nil, err
		}
	}
	return os.ReadFile(filepath.Join(dir, string(t.caller.State), "root.json"))
}

// signatureCosts measures one verification of each kind of signature.
func signatureCosts() (p256, ed float64) {
	digest := sha256.Sum256(nil)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // the system has random bytes
	}
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		panic(err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	note := make([]byte, 128)
	signature := ed25519.Sign(private, note)
	each := func(fn func() bool) float64 {
		var took []float64
		for range 7 {
			start := usage().cpu // others may have the processor in between
			for range 50 {
				if !fn() {
					panic("a good signature does not verify")
				}
			}
			took = append(took, micros(usage().cpu-start)/50)
		}
		return median(took)
	}
	return each(func() bool { return ecdsa.VerifyASN1(&key.PublicKey, digest[:], sig) }),
		each(func() bool { return ed25519.Verify(public, note, signature) })
}
