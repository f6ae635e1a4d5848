package pid1

import (
	"os"

	"gprovision/hw/host"
	"gprovision/hw/usb"
)

// portsName is how the process is called that asks USB hubs: process 1 must not hang where the kernel holds a hub.
const portsName = "gprov-ports"

// portsMain is that process, if args say that this is it. Then it does not return.
func portsMain(args []string) {
	if len(args) == 0 || args[0] != portsName {
		return
	}
	_ = host.SetName(portsName)
	if err := usb.Answer(os.Stdin, os.Stdout, "/dev"); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// startPorts starts the process, and returns who asks through it. It needs /proc. Without it hubs are asked from here, and may hold up init.
func (u *unit) startPorts() usb.Doors {
	c, err := host.Companion([]string{portsName})
	if err != nil {
		u.log.Warn("USB hubs are asked by init itself", "err", err)
		return usb.Machine("/dev")
	}
	return usb.NewAsker(c, "/dev").Doors()
}

// usbState is what the USB ports say now.
func (u *unit) usbState() usb.State {
	doors := usb.Machine("/dev")
	if u.ports != nil {
		doors = u.ports()
	}
	return usb.Read(u.m.Sys, doors)
}
