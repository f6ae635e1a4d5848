package provision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/inventory"
	"gprovision/unit/report"
)

// checkServer asks the server for what the job will fetch, before anything is cleared: each file is there and has its size, all of them
// have room, and beside each image lies a signature for that name by a key of the policy. The files of steps and of the unit's store are
// read to their ends. Where a disk is not blank, the unit may be complete, and all other files are read to their ends as well.
// Where a disk is not blank, the unit may be complete, and all other files are read to their ends as well.
func (j *provisioning) checkServer(ctx context.Context) error {
	full, err := j.carriesData()
	if err != nil {
		return err
	}
	if full {
		j.Log.Info("the disks are not blank: all files are read once before anything is erased")
	}
	if err := j.lookAtServer(ctx, full); err != nil {
		return err
	}
	if err := j.plan.checkRoom(); err != nil { // again: the server may have said sizes that the manifest does not
		return err
	}
	return testRun(j.env.Survey.Args)
}

// lookAtServer asks for each file that is still to come and fetches the signatures; with full it reads the files to their ends.
func (j *provisioning) lookAtServer(ctx context.Context, full bool) error {
	look := func(f *File, full bool) error {
		size, err := from(j.Machine).head(ctx, *f)
		if err == nil {
			err = j.findSignature(ctx, f)
		}
		if err == nil && f.Size == 0 {
			f.Size = size
		}
		switch {
		case err != nil:
			return err
		case full:
			return j.rehearse(ctx, f)
		case f.Size == 0: // nobody says how large it is
			f.Size, err = from(j.Machine).readToEnd(ctx, *f)
		}
		return err
	}
	for i := range j.plan.Files {
		f := &j.plan.Files[i]
		if err := look(f, full || f.stashed()); err != nil {
			return err
		}
	}
	for i := range j.plan.Steps {
		s := &j.plan.Steps[i]
		for k := range s.Files {
			if s.When <= manifest.RunAfterQA {
				continue // it is over
			}
			if err := look(&s.Files[k], true); err != nil {
				return fmt.Errorf("manifest step %q: %w", s.Name, err)
			}
		}
	}
	return nil
}

// findSignature fetches the signature of a file, and checks it as far as that shows without the file.
func (j *provisioning) findSignature(ctx context.Context, f *File) error {
	if f.Signature == "" {
		return nil
	}
	sig, err := from(j.Machine).small(ctx, f.Signature, signature.MaxSize)
	switch {
	case errors.Is(err, report.ErrNotFound) && f.Demanded:
		return fault.Newf(fault.ImageUnsigned, "%s does not exist", f.Signature)
	case errors.Is(err, report.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	if f.Image != nil {
		if err := image.CheckSignature(sig, j.Keys, *f.Image); err != nil {
			return err
		}
	}
	f.signed = sig
	return nil
}

// carriesData reports whether one of the planned disks is not blank: the unit may be complete, and must stay so if the files of
// the manifest turn out to be bad.
func (j *provisioning) carriesData() (bool, error) {
	for _, d := range append([]block.Disk{j.plan.Recovery}, j.plan.Main...) {
		blank, why, err := j.BlankDisk(d.Path)
		if err != nil {
			return false, fault.Because(fault.DiskWrite, err)
		}
		if !blank {
			j.Log.Info("disk is not blank", "disk", d.Name, "carries", why)
			return true, nil
		}
	}
	return false, nil
}

// rehearse fetches a file before anything is erased. It is kept in memory for its place on the disk if there is room, and proven there;
// else it is read to its end, and fetched again later.
func (j *provisioning) rehearse(ctx context.Context, f *File) error {
	room, err := j.roomToKeep()
	if err != nil {
		return err
	}
	if f.Size == 0 || f.Size > room {
		f.Size, err = from(j.Machine).readToEnd(ctx, *f)
		return err
	}
	dir, err := os.MkdirTemp(j.waiting, "")
	if err != nil {
		return err
	}
	j.Log.Info("fetching before anything is erased", "file", f.Name, "bytes", f.Size)
	kept := filepath.Join(dir, f.Name)
	if err := from(j.Machine).fetch(ctx, *f, kept, nil); err != nil {
		return err
	}
	if err := j.prove(ctx, *f, kept); err != nil {
		return err
	}
	if f.hasScript() {
		if err := unpacked(ctx, kept, func(string) error { return nil }); err != nil {
			return err
		}
	}
	f.kept = kept
	return nil
}

// roomToKeep returns how large a file may be, in bytes, that is kept in memory now. All together take a quarter of it at most.
func (j *provisioning) roomToKeep() (int64, error) {
	if j.waiting == "" {
		dir, err := os.MkdirTemp("", "waiting-")
		if err != nil {
			return 0, err
		}
		j.waiting = dir
		if free, err := inventory.Memory(j.Proc, "MemAvailable"); err == nil {
			j.memory = int64(free) << 20 / 4
		} else {
			j.Log.Warn("no file is kept in memory", "err", err)
		}
	}
	kept := int64(0)
	for _, f := range j.plan.all() {
		if f.kept != "" {
			kept += f.Size
		}
	}
	free, err := report.FreeSpace(j.waiting)
	return min(j.memory-kept, free/2), err
}
