// Package repair repairs what a unit starts from: the filesystem of its main system, that of its recovery volume, partition tables, and the
// record of a unit whose mainboard was replaced. It changes nothing but what it repairs, and never formats. After each repair it is
// surveyed and decided anew.
package repair

import (
	"context"
	"errors"
	"fmt"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// Main checks and repairs the main filesystem. It counts before it works, so that a repair that crashes counts too. That a count
// cannot be written is no reason not to try: else a full recovery volume would end in what the policy does after failed repairs.
func Main(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	return run(ctx, e, "repair", []step.Step{
		{Name: "count-repair", Say: "Counting", Run: func(context.Context) error {
			if f.Recovery != decide.RecoveryFound {
				e.Machine.Log.Warn("no recovery volume to count on")
				return nil
			}
			count(e, f.Unit, state.Counts.Repaired)
			return nil
		}},
		{Name: "check-main", Say: "Repairing disk", Run: func(ctx context.Context) error {
			return check(ctx, e, f.MainPart.Path, fault.MainDamaged)
		}},
	})
}

// Recovery checks and repairs the filesystem of the recovery volume. What it counts it counts afterwards: before, each write may make
// things worse. A repair that crashes counts for this boot alone, and so does one that does not help: there is nothing to count on.
// A volume that could not be read is proven to be the unit's.
func Recovery(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	return run(ctx, e, "repair-recovery", []step.Step{
		{Name: "check-recovery", Say: "Repairing recovery", Run: func(ctx context.Context) error {
			return check(ctx, e, f.RecoveryPart.Path, fault.RecoveryDamaged)
		}},
		{Name: "count-repair", Say: "Counting", Run: func(context.Context) error {
			rec := f.Unit
			if f.Recovery != decide.RecoveryFound {
				var err error
				if rec, err = adopt(e, *f.RecoveryPart); err != nil {
					return err
				}
			}
			count(e, rec, state.Counts.RecoveryRepaired)
			return nil
		}},
	})
}

// Table writes the damaged partition tables that the unit's record has. A disk that does not take its table works from the other copy.
func Table(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	return run(ctx, e, "repair-table", []step.Step{
		{Name: "write-table", Say: "Repairing table", Run: func(context.Context) error {
			var all error
			for _, t := range f.Tables {
				if !t.Recorded {
					continue
				}
				if err := e.Machine.RepairTable(t.Disk.Path, t.Table); err != nil {
					all = errors.Join(all, fmt.Errorf("%s: %w", t.Disk.Path, err))
					continue
				}
				e.Machine.Log.Warn("partition table repaired from the copy at the end of the disk", "disk", t.Disk.Name, "model", t.Disk.Model,
					"serial", t.Disk.Serial)
			}
			if all != nil {
				return fault.Because(fault.TableDamaged, all)
			}
			return nil
		}},
	})
}

// Board makes this machine's mainboard one of the unit's: a person said that it took the place of another one. It is noted on
// the recovery volume, and nothing else changes. The unit keeps its serial number and its key, by which the server knows it.
func Board(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	return run(ctx, e, "adopt-mainboard", []step.Step{{Name: "adopt-mainboard", Say: "Adopting mainboard", Run: func(context.Context) error {
		board := machine.EyesOf(e.Machine).Board()
		err := e.Volume.Change(func(v *state.Volume) error {
			rec, err := v.ReadUnit()
			if err != nil {
				return err
			}
			if rec.Serial != f.Unit.Serial {
				return fmt.Errorf("the record names the unit %q, and it was %q", rec.Serial, f.Unit.Serial)
			}
			return state.AddBoard(v, board)
		})
		if err != nil {
			return fault.Because(fault.RecoveryDamaged, err)
		}
		e.Machine.Log.Warn("another mainboard was adopted", "unit", f.Unit.Serial, "mainboard", board, journal.ForPerson())
		return nil
	}}})
}

func run(ctx context.Context, e job.Env, name string, steps []step.Step) job.Outcome {
	e.Began(record.JobRepair)
	e.Ended(record.JobRepair, e.Run(ctx, record.JobRepair, name, steps))
	return job.Outcome{Kind: job.DecideAgain}
}

func count(e job.Env, rec state.Unit, change func(state.Counts) state.Counts) {
	if err := e.Count(rec, change); err != nil {
		e.Machine.Log.Warn("repair cannot be counted for later boots", "err", err)
	}
}

// check runs e2fsck on a partition. That it cannot is a failure of the kind f.
func check(ctx context.Context, e job.Env, part string, f *fault.Fault) error {
	dev, err := e.Machine.Open(part, machine.Write) // e2fsck does not wait until an unmounted partition is free
	if err == nil {
		err = dev.Close()
	}
	if err != nil {
		return fault.Because(f, err)
	}
	r, err := filesystem.CheckExt4(ctx, e.Machine.Run, part, true)
	if err != nil {
		return fault.Because(f, err)
	}
	e.Machine.Log.Info("filesystem checked", "result", string(r.State), "copy", r.Backup, "output", string(r.Output))
	if r.State == filesystem.Damaged {
		return fault.Newf(f, "errors are left on %s that e2fsck does not repair", part)
	}
	return nil
}

// adopt takes a damaged recovery volume whose filesystem was repaired as the unit's own, if its record says that it is. It returns that.
func adopt(e job.Env, part machine.Found) (rec state.Unit, err error) {
	info, _, err := e.Machine.ProbePartition(part.Path)
	if err == nil {
		err = putLostBack(e, part, info.UUID)
	}
	if err == nil {
		err = e.Survey.Proves(part, info.UUID)
	}
	if err == nil {
		err = e.Volume.View(func(v *state.Volume) (err error) { rec, err = v.ReadUnit(); return err })
	}
	if err != nil {
		return rec, fault.Because(fault.RecoveryDamaged, fmt.Errorf("after the repair of %s: %w", part.Path, err))
	}
	return rec, nil
}

// putLostBack gives the unit's record its name again if the repair has found it without one.
func putLostBack(e job.Env, p machine.Found, fsUUID string) error {
	return e.Volume.Change(func(v *state.Volume) error {
		names, err := v.PutLostBack(e.Survey.RecordFits(p, fsUUID))
		if len(names) > 0 {
			e.Machine.Log.Warn("files of the recovery volume had lost their names and have them again", "partition", p.Path, "files", names)
		}
		return err
	})
}
