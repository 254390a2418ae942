package evidence

import (
	"bytes"
	"fmt"

	"github.com/falaj/falaj/internal/seal"
	"github.com/falaj/falaj/internal/union"
)

// readme explains the container to whoever opens it, in both languages, with
// the lines that check it by stock tools. What is to be typed stands four
// spaces in, and nothing else does; no line holds anything that a message
// said. The tests run exactly these lines.
func readme(c Call, said []sealedPart, absent []Absence) []byte {
	var b bytes.Buffer
	both := func(en, ar string) { fmt.Fprintf(&b, "%s\n%s\n\n", en, ar) }
	run := func(format string, args ...any) { fmt.Fprintf(&b, "    "+format+"\n", args...) }
	end := func() { b.WriteByte('\n') }
	// digest holds a file against what a manifest says of that very name.
	digest := func(name, mime, manifest string) {
		run(`grep -c -F 'URI="%[1]s" MimeType="%[2]s"><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue>'"$(openssl dgst -sha256 -binary %[1]s | openssl base64)<" %[3]s`, name, mime, manifest)
	}

	both("EVIDENCE OF A CALL BETWEEN STATES", "أدلة طلب بين الدول")
	fmt.Fprintf(&b, "X-Road-Id: %q\nUnion / الاتحاد: %q\n\n", c.ID, c.Union)
	both(`This is an ASiC-E container with CAdES signatures (ETSI EN 319 162-1): a ZIP
file with the messages of one call exactly as they were sealed, the seals, the
certificates, and the union's signed directory of the day. Nothing in it was
signed at export: what is checked below is what was sealed when the call was made.`,
		`هذه حاوية ASiC-E بتواقيع CAdES (ETSI EN 319 162-1): ملف ZIP فيه رسائل طلب واحد
كما خُتمت بالضبط، والأختام، والشهادات، ودليل الاتحاد الموقّع في ذلك اليوم. ولم يُوقَّع
فيها شيء عند التصدير: ما يُتحقق منه أدناه هو ما خُتم حين جرى الطلب.`)
	both(`Everything at once, from the root alone that the union publishes:`,
		`التحقق من كل شيء دفعة واحدة، انطلاقاً من الجذر الذي ينشره الاتحاد وحده:`)
	b.WriteString("  falaj verify call.asice --root union-root.json\n\n")
	both(`Piece by piece, with OpenSSL 3 and coreutils: unzip the container and run these
lines in its folder. Each says for itself that all is well, and ends with code 0.`,
		`أو جزءاً جزءاً ببرنامجي OpenSSL 3 وcoreutils: فُكّ الحاوية وشغّل هذه الأسطر في
مجلدها. كل سطر يبيّن نتيجته بنفسه، وينتهي بالرمز 0 إن صحّ.`)

	both("1. The files are those that were exported.", "1. الملفات هي التي صُدّرت.")
	run("sha256sum -c %s", SumsName)
	end()
	for i, s := range said {
		names, aside, at := s.part.Names(), AsideOf(s.part), s.at.Unix()
		what := union.Text{En: "request", Ar: "الطلب"}
		if s.part == seal.Answer {
			what = union.Text{En: "answer", Ar: "الرد"}
		}
		fmt.Fprintf(&b, "%d. The %s, sealed %s.\n%d. %s، خُتم في %s.\n\n", i+2, what.En, s.at.UTC().Format("2006-01-02 15:04:05 UTC"),
			i+2, what.Ar, s.at.UTC().Format("2006-01-02 15:04:05 UTC"))
		both("Whose certificate sealed it:", "شهادة من ختمه:")
		run("openssl x509 -noout -subject -issuer -dates -fingerprint -sha256 -in %s", aside.Certificate)
		end()
		revoked := ""
		if s.crl {
			both("Its state's authority issued it, and had not revoked it by then:", "أصدرتها سلطة دولته، ولم تكن ملغاة حينها:")
			revoked = " -crl_check -CRLfile " + aside.CRL
		} else {
			both("Its state's authority issued it (the authority publishes no revocation list):", "أصدرتها سلطة دولته (ولا تنشر السلطة قائمة إلغاء):")
		}
		run("openssl verify -attime %d%s -CAfile %s %s", at, revoked, aside.Authority, aside.Certificate)
		end()
		both("The seal is right:", "الختم صحيح:")
		run("openssl cms -verify -cades -binary -inform DER -in %s -content %s -CAfile %s -purpose any -attime %d -out /dev/null",
			names.Signature, names.Manifest, aside.Authority, at)
		end()
		if s.batch != nil {
			both(fmt.Sprintf(`What was sealed are %d messages to one state at once, of which this is number %d:
the seal is of a short text that names the root of a hash tree (RFC 6962) over
their manifests. Stock tools prove the seal of that text; that this message is
under its root, the two lines after it show. Sealed was this text (prints 1):`, s.batch.Size, s.batch.Index+1),
				fmt.Sprintf(`ما خُتم هو %d من الرسائل إلى دولة واحدة معاً، وهذه هي الرسالة رقم %d منها: الختم على نص
قصير يسمي جذر شجرة بصمات (RFC 6962) لبياناتها. الأدوات العادية تُثبت ختم ذلك النص،
والسطران التاليان يُثبتان أن هذه الرسالة تحت جذره. خُتم هذا النص (يطبع 1):`, s.batch.Size, s.batch.Index+1))
			digest(names.Batch, "text/plain", names.Manifest)
			end()
			both("The way from this message's manifest up to the root ends at that text's (prints 1):", "الطريق من بيان هذه الرسالة إلى الجذر ينتهي عند جذر ذلك النص (يطبع 1):")
			run(`! grep -v -x -E '(left|right) [0-9a-f]{64}' %[2]s && h=$({ printf '\000'; cat %[1]s; } | sha256sum | cut -c1-64) && while read -r side x; do if [ "$side" = left ]; then p="01$x$h"; else p="01$h$x"; fi; h=$(printf %%s "$p" | tr a-f A-F | basenc --base16 -d | sha256sum | cut -c1-64); done < %[2]s && tail -n 1 %[3]s | base64 -d | od -An -v -tx1 | tr -d ' \n' | grep -c -x "$h"`,
				aside.Leaf, aside.Way, names.Batch)
			end()
		}
		both("What was sealed is this message (each line prints 1):", "ما خُتم هو هذه الرسالة (يطبع كل سطر 1):")
		digest(names.Head, "application/json", s.manifest())
		if s.here {
			digest(names.Body, "application/octet-stream", s.manifest())
		}
		end()
	}
	if len(said) == 2 {
		both("4. The answer is to this request (prints 1).", "4. الرد على هذا الطلب (يطبع 1).")
		run(`grep -c "\"request\": *\"$(sha256sum < %s | cut -c1-64)\"" %s`, said[0].manifest(), seal.Answer.Names().Head)
		end()
	}
	n := len(said) + 2
	if len(said) == 2 {
		n++
	}
	for _, s := range c.Stamps {
		names, at := stampNames(s.State, s.End), s.Token.At.UTC()
		both(fmt.Sprintf("%d. By %s the records of %s were in its log: so says the time-stamp authority %q.", n, at.Format("2006-01-02 15:04:05 UTC"), s.State, s.By),
			fmt.Sprintf("%d. كانت قيود %s في سجلها بحلول %s، بشهادة سلطة الطوابع الزمنية %q.", n, s.State, at.Format("2006-01-02 15:04:05 UTC"), s.By))
		n++
		if s.Authority != nil {
			run("openssl ts -verify -data %s -in %s -token_in -CAfile %s -attime %d", names.Root, names.Token, names.Authority, at.Unix())
			end()
		} else {
			both("Get that authority's root certificate (authority.pem) by a way that you trust:", "احصل على الشهادة الجذرية لتلك السلطة (authority.pem) من طريق موثوق:")
			fmt.Fprintf(&b, "  openssl ts -verify -data %s -in %s -token_in -CAfile authority.pem -attime %d\n\n", names.Root, names.Token, at.Unix())
		}
		for _, r := range s.Renewals {
			at := r.At.UTC().Format("2006-01-02 15:04:05 UTC")
			both(fmt.Sprintf("It was renewed at %s by %q: see the evidence records (.ers).", at, r.By),
				fmt.Sprintf("وجُدّد في %s بطابع من %q: انظر سجلات الإثبات (.ers).", at, r.By))
		}
		both("What it stamped holds this checkpoint of the log (prints 1):", "ما وقّعته يشمل رأس السجل هذا (يطبع 1):")
		run(`od -An -v -tx1 %s | tr -d ' \n' | grep -c "$(sha256sum < %s | cut -c1-64)"`, names.Root, names.Checkpoint)
		end()
	}
	if len(c.Stamps) > 0 {
		both(`From each record to what was stamped leads its evidence record (RFC 4998, .ers)
over the file beside it (.leaf), which falaj verify follows, or any tool that
knows evidence records.`,
			`ويصل بين كل قيد وما شمله الطابع الزمني سجل إثباته (RFC 4998، .ers) على الملف المجاور له
(.leaf)، ويتتبعه falaj verify أو أي أداة تعرف سجلات الإثبات.`)
	}
	if len(absent) > 0 {
		both("Not in this container:", "ليس في هذه الحاوية:")
		for _, a := range absent {
			fmt.Fprintf(&b, "- %s: %s\n  %s\n", a.Name, a.Why.En, a.Why.Ar)
		}
		end()
	}
	both(`What these lines do not show: that the authority is really that state's. Compare
its fingerprint with what the state publishes, or let falaj verify follow the
signed directory from the union's root. Nor do they show that the records stand
in the states' public logs: the receipts do, if there are any.`,
		`ما لا تُثبته هذه الأسطر: أن سلطة التصديق هي سلطة تلك الدولة حقاً. قارن بصمتها بما
تنشره الدولة، أو دع falaj verify يتتبع الدليل الموقّع من جذر الاتحاد. ولا تُثبت أن
القيود في سجلات الدول العامة، فذلك ما تُثبته الإيصالات إن وُجدت.`)
	for _, s := range said {
		run("openssl x509 -noout -subject -fingerprint -sha256 -in %s", AsideOf(s.part).Authority)
	}
	end()
	b.WriteString("Where things lie / مواضع الملفات:\n")
	for _, f := range [][3]string{
		{"request/, answer/", "the messages: head and body", "الرسالتان: الرأس والمحتوى"},
		{"META-INF/ASiCManifest*.xml", "what was sealed: digests", "ما خُتم: البصمات"},
		{"META-INF/signature*.p7s", "the seals (CAdES)", "الأختام (CAdES)"},
		{"META-INF/falaj/certificate/", "certificates, authorities, revocation lists", "الشهادات وسلطات التصديق وقوائم الإلغاء"},
		{"META-INF/falaj/directory/", "the union's directory of the day (TUF)", "دليل الاتحاد في ذلك اليوم (TUF)"},
		{"META-INF/falaj/container.json", "the records in the states' logs, opened", "القيود في سجلات الدول، مفتوحة"},
		{"META-INF/falaj/receipt/", "receipts of the logs, if any", "إيصالات السجلات إن وُجدت"},
		{"META-INF/falaj/stamp/", "time-stamps (RFC 3161) and evidence records (RFC 4998), if any", "الطوابع الزمنية (RFC 3161) وسجلات الإثبات (RFC 4998) إن وُجدت"},
	} {
		fmt.Fprintf(&b, "- %s\n  %s\n  %s\n", f[0], f[1], f[2])
	}
	return b.Bytes()
}

// manifest is where the message's own manifest lies.
func (s sealedPart) manifest() string {
	if s.batch != nil {
		return AsideOf(s.part).Leaf
	}
	return s.part.Names().Manifest
}
