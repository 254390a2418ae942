package cli

import (
	"fmt"
	"time"

	"github.com/falaj/falaj/internal/bench"
	"github.com/falaj/falaj/internal/union"
)

type benchCmd struct {
	Exchange benchExchangeCmd `cmd:""`
	Verify   benchVerifyCmd   `cmd:""`
	Log      benchLogCmd      `cmd:""`
	Casework benchCaseworkCmd `cmd:""`
}

type benchExchangeCmd struct {
	Duration    time.Duration `default:"1s"`
	Rounds      int           `default:"5"`
	Concurrency int           `default:"64"`
	Size        int           `default:"1024"`
	Seal        string        `default:"single" enum:"single,batch"`
	Verify      string        `default:"standard" enum:"standard,table"`
	Data        string        `type:"path" placeholder:"DIR"`
}

// Run measures two nodes beside a stock proxy.
func (c *benchExchangeCmd) Run(s *session) error {
	r, err := bench.Exchange(s.ctx, bench.Config{
		Duration: c.Duration, Rounds: c.Rounds, Concurrency: c.Concurrency, Size: c.Size, Batch: c.Seal == "batch", Verify: c.Verify, Dir: c.Data,
	})
	if err != nil {
		return err
	}
	if err := s.show(r, func() { s.measured(r) }); err != nil {
		return err
	}
	if r.Errors > 0 {
		return errExit(ExitFailed)
	}
	return nil
}

type benchVerifyCmd struct {
	Containers int    `default:"500"`
	Rounds     int    `default:"5"`
	Size       int    `default:"1024"`
	Data       string `type:"path" placeholder:"DIR"`
}

// Run measures how fast evidence is checked, on one processor.
func (c *benchVerifyCmd) Run(s *session) error {
	r, err := bench.Verify(s.ctx, bench.VerifyConfig{Containers: c.Containers, Rounds: c.Rounds, Size: c.Size, Dir: c.Data})
	if err != nil {
		return err
	}
	return s.show(r, func() {
		s.machine(r.Machine)
		s.printf(s.say(t("Rounds: %d; containers: %d of %.1f KiB, in them %d messages (a request or an answer, with its seal) and %d receipts\n\n",
			"الجولات: %d؛ الحاويات: %d، حجم كل منها %.1f KiB، وفيها %d رسالة (طلب أو رد مع ختمه) و%d إيصالاً\n\n")),
			r.Rounds, r.Containers, float64(r.Bytes)/1024/float64(r.Containers), r.Messages, r.Receipts)
		s.printf(s.say(t("%.0f messages a second on one processor (%.0f – %.0f); %.0f µs of CPU and %.0f allocations each\n",
			"%.0f رسالة في الثانية على معالج واحد (%.0f – %.0f)؛ لكل منها %.0f µs من زمن المعالج و%.0f تخصيصاً للذاكرة\n")),
			r.PerSecond, r.Spread.Least, r.Spread.Greatest, r.CPUMicros, r.Objects)
		s.printf(s.say(t("One P-256 verification takes %.0f µs here, one Ed25519 verification %.0f µs: each message takes one P-256.\n",
			"يستغرق تحقق P-256 هنا %.0f µs وتحقق Ed25519 %.0f µs، ولكل رسالة تحقق P-256 واحد.\n")), r.P256Micros, r.Ed25519Micros)
	})
}

type benchLogCmd struct {
	Duration    time.Duration `default:"5s"`
	Concurrency int           `default:"1024"`
	Size        int           `default:"1024"`
	Data        string        `type:"path" placeholder:"DIR"`
}

// Run measures how fast records become durable in a log, and are cosigned.
func (c *benchLogCmd) Run(s *session) error {
	r, err := bench.Log(s.ctx, bench.LogConfig{Duration: c.Duration, Concurrency: c.Concurrency, Size: c.Size, Dir: c.Data})
	if err != nil {
		return err
	}
	return s.show(r, func() {
		s.machine(r.Machine)
		s.printf(s.say(t("%.3g s; records at a time: %d, each with a message of %d bytes\n\n", "%.3g ث؛ القيود في آن واحد: %d، في كل منها رسالة حجمها %d بايت\n\n")), r.Seconds, r.Concurrency, r.Size)
		s.printf(s.say(t("%.0f leaves a second, durable; %.0f in each commit; %.0f µs of CPU each; append p50 %.2f ms, p99 %.2f ms\n",
			"%.0f ورقة في الثانية محفوظة على القرص؛ %.0f في كل عملية تثبيت؛ %.0f µs من زمن المعالج لكل منها؛ الإلحاق p50 %.2f ms وp99 %.2f ms\n")),
			r.PerSecond, r.PerCommit, r.CPUMicros, r.P50Micros/1000, r.P99Micros/1000)
		s.printf(s.say(t("%d receipts, cosigned by another state's witness and verified, from before the append: p50 %.0f ms, p99 %.0f ms\n",
			"%d إيصالاً وقّعها شاهد دولة أخرى وتُحقق منها، منذ ما قبل الإلحاق: p50 %.0f ms وp99 %.0f ms\n")), r.Receipts, r.ReceiptP50Milli, r.ReceiptP99Milli)
		s.printf(s.say(t("In the database a leaf takes %.0f bytes beside its message.\n", "تشغل الورقة في قاعدة البيانات %.0f بايت إلى جانب رسالتها.\n")), r.Extra)
		s.printf(s.say(t("Without a log: %.0f waits for the disk a second; rows of a commit's size: %.0f a second, which is %.0f leaves\n",
			"دون سجل: %.0f انتظاراً للقرص في الثانية؛ صفوف بحجم عملية التثبيت: %.0f في الثانية، أي %.0f ورقة\n")), r.SyncsPerSecond, r.RawCommits, r.RawPerSecond)
	})
}

type benchCaseworkCmd struct {
	Duration    time.Duration `default:"5s"`
	Concurrency int           `default:"64"`
	States      int           `default:"7"`
	Data        string        `type:"path" placeholder:"DIR"`
}

// Run measures how many steps a second the cases of a whole union take.
func (c *benchCaseworkCmd) Run(s *session) error {
	r, err := bench.Casework(s.ctx, bench.CaseworkConfig{Duration: c.Duration, Concurrency: c.Concurrency, States: c.States, Dir: c.Data})
	if err != nil {
		return err
	}
	return s.show(r, func() {
		s.machine(r.Machine)
		s.printf(s.say(t("%d states in one process; cases at work at a time: %d; %.3g s a phase\n\n", "%d دول في عملية واحدة؛ المعاملات العاملة في آن واحد: %d؛ %.3g ث لكل مرحلة\n\n")), r.States, r.Concurrency, r.Seconds)
		line := func(what union.Text, x bench.Transition) {
			s.printf(s.say(t("%s: %.0f a second over all states, durable (%d in %.1f s); %.0f µs of CPU each; the act p50 %.1f ms, p99 %.1f ms\n",
				"%s: %.0f في الثانية في جميع الدول، محفوظة على القرص (%d خلال %.1f ث)؛ %.0f µs من زمن المعالج لكل منها؛ الإجراء p50 %.1f ms وp99 %.1f ms\n")),
				s.say(what), x.PerSecond, x.Acts, x.Seconds, x.CPUMicros, x.P50Millis, x.P99Millis)
		}
		line(t("Steps within a state", "خطوات داخل الدولة"), r.Kept)
		line(t("Steps that the other state heard", "خطوات سمعتها الدولة الأخرى"), r.Told)
		s.printf(s.say(t("Waits for the disk, one after the other: %.0f a second\n", "انتظار القرص على التوالي: %.0f في الثانية\n")), r.SyncsPerSecond)
	})
}

// machine says what was measured on.
func (s *session) machine(m bench.Machine) {
	fips := ""
	if m.FIPS {
		fips = ", FIPS 140"
	}
	s.printf("%s, %s, %d CPU, GOMAXPROCS %d%s, fdatasync 4 KiB %.0f µs\n", m.Go, m.System, m.CPUs, m.GOMAXPROCS, fips, m.SyncMicros)
}

func (s *session) measured(r *bench.Report) {
	s.machine(r.Machine)
	s.printf(s.say(t("Alternating rounds: %d of %.3g s; connections: %d; bytes each way: %d; medians\n\n",
		"الجولات المتناوبة: %d، مدة كل منها %.3g ث؛ الاتصالات: %d؛ البايتات في كل اتجاه: %d؛ القيم وسيطة\n\n")),
		r.Rounds, r.RoundSeconds, r.Connections, r.Size)

	var rows [][]string
	for _, v := range r.Variants {
		rows = append(rows, []string{
			v.Name, fmt.Sprintf("%.0f", v.PerSecond), fmt.Sprintf("%.0f", v.CPUMicros),
			fmt.Sprintf("%.2f", v.P50Micros/1000), fmt.Sprintf("%.2f", v.P99Micros/1000),
			fmt.Sprintf("%.0f", v.Objects), fmt.Sprintf("%.1f", v.Bytes/1024), fmt.Sprint(v.Errors),
		})
	}
	s.table([]string{
		"", s.say(t("requests/s", "طلب/ث")), s.say(t("CPU µs", "زمن المعالج µs")), "p50 ms", "p99 ms",
		s.say(t("allocations", "تخصيصات الذاكرة")), "KiB", s.say(t("errors", "أخطاء")),
	}, rows)

	s.printf("\nfalaj / stock         %.2f (%.2f – %.2f)\n", r.Ratio, r.RatioSpread.Least, r.RatioSpread.Greatest)
	s.printf("falaj / stock-pooled  %.2f (%.2f – %.2f)\n\n", r.RatioPooled, r.PooledSpread.Least, r.PooledSpread.Greatest)
	verdict := t("within the budget", "ضمن الحد")
	if !r.Single.Within {
		verdict = t("over the budget", "فوق الحد")
	}
	s.printf(s.say(t("One connection: p50 %.2f ms, stock %.2f ms; %.2f ms added, %s of %.2f ms (4 fdatasync + 1 ms)\n",
		"اتصال واحد: p50 %.2f ms مقابل %.2f ms لـ stock؛ الزيادة %.2f ms، %s البالغ %.2f ms (4 fdatasync + 1 ms)\n")),
		r.Single.FalajP50Micros/1000, r.Single.StockP50Micros/1000, r.Single.AddedMicros/1000, s.say(verdict), r.Single.BudgetMicros/1000)
	s.line(t("CPU time and allocations are those of the whole process for one exchange: client, both hops, backend.",
		"زمن المعالج وتخصيصات الذاكرة للعملية كلها في التبادل الواحد: العميل والعقدتان والنظام الخلفي."))
	s.printf(s.say(t("At most %.0f MiB were resident.\n", "أقصى ذاكرة مقيمة: %.0f MiB.\n")), r.Machine.PeakMiB)
	if r.Errors > 0 {
		s.printf("%s %d (%s)\n", s.say(t("Exchanges that failed:", "تبادلات أخفقت:")), r.Errors, r.FirstError)
	}
}
