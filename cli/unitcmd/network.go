package unitcmd

import (
	"errors"
	"fmt"

	"gprovision/cli/shown"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// SaveNetworkCmd keeps the network configuration for a restore.
type SaveNetworkCmd struct{}

// Help returns examples.
func (*SaveNetworkCmd) Help() string {
	return "Saves the .network, .link and .netdev files of /etc/systemd/network on the recovery volume if they are the unit's own: changed since the restore, or kept by it. If they are what the image brought, an older copy is removed. Nothing is written where nothing changed.\n\nFiles with keys of WireGuard or MACsec are left out: the recovery volume keeps no secrets.\n\nExamples, see also install:\n  sudo gprov-unit save-network\n  systemctl status gprov-save-network.path"
}

// Run saves it.
func (*SaveNetworkCmd) Run(c *Context) error {
	if err := c.needRoot(); err != nil {
		return err
	}
	archive, left, err := sysroot.SaveNetwork(c.Root, c.Site.Names.ConfDir)
	if errors.Is(err, sysroot.ErrNoNetworkRecord) {
		return &hinted{err, "only a system that gprovision restored can tell its own network files from those of the image"}
	}
	if err != nil {
		return err
	}
	for _, l := range left {
		fmt.Fprintf(c.Stderr, "gprov-unit: not kept: %s\n", shown.Line(fmt.Sprint(l)))
	}
	changed := false
	err = c.view(func(v *state.Volume) error {
		old, err := v.ReadNetwork()
		changed = err != nil || string(old) != string(archive)
		return nil
	})
	if err == nil && changed {
		err = c.write(func(v *state.Volume) error {
			changed, err = v.SetNetwork(archive)
			return err
		})
	}
	if err != nil {
		return err
	}
	switch {
	case archive == nil && changed:
		fmt.Fprintln(c.Stdout, "The network files are those of the image; the older copy is removed.")
	case archive == nil:
		fmt.Fprintln(c.Stdout, "The network files are those of the image; there is nothing to save.")
	case changed:
		fmt.Fprintln(c.Stdout, "The network configuration is saved; a restore brings it back.")
	default:
		fmt.Fprintln(c.Stdout, "The network configuration is saved already.")
	}
	return nil
}
