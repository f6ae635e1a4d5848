package unitcmd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gprovision/model/fault"
	"gprovision/unit/state"
)

// RestoreCmd asks for a factory restore at the next boot.
type RestoreCmd struct {
	Image         string `default:"latest" placeholder:"latest|original|NAME.upd" help:"Which image: the newest, the one the unit was provisioned with, or one by name (default latest)."`
	IgnoreNetwork bool   `help:"Drop the unit's own network configuration: the restored system gets the defaults."`
	ClearHistory  bool   `help:"Forget which images failed before."`
	BootArgs      string `placeholder:"ARGS" help:"Kernel arguments for the restored system, from the list in the documentation of the recovery volume."`
	Reboot        bool   `help:"Reboot at once."`
	Yes           bool   `short:"y" help:"Do not ask."`
	Cancel        bool   `help:"Take back a request that is not fulfilled yet."`
}

// Help returns examples.
func (*RestoreCmd) Help() string {
	return "The next boot formats the main disk and writes the chosen image. No network is needed.\n\nExamples:\n  sudo gprov-unit restore --reboot\n  sudo gprov-unit restore --image WIDGET.LNX.SHINY.2026-11-22.0001.upd --yes\n  sudo gprov-unit restore --ignore-network --reboot\n  sudo gprov-unit restore --cancel"
}

// Run writes the request, or takes it back.
func (r *RestoreCmd) Run(c *Context) error {
	if err := c.needRoot(); err != nil {
		return err
	}
	if r.Cancel {
		cancel := func(v *state.Volume) error {
			return errors.Join(v.DeleteRequest(), r.change(v, func(d *state.RestoreData) { d.IgnoreNetCfg, d.ClearHistory = false, false }))
		}
		if err := c.write(cancel); err != nil {
			return err
		}
		fmt.Fprintln(c.Stdout, "The next boot will not restore.")
		return nil
	}
	req, err := state.NewRequest(state.KindRestore, r.Image, "gprov-unit restore", c.System.Now())
	if err != nil {
		return &usage{err}
	}
	if _, bad := state.AllowedArgs(r.BootArgs); len(bad) > 0 {
		return &usage{fmt.Errorf("the kernel arguments %q are not allowed", bad)}
	}
	if !r.Yes {
		if err := c.confirm(fmt.Sprintf("All data on the main disk will be lost. Restore image %q at the next boot? Type yes: ", req.Image)); err != nil {
			return err
		}
	}
	err = c.write(func(v *state.Volume) error {
		if req.Image != state.Latest && req.Image != state.Original {
			// Only a help to the person: the restore looks for itself, and proves the image.
			if _, err := os.Lstat(v.Path(state.ImageDir, req.Image)); err != nil {
				return fault.Newf(fault.NoImage, "%s is not on the recovery volume", filepath.Base(req.Image))
			}
		}
		// The request last: without it nothing happens.
		err := r.change(v, func(d *state.RestoreData) {
			d.IgnoreNetCfg, d.ClearHistory = r.IgnoreNetwork, r.ClearHistory
			if r.BootArgs != "" {
				d.BootArgs = r.BootArgs
			}
		})
		if err != nil {
			return err
		}
		return v.WriteRequest(req)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "The next boot will restore this unit (image %s, request %s).\n", req.Image, req.ID)
	if !r.Reboot {
		return nil
	}
	return c.reboot()
}

// reboot reboots after a request was written.
func (c *Context) reboot() error {
	out, code, err := c.System.Run(c, "systemctl", "reboot")
	if err == nil && code != 0 {
		err = fmt.Errorf("systemctl reboot ended with %d: %s", code, strings.TrimSpace(string(out)))
	}
	if err != nil {
		return &hinted{err, "the request is written; reboot by hand"}
	}
	return nil
}

// change changes the restore data. Damaged ones are made anew, those of a newer version are not ours to write.
func (*RestoreCmd) change(v *state.Volume, change func(*state.RestoreData)) error {
	d, err := v.ReadRestoreData()
	if err != nil && !errors.Is(err, state.ErrDamaged) {
		return err
	}
	before := d
	if change(&d); err == nil && d == before {
		return nil
	}
	return v.WriteRestoreData(d)
}

// confirm asks the person at the terminal.
func (c *Context) confirm(question string) error {
	if !c.Terminal {
		return &usage{&hinted{errors.New("nobody can be asked: this is not a terminal"), "add --yes"}}
	}
	fmt.Fprint(c.Stdout, question)
	var answer []byte
	for b := make([]byte, 1); len(answer) < 100 && !bytes.HasSuffix(answer, []byte("\n")); { // what follows answers the next question
		n, err := c.Stdin.Read(b)
		answer = append(answer, b[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if string(bytes.TrimSpace(answer)) != "yes" {
		return errors.New("not confirmed, nothing was changed")
	}
	return nil
}
