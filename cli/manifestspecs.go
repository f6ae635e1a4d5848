package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gprovision/cli/shown"
	"gprovision/hw/block"
	"gprovision/hw/durable"
	"gprovision/hw/nic"
	"gprovision/hw/smbios"
	"gprovision/model/fault"
	"gprovision/model/hardware"
	"gprovision/model/platform"
	"gprovision/unit/inventory"
)

// ManifestSpecsCmd writes a specification.
type ManifestSpecsCmd struct {
	Capture   string `arg:"" optional:"" help:"Capture of the golden machine (gprov platform capture). Default: this machine."`
	Platforms string `placeholder:"FILE" help:"Appliance table. Default: the built-in one."`
	Platform  string `placeholder:"NAME" help:"Take the machine for this platform of the table. Default: the one that the table recognises."`
	Recovery  string `placeholder:"NAME" help:"Disk that is the recovery device, such as sdb. Default: the one that fits the table."`
	Out       string `placeholder:"FILE" help:"File to write. Default: standard output."`
}

// Help returns the examples of the verb.
func (*ManifestSpecsCmd) Help() string {
	return `Examples:

  gprov manifest specs fox.txt --platforms appliance.json --out specs.json
  gprov manifest specs --platform FOX --recovery sdb --out specs.json
  gprov manifest make --specs specs.json ...

The specification asks for exactly what the machine has: take out what units may differ in, and read it once. The versions
of a management controller are not in a capture.`
}

// Run writes the specification.
func (m *ManifestSpecsCmd) Run(c *Context) error {
	table := platform.Default()
	if m.Platforms != "" {
		b, err := os.ReadFile(m.Platforms)
		if err != nil {
			return fmt.Errorf("read appliance table: %w", err)
		}
		if table, err = platform.Parse(b); err != nil {
			return fmt.Errorf("%s: %w", m.Platforms, err)
		}
	}
	proc, sys := os.DirFS("/proc"), os.DirFS("/sys")
	if m.Capture != "" {
		var err error
		if proc, sys, err = openCapture(m.Capture); err != nil {
			return err
		}
	}
	id, golden, err := m.look(c, table, proc, sys)
	if err != nil {
		return err
	}
	recovery, err := m.recovery(c, id.Variant, golden)
	if err != nil {
		return err
	}
	b, err := hardware.Dump(golden, id.Variant, recovery)
	if err != nil {
		return err
	}
	if m.Out != "" {
		return durable.Write(m.Out, b, 0o644)
	}
	_, err = c.Stdout.Write(b)
	return err
}

// look returns which platform a machine is, and what it is made of. What cannot be read is said and left out.
func (m *ManifestSpecsCmd) look(c *Context, table *platform.Table, proc, sys fs.FS) (platform.Identity, hardware.Machine, error) {
	info, err := smbios.Read(sys)
	if err != nil {
		return platform.Identity{}, hardware.Machine{}, fmt.Errorf("read DMI: %w", err)
	}
	id, err := platform.Identify(table, info)
	if m.Platform != "" {
		id, err = platform.Named(table, m.Platform, info)
	}
	if err != nil {
		return id, hardware.Machine{}, &HintError{err, "write its variant into the appliance table first, or name one with --platform"}
	}
	disks, err1 := block.List(sys)
	ports, err2 := nic.List(sys)
	golden, err3 := inventory.Collect(proc, sys, info, disks, ports, id.Serial)
	if err := errors.Join(err1, err2, err3); err != nil {
		fmt.Fprintf(c.Stderr, "not readable, so write it yourself: %s\n", shown.Line(err.Error()))
	}
	return id, golden, nil
}

// recovery returns the path of the recovery device, or "" if nobody knows which one that is.
func (m *ManifestSpecsCmd) recovery(c *Context, v platform.Variant, golden hardware.Machine) (string, error) {
	if v.OneDisk() {
		return "", nil
	}
	var all []platform.Candidate
	for _, d := range golden.Disks {
		all = append(all, d.Candidate)
		if d.Name == m.Recovery {
			return d.Path, nil
		}
	}
	if m.Recovery != "" {
		return "", &UsageError{fmt.Errorf("--recovery: the machine has no disk %q", m.Recovery)}
	}
	found, err := platform.ChooseRecovery(v, nil, all)
	if err != nil {
		fmt.Fprintf(c.Stderr, "which disk is the recovery device is not known: %s\n", shown.Line(fault.Detail(err)))
		fmt.Fprintln(c.Stderr, "name it with --recovery, or move its entry from MainDiskConfigs to Recovery")
		return "", nil
	}
	return found.Path, nil
}
