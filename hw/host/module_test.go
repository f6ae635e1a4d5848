package host

import (
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

func newTestModules(t *testing.T) (*Modules, *loaded) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		p := filepath.Join(dir, "lib/modules/6.1-test", name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("modules.dep", `kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko
kernel/fs/jbd2/jbd2.ko:
kernel/lib/crc16.ko:
kernel/crypto/crc32c_generic.ko:
kernel/crypto/crc32c-intel.ko.xz:
kernel/fs/nls/nls_iso8859-1.ko:
kernel/drivers/virtio_pci.ko: kernel/drivers/virtio_ring.ko kernel/drivers/virtio.ko
kernel/drivers/virtio_ring.ko: kernel/drivers/virtio.ko
kernel/drivers/virtio.ko:
kernel/drivers/virtio_blk.ko: kernel/drivers/virtio_ring.ko kernel/drivers/virtio.ko
kernel/drivers/a.ko:
kernel/drivers/b.ko: kernel/drivers/bad.ko
kernel/drivers/bad.ko:
kernel/drivers/ipmi_msghandler.ko:
kernel/drivers/ipmi_devintf.ko: kernel/drivers/ipmi_msghandler.ko
`)
	write("modules.softdep", `# comment
softdep ext4 pre: crypto-crc32c
softdep a pre: b post: a
softdep ipmi_msghandler post: ipmi_devintf
`)
	write("modules.alias", `alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias virtio:d00000002v* virtio_blk
alias crypto-crc32c crc32c_generic
alias crypto-crc32c crc32c_intel
alias fs-ext4 ext4
alias acpi*:PNP0[a-c]-0?:* a
alias of:N*T*Cvendor,thing/x b
`)
	write("modules.builtin", "kernel/drivers/tty/serial/8250-core.ko\n")
	m, err := NewModules(dir, "6.1-test")
	if err != nil {
		t.Fatal(err)
	}
	got := &loaded{t: t, need: map[string][]string{
		"ext4": {"jbd2", "crc16", "crc32c_generic"}, "virtio_pci": {"virtio_ring", "virtio"}, "virtio_ring": {"virtio"}, "virtio_blk": {"virtio_ring", "virtio"},
		"ipmi_devintf": {"ipmi_msghandler"},
	}}
	m.insert = func(file string, drives bool, wait func() error) error {
		name := strings.SplitN(filepath.Base(file), ".", 2)[0]
		if name == "bad" || name == "crc32c-intel" {
			return fmt.Errorf("insert: %w", unix.ENODEV)
		}
		if err := wait(); err != nil {
			return err
		}
		got.add(name)
		return nil
	}
	return m, got
}

// loaded are the modules that were inserted, each after those that it needs.
type loaded struct {
	t     *testing.T
	need  map[string][]string
	mu    sync.Mutex
	names []string
}

func (l *loaded) add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.need[name] {
		if !slices.Contains(l.names, n) {
			l.t.Errorf("%s is inserted before %s, after %q", name, n, l.names)
		}
	}
	l.names = append(l.names, name)
}

// String returns the names in the order of the alphabet.
func (l *loaded) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(slices.Sorted(slices.Values(l.names)), " ")
}

func TestLoad(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
		fails error
	}{
		{names: []string{"ext4"}, want: "crc16 crc32c_generic ext4 jbd2"},
		{names: []string{"fs-ext4", "ext4"}, want: "crc16 crc32c_generic ext4 jbd2"},
		{names: []string{"nls-iso8859_1"}, want: "nls_iso8859-1"},
		{names: []string{"8250_core"}},
		{names: []string{"crc32c-intel"}, fails: unix.ENODEV},
		{names: []string{"b"}, fails: unix.ENODEV},
		{names: []string{"a"}, want: "a"}, // its soft dependency fails, and it is one of its own
		{names: []string{"ipmi_msghandler"}, want: "ipmi_devintf ipmi_msghandler"},
		{names: []string{"nobody", "virtio"}, want: "virtio", fails: ErrNoModule},
	} {
		m, got := newTestModules(t)
		err := m.Load(c.names...)
		if s := got.String(); s != c.want || !errors.Is(err, c.fails) {
			t.Errorf("Load(%q) loaded %q with %v, want %q with %v", c.names, s, err, c.want, c.fails)
		}
	}
}

func TestLoadRepeatsAnError(t *testing.T) {
	m, _ := newTestModules(t)
	first, second := m.Load("b"), m.Load("b")
	if first == nil || second == nil {
		t.Fatalf("got %v, then %v", first, second)
	}
}

// TestLoadsAtTheSameTime has modules that do not need each other wait for each other.
func TestLoadsAtTheSameTime(t *testing.T) {
	m, _ := newTestModules(t)
	var both sync.WaitGroup
	both.Add(2)
	m.insert = func(file string, drives bool, wait func() error) error {
		if strings.Contains(file, "jbd2") || strings.Contains(file, "crc16") {
			both.Done()
			both.Wait()
		}
		return nil
	}
	if err := m.Load("ext4"); err != nil {
		t.Fatal(err)
	}
}

// TestSoftDependenciesInACircle loads modules that want each other before them, each from its own side.
func TestSoftDependenciesInACircle(t *testing.T) {
	for range 100 {
		m, got := newTestModules(t)
		m.index.soft["crc16"], m.index.soft["jbd2"] = softdep{pre: []string{"jbd2"}}, softdep{pre: []string{"crc16"}}
		var both sync.WaitGroup
		for _, name := range []string{"crc16", "jbd2"} {
			both.Go(func() {
				if err := m.Load(name); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if s := got.String(); s != "crc16 jbd2" {
			t.Fatalf("loaded %q", s)
		}
	}
}

func TestPanicOfADecompressor(t *testing.T) {
	m, _ := newTestModules(t)
	m.insert = func(string, bool, func() error) error { panic("bad stream") }
	if err := m.Load("ext4"); err == nil || !strings.Contains(err.Error(), "bad stream") {
		t.Fatalf("got %v", err)
	}
}

func TestExistingModuleIsLoaded(t *testing.T) {
	m, _ := newTestModules(t)
	m.insert = func(string, bool, func() error) error { return unix.EEXIST }
	if err := m.Load("ext4"); err != nil {
		t.Fatal(err)
	}
}

func TestKernelWithoutModules(t *testing.T) {
	m, err := NewModules(t.TempDir(), "6.1-monolithic")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Filesystem("proc"); err != nil {
		t.Errorf("a filesystem that the kernel has: %v", err)
	}
	if err := m.Load("ext4"); !errors.Is(err, ErrNoModule) {
		t.Errorf("got %v", err)
	}
}

func TestColdplugGoesOnWhileDevicesAppear(t *testing.T) {
	m, got := newTestModules(t)
	sys := fstest.MapFS{
		"bus/pci/devices/0000:00:01.0/modalias": {Data: []byte("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00\n")},
		"bus/pci/devices/0000:00:02.0/modalias": {Data: []byte("pci:v00008086d00001237sv00000000sd00000000bc06sc00i00\n")},
		"bus/virtio/drivers":                    {Mode: os.ModeDir},
	}
	inner := m.insert
	m.insert = func(file string, drives bool, wait func() error) error {
		if strings.HasSuffix(file, "virtio_pci.ko") {
			sys["bus/virtio/devices/virtio0/modalias"] = &fstest.MapFile{Data: []byte("virtio:d00000002v00001AF4\n")}
		}
		return inner(file, drives, wait)
	}
	n, err := m.Coldplug(t.Context(), nil, sys)
	if err != nil || n != 4 {
		t.Fatalf("loaded %d with %v", n, err)
	}
	if s := got.String(); s != "virtio virtio_blk virtio_pci virtio_ring" {
		t.Fatalf("loaded %q", s)
	}
}

// TestBetterDriverFirst has two drivers that fit a device: they are loaded in the order of modules.alias, also if the first is slow.
func TestBetterDriverFirst(t *testing.T) {
	m, got := newTestModules(t)
	m.index.aliases["pci:v00008086d"] = []alias{{"pci:v00008086d*", "crc16"}, {"pci:v00008086d*", "jbd2"}}
	got.need["jbd2"] = []string{"crc16"}
	inner := m.insert
	m.insert = func(file string, drives bool, wait func() error) error {
		if strings.Contains(file, "crc16") {
			for range 1000 {
				runtime.Gosched()
			}
		}
		return inner(file, drives, wait)
	}
	n, failed := m.load(m.drivers("pci:v00008086d00007010"))
	if err := errors.Join(failed[0]...); n != 2 || err != nil {
		t.Fatalf("loaded %d with %v", n, err)
	}
}

// TestDiskControllersFirst: while every place is taken by modules that take long, the driver of a disk controller is loaded, with all
// that it needs. Only those modules that drive devices are said to.
func TestDiskControllersFirst(t *testing.T) {
	m, got := newTestModules(t)
	for range cap(m.slots) {
		m.slots <- struct{}{}
	}
	inner := m.insert
	m.insert = func(file string, drives bool, wait func() error) error {
		if want := strings.HasSuffix(file, "virtio_pci.ko"); drives != want {
			t.Errorf("%s: drives is %v", file, drives)
		}
		return inner(file, drives, wait)
	}
	sys := fstest.MapFS{"bus/pci/devices/0000:00:01.0/modalias": {Data: []byte("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00\n")}}
	if n, err := m.Coldplug(t.Context(), nil, sys); n != 3 || err != nil {
		t.Fatalf("loaded %d with %v", n, err)
	}
	if s := got.String(); s != "virtio virtio_pci virtio_ring" {
		t.Fatalf("loaded %q", s)
	}
}

// TestWithhold: drivers below a directory are kept from their devices, and what they need with them, until they are wanted.
func TestWithhold(t *testing.T) {
	m, got := newTestModules(t)
	sys := fstest.MapFS{
		"bus/pci/devices/0000:00:01.0/modalias": {Data: []byte("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00\n")},
		"bus/virtio/devices/virtio0/modalias":   {Data: []byte("virtio:d00000002v00001AF4\n")},
	}
	m.Withhold("kernel/drivers/")
	if n, err := m.Coldplug(t.Context(), nil, sys); n != 0 || err != nil {
		t.Fatalf("loaded %d with %v", n, err)
	}
	if err := m.Load("virtio_pci"); err != nil {
		t.Fatal(err)
	}
	if s := got.String(); s != "virtio virtio_pci virtio_ring" {
		t.Fatalf("by name: loaded %q", s)
	}
	m.Withhold("kernel/drivers/net/", "kernel/fs/")
	if n, err := m.Coldplug(t.Context(), nil, sys); n != 1 || err != nil {
		t.Fatalf("loaded %d with %v", n, err)
	}
	if s := got.String(); s != "virtio virtio_blk virtio_pci virtio_ring" {
		t.Fatalf("loaded %q", s)
	}
}

// TestLoadInOrder: drivers that are withheld are loaded one after the other by their names, whatever the order of their devices and
// however long one takes, and no others.
func TestLoadInOrder(t *testing.T) {
	m, got := newTestModules(t)
	m.Withhold("kernel/fs/")
	m.index.aliases["platform:x"] = []alias{{"platform:x1", "nls_iso8859_1"}, {"platform:x2", "jbd2"}, {"platform:x3", "crc32c_intel"}}
	m.index.aliases["platform:y"] = []alias{{"platform:y*", "ext4"}}
	sys := fstest.MapFS{}
	for _, a := range []string{"x1", "x2", "x3", "y1", "y2"} {
		sys["bus/platform/devices/"+a+"/modalias"] = &fstest.MapFile{Data: []byte("platform:" + a + "\n")}
	}
	inner := m.insert
	m.insert = func(file string, drives bool, wait func() error) error {
		if strings.Contains(file, "ext4") || strings.Contains(file, "jbd2") {
			for range 1000 {
				runtime.Gosched()
			}
		}
		return inner(file, drives, wait)
	}
	if err := m.LoadInOrder(sys, "kernel/fs/"); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, n := range got.names {
		if n == "ext4" || n == "jbd2" || n == "nls_iso8859-1" || strings.Contains(n, "intel") {
			order = append(order, n)
		}
	}
	if want := []string{"jbd2", "ext4", "nls_iso8859-1"}; !slices.Equal(order, want) { // ext4 needs jbd2
		t.Errorf("loaded %q, want %q", order, want)
	}
}

func TestFollow(t *testing.T) {
	m, got := newTestModules(t)
	sys := fstest.MapFS{"bus/virtio/devices/virtio0/modalias": {Data: []byte("virtio:d00000002v00001AF4\n")}}
	events := make(chan Uevent, 4)
	events <- Uevent{Action: "remove", Env: map[string]string{"MODALIAS": "fs-ext4"}}
	events <- Uevent{Action: "add", Env: map[string]string{"MODALIAS": "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00"}}
	events <- Uevent{Action: Missed}
	close(events)
	m.Follow(t.Context(), nil, sys, events)
	if s := got.String(); s != "virtio virtio_blk virtio_pci virtio_ring" {
		t.Fatalf("loaded %q", s)
	}
}

func TestMatch(t *testing.T) {
	m, _ := newTestModules(t)
	for s, want := range map[string][]string{
		"acpi:PNP0b-03:X":            {"a"},
		"acpi:PNP0d_03:X":            nil,
		"of:NcpuTfooCvendor,thing/x": {"b"},
		"":                           nil,
	} {
		if got := m.index.match(s); !reflect.DeepEqual(got, want) {
			t.Errorf("match(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		p, s string
		want bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyy", false},
		{"[!a]b", "ab", false}, {"[!a]b", "cb", true}, {"[]]", "]", true}, {"[a", "[a", true}, {`\*`, "*", true}, {`\*`, "a", false},
		{"?", "", false}, {"**", "abc", true}, {"*a", "aaaa", true}, {"[0-9]*", "5x", true}, {`a\`, `a\`, true},
	} {
		if got := glob(c.p, c.s); got != c.want {
			t.Errorf("glob(%q, %q) = %v", c.p, c.s, got)
		}
	}
}

func FuzzModuleIndex(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko\n", "alias pci:v*[0-9]d* a\n", "softdep a pre: b post: c\n", "pci:v1d2")
	f.Add(":", "alias [ a\nalias \\ b", "softdep", "[")
	f.Fuzz(func(t *testing.T, dep, alias, soft, s string) {
		x, err := readModuleIndex(fstest.MapFS{"modules.dep": {Data: []byte(dep)}, "modules.alias": {Data: []byte(alias)}, "modules.softdep": {Data: []byte(soft)}})
		if err == nil {
			x.match(s)
		}
	})
}

func TestDecompress(t *testing.T) {
	want := strings.Repeat("module ", 1000)
	dir := t.TempDir()
	plain := filepath.Join(dir, "m.ko")
	if err := os.WriteFile(plain, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
	gz, err := os.Create(plain + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	g := gzip.NewWriter(gz)
	_, _ = g.Write([]byte(want))
	_ = g.Close()
	_ = gz.Close()
	zs, err := os.Create(plain + ".zst")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(zs)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write([]byte(want))
	_ = z.Close()
	_ = zs.Close()
	names := []string{".gz", ".zst"}
	// The way in which the kernel's build compresses modules (scripts/Makefile.modinst).
	if out, err := exec.Command("xz", "--check=crc32", "--lzma2=dict=1MiB", "-k", plain).CombinedOutput(); err == nil {
		names = append(names, ".xz")
	} else {
		needs(t, "xz: "+string(out))
	}
	for _, n := range names {
		f, err := os.Open(plain + n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decompress(plain+n, f)
		_ = f.Close()
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", n, len(got), err)
		}
	}
}

func needs(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatalf("needs %s", what)
	}
	t.Skipf("needs %s", what)
}
