package node

import (
	"github.com/falaj/falaj/internal/node/admin"
	"github.com/falaj/falaj/internal/node/config"
	"github.com/falaj/falaj/internal/union"
)

func t(en, ar string) union.Text { return union.Text{En: en, Ar: ar} }

// actions is the table of what the node's people may change. Two says that it
// touches keys or the directory, which takes two persons.
func (n *Node) actions() []admin.Action {
	officer := []config.Role{config.SecurityOfficer}
	registrar := []config.Role{config.Registrar}
	services := []config.Role{config.ServiceAdministrator}
	// What enters the directory a registrar may confirm, or ask for himself.
	offers := []config.Role{config.ServiceAdministrator, config.Registrar}
	return []admin.Action{
		{Name: "client.add", Event: "client.added", Text: t("Register a system that calls through this node.", "تسجيل نظام يتصل عبر هذه العقدة."),
			Roles: registrar, Two: true, Check: n.permitPush, Do: admin.Params(n.addClient)},
		{Name: "client.remove", Event: "client.removed", Text: t("Let a system call through this node no more.", "إلغاء اتصال نظام عبر هذه العقدة."),
			Roles: registrar, Two: true, Do: admin.Params(n.removeClient)},
		{Name: "service.add", Event: "service.added", Text: t("Offer a service to the union, or change it.", "إتاحة خدمة للاتحاد أو تعديلها."),
			Roles: offers, Two: true, Check: n.permit, Do: admin.Params(n.addService)},
		{Name: "service.move", Event: "service.moved", Text: t("Change where a service of this node really runs.", "تغيير موضع تشغيل إحدى خدمات هذه العقدة."),
			Roles: services, Check: n.permit, Do: admin.Params(n.moveService)},
		{Name: "service.remove", Event: "service.removed", Text: t("Offer a service no more.", "إلغاء إتاحة خدمة."),
			Roles: offers, Two: true, Do: admin.Params(n.removeService)},
		{Name: "service.adopt", Event: "service.adopted", Text: t("Take part in a version of a joint service from a day on.", "المشاركة في إصدار من خدمة مشتركة ابتداءً من يوم محدد."),
			Roles: offers, Two: true, Do: admin.Params(n.adoptService)},
		{Name: "access.grant", Event: "access.granted", Text: t("Let a client call a service for stated purposes.", "السماح لعميل بطلب خدمة لأغراض محددة."),
			Roles: offers, Two: true, Do: admin.Params(n.grant)},
		{Name: "access.revoke", Event: "access.revoked", Text: t("Take a grant back.", "سحب إذن."),
			Roles: offers, Two: true, Do: admin.Params(n.revoke)},
		{Name: "policy.set", Event: "policy.set", Text: t("Publish the state's own rules (Cedar).", "نشر قواعد الدولة (Cedar)."),
			Roles: officer, Two: true, Do: admin.Params(n.setPolicy)},
		{Name: "key.rotate", Event: "key.rotated", Text: t("Replace a key of a seal or of the link, and publish its certificate.", "استبدال مفتاح ختم أو ربط ونشر شهادته."),
			Roles: officer, Two: true, Do: admin.Params(n.rotateKey)},
		{Name: "key.renew", Event: "key.renewed", Text: t("Renew what is due: certificates, revocation list, the directory's signatures.", "تجديد ما حان موعده: الشهادات وقائمة الإلغاء وتواقيع الدليل."),
			Roles: officer, Two: true, Do: admin.Params(n.renewDue)},
		{Name: "certificate.revoke", Event: "certificate.revoked", Text: t("Revoke a certificate of this state.", "إلغاء شهادة من شهادات هذه الدولة."),
			Roles: officer, Two: true, Do: admin.Params(n.revokeCertificate)},
		{Name: "log.open", Event: "log.opened", Text: t("Give this state a log and a witness where it has none, and say where everybody reads them.", "منح هذه الدولة سجل شفافية وشاهداً إن لم يكونا لها، وتحديد موضع اطلاع الجميع عليهما."),
			Roles: officer, Two: true, Do: admin.Params(n.openPublic)},
		{Name: "log.renew", Event: "log.renewed", Text: t("Go on as a new log, after the database was restored from an old copy.", "المتابعة بسجل شفافية جديد بعد استعادة قاعدة البيانات من نسخة قديمة."),
			Roles: officer, Two: true, Do: admin.Params(n.renewLog)},
		{Name: "trace.delay", Event: "trace.delayed", Text: t("Set how many days later persons hear of calls for a purpose, as the law has it.", "تحديد عدد الأيام التي يُؤجَّل بعدها إطلاع أصحاب البيانات على طلبات غرض ما، بحسب القانون."),
			Roles: officer, Two: true, Do: admin.Params(n.setDelay)},
		{Name: "log.mldsa", Event: "log.mldsa.set", Text: t("Let this state's witness cosign with ML-DSA-44 as well, or no more.", "توقيع شاهد هذه الدولة بخوارزمية ML-DSA-44 أيضاً أو الكف عنه."),
			Roles: officer, Two: true, Do: admin.Params(n.setQuantum)},
		{Name: "seal.batch", Event: "seal.batch.set", Text: t("Let one signature of this state seal many messages to states that allow it too, or no more.", "ختم رسائل كثيرة بتوقيع واحد إلى الدول التي تقبل ذلك، أو الكف عنه."),
			Roles: officer, Two: true, Do: admin.Params(n.setBatch)},
		{Name: "directory.refresh", Event: "directory.refreshed", Text: t("Fetch the newest directory now.", "جلب أحدث نسخة من الدليل الآن."),
			Roles: registrar, Do: admin.Params(n.refreshDirectory)},
		{Name: "directory.install", Event: "directory.installed", Text: t("Bring a change of the union into force that its states have signed.", "إنفاذ تغيير في الاتحاد وقّعته دوله."),
			Roles: officer, Two: true, Do: admin.Params(n.installDraft)},
		{Name: "outcome.resolve", Event: "outcome.resolved", Text: t("Decide whether a call of unknown outcome took effect.", "البتّ في نفاذ طلب مجهول النتيجة."),
			Roles: services, Do: admin.Params(n.resolveOutcome)},
		{Name: "delivery.skip", Event: "delivery.skipped", Text: t("Give up a delivery, so that its conversation goes on.", "تجاوز تسليم ليستمر ما بعده."),
			Roles: services, Do: admin.Params(n.skipDelivery)},
		{Name: "case.reconcile", Event: "case.reconciled", Text: t("Compare cases with the other states' halves, and send again what is missing there.", "مقارنة المعاملات بشقوق الدول الأخرى، وإعادة إرسال ما ينقصها."),
			Roles: services, Do: admin.Params(n.reconcileCases)},
		{Name: "evidence.erase", Event: "evidence.erased", Text: t("Erase records for good; only their leaves in the log stay.", "محو قيود نهائياً، ولا تبقى إلا أوراقها في سجل الشفافية."),
			Roles: officer, Two: true, Check: n.mayErase, Do: admin.Params(n.erase)},
		{Name: "hold.add", Event: "hold.added", Text: t("Keep records from being erased or ended, by law.", "حفظ قيود من المحو والإنهاء بحكم القانون."),
			Roles: officer, Do: admin.Params(n.addHold)},
		{Name: "hold.release", Event: "hold.released", Text: t("End a legal hold.", "رفع أمر حفظ قانوني."),
			Roles: officer, Two: true, Do: admin.Params(n.releaseHold)},
		{Name: "journal.archive", Event: "journal.archived", Text: t("Move the records of closed months into signed files.", "نقل قيود الأشهر المنقضية إلى ملفات موقّعة."),
			Roles: officer, Do: admin.Params(n.archive)},
		{Name: "backup", Event: "node.backed-up", Text: t("Write a copy of the node's data and keys.", "حفظ نسخة احتياطية من بيانات العقدة ومفاتيحها."),
			Roles: officer, Two: true, Do: admin.Params(n.backup)},
	}
}

// queries is the table of what they may ask.
func (n *Node) queries() []admin.Query {
	auditors := []config.Role{config.Auditor, config.SecurityOfficer}
	return []admin.Query{
		{Name: "node", Text: t("This node: state, version, doors.", "هذه العقدة: الدولة والإصدار والأبواب."), Do: n.describe},
		{Name: "health", Text: t("What is wrong with the node.", "ما بالعقدة من خلل."), Do: n.examine},
		{Name: "clients", Text: t("Systems that call through this node.", "الأنظمة المتصلة عبر هذه العقدة."), Do: n.listClients},
		{Name: "services", Text: t("Services of this state.", "خدمات هذه الدولة."), Do: n.listServices},
		{Name: "access", Text: t("Who may call this state's services.", "من يحق له طلب خدمات هذه الدولة."), Do: n.listAccess},
		{Name: "purposes", Text: t("The union's purposes.", "أغراض الاتحاد."), Do: n.listPurposes},
		{Name: "policy", Text: t("Who decides a call, and how.", "من يبتّ في طلب وكيف."), Do: n.explain},
		{Name: "directory", Text: t("The directory in force.", "الدليل الساري."), Do: n.showDirectory},
		{Name: "keys", Text: t("Keys and certificates of this node.", "مفاتيح هذه العقدة وشهاداتها."), Roles: auditors, Do: n.listKeys},
		{Name: "evidence", Text: t("What both sides hold of a call.", "ما لدى الطرفين عن طلب."), Roles: auditors, Do: n.showEvidence},
		{Name: "container", Text: t("What proves a call, as a file for others.", "ما يثبت طلباً، ملفاً يُسلَّم للغير."), Roles: auditors, Do: n.packEvidence},
		{Name: "receipt", Text: t("What proves that a call's records are in the log.", "ما يثبت أن قيود طلب مدرجة في سجل الشفافية."), Roles: auditors, Do: n.showReceipt},
		{Name: "logs", Text: t("The states' logs and their witnesses.", "سجلات الشفافية للدول وشهودها."), Do: n.listLogs},
		{Name: "heads", Text: t("What the states' witnesses have seen of their logs.", "ما رآه شهود الدول من سجلات الشفافية."), Do: n.listHeads},
		{Name: "alarms", Text: t("What states hold against each other's logs.", "ما تأخذه الدول على سجلات شفافية بعضها."), Roles: auditors, Do: n.listAlarms},
		{Name: "verification", Text: t("Whether the evidence of a call holds.", "هل تصح أدلة طلب."), Roles: auditors, Do: n.verifyEvidence},
		{Name: "trace", Text: t("Who asked what about a person.", "من طلب بيانات شخص وماذا طلب."), Roles: auditors, Ask: n.showTrace},
		{Name: "delays", Text: t("Purposes of which persons hear later.", "الأغراض التي يُؤجَّل إطلاع أصحاب البيانات عليها."), Do: n.listDelays},
		{Name: "outcomes", Text: t("Calls of unknown outcome.", "الطلبات المجهولة النتيجة."), Do: n.listOutcomes},
		{Name: "deliveries", Text: t("Deliveries of this node's clients.", "تسليمات عملاء هذه العقدة."), Do: n.listDeliveries},
		{Name: "holds", Text: t("Legal holds.", "أوامر الحفظ القانونية."), Roles: auditors, Do: n.listHolds},
		{Name: "fsck", Text: t("Whether everything stored is what was written.", "هل كل ما خُزّن هو ما كُتب."), Roles: auditors, Do: n.fsck},
		{Name: "events", Text: t("The catalogue of audit events.", "فهرس أحداث التدقيق."), Do: n.listEvents},
		{Name: "changes", Text: t("What was changed here on a day.", "ما تغيّر هنا في يوم معيّن."), Roles: auditors, Do: n.listChanges},
	}
}
