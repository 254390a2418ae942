package bench

import (
	"cmp"
	"slices"
	"time"
)

// Report is what a run measured. Its JSON names are a contract.
type Report struct {
	Machine      Machine   `json:"machine"`
	Rounds       int       `json:"rounds"`
	RoundSeconds float64   `json:"round_seconds"`
	Connections  int       `json:"connections"`
	Size         int       `json:"size"` // bytes each way
	Variants     []Summary `json:"variants"`
	Ratio        float64   `json:"ratio"`        // falaj's requests per second over stock's: median of the rounds
	RatioSpread  Spread    `json:"ratio_spread"` // least and greatest of the rounds
	RatioPooled  float64   `json:"ratio_pooled"` // the same over stock-pooled's
	PooledSpread Spread    `json:"ratio_pooled_spread"`
	Single       Single    `json:"single"`
	Errors       int       `json:"errors"` // of all rounds of all variants, warm-up included; anything but 0 makes the run worthless
	FirstError   string    `json:"first_error,omitempty"`
}

// Summary is one variant at the configured connections: medians of its rounds.
// CPU and allocations are the whole process's for one exchange: client,
// proxies or nodes, backend.
type Summary struct {
	Name      string  `json:"name"`
	Requests  int     `json:"requests"` // measured in all rounds
	PerSecond float64 `json:"requests_per_second"`
	CPUMicros float64 `json:"cpu_us"`
	P50Micros float64 `json:"p50_us"`
	P99Micros float64 `json:"p99_us"`
	Objects   float64 `json:"allocations"`
	Bytes     float64 `json:"allocated_bytes"`
	Errors    int     `json:"errors"`
}

// Single is one connection: what the evidence adds to one call's time, held
// against four waits for the disk and a millisecond.
type Single struct {
	StockP50Micros float64 `json:"stock_p50_us"`
	FalajP50Micros float64 `json:"falaj_p50_us"`
	FalajP99Micros float64 `json:"falaj_p99_us"`
	AddedMicros    float64 `json:"added_p50_us"` // median of the rounds' differences
	AddedSpread    Spread  `json:"added_spread_us"`
	BudgetMicros   float64 `json:"budget_us"`
	Within         bool    `json:"within_budget"`
}

// Spread is the least and the greatest of the rounds.
type Spread struct {
	Least    float64 `json:"least"`
	Greatest float64 `json:"greatest"`
}

func summarise(cfg Config, m Machine, many, one map[string][]round) *Report {
	r := &Report{
		Machine: m, Rounds: cfg.Rounds, RoundSeconds: cfg.Duration.Seconds(),
		Connections: cfg.Concurrency, Size: cfg.Size,
	}
	for _, name := range []string{stockName, pooledName, falajName} {
		s := summary(name, many[name])
		r.Variants = append(r.Variants, s)
		r.Errors += s.Errors + summary(name, one[name]).Errors
		for _, x := range slices.Concat(many[name], one[name]) {
			if x.first != nil && r.FirstError == "" {
				r.FirstError = name + ": " + x.first.Error()
			}
		}
	}
	r.Ratio, r.RatioSpread = compare(many[falajName], many[stockName], quotient)
	r.RatioPooled, r.PooledSpread = compare(many[falajName], many[pooledName], quotient)

	falaj := summary(falajName, one[falajName])
	added, spread := compare(one[falajName], one[stockName], func(a, b round) float64 { return micros(a.p50 - b.p50) })
	budget := 4*m.SyncMicros + 1000
	r.Single = Single{
		StockP50Micros: summary(stockName, one[stockName]).P50Micros,
		FalajP50Micros: falaj.P50Micros, FalajP99Micros: falaj.P99Micros,
		AddedMicros: added, AddedSpread: spread, BudgetMicros: budget, Within: added <= budget,
	}
	return r
}

func summary(name string, rounds []round) Summary {
	s := Summary{Name: name}
	per := func(f func(round) float64) float64 {
		m, _ := middle(rounds, f)
		return m
	}
	for _, r := range rounds {
		s.Requests += r.requests
		s.Errors += r.errors
	}
	s.PerSecond = per(round.perSecond)
	s.CPUMicros = per(func(r round) float64 { return micros(r.cpu) / r.count() })
	s.P50Micros = per(func(r round) float64 { return micros(r.p50) })
	s.P99Micros = per(func(r round) float64 { return micros(r.p99) })
	s.Objects = per(func(r round) float64 { return float64(r.objects) / r.count() })
	s.Bytes = per(func(r round) float64 { return float64(r.bytes) / r.count() })
	return s
}

// count is the requests of a round that had failures alone, too.
func (r round) count() float64 { return float64(max(1, r.requests)) }

func (r round) perSecond() float64 { return float64(r.requests) / max(r.elapsed.Seconds(), 1e-9) }

func quotient(a, b round) float64 { return a.perSecond() / max(b.perSecond(), 1e-9) }

// compare takes the rounds of two variants in pairs: what disturbs the machine
// for a while disturbs both of a pair.
func compare(a, b []round, f func(a, b round) float64) (float64, Spread) {
	pairs := make([][2]round, min(len(a), len(b)))
	for i := range pairs {
		pairs[i] = [2]round{a[i], b[i]}
	}
	return middle(pairs, func(p [2]round) float64 { return f(p[0], p[1]) })
}

// middle gives the median, and the least and the greatest beside it.
func middle[T any](of []T, f func(T) float64) (float64, Spread) {
	if len(of) == 0 {
		return 0, Spread{}
	}
	v := make([]float64, len(of))
	for i, x := range of {
		v[i] = f(x)
	}
	slices.SortFunc(v, cmp.Compare[float64])
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2, Spread{v[0], v[n-1]}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
