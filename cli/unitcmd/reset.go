package unitcmd

import (
	"errors"
	"fmt"
	"strings"

	"gprovision/unit/state"
)

// ResetCmd asks for one of the tiers of a reset at the next boot.
type ResetCmd struct {
	Settings   bool `xor:"tier" help:"Lose the system, the saved network files and the restore data. The data partition stays."`
	System     bool `xor:"tier" help:"Lose the system. Settings and data partition stay."`
	Everything bool `xor:"tier" help:"Lose the system, the settings and the content of the data partition."`
	Erase      bool `xor:"tier" help:"Erase all main disks, with a certificate of what was proved; then the unit restores itself."`
	Reboot     bool `help:"Reboot at once."`
	Yes        bool `short:"y" help:"Do not ask."`
	Cancel     bool `xor:"tier" help:"Take back a request that is not fulfilled yet."`
}

// Help returns examples.
func (*ResetCmd) Help() string {
	return `The next boot does it, from the newest image on the recovery volume. No network is needed. An erase takes hours. No other tier
overwrites what was on the disks. docs/reset.md says what each tier keeps and loses, and what the next owner does with what stays.

Examples:
  sudo gprov-unit reset --settings --reboot
  sudo gprov-unit reset --system --yes
  sudo gprov-unit reset --everything --reboot
  sudo gprov-unit reset --erase --reboot
  sudo gprov-unit reset --cancel`
}

// Run writes the request, or takes it back.
func (r *ResetCmd) Run(c *Context) error {
	kind, lost, stays := r.tier()
	if kind == "" && !r.Cancel {
		return &usage{&hinted{errors.New("what to reset is not said"), "give --settings, --system, --everything, --erase or --cancel"}}
	}
	if err := c.needRoot(); err != nil {
		return err
	}
	if r.Cancel {
		if err := c.write((*state.Volume).DeleteRequest); err != nil {
			return err
		}
		fmt.Fprintln(c.Stdout, "The next boot will neither restore nor erase.")
		return nil
	}
	req, err := state.NewRequest(kind, "", "gprov-unit reset", c.System.Now())
	if err != nil {
		return err
	}
	var unit state.Unit
	err = c.view(func(v *state.Volume) error {
		if unit, err = v.ReadUnit(); err != nil {
			return state.Fault(err)
		}
		if kind == state.KindErase { // its certificate is signed by the unit
			if _, err := v.ReadKey(); err != nil {
				return state.Fault(err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !unit.HasData() && (r.Settings || r.System) {
		lost += " This unit has no data partition: all data on the main disk will be lost too."
		stays = strings.TrimSuffix(stays, ", the data partition")
	}
	fmt.Fprintf(c.Stdout, "Will be lost: %s\nStays: %s.\n", lost, stays)
	if !r.Yes {
		if err := r.ask(c); err != nil {
			return err
		}
	}
	if err := c.write(func(v *state.Volume) error { return v.WriteRequest(req) }); err != nil {
		return err
	}
	fmt.Fprintf(c.Stdout, "The next boot will reset this unit (request %s).\n", req.ID)
	if r.Reboot {
		return c.reboot()
	}
	return nil
}

// tier returns the kind of the request, and what is lost and what stays, the data partition last.
func (r *ResetCmd) tier() (kind, lost, stays string) {
	const recovery = "the images, the logs, the unit's key and the admin password"
	switch {
	case r.Settings:
		return state.KindRestoreSettings, "the installed system, the saved network files and the restore data.",
			recovery + ", the data partition"
	case r.System:
		return state.KindRestore, "the installed system.",
			recovery + ", the saved network files, the restore data, the data partition"
	case r.Everything:
		return state.KindRestoreEverything,
			"the installed system, the saved network files, the restore data and all data on the main disks.", recovery
	case r.Erase:
		return state.KindErase, "all that is on the main disks, beyond recovery.", "the images, the unit's key and the admin password"
	}
	return "", "", ""
}

// ask asks the person at the terminal, twice for an erase.
func (r *ResetCmd) ask(c *Context) error {
	if err := c.confirm("Do this at the next boot? Type yes: "); err != nil || !r.Erase {
		return err
	}
	return c.confirm("Nobody can bring the data back. Type yes once more: ")
}
