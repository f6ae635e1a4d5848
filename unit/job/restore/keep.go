package restore

import (
	"context"
	"errors"

	"gprovision/hw/host"
	"gprovision/unit/journal"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// readData reads fr.data. A restore does not fail because of it: what cannot be read is as if it were not there.
func (j *restoring) readData() {
	if j.Request != nil && j.Request.DropsSettings() {
		j.Log.Info("the saved network files and the restore data are dropped, as the request asks for", "request", j.Request.Kind,
			journal.ForPerson())
		j.data = state.RestoreData{IgnoreNetCfg: true}
		return
	}
	d, err := j.Volume.ReadRestoreData()
	if err != nil {
		j.Log.Warn("restore data are ignored", "err", err)
		return
	}
	j.data = d
	if d.ClearHistory {
		j.Log.Info("a new history of images begins, as the restore data ask for")
		if err := j.Volume.RollHistory(); err != nil {
			j.Log.Warn("history cannot be renamed", "err", err)
		} else if d.ClearHistory = d.Preserve; !d.ClearHistory {
			// Once is enough: a restore that is taken up again after a power cut keeps what it has noted.
			if err := j.Volume.WriteRestoreData(d); err != nil {
				j.Log.Warn("restore data cannot be written", "err", err)
			}
		}
	}
	kept, dropped := state.AllowedArgs(d.BootArgs)
	switch {
	case d.BootArgs == "":
	case j.Policy.Locked:
		j.Log.Warn("the policy is locked: the kernel arguments of the restore data are ignored", "args", d.BootArgs)
		kept = ""
	case len(dropped) > 0:
		j.Log.Warn("kernel arguments of the restore data are ignored, they are not on the list", "args", dropped)
	}
	j.data.BootArgs = kept
}

// dropData removes fr.data after a restore that succeeded, unless it says that it is to stay.
func (j *restoring) dropData() error {
	if j.data == (state.RestoreData{}) || j.data.Preserve {
		return nil
	}
	return j.Volume.WriteRestoreData(state.RestoreData{})
}

// saveNetwork keeps the network configuration of the old system on the recovery volume, while it can still be read. Nothing here
// fails the restore: without a configuration of its own the unit gets the defaults.
func (j *restoring) saveNetwork(context.Context) error {
	var err error
	switch {
	case j.data.IgnoreNetCfg:
		j.Log.Info("the saved network configuration is dropped", journal.ForPerson())
		err = j.Volume.WriteNetwork(nil)
	case j.Main != nil && !j.begun:
		err = j.salvageNetwork()
	}
	if err != nil {
		j.Log.Warn("the network configuration of the old system is not saved", "err", err, journal.ForPerson())
	}
	return nil
}

func (j *restoring) salvageNetwork() error {
	err := j.Mount(j.Main.Path, j.root, "ext4", host.MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true})
	if err != nil {
		return err
	}
	archive, left, err := sysroot.SaveNetwork(j.root, j.Site.Names.ConfDir)
	if uerr := j.Unmount(j.root); uerr != nil {
		return errors.Join(err, uerr)
	}
	if errors.Is(err, sysroot.ErrNoNetworkRecord) {
		// A restore that was cut off before it set the network up: what was saved before it began still holds.
		j.Log.Info("the old system's network files are not looked at", "reason", err)
		return nil
	}
	for _, l := range left {
		j.Log.Warn("a network file is not kept", "err", l, journal.ForPerson())
	}
	if err != nil {
		return err
	}
	changed, err := j.Volume.SetNetwork(archive)
	if err == nil {
		j.Log.Info("network configuration of the old system", "own", archive != nil, "changed", changed, "bytes", len(archive))
	}
	return err
}

// preserved returns the saved network files. What is on the recovery volume is not trusted.
func (j *restoring) preserved() []sysroot.File {
	b, err := j.Volume.ReadNetwork()
	if b == nil && err == nil {
		return nil
	}
	var files []sysroot.File
	var refused []error
	if err == nil {
		files, refused, err = sysroot.UnpackNetwork(b)
	}
	for _, r := range refused {
		j.Log.Warn("a saved network file is refused", "err", r, journal.ForPerson())
	}
	if err != nil {
		j.Log.Warn("the saved network configuration cannot be used, the system gets the defaults", "err", err, journal.ForPerson())
		return nil
	}
	return files
}
