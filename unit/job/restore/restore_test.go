package restore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/image"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

func TestAdaptKeepsIdentifiers(t *testing.T) {
	n := 0
	ids := layout.IDs{UUID: func() string { n++; return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }}
	for _, fw := range []layout.Firmware{layout.UEFI, layout.BIOS} {
		old, err := layout.ForMain(fw, layout.Device{Size: 8 * layout.GiB, SectorSize: 512}, layout.Labels{Primary: "PRIMARY"}, layout.Parts{}, ids)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := layout.ForMain(fw, layout.Device{Size: 16 * layout.GiB, SectorSize: 512}, layout.Labels{Primary: "PRIMARY"}, layout.Parts{}, ids)
		if err != nil {
			t.Fatal(err)
		}
		got := Adapt(old, fresh, layout.Table{})
		a, b := old.Find(layout.Primary), got.Find(layout.Primary)
		if got.UUID != old.UUID || a.UUID != b.UUID || a.FSUUID != b.FSUUID {
			t.Errorf("%s: identifiers changed: %+v, %+v", fw, old, got)
		}
		if b.Size <= a.Size {
			t.Errorf("%s: the partition does not use the larger disk", fw)
		}
	}
}

// TestAdaptTrustsNoRecord: identifiers that cannot be right are made anew.
func TestAdaptTrustsNoRecord(t *testing.T) {
	n := 0
	ids := layout.IDs{UUID: func() string { n++; return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }}
	device := layout.Device{Size: 8 * layout.GiB, SectorSize: 512}
	for _, tc := range []struct {
		name   string
		fw     layout.Firmware
		change func(r, other *layout.Table)
	}{
		{"the same identifier twice", layout.UEFI, func(r, _ *layout.Table) { r.Partitions[0].UUID = r.Partitions[1].UUID }},
		{"that of the recovery volume", layout.UEFI, func(r, o *layout.Table) { r.Partitions[1].UUID = o.Partitions[1].UUID }},
		{"the filesystem of the recovery volume", layout.BIOS, func(r, o *layout.Table) { r.Partitions[0].FSUUID = o.Partitions[0].FSUUID }},
		{"no filesystem identifier", layout.UEFI, func(r, _ *layout.Table) { r.Partitions[1].FSUUID = "" }},
		{"that of a FAT for ext4", layout.UEFI, func(r, _ *layout.Table) { r.Partitions[1].FSUUID = r.Partitions[0].FSUUID }},
		{"not of this MBR", layout.BIOS, func(r, _ *layout.Table) { r.Partitions[0].UUID = "ffffffff-01" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			lay := func() layout.Table {
				table, err := layout.ForMain(tc.fw, device, layout.Labels{Primary: "PRIMARY"}, layout.Parts{}, ids)
				if err != nil {
					t.Fatal(err)
				}
				return table
			}
			recorded, fresh, other := lay(), lay(), lay()
			tc.change(&recorded, &other)
			if got := Adapt(recorded, fresh, other); !reflect.DeepEqual(got, fresh) {
				t.Errorf("got %+v, want the fresh identifiers", got)
			}
		})
	}
}

// TestStepsDestroyLate holds the order that power cuts depend on: what can fail without a write comes before the mark is cleared,
// the mark comes after everything, and the request goes last.
func TestStepsDestroyLate(t *testing.T) {
	at := map[string]int{}
	steps := (&restoring{}).steps()
	for i, s := range steps {
		at[s.Name] = i + 1
	}
	for _, pair := range [][2]string{
		{"check-image", "choose-disk"}, {"choose-disk", "note-request"}, {"note-request", "clear-mark"}, {"clear-mark", "partition-main"},
		{"configure", "boot-main"}, {"boot-main", "update-recovery"}, {"update-recovery", "set-mark"}, {"prune-images", "set-mark"},
		{"boot-entries", "set-mark"}, {"set-mark", "clear-request"},
	} {
		if at[pair[0]] == 0 || at[pair[1]] == 0 || at[pair[0]] > at[pair[1]] {
			t.Errorf("%s must come before %s: %v", pair[0], pair[1], at)
		}
	}
	if at["clear-request"] != len(steps) {
		t.Error("the request is not the last thing that goes")
	}
}

func TestBadImageAndBadDisk(t *testing.T) {
	if !badImage(classify(io.ErrUnexpectedEOF)) {
		t.Error("a stream that ends early does not count as a bad image")
	}
	if badImage(classify(fmt.Errorf("write file: %w", os.ErrDeadlineExceeded))) == badImage(classify(fmt.Errorf("x: %w", syscall.EIO))) {
		t.Error("a disk error counts as a bad image")
	}
	if got := fault.Of(classify(fmt.Errorf("write: %w", syscall.ENOSPC))); got != fault.DiskTooSmall {
		t.Errorf("a full disk is %v", got)
	}
}

// TestFullVolume: a unit is restored although the recovery volume has no room for the request.
func TestFullVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("a filesystem of a fixed size needs root")
		}
		t.Skip("a filesystem of a fixed size needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "log"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	r := state.Request{Version: state.Version, ID: "0123456789abcdef", Kind: state.KindRestore, Image: "A.B.C.2026-11-22.0001.upd", By: "a medium", Time: time.Now()}
	for _, c := range []struct {
		request *state.Request
		image   *image.Image
	}{{&r, &image.Image{}}, {nil, nil}} {
		m := &machine.Machine{Log: slog.New(slog.DiscardHandler)}
		j := &restoring{Machine: m, env: jobtest.Env(m), goal: goal{Volume: state.Open(dir), Request: c.request, Image: c.image},
			disks: []target{{}}}
		j.Unit.Main = []state.Disk{machine.DiskRecord(block.Disk{}, layout.Table{})}
		if err := j.noteRequest(t.Context()); err != nil || c.request != nil && j.Request.ID != r.ID || j.Request.ID == "" {
			t.Errorf("got %v, request %q", err, j.Request.ID)
		}
	}
}
