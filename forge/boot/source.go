package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gprovision/forge/tool"
	"gprovision/model/bootimage"
)

// KernelOptions say what kernel with an initramfs inside is built. RootFS of Options gives tools and boot loader; it may be
// empty if Tools is given and NoBIOS is set. Kernel of Options must be empty: there are no modules.
type KernelOptions struct {
	Options
	// Source is a Linux source tree or a tar file of one. Empty: it is looked for in /usr/src, by the version in the name of the
	// configuration fragment.
	Source string
	// Config is a file named linux-VERSION.config, a fragment of a kernel configuration; what it does not name is off. Empty: the
	// curated one of this package.
	Config string
	// LocalVersion is added to the kernel's release, such as "-norm_boot".
	LocalVersion string
	// Jobs is how many compilers run at a time. 0: one for each core.
	Jobs int
	// Cache is where sources are unpacked and kernels compiled; both are used again. Empty: gprovision/kernel in the user's
	// cache directory (XDG_CACHE_HOME).
	Cache string
	// Progress is called from one goroutine at a time while something goes on. It may be nil.
	Progress func(KernelProgress)

	usrSrc string // in place of /usr/src in tests
}

// KernelProgress is how far a kernel is.
type KernelProgress struct {
	// Phase is "unpack", "configure", "initramfs", "compile" or "write".
	Phase string
	// Steps is the number of files that were made in this phase.
	Steps int
	// Detail is what is being made, such as "CC drivers/ata/ahci.o".
	Detail string
}

// SourceError says that no kernel source was found.
type SourceError struct {
	// Version is what was looked for, and Tried are the files and directories that are not there.
	Version string
	Tried   []string
}

func (e *SourceError) Error() string {
	return fmt.Sprintf("no source of Linux %s: there is none of %s", e.Version, strings.Join(e.Tried, ", "))
}

// Hint says what to do next.
func (e *SourceError) Hint() string {
	return fmt.Sprintf("install it with: apt-get install linux-source-%s, or name a source tree or tar file with --source", e.Version)
}

// initramfsName is the initramfs in the build directory. The name is relative to it: a path would end up in the kernel.
const initramfsName = "initramfs.cpio"

// BuildKernel compiles a kernel with an initramfs inside and writes it to o.Out; nothing is left there unless it is complete.
// What does not depend on the initramfs is compiled once for a source and a configuration. The same source, compiler, options,
// time and content give the same bytes. Errors: *SourceError, *OptionError, *MissingError, *tool.MissingError, *tool.Error,
// and others. log may be nil.
func BuildKernel(ctx context.Context, log *slog.Logger, o KernelOptions) (Report, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := o.checkKernel(); err != nil {
		return Report{}, err
	}
	b, err := newBuilder(ctx, log, o.Options)
	if err != nil {
		return Report{}, err
	}
	k := &kernelBuilder{builder: b, ko: o}
	rep, err := k.build()
	if cerr := b.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Report{}, fmt.Errorf("build kernel: %w", err)
	}
	return rep, nil
}

func (o *KernelOptions) checkKernel() error {
	if err := o.check(); err != nil {
		return err
	}
	if o.Kernel != "" {
		return errors.New("a kernel from source is chosen by its source")
	}
	if !localSuffix.MatchString(o.LocalVersion) {
		return fmt.Errorf("local version %q: want at most 48 letters, digits and -+._", o.LocalVersion)
	}
	if o.RootFS == "" && !o.NoBIOS {
		return errors.New("the boot loader for BIOS machines comes from a root filesystem, and none is given: name one, or leave the boot loader out")
	}
	if o.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("find the cache directory: %w", err)
		}
		o.Cache = filepath.Join(dir, "gprovision", "kernel")
	}
	// make runs in the source tree: a relative path would mean another place there.
	var err error
	if o.Cache, err = filepath.Abs(o.Cache); err != nil {
		return err
	}
	if o.Jobs < 0 || o.Jobs > 1024 {
		return fmt.Errorf("%d jobs", o.Jobs)
	}
	if o.Jobs == 0 {
		o.Jobs = runtime.NumCPU()
	}
	if o.usrSrc == "" {
		o.usrSrc = "/usr/src"
	}
	return nil
}

type kernelBuilder struct {
	*builder
	ko       KernelOptions
	fragment []option
	version  string // in the fragment's name
	source   string // directory
	dir      string // build directory
	release  string
	steps    int
}

// compilers are the programs of the building host that compile a kernel.
func compilers() []external {
	return []external{{"make", "make"}, {"gcc", "gcc"}, {"ld", "binutils"}, {"flex", "flex"}, {"bison", "bison"}, {"bc", "bc"},
		{"zstd", "zstd"}, {"tar", "tar"}, {"xz", "xz-utils"}}
}

func (k *kernelBuilder) build() (rep Report, err error) {
	for _, t := range compilers() {
		if _, err := tool.Need(t.name, t.debianPackage); err != nil {
			return Report{}, err
		}
	}
	if err := k.readFragment(); err != nil {
		return Report{}, err
	}
	id, err := k.findSource()
	if err != nil {
		return Report{}, err
	}
	unlock, err := k.openDir(id)
	if err != nil {
		return Report{}, err
	}
	defer unlock()
	if err := k.configure(); err != nil {
		return Report{}, err
	}
	k.rep = Report{Kernel: k.release, Build: k.o.BuildNumber, Time: k.o.Time}
	if err := k.writeInitramfs(); err != nil {
		return Report{}, err
	}
	k.log.Info("compiling kernel", "release", k.release, "tree", k.source, "directory", k.dir, "jobs", k.ko.Jobs)
	if err := k.make("compile", "-j"+strconv.Itoa(k.ko.Jobs), "bzImage"); err != nil {
		return Report{}, err
	}
	k.progress("write", "")
	image, err := os.ReadFile(filepath.Join(k.dir, "arch/x86/boot/bzImage"))
	if err != nil {
		return Report{}, fmt.Errorf("read what was compiled: %w", err)
	}
	if err := k.checkImage(image); err != nil {
		return Report{}, err
	}
	k.rep.KernelSize = int64(len(image))
	if err := k.finish(image); err != nil {
		return Report{}, err
	}
	k.log.Info("boot artifact built", "file", k.o.Out, "kernel", k.release, "build", k.rep.Build, "bytes", k.rep.Size)
	return k.rep, nil
}

// readFragment reads the configuration that is asked for, without what belongs to this build.
func (k *kernelBuilder) readFragment() error {
	name, text, err := newestConfig()
	if k.ko.Config != "" {
		name = k.ko.Config
		text, err = os.ReadFile(name)
	}
	if err != nil {
		return fmt.Errorf("read kernel configuration: %w", err)
	}
	if k.version, err = configVersion(name); err != nil {
		return err
	}
	k.fragment, err = parseConfig(filepath.Base(name), text)
	return err
}

// own are the options of this build.
func (k *kernelBuilder) own() []option {
	own := []option{
		{"CONFIG_LOCALVERSION", quoteConfig(k.ko.LocalVersion)}, {"CONFIG_LOCALVERSION_AUTO", "n"},
		{"CONFIG_BLK_DEV_INITRD", "y"}, {"CONFIG_INITRAMFS_SOURCE", quoteConfig(initramfsName)}, {"CONFIG_INITRAMFS_COMPRESSION_NONE", "y"},
		{"CONFIG_MODULES", "n"},
	}
	args := k.o.Policy.BootArgs
	if args == "" && k.o.Policy.Locked {
		args = lockedCmdline
	}
	if args != "" {
		own = append(own, option{"CONFIG_CMDLINE_BOOL", "y"}, option{"CONFIG_CMDLINE", quoteConfig(args)})
	}
	if k.o.Policy.Locked { // what the boot loader says does not count
		own = append(own, option{"CONFIG_CMDLINE_OVERRIDE", "y"})
	}
	return own
}

// findSource finds the source tree, unpacks it if it is a tar file, and returns what it is known by: the hash of the tar
// file, or the path of a directory, whose changes make sees by itself.
func (k *kernelBuilder) findSource() (id string, err error) {
	src := k.ko.Source
	if src == "" {
		var tried []string
		for _, n := range []string{"linux-source-" + k.version, "linux-" + k.version} {
			for _, suffix := range []string{"", ".tar.xz", ".tar.zst", ".tar.gz"} {
				p := filepath.Join(k.ko.usrSrc, n+suffix)
				if _, err := os.Stat(p); err == nil {
					src = p
				}
				tried = append(tried, p)
			}
		}
		if src == "" {
			return "", &SourceError{Version: k.version, Tried: tried}
		}
	}
	if src, err = filepath.Abs(src); err != nil {
		return "", err
	}
	st, err := os.Stat(src)
	if err != nil {
		return "", fmt.Errorf("find the source: %w", err)
	}
	if id = src; st.IsDir() {
		k.source = src
	} else if id, err = k.unpack(src); err != nil {
		return "", err
	}
	v, err := sourceVersion(k.source)
	if err != nil {
		return "", err
	}
	if v != k.version && !strings.HasPrefix(v, k.version+".") {
		k.log.Warn("the kernel configuration is for another version", "configuration", k.version, "tree", v)
	}
	return id, nil
}

var makefileVersion = regexp.MustCompile(`(?m)^(VERSION|PATCHLEVEL|SUBLEVEL) *= *([0-9]+) *$`)

// sourceVersion reads the version in the top Makefile of a source tree.
func sourceVersion(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "Makefile"))
	if err != nil {
		return "", fmt.Errorf("%s is no Linux source tree: %w", dir, err)
	}
	m := makefileVersion.FindAllStringSubmatch(string(b), 3)
	if len(m) != 3 || m[0][1] != "VERSION" || m[1][1] != "PATCHLEVEL" || m[2][1] != "SUBLEVEL" {
		return "", fmt.Errorf("%s is no Linux source tree: its Makefile does not start with a version", dir)
	}
	return m[0][2] + "." + m[1][2] + "." + m[2][2], nil
}

// unpack unpacks a tar file into the cache, once.
func (k *kernelBuilder) unpack(file string) (id string, err error) {
	k.progress("unpack", filepath.Base(file))
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("read source: %w", err)
	}
	id = hex.EncodeToString(h.Sum(nil)[:12])
	k.source = filepath.Join(k.ko.Cache, "source-"+id)
	unlock, err := lock(k.ctx, k.source+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(k.source); err == nil {
		return id, nil
	}
	part := k.source + ".part"
	if err := errors.Join(os.RemoveAll(part), os.Mkdir(part, 0o755)); err != nil {
		return "", err
	}
	if err := tool.Run(k.ctx, k.log, tool.Command{Name: "tar", Package: "tar", Args: []string{"-xf", file, "-C", part, "--strip-components=1", "--no-same-owner"}}); err != nil {
		return "", errors.Join(fmt.Errorf("unpack source: %w", err), os.RemoveAll(part))
	}
	return id, os.Rename(part, k.source)
}

// openDir makes or finds the build directory for this source, configuration and compiler, and locks it against other
// processes.
func (k *kernelBuilder) openDir(id string) (unlock func(), err error) {
	compiler, err := tool.Output(k.ctx, k.log, tool.Command{Name: "gcc", Package: "gcc", Args: []string{"--version"}})
	if err != nil {
		return nil, fmt.Errorf("ask the compiler for its version: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q", id, formatConfig(k.fragment), compiler)
	k.dir = filepath.Join(k.ko.Cache, "build-"+hex.EncodeToString(h.Sum(nil)[:12]))
	if unlock, err = lock(k.ctx, k.dir+".lock"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// lock locks a file against other processes and waits for it. The file stays.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// configure makes the final configuration, checks it, and asks for the kernel's release.
func (k *kernelBuilder) configure() error {
	k.progress("configure", "")
	// Kconfig asks for the initramfs only when it compiles, but a stale one must not be there when that is interrupted.
	want := mergeConfig(k.fragment, k.own())
	fragment := filepath.Join(k.dir, "fragment.config")
	if err := os.WriteFile(fragment, formatConfig(want), 0o644); err != nil {
		return err
	}
	if err := k.make("configure", "KCONFIG_ALLCONFIG="+fragment, "allnoconfig"); err != nil {
		return err
	}
	final, err := os.ReadFile(filepath.Join(k.dir, ".config"))
	if err != nil {
		return fmt.Errorf("read the final configuration: %w", err)
	}
	got, err := parseConfig(".config", final)
	if err != nil {
		return err
	}
	if err := checkConfig(want, got); err != nil {
		return err
	}
	// Only with a configuration that is known to be right: this writes include/config/auto.conf.
	out, err := tool.Output(k.ctx, k.log, k.command("-s", "kernelrelease"))
	if err != nil {
		return fmt.Errorf("ask for the kernel's release: %w", err)
	}
	k.release = strings.TrimSpace(string(out))
	if k.release == "" || strings.ContainsAny(k.release, " /\n") {
		return fmt.Errorf("the kernel's release is %q", k.release)
	}
	return nil
}

// writeInitramfs writes the initramfs into the build directory. One with the same content is left alone, so that make sees
// nothing to do.
func (k *kernelBuilder) writeInitramfs() error {
	k.progress("initramfs", "")
	if err := k.fill(k.release, false); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := k.tree.Write(&b, k.o.Time); err != nil {
		return err
	}
	k.rep.InitrdUnpacked = int64(b.Len())
	file := filepath.Join(k.dir, initramfsName)
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, b.Bytes()) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// command is make with all that would otherwise differ from build to build. What a make above us has set is cleared.
func (k *kernelBuilder) command(args ...string) tool.Command {
	base := []string{"-C", k.source, "O=" + k.dir, "ARCH=x86_64"}
	return tool.Command{Name: "make", Package: "make", Args: append(base, args...), Env: []string{
		"MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=0", "CROSS_COMPILE=", "LOCALVERSION=", "KCFLAGS=", "KCPPFLAGS=", "KCONFIG_CONFIG=.config",
		"KBUILD_BUILD_USER=gprovision", "KBUILD_BUILD_HOST=gprovision", "KBUILD_BUILD_VERSION=" + strconv.FormatUint(k.o.BuildNumber, 10),
		"KBUILD_BUILD_TIMESTAMP=" + k.o.Time.Format("Mon Jan _2 15:04:05 UTC 2006"), "SOURCE_DATE_EPOCH=" + strconv.FormatInt(k.o.Time.Unix(), 10), "TZ=UTC",
	}}
}

func (k *kernelBuilder) make(phase string, args ...string) error {
	c := k.command(args...)
	k.steps = 0
	c.Stdout = &makeOutput{line: func(s string) {
		if f := strings.Fields(s); len(f) == 2 && f[0] == strings.ToUpper(f[0]) && !strings.HasPrefix(f[0], "#") {
			k.steps++
			k.progress(phase, f[0]+" "+f[1])
		}
	}}
	return tool.Run(k.ctx, k.log, c)
}

func (k *kernelBuilder) progress(phase, detail string) {
	if k.ko.Progress != nil {
		k.ko.Progress(KernelProgress{Phase: phase, Steps: k.steps, Detail: detail})
	}
}

// makeOutput calls line for each line written to it.
type makeOutput struct {
	rest []byte
	line func(string)
}

func (m *makeOutput) Write(p []byte) (int, error) {
	m.rest = append(m.rest, p...)
	for {
		line, rest, ok := bytes.Cut(m.rest, []byte{'\n'})
		if !ok {
			break
		}
		m.line(string(line))
		m.rest = rest
	}
	if len(m.rest) > 1<<16 {
		m.rest = nil
	}
	return len(p), nil
}

// checkImage returns an error unless the compiled kernel is what was asked for.
func (k *kernelBuilder) checkImage(image []byte) error {
	h, err := bootimage.ParseBzImage(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return fmt.Errorf("what was compiled: %w", err)
	}
	n, err := h.BuildNumber()
	if err != nil {
		return fmt.Errorf("what was compiled: %w", err)
	}
	if n != k.o.BuildNumber || h.Release() != k.release {
		return fmt.Errorf("what was compiled has release %q and build number %d, want %q and %d", h.Release(), n, k.release, k.o.BuildNumber)
	}
	return nil
}
