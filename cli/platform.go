package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing/fstest"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/hw/block"
	"gprovision/hw/durable"
	"gprovision/hw/nic"
	"gprovision/hw/smbios"
	"gprovision/model/capture"
	"gprovision/model/dmi"
	"gprovision/model/fault"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/model/source"
	"gprovision/unit/inventory"
)

// PlatformCmd are the verbs about appliance tables and machines.
type PlatformCmd struct {
	Check    PlatformCheckCmd    `cmd:"" help:"Explain what is wrong with an appliance table, or compare a machine with a manifest."`
	Identify PlatformIdentifyCmd `cmd:"" help:"Say which platform of a table this machine, or a captured one, is, and why."`
	Capture  PlatformCaptureCmd  `cmd:"" help:"Save what this machine shows of itself as one text file."`
	DMI      PlatformDMICmd      `cmd:"" name:"dmi" help:"List the DMI keys of this machine, or of a captured one, with their values."`
}

// PlatformCheckCmd checks an appliance table, or a machine against a manifest.
type PlatformCheckCmd struct {
	File     string `arg:"" help:"Appliance table (appliance.json)."`
	Capture  string `arg:"" optional:"" help:"Capture of the machine for --manifest. Default: this machine."`
	Manifest string `placeholder:"FILE" help:"Compare a machine with this manifest's specification for its platform, as a unit does."`
	JSON     bool   `name:"json" help:"Print the problems, or the lines of the comparison, as JSON."`
}

// Help returns the examples of the verb.
func (*PlatformCheckCmd) Help() string {
	return `Examples:

  gprov platform check appliance.json
  gprov platform check --json appliance.json
  gprov platform check appliance.json fox.txt --manifest manufData.json

With a manifest each line of the hardware check is printed: ok, differs, or not checked. The exit status is 1 if one differs.`
}

// Run prints the problems, or the lines. It is an error if there are problems, or if a line does not hold.
func (p *PlatformCheckCmd) Run(c *Context) error {
	b, ps, err := loadPlatforms(p.File)
	if err != nil {
		return err
	}
	if p.Manifest == "" {
		if p.Capture != "" {
			return &UsageError{errors.New("a capture is compared with a manifest, and --manifest names none")}
		}
		return reportProblems(c, p.File, ps, p.JSON)
	}
	table, err := platform.Parse(b)
	if err != nil {
		return fmt.Errorf("%s: %w", p.File, err)
	}
	printProblems(c.Stderr, p.File, ps)
	if b, err = os.ReadFile(p.Manifest); err != nil {
		return fmt.Errorf("read manifest: %w", err)
	}
	m, err := manifest.Parse(b)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Manifest, err)
	}
	have, id, err := readMachine(c, p.Capture, table)
	if err != nil {
		return err
	}
	spec, err := m.SpecsFor(id.Variant.DevCodeName)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Manifest, err)
	}
	return reportLines(c, hardware.Compare(spec, have, id), p.JSON)
}

// reportLines prints the lines of a hardware check. It is an error if one does not hold.
func reportLines(c *Context, lines []hardware.Line, asJSON bool) error {
	if asJSON {
		if err := answer.JSON(c.Stdout, map[string]any{"lines": lines, "summary": hardware.Tally(lines)}); err != nil {
			return err
		}
		return hardware.Judge(lines)
	}
	for _, l := range lines {
		verdict := "ok"
		switch {
		case l.Wrong():
			verdict = "differs"
		case !l.Checked:
			verdict = "not checked"
		}
		fmt.Fprintf(c.Stdout, "%-11s %s: %s, expected %s (%s)\n", verdict, shown.Line(l.Name), shown.Line(l.Found), shown.Line(l.Expected),
			shown.Line(l.Rule))
	}
	fmt.Fprintln(c.Stdout, hardware.Tally(lines))
	return hardware.Judge(lines)
}

// readMachine reads this machine, or a captured one, and which platform of a table it is. What cannot be read is said, and is not there.
func readMachine(c *Context, captured string, table *platform.Table) (hardware.Machine, platform.Identity, error) {
	sys, info, err := readDMI(captured)
	if err != nil {
		return hardware.Machine{}, platform.Identity{}, err
	}
	proc := os.DirFS("/proc")
	if captured != "" {
		if proc, _, err = openCapture(captured); err != nil {
			return hardware.Machine{}, platform.Identity{}, err
		}
	}
	id, err := platform.Identify(table, info)
	if err != nil {
		return hardware.Machine{}, id, err
	}
	disks, err1 := block.List(sys)
	m, err2 := inventory.Read(proc, sys, disks)
	if err := errors.Join(err1, err2); err != nil {
		fmt.Fprintf(c.Stderr, "cannot be read: %s\n", shown.Line(err.Error()))
	}
	m.Serial = id.Serial
	return m, id, nil
}

// loadPlatforms reads an appliance table and what is wrong with it.
func loadPlatforms(name string) ([]byte, []source.Problem, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, fmt.Errorf("read appliance table: %w", err)
	}
	return b, platform.Check(b), nil
}

// MachineArg names the machine that a verb looks at.
type MachineArg struct {
	Machine string `arg:"" optional:"" name:"capture" help:"Capture of a machine. Default: this machine."`
	// Capture is how version 0.1 named it.
	Capture string `hidden:"" placeholder:"FILE" help:"The capture, as version 0.1 named it."`
}

func (m MachineArg) name() string {
	if m.Machine == "" {
		return m.Capture
	}
	return m.Machine
}

// PlatformIdentifyCmd identifies a machine.
type PlatformIdentifyCmd struct {
	MachineArg `embed:""`
	Table      string `aliases:"platforms" placeholder:"FILE" help:"Appliance table. Default: the built-in one."`
	JSON       bool   `name:"json" help:"Print the platform facts as JSON, with all variants and why each was chosen or not."`
}

// Help returns the examples of the verb.
func (*PlatformIdentifyCmd) Help() string {
	return `Examples:

  gprov platform identify --table appliance.json
  gprov platform identify fox.txt --table appliance.json
  gprov platform identify fox.txt --table appliance.json --json

It says by which rule the platform was chosen, and why each other one of the table was not. DMI tables are readable by root
only; without them only a few strings are known.`
}

// Run prints the platform, why it is that one and no other, and the disks that would be chosen.
func (p *PlatformIdentifyCmd) Run(c *Context) error {
	table := platform.Default()
	if p.Table != "" {
		b, err := os.ReadFile(p.Table)
		if err != nil {
			return fmt.Errorf("read appliance table: %w", err)
		}
		if table, err = platform.Parse(b); err != nil {
			return fmt.Errorf("%s: %w", p.Table, err)
		}
		printProblems(c.Stderr, p.Table, table.Notes())
	}
	sys, info, err := readDMI(p.name())
	if err != nil {
		return err
	}
	id, unknown := platform.Identify(table, info)
	reasons := platform.Explain(table, info)
	if p.JSON {
		said, err := identity(id, reasons)
		if err != nil {
			return err
		}
		return errors.Join(answer.JSON(c.Stdout, said), unknown)
	}
	if unknown == nil {
		if err := printIdentity(c, sys, id); err != nil {
			return err
		}
	}
	for _, r := range reasons {
		is := map[bool]string{true: "chosen", false: "not"}[r.Chosen]
		fmt.Fprintf(c.Stdout, "%-13s %s: %s\n", is, shown.Line(r.DevCodeName), shown.Line(r.Why))
	}
	if unknown != nil {
		return unknown
	}
	return id.CheckSerial()
}

// identity is the answer of identify: the platform facts of a machine, if it is known, and why it is that platform and no other.
func identity(id platform.Identity, reasons []platform.Reason) (map[string]any, error) {
	said := map[string]any{"variants": reasons}
	if id.From == "" {
		return said, nil
	}
	b, err := platform.Facts(id)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &said); err != nil {
		return nil, fmt.Errorf("write the platform facts: %w", err)
	}
	said["recognisedBy"] = id.From
	return said, nil
}

// printIdentity prints the platform of a machine, its ports, and the disks that would be chosen.
func printIdentity(c *Context, sys fs.FS, id platform.Identity) error {
	fmt.Fprintf(c.Stdout, "platform      %s (family %s)\n", shown.Line(id.Variant.DevCodeName), shown.Line(id.Variant.Familyname))
	fmt.Fprintf(c.Stdout, "recognised by %s: %q %q, SKU %q\n", id.From, id.Mfg, id.Prod, id.SKU)
	fmt.Fprintf(c.Stdout, "serial        %q (%s)\n", id.Serial, shown.Line(id.Variant.SerNumField))
	ports, err := nic.List(sys)
	if err != nil {
		return err
	}
	for _, n := range nic.Real(ports) {
		fmt.Fprintf(c.Stdout, "port          %s\n", shown.Line(fmt.Sprintf("%s %s %s", n.Name, n.MAC, n.Driver)))
	}
	disks, err := block.List(sys)
	if err != nil {
		return err
	}
	var candidates []platform.Candidate
	for _, d := range disks {
		candidates = append(candidates, platform.Candidate{Name: d.Name, Path: d.Path, Bus: string(d.Bus), Model: d.Model, Vendor: d.Vendor, Serial: d.Serial, Size: d.Size})
	}
	var recovery platform.Candidate
	if !id.Variant.OneDisk() {
		recovery, err = platform.ChooseRecovery(id.Variant, nil, candidates)
	}
	switch {
	case id.Variant.OneDisk():
		fmt.Fprintf(c.Stdout, "recovery      on the main disk\n")
	case err == nil:
		fmt.Fprintf(c.Stdout, "recovery      %s\n", shown.Line(recovery.String()))
	case fault.Of(err) == fault.ManifestIncomplete:
		fmt.Fprintf(c.Stdout, "recovery      as the manifest says\n")
	default:
		fmt.Fprintf(c.Stdout, "recovery      %s\n", shown.Line(err.Error()))
	}
	main, err := platform.ChooseMain(id.Variant, candidates, recovery.Path)
	if err != nil {
		fmt.Fprintf(c.Stdout, "main          %s\n", shown.Line(err.Error()))
	}
	for _, d := range main {
		fmt.Fprintf(c.Stdout, "main          %s\n", shown.Line(d.String()))
	}
	return nil
}

// readDMI returns the /sys of this machine, or of a captured one if a capture is named, and what its DMI tables say.
func readDMI(captured string) (fs.FS, smbios.Info, error) {
	sys := os.DirFS("/sys")
	if captured != "" {
		var err error
		if _, sys, err = openCapture(captured); err != nil {
			return nil, smbios.Info{}, err
		}
	}
	info, err := smbios.Read(sys)
	if err != nil {
		return nil, smbios.Info{}, fmt.Errorf("read DMI: %w", err)
	}
	return sys, info, nil
}

// PlatformDMICmd lists what DMI says.
type PlatformDMICmd struct {
	MachineArg `embed:""`
	JSON       bool `name:"json" help:"Print JSON, with DmiMatches as a manifest has it."`
}

// Help returns the examples of the verb.
func (*PlatformDMICmd) Help() string {
	return `Examples:

  gprov platform dmi fox.txt
  gprov platform dmi fox.txt --json

Each line is a key of DmiMatches and the value that this machine has. DMI tables are readable by root only; without them
only a few keywords are known.`
}

// Run prints the keys and their values.
func (p *PlatformDMICmd) Run(c *Context) error {
	_, info, err := readDMI(p.name())
	if err != nil {
		return err
	}
	all := map[string]string{}
	add := func(key, value string) {
		if _, ok := all[key]; ok || value == "" {
			return // the first counts
		}
		all[key] = value
		if !p.JSON {
			fmt.Fprintf(c.Stdout, "%-28s %q\n", key, value)
		}
	}
	for _, k := range dmi.Keywords() {
		add(k, info.Keyword(k))
	}
	seen := map[int]int{}
	for _, s := range info.Tables {
		for _, f := range s.Fields() {
			add(fmt.Sprintf("%d[%d] %s", s.Type, seen[s.Type], f.Name), f.Text())
		}
		seen[s.Type]++
	}
	if p.JSON {
		return answer.JSON(c.Stdout, struct{ DmiMatches map[string]string }{all})
	}
	return nil
}

// openCapture returns the /proc and the /sys of a captured machine.
func openCapture(name string) (proc, sys fs.FS, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, fmt.Errorf("read capture: %w", err)
	}
	_, entries, err := capture.Parse(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	all := fstest.MapFS{"proc": {Mode: fs.ModeDir}, "sys": {Mode: fs.ModeDir}}
	for _, e := range entries {
		all[e.Name] = &fstest.MapFile{Data: e.Data, Mode: 0o444}
		if e.Link != "" {
			all[e.Name] = &fstest.MapFile{Data: []byte(e.Link), Mode: fs.ModeSymlink | 0o777}
		}
	}
	if proc, err = fs.Sub(all, "proc"); err != nil {
		return nil, nil, err
	}
	sys, err = fs.Sub(all, "sys")
	return proc, sys, err
}

// PlatformCaptureCmd captures this machine.
type PlatformCaptureCmd struct {
	Out string `placeholder:"FILE" help:"File to write. Default: standard output."`
}

// Help returns the examples of the verb.
func (*PlatformCaptureCmd) Help() string {
	return `Examples:

  gprov platform capture --out fox.txt

The file has what 'gprov platform identify' and the hardware check of a unit read: the machine's DMI tables, EFI boot
variables, processors, memory, disks, ports, PCI and USB devices. It names serial numbers and addresses. It holds no content
of disks, no keys and no passwords. Only root can read all of it. On a unit: gprov-unit capture.`
}

// Run writes the capture.
func (p *PlatformCaptureCmd) Run(c *Context) error {
	b, missed, err := capture.Take(os.DirFS("/sys"), os.DirFS("/proc"), "gprov "+c.Version)
	if err != nil {
		return err
	}
	for _, m := range missed {
		fmt.Fprintf(c.Stderr, "not readable: %s\n", shown.Line(m))
	}
	if p.Out != "" {
		return durable.Write(p.Out, b, 0o644)
	}
	w := c.Stdout
	if !c.Terminal { // a file or a program gets the bytes as they are
		w = shown.Raw(w)
	}
	_, err = w.Write(b)
	return err
}
