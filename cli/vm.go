package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/term"

	"gprovision/cli/shown"
	"gprovision/lab"
	"gprovision/model/layout"
)

// VMCmd runs one virtual unit with its console on the terminal. Its disks stay for the next time.
type VMCmd struct {
	Dir       string   `help:"Directory of the unit: disks, firmware variables, logs. It is made if it is missing." default:"vm" type:"path"`
	Firmware  string   `help:"Kind of firmware." enum:"uefi,bios" default:"uefi"`
	NativePXE bool     `help:"Boot with the firmware's own PXE and TFTP instead of QEMU's iPXE ROM (UEFI only)." name:"native-pxe"`
	Disk      []string `help:"A disk, as NAME:BUS:SIZE[:SECTOR], bus virtio, nvme, sata, scsi or usb. The first one boots on BIOS." default:"recovery:virtio:4G,main:virtio:8G" placeholder:"DISK"`
	Display   string   `help:"A display with keys on the second serial port: 631 or 635." enum:",631,635" default:"" placeholder:"MODEL"`
	Product   string   `help:"Product name in SMBIOS (default: widget, with --display widget-lcd)." placeholder:"NAME"`
	Serial    string   `help:"Serial number in SMBIOS." default:"VM0001"`
	Memory    int      `help:"Memory in MiB." default:"1536"`
	CPUs      int      `help:"Number of processors." name:"cpus" default:"2"`
	Network   bool     `help:"Boot from the network first, as a person chooses it in the firmware's menu." name:"from-network"`
	Data      string   `help:"Run 'gprov serve' with this data directory beside the unit." type:"existingdir" placeholder:"DIR"`
}

// Help is shown below the flags.
func (*VMCmd) Help() string {
	return `Ctrl-] ends it as a power cut does. It needs root, for a network of its own.

With --display the unit has a display with keys. The terminal shows the console; 'gprov lcd attach DIR/display' shows the display in another
one. The appliance table of the boot artifacts has to name the display: the built-in one does, for the product widget-lcd.

Examples:
  gprov vm --dir /tmp/unit --data /srv/factory
  gprov vm --dir /tmp/unit --data /srv/factory --display 635   # in another terminal: gprov lcd attach /tmp/unit/display
  gprov vm --firmware bios --disk recovery:sata:4G --disk main:nvme:8G`
}

// Run implements the verb.
func (v *VMCmd) Run(c *Context) (err error) {
	disks, err := v.disks()
	if err != nil {
		return &UsageError{err}
	}
	if err := lab.Usable(); err != nil {
		return &HintError{err, "run it as root: sudo gprov vm"}
	}
	log := slog.New(slog.NewTextHandler(c.Stderr, nil))
	n, err := lab.NewNetwork(c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if v.Data != "" {
		s, err := lab.StartServer(c, log, n, lab.ServerConfig{Data: v.Data})
		if err != nil {
			return err
		}
		defer s.Stop()
		page, err := n.Forward(s.Page, 0)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.Stdout, "the server's page is at https://%s\n", page)
	}
	u, err := lab.NewUnit(c, log, n, v.Dir, lab.Config{
		Name: filepath.Base(v.Dir), Firmware: layout.Firmware(v.Firmware), NativePXE: v.NativePXE, Memory: v.Memory, CPUs: v.CPUs, Disks: disks,
		SMBIOS: lab.SMBIOS{Manufacturer: lab.PlatformManufacturer, Product: v.product(), Serial: v.Serial}, LCD: v.Display,
	})
	if err != nil {
		return err
	}
	defer u.Close()
	defer u.Watch(shown.Raw(c.Stdout))() // its console, as it is
	var opts []lab.Option
	if v.Network {
		opts = append(opts, lab.FromNetwork())
	}
	if err := u.Start(c, opts...); err != nil {
		return err
	}
	if u.Display() != nil { // after Start: the unit is nobody else's, and so is its socket
		path := filepath.Join(v.Dir, displaySocket)
		l, err := listenDisplay(path)
		if err != nil {
			return err
		}
		defer l.Close()
		go serveDisplay(c, l, u.Display())
		fmt.Fprintf(c.Stdout, "the display: gprov lcd attach %s\n", path)
	}
	if f := int(os.Stdin.Fd()); c.Terminal && term.IsTerminal(f) {
		old, err := term.MakeRaw(f)
		if err != nil {
			return fmt.Errorf("set terminal: %w", err)
		}
		defer term.Restore(f, old)
		go keyboard(u, os.Stdin)
	}
	return u.Wait(c)
}

// product is the unit's product name, by which the appliance table knows whether it has a display.
func (v *VMCmd) product() string {
	switch {
	case v.Product != "":
		return v.Product
	case v.Display != "":
		return lab.PlatformProductLCD
	}
	return lab.PlatformProduct
}

// keyboard types what it reads on the unit's console, until Ctrl-].
func keyboard(u *lab.Unit, r io.Reader) {
	b := make([]byte, 256)
	for {
		n, err := r.Read(b)
		if err != nil {
			return
		}
		text, _, end := bytes.Cut(b[:n], []byte{0x1d})
		if u.Type(string(text)) != nil {
			return
		}
		if end {
			u.Cut()
			return
		}
	}
}

func (v *VMCmd) disks() ([]lab.Disk, error) {
	var out []lab.Disk
	for i, s := range v.Disk {
		f := strings.Split(s, ":")
		if len(f) < 3 || len(f) > 4 {
			return nil, fmt.Errorf("disk %q: want NAME:BUS:SIZE or NAME:BUS:SIZE:SECTOR", s)
		}
		size, err := parseSize(f[2])
		if err != nil {
			return nil, fmt.Errorf("disk %q: %w", s, err)
		}
		d := lab.Disk{Name: f[0], Bus: lab.Bus(f[1]), Size: size}
		if d.Name == "" || strings.ContainsAny(d.Name, "/\\") {
			return nil, fmt.Errorf("disk %q: a name is needed, without slashes", s)
		}
		if len(f) == 4 {
			if d.SectorSize, err = strconv.Atoi(f[3]); err != nil || d.SectorSize != 512 && d.SectorSize != 4096 {
				return nil, fmt.Errorf("disk %q: want sectors of 512 or 4096 bytes", s)
			}
		}
		if i == 0 && v.Firmware == string(layout.BIOS) {
			d.BootIndex = 1
		}
		out = append(out, d)
	}
	return out, nil
}

// parseSize reads a size in bytes, or in KiB, MiB, GiB or TiB with the suffix K, M, G or T.
func parseSize(s string) (int64, error) {
	shift := 0
	if s != "" {
		if i := strings.IndexByte("KMGT", s[len(s)-1]); i >= 0 {
			shift, s = 10*(i+1), s[:len(s)-1]
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n<<shift>>shift != n {
		return 0, fmt.Errorf("%q is no size such as 8G", s)
	}
	return n << shift, nil
}
