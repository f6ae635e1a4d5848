package provision

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/platform"
	"gprovision/model/record"
	"gprovision/unit/state"
)

// findKey takes the key that an earlier provisioning of this unit has left on a recovery volume, also one that was cut off before the
// volume had the unit's record, and whatever that volume is called: the server has given credentials to that key, and to no other one. Where there is none the unit goes
// on with a new key.
func (j *provisioning) findKey(context.Context) error {
	parts, err := j.Partitions(platform.AllowedRecovery)
	if err != nil {
		j.Log.Warn("recovery volumes cannot be looked for", "err", err)
		return nil
	}
	var found []keep
	for _, p := range parts {
		info, _, err := j.ProbePartition(p.Path)
		if err != nil || info.Type != "ext4" {
			continue
		}
		data := ""
		if info.Label != j.Site.Names.Recovery { // it may be anybody's: not even its journal is replayed
			data = "noload"
		}
		k, err := j.keyOn(p.Path, data)
		if errors.Is(err, syscall.EBUSY) || errors.Is(err, errMounted) { // it could not be made anew, and other disks are cleared before it
			return fault.Because(fault.DiskWrite, err)
		}
		if err != nil {
			j.Log.Info("recovery volume without a key of this unit", "partition", p.Path, "why", err)
			continue
		}
		found = append(found, k)
	}
	j.takeKey(found)
	return nil
}

// keep is what a provisioned unit keeps when it is provisioned again.
type keep struct {
	key  ed25519.PrivateKey
	held record.Held
}

// takeKey uses the key that was found. Of several different ones none proves that it is the unit's.
func (j *provisioning) takeKey(found []keep) {
	for _, k := range found {
		if !k.key.Equal(found[0].key) {
			j.Log.Warn("two recovery volumes have different keys of this unit: neither is used")
			return
		}
	}
	if len(found) == 0 {
		return
	}
	j.env.Key, j.held = found[0].key, found[0].held
	j.Log.Info("the unit's key was found", "key", record.Fingerprint(j.env.Key.Public().(ed25519.PublicKey)))
}

// errMounted says that a volume which was looked at stays mounted.
var errMounted = errors.New("stays mounted")

// keyOn reads the key of this unit from a partition. data are options of the filesystem.
func (j *provisioning) keyOn(part, data string) (k keep, err error) {
	if err := j.Mount(part, j.Places.Recovery, "ext4", host.MountOptions{ReadOnly: true, NoExec: true, NoSUID: true, NoDev: true, Data: data}); err != nil {
		return keep{}, err
	}
	defer func() {
		if uerr := j.Unmount(j.Places.Recovery); uerr != nil {
			err = fmt.Errorf("%s %w: %w", part, errMounted, uerr)
		}
	}()
	return keyIn(state.Open(j.Places.Recovery), j.Serial)
}

// keyIn reads the key of a unit from a volume. The key of another unit is an error: two units must never have the same.
func keyIn(v *state.Volume, serial string) (keep, error) {
	key, owner, err := v.ReadKeyOf()
	if err != nil {
		return keep{}, err
	}
	u, err := v.ReadUnit()
	switch {
	case err == nil && u.Serial != serial:
		return keep{}, fmt.Errorf("it belongs to the unit %q", u.Serial)
	case err == nil:
		return keep{key, record.Held{Generation: u.Credentials, Provisioned: true}}, nil
	case !errors.Is(err, fs.ErrNotExist):
		return keep{}, err
	case owner != serial:
		return keep{}, fmt.Errorf("it has no record, and its key is of the unit %q", owner)
	}
	return keep{key: key}, nil
}
