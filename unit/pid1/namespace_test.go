package pid1

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gprovision/hw/host"
)

// insideVar is set for the tests' process in a mount namespace of its own: to the one that it comes from.
const insideVar = "GPROV_PID1_INSIDE"

// TestMain runs the tests in a mount namespace of their own. A program elsewhere on the machine that makes itself a namespace, as tests of
// other packages do, gets a copy of all mounts and keeps their filesystems in use: with what is mounted here it would hold loop devices that
// the tests unmount and change.
func TestMain(m *testing.M) {
	fuzzes := slices.ContainsFunc(os.Args, func(a string) bool {
		return strings.HasPrefix(a, "-test.fuzz") && !strings.HasPrefix(a, "-test.fuzzcachedir")
	})
	if os.Geteuid() != 0 || os.Getenv(insideVar) != "" || fuzzes {
		if os.Getenv(insideVar) != "" {
			letGoOfOthers()
		}
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // the kernel ends the tests with the thread that started them
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	outside, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	cmd.Env = append(os.Environ(), insideVar+"="+outside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	switch {
	case errors.Is(err, syscall.EPERM): // where the tests that mount are skipped too
		os.Exit(m.Run())
	case err != nil && cmd.ProcessState == nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// letGoOfOthers detaches, in this namespace alone, what others have mounted for themselves: the copies would keep it in use.
func letGoOfOthers() {
	all, err := host.Mounts()
	if err != nil {
		return
	}
	for _, m := range slices.Backward(all) {
		if strings.HasPrefix(m.Target, "/mnt/") || strings.HasPrefix(m.Target, os.TempDir()+"/") {
			_ = unix.Unmount(m.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
}

// TestMountsAreOwn: a program outside of the tests cannot get hold of what they mount.
func TestMountsAreOwn(t *testing.T) {
	ownMounts(t)
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if outside := os.Getenv(insideVar); outside == "" || own == outside {
		t.Error("the tests mount where everybody does")
	}
}
