package raid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Mdadm is where the initramfs has mdadm.
const Mdadm = "/sbin/mdadm"

// Runner starts a program and returns its combined output and exit status.
type Runner func(ctx context.Context, path string, args ...string) (output []byte, exit int, err error)

// Plan is an array to create.
type Plan struct {
	// Device is the node that it gets, /dev/md0.
	Device string
	Level  int
	// UUID is the array's, 36 characters, and Name what mdadm calls it.
	UUID, Name string
	// Members are the device nodes, in the order of their places.
	Members []string
}

// Create makes the array and starts it. What was on the members is lost. The metadata are of version 1.2. Levels that can lose a
// disk get a bitmap, so that a member that was away for a while is brought up to date quickly; they are brought into sync in the
// background, which survives a restart.
func Create(ctx context.Context, run Runner, p Plan) error {
	args := []string{"--create", p.Device, "--run", "--force", "--metadata=1.2", "--homehost=any", "--name=" + p.Name, "--uuid=" + colons(p.UUID),
		fmt.Sprintf("--level=%d", p.Level), fmt.Sprintf("--raid-devices=%d", len(p.Members))}
	if p.Level != 0 {
		args = append(args, "--bitmap=internal")
	}
	if p.Level == 10 {
		args = append(args, "--layout=n2")
	}
	if err := mdadm(ctx, run, append(args, p.Members...)...); err != nil {
		return fmt.Errorf("create array: %w", err)
	}
	return nil
}

// Assemble starts an array at device from the members that can be used, also if some are missing. Whether that is wanted is for
// the caller to say: see Array.Enough. Nothing is written to the members before something is written to the array, if
// StartReadOnly was called.
func Assemble(ctx context.Context, run Runner, device string, a Array) error {
	args := []string{"--assemble", device, "--run", "--homehost=any", "--uuid=" + colons(a.UUID)}
	for _, p := range a.Parts {
		args = append(args, p.Path)
	}
	if err := mdadm(ctx, run, args...); err != nil {
		return fmt.Errorf("start array %s: %w", a.UUID, err)
	}
	return nil
}

// Stop ends an array. The members stay as they are.
func Stop(ctx context.Context, run Runner, device string) error {
	if err := mdadm(ctx, run, "--stop", device); err != nil {
		return fmt.Errorf("stop array: %w", err)
	}
	return nil
}

func mdadm(ctx context.Context, run Runner, args ...string) error {
	out, exit, err := run(ctx, Mdadm, args...)
	if err != nil {
		return err
	}
	if exit != 0 {
		return fmt.Errorf("mdadm ends with status %d: %s", exit, bytes.Join(bytes.Fields(out), []byte(" ")))
	}
	return nil
}

// StartReadOnly makes the kernel start arrays so that nothing is written to their members until something is written to the array
// (Documentation/admin-guide/md.rst). sys is where sysfs is. It needs the module md_mod.
func StartReadOnly(sys string) error {
	return os.WriteFile(filepath.Join(sys, "module/md_mod/parameters/start_ro"), []byte("1"), 0o644)
}

// Known reports whether the kernel has an array at device, such as /dev/md0, also one that is not started. sys is where sysfs is.
func Known(sys, device string) bool {
	state, err := arrayState(sys, device)
	return err == nil && state != "clear"
}

// Running reports whether the array at device is started.
func Running(sys, device string) (bool, error) {
	state, err := arrayState(sys, device)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && state != "clear" && state != "inactive", err
}

func arrayState(sys, device string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sys, "block", filepath.Base(device), "md/array_state"))
	return strings.TrimSpace(string(b)), err
}

// Conf returns the line of mdadm.conf(5) for an array.
func Conf(device, uuid string) string {
	return fmt.Sprintf("ARRAY %s metadata=1.2 UUID=%s\n", device, colons(uuid))
}

// colons writes a UUID as mdadm does.
func colons(uuid string) string {
	s := strings.ReplaceAll(uuid, "-", "")
	if len(s) != 32 {
		return uuid
	}
	return s[:8] + ":" + s[8:16] + ":" + s[16:24] + ":" + s[24:]
}
