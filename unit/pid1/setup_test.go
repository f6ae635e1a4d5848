package pid1

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/host"
	"gprovision/hw/usb"
	"gprovision/model/bootimage"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/decide"
	"gprovision/unit/keytest"
)

// carried returns init of a machine that was started by an artifact with these files.
func carried(t *testing.T, files map[string]string) (*unit, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	u := testUnit(t, &out)
	u.m.Initramfs = t.TempDir()
	for name, text := range files {
		name = filepath.Join(u.m.Initramfs, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return u, &out
}

// TestReadArtifact: what a boot artifact may do, whom it trusts and what its product is called comes from the artifact alone, and one that
// lacks any of it, or cannot be read, starts nothing.
func TestReadArtifact(t *testing.T) {
	key := keytest.New(t).Public()
	p, err := policy.Policy{Version: policy.Version, Keys: []string{key.String()}, WatchdogSeconds: 77}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{bootimage.BuildPath: `{"build":7,"kernel":"6.1.0"}`, bootimage.PolicyPath: string(p)}
	u, _ := carried(t, good)
	stock := u.m.Site.Names
	if err := u.readArtifact(); err != nil {
		t.Fatal(err)
	}
	if len(u.m.Keys) != 1 || u.m.Keys[0].String() != key.String() || u.m.Build.Number != 7 || u.m.Build.Kernel != "6.1.0" ||
		u.m.Policy.Watchdog().Seconds() != 77 {
		t.Errorf("it reads %+v, %+v, %v", u.m.Build, u.m.Policy, u.m.Keys)
	}
	if u.names != stock || u.siteLabel != "" {
		t.Errorf("without names it has %+v and the old label %q", u.names, u.siteLabel)
	}

	named := with(good, bootimage.NamesPath, `{"version":1,"imagePrefix":"ACME.LNX.FOX.","recoveryLabel":"ACMERECOV"}`)
	u, _ = carried(t, named)
	if err := u.readArtifact(); err != nil {
		t.Fatal(err)
	}
	if u.names.ImagePrefix != "ACME.LNX.FOX." || u.names.Recovery != "ACMERECOV" || u.names != u.m.Site.Names ||
		u.siteLabel != stock.Recovery {
		t.Errorf("it is called %+v, and the old label is %q", u.names, u.siteLabel)
	}

	for name, files := range map[string]map[string]string{
		"no build":      with(good, bootimage.BuildPath, ""),
		"a bad build":   with(good, bootimage.BuildPath, "{"),
		"no policy":     with(good, bootimage.PolicyPath, ""),
		"a bad policy":  with(good, bootimage.PolicyPath, "{"),
		"a bad key":     with(good, bootimage.PolicyPath, `{"version":1,"keys":["RWnone"]}`),
		"bad names":     with(good, bootimage.NamesPath, "{"),
		"names of none": with(good, bootimage.NamesPath, `{"version":99}`),
	} {
		u, _ := carried(t, files)
		if err := u.readArtifact(); err == nil {
			t.Errorf("%s: it starts", name)
		}
	}
}

// with returns files with one more; without a text it is not there.
func with(files map[string]string, name, text string) map[string]string {
	out := map[string]string{}
	for n, s := range files {
		out[n] = s
	}
	if out[name] = text; text == "" {
		delete(out, name)
	}
	return out
}

// TestIdentify: which platform a machine is comes from the artifact's table, or the one that is built in, and a machine that is none, or
// that has no serial number of its own, is not taken for one. Only an artifact that may provision takes a name that somebody gives it.
func TestIdentify(t *testing.T) {
	sys := fstest.MapFS{}
	for file, name := range map[string]string{"qemu.entry": "smbios_entry_point", "qemu.dmi": "DMI"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "hw", "smbios", "testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		sys["firmware/dmi/tables/"+name] = &fstest.MapFile{Data: b}
	}
	variant := func(code, field, manufacturer string) string {
		return `{"Version":1,"Variants":[{"DevCodeName":"` + code + `","SerNumField":"` + field + `","DmiMbMfg":"` + manufacturer +
			`","DmiProdName":"B1","NICInfo":{}}]}`
	}
	for name, c := range map[string]struct {
		sys       fstest.MapFS
		table     string
		named     string // PROTO_IDENT
		provision bool
		code      string // "": none
		platform  string
		says      string // in the log
	}{
		"of the artifact's table": {sys, variant("FOX", "system-serial-number", "BoardCo"), "", false, "", "FOX", ""},
		"another board":           {sys, variant("FOX", "system-serial-number", "Others"), "", false, "G121", "", ""},
		"named":                   {sys, variant("FOX", "system-serial-number", "Others"), "FOX", true, "", "FOX", "no platform fits"},
		"named, by an artifact that does not provision": {sys, variant("FOX", "system-serial-number", "Others"), "FOX", false, "G121", "", ""},
		"named as none":      {sys, variant("FOX", "system-serial-number", "Others"), "WOLF", true, "G121", "", ""},
		"no serial number":   {sys, variant("FOX", "chassis-sku-number", "BoardCo"), "", false, "G123", "", ""},
		"a table that fails": {sys, "{", "", false, "G121", "", ""},
		"no DMI at all":      {fstest.MapFS{}, "", "", false, "G121", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			u, out := carried(t, with(nil, bootimage.PlatformsPath, c.table))
			u.m.Sys, u.m.Serial = c.sys, ""
			u.m.Identity.Variant.DevCodeName = ""
			u.m.Policy.Provision, u.args = c.provision, decide.Args{ProtoIdent: c.named}
			_, err := u.identify()
			code := ""
			if f := fault.Of(err); f != nil {
				code = f.Code
			}
			if code != c.code || (err == nil) != (c.code == "") || u.m.Identity.Variant.DevCodeName != c.platform {
				t.Errorf("it is %q, %v", u.m.Identity.Variant.DevCodeName, err)
			}
			if err == nil && u.m.Serial != "SN-0001" {
				t.Errorf("its serial number is %q", u.m.Serial)
			}
			if !strings.Contains(out.String(), c.says) {
				t.Errorf("the log lacks %q:\n%s", c.says, out)
			}
		})
	}
}

// TestWatch: who loads drivers hears of every device, or that some were missed, and a disk that comes or goes ends a wait.
func TestWatch(t *testing.T) {
	var out bytes.Buffer
	u := testUnit(t, &out)
	u.changed = newArrivals()
	var quiet usb.State
	events, forward := make(chan host.Uevent), make(chan host.Uevent, 1)
	done := make(chan struct{})
	go func() { u.forwardEvents(events, forward); close(done) }()
	// Each event that is taken says that the one before is done with.
	usb := func(path string) { events <- host.Uevent{Action: "add", Subsystem: "usb", Path: path} }
	usb("/a")
	if first := <-forward; first.Path != "/a" || first.Action != "add" {
		t.Errorf("first comes %+v", first)
	}
	usb("/b")
	select {
	case <-u.changed.changes:
		t.Error("a device that is no disk ends a wait for disks")
	case <-u.changed.parts:
	default:
		t.Error("a device that is no disk ends no wait for parts")
	}
	usb("/c") // there is no room for this one
	usb("/d")
	<-forward
	if err := u.await(t.Context(), time.Hour, quiet, u.changed.parts); err != nil {
		t.Error(err)
	}
	events <- host.Uevent{Action: "remove", Subsystem: "block", Path: "/e"}
	close(events)
	<-done
	var rest []string
	for e := range forward {
		rest = append(rest, e.Action)
	}
	if !slices.Contains(rest, host.Missed) {
		t.Errorf("nobody is told that an event was missed: %q", rest)
	}
	select {
	case <-u.changed.changes:
	default:
		t.Error("a disk that goes ends no wait")
	}
}
