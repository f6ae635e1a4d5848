package pid1

import (
	"context"
	"errors"
	"fmt"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// backupTable is a partition table whose first copy is damaged.
type backupTable struct {
	disk  block.Disk
	table layout.Table
	// recorded says that the unit's record has this table.
	recorded bool
}

// useBackupTables makes the kernel know the partitions of disks whose partition table holds only at their end. Nothing is written.
func (u *unit) useBackupTables(f *Found) {
	if u.provisions() { // it writes new tables
		return
	}
	disks, err := u.m.Disks()
	if err != nil {
		f.note("tables: %v", err)
		return
	}
	for i, c := range machine.Candidates(disks) {
		if v := u.m.Identity.Variant; !platform.AllowedMain(v, c) && !platform.AllowedRecovery(v, c) {
			continue
		}
		t, err := u.m.BackupTable(disks[i])
		if err != nil {
			f.note("tables: %s: %v", c.Path, err)
		}
		if t != nil {
			f.tables = append(f.tables, backupTable{disk: disks[i], table: *t})
			f.note("tables: the first copy on %s is damaged, using the one at the end", c.Path)
		}
	}
}

// judgeTables says which of the damaged tables are the unit's own, by the record on the recovery volume.
func (u *unit) judgeTables(f *Found) {
	if f.Recovery != decide.RecoveryFound {
		return
	}
	for i, t := range f.tables {
		for _, d := range append([]state.Disk{f.Unit.Recovery}, f.Unit.Main...) {
			f.tables[i].recorded = f.tables[i].recorded || d.Table.Kind == layout.GPT && d.Table.On(t.table)
		}
		f.TableDamaged = f.TableDamaged || f.tables[i].recorded && !u.tablesTried
	}
}

// repairTable writes the damaged partition tables that the unit's record has. It is tried once in a boot: a disk that does not take it
// works from the other copy.
func (u *unit) repairTable(ctx context.Context, f *Found) Outcome {
	u.tablesTried = true
	u.forget(f)
	u.began(record.JobRepair)
	err := step.Run(ctx, u.m.Site.Weave("repair-table", []step.Step{
		{Name: "write-table", Say: "Repairing table", Run: func(context.Context) error {
			var all error
			for _, t := range f.tables {
				if !t.recorded {
					continue
				}
				if err := u.m.RepairTable(t.disk.Path, t.table); err != nil {
					all = errors.Join(all, fmt.Errorf("%s: %w", t.disk.Path, err))
					continue
				}
				u.log.Warn("partition table repaired from the copy at the end of the disk", "disk", t.disk.Name, "model", t.disk.Model, "serial", t.disk.Serial)
			}
			if all != nil {
				return fault.Because(fault.TableDamaged, all)
			}
			return nil
		}},
	}), u.observer(record.JobRepair))
	if err != nil {
		u.failed(record.JobRepair, err)
	} else {
		u.succeeded(record.JobRepair)
	}
	return Outcome{Kind: DecideAgain}
}
