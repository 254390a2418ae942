import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Security;
import java.util.Date;
import org.bouncycastle.asn1.tsp.ArchiveTimeStamp;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoVerifierBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;
import org.bouncycastle.tsp.ers.ERSArchiveTimeStamp;
import org.bouncycastle.tsp.ers.ERSByteData;
import org.bouncycastle.tsp.ers.ERSEvidenceRecord;
import org.bouncycastle.tsp.ers.ERSException;

/** Verifies evidence records (.ers), each over the file beside it (.leaf). */
class Ers {
    public static void main(String[] names) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        var digests = new JcaDigestCalculatorProviderBuilder().build();
        for (String name : names) {
            var file = Path.of(name).getFileName();
            // Reading it, the library holds each renewal against the one before.
            var record = new ERSEvidenceRecord(Files.readAllBytes(Path.of(name)), digests);
            byte[] leaf = Files.readAllBytes(Path.of(name.replaceAll("\\.ers$", ".leaf")));
            record.validatePresent(new ERSByteData(leaf), new Date());
            var chain = record.toASN1Structure().getArchiveTimeStampSequence().getArchiveTimeStampChains()[0].getArchiveTimestamps();
            for (ArchiveTimeStamp one : chain) {
                // Not record.validate: it wants the last one to cover all others directly.
                var stamp = new ERSArchiveTimeStamp(one, digests);
                var signer = stamp.getSigningCertificate();
                stamp.validate(new JcaSimpleSignerInfoVerifierBuilder().build(signer));
                System.out.println(file + ": stamped " + stamp.getGenTime().toInstant() + " by " + signer.getSubject());
            }
            // A check that finds everything right finds nothing.
            leaf[leaf.length - 1] ^= (byte) 0x80;
            refuses(file + " is of other data too", () -> record.validatePresent(new ERSByteData(leaf), new Date()));
            refuses(file + " is renewed by another's time-stamp too",
                () -> new ERSEvidenceRecord(record.toASN1Structure().addArchiveTimeStamp(chain[0], false), digests));
            System.out.println(file + ": holds, " + (chain.length - 1) + " renewals");
        }
    }

    interface Check {
        void run() throws Exception;
    }

    static void refuses(String flaw, Check check) throws Exception {
        try {
            check.run();
        } catch (ERSException expected) {
            return;
        }
        throw new IllegalStateException(flaw);
    }
}
