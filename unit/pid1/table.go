package pid1

import (
	"context"
	"errors"
	"fmt"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/survey"
)

// repairTable writes the damaged partition tables that the unit's record has. It is tried once in a boot: a disk that does not take it
// works from the other copy.
func (u *unit) repairTable(ctx context.Context, f *survey.Findings) Outcome {
	u.memory.TablesTried = true
	u.began(record.JobRepair)
	err := step.Run(ctx, u.m.Site.Weave("repair-table", []step.Step{
		{Name: "write-table", Say: "Repairing table", Run: func(context.Context) error {
			var all error
			for _, t := range f.Tables {
				if !t.Recorded {
					continue
				}
				if err := u.m.RepairTable(t.Disk.Path, t.Table); err != nil {
					all = errors.Join(all, fmt.Errorf("%s: %w", t.Disk.Path, err))
					continue
				}
				u.log.Warn("partition table repaired from the copy at the end of the disk", "disk", t.Disk.Name, "model", t.Disk.Model, "serial", t.Disk.Serial)
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
