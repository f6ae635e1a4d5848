package pid1

import (
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"gprovision/hw/efi"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/survey"
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
		if got := u.forced(firmware(t, tc.started)); got != tc.want {
			t.Errorf("%s: got %t", tc.name, got)
		}
	}
}

// TestForcedRestoreNeedsAYes: what becomes of the choice in a boot menu.
func TestForcedRestoreNeedsAYes(t *testing.T) {
	unattended := policy.Policy{ForcedRestore: policy.ForcedRestoreUnattended}
	yes, no := []panel.Key{panel.KeyDown, panel.KeyEnter}, []panel.Key{panel.KeyEnter}
	whole := decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainMarked}
	with := func(change func(*decide.Facts)) decide.Facts { f := whole; change(&f); return f }
	for _, tc := range []struct {
		name string
		f    decide.Facts
		p    policy.Policy
		keys []panel.Key // nil: no panel has keys
		want decide.Job
		asks bool
	}{
		{"yes", whole, policy.Policy{}, yes, decide.Restore, true},
		{"no", whole, policy.Policy{}, no, decide.Boot, true},
		{"nobody can answer", whole, policy.Policy{}, nil, decide.Boot, false},
		{"unattended", whole, unattended, nil, decide.Restore, false},
		{"unattended, a disk of somebody", with(func(f *decide.Facts) { f.Main = decide.MainForeign }), unattended, nil, decide.Hold, false},
		{"a disk of somebody, yes", with(func(f *decide.Facts) { f.Main = decide.MainForeign }), unattended, yes, decide.Restore, true},
		{"resumed in the menu", with(func(f *decide.Facts) { f.Choice.Kind = decide.ChooseResume }), unattended, nil, decide.Boot, false},
		{"no recovery volume", with(func(f *decide.Facts) { f.Recovery = decide.RecoveryMissing }), unattended, nil, decide.Boot, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := &unit{log: slog.New(slog.DiscardHandler), m: &machine.Machine{Panel: panel.New(), Policy: tc.p}, args: decide.Args{Forced: true}}
			asked := false
			if tc.keys != nil {
				u.m.Panel.Add("script", &script.Panel{Answer: func(panel.Asked) []panel.Key { asked = true; return tc.keys }})
			}
			for range 2 { // a second pass of the same boot does not ask again
				asked = false
				facts := tc.f
				if c, chosen := u.askForced(t.Context(), &survey.Findings{Facts: tc.f}); chosen {
					facts.Choice = c
				}
				if d := decide.Decide(facts, tc.p); d.Job != tc.want || asked != tc.asks {
					t.Errorf("%s, asked %t", d, asked)
				}
				if tc.asks = false; tc.want == decide.Restore {
					tc.want = decide.Decide(tc.f, tc.p).Job
				}
			}
		})
	}
}
