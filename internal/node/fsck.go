package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/falaj/falaj/internal/casework"
	"github.com/falaj/falaj/internal/directory"
	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/journal"
	"github.com/falaj/falaj/internal/ledger"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/store"
	"github.com/falaj/falaj/internal/union"
	"github.com/falaj/falaj/internal/witness"
)

// Checked is what fsck found.
type Checked struct {
	OK    bool        `json:"ok"` // nothing is wrong; what could not be checked stands in gaps
	State union.State `json:"state"`
	Node  string      `json:"node"`
	Size  int64       `json:"log_size"`
	Root  string      `json:"log_root"` // as computed from the records

	Records     int64 `json:"records"` // read and held against their leaves
	Erased      int64 `json:"erased"`  // erased or ended: only their leaves are left
	Checkpoints int   `json:"checkpoints"`
	Bodies      int64 `json:"bodies"`
	BodyBytes   int64 `json:"body_bytes"`
	Claims      int64 `json:"claims"`
	Deliveries  int64 `json:"deliveries"`
	Cases       int64 `json:"cases"` // each step taken again

	Witnesses []union.State `json:"witnesses"` // whose newest head of this log was held against it
	Flaws     []Flaw        `json:"flaws"`
	Omitted   int64         `json:"flaws_omitted,omitempty"`
	Gaps      []Gap         `json:"gaps"`
	Notes     []union.Text  `json:"notes,omitempty"`
}

// Flaw is one stored value that is not what was written.
type Flaw struct {
	Place  string     `json:"place"`
	Name   string     `json:"name"` // which of its kind
	What   union.Text `json:"what"`
	Do     union.Text `json:"do"`
	Detail string     `json:"detail"`
}

// Gap is what could not be checked and should be.
type Gap struct {
	What   union.Text `json:"what"`
	Detail string     `json:"detail"`
}

// placeLog is the log as others have seen it, placeCase a half of a case,
// placeLedger the books of what the joint services take and owe.
const (
	placeLog    = "history"
	placeCase   = "case"
	placeLedger = "ledger"
)

// placeText says what a place is, and what a person does about a flaw in it.
func placeText(place string) (what, do union.Text) {
	record := t("Compare it with the other state's evidence (falaj evidence show) and with a backup; keep the database as it is until it is known who changed it.",
		"قارنه بأدلة الدولة الأخرى (falaj evidence show) وبنسخة احتياطية، وأبقِ قاعدة البيانات كما هي حتى يُعرف من غيّرها.")
	derived := t("It can be computed anew from the records: restore the database from a backup, and find out how it came to be changed.",
		"يمكن حسابه من جديد من القيود: استعد قاعدة البيانات من نسخة احتياطية وابحث عن سبب تغيّره.")
	switch place {
	case string(journal.PartRecord):
		return t("A record is not what was written, or cannot be read.", "قيد ليس ما كُتب أو تتعذر قراءته."), record
	case string(journal.PartLeaf):
		return t("A leaf is not its record's.", "ورقة لا تخص قيدها."), derived
	case string(journal.PartKey):
		return t("What finds a record is not its own.", "ما يُعثر به على قيد ليس له."), derived
	case string(journal.PartCommit):
		return t("Records are missing, or out of place.", "قيود مفقودة أو في غير موضعها."), record
	case string(journal.PartTile):
		return t("A hash of the log does not follow from its leaves.", "بصمة في سجل الشفافية لا تنتج عن أوراقه."), derived
	case string(journal.PartHead):
		return t("The log's head does not follow from its leaves.", "رأس سجل الشفافية لا ينتج عن أوراقه."), derived
	case string(journal.PartArchive):
		return t("A file of the archive is not what was signed, or belongs to nothing.", "ملف في الأرشيف ليس ما وُقّع عليه أو لا ينتمي إلى شيء."),
			t("Bring the file back from a copy of the archive; one that belongs to nothing is moved away and kept.", "استعد الملف من نسخة من الأرشيف، أما الذي لا ينتمي إلى شيء فيُنقل ويُحفظ.")
	case string(journal.PartErasure):
		return t("A record that was to be erased may still stand in a file of the archive.", "قيد تقرر محوه قد يكون باقياً في ملف من الأرشيف."),
			t("The running node erases it within a minute; if it does not, its log says why: bring the archive's file back from a copy.", "تمحوه العقدة العاملة خلال دقيقة، فإن لم تفعل ففي سجلها السبب: استعد ملف الأرشيف من نسخة.")
	case witness.PlaceCheckpoint:
		return t("A checkpoint of the log is not the one that was signed.", "نقطة تحقق لسجل الشفافية ليست التي وُقّع عليها."),
			t("The next head replaces it once the log itself is whole.", "يحل محلها الرأس التالي متى كان سجل الشفافية سليماً.")
	case witness.PlaceStamp:
		return t("A time-stamp over the log is not the one that was given.", "طابع زمني على سجل الشفافية ليس الذي أُعطي."),
			t("Restore the database from a backup; receipts that were given out with it stand as they are.", "استعد قاعدة البيانات من نسخة احتياطية، أما الإيصالات التي سُلّمت معه فتبقى كما هي.")
	case witness.PlaceAlarm:
		return t("An alarm is not the one that was raised or heard.", "إنذار ليس الذي أُطلق أو سُمع."),
			t("Restore the database from a backup; who raised it, and whom it was told, has it too.", "استعد قاعدة البيانات من نسخة احتياطية، وهو أيضاً لدى من أطلقه ومن أُبلغ به.")
	case witness.PlaceHead:
		return t("What this witness remembers of another state's log is not what was signed.", "ما يذكره هذا الشاهد عن سجل دولة أخرى ليس ما وُقّع عليه."),
			t("Restore the database from a backup: the witness then catches up by itself.", "استعد قاعدة البيانات من نسخة احتياطية، ثم يلحق الشاهد بما فاته من تلقاء نفسه.")
	case exchange.PlaceBody:
		return t("A large body, or what keeps it, is not what was written.", "محتوى كبير أو ما يحفظه ليس ما كُتب."),
			t("Bring its file back from a backup of the spool under the name given.", "استعد ملفه بالاسم المذكور من نسخة احتياطية للمخزن المؤقت.")
	case exchange.PlaceClaim:
		return t("What keeps an identifier from being used twice is not what was written.", "ما يمنع استعمال معرّف مرتين ليس ما كُتب."), record
	case exchange.PlaceDelivery:
		return t("A row of the outbox is not what was written.", "صف في صندوق الصادر ليس ما كُتب."), record
	case exchange.PlaceTrace:
		return t("A row of what finds a person's records does not follow from them.", "صف مما يُعثر به على قيود شخص لا ينتج عنها."),
			t("It is made anew the next time that a trace is asked for (falaj trace); find out how it came to be changed.", "يُنشأ من جديد عند أول طلب لسجل اطلاع (falaj trace)، فابحث عن سبب تغيّره.")
	case placeLedger:
		return t("The books do not add up.", "الدفاتر غير متوازنة."),
			t("Each entry names its case: compare it with the case's events, and with the other state's statement.", "كل قيد محاسبي يسمّي معاملته: قارنه بأحداث المعاملة وبكشف الدولة الأخرى.")
	case placeCase:
		return t("A case is not what its events make of it.", "معاملة ليست ما تؤدي إليه أحداثها."),
			t("Its events in the journal are what counts: compare it with the other state's half (falaj case reconcile), and find out how it came to be changed.", "العبرة بأحداثها في السجل: قارنها بشق الدولة الأخرى (falaj case reconcile)، وابحث عن سبب تغيّرها.")
	case exchange.PlaceSpool:
		return t("Spool and database do not name each other.", "المخزن المؤقت وقاعدة البيانات لا يسمّي أحدهما الآخر."),
			t("Name the right spool with the setting spool; docs/operations.md tells of its mark.", "حدّد المخزن المؤقت الصحيح بالإعداد spool، وخبر علامته في docs/operations.md.")
	}
	return t("The log is not the one that another state has seen.", "سجل الشفافية ليس الذي رأته دولة أخرى."),
		t("Keep everything as it is. If the database was restored from an old copy, go on with falaj log renew; if not, somebody rewrote it.", "أبقِ كل شيء على حاله. فإن كانت قاعدة البيانات قد استُعيدت من نسخة قديمة فتابع بالأمر falaj log renew، وإلا فقد أعاد أحدهم كتابتها.")
}

func (c *Checked) add(place, name, detail string) {
	what, do := placeText(place)
	c.Flaws = append(c.Flaws, Flaw{place, name, what, do, detail})
}

// Progress is told what is being looked at, and how much of how much; all is 0
// where nobody knows.
type Progress func(place string, done, all int64)

// step is a line of what the admin door answers: one of the two.
type step struct {
	Seen   *seen    `json:"seen,omitempty"`
	Report *Checked `json:"report,omitempty"`
	Failed string   `json:"failed,omitempty"`
}

type seen struct {
	Place string `json:"place"`
	Done  int64  `json:"done"`
	All   int64  `json:"all,omitempty"`
}

// fsckEvery is how often the person who waits is told how far it is.
const fsckEvery = 500 * time.Millisecond

// fsck answers in lines of JSON while it looks: how far it is, and last the
// report.
func (n *Node) fsck(context.Context, admin.Person, url.Values) (any, error) {
	return admin.File{Type: "application/x-ndjson", Size: -1, Write: func(ctx context.Context, w io.Writer) error {
		last := time.Time{}
		out := json.NewEncoder(w)
		c, err := n.inspect(ctx, func(place string, done, all int64) {
			if now := time.Now(); now.Sub(last) >= fsckEvery {
				last = now
				_ = out.Encode(step{Seen: &seen{place, done, all}}) // who has gone away is told by ctx
				if f, ok := w.(http.Flusher); ok {
					f.Flush()
				}
			}
		})
		if err != nil {
			f := fault.From(err)
			n.log.Error("fsck", "support", f.ID, "error", err)
			return out.Encode(step{Failed: string(f.Code) + " " + f.ID})
		}
		return out.Encode(step{Report: &c})
	}}, nil
}

// ReadFsck reads what the admin door answers.
func ReadFsck(r io.Reader, progress Progress) (Checked, error) {
	for d := json.NewDecoder(r); ; {
		var s step
		if err := d.Decode(&s); err != nil {
			return Checked{}, fault.Wrap(fault.StoreFailed, err, "the node broke off")
		}
		switch {
		case s.Report != nil:
			return *s.Report, nil
		case s.Failed != "":
			return Checked{}, fault.New(fault.StoreFailed, "the node could not read what it has stored: %s", s.Failed)
		case s.Seen != nil:
			progress(s.Seen.Place, s.Seen.Done, s.Seen.All)
		}
	}
}

// Fsck looks through what a node that does not run has stored.
func Fsck(ctx context.Context, cfg config.Config, progress Progress) (Checked, error) {
	n := &Node{cfg: cfg, now: time.Now, log: slog.New(slog.DiscardHandler)}
	for _, must := range []string{cfg.Data, cfg.Keys.Folder, cfg.Spool} {
		if _, err := os.Stat(must); err != nil {
			return Checked{}, fault.Wrap(fault.ConfigInvalid, err, "%v", err)
		}
	}
	if path := string(cfg.Store.DSN); !cfg.Store.DSN.Postgres() {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return Checked{}, fault.Wrap(fault.ConfigInvalid, err, "there is no database %s", path)
		}
	}
	lock, err := lockFolder(cfg.Data)
	if err != nil {
		return Checked{}, err
	}
	defer lock.Close()
	wrap, err := cfg.Keys.Wrap()
	if err != nil {
		return Checked{}, err
	}
	if n.keys, err = seal.OpenKeys(cfg.Keys.Folder, seal.KeyConfig{Demonstration: cfg.Demonstration, Wrap: wrap}); err != nil {
		return Checked{}, fmt.Errorf("opening the key folder %s: %w", cfg.Keys.Folder, err)
	}
	if n.db, err = store.Open(ctx, store.Config{DSN: string(cfg.Store.DSN)}, migrations()...); err != nil {
		return Checked{}, fault.Wrap(fault.StoreFailed, err, "opening %s: %v", cfg.Store.DSN, err)
	}
	defer n.db.Close()
	deps, err := n.journalDeps()
	if err != nil {
		return Checked{}, err
	}
	if n.journal, err = journal.NewReader(deps); err != nil {
		return Checked{}, err
	}
	if n.spool, err = seal.OpenSpool(cfg.Spool, n.keys.Records()); err != nil {
		return Checked{}, err
	}
	defer n.spool.Close()
	root, err := os.ReadFile(cfg.Directory.Root)
	if err != nil {
		return Checked{}, fault.Wrap(fault.ConfigInvalid, err, "directory.root: %v", err)
	}
	n.directory, err = directory.Open(ctx, directory.Config{
		Dir: filepath.Join(cfg.Data, "directory"), Root: root, State: cfg.State, Demonstration: cfg.Demonstration,
	}, directory.Deps{Now: n.now, Log: n.log, Keys: n.keys})
	if err != nil {
		return Checked{}, fmt.Errorf("opening the directory: %w", err)
	}
	return n.inspect(ctx, progress)
}

// inspect looks at everything. Of a node that runs, others are asked too.
func (n *Node) inspect(ctx context.Context, progress Progress) (Checked, error) {
	c := Checked{State: n.cfg.State, Node: n.cfg.Name, Witnesses: []union.State{}, Flaws: []Flaw{}, Gaps: []Gap{}}
	deps, err := n.journalDeps()
	if err != nil {
		return c, err
	}
	var bodies exchange.Large
	var events casework.Kept
	r, err := journal.Inspect(ctx, deps, journal.Inspection{
		Seen:  func(done, all int64) { progress(string(journal.PartRecord), done, all) },
		Vouch: n.vouch,
		Record: func(s journal.Stored) {
			bodies.See(s)
			events.See(s)
		},
	})
	if err != nil {
		return c, err
	}
	c.Size, c.Root, c.Records, c.Erased, c.Omitted = r.Size, r.Root.String(), r.Read, r.Erased, r.Omitted
	for _, w := range r.Wrong {
		c.add(string(w.Part), flawName(w), w.Detail)
	}
	for _, name := range r.Absent {
		c.Gaps = append(c.Gaps, Gap{t("A file of the archive is not in its folder: its records were not looked at.", "ملف من الأرشيف ليس في مجلده، فلم تُفحص قيوده."), filepath.Join(n.cfg.Archive, name)})
	}
	seen, wrong, err := witness.Inspect(ctx, n.db, n.cfg.State, n.parties(), r.Size, n.journal)
	if err != nil {
		return c, err
	}
	c.Checkpoints = seen
	for _, w := range wrong {
		if w.Unsure {
			c.Notes = append(c.Notes, union.Text{En: w.Place + " " + w.Name + ": " + w.Detail, Ar: w.Place + " " + w.Name + ": لم يعد الدليل يسمّي مفتاح هذا السجل، فلم يُفحص توقيعه"})
			continue
		}
		c.add(w.Place, w.Name, w.Detail)
	}
	names, err := n.keys.HMAC("exchange-1")
	if err != nil {
		return c, fmt.Errorf("the key that hides calls' names: %w", err)
	}
	x, err := exchange.Inspect(ctx, n.db, n.journal, deps.Records, names, n.spool, &bodies, func(place string, done int64) { progress(place, done, 0) })
	if err != nil {
		return c, err
	}
	c.Bodies, c.BodyBytes, c.Claims, c.Deliveries = x.Bodies, x.Bytes, x.Claims, x.Deliveries
	c.Omitted += x.Omitted
	for _, w := range x.Wrong {
		c.add(w.Place, w.Name, w.Detail)
	}
	cases, _, err := n.caseEngine(func() (*directory.View, error) { return n.directory.View(), nil })
	if err != nil {
		return c, err
	}
	all, bad, err := cases.Inspect(ctx, &events, func(done int64) { progress(placeCase, done, 0) })
	if err != nil {
		return c, err
	}
	c.Cases = all
	for _, w := range bad {
		c.add(placeCase, w.Case, w.Detail)
	}
	var books ledger.Report
	if err := n.db.Read(ctx, func(tx *store.Tx) (err error) { books, err = ledger.Audit(ctx, tx); return err }); err != nil {
		return c, err
	}
	for _, f := range books.Findings {
		c.add(placeLedger, string(n.cfg.State), f)
	}
	n.confront(ctx, &c)
	c.OK = len(c.Flaws) == 0
	return c, nil
}

// confront holds the log against what others have seen of it.
func (n *Node) confront(ctx context.Context, c *Checked) {
	if n.publisher == nil {
		c.Notes = append(c.Notes, t("The other states' witnesses were not asked what they have seen of this log: a node that does not run cannot ask. falaj fsck of the running node does.",
			"لم يُسأل شهود الدول الأخرى عما رأوه من سجل الشفافية هذا، فالعقدة المتوقفة لا تسأل. ويسألهم falaj fsck والعقدة عاملة."))
		return
	}
	heard, lost, err := n.publisher.Confront(ctx)
	c.Witnesses = append(c.Witnesses, heard...)
	switch {
	case fault.CodeOf(err) == fault.LogDivided:
		c.add(placeLog, string(n.cfg.State), fault.From(err).Detail)
	case err != nil:
		c.Notes = append(c.Notes, t("The directory names no log of this state: nobody has seen its heads.", "لا يسمّي الدليل سجل شفافية لهذه الدولة، فلم يرَ أحد رؤوسه."))
	}
	if len(lost) > 0 {
		list := strings.Trim(fmt.Sprint(lost), "[]")
		c.Gaps = append(c.Gaps, Gap{t("Witnesses that did not say what they have seen of this log.", "شهود لم يقولوا ما رأوه من سجل الشفافية هذا."), list})
	}
}

func flawName(w journal.Wrong) string {
	switch {
	case w.File != "":
		return w.File
	case w.Part == journal.PartTile:
		return fmt.Sprintf("%d/%d", w.Level, w.Index)
	}
	return fmt.Sprint(w.Index)
}

// vouch tells whether a note is signed by this state's log, under its name of
// now or an earlier one.
func (n *Node) vouch(note []byte) error {
	s, _ := n.directory.View().State(n.cfg.State)
	if s.Log.Key == (merkle.Key{}) {
		return fault.New(fault.NotFound, "the directory names no log of %s", n.cfg.State)
	}
	_, line, _ := strings.Cut(string(note), "\n\n— ")
	name, _, _ := strings.Cut(line, " ")
	key, err := s.Log.Key.Named(name)
	if err != nil {
		return err
	}
	_, err = merkle.OpenNote(note, key)
	return err
}
