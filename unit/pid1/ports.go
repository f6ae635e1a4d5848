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

// askPorts starts the process. It needs /proc. Without it no hub is asked.
func (u *unit) askPorts() {
	c, err := host.Companion([]string{portsName})
	if err != nil {
		u.log.Warn("USB hubs cannot be asked", "err", err)
		return
	}
	u.ports.Store(usb.NewAsker(c, "/dev"))
}

// usbState is what the USB ports say now.
func (u *unit) usbState() usb.State {
	doors := usb.Machine("/dev")
	doors.Connected = func(usb.Address, []int) ([]int, error) { return nil, nil }
	if a := u.ports.Load(); a != nil {
		doors = a.Doors()
	}
	return usb.Read(u.m.Sys, doors)
}
