package provision

import (
	"context"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/nic"
	"gprovision/hw/smbios"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/model/record"
	"gprovision/unit/burnin"
	"gprovision/unit/inventory"
	"gprovision/unit/journal"
)

// devicesTime is how long after the first look a part may still come that the hardware check lacks.
const devicesTime = 15 * time.Second

// checkHardware compares the machine with the manifest's specification for its platform. Every line is an event for the server,
// whether it holds or not. When one does not, what was found is logged in the manifest's own form.
func (j *provisioning) checkHardware(ctx context.Context) error {
	if err := j.runSteps(ctx, manifest.RunBeforeQA); err != nil {
		return err
	}
	if err := (controller{j}).read(ctx); err != nil {
		return err
	}
	until := time.Now().Add(devicesTime)
	m, disks, err := lookAtHardware(j)
	lines := hardware.Compare(j.plan.Spec, m, j.Identity)
	for err == nil && hardware.Lacks(lines) && time.Now().Before(until) {
		j.Log.Info("parts are waited for", "most", time.Until(until).Round(time.Second).String())
		if j.env.Await(ctx, time.Until(until)) != nil {
			break // nothing comes
		}
		m, disks, err = lookAtHardware(j)
		lines = hardware.Compare(j.plan.Spec, m, j.Identity)
	}
	if err != nil {
		return err
	}
	j.env.Checks++
	tellLines(j, lines)
	j.Log.Info("hardware compared", "result", hardware.Tally(lines), journal.ForPerson())
	j.Panel.Message(hardware.Tally(lines))
	wrong := hardware.Judge(lines)
	recovery, missing := j.plan.chooseRecovery(j.Identity.Variant, disks)
	if wrong != nil {
		if dump, err := hardware.Dump(m, j.Identity.Variant, recovery.Path); err == nil {
			j.Log.Info("hardware as a specification", "json", string(dump))
		}
	}
	// what is wrong with the disks is a kind of its own, with a better hint
	if missing != nil {
		return missing
	}
	if wrong != nil {
		if _, err := chooseMain(j.Identity.Variant, disks, recovery); err != nil {
			return err
		}
		return wrong
	}
	return j.runSteps(ctx, manifest.RunAfterQA)
}

// tellLines tells the lines of a check: to the log, the panels, and the server's record.
func tellLines(j *provisioning, lines []hardware.Line) {
	for _, l := range lines {
		j.Log.Info("hardware", journal.Kind(record.KindQA), "name", l.Name, "found", l.Found, "expected", l.Expected, "rule", l.Rule,
			"checked", l.Checked, "ok", l.OK, "try", j.env.Checks, journal.ForPerson())
	}
}

// burnIn lets the unit work as the manifest asks for. Its lines stand behind those of the hardware check.
func burnIn(ctx context.Context, j *provisioning) error {
	if j.plan.BurnIn.Nothing() {
		return nil
	}
	lines, err := burnin.Run(ctx, j.Machine, j.Proc, j.plan.BurnIn, j.plan.Main)
	tellLines(j, lines)
	return err
}

// lookAtHardware reads what the machine is made of at this moment.
func lookAtHardware(j *provisioning) (hardware.Machine, []block.Disk, error) {
	dmi, err := smbios.Read(j.Sys)
	if err != nil {
		return hardware.Machine{}, nil, err
	}
	disks, err := j.Disks()
	if err != nil {
		return hardware.Machine{}, nil, err
	}
	ports, err := nic.List(j.Sys)
	if err != nil {
		return hardware.Machine{}, nil, err
	}
	m, err := inventory.Collect(j.Proc, j.Sys, dmi, disks, ports, j.Serial)
	if err != nil {
		j.Log.Warn("hardware cannot be read completely", "err", err)
	}
	m.Firmware.IPMI = j.plan.BMC.firmware
	if err := inventory.Ask(&m, j.Board); err != nil {
		j.Log.Warn("parts of the hardware cannot be asked", "err", err)
	}
	return m, disks, nil
}
