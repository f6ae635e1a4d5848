package machinetest

import (
	"testing"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/unit/machine"
)

// Stick plugs a stick with one partition of ext4 into r, of the type kind, and returns where its content is.
func Stick(t *testing.T, r *Rig, kind string) string {
	t.Helper()
	return PartitionedStick(t, r, layout.Partition{Number: 1, Start: layout.MiB, Size: 200 * layout.MiB, Type: kind, Role: layout.Data,
		UUID: machine.NewIDs().UUID(), FSUUID: machine.NewIDs().UUID(), FSLabel: "STICK"})[0]
}

// PartitionedStick plugs a stick with partitions into r, sdb, and returns where the content of each is.
func PartitionedStick(t *testing.T, r *Rig, parts ...layout.Partition) (dirs []string) {
	t.Helper()
	path := r.AddDisk(block.Disk{Name: "sdb", Bus: block.USB, Removable: true, Serial: "STICK", Size: layout.GiB})
	table := layout.Table{Kind: layout.GPT, UUID: machine.NewIDs().UUID(), Partitions: parts}
	m := Machine(r)
	err := m.WriteTable(path, table)
	if err == nil {
		err = m.Format(t.Context(), path, table, []layout.Role{layout.ESP, layout.Data})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		dirs = append(dirs, r.Volume(p.FSUUID))
	}
	return dirs
}
