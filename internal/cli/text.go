package cli

import (
	"strings"

	"github.com/alecthomas/kong"

	"github.com/falaj/falaj/internal/union"
)

func t(en, ar string) union.Text { return union.Text{En: en, Ar: ar} }

var (
	textValid = t("The configuration is valid.", "الإعدادات صحيحة.")
)

// helpTexts are the texts of the help: by command ("config show"), flag
// ("config show --set", or "--set" wherever it stands) and argument
// ("call <service>", or "<service>").
func helpTexts() map[string]union.Text {
	return map[string]union.Text{
		"falaj": t("Exchange sealed requests between the states of a union.", "تبادل الطلبات المختومة بين دول الاتحاد."),

		"--help":  t("Show this help.", "عرض هذه المساعدة."),
		"--lang":  t("Language of what is printed: en or ar (default: the environment's).", "لغة المخرجات: en أو ar (الافتراضي: لغة البيئة)."),
		"--json":  t("Print JSON for machines.", "طباعة JSON للآلات."),
		"--admin": t("Admin door of the node: a Unix socket, or https://… with --cert and --key.", "باب إدارة العقدة: مقبس يونكس، أو https://… مع --cert و--key."),
		"--cert":  t("Client certificate (PEM) for an https admin door.", "شهادة العميل (PEM) لباب الإدارة عبر https."),
		"--key":   t("Private key (PEM) of the client certificate.", "المفتاح الخاص (PEM) لشهادة العميل."),
		"--state": t("State whose node of the union on this machine is meant; with up: the states that take part.", "الدولة التي تُقصد عقدتها في الاتحاد العامل على هذا الجهاز، ومع up: الدول المشاركة."),

		"up":              t("Run a whole demonstration union on this machine.", "تشغيل اتحاد تجريبي كامل على هذا الجهاز."),
		"up --data":       t("Folder of the union (default: ~/.falaj/up).", "مجلد الاتحاد (الافتراضي: ~/.falaj/up)."),
		"up --base-port":  t("First of its ports (default: 8100, or those of the last start); 0 takes any free ones.", "أول منافذه (الافتراضي: 8100 أو منافذ التشغيل السابق)، و0 لأي منافذ شاغرة."),
		"up --fresh":      t("Remove the folder's union and found a new one.", "حذف الاتحاد الموجود في المجلد وتأسيس اتحاد جديد."),
		"up --ready-file": t("File to write, as JSON, once everything answers.", "ملف يُكتب بصيغة JSON متى استجاب كل شيء."),
		"--log-level":     t("What is logged to the standard error output: debug, info, warn, error.", "مستوى ما يُكتب في مخرج الأخطاء: debug أو info أو warn أو error."),

		"config":       t("Check or show a node's configuration.", "فحص إعدادات العقدة أو عرضها."),
		"config check": t("Say what is wrong with a configuration.", "بيان الأخطاء في الإعدادات."),
		"config show":  t("Show the effective configuration, without secrets.", "عرض الإعدادات الفعلية دون الأسرار."),
		"config keys":  t("List what --set and the environment can name.", "سرد المفاتيح التي يقبلها --set ومتغيرات البيئة."),
		"--config":     t("Configuration file of the node (YAML).", "ملف إعدادات العقدة (YAML)."),
		"--set":        t("Set one value, over file and environment; may be repeated.", "تحديد قيمة واحدة تعلو على الملف والبيئة، ويمكن تكراره."),

		"version": t("Show the version of this binary.", "عرض إصدار هذا البرنامج."),
	}
}

// name gives every command, flag and argument its text in the person's
// language.
func (s *session) name(app *kong.Application) {
	texts := helpTexts()
	app.Help = s.say(texts["falaj"])
	walk(app.Node, "", func(path, name string, help *string) {
		if text, ok := texts[strings.TrimSpace(path+" "+name)]; ok {
			*help = s.say(text)
		} else if text, ok := texts[name]; ok {
			*help = s.say(text)
		}
	})
}

// walk visits everything that has a help text: commands under their path,
// flags and arguments under the path of their command and their own name.
func walk(n *kong.Node, path string, visit func(path, name string, help *string)) {
	for _, f := range n.Flags {
		visit(path, "--"+f.Name, &f.Help)
	}
	for _, p := range n.Positional {
		visit(path, "<"+p.Name+">", &p.Help)
	}
	for _, c := range n.Children {
		visit(path, c.Name, &c.Help)
		walk(c, strings.TrimSpace(path+" "+c.Name), visit)
	}
}
