package cli

import (
	"regexp"
	"strings"

	"github.com/falaj/falaj/internal/fault"
)

// misuse says what is wrong with the command line, in Arabic too where the
// parser's sentence is a common one.
func misuse(err error) error {
	code := fault.Usage
	if strings.HasSuffix(err.Error(), "no such file or directory") {
		code = fault.File
	}
	f := fault.New(code, "%v", err)
	for _, x := range []struct{ en, ar string }{
		{`^missing flags: (.*)$`, "ينقص: $1"},
		{`^(--\S+) and (--\S+) can't be used together$`, "لا يجتمع $1 و$2"},
		{`^missing positional arguments (.*)$`, "ينقص: $1"},
		{`^expected one of (.*)$`, "المتوقع واحد من: $1"},
		{`^expected (".*")$`, "المتوقع: $1"},
		{`^unexpected argument (\S+), did you mean (?:one of )?(.*)\?$`, "معامل غير متوقع: $1. هل المقصود $2؟"},
		{`^unexpected argument (.*)$`, "معامل غير متوقع: $1"},
		{`^unknown flag (\S+), did you mean (?:one of )?(.*)\?$`, "خيار غير معروف: $1. هل المقصود $2؟"},
		{`^unknown flag (.*)$`, "خيار غير معروف: $1"},
		{`^(\S+) must be one of (.*) but got (.*)$`, "$1: القيم المقبولة $2، وليس منها $3"},
		{`^(\S+): (?:stat|open) (.*): no such file or directory$`, "$1: لا وجود لـ $2"},
	} {
		re := regexp.MustCompile(x.en)
		if re.MatchString(f.Detail) {
			return f.Arabic("%s", re.ReplaceAllString(f.Detail, x.ar))
		}
	}
	return f
}

// word is a word of a table in the person's language. JSON keeps the English.
func (s *session) word(en string) string {
	ar, ok := map[string]string{
		// of a delivery
		"waiting": "ينتظر", "sending": "قيد الإرسال", "blocked": "موقوف", "answered": "أُجيب", "refused": "رُفض", "expired": "انتهت مدته", "skipped": "تُجووز",
		// of what is stored
		"record": "القيد", "leaf": "الورقة", "key": "المفتاح", "commit": "القيود من", "tile": "اللوح", "head": "الرأس", "archive": "الأرشيف",
		"checkpoint": "نقطة التحقق", "head seen": "الرأس المرئي", "time-stamp": "الطابع الزمني", "alarm": "الإنذار", "body": "المحتوى", "claim": "الحجز", "history": "التاريخ", "delivery": "التسليم", "spool": "المخزن المؤقت", "trace": "سجل الاطلاع", "case": "المعاملة",
		// of a change, and where it is written
		"ordered": "أُمر به", "requested": "طُلب", "started": "بدأ تنفيذه", "done": "نُفّذ", "failed": "أخفق", "rejected": "رُفض",
		"journal": "السجل", "log": "سجل التشغيل", "metrics": "القياسات",
	}[en]
	if s.ar && ok {
		return ar
	}
	return en
}
