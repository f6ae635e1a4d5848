package survey

import (
	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// BackupTable is a partition table whose first copy is damaged.
type BackupTable struct {
	Disk  block.Disk
	Table layout.Table
	// Recorded reports whether the table is that of the unit's record.
	Recorded bool
}

// useBackupTables makes the kernel know the partitions of disks that have a valid partition table only at their end.
// Nothing is written.
func (s *Survey) useBackupTables(f *Findings) {
	if s.Provisions() { // provisioning writes new tables
		return
	}
	disks, err := s.Eyes.Disks()
	if err != nil {
		note(&f.Notes, "tables: %v", err)
		return
	}
	for i, c := range machine.Candidates(disks) {
		if v := s.Eyes.Variant(); !platform.AllowedMain(v, c) && !platform.AllowedRecovery(v, c) {
			continue
		}
		t, err := s.Eyes.BackupTable(disks[i])
		if err != nil {
			note(&f.Notes, "tables: %s: %v", c.Path, err)
		}
		if t != nil {
			f.Tables = append(f.Tables, BackupTable{Disk: disks[i], Table: *t})
			note(&f.Notes, "tables: the first copy on %s is damaged, using the one at the end", c.Path)
		}
	}
}

// judgeTables marks those damaged tables that are the unit's own, by the record on the recovery volume.
func (s *Survey) judgeTables(f *Findings) {
	if f.Recovery != decide.RecoveryFound {
		return
	}
	for i, t := range f.Tables {
		for _, d := range append([]state.Disk{f.Unit.Recovery}, f.Unit.Main...) {
			f.Tables[i].Recorded = f.Tables[i].Recorded || d.Table.Kind == layout.GPT && d.Table.On(t.Table)
		}
		f.TableDamaged = f.TableDamaged || f.Tables[i].Recorded && !s.Memory.TablesTried
	}
}
