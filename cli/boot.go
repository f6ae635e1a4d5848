package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"gprovision/forge/boot"
	"gprovision/forge/tool"
	"gprovision/model/policy"
)

// BootCmd are the verbs about boot artifacts.
type BootCmd struct {
	Build   BootBuildCmd   `cmd:"" help:"Build a boot artifact (norm_boot, provision.pxe) from a root filesystem."`
	Inspect BootInspectCmd `cmd:"" help:"Show what a boot artifact is made of."`
}

// BootBuildCmd builds a boot artifact.
type BootBuildCmd struct {
	RootFS    string   `name:"rootfs" required:"" placeholder:"PATH" help:"Root filesystem: a directory or a tar file. Kernel, modules, EFI stub and tools come from it."`
	Out       string   `required:"" placeholder:"FILE" help:"File to write."`
	Policy    string   `required:"" placeholder:"FILE" help:"Policy: what the artifact may do (docs/formats/policy.md)."`
	Platforms string   `placeholder:"FILE" help:"Appliance table (appliance.json). Default: the built-in one."`
	Init      string   `placeholder:"FILE" help:"The init program. Default: init beside this program."`
	Add       []string `sep:"none" placeholder:"PATH[:DEST]" help:"Add a file or directory, with the libraries that its programs need. May be repeated."`
	Provision bool     `help:"Allow provisioning, whatever the policy file says."`
	Kernel    string   `placeholder:"RELEASE" help:"Kernel to use. Default: the newest in the root filesystem."`
	NoBIOS    bool     `name:"no-bios" help:"Leave out the boot loader for BIOS machines."`
	Build     *uint64  `name:"build-number" env:"BUILD_NUMBER" placeholder:"N" help:"Build number of the artifact. Default: the environment variable BUILD_NUMBER."`
	JSON      bool     `name:"json" help:"Print the report as JSON."`
}

// Help returns the examples of the verb.
func (*BootBuildCmd) Help() string {
	return `Examples:

  BUILD_NUMBER=7 gprov boot build --rootfs rootfs.tar --policy policy.json --out norm_boot
  BUILD_NUMBER=7 gprov boot build --rootfs rootfs.tar --policy policy.json --provision --out provision.pxe

SOURCE_DATE_EPOCH sets the time of the build: the same input and time give the same bytes.`
}

// Run builds the artifact and prints a report.
func (b *BootBuildCmd) Run(c *Context) error {
	o, err := b.options()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r, err := boot.Build(c, log, o)
	if err != nil {
		return bootHint(err)
	}
	if b.JSON {
		return bootJSON(c, r)
	}
	_, err = fmt.Fprintf(c.Stdout, "%s\n  build    %d\n  kernel   %s, %s\n  initrd   %s as %s, %s unpacked, %d modules, %d files of others\n  size     %s\n  sha256   %s\n",
		o.Out, r.Build, r.Kernel, megabytes(r.KernelSize), megabytes(r.InitrdSize), r.Compression, megabytes(r.InitrdUnpacked), r.Modules, len(r.Tools), megabytes(r.Size), r.SHA256)
	return err
}

func (b *BootBuildCmd) options() (boot.Options, error) {
	o := boot.Options{RootFS: b.RootFS, Out: b.Out, Init: b.Init, Kernel: b.Kernel, Provision: b.Provision, NoBIOS: b.NoBIOS}
	if b.Build == nil {
		return o, &UsageError{&HintError{errors.New("no build number"), "set BUILD_NUMBER in the environment, or --build-number"}}
	}
	o.BuildNumber = *b.Build
	raw, err := os.ReadFile(b.Policy)
	if err != nil {
		return o, fmt.Errorf("read policy: %w", err)
	}
	if o.Policy, err = policy.Parse(raw); err != nil {
		return o, fmt.Errorf("%s: %w", b.Policy, err)
	}
	if b.Platforms != "" {
		if o.Platforms, err = os.ReadFile(b.Platforms); err != nil {
			return o, fmt.Errorf("read appliance table: %w", err)
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
	}
	for _, s := range b.Add {
		a, err := boot.ParseAddition(s)
		if err != nil {
			return o, &UsageError{fmt.Errorf("--add: %w", err)}
		}
		o.Add = append(o.Add, a)
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
	f, err := os.Open(b.File)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	in, err := boot.Inspect(f, st.Size())
	if err != nil {
		return &HintError{fmt.Errorf("inspect %s: %w", b.File, err), "want a boot artifact, as 'gprov boot build' makes it: norm_boot or provision.pxe"}
	}
	if b.JSON {
		return bootJSON(c, in)
	}
	return printInspection(c, b.File, in)
}

func printInspection(c *Context, file string, in boot.Inspection) error {
	build := "none"
	if in.Build != nil {
		build = strconv.FormatUint(*in.Build, 10)
	}
	w := c.Stdout
	fmt.Fprintf(w, "%s\n  form     %s\n  build    %s\n  kernel   %s\n", file, in.Form, build, in.Banner)
	if in.Cmdline != "" {
		fmt.Fprintf(w, "  cmdline  %s\n", in.Cmdline)
	}
	for _, s := range in.Sections {
		fmt.Fprintf(w, "  section  %-9s %11d bytes\n", s.Name, s.Size)
	}
	if in.Initrd == nil {
		_, err := fmt.Fprintln(w, "  initrd   inside the kernel")
		return err
	}
	fmt.Fprintf(w, "  initrd   %s as %s, %s unpacked, %d files, %d modules\n", megabytes(in.Initrd.Size), in.Initrd.Compression, megabytes(in.Initrd.Unpacked), in.Initrd.Files, in.Initrd.Modules)
	if in.Policy != nil {
		fmt.Fprintf(w, "  policy   provision %v, keys %d, unsigned allowed %v, locked %v\n", in.Policy.Provision, len(in.Policy.Keys), in.Policy.AllowUnsigned, in.Policy.Locked)
	}
	if in.Info != nil {
		fmt.Fprintf(w, "  built    %s\n", in.Info.Time.Format(time.RFC3339))
		for _, t := range in.Info.Tools {
			fmt.Fprintf(w, "  tool     %s %s %s\n", t.Path, t.Package, t.Version)
		}
	}
	return nil
}

// bootHint adds the hint of what a root filesystem or the building host lacks.
func bootHint(err error) error {
	var root *boot.MissingError
	if errors.As(err, &root) {
		return &HintError{err, root.Hint()}
	}
	var host *tool.MissingError
	if errors.As(err, &host) {
		return &HintError{err, host.Hint()}
	}
	return err
}

func bootJSON(c *Context, v any) error {
	e := json.NewEncoder(c.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
