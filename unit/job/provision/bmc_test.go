package provision

import (
	"errors"
	"strings"
	"testing"

	"gprovision/factory/vault"
	"gprovision/hw/bmc"
	"gprovision/hw/bmc/simulator"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/record"
	"gprovision/model/signature"
	"gprovision/unit/keytest"
	"gprovision/unit/machine/machinetest"
)

// bmcBench is a new machine with a management controller, at a station whose manifest says what is set there.
func bmcBench(t *testing.T, g *goods, c *simulator.Controller, want manifest.BMC) *bench {
	t.Helper()
	b := newBench(t, g, machinetest.Kind{Firmware: layout.UEFI})
	if c != nil {
		machinetest.PutBMC(b.Rig, c)
	}
	b.sets(want)
	return b
}

// sets has the station's manifest say what is set at the controller.
func (b *bench) sets(want manifest.BMC) {
	b.t.Helper()
	m, err := manifest.Parse(b.files["manufData.json"])
	if err != nil {
		b.t.Fatal(err)
	}
	want.DevCodeName = "VIRT"
	m.BMC = []manifest.BMC{want}
	text, err := m.Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	b.files["manufData.json"] = text
	b.files["manufData.json"+signature.Suffix] = []byte(keytest.Sign(b.t, b.goods.key, string(text), signature.ManifestComment("WIDGET", "7")))
}

// ipmiPassword is the password that the operator reads.
func (b *bench) ipmiPassword() string {
	b.t.Helper()
	u, _ := b.record(b.machine())
	s, err := b.db.ReadSecret(b.t.Context(), benchSerial, u.Credentials, "operator", "127.0.0.1")
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := vault.Open(b.goods.with, benchSerial, u.Credentials, s.Ciphertext)
	if err != nil {
		b.t.Fatal(err)
	}
	return c.IPMI.Reveal()
}

// everything is what a manifest can set.
func everything() manifest.BMC {
	return manifest.BMC{User: "operator", Disable: []string{"ADMIN", "root"}, PowerRestore: "always-on", ClearSEL: true}
}

// TestBMC provisions machines whose controllers have all kinds of faults, and holds what becomes of them: whether the unit is provisioned,
// how far its password is said to be proved, and that what can be known before the first write is known then.
func TestBMC(t *testing.T) {
	g := newGoods(t)
	notReached, noAddress := "not checked: "+bmc.ErrNoAnswer.Error(), "not checked: its port has no address"
	noTest, noProof := "not checked: "+bmc.ErrNoTest.Error(), "not checked: "+bmc.ErrNoProof.Error()
	for name, tc := range map[string]struct {
		none            bool // no controller
		faults          simulator.Faults
		sets            manifest.BMC
		expected        bool // by the platform
		want            *fault.Fault
		destroys        bool // it stops after the disks were cleared
		inBand, overLAN string
	}{
		"all is well":                {sets: everything(), inBand: proved, overLAN: proved},
		"its port is not reached":    {sets: everything(), faults: simulator.Faults{Unreachable: true}, inBand: proved, overLAN: notReached},
		"its port has no address":    {sets: everything(), faults: simulator.Faults{NoAddress: true}, inBand: proved, overLAN: noAddress},
		"no inventory":               {sets: everything(), faults: simulator.Faults{NoInventory: true}, inBand: proved, overLAN: proved},
		"cannot test":                {sets: everything(), faults: simulator.Faults{NoTest: true}, inBand: noTest, overLAN: proved},
		"says yes to all":            {sets: everything(), faults: simulator.Faults{TestLies: true}, inBand: noProof, overLAN: proved},
		"nothing is set":             {},
		"none":                       {none: true},
		"does not answer":            {faults: simulator.Faults{Silent: errors.New("bus error")}},
		"none, and one is set":       {none: true, sets: everything(), want: fault.NoBMC},
		"none, and one is expected":  {none: true, expected: true, want: fault.NoBMC},
		"does not answer, expected":  {faults: simulator.Faults{Silent: errors.New("bus error")}, expected: true, want: fault.NoBMC},
		"has no port":                {sets: everything(), faults: simulator.Faults{NoLAN: true}, want: fault.BMCRefused},
		"has no port, none is asked": {sets: manifest.BMC{ClearSEL: true}, faults: simulator.Faults{NoLAN: true}},
		"has no account":             {sets: everything(), faults: simulator.Faults{Full: true}, want: fault.BMCRefused},
		"refuses the password": {sets: everything(), faults: simulator.Faults{RefusePassword: true},
			want: fault.BMCRefused, destroys: true},
		"forgets it": {sets: everything(), faults: simulator.Faults{Forget: true}, want: fault.BMCRefused, destroys: true},
		"cuts it short": {sets: everything(), faults: simulator.Faults{Keep: 15, NoTest: true},
			want: fault.BMCRefused, destroys: true},
		"lies, and is not reached": {sets: everything(), faults: simulator.Faults{TestLies: true, Unreachable: true},
			want: fault.BMCRefused, destroys: true},
		"keeps accounts enabled": {sets: everything(), faults: simulator.Faults{Stubborn: true}, want: fault.BMCRefused, destroys: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := simulator.New()
			c.Faults = tc.faults
			if tc.none {
				c = nil
			}
			b := bmcBench(t, g, c, tc.sets)
			err := b.provision(nil, func(j *provisioning) { j.Identity.Variant.IPMI = tc.expected })
			log := b.log.String()
			if fault.Of(err) != tc.want || err != nil && tc.want == nil || b.destroys != (tc.want == nil || tc.destroys) {
				t.Fatalf("%v, and clears disks: %t\n%s", err, b.destroys, log)
			}
			if tc.want != nil {
				return
			}
			for _, said := range []string{"name=" + record.FactBMCPassword + " ", "{User:operator InBand:" + tc.inBand, " OverLAN:" + tc.overLAN} {
				if (tc.inBand != "") != strings.Contains(log, said) {
					t.Errorf("it does not say %q, or should not\n%s", said, log)
				}
			}
			if tc.none || tc.faults.Silent != nil {
				return
			}
			if !strings.Contains(log, "name=bmcMacs") || tc.faults.NoLAN == strings.Contains(log, simulator.MAC) {
				t.Errorf("its addresses are not told\n%s", log)
			}
			if want := tc.sets.ClearSEL; want != (c.Events() == 0) {
				t.Errorf("%d events stay", c.Events())
			}
			if tc.sets.User == "" {
				return
			}
			if a, ok := c.Account("operator"); !ok || !a.Enabled || a.Password != b.ipmiPassword() {
				t.Errorf("the account is %+v, %t, and not that of the operator", a, ok)
			}
			if strings.Contains(log, b.ipmiPassword()) {
				t.Error("the password is in the log")
			}
			if a, _ := c.Account("ADMIN"); a.Enabled || c.Restore() != bmc.TurnOn {
				t.Errorf("ADMIN is enabled: %t, power restore %s", a.Enabled, c.Restore())
			}
		})
	}
}

// TestBMCFirmware: the version of the controller's firmware is compared, and told to the server.
func TestBMCFirmware(t *testing.T) {
	g := newGoods(t)
	for version, want := range map[string]*fault.Fault{simulator.Firmware: nil, "1.70": fault.QAMismatch} {
		b := bmcBench(t, g, simulator.New(), manifest.BMC{})
		m, err := manifest.Parse(b.files["manufData.json"])
		if err != nil {
			t.Fatal(err)
		}
		m.ValidationData[0].FirmwareVer.IPMI = version
		text, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		b.files["manufData.json"] = text
		b.files["manufData.json"+signature.Suffix] = []byte(keytest.Sign(t, g.key, string(text), signature.ManifestComment("WIDGET", "7")))
		if err := b.provision(nil); fault.Of(err) != want || b.destroys != (want == nil) {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// TestBMCCutOff cuts the power at commands to the controller. Provisioned again, the unit has the account that the operator knows the
// password of.
func TestBMCCutOff(t *testing.T) {
	g := newGoods(t)
	start := bmcBench(t, g, simulator.New(), everything())
	whole := start.clone(t)
	whole.sets(everything())
	if err := whole.provision(nil); err != nil {
		t.Fatalf("%v\n%s", err, whole.log)
	}
	tried := 0
	for i, call := range whole.Calls() {
		if !strings.HasPrefix(call, "BMC") && call != "open BMC" {
			continue
		}
		if tried++; testing.Short() && tried%20 != 0 {
			continue
		}
		b := start.clone(t)
		b.sets(everything())
		if err := b.provision(func(n int, _ string) error {
			if n == i+1 {
				return machinetest.ErrCut
			}
			return nil
		}); err == nil {
			t.Errorf("call %d, %s: a cut stops nothing", i+1, call)
		}
		if err := b.provision(nil); err != nil {
			t.Fatalf("call %d, %s: begun anew: %v\n%s", i+1, call, err, b.log)
		}
		c := machinetest.BMC(b.Rig)
		if a, ok := c.Account("operator"); !ok || !a.Enabled || a.Password != b.ipmiPassword() {
			t.Errorf("call %d, %s: begun anew: the account is %+v, %t", i+1, call, a, ok)
		}
		if a, _ := c.Account("ADMIN"); a.Enabled || c.Events() != 0 || c.Restore() != bmc.TurnOn {
			t.Errorf("call %d, %s: begun anew: ADMIN %t, %d events, %s", i+1, call, a.Enabled, c.Events(), c.Restore())
		}
	}
	if tried < 40 {
		t.Errorf("only %d commands", tried)
	}
}
