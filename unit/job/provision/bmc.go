package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gprovision/hw/bmc"
	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/record"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
)

// The management controller (BMC). It is read before the hardware is compared, and set while the unit's passwords are there. All of it may
// be repeated: a unit that was cut off in between sets the same account once more.

// bmcEvents is the name of the document with the controller's event log.
const bmcEvents = "bmc-events.txt"

// How much of the event log is read, and how long a login over the network may take.
const (
	maxBMCEvents = 8192
	loginBound   = 15 * time.Second
)

// controller is the part of a provisioning that is about the management controller.
type controller struct{ j *provisioning }

// bmcPlan says what is set at the controller, a line for each thing.
func bmcPlan(b manifest.BMC) (out []string) {
	if b.User != "" {
		out = append(out, fmt.Sprintf("user %q gets the unit's own password", b.User))
	}
	if len(b.Disable) > 0 {
		out = append(out, fmt.Sprintf("disabled where they are: %q", b.Disable))
	}
	if b.PowerRestore != "" {
		out = append(out, "when power comes back: "+b.PowerRestore)
	}
	if b.ClearSEL {
		out = append(out, "the event log is sent to the server and cleared")
	}
	return out
}

// read reads the controller, tells the server what it is, and makes sure that it can take what the manifest sets. Where the platform has
// a controller, or the manifest sets something, one that does not answer ends the job; any other is of use where it answers.
func (b controller) read(ctx context.Context) error {
	j := b.j
	needed := j.Identity.Variant.IPMI || len(bmcPlan(j.plan.BMC.BMC)) > 0 || j.plan.Spec.FirmwareVer.IPMI != ""
	c, err := machine.OpenBMC(ctx, j.Machine)
	if err == nil {
		defer c.Close()
		err = b.tell(ctx, c)
	}
	switch {
	case err == nil || fault.Of(err) != nil:
		return err
	case needed && errors.As(err, new(*bmc.Refusal)):
		return fault.Because(fault.BMCRefused, err)
	case needed:
		return fault.Because(fault.NoBMC, err)
	case !errors.Is(err, bmc.ErrNone):
		j.Log.Warn("the management controller cannot be read", "err", err)
	}
	return nil
}

// tell reads the controller and tells the server what it is.
func (b controller) tell(ctx context.Context, c *bmc.Controller) error {
	j := b.j
	d, err := c.Device(ctx)
	if err != nil {
		return err
	}
	j.plan.BMC.firmware = d.Firmware
	f := record.BMC{Firmware: d.Firmware, Aux: d.Aux, IPMI: d.IPMI, Manufacturer: d.Manufacturer, Product: d.Product, GUID: d.GUID}
	inventory, err := c.Inventory(ctx)
	if err != nil {
		j.Log.Info("the management controller has no inventory that can be read", "err", err)
	}
	f.Inventory = record.BMCInventory(inventory)
	ports, err := c.LANs(ctx)
	if err != nil {
		return err
	}
	macs := []string{}
	for _, l := range ports {
		f.Ports = append(f.Ports, record.BMCPort(l))
		if l.MAC != "" {
			macs = append(macs, l.MAC)
		}
	}
	port, err := b.port(ports)
	if err != nil {
		return err
	}
	var users []bmc.User
	if port.Channel != 0 {
		if users, err = c.Users(ctx, port.Channel); err != nil {
			return err
		}
	}
	for _, u := range users {
		f.Users = append(f.Users, record.BMCUser(u))
	}
	policy, err := c.PowerRestore(ctx)
	if err != nil {
		j.Log.Info("what the machine does when its power comes back cannot be read", "err", err)
	}
	f.PowerRestore = policy.String()
	if f.Events, err = b.sendEvents(ctx, c); err != nil {
		return err
	}
	j.Log.Info("fact", journal.Kind(record.KindFact), "name", record.FactBMC, "value", f)
	j.Log.Info("fact", journal.Kind(record.KindFact), "name", record.FactBMCMACs, "value", macs)
	if user := j.plan.BMC.User; user != "" {
		if _, err := bmc.Choose(users, user); err != nil {
			return fault.Because(fault.BMCRefused, err)
		}
	}
	return nil
}

// port returns the port of the controller that counts: that of the platform's channel, or else the first. It is the zero value if there is
// none, which is an error where a user is to get a password: the user could log in nowhere.
func (b controller) port(ports []bmc.LAN) (bmc.LAN, error) {
	wanted := b.j.Identity.Variant.IPMIChannel
	i := slices.IndexFunc(ports, func(l bmc.LAN) bool { return wanted == 0 || int(l.Channel) == wanted })
	switch {
	case i >= 0:
		return ports[i], nil
	case b.j.plan.BMC.User == "":
		return bmc.LAN{}, nil
	case wanted != 0:
		return bmc.LAN{}, fault.Newf(fault.BMCRefused, "the platform names channel %d (IPMIChannel), which is no port on a network", wanted)
	}
	return bmc.LAN{}, fault.Newf(fault.BMCRefused, "the manifest names a user, and the management controller has no port on a network")
}

// sendEvents sends the controller's event log to the server, and returns how many events it has. That it cannot be read or sent is an error
// only where it would be cleared.
func (b controller) sendEvents(ctx context.Context, c *bmc.Controller) (int, error) {
	j := b.j
	records, n, err := c.Log(ctx, maxBMCEvents)
	if err == nil && len(records) > 0 {
		var text strings.Builder
		for _, r := range records {
			fmt.Fprintln(&text, r)
		}
		err = j.client.Document(ctx, record.Document{Name: bmcEvents, Type: "text/plain", Boot: j.BootID, Body: []byte(text.String())})
	}
	switch {
	case err == nil && len(records) < n && j.plan.BMC.ClearSEL:
		err = fmt.Errorf("the event log has %d events, and only %d can be read", n, len(records))
	case err == nil:
		return n, nil
	}
	if j.plan.BMC.ClearSEL {
		return n, err
	}
	j.Log.Warn("the event log of the management controller is not at the server", "err", err)
	return n, nil
}

// set sets what the manifest says, with the unit's own password.
func (b controller) set(ctx context.Context) error {
	want := b.j.plan.BMC.BMC
	if len(bmcPlan(want)) == 0 {
		return nil
	}
	c, err := machine.OpenBMC(ctx, b.j.Machine)
	if err != nil {
		return fault.Because(fault.NoBMC, err)
	}
	defer c.Close()
	if want.User != "" {
		if err := b.setUser(ctx, c); err != nil {
			return fault.Because(fault.BMCRefused, err)
		}
	}
	for _, p := range []bmc.Restore{bmc.StayOff, bmc.AsBefore, bmc.TurnOn} {
		if p.String() != want.PowerRestore {
			continue
		}
		if err := c.SetPowerRestore(ctx, p); err != nil {
			return fault.Because(fault.BMCRefused, err)
		}
	}
	if want.ClearSEL {
		if err := c.ClearLog(ctx); err != nil {
			return fault.Because(fault.BMCRefused, err)
		}
	}
	return nil
}

// setUser gives the user the unit's own password, has that proved, and disables the accounts that the manifest names.
func (b controller) setUser(ctx context.Context, c *bmc.Controller) error {
	j := b.j
	want, password := j.plan.BMC, j.passwords.IPMI.Reveal()
	ports, err := c.LANs(ctx)
	if err != nil {
		return err
	}
	port, err := b.port(ports)
	if err != nil {
		return err
	}
	u, err := c.SetUser(ctx, port.Channel, want.User, password)
	if err != nil {
		return err
	}
	inBand, over, err := prove(ctx, c, u, port, password)
	if err != nil {
		return err
	}
	j.Log.Info("fact", journal.Kind(record.KindFact), "name", record.FactBMCPassword,
		"value", record.BMCPassword{User: u.Name, InBand: inBand, OverLAN: over})
	j.Log.Info("password of the management controller set", "user", u.Name, "account", u.ID, "in band", inBand, "over LAN", over,
		journal.ForPerson())
	users, err := c.Users(ctx, port.Channel)
	if err != nil {
		return err
	}
	for _, other := range users {
		if other.ID == u.ID || !other.Enabled || !slices.Contains(want.Disable, other.Name) {
			continue
		}
		if err := c.DisableUser(ctx, port.Channel, other.ID); err != nil {
			return err
		}
		j.Log.Info("account of the management controller disabled", "user", other.Name, "account", other.ID)
	}
	return nil
}

// What is said of a password that was set.
const (
	proved     = "proved"
	notChecked = "not checked: "
)

// prove proves that an account has a password: from inside of the machine, and by a login over the network where the controller's port
// can be reached. It is an error if one of the two says that it has not, or if the controller takes wrong passwords and no login says more.
func prove(ctx context.Context, c *bmc.Controller, u bmc.User, port bmc.LAN, password string) (inBand, over string, err error) {
	inBand = proved
	lies := c.TestPassword(ctx, u.ID, password)
	switch {
	case errors.Is(lies, bmc.ErrNoTest):
		inBand, lies = notChecked+lies.Error(), nil
	case errors.Is(lies, bmc.ErrNoProof):
		inBand = notChecked + lies.Error()
	case lies != nil:
		return "", "", lies
	}
	if !port.Address.IsValid() {
		return inBand, notChecked + "its port has no address", lies
	}
	bounded, cancel := context.WithTimeout(ctx, loginBound)
	defer cancel()
	err = c.Login(bounded, port.Address, u.Name, password)
	switch {
	case err == nil:
		return inBand, proved, nil
	case errors.Is(err, bmc.ErrPassword):
		return "", "", err
	}
	if ctx.Err() != nil {
		return "", "", ctx.Err()
	}
	return inBand, notChecked + err.Error(), lies
}
