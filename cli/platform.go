package cli

import (
	"encoding/json"
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
	"gprovision/model/platform"
	"gprovision/model/source"
)

// PlatformCmd are the verbs about appliance tables and machines.
type PlatformCmd struct {
	Check    PlatformCheckCmd    `cmd:"" help:"Explain everything that is wrong with an appliance table."`
	Identify PlatformIdentifyCmd `cmd:"" help:"Say which platform of a table this machine, or a captured one, is."`
	Capture  PlatformCaptureCmd  `cmd:"" help:"Save what this machine shows of itself as one text file."`
	DMI      PlatformDMICmd      `cmd:"" name:"dmi" help:"List the DMI keys of this machine, or of a captured one, with their values."`
}

// PlatformCheckCmd checks an appliance table.
type PlatformCheckCmd struct {
	File string `arg:"" help:"Appliance table (appliance.json)."`
	JSON bool   `name:"json" help:"Print the problems as JSON."`
}

// Help returns the examples of the verb.
func (*PlatformCheckCmd) Help() string {
	return `Examples:

  gprov platform check appliance.json
  gprov platform check --json appliance.json`
}

// Run prints the problems. It is an error if there are any.
func (p *PlatformCheckCmd) Run(c *Context) error {
	_, ps, err := loadPlatforms(p.File)
	if err != nil {
		return err
	}
	return reportProblems(c, p.File, ps, p.JSON)
}

// loadPlatforms reads an appliance table and what is wrong with it.
func loadPlatforms(name string) ([]byte, []source.Problem, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, fmt.Errorf("read appliance table: %w", err)
	}
	return b, platform.Check(b), nil
}

// PlatformIdentifyCmd identifies a machine.
type PlatformIdentifyCmd struct {
	Platforms string `placeholder:"FILE" help:"Appliance table. Default: the built-in one."`
	Capture   string `placeholder:"FILE" help:"Look at this capture, not at this machine."`
	JSON      bool   `name:"json" help:"Print the platform facts as JSON."`
}

// Help returns the examples of the verb.
func (*PlatformIdentifyCmd) Help() string {
	return `Examples:

  gprov platform identify --platforms appliance.json
  gprov platform identify --platforms appliance.json --capture fox.txt

DMI tables are readable by root only; without them only a few strings are known.`
}

// Run prints the platform, the strings by which it was recognised, and the disks that would be chosen.
func (p *PlatformIdentifyCmd) Run(c *Context) error {
	table := platform.Default()
	if p.Platforms != "" {
		b, err := os.ReadFile(p.Platforms)
		if err != nil {
			return fmt.Errorf("read appliance table: %w", err)
		}
		if table, err = platform.Parse(b); err != nil {
			return fmt.Errorf("%s: %w", p.Platforms, err)
		}
		printProblems(c.Stderr, p.Platforms, table.Notes())
	}
	sys, info, err := readDMI(p.Capture)
	if err != nil {
		return err
	}
	id, err := platform.Identify(table, info)
	if err != nil {
		return err
	}
	if p.JSON {
		b, err := platform.Facts(id)
		if err != nil {
			return err
		}
		return answer.JSON(c.Stdout, json.RawMessage(b))
	}
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
	return id.CheckSerial()
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
	Capture string `placeholder:"FILE" help:"Look at this capture, not at this machine."`
	JSON    bool   `name:"json" help:"Print JSON, with DmiMatches as a manifest has it."`
}

// Help returns the examples of the verb.
func (*PlatformDMICmd) Help() string {
	return `Examples:

  gprov platform dmi --capture fox.txt
  gprov platform dmi --capture fox.txt --json

Each line is a key of DmiMatches and the value that this machine has. DMI tables are readable by root only; without them
only a few keywords are known.`
}

// Run prints the keys and their values.
func (p *PlatformDMICmd) Run(c *Context) error {
	_, info, err := readDMI(p.Capture)
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

The file has the machine's DMI tables, EFI boot variables, disks, ports, PCI and USB devices. It names serial
numbers and addresses, and holds no content of disks.`
}

// Run writes the capture.
func (p *PlatformCaptureCmd) Run(c *Context) error {
	entries, missed, err := capture.Collect(os.DirFS("/sys"), os.DirFS("/proc"))
	if err != nil {
		return err
	}
	for _, m := range missed {
		fmt.Fprintf(c.Stderr, "not readable: %s\n", shown.Line(m))
	}
	comment := "captured by gprov " + c.Version + "\n"
	b, err := capture.Format(comment, entries)
	if err != nil {
		return err
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
