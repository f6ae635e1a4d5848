// Command ipmiguest is process 1 of a machine in which nothing else runs. It finds the management controller as a unit does, loads the
// drivers in /modules for that, sets up the user whose password is on the kernel command line (bmcpassword=), and says on the console, as
// one line of JSON behind "controller ", what came of it. Then it ends, which panic=-1 makes the end of the machine.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/bmc"
	"gprovision/unit/machine"
)

// said is what is told.
type said struct {
	Device bmc.Device
	Ports  []bmc.LAN
	User   bmc.User
	Events int
	// Late is how many commands were cut off, each with another one behind it.
	Late int
	Err  string
}

func main() {
	var s said
	if err := run(context.Background(), &s); err != nil {
		s.Err = err.Error()
	}
	b, err := json.Marshal(s)
	fmt.Printf("\ncontroller %s %v\n", b, err)
}

func run(ctx context.Context, s *said) error {
	for kind, dir := range map[string]string{"proc": "/proc", "sysfs": "/sys", "devtmpfs": "/dev"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if err := load("ipmi_msghandler"); err != nil {
		return err
	}
	c, err := machine.FindBMC(ctx, os.DirFS("/sys"), false, func(names ...string) error { return load(names[0]) })
	if err != nil {
		return err
	}
	if s.Device, err = c.Device(ctx); err != nil {
		return err
	}
	if s.Ports, err = c.LANs(ctx); err != nil {
		return err
	}
	_, password, _ := strings.Cut(strings.TrimSpace(string(cmdline)), "bmcpassword=")
	if s.User, err = c.SetUser(ctx, 1, "operator", password); err != nil {
		return err
	}
	if _, s.Events, err = c.Log(ctx, 10); err != nil {
		return err
	}
	if err := c.ClearLog(ctx); err != nil {
		return err
	}
	for i := range 200 {
		short, cancel := context.WithTimeout(ctx, time.Duration(i)*50*time.Microsecond)
		if _, err := c.Device(short); err != nil {
			s.Late++
		}
		cancel()
		if again, err := c.Device(ctx); err != nil || again != s.Device {
			return fmt.Errorf("behind a command that was cut off: %+v, %w", again, err)
		}
	}
	return c.Close()
}

// load loads a module.
func load(name string) error {
	f, err := os.Open("/modules/" + name + ".ko")
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
