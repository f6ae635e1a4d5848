package machinetest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/unit/machine"
)

// Loop devices, and mounts that nobody else sees, for tests with real filesystems.

// InsideVar is set while the tests run in a mount namespace of their own. Its value is the namespace they came from.
const InsideVar = "GPROV_TESTS_INSIDE"

// Main runs the tests in a mount namespace of their own. Otherwise a program elsewhere on the machine that makes a
// namespace, as tests of other packages do, would get a copy of all mounts. The copies would keep in use the loop
// devices that the tests unmount and change.
func Main(m *testing.M) {
	fuzzes := slices.ContainsFunc(os.Args, func(a string) bool {
		return strings.HasPrefix(a, "-test.fuzz") && !strings.HasPrefix(a, "-test.fuzzcachedir")
	})
	if os.Geteuid() != 0 || os.Getenv(InsideVar) != "" || fuzzes {
		if os.Getenv(InsideVar) != "" {
			letGoOfOthers()
		}
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // the kernel ends the tests together with the thread that started them
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	outside, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	cmd.Env = append(os.Environ(), InsideVar+"="+outside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	switch {
	case errors.Is(err, syscall.EPERM): // here the tests that mount are skipped too
		os.Exit(m.Run())
	case err != nil && cmd.ProcessState == nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// letGoOfOthers detaches the mounts of others, but only in this namespace. The copies would keep the filesystems in
// use.
func letGoOfOthers() {
	all, err := host.Mounts()
	if err != nil {
		return
	}
	for _, m := range slices.Backward(all) {
		if strings.HasPrefix(m.Target, "/mnt/") || strings.HasPrefix(m.Target, os.TempDir()+"/") {
			_ = host.UnmountLazy(m.Target)
		}
	}
}

// Skip skips a test, or fails it if nothing may be skipped.
func Skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("GPROV_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// OwnMounts gives the test the mount points of a unit. A mount table of its own would keep in use what other tests
// have mounted. So the test gets those of the machine, and waits until no other process has them.
func OwnMounts(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "mounting needs root")
	}
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "gprov-test-mounts.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	for _, dir := range []string{machine.RealPlaces().Recovery, machine.RealPlaces().Main} {
		switch err := os.Mkdir(dir, 0o700); {
		case err == nil:
			t.Cleanup(func() { os.Remove(dir) })
		case !errors.Is(err, fs.ErrExist):
			Skip(t, fmt.Sprintf("mount points: %v", err))
		}
		if used, err := host.IsMountPoint(dir); err != nil || used {
			Skip(t, fmt.Sprintf("%s is in use: %v", dir, err))
		}
		t.Cleanup(func() { _ = host.UnmountLazy(dir) }) // in case it is still mounted
	}
}

// LoopDisk returns a sparse disk on a loop device.
func LoopDisk(t *testing.T, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		t.Fatal(err)
	}
	return LoopFile(t, file)
}

// LoopFile returns a file as a disk on a loop device. The kernel knows its partitions.
func LoopFile(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command("losetup", "-f", "--show", file).CombinedOutput()
	if err != nil {
		Skip(t, fmt.Sprintf("losetup: %s", out))
	}
	dev := string(bytes.TrimSpace(out))
	d, err := block.Open(dev, true)
	if err == nil {
		err = errors.Join(d.RereadTable(), d.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d, err := block.Open(dev, true) // partitions added one by one keep the device busy
		if err == nil {
			_, err = d.WriteAt(make([]byte, layout.MiB), 0)
		}
		if err == nil {
			err = errors.Join(d.RereadTable(), d.Close())
		}
		if out, e := exec.Command("losetup", "-d", dev).CombinedOutput(); err != nil || e != nil {
			t.Errorf("loop device stays: %v %s", err, out)
		}
	})
	return dev
}

// AfterCut returns a new disk with the current content of a loop device's medium: what a power cut would leave. The
// first disk may stay mounted.
func AfterCut(t *testing.T, dev string) string {
	t.Helper()
	file, err := os.ReadFile("/sys/block/" + filepath.Base(dev) + "/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "cut")
	if out, err := exec.Command("cp", "--sparse=always", strings.TrimSpace(string(file)), to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return LoopFile(t, to)
}

// VirtIO returns the part of /sys about some loop devices, as if they were virtio disks. It shows the kernel's
// partitions as of now.
func VirtIO(t *testing.T, devices ...string) fstest.MapFS {
	t.Helper()
	sys := fstest.MapFS{}
	for i, dev := range devices {
		name := filepath.Base(dev)
		dir := fmt.Sprintf("devices/pci0000:00/virtio%d/block/%s", i, name)
		sys["block/"+name] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../" + dir)}
		own := os.DirFS("/sys/block/" + name)
		files := []string{"size", "ro", "removable", "queue/logical_block_size"}
		parts, err := fs.Glob(own, name+"p*")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			files = append(files, p+"/partition", p+"/start", p+"/size")
		}
		for _, file := range files {
			b, err := fs.ReadFile(own, file)
			if err != nil {
				t.Fatal(err)
			}
			sys[dir+"/"+file] = &fstest.MapFile{Data: b}
		}
	}
	return sys
}

// Overwrite writes b at an offset of a device.
func Overwrite(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	d, err := block.Open(path, true)
	if err == nil {
		_, err = d.WriteAt(b, at)
		err = errors.Join(err, d.Sync(), d.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Debugfs changes the ext4 filesystem on a partition that is not mounted, by commands of debugfs(8).
func Debugfs(t *testing.T, part string, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if out, err := exec.Command("debugfs", "-w", "-R", c, part).CombinedOutput(); err != nil {
			Skip(t, fmt.Sprintf("debugfs: %s", out))
		}
	}
}
