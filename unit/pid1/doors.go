package pid1

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"gprovision/hw/console"
	"gprovision/hw/drive"
	"gprovision/hw/host"
	"gprovision/hw/lcd"
	"gprovision/hw/usb"
	"gprovision/hw/watchdog"
	"gprovision/unit/splash"
)

// SystemInit is the program of the installed system that init hands over to.
const SystemInit = "/usr/lib/systemd/systemd"

// doors are the ways by which process 1 reaches its kernel, and the devices that no job uses. Jobs do not have them: theirs are
// machine.Doors. On a unit they come from realDoors. In tests they lead to a machine that is not there.
type doors struct {
	// Proc is /proc.
	Proc fs.FS
	// Prepare mounts the kernel's own filesystems and sets the environment of programs.
	Prepare func() error
	// Modules reads which drivers below the directory initramfs are for the running kernel.
	Modules func(initramfs string) (*host.Modules, error)
	// MountVars mounts the variables of UEFI firmware.
	MountVars func(*host.Modules) error
	// Devices returns the kernel's events of devices until ctx is done.
	Devices func(ctx context.Context) (<-chan host.Uevent, error)
	// QuietKernel keeps the kernel's messages from the consoles, errors apart.
	QuietKernel func() error
	// Console opens a console by its device node.
	Console func(device string) (*console.TTY, error)
	// EventPort opens the port that carries the log out of a virtual machine.
	EventPort func(device string) (io.WriteCloser, error)
	// Watchdog opens the first watchdog, which starts it. The error is watchdog.ErrNone if there is none.
	Watchdog func() (timer, error)
	// Unfreeze suspends the machine for some seconds (drive.Machine.Unfreeze).
	Unfreeze func() error
	// Hubs returns how USB hubs are asked.
	Hubs func() usb.Doors
	// Display returns how to open the display on a serial port, or on USB if port is empty.
	Display func(port string) func(context.Context) (io.ReadWriteCloser, string, error)
	// Splash starts the process that shows the start of the system mounted on root (splash.Start). end ends that process.
	Splash func(ctx context.Context, root, port string, fresh bool) (end func() error, err error)
	// Reboot restarts the machine. It returns only if that fails.
	Reboot func() error
	// PowerOff switches the machine off. It returns only if that fails.
	PowerOff func() error
	// SwitchRoot makes root the root directory and replaces process 1 by the program init there. It returns only if that fails.
	SwitchRoot func(root, init string) error
}

// realDoors returns the doors of the machine that this process runs on. sys is /sys.
func realDoors(log *slog.Logger, sys fs.FS) doors {
	return doors{
		Proc: os.DirFS("/proc"),
		Prepare: func() error {
			return errors.Join(host.EarlyMounts(), os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
		},
		Modules: func(initramfs string) (*host.Modules, error) {
			release, err := host.Release()
			if err != nil {
				return nil, err
			}
			return host.NewModules(initramfs, release)
		},
		MountVars: func(m *host.Modules) error {
			_, err := host.MountEFIVars(m)
			return err
		},
		Devices:     host.Events,
		QuietKernel: func() error { return host.SetConsoleLevel(4) }, // KERN_ERR and worse (printk-basics.rst)
		Console:     console.Open,
		EventPort:   func(device string) (io.WriteCloser, error) { return os.OpenFile(device, os.O_WRONLY, 0) },
		Watchdog: func() (timer, error) {
			device, err := watchdog.Find(sys)
			if err != nil {
				return nil, err
			}
			t, err := watchdog.Open(device)
			if err != nil {
				return nil, err // keep a nil pointer out of the interface
			}
			return t, nil
		},
		Unfreeze: drive.Machine{
			Read:  os.ReadFile,
			Write: func(name string, content []byte) error { return os.WriteFile(name, content, 0) },
			Wait:  func(d time.Duration) error { <-time.After(d); return nil },
		}.Unfreeze,
		Hubs: sync.OnceValue(func() usb.Doors { return startPorts(log) }),
		Display: func(port string) func(context.Context) (io.ReadWriteCloser, string, error) {
			return lcd.Dialer(sys, port)
		},
		Splash: func(ctx context.Context, root, port string, fresh bool) (func() error, error) {
			p, err := splash.Start(ctx, root, port, fresh)
			if err != nil {
				return nil, err
			}
			return func() error { return host.End(p) }, nil
		},
		Reboot:     host.Reboot,
		PowerOff:   host.PowerOff,
		SwitchRoot: func(root, init string) error { return host.SwitchRoot(root, init, nil, nil) },
	}
}

// timer is an armed watchdog: watchdog.Timer on a unit.
type timer interface {
	Path() string
	Identity() string
	Expired() bool
	SetTimeout(time.Duration) (time.Duration, error)
	Pet() error
	Leave() error
	Stop() error
}
