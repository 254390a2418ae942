import eu.europa.esig.dss.enumerations.Indication;
import eu.europa.esig.dss.model.DSSDocument;
import eu.europa.esig.dss.model.InMemoryDocument;
import eu.europa.esig.dss.model.x509.CertificateToken;
import eu.europa.esig.dss.simplereport.SimpleReport;
import eu.europa.esig.dss.spi.DSSUtils;
import eu.europa.esig.dss.spi.validation.CommonCertificateVerifier;
import eu.europa.esig.dss.spi.x509.CommonTrustedCertificateSource;
import eu.europa.esig.dss.spi.x509.revocation.crl.ExternalResourcesCRLSource;
import eu.europa.esig.dss.validation.SignedDocumentValidator;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.ZipEntry;
import java.util.zip.ZipInputStream;
import java.util.zip.ZipOutputStream;

/**
 * Validates containers with DSS under its default policy. All it is given
 * beside a container are trust anchors and the revocation lists that lie in it.
 */
class Dss {
    static final String OURS = "META-INF/falaj/";

    final byte[] container;
    final Map<String, byte[]> files = new LinkedHashMap<>();
    final CommonTrustedCertificateSource anchors = new CommonTrustedCertificateSource();
    final List<DSSDocument> lists = new ArrayList<>();
    boolean right = true;

    public static void main(String[] args) throws Exception {
        var anchors = new ArrayList<CertificateToken>();
        var names = new ArrayList<Path>();
        for (int i = 0; i < args.length; i++) {
            if (args[i].equals("--anchor") && i + 1 < args.length) {
                anchors.add(DSSUtils.loadCertificate(Files.readAllBytes(Path.of(args[++i]))));
            } else {
                names.add(Path.of(args[i]));
            }
        }
        if (names.isEmpty()) {
            System.err.println("no container to validate");
            System.exit(2);
        }
        boolean right = true;
        for (Path name : names) {
            System.out.println(name);
            right &= new Dss(Files.readAllBytes(name), anchors).judge();
        }
        System.exit(right ? 0 : 1);
    }

    Dss(byte[] container, List<CertificateToken> given) throws Exception {
        this.container = container;
        try (var zip = new ZipInputStream(new ByteArrayInputStream(container))) {
            for (ZipEntry e; (e = zip.getNextEntry()) != null; ) {
                files.put(e.getName(), zip.readAllBytes());
            }
        }
        given.forEach(anchors::addCertificate);
        files.forEach((name, b) -> {
            if (name.startsWith(OURS) && name.endsWith("-authority.pem") && given.isEmpty()) {
                anchors.addCertificate(DSSUtils.loadCertificate(b));
            } else if (name.startsWith(OURS) && name.endsWith("-crl.pem")) {
                String text = new String(b).replaceAll("-----[A-Z0-9 ]+-----", "");
                lists.add(new InMemoryDocument(Base64.getMimeDecoder().decode(text), name));
            } else if (name.startsWith(OURS) && name.endsWith(".crl.der")) {
                lists.add(new InMemoryDocument(b, name));
            }
        });
        String whose = given.isEmpty() ? "anchor, as the container names it: " : "anchor, as given: ";
        anchors.getCertificates().stream()
            .map(c -> whose + c.getSubject().getPrettyPrintRFC2253() + ", SHA-256 " + c.getDSSIdAsString().substring(2).toLowerCase())
            .sorted().forEach(line -> System.out.println("  " + line));
    }

    boolean judge() throws Exception {
        var report = validate("call.asice", container, null);
        for (String id : report.getSignatureIdList()) {
            String file = report.getTokenFilename(id);
            say(report, id, file, Indication.TOTAL_PASSED);
            var signed = new ArrayList<String>(List.of(file));
            report.getSignatureScopes(id).stream().map(s -> s.getName()).filter(files::containsKey).forEach(signed::add);
            System.out.println("    " + report.getSignatureFormat(id) + " by " + report.getSignedBy(id) + " at " + report.getSigningTime(id).toInstant()
                + " of " + signed.subList(1, signed.size()));
            for (String part : signed) {
                change(part, () -> {
                    var other = validate("call.asice", zipped(), null);
                    return other.getSignatureIdList().stream().anyMatch(x -> file.equals(other.getTokenFilename(x))
                        && other.getIndication(x) == Indication.TOTAL_PASSED);
                });
            }
        }
        long seals = files.keySet().stream().filter(name -> name.endsWith(".p7s")).count();
        expect(seals > 0 && seals == report.getSignaturesCount(), seals + " seals, of which DSS sees " + report.getSignaturesCount());

        for (String name : List.copyOf(files.keySet())) {
            if (name.endsWith(".tst")) {
                over(name, name.replaceAll("tst$", "root"));
            } else if (name.endsWith(".ers")) {
                over(name, name.replaceAll("ers$", "leaf"));
            }
        }
        System.out.println("""
              Checked, under DSS's default policy at the present time: that each seal is a
              CAdES signature of the files named with it, by a certificate that leads to an
              anchor and stands on none of the revocation lists in the container; that each
              time-stamp and evidence record is of the file beside it; that none of them
              passes for anything else. Not checked: that an anchor is its state's; the
              directory, the receipts, the binding of answer and request: falaj verify.""".indent(2).stripTrailing());
        return right;
    }

    /** Judges a time-stamp or an evidence record over a file. */
    void over(String name, String of) throws Exception {
        var report = validate(name, files.get(name), of);
        var found = proofs(report);
        expect(found.size() == 1, name + " is one proof of " + of);
        found.forEach(id -> say(report, id, name, Indication.PASSED));
        change(of, () -> {
            var other = validate(name, files.get(name), of);
            return proofs(other).stream().anyMatch(id -> other.getIndication(id) == Indication.PASSED);
        });
    }

    /** An evidence record has time-stamps of its own: they count with it. */
    static List<String> proofs(SimpleReport report) {
        var records = report.getEvidenceRecordIdList();
        return records.isEmpty() ? report.getTimestampIdList() : records;
    }

    /**
     * Asks whether it still passes with another file: a check that finds
     * everything right finds nothing. A seal's signature gets another last
     * byte, all else a space at its end, which no XML or JSON minds.
     */
    void change(String name, Check passes) throws Exception {
        byte[] kept = files.get(name), other;
        if (name.endsWith(".p7s")) {
            other = kept.clone();
            other[other.length - 1] ^= 1;
        } else {
            other = Arrays.copyOf(kept, kept.length + 1);
            other[kept.length] = ' ';
        }
        files.put(name, other);
        expect(!passes.holds(), "does not pass with another " + name);
        files.put(name, kept);
    }

    interface Check {
        boolean holds() throws Exception;
    }

    void say(SimpleReport report, String id, String name, Indication wanted) {
        var found = report.getIndication(id);
        var why = report.getSubIndication(id);
        expect(found == wanted, name + ": " + found + (why == null ? "" : " " + why));
        report.getAdESValidationErrors(id).forEach(m -> System.out.println("    error: " + m.getValue()));
        report.getAdESValidationWarnings(id).forEach(m -> System.out.println("    warning: " + m.getValue()));
    }

    void expect(boolean holds, String what) {
        right &= holds;
        System.out.println("  " + (holds ? "✓ " : "✗ ") + what);
    }

    SimpleReport validate(String name, byte[] b, String of) {
        var verifier = new CommonCertificateVerifier(); // it has no online source
        verifier.setTrustedCertSources(anchors);
        verifier.setCrlSource(new ExternalResourcesCRLSource(lists.toArray(new DSSDocument[0])));
        var validator = SignedDocumentValidator.fromDocument(new InMemoryDocument(b, name));
        validator.setCertificateVerifier(verifier);
        if (of != null) {
            validator.setDetachedContents(List.of(new InMemoryDocument(files.get(of), of)));
        }
        return validator.validateDocument().getSimpleReport();
    }

    byte[] zipped() throws Exception {
        var out = new ByteArrayOutputStream();
        try (var zip = new ZipOutputStream(out)) {
            for (var f : files.entrySet()) {
                zip.putNextEntry(new ZipEntry(f.getKey()));
                zip.write(f.getValue());
            }
        }
        return out.toByteArray();
    }
}
