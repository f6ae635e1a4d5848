package partition_test

import (
	"testing"

	"gprovision/hw/partition"
	"gprovision/model/layout"
)

// TestActive looks at the active flags of the first sector: some BIOSes start no disk without one, and some UEFI firmware takes no GPT
// whose protective entry has one.
func TestActive(t *testing.T) {
	d := sparse(t, 3<<40, 512)
	bios := plan(t, layout.BIOS, d)
	if bios.Kind != layout.GPT || bios.Find(layout.BIOSBoot) == nil {
		t.Fatalf("a disk of 3 TiB for BIOS gets %+v", bios)
	}
	both := bios
	both.Partitions = append([]layout.Partition(nil), bios.Partitions...)
	last := both.Partitions[len(both.Partitions)-1]
	both.Partitions[len(both.Partitions)-1].Size -= layout.GiB
	both.Partitions = append(both.Partitions, layout.Partition{Number: last.Number + 1, Start: last.Start + last.Size - layout.GiB, Size: layout.GiB, Type: layout.TypeESP, UUID: "11111111-2222-4333-8444-555555555555"})
	for _, c := range []struct {
		name  string
		table layout.Table
		want  [2]byte // flags of the first two entries
	}{{"UEFI", plan(t, layout.UEFI, d), [2]byte{}}, {"BIOS", bios, [2]byte{0x80, 0}}, {"both", both, [2]byte{0, 0x80}}} {
		if err := partition.Write(d, c.table); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 512)
		if _, err := d.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if got := [2]byte{b[446], b[462]}; got != c.want || b[446+4] != 0xee || b[462+4] != 0 {
			t.Errorf("%s: flags %x, types %x %x", c.name, got, b[446+4], b[462+4])
		}
		if err := partition.Verify(d, c.table); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		judge(t, d, c.table)
	}
}
