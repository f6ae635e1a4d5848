package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMountInfo(t *testing.T) {
	text := "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n24 1 0:22 / /sys ro,nosuid - sysfs sysfs rw\n"
	got, err := ParseMountInfo(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []MountInfo{{36, 98, 0, "/mnt1", "/mnt 2", "ext3", "/dev/root", false}, {24, 0, 22, "/", "/sys", "sysfs", "sysfs", true}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Fatalf("got %+v", got)
	}
	for _, bad := range []string{"x", "1 2 3 / / rw - a b", "1 2 a:b / / rw - a b"} {
		if _, err := ParseMountInfo(strings.NewReader(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func FuzzMountInfo(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw\n")
	f.Fuzz(func(t *testing.T, s string) { _, _ = ParseMountInfo(strings.NewReader(s)) })
}

func TestIsMountPoint(t *testing.T) {
	for path, want := range map[string]bool{"/proc": true, t.TempDir(): false, "/no/such/path": false} {
		if got, err := IsMountPoint(path); err != nil || got != want {
			t.Errorf("IsMountPoint(%s) = %v, %v", path, got, err)
		}
	}
	all, err := Mounts()
	if err != nil || len(all) == 0 {
		t.Fatal(len(all), err)
	}
}

func TestParseUevent(t *testing.T) {
	e, err := ParseUevent([]byte("add@/devices/x/block/vda\x00ACTION=add\x00SUBSYSTEM=block\x00DEVNAME=vda\x00"))
	if err != nil || e.Action != "add" || e.Path != "/devices/x/block/vda" || e.Subsystem != "block" || e.Env["DEVNAME"] != "vda" {
		t.Fatalf("got %+v, %v", e, err)
	}
	for _, bad := range []string{"", "libudev\x00\xfe\xed", "add@/x\x00NOVALUE", "missed@/x"} {
		if _, err := ParseUevent([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func FuzzUevent(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00ACTION=add\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParseUevent(b) })
}

// TestEvents makes the kernel speak of a device that is always there.
func TestEvents(t *testing.T) {
	const trigger = "/sys/devices/virtual/mem/null/uevent"
	if os.Geteuid() != 0 {
		needs(t, "root")
	}
	if f, err := os.OpenFile(trigger, os.O_WRONLY, 0); err != nil {
		needs(t, "a writable "+trigger)
	} else {
		_ = f.Close()
	}
	events, err := Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(trigger, []byte("change"), 0); err != nil {
		t.Fatal(err)
	}
	for e := range events {
		if e.Path == "/devices/virtual/mem/null" && e.Action == "change" && e.Env["DEVNAME"] == "null" {
			return
		}
	}
	t.Fatal("channel closed before the event")
}

// The test program is its own second stage: as the caller of SwitchRoot in a namespace of its own, and as the new init.
const stageVar = "GPROV_HOST_TEST_STAGE"

func TestMain(m *testing.M) {
	if os.Args[0] == child {
		childStage()
	}
	switch os.Getenv(stageVar) {
	case "switch":
		runtime.LockOSThread()
		fail(switchStage(os.Getenv("GPROV_HOST_TEST_DIR")))
	case "init":
		fail(initStage())
	}
	os.Exit(m.Run())
}

func fail(err error) {
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}

func switchStage(dir string) error {
	if err := Mount("tmpfs", dir, "tmpfs", MountOptions{}); err != nil {
		return err
	}
	for _, d := range []string{"proc", "dev/sub", "sys", "run", "mnt", "etc/deep"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/deep/file"), nil, 0); err != nil {
		return err
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := unix.Chroot(dir); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := Mount("proc", "/proc", "proc", MountOptions{}); err != nil {
		return err
	}
	if err := Mount("tmpfs", "/run", "tmpfs", MountOptions{}); err != nil {
		return err
	}
	if err := os.WriteFile("/run/kept", nil, 0o644); err != nil {
		return err
	}
	if err := SwitchRoot("/mnt", "/sbin/init", nil, nil); err == nil || !strings.Contains(err.Error(), "not a mount point") {
		return errors.New("switched to what is no mount")
	}
	if err := Mount("tmpfs", "/mnt", "tmpfs", MountOptions{}); err != nil {
		return err
	}
	if err := SwitchRoot("/mnt", "/sbin/init", nil, nil); err == nil || !strings.Contains(err.Error(), "find /sbin/init") {
		return errors.New("switched to a root without init")
	}
	if err := os.MkdirAll("/mnt/usr/sbin", 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/usr/sbin", "/mnt/sbin"); err != nil {
		return err
	}
	if err := os.WriteFile("/mnt/usr/sbin/init", self, 0o644); err != nil {
		return err
	}
	if err := SwitchRoot("/mnt", "/sbin/init", nil, nil); err == nil || !strings.Contains(err.Error(), "not a program") {
		return errors.New("switched to a file that cannot run")
	}
	if err := os.Chmod("/mnt/usr/sbin/init", 0o755); err != nil {
		return err
	}
	// A view of the old root that stays, to see whether it was emptied.
	if err := os.Mkdir("/run/old", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/", "/run/old", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return SwitchRoot("/mnt", "/sbin/init", []string{"one"}, []string{stageVar + "=init"})
}

func initStage() error {
	if len(os.Args) != 2 || os.Args[1] != "one" {
		return errors.New("wrong arguments")
	}
	for _, p := range []string{"/run/kept", "/proc/self/exe", "/usr/sbin/init"} {
		if _, err := os.Stat(p); err != nil {
			return err
		}
	}
	left, err := os.ReadDir("/run/old")
	if err != nil {
		return err
	}
	// Mount points that are seen through the bind mount are all that may be left.
	for _, e := range left {
		if e.Name() == "etc" {
			return errors.New("old root still has its files")
		}
	}
	_, err = os.Stdout.WriteString("switched\n")
	return err
}

func TestSwitchRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		needs(t, "root")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "stage")
	build := exec.Command("go", "test", "-c", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a static test program: %v\n%s", err, out)
	}
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Env = []string{stageVar + "=switch", "GPROV_HOST_TEST_DIR=" + root}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "switched\n" {
		t.Fatalf("%v: %s", err, out)
	}
}
