package lab_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/vishvananda/netns"
	"golang.org/x/term"

	"gprovision/hw/block"
	"gprovision/lab"
	"gprovision/model/bootimage"
	"gprovision/model/grub"
)

// loopUnit is a unit without a machine of its own: its disks are files behind loop devices, and init of its boot artifact runs as
// process 1 of namespaces of its own, on the kernel of the host. It sees a /sys with these disks and one network port that leads
// nowhere, and no device but them. Nothing in init knows of it. A boot takes seconds, where a virtual machine takes minutes.
//
// The firmware is BIOS: GRUB is played by GRUB's own code for disks (grub-fstest) and by what our configurations say.
type loopUnit struct {
	config    lab.Config
	dir       string   // with events.jsonl, what it said in all boots
	initramfs string   // directory
	kernel    string   // file, of the boot artifact
	initrd    string   // file
	disks     []string // files, in the order of config

	// station is where the unit's network port leads; nil: nowhere.
	station *lab.Network
	port    *os.File // the host's end of the event port, while the unit runs
	loops   []string // its disks' devices, while it runs
	boots   int
}

// needLoop skips where no loopUnit can run.
func needLoop(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "loop devices and namespaces need root")
	}
	for _, p := range [][2]string{{"grub-fstest", "grub-common"}, {"qemu-storage-daemon", "qemu-system-common"}, {"setpriv", "util-linux"}, {"losetup", "mount"}, {"bsdtar", "libarchive-tools"}} {
		if _, err := exec.LookPath(p[0]); err != nil {
			skip(t, fmt.Sprintf("%s is not installed (Debian package %s)", p[0], p[1]))
		}
	}
}

// newLoopUnit unpacks the boot artifact, a unified kernel image, below dir, which is made.
func newLoopUnit(t *testing.T, dir string, c lab.Config, artifact string, disks ...string) *loopUnit {
	t.Helper()
	u := &loopUnit{config: c, dir: dir, initramfs: filepath.Join(dir, "initramfs"), kernel: filepath.Join(dir, "vmlinuz"), initrd: filepath.Join(dir, "initrd"), disks: disks}
	for _, d := range []string{u.initramfs, filepath.Join(dir, "root")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(artifact)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	uki, err := bootimage.ParseUKI(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	for path, r := range map[string]io.Reader{u.kernel: uki.Linux(), u.initrd: uki.Initrd()} {
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(out, r)
		if err := errors.Join(err, out.Close()); err != nil {
			t.Fatal(err)
		}
	}
	// The modules are of another kernel than the one that runs.
	run(t, "bsdtar", "-xf", u.initrd, "-C", u.initramfs, "--exclude", "usr/lib/modules/*")
	return u
}

// namespaces is the shell program that becomes init. Its arguments are the directory of the unit, the event port, the kernel's
// arguments, the port's MAC address, the strings of SMBIOS, and two for each disk: the loop device and the serial number. What init
// could do to the host it cannot: load modules, set the clock, change settings of the kernel.
const namespaces = `
set -e
R=$1/root events=$2 cmdline=$3 mac=$4 maker=$5 product=$6 serial=$7 uuid=$8 station=$9 cable=${10}
if [ -n "$station" ]; then # the namespace of a bridge
  ip link add eth0 address "$mac" type veth peer name "$cable" netns "$station"
  nsenter --net="$station" ip link set "$cable" master br0 up
fi
mount --make-rprivate /
while read -r device target rest; do # of other tests: here they would stay mounted
  case $device in /dev/loop*) umount -l "$target" ;; esac
done </proc/mounts
printf '%s\n' "$cmdline" >"$1/cmdline"
mount -t tmpfs -o mode=755 root "$R"
cp -a "$1/initramfs/." "$R/"
shift 10
mount -t proc proc "$R/proc"
mount --bind "$R/../cmdline" "$R/proc/cmdline"
mount --bind "$R/proc/sys" "$R/proc/sys"
mount -o remount,bind,ro "$R/proc/sys"
mount -t tmpfs -o mode=755 sys "$R/sys"
mount -t tmpfs -o mode=755 dev "$R/dev"
cd "$R/sys"
dmi=class/dmi/id port=class/virtio-ports/vport0p1 net=devices/pci0000:00/0000:00:09.0/virtio9/net/eth0
mkdir -p .host block bus dev/block class/net $dmi $port $net "$R/dev/.host"
mount --bind /sys .host
mount -o remount,bind,ro .host
mount --bind /dev "$R/dev/.host"
for n in null zero random urandom; do cp -a /dev/$n "$R/dev/"; done
echo org.gprovision.events >$port/name
: >"$R/dev/vport0p1"
mount --bind "$events" "$R/dev/vport0p1"
echo "$maker" | tee $dmi/sys_vendor >$dmi/board_vendor
echo "$product" | tee $dmi/product_name >$dmi/board_name
echo "$serial" >$dmi/product_serial
echo "Not Specified" >$dmi/product_sku # QEMU's table has none, and init of a virtual machine reads that
echo "$uuid" >$dmi/product_uuid
echo 1 >$net/type
echo "$mac" >$net/address
ln -s ../../$net class/net/eth0
i=0
while [ $# -gt 0 ]; do
  i=$((i+1)) l=$1 real=/sys/.host/devices/virtual/block/$1
  d=devices/pci0000:00/0000:00:0$i.0/virtio$i/block/$l
  mkdir -p $d
  for a in size ro removable queue; do ln -s $real/$a $d/$a; done
  echo "$2" >$d/serial
  ln -s ../$d block/$l
  ln -s $real dev/block/$(cat /sys/block/$l/dev)
  ln -s .host/$l "$R/dev/$l"
  for p in 1 2 3 4; do # they come and go
    ln -s $real/${l}p$p $d/${l}p$p
    ln -s .host/${l}p$p "$R/dev/${l}p$p"
  done
  shift 2
done
exec setpriv --bounding-set=-sys_module,-sys_time chroot "$R" /init
`

// The ends of a boot.
const (
	endCut      = "power cut"
	endReboot   = "reboot"
	endPowerOff = "power off"
)

// boot switches the unit on with these arguments of the kernel. It ends when init reboots or powers off, or when see, which gets each
// event, returns true: then the power is cut. The disks are attached meanwhile only: what a boot leaves in the host's memory is written to
// them, or lost.
func (u *loopUnit) boot(t *testing.T, cmdline string, see func(lab.Event) bool) (end string) {
	t.Helper()
	port, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	defer slave.Close()
	u.port = port
	if _, err := term.MakeRaw(int(slave.Fd())); err != nil {
		t.Fatal(err)
	}
	s := u.config.SMBIOS
	station, cable := "", ""
	if u.station != nil {
		var ns netns.NsHandle
		if err := u.station.Visit(func() (err error) { ns, err = netns.Get(); return err }); err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		u.boots++
		station, cable = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns)), fmt.Sprint("unit", u.boots)
	}
	args := []string{"-c", namespaces, "sh", u.dir, slave.Name(), cmdline, u.config.MAC, s.Manufacturer, s.Product, s.Serial, s.UUID, station, cable}
	u.loops = nil
	for i, d := range u.disks {
		loop := attach(t, d)
		defer detach(t, loop)
		u.loops = append(u.loops, loop)
		args = append(args, filepath.Base(loop), u.config.Disks[i].Serial)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true, Pdeathsig: syscall.SIGKILL,
	}
	events, err := os.OpenFile(filepath.Join(u.dir, "events.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
		_ = slave.Close() // the reader gets what is left, and then an error
	}()
	var said []string
	for lines := bufio.NewScanner(port); lines.Scan(); {
		said = append(said, lines.Text())
		fmt.Fprintln(events, lines.Text())
		e := lab.Event{At: time.Now()}
		if json.Unmarshal(lines.Bytes(), &e.Fields) == nil && end == "" && see(e) {
			end = endCut
			_ = cmd.Process.Kill()
		}
	}
	<-done
	w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case end == endCut:
	case ok && w.Signaled() && w.Signal() == syscall.SIGHUP: // reboot(2) within a PID namespace
		end = endReboot
	case ok && w.Signaled() && w.Signal() == syscall.SIGINT:
		end = endPowerOff
	default:
		t.Fatalf("init ended with %s %s; it said:\n%s", cmd.ProcessState, stderr.String(), strings.Join(said[max(0, len(said)-20):], "\n"))
	}
	return end
}

// attach makes a loop device of a file, and has the kernel read its partitions as it does at a boot.
func attach(t *testing.T, file string) string {
	t.Helper()
	loop := strings.TrimSpace(run(t, "losetup", "-P", "--show", "-f", file))
	dev, err := block.Open(loop, false)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := dev.RereadTable(); err != nil {
		t.Logf("%s has no partitions: %v", filepath.Base(file), err) // half a table
	}
	return loop
}

// detach waits until nobody uses the loop device any more and lets go of it.
func detach(t *testing.T, loop string) {
	t.Helper()
	unused(t, func() error {
		dev, err := block.Open(loop, true) // exclusively
		if err != nil {
			return err
		}
		return errors.Join(dev.Sync(), dev.Close())
	})
	run(t, "losetup", "-d", loop)
}

// mounted calls do with the first partition of a disk, which it mounts with these flags (mount(2)).
func mounted(t *testing.T, disk string, flags uintptr, do func(dir string)) error {
	t.Helper()
	loop := attach(t, disk)
	defer detach(t, loop)
	dir := t.TempDir()
	if err := syscall.Mount(loop+"p1", dir, "ext4", flags, ""); err != nil {
		return err
	}
	defer unused(t, func() error { return syscall.Unmount(dir, 0) })
	do(dir)
	return nil
}

// unused repeats what fails as long as something is in use: a process that another test starts has for a moment all open files of this one.
func unused(t *testing.T, do func() error) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(end) {
			t.Error(err)
			return
		}
	}
}

// grub returns what GRUB reads of a file on the first partition of a disk, as it is: GRUB knows no journals.
func (u *loopUnit) grub(disk int, command, path string, more ...string) (string, error) {
	out, err := exec.Command("grub-fstest", append([]string{u.disks[disk], command, "(loop0,msdos1)" + path}, more...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

var (
	linuxLine  = regexp.MustCompile(`if linux ('.*'); then`)
	initrdLine = regexp.MustCompile(`if initrd '(.*)'; then`)
)

// start returns the kernel arguments that the unit starts with: those of the main disk's configuration if its system is there with its
// mark and that leads to a kernel, else those of the recovery device. Whichever kernel and initramfs GRUB finds there must be those of the
// boot artifact.
func (u *loopUnit) start(t *testing.T) string {
	t.Helper()
	load := func(disk int) (string, bool) {
		kernel, initrd, args, ok := u.loads(disk)
		if !ok {
			return "", false
		}
		for path, want := range map[string]string{kernel: u.kernel, initrd: u.initrd} {
			if _, err := u.grub(disk, "cmp", path, want); err != nil {
				t.Errorf("disk %d: GRUB loads %s, and that is not what is in the boot artifact: %v", disk, path, err)
			}
		}
		return args, true
	}
	if _, err := u.grub(1, "cat", "/boot.normal"); err == nil {
		if args, ok := load(1); ok {
			return args
		}
	}
	args, ok := load(0)
	if !ok {
		t.Fatal("GRUB finds nothing to start on the recovery device")
	}
	return args
}

// loads returns what GRUB's configuration on a disk loads for a normal boot, and with which kernel arguments, if it can.
func (u *loopUnit) loads(disk int) (kernel, initrd, args string, ok bool) {
	text, err := u.grub(disk, "cat", grub.ConfigPath)
	if err != nil {
		return "", "", "", false
	}
	linux, ramdisk := linuxLine.FindAllStringSubmatch(text, -1), initrdLine.FindAllStringSubmatch(text, -1)
	if linux == nil || ramdisk == nil {
		return "", "", "", false
	}
	words := strings.Split(strings.Trim(linux[len(linux)-1][1], "'"), "' '") // the last of a configuration is the normal boot
	kernel, initrd = words[0], ramdisk[len(ramdisk)-1][1]
	for _, path := range []string{kernel, initrd} {
		if _, err := u.grub(disk, "crc", path); err != nil {
			return "", "", "", false
		}
	}
	return kernel, initrd, strings.Join(words[1:], " "), true
}

// recorded starts the storage daemon of QEMU, which gives the disks as files again, with a log of what is written to them. It returns
// those files, the logs, and what ends it.
func (u *loopUnit) recorded(t *testing.T) (exports, logs []string, stop func()) {
	t.Helper()
	var args []string
	for i, d := range u.disks {
		export, log := fmt.Sprintf("%s/export%d", u.dir, i), fmt.Sprintf("%s/log%d", u.dir, i)
		for _, f := range []string{export, log} {
			if err := os.WriteFile(f, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		node, err := json.Marshal(map[string]any{
			"driver": "blklogwrites", "node-name": fmt.Sprint("disk", i), "discard": "unmap",
			"file": map[string]any{"driver": "raw", "discard": "unmap", "file": map[string]any{"driver": "file", "filename": d, "discard": "unmap"}},
			"log":  map[string]any{"driver": "file", "filename": log},
		})
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--blockdev", string(node), "--export", fmt.Sprintf("type=fuse,id=e%d,node-name=disk%d,mountpoint=%s,writable=on", i, i, export))
		exports, logs = append(exports, export), append(logs, log)
	}
	cmd := exec.Command("qemu-storage-daemon", append(args, "--chardev", "stdio,id=qmp", "--monitor", "qmp")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if _, err := r.ReadString('\n'); err != nil { // QMP's greeting: the exports are there
		t.Fatalf("qemu-storage-daemon: %v: %s", errors.Join(err, cmd.Wait()), stderr.String())
	}
	return exports, logs, sync.OnceFunc(func() {
		t.Helper()
		_, err := io.WriteString(in, `{"execute":"qmp_capabilities"}{"execute":"quit"}`)
		_, _ = io.Copy(io.Discard, r)
		if err := errors.Join(err, cmd.Wait()); err != nil {
			t.Errorf("qemu-storage-daemon: %v: %s", err, stderr.String())
		}
	})
}
