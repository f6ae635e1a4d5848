package sysroot

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gprovision/model/page"
	"gprovision/unit/state"
)

// TestNumbersOfThePage: docs/formats/recovery-volume.md gives the right limits.
func TestNumbersOfThePage(t *testing.T) {
	for says, ok := range map[string]bool{
		"and 128 files of at most 64 KiB": maxNetworkFiles == 128 && maxNetworkFile == 64<<10,
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(os.DirFS("../../docs"), "formats/recovery-volume.md", says); err != nil {
			t.Error(err)
		}
	}
}

// TestFilesOfThePage: docs/running-system.md lists what a restore leaves in the system, and the network files.
func TestFilesOfThePage(t *testing.T) {
	dir := image(t)
	c := config()
	tree := func() map[string]string {
		out := map[string]string{}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			name := strings.TrimPrefix(path, dir)
			switch {
			case err != nil:
				return err
			case d.Type()&fs.ModeSymlink != 0:
				out[name], err = os.Readlink(path)
			case d.Type().IsRegular():
				var b []byte
				b, err = os.ReadFile(path)
				out[name] = string(b)
			case name == "/var/log/journal": // the one directory that counts
				out[name] = "directory"
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := tree()
	if err := Configure(dir, slog.New(slog.DiscardHandler), c); err != nil {
		t.Fatal(err)
	}
	if err := SetMark(dir, "boot.normal", state.Mark{Release: c.Release, Serial: c.Serial}); err != nil {
		t.Fatal(err)
	}
	var changed []string
	for name, content := range tree() {
		if was, ok := before[name]; (!ok || was != content) && !strings.HasPrefix(name, "/etc/systemd/network") {
			changed = append(changed, strings.Replace(name, c.Release, "NAME", 1))
		}
	}
	rows, err := page.Rows(os.DirFS("../../docs"), "running-system.md", "## After a restore")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, r := range rows {
		said = append(said, page.Codes(r[0])...)
	}
	slices.Sort(changed)
	slices.Sort(said)
	if !slices.Equal(changed, said) {
		t.Errorf("a restore leaves %v,\nthe page has %v", changed, said)
	}
}
