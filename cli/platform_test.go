package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"gprovision/hw/block"
	"gprovision/hw/nic"
	"gprovision/model/capture"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/site"
)

// machine is a small /sys: strings of DMI without tables, two disks, one with a partition, a port, and an EFI variable that must
// not be captured.
func machine() fstest.MapFS {
	m := fstest.MapFS{}
	file := func(name, s string) { m[name] = &fstest.MapFile{Data: []byte(s + "\n")} }
	link := func(name, target string) {
		m[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
	}
	for k, v := range map[string]string{"sys_vendor": "GPROV_QEMU", "product_name": "widget", "product_serial": "S1", "board_vendor": "QEMU", "board_name": "x", "product_sku": "k"} {
		file("class/dmi/id/"+k, v)
	}
	const pci = "devices/pci0000:00/"
	disk := func(name, slot string, sectors int64) {
		dir := pci + slot + "/virtio-" + name + "/block/" + name
		link("block/"+name, "../"+dir)
		file(dir+"/size", fmt.Sprint(sectors))
		file(dir+"/removable", "0")
		file(dir+"/ro", "0")
		file(dir+"/queue/logical_block_size", "512")
		file(dir+"/queue/physical_block_size", "512")
		link(dir+"/device", "../..")
		link(pci+slot+"/virtio-"+name+"/driver", "../../../../bus/virtio/drivers/virtio_blk")
		link(pci+slot+"/virtio-"+name+"/subsystem", "../../../../bus/virtio")
		file("bus/virtio/drivers/virtio_blk/uevent", "")
		file(dir+"/"+name+"1/partition", "1")
		file(dir+"/"+name+"1/start", "2048")
		file(dir+"/"+name+"1/size", "4096")
		file(pci+slot+"/vendor", "0x1af4")
		file(pci+slot+"/device", "0x1042")
		file(pci+slot+"/class", "0x010000")
		link("bus/pci/devices/"+slot, "../../../"+pci+slot)
	}
	disk("vda", "0000:00:03.0", 8<<30/512)
	disk("vdb", "0000:00:04.0", 4<<30/512)
	net := pci + "0000:00:05.0/net/eth0"
	link("class/net/eth0", "../../"+net)
	file(net+"/type", "1")
	file(net+"/address", "52:54:00:00:00:01")
	link(net+"/device", "../..")
	link(pci+"0000:00:05.0/driver", "../../../bus/pci/drivers/e1000e")
	link(pci+"0000:00:05.0/subsystem", "../../../bus/pci")
	m["firmware/efi/efivars/BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c"] = &fstest.MapFile{Data: []byte{7, 0, 0, 0, 1, 0}}
	m["firmware/efi/efivars/LoaderSystemToken-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"] = &fstest.MapFile{Data: []byte("secret")}
	return m
}

func TestCapture(t *testing.T) {
	sys := machine()
	b, missed, err := capture.Take(sys, machineProc(), "test")
	if err != nil || len(missed) > 0 {
		t.Fatal(err, missed)
	}
	if strings.Contains(string(b), "LoaderSystemToken") || !strings.Contains(string(b), "base64:sys/firmware/efi/efivars/BootOrder-") || !strings.Contains(string(b), "-- proc/cpuinfo --") {
		t.Errorf("%s", b)
	}
	name := put(t, filepath.Join(t.TempDir(), "fox.txt"), string(b))
	_, again, err := openCapture(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, list := range map[string]func(fs.FS) (any, error){
		"disks": func(f fs.FS) (any, error) { return block.List(f) },
		"ports": func(f fs.FS) (any, error) { return nic.List(f) },
	} {
		want, err1 := list(sys)
		got, err2 := list(again)
		if err1 != nil || err2 != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || fmt.Sprint(want) == "[]" {
			t.Errorf("%s: %v %v\ngot  %+v\nwant %+v", what, err1, err2, got, want)
		}
	}

	stdout, _, err := calling(t, "platform", "identify", name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"platform      QEMU (family qemu)", `serial        "S1"`, "recovery      /dev/vdb", "main          /dev/vda",
		"port          eth0 52:54:00:00:00:01 e1000e",
		`chosen        QEMU: manufacturer and product name of the system are`,
		`not           QEMU: the manufacturer of the baseboard is "QEMU", and DmiMbMfg "GPROV_QEMU"; the product name of the system is`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	stdout, _, err = calling(t, "platform", "identify", "--capture", name, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var facts struct {
		Serial, DevCodeName, RecognisedBy string
		Variants                          []platform.Reason
	}
	if err := json.Unmarshal([]byte(stdout), &facts); err != nil || facts.Serial != "S1" || facts.DevCodeName != "QEMU" ||
		facts.RecognisedBy != "system" ||
		len(facts.Variants) != len(platform.Default().Variants) {
		t.Errorf("%+v, %v", facts, err)
	}
}

// machineProc is /proc of that machine.
func machineProc() fstest.MapFS {
	return fstest.MapFS{"cpuinfo": {Data: []byte("processor: 0\nmodel name: A CPU\n")}, "meminfo": {Data: []byte("MemTotal: 2048000 kB\n")}}
}

// TestIdentifyUnknown: a machine that is no platform of the table has a reason for each.
func TestIdentifyUnknown(t *testing.T) {
	sys := machine()
	sys["class/dmi/id/sys_vendor"].Data = []byte("Somebody\n")
	b, _, err := capture.Take(sys, machineProc(), "test")
	if err != nil {
		t.Fatal(err)
	}
	name := put(t, filepath.Join(t.TempDir(), "fox.txt"), string(b))
	stdout, _, err := calling(t, "platform", "identify", name)
	if err == nil || strings.Contains(stdout, "chosen") || strings.Count(stdout, "not  ") != len(platform.Default().Variants) ||
		!strings.Contains(stdout, `the manufacturer of the system is "Somebody"`) {
		t.Errorf("%v\n%s", err, stdout)
	}
	stdout, _, err = calling(t, "platform", "identify", "--json", name)
	var said struct{ Variants []platform.Reason }
	if jerr := json.Unmarshal([]byte(stdout), &said); err == nil || jerr != nil || len(said.Variants) != len(platform.Default().Variants) {
		t.Errorf("%v, %v\n%s", err, jerr, stdout)
	}
}

// TestPlatformCheckMachine: a machine holds against the specification that is written from it, and another one does not.
func TestPlatformCheckMachine(t *testing.T) {
	dir := t.TempDir()
	taken := func(sys, proc fstest.MapFS, name string) string {
		b, _, err := capture.Take(sys, proc, "test")
		if err != nil {
			t.Fatal(err)
		}
		return put(t, filepath.Join(dir, name), string(b))
	}
	golden := taken(machine(), machineProc(), "golden.txt")
	proc := machineProc()
	proc["meminfo"].Data = []byte("MemTotal: 1024000 kB\n")
	other := taken(machine(), proc, "other.txt")
	b, err := platform.Default().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	table := put(t, filepath.Join(dir, "appliance.json"), string(b))
	have, id, err := readMachine(&Context{Stderr: t.Output()}, golden, platform.Default())
	if err != nil {
		t.Fatal(err)
	}
	spec, err := hardware.Dump(have, id.Variant, "/dev/vdb")
	if err != nil {
		t.Fatal(err)
	}
	m := put(t, filepath.Join(dir, "manufData.json"), `{"ValidationData": [`+string(spec)+`]}`)
	stdout, _, err := calling(t, "platform", "check", table, golden, "--manifest", m)
	if err != nil || strings.Contains(stdout, "differs") ||
		!strings.Contains(stdout, "ok          memory: 2000 MiB, expected 2000 MiB (within 1 %)\n") ||
		!strings.Contains(stdout, `not checked serial number: "S1"`) || !strings.Contains(stdout, "checked, ") {
		t.Errorf("%v\n%s", err, stdout)
	}
	stdout, _, err = calling(t, "platform", "check", table, other, "--manifest", m)
	if err == nil || strings.Count(stdout, "differs") != 1 || !strings.Contains(stdout, "differs     memory: 1000 MiB") {
		t.Errorf("%v\n%s", err, stdout)
	}
	stdout, _, err = calling(t, "platform", "check", "--json", table, other, "--manifest", m)
	var said struct{ Lines []hardware.Line }
	if jerr := json.Unmarshal([]byte(stdout), &said); err == nil || jerr != nil || len(said.Lines) < 10 {
		t.Errorf("%v, %v\n%s", err, jerr, stdout)
	}
	if _, _, err := calling(t, "platform", "check", table, other); err == nil {
		t.Error("a capture and no manifest")
	}
}

// TestCaptureHere captures the machine that the test runs on and compares what is found in the capture with the machine.
func TestCaptureHere(t *testing.T) {
	name := filepath.Join(t.TempDir(), "here.txt")
	if _, _, err := calling(t, "platform", "capture", "--out", name); err != nil {
		t.Fatal(err)
	}
	_, again, err := openCapture(name)
	if err != nil {
		t.Fatal(err)
	}
	want, err1 := block.List(os.DirFS("/sys"))
	got, err2 := block.List(again)
	if err1 != nil || err2 != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("disks: %v %v\ngot  %+v\nwant %+v", err1, err2, got, want)
	}
	ports1, err1 := nic.List(os.DirFS("/sys"))
	ports2, err2 := nic.List(again)
	if err1 != nil || err2 != nil || fmt.Sprint(nic.Real(ports2)) != fmt.Sprint(nic.Real(ports1)) {
		t.Errorf("ports: %v %v\ngot  %+v\nwant %+v", err1, err2, ports2, ports1)
	}
}

func TestPlatformCheck(t *testing.T) {
	b, err := platform.Default().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := put(t, filepath.Join(t.TempDir(), "good.json"), string(b))
	if stdout, _, err := calling(t, "platform", "check", good); err != nil {
		t.Errorf("%v\n%s", err, stdout)
	}
	bad := put(t, filepath.Join(t.TempDir(), "bad.json"), strings.Replace(string(b), `"system-serial-number"`, `"system-cereal"`, 1))
	if stdout, _, err := calling(t, "platform", "check", bad); err == nil || !strings.Contains(stdout, `dmidecode has no keyword "system-cereal"`) {
		t.Errorf("%v\n%s", err, stdout)
	}
}

// TestPlatformDMI: what the verb prints of a capture are keys that a manifest may have, with the values that it is judged by.
func TestPlatformDMI(t *testing.T) {
	var entries []capture.Entry
	for name, file := range map[string]string{"smbios_entry_point": "qemu.entry", "DMI": "qemu.dmi"} {
		b, err := os.ReadFile("../hw/smbios/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, capture.Entry{Name: "sys/firmware/dmi/tables/" + name, Data: b})
	}
	b, err := capture.Format("", entries)
	if err != nil {
		t.Fatal(err)
	}
	name := put(t, filepath.Join(t.TempDir(), "fox.txt"), string(b))
	print := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		c := &Context{Context: t.Context(), Stdout: &out, Stderr: &errs, Site: site.Stock(), Version: "r1"}
		if code := run(c, append([]string{"platform", "dmi", name}, args...)); code != 0 {
			t.Fatalf("%d: %s", code, errs.String())
		}
		return out.String()
	}
	var said struct{ DmiMatches map[string]string }
	if err := json.Unmarshal([]byte(print("--json")), &said); err != nil {
		t.Fatal(err)
	}
	all := said.DmiMatches
	lines := print()
	_, info, err := readDMI(name)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range all {
		key, err := manifest.ParseDMIKey(k)
		if err != nil {
			t.Error(err)
		}
		have := info.Keyword(key.Keyword)
		if key.Keyword == "" {
			have = info.Field(key.Type, key.Index, key.Field)
		}
		if have != v || !strings.Contains(lines, fmt.Sprintf("%-28s %q\n", k, v)) {
			t.Errorf("%s: %q, but %q is compared", k, v, have)
		}
	}
	for k, want := range map[string]string{"system-serial-number": "SN-0001", "17[0] Part Number": "PN", "4[1] Socket Designation": "CPU 1",
		"11[0] String 2": "two=2"} {
		if all[k] != want {
			t.Errorf("%s is %q", k, all[k])
		}
	}
	if n := strings.Count(lines, "\n"); n != len(all) || n < 100 {
		t.Errorf("%d lines, %d keys", n, len(all))
	}
}
