package provision

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/hardware"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/burnin"
	"gprovision/unit/machine"
	"gprovision/unit/state"
	"gprovision/unit/uplink"
)

// Plan is what a provisioning does, as one value: it is whole before the first write, and what is written is read from it alone. The
// manifest is read into it once. Its String is for people, and goes to the log before the first write.
type Plan struct {
	// Manifest is the address of the manifest, without a password.
	Manifest string
	// Signed is what the signature of the manifest says. It is the zero value for a manifest without one.
	Signed uplink.Signed
	// Server is the address of the factory server.
	Server string
	// Spec is what the hardware must be.
	Spec manifest.Specs
	// Files are put on the recovery volume, in this order, but for those of the unit's own store, which come later.
	Files []File
	// Steps are the manifest's extra steps, in this order at each of their places.
	Steps []Step
	// BMC is what is set at the management controller.
	BMC bmcPart
	// BurnIn is what the unit must stand before the first write.
	BurnIn manifest.BurnIn
	// Recovery is the recovery device.
	Recovery block.Disk
	// Main are the main disks in the order of the unit's record. A unit with one disk has it here and in Recovery.
	Main []block.Disk
	// Others are the disks that nothing is written to.
	Others []block.Disk
	// Unit is the unit's record, but for the number of its credentials, which the server gives later.
	Unit state.Unit
}

// bmcPart is the part of a plan that is about the management controller.
type bmcPart struct {
	manifest.BMC
	// firmware is the version of the controller's firmware, or "" as long as none was read.
	firmware string
}

// File is a file that is fetched.
type File struct {
	// Src is its address, in full, and Name the last part of that.
	Src, Name string
	// Place is where it goes below the root of the recovery volume. The files of a step have none.
	Place string
	// Size is in bytes. It is 0 if it is not known.
	Size int64
	// Hash is what the content must hash to.
	Hash manifest.Hash
	// Image is the name of the release that the file is. It is nil for all other files.
	Image *release.Name
	// Artifact reports whether it is the boot artifact.
	Artifact bool
	// Signature is the address of the signature that lies beside it. It is empty if nobody looks for one.
	Signature string
	// Demanded reports whether the signature must be there.
	Demanded bool

	signed []byte // the signature, once it was found
	kept   string // where the content waits in memory for its place, or ""
}

// Step is one of the manifest's extra steps.
type Step struct {
	Name     string
	When     manifest.When
	Files    []File
	Commands []manifest.Command
	// Verbose logs what the commands print.
	Verbose bool
	// Limit is how long all commands may take.
	Limit time.Duration
}

// readPlan judges a manifest as 'gprov manifest check' does, and reads it.
func readPlan(m uplink.Manifest, r manifest.Rules, p policy.Policy, known manifest.Variables) (Plan, error) {
	if err := manifest.Err(m.Written.Refusals(r)); err != nil {
		return Plan{}, err
	}
	out, err := newPlan(m.Full, r, p)
	if err != nil {
		return Plan{}, err
	}
	return out, tryCommands(out, known)
}

// newPlan reads the manifest of a unit, whose addresses are in full, as far as that shows without the unit's disks.
func newPlan(m *manifest.Manifest, r manifest.Rules, p policy.Policy) (Plan, error) {
	var out Plan
	var err error
	if out.Server, err = m.Server(); err != nil {
		return Plan{}, fault.Because(fault.ManifestIncomplete, err)
	}
	if out.Spec, err = m.SpecsFor(r.Platform); err != nil {
		return Plan{}, err
	}
	out.BMC.BMC, out.BurnIn = m.BMCFor(r.Platform), m.BurnInFor(r.Platform)
	for _, f := range m.Files {
		one, err := newFile(f, r)
		if err != nil {
			return Plan{}, err
		}
		if one.Place, err = f.Place(r.Prefix); err != nil {
			return Plan{}, err
		}
		switch {
		case f.IsImage(r.Prefix):
			name, err := release.ParseName(path.Base(one.Place), r.Prefix)
			if err != nil {
				return Plan{}, fault.Because(fault.ImageName, err)
			}
			one.Image, one.Signature, one.Demanded = &name, f.Src+signature.Suffix, !p.AllowUnsigned
			if out.Unit.Original == "" {
				out.Unit.Original = path.Base(one.Place)
			}
		case one.Place == r.BootFile:
			one.Artifact = true
			if len(p.Keys) > 0 {
				one.Signature = f.Src + signature.Suffix
			}
		}
		out.Files = append(out.Files, one)
	}
	for _, f := range m.StashFiles {
		one, err := newFile(f, r)
		if err != nil {
			return Plan{}, err
		}
		one.Place = path.Join(state.StashDir, one.Name)
		out.Files = append(out.Files, one)
	}
	for when := manifest.RunBeforeQA; when <= manifest.RunAfterPWSet; when++ {
		for _, s := range m.StepsFor(r.Platform, when) {
			step := Step{Name: s.Name, When: when, Commands: s.Commands, Verbose: s.Verbose, Limit: s.Limit()}
			for _, f := range s.Files {
				one, err := newFile(f, r)
				if err != nil {
					return Plan{}, fmt.Errorf("manifest step %q: %w", s.Name, err)
				}
				step.Files = append(step.Files, one)
			}
			out.Steps = append(out.Steps, step)
		}
	}
	return out, nil
}

func newFile(f manifest.File, r manifest.Rules) (File, error) {
	hash, err := manifest.HashFor(f, r.AllowSHA1)
	if err != nil {
		return File{}, err
	}
	name := f.Base()
	if name == "" {
		return File{}, fault.Newf(fault.ManifestSyntax, "the address %s names no file", f.Src)
	}
	return File{Src: f.Src, Name: name, Size: f.Size, Hash: hash}, nil
}

// all returns the files of the recovery volume and of the steps.
func (p *Plan) all() []File {
	out := slices.Clone(p.Files)
	for _, s := range p.Steps {
		out = append(out, s.Files...)
	}
	return out
}

// planDisks completes the plan by the disks, shows it, and locks the disks that are not in it.
func (j *provisioning) planDisks(context.Context) error {
	disks, err := j.Disks()
	if err != nil {
		return err
	}
	if err := j.plan.chooseDisks(j.Identity.Variant, disks); err != nil {
		return err
	}
	if err := j.plan.layOut(j.Machine, machine.NewIDs(), time.Now().UTC()); err != nil {
		return err
	}
	if err := j.plan.checkRoom(); err != nil {
		return err
	}
	for line := range strings.Lines(j.plan.String()) {
		j.Log.Info("plan", "line", strings.TrimSuffix(line, "\n"))
	}
	return j.protect()
}

// chooseRecovery picks the recovery device: on a platform with one disk that disk, whose recovery volume must have a size.
func (p *Plan) chooseRecovery(v platform.Variant, disks []block.Disk) (platform.Candidate, error) {
	if !v.OneDisk() {
		return platform.ChooseRecovery(v, hardware.Wanted(p.Spec), machine.Candidates(disks))
	}
	if p.volumeSize(v) == 0 {
		return platform.Candidate{}, fault.Newf(fault.ManifestIncomplete,
			"neither the manifest (Recovery.Size) nor the appliance table (RecoveryMedia.Size) says how large the recovery volume of %s is",
			v.DevCodeName)
	}
	main, err := platform.ChooseMain(v, machine.Candidates(disks), "")
	if err != nil {
		return platform.Candidate{}, err
	}
	return main[0], nil
}

// volumeSize is the size that the recovery volume must have on the only disk of a unit, bytes.
func (p *Plan) volumeSize(v platform.Variant) int64 {
	if p.Spec.Recovery.Size > 0 {
		return p.Spec.Recovery.Size
	}
	return v.RecoveryMedia.Size
}

// chooseMain picks the main disks.
func chooseMain(v platform.Variant, disks []block.Disk, recovery platform.Candidate) ([]platform.Candidate, error) {
	if v.OneDisk() {
		return []platform.Candidate{recovery}, nil
	}
	return platform.ChooseMain(v, machine.Candidates(disks), recovery.Path)
}

// chooseDisks picks the recovery device and the main disks, and stops when two fit equally well.
func (p *Plan) chooseDisks(v platform.Variant, disks []block.Disk) error {
	r, err := p.chooseRecovery(v, disks)
	if err != nil {
		return err
	}
	chosen, err := chooseMain(v, disks, r)
	if err != nil {
		return err
	}
	planned := map[string]bool{r.Path: true}
	for _, c := range chosen {
		planned[c.Path] = true
		for _, d := range disks {
			if d.Path == c.Path {
				p.Main = append(p.Main, d)
			}
		}
	}
	for _, d := range disks {
		if d.Path == r.Path {
			p.Recovery = d
		}
		if !planned[d.Path] {
			p.Others = append(p.Others, d)
		}
	}
	if len(p.Main) != 1 && !v.HasRAID() {
		return fault.Newf(fault.DiskMissing, "the platform asks for %d main disks and no array", len(p.Main))
	}
	return nil
}

// layOut makes the unit's record with the tables of all planned disks.
func (p *Plan) layOut(m *machine.Machine, ids layout.IDs, now time.Time) error {
	v := m.Identity.Variant
	u := state.Unit{
		Serial: m.Serial, Platform: v.DevCodeName, Firmware: m.Firmware, Server: p.Server, ManifestSerial: p.Signed.Serial,
		Named:       m.Identity.From == "name",
		ImagePrefix: m.Site.Names.ImagePrefix, Original: p.Unit.Original, Created: now,
	}
	for _, d := range p.Main {
		t, err := m.LayMain(d, p.volumeSize(v), ids)
		if err != nil {
			return err
		}
		u.Main = append(u.Main, machine.DiskRecord(d, t))
	}
	if v.HasRAID() {
		u.Array = &state.Array{Level: v.SwRaidlevel, UUID: ids.UUID(), FSUUID: ids.UUID(), FSLabel: m.Site.Names.Primary}
		if v.DataPartition != nil {
			u.DataArray = &state.Array{Level: v.SwRaidlevel, UUID: ids.UUID(), FSUUID: ids.UUID(), FSLabel: v.DataPartition.Label}
		}
	}
	if v.OneDisk() {
		u.Recovery = u.Main[0]
	} else {
		d := p.Recovery
		t, err := layout.ForRecovery(m.Firmware, layout.Device{Size: d.Size, SectorSize: d.SectorSize}, m.Labels(), ids)
		if err != nil {
			return err
		}
		u.Recovery = machine.DiskRecord(d, t)
	}
	p.Unit = u
	return nil
}

// checkRoom looks at the room for the files.
func (p *Plan) checkRoom() error {
	v := p.Unit.Recovery.Table.Find(layout.Recovery)
	room, total := v.Size-v.Size/20, int64(0)
	for _, f := range p.Files {
		if f.Size > room-total {
			return fault.Newf(fault.NoSpace, "the recovery volume has room for %d bytes, and %s with %d bytes does not fit behind the %d before it",
				room, f.Src, f.Size, total)
		}
		total += f.Size
	}
	return nil
}

// String tells the whole plan, a line for each thing that it has.
func (p Plan) String() string {
	var b strings.Builder
	say := func(what, format string, a ...any) {
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%-9s "+format, append([]any{what}, a...)...), " "))
	}
	signed := "not signed"
	if p.Signed != (uplink.Signed{}) {
		signed = fmt.Sprintf("signed for %s, number %s", p.Signed.Product, p.Signed.Serial)
	}
	say("manifest", "%s, %s", p.Manifest, signed)
	say("server", "%s", p.Server)
	say("unit", "%s, platform %s, %s, images %s*", p.Unit.Serial, p.Unit.Platform, p.Unit.Firmware, p.Unit.ImagePrefix)
	disk := func(what, name string, d state.Disk) {
		say("disk", "%s, %s: all data is lost", name, what)
		say("", "%d bytes, %s, model %q, serial %q, table %s %s", d.Size, d.Bus, d.Model, d.Serial, d.Table.Kind, d.Table.UUID)
		for _, t := range d.Table.Partitions {
			say("", "%d %-8s from %d, %d bytes, %s %s", t.Number, t.Role, t.Start, t.Size, t.UUID, strings.TrimSpace(t.FSLabel+" "+t.FSUUID))
		}
	}
	switch {
	case p.Unit.OneDisk():
		disk("main disk with the recovery volume", p.Recovery.Name, p.Unit.Recovery)
	default:
		disk("recovery device", p.Recovery.Name, p.Unit.Recovery)
		for i, d := range p.Unit.Main {
			disk("main disk", p.Main[i].Name, d)
		}
	}
	for _, a := range []struct {
		what string
		*state.Array
	}{{"system", p.Unit.Array}, {"data", p.Unit.DataArray}} {
		if a.Array != nil {
			say("array", "of the main disks for the %s: level %d, %s, %s %s", a.what, a.Level, a.UUID, a.FSLabel, a.FSUUID)
		}
	}
	for _, d := range p.Others {
		say("no touch", "%s: %d bytes, %s, model %q, serial %q", d.Name, d.Size, d.Bus, d.Model, d.Serial)
	}
	for _, f := range p.Files {
		say("file", "%s", redacted(f.Src))
		say("", "to %s, %s", f.Place, f.what())
		switch {
		case f.hasScript():
			say("", "the script in it runs")
		case f.Signature != "" && f.Demanded:
			say("", "signature %s, which must be there", redacted(f.Signature))
		case f.Signature != "":
			say("", "signature %s, which may be missing", redacted(f.Signature))
		}
	}
	for _, s := range p.Steps {
		say("step", "%s %q", s.When, s.Name)
		for _, f := range s.Files {
			say("", "with %s, %s", redacted(f.Src), f.what())
		}
		for _, c := range s.Commands {
			say("", "%s: %s", c.ExitStatus, c.Command)
		}
	}
	for _, text := range bmcPlan(p.BMC.BMC) {
		say("bmc", "%s", text)
	}
	for _, text := range burnin.Plan(p.BurnIn) {
		say("burn-in", "%s", text)
	}
	return b.String()
}

// redacted is an address without its password.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return u.Redacted()
}

// what says what a file must be.
func (f File) what() string {
	size := "any number of bytes"
	if f.Size > 0 {
		size = fmt.Sprintf("%d bytes", f.Size)
	}
	return size + ", " + f.Hash.String()
}
