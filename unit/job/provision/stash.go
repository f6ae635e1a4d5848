package provision

import (
	"context"
	"log/slog"
	"os"
	"path"
	"path/filepath"

	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/unit/journal"
	"gprovision/unit/state"
)

// stashed reports whether a file is one of the unit's own store, which only root sees and restores keep.
func (f File) stashed() bool { return path.Dir(f.Place) == state.StashDir }

// hasScript reports whether a file is an archive whose script runs.
func (f File) hasScript() bool { return f.stashed() && (manifest.File{Src: f.Src}).Archive() }

// fillStash puts each file of the store in its place, and runs the script of each archive among them, in the manifest's order. The first
// that fails ends the job.
func fillStash(ctx context.Context, j *provisioning) error {
	for _, f := range j.plan.Files {
		if !f.stashed() {
			continue
		}
		dest := filepath.Join(j.Places.Recovery, f.Place)
		if err := os.MkdirAll(filepath.Dir(dest), 0o700); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
		if err := f.put(ctx, j, dest); err != nil {
			return err
		}
		if err := os.Chmod(dest, 0o600); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
		if !f.hasScript() {
			continue
		}
		if err := unpacked(ctx, dest, func(script string) error { return runScript(ctx, j.Log, f.Name, script) }); err != nil {
			return err
		}
	}
	return nil
}

// unpacked unpacks an archive for as long as use takes, which gets the script in its root. It must be the only one there.
func unpacked(ctx context.Context, archive string, use func(script string) error) error {
	dir, err := os.MkdirTemp("", "stash-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := unpackXZ(ctx, archive, dir); err != nil {
		return err
	}
	scripts, err := filepath.Glob(filepath.Join(dir, "*.sh"))
	if err != nil {
		return err
	}
	if len(scripts) != 1 {
		return fault.Newf(fault.StepFailed, "%s has %d scripts (*.sh) in its root, want one", filepath.Base(archive), len(scripts))
	}
	return use(scripts[0])
}

// runScript runs the script of an archive, in the directory where that is unpacked. What it prints is logged.
func runScript(ctx context.Context, log *slog.Logger, archive, script string) error {
	log.Info("script of the store", "file", archive, "script", filepath.Base(script), journal.ForPerson())
	if err := os.Chmod(script, 0o700); err != nil {
		return err
	}
	const limit = manifest.DefaultStepLimit
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := host.Exec(within, log, host.Command{Path: script, Dir: filepath.Dir(script)})
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		return fault.Newf(fault.StepFailed, "%s of %s was killed: it did not end within %s", filepath.Base(script), archive, limit)
	}
	if err != nil {
		return because(fault.StepFailed, err)
	}
	log.Info("script output", "file", archive, "output", string(r.Output))
	if r.Exit != 0 {
		return fault.Newf(fault.StepFailed, "%s of %s ended with status %d, want 0", filepath.Base(script), archive, r.Exit)
	}
	return nil
}
