package provision

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/release"
)

// runSteps runs the manifest's extra steps for this platform at one place of the job, in the manifest's order. The first that
// fails ends the job.
func (j *provisioning) runSteps(ctx context.Context, when manifest.When) error {
	for _, s := range j.plan.Steps {
		if s.When != when {
			continue
		}
		j.Log.Info("manifest step", "name", s.Name, "when", when.String())
		if err := j.runStep(ctx, s); err != nil {
			return fmt.Errorf("manifest step %q: %w", s.Name, err)
		}
	}
	return nil
}

func (j *provisioning) runStep(ctx context.Context, s Step) error {
	vars := manifest.Variables{
		RecoveryDir: j.Places.Recovery, Serial: j.Serial,
		BiosPass: j.passwords.BIOS.Reveal(), IpmiPass: j.passwords.IPMI.Reveal(), OSPass: j.passwords.OS.Reveal(),
	}
	if len(s.Files) > 0 {
		dir, err := os.MkdirTemp("", "step-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		vars.DLDir = dir
		for _, f := range s.Files {
			if err := j.fetchInto(ctx, f, dir); err != nil {
				return err
			}
		}
	}
	within, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	for _, c := range s.Commands {
		err := j.runCommand(within, c, vars, s.Verbose)
		if err != nil && within.Err() != nil && ctx.Err() == nil {
			return fault.Newf(fault.StepFailed, "command %q was killed: the step did not end within %s", c.Command, s.Limit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fetchInto brings a file into a directory, and unpacks it there if it is a compressed tar.
func (j *provisioning) fetchInto(ctx context.Context, f File, dir string) error {
	dest := filepath.Join(dir, f.Name)
	if f.kept != "" {
		if err := os.Rename(f.kept, dest); err != nil {
			return err
		}
	} else if err := from(j.Machine).fetch(ctx, f, dest, nil); err != nil {
		return err
	}
	if !(manifest.File{Src: f.Src}).Archive() {
		return os.Chmod(dest, 0o700)
	}
	return unpackXZ(ctx, dest, dir)
}

// unpackXZ unpacks a compressed tar into a directory.
func unpackXZ(ctx context.Context, name, dir string) error {
	archive, err := os.Open(name)
	if err != nil {
		return err
	}
	defer archive.Close()
	st, err := archive.Stat()
	if err != nil {
		return err
	}
	r, err := release.NewReader(ctx, archive, st.Size(), runtime.NumCPU())
	if err != nil {
		return fault.Because(fault.DownloadHash, err)
	}
	defer r.Close()
	_, err = filesystem.Unpack(ctx, dir, r, filesystem.UnpackOptions{})
	return err
}

// runCommand runs one command of a step. The log shows it as the manifest has it: what is filled in may be a secret. In what the command
// prints the passwords are not shown.
func (j *provisioning) runCommand(ctx context.Context, c manifest.Command, vars manifest.Variables, verbose bool) error {
	filled, err := c.Fill(vars)
	if err != nil {
		return err
	}
	var secrets []string
	for _, p := range []string{vars.OSPass, vars.BiosPass, vars.IpmiPass} {
		if p != "" {
			secrets = append(secrets, p)
		}
	}
	r, err := host.Exec(ctx, j.Log, host.Command{Path: filled.Argv[0], Args: filled.Argv[1:], Env: commandEnv(filled),
		Secret: len(secrets) > 0, Show: []string{c.Command}, Redact: secrets})
	if err != nil {
		return because(fault.StepFailed, err)
	}
	if verbose {
		j.Log.Info("command output", "command", c.Command, "output", string(r.Output))
	}
	switch {
	case c.ExitStatus == manifest.ESMustSucceed && r.Exit != 0:
		return fault.Newf(fault.StepFailed, "command %q ended with status %d, want 0", c.Command, r.Exit)
	case c.ExitStatus == manifest.ESMustFail && r.Exit == 0:
		return fault.Newf(fault.StepFailed, "command %q succeeded, want a failure", c.Command)
	}
	return nil
}

// commandEnv puts a command's own directories in front of the search paths.
func commandEnv(c manifest.Filled) []string {
	var env []string
	for _, v := range []struct{ name, add, rest string }{{"PATH", c.Path, os.Getenv("PATH")}, {"LD_LIBRARY_PATH", c.LibPath, ""}} {
		if v.add != "" {
			env = append(env, v.name+"="+strings.TrimSuffix(v.add+":"+v.rest, ":"))
		}
	}
	return env
}

// tryCommands fills in all commands of a plan with what is known of the unit, and stand-ins for the rest, so that none fails at its turn.
func tryCommands(p Plan, known manifest.Variables) error {
	v := manifest.Likely()
	v.RecoveryDir, v.Serial = known.RecoveryDir, known.Serial
	for _, s := range p.Steps {
		for _, c := range s.Commands {
			if _, err := c.Fill(v.Known(s.When, len(s.Files) > 0)); err != nil {
				return fault.Newf(fault.ManifestSyntax, "manifest step %q: command %q: %w", s.Name, c.Command, err)
			}
		}
	}
	return nil
}
