package pid1

import (
	"strings"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

func TestParseArgs(t *testing.T) {
	a := ParseArgs(`provision.pxe console=ttyS0 mfgurl=http://10.0.0.1/m.json enrol=abc BOOTIF=01-52-54-00-AA-BB-CC "real_root=PARTUUID=ABCD-01" x="a b"`, false)
	if a.ManifestURL != "http://10.0.0.1/m.json" || a.Token.Reveal() != "abc" || a.BootMAC != "52:54:00:aa:bb:cc" || a.RootPARTUUID != "abcd-01" || a.Erase {
		t.Errorf("got %+v", a)
	}
	if l := ParseArgs("mfgurl=http://x enrol=t DATA_ERASE=1 KERNEL_OVERRIDE=recovery FACTORY_RESTORE=1 PREFERRED_UPDATE=oldest PROTO_IDENT=x real_root=PARTUUID=a", true); l != (Args{RootPARTUUID: "a"}) {
		t.Errorf("a locked artifact takes %+v from the command line", l)
	}
	if s := WithoutSecrets("mfgurl=http://me:topsecret@host/m.json?a=b"); s != "mfgurl=http://host/m.json?a=b" {
		t.Errorf("got %q", s)
	}
	if s := WithoutSecrets("a enrol=topsecret b"); strings.Contains(s, "topsecret") || !strings.Contains(s, "a enrol=[secret] b") {
		t.Errorf("got %q", s)
	}
}

// TestDecide is the table of spec 4 once more, as cases.
func TestDecide(t *testing.T) {
	req := &state.Request{ID: "0123456789abcdef", Kind: state.KindRestore}
	normal := policy.Policy{}
	mfg := policy.Policy{Provision: true}
	damage := policy.Policy{RestoreOnDamage: true}
	const url = "http://server/manufData.json"
	for _, tc := range []struct {
		name  string
		f     Facts
		p     policy.Policy
		job   Job
		fault *fault.Fault
	}{
		{"erase asked", Facts{EraseAsked: true, Main: MainMarked, Recovery: RecoveryFound}, normal, Hold, fault.Policy},
		{"provision", Facts{ManifestURL: url, Recovery: RecoveryMissing, Main: MainBlank}, mfg, Provision, nil},
		{"provision again", Facts{ManifestURL: url, Recovery: RecoveryFound, Main: MainMarked}, mfg, Provision, nil},
		{"mfgurl without the policy", Facts{ManifestURL: url, Recovery: RecoveryFound, Main: MainMarked}, normal, Boot, nil},
		{"provisioning artifact without mfgurl", Facts{Recovery: RecoveryMissing, Main: MainBlank}, mfg, Hold, fault.NoManifestURL},
		{"two recovery volumes", Facts{Recovery: RecoveryAmbiguous, Main: MainMarked}, normal, Hold, fault.RecoveryAmbiguous},
		{"two main disks", Facts{Recovery: RecoveryFound, Main: MainAmbiguous}, normal, Hold, fault.MainAmbiguous},
		{"two main disks and a request", Facts{Recovery: RecoveryFound, Main: MainAmbiguous, Request: req}, normal, Hold, fault.MainAmbiguous},
		{"request, blank disk", Facts{Recovery: RecoveryFound, Main: MainBlank, Request: req}, normal, Restore, nil},
		{"request, complete system", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: req}, normal, Restore, nil},
		{"request, already fulfilled", Facts{Recovery: RecoveryFound, Main: MainMarked, Request: req, Fulfilled: req.ID}, normal, Boot, nil},
		{"request, half-written disk", Facts{Recovery: RecoveryFound, Main: MainDamaged, Request: req}, normal, Restore, nil},
		{"request, foreign disk", Facts{Recovery: RecoveryFound, Main: MainForeign, Request: req}, normal, Restore, nil},
		{"request, no disk", Facts{Recovery: RecoveryFound, Main: MainAbsent, Request: req}, normal, Hold, fault.MainMissing},
		{"complete system", Facts{Recovery: RecoveryFound, Main: MainMarked}, normal, Boot, nil},
		{"complete system, recovery gone", Facts{Recovery: RecoveryMissing, Main: MainMarked}, normal, Boot, nil},
		{"complete system, recovery damaged", Facts{Recovery: RecoveryDamaged, Main: MainMarked}, normal, Boot, nil},
		{"no mark", Facts{Recovery: RecoveryFound, Main: MainUnmarked}, normal, Restore, nil},
		{"no mark, recovery gone", Facts{Recovery: RecoveryMissing, Main: MainUnmarked}, normal, Hold, fault.NoRecovery},
		{"no mark, recovery damaged", Facts{Recovery: RecoveryDamaged, Main: MainUnmarked}, normal, Hold, fault.RecoveryDamaged},
		{"blank disk", Facts{Recovery: RecoveryFound, Main: MainBlank}, normal, Restore, nil},
		{"foreign disk", Facts{Recovery: RecoveryFound, Main: MainForeign}, normal, Hold, fault.MainForeign},
		{"disk missing", Facts{Recovery: RecoveryFound, Main: MainAbsent}, normal, Hold, fault.MainMissing},
		{"disk missing, policy restores damage", Facts{Recovery: RecoveryFound, Main: MainAbsent}, damage, Hold, fault.MainMissing},
		{"damaged", Facts{Recovery: RecoveryFound, Main: MainDamaged}, normal, Repair, nil},
		{"damaged, repaired once", Facts{Recovery: RecoveryFound, Main: MainDamaged, Repairs: 1}, normal, Repair, nil},
		{"damaged, repairs used up", Facts{Recovery: RecoveryFound, Main: MainDamaged, Repairs: 2}, normal, Hold, fault.MainDamaged},
		{"damaged, repairs used up, policy restores", Facts{Recovery: RecoveryFound, Main: MainDamaged, Repairs: 2}, damage, Restore, nil},
		{"damaged, policy restores, recovery gone", Facts{Recovery: RecoveryMissing, Main: MainDamaged, Repairs: 2}, damage, Hold, fault.NoRecovery},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := Decide(tc.f, tc.p)
			if d.Job != tc.job || d.Fault != tc.fault {
				t.Errorf("got %s with fault %v, want %s with %v", d, d.Fault, tc.job, tc.fault)
			}
		})
	}
}

// TestDecideIsTotal walks through all combinations: there is always a decision, no decision destroys without a recovery volume
// and proof, and Hold always has a fault.
func TestDecideIsTotal(t *testing.T) {
	req := &state.Request{ID: "0123456789abcdef"}
	for _, r := range []RecoveryState{RecoveryMissing, RecoveryFound, RecoveryAmbiguous, RecoveryDamaged} {
		for _, m := range []MainState{MainAbsent, MainAmbiguous, MainBlank, MainForeign, MainMarked, MainUnmarked, MainDamaged} {
			for _, q := range []*state.Request{nil, req} {
				for _, p := range []policy.Policy{{}, {Provision: true}, {RestoreOnDamage: true}} {
					for repairs := range 4 {
						f := Facts{Recovery: r, Main: m, Request: q, Repairs: repairs}
						d := Decide(f, p)
						if d.Fault == fault.Internal {
							t.Errorf("%+v: no rule fits", f)
						}
						if (d.Job == Hold) != (d.Fault != nil) {
							t.Errorf("%+v: %s has fault %v", f, d, d.Fault)
						}
						if d.Job == Restore && (r != RecoveryFound || m == MainAbsent || m == MainAmbiguous) {
							t.Errorf("%+v: %s", f, d)
						}
						if d.Job == Restore && q == nil && (m == MainForeign || (m == MainDamaged && !p.RestoreOnDamage)) {
							t.Errorf("%+v: %s although nobody asked", f, d)
						}
					}
				}
			}
		}
	}
}

// TestOtherContent: what is recognised as somebody's data is not repaired as if it were a bad ext4.
func TestOtherContent(t *testing.T) {
	for typ, want := range map[string]MainState{"": MainDamaged, "ext2": MainDamaged, "jbd": MainDamaged, "xfs": MainForeign, "luks": MainForeign, "md": MainForeign, "swap": MainForeign} {
		if got := otherContent(filesystem.Info{Type: typ}); got != want {
			t.Errorf("%q: got %s, want %s", typ, got, want)
		}
	}
}

// TestPatience: a request takes the recorded disk at once, and waits for it where another one stands in its place.
func TestPatience(t *testing.T) {
	u := &unit{m: &machine.Machine{}}
	long := u.m.Policy.RootWait()
	own := block.Disk{Bus: "sata", Model: "M", Serial: "S1", Size: 1 << 30}
	other, plain := own, own
	other.Serial, plain.Serial = "S2", ""
	unit := func(d block.Disk) state.Unit {
		return state.Unit{Main: []state.Disk{machine.DiskRecord(d, layout.Table{})}}
	}
	facts := func(m MainState) Facts {
		return Facts{Recovery: RecoveryFound, Main: m, Request: &state.Request{ID: "0123456789abcdef"}}
	}
	for _, tc := range []struct {
		name string
		f    Found
		want time.Duration
	}{
		{"own blank disk", Found{Facts: facts(MainBlank), Planned: []block.Disk{own}, Unit: unit(own)}, 0},
		{"blank disk without a serial number", Found{Facts: facts(MainBlank), Planned: []block.Disk{plain}, Unit: unit(plain)}, 0},
		{"another blank disk", Found{Facts: facts(MainBlank), Planned: []block.Disk{other}, Unit: unit(own)}, long},
		{"own disk, half a table", Found{Facts: facts(MainForeign), Planned: []block.Disk{own}, Unit: unit(own)}, 0},
		{"another disk with data", Found{Facts: facts(MainForeign), Planned: []block.Disk{other}, Unit: unit(own)}, long},
		{"a disk with data without a serial number", Found{Facts: facts(MainForeign), Planned: []block.Disk{plain}, Unit: unit(plain)}, long},
		{"own partition, other data", Found{Facts: facts(MainForeign), MainPart: &machine.Found{}, Unit: unit(own)}, 0},
		{"no disk", Found{Facts: facts(MainAbsent), Unit: unit(own)}, long},
		{"half-written partition", Found{Facts: facts(MainDamaged), Unit: unit(own)}, 0},
		{"damaged", Found{Facts: Facts{Recovery: RecoveryFound, Main: MainDamaged}}, 0},
		{"unreadable", Found{Facts: Facts{Recovery: RecoveryFound, Main: MainDamaged}, Unreadable: true}, long},
		{"complete", Found{Facts: Facts{Recovery: RecoveryFound, Main: MainMarked}}, 0},
		{"complete without a recovery volume", Found{Facts: Facts{Recovery: RecoveryMissing, Main: MainMarked}}, recoveryPatience},
	} {
		if got := u.patience(&tc.f); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

func FuzzParseArgs(f *testing.F) {
	f.Add(`a=b "c d" real_root=PARTUUID=x`)
	f.Fuzz(func(t *testing.T, s string) {
		ParseArgs(s, false)
		WithoutSecrets(s)
	})
}
