package machinetest

import (
	"errors"
	"os"
	"path/filepath"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// Complete brings m's machine, which Provision filled, to the state after a restore. The main system is there with
// its mark, the main disks start it, and no request is left. What else a restore does, such as the history, is left
// out: that is the business of job/restore.
func Complete(r *Rig, m *machine.Machine, u state.Unit) {
	r.t.Helper()
	root, members := mainTables(r, m, u)
	if u.Array != nil {
		err := m.CreateArray(r.t.Context(), *u.Array, members)
		if err == nil {
			err = m.MakeExt4(r.t.Context(), machine.ArrayPath, u.Array.FSLabel, u.Array.FSUUID)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		root = machine.ArrayPath
	}
	mark, err := state.Mark{Release: Original, Serial: u.Serial}.Marshal()
	if err == nil {
		err = m.Mount(root, m.Places.Main, "ext4", host.MountOptions{})
	}
	if err != nil {
		r.t.Fatal(err)
	}
	boot := filepath.Join(m.Places.Main, "boot")
	err = errors.Join(os.Mkdir(boot, 0o755), os.WriteFile(filepath.Join(boot, m.Site.Names.BootFile), imagetest.BzImage(7, ""), 0o600),
		m.PutMainArtifact(u, disksOf(r, u), m.Places.Main), os.WriteFile(filepath.Join(m.Places.Main, m.Site.Names.Mark), mark, 0o600),
		m.Unmount(m.Places.Main))
	if m.Firmware == layout.UEFI {
		_, eerr := m.EnsureEntries(m.Vars, u)
		err = errors.Join(err, eerr)
	}
	volume := block.PartitionPath(filepath.Join(r.dir, "dev", recoveryDisk(r.kind)), u.Recovery.Table.Find(layout.Recovery).Number)
	err = errors.Join(err, m.Mount(volume, m.Places.Recovery, "ext4", host.MountOptions{}),
		state.Open(m.Places.Recovery).DeleteRequest(), m.Unmount(m.Places.Recovery))
	if err != nil {
		r.t.Fatal(err)
	}
	r.Start(nil)
}

// mainTables writes the recorded tables to the main disks and makes the filesystems that are not on arrays. It
// returns the partition of the main system. For an array it returns the partitions of the members.
func mainTables(r *Rig, m *machine.Machine, u state.Unit) (root string, members []string) {
	r.t.Helper()
	for i, path := range disksOf(r, u) {
		table := u.Main[i].Table
		var err error
		if !r.kind.OneDisk { // otherwise it already has its table
			err = m.WriteTable(path, table)
		}
		roles := []layout.Role{layout.Primary, layout.Data}
		if !r.kind.OneDisk {
			roles = append(roles, layout.ESP)
		}
		if err == nil {
			err = m.Format(r.t.Context(), path, table, roles)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if p := table.Find(layout.Primary); p != nil {
			root = block.PartitionPath(path, p.Number)
		}
		if p := table.Find(layout.Member); p != nil {
			members = append(members, block.PartitionPath(path, p.Number))
		}
	}
	return root, members
}

// disksOf returns the device nodes of the main disks in the order of the record.
func disksOf(r *Rig, u state.Unit) (out []string) {
	for i := range u.Main {
		out = append(out, filepath.Join(r.dir, "dev", []string{"vdb", "vdc"}[i]))
	}
	return out
}

func recoveryDisk(k Kind) string {
	if k.OneDisk {
		return "vdb"
	}
	return "vda"
}
