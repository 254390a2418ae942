import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Security;
import java.util.Date;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoVerifierBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;
import org.bouncycastle.tsp.ers.ERSByteData;
import org.bouncycastle.tsp.ers.ERSException;
import org.bouncycastle.tsp.ers.ERSEvidenceRecord;

/** Verifies evidence records (.ers), each over the file beside it (.leaf). */
class Ers {
    public static void main(String[] names) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        var digests = new JcaDigestCalculatorProviderBuilder().build();
        for (String name : names) {
            var record = new ERSEvidenceRecord(Files.readAllBytes(Path.of(name)), digests);
            byte[] leaf = Files.readAllBytes(Path.of(name.replaceAll("\\.ers$", ".leaf")));
            record.validatePresent(new ERSByteData(leaf), new Date());
            var signer = record.getSigningCertificate();
            record.validate(new JcaSimpleSignerInfoVerifierBuilder().build(signer));
            leaf[leaf.length - 1] ^= 1;
            try { // a check that finds everything right finds nothing
                record.validatePresent(new ERSByteData(leaf), new Date());
                throw new IllegalStateException(name + " is of other data too");
            } catch (ERSException expected) {
                System.out.println(Path.of(name).getFileName() + ": holds, stamped by " + signer.getSubject());
            }
        }
    }
}
