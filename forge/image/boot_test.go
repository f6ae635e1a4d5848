package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/forge/boot"
	"gprovision/model/policy"
)

// smallProgram is the smallest program for x86-64 that needs nothing, if only its header is looked at.
func smallProgram(t *testing.T) string {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestBootMadeInside: the boot artifact is made from the kernel and the programs of the root filesystem itself, whatever form that has,
// and takes the place of one that is there. Nothing is left in the directory for temporary files.
func TestBootMadeInside(t *testing.T) {
	needs(t, false, "xz", "tar", "zstd")
	stub, err := os.ReadFile("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err != nil {
		skip(t, "package systemd-boot-efi: "+err.Error())
	}
	files := goodFiles(t)
	for n, c := range map[string]string{
		"boot/vmlinuz-6.1.0": files["boot/norm_boot"], "boot/config-6.1.0": "CONFIG_BLK_DEV_INITRD=y\nCONFIG_RD_ZSTD=y\n",
		"lib/modules/6.1.0/modules.dep": "", "lib/modules/6.1.0/modules.builtin": "kernel/fs/ext4/ext4.ko\n",
		"usr/lib/systemd/boot/efi/linuxx64.efi.stub": string(stub), "etc/os-release": "ID=debian\n",
		"sbin/mke2fs": smallProgram(t), "sbin/e2fsck": smallProgram(t), "etc/mke2fs.conf": "[defaults]\n",
	} {
		files[n] = c
	}
	dir := t.TempDir()
	shell(t, `cd "$1"; cp -r "$2" root; tar -C root -cf r.tar .
id=$(sha256sum r.tar | cut -d' ' -f1); own='{"User":"nobody","Entrypoint":["/x"],"Env":["A=b"]}'
printf '{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:%s"]},"config":%s}' $id "$own" > config.json
printf '[{"Config":"config.json","RepoTags":["x:1"],"Layers":["r.tar"]}]' > manifest.json
tar -cf saved.tar manifest.json config.json r.tar`, dir, writeTree(t, files))
	init := filepath.Join(dir, "init")
	if err := os.WriteFile(init, []byte(smallProgram(t)), 0o755); err != nil {
		t.Fatal(err)
	}
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	for i, in := range []string{"root", "r.tar", "saved.tar"} {
		o := Options{RootFS: filepath.Join(dir, in), Out: filepath.Join(dir, "out"), Name: name(t, i+1), Time: buildTime, Preset: "0",
			Boot: &boot.Options{Init: init, BuildNumber: 77, NoBIOS: true, Policy: policy.Policy{Version: 1, AllowUnsigned: true}}}
		res, err := Build(t.Context(), nil, o)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if res.Boot == nil || res.Boot.Kernel != "6.1.0" || res.Boot.Build != 77 || res.Meta.BootBuild != 77 {
			t.Errorf("%s: %+v, %+v", in, res.Boot, res.Meta)
		}
		list, err := exec.Command("sh", "-c", `xz -dc "$1" | tar tf -`, "-", res.File).CombinedOutput()
		if err != nil || strings.Count(string(list), "boot/norm_boot\n") != 1 {
			t.Errorf("%s: %v\n%s", in, err, list)
		}
		rep, err := InspectAll(t.Context(), res.File, CheckOptions{})
		if err != nil || rep.Boot == nil || rep.Boot.Form != "uki" || *rep.Boot.Build != 77 {
			t.Errorf("%s: %+v, %v", in, rep.Boot, err)
		}
		o.Add = []File{{Local: init, Dest: "/boot/norm_boot"}}
		if _, err := Build(t.Context(), nil, o); err == nil || !strings.Contains(err.Error(), "added as a file already") {
			t.Errorf("%s: an artifact is made and one is added: %v", in, err)
		}
	}
	if leftovers(t, temporary) != 0 {
		t.Error("something is left")
	}
}
