package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/block"
)

// realVolume returns a recovery volume on an ext4 filesystem of a few MiB, and its loop device.
func realVolume(t *testing.T) (v *Volume, dev string) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "mounting needs root")
	}
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.Mkdir(mnt, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 16<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-b", "4096", image).CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("mke2fs: %s", out))
	}
	out, err := exec.Command("losetup", "-f", "--show", image).CombinedOutput()
	if err != nil {
		skip(t, fmt.Sprintf("losetup: %s", out))
	}
	dev = string(bytes.TrimSpace(out))
	t.Cleanup(func() { exec.Command("losetup", "-d", dev).Run() })
	v = Open(mnt)
	mount(t, v, dev)
	t.Cleanup(func() { unix.Unmount(mnt, unix.MNT_DETACH) })
	return v, dev
}

func mount(t *testing.T, v *Volume, dev string) {
	t.Helper()
	if err := unix.Mount(dev, v.dir, "ext4", 0, ""); err != nil {
		skip(t, fmt.Sprintf("mount ext4: %v", err))
	}
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// TestFullVolume: counts can be written when nothing else can, and old logs make room.
func TestFullVolume(t *testing.T) {
	v, _ := realVolume(t)
	if err := v.WriteCounts(Counts{BootAttempts: 1}); err != nil {
		t.Fatal(err)
	}
	logs := v.Path(LogDir)
	if err := os.Mkdir(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		name := filepath.Join(logs, fmt.Sprintf("init2026112%d_100000.log", i))
		at := time.Date(2026, 11, 20+i, 10, 0, 0, 0, time.UTC)
		if err := errors.Join(os.WriteFile(name, make([]byte, 64<<10), 0o600), os.Chtimes(name, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(v.Path("full"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := NewRequest(KindRestore, "", "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for round := 0; !errors.Is(err, syscall.ENOSPC); round++ { // ext4 frees blocks some time later
		if round == 20 || err != nil {
			t.Fatalf("writing a request to a full volume: %v", err)
		}
		for size := 1 << 20; size > 0; size /= 2 {
			for err = nil; err == nil; {
				_, err = f.Write(make([]byte, size))
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		err = v.WriteRequest(r)
	}
	if err := v.WriteCounts(Counts{BootAttempts: 2}); err != nil {
		t.Errorf("counting on a full volume: %v", err)
	}
	if c, err := v.ReadCounts(); err != nil || c.BootAttempts != 2 {
		t.Errorf("got %+v, %v", c, err)
	}
	removed, err := v.MakeRoom(32 << 10)
	if err != nil || len(removed) != 1 || removed[0] != "init20261120_100000.log" {
		t.Errorf("removed %q, %v, want the oldest log", removed, err)
	}
	if err := v.WriteRequest(r); err != nil {
		t.Errorf("after making room: %v", err)
	}
}

// TestCountsPlace writes the counts to the device while the volume is not mounted.
func TestCountsPlace(t *testing.T) {
	v, dev := realVolume(t)
	if _, err := v.CountsPlace(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	if err := v.WriteCounts(Counts{BootAttempts: 1, Restores: 5}); err != nil {
		t.Fatal(err)
	}
	place, err := v.CountsPlace()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Counts{BootAttempts: 2, Restores: 5}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := block.WriteBlock(dev, b, place); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("writing below a mounted filesystem: %v", err)
	}
	if err := unix.Unmount(v.dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := block.WriteBlock(dev, b, place); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("e2fsck", "-fn", dev).CombinedOutput(); err != nil {
		t.Errorf("the filesystem is not clean any more: %s", out)
	}
	mount(t, v, dev)
	if c, err := v.ReadCounts(); err != nil || c.BootAttempts != 2 || c.Restores != 5 {
		t.Errorf("got %+v, %v", c, err)
	}
	// A file of another size has no place: it is rewritten.
	if err := os.WriteFile(v.Path(CountsFile), []byte(`{"version":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := v.CountsPlace(); !errors.Is(err, block.ErrNoPlace) {
		t.Errorf("a short file: %v", err)
	}
}
