package provision

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
)

// rules is what this unit knows when it judges a manifest.
func (j *provisioning) rules() manifest.Rules {
	names := j.Site.Names
	code := j.Identity.Variant.DevCodeName
	return manifest.Rules{Prefix: names.ImagePrefix, BootFile: names.BootFile, AllowSHA1: j.Policy.AllowSHA1, Platform: code}
}

// writeFiles puts each file at its place on the recovery volume, verified and read back from the device.
func (j *provisioning) writeFiles(ctx context.Context) error {
	if err := j.runSteps(ctx, manifest.RunBeforeImaging); err != nil {
		return err
	}
	for _, f := range j.plan.Files {
		if f.stashed() {
			continue
		}
		dest := filepath.Join(j.Places.Recovery, f.Place)
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
		if err := f.put(ctx, j, dest); err != nil {
			return err
		}
	}
	for _, w := range []manifest.When{manifest.RunAfterImaging, manifest.RunBeforeMfg} {
		if err := j.runSteps(ctx, w); err != nil {
			return err
		}
	}
	if err := fillStash(ctx, j); err != nil {
		return err
	}
	return j.runSteps(ctx, manifest.RunAfterMfg)
}

// put puts a file at dest, from memory if it is there.
func (f File) put(ctx context.Context, j *provisioning, dest string) error {
	put := j.download
	if f.kept != "" {
		put = j.takeKept
	}
	if err := put(ctx, f, dest); err != nil {
		return err
	}
	j.Log.Info("file verified", "file", f.Name)
	return nil
}

// download streams a file to dest and proves it there.
func (j *provisioning) download(ctx context.Context, f File, dest string) error {
	j.Log.Info("downloading", "file", f.Name, "bytes", f.Size, journal.ForPerson())
	err := from(j.Machine).fetch(ctx, f, dest, func(path string) (io.ReadCloser, error) { return block.OpenDirect(path) })
	if err != nil {
		return err
	}
	return j.prove(ctx, f, dest)
}

// takeKept moves a file, which was proven, and its signature from memory to dest.
func (j *provisioning) takeKept(ctx context.Context, f File, dest string) error {
	j.Log.Info("writing what was fetched", "file", f.Name, "bytes", f.Size, journal.ForPerson())
	in, err := os.Open(f.kept)
	if err != nil {
		return err
	}
	defer in.Close()
	meter, stop := j.Track(ctx, f.Size)
	defer stop()
	h := f.Hash.New()
	if _, err := machine.PutFile(dest, 0o600, io.TeeReader(meter.Reader(in), h)); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	if got := h.Sum(nil); !bytes.Equal(got, f.Hash.Sum) {
		return fault.Newf(fault.DownloadHash, "%s had %s when it was fetched, and has %x now", f.Name, f.Hash, got)
	}
	if err := f.putSignature(dest); err != nil {
		return err
	}
	return os.Remove(f.kept)
}

// putSignature puts the signature of a file, if it has one, beside dest.
func (f File) putSignature(dest string) error {
	if f.signed == nil {
		return nil
	}
	mode := os.FileMode(0o644)
	if f.Artifact {
		mode = 0o600
	}
	_, err := machine.PutFile(dest+signature.Suffix, mode, bytes.NewReader(f.signed))
	return because(fault.DiskWrite, err)
}

// prove puts the signature of a file beside it at dest and shows that the unit can use the file: that an image holds and has room, so
// that a wrong key is found here and not at the first restore, and that the boot artifact is one.
func (j *provisioning) prove(ctx context.Context, f File, dest string) error {
	if f.Artifact {
		return j.proveArtifact(f, dest)
	}
	if err := f.putSignature(dest); err != nil || f.signed == nil || f.Image == nil {
		return err
	}
	st, err := os.Stat(dest)
	if err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	meter, stop := j.Track(ctx, st.Size())
	defer stop()
	_, need, err := image.Proven(ctx, image.Image{Path: dest, Name: *f.Image, Size: st.Size()}, j.Policy, j.Keys, meter.Set)
	if err != nil {
		return err
	}
	return j.checkRoom(ctx, need)
}

// proveArtifact makes sure that the boot artifact is one before the unit depends on it. A signature that it has must hold.
func (j *provisioning) proveArtifact(f File, dest string) error {
	a, err := machine.ReadArtifact(dest)
	if err != nil {
		return fault.Because(fault.ManifestIncomplete, fmt.Errorf("%s is no boot artifact: %w", j.Site.Names.BootFile, err))
	}
	if err := f.putSignature(dest); err != nil || f.signed == nil {
		return err
	}
	_, err = image.SignedArtifact(dest, a.Build, j.Site.Names.ImagePrefix, j.Keys)
	return because(fault.ManifestIncomplete, err)
}

// checkRoom returns an error unless an image has room in the main system that the first restore will make.
func (j *provisioning) checkRoom(ctx context.Context, need filesystem.Need) error {
	need = image.Beside(need, j.Firmware, 0)
	room, err := image.Room(ctx, j.Run, image.MainSize(j.plan.Unit), need)
	if err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return image.CheckRoom(need, room)
}

// reportUnit confirms the credentials and tells the server that the unit is done.
func (j *provisioning) reportUnit(ctx context.Context) error {
	if err := j.client.Confirm(ctx, j.passwords.Generation); err != nil {
		return fault.Because(fault.NoCredentials, err)
	}
	return nil
}
