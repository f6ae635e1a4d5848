// Package boot builds boot artifacts: one file that boots, made of the kernel, modules, EFI stub and tools of a root
// filesystem, our init, a policy and an appliance table.
//
// Nothing of the building host goes into it except what the caller names (init, policy, table, additions): a root filesystem
// that lacks something is an error that names the Debian package. The same input gives the same bytes.
//
// The format is described in docs/formats/boot-artifact.md; model/bootimage reads and writes it.
package boot

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gprovision/hw/durable"
	"gprovision/model/bootimage"
	"gprovision/model/naming"
	"gprovision/model/platform"
	"gprovision/model/policy"
	"gprovision/model/revision"
	"gprovision/model/signature"
)

// Options say what is built.
type Options struct {
	// RootFS is a root filesystem: a directory, or a tar file, which may be compressed by gzip, xz or zstd.
	RootFS string
	// Kernel is the release of the kernel to use. Empty: the newest plain one that has modules.
	Kernel string
	// Init is the file of the init program: static, x86-64.
	Init string
	// Revision is that of the init program, where it does not say so itself; empty: unknown.
	Revision string
	// Policy is what the artifact may do. BootArgs of it become the section .cmdline.
	Policy policy.Policy
	// Provision allows provisioning, whatever Policy says.
	Provision bool
	// Platforms is an appliance table (appliance.json). Empty: the built-in one of package platform is used, and no file is added.
	Platforms []byte
	// Names are those of the product. The zero value: no file is added, and init's own are used.
	Names naming.Names
	// Add are files and directories of the building host that are added.
	Add []Addition
	// Modules are modules that the artifact gets beside those that every artifact has: directories with a final slash, or patterns of
	// path.Match for files without their suffix, below kernel/ of the modules, such as "drivers/net/ethernet/chelsio/".
	Modules []string
	// BuildNumber is that of the artifact.
	BuildNumber uint64
	// Time is the build's time: of all files inside, and the least time that a unit believes in.
	Time time.Time
	// Tools is a directory or tar file of the external programs (mke2fs, e2fsck) with their libraries, used in place of those in
	// the root filesystem. Empty: the root filesystem.
	Tools string
	// Signer signs the artifact for UEFI Secure Boot with the first of Certificates; those behind it go along. nil: unsigned.
	Signer       crypto.Signer
	Certificates []*x509.Certificate
	// NoBIOS leaves out the boot loader for BIOS machines; the artifact can then only make UEFI machines bootable.
	NoBIOS bool
	// Out is the file to write. It is replaced at once when it is complete.
	Out string
}

// Addition is a file or directory to add to the initramfs, with the libraries that its programs need.
type Addition struct {
	// From is the path on the building host.
	From string
	// To is the absolute path in the initramfs.
	To string
}

// ParseAddition reads "PATH" or "PATH:DEST". DEST is absolute; without it the file keeps its absolute path.
func ParseAddition(s string) (Addition, error) {
	from, to := s, ""
	if i := strings.LastIndex(s, ":/"); i >= 0 {
		from, to = s[:i], s[i+1:]
	}
	if from == "" {
		return Addition{}, fmt.Errorf("%q: want PATH or PATH:DEST with an absolute DEST", s)
	}
	if to == "" {
		abs, err := filepath.Abs(from)
		if err != nil {
			return Addition{}, err
		}
		to = abs
	}
	return Addition{From: from, To: path.Clean(to)}, nil
}

// Report is what was built.
type Report struct {
	// Kernel is the kernel's release.
	Kernel string `json:"kernel"`
	// Build is the build number.
	Build uint64 `json:"build"`
	// Time is the build's time.
	Time time.Time `json:"time"`
	// Compression is that of the initramfs.
	Compression Compression `json:"compression"`
	// Modules is the number of kernel modules.
	Modules int `json:"modules"`
	// LeftOut are the drivers of disks and network ports that the root filesystem has and the artifact does not, and what else was added to
	// its kernel. A kernel from source has none.
	LeftOut []LeftOut `json:"leftOut,omitempty"`
	// KernelSize, InitrdSize and InitrdUnpacked are the lengths of the kernel and of the initramfs, bytes.
	KernelSize     int64 `json:"kernelSize"`
	InitrdSize     int64 `json:"initrdSize"`
	InitrdUnpacked int64 `json:"initrdUnpacked"`
	// Size is the length of the file, bytes, and SHA256 its hash, hexadecimal.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Tools are the files of others inside, without kernel modules.
	Tools []bootimage.Tool `json:"tools"`
	// Signer is the subject of the certificate that the file is signed with; empty: unsigned.
	Signer string `json:"signer,omitempty"`
}

const (
	stubPath      = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	stubPackage   = "systemd-boot-efi"
	osReleasePath = "etc/os-release"
	confPath      = "etc/mke2fs.conf"
)

// Build builds a boot artifact. Nothing is left at o.Out unless it is complete. What the root filesystem lacks is a
// *MissingError. log may be nil.
func Build(ctx context.Context, log *slog.Logger, o Options) (Report, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := o.check(); err != nil {
		return Report{}, err
	}
	b, err := newBuilder(ctx, log, o)
	if err != nil {
		return Report{}, err
	}
	rep, err := b.build()
	if cerr := b.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Report{}, fmt.Errorf("build boot artifact: %w", err)
	}
	return rep, nil
}

func (o *Options) check() error {
	o.Policy.Provision = o.Policy.Provision || o.Provision
	if err := o.Policy.Validate(); err != nil {
		return err
	}
	for what, keys := range map[string][]string{"keys": o.Policy.Keys, "supportKeys": o.Policy.SupportKeys} {
		if _, err := signature.ParsePublicKeys(keys); err != nil {
			return fmt.Errorf("%s of the policy: %w", what, err)
		}
	}
	if len(o.Platforms) > 0 {
		if _, err := platform.Parse(o.Platforms); err != nil {
			return err
		}
	}
	if err := o.checkNames(); err != nil {
		return err
	}
	if err := o.checkLocked(); err != nil {
		return err
	}
	if (o.Signer == nil) != (len(o.Certificates) == 0) {
		return errors.New("a key and a certificate for Secure Boot are needed together")
	}
	if o.Time.IsZero() {
		return errors.New("no build time")
	}
	o.Time = o.Time.UTC().Truncate(time.Second)
	return nil
}

// checkNames refuses names that cannot be used, or that a data partition of the appliance table has already.
func (o *Options) checkNames() error {
	if o.Names == (naming.Names{}) {
		return nil
	}
	if err := o.Names.Validate(); err != nil {
		return err
	}
	for _, v := range o.table().Variants {
		if d := v.DataPartition; d != nil && (d.Label == o.Names.RecoveryLabel || d.Label == o.Names.PrimaryLabel) {
			return fmt.Errorf("names: the label %s is that of the data partition of %s in the appliance table", d.Label, v.DevCodeName)
		}
	}
	return nil
}

// table is the appliance table of the artifact, which was checked.
func (o *Options) table() *platform.Table {
	if len(o.Platforms) > 0 {
		if t, err := platform.Parse(o.Platforms); err == nil {
			return t
		}
	}
	return platform.Default()
}

// raid reports whether a platform of the artifact has RAID. The table was checked.
func (o *Options) raid() bool {
	return slices.ContainsFunc(o.table().Variants, platform.Variant.HasRAID)
}

type builder struct {
	ctx      context.Context
	log      *slog.Logger
	o        Options
	root     *rootFS // nil for a kernel from source without root filesystem
	tools    *rootFS // where the external programs come from; root, unless the caller named another
	link     *linker
	packages map[*rootFS]*packages
	tree     *bootimage.Tree
	revision string   // of the init program
	own      []string // programs and libraries that the caller added, by their place in the tree
	rep      Report
}

// newBuilder opens the root filesystem and the tools.
func newBuilder(ctx context.Context, log *slog.Logger, o Options) (_ *builder, err error) {
	b := &builder{ctx: ctx, log: log, o: o, packages: map[*rootFS]*packages{}, tree: &bootimage.Tree{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	var roots []*rootFS
	if o.Tools != "" {
		if b.tools, err = openRootFS(ctx, o.Tools); err != nil {
			return nil, fmt.Errorf("tools: %w", err)
		}
		roots = append(roots, b.tools)
	}
	if o.RootFS != "" {
		if b.root, err = openRootFS(ctx, o.RootFS); err != nil {
			return nil, err
		}
		roots = append(roots, b.root)
	}
	if len(roots) == 0 {
		return nil, errors.New("no root filesystem and no tools")
	}
	if b.tools == nil {
		b.tools = b.root
	}
	for _, r := range roots {
		b.packages[r] = readPackages(r)
	}
	b.link = newLinker(b.tree, roots...)
	return b, nil
}

func (b *builder) close() error {
	var err error
	if b.root != nil {
		err = b.root.Close()
	}
	if b.tools != nil && b.tools != b.root {
		err = errors.Join(err, b.tools.Close())
	}
	return err
}

// describe notes a file of r in the bill of materials.
func (b *builder) describe(r *rootFS, name string, data []byte) {
	b.rep.Tools = append(b.rep.Tools, b.packages[r].tool(r, name, data))
}

func (b *builder) build() (Report, error) {
	k, err := chooseKernel(b.root, b.o.Kernel)
	if err := b.lacks(err); err != nil {
		return Report{}, err
	}
	release := k.release
	b.rep = Report{Kernel: release, Build: b.o.BuildNumber, Time: b.o.Time}
	kernel, err := b.take(k.image, "linux-image-"+release)
	if err != nil {
		return Report{}, err
	}
	stub, err := b.take(stubPath, stubPackage)
	if err != nil {
		return Report{}, err
	}
	if err := b.fill(release, true); err != nil {
		return Report{}, err
	}
	if b.rep.Compression, err = chooseCompression(b.root, k); err != nil {
		return Report{}, err
	}
	initrd, err := b.pack()
	if err != nil {
		return Report{}, err
	}
	b.rep.KernelSize, b.rep.InitrdSize = int64(len(kernel)), int64(len(initrd))
	osrel, err := b.osRelease()
	if err != nil {
		return Report{}, err
	}
	parts := []bootimage.Part{{Name: bootimage.SectionOSRel, Data: osrel}, {Name: bootimage.SectionUname, Data: []byte(release)}}
	if args := b.o.cmdline(); args != "" {
		parts = append(parts, bootimage.Part{Name: bootimage.SectionCmdline, Data: []byte(args)})
	}
	parts = append(parts, bootimage.Part{Name: bootimage.SectionInitrd, Data: initrd}, bootimage.Part{Name: bootimage.SectionLinux, Data: kernel})
	if err := b.write(stub, parts); err != nil {
		return Report{}, err
	}
	b.log.Info("boot artifact built", "file", b.o.Out, "kernel", release, "build", b.rep.Build, "modules", b.rep.Modules,
		"bytes", b.rep.Size, "initrd", b.rep.InitrdSize)
	return b.rep, nil
}

// take reads a file of the root filesystem and notes it in the bill of materials.
func (b *builder) take(name, debianPackage string) ([]byte, error) {
	data, err := b.root.read(name, debianPackage)
	if err == nil {
		b.describe(b.root, name, data)
	}
	return data, err
}

// fill puts all files into the tree. Without modules the kernel has all its drivers inside.
func (b *builder) fill(release string, modules bool) error {
	for _, f := range []func() error{
		b.skeleton,
		b.addInit,
		func() error {
			if !modules {
				return nil
			}
			return b.addModules(release)
		},
		b.addOwn,
		b.addTools,
		b.addOwnLibraries,
		b.addCertificates,
		b.addGRUB,
		func() error { return b.addConfig(release) },
		func() error { return verifyLinks(b.tree) },
	} {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// skeleton makes the directories that init mounts on, the console that the kernel opens before init runs, and the links
// that the root filesystem has in place of its top directories.
func (b *builder) skeleton() error {
	for _, d := range []string{"proc", "sys", "dev", "run", "mnt", "etc/gprovision", "root"} {
		if err := b.tree.Add(bootimage.File{Name: d, Mode: fs.ModeDir | 0o755}); err != nil {
			return err
		}
	}
	if err := b.tree.Add(bootimage.File{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777}); err != nil {
		return err
	}
	for _, n := range []struct {
		name  string
		minor uint32
		major uint32
		perm  fs.FileMode
	}{{"dev/console", 1, 5, 0o600}, {"dev/null", 3, 1, 0o666}} {
		if err := b.tree.Add(bootimage.File{Name: n.name, Mode: fs.ModeDevice | fs.ModeCharDevice | n.perm, Major: n.major, Minor: n.minor}); err != nil {
			return err
		}
	}
	top := b.root
	if top == nil {
		top = b.tools
	}
	for _, n := range []string{"bin", "sbin", "lib", "lib32", "lib64"} {
		e, ok := top.entries[n]
		if !ok || e.mode.Type() != fs.ModeSymlink {
			continue
		}
		real, _, err := top.resolve(n)
		if err != nil {
			continue // leads nowhere
		}
		for _, f := range []bootimage.File{{Name: real, Mode: fs.ModeDir | 0o755}, {Name: n, Mode: fs.ModeSymlink | 0o777, Data: []byte(real)}} {
			if err := b.tree.Add(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// put adds a file where the running system will find it under name. The same content twice is fine.
func (b *builder) put(name string, perm fs.FileMode, data []byte) error {
	real, err := b.tree.Resolve(name)
	if err != nil {
		return err
	}
	if old, ok := b.tree.Get(real); ok && old.Mode.IsRegular() && bytes.Equal(old.Data, data) {
		return nil
	}
	return b.tree.Add(bootimage.File{Name: real, Mode: perm, Data: data})
}

func (b *builder) addInit() error {
	data, err := os.ReadFile(b.o.Init)
	if err != nil {
		return fmt.Errorf("read init program: %w", err)
	}
	if err := checkStatic(data); err != nil {
		return fmt.Errorf("init program %s: %w", b.o.Init, err)
	}
	b.revision = revision.Unknown
	if info, err := buildinfo.Read(bytes.NewReader(data)); err == nil {
		b.revision = revision.FromBuildInfo(info)
	}
	if b.revision == revision.Unknown && b.o.Revision != "" {
		b.revision = b.o.Revision
	}
	t := (*packages)(nil).tool(nil, "init", data)
	t.Version = b.revision
	b.rep.Tools = append(b.rep.Tools, t)
	return b.put("init", 0o755, data)
}

func (b *builder) addModules(release string) error {
	m, err := readModules(b.root, release)
	if err != nil {
		return err
	}
	names, err := m.choose(b.o.Modules)
	if err != nil {
		return err
	}
	files, firmware, err := m.load(names)
	if err != nil {
		return err
	}
	b.rep.Modules = len(files)
	if err := compressModules(b.ctx, b.log, files); err != nil {
		return err
	}
	for _, f := range append(files, m.index(names)...) {
		if err := b.put(path.Join(m.dir, f.path), 0o644, f.data); err != nil {
			return err
		}
	}
	b.rep.LeftOut = m.leftOut(func(name string) bool {
		real, err := b.tree.Resolve(name)
		if err != nil {
			return false
		}
		_, ok := b.tree.Get(real)
		return ok
	})
	if lacking := m.lacking(); len(lacking) > 0 {
		b.log.Warn("the kernel has no driver for what most units need", "kernel", release, "lacks", strings.Join(lacking, ", "))
	}
	for _, l := range b.rep.LeftOut {
		switch {
		case l.Why == WhyFirmware:
			b.log.Warn("a driver is left out, as the root filesystem lacks its firmware", "module", l.Name, "drives", l.Drives)
		case !strings.HasPrefix(l.Path, "kernel/"):
			b.log.Warn("a module that was added to the kernel is left out; --module takes it", "module", l.Name, "path", l.Path)
		}
	}
	for _, f := range firmware {
		if err := b.put(f.to, 0o644, f.data); err != nil {
			return err
		}
		b.describe(b.root, f.from, f.data)
	}
	return nil
}

// external is a program that a unit runs.
type external struct{ name, debianPackage string }

// programs are those of this artifact. mdadm comes along where a platform has RAID.
func (b *builder) programs() []external {
	out := []external{{"mke2fs", "e2fsprogs"}, {"e2fsck", "e2fsprogs"}}
	if b.o.raid() {
		out = append(out, external{"mdadm", "mdadm"})
	}
	return out
}

// toolPlaces are where a program may lie in a root filesystem, or in a directory of tools.
func toolPlaces(name string) []string {
	return []string{"sbin/" + name, "usr/sbin/" + name, "bin/" + name, "usr/bin/" + name, name}
}

// addTools adds the external programs with their configuration.
func (b *builder) addTools() error {
	for _, p := range b.programs() {
		if err := b.addTool(p.name, p.debianPackage); err != nil {
			return err
		}
	}
	in, from, err := b.findConf()
	if err != nil {
		return err
	}
	conf, err := in.read(from, "e2fsprogs")
	if err != nil {
		return err
	}
	b.describe(in, from, conf)
	return b.put(confPath, 0o644, conf)
}

// findConf returns where the configuration of mke2fs is: in the tools, else in the root filesystem.
func (b *builder) findConf() (in *rootFS, from string, err error) {
	from, err = b.findTool("e2fsprogs", confPath, path.Base(confPath))
	if err == nil || b.root == nil || b.root == b.tools {
		return b.tools, from, err
	}
	from, err = b.root.find("e2fsprogs", confPath)
	return b.root, from, err
}

// addTool adds one program of a Debian package, with its libraries.
func (b *builder) addTool(name, pkg string) error {
	from, err := b.findTool(pkg, toolPlaces(name)...)
	if err != nil {
		return err
	}
	data, err := b.tools.read(from, pkg)
	if err != nil {
		return err
	}
	b.describe(b.tools, from, data)
	if err := b.put("sbin/"+name, 0o755, data); err != nil {
		return err
	}
	return b.addLibraries(from, data)
}

// findTool returns the first of names that is a file in the tools, where the Debian package pkg has it.
func (b *builder) findTool(pkg string, names ...string) (string, error) {
	from, err := b.tools.find(pkg, names...)
	var missing *MissingError
	if errors.As(err, &missing) && b.tools != b.root {
		missing.In = b.o.Tools
	}
	return from, err
}

// addCertificates adds those of the root filesystem that vouch for web servers, if it has them.
func (b *builder) addCertificates() error {
	const certificates = "etc/ssl/certs/ca-certificates.crt"
	for _, r := range b.link.roots {
		data, err := r.read(certificates, "")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		return b.put(certificates, 0o644, data)
	}
	return nil
}

func (b *builder) addLibraries(name string, data []byte) error {
	libs, err := b.link.libraries(name, data)
	if err != nil {
		return err
	}
	for _, l := range libs {
		real, err := b.tree.Resolve(l.to)
		if err != nil {
			return err
		}
		if _, ok := b.tree.Get(real); ok {
			continue
		}
		if err := b.put(l.to, 0o755, l.data); err != nil {
			return err
		}
		b.describe(l.root, l.from, l.data)
	}
	return nil
}

// addOwnLibraries adds what the programs and libraries need that the caller added. It runs when all of these are in the tree:
// they may need one another.
func (b *builder) addOwnLibraries() error {
	for _, name := range b.own {
		f, ok := b.tree.Get(name)
		if !ok {
			continue
		}
		if err := b.addLibraries(name, f.Data); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) addGRUB() error {
	if b.o.NoBIOS {
		return nil
	}
	if b.root == nil {
		return errors.New("the boot loader for BIOS machines comes from a root filesystem, and none is given: name one, or leave the boot loader out")
	}
	parts := grubModules
	if b.o.raid() {
		parts = slices.Concat(parts, grubRAID)
	}
	boot, core, err := linkGRUB(b.ctx, b.log, b.root, newLinker(&bootimage.Tree{}, b.root), parts)
	if err != nil {
		return err
	}
	t := b.packages[b.root].tool(b.root, grubDir+"/boot.img", boot)
	made := b.packages[b.root].tool(b.root, bootimage.GRUBCorePath, core) // made here of the same package's parts
	made.Package, made.Version = t.Package, t.Version
	b.rep.Tools = append(b.rep.Tools, t, made)
	if err := b.put(bootimage.GRUBBootPath, 0o644, boot); err != nil {
		return err
	}
	return b.put(bootimage.GRUBCorePath, 0o644, core)
}

// addOwn adds what the caller named.
func (b *builder) addOwn() error {
	for _, a := range b.o.Add {
		err := filepath.WalkDir(a.From, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(a.From, p)
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			if rel == "." && info.Mode().Type() == fs.ModeSymlink { // named by a link: what it leads to
				if info, err = os.Stat(p); err != nil {
					return err
				}
			}
			return b.addHostFile(p, path.Join(a.To, filepath.ToSlash(rel)), info)
		})
		if err != nil {
			return fmt.Errorf("add %s: %w", a.From, err)
		}
	}
	return nil
}

func (b *builder) addHostFile(from, to string, info fs.FileInfo) error {
	to, err := b.tree.Resolve(to)
	if err != nil {
		return err
	}
	mode := info.Mode() &^ (fs.ModeSetuid | fs.ModeSetgid)
	switch mode.Type() {
	case fs.ModeDir:
		if to == "" {
			return nil
		}
		return b.tree.Add(bootimage.File{Name: to, Mode: mode})
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return b.tree.Add(bootimage.File{Name: to, Mode: mode, Data: []byte(target)})
	case 0:
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := b.put(to, mode, data); err != nil {
			return err
		}
		if isELF(data) {
			t := (*packages)(nil).tool(nil, to, data)
			b.rep.Tools = append(b.rep.Tools, t)
		}
		switch {
		case linkable(data):
			b.own = append(b.own, to)
		case isELF(data) && mode&0o111 != 0:
			return fmt.Errorf("%s does not run on x86", from)
		}
		return nil
	default:
		return fmt.Errorf("%s is neither a file, a directory nor a symbolic link", from)
	}
}

func (b *builder) addConfig(release string) error {
	p, err := b.o.Policy.Marshal()
	if err != nil {
		return err
	}
	build := bootimage.Build{Number: b.rep.Build, Time: b.rep.Time, Kernel: release, Gprovision: b.revision, Tools: b.rep.Tools}
	info, err := json.MarshalIndent(build, "", "  ")
	if err != nil {
		return err
	}
	if err := b.put(bootimage.PolicyPath, 0o644, p); err != nil {
		return err
	}
	if len(b.o.Platforms) > 0 {
		if err := b.put(bootimage.PlatformsPath, 0o644, b.o.Platforms); err != nil {
			return err
		}
	}
	if b.o.Names != (naming.Names{}) {
		n, err := b.o.Names.Marshal()
		if err != nil {
			return err
		}
		if err := b.put(bootimage.NamesPath, 0o644, n); err != nil {
			return err
		}
	}
	return b.put(bootimage.BuildPath, 0o644, append(info, '\n'))
}

// osRelease returns the root filesystem's os-release with our build number.
func (b *builder) osRelease() ([]byte, error) {
	raw, err := b.root.read(osReleasePath, "base-files")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, line := range strings.Split(strings.TrimRight(string(raw), "\n"), "\n") {
		if !strings.HasPrefix(strings.TrimSpace(line), "BUILD_ID=") {
			out.WriteString(line + "\n")
		}
	}
	fmt.Fprintf(&out, "BUILD_ID=%d\n", b.rep.Build)
	if b.o.openCmdline() && b.o.Policy.BootArgs != "" {
		fmt.Fprintf(&out, "%s=%s\n", bootimage.OSReleaseBootArgs, bootimage.QuoteOSRelease(b.o.Policy.BootArgs))
	}
	if _, err := bootimage.ParseOSRelease(out.Bytes()); err != nil {
		return nil, fmt.Errorf("os-release of the root filesystem: %w", err)
	}
	return out.Bytes(), nil
}

// write writes the artifact.
func (b *builder) write(stub []byte, parts []bootimage.Part) error {
	var image bytes.Buffer
	if err := bootimage.WriteUKI(&image, stub, parts); err != nil {
		return err
	}
	return b.finish(image.Bytes())
}

// finish signs the artifact if that is asked for, writes it beside its place and renames it.
func (b *builder) finish(image []byte) (err error) {
	if b.o.Signer != nil {
		if image, err = bootimage.SignPE(image, b.o.Signer, b.o.Certificates); err != nil {
			return err
		}
		b.rep.Signer = b.o.Certificates[0].Subject.String()
	}
	sum := sha256.Sum256(image)
	b.rep.Size, b.rep.SHA256 = int64(len(image)), hex.EncodeToString(sum[:])
	return durable.Write(b.o.Out, image, 0o644)
}
