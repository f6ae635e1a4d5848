package pid1

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"gprovision/hw/efi"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
)

// firmware stands for the variables of one that started the entry with the description.
func firmware(t *testing.T, description string) *efi.Vars {
	t.Helper()
	dir := t.TempDir()
	o, err := efi.LoadOption{Attributes: efi.Active, Description: description}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"Boot0007": o, "BootCurrent": binary.LittleEndian.AppendUint16(nil, 7)} {
		if err := os.WriteFile(filepath.Join(dir, name+"-"+efi.Global), append([]byte{7, 0, 0, 0}, b...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return efi.New(dir)
}

func TestForced(t *testing.T) {
	const argument = "quiet " + policy.ForcedRestoreArg
	for _, tc := range []struct {
		name, cmdline, started string
		fw                     layout.Firmware
		p                      policy.Policy
		want                   bool
	}{
		{"argument", argument, machine.RecoveryEntry, layout.UEFI, policy.Policy{}, true},
		{"argument on BIOS", argument, "", layout.BIOS, policy.Policy{}, true},
		{"argument, locked", argument, machine.RecoveryEntry, layout.UEFI, policy.Policy{Locked: true}, false},
		{"argument on BIOS, locked", argument, "", layout.BIOS, policy.Policy{Locked: true}, false},
		{"entry, locked", "", machine.ForcedEntry, layout.UEFI, policy.Policy{Locked: true}, true},
		{"entry, arguments dropped", "", machine.ForcedEntry, layout.UEFI, policy.Policy{}, true},
		{"entry, never", argument, machine.ForcedEntry, layout.UEFI, policy.Policy{ForcedRestore: policy.ForcedRestoreNever}, false},
		{"normal", "", machine.NormalEntry, layout.UEFI, policy.Policy{}, false},
		{"recovery", "", machine.RecoveryEntry, layout.UEFI, policy.Policy{}, false},
		{"another value", "FACTORY_RESTORE=0 FACTORY_RESTORE", "", layout.BIOS, policy.Policy{}, false},
	} {
		u := &unit{m: &machine.Machine{Firmware: tc.fw, Policy: tc.p}, args: decide.ParseArgs(tc.cmdline, tc.p.Locked)}
		u.m.Vars = firmware(t, tc.started)
		if got := u.forcedRestoreChosen(); got != tc.want {
			t.Errorf("%s: got %t", tc.name, got)
		}
	}
}

func TestErases(t *testing.T) {
	for _, tc := range []struct {
		name, cmdline, started string
		fw                     layout.Firmware
		p                      policy.Policy
		want                   bool
	}{
		{"argument", policy.EraseArg, machine.RecoveryEntry, layout.UEFI, policy.Policy{}, true},
		{"argument on BIOS", policy.EraseArg, "", layout.BIOS, policy.Policy{}, true},
		{"argument, no entries", policy.EraseArg, "", layout.BIOS, policy.Policy{ForcedRestore: policy.ForcedRestoreNever}, true},
		{"argument, locked", policy.EraseArg, machine.RecoveryEntry, layout.UEFI, policy.Policy{Locked: true}, false},
		{"entry, arguments dropped", "", machine.EraseEntry, layout.UEFI, policy.Policy{}, true},
		{"entry, locked", "", machine.EraseEntry, layout.UEFI, policy.Policy{Locked: true}, false},
		{"entry, no entries", "", machine.EraseEntry, layout.UEFI, policy.Policy{ForcedRestore: policy.ForcedRestoreNever}, false},
		{"forced restore", "", machine.ForcedEntry, layout.UEFI, policy.Policy{}, false},
		{"BIOS", "", machine.EraseEntry, layout.BIOS, policy.Policy{}, false},
	} {
		m := &machine.Machine{Firmware: tc.fw, Policy: tc.p}
		m.Vars = firmware(t, tc.started)
		if got := eraseChosen(decide.ParseArgs(tc.cmdline, tc.p.Locked), m); got != tc.want {
			t.Errorf("%s: got %t", tc.name, got)
		}
	}
}
