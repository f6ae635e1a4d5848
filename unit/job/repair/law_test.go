package repair_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/repair"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// place is where a partition of the unit begins: the file of its disk, and the offset there. device is its own device node.
func (b *bench) place(role layout.Role) (file, device string, at int64) {
	b.t.Helper()
	disk, table := "vda", b.unit.Recovery.Table
	if role == layout.Primary {
		disk, table = "vdb", b.unit.Main[0].Table
	}
	p := table.Find(role)
	file = filepath.Join(filepath.Dir(b.Firmware()), "dev", disk) // as the machine has it, past its doors
	return file, block.PartitionPath(file, p.Number), p.Start
}

// Where the superblock of an ext4 filesystem is, and the copy that a repair takes.
const (
	super     = 1024
	superCopy = 32768 * 4096
)

// read returns the superblock of a partition, or its copy.
func (b *bench) read(role layout.Role, from int64) []byte {
	b.t.Helper()
	file, _, at := b.place(role)
	f, err := os.Open(file)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	sb := make([]byte, 1024)
	if _, err := f.ReadAt(sb, at+from); err != nil {
		b.t.Fatal(err)
	}
	return sb
}

// write writes a superblock with its checksum.
func (b *bench) write(role layout.Role, to int64, sb []byte) {
	b.t.Helper()
	binary.LittleEndian.PutUint32(sb[0x3fc:], ^crc32.Checksum(sb[:0x3fc], crc32.MakeTable(crc32.Castagnoli)))
	file, _, at := b.place(role)
	machinetest.Overwrite(b.t, file, at+to, sb)
}

// noted has the kernel note errors in a filesystem.
func noted(role layout.Role) func(b *bench) {
	return func(b *bench) {
		sb := b.read(role, super)
		sb[0x3a] |= 2
		b.write(role, super, sb)
	}
}

// loseRecovery destroys the first superblock of the recovery volume.
func loseRecovery(b *bench) {
	sb := b.read(layout.Recovery, super)
	sb[0x5a] = 1 // the group of blocks that this copy is in
	b.write(layout.Recovery, superCopy, sb)
	file, _, at := b.place(layout.Recovery)
	machinetest.Overwrite(b.t, file, at+super, make([]byte, 1024))
}

// tableOf damages the first copy of a disk's table.
func tableOf(disk string) func(b *bench) {
	return func(b *bench) { damageTable(b.t, b.m, b.disks()[disk]) }
}

// fsck is e2fsck on a machine whose filesystems are directories: it mends what these tests damage. By the copy of the superblock it finds
// the unit's record without its name.
func (b *bench) fsck(args []string) (exit int) {
	for _, role := range []layout.Role{layout.Recovery, layout.Primary} {
		if _, device, _ := b.place(role); device != args[len(args)-1] {
			continue
		}
		sb := b.read(role, super)
		switch {
		case sb[0x38] == 0 && !slices.Contains(args, "-b"):
			return 8
		case sb[0x38] == 0:
			sb = b.read(role, superCopy)
			sb[0x5a] = 0
			b.write(role, super, sb)
			v := state.Open(b.Volume(b.unit.Recovery.Table.Find(role).FSUUID))
			err := errors.Join(os.Mkdir(v.Path("lost+found"), 0o700), os.Rename(v.Path(state.UnitFile), v.Path("lost+found", "#12")))
			if err != nil {
				b.t.Error(err)
			}
			return 1
		case sb[0x3a]&2 != 0:
			sb[0x3a] &^= 2
			b.write(role, super, sb)
			return 1
		}
	}
	return 0
}

// boots switches the unit on again and again, the first time with fault, until it starts its system. It returns what each boot did, and the
// calls of the first one.
func (b *bench) boots(fault func(n int, call string) error) (did, calls []string) {
	b.t.Helper()
	for range 6 {
		b.start(fault)
		run := b.m.Run
		b.m.Run = func(ctx context.Context, path string, args ...string) ([]byte, int, error) {
			out, exit, err := run(ctx, path, args...)
			if err == nil && filepath.Base(path) == "e2fsck" {
				exit = b.fsck(args)
			}
			return out, exit, err
		}
		f := b.survey().Look(b.t.Context())
		d := decide.Decide(f.Facts, b.m.Policy)
		did = append(did, d.String())
		path := ""
		if f.RecoveryPart != nil {
			path = f.RecoveryPart.Path
		}
		do, ok := map[decide.Job]func(context.Context, job.Env, *survey.Findings) job.Outcome{
			decide.Repair: repair.Main, decide.RepairRecovery: repair.Recovery, decide.RepairTable: repair.Table}[d.Job]
		switch {
		case ok:
			do(b.t.Context(), b.env(path), f)
		case d.Job == decide.Boot && fault == nil:
			return did, calls
		case d.Job != decide.Boot && (d.Job != decide.Hold || fault == nil):
			b.t.Errorf("a unit to be repaired comes to %s; notes %q", d, f.Notes)
			return did, calls
		}
		if calls == nil {
			calls = b.Calls()
		}
		fault = nil
	}
	b.t.Errorf("the unit does not come to its system: %q", did)
	return did, calls
}

// ends is where the unit has come to: its disks, and what is on its volumes but for the counts.
func (b *bench) ends() string {
	b.t.Helper()
	var out strings.Builder
	for _, disk := range []string{"vda", "vdb"} {
		fmt.Fprintln(&out, disk, b.Bytes(disk, 0, 0))
	}
	for _, fs := range []string{b.unit.Recovery.Table.Find(layout.Recovery).FSUUID, b.unit.System().FSUUID} {
		for line := range strings.Lines(machinetest.Tree(b.t, b.Volume(fs))) {
			if !strings.Contains(line, state.CountsFile) {
				out.WriteString(line)
			}
		}
	}
	return out.String()
}

// TestLaw cuts a repair at each call and lets each call fail. Begun anew, as often as that takes, the unit comes to its system as after a
// repair that nothing happened to, and at no time is it restored.
func TestLaw(t *testing.T) {
	start := newBench(t, machinetest.Kind{Firmware: layout.UEFI})
	for name, c := range map[string]struct {
		damage func(b *bench)
		job    decide.Job
	}{
		"main system, errors noted":                   {noted(layout.Primary), decide.Repair},
		"recovery volume, errors noted":               {noted(layout.Recovery), decide.RepairRecovery},
		"recovery volume, superblock and record lost": {loseRecovery, decide.RepairRecovery},
		"table of the main disk":                      {tableOf("vdb"), decide.RepairTable},
		"tables of both disks":                        {func(b *bench) { tableOf("vda")(b); tableOf("vdb")(b) }, decide.RepairTable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sick := start.clone(t)
			c.damage(sick)
			whole := sick.clone(t)
			did, calls := whole.boots(nil)
			if len(did) != 2 || !strings.HasPrefix(did[0], string(c.job)+":") {
				t.Fatalf("without a cut: %q", did)
			}
			want, at := whole.ends(), machinetest.Sampled(calls)
			tried := 0
			for _, bad := range []error{machinetest.ErrCut, syscall.EIO} {
				for i, n := range at {
					if testing.Short() && i%3 != 0 {
						continue
					}
					tried++
					b := sick.clone(t)
					did, _ := b.boots(func(k int, _ string) error {
						if k == n {
							return bad
						}
						return nil
					})
					if diff := cmp.Diff(want, b.ends()); diff != "" {
						t.Fatalf("%v at call %d, %s: %q: ends elsewhere:\n%s", bad, n, calls[n-1], did, diff)
					}
				}
			}
			t.Logf("%d calls, %d cuts and failures", len(calls), tried)
		})
	}
}
