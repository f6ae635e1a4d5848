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
	l := Labels{Recovery: "RECOVERY", Primary: "PRIMARY"}
	for name, tc := range map[string]struct {
		fw   Firmware
		d    Device
		want string
	}{
		"uefi": {UEFI, Device{8 * GiB, 4096}, `gpt 00000005-0000-4000-8000-000000000000
1 esp 1+512 c12a7328-f81f-11d2-ba4b-00a0c93ec93b 00000002-0000-4000-8000-000000000000 name="ESP" active=false fs=0000-0003 label="ESP"
2 primary 513+7678 0fc63daf-8483-4772-8e79-3d69d8477de4 00000004-0000-4000-8000-000000000000 name="PRIMARY" active=false fs=00000001-0000-4000-8000-000000000000 label="PRIMARY"
`},
		"bios": {BIOS, Device{8*GiB + 12345, 512}, `mbr 00000002
1 primary 1+8190 83 00000002-01 name="" active=true fs=00000001-0000-4000-8000-000000000000 label="PRIMARY"
`},
		"bios over 2 TiB": {BIOS, Device{3 * TiB, 512}, `gpt 00000004-0000-4000-8000-000000000000
1 bios-boot 1+1 21686148-6449-6e6f-744e-656564454649 00000002-0000-4000-8000-000000000000 name="BIOS boot" active=false fs= label=""
2 primary 2+3145725 0fc63daf-8483-4772-8e79-3d69d8477de4 00000003-0000-4000-8000-000000000000 name="PRIMARY" active=false fs=00000001-0000-4000-8000-000000000000 label="PRIMARY"
`},
	} {
		t.Run(name, func(t *testing.T) {
			tab, err := ForMain(tc.fw, tc.d, l, counter())
			if err != nil {
				t.Fatal(err)
			}
			if got := show(tab); got != tc.want {
				t.Errorf("got\n%swant\n%s", got, tc.want)
			}
		})
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
