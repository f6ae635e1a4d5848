// Command tiny stands in for systemd in the small release of the VM tests: PID 1 of a system that consists of this program
// alone. It says on the event port what it found, and then does what the host tells it there, line by line:
//
//	{"do":"write","path":"/x","text":"..."}   write a file, making its directory, and sync
//	{"do":"patch","path":"/x","text":"...","at":9}   overwrite a part of a file
//	{"do":"copy","path":"/x","to":"/y"}       copy a file, and sync
//	{"do":"remove","path":"/x"}               remove a file, and sync
//	{"do":"list","path":"/x"}                 answer with the names in a directory, one on each line
//	{"do":"read","path":"/x"}                 answer with the first 64 KiB of a file
//	{"do":"mount","path":"/x","device":"/dev/vda2","text":"ro"}  mount an ext4 filesystem, read-only or not
//	{"do":"run","path":"/x","args":["y"]}     run a program and answer with what it prints
//	{"do":"network"}                          bring the network up by DHCP
//	{"do":"unmount","path":"/x"}
//	{"do":"connect","path":"/x"}              connect to a socket and wait until it is closed at the other end
//	{"do":"reboot"}, {"do":"poweroff"}
//
// Each line is answered by {"msg":"done","do":...} with the error, if any. Before all that it loads the modules in /modules,
// in the order of their names: drivers that init leaves to the system, or all where there is no initramfs of the product.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/host"
	"gprovision/hw/nic"
)

// portName is lab.EventPort; this program stays small and does not import lab.
const portName = "org.gprovision.events"

func main() {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}} {
		_ = os.MkdirAll(m[1], 0o755)
		if !mounted(m[1]) {
			_ = unix.Mount(m[0], m[1], m[0], 0, "")
		}
	}
	// Init hands over a root that is read-only, as systemd wants it. In an initramfs this does nothing.
	_ = unix.Mount("", "/", "", unix.MS_REMOUNT, "")
	console, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err != nil {
		console = os.Stderr
	}
	uptime, _ := os.ReadFile("/proc/uptime")
	fmt.Fprintf(console, "tiny system started, uptime %s", uptime)
	ports := networkPorts()
	for _, err := range loadModules() {
		fmt.Fprintln(console, err)
	}
	port, err := openPort(20 * time.Second)
	if err != nil {
		fmt.Fprintln(console, "tiny system: no event port:", err)
		port = console
	}
	up := facts()
	up["ports"] = ports
	say(port, up)
	fmt.Fprintln(console, "tiny system up")
	for {
		lines := bufio.NewScanner(port)
		for lines.Scan() {
			var c command
			if json.Unmarshal(lines.Bytes(), &c) == nil {
				say(port, c.run())
			}
		}
		time.Sleep(100 * time.Millisecond) // the host is not there; PID 1 never ends
	}
}

type command struct {
	Do, Path, Text, To, Device string
	At                         int64
	Args                       []string
}

func (c command) run() map[string]any {
	out := map[string]any{"msg": "done", "do": c.Do, "path": c.Path}
	var err error
	switch c.Do {
	case "write":
		if err = os.MkdirAll(filepath.Dir(c.Path), 0o755); err == nil {
			err = write(c.Path, c.Text, os.O_CREATE|os.O_TRUNC, 0)
		}
	case "patch":
		err = write(c.Path, c.Text, 0, c.At)
	case "copy":
		err = copyFile(c.To, c.Path)
	case "list":
		var list []os.DirEntry
		list, err = os.ReadDir(c.Path)
		var names []string
		for _, e := range list {
			names = append(names, e.Name())
		}
		out["text"] = strings.Join(names, "\n")
	case "remove":
		err = os.Remove(c.Path)
	case "read":
		out["text"], err = begin(c.Path)
	case "mount":
		if err = os.MkdirAll(c.Path, 0o755); err == nil {
			flags := uintptr(0)
			if c.Text == "ro" {
				flags = unix.MS_RDONLY
			}
			err = unix.Mount(c.Device, c.Path, "ext4", flags, "")
		}
	case "run":
		var b []byte
		var code int
		b, code, err = host.Run(context.Background(), c.Path, c.Args...)
		if out["text"] = string(b); err == nil && code != 0 {
			err = fmt.Errorf("exit status %d: %s", code, b)
		}
	case "network":
		err = network()
	case "unmount":
		err = unix.Unmount(c.Path, 0)
	case "connect":
		err = connect(c.Path)
	case "reboot", "poweroff":
		unix.Sync()
		_ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		how := unix.LINUX_REBOOT_CMD_RESTART
		if c.Do == "poweroff" {
			how = unix.LINUX_REBOOT_CMD_POWER_OFF
		}
		err = unix.Reboot(how)
	default:
		err = fmt.Errorf("unknown command %q", c.Do)
	}
	if err != nil {
		out["error"] = err.Error()
	}
	unix.Sync()
	return out
}

// network configures the network ports. Their drivers were loaded at the start, as those of any system are.
func network() error {
	ports, err := nic.List(os.DirFS("/sys"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // for the first address: leases are renewed for ever
	defer cancel()
	n := nic.Start(context.Background(), slog.New(slog.DiscardHandler), nic.Real(ports), "")
	if _, err = n.Wait(ctx); err != nil {
		n.Close()
	}
	return err
}

// begin returns the first 64 KiB of a file or device.
func begin(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return string(b), err
}

func connect(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return err
}

// write writes a file or the start of a device, and has it flushed: sync(2) alone does not empty a disk's cache.
func write(path, text string, flags int, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return errors.Join(out.Sync(), out.Close())
}

// facts are what a test wants to know of a restored system.
func facts() map[string]any {
	read := func(path string) string {
		b, _ := os.ReadFile(path)
		return strings.TrimSpace(string(b))
	}
	device, options := "", ""
	for line := range strings.Lines(read("/proc/self/mounts") + "\n") {
		if f := strings.Fields(line); len(f) > 3 && f[1] == "/" && f[0] != "rootfs" {
			device, options = f[0], f[3]
		}
	}
	var disks []string
	if list, err := os.ReadDir("/sys/class/block"); err == nil {
		for _, e := range list {
			disks = append(disks, e.Name())
		}
	}
	name, _ := os.Hostname()
	return map[string]any{
		"msg": "tiny system up", "hostname": read("/etc/hostname"), "kernelHostname": name, "machineID": read("/etc/machine-id"),
		"mark": read("/boot.normal"), "root": device, "rootOptions": options, "cmdline": read("/proc/cmdline"),
		"args": os.Args, "version": read("/etc/tiny-release"), "disks": disks, "fstab": read("/etc/fstab"),
	}
}

// networkPorts are the names of the network ports, with blanks between them.
func networkPorts() string {
	var names []string
	if list, err := os.ReadDir("/sys/class/net"); err == nil {
		for _, e := range list {
			names = append(names, e.Name())
		}
	}
	return strings.Join(names, " ")
}

func say(f *os.File, v map[string]any) {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte(`{"msg":"cannot say it"}`)
	}
	_, _ = f.Write(append(b, '\n'))
}

func mounted(dir string) bool {
	var d, parent unix.Stat_t
	if unix.Stat(dir, &d) != nil || unix.Stat(filepath.Dir(dir), &parent) != nil {
		return false
	}
	return d.Dev != parent.Dev
}

// openPort finds the port by its name in sysfs and opens it.
func openPort(patience time.Duration) (*os.File, error) {
	end := time.Now().Add(patience)
	for {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == portName {
				dev := "/dev/" + filepath.Base(filepath.Dir(n))
				if f, err := os.OpenFile(dev, os.O_RDWR, 0); err == nil {
					return f, nil
				}
			}
		}
		if time.Now().After(end) {
			return nil, os.ErrNotExist
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func loadModules() (errs []error) {
	list, _ := filepath.Glob("/modules/*.ko")
	sort.Strings(list)
	for _, m := range list {
		f, err := os.Open(m)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
			errs = append(errs, fmt.Errorf("load %s: %w", m, err))
		}
		_ = f.Close()
	}
	return errs
}
