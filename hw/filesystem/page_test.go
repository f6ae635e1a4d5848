package filesystem

import (
	"archive/tar"
	"os"
	"strings"
	"testing"

	"gprovision/model/page"
)

// TestNumbersOfThePage: what docs/formats/release-image.md says that a target holds is taken, and one more is not.
func TestNumbersOfThePage(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	link := func(length int) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: strings.Repeat("l", length), Mode: 0o777}
	}
	owner := func(uid int) tar.Header { h := file("f"); h.Uid = uid; return h }
	attribute := func(size int) tar.Header {
		h := file("f")
		h.PAXRecords = map[string]string{"SCHILY.xattr.user.a": strings.Repeat("a", size)}
		return h
	}
	for says, tc := range map[string]struct{ most, more tar.Header }{
		"names to 255 bytes for each part": {file(strings.Repeat("n", 255)), file(strings.Repeat("n", 256))},
		"links to 4095 bytes":              {link(4095), link(4096)},
		"owners to 4294967294":             {owner(4294967294), owner(4294967295)},
		"for each 16 bytes, its name without its namespace, and its value, both rounded up to 4": {attribute(4060 - 16 - 4), attribute(4060 - 16 - 3)},
	} {
		if err := NewJudge().Entry(&tc.most, strings.NewReader("")); err != nil {
			t.Errorf("%s: %v", says, err)
		}
		if err := NewJudge().Entry(&tc.more, strings.NewReader("")); err == nil {
			t.Errorf("%s: more is taken", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "formats/release-image.md", says); err != nil {
			t.Error(err)
		}
	}
	err := page.Says(os.DirFS("../../docs"), "benchmarks.md", "every 64 MiB the device is told to write")
	if err != nil || flushBytes != 64<<20 {
		t.Errorf("the device is told to write every %d bytes; %v", flushBytes, err)
	}
	if maxFile != 16<<40-4096 || maxLinks != 65000 || maxJudged != 4<<20 {
		t.Errorf("files of %d bytes, %d names, %d entries", int64(maxFile), maxLinks, maxJudged)
	}
	if err := page.Says(os.DirFS("../../docs"), "formats/release-image.md", "kept, up to 4060 bytes for one entry", "files over 16 TiB", "more than 65000 names of one file or four million entries"); err != nil {
		t.Error(err)
	}
}
