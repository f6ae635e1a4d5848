package engine

import (
	"testing"

	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
)

// honest are drives without faults, and what is the best that can be proved of each.
func honest(seed uint64) []struct {
	name   string
	config simdrive.Config
	want   erasure.Outcome
	level  erasure.Level
} {
	flash, disk, sas, nvme := small(simdrive.SATAFlash(seed), 600), small(simdrive.SATADisk(seed), 600), small(simdrive.SCSIDisk(seed), 600),
		small(simdrive.NVMeDisk(seed), 300)
	with := func(c simdrive.Config, change func(*simdrive.Config)) simdrive.Config { change(&c); return c }
	return []struct {
		name   string
		config simdrive.Config
		want   erasure.Outcome
		level  erasure.Level
	}{
		{"NVMe", nvme, erasure.Proved, erasure.Purge},
		{"NVMe that deallocates", with(nvme, func(c *simdrive.Config) { c.NoKeep, c.Noise = true, false }), erasure.Proved, erasure.Purge},
		{"NVMe, three namespaces", with(nvme, func(c *simdrive.Config) { c.Others = []int64{50, 30} }), erasure.Proved, erasure.Purge},
		{"NVMe, a namespace that is not attached", with(nvme, func(c *simdrive.Config) { c.Others, c.Unattached = []int64{50}, 1 }),
			erasure.Weaker, erasure.Purge},
		{"NVMe, Format only", with(nvme, func(c *simdrive.Config) {
			c.Methods = []drive.Method{drive.NVMeFormatCrypto, drive.NVMeFormatUser}
		}), erasure.Proved, erasure.Clear},
		{"NVMe that shows its media", with(nvme, func(c *simdrive.Config) { c.Verify, c.Noise = true, false }), erasure.Proved, erasure.Purge},
		{"NVMe that purges or fails", with(nvme, func(c *simdrive.Config) { c.Purges = true }), erasure.Proved, erasure.Purge},
		{"eMMC", small(simdrive.MMCDisk(seed), 600), erasure.Proved, erasure.Purge},
		{"eMMC without Sanitize", with(small(simdrive.MMCDisk(seed), 600), func(c *simdrive.Config) { c.Methods = nil }), erasure.Weaker,
			erasure.Clear},
		{"eMMC older than Sanitize", small(simdrive.OldMMCDisk(seed), 600), erasure.Proved, erasure.Clear},
		{"eMMC of both ages", with(small(simdrive.MMCDisk(seed), 600), func(c *simdrive.Config) {
			c.Methods = append(c.Methods, drive.MMCSecureErase)
		}), erasure.Proved, erasure.Purge},
		{"SATA", disk, erasure.Proved, erasure.Purge},
		{"SATA, a hidden area", with(disk, func(c *simdrive.Config) { c.Area = 40 }), erasure.Proved, erasure.Purge},
		{"SATA, Security Erase only", with(disk, func(c *simdrive.Config) {
			c.Methods = []drive.Method{drive.ATASecurityEnhanced, drive.ATASecurityNormal}
		}), erasure.Proved, erasure.Clear},
		{"SATA without methods", with(disk, func(c *simdrive.Config) { c.Methods = nil }), erasure.Proved, erasure.Clear},
		{"SATA flash", flash, erasure.Proved, erasure.Purge},
		{"SATA flash without methods", with(flash, func(c *simdrive.Config) { c.Methods = nil }), erasure.Weaker, erasure.Clear},
		{"SATA flash behind USB", with(flash, func(c *simdrive.Config) { c.USB = true }), erasure.Proved, erasure.Purge},
		{"SATA flash behind USB, Security Erase only", with(flash, func(c *simdrive.Config) {
			c.USB, c.Methods = true, []drive.Method{drive.ATASecurityEnhanced, drive.ATASecurityNormal}
		}), erasure.Weaker, erasure.Clear},
		{"SCSI", sas, erasure.Proved, erasure.Purge},
		{"SCSI, FORMAT UNIT only", with(sas, func(c *simdrive.Config) { c.Methods = []drive.Method{drive.SCSIFormatUnit} }), erasure.Proved,
			erasure.Clear},
		{"SCSI flash, FORMAT UNIT only", with(sas, func(c *simdrive.Config) {
			c.Flash, c.Methods = true, []drive.Method{drive.SCSIFormatUnit}
		}), erasure.Weaker, erasure.Clear},
	}
}

// TestHonest erases each honest drive at the best level that it can reach, and nothing is left.
func TestHonest(t *testing.T) {
	for _, tt := range honest(1) {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.config, simdrive.Faults{})
			size := g.sim.Device().Size()
			res := g.finish()
			if res.Drive.Outcome != tt.want || res.Drive.Level != tt.level {
				t.Errorf("%s %s %q, want %s %s", res.Drive.Outcome, res.Drive.Level, res.Drive.Reasons, tt.want, tt.level)
				for _, a := range res.Attempts {
					t.Logf("%+v", a)
				}
				for _, a := range res.Drive.Commands {
					t.Logf("%+v", a)
				}
			}
			readable, hidden := g.sim.Residue()
			if deep := tt.level == erasure.Purge || res.Drive.Evidence.Method == erasure.MMCSecureErase; readable != 0 || deep && hidden != 0 {
				t.Errorf("%d sectors are left, and %d hidden copies", readable, hidden)
			}
			if len(g.announced) != 1 || g.announced[0].Serial != tt.config.Serial {
				t.Errorf("the state before: %+v", g.announced)
			}
			if now := g.sim.Device().Size(); now != size {
				t.Errorf("it has %d bytes, and had %d", now, size)
			}
			valid(t, res.Drive)
		})
	}
}
