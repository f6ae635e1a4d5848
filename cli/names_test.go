package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/naming"
	"gprovision/site"
)

const foxSpecs = `{"DevCodeName": "FOX", "MainDiskConfigs": [[{"Size": 500107862016, "SizeTolerancePct": 5}]]}`

const foxTable = `{"Version": 1, "Variants": [{"Familyname": "fox", "DevCodeName": "FOX", "DmiMbMfg": "Acme", "DmiProdName": "Fox Board",
	"DmiProdModelRegex": ".*", "SerNumField": "system-serial-number", "NumDataDisks": 1, "Disksize": 500107862016, "SwRaidlevel": -1,
	"NICInfo": {"SharedDiagPorts": [], "WANIndex": 0, "DefaultNamesNoDiag": ["Port 1 (WAN)"]}, "Lcd": "none",
	"RecoveryMedia": {"LocateRDMethod": "byLabel", "ValidateRDMethod": "usb", "FsType": "ext4", "SSD": true}}]}`

// TestOwnNames does what README.md says of a product under its own name, with the real commands, and then what goes wrong most easily: each
// command compares with the names in the artifact.
func TestOwnNames(t *testing.T) {
	imageNeeds(t, "bash", "xz", "zstd", "mke2fs", "e2fsck", "ldd")
	page, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 1 {
		t.Fatalf("README.md has %d blocks of commands, want 1", len(blocks))
	}
	dir, run := pageShell(t)
	for name, text := range map[string]string{"specs.json": foxSpecs, "appliance.json": foxTable} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := run(blocks[0][1])
	for _, want := range []string{"names    images ACME.LNX.FOX., recovery volume ACMEREC, main system ACMEROOT, hosts acme-", "made files/ACME.LNX.FOX.2026-11-22.0007.upd",
		"good files/ACME.LNX.FOX.2026-11-22.0007.upd", "files/manufData.json is good"} {
		if !strings.Contains(out, want) {
			t.Errorf("the commands do not print %q:\n%s", want, out)
		}
	}
	in, err := inspect(filepath.Join(dir, "files/provision.pxe"))
	if want := (naming.Names{Version: 1, ImagePrefix: "ACME.LNX.FOX.", RecoveryLabel: "ACMEREC", PrimaryLabel: "ACMEROOT", HostPrefix: "acme-"}); err != nil || in.Names == nil || *in.Names != want {
		t.Errorf("provision.pxe has the names %+v, %v", in.Names, err)
	}

	// What a unit needs from its first contact with the server on is in the artifact, and what reads passwords is not on the server.
	if err != nil || in.Policy == nil || in.Policy.ServerCA == "" || !in.Policy.Provision {
		t.Errorf("provision.pxe has the policy %+v", in.Policy)
	}

	// Names in part are completed with those of the Site, and an artifact without any has none.
	out = run(`echo '{"version": 1, "imagePrefix": "ACME.LNX.FOX."}' >part.json
gprov boot build --rootfs root --policy policy.json --names part.json --build-number 8 --out part
gprov boot build --rootfs root --policy policy.json --build-number 8 --out plain
gprov boot inspect part; gprov boot inspect plain; gprov boot sign --key product.key part plain`)
	for _, want := range []string{"images ACME.LNX.FOX., recovery volume RECOVERY, main system PRIMARY, hosts gp-", "names    none of its own",
		`signed part as "artifact ACME.LNX.FOX 8"`, `signed plain as "artifact WIDGET.LNX.SHINY 8"`} {
		if !strings.Contains(out, want) {
			t.Errorf("the commands do not print %q:\n%s", want, out)
		}
	}

	for name, c := range map[string]struct{ commands, want string }{
		"typing error": {`echo '{"version": 1, "imagePrefx": "ACME.LNX.FOX."}' >bad.json
gprov boot build --rootfs root --policy policy.json --names bad.json --build-number 8 --out bad`, "bad.json:1: imagePrefx: no such key"},
		"label too long": {`echo '{"version": 1, "recoveryLabel": "ACME-RECOVERY-VOLUME"}' >bad.json
gprov boot build --rootfs root --policy policy.json --names bad.json --build-number 8 --out bad`, "ext4 has room for 16"},
		"the Site's label": {`echo '{"version": 1, "recoveryLabel": "PRIMARY"}' >bad.json
gprov boot build --rootfs root --policy policy.json --names bad.json --build-number 8 --out bad`, "do not go with those of the Site"},
		"image called otherwise": {`gprov image build --rootfs root --add files/norm_boot:/boot/norm_boot --name WIDGET.LNX.SHINY.2026-11-22.0009.upd --out other`,
			"its units take images called ACME.LNX.FOX...., not WIDGET.LNX.SHINY...."},
		"artifact without names": {`gprov image build --rootfs root --add plain:/boot/norm_boot --name ACME.LNX.FOX.2026-11-22.0009.upd --out other`,
			"has no names of its own"},
		"image verified": {`gprov image build --allow-incomplete --rootfs root --add plain:/boot/norm_boot --name ACME.LNX.FOX.2026-11-22.0010.upd --out other --key product.key
gprov image verify other/ACME.LNX.FOX.2026-11-22.0010.upd --key product.pub`, "hint: build the artifact with --names"},
		"stick": {`gprov stick make --artifact plain --image files/ACME.LNX.FOX.2026-11-22.0007.upd --out bad.img`, "has no names of its own, and units with it take images called WIDGET.LNX.SHINY."},
		"manifest made": {`cp plain files/plain
gprov manifest make --out files/bad.json --image files/ACME.LNX.FOX.2026-11-22.0007.upd --boot files/plain --specs specs.json --log-endpoint https://10.0.0.1:8443`,
			"the name begins with WIDGET.LNX.SHINY."},
		"manifest checked": {`gprov manifest check --artifact plain files/manufData.json`, "there is no image: no name begins with WIDGET.LNX.SHINY."},
		"names of two":     {`gprov manifest check --artifact plain files/manufData.json`, "goes by other names (images ACME.LNX.FOX., recovery volume ACMEREC"},
	} {
		out := run("( set -e\n" + c.commands + "\n) && exit 1; exit 0")
		if !strings.Contains(out, c.want) {
			t.Errorf("%s: want %q, got:\n%s", name, c.want, out)
		}
	}
	// That only a label differs keeps nobody from provisioning.
	if out := run("gprov manifest check --artifact part files/manufData.json"); !strings.Contains(out, "warning: this boot artifact goes by other names") {
		t.Errorf("labels that differ: %s", out)
	}

	served := servedNames{c: &Context{Context: context.Background(), Stdout: io.Discard, Stderr: io.Discard, Site: site.Stock()}, dir: filepath.Join(dir, "files"), manifest: "manufData.json"}
	if ps := served.check(); len(ps) > 0 {
		t.Errorf("the server finds %v", ps)
	}
	run("cp plain files/provision.pxe")
	if ps := strings.Join(served.check(), "\n"); !strings.Contains(ps, "goes by other names") || !strings.Contains(ps, "has no image called WIDGET.LNX.SHINY.") {
		t.Errorf("the server finds %q", ps)
	}

	// What image verify says of an image that its units would not take is the code that they would show.
	_, _, err = imageRun(t, "image", "verify", filepath.Join(dir, "other/ACME.LNX.FOX.2026-11-22.0010.upd"))
	if fault.Of(err) != fault.ImageName {
		t.Errorf("%v, want %v", err, fault.ImageName)
	}
}

// TestNamesFor: whoever has a Site of its own has its names in the artifact without a file.
func TestNamesFor(t *testing.T) {
	c := &Context{Context: context.Background(), Stdout: io.Discard, Stderr: io.Discard, Site: site.Stock()}
	if n, err := namesFor(c, ""); err != nil || n != (naming.Names{}) {
		t.Errorf("stock: %+v, %v", n, err)
	}
	c.Site.Names.ImagePrefix = "ACME.LNX.FOX."
	if n, err := namesFor(c, ""); err != nil || n.ImagePrefix != "ACME.LNX.FOX." || n.RecoveryLabel != "RECOVERY" {
		t.Errorf("own Site: %+v, %v", n, err)
	}
}
