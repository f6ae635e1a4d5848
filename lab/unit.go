package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/lcd/simulator"
	"gprovision/lab/usbredir"
	"gprovision/model/layout"
)

const (
	qemuProgram = "qemu-system-x86_64"
	qemuPackage = "qemu-system-x86"
	ovmfCode    = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfSecure  = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	ovmfVars    = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	// hotPlugPorts is the number of PCI Express ports kept free for Unit.Plug.
	hotPlugPorts = 2
)

// SMBIOS are the strings by which a machine identifies itself.
type SMBIOS struct {
	Manufacturer string `json:"manufacturer"`      // of the system and of the base board
	Product      string `json:"product"`           // name of the system and of the base board
	Serial       string `json:"serial"`            // of the system
	SKU          string `json:"sku,omitempty"`     // of the system
	UUID         string `json:"uuid,omitempty"`    // of the system; empty: made from the serial
	Version      string `json:"version,omitempty"` // of the system
}

// Config describes a virtual unit.
type Config struct {
	// Name is used in messages and, where there is no MAC, for the address of the port.
	Name     string          `json:"name"`
	Firmware layout.Firmware `json:"firmware"`
	// NativePXE boots with the firmware's own PXE and TFTP (UEFI only). Otherwise the network card has an iPXE ROM.
	NativePXE bool `json:"nativePXE,omitempty"`
	// SecureBoot is a certificate (DER). With it the firmware starts only what was signed with its key (UEFI only).
	SecureBoot []byte `json:"secureBoot,omitempty"`
	// NIC is QEMU's name of the network card; empty: virtio-net-pci.
	NIC string `json:"nic,omitempty"`
	// MAC is the address of the network card; empty: made from the name, 52:54:00:...
	MAC string `json:"mac,omitempty"`
	// Memory is in MiB; 0: 1536.
	Memory int `json:"memory,omitempty"`
	// CPUs is the number of processors; 0: 2.
	CPUs   int    `json:"cpus,omitempty"`
	SMBIOS SMBIOS `json:"smbios"`
	Disks  []Disk `json:"disks"`
	// LCD attaches a simulated display with keys to the second serial port (ttyS1): "631" or "635". Empty: none.
	LCD string `json:"lcd,omitempty"`
	// Screen gives the machine a display adapter, whose screen nobody sees. A keyboard is there always: see Unit.Press.
	Screen bool `json:"screen,omitempty"`
	// NetworkIndex is the network card's place in the firmware's boot order, from 1. 0: 2 on BIOS, none on UEFI, where the
	// firmware tries the network when nothing else boots.
	NetworkIndex int `json:"networkIndex,omitempty"`
	// Watchdog adds an i6300ESB, which resets the machine.
	Watchdog bool `json:"watchdog,omitempty"`
}

// Unit is a virtual machine with its disks, in a directory that it does not remove. It is off until Start.
//
// On BIOS the firmware tries only one hard disk, the one with the lowest BootIndex, and then the network: give the recovery
// disk 1 and leave the main disk 0. On UEFI the boot entries in the firmware's variables decide.
type Unit struct {
	Config
	// Dir holds the disks (NAME.qcow2), the firmware's variables (vars.fd), console.log, events.jsonl and qemu.log.
	Dir string
	// Events is what the unit says.
	Events *Events
	// Stick, if there is one, is in a USB port from power-on. It is set while the unit is off.
	Stick *usbredir.Stick

	display *simulator.LCD

	log   *slog.Logger
	net   *Network
	accel Accel
	power int // how often it was started

	mu      sync.Mutex
	proc    *process
	qmp     *qmp
	serial  net.Conn
	port    net.Conn
	console consoles
	ports   int // hot-plug ports in use
	files   []*os.File
}

// NewUnit makes a unit with empty disks in dir, which is made. Close it.
func NewUnit(ctx context.Context, log *slog.Logger, n *Network, dir string, c Config) (*Unit, error) {
	u, err := openUnit(log, n, dir, c)
	if err != nil {
		return nil, err
	}
	for _, d := range u.Disks {
		if _, err := os.Stat(u.diskPath(d.Name)); err == nil {
			continue // an interactive unit that was used before
		}
		if err := makeDisk(ctx, log, u.diskPath(d.Name), "", d.Size); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(u.varsPath()); err != nil && u.Firmware == layout.UEFI {
		if err := copyFile(u.varsPath(), ovmfVars); err != nil {
			return nil, fmt.Errorf("%w (Debian package ovmf)", err)
		}
		if u.SecureBoot != nil {
			if err := enrol(u.varsPath(), u.SecureBoot); err != nil {
				return nil, err
			}
		}
	}
	return u, nil
}

// openUnit makes the directory and the logs, but no disks.
func openUnit(log *slog.Logger, n *Network, dir string, c Config) (*Unit, error) {
	c = c.complete()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of unit %s: %w", c.Name, err)
	}
	display, err := newDisplay(c.LCD)
	if err != nil {
		return nil, fmt.Errorf("unit %s: %w", c.Name, err)
	}
	events, err := os.OpenFile(filepath.Join(dir, "events.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open event log of unit %s: %w", c.Name, err)
	}
	return &Unit{Config: c, Dir: dir, Events: newEvents(events), display: display, log: log, net: n, accel: n.Accel, files: []*os.File{events}}, nil
}

// complete fills in what was left open.
func (c Config) complete() Config {
	if c.Firmware == "" {
		c.Firmware = layout.UEFI
	}
	if c.NIC == "" {
		c.NIC = "virtio-net-pci"
	}
	sum := sha256.Sum256([]byte(c.Name + "\x00" + c.SMBIOS.Serial))
	if c.MAC == "" {
		c.MAC = fmt.Sprintf("52:54:00:%02x:%02x:%02x", sum[0], sum[1], sum[2])
	}
	if c.Memory == 0 {
		c.Memory = 1536
	}
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.SMBIOS.UUID == "" {
		b := sum[4:20]
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a random UUID by its form
		c.SMBIOS.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	if c.NetworkIndex == 0 && c.Firmware == layout.BIOS {
		c.NetworkIndex = 2
	}
	disks := make([]Disk, len(c.Disks))
	for i, d := range c.Disks {
		if d.Serial == "" {
			d.Serial = strings.ToUpper(d.Name)
		}
		disks[i] = d
	}
	c.Disks = disks
	return c
}

func (u *Unit) diskPath(name string) string { return filepath.Join(u.Dir, name+".qcow2") }
func (u *Unit) varsPath() string            { return filepath.Join(u.Dir, "vars.fd") }

// WriteLog is the file with the log of a disk with LogWrites.
func (u *Unit) WriteLog(name string) string { return writeLog(u.diskPath(name)) }

// Option changes one start of a unit.
type Option func(*startOptions)

type startOptions struct {
	menu     bool
	noReboot bool
	network  bool
	kernel   *directKernel
}

type directKernel struct{ kernel, initrd, cmdline string }

// FromNetwork puts the network first in the boot order, as a person does with the firmware's boot menu.
func FromNetwork() Option { return func(o *startOptions) { o.network = true } }

// Start switches the unit on. It is an error if it is on.
func (u *Unit) Start(ctx context.Context, opts ...Option) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.proc != nil {
		return fmt.Errorf("unit %s is on already", u.Name)
	}
	var o startOptions
	for _, f := range opts {
		f(&o)
	}
	if err := u.start(ctx, o); err != nil {
		return fmt.Errorf("start unit %s: %w", u.Name, err)
	}
	return nil
}

// line is a channel between QEMU and this process.
type line struct {
	ours   net.Conn
	theirs *os.File
}

func newLine() (line, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return line{}, fmt.Errorf("make socket pair: %w", err)
	}
	f := os.NewFile(uintptr(fds[0]), "line")
	defer f.Close()
	theirs := os.NewFile(uintptr(fds[1]), "line")
	ours, err := net.FileConn(f)
	if err != nil {
		_ = theirs.Close()
		return line{}, fmt.Errorf("make socket pair: %w", err)
	}
	return line{ours, theirs}, nil
}

func (u *Unit) start(ctx context.Context, o startOptions) (err error) {
	var undo []io.Closer
	defer func() {
		if err != nil {
			for _, c := range undo {
				_ = c.Close()
			}
		}
	}()
	tap, err := u.net.plug()
	if err != nil {
		return err
	}
	defer tap.Close()
	files := []*os.File{tap}
	lines := make([]line, 3, 5)
	if u.display != nil {
		lines = lines[:4]
	}
	if u.Stick != nil {
		lines = lines[:len(lines)+1] // the last one
	}
	for i := range lines {
		if lines[i], err = newLine(); err != nil {
			return err
		}
		defer lines[i].theirs.Close()
		undo = append(undo, lines[i].ours)
		files = append(files, lines[i].theirs)
	}
	args, err := u.arguments(o)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(u.Dir, "qemu.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer out.Close()
	fmt.Fprintf(out, "%s %q\n", qemuProgram, args)
	p, err := u.net.start(program{name: qemuProgram, pkg: qemuPackage, args: args, out: out, files: files})
	if err != nil {
		return err
	}
	for _, l := range lines {
		_ = l.theirs.Close() // so that the end of QEMU is the end of our side
	}
	u.power++
	power := u.power
	u.ports = 0
	u.Events.setDown(false)
	ended := make(chan struct{})
	go func() {
		u.Events.read(lines[1].ours, power)
		close(ended)
	}()
	go u.console.read(lines[0].ours)
	if u.display != nil {
		u.display.PowerCycle()
		go func() { _ = u.display.Serve(lines[3].ours) }() // ends with the machine
	}
	if u.Stick != nil {
		go func() { // ends with the machine
			if err := u.Stick.Serve(lines[len(lines)-1].ours); err != nil {
				u.log.Warn("the stick fell out", "err", err)
			}
		}()
	}
	q, err := newQMP(ctx, lines[2].ours, func(name string, data map[string]any) {
		if name == "RTC_CHANGE" { // each time that the guest sets its clock
			return
		}
		u.Events.add(Event{At: time.Now(), Power: power, Machine: true, Fields: map[string]any{"msg": name, "data": data}})
	})
	if err != nil {
		p.kill()
		u.Events.setDown(true)
		b, _ := os.ReadFile(filepath.Join(u.Dir, "qemu.log"))
		return fmt.Errorf("%w: %s", err, lastLines(string(b), 3))
	}
	u.proc, u.qmp, u.serial, u.port = p, q, lines[0].ours, lines[1].ours
	go func() {
		<-p.done
		<-ended // nothing more comes from it
		u.mu.Lock()
		defer u.mu.Unlock()
		u.proc, u.qmp = nil, nil
		for _, l := range lines {
			_ = l.ours.Close()
		}
		u.Events.setDown(true)
	}()
	return nil
}

// arguments are QEMU's. Descriptor 3 is the tap device, 4 the console, 5 the event port, 6 QMP, then the display and the stick.
func (u *Unit) arguments(o startOptions) ([]string, error) {
	machine := "q35,graphics=off"
	var devices, sticks, nodes []object
	var globals []string
	if u.Firmware == layout.UEFI {
		machine += ",pflash0=code,pflash1=vars"
		code := ovmfCode
		if u.SecureBoot != nil {
			// The firmware keeps its variables from the guest in system management mode.
			code, machine = ovmfSecure, machine+",smm=on"
			globals = []string{"-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"}
		}
		nodes = append(nodes,
			object{"driver": "raw", "node-name": "code", "read-only": true, "file": object{"driver": "file", "filename": code}},
			object{"driver": "raw", "node-name": "vars", "file": object{"driver": "file", "filename": u.varsPath()}})
	}
	args := append(u.accel.args(), "-name", "gprov-"+u.Name, "-machine", machine, "-smp", fmt.Sprint(u.CPUs), "-m", fmt.Sprint(u.Memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-rtc", "base=utc",
		"-smbios", u.SMBIOS.system(), "-smbios", u.SMBIOS.board(),
		"-chardev", "socket,id=console,fd=4,logappend=on,logfile="+comma(filepath.Join(u.Dir, "console.log")), "-serial", "chardev:console",
		"-chardev", "socket,id=events,fd=5",
		"-chardev", "socket,id=qmp,fd=6", "-mon", "chardev=qmp,mode=control",
		"-netdev", "tap,id=net0,fd=3")
	if u.display != nil {
		args = append(args, "-chardev", "socket,id=display,fd=7", "-serial", "chardev:display")
	}
	if u.Stick != nil {
		fd := 7
		if u.display != nil {
			fd++
		}
		args = append(args, "-chardev", fmt.Sprintf("socket,id=stick,fd=%d", fd))
		sticks = append(sticks, object{"driver": "usb-redir", "id": "dev-slow", "chardev": "stick", "bus": "usb0.0"})
	}
	args = append(args, globals...)
	if o.noReboot {
		args = append(args, "-no-reboot")
	}
	if k := o.kernel; k != nil {
		args = append(args, "-kernel", k.kernel, "-initrd", k.initrd, "-append", k.cmdline)
	}
	if o.menu {
		args = append(args, "-boot", "menu=on,splash-time=5000")
	}
	nic := object{"driver": u.NIC, "netdev": "net0", "mac": u.MAC}
	if u.NativePXE {
		if u.Firmware != layout.UEFI {
			return nil, errors.New("SeaBIOS has no PXE of its own: NativePXE is for UEFI")
		}
		nic["romfile"] = ""
	}
	switch {
	case o.network:
		nic["bootindex"] = 0
	case u.NetworkIndex > 0:
		nic["bootindex"] = u.NetworkIndex
	}
	devices = append(devices, nic,
		object{"driver": "virtio-rng-pci"},
		object{"driver": "virtio-serial-pci", "id": "vser0"},
		object{"driver": "virtserialport", "bus": "vser0.0", "chardev": "events", "name": EventPort},
		object{"driver": "virtio-scsi-pci", "id": "scsi0"},
		object{"driver": "qemu-xhci", "id": "usb0"})
	devices = append(devices, sticks...)
	if u.Screen {
		devices = append(devices, object{"driver": "VGA"})
	}
	if u.Watchdog {
		devices = append(devices, object{"driver": "i6300esb"})
	}
	for i := range hotPlugPorts {
		devices = append(devices, object{"driver": "pcie-root-port", "id": portName(i), "chassis": i + 1, "slot": i + 1})
	}
	places := map[Bus]int{}
	for _, d := range u.Disks {
		if d.Late {
			continue
		}
		if d.Bus == MMC {
			devices = append(devices, object{"driver": "sdhci-pci"})
		} else if o.network && u.Firmware == layout.UEFI && d.BootIndex == 0 {
			d.BootIndex = 10 + len(nodes) // OVMF forgets the boot entries of what has no place in QEMU's order
		}
		dev, err := d.device(places[d.Bus], "")
		if err != nil {
			return nil, err
		}
		places[d.Bus]++
		if d.LogWrites {
			if err := os.WriteFile(u.WriteLog(d.Name), nil, 0o600); err != nil {
				return nil, fmt.Errorf("begin write log: %w", err)
			}
		}
		nodes, devices = append(nodes, d.blockNode(u.diskPath(d.Name))), append(devices, dev)
	}
	for _, n := range nodes {
		b, err := json.Marshal(n)
		if err != nil {
			return nil, fmt.Errorf("describe disk: %w", err)
		}
		args = append(args, "-blockdev", string(b))
	}
	for _, d := range devices {
		b, err := json.Marshal(d)
		if err != nil {
			return nil, fmt.Errorf("describe device: %w", err)
		}
		args = append(args, "-device", string(b))
	}
	return args, nil
}

func portName(i int) string { return fmt.Sprintf("port%d", i) }

// comma doubles commas, as QEMU's option syntax wants.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func (s SMBIOS) system() string {
	out := "type=1"
	for _, f := range [][2]string{{"manufacturer", s.Manufacturer}, {"product", s.Product}, {"version", s.Version}, {"serial", s.Serial}, {"sku", s.SKU}, {"uuid", s.UUID}} {
		if f[1] != "" {
			out += "," + f[0] + "=" + comma(f[1])
		}
	}
	return out
}

func (s SMBIOS) board() string {
	return "type=2,manufacturer=" + comma(s.Manufacturer) + ",product=" + comma(s.Product)
}

// machine returns the connections of a unit that is on.
func (u *Unit) machine() (*qmp, *process, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.proc == nil {
		return nil, nil, fmt.Errorf("unit %s is off", u.Name)
	}
	return u.qmp, u.proc, nil
}

// On reports whether the unit is on.
func (u *Unit) On() bool {
	_, _, err := u.machine()
	return err == nil
}

// Cut cuts the power: the machine is gone at once. What its disks had not flushed may be lost. No error if it is off.
func (u *Unit) Cut() {
	if _, p, err := u.machine(); err == nil {
		p.kill()
		u.settle()
	}
}

// settle waits until the end of the process is known everywhere.
func (u *Unit) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, _, _ = u.Events.find(ctx, 1<<30, func(Event) bool { return false })
}

// Wait waits until the unit is off: it powered itself off, or would have started again with NoReboot.
func (u *Unit) Wait(ctx context.Context) error {
	_, p, err := u.machine()
	if err != nil {
		return nil
	}
	err = p.wait(ctx)
	if ctx.Err() == nil {
		u.settle()
	}
	return err
}

// Reset presses the reset button.
func (u *Unit) Reset(ctx context.Context) error { return u.command(ctx, "system_reset", nil) }

// PowerButton presses the power button; what follows is the guest's choice.
func (u *Unit) PowerButton(ctx context.Context) error { return u.command(ctx, "system_powerdown", nil) }

// Plug puts a disk with Late into a unit that is on.
func (u *Unit) Plug(ctx context.Context, name string) error {
	for _, d := range u.Disks {
		if d.Name != name || !d.Late {
			continue
		}
		slot := ""
		if d.onPCI() {
			u.mu.Lock()
			slot = portName(u.ports)
			u.ports++
			u.mu.Unlock()
		}
		dev, err := d.device(0, slot)
		if err != nil {
			return err
		}
		if err := u.command(ctx, "blockdev-add", d.blockNode(u.diskPath(name))); err != nil {
			return err
		}
		return u.command(ctx, "device_add", dev)
	}
	return fmt.Errorf("unit %s has no disk %s that is plugged late", u.Name, name)
}

func (u *Unit) command(ctx context.Context, name string, args object) error {
	q, _, err := u.machine()
	if err != nil {
		return err
	}
	_, err = q.call(ctx, name, args)
	return err
}

// Tell writes one JSON line to the unit's event port. The tiny system obeys it; see lab/tiny.
func (u *Unit) Tell(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("tell unit %s: %w", u.Name, err)
	}
	if _, _, err := u.machine(); err != nil {
		return err
	}
	if _, err := u.port.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("tell unit %s: %w", u.Name, err)
	}
	return nil
}

// Type types text on the serial console.
func (u *Unit) Type(text string) error {
	if _, _, err := u.machine(); err != nil {
		return err
	}
	if _, err := io.WriteString(u.serial, text); err != nil {
		return fmt.Errorf("type on console of unit %s: %w", u.Name, err)
	}
	return nil
}

// Press presses a key of the keyboard and releases it, by QEMU's name for it (QKeyCode in qapi/ui.json), such as "ret" or "down".
func (u *Unit) Press(ctx context.Context, key string) error {
	return u.command(ctx, "send-key", object{"keys": []object{{"type": "qcode", "data": key}}})
}

// Watch copies the serial console to w from now on. The function that it returns ends that.
func (u *Unit) Watch(w io.Writer) func() { return u.console.add(w) }

// Console returns what the serial console has shown in all boots, or its end where that is more than 4 MiB.
func (u *Unit) Console() string {
	f, err := os.Open(filepath.Join(u.Dir, "console.log"))
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 4<<20 {
		_, _ = f.Seek(st.Size()-4<<20, io.SeekStart)
	}
	var b bytes.Buffer
	_, _ = io.Copy(&b, f)
	return b.String()
}

// Close cuts the power and closes the logs. The directory stays.
func (u *Unit) Close() {
	u.Cut()
	for _, f := range u.files {
		_ = f.Close()
	}
}

// consoles are those who watch a serial line.
type consoles struct {
	mu   sync.Mutex
	next int
	to   map[int]io.Writer
}

func (c *consoles) add(w io.Writer) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.to == nil {
		c.to = map[int]io.Writer{}
	}
	c.next++
	id := c.next
	c.to[id] = w
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.to, id)
	}
}

func (c *consoles) read(r io.Reader) {
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		c.mu.Lock()
		for _, w := range c.to {
			_, _ = w.Write(b[:n])
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}
