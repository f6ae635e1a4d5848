package lab_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/partition"
	"gprovision/model/layout"
	"gprovision/site"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// TestJudge: TestSoakNoHalfSystem sees what is wrong with a disk.
func TestJudge(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "loop devices need root")
	}
	const start = 1 << 20
	mark := site.Stock().Names.Mark
	disk := func(t *testing.T, head, text string, names ...string) halfDisk {
		t.Helper()
		dir := t.TempDir()
		root, d := filepath.Join(dir, "root"), halfDisk{path: filepath.Join(dir, "disk"), start: start}
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(d.path, []byte(head), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "truncate", "-s", "16M", d.path)
		run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-d", root, "-E", fmt.Sprint("offset=", start), d.path, "15M")
		return d
	}
	want := disk(t, "boot", "\n", "program", mark).judge(t)
	if !want.marked || want.files["/program"] == "" {
		t.Fatalf("a whole system: %+v", want)
	}
	for _, c := range []struct {
		name         string
		disk         halfDisk
		marked, same bool
	}{
		{"the same", disk(t, "boot", "\n", "program", mark), true, true},
		{"no mark", disk(t, "boot", "\n", "program"), false, true},
		{"a bad mark", disk(t, "boot", "{", "program", mark), false, true},
		{"no filesystem", halfDisk{path: disk(t, "boot", "\n", mark).path}, false, true},
		{"other content", disk(t, "boot", "\n\n", "program", mark), true, false},
		{"a file less", disk(t, "boot", "\n", mark), true, false},
		{"another boot loader", disk(t, "boat", "\n", "program", mark), true, false},
	} {
		got := c.disk.judge(t)
		if got.marked != c.marked || c.marked && (got.differs(want) == "") != c.same {
			t.Errorf("%s: marked %t, differs: %q", c.name, got.marked, got.differs(want))
		}
	}
}

// mainSystem returns the largest partition of a disk.
func mainSystem(t *testing.T, path string) layout.Partition {
	t.Helper()
	loop := strings.TrimSpace(run(t, "losetup", "--show", "-f", path))
	defer run(t, "losetup", "-d", loop)
	dev, err := block.Open(loop, false)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	table, err := partition.Read(dev)
	if err != nil || len(table.Partitions) == 0 {
		t.Fatalf("the restored disk has no partitions: %v", err)
	}
	return slices.MaxFunc(table.Partitions, func(a, b layout.Partition) int { return cmp.Compare(a.Size, b.Size) })
}

// halfDisk is a file with what a main disk holds. The main system begins at byte start.
type halfDisk struct {
	path  string
	start int64
}

// judged is what a disk holds.
type judged struct {
	marked bool
	before [sha256.Size]byte // of all that lies before the main system
	files  map[string]string // of the main system
}

func (j judged) differs(want judged) string {
	if j.before != want.before {
		return "what lies before it on the disk differs"
	}
	for name, text := range want.files {
		if j.files[name] != text {
			return fmt.Sprintf("%s is %q, want %q", name, j.files[name], text)
		}
	}
	return ""
}

// judge looks at the main system as init does: what cannot be probed or mounted, or lacks a good mark, is none. The files of one with
// its mark are read, and its filesystem is checked.
func (d halfDisk) judge(t *testing.T) (j judged) {
	t.Helper()
	loop := strings.TrimSpace(run(t, "losetup", "--show", "-f", "-o", fmt.Sprint(d.start), d.path))
	defer run(t, "losetup", "-d", loop)
	info, noted, err := (&machine.Machine{Doors: machine.Real(slog.New(slog.DiscardHandler), nil, nil)}).ProbePartition(loop)
	if err != nil || noted || info.Type != "ext4" {
		return j
	}
	dir := t.TempDir()
	if exec.Command("mount", "-t", "ext4", "-o", "ro", loop, dir).Run() != nil {
		return j
	}
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			run(t, "umount", dir)
		}
	}
	defer unmount()
	b, err := os.ReadFile(filepath.Join(dir, site.Stock().Names.Mark))
	if err != nil {
		return j
	}
	if _, err := state.ParseMark(b); err != nil {
		return j
	}
	j.marked, j.files = true, map[string]string{}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		text := st.Mode().String()
		if st.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		j.files[strings.TrimPrefix(path, dir)] = text
		return nil
	})
	if err != nil {
		t.Errorf("the files of a system with its mark cannot be read: %v", err)
	}
	unmount()
	// Its counts of what is free are behind after a power cut: e2fsck puts them right by itself and says 1.
	check := exec.Command("e2fsck", "-fp", loop)
	if out, err := check.CombinedOutput(); check.ProcessState == nil || check.ProcessState.ExitCode() > 1 {
		t.Errorf("a system with its mark has errors: %v: %s", err, bytes.TrimSpace(out))
	}
	f, err := os.Open(d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(h, f, d.start); err != nil {
		t.Fatal(err)
	}
	h.Sum(j.before[:0])
	return j
}

// tree describes all that is below dir, but for times.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%s %d:%d", st.Mode(), sys.Uid, sys.Gid)
		switch {
		case st.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(b))
		case st.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + target
		}
		out[strings.TrimPrefix(path, dir)] = text
		return nil
	})
	if err != nil {
		t.Errorf("not all can be read: %v", err)
	}
	return out
}
