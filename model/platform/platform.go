// Package platform knows the kinds of appliance that a company makes: the appliance table (appliance.json), how a machine is
// recognised from its DMI strings, and which of its disks is for what.
//
// It computes and reads nothing by itself: DMI strings and disks are passed in. The format is described in
// docs/formats/appliance.md; the names of the fields are those that appliance tables always had, so that an existing table
// works unchanged.
package platform

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gprovision/model/layout"
	"gprovision/model/source"
)

// Version is the format version of the table that this package knows best. A table without a version has version 1.
const Version = 1

// Problem is one thing that is wrong in a table.
type Problem = source.Problem

// Table is the list of all platforms. The order matters: the first variant that fits a machine is taken.
type Table struct {
	// Version is the format version. 0 means 1.
	Version  int `json:"Version,omitempty"`
	Variants []Variant

	notes []Problem
}

// Variant is one kind of appliance.
type Variant struct {
	Familyname  string // family in lower case, such as "qemu"
	DevCodeName string // key for the specifications and steps of the manifest
	DmiMbMfg    string // manufacturer, compared exactly: of the baseboard, in a second pass of the system
	DmiProdName string // product name, compared exactly, from the same place
	// DmiProdModelRegex must match the SKU number of the system (DMI type 1), or the field that the next two name.
	// It is not anchored.
	DmiProdModelRegex string
	DmiPMOverrideTyp  int    `json:",omitempty"` // DMI type to read instead
	DmiPMOverrideFld  string `json:",omitempty"` // field of that type, such as "Version:"; empty: no override
	// CPU lists processor versions, one per line, to tell apart models that are equal otherwise. Empty: any.
	CPU         string `json:",omitempty"`
	SerNumField string // dmidecode keyword of the serial number, such as "system-serial-number"
	NICInfo     NICInfo
	IPMI        bool `json:",omitempty"` // there is a management controller
	IPMIChannel int  `json:",omitempty"` // its LAN channel
	// NumDataDisks is how many main disks the platform has.
	NumDataDisks int
	// Disksize is the size of each main disk in bytes.
	Disksize       int64
	DiskIsSSD      bool          `json:",omitempty"` // mount with discard
	SwRaidlevel    int           // md level over the main disks; -1: none
	FakeraidType   string        `json:",omitempty"` // firmware RAID metadata that old systems used: DDF or iMSM
	BiosConfigTool string        `json:",omitempty"`
	IpmiConfigTool string        `json:",omitempty"`
	Virttype       VirtType      `json:",omitempty"`
	RecoveryMedia  RecoveryMedia // where the recovery volume is
	Lcd            LCD
	// LcdPort is the serial port of the LCD, such as "ttyS1". Empty: it is a USB device and found by itself.
	LcdPort    string `json:",omitempty"`
	Partoffset string `json:",omitempty"` // not used
	Lowmemory  bool   `json:",omitempty"`
	Prototype  bool   `json:",omitempty"` // relaxes checks
	// DiskSTol is by how many percent main disks of one unit may differ in size. 0: 1.
	DiskSTol int `json:",omitempty"`
	// DiskTTol is by how many percent a main disk may differ from Disksize. 0: 5.
	DiskTTol int `json:",omitempty"`

	// MainDisk says more about the main disks.
	MainDisk MainDisk `json:",omitzero"`
	// DataPartition is a partition on the main disk that restores preserve. nil: there is none.
	DataPartition *DataPartition `json:",omitempty"`
	// BootArgs are kernel arguments for this platform, added to those of the policy. Printable ASCII.
	BootArgs string `json:",omitempty"`
	// Console is the serial console as the kernel names it, such as "ttyS0,115200". Empty: none of its own.
	Console string `json:",omitempty"`
	// GraceSeconds is how long a person may choose at each boot. 0: what the policy says.
	GraceSeconds int `json:",omitempty"`
}

// NICInfo describes the network ports, sorted by MAC address and counted from 0.
type NICInfo struct {
	SharedDiagPorts    []int    // diagnostic ports that the system can see, highest index first
	WANIndex           int      // the WAN port, after diagnostic ports are taken out
	DefaultNamesNoDiag []string // names of the ports in order, without diagnostic ports
	// MACPrefix lists the prefixes of the MAC addresses of this platform, such as "56:78:90". None, or "*": any.
	MACPrefix []string `json:",omitempty"`
}

// RecoveryMedia says where the recovery volume is and how it is recognised.
type RecoveryMedia struct {
	LocateRDMethod   Locate   `json:",omitempty"`
	ValidateRDMethod Validate `json:",omitempty"`
	FsType           string   // kept for older readers; the volume is ext4
	FsOptsAdditional string   `json:",omitempty"`
	FsOptsOverride   bool     `json:",omitempty"`
	SSD              bool     `json:",omitempty"` // mount with discard

	// Bus lists the buses on which the recovery device may be. None: what ValidateRDMethod says.
	Bus []Bus `json:",omitempty"`
	// Size is the size of the recovery device, or of its partition, in bytes, for manifests that do not say it. 0: not known.
	Size int64 `json:",omitempty"`
	// SizeTolerancePct is by how many percent the device may differ from Size. 0: 5.
	SizeTolerancePct int `json:",omitempty"`
	// Layout is OwnDevice (or empty) or OnMain.
	Layout Layout `json:",omitempty"`
}

// DataPartition is a partition on the main disk with data of the product. A restore makes it where there is none, and leaves it
// alone otherwise. Its filesystem is ext4. On a platform with RAID each main disk has such a partition, a member of an array of the
// same level, and the filesystem is on that; the sizes are those of the partitions.
type DataPartition struct {
	// Label is that of the filesystem: 1 to 16 letters, digits, dashes, dots and underscores.
	Label string
	// Mount is where the system mounts it, an absolute path such as /data.
	Mount string
	// Size is its size in bytes; the system gets what is left. 0: see SystemSize.
	Size int64 `json:",omitempty"`
	// SystemSize is the size of the main system in bytes; the data get what is left. Either this or Size is given.
	SystemSize int64 `json:",omitempty"`
}

// MainDisk says more about the main disks.
type MainDisk struct {
	// Bus lists the buses on which main disks may be. None: any.
	Bus []Bus `json:",omitempty"`
}

// Bus is how a disk is connected; the values are those of hw/block.
type Bus string

// The buses of disks.
const (
	USB    Bus = "usb"
	SATA   Bus = "sata"
	NVMe   Bus = "nvme"
	Virtio Bus = "virtio"
	SCSI   Bus = "scsi"
	MMC    Bus = "mmc"
)

// LCD is the kind of display with buttons.
type LCD string

// The kinds of LCD. A missing key means NoLCD.
const (
	NoLCD  LCD = "none"
	LCD631 LCD = "631" // Crystalfontz 631, 20x2
	LCD635 LCD = "635" // Crystalfontz 635, 20x4
)

// Locate is how the recovery volume is found.
type Locate string

// The ways to find a recovery volume. A missing key means ByLabel. Plan9 volumes are of virtual machines of the original
// only.
const (
	ByLabel Locate = "byLabel"
	Plan9   Locate = "9p"
)

// Validate is how a device that may be the recovery device is checked.
type Validate string

// The checks of a recovery device. A missing key means ValidateNone.
const (
	ValidateNone Validate = "none"
	ValidateUSB  Validate = "usb"
	ValidateSATA Validate = "sata"
	Validate9p   Validate = "9p"
)

// Layout is how the recovery volume is laid out.
type Layout string

// The layouts of the recovery volume.
const (
	OwnDevice Layout = "device"    // a device of its own
	OnMain    Layout = "partition" // a partition of the main disk, which is then the unit's only one
)

// VirtType is the hypervisor of a virtual platform: 0 bare metal, 1 Hyper-V, 2 KVM, 3 QEMU, 4 VirtualBox, 5 VMware.
type VirtType int

//go:embed default.json
var defaultTable []byte

// Default returns the table that is used where a company gives none: the virtual machines of the lab and the tests.
func Default() *Table {
	t, err := Parse(defaultTable)
	if err != nil {
		return &Table{}
	}
	return t
}

var portName = regexp.MustCompile(`^tty[A-Z]{1,8}[0-9]{1,3}$`)

// Parse reads a table. Unknown keys are ignored. An enumeration with an unknown value is replaced by the value that old
// programs took, and noted (see Notes); what this version cannot do at all is an error, so that no unit is built in a way
// that its table does not say.
func Parse(b []byte) (*Table, error) {
	txt, err := source.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("parse appliance table: %w", err)
	}
	if err := source.Join(txt.Match(Table{})); err != nil {
		return nil, fmt.Errorf("parse appliance table: %w", err)
	}
	t, refused, err := decode(txt)
	if err == nil {
		err = source.Join(refused)
	}
	if err != nil {
		return nil, fmt.Errorf("parse appliance table: %w", err)
	}
	return t, nil
}

// decode reads a table whose values have the right kinds, and says what of it is refused.
func decode(txt *source.Text) (*Table, []Problem, error) {
	var t Table
	if err := json.Unmarshal(txt.Bytes(), &t); err != nil {
		return nil, nil, err
	}
	if t.Version < 0 || t.Version > Version {
		return nil, nil, fmt.Errorf("version %d is not known, the newest is %d", t.Version, Version)
	}
	var refused []Problem
	for i := range t.Variants {
		at := fmt.Sprintf("Variants[%d]", i)
		t.notes = append(t.notes, t.Variants[i].settle(at, txt)...)
		refused = append(refused, t.Variants[i].refused(at, txt)...)
	}
	return &t, refused, nil
}

// settle replaces enumerations that are missing or unknown, and says what was unknown.
func (v *Variant) settle(path string, txt *source.Text) []Problem {
	var ps []Problem
	note := func(key, text, hint string) {
		p := source.Under(path, key)
		ps = append(ps, Problem{Line: txt.Line(p), Path: p, Text: text, Hint: hint})
	}
	rm := &v.RecoveryMedia
	switch s := strings.ToLower(string(rm.LocateRDMethod)); s {
	case "", "bylabel":
		rm.LocateRDMethod = ByLabel
	case "9p":
		rm.LocateRDMethod = Plan9
	default:
		note("RecoveryMedia.LocateRDMethod", fmt.Sprintf("%q is not known, byLabel is taken", rm.LocateRDMethod), "use byLabel or 9p")
		rm.LocateRDMethod = ByLabel
	}
	switch s := Validate(strings.ToLower(string(rm.ValidateRDMethod))); s {
	case "":
		rm.ValidateRDMethod = ValidateNone
	case ValidateNone, ValidateUSB, ValidateSATA, Validate9p:
		rm.ValidateRDMethod = s
	default:
		note("RecoveryMedia.ValidateRDMethod", fmt.Sprintf("%q is not known, usb is taken", rm.ValidateRDMethod), "use usb, sata, 9p or none, or name the buses in Bus")
		rm.ValidateRDMethod = ValidateUSB
	}
	switch v.Lcd {
	case NoLCD, LCD631, LCD635:
	case "":
		v.Lcd = NoLCD
	default:
		note("Lcd", fmt.Sprintf("%q is not known, none is taken", v.Lcd), "use 631, 635 or none")
		v.Lcd = NoLCD
	}
	if v.LcdPort != "" && !portName.MatchString(v.LcdPort) {
		note("LcdPort", fmt.Sprintf("%q is no serial port, it is ignored", v.LcdPort), "the name of a device in /dev, such as ttyS1")
		v.LcdPort = ""
	}
	if v.Virttype < 0 || v.Virttype > 5 {
		note("Virttype", fmt.Sprintf("%d is not known, 0 is taken", v.Virttype), "use 0 to 5")
		v.Virttype = 0
	}
	return ps
}

// Notes returns what Parse had to replace. Whoever loads a table logs them.
func (t *Table) Notes() []Problem { return slices.Clone(t.notes) }

// Marshal returns the table as indented JSON.
func (t *Table) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write appliance table: %w", err)
	}
	return append(b, '\n'), nil
}

// ByName returns the first variant with the given DevCodeName.
func (t *Table) ByName(code string) (Variant, bool) {
	for _, v := range t.Variants {
		if v.DevCodeName == code {
			return v, true
		}
	}
	return Variant{}, false
}

// HasRAID reports whether the main system is on an array of md: not where there is one main disk, whatever SwRaidlevel says.
func (v Variant) HasRAID() bool { return v.SwRaidlevel >= 0 && v.NumDataDisks > 1 }

// OneDisk reports whether the recovery volume is on the main disk.
func (v Variant) OneDisk() bool { return v.RecoveryMedia.Layout == OnMain }

// Parts is what model/layout puts on each main disk. volume is the size of the recovery volume in bytes, which counts only where
// that is on the main disk.
func (v Variant) Parts(volume int64) layout.Parts {
	p := layout.Parts{Member: v.HasRAID()}
	if v.OneDisk() {
		p.Recovery = volume
	}
	if d := v.DataPartition; d != nil {
		p.Data, p.DataSize, p.System = true, d.Size, d.SystemSize
	}
	return p
}

// SetTolerance is by how many percent main disks of one unit may differ in size.
func (v Variant) SetTolerance() int { return or(v.DiskSTol, 1) }

// TargetTolerance is by how many percent a main disk may differ from Disksize.
func (v Variant) TargetTolerance() int { return or(v.DiskTTol, 5) }

// RecoveryBuses lists where the recovery volume may be; nil means anywhere.
func (v Variant) RecoveryBuses() []Bus {
	if v.OneDisk() {
		return v.MainDisk.Bus
	}
	if len(v.RecoveryMedia.Bus) > 0 {
		return v.RecoveryMedia.Bus
	}
	switch v.RecoveryMedia.ValidateRDMethod {
	case ValidateUSB:
		return []Bus{USB}
	case ValidateSATA:
		return []Bus{SATA}
	}
	return nil
}

// KernelArgs returns Console and BootArgs as one string of kernel arguments.
func (v Variant) KernelArgs() string {
	args := v.BootArgs
	if v.Console != "" {
		args = strings.TrimSpace("console=" + v.Console + " " + args)
	}
	return args
}

// MACPrefixes returns the prefixes in lower case; nil means any address.
func (v Variant) MACPrefixes() []string {
	var out []string
	for _, p := range v.NICInfo.MACPrefix {
		if p == "*" {
			return nil
		}
		if macPrefix.MatchString(p) {
			out = append(out, strings.ToLower(p))
		}
	}
	return out
}

func or(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}
