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
	"strings"
	"sync"

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
// In names - and _ are the same. A module is tried once; later calls return the first result. All methods may be called from
// several goroutines; they wait for each other.
type Modules struct {
	dir   string
	index *moduleIndex
	// insert puts one module into the kernel.
	insert func(file string) error

	mu    sync.Mutex
	tried map[string]error // by module name; being loaded: nil
}

// NewModules reads the index of the modules in root/lib/modules/release. release is the kernel's, as Release returns it. Where
// there is no modules.dep the kernel has no modules: Load then knows no name, and devices have the drivers they have.
func NewModules(root, release string) (*Modules, error) {
	dir := filepath.Join(root, "lib/modules", release)
	x, err := readModuleIndex(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("read modules of kernel %s: %w", release, err)
	}
	return &Modules{dir: dir, index: x, insert: insertModule, tried: map[string]error{}}, nil
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
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, name := range names {
		if _, err := m.load(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// filesystemNeeds are modules that a filesystem asks the kernel for when it is mounted, and that nobody would load: Linux
// fs/fat (Kconfig FAT_DEFAULT_CODEPAGE, FAT_DEFAULT_IOCHARSET), fs/ext4 (metadata checksums).
var filesystemNeeds = map[string][]string{
	"vfat": {"nls_cp437", "nls_ascii", "nls_iso8859-1", "nls_utf8"},
	"ext4": {"crc32c"},
}

// Filesystem loads what is needed to mount a filesystem of the given type. It is done if the kernel knows the type already.
func (m *Modules) Filesystem(fstype string) error {
	for _, n := range filesystemNeeds[fstype] {
		_ = m.Load(n) // where it is missing the kernel may have it built in without a name
	}
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

// LoadModalias loads the drivers that fit a device's modalias (sysfs file modalias, uevent variable MODALIAS). It returns
// how many modules were new. No driver is not an error. The errors are those of drivers that did not load.
func (m *Modules) LoadModalias(modalias string) (loaded int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, name := range m.index.match(modalias) {
		n, err := m.loadModule(name)
		loaded += n
		if err != nil {
			errs = append(errs, err)
		}
	}
	return loaded, errors.Join(errs...)
}

// Coldplug loads the drivers of all devices that are there, and again of those that appear thereby, until nothing new is
// loaded. sys is /sys. A driver that does not load is logged and skipped: its device may be of no use here. It returns how
// many modules were loaded. log may be nil.
func (m *Modules) Coldplug(ctx context.Context, log *slog.Logger, sys fs.FS) (int, error) {
	seen := map[string]bool{}
	total := 0
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		aliases, err := modaliases(sys)
		if err != nil {
			return total, fmt.Errorf("find devices: %w", err)
		}
		fresh := 0
		for _, a := range aliases {
			if seen[a] {
				continue
			}
			seen[a] = true
			n, err := m.LoadModalias(a)
			fresh += n
			note(ctx, log, a, n, err)
		}
		if fresh == 0 {
			return total, nil
		}
		total += fresh
	}
}

// Follow loads the drivers of devices that appear, until the channel is closed or ctx ends. After a gap in the events it
// looks at all devices again. sys is /sys, log may be nil.
func (m *Modules) Follow(ctx context.Context, log *slog.Logger, sys fs.FS, events <-chan Uevent) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			switch {
			case e.Action == Missed:
				_, _ = m.Coldplug(ctx, log, sys)
			case e.Action == "add" && e.Env["MODALIAS"] != "":
				n, err := m.LoadModalias(e.Env["MODALIAS"])
				note(ctx, log, e.Env["MODALIAS"], n, err)
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

// load loads a name: a module's, one built in, or an alias. The caller holds mu.
func (m *Modules) load(name string) (loaded int, err error) {
	name = normal(name)
	if _, ok := m.index.modules[name]; ok {
		return m.loadModule(name)
	}
	if m.index.builtin[name] {
		return 0, nil
	}
	names := m.index.match(name)
	if len(names) == 0 {
		return 0, fmt.Errorf("load %s: %w", name, ErrNoModule)
	}
	var errs []error
	good := false
	for _, n := range names {
		k, err := m.loadModule(n)
		loaded += k
		good = good || err == nil
		if err != nil {
			errs = append(errs, err)
		}
	}
	if good {
		return loaded, nil
	}
	return loaded, errors.Join(errs...)
}

// loadModule loads one module with what it needs, and counts what is new. The caller holds mu.
func (m *Modules) loadModule(name string) (loaded int, err error) {
	if err, ok := m.tried[name]; ok {
		return 0, err
	}
	mod, ok := m.index.modules[name]
	if !ok {
		if m.index.builtin[name] {
			return 0, nil
		}
		return 0, fmt.Errorf("load %s: %w", name, ErrNoModule)
	}
	m.tried[name] = nil // ends a circle of soft dependencies
	soft := m.index.soft[name]
	for _, s := range soft.pre {
		n, _ := m.load(s)
		loaded += n
	}
	for _, d := range mod.needs {
		n, err := m.loadModule(d)
		loaded += n
		if err != nil {
			err = fmt.Errorf("load %s: %w", name, err)
			m.tried[name] = err
			return loaded, err
		}
	}
	if err := m.insert(filepath.Join(m.dir, mod.path)); err != nil && !errors.Is(err, unix.EEXIST) {
		err = fmt.Errorf("load %s: %w", name, err)
		m.tried[name] = err
		return loaded, err
	}
	loaded++
	for _, s := range soft.post {
		n, _ := m.load(s)
		loaded += n
	}
	return loaded, nil
}

// insertModule is finit_module(2) for a plain file and init_module(2) for a compressed one.
func insertModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if strings.HasSuffix(file, ".ko") {
		return unix.FinitModule(int(f.Fd()), "", 0)
	}
	b, err := decompress(file, f)
	if err != nil {
		return fmt.Errorf("decompress %s: %w", file, err)
	}
	return unix.InitModule(b, "")
}

// maxModule bounds what a compressed module may grow to, bytes.
const maxModule = 256 << 20

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
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
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
