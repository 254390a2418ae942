package cli

import (
	"strings"

	"github.com/alecthomas/kong"

	"github.com/falaj/falaj/internal/union"
)

func t(en, ar string) union.Text { return union.Text{En: en, Ar: ar} }

var (
	textValid   = t("The configuration is valid.", "الإعدادات صحيحة.")
	textRemoved = t("Removed:", "أُزيل:")
	textDecided = t("Decided, and written into the journal.", "بُتّ في الأمر وقُيّد في السجل.")
)

// helpTexts are the texts of the help: by command ("config show"), flag
// ("config show --set", or "--set" wherever it stands) and argument
// ("call <service>", or "<service>").
func helpTexts() map[string]union.Text {
	return map[string]union.Text{
		"falaj": t("Exchange sealed requests between the states of a union.", "تبادل الطلبات المختومة بين دول الاتحاد."),

		"--help":      t("Show this help.", "عرض هذه المساعدة."),
		"--lang":      t("Language of what is printed: en or ar (default: the environment's).", "لغة المخرجات: en أو ar (الافتراضي: لغة البيئة)."),
		"--json":      t("Print JSON for machines.", "طباعة JSON للآلات."),
		"--admin":     t("Admin door of the node: a Unix socket, or https://… with --cert and --key.", "باب إدارة العقدة: مقبس يونكس، أو https://… مع --cert و--key."),
		"--cert":      t("Client certificate (PEM) for an https admin door.", "شهادة العميل (PEM) لباب الإدارة عبر https."),
		"--key":       t("Its private key (PKCS #8 PEM, mode 0600).", "مفتاحها الخاص (PKCS #8 PEM بصلاحية 0600)."),
		"--authority": t("Authority (PEM) by which an https door is known.", "سلطة التصديق (PEM) التي يُعرف بها باب https."),
		"--state":     t("State whose node of the union on this machine is meant; with up: the states that take part.", "الدولة التي تُقصد عقدتها في الاتحاد العامل على هذا الجهاز، ومع up: الدول المشاركة."),

		"up":              t("Run a whole demonstration union on this machine.", "تشغيل اتحاد تجريبي كامل على هذا الجهاز."),
		"up --data":       t("Folder of the union (default: ~/.falaj/up).", "مجلد الاتحاد (الافتراضي: ~/.falaj/up)."),
		"up --base-port":  t("First of its ports (default: 8100, or those of the last start); 0 takes any free ones.", "أول منافذه (الافتراضي: 8100 أو منافذ التشغيل السابق)، و0 لأي منافذ شاغرة."),
		"up --fresh":      t("Remove the folder's union and found a new one.", "حذف الاتحاد الموجود في المجلد وتأسيس اتحاد جديد."),
		"up --ready-file": t("File to write, as JSON, once everything answers.", "ملف يُكتب بصيغة JSON متى استجاب كل شيء."),
		"--log-level":     t("What is logged to the standard error output: debug, info, warn, error.", "مستوى ما يُكتب في مخرج الأخطاء: debug أو info أو warn أو error."),

		"config":       t("Check or show a node's configuration.", "فحص إعدادات العقدة أو عرضها."),
		"config check": t("Say what is wrong with a configuration.", "بيان الأخطاء في الإعدادات."),
		"config show":  t("Show the effective configuration, without secrets.", "عرض الإعدادات الفعلية دون الأسرار."),
		"config keys":  t("List a configuration's keys: what --set and the environment can name, and the lists.", "سرد مفاتيح الإعدادات: ما يقبله --set ومتغيرات البيئة، والقوائم."),
		"--config":     t("Configuration file of the node (YAML).", "ملف إعدادات العقدة (YAML)."),
		"--set":        t("Set one value, over file and environment; may be repeated.", "تحديد قيمة واحدة تعلو على الملف والبيئة، ويمكن تكراره."),

		"call":           t("Call a service of another state, as one of this node's clients.", "طلب خدمة من دولة أخرى باسم أحد عملاء هذه العقدة."),
		"call <path>":    t("What follows the service in the address, with its query.", "ما يلي الخدمة في العنوان، مع معاملات الاستعلام."),
		"call --method":  t("HTTP method (default: GET, or POST with -d).", "طريقة HTTP (الافتراضي: GET، أو POST مع -d)."),
		"call --data":    t("Body to send; @FILE reads a file, @- the standard input.", "المحتوى المرسل؛ @FILE من ملف و@- من الدخل القياسي."),
		"call --header":  t("Header to send; may be repeated.", "ترويسة تُرسل، ويمكن تكرارها."),
		"call --client":  t("Subsystem that calls (default: the node's only one, or the only one with an agreement on the service).", "النظام المتصل (الافتراضي: عميل العقدة الوحيد، أو الوحيد الذي له اتفاق على الخدمة)."),
		"call --id":      t("X-Road-Id, to repeat a call safely (default: a new one).", "المعرّف X-Road-Id لإعادة الطلب بأمان (الافتراضي: معرّف جديد)."),
		"call --include": t("Print the answer's status and headers too.", "طباعة حالة الرد وترويساته أيضاً."),
		"call --timeout": t("How long to wait for the answer.", "مدة انتظار الرد."),
		"--purpose":      t("Purpose, a code of the union's list (falaj access purposes).", "الغرض: رمز من قائمة الاتحاد (falaj access purposes)."),
		"<service>":      t("Service: state/class/member/subsystem/service.", "الخدمة: الدولة/الفئة/الجهة/النظام/الخدمة."),
		"<client>":       t("Client: state/class/member/subsystem.", "العميل: الدولة/الفئة/الجهة/النظام."),
		"<id>":           t("X-Road-Id of the call.", "المعرّف X-Road-Id للطلب."),
		"--reason":       t("Why: it stands in the journal.", "السبب، ويُقيّد في السجل."),
		"--name-en":      t("Name in English.", "الاسم بالإنجليزية."),
		"--name-ar":      t("Name in Arabic.", "الاسم بالعربية."),

		"case":                   t("Cases of joint services: open, act, read, list, compare.", "معاملات الخدمات المشتركة: فتحها والتصرف فيها وقراءتها وعرضها ومقارنتها."),
		"case open":              t("Open a case of a joint service with another state, as a system of this one.", "فتح معاملة خدمة مشتركة مع دولة أخرى، بصفة نظام من أنظمة هذه الدولة."),
		"case open --peer":       t("The state that has the other half.", "الدولة التي لديها الشق الآخر."),
		"case open --form":       t("The form with which the case begins.", "الاستمارة التي تبدأ بها المعاملة."),
		"case open <service>":    t("Joint service: residence.", "الخدمة المشتركة: residence."),
		"case act":               t("Do in a case what a form of its service lets one do.", "التصرف في معاملة بإحدى استمارات خدمتها."),
		"case act --confirm":     t("Confirm, as a second person, what another asked for in this event of the case.", "التأكيد، بصفة شخص ثانٍ، لما طلبه غيره في هذا الحدث من أحداث المعاملة."),
		"case show":              t("Tell a case: where it stands, what can be done, what happened. That it was read is recorded.", "عرض معاملة: حالتها وما يمكن فعله وما حدث فيها. ويُقيَّد الاطلاع عليها."),
		"case list":              t("List the cases that a system of this state may see, the latest changed first.", "عرض المعاملات التي يحق لنظام من أنظمة هذه الدولة الاطلاع عليها، الأحدث تغييراً أولاً."),
		"case list --service":    t("Only those of this joint service.", "معاملات هذه الخدمة المشتركة فقط."),
		"case list --in":         t("Only those that stand in this state of the definition: WAITING.", "المعاملات التي في هذه الحالة من التعريف فقط: WAITING."),
		"case list --trouble":    t("Only those that a person should look at.", "المعاملات التي تحتاج إلى مراجعة موظف فقط."),
		"case list --mine":       t("Only those of the person whom --user names.", "معاملات الشخص الذي يسمّيه --user فقط."),
		"case list --after":      t("The next page: as the one before ends.", "الصفحة التالية: كما ورد في آخر السابقة."),
		"case reconcile":         t("Compare this state's halves with the other states', send again what is missing there, and list what differs.", "مقارنة شقوق هذه الدولة بشقوق الدول الأخرى، وإعادة إرسال ما ينقصها، وعرض المختلف."),
		"case reconcile <peer>":  t("The other state (default: all).", "الدولة الأخرى (الافتراضي: كلها)."),
		"<case>":                 t("Identifier of the case.", "معرّف المعاملة."),
		"<form>":                 t("Form of the service.", "استمارة الخدمة."),
		"case open --data":       t("The form's fields as a JSON object; @FILE reads a file, @- the standard input.", "حقول الاستمارة كائن JSON؛ و@FILE يقرأ ملفاً، و@- الدخل القياسي."),
		"case open --id":         t("X-Road-Id, to repeat it without doing it twice.", "المعرّف X-Road-Id، لتكراره دون تنفيذه مرتين."),
		"case act --data":        t("The form's fields as a JSON object; @FILE reads a file, @- the standard input.", "حقول الاستمارة كائن JSON؛ و@FILE يقرأ ملفاً، و@- الدخل القياسي."),
		"case act --id":          t("X-Road-Id, to repeat it without doing it twice.", "المعرّف X-Road-Id، لتكراره دون تنفيذه مرتين."),
		"case open --client":     t("The system that asks (default: the only one of the node).", "النظام الطالب (الافتراضي: النظام الوحيد في العقدة)."),
		"case open --user":       t("Who stands behind it, as that system names him (X-Road-UserId).", "الشخص المتصرف كما يسمّيه النظام (X-Road-UserId)."),
		"case act --client":      t("The system that asks (default: the only one of the node).", "النظام الطالب (الافتراضي: النظام الوحيد في العقدة)."),
		"case act --user":        t("Who stands behind it, as that system names him (X-Road-UserId).", "الشخص المتصرف كما يسمّيه النظام (X-Road-UserId)."),
		"case show --client":     t("The system that asks (default: the only one of the node).", "النظام الطالب (الافتراضي: النظام الوحيد في العقدة)."),
		"case show --user":       t("Who stands behind it, as that system names him (X-Road-UserId).", "الشخص المتصرف كما يسمّيه النظام (X-Road-UserId)."),
		"case list --client":     t("The system that asks (default: the only one of the node).", "النظام الطالب (الافتراضي: النظام الوحيد في العقدة)."),
		"case list --user":       t("Who stands behind it, as that system names him (X-Road-UserId).", "الشخص المتصرف كما يسمّيه النظام (X-Road-UserId)."),
		"demo":                   t("Play a joint service in the running demonstration union.", "عرض خدمة مشتركة في الاتحاد التجريبي العامل."),
		"demo traffic":           t("Play a traffic violation from the camera to the receipt, each step with what proves it.", "عرض مخالفة مرورية من الكاميرا إلى الإيصال، وكل خطوة مع ما يثبتها."),
		"demo traffic --offence": t("State in which it happened (default: AE, or another that runs).", "الدولة التي وقعت فيها (الافتراضي: AE أو غيرها مما يعمل)."),
		"demo traffic --home":    t("State in which the vehicle is registered (default: BH, or another that runs).", "دولة تسجيل المركبة (الافتراضي: BH أو غيرها مما يعمل)."),

		"service":                   t("Offer services to the union.", "إتاحة الخدمات للاتحاد."),
		"service add":               t("Offer a running HTTP service, or change what is offered.", "إتاحة خدمة HTTP عاملة أو تعديل ما هو متاح."),
		"<address>":                 t("Base address of the HTTP service, such as http://10.1.2.3:8080/api.", "العنوان الأساسي لخدمة HTTP، مثل http://10.1.2.3:8080/api."),
		"service add --openapi":     t("Its OpenAPI description: a file or an address, JSON or YAML.", "وصف OpenAPI للخدمة: ملف أو عنوان، بصيغة JSON أو YAML."),
		"service add --idempotent":  t("A call may be repeated without a second effect.", "يمكن تكرار الطلب دون أثر ثانٍ."),
		"service add --async":       t("Answers later: calls are accepted and delivered in the background.", "ترد لاحقاً: تُقبل الطلبات وتُسلّم في الخلفية."),
		"service add --timeout":     t("How long it may take to answer.", "المدة المسموح بها للرد."),
		"service add --retention":   t("Retention class of its records (default: exchange).", "فئة حفظ قيودها (الافتراضي: exchange)."),
		"service add --digest-only": t("Keep only the digests of bodies.", "حفظ بصمات المحتوى فقط."),
		"service add --data-class":  t("Class of its data, for the rules (default: official).", "فئة بياناتها التي تعتمدها القواعد (الافتراضي: official)."),
		"--key-header":              t("Header in which it takes our id as its idempotency key.", "الترويسة التي تقبل فيها معرّفنا مفتاحاً لعدم التكرار."),
		"--backend-ca":              t("Authorities (PEM) of an https address.", "سلطات التصديق (PEM) لعنوان https."),
		"service list":              t("List the state's services and where they run.", "سرد خدمات الدولة ومواضع تشغيلها."),
		"service adopt":             t("Take part in a version of a joint service from a day on.", "المشاركة في إصدار من خدمة مشتركة ابتداءً من يوم محدد."),
		"service adopt <joint>":     t("The joint service and its version: NAME@VERSION.", "الخدمة المشتركة وإصدارها: NAME@VERSION."),
		"service adopt --from":      t("Day from which new cases begin by it: 2026-12-01, in the state's own zone.", "اليوم الذي تبدأ منه المعاملات الجديدة بموجبه: 2026-12-01 بتوقيت الدولة."),
		"service adopt --until":     t("Last day on which new cases begin by it; those that run go on.", "آخر يوم تبدأ فيه معاملات جديدة بموجبه، وتستمر المعاملات القائمة."),
		"service adopt --role":      t("A role and the subsystem that speaks for it; may be repeated.", "دور والنظام الذي يمثّله، ويمكن تكراره."),
		"service adopt --call":      t("A register's name in the definition, and the service of this state that it means; may be repeated.", "اسم سجل في التعريف وخدمة هذه الدولة التي يعنيها، ويمكن تكراره."),
		"service adopt --system":    t("The state's case system, the first time: a subsystem.", "نظام المعاملات في الدولة، عند أول اعتماد: نظام فرعي."),
		"service adopt --zone":      t("The state's time zone, the first time: Asia/Bahrain.", "المنطقة الزمنية للدولة، عند أول اعتماد: Asia/Bahrain."),
		"service adopt --weekend":   t("The days of its weekend: Fri,Sat.", "أيام عطلتها الأسبوعية: Fri,Sat."),
		"service adopt --file":      t("The whole casework.json, holidays and tables too, in the place of what stood there.", "ملف casework.json كاملاً بعطله وجداوله، محل ما كان."),
		"service adopt --table":     t("A table's file that it names: casework/ and the file's name; may be repeated.", "ملف جدول يذكره: casework/ ثم اسم الملف، ويمكن تكراره."),
		"<definition>":              t("File of a joint service's definition (YAML).", "ملف تعريف خدمة مشتركة (YAML)."),
		"service lint":              t("Prove of a joint service's definition what can be proved, and say what is wrong.", "إثبات ما يمكن إثباته عن تعريف خدمة مشتركة وبيان أخطائه."),
		"service lint --crossings":  t("Print all messages that can pass each other, to be put into the definition.", "طباعة كل الرسائل التي قد تتقاطع لإدراجها في التعريف."),
		"service test":              t("Play the scenarios beside a definition: NAME.test.yaml beside NAME.yaml.", "تشغيل السيناريوهات المرافقة للتعريف: NAME.test.yaml إلى جانب NAME.yaml."),
		"service test --trace":      t("Print each step of all scenarios, not only of those that fail.", "طباعة كل خطوة من كل السيناريوهات، لا المخفقة وحدها."),
		"service diagram":           t("Draw both halves of a definition, and the messages between them (Mermaid).", "رسم شقي التعريف والرسائل بينهما (Mermaid)."),
		"service schema":            t("Print the JSON Schema of definitions, for editors.", "طباعة مخطط JSON Schema للتعاريف، لبرامج التحرير."),
		"service move":              t("Change where a service really runs.", "تغيير موضع تشغيل خدمة."),
		"service remove":            t("Offer a service no more, and end its grants.", "إلغاء إتاحة خدمة وإنهاء أذونها."),

		"access":                         t("Say who may call this state's services.", "تحديد من يحق له طلب خدمات هذه الدولة."),
		"access grant":                   t("Let a client call a service for stated purposes.", "السماح لعميل بطلب خدمة لأغراض محددة."),
		"access grant --default-purpose": t("Purpose of calls that name none.", "الغرض المعتمد للطلبات التي لا تذكر غرضاً."),
		"access grant --endpoint":        t("Only this method and path, such as \"GET /vehicles/*\"; may be repeated.", "هذه الطريقة وهذا المسار فقط، مثل \"GET /vehicles/*\"، ويمكن تكراره."),
		"access grant --until":           t("First day on which it no longer holds, UTC.", "أول يوم لا يسري فيه، بالتوقيت العالمي."),
		"access grant --basis-en":        t("Legal basis in English (default: the purpose's).", "السند القانوني بالإنجليزية (الافتراضي: سند الغرض)."),
		"access grant --basis-ar":        t("Legal basis in Arabic (default: the purpose's).", "السند القانوني بالعربية (الافتراضي: سند الغرض)."),
		"access revoke":                  t("Take a grant back.", "سحب إذن."),
		"<grant>":                        t("The grant's name (falaj access list).", "اسم الإذن (falaj access list)."),
		"access list":                    t("List the grants.", "سرد الأذون."),
		"access list --service":          t("Only those for this service.", "أذون هذه الخدمة فقط."),
		"access purposes":                t("List the union's purposes.", "سرد أغراض الاتحاد."),
		"--client":                       t("Only those of this client.", "ما يخص هذا العميل فقط."),

		"client":                   t("Register the state's own systems.", "تسجيل أنظمة الدولة."),
		"client add":               t("Register a system that calls, and enter it in the directory.", "تسجيل نظام متصل وقيده في الدليل."),
		"client add --mode":        t("How it connects: http, https, or mutual (with its certificate).", "طريقة اتصاله: http أو https أو mutual (بشهادته)."),
		"client add --certificate": t("SHA-256 of its client certificate; may be repeated.", "بصمة SHA-256 لشهادة العميل، ويمكن تكرارها."),
		"client add --push":        t("Address that answers to asynchronous calls are sent to.", "العنوان الذي تُرسل إليه ردود الطلبات غير المتزامنة."),
		"client list":              t("List the systems that call through this node.", "سرد الأنظمة المتصلة عبر هذه العقدة."),
		"client remove":            t("Let a system call through this node no more.", "إلغاء اتصال نظام عبر هذه العقدة."),

		"policy":                  t("Ask and set the rules.", "الاستفسار عن القواعد وتحديدها."),
		"policy explain":          t("Say who decides a call, and by which rules.", "بيان من يبتّ في الطلب وبأي قواعد."),
		"policy explain --method": t("HTTP method of the call.", "طريقة HTTP للطلب."),
		"policy explain --path":   t("Path of the call, after the service.", "مسار الطلب بعد الخدمة."),
		"policy explain --all":    t("Show every rule that was asked.", "عرض كل قاعدة سُئلت."),
		"policy set":              t("Publish the state's own rules (Cedar).", "نشر قواعد الدولة (Cedar)."),
		"policy set <file>":       t("File with the rules.", "ملف القواعد."),

		"evidence":        t("See, check and hand on what both sides hold of a call.", "الاطلاع على ما لدى الطرفين عن طلب والتحقق منه وتصديره."),
		"evidence show":   t("Show what both sides hold of a call.", "عرض ما لدى الطرفين عن طلب."),
		"evidence verify": t("Check the evidence of a call.", "التحقق من أدلة طلب."),

		"evidence receipt":          t("Show what proves that a call's records are in the log, and who cosigned it.", "عرض ما يثبت أن قيود طلب مدرجة في سجل الشفافية ومن وقّع عليه."),
		"log":                       t("Hold states' logs to their word.", "التحقق من صدق سجلات الشفافية للدول."),
		"log open":                  t("Give this state a log and a witness where it has none, and say where everybody reads them.", "منح هذه الدولة سجل شفافية وشاهداً إن لم يكونا لها، وتحديد موضع اطلاع الجميع عليهما."),
		"log open --public":         t("Base address of the node's public door (public.listen), such as https://node.example.", "العنوان الأساس لباب العقدة العام (public.listen)، مثل https://node.example."),
		"log open --union-only":     t("Name no address: only the other states' nodes read the log.", "دون عنوان، فلا يطّلع على السجل إلا عقد الدول الأخرى."),
		"log renew":                 t("Go on as a new log, after the node was restored from an old copy.", "المتابعة بسجل شفافية جديد بعد استعادة العقدة من نسخة قديمة."),
		"log alarms":                t("List what states hold against each other's logs.", "سرد ما تأخذه الدول على سجلات شفافية بعضها."),
		"log watch":                 t("Follow all states' logs, and show loudly where one has two histories.", "متابعة سجلات الشفافية لجميع الدول، والتنبيه بوضوح إن ظهر لأحدها تاريخان."),
		"log watch --once":          t("Look once.", "النظر مرة واحدة."),
		"log watch --every":         t("Time between two looks.", "المدة بين نظرتين."),
		"log watch --memory":        t("File that remembers what was seen (default: .falaj/watch.json in the home folder).", "ملف يحفظ ما شوهد (الافتراضي: .falaj/watch.json في مجلد المستخدم)."),
		"log mldsa":                 t("Let this state's witness cosign with ML-DSA-44 as well.", "توقيع شاهد هذه الدولة بخوارزمية ML-DSA-44 أيضاً."),
		"log mldsa --off":           t("Let it do so no more.", "الكف عن ذلك."),
		"seal":                      t("How this state seals messages.", "كيف تختم هذه الدولة الرسائل."),
		"seal batch":                t("Let one signature seal many messages to states that allow it too.", "ختم رسائل كثيرة بتوقيع واحد إلى الدول التي تقبل ذلك."),
		"seal batch --off":          t("Let each message be sealed by itself again.", "العودة إلى ختم كل رسالة وحدها."),
		"log audit":                 t("Recompute a whole log and check its signature and cosignatures.", "إعادة حساب سجل شفافية كامل والتحقق من توقيعه وتواقيع الشهود."),
		"log audit <url>":           t("Address of the log, such as https://node.example/log.", "عنوان سجل الشفافية، مثل https://node.example/log."),
		"log audit --log-key":       t("Verifier key of the log (default: as the directory of a running node says).", "مفتاح التحقق من سجل الشفافية (الافتراضي: ما في دليل عقدة عاملة)."),
		"log audit --witness":       t("Verifier key of a witness that counts; may be repeated.", "مفتاح التحقق من شاهد معتمد، ويمكن تكراره."),
		"log audit --quorum":        t("Witnesses that it takes (default: as the directory says, or none).", "عدد الشهود اللازم (الافتراضي: ما في الدليل، أو لا شيء)."),
		"evidence export":           t("Write what proves a call into a file that others check without a node (ASiC-E).", "حفظ ما يثبت طلباً في ملف يتحقق منه الغير دون عقدة (ASiC-E)."),
		"evidence export --output":  t("File to write, such as call.asice.", "الملف المراد كتابته، مثل call.asice."),
		"evidence export --client":  t("Whose call, where several clients' calls have the id.", "صاحب الطلب، إن اشترك عدة عملاء في المعرّف."),
		"evidence export --request": t("Which try, by its X-Road-Request-Id (default: the last).", "المحاولة المقصودة بمعرّفها X-Road-Request-Id (الافتراضي: الأخيرة)."),

		"trace":                 t("Show who asked what about a person, for which purpose, allowed or refused.", "عرض من طلب بيانات شخص وماذا طلب ولأي غرض، سُمح له أم رُفض."),
		"trace show":            t("The same (the person is read from the standard input).", "مثله (يُقرأ الشخص من الدخل القياسي)."),
		"trace show --since":    t("From this day or time on, UTC.", "من هذا اليوم أو الوقت، بالتوقيت العالمي."),
		"trace show --until":    t("Up to this day or time, UTC; it is no longer in it.", "حتى هذا اليوم أو الوقت دون دخوله، بالتوقيت العالمي."),
		"trace show --before":   t("Go on below this leaf, as the page before says.", "المتابعة قبل هذه الورقة كما تذكر الصفحة السابقة."),
		"trace show --limit":    t("Entries of a page (default: 100, at most 1000).", "عدد القيود في الصفحة (الافتراضي: 100، وأقصاه 1000)."),
		"trace delay":           t("Set how many days later persons hear of calls for a purpose.", "تحديد عدد أيام تأجيل إطلاع أصحاب البيانات على طلبات غرض ما."),
		"trace delay <purpose>": t("Purpose, a code of the union's list.", "الغرض: رمز من قائمة الاتحاد."),
		"trace delay --days":    t("Days from the call on; 0: at once.", "عدد الأيام من وقت الطلب؛ 0: فوراً."),
		"trace delays":          t("List the purposes of which persons hear later.", "سرد الأغراض التي يُؤجَّل إطلاع أصحاب البيانات عليها."),

		"verify":             t("Check exported evidence offline, by the union's root alone.", "التحقق من الأدلة المصدّرة دون اتصال، بجذر الاتحاد وحده."),
		"verify <container>": t("Container (ASiC-E) that falaj evidence export wrote, or a folder of such (*.asice).", "حاوية (ASiC-E) كتبها falaj evidence export، أو مجلد حاويات (*.asice)."),
		"verify --stamp-root": t("Root certificate (PEM) of a time-stamp authority outside of the union, got by a way that is trusted; may be given again.",
			"الشهادة الجذرية (PEM) لسلطة طوابع زمنية من خارج الاتحاد، من مصدر موثوق، ويمكن تكراره."),
		"verify --at": t("Day (UTC) as at which time-stamps are judged, whose authorities' certificates end (default: now).",
			"اليوم (UTC) الذي تُقيَّم فيه الطوابع الزمنية، إذ تنتهي شهادات سلطاتها (الافتراضي: الآن)."),
		"verify --root": t("The union's root (<n>.root.json), got by a way that is trusted.", "جذر الاتحاد (<n>.root.json) من مصدر موثوق."),

		"directory":                  t("Found a union, change who is in it, see and verify its directory.", "تأسيس اتحاد وتغيير أعضائه والاطلاع على دليله والتحقق منه."),
		"directory init":             t("Begin a union: write the first draft.", "بدء اتحاد: كتابة المسودة الأولى."),
		"directory init --union":     t("Name of the union: its evidence carries it.", "اسم الاتحاد، وتحمله أدلته."),
		"directory init --quorum":    t("Witnesses that a log's head takes.", "عدد الشهود اللازم لرأس السجل."),
		"directory init --keys":      t("Key folder of the secretariat; without it the union has none.", "مجلد مفاتيح الأمانة العامة، ومن دونه لا أمانة للاتحاد."),
		"--threshold":                t("Votes that a change of the union takes.", "عدد الأصوات اللازم لتغيير الاتحاد."),
		"--purposes":                 t("File with the union's purposes: JSON, a list of code, name and basis.", "ملف أغراض الاتحاد: قائمة JSON من الرمز والاسم والأساس."),
		"--demonstration":            t("Only for trying out: nodes in service refuse it.", "للتجربة فقط: ترفضه العقد العاملة."),
		"<draft>":                    t("File of the draft.", "ملف المسودة."),
		"directory enrol":            t("At a state: make its keys and what it brings to the ceremony.", "لدى الدولة: إنشاء مفاتيحها وما تقدمه للتأسيس."),
		"<enrolment>":                t("File that a state brings.", "ملف انضمام الدولة."),
		"--keys":                     t("Key folder; missing keys are made.", "مجلد المفاتيح، ويُنشأ فيه الناقص منها."),
		"directory enrol --address":  t("Where the state's node listens for the others.", "عنوان استماع عقدة الدولة لبقية الدول."),
		"directory enrol --node":     t("Name of the node, the same as name in its configuration (default for both: the state in small letters and 1, such as bh1).", "اسم العقدة، وهو نفسه name في إعداداتها (الافتراضي لكليهما: رمز الدولة بأحرف صغيرة يليه 1، مثل bh1)."),
		"directory enrol --member":   t("Organisation with a seal of its own; may be repeated.", "جهة لها ختمها، ويمكن تكراره."),
		"directory enrol --policy":   t("File with the state's rules (Cedar; default: by agreement alone).", "ملف قواعد الدولة (Cedar؛ الافتراضي: بالاتفاق وحده)."),
		"directory enrol --partner":  t("The state takes part by agreement, not by the union's treaty.", "تشارك الدولة باتفاق لا بمعاهدة الاتحاد."),
		"directory enrol --no-vote":  t("The state has no vote.", "ليس للدولة صوت."),
		"directory enrol --replace":  t("The state is in the union: make new directory keys, the old one signs for them.", "الدولة عضو في الاتحاد: إنشاء مفاتيح دليل جديدة يوقّع لها القديم."),
		"--dir":                      t("Folder with a directory.", "مجلد فيه دليل."),
		"--source":                   t("Address that serves a directory; may be repeated.", "عنوان يقدّم دليلاً، ويمكن تكراره."),
		"--root":                     t("The union's pinned root (default: root.json beside --dir).", "جذر الثقة المثبّت للاتحاد (الافتراضي: root.json بجوار --dir)."),
		"directory add-state":        t("Add states, or a state's new keys, to a draft.", "إضافة دول أو مفاتيح جديدة لدولة إلى المسودة."),
		"directory amend":            t("Begin a change of a union that is there: write a draft.", "بدء تغيير في اتحاد قائم: كتابة مسودة."),
		"directory amend --quorum":   t("Witnesses that a log's head takes.", "عدد الشهود اللازم لرأس السجل."),
		"directory amend --keys":     t("Key folder of the secretariat: its witness is named, and its key made where there is none.", "مجلد مفاتيح الأمانة العامة: يُسمّى شاهدها، ويُنشأ مفتاحه إن لم يوجد."),
		"directory amend --service":  t("Definition of a joint service (YAML), a new version of it; may be repeated.", "تعريف خدمة مشتركة (YAML)، بإصدار جديد منها، ويمكن تكراره."),
		"directory amend --announce": t("Announce a state's new key, if the old one cannot sign; may be repeated.", "إعلان مفتاح جديد لدولة تعذّر التوقيع بمفتاحها القديم، ويمكن تكراره."),
		"directory amend --remove":   t("A state leaves the union; may be repeated.", "خروج دولة من الاتحاد، ويمكن تكراره."),
		"directory sign":             t("Sign a draft as a state.", "توقيع المسودة باسم دولة."),
		"directory publish":          t("Bring a draft into force that has its votes.", "إنفاذ مسودة اكتملت أصواتها."),
		"directory publish --keys":   t("Key folder of the party that takes its step towards a new union; root.json and the directory are put beside it.", "مجلد مفاتيح الطرف الذي يخطو خطوته نحو الاتحاد الجديد؛ ويوضع root.json والدليل بجواره."),
		"directory publish --dir":    t("Folder in which this party keeps the directory (default: directory beside --keys).", "المجلد الذي يحفظ فيه هذا الطرف الدليل (الافتراضي: directory بجوار --keys)."),
		"directory publish --pin":    t("File to write the root to that every node pins (default: root.json beside --dir).", "ملف يُكتب فيه الجذر الذي تثبّته كل عقدة (الافتراضي: root.json بجوار --dir)."),
		"directory show":             t("Show a draft, or a directory: a running node's, a folder's or a source's.", "عرض مسودة، أو دليل عقدة عاملة أو مجلد أو عنوان."),
		"directory verify":           t("Verify a directory from the pinned root.", "التحقق من دليل انطلاقاً من جذر الثقة المثبّت."),
		"directory verify --all":     t("Also every old version that is there.", "وكل إصدار قديم موجود."),

		"outcome":                    t("Decide calls of unknown outcome.", "البتّ في الطلبات المجهولة النتيجة."),
		"outcome list":               t("List them.", "سردها."),
		"outcome resolve":            t("Say whether one took effect.", "بيان هل نُفِّذ أحدها."),
		"outcome resolve --happened": t("It took effect (this, or --nothing).", "نُفِّذ (هذا أو --nothing)."),
		"outcome resolve --nothing":  t("It had no effect, and may be asked again (this, or --happened).", "لم يُنفَّذ، ويجوز طلبه من جديد (هذا أو --happened)."),

		"delivery":                     t("See asynchronous deliveries.", "الاطلاع على التسليم غير المتزامن."),
		"delivery list":                t("List deliveries of this node's clients.", "سرد تسليمات عملاء هذه العقدة."),
		"delivery list --conversation": t("Only those of this conversation.", "تسليمات هذه المحادثة فقط."),
		"delivery list --status":       t("Only those of this status: waiting, sending, blocked, answered, refused, expired, skipped.", "تسليمات هذه الحالة فقط: waiting أو sending أو blocked أو answered أو refused أو expired أو skipped."),
		"delivery skip":                t("Give a delivery up, so that its conversation goes on.", "تجاوز تسليم ليستمر ما بعده."),

		"doctor":       t("Say what is wrong with a node and what to do.", "بيان ما بالعقدة من خلل وما ينبغي فعله."),
		"doctor --all": t("Show what is right, too.", "عرض السليم أيضاً."),

		"node":                        t("Run one state's node.", "تشغيل عقدة دولة واحدة."),
		"secretariat":                 t("Run the union's secretariat.", "تشغيل الأمانة العامة للاتحاد."),
		"secretariat --data":          t("Folder of its keys and its copy of the directory.", "مجلد مفاتيحها ونسختها من الدليل."),
		"--listen":                    t("Address to listen on.", "عنوان الاستماع."),
		"secretariat --root":          t("The union's pinned root (default: root.json in the folder).", "جذر الثقة المثبّت للاتحاد (الافتراضي: root.json في المجلد)."),
		"secretariat --demonstration": t("Accept a demonstration union.", "قبول اتحاد تجريبي."),

		"registry":           t("Run a state's simulated registers as an HTTP service.", "تشغيل سجلات محاكاة لدولة كخدمة HTTP."),
		"registry <country>": t("The state.", "الدولة."),
		"registry --kind":    t("Which register: all, persons, vehicles, companies.", "أي سجل: all أو persons أو vehicles أو companies."),
		"registry --seed":    t("Seed of what is in it.", "بذرة محتواه."),

		"key":                 t("See and replace keys and certificates.", "الاطلاع على المفاتيح والشهادات واستبدالها."),
		"key list":            t("List the node's keys and their certificates.", "سرد مفاتيح العقدة وشهاداتها."),
		"key rotate":          t("Replace a key of a seal, of the link or of the time-stamp authority (tsa).", "استبدال مفتاح ختم أو ربط أو سلطة الطوابع الزمنية (tsa)."),
		"<name>":              t("Name of the key (falaj key list).", "اسم المفتاح (falaj key list)."),
		"key renew":           t("Renew what is due: certificates, revocation list, directory.", "تجديد ما حان موعده: الشهادات وقائمة الإلغاء والدليل."),
		"key revoke":          t("Revoke a certificate of this state.", "إلغاء شهادة من شهادات هذه الدولة."),
		"<sha256>":            t("SHA-256 of the certificate.", "بصمة SHA-256 للشهادة."),
		"key revoke --reason": t("Reason (RFC 5280): superseded, keyCompromise, cessationOfOperation, …", "السبب (RFC 5280): superseded أو keyCompromise أو cessationOfOperation…"),

		"approval":              t("Decide as the second person.", "البتّ بصفة الشخص الثاني."),
		"approval list":         t("List changes that wait, or waited.", "سرد التغييرات المنتظرة والسابقة."),
		"approval approve":      t("Agree to a change.", "الموافقة على تغيير."),
		"approval reject":       t("Reject a change.", "رفض تغيير."),
		"approval approve <id>": t("Number of the change.", "رقم التغيير."),
		"approval reject <id>":  t("Number of the change.", "رقم التغيير."),

		"audit":               t("See what was changed at a node.", "الاطلاع على ما تغيّر في العقدة."),
		"audit events":        t("List the catalogue of audit events.", "سرد فهرس أحداث التدقيق."),
		"audit changes":       t("List a day's changes.", "سرد تغييرات يوم."),
		"audit changes --day": t("The day, UTC (default: today).", "اليوم بالتوقيت العالمي (الافتراضي: اليوم)."),

		"evidence erase":          t("Erase a node's records of a call for good: only their leaves in the log stay. Takes two persons.", "محو قيود العقدة لطلب نهائياً: لا تبقى إلا أوراقها في سجل الشفافية. ويتطلب شخصين."),
		"evidence erase --client": t("Only the calls of this client.", "طلبات هذا العميل فقط."),
		"evidence erase --leaf":   t("Records by their leaves, where the id finds them no more; may be repeated.", "قيود بأوراقها حين لا يُعثر عليها بالمعرّف، ويمكن تكراره."),
		"hold":                    t("Keep records from being erased or ended, by law.", "حفظ قيود من المحو والإنهاء بحكم القانون."),
		"hold add":                t("Hold a retention class, one of its months, or the records of a call.", "حفظ فئة حفظ أو شهر منها أو قيود طلب."),
		"<hold>":                  t("Name of the hold: a word such as case-12.", "اسم أمر الحفظ: كلمة مثل case-12."),
		"hold add --class":        t("Retention class.", "فئة الحفظ."),
		"hold add --month":        t("Month of the class (default: every month).", "شهر من الفئة (الافتراضي: كل شهر)."),
		"hold add --id":           t("X-Road-Id of a call: the months of its records are held.", "المعرّف X-Road-Id لطلب: تُحفظ أشهر قيوده."),
		"hold list":               t("List the holds.", "سرد أوامر الحفظ."),
		"hold release":            t("End a hold. Takes two persons.", "رفع أمر حفظ. ويتطلب شخصين."),

		"journal":                   t("Look after the journal.", "العناية بسجل العقدة."),
		"journal archive":           t("Move the records of closed months into signed, encrypted files.", "نقل قيود الأشهر المنقضية إلى ملفات موقّعة ومشفّرة."),
		"journal archive --before":  t("Months before this one (default: before the present one).", "الأشهر السابقة لهذا الشهر (الافتراضي: ما قبل الشهر الحالي)."),
		"journal archive --compact": t("Then give the database's free space back to the disk; calls wait meanwhile.", "ثم إعادة المساحة الشاغرة في قاعدة البيانات إلى القرص، وتنتظر الطلبات في هذه الأثناء."),

		"fsck": t("Say whether everything that a node has stored is what it wrote; --config: of a node that does not run.", "بيان هل كل ما خزّنته العقدة هو ما كتبته، ومع --config: لعقدة متوقفة."),

		"backup":                t("Write a copy of the running node.", "حفظ نسخة من العقدة العاملة."),
		"<folder>":              t("Folder of the copy.", "مجلد النسخة."),
		"backup --without-keys": t("Leave the private keys out.", "دون المفاتيح الخاصة."),
		"restore":               t("Bring a copy into the empty place of a node.", "استعادة نسخة إلى موضع خالٍ لعقدة."),

		"bench":                        t("Measure what an exchange and its evidence cost.", "قياس كلفة التبادل وأدلته."),
		"bench exchange":               t("Measure two nodes beside two hops of a stock proxy, in this process.", "قياس عقدتين إلى جانب وسيطين عاديين متتاليين داخل هذه العملية."),
		"bench verify":                 t("Measure how many messages a second are checked from a folder of containers, on one processor.", "قياس عدد الرسائل التي يُتحقق منها في الثانية من مجلد حاويات على معالج واحد."),
		"bench verify --containers":    t("Containers, of one call each.", "عدد الحاويات، لكل طلب حاوية."),
		"bench verify --rounds":        t("Number of rounds; each reads all files anew.", "عدد الجولات، وتُقرأ الملفات كلها في كل جولة."),
		"bench verify --size":          t("Bytes of each request and each answer.", "حجم كل طلب وكل رد بالبايت."),
		"bench verify --data":          t("Folder to work in (default: the system's for temporary files).", "مجلد العمل (الافتراضي: مجلد الملفات المؤقتة في النظام)."),
		"bench casework":               t("Measure how many steps a second the cases of a whole demonstration union take.", "قياس عدد الخطوات في الثانية في معاملات اتحاد تجريبي كامل."),
		"bench casework --duration":    t("How long each phase takes.", "مدة كل مرحلة."),
		"bench casework --concurrency": t("Cases at work at a time, over all states.", "عدد المعاملات العاملة في آن واحد في جميع الدول."),
		"bench casework --states":      t("How many states take part.", "عدد الدول المشاركة."),
		"bench casework --data":        t("Folder on the disk to be measured (default: the system's for temporary files).", "مجلد على القرص المراد قياسه (الافتراضي: مجلد الملفات المؤقتة في النظام)."),
		"bench log":                    t("Measure how many records a second become durable in a log, and how soon another state has cosigned them.", "قياس عدد القيود التي تُحفظ في السجل في الثانية، وسرعة توقيع شاهد دولة أخرى عليها."),
		"bench log --duration":         t("How long to append.", "مدة الإلحاق."),
		"bench log --concurrency":      t("Records at a time.", "عدد القيود في آن واحد."),
		"bench log --size":             t("Bytes of each record's message.", "حجم رسالة كل قيد بالبايت."),
		"bench log --data":             t("Folder on the disk to be measured (default: the system's for temporary files).", "مجلد على القرص المراد قياسه (الافتراضي: مجلد الملفات المؤقتة في النظام)."),
		"bench exchange --duration":    t("Length of one round of each of the three.", "مدة الجولة الواحدة لكل من الثلاثة."),
		"bench exchange --rounds":      t("Number of rounds.", "عدد الجولات."),
		"bench exchange --concurrency": t("Connections at once.", "عدد الاتصالات المتزامنة."),
		"bench exchange --size":        t("Bytes of each request and each answer.", "حجم كل طلب وكل رد بالبايت."),
		"bench exchange --verify":      t("How nodes verify seals: standard or table (seal.verify).", "كيف تتحقق العقد من الأختام: standard أو table، كما في seal.verify."),
		"bench exchange --seal":        t("Each message sealed by itself, or many by one signature: single or batch.", "ختم كل رسالة وحدها أو رسائل كثيرة بتوقيع واحد: single أو batch."),
		"bench exchange --data":        t("Folder on the disk to be measured (default: the system's for temporary files).", "مجلد على القرص المراد قياسه (الافتراضي: مجلد الملفات المؤقتة في النظام)."),

		"version": t("Show the version of this binary.", "عرض إصدار هذا البرنامج."),
	}
}

// name gives every command, flag and argument its text in the person's
// language.
func (s *session) name(app *kong.Application) {
	texts := helpTexts()
	app.Help = s.say(texts["falaj"])
	everywhere := &kong.Group{Key: "everywhere", Title: s.say(t("Flags of every command:", "خيارات كل الأوامر:"))}
	for _, f := range app.Flags {
		f.Group = everywhere // so that a command's own stand by themselves, and first
	}
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
