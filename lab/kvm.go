package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gprovision/forge/tool"
)

// Accel says how the machines' processors run.
type Accel struct {
	// KVM is true when the host's processor runs them; otherwise QEMU translates (TCG).
	KVM bool
	// Why says why KVM is not used. Empty when it is.
	Why string
}

// args are QEMU's arguments for a.
func (a Accel) args() []string {
	if a.KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"}
}

// probeExit is what the probe's guest writes to the exit device; QEMU ends with twice that plus one.
const probeExit = 0x2a

// ProbeAccel starts a guest of a few instructions under KVM and looks whether they run: /dev/kvm may be there and not work,
// in a virtual machine or a container. The answer comes within 10 seconds.
//
// A processor without hardware virtualization is not asked: the paravirtual KVM that some hosts offer instead runs the probe, and
// stops later in OVMF and in GRUB with an internal error, without an end of QEMU.
func ProbeAccel(ctx context.Context, log *slog.Logger) (Accel, error) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return Accel{Why: err.Error()}, nil
	}
	_ = f.Close()
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return Accel{}, fmt.Errorf("probe kvm: %w", err)
	}
	if !virtualizes(string(cpu)) {
		return Accel{Why: "/dev/kvm is there, but the processor has neither VMX nor SVM"}, nil
	}
	dir, err := os.MkdirTemp("", "gprov-kvm-")
	if err != nil {
		return Accel{}, fmt.Errorf("probe kvm: %w", err)
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "boot")
	if err := os.WriteFile(disk, probeSector(), 0o600); err != nil {
		return Accel{}, fmt.Errorf("probe kvm: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	args := append(Accel{KVM: true}.args(), "-machine", "pc", "-smp", "2", "-m", "64", "-nodefaults", "-display", "none", "-no-reboot",
		"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", 0xf4), "-drive", "file="+disk+",format=raw,if=ide")
	err = run(ctx, log, qemuPackage, qemuProgram, args...)
	var failed *tool.Error
	var missing *tool.MissingError
	switch {
	case errors.As(err, &missing):
		return Accel{}, err
	case errors.As(err, &failed) && failed.Exit == probeExit<<1|1:
		return Accel{KVM: true}, nil
	case err == nil:
		return Accel{Why: "the guest ended without running"}, nil
	case failed != nil && failed.Stderr != "":
		return Accel{Why: "/dev/kvm is there, but " + lastLines(failed.Stderr, 1)}, nil
	default:
		return Accel{Why: err.Error()}, nil
	}
}

// virtualizes reports whether the text of /proc/cpuinfo (proc_cpuinfo(5)) has the flag of Intel's or AMD's hardware virtualization.
func virtualizes(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			f := strings.Fields(flags)
			return slices.Contains(f, "vmx") || slices.Contains(f, "svm")
		}
	}
	return false
}

// probeSector is a boot sector: mov al, probeExit; out 0xf4, al; jmp $.
func probeSector() []byte {
	b := make([]byte, 1<<20)
	copy(b, []byte{0xb0, probeExit, 0xe6, 0xf4, 0xeb, 0xfe})
	b[510], b[511] = 0x55, 0xaa
	return b
}
