//go:build bench

package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/forge/image"
	"gprovision/hw/filesystem"
	"gprovision/model/release"
	"gprovision/model/signature"
)

// TestBench prints the tables of docs/benchmarks.md. It runs as root, and takes long: make bench.
// GPROV_BENCH_ROUNDS (default 5) and GPROV_BENCH_BUILDS (default 3) say how often each thing is measured; GPROV_BENCH_ROOT is
// a tar of another root filesystem, GPROV_BENCH_IMAGE an image that is there already; then nothing is built.
func TestBench(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the benchmarks mount filesystems: run as root")
	}
	b := newBench(t)
	fmt.Printf("\nMachine: %s\nImage: %s, %d MB unpacked in %d blocks, %d MB packed\nGo: %s; xz: %s; tar: %s\n", machine(), b.name, b.decoded/1e6, b.blocks,
		fileSize(t, b.image)/1e6, runtime.Version(), firstLine("xz", "--version"), firstLine("tar", "--version"))
	rounds, builds := benchCount(t, "GPROV_BENCH_ROUNDS", 5), benchCount(t, "GPROV_BENCH_BUILDS", 3)
	q := quote(b.image)
	sub := func(s string) func(string) string {
		return func(dir string) string { return strings.ReplaceAll(s, "DIR", quote(dir)) }
	}
	restore := []*contender{
		{name: "gprovision: decode and unpack", child: "restore"},
		{name: "tar -xJf", shell: sub("tar -C DIR --numeric-owner --xattrs --xattrs-include='*' --acls -xpJf " + q + " && sync -f DIR")},
		{name: "xz -T0 -dc, tar -x", shell: sub("xz -T0 -dc " + q + " | tar -C DIR --numeric-owner --xattrs --xattrs-include='*' --acls -xpf - && sync -f DIR")},
	}
	if swu := b.swupdate(); swu != "" {
		restore = append(restore, &contender{name: "swupdate, archive handler", shell: sub(swu)})
	}
	b.compare("Restore to a fresh ext4 loop device, with the final sync", rounds, true, restore)
	check := []*contender{
		{name: "gprovision: signature", child: "signature"},
		{name: "minisign -V", shell: sub("minisign -V -q -p " + quote(b.key) + " -m " + q)},
	}
	if _, err := exec.LookPath("minisign"); err != nil {
		check = check[:1]
	}
	b.compare("Signature of the whole file, before a restore", rounds, false, check)
	b.compare("Validation: every check of the file, nothing written", rounds, false, []*contender{
		{name: "gprovision: decode", child: "decode"},
		{name: "xz -T0 -t", shell: sub("xz -T0 -t " + q)},
		{name: "xz -T1 -t", shell: sub("xz -T1 -t " + q)},
	})
	if builds == 0 || b.root == "" {
		return
	}
	tree := filepath.Join(b.dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	b.sh("tar -C " + quote(tree) + " --numeric-owner --xattrs --xattrs-include='*' -xpf " + quote(b.root))
	b.build = tree
	b.compare("Build of an image from a directory", builds, false, []*contender{
		{name: "gprovision: scan, pack, compress", child: "build"},
		{name: "tar, xz -T0 -6", shell: sub("tar -C " + quote(tree) + " --numeric-owner --xattrs --xattrs-include='*' --acls -cf - . | xz -T0 -6 --check=sha256 > " + quote(filepath.Join(b.dir, "theirs.xz")))},
	})
}

// TestBenchChild is what a benchmark measures of ours, as a process of its own.
func TestBenchChild(t *testing.T) {
	args := strings.Split(os.Getenv("GPROV_BENCH_CHILD"), "\n")
	if len(args) != 5 {
		t.Skip("started by TestBench")
	}
	ctx := t.Context()
	what, file, target, key, tree := args[0], args[1], args[2], args[3], args[4]
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	switch what {
	case "restore", "decode":
		r, err := release.NewReader(ctx, f, st.Size(), runtime.NumCPU())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if what == "decode" {
			_, err = io.Copy(io.Discard, struct{ io.Reader }{r})
		} else {
			_, err = filesystem.Unpack(ctx, target, r, filesystem.UnpackOptions{Sync: true})
		}
		if err != nil {
			t.Fatal(err)
		}
	case "signature":
		text, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		k, err := signature.ParsePublicKey(string(text))
		if err != nil {
			t.Fatal(err)
		}
		sig, err := os.ReadFile(file + ".minisig")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signature.Verify([]signature.PublicKey{k}, sig, f); err != nil {
			t.Fatal(err)
		}
	case "build":
		name, err := release.ParseName("WIDGET.LNX.SHINY.2026-11-22.0001.upd", "WIDGET.LNX.SHINY.")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := image.Build(ctx, slog.New(slog.DiscardHandler), image.Options{RootFS: tree, Out: target, Name: name, Time: time.Unix(1_700_000_000, 0),
			NoSBOM: true, AllowIncomplete: true}); err != nil {
			t.Fatal(err)
		}
	case "erase":
		if err := overwriteDevice(ctx, tree); err != nil {
			t.Fatal(err)
		}
	default:
		t.Fatalf("no benchmark %q", what)
	}
}

// bench is a run of all benchmarks on one image.
type bench struct {
	t       *testing.T
	dir     string
	name    string
	root    string // tar
	image   string
	key     string // public
	build   string // tree
	decoded int64
	blocks  int
}

// contender is one way to do a thing.
type contender struct {
	name  string
	child string                  // ours
	shell func(dir string) string // or a command
	wall  []time.Duration
	cpu   []time.Duration
	peak  []int64 // bytes resident, all processes together
}

func newBench(t *testing.T) *bench {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cache, err := OpenCache("")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: t.TempDir(), root: os.Getenv("GPROV_BENCH_ROOT")}
	b.image = os.Getenv("GPROV_BENCH_IMAGE")
	if b.root == "" && b.image == "" {
		if b.root, err = BenchRoot(t.Context(), log, cache); err != nil {
			t.Fatal(err)
		}
	}
	if b.image == "" {
		key := Key("bench-image-1", b.root, fmt.Sprint(fileSize(t, b.root)))
		b.image, err = cache.Get(t.Context(), "bench.tar.xz", key, func(path string) error {
			b.sh("xz -T0 -6 --check=sha256 --block-size=8MiB -c " + quote(b.root) + " > " + quote(path))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b.name = filepath.Base(b.image)
	// Every contender finds the file in the page cache.
	f, err := os.Open(b.image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(io.Discard, f); err != nil {
		t.Fatal(err)
	}
	r, err := release.NewReader(t.Context(), f, fileSize(t, b.image), 1)
	if err != nil {
		t.Fatal(err)
	}
	b.decoded, b.blocks = r.Size(), r.Blocks()
	r.Close()

	k, err := signature.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	sig, err := k.Sign(f, "image bench")
	if err != nil {
		t.Fatal(err)
	}
	// The signature lies beside the image, so the image gets a name here.
	named := filepath.Join(b.dir, "image.tar.xz")
	if err := os.Symlink(b.image, named); err != nil {
		t.Fatal(err)
	}
	b.image = named
	b.key = filepath.Join(b.dir, "bench.pub")
	for name, data := range map[string][]byte{named + ".minisig": sig, b.key: k.Public().Text()} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// BenchRoot is DebianRoot with all modules of the kernel and all documentation: about the size of a small appliance's system.
func BenchRoot(ctx context.Context, log *slog.Logger, cache *Cache) (string, error) {
	return debootstrap(ctx, log, cache, "debian-"+debianSuite+"-large.tar", "tar", benchArguments())
}

func benchArguments() []string {
	return slices.DeleteFunc(debianArguments(), func(a string) bool {
		return strings.HasPrefix(a, "--dpkgopt=path-exclude=/lib/modules/") || strings.HasPrefix(a, "--dpkgopt=path-exclude=/usr/")
	})
}

// OtherInitramfs puts what Debian's own tools make for the system of BenchRoot into the directory dir: vmlinuz, and the archives
// initramfs-tools and dracut, both for any machine, as our boot artifact is.
func OtherInitramfs(ctx context.Context, log *slog.Logger, dir string) error {
	cache, err := OpenCache("")
	if err != nil {
		return err
	}
	args := benchArguments()
	i := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "--include=") })
	args[i] += ",initramfs-tools,dracut-core,cpio"
	args = append(args, `--customize-hook=chroot "$1" sh -ec 'v=$(ls /lib/modules); mkinitramfs -o /boot/initramfs-tools $v; dracut --quiet --no-hostonly --kver $v /boot/dracut; cp /boot/vmlinuz-$v /boot/vmlinuz'`)
	root, err := debootstrap(ctx, log, cache, "debian-"+debianSuite+"-large-initramfs.tar", "tar", args)
	if err != nil {
		return err
	}
	return run(ctx, log, "tar", "tar", "-C", dir, "--strip-components=2", "-xf", root, "./boot/vmlinuz", "./boot/initramfs-tools", "./boot/dracut")
}

// swupdate makes an update for swupdate's archive handler and returns the command that installs it into DIR, or "" where swupdate
// or what signs for it is missing. Debian's build takes signed updates only.
func (b *bench) swupdate() string {
	for _, p := range []string{"swupdate", "cpio", "openssl"} {
		if _, err := exec.LookPath(p); err != nil {
			fmt.Printf("\nswupdate is left out: %s is not installed\n", p)
			return ""
		}
	}
	dir := filepath.Join(b.dir, "swu")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	f, err := os.Open(b.image)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		b.t.Fatal(err)
	}
	target := filepath.Join(b.dir, "mnt")
	text := fmt.Sprintf(`software = { version = "1.0"; description = "bench"; hardware-compatibility: [ "1.0" ];
 files: ( { filename = "image.tar.xz"; type = "archive"; sha256 = "%x"; path = "%s"; installed-directly = true; preserve-attributes = true; } ); }
`, h.Sum(nil), target)
	if err := os.WriteFile(filepath.Join(dir, "sw-description"), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.sh(`cd ` + quote(dir) + ` && cp ` + quote(b.image) + ` image.tar.xz
openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -subj /CN=bench -addext extendedKeyUsage=emailProtection -days 30 2>/dev/null
openssl cms -sign -in sw-description -out sw-description.sig -signer c.pem -inkey k.pem -outform DER -nosmimecap -binary
printf 'sw-description\nsw-description.sig\nimage.tar.xz\n' | cpio -o -H crc > x.swu 2>/dev/null && rm image.tar.xz`)
	return "swupdate -H bench:1.0 -k " + quote(filepath.Join(dir, "c.pem")) + " -i " + quote(filepath.Join(dir, "x.swu")) + " >/dev/null 2>&1 && sync -f DIR"
}

func (b *bench) sh(script string) {
	b.t.Helper()
	if out, err := exec.CommandContext(b.t.Context(), "bash", "-ec", "set -o pipefail\n"+script).CombinedOutput(); err != nil {
		b.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// compare measures the contenders in turn, rounds times, and prints a table with the medians. The first is ours.
func (b *bench) compare(title string, rounds int, mounted bool, list []*contender) {
	b.t.Helper()
	if rounds == 0 {
		return
	}
	for range rounds {
		for _, c := range list {
			b.measure(c, mounted)
		}
	}
	fmt.Printf("\n### %s\n\nMedians of %d, one after the other in turn.\n\n| | wall | CPU | peak memory | wall, ours = 1 | CPU, ours = 1 |\n|---|---|---|---|---|---|\n", title, rounds)
	for _, c := range list {
		fmt.Printf("| %s | %.2f s | %.2f s | %d MB | %.2f | %.2f |\n", c.name, median(c.wall).Seconds(), median(c.cpu).Seconds(), median(c.peak)/1e6,
			median(c.wall).Seconds()/median(list[0].wall).Seconds(), median(c.cpu).Seconds()/median(list[0].cpu).Seconds())
	}
}

func (b *bench) measure(c *contender, mounted bool) {
	b.t.Helper()
	target := filepath.Join(b.dir, "mnt")
	if err := os.MkdirAll(target, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if mounted {
		disk := filepath.Join(b.dir, "disk")
		b.sh("rm -f " + quote(disk) + "; truncate -s 4G " + quote(disk) + "; mke2fs -t ext4 -F -q -m 1 " + quote(disk) + "; mount -o loop " + quote(disk) + " " + quote(target))
		defer b.sh("umount " + quote(target) + "; rm -f " + quote(disk))
	} else {
		defer b.sh("rm -rf " + quote(target))
	}
	b.sh("sync")
	var cmd *exec.Cmd
	if c.child != "" {
		self, err := os.Executable()
		if err != nil {
			b.t.Fatal(err)
		}
		cmd = exec.Command(self, "-test.run=^TestBenchChild$", "-test.v=false")
		cmd.Env = append(os.Environ(), "GPROV_BENCH_CHILD="+strings.Join([]string{c.child, b.image, target, b.key, b.build}, "\n"))
	} else {
		cmd = exec.Command("bash", "-c", c.shell(target))
		cmd.Env = append(os.Environ(), "LC_ALL=C")
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	stop, peak := make(chan struct{}), make(chan int64)
	go func() { peak <- watchMemory(cmd.Process.Pid, stop) }()
	err := cmd.Wait()
	c.wall = append(c.wall, time.Since(begin))
	close(stop)
	c.peak = append(c.peak, <-peak)
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", c.name, err, out.String())
	}
	c.cpu = append(c.cpu, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
}

// watchMemory returns the sum of the greatest resident sizes of all processes of a session, as far as looking at them 20 times a
// second shows it.
func watchMemory(session int, stop <-chan struct{}) int64 {
	peaks := map[string]int64{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		list, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range list {
			pid, err := strconv.Atoi(filepath.Base(p))
			if err != nil {
				continue
			}
			if s, err := unix.Getsid(pid); err != nil || s != session {
				continue
			}
			status, err := os.ReadFile(p + "/status")
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(status)) {
				if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
					n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
					peaks[p] = max(peaks[p], n<<10)
				}
			}
		}
		select {
		case <-stop:
			var sum int64
			for _, n := range peaks {
				sum += n
			}
			return sum
		case <-tick.C:
		}
	}
}

func median[T time.Duration | int64](list []T) T {
	s := slices.Sorted(slices.Values(list))
	return s[len(s)/2]
}

func benchCount(t *testing.T, name string, standard int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return standard
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: want a number", name, s)
	}
	return n
}

func fileSize(t *testing.T, name string) int64 {
	t.Helper()
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

func firstLine(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil && !errors.Is(err, exec.ErrNotFound) {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

func machine() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	model := "unknown processor"
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			model = strings.TrimSpace(v)
			break
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(load), " ")
	var u unix.Utsname
	_ = unix.Uname(&u)
	return fmt.Sprintf("%d x %s, Linux %s, load at the start %s, %s", runtime.NumCPU(), model, unix.ByteSliceToString(u.Release[:]), first, time.Now().UTC().Format(time.DateOnly))
}
