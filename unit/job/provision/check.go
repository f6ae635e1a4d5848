package provision

import (
	"context"

	"gprovision/hw/nic"
	"gprovision/hw/smbios"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/model/record"
	"gprovision/unit/inventory"
	"gprovision/unit/journal"
)

// checkHardware compares the machine with the manifest's specification for its platform. Every line is an event for the server,
// whether it holds or not. When one does not, what was found is logged in the manifest's own form.
func (j *provisioning) checkHardware(ctx context.Context) error {
	if err := j.runSteps(ctx, manifest.RunBeforeQA); err != nil {
		return err
	}
	if err := (controller{j}).read(ctx); err != nil {
		return err
	}
	dmi, err := smbios.Read(j.Sys)
	if err != nil {
		return err
	}
	disks, err := j.Disks()
	if err != nil {
		return err
	}
	ports, err := nic.List(j.Sys)
	if err != nil {
		return err
	}
	m, err := inventory.Collect(j.Proc, j.Sys, dmi, disks, ports, j.Serial)
	if err != nil {
		j.Log.Warn("hardware cannot be read completely", "err", err)
	}
	m.Firmware.IPMI = j.plan.bmcFirmware
	if err := inventory.Ask(&m, j.Board); err != nil {
		j.Log.Warn("parts of the hardware cannot be asked", "err", err)
	}
	lines := hardware.Compare(j.plan.Spec, m, j.Identity)
	j.env.Checks++
	for _, l := range lines {
		j.Log.Info("hardware", journal.Kind(record.KindQA), "name", l.Name, "found", l.Found, "expected", l.Expected, "rule", l.Rule,
			"checked", l.Checked, "ok", l.OK, "try", j.env.Checks, journal.ForPerson())
	}
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
