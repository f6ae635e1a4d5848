package provision

import (
	"context"

	"gprovision/hw/nic"
	"gprovision/hw/smbios"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/model/platform"
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
	device, err := j.plan.chooseRecovery(j.Identity.Variant, disks)
	if err != nil {
		return err
	}
	spec, recovery := j.plan.Spec, device.Path
	if j.Identity.Variant.OneDisk() { // the volume is on a main disk: no device to compare
		spec.Recovery, recovery = manifest.Disk{}, ""
	}
	rules := hardware.Rules{OUI: j.Identity.Variant.MACPrefixes(), Recovery: recovery, Named: j.Identity.From == "name"}
	lines := hardware.Compare(spec, m, rules)
	j.env.Checks++
	for _, l := range lines {
		j.Log.Info("hardware", journal.Kind(record.KindQA), "name", l.Name, "found", l.Found, "expected", l.Expected, "rule", l.Rule,
			"checked", l.Checked, "ok", l.OK, "try", j.env.Checks, journal.ForPerson())
	}
	j.Log.Info("hardware compared", "result", hardware.Tally(lines), journal.ForPerson())
	j.Panel.Message(hardware.Tally(lines))
	if err := hardware.Judge(lines); err != nil {
		dump, derr := hardware.Dump(m, spec.DevCodeName, recovery, j.Identity.Variant.MACPrefixes())
		if derr == nil {
			j.Log.Info("hardware as a specification", "json", string(dump))
		}
		// what is wrong with the disks is a kind of its own, with a better hint
		if _, disks := chooseMain(j.Identity.Variant, disks, device); disks != nil {
			return disks
		}
		return err
	}
	return j.runSteps(ctx, manifest.RunAfterQA)
}

// recoverySpec is what the manifest says of the recovery device, or nil if it says nothing.
func recoverySpec(s manifest.Specs) *platform.Want {
	r := s.Recovery
	if r.Size == 0 && r.Vendor == "" && r.Model == "" {
		return nil
	}
	return &platform.Want{Size: r.Size, TolerancePct: r.SizeTolerancePct, Vendor: r.Vendor, Model: r.Model}
}
