package fault

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/falaj/falaj/internal/union"
)

// The codes, by the room that raises them.
const (
	Internal Code = "internal"
	Timeout  Code = "timeout"

	// The edge: what a client sent.
	BadRequest         Code = "request.malformed"
	BadIdentifier      Code = "request.identifier"
	BadPath            Code = "request.path"
	BadHeader          Code = "request.header"
	RepeatedHeader     Code = "request.header.repeated"
	MissingClient      Code = "request.client.missing"
	UnknownClient      Code = "request.client.unknown"
	ClientNotAuthentic Code = "request.client.authentication"
	TooLarge           Code = "request.too-large"
	MethodNotAllowed   Code = "request.method"
	BodyTruncated      Code = "request.body.truncated"
	MissingPurpose     Code = "request.purpose.missing"
	UnknownPurpose     Code = "request.purpose.unknown"
	IDConflict         Code = "request.id.conflict"
	InFlight           Code = "request.id.in-flight"
	AnswerGone         Code = "request.id.answer-gone"
	NotFound           Code = "not-found"

	// Directory.
	UnknownService    Code = "directory.service.unknown"
	UnknownState      Code = "directory.state.unknown"
	DirectoryExpired  Code = "directory.expired"
	DirectoryInvalid  Code = "directory.invalid"
	DirectoryConflict Code = "directory.conflict"
	DirectoryUnsigned Code = "directory.unsigned"
	DirectoryUnknown  Code = "directory.version"
	CertUnknown       Code = "certificate.unknown"
	CertRevoked       Code = "certificate.revoked"
	CertExpired       Code = "certificate.expired"

	// Policy.
	PolicyDenied Code = "policy.denied"

	// Seals and messages.
	SealInvalid      Code = "seal.invalid"
	SealExpired      Code = "seal.expired"
	SealNotYetValid  Code = "seal.not-yet-valid"
	MessageMalformed Code = "message.malformed"
	MessageMismatch  Code = "message.mismatch"
	MessageReplayed  Code = "message.replayed"

	// Delivery.
	PeerUnreachable   Code = "peer.unreachable"
	PeerRefused       Code = "peer.refused"
	BackendFailed     Code = "backend.failed"
	BackendTimeout    Code = "backend.timeout"
	BackendRefused    Code = "backend.address"
	ServiceDisabled   Code = "service.disabled"
	OutcomeUnknown    Code = "outcome.unknown"
	OutcomeDone       Code = "outcome.done"
	DeliveryPending   Code = "delivery.pending"
	DeliveryExpired   Code = "delivery.expired"
	DeliverySkipped   Code = "delivery.skipped"
	Overloaded        Code = "node.overloaded"
	Draining          Code = "node.draining"
	StoreFailed       Code = "node.store"
	DiskFull          Code = "node.disk-full"
	Corrupt           Code = "node.corrupt"
	PortTaken         Code = "node.port-taken"
	NotAllowed        Code = "admin.not-allowed"
	NeedsSecondPerson Code = "admin.second-person"
	Conflict          Code = "admin.conflict"
	ConfigInvalid     Code = "config.invalid"
	DemoRefused       Code = "config.demonstration"
	SpoolElsewhere    Code = "config.spool"

	// Evidence.
	ReceiptPending Code = "evidence.receipt.pending"
	LogDivided     Code = "evidence.log.divided"
	Archived       Code = "evidence.archived"
	Held           Code = "evidence.held"
	StampPending   Code = "evidence.stamp.pending"
	StampInvalid   Code = "evidence.stamp.invalid"
	StampAging     Code = "evidence.stamp.aging"
	ClockDoubtful  Code = "evidence.clock.doubtful"
	LogAlarm       Code = "evidence.log.alarm"
	LogUnsigned    Code = "evidence.log.unsigned"
	LogUnreadable  Code = "evidence.log.unreadable"

	// Casework.
	CaseUnknown Code = "case.unknown"
	CaseActor   Code = "case.actor"
	CaseInvalid Code = "case.invalid"
	CaseRefused Code = "case.refused"
	CaseClosed  Code = "case.closed"
	CaseVersion Code = "case.version"
	CaseDiffers Code = "case.differs"

	// The ledger.
	BookedOtherwise Code = "ledger.conflict"
	QuoteExpired    Code = "ledger.quote"
	AmountRefused   Code = "ledger.amount"

	// The command line.
	Usage     Code = "cli.usage"
	File      Code = "cli.file"
	NoNode    Code = "cli.node"
	OutOfTime Code = "cli.timeout"
)

// The prefixes of X-Road's error types: who is at fault, the client, its own
// state's node or the serving state's.
const (
	client   = "Client."
	consumer = "Server.ClientProxy."
	provider = "Server.ServerProxy."
)

func t(en, ar string) union.Text { return union.Text{En: en, Ar: ar} }

// Lookup gives the entry of a code. A code that the catalogue lacks reads as
// Internal: a test keeps that from happening.
func Lookup(code Code) Entry {
	all := catalogue()
	if e, ok := all[code]; ok {
		return e
	}
	return all[Internal]
}

// All gives every entry, ordered by code: for documents and tests.
func All() []Entry {
	all := catalogue()
	return slices.SortedFunc(maps.Values(all), func(a, b Entry) int { return strings.Compare(string(a.Code), string(b.Code)) })
}

var catalogue = sync.OnceValue(func() map[Code]Entry {
	m := map[Code]Entry{}
	for _, e := range entries() {
		m[e.Code] = e
	}
	return m
})

// entries is the catalogue. X-Road's protocol knows only 400 and 500 for its
// own faults, and its names are used where it has one; 503 tells a client that
// waiting helps. Codes that never answer a call under /r1 have the status that
// HTTP means for them.
func entries() []Entry {
	return []Entry{
		{Internal, provider + "InternalError", 500,
			t("The node met an error of its own.", "واجهت العقدة خطأً داخلياً."),
			t("Try again; if it happens again, give the operator the support number.", "أعد المحاولة، فإن تكرر الخطأ فأبلغ المشغّل برقم الدعم.")},
		{Timeout, consumer + "Timeout", 500,
			t("The call took longer than it may.", "استغرق الطلب وقتاً أطول من المسموح به."),
			t("Ask for the outcome with the same X-Road-Id before you repeat the call.", "استعلم عن النتيجة بالمعرّف X-Road-Id نفسه قبل أن تعيد الطلب.")},

		// The edge.
		{BadRequest, client + "BadRequest", 400,
			t("The request is malformed.", "الطلب غير سليم الصياغة."),
			t("Correct the request as the detail says and send it again.", "صحّح الطلب وفق التفاصيل المذكورة ثم أعد إرساله.")},
		{BadIdentifier, client + "InvalidIdentifier", 400,
			t("An identifier in the request is malformed.", "في الطلب معرّف غير صحيح الصيغة."),
			t("Write a service as state/class/member/subsystem/service and a client without the last part, each part percent-encoded.", "اكتب الخدمة على الصورة: الدولة/الفئة/الجهة/النظام/الخدمة، والعميل بلا الجزء الأخير، مع ترميز كل جزء بعلامة النسبة المئوية.")},
		{BadPath, client + "InvalidPath", 400,
			t("The path of the request is not allowed.", "مسار الطلب غير مسموح به."),
			t("Use a plain path: no dot segments, no encoded slashes, valid percent-encoding.", "استخدم مساراً صريحاً خالياً من المقطعين «.» و«..» ومن الشرطات المائلة المرمّزة، ومرمّزاً ترميزاً صحيحاً.")},
		{BadHeader, client + "InvalidHeader", 400,
			t("A header of the request is malformed or not allowed.", "إحدى ترويسات الطلب غير سليمة أو غير مسموح بها."),
			t("Correct or remove the header that the detail names.", "صحّح الترويسة المذكورة في التفاصيل أو احذفها.")},
		{RepeatedHeader, client + "DuplicateHeader", 400,
			t("A header that may stand only once is repeated.", "تكررت ترويسة لا يجوز أن ترد أكثر من مرة."),
			t("Send the header that the detail names once.", "أرسل الترويسة المذكورة في التفاصيل مرة واحدة فقط.")},
		{MissingClient, client + "MissingHeader", 400,
			t("The request does not say which system is calling.", "لم يحدّد الطلب النظام المتصل."),
			t("Send the X-Road-Client header: state/class/member/subsystem.", "أرسل الترويسة X-Road-Client على الصورة: الدولة/الفئة/الجهة/النظام.")},
		{UnknownClient, client + "UnknownClient", 400,
			t("The calling system is not registered.", "النظام المتصل غير مسجّل."),
			t("Check its identifier (the X-Road-Client header), or have its state's registrar register it.", "تحقق من معرّفه (الترويسة X-Road-Client)، أو اطلب من مسؤول التسجيل في دولته تسجيله.")},
		{ClientNotAuthentic, consumer + "SslAuthenticationFailed", 500,
			t("The calling system did not prove who it is.", "لم يُثبت النظام المتصل هويته."),
			t("Connect over HTTPS with the client certificate that is registered for the system.", "اتصل عبر HTTPS بشهادة العميل المسجّلة لهذا النظام.")},
		{TooLarge, client + "TooLarge", 400,
			t("The request is larger than the node accepts.", "حجم الطلب أكبر مما تقبله العقدة."),
			t("Send less, or divide it into several requests.", "قلّل الحجم أو قسّمه على عدة طلبات.")},
		{MethodNotAllowed, client + "MethodNotAllowed", 400,
			t("The method is not allowed here.", "طريقة الطلب (HTTP method) غير مسموح بها هنا."),
			t("Use one of the methods that the service describes.", "استخدم إحدى الطرائق الواردة في وصف الخدمة.")},
		{BodyTruncated, client + "BodyTruncated", 400,
			t("The body ended before its announced length.", "انتهى محتوى الطلب قبل بلوغ الطول المعلن."),
			t("Send the whole request again.", "أعد إرسال الطلب كاملاً.")},
		{MissingPurpose, client + "MissingPurpose", 400,
			t("The request does not say for which purpose it is made.", "لم يذكر الطلب الغرض الذي قُدّم من أجله."),
			t("Send the Falaj-Purpose header with a code from the directory's list.", "أرسل الترويسة Falaj-Purpose برمز من قائمة الأغراض في الدليل.")},
		{UnknownPurpose, client + "UnknownPurpose", 400,
			t("The union's directory does not know this purpose.", "هذا الغرض غير معروف في دليل الاتحاد."),
			t("Use a code from the directory's list of purposes.", "استخدم رمزاً من قائمة الأغراض في الدليل.")},
		{IDConflict, client + "IdConflict", 400,
			t("This X-Road-Id was used before for another request.", "سبق استخدام المعرّف X-Road-Id هذا لطلب آخر."),
			t("Use a new X-Road-Id for each new request.", "استخدم معرّف X-Road-Id جديداً لكل طلب جديد.")},
		{AnswerGone, client + "AnswerGone", 400,
			t("This request was answered before, and the body of the answer was not kept.", "سبق الرد على هذا الطلب، ولم يُحتفظ بمحتوى الرد."),
			t("Ask again with a new X-Road-Id.", "أعد الطلب بمعرّف X-Road-Id جديد.")},
		{InFlight, client + "InFlight", 400,
			t("A request with this X-Road-Id is still being processed.", "ما زال طلب بالمعرّف X-Road-Id نفسه قيد المعالجة."),
			t("Wait, then ask again with the same X-Road-Id.", "انتظر ثم أعد السؤال بالمعرّف X-Road-Id نفسه.")},
		{NotFound, client + "NotFound", 404,
			t("There is nothing here under this name.", "لا يوجد شيء بهذا الاسم هنا."),
			t("Check the address or the identifier.", "تحقق من العنوان أو المعرّف.")},

		// Directory.
		{UnknownService, consumer + "UnknownService", 500,
			t("The directory knows no such service.", "لا يعرف الدليل خدمة بهذا الاسم."),
			t("Check its identifier with listMethods, or ask the serving state to publish it.", "تحقق من معرّفها عبر listMethods، أو اطلب من الدولة المقدِّمة نشرها.")},
		{UnknownState, consumer + "UnknownMember", 500,
			t("The state or member is not part of this union.", "الدولة أو الجهة ليست عضواً في هذا الاتحاد."),
			t("Check the first parts of the identifier with listClients.", "تحقق من الأجزاء الأولى من المعرّف عبر listClients.")},
		{DirectoryExpired, consumer + "OutdatedGlobalConf", 500,
			t("The node's copy of the directory has expired; it refuses calls until it has a newer one.", "انتهت صلاحية نسخة الدليل لدى العقدة، وهي ترفض الطلبات إلى أن تحصل على نسخة أحدث."),
			t("The operator should restore the node's way to its peers or to the secretariat.", "على المشغّل إعادة اتصال العقدة بالعقد الأخرى أو بالأمانة العامة.")},
		{DirectoryInvalid, consumer + "InvalidGlobalConf", 500,
			t("The directory does not verify.", "تعذّر التحقق من صحة الدليل."),
			t("Nothing of it was taken over. The operator should find out who signed it.", "لم يُعتمد شيء منه. على المشغّل معرفة الجهة التي وقّعته.")},
		{DirectoryConflict, client + "DirectoryConflict", 409,
			t("The directory changed in the meantime.", "تغيّر الدليل في هذه الأثناء."),
			t("Fetch the newest version and make the change again.", "اجلب أحدث نسخة ثم أعد إجراء التغيير.")},
		{DirectoryUnsigned, consumer + "DirectoryUnsigned", 500,
			t("No second party signed the new version of the directory; the old one stays in force.", "لم يوقّع طرف ثانٍ الإصدار الجديد من الدليل، ويبقى القديم سارياً."),
			t("It takes the secretariat or another state's node: try again when one of them can be reached; falaj doctor tells.", "يلزم توقيع الأمانة العامة أو عقدة دولة أخرى: أعد المحاولة متى أمكن الوصول إلى إحداها، والأمر falaj doctor يبيّن ذلك.")},
		{DirectoryUnknown, provider + "OutdatedGlobalConf", 500,
			t("A message names a version of the directory that the receiving node does not hold.", "رسالة تسمي إصداراً من الدليل ليس لدى العقدة المستقبِلة."),
			t("Ask again in a minute, with the same X-Road-Id; if it goes on, the operators of both nodes should compare the versions that falaj directory shows.", "أعد السؤال بعد دقيقة بالمعرّف X-Road-Id نفسه، فإن استمر الأمر فعلى مشغّلي العقدتين مقارنة الإصدارين اللذين يعرضهما الأمر falaj directory.")},
		{CertUnknown, provider + "UnknownCertificate", 500,
			t("The directory knows no such certificate.", "لا يعرف الدليل هذه الشهادة."),
			t("The certificate's owner should register it with the state's authority.", "على صاحب الشهادة تسجيلها لدى سلطة التصديق في دولته.")},
		{CertRevoked, provider + "CertificateRevoked", 500,
			t("The certificate has been revoked.", "أُلغيت هذه الشهادة."),
			t("The certificate's owner should obtain a new one.", "على صاحب الشهادة استصدار شهادة جديدة.")},
		{CertExpired, provider + "CertificateExpired", 500,
			t("The certificate is outside its period of validity.", "الشهادة خارج مدة صلاحيتها."),
			t("The certificate's owner should renew it; check the clocks of both nodes.", "على صاحب الشهادة تجديدها، مع التحقق من ساعة كلتا العقدتين.")},

		// Policy.
		{PolicyDenied, provider + "AccessDenied", 500,
			t("The rules of one of the two states do not allow this call.", "قواعد إحدى الدولتين لا تسمح بهذا الطلب."),
			t("See the named rules with falaj policy explain, or ask the serving state for an agreement.", "اطّلع على القواعد المعنية بالأمر falaj policy explain، أو اطلب اتفاقاً من الدولة المقدِّمة للخدمة.")},

		// Seals and messages.
		{SealInvalid, provider + "InvalidSignatureValue", 500,
			t("The seal does not fit the message.", "الختم لا يطابق الرسالة."),
			t("Nothing was done. The operators of both nodes should compare their evidence.", "لم يُنفَّذ شيء. على مشغّلي العقدتين مقارنة ما لديهما من أدلة.")},
		{SealExpired, provider + "SealExpired", 500,
			t("The message is past its time.", "انقضت مدة صلاحية الرسالة."),
			t("Send the request anew; check the clocks of both nodes.", "أرسل الطلب من جديد، وتحقق من ساعة كلتا العقدتين.")},
		{SealNotYetValid, provider + "SealNotYetValid", 500,
			t("The message's time lies in the future.", "وقت الرسالة لم يحن بعد."),
			t("Check the clocks of both nodes.", "تحقق من ساعة كلتا العقدتين.")},
		{MessageMalformed, provider + "InvalidMessage", 500,
			t("A message between the nodes is malformed.", "إحدى الرسائل المتبادلة بين العقدتين غير سليمة الصياغة."),
			t("Nothing was done. The operators should compare the versions of both nodes.", "لم يُنفَّذ شيء. على المشغّلين مقارنة إصدارَي العقدتين.")},
		{MessageMismatch, provider + "InconsistentMessage", 500,
			t("The message does not belong to this sender, receiver or request.", "الرسالة لا تخص هذا المرسِل أو المستقبِل أو الطلب."),
			t("Nothing was done. The operators of both nodes should compare their evidence.", "لم يُنفَّذ شيء. على مشغّلي العقدتين مقارنة ما لديهما من أدلة.")},
		{MessageReplayed, provider + "MessageReplayed", 500,
			t("This message has been received before.", "سبق استلام هذه الرسالة."),
			t("Nothing was done again. Send a new request under a new X-Road-Id.", "لم يُنفَّذ شيء مرة أخرى. أرسل طلباً جديداً بمعرّف X-Road-Id جديد.")},

		// Delivery.
		{PeerUnreachable, consumer + "NetworkError", 500,
			t("The other state's node cannot be reached.", "تعذّر الوصول إلى عقدة الدولة الأخرى."),
			t("Try again later, or use asynchronous delivery; the attempt stays in evidence as unanswered.", "أعد المحاولة لاحقاً أو استخدم التسليم غير المتزامن، وتبقى المحاولة في سجل الأدلة بلا جواب.")},
		{PeerRefused, consumer + "PeerRefused", 500,
			t("The other state's node refused the connection or the message.", "رفضت عقدة الدولة الأخرى الاتصال أو الرسالة."),
			t("The operators of both nodes should compare certificates and versions.", "على مشغّلي العقدتين مقارنة الشهادات والإصدارات.")},
		{BackendFailed, provider + "ServiceFailed", 500,
			t("The service behind the other node did not answer properly.", "لم تُجب الخدمة القائمة خلف العقدة الأخرى إجابة سليمة."),
			t("Try again later; if it happens again, tell the serving member.", "أعد المحاولة لاحقاً، فإن تكرر الأمر فأبلغ الجهة المقدِّمة للخدمة.")},
		{BackendTimeout, provider + "ServiceTimeout", 500,
			t("The service behind the other node did not answer in time.", "لم تُجب الخدمة القائمة خلف العقدة الأخرى في الوقت المحدد."),
			t("It may have taken effect: ask with the same X-Road-Id before you repeat the call.", "ربما نُفِّذ الطلب: استعلم بالمعرّف X-Road-Id نفسه قبل أن تعيده.")},
		{BackendRefused, provider + "ServiceAddressRefused", 500,
			t("The service's address is one that the node does not call.", "عنوان الخدمة من العناوين التي لا تتصل بها العقدة."),
			t("The service's administrator should correct the address or allow it in the configuration.", "على مسؤول الخدمة تصحيح العنوان أو السماح به في الإعدادات.")},
		{ServiceDisabled, provider + "ServiceDisabled", 500,
			t("The service is switched off.", "الخدمة متوقفة حالياً."),
			t("Try again later, or ask the serving member when it returns.", "أعد المحاولة لاحقاً، أو اسأل الجهة المقدِّمة عن موعد عودتها.")},
		{OutcomeUnknown, provider + "OutcomeUnknown", 500,
			t("It is not known whether the call took effect; it is not repeated.", "لا يُعرف هل نُفِّذ الطلب أم لا، ولن يُعاد تنفيذه تلقائياً."),
			t("The serving state decides it with falaj outcome; ask later with the same X-Road-Id.", "تبتّ الدولة المقدِّمة فيه بالأمر falaj outcome، فاستعلم لاحقاً بالمعرّف X-Road-Id نفسه.")},
		{OutcomeDone, provider + "OutcomeDone", 500,
			t("The serving state has decided that this call took effect; its answer is not known.", "قرّرت الدولة المقدِّمة أن هذا الطلب قد نُفِّذ، وجوابه غير معروف."),
			t("Do not send it again under another X-Road-Id; ask the serving member for what came of it.", "لا تُعد إرساله بمعرّف X-Road-Id آخر، واسأل الجهة المقدِّمة عن نتيجته.")},
		{DeliveryPending, client + "DeliveryPending", 409,
			t("The call has been accepted and has no answer yet.", "قُبل الطلب ولم يرد جوابه بعد."),
			t("Wait as long as Retry-After says, then ask again.", "انتظر المدة المبيّنة في الترويسة Retry-After ثم استعلم مرة أخرى.")},
		{DeliveryExpired, consumer + "DeliveryExpired", 500,
			t("The call could not be delivered in the time that it was valid.", "تعذّر تسليم الطلب خلال مدة صلاحيته."),
			t("It may have taken effect if an attempt reached the other node: repeat it under the same X-Road-Id.", "ربما نُفِّذ إن بلغت إحدى المحاولات العقدة الأخرى: أعده بالمعرّف X-Road-Id نفسه.")},
		{DeliverySkipped, consumer + "DeliverySkipped", 500,
			t("The delivery was ended by a decision, so that what waited behind it could go on.", "أُنهي التسليم بقرار ليتابع ما كان ينتظر خلفه."),
			t("The node's operator knows the reason; if the call is still wanted, repeat it under the same X-Road-Id.", "السبب لدى مشغّل العقدة؛ وإن كان الطلب لا يزال مطلوباً فأعده بالمعرّف X-Road-Id نفسه.")},
		{Overloaded, consumer + "Overloaded", 503,
			t("The node has more work than it can take.", "الحمل على العقدة يفوق طاقتها."),
			t("Wait as long as Retry-After says, then try again.", "انتظر المدة المبيّنة في الترويسة Retry-After ثم أعد المحاولة.")},
		{Draining, consumer + "ShuttingDown", 503,
			t("The node is being shut down and takes no new calls.", "يجري إيقاف العقدة، وهي لا تقبل طلبات جديدة."),
			t("Wait as long as Retry-After says, then try again.", "انتظر المدة المبيّنة في الترويسة Retry-After ثم أعد المحاولة.")},
		{StoreFailed, consumer + "DatabaseError", 500,
			t("The node could not write or read its journal.", "تعذّر على العقدة الكتابة في سجلّها أو القراءة منه."),
			t("Nothing leaves without evidence: the operator should see to the database first.", "لا يخرج شيء بلا دليل: على المشغّل إصلاح قاعدة البيانات أولاً.")},
		{Corrupt, consumer + "DatabaseError", 500,
			t("What the node stored is no longer what it wrote.", "ما خزّنته العقدة لم يعد مطابقاً لما كتبته."),
			t("The node's operator compares the journal with a backup before anything else.", "يقارن مشغّل العقدة السجل بنسخة احتياطية قبل أي شيء آخر.")},
		{PortTaken, client + "PortTaken", 409,
			t("Another program listens on a port that is needed here.", "يستمع برنامج آخر على منفذ مطلوب هنا."),
			t("End that program, or choose another port as the detail says.", "أوقف ذلك البرنامج، أو اختر منفذاً آخر وفق التفاصيل المذكورة.")},
		{DiskFull, consumer + "DiskFull", 503,
			t("The node's disk is full.", "امتلأ قرص التخزين في العقدة."),
			t("Nothing leaves without evidence: the operator should make room first.", "لا يخرج شيء بلا دليل: على المشغّل توفير مساحة أولاً.")},

		// Administration and configuration.
		{NotAllowed, client + "NotAllowed", 403,
			t("Your role does not allow this.", "دورك لا يسمح بهذا الإجراء."),
			t("Ask someone with the role that the detail names.", "اطلبه ممن يحمل الدور المذكور في التفاصيل.")},
		{NeedsSecondPerson, client + "NeedsSecondPerson", 403,
			t("This takes two persons.", "يتطلب هذا الإجراء شخصين."),
			t("Have a second authorised person confirm it.", "اطلب من شخص ثانٍ مخوَّل تأكيده.")},
		{Conflict, client + "Conflict", 409,
			t("It conflicts with what is already there.", "يتعارض هذا مع ما هو موجود فعلاً."),
			t("Look at the present state, then decide again.", "اطّلع على الوضع الحالي ثم قرّر من جديد.")},
		{ConfigInvalid, client + "InvalidConfiguration", 400,
			t("The configuration is not valid.", "الإعدادات غير صحيحة."),
			t("Correct what the detail names; falaj config check tells whether it is right.", "صحّح ما ورد في التفاصيل، ثم تحقق بالأمر falaj config check.")},
		{DemoRefused, client + "DemonstrationRefused", 400,
			t("A demonstration's root, key or PIN is refused here.", "يُرفض هنا جذر الثقة أو المفتاح أو الرمز السري الخاص بالعرض التجريبي."),
			t("Use your union's own, or start as a demonstration: a command with --demonstration, a node with demonstration: true in its configuration.", "استخدم ما يخص اتحادك، أو شغّل في وضع العرض التجريبي: الأمر بالخيار --demonstration، والعقدة بالإعداد demonstration: true.")},
		{SpoolElsewhere, client + "InvalidConfiguration", 409,
			t("The spool folder is not the one in which this database's large bodies lie.", "مجلد المخزن المؤقت ليس المجلد الذي تُحفظ فيه المحتويات الكبيرة لقاعدة البيانات هذه."),
			t("Name with the setting spool the one folder that all processes of the node share; where it is lost, docs/operations.md tells how to go on.", "حدّد بالإعداد spool المجلد الواحد الذي تشترك فيه جميع عمليات العقدة، وإن فُقد فطريقة المتابعة مبيّنة في docs/operations.md.")},

		// Evidence.
		{ReceiptPending, client + "ReceiptPending", 409,
			t("The record is kept; the other states' witnesses have not yet cosigned a head of the log above it.", "القيد محفوظ، ولم يوقّع شهود الدول الأخرى بعد على رأس لسجل الشفافية يشمله."),
			t("Wait as long as Retry-After says, then ask again.", "انتظر المدة المبيّنة في الترويسة Retry-After ثم استعلم مرة أخرى.")},
		{LogDivided, provider + "LogDivided", 500,
			t("A log is not the one that was shown before: entries are missing or are others.", "سجل الشفافية ليس الذي عُرض من قبل: فيه قيود مفقودة أو مبدَّلة."),
			t("Keep everything as it is. If the log's database was restored from an old copy, the log goes on under a new name (falaj log renew); if not, its operators have to answer for it.", "أبقِ كل شيء على حاله. فإن كانت قاعدة بياناته قد استُعيدت من نسخة قديمة فيُستأنف سجل الشفافية باسم جديد (falaj log renew)، وإلا فعلى مشغّليه تفسير ذلك.")},
		{LogUnsigned, provider + "LogUnsigned", 500,
			t("What stands at this address is not signed by the key that it was held against.", "ما يوجد في هذا العنوان غير موقّع بالمفتاح الذي قورن به."),
			t("See that address and key are of the same log. If they are, somebody else answers there.", "تحقق من أن العنوان والمفتاح لسجل الشفافية نفسه، فإن كانا كذلك فمن يجيب هناك غير صاحبه.")},
		{LogUnreadable, provider + "LogUnreadable", 500,
			t("No log can be read at this address.", "تعذّرت قراءة سجل شفافية من هذا العنوان."),
			t("Check the address, and whether the network lets you through; a node serves its log at its public address, under /log.", "تحقق من العنوان ومن أن الشبكة تسمح بالوصول إليه؛ والعقدة تعرض سجلها في عنوانها العام تحت /log.")},
		{StampPending, client + "StampPending", 409,
			t("Records wait for a time-stamp of another state's authority.", "قيود تنتظر طابعاً زمنياً من سلطة دولة أخرى."),
			t("See whether the other states' nodes run and can be reached, or name an authority under stamp.authorities; calls go on meanwhile.", "تحقق من أن عقد الدول الأخرى تعمل ويمكن الوصول إليها، أو سمِّ سلطة طوابع زمنية تحت stamp.authorities؛ وتستمر الطلبات في هذه الأثناء.")},
		{StampInvalid, provider + "StampInvalid", 500,
			t("A time-stamp is not what was asked for, or not by whom it should be.", "الطابع الزمني ليس المطلوب، أو ليس ممن ينبغي أن يصدر عنه."),
			t("Another authority is asked; that one's operators have to answer for it.", "تُسأل سلطة أخرى، وعلى مشغّلي تلك السلطة تفسير ذلك.")},
		{StampAging, client + "StampAging", 409,
			t("Time-stamps rest on a certificate that ends soon or was revoked, and nobody renews them.", "تستند طوابع زمنية إلى شهادة تنتهي قريباً أو أُلغيت، ولا يجددها أحد."),
			t("See that an authority of another state can be reached whose certificate lasts longer than stamp.renew, or name one under stamp.authorities: once the certificate has ended, what they prove is lost.", "تأكد من إمكان الوصول إلى سلطة طوابع زمنية لدولة أخرى تدوم شهادتها أكثر من المدة stamp.renew، أو سمِّ سلطة تحت stamp.authorities، فمتى انتهت الشهادة ضاع ما تُثبته هذه الطوابع.")},
		{ClockDoubtful, provider + "ClockDoubtful", 503,
			t("This node's clock may be off by more than it declares.", "قد تكون ساعة هذه العقدة منحرفة بأكثر مما تعلنه."),
			t("See whether its clock is kept by NTP; until it agrees with the other states' clocks this node gives no time-stamps.", "تحقق من ضبط ساعتها عبر NTP؛ ولا تصدر هذه العقدة طوابع زمنية حتى تتفق ساعتها مع ساعات الدول الأخرى.")},

		{Archived, consumer + "Archived", 503,
			t("The record lies in a file of the archive that is not at its place.", "القيد محفوظ في أحد ملفات الأرشيف، والملف ليس في مكانه."),
			t("The node's operator brings the file that the detail names back to the archive's folder; then ask again.", "على مشغّل العقدة إعادة الملف المذكور في التفاصيل إلى مجلد الأرشيف، ثم أعد السؤال.")},
		{Held, client + "LegalHold", 409,
			t("A legal hold keeps these records: they are neither erased nor ended.", "هذه القيود محفوظة بأمر حفظ قانوني، فلا تُمحى ولا تُنهى."),
			t("See who holds them with falaj hold list; a hold is released by two persons.", "اطّلع على أوامر الحفظ بالأمر falaj hold list، ولا يُرفع أمر الحفظ إلا بقرار شخصين.")},
		{LogAlarm, provider + "LogAlarm", 500,
			t("A state holds sealed messages of another whose records are not in that state's log.", "لدى دولة رسائل مختومة من دولة أخرى ليست قيودها في سجل شفافية تلك الدولة."),
			t("See falaj log alarms; the operators of the log have to show the records or to answer for it.", "راجع falaj log alarms؛ وعلى مشغّلي سجل الشفافية إظهار القيود أو تفسير غيابها.")},

		// Casework.
		{CaseUnknown, client + "CaseUnknown", 404,
			t("There is no such case here.", "لا توجد معاملة كهذه هنا."),
			t("Check its reference, and that it is between your state and this one.", "تحقق من رقمها المرجعي، ومن أنها بين دولتك وهذه الدولة.")},
		{CaseActor, client + "CaseActor", 403,
			t("This is not yours to do in this case.", "هذا الإجراء ليس من صلاحيتك في هذه المعاملة."),
			t("See which roles your state's adoption of the service gives to your system, and whose case it is; what takes two persons is confirmed by another than who asked.", "راجع الأدوار التي يمنحها اعتماد دولتك للخدمة لنظامك، وصاحب المعاملة؛ وما يلزمه شخصان يؤكده غير من طلبه.")},
		{CaseInvalid, client + "CaseInvalid", 422,
			t("What was sent is not what the service's definition asks for.", "المُرسَل لا يوافق ما يطلبه تعريف الخدمة."),
			t("Correct the field that the detail names and send it under a new X-Road-Id.", "صحّح الحقل المذكور في التفاصيل وأرسله بمعرّف X-Road-Id جديد.")},
		{CaseRefused, client + "CaseRefused", 409,
			t("The case does not take this as it stands.", "لا تقبل المعاملة هذا الإجراء في حالتها الراهنة."),
			t("Read the case: it names its state and what can be done in it.", "اقرأ المعاملة: فهي تبيّن حالتها وما يمكن إجراؤه فيها.")},
		{CaseClosed, client + "CaseClosed", 409,
			t("The case is closed.", "المعاملة مغلقة."),
			t("Its final state lists what it still accepts; for anything else a new case is needed.", "حالتها النهائية تبيّن ما لا تزال تقبله، وما سواه يلزمه فتح معاملة جديدة.")},
		{CaseVersion, client + "CaseVersion", 409,
			t("The two states have not both adopted this version of the service.", "لم تعتمد الدولتان معاً هذا الإصدار من الخدمة."),
			t("See falaj service list for who has adopted what, and from when.", "راجع الأمر falaj service list لمعرفة ما اعتمدته كل دولة وتاريخ سريانه.")},
		{CaseDiffers, client + "CaseDiffers", 409,
			t("The two halves of a case do not agree.", "شقّا معاملة غير متطابقين."),
			t("falaj case reconcile sends again what is missing and lists what still differs; compare the two histories with the other state's operator.", "يعيد الأمر falaj case reconcile إرسال الناقص ويعرض ما لا يزال مختلفاً، فقارن السجلين مع مشغّل الدولة الأخرى.")},

		// The ledger.
		{BookedOtherwise, client + "BookedOtherwise", 409,
			t("Something else is booked under this key already.", "قُيّد شيء آخر تحت هذا المفتاح من قبل."),
			t("Compare the two; what is new takes a key of its own.", "قارن بين القيدين، فالجديد يلزمه مفتاح خاص به.")},
		{QuoteExpired, client + "QuoteExpired", 409,
			t("The quote does not hold at the time of the payment.", "عرض سعر الصرف غير سارٍ وقت الدفع."),
			t("Take a fresh quote and book the payment with it: the money has come.", "خذ عرضاً جديداً وقيّد الدفعة به، فالمبلغ قد وصل.")},
		{AmountRefused, client + "AmountRefused", 400,
			t("The amount cannot be booked like this.", "لا يمكن تقييد المبلغ على هذا النحو."),
			t("Check amount, currency and key; no more can be moved than there is.", "تحقق من المبلغ والعملة والمفتاح، ولا يُنقل أكثر من المتاح.")},

		// The command line.
		{Usage, client + "Usage", 400,
			t("The command line is wrong.", "سطر الأوامر غير صحيح."),
			t("See falaj --help.", "اطّلع على طريقة الاستخدام بالأمر falaj --help.")},
		{File, client + "FileUnusable", 400,
			t("A file that the command line names cannot be used.", "تعذّر استخدام ملف مذكور في سطر الأوامر."),
			t("See that it is there, that it is a file and no folder, and that you may read or write it.", "تأكد من وجوده، ومن أنه ملف لا مجلد، ومن أن لك صلاحية قراءته أو كتابته.")},
		{NoNode, client + "NodeNotFound", 404,
			t("No running node was found or reached.", "لم يُعثر على عقدة عاملة أو تعذّر الوصول إليها."),
			t("Start one with falaj up or falaj node, or name its admin door with --admin.", "شغّل واحدة بالأمر falaj up أو falaj node، أو حدّد باب إدارتها بالخيار --admin.")},
		{OutOfTime, client + "OutOfTime", 408,
			t("Time ran out before the answer came (--timeout); the call may have taken effect.", "انتهت المهلة المحددة بالخيار --timeout قبل ورود الجواب، وربما نُفِّذ الطلب."),
			t("Repeat it with the X-Road-Id below (--id): it is then carried out once only.", "أعد الطلب بالمعرّف X-Road-Id المبيّن أدناه (الخيار --id)، فلا يُنفَّذ إلا مرة واحدة.")},
	}
}
