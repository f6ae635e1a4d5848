package rescue

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/site"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

func TestRoles(t *testing.T) {
	esp, bb := layout.Partition{Number: 1, Type: layout.TypeESP}, layout.Partition{Number: 1, Type: layout.TypeBIOSBoot}
	data := layout.Partition{Number: 2, Type: layout.TypeLinux, FSUUID: "from the probe"}
	member := layout.Partition{Number: 2, Type: layout.TypeRAID}
	alone := layout.Partition{Number: 1, Type: layout.TypeMBRLinux}
	for name, c := range map[string]struct {
		fw    layout.Firmware
		parts []layout.Partition
		data  layout.Partition
		want  string
	}{
		"UEFI":                {layout.UEFI, []layout.Partition{esp, {Number: 2}}, data, "esp primary"},
		"UEFI, one more":      {layout.UEFI, []layout.Partition{esp, {Number: 2}, {Number: 3, Type: layout.TypeLinux}}, data, "esp primary "},
		"UEFI, with data":     {layout.UEFI, []layout.Partition{esp, {Number: 2}, {Number: 3, Type: layout.TypeLinux}}, data, "esp primary data"},
		"member, with data":   {layout.UEFI, []layout.Partition{esp, {Number: 2}, {Number: 3, Type: layout.TypeRAID}}, member, "esp member data-member"},
		"member, alone":       {layout.UEFI, []layout.Partition{esp, {Number: 2}, {Number: 3, Type: layout.TypeRAID}}, member, "esp member "},
		"BIOS, large":         {layout.BIOS, []layout.Partition{bb, {Number: 2}}, data, "bios-boot primary"},
		"BIOS":                {layout.BIOS, []layout.Partition{alone}, alone, "primary"},
		"BIOS disk on UEFI":   {layout.UEFI, []layout.Partition{alone}, alone, ""},
		"UEFI disk on a BIOS": {layout.BIOS, []layout.Partition{esp, {Number: 2}}, data, ""},
	} {
		role := layout.Primary
		if strings.HasPrefix(name, "member") {
			role = layout.Member
		}
		got, err := Roles(c.fw, layout.Table{Partitions: c.parts}, c.data, role, strings.HasSuffix(name, "with data"))
		if (err != nil) != (c.want == "") {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var roles []string
		for _, p := range got.Partitions {
			roles = append(roles, string(p.Role))
		}
		if err == nil && (strings.Join(roles, " ") != c.want || got.Find(role).FSUUID != c.data.FSUUID || c.parts[0].Role != "") {
			t.Errorf("%s: %q, from %+v", name, roles, c.parts)
		}
	}
}

// TestReadSystem: only a complete main system of this unit gives what a rebuild needs.
func TestReadSystem(t *testing.T) {
	mark, err := state.Mark{Release: "R", Serial: "S1"}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	const shadow = "root:*:1::::::\nadmin:$2b$10$abcdefghijklmnopqrstuv:1::::::\n"
	for name, c := range map[string]struct {
		serial, mark, shadow string
		want                 string
	}{
		"no mark":           {"S1", "", shadow, "mark: "},
		"an empty mark":     {"S1", " ", shadow, `names the unit ""`},
		"of another unit":   {"S2", string(mark), shadow, `names the unit "S1"`},
		"no password":       {"S1", string(mark), "", "password: "},
		"a locked account":  {"S1", string(mark), "admin:!$2b$10$abcdefghijklmnopqrstuv:1::::::\n", "password: "},
		"no such account":   {"S1", string(mark), "root:$2b$10$abcdefghijklmnopqrstuv:1::::::\n", "password: "},
		"no artifact":       {"S1", string(mark), shadow, "boot artifact: "},
		"shadow leads away": {"S1", string(mark), "link", "password: "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put := func(name, text string) {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.mark != "" {
				put("boot.normal", c.mark)
			}
			put("etc/passwd", "")
			switch c.shadow {
			case "":
			case "link":
				outside := filepath.Join(t.TempDir(), "shadow")
				if err := os.WriteFile(outside, []byte(shadow), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(outside, filepath.Join(dir, "etc/shadow")); err != nil {
					t.Fatal(err)
				}
			default:
				put("etc/shadow", c.shadow)
			}
			r := rebuild{Machine: &machine.Machine{Serial: c.serial, Site: site.Stock()}}
			if err := r.readSystem(dir); err == nil || !strings.Contains(err.Error(), c.want) || r.hash != "" {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestPlanned(t *testing.T) {
	disk := func(name string, bus block.Bus, gib int64) block.Disk {
		return block.Disk{Name: name, Path: "/dev/" + name, Bus: bus, Size: gib * layout.GiB}
	}
	sized := platform.Variant{RecoveryMedia: platform.RecoveryMedia{Size: 4 * layout.GiB}}
	for name, c := range map[string]struct {
		v     platform.Variant
		disks []block.Disk
		want  string
	}{
		"by size":            {sized, []block.Disk{disk("a", block.VirtIO, 4), disk("b", block.VirtIO, 9)}, "a"},
		"two of that size":   {sized, []block.Disk{disk("a", block.VirtIO, 4), disk("b", block.VirtIO, 4)}, ""},
		"none of that size":  {sized, []block.Disk{disk("a", block.VirtIO, 9)}, ""},
		"no size, one disk":  {platform.Variant{}, []block.Disk{disk("a", block.VirtIO, 4)}, "a"},
		"no size, two disks": {platform.Variant{}, []block.Disk{disk("a", block.VirtIO, 4), disk("b", block.VirtIO, 9)}, ""},
		"no size, no disk":   {platform.Variant{}, nil, ""},
	} {
		got, err := Planned(c.v, c.disks)
		if got.Name != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", name, got.Name, err)
		}
	}
}
