package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/forge/boot"
	"gprovision/model/bootimage"
	"gprovision/model/source"
)

// BootCmd are the verbs about boot artifacts.
type BootCmd struct {
	Build   BootUKICmd     `cmd:"" help:"Build a boot artifact (norm_boot, provision.pxe) from a root filesystem."`
	Kernel  BootKernelCmd  `cmd:"" help:"Compile a kernel with the initramfs inside, from source: a boot artifact for which no root filesystem's kernel is used."`
	Sign    BootSignCmd    `cmd:"" help:"Sign boot artifacts."`
	Inspect BootInspectCmd `cmd:"" help:"Show what a boot artifact is made of."`
}

// BootBuildCmd are the flags that both forms of a boot artifact have in common.
type BootBuildCmd struct {
	RootFS    string   `name:"rootfs" placeholder:"PATH" help:"Root filesystem: a directory or a tar file. Tools and boot loader come from it; for boot build also kernel, modules and EFI stub."`
	Out       string   `required:"" placeholder:"FILE" help:"File to write."`
	Policy    string   `required:"" placeholder:"FILE" help:"Policy: what the artifact may do (docs/formats/policy.md)."`
	Platforms string   `placeholder:"FILE" help:"Appliance table (appliance.json). Default: the built-in one."`
	Names     string   `placeholder:"FILE" help:"Names of the product: how its images are called, labels, host names (docs/formats/names.md). Default: those of this gprov."`
	Init      string   `placeholder:"FILE" help:"The init program. Default: init beside this program."`
	Add       []string `sep:"none" placeholder:"PATH[:DEST]" help:"Add a file or directory, with the libraries that its programs need, 64-bit or 32-bit. May be repeated."`
	Tools     string   `placeholder:"PATH" help:"Directory or tar file with mke2fs and e2fsck and their libraries, used in place of those in the root filesystem."`
	Provision bool     `help:"Allow provisioning, whatever the policy file says."`
	NoBIOS    bool     `name:"no-bios" help:"Leave out the boot loader for BIOS machines."`
	Build     *uint64  `name:"build-number" env:"BUILD_NUMBER" placeholder:"N" help:"Build number of the artifact. Default: the environment variable BUILD_NUMBER."`
	SBKey     string   `name:"sb-key" placeholder:"FILE" help:"Sign for UEFI Secure Boot with this RSA key (PEM)."`
	SBCert    string   `name:"sb-cert" placeholder:"FILE" help:"The certificate of that key (PEM); certificates behind it go along."`
	JSON      bool     `name:"json" help:"Print the report as JSON."`
}

// BootUKICmd builds a unified kernel image.
type BootUKICmd struct {
	Kernel string   `placeholder:"RELEASE" help:"Kernel to use. Default: the newest plain one in the root filesystem."`
	Module []string `sep:"none" placeholder:"PATTERN" help:"Take modules that artifacts do not have by themselves: a directory with a final slash, or a pattern for files, below the kernel/ of the modules. May be repeated."`

	BootBuildCmd
}

// Help returns the examples of the verb.
func (*BootUKICmd) Help() string {
	return `Examples:

  BUILD_NUMBER=7 gprov boot build --rootfs rootfs.tar --policy policy.json --out norm_boot
  BUILD_NUMBER=7 gprov boot build --rootfs rootfs.tar --policy policy.json --provision --out provision.pxe
  BUILD_NUMBER=7 gprov boot build --rootfs rootfs.tar --policy policy.json --names names.json --out norm_boot
  BUILD_NUMBER=7 gprov boot build --rootfs rootfs.tar --policy locked.json --sb-key db.key --sb-cert db.pem --out norm_boot
  BUILD_NUMBER=7 gprov boot build --rootfs rootfs.tar --policy policy.json --module drivers/net/ethernet/chelsio/ --out norm_boot

SOURCE_DATE_EPOCH sets the time of the build: the same input and time give the same bytes.`
}

// Run builds the artifact and prints a report.
func (b *BootUKICmd) Run(c *Context) error {
	o, err := b.options(c)
	if err != nil {
		return err
	}
	o.Modules = b.Module
	if o.Kernel = b.Kernel; o.RootFS == "" {
		return &UsageError{errors.New("--rootfs is needed: the kernel comes from it")}
	}
	r, err := boot.Build(c, bootLog(c), o)
	if err != nil {
		return bootHint(err)
	}
	return b.report(c, r)
}

// BootKernelCmd compiles a kernel with an initramfs inside.
type BootKernelCmd struct {
	Source       string `placeholder:"PATH" help:"Linux source tree or tar file. Default: in /usr/src, by the version in the name of the configuration fragment."`
	Config       string `placeholder:"FILE" help:"Configuration fragment, named linux-VERSION.config. Default: the curated one."`
	LocalVersion string `name:"localversion" placeholder:"TEXT" help:"Added to the kernel's release: --localversion=-norm_boot."`
	Jobs         int    `short:"j" placeholder:"N" help:"Compilers to run at a time. Default: one for each core."`
	Cache        string `placeholder:"DIR" help:"Where sources are unpacked and kernels compiled. Default: gprovision/kernel in the user's cache directory."`

	BootBuildCmd
}

// Help returns the examples of the verb.
func (*BootKernelCmd) Help() string {
	return `Examples:

  apt-get install linux-source-6.1
  BUILD_NUMBER=7 gprov boot kernel --rootfs rootfs.tar --policy policy.json --out norm_boot
  BUILD_NUMBER=7 gprov boot kernel --source linux-6.1.tar.xz --tools e2fsprogs/ --no-bios --policy policy.json --out norm_boot

What does not depend on the initramfs is compiled once for a source and a configuration, and kept in the cache directory.`
}

// Run compiles the kernel and prints a report.
func (b *BootKernelCmd) Run(c *Context) error {
	o, err := b.options(c)
	if err != nil {
		return err
	}
	p := &kernelProgress{c: c}
	r, err := boot.BuildKernel(c, bootLog(c), boot.KernelOptions{Options: o, Source: b.Source, Config: b.Config, LocalVersion: b.LocalVersion,
		Jobs: b.Jobs, Cache: b.Cache, Progress: p.show})
	p.end()
	if err != nil {
		return bootHint(err)
	}
	return b.report(c, r)
}

// kernelProgress shows how far a kernel is, on standard error: one line that changes on a terminal, else a line for each
// phase and now and then.
type kernelProgress struct {
	c     *Context
	phase string
	last  time.Time
	open  bool
}

func (k *kernelProgress) show(p boot.KernelProgress) {
	every := 20 * time.Second
	if k.c.Terminal {
		every = 100 * time.Millisecond
	}
	now := time.Now()
	if p.Phase == k.phase && now.Sub(k.last) < every {
		return
	}
	text := p.Phase
	if p.Steps > 0 {
		text += fmt.Sprintf(" %d", p.Steps)
	}
	if p.Detail != "" {
		text += "  " + p.Detail
	}
	k.phase, k.last = p.Phase, now
	if !k.c.Terminal {
		fmt.Fprintln(k.c.Stderr, text)
		return
	}
	if len(text) > 78 {
		text = text[:78]
	}
	k.open = true
	fmt.Fprintf(shown.Raw(k.c.Stderr), "\r%-78s", shown.Line(text))
}

// end leaves the line that changes.
func (k *kernelProgress) end() {
	if k.open {
		fmt.Fprintln(k.c.Stderr)
	}
}

func bootLog(c *Context) *slog.Logger {
	return slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// leftOutText says in one line which drivers of the root filesystem an artifact does not have.
func leftOutText(all []boot.LeftOut) string {
	count := map[string]int{}
	var named []string
	for _, l := range all {
		if l.Why == boot.WhyList {
			count[l.Drives]++
		} else {
			named = append(named, l.Name)
		}
	}
	var out []string
	for _, drives := range slices.Sorted(maps.Keys(count)) {
		out = append(out, fmt.Sprintf("%d drivers of %s that units do not have", count[drives], drives))
	}
	if len(named) > 0 {
		out = append(out, strings.Join(named, " "))
	}
	if len(out) == 0 {
		return ""
	}
	return strings.Join(out, ", ") + " (--json says why, --module takes them)"
}

// report prints what was built.
func (b *BootBuildCmd) report(c *Context, r boot.Report) error {
	if b.JSON {
		return answer.JSON(c.Stdout, r)
	}
	initrd := fmt.Sprintf("%s as %s, ", megabytes(r.InitrdSize), r.Compression)
	if r.InitrdSize == 0 {
		initrd = "inside the kernel, "
	}
	fmt.Fprintf(c.Stdout, "%s\n  build    %d\n  kernel   %s, %s\n  initrd   %s%s unpacked, %d modules, %d files of others\n  size     %s\n  sha256   %s\n",
		b.Out, r.Build, r.Kernel, megabytes(r.KernelSize), initrd, megabytes(r.InitrdUnpacked), r.Modules, len(r.Tools), megabytes(r.Size), r.SHA256)
	if left := leftOutText(r.LeftOut); left != "" {
		fmt.Fprintf(c.Stdout, "  left out %s\n", shown.Line(left))
	}
	if r.Signer != "" {
		fmt.Fprintf(c.Stdout, "  signed   %s\n", r.Signer)
	}
	return nil
}

func (b *BootBuildCmd) options(c *Context) (boot.Options, error) {
	o := boot.Options{RootFS: b.RootFS, Out: b.Out, Init: b.Init, Provision: b.Provision, NoBIOS: b.NoBIOS, Tools: b.Tools}
	if b.Build == nil {
		return o, &UsageError{&HintError{errors.New("no build number"), "set BUILD_NUMBER in the environment, or --build-number"}}
	}
	o.BuildNumber = *b.Build
	var err error
	if o.Policy, err = readPolicy(c, b.Policy); err != nil {
		return o, err
	}
	if o.Names, err = namesFor(c, b.Names); err != nil {
		return o, err
	}
	if b.Platforms != "" {
		var ps []source.Problem
		if o.Platforms, ps, err = loadPlatforms(b.Platforms); err != nil {
			return o, err
		}
		printProblems(c.Stderr, b.Platforms, ps)
		if source.Join(ps) != nil {
			return o, &HintError{fmt.Errorf("the appliance table %s is refused", b.Platforms), "mend what is said above, or look at docs/formats/appliance.md"}
		}
	}
	if o.Init == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find the init program: %w", err)
		}
		o.Init = filepath.Join(filepath.Dir(self), "init")
		if _, err := os.Stat(o.Init); errors.Is(err, fs.ErrNotExist) {
			return o, &HintError{fmt.Errorf("no init program at %s", o.Init), "run 'make build', or name it with --init"}
		}
		o.Revision = c.Version // both are made by one build
	}
	for _, s := range b.Add {
		a, err := boot.ParseAddition(s)
		if err != nil {
			return o, &UsageError{fmt.Errorf("--add: %w", err)}
		}
		o.Add = append(o.Add, a)
	}
	if (b.SBKey == "") != (b.SBCert == "") {
		return o, &UsageError{errors.New("--sb-key and --sb-cert are needed together")}
	}
	if b.SBKey != "" {
		if o.Signer, o.Certificates, err = boot.ReadSigner(b.SBKey, b.SBCert); err != nil {
			return o, err
		}
	}
	o.Time, err = bootTime()
	return o, err
}

// bootTime is the time of SOURCE_DATE_EPOCH (reproducible-builds.org), else the present.
func bootTime() (time.Time, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return time.Now(), nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, &UsageError{fmt.Errorf("SOURCE_DATE_EPOCH is %q, want seconds", s)}
	}
	return time.Unix(n, 0), nil
}

// BootInspectCmd shows a boot artifact.
type BootInspectCmd struct {
	File string `arg:"" placeholder:"FILE" help:"The boot artifact: a unified kernel image or a bzImage."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Help returns the examples of the verb.
func (*BootInspectCmd) Help() string {
	return "Examples:\n\n  gprov boot inspect norm_boot\n  gprov boot inspect --json provision.pxe | jq .policy"
}

// Run prints what the artifact is made of.
func (b *BootInspectCmd) Run(c *Context) error {
	in, err := inspect(b.File)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		return &HintError{fmt.Errorf("inspect %s: %w", b.File, err), "want a boot artifact, as 'gprov boot build' makes it: norm_boot or provision.pxe"}
	}
	if b.JSON {
		return answer.JSON(c.Stdout, in)
	}
	return printInspection(c, b.File, in)
}

func printInspection(c *Context, file string, in boot.Inspection) error {
	var out strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&out, "  %-8s %s\n", name, shown.Line(fmt.Sprintf(format, args...)))
	}
	build := "none"
	if in.Build != nil {
		build = strconv.FormatUint(*in.Build, 10)
	}
	fmt.Fprintln(&out, file)
	row("form", "%s", in.Form)
	row("build", "%s", build)
	row("release", "%s", in.Release)
	row("kernel", "%s, %s", in.Banner, megabytes(in.KernelSize))
	if in.Cmdline != "" {
		row("cmdline", "%s", in.Cmdline)
	}
	for _, s := range in.Sections {
		row("section", "%-9s %11d bytes", s.Name, s.Size)
	}
	for _, s := range in.Signatures {
		row("signed", "by %s, issued by %s, sha256 %s", s.Subject, s.Issuer, s.SHA256)
	}
	if len(in.Signatures) == 0 {
		row("signed", "no")
	}
	if in.Initrd == nil {
		row("initrd", "none found inside the kernel")
	} else {
		packed := fmt.Sprintf("%s as %s", megabytes(in.Initrd.Size), in.Initrd.Compression)
		if in.Form == bootimage.FormBzImage {
			packed = "inside the kernel"
		}
		row("initrd", "%s, %s unpacked, %d files, %d modules", packed, megabytes(in.Initrd.Unpacked), in.Initrd.Files, in.Initrd.Modules)
		for _, p := range in.Initrd.Parts {
			row("part", "%-13s %11d bytes in %d files", p.Name, p.Size, p.Files)
		}
	}
	if n := in.Names; n != nil {
		row("names", "%s", namesText(*n))
	} else if in.Policy != nil {
		row("names", "none of its own: those of its init")
	}
	if in.Policy != nil {
		row("policy", "as 'gprov policy show' has it, * is its own:")
		if err := printPolicy(&out, "    ", *in.Policy); err != nil {
			return err
		}
	}
	if in.Info != nil {
		row("built", "%s, with init of gprovision %s", in.Info.Time.Format(time.RFC3339), cmp.Or(in.Info.Gprovision, "unknown"))
		for _, t := range in.Info.Tools {
			row("tool", "%s %s %s sha256 %s", t.Path, cmp.Or(t.Package, "-"), cmp.Or(t.Version, "-"), t.SHA256)
		}
	}
	_, err := io.WriteString(c.Stdout, out.String())
	return err
}

// bootHint adds the hint of what a root filesystem, the building host or a kernel configuration lacks.
func bootHint(err error) error {
	for e := err; e != nil; e = errors.Unwrap(e) {
		if h, ok := e.(interface{ Hint() string }); ok {
			return &HintError{err, h.Hint()}
		}
	}
	return err
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
