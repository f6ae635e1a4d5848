package block_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/block"
	"gprovision/hw/partition"
	"gprovision/model/layout"
)

// loop makes a sparse loop device with sectors of the given size.
func loop(t *testing.T, size int64, sector int) string {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "needs root")
	}
	if _, err := exec.LookPath("losetup"); err != nil {
		skip(t, "losetup is not installed")
	}
	f := image(t, size)
	out, err := exec.Command("losetup", "-f", "--show", "-b", fmt.Sprint(sector), f).CombinedOutput()
	if err != nil {
		skip(t, fmt.Sprintf("losetup: %s", out))
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command("losetup", "-d", dev).Run() })
	return dev
}

func image(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestImage(t *testing.T) {
	name := image(t, 3<<20+512)
	d, err := block.OpenImage(name, true, 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != 3<<20+512 || d.SectorSize() != 4096 || d.Path() != name {
		t.Error(d.Size(), d.SectorSize())
	}
	if _, err := d.WriteAt([]byte{1, 2}, d.Size()-1); err == nil {
		t.Error("the file may grow")
	}
	if _, err := d.WriteAt([]byte{1, 2}, d.Size()-2); err != nil {
		t.Error(err)
	}
	if err := d.RereadTable(); err != nil {
		t.Error(err)
	}
	if err := d.SetReadOnly(true); err == nil {
		t.Error("an image was set read-only")
	}
	for _, path := range []string{t.TempDir(), "/dev/null", filepath.Join(t.TempDir(), "none")} {
		if _, err := block.Open(path, false); err == nil {
			t.Errorf("%s opened", path)
		}
	}
}

func TestLoopDevice(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			dev := loop(t, 2*layout.GiB, sector)
			d, err := block.Open(dev, true)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if d.Size() != 2*layout.GiB || d.SectorSize() != sector {
				t.Errorf("%d bytes, sectors of %d", d.Size(), d.SectorSize())
			}
			if _, err := block.Open(dev, true); !errors.Is(err, syscall.EBUSY) {
				t.Errorf("opened twice for writing: %v", err)
			}
			r, err := block.Open(dev, false)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			n := 0
			ids := layout.IDs{UUID: func() string { n++; return fmt.Sprintf("%08x-0123-4567-89ab-cdef00112233", n) }}
			tab, err := layout.ForMain(layout.UEFI, layout.Device{Size: d.Size(), SectorSize: sector}, layout.Labels{Primary: "PRIMARY"}, layout.Parts{}, ids)
			if err != nil {
				t.Fatal(err)
			}
			check := func() {
				t.Helper()
				if err := partition.Write(d, tab); err != nil {
					t.Fatal(err)
				}
				for range 2 { // the second time there is nothing to change
					if err := d.RereadTable(); err != nil {
						t.Fatal(err)
					}
				}
				disks, err := block.List(os.DirFS("/sys"), filepath.Base(dev))
				if err != nil {
					t.Fatal(err)
				}
				var got, want []block.Partition
				for _, x := range disks {
					if x.Path == dev {
						got = x.Partitions
						if x.SectorSize != sector || x.Size != d.Size() {
							t.Errorf("%+v", x)
						}
					}
				}
				for _, p := range tab.Partitions {
					path := block.PartitionPath(dev, p.Number)
					want = append(want, block.Partition{Name: filepath.Base(path), Path: path, Number: p.Number, Start: p.Start, Size: p.Size})
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			}
			check()
			p, err := block.Open(block.PartitionPath(dev, 1), false)
			if err != nil {
				t.Fatal(err)
			}
			if p.Size() != tab.Partitions[0].Size {
				t.Errorf("partition has %d bytes", p.Size())
			}
			p.Close()
			tab.Partitions[1].Start += layout.MiB
			tab.Partitions[1].Size -= layout.MiB
			check()
			tab.Partitions = tab.Partitions[1:]
			check()
			tab.Partitions = nil
			check()
		})
	}
}

func TestSetReadOnly(t *testing.T) {
	dev := loop(t, 16<<20, 512)
	d, err := block.Open(dev, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.SetReadOnly(true); err != nil {
		t.Fatal(err)
	}
	if w, err := block.Open(dev, true); err == nil {
		_, err = w.WriteAt([]byte{1}, 0)
		if err == nil {
			err = w.Sync()
		}
		w.Close()
		if err == nil {
			t.Error("the disk can be written")
		}
	}
	if err := d.SetReadOnly(false); err != nil {
		t.Fatal(err)
	}
	w, err := block.Open(dev, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt([]byte{1}, 0); err != nil {
		t.Error(err)
	}
}

func TestDirect(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{1})
	for _, dir := range []string{t.TempDir(), "/dev/shm"} {
		for _, size := range []int{0, 1, 511, 512, 4096, 1<<20 + 512, 3<<20 + 17} {
			f, err := os.CreateTemp(dir, "gprov-direct-*")
			if err != nil {
				skip(t, err.Error())
			}
			defer os.Remove(f.Name())
			want := make([]byte, size)
			rnd.Read(want)
			if _, err := f.Write(want); err != nil {
				t.Fatal(err)
			}
			f.Close()
			r, err := block.OpenDirect(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if size == 0 {
				t.Logf("%s: direct=%t", dir, r.Bypass())
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: Read of %d bytes: %d, %v", dir, size, len(got), err)
			}
			for _, at := range []int{0, 1, 511, 4095, 4096, 1<<20 - 1, 1 << 20, 2<<20 + 3, size - 1, size} {
				if at < 0 || at > size {
					continue
				}
				p := make([]byte, 70000)
				n, err := r.ReadAt(p, int64(at))
				expect := want[at:min(size, at+len(p))]
				if !bytes.Equal(p[:n], expect) || (n < len(p)) != (err == io.EOF) {
					t.Errorf("%s: ReadAt(%d) of %d: %d, %v", dir, at, size, n, err)
				}
			}
		}
	}
	if _, err := block.OpenDirect(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestDirectRefused reads from a filesystem that has no O_DIRECT.
func TestDirectRefused(t *testing.T) {
	const name = "/proc/version"
	want, err := os.ReadFile(name)
	if err != nil {
		skip(t, err.Error())
	}
	r, err := block.OpenDirect(name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Bypass() {
		skip(t, "procfs takes O_DIRECT")
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q %v", got, err)
	}
}

// TestDirectDevice reads back what was just written and not yet synced.
func TestDirectDevice(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		dev := loop(t, 4<<20+4096, sector)
		d, err := block.Open(dev, true)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, d.Size())
		rand.NewChaCha8([32]byte{2}).Read(data)
		if _, err := d.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		r, err := block.OpenDirect(dev)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		n, err := io.Copy(h, r)
		if err != nil || n != d.Size() || [32]byte(h.Sum(nil)) != sha256.Sum256(data) {
			t.Errorf("%d bytes of %d, %v", n, d.Size(), err)
		}
		if !r.Bypass() {
			t.Error("no O_DIRECT on a block device")
		}
		r.Close()
		d.Close()
	}
}

// TestDiscardLoop discards what is on a loop device, whose file loses it.
func TestDiscardLoop(t *testing.T) {
	const size = 32 << 20
	d, err := block.Open(loop(t, size, 512), true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.WriteAt([]byte("what was there"), 9<<20); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := d.Discard(t.Context(), time.Minute, nil); got != (block.Discarded{Bytes: size}) {
		t.Errorf("got %+v", got)
	}
	b := make([]byte, 14)
	if _, err := d.ReadAt(b, 9<<20); err != nil || strings.Trim(string(b), "\x00") != "" {
		t.Errorf("left is %q, %v", b, err)
	}
}
