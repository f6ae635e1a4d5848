package state

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestRestoreData(t *testing.T) {
	v := Open(t.TempDir())
	if d, err := v.ReadRestoreData(); err != nil || d != (RestoreData{}) {
		t.Fatalf("without a file: %+v, %v", d, err)
	}
	want := RestoreData{Version: Version, Preserve: true, IgnoreNetCfg: true, ClearHistory: true, XLog: "https://10.0.0.1:8443", BootArgs: "quiet console=ttyS1,115200n8"}
	if err := v.WriteRestoreData(want); err != nil {
		t.Fatal(err)
	}
	if d, err := v.ReadRestoreData(); err != nil || d != want {
		t.Errorf("got %+v, %v", d, err)
	}
	if err := v.WriteRestoreData(RestoreData{BootArgs: "init=/bin/sh"}); err == nil {
		t.Error("an argument that is not allowed was written")
	}
	if err := v.WriteRestoreData(RestoreData{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(v.Path(RestoreDataFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	for text, is := range map[string]error{
		`{"Preserve":true,"BootArgs":"a b"}`: nil, // as the original system wrote it
		`{"Version":1}`:                      nil,
		`{"Version":99}`:                     ErrNewer,
		`{"Version":-1}`:                     ErrDamaged,
		`{"XLog":"http://x"}`:                nil,
		`{"XLog":"https://me:pw@x/"}`:        nil,
		`{"XLog":"a\tb"}`:                    ErrDamaged,
		`{"BootArgs":"a\nb"}`:                ErrDamaged,
		`[]`:                                 ErrDamaged,
		`{} {}`:                              ErrDamaged,
		``:                                   ErrDamaged,
	} {
		if _, err := ParseRestoreData([]byte(text)); !errors.Is(err, is) || is == nil && err != nil {
			t.Errorf("%s: got %v, want %v", text, err, is)
		}
	}
}

// TestOriginalRestoreData: a file of the original system names a server of its own kind, and sets other things too.
func TestOriginalRestoreData(t *testing.T) {
	for xlog, server := range map[string]string{
		"":                         "",
		"10.0.2.2:65432":           "https://10.0.2.2:65432",
		"factory.example:65432":    "https://factory.example:65432",
		"https://10.0.0.1:8443/":   "https://10.0.0.1:8443",
		"http://10.0.2.2:65432/":   "error",
		"grpc://10.0.2.2:65432":    "error",
		"https://me:secret@x:8443": "error",
		"no address at all":        "error",
	} {
		v := Open(t.TempDir())
		text := `{"Preserve":true,"IgnoreNetCfg":true,"ClearHistory":true,"XLog":"` + xlog + `","BootArgs":"console=ttyS0,115200"}`
		if err := os.WriteFile(v.Path(RestoreDataFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := v.ReadRestoreData()
		if err != nil || !d.Preserve || !d.IgnoreNetCfg || !d.ClearHistory || d.BootArgs != "console=ttyS0,115200" {
			t.Errorf("%q: %+v, %v", xlog, d, err)
		}
		got, err := d.Server()
		if err != nil {
			got = "error"
		}
		if got != server {
			t.Errorf("%q: server %q, %v, want %q", xlog, got, err, server)
		}
		// A restore writes the rest back unchanged.
		d.ClearHistory = false
		if err := v.WriteRestoreData(d); err != nil {
			t.Errorf("%q: %v", xlog, err)
		}
		if again, err := v.ReadRestoreData(); err != nil || again.XLog != xlog || !again.Preserve || again.ClearHistory {
			t.Errorf("%q: written again %+v, %v", xlog, again, err)
		}
	}
}

func TestAllowedArgs(t *testing.T) {
	kept, dropped := AllowedArgs(" quiet console=ttyS0,115200 init=/bin/sh  net.ifnames=0 console=;reboot mfgurl=http://x real_root=PARTUUID=1 quiet=1 module_blacklist=x systemd.unit=rescue.target pci=noaer,nomsi ")
	if kept != "quiet console=ttyS0,115200 net.ifnames=0 pci=noaer,nomsi" {
		t.Errorf("kept %q", kept)
	}
	if len(dropped) != 7 {
		t.Errorf("dropped %q", dropped)
	}
}

// TestArgsThatTake: a recovery volume must not set arguments that take protection or resources away from the unit.
func TestArgsThatTake(t *testing.T) {
	for _, a := range []string{
		"iommu=off", "iommu=pt", "iommu=soft", "iommu=noforce", "intel_iommu=off", "intel_iommu=igfx_off", "intel_iommu=on,igfx_off", "amd_iommu=off", "acpi=off", "acpi=noirq", "iommu.passthrough=1",
		"pci=off", "pci=disable_acs_redir=0000:00:1c.0", "pci=noats", "pci=noaer,hpmemsize=4G", "pci=resource_alignment=30@0000:00:1c.0", "pci=",
		"crashkernel=64G", "crashkernel=512M", "hugepages=999999999", "hugepagesz=1G", "default_hugepagesz=1G", "mem=64M", "memmap=64G$0x1000", "maxcpus=1", "maxcpus=0",
		"isolcpus=0-63", "nohz_full=all", "rcu_nocbs=all", "irqaffinity=63",
		"panic=0", "panic=-1", "panic=99999", "nmi_watchdog=0", "libata.force=1:disable", "libata.force=disable", "mitigations=off", "lockdown=none", "module.sig_enforce=0",
		"processor.max_cstate=", "usb-storage.quirks=", "reboot=abcdef", "init_on_free=0", "efi=noruntime", "selinux=0", "apparmor=0", "audit=0", "rd.break", "single", "1", "debug=x", "systemd.mask=x",
	} {
		if kept, dropped := AllowedArgs(a); kept != "" || len(dropped) != 1 {
			t.Errorf("%q: kept %q, dropped %q", a, kept, dropped)
		}
	}
	for _, a := range []string{
		"quiet", "debug", "loglevel=7", "console=tty0", "console=ttyS1,115200n8", "consoleblank=0", "net.ifnames=0", "biosdevname=0", "nomodeset", "panic=10", "nmi_watchdog=1",
		"intel_iommu=on", "intel_iommu=on,sm_on", "iommu=force", "pci=noaer,nomsi", "pci=realloc=off", "pci=nocrs", "pcie_aspm=off", "acpi=rsdt", "acpi_osi=!Linux", "acpi_osi=",
		"libata.force=noncq", "libata.force=1.00:noncq,2:3.0Gbps", "nvme_core.default_ps_max_latency_us=0", "intel_idle.max_cstate=1", "processor.max_cstate=1",
		"reboot=pci", "reboot=warm,efi", "usbcore.autosuspend=-1", "usb-storage.quirks=0bda:9210:u", "vga=normal", "video=efifb:off",
	} {
		if kept, dropped := AllowedArgs(a); kept != a || dropped != nil {
			t.Errorf("%q: kept %q, dropped %q", a, kept, dropped)
		}
	}
}

func FuzzParseRestoreData(f *testing.F) {
	f.Add([]byte(`{"Preserve":true,"IgnoreNetCfg":true,"XLog":"https://x","BootArgs":"quiet a=b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseRestoreData(b)
		if err != nil {
			return
		}
		kept, _ := AllowedArgs(d.BootArgs)
		if strings.ContainsAny(kept, "\n\"'`$\\;{}") {
			t.Errorf("arguments %q", kept)
		}
		d.BootArgs = kept
		if _, err := d.Marshal(); err != nil {
			t.Error(err)
		}
	})
}

func TestNetworkFile(t *testing.T) {
	v := Open(t.TempDir())
	if b, err := v.ReadNetwork(); b != nil || err != nil {
		t.Fatalf("without a file: %q, %v", b, err)
	}
	if err := v.WriteNetwork(nil); err != nil {
		t.Errorf("nothing to remove: %v", err)
	}
	if err := v.WriteNetwork([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if b, err := v.ReadNetwork(); !bytes.Equal(b, []byte("x")) || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if err := v.WriteNetwork(make([]byte, MaxNetwork+1)); err == nil {
		t.Error("too large a file was written")
	}
	if err := v.WriteNetwork(nil); err != nil {
		t.Fatal(err)
	}
	if b, _ := v.ReadNetwork(); b != nil {
		t.Errorf("still there: %q", b)
	}
	// What is too large, or a link, is not read.
	if err := errors.Join(os.WriteFile(v.Path(NetworkFile), make([]byte, MaxNetwork+1), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadNetwork(); !errors.Is(err, ErrDamaged) {
		t.Errorf("too large: %v", err)
	}
}

func TestRollHistory(t *testing.T) {
	v := Open(t.TempDir())
	if err := v.RollHistory(); err != nil {
		t.Errorf("nothing to roll: %v", err)
	}
	for _, text := range []string{"1", "2"} {
		if err := errors.Join(v.WriteHistory([]byte(text)), v.RollHistory()); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(v.Path(HistoryFile + ".prev")); string(b) != "2" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := v.ReadHistory(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the history is still there: %v", err)
	}
}
