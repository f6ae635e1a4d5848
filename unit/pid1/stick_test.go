package pid1

import (
	"encoding/binary"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/job/rescue"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
)

// withKeys returns a unit with a panel that has keys.
func withKeys(p policy.Policy) *unit {
	u := &unit{log: slog.New(slog.DiscardHandler), m: &machine.Machine{Panel: panel.New(), Policy: p}}
	u.m.Panel.Add("script", &script.Panel{Answer: func(panel.Asked) []panel.Key { return nil }})
	return u
}

// TestOfferMenu: a boot from a recovery stick shows the menu once, where there is something to choose.
func TestOfferMenu(t *testing.T) {
	for name, c := range map[string]struct {
		from     bool
		medium   decide.MediumState
		recovery decide.RecoveryState
		p        policy.Policy
		want     bool
	}{
		"from the stick":                     {from: true, medium: decide.MediumOffered, recovery: decide.RecoveryFound, want: true},
		"a stick is only there":              {medium: decide.MediumOffered, recovery: decide.RecoveryFound},
		"nothing on it for this unit":        {from: true, medium: decide.NoMedium, recovery: decide.RecoveryFound, want: true},
		"a restore goes on":                  {from: true, medium: decide.MediumConfirmed, recovery: decide.RecoveryFound},
		"left in":                            {from: true, medium: decide.MediumDone, recovery: decide.RecoveryFound},
		"left in, and the volume died":       {from: true, medium: decide.MediumDone, recovery: decide.RecoveryMissing, want: true},
		"nobody is asked":                    {from: true, medium: decide.MediumOffered, recovery: decide.RecoveryFound, p: policy.Policy{MediumWithoutConfirmation: true}},
		"nobody is asked, the volume is not": {from: true, medium: decide.MediumOffered, recovery: decide.RecoveryDamaged, p: policy.Policy{MediumWithoutConfirmation: true}, want: true},
	} {
		t.Run(name, func(t *testing.T) {
			u := withKeys(c.p)
			f := &Found{Facts: decide.Facts{Medium: c.medium, Recovery: c.recovery}, FromStick: c.from}
			if got := u.offerMenu(f); got != c.want {
				t.Errorf("got %v", got)
			}
			if u.offerMenu(f) {
				t.Error("the menu is offered twice")
			}
		})
	}
	u := &unit{m: &machine.Machine{Panel: panel.New()}}
	if u.offerMenu(&Found{Facts: decide.Facts{Medium: decide.MediumOffered}, FromStick: true}) {
		t.Error("a menu that nobody can use is offered")
	}
}

// TestStickMenu: a rebuild is offered only for a lost volume, and only from a recovery stick with an image.
func TestStickMenu(t *testing.T) {
	image := []rescue.File{{Base: "x"}}
	for name, c := range map[string]struct {
		media    []rescue.Medium
		recovery decide.RecoveryState
		want     bool
	}{
		"lost":              {[]rescue.Medium{{}, {Stick: true, Files: image}}, decide.RecoveryMissing, true},
		"damaged":           {[]rescue.Medium{{Stick: true, Files: image}}, decide.RecoveryDamaged, true},
		"there":             {[]rescue.Medium{{Stick: true, Files: image}}, decide.RecoveryFound, false},
		"two":               {[]rescue.Medium{{Stick: true, Files: image}}, decide.RecoveryAmbiguous, false},
		"no image":          {[]rescue.Medium{{Stick: true}}, decide.RecoveryMissing, false},
		"no recovery stick": {[]rescue.Medium{{Files: image}}, decide.RecoveryMissing, false},
	} {
		items := withKeys(policy.Policy{}).items(&Found{Facts: decide.Facts{Recovery: c.recovery}, Media: c.media})
		has := func(k decide.ChoiceKind) bool {
			return slices.ContainsFunc(items, func(i item) bool { return i.choice == k })
		}
		if has(decide.ChooseRebuild) != c.want || !has(decide.ChooseSupport) || has(decide.ChooseShell) {
			t.Errorf("%s: %v", name, items)
		}
	}
}

func TestStartedFrom(t *testing.T) {
	dir := t.TempDir()
	u := &unit{log: slog.New(slog.DiscardHandler), m: &machine.Machine{Firmware: layout.BIOS}, args: decide.ParseArgs("console=ttyS0 gprov.stick=ABCD", true)}
	if got := u.startedFrom(efi.New(dir)); got != "abcd" {
		t.Errorf("on BIOS: %q", got)
	}
	u.m.Firmware = layout.UEFI
	if got := u.startedFrom(efi.New(dir)); got != "" {
		t.Errorf("without a stub: %q", got)
	}
	b := make([]byte, 4)
	for _, c := range "8B9D0E0A-3D2B-4E51-9A51-0C3A6C1F2E11\x00" {
		b = binary.LittleEndian.AppendUint16(b, uint16(c))
	}
	if err := os.WriteFile(filepath.Join(dir, "LoaderDevicePartUUID-"+efi.Loader), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := u.startedFrom(efi.New(dir)); got != "8b9d0e0a-3d2b-4e51-9a51-0c3a6c1f2e11" {
		t.Errorf("on UEFI: %q", got)
	}
}

// TestNoBundle: without a recovery stick nothing is written anywhere.
func TestNoBundle(t *testing.T) {
	if _, err := withKeys(policy.Policy{}).saveBundle(t.Context(), &Found{}); fault.Of(err) != fault.NoBundle {
		t.Errorf("got %v", err)
	}
}

// TestMediaPatience: where this boot came from is waited for, and what USB ports say is on its way, and nothing else that nobody knows of.
func TestMediaPatience(t *testing.T) {
	const usbDir = "bus/usb/devices/"
	looked := fstest.MapFS{usbDir + "1-2:1.0/bInterfaceClass": {Data: []byte("08\n")}, usbDir + "1-2:1.0/driver/x": {}}
	ready := fstest.MapFS{usbDir + "1-2:1.0/host4/target4:0:0/4:0:0:0/type": {Data: []byte("0\n")}, usbDir + "1-2:1.0/host4/target4:0:0/4:0:0:0/block/sda/size": {}}
	silent := fstest.MapFS{usbDir + "usb1/busnum": {Data: []byte("1\n")}, usbDir + "usb1/devnum": {Data: []byte("1\n")}, usbDir + "usb1/1-0:1.0/usb1-port1/state": {Data: []byte("default\n")}}
	for name, file := range looked {
		ready[name] = file
	}
	for name, c := range map[string]struct {
		sys   fstest.MapFS
		found Found
		want  time.Duration
	}{
		"no USB":                     {fstest.MapFS{}, Found{}, 0},
		"the stick that started it":  {fstest.MapFS{}, Found{originMissing: true}, usbExpected},
		"it, and another medium":     {fstest.MapFS{}, Found{originMissing: true, Offer: &rescue.Medium{}}, usbExpected},
		"ports with nothing on them": {fstest.MapFS{usbDir + "usb1/speed": {Data: []byte("480\n")}}, Found{}, 0},
		"a stick that is looked at":  {looked, Found{}, usbStorage + time.Second},
		"a port that is busy":        {silent, Found{}, usbPending + time.Second},
		"the same, and one is there": {looked, Found{Offer: &rescue.Medium{}}, 0},
		"a stick":                    {ready, Found{}, 0},
	} {
		u := withKeys(policy.Policy{})
		u.m.Sys = c.sys
		for _, waited := range []time.Duration{time.Second, 20 * time.Second} { // however late it is
			if got := u.mediaPatience(&c.found, waited); got != c.want {
				t.Errorf("%s, after %s: %v, want %v", name, waited, got, c.want)
			}
		}
		if u.tellOfSilence(); u.media.silence {
			t.Errorf("%s: told to be silent while it is waited for", name)
		}
		if c.want > usbExpected { // it never comes
			if got := u.mediaPatience(&c.found, c.want); got != c.want {
				t.Errorf("%s, at the end: %v, want %v", name, got, c.want)
			}
			if u.tellOfSilence(); !u.media.silence {
				t.Errorf("%s: nobody is told that it does not answer", name)
			}
		}
	}
}

// TestChoiceCountsOnce: what was chosen in one pass does not decide the next one.
func TestChoiceCountsOnce(t *testing.T) {
	u := &unit{log: slog.New(slog.DiscardHandler), m: &machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New(), Sys: fstest.MapFS{"block": {Mode: fs.ModeDir}}, Firmware: layout.BIOS}}
	u.m.Doors = machine.Real(u.log, u.m.Sys)
	var err error
	if u.modules, err = host.NewModules(t.TempDir(), "none"); err != nil {
		t.Fatal(err)
	}
	u.since, u.choice = time.Now().Add(-time.Hour), decide.Choice{Kind: decide.ChoosePowerOff}
	if out := u.pass(t.Context()); out.Kind != HoldOn || fault.Of(out.Err) != fault.MainMissing {
		t.Errorf("got %+v", out)
	}
}
