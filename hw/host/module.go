package host

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
	"golang.org/x/sys/unix"
)

// ErrNoModule says that no module and no part of the kernel has a name.
var ErrNoModule = errors.New("no such module")

// Modules loads the kernel's modules from one directory, with what they depend on. It reads the files that depmod writes:
// modules.dep, modules.alias, modules.softdep, modules.builtin (see modules.dep(5), modprobe.d(5)); each may be missing.
// Modules may be plain or compressed by gzip, xz or zstd.
//
// In names - and _ are the same. A module is tried once; later calls return the first result. Modules that do not need each
// other are loaded at the same time, as most of what a driver does when it starts is to wait for its devices. All methods may
// be called from several goroutines.
type Modules struct {
	dir   string
	index *moduleIndex
	// insert reads one module, waits for what it needs, and puts it into the kernel. It returns when the devices that it drives are there.
	insert func(file string, drives bool, wait func() error) error
	// slots bounds how many are inserted at once, and the memory of those that are decompressed for it. Drivers of disk controllers, and
	// what they need, do not wait for one, and get the processors first: the boot waits for them.
	slots chan struct{}

	mu       sync.Mutex
	begun    map[string]*insertion // by module name; nil while what it needs is looked up
	withheld []string              // directories of drivers that no device gets
}

// insertion is a module on its way into the kernel.
type insertion struct {
	name string
	done chan struct{}
	err  error // valid once done is closed
}

// NewModules reads the index of the modules in root/lib/modules/release. release is the kernel's, as Release returns it. Where
// there is no modules.dep the kernel has no modules: Load then knows no name, and devices have the drivers they have.
func NewModules(root, release string) (*Modules, error) {
	dir := filepath.Join(root, "lib/modules", release)
	x, err := readModuleIndex(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("read modules of kernel %s: %w", release, err)
	}
	return &Modules{dir: dir, index: x, insert: insertModule, slots: make(chan struct{}, 8), begun: map[string]*insertion{}}, nil
}

// Release returns the release of the running kernel, such as "6.1.0-26-amd64".
func Release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("read kernel release: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// Load loads the modules with the given names or aliases and all that they need. A name that is built into the kernel, or
// loaded already, is done. It tries all names and returns all errors; ErrNoModule is among them for a name that nobody has.
// An alias with several modules succeeds if one of them does.
func (m *Modules) Load(names ...string) error {
	_, err := m.loadNames(names)
	return err
}

// filesystemNeeds are modules that a filesystem asks the kernel for when it is mounted, and that nobody would load: Linux
// fs/fat (Kconfig FAT_DEFAULT_CODEPAGE, FAT_DEFAULT_IOCHARSET), fs/ext4 (metadata checksums).
var filesystemNeeds = map[string][]string{
	"vfat": {"nls_cp437", "nls_ascii", "nls_iso8859-1", "nls_utf8"},
	"ext4": {"crc32c"},
}

// Filesystem loads what is needed to mount a filesystem of the given type. It is done if the kernel knows the type already.
func (m *Modules) Filesystem(fstype string) error {
	_ = m.Load(filesystemNeeds[fstype]...) // where one is missing the kernel may have it built in without a name
	if known, err := knownFilesystem(fstype); err == nil && known {
		return nil
	}
	if err := m.Load(fstype); err != nil {
		return fmt.Errorf("load filesystem %s: %w", fstype, err)
	}
	return nil
}

func knownFilesystem(fstype string) (bool, error) {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false, err
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == fstype {
			return true, nil
		}
	}
	return false, nil
}

// Withhold keeps the drivers below some directories, such as "kernel/drivers/net/", from their devices, and none below others, until
// it is called again. They can be loaded by name all the same, and other modules get them that need them.
func (m *Modules) Withhold(dirs ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.withheld = dirs
}

// drivers returns the modules that fit a modalias and are not withheld.
func (m *Modules) drivers(modalias string) []string {
	modules := m.index.match(modalias)
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(modules, func(name string) bool {
		return slices.ContainsFunc(m.withheld, func(dir string) bool { return m.below(name, dir) })
	})
}

// below reports whether a module lies below a directory of the kernel's modules.
func (m *Modules) below(name, dir string) bool {
	return strings.HasPrefix(m.index.modules[name].path, dir)
}

// LoadInOrder loads the drivers below a directory, also one that is withheld, of the devices that are there: one after the other, by
// their names, so that devices which the kernel numbers as they come have the same numbers in each boot. sys is /sys. The errors
// are those of drivers that did not load.
func (m *Modules) LoadInOrder(sys fs.FS, dir string) error {
	aliases, err := modaliases(sys)
	if err != nil {
		return fmt.Errorf("find devices: %w", err)
	}
	var modules []string
	for _, a := range aliases {
		modules = append(modules, m.index.match(a)...)
	}
	modules = slices.DeleteFunc(modules, func(name string) bool { return !m.below(name, dir) })
	slices.Sort(modules)
	_, failed := m.load(slices.Compact(modules))
	return errors.Join(failed[0]...)
}

// Coldplug loads the drivers of all devices that are there, and again of those that appear thereby, until nothing new appears.
// Those of disks come first. sys is /sys. A driver that does not load is logged and skipped: its device may be of no use here. It
// returns how many modules were loaded. log may be nil.
func (m *Modules) Coldplug(ctx context.Context, log *slog.Logger, sys fs.FS) (int, error) {
	seen := map[string]bool{}
	var total atomic.Int64
	for {
		if err := ctx.Err(); err != nil {
			return int(total.Load()), err
		}
		aliases, err := modaliases(sys)
		if err != nil {
			return int(total.Load()), fmt.Errorf("find devices: %w", err)
		}
		aliases = slices.DeleteFunc(aliases, func(a string) bool { return seen[a] })
		if len(aliases) == 0 {
			return int(total.Load()), nil
		}
		slices.SortStableFunc(aliases, disksFirst)
		var all sync.WaitGroup
		for _, a := range aliases {
			seen[a] = true
			wait := m.start(diskController(a), m.drivers(a))
			all.Go(func() {
				n, failed := wait()
				total.Add(int64(n))
				note(ctx, log, a, n, errors.Join(failed[0]...))
			})
		}
		all.Wait()
	}
}

// diskController reports whether a modalias is that of a controller of disks. They need the most time until all that is behind them is
// there. PCI Code and ID Assignment Specification 1.1: base class 01h is mass storage.
func diskController(modalias string) bool {
	return strings.HasPrefix(modalias, "pci:") && strings.Contains(modalias, "bc01sc")
}

func disksFirst(a, b string) int {
	switch first := diskController(a); {
	case first == diskController(b):
		return 0
	case first:
		return -1
	}
	return 1
}

// Follow loads the drivers of devices that appear, until the channel is closed or ctx ends. After a gap in the events it
// looks at all devices again. sys is /sys, log may be nil.
func (m *Modules) Follow(ctx context.Context, log *slog.Logger, sys fs.FS, events <-chan Uevent) {
	var all sync.WaitGroup
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				all.Wait()
				return
			}
			switch alias := e.Env["MODALIAS"]; {
			case e.Action == Missed:
				_, _ = m.Coldplug(ctx, log, sys)
			case e.Action == "add" && alias != "":
				wait := m.start(diskController(alias), m.drivers(alias))
				all.Go(func() {
					n, failed := wait()
					note(ctx, log, alias, n, errors.Join(failed[0]...))
				})
			}
		}
	}
}

func note(ctx context.Context, log *slog.Logger, alias string, n int, err error) {
	switch {
	case log == nil:
	case err != nil:
		log.LogAttrs(ctx, slog.LevelDebug, "driver not loaded", slog.String("modalias", alias), slog.String("error", err.Error()))
	case n > 0:
		log.LogAttrs(ctx, slog.LevelDebug, "driver loaded", slog.String("modalias", alias), slog.Int("modules", n))
	}
}

// modaliases returns the modaliases of all devices, without repetition.
func modaliases(sys fs.FS) ([]string, error) {
	buses, err := fs.ReadDir(sys, "bus")
	if err != nil {
		return nil, err
	}
	var out []string
	seen := map[string]bool{}
	for _, b := range buses {
		dir := "bus/" + b.Name() + "/devices"
		devices, err := fs.ReadDir(sys, dir)
		if err != nil {
			continue
		}
		for _, d := range devices {
			raw, err := fs.ReadFile(sys, dir+"/"+d.Name()+"/modalias")
			a := strings.TrimSpace(string(raw))
			if err == nil && a != "" && !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
	}
	return out, nil
}

// loadNames loads modules and aliases, and counts what is new.
func (m *Modules) loadNames(names []string) (int, error) {
	var errs []error
	groups := make([][]string, len(names))
	for i, name := range names {
		var err error
		if groups[i], err = m.resolve(name); err != nil {
			errs = append(errs, err)
		}
	}
	loaded, failed := m.load(groups...)
	for i, f := range failed {
		if len(f) == len(groups[i]) {
			errs = append(errs, f...)
		}
	}
	return loaded, errors.Join(errs...)
}

// load loads groups of modules, and what their soft dependencies want after them. Within a group one goes after the other: a driver
// that fits a device better stands before one that fits many. It counts what is new, and returns the errors of each group.
func (m *Modules) load(groups ...[]string) (loaded int, failed [][]error) {
	return m.start(false, groups...)()
}

// start begins what load does, and returns what waits for its end. What is urgent does not wait for its turn.
func (m *Modules) start(urgent bool, groups ...[]string) (wait func() (loaded int, failed [][]error)) {
	var fresh []*insertion
	asked := make([][]*insertion, len(groups))
	m.mu.Lock()
	for i, modules := range groups {
		for _, module := range modules {
			asked[i] = append(asked[i], m.begin(module, urgent, asked[i], &fresh))
		}
	}
	m.mu.Unlock()
	return func() (loaded int, failed [][]error) {
		failed = make([][]error, len(groups))
		for i, all := range asked {
			for _, in := range all {
				if <-in.done; in.err != nil {
					failed[i] = append(failed[i], in.err)
				}
			}
		}
		var after []string
		for _, in := range fresh {
			if <-in.done; in.err == nil {
				loaded++
				after = append(after, m.index.soft[in.name].post...)
			}
		}
		if len(after) > 0 {
			n, _ := m.loadNames(after)
			loaded += n
		}
		return loaded, failed
	}
}

// resolve returns the modules that a name stands for: one, none for what is built in, or those of an alias.
func (m *Modules) resolve(name string) ([]string, error) {
	name = normal(name)
	if _, ok := m.index.modules[name]; ok {
		return []string{name}, nil
	}
	if m.index.builtin[name] {
		return nil, nil
	}
	modules := m.index.match(name)
	if len(modules) == 0 {
		return nil, fmt.Errorf("load %s: %w", name, ErrNoModule)
	}
	return modules, nil
}

// begin begins to load a module, after those of before and what it needs, each unless that was begun already, and adds what it began to
// fresh. A module waits only for such as were begun before it, so that none wait for each other, also where soft dependencies go in
// a circle; there, begin returns nil. The caller holds mu.
func (m *Modules) begin(name string, urgent bool, before []*insertion, fresh *[]*insertion) *insertion {
	if in, ok := m.begun[name]; ok {
		return in
	}
	m.begun[name] = nil
	var needs []*insertion
	before = slices.Clone(before)
	for _, s := range m.index.soft[name].pre {
		modules, _ := m.resolve(s)
		for _, module := range modules {
			if in := m.begin(module, urgent, nil, fresh); in != nil {
				before = append(before, in)
			}
		}
	}
	mod, ok := m.index.modules[name]
	builtin := !ok && m.index.builtin[name]
	for _, need := range mod.needs {
		if in := m.begin(need, urgent, nil, fresh); in != nil {
			needs = append(needs, in)
		}
	}
	in := &insertion{name: name, done: make(chan struct{})}
	m.begun[name] = in
	if builtin {
		close(in.done)
		return in
	}
	*fresh = append(*fresh, in)
	go func() {
		defer close(in.done)
		defer func() {
			if v := recover(); v != nil { // of a decompressor: it must not end process 1
				in.err = fmt.Errorf("load %s: panic: %v", name, v)
			}
		}()
		if !ok {
			in.err = fmt.Errorf("load %s: %w", name, ErrNoModule)
			return
		}
		wait := func() error {
			for _, b := range before {
				<-b.done
			}
			for _, n := range needs {
				if <-n.done; n.err != nil {
					return n.err
				}
			}
			return nil
		}
		if !urgent { // what waits holds no place
			if err := wait(); err != nil {
				in.err = fmt.Errorf("load %s: %w", name, err)
				return
			}
			wait = func() error { return nil }
			m.slots <- struct{}{}
			defer func() { <-m.slots }()
			defer yield()()
		}
		if err := m.insert(filepath.Join(m.dir, mod.path), mod.drives, wait); err != nil && !errors.Is(err, unix.EEXIST) {
			in.err = fmt.Errorf("load %s: %w", name, err)
		}
	}()
	return in
}

// yield lets the processors do what is urgent first, until the function that it returns is called.
func yield() (back func()) {
	runtime.LockOSThread()
	const self = 0 // the calling thread alone: setpriority(2), C library/kernel differences
	if err := unix.Setpriority(unix.PRIO_PROCESS, self, 10); err != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		if err := unix.Setpriority(unix.PRIO_PROCESS, self, 0); err == nil {
			runtime.UnlockOSThread() // otherwise the thread ends with its goroutine
		}
	}
}

// insertModule is finit_module(2) for a plain file and init_module(2) for a compressed one, which is decompressed before wait. The
// kernel lets a module wait until the devices of all modules are there, whoever drives them, unless it is told that this one probes
// by itself (Linux kernel/module/main.c, do_init_module): so only those wait that drive devices.
func insertModule(file string, drives bool, wait func() error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	var b []byte
	plain := strings.HasSuffix(file, ".ko")
	if !plain {
		if b, err = decompress(file, f); err != nil {
			return fmt.Errorf("decompress %s: %w", file, err)
		}
	}
	if err := wait(); err != nil {
		return err
	}
	params := "async_probe"
	if drives {
		params = ""
	}
	if plain {
		return unix.FinitModule(int(f.Fd()), params, 0)
	}
	return unix.InitModule(b, params)
}

// maxModule bounds what a compressed module may grow to, bytes.
const maxModule = 256 << 20

// zstdDecoder decompresses whole modules, several at a time.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxModule), zstd.WithDecoderLowmem(true))
})

func decompress(name string, f io.Reader) ([]byte, error) {
	var r io.Reader
	switch filepath.Ext(name) {
	case ".gz":
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		r = z
	case ".xz":
		z, err := xz.NewReader(bufio.NewReaderSize(f, 1<<16), 0)
		if err != nil {
			return nil, err
		}
		r = z
	case ".zst":
		z, err := zstdDecoder()
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(f, maxModule))
		if err != nil {
			return nil, err
		}
		return z.DecodeAll(b, nil)
	default:
		return nil, errors.New("compression is not known")
	}
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, maxModule+1))
	if err == nil && n > maxModule {
		err = fmt.Errorf("more than %d bytes", maxModule)
	}
	return b.Bytes(), err
}
