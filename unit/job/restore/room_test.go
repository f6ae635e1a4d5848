package restore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/site"
	"gprovision/unit/image"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/state"
)

// TestNoRoom gives a unit a main disk that its newest image is too large for, by what it needs and not by the size of its tar.
func TestNoRoom(t *testing.T) {
	mke2fs, err := exec.LookPath("mke2fs")
	if err != nil {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("mke2fs is not installed (Debian package e2fsprogs)")
		}
		t.Skip("mke2fs is not installed (Debian package e2fsprogs)")
	}
	run := func(ctx context.Context, _ string, args ...string) ([]byte, int, error) {
		out, err := exec.CommandContext(ctx, mke2fs, args...).CombinedOutput()
		return out, 0, err
	}
	const size = 2 << 30
	room, err := filesystem.RoomOn(t.Context(), run, "", size)
	if err != nil {
		t.Fatal(err)
	}
	own := image.Beside(filesystem.Need{}, layout.UEFI, 64<<20)
	most := filesystem.Need{Inodes: room.Inodes - own.Inodes, Blocks: room.Blocks - own.Blocks}
	for _, c := range []struct {
		name string
		need filesystem.Need
		fits bool
	}{
		{"small", filesystem.Need{Inodes: 1000, Blocks: 1000}, true},
		{"all of it", most, true},
		{"one block more", filesystem.Need{Inodes: most.Inodes, Blocks: most.Blocks + 1}, false},
		{"one inode more", filesystem.Need{Inodes: most.Inodes + 1, Blocks: most.Blocks}, false},
		{"a tar of a few bytes with many files", filesystem.Need{Inodes: 1 << 20, Blocks: 1000}, false},
	} {
		m := &machine.Machine{Doors: machine.Doors{Run: run}, Firmware: layout.UEFI, Site: site.Stock()}
		m.Places.Recovery = t.TempDir()
		j := &restoring{Machine: m, need: c.need,
			disks: []target{{Disk: block.Disk{}, table: layout.Table{Partitions: []layout.Partition{{Role: layout.Primary, Size: size}}}}}}
		err := j.checkRoom(t.Context())
		if (err == nil) != c.fits || err != nil && (fault.Of(err) != fault.DiskTooSmall || !badImage(err)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if badImage(fault.Newf(fault.DiskTooSmall, "the main disk has 5 bytes")) {
		t.Error("a disk that is too small for any system counts as a bad image")
	}
}

// TestNextImage: an image that does not fit, or that fills the disk while it is written, is left for the next one, and each is tried once.
func TestNextImage(t *testing.T) {
	full := classify(fmt.Errorf("write file: %w", syscall.ENOSPC))
	small := image.CheckRoom(filesystem.Need{Blocks: 2}, filesystem.Need{Blocks: 1})
	enough := errors.New("enough")
	for _, c := range []struct {
		name  string
		fails []error // one for each image, newest first
		want  func(error) bool
	}{
		{"known before", []error{small, enough}, func(err error) bool { return errors.Is(err, enough) }},
		{"while it is written", []error{full, enough}, func(err error) bool { return errors.Is(err, enough) }},
		{"while its artifact is written", []error{bootFault(fmt.Errorf("x: %w", syscall.ENOSPC)), enough}, func(err error) bool { return errors.Is(err, enough) }},
		{"none fits", []error{small, full}, func(err error) bool { return fault.Of(err) == fault.DiskTooSmall && badImages(err) }},
		{"one does not fit, one is bad", []error{small, fault.Newf(fault.ImageCorrupt, "x")}, func(err error) bool { return fault.Of(err) == fault.NoImage }},
		{"the disk is bad", []error{classify(syscall.EIO)}, func(err error) bool { return fault.Of(err) == fault.DiskWrite }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := imagetest.New(t)
			volume := t.TempDir()
			f.Dir = filepath.Join(volume, state.ImageDir)
			for _, d := range []string{f.Dir, filepath.Join(volume, state.LogDir), filepath.Join(volume, state.Dir)} {
				if err := os.MkdirAll(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for _, v := range []string{"2026-11-01.0001", "2026-11-02.0001"} {
				f.Put(t, imagetest.Prefix+v+".upd", imagetest.Prefix+v, []byte(v))
			}
			v := state.Open(volume)
			hash := "$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"
			if err := errors.Join(v.WriteKey(state.NewKey()), v.WriteHash(hash)); err != nil {
				t.Fatal(err)
			}
			tries := 0
			s := site.Stock()
			fail := func(context.Context, site.Unit) error {
				tries++
				return c.fails[tries-1]
			}
			s.Hooks = append(s.Hooks, site.Hook{Job: "restore", Step: "check-image", Extra: site.Extra{Name: "fail", Run: fail}})
			m := &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Site: s}
			m.Doors = machine.Real(m.Log, nil, nil)
			m.Places.Recovery = volume
			err := restore(t.Context(), jobtest.Env(m), goal{Volume: v, Unit: state.Unit{ImagePrefix: imagetest.Prefix}})
			if !c.want(err) || tries != len(c.fails) {
				t.Errorf("after %d tries: %v", tries, err)
			}
			past, err := state.Open(volume).History()
			if err != nil {
				t.Fatal(err)
			}
			for i, of := range []string{"2026-11-02.0001", "2026-11-01.0001"} {
				r, _ := past.Find(imagetest.Prefix + of)
				if want := i < len(c.fails) && fault.Of(c.fails[i]) == fault.ImageCorrupt; (r.ImagingFailures == 1) != want {
					t.Errorf("the history has %+v of %s, which is to blame: %t", r, of, want)
				}
			}
			if counts, err := state.Open(volume).ReadCounts(); err != nil || counts.RestoreFailures != 1 {
				t.Errorf("counts: %+v, %v", counts, err)
			}
		})
	}
}

// TestBlame: a good image on a disk that is too small keeps its place for a larger one, and one that filled the disk does not come first again.
func TestBlame(t *testing.T) {
	small := image.CheckRoom(filesystem.Need{Blocks: 2}, filesystem.Need{Blocks: 1})
	for _, c := range []struct {
		err   error
		wrote bool
		want  bool
	}{
		{small, false, false}, {classify(syscall.ENOSPC), true, true}, {fault.Newf(fault.ImageCorrupt, "x"), false, true}, {classify(syscall.EIO), true, false},
	} {
		if got := (&restoring{wrote: c.wrote}).blames(c.err); got != c.want {
			t.Errorf("%v, written %t: %t", c.err, c.wrote, got)
		}
	}
}
