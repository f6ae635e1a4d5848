package layout

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"gprovision/model/fault"
)

func counter() IDs {
	n := 0
	return IDs{UUID: func() string { n++; return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }}
}

func show(t Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", t.Kind, t.UUID)
	for _, p := range t.Partitions {
		fmt.Fprintf(&b, "%d %s %d+%d %s %s name=%q active=%v fs=%s label=%q\n", p.Number, p.Role, p.Start/MiB, p.Size/MiB, p.Type, p.UUID, p.Name, p.Active, p.FSUUID, p.FSLabel)
	}
	return b.String()
}

func TestLayouts(t *testing.T) {
	l := Labels{Recovery: "RECOVERY", Primary: "PRIMARY", Data: "DATA"}
	for name, tc := range map[string]struct {
		fw   Firmware
		d    Device
		p    Parts
		want string
	}{
		"uefi": {UEFI, Device{8 * GiB, 4096}, Parts{}, `gpt 00000003-0000-4000-8000-000000000000
1 esp 1+512 c12a7328-f81f-11d2-ba4b-00a0c93ec93b 00000001-0000-4000-8000-000000000000 name="ESP" active=false fs=0000-0002 label="ESP"
2 primary 513+7678 0fc63daf-8483-4772-8e79-3d69d8477de4 00000005-0000-4000-8000-000000000000 name="PRIMARY" active=false fs=00000004-0000-4000-8000-000000000000 label="PRIMARY"
`},
		"bios": {BIOS, Device{8*GiB + 12345, 512}, Parts{}, `mbr 00000001
1 primary 1+8190 83 00000001-01 name="" active=true fs=00000002-0000-4000-8000-000000000000 label="PRIMARY"
`},
		"bios over 2 TiB": {BIOS, Device{3 * TiB, 512}, Parts{}, `gpt 00000002-0000-4000-8000-000000000000
1 bios-boot 1+1 21686148-6449-6e6f-744e-656564454649 00000001-0000-4000-8000-000000000000 name="BIOS boot" active=false fs= label=""
2 primary 2+3145725 0fc63daf-8483-4772-8e79-3d69d8477de4 00000004-0000-4000-8000-000000000000 name="PRIMARY" active=false fs=00000003-0000-4000-8000-000000000000 label="PRIMARY"
`},
		"one disk, uefi, the system gets the rest": {UEFI, Device{12 * GiB, 512}, Parts{Recovery: 3*GiB + 1, Data: true, DataSize: GiB}, `gpt 00000003-0000-4000-8000-000000000000
1 esp 1+512 c12a7328-f81f-11d2-ba4b-00a0c93ec93b 00000001-0000-4000-8000-000000000000 name="ESP" active=false fs=0000-0002 label="ESP"
2 recovery 513+3073 0fc63daf-8483-4772-8e79-3d69d8477de4 00000005-0000-4000-8000-000000000000 name="RECOVERY" active=false fs=00000004-0000-4000-8000-000000000000 label="RECOVERY"
3 primary 3586+7677 0fc63daf-8483-4772-8e79-3d69d8477de4 00000007-0000-4000-8000-000000000000 name="PRIMARY" active=false fs=00000006-0000-4000-8000-000000000000 label="PRIMARY"
4 data 11263+1024 0fc63daf-8483-4772-8e79-3d69d8477de4 00000009-0000-4000-8000-000000000000 name="DATA" active=false fs=00000008-0000-4000-8000-000000000000 label="DATA"
`},
		"one disk, bios, the data get the rest": {BIOS, Device{12 * GiB, 512}, Parts{Recovery: 3 * GiB, Data: true, System: 2 * GiB}, `mbr 00000001
1 recovery 1+3072 83 00000001-01 name="" active=true fs=00000002-0000-4000-8000-000000000000 label="RECOVERY"
2 primary 3073+2048 83 00000001-02 name="" active=false fs=00000003-0000-4000-8000-000000000000 label="PRIMARY"
3 data 5121+7166 83 00000001-03 name="" active=false fs=00000004-0000-4000-8000-000000000000 label="DATA"
`},
		"member, uefi": {UEFI, Device{8 * GiB, 512}, Parts{Member: true}, `gpt 00000003-0000-4000-8000-000000000000
1 esp 1+512 c12a7328-f81f-11d2-ba4b-00a0c93ec93b 00000001-0000-4000-8000-000000000000 name="ESP" active=false fs=0000-0002 label="ESP"
2 member 513+7678 a19d880f-05fc-4d3b-a006-743f0f84911e 00000004-0000-4000-8000-000000000000 name="PRIMARY" active=false fs= label=""
`},
		"member and data, uefi": {UEFI, Device{8 * GiB, 512}, Parts{Member: true, Data: true, DataSize: GiB}, `gpt 00000003-0000-4000-8000-000000000000
1 esp 1+512 c12a7328-f81f-11d2-ba4b-00a0c93ec93b 00000001-0000-4000-8000-000000000000 name="ESP" active=false fs=0000-0002 label="ESP"
2 member 513+6654 a19d880f-05fc-4d3b-a006-743f0f84911e 00000004-0000-4000-8000-000000000000 name="PRIMARY" active=false fs= label=""
3 data-member 7167+1024 a19d880f-05fc-4d3b-a006-743f0f84911e 00000005-0000-4000-8000-000000000000 name="DATA" active=false fs= label=""
`},
		"member and data, bios, the data get the rest": {BIOS, Device{8 * GiB, 512}, Parts{Member: true, Data: true, System: 2 * GiB}, `mbr 00000001
1 member 1+2048 fd 00000001-01 name="" active=true fs= label=""
2 data-member 2049+6142 fd 00000001-02 name="" active=false fs= label=""
`},
		"member, bios": {BIOS, Device{8 * GiB, 512}, Parts{Member: true}, `mbr 00000001
1 member 1+8190 fd 00000001-01 name="" active=true fs= label=""
`},
	} {
		t.Run(name, func(t *testing.T) {
			tab, err := ForMain(tc.fw, tc.d, l, tc.p, counter())
			if err != nil {
				t.Fatal(err)
			}
			if got := show(tab); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
	}
}

// TestStandIn: a stand-in has the size that is asked for, at least 256 MiB, and the rest of the disk stays free.
func TestStandIn(t *testing.T) {
	for name, tc := range map[string]struct {
		fw   Firmware
		d    Device
		size int64
		want string
	}{
		"uefi": {UEFI, Device{8 * GiB, 4096}, GiB + 1, `gpt 00000003-0000-4000-8000-000000000000
1 esp 1+512 c12a7328-f81f-11d2-ba4b-00a0c93ec93b 00000001-0000-4000-8000-000000000000 name="ESP" active=false fs=0000-0002 label="ESP"
2 recovery 513+1025 ` + TypeLinux + ` 00000005-0000-4000-8000-000000000000 name="GPROVSTANDIN" active=false ` +
			`fs=00000004-0000-4000-8000-000000000000 label="GPROVSTANDIN"
`},
		"bios, small": {BIOS, Device{8 * GiB, 512}, 1, `mbr 00000001
1 recovery 1+256 83 00000001-01 name="" active=true fs=00000002-0000-4000-8000-000000000000 label="GPROVSTANDIN"
`},
		"as large as the disk": {BIOS, Device{GiB, 512}, GiB - 2*MiB, `mbr 00000001
1 recovery 1+1022 83 00000001-01 name="" active=true fs=00000002-0000-4000-8000-000000000000 label="GPROVSTANDIN"
`},
		"too large": {BIOS, Device{GiB, 512}, GiB - 2*MiB + 1, ""},
	} {
		tab, err := ForStandIn(tc.fw, tc.d, tc.size, counter())
		if got := show(tab); (err == nil) != (tc.want != "") || err == nil && got != tc.want {
			t.Errorf("%s: %v, got\n%swant\n%s", name, err, got, tc.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		fw   Firmware
		d    Device
		want *fault.Fault
	}{
		{UEFI, Device{GiB - 1, 512}, fault.DiskTooSmall},
		{BIOS, Device{8 * GiB, 4096}, fault.Disk4KnBIOS},
	} {
		if _, err := ForRecovery(tc.fw, tc.d, Labels{}, counter()); !errors.Is(err, tc.want) {
			t.Errorf("%v %v: got %v, want %v", tc.fw, tc.d, err, tc.want)
		}
	}
}

// TestTooSmallForItsParts lays out disks that hold the system and not all the rest.
func TestTooSmallForItsParts(t *testing.T) {
	for _, tc := range []struct {
		size int64
		p    Parts
		want *fault.Fault
	}{
		{4 * GiB, Parts{Recovery: 3 * GiB}, nil},
		{4 * GiB, Parts{Recovery: 4 * GiB}, fault.DiskTooSmall},
		{4 * GiB, Parts{Recovery: 2 * GiB, Data: true, DataSize: 2 * GiB}, fault.DiskTooSmall},
		{4 * GiB, Parts{Data: true, System: 4 * GiB}, fault.DiskTooSmall},
		{4 * GiB, Parts{Data: true, System: 2 * GiB}, nil},
	} {
		if _, err := ForMain(UEFI, Device{tc.size, 512}, Labels{}, tc.p, counter()); fault.Of(err) != tc.want {
			t.Errorf("%d bytes, %+v: got %v, want %v", tc.size, tc.p, err, tc.want)
		}
	}
}

// TestBounds: the smallest disks and partitions that are taken, and the largest disk that an MBR is for.
func TestBounds(t *testing.T) {
	const mbr = MiB // before the first partition of an MBR; as much is left behind the last one
	data := Parts{Data: true, System: 2 * GiB}
	for _, tc := range []struct {
		fw   Firmware
		size int64
		p    Parts
		want *fault.Fault
	}{
		{UEFI, MinPrimary, Parts{}, nil},
		{UEFI, MinPrimary - 1, Parts{}, fault.DiskTooSmall},
		{BIOS, 2*mbr + 2*GiB + MinData, data, nil},
		{BIOS, 2*mbr + 2*GiB + MinData - MiB, data, fault.DiskTooSmall},
		{BIOS, 2*mbr + 2*GiB + MinData, Parts{Member: true, Data: true, System: 2 * GiB}, nil},
		{BIOS, 2*mbr + 2*GiB + MinData - MiB, Parts{Member: true, Data: true, System: 2 * GiB}, fault.DiskTooSmall},
		{BIOS, 2*mbr + 4*GiB + MinPrimary/4, Parts{Recovery: 4 * GiB}, nil},
		{BIOS, 2*mbr + 4*GiB + MinPrimary/4 - MiB, Parts{Recovery: 4 * GiB}, fault.DiskTooSmall},
		{BIOS, 2*mbr + 4*GiB, Parts{Data: true, System: 2 * GiB, DataSize: 2 * GiB}, nil}, // nothing gets the rest
		{BIOS, 2*mbr + 4*GiB - MiB, Parts{Data: true, System: 2 * GiB, DataSize: 2 * GiB}, fault.DiskTooSmall},
	} {
		tab, err := ForMain(tc.fw, Device{tc.size, 512}, Labels{}, tc.p, counter())
		if fault.Of(err) != tc.want {
			t.Errorf("%s, %d bytes, %+v: got %v, want %v", tc.fw, tc.size, tc.p, err, tc.want)
		}
		if (len(tab.Partitions) == 0) != (err != nil) {
			t.Errorf("%v, and the table is %+v", err, tab)
		}
	}
	_, err := ForMain(BIOS, Device{4 * GiB, 512}, Labels{}, Parts{Data: true, System: 2 * GiB, DataSize: 2 * GiB}, counter())
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("need %d bytes", 2*mbr+4*GiB)) {
		t.Errorf("got %v", err)
	}
	for size, want := range map[int64]Kind{2 * TiB: MBR, 2*TiB + 1: GPT} {
		if tab, err := ForMain(BIOS, Device{size, 512}, Labels{}, Parts{}, counter()); err != nil || tab.Kind != want {
			t.Errorf("%d bytes: %s, %v, want %s", size, tab.Kind, err, want)
		}
	}
	tab, err := ForRecovery(UEFI, Device{2 * GiB, 512}, Labels{}, counter())
	if err != nil || tab.Find(Recovery) != &tab.Partitions[1] || tab.Find(Data) != nil {
		t.Errorf("%+v, %v", tab, err)
	}
}

// TestOn compares a recorded table with those of disks.
func TestOn(t *testing.T) {
	recorded, err := ForMain(UEFI, Device{8 * GiB, 512}, Labels{}, Parts{Recovery: GiB, Data: true, DataSize: GiB}, counter())
	if err != nil {
		t.Fatal(err)
	}
	disk := func(change func(*Table)) Table {
		c := recorded
		c.Partitions = nil
		for _, p := range recorded.Partitions {
			p.Role, p.FSUUID, p.FSLabel = Other, "", ""
			c.Partitions = append(c.Partitions, p)
		}
		change(&c)
		return c
	}
	for name, tc := range map[string]struct {
		change func(*Table)
		want   bool
	}{
		"as recorded":     {func(*Table) {}, true},
		"one is missing":  {func(c *Table) { c.Partitions = c.Partitions[:2] }, false},
		"one more":        {func(c *Table) { c.Partitions = append(c.Partitions, Partition{Number: 9, Start: 7 * GiB, Size: MiB}) }, false},
		"one is moved":    {func(c *Table) { c.Partitions[2].Start += MiB }, false},
		"another number":  {func(c *Table) { c.Partitions[2].Number += 5 }, false},
		"another type":    {func(c *Table) { c.Partitions[2].Type = TypeRAID }, false},
		"one is larger":   {func(c *Table) { c.Partitions[3].Size += MiB }, false},
		"another kind":    {func(c *Table) { c.Kind = MBR }, false},
		"another one":     {func(c *Table) { c.Partitions[1].UUID = c.Partitions[0].UUID }, false},
		"another disk":    {func(c *Table) { c.UUID = c.Partitions[0].UUID }, false},
		"no table at all": {func(c *Table) { *c = Table{} }, false},
	} {
		if got := recorded.On(disk(tc.change)); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestPartitionsNeverOverlapNorLeaveTheDisk(t *testing.T) {
	for _, fw := range []Firmware{UEFI, BIOS} {
		for size := int64(GiB); size < 4*TiB; size = size*3 + 511 {
			tab, err := ForRecovery(fw, Device{size, 512}, Labels{}, counter())
			if err != nil {
				t.Fatal(err)
			}
			end := int64(MiB)
			for _, p := range tab.Partitions {
				if p.Start < end || p.Start%MiB != 0 || p.Size <= 0 {
					t.Errorf("%v %d: partition %+v", fw, size, p)
				}
				end = p.Start + p.Size
			}
			if end > size-MiB {
				t.Errorf("%v %d: ends at %d", fw, size, end)
			}
		}
	}
}
