package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/falaj/falaj/internal/evidence"
)

// beside packs a container once more with a file beside those that it has, its
// list of digests made anew.
func beside(t *testing.T, b []byte, name, content string) []byte {
	t.Helper()
	box, err := evidence.OpenBytes(b)
	must(t, err)
	files := map[string][]byte{name: []byte(content)}
	for _, n := range box.Names() {
		files[n], err = box.Read(n, 1<<20)
		must(t, err)
	}
	names := slices.Sorted(maps.Keys(files))
	names = append([]string{"mimetype"}, slices.DeleteFunc(names, func(n string) bool { return n == "mimetype" })...)
	files[evidence.SumsName] = nil
	for _, n := range names {
		if n != "mimetype" && n != evidence.SumsName {
			files[evidence.SumsName] = appendSum(files[evidence.SumsName], sha256.Sum256(files[n]), n)
		}
	}
	le := binary.LittleEndian
	var out, end []byte
	for _, n := range names { // the form of internal/evidence/zip.go
		common := append([]byte{0, 0, 0, 0}, b[10:14]...)
		common = le.AppendUint32(common, crc32.ChecksumIEEE(files[n]))
		common = le.AppendUint32(le.AppendUint32(common, uint32(len(files[n]))), uint32(len(files[n])))
		common = append(le.AppendUint16(common, uint16(len(n))), 0, 0)
		end = append(append(end, "PK\x01\x02\x0a\x03\x0a\x00"...), common...)
		end = le.AppendUint32(append(end, 0, 0, 0, 0, 0, 0), 0o100644<<16)
		end = append(le.AppendUint32(end, uint32(len(out))), n...)
		out = append(append(append(out, "PK\x03\x04\x0a\x00"...), common...), n...)
		out = append(out, files[n]...)
	}
	last := le.AppendUint16(le.AppendUint16([]byte("PK\x05\x06\x00\x00\x00\x00"), uint16(len(names))), uint16(len(names)))
	last = le.AppendUint32(le.AppendUint32(last, uint32(len(end))), uint32(len(out)))
	return append(append(append(out, end...), last...), 0, 0)
}

// TestABatchsFileBesideASingleSeal: what stands in a container because of a
// batch does not belong beside a seal that is of one message alone.
func TestABatchsFileBesideASingleSeal(t *testing.T) {
	w := newWorld(t)
	single := pack(t, w.call(nil))
	w.together()
	w.company = 4
	box, err := evidence.OpenBytes(pack(t, w.call(nil)))
	must(t, err)
	readme, err := box.Read(evidence.ReadmeName, evidence.MaxFile)
	must(t, err)
	if r := w.verify(beside(t, single, evidence.ReadmeName, string(readme))); r.Verdict != Holds { // so it is packed as it has to be
		t.Fatalf("%d %q", r.Verdict, bad(r, Failed))
	}
	for _, name := range []string{"request/batch.txt", "answer/batch.txt", "META-INF/falaj/request-leaf.xml", "META-INF/falaj/answer-leaf.xml", "META-INF/falaj/request-way.txt", "META-INF/falaj/answer-way.txt"} {
		content, err := box.Read(name, evidence.MaxFile)
		must(t, err)
		r := w.verify(beside(t, single, name, string(content)))
		if got := bad(r, Failed); r.Verdict != Broken || len(got) != 1 || !strings.HasSuffix(got[0], name+" does not belong in it") {
			t.Errorf("%s: %d %q", name, r.Verdict, got)
		}
	}
}
