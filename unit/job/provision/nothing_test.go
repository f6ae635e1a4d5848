package provision

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/signature"
	"gprovision/unit/keytest"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// obeys has the station serve its manifest with a change, signed with a number.
func (b *bench) obeys(change func(m *manifest.Manifest), serial string) {
	b.t.Helper()
	m, err := manifest.Parse(b.files["manufData.json"])
	if err != nil {
		b.t.Fatal(err)
	}
	change(m)
	text, err := m.Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	b.serves(string(text), b.goods.key, serial)
}

// serves has the station serve a manifest, signed.
func (b *bench) serves(text string, key signature.PrivateKey, serial string) {
	b.t.Helper()
	b.files["manufData.json"] = []byte(text)
	b.files["manufData.json"+signature.Suffix] = []byte(keytest.Sign(b.t, key, text, signature.ManifestComment("WIDGET", serial)))
}

// TestNothingWasWritten: what docs/errors.md says to be known before the first write is known before it, with its code.
func TestNothingWasWritten(t *testing.T) {
	g := newGoods(t)
	type change = func(*bench, *provisioning)
	without := func(name string) change {
		return func(b *bench, _ *provisioning) { delete(b.files, name) }
	}
	content := func(name, text string) change {
		return func(b *bench, _ *provisioning) { b.files[name] = []byte(text) }
	}
	says := func(do func(m *manifest.Manifest)) change {
		return func(b *bench, _ *provisioning) { b.obeys(do, "7") }
	}
	file := func(i int, do func(f *manifest.File)) change {
		return says(func(m *manifest.Manifest) { do(&m.Files[i]) })
	}
	specs := func(do func(s *manifest.Specs)) change {
		return says(func(m *manifest.Manifest) { do(&m.ValidationData[0]) })
	}
	station := func(call string) change {
		return func(b *bench, _ *provisioning) {
			b.Fail(func(_ int, c string) error {
				if c == call {
					return errors.New("no")
				}
				return nil
			})
		}
	}
	const image = benchRelease + ".upd"
	for name, tc := range map[string]struct {
		want   *fault.Fault
		change change
	}{
		"no address": {fault.NoNetwork, func(_ *bench, j *provisioning) {
			j.Raise = func(context.Context) (func(), error) { return nil, fault.Newf(fault.NoNetwork, "no link") }
		}},
		"no server":               {fault.NoServer, file(2, func(f *manifest.File) { f.Src = "http://127.0.0.1:1/manual.txt" })},
		"the server refuses":      {fault.ServerRefused, station("POST /v1/permit")},
		"the server takes no key": {fault.EnrolRefused, station("POST /v1/enrol")},
		"a script that is not what it was": {fault.DownloadHash, func(b *bench, j *provisioning) {
			b.stashes(testArchive(t, "run.sh", "true"), "")
			b.files["stash.txz"] = []byte(testArchive(t, "run.sh", "rm -rf /"))
		}},
		"an archive without a script": {fault.StepFailed, func(b *bench, j *provisioning) {
			b.stashes(testArchive(t, "dir/run.sh", "true"), "")
			j.Proc = proc(1000)
		}},
		"an archive with two scripts": {fault.StepFailed, func(b *bench, j *provisioning) {
			b.stashes(testArchive(t, "run.sh", "true", "walk.sh", "true"), "")
			j.Proc = proc(1000)
		}},
		"no manifest": {fault.ManifestMissing, without("manufData.json")},
		"mfgurl is no address": {fault.ManifestMissing, func(_ *bench, j *provisioning) {
			j.env.Survey.Args.ManifestURL = "ftp://h/m.json"
		}},
		"no JSON":                    {fault.ManifestSyntax, content("manufData.json", "<html>")},
		"a place that is the unit's": {fault.ManifestSyntax, file(2, func(f *manifest.File) { f.Dest = "state/unit.json" })},
		"no signature":               {fault.ManifestUnsigned, without("manufData.json" + signature.Suffix)},
		"another key": {fault.ManifestSignature, func(b *bench, _ *provisioning) {
			b.serves(string(b.files["manufData.json"]), keytest.New(b.t), "7")
		}},
		"no image":              {fault.ManifestIncomplete, says(func(m *manifest.Manifest) { m.Files = m.Files[1:] })},
		"no such platform":      {fault.ManifestIncomplete, specs(func(s *manifest.Specs) { s.DevCodeName = "FOX" })},
		"no size of the volume": {fault.ManifestIncomplete, specs(func(s *manifest.Specs) { s.Recovery = manifest.Disk{} })},
		"a store of one's own":  {fault.ManifestIncomplete, says(func(m *manifest.Manifest) { m.CredentialEndpoint = "https://vault" })},
		"an older manifest": {fault.ManifestRefused, func(_ *bench, j *provisioning) {
			j.Manifests = state.Manifests{}.Used("WIDGET", "8")
		}},
		"another product": {fault.ManifestRefused, func(_ *bench, j *provisioning) {
			j.Policy.ManifestProduct = "GADGET"
		}},
		"other hardware": {fault.QAMismatch, specs(func(s *manifest.Specs) { s.RamMegs = 64 })},
		"another serial": {fault.QAMismatch, specs(func(s *manifest.Specs) { s.SerNumRegex = "^X" })},
		"too few main disks": {fault.DiskMissing, func(_ *bench, j *provisioning) {
			j.Identity.Variant.NumDataDisks = 3
		}},
		"a small main disk": {fault.DiskTooSmall, func(_ *bench, j *provisioning) {
			j.Identity.Variant.Disksize = 2 * machinetest.MainSize
		}},
		"two main disks": {fault.DiskAmbiguous, func(b *bench, _ *provisioning) {
			b.AddDisk(block.Disk{Name: "vdz", Bus: block.VirtIO, Serial: "TWIN", Size: machinetest.MainSize})
		}},
		"sectors of 4096 bytes on BIOS": {fault.Disk4KnBIOS, func(b *bench, j *provisioning) {
			list := j.List
			j.Firmware = layout.BIOS
			j.List = func() ([]block.Disk, error) {
				disks, err := list()
				for i := range disks {
					disks[i].SectorSize = 4096
				}
				return disks, err
			}
		}},
		"files without a size that do not fit": {fault.NoSpace, func(b *bench, _ *provisioning) {
			b.huge = "manual.txt"
			b.obeys(func(m *manifest.Manifest) { m.Files[2].Size = 0 }, "7")
		}},
		"a step's file that is not what it was": {fault.DownloadHash, func(b *bench, _ *provisioning) {
			b.files["step.sh"] = bytes.Repeat([]byte("x"), len(b.files["step.sh"]))
		}},
		"a step's command that needs a longer serial": {fault.ManifestSyntax, says(func(m *manifest.Manifest) {
			m.CustomPlatCfgSteps[0].ConfigSteps[2].Commands[0].Command = "test {{slice .Serial 9}}"
		})},
		"a file that is not there":     {fault.Download, without("manual.txt")},
		"a file that is longer":        {fault.DownloadHash, content("manual.txt", "read me again")},
		"a file that is cut":           {fault.DownloadTruncated, content("manual.txt", "read")},
		"files that do not fit":        {fault.NoSpace, file(2, func(f *manifest.File) { f.Size = machinetest.RecoverySize })},
		"a file without a hash":        {fault.HashMissing, file(2, func(f *manifest.File) { f.Sha256, f.Sha1 = "", "" })},
		"SHA-1 alone":                  {fault.HashMissing, file(2, func(f *manifest.File) { f.Sha256, f.Sha1 = "", strings.Repeat("0", 40) })},
		"an image with an odd date":    {fault.ImageName, file(0, func(f *manifest.File) { f.Src = "WIDGET.LNX.SHINY.2026-02-30.0001.upd" })},
		"an image without a signature": {fault.ImageUnsigned, without(image + signature.Suffix)},
		"an image signed by another key": {fault.ImageSignature, func(b *bench, _ *provisioning) {
			sig := keytest.Sign(b.t, keytest.New(b.t), string(b.files[image]), signature.ImageComment(benchRelease))
			b.files[image+signature.Suffix] = []byte(sig)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, g, machinetest.Kind{Firmware: layout.UEFI})
			err := b.provision(nil, func(j *provisioning) { tc.change(b, j) })
			if fault.Of(err) != tc.want {
				t.Errorf("got %v, want %s", err, tc.want.Code)
			}
			if written := b.Written(); len(written) > 0 || b.destroys {
				t.Errorf("%s: written to are %s", tc.want.Code, written)
			}
		})
	}
}

// TestNoOperatorKey: a server that could give no credentials is found before anything is erased.
func TestNoOperatorKey(t *testing.T) {
	g := newGoods(t)
	g.to = nil
	b := newBench(t, g, machinetest.Kind{Firmware: layout.UEFI})
	if err := b.provision(nil); fault.Of(err) != fault.NoCredentials || !strings.Contains(err.Error(), "operator key") {
		t.Errorf("got %v", err)
	}
	if written := b.Written(); len(written) > 0 || b.destroys {
		t.Errorf("written to are %s", written)
	}
}

// TestCodesOfLater: what goes wrong when disks are written to has the code that docs/errors.md has for it, and names what a person has to
// look at.
func TestCodesOfLater(t *testing.T) {
	g := newGoods(t)
	fails := func(prefix string) func(*bench) func(int, string) error {
		return func(b *bench) func(int, string) error {
			return func(_ int, call string) error {
				if b.destroys && strings.HasPrefix(call, prefix) {
					return syscall.EIO
				}
				return nil
			}
		}
	}
	for name, tc := range map[string]struct {
		want *fault.Fault
		says string
		bad  func(*bench) func(int, string) error
	}{
		"the main disk":       {fault.DiskWrite, "vdb", fails("write /dev/vdb")},
		"the recovery device": {fault.DiskWrite, "vda", fails("write /dev/vda")},
		"mke2fs":              {fault.DiskWrite, "vda", fails("run mke2fs")},
		"a file":              {fault.Download, "/files/manual.txt", fails("GET /files/manual.txt")},
		"a script of the store": {fault.StepFailed, "run.sh of stash.txz ended with status 3", func(b *bench) func(int, string) error {
			b.stashes(testArchive(t, "run.sh", "#!/bin/sh\nexit 3\n"), "")
			return nil
		}},
		"another file of its size": {fault.DownloadHash, "manual.txt", func(b *bench) func(int, string) error {
			b.files["manual.txt"] = []byte("read it")
			return nil
		}},
		"an image that its signature is not for": {fault.ImageSignature, "", func(b *bench) func(int, string) error {
			b.files[benchRelease+".upd"+signature.Suffix] = []byte(keytest.Sign(b.t, b.goods.key, "another", signature.ImageComment(benchRelease)))
			return nil
		}},
		"what is no boot artifact": {fault.ManifestIncomplete, "norm_boot", func(b *bench) func(int, string) error {
			b.files["kernel.efi"] = []byte("nothing that boots")
			b.obeys(func(m *manifest.Manifest) {
				sum := sha256.Sum256(b.files["kernel.efi"])
				m.Files[1].Sha256, m.Files[1].Sha1, m.Files[1].Size = hex.EncodeToString(sum[:]), "", int64(len(b.files["kernel.efi"]))
			}, "7")
			return nil
		}},
		"the server refuses credentials": {fault.ServerRefused, "", fails("POST /v1/credentials")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, g, machinetest.Kind{Firmware: layout.UEFI})
			if err := b.provision(tc.bad(b)); fault.Of(err) != tc.want || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %s with %q", err, tc.want.Code, tc.says)
			}
		})
	}
}
