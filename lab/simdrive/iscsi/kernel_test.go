package iscsi

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"gprovision/hw/drive"
	"gprovision/lab"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
	"gprovision/unit/job/erase/engine"
)

// kernelModules are what the machine needs of Debian's kernel, in this order: a network card, SCSI disks, and the initiator.
func kernelModules() []string {
	return []string{"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "failover", "net_failover",
		"virtio_net", "crct10dif_common", "crc-t10dif", "crc64", "crc64-rocksoft", "t10-pi", "scsi_common", "scsi_mod", "sd_mod",
		"crc32c_generic", "scsi_transport_iscsi", "libiscsi", "libiscsi_tcp", "iscsi_tcp"}
}

// Job is what the machine is to do to one logical unit.
type Job struct {
	LUN   int
	Seed  uint64
	Known erasure.Drive
	PSID  string
	// Timeout is how long the kernel waits for an answer to a read, in seconds.
	Timeout int
	// Last: there is no other.
	Last bool
}

// Report is what came of it.
type Report struct {
	LUN    int
	Result []byte // engine.Result as JSON
	Err    string
}

// Pause is time that passes for the machine while it waits.
type Pause struct {
	LUN  int
	Time time.Duration
}

// kernelDrive is one drive of the test: what the page, or the test itself, says of it.
type kernelDrive struct {
	simdrive.Liar
	want  string // outcome, what is left, and what was not good enough, as in the table of docs/erase.md
	sim   *simdrive.Drive
	clock *simdrive.Clock
	// silent is how many reads it does not answer until they are aborted.
	silent int
	resets int
}

// SCSI is the drive's answer. A kernel sends what a drive is not ready for again and again, and so time passes.
func (d *kernelDrive) SCSI(c drive.SCSICommand) (drive.SCSIResult, error) {
	if d.silent > 0 && c.CDB[0] == 0x28 && d.resets > 0 {
		d.silent--
		return drive.SCSIResult{}, drive.ErrTimeout
	}
	r, err := d.sim.SCSI(c)
	const notReady = 2
	if s, ok := drive.ParseSense(r.Sense); ok && s.Key == notReady {
		d.clock.Advance(time.Second)
	}
	return r, err
}

// Reset is a reset of the logical unit that the kernel asked for.
func (d *kernelDrive) Reset() error {
	d.resets++
	return d.sim.Reset()
}

// Host is what the machine asks: what to do next, for time to pass, and it tells what came of it.
type Host struct {
	target *Target
	drives []*kernelDrive
	next   int
	done   chan Report
}

// Next says what is to be done.
func (h *Host) Next(_ int, j *Job) error {
	if h.next == len(h.drives) {
		*j = Job{Last: true}
		return nil
	}
	d := h.drives[h.next]
	*j = Job{LUN: h.next, Seed: d.Config.Seed, PSID: d.Config.PSID, Timeout: 30, Known: erasure.Drive{
		Role: erasure.MainDisk, Name: "disk", Bus: string(d.Config.Protocol), BlockSize: uint32(d.Config.SectorSize),
		Evidence: erasure.Evidence{Media: erasure.Rotating, Path: erasure.Direct},
	}}
	if d.silent > 0 {
		j.Timeout = 2
	}
	if d.Config.Flash {
		j.Known.Evidence.Media = erasure.Flash
	}
	if d.Config.USB {
		j.Known.Evidence.Path = erasure.USB
	}
	h.next++
	return nil
}

// Wait lets time pass for a drive, and says how late it is then.
func (h *Host) Wait(p Pause, now *time.Duration) error {
	h.target.Alone(func() {
		d := h.drives[p.LUN]
		d.clock.Advance(p.Time)
		*now = d.clock.Now()
	})
	return nil
}

// Done takes a report.
func (h *Host) Done(r Report, _ *int) error {
	h.done <- r
	return nil
}

// kernelLiars are some of the liars, each for something that a kernel could come between.
func kernelLiars() []string {
	return []string{
		"SATA flash: fails at the end", "SATA flash: forgets where the data are and leaves them", "SCSI: accepts and does nothing",
		"SCSI: fails at the end", "SCSI: stalls", "SCSI: is busy now and then",
		"SCSI: keeps writes in its cache, and does nothing", // caught by the reset
		"SCSI: cannot be read until it is written", "SCSI: hides its state, and does nothing",
		"SCSI: is locked, and a revert does nothing but unlock it",
		"SATA: a secure erase does nothing", "SATA: a secure erase leaves the password set",
		"SATA: leaves a host protected area", // the kernel looks at the size again
		"USB: hides the status",
	}
}

// kernelDrives are honest drives that speak ATA and SCSI, and the liars with the names, with what docs/erase.md says of each.
func kernelDrives(t *testing.T, names []string) []*kernelDrive {
	t.Helper()
	page, err := os.ReadFile("../../../docs/erase.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+?)(?: \(no host can know better\))? \| ([^|]+) \| ([^|]*) \|$`).
		FindAllStringSubmatch(string(page), -1) {
		rows[m[1]] = strings.TrimSpace(m[2] + " | " + m[3] + " | " + m[4])
	}
	small := func(c simdrive.Config) simdrive.Config {
		c.Sectors, c.Area, c.Overlay = 40, min(c.Area, 20), min(c.Overlay, 10)
		return c
	}
	var out []*kernelDrive
	honest := func(c simdrive.Config, how string, silent int) {
		out = append(out, &kernelDrive{
			Liar: simdrive.Liar{Name: "honest " + c.Model, Config: small(c)}, silent: silent, want: "proved, " + how + " | nothing |",
		})
	}
	honest(simdrive.SCSIDisk(1), "purge, by scsi-sanitize-crypto", 0)
	honest(simdrive.SCSIDisk(2), "purge, by scsi-sanitize-crypto", 1)
	honest(simdrive.SATADisk(1), "purge, by ata-sanitize-overwrite", 0)
	honest(simdrive.SATAFlash(1), "purge, by ata-sanitize-crypto", 0)
	secure := simdrive.SATADisk(2)
	secure.Methods = []drive.Method{drive.ATASecurityEnhanced, drive.ATASecurityNormal}
	honest(secure, "clear, by ata-security-enhanced", 0)
	own := len(out)
	for _, l := range simdrive.Liars(1) {
		if !slices.Contains(names, l.Name) {
			continue
		}
		want, ok := rows[l.Name]
		if !ok {
			t.Errorf("docs/erase.md has no row for %q", l.Name)
		}
		l.Config = small(l.Config)
		out = append(out, &kernelDrive{Liar: l, want: strings.TrimSpace(want)})
	}
	if n := len(out) - own; n != len(names) {
		t.Fatalf("there are %d liars of %q", n, names)
	}
	for _, d := range out {
		d.clock = &simdrive.Clock{}
		d.sim = simdrive.New(d.Config, d.Faults, d.clock)
	}
	return out
}

// TestKernel erases drives of the library in a virtual machine: SG_IO, sense data, retries and resets are those of a real kernel, whose own
// initiator speaks to the target. What comes of each must be what docs/erase.md has from the same drive in memory.
func TestKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("a virtual machine takes long: not with -short")
	}
	accel, err := lab.ProbeAccel(t.Context(), slog.New(slog.DiscardHandler))
	if err = errors.Join(err, lab.Usable()); err != nil { // without root the kernel's package cannot be fetched
		if os.Getenv("GPROV_NO_SKIP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	began := time.Now()
	drives := kernelDrives(t, kernelLiars())
	var served []Drive
	for _, d := range drives {
		served = append(served, d)
	}
	s := serve(t, served...)
	host := &Host{target: s.target, drives: drives, done: make(chan Report)}
	server := rpc.NewServer()
	if err := server.Register(host); err != nil {
		t.Fatal(err)
	}
	control, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	go func() {
		if c, err := control.Accept(); err == nil {
			server.ServeConn(c)
		}
	}()
	ended := machine(t, accel, fmt.Sprintf("target=%s control=%s", port(s.addr), port(control.Addr().String())))
	patience := time.After(20 * time.Minute)
	for range drives {
		select {
		case r := <-host.done:
			drives[r.LUN].judge(t, r)
		case err := <-ended:
			t.Fatalf("the machine has ended: %v", err)
		case <-patience:
			t.Fatal("the machine does not go on")
		}
	}
	if err := s.failed(); err != nil {
		t.Error(err)
	}
	t.Logf("%d drives in %v", len(drives), time.Since(began).Round(time.Second))
}

// port is an address of this host as the machine has it: QEMU's network of its own leads there.
func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return "10.0.2.2:" + p
}

// judge compares what came of a drive.
func (d *kernelDrive) judge(t *testing.T, r Report) {
	var res engine.Result
	if err := json.Unmarshal(r.Result, &res); err != nil {
		t.Errorf("%s: %v: %s", d.Name, err, r.Err)
		return
	}
	by := string(res.Drive.Outcome)
	if res.Drive.Outcome == erasure.Proved || res.Drive.Outcome == erasure.Weaker {
		by = fmt.Sprintf("%s, %s, by %s", res.Drive.Outcome, res.Drive.Level, res.Drive.Evidence.Method)
	}
	left := "nothing"
	switch readable, hidden := d.sim.Residue(); {
	case readable > 0:
		left = "data"
	case hidden > 0:
		left = "hidden copies"
	}
	if d.resets == 0 && len(res.Attempts) > 0 {
		t.Errorf("%s: no reset has reached it", d.Name)
	}
	if d.silent > 0 {
		t.Errorf("%s: it has answered all", d.Name)
	}
	got := strings.TrimSpace(by + " | " + left + " | " + caught(res))
	if got != d.want {
		t.Errorf("%s: over a kernel\n  %s\nin memory\n  %s\n%s", d.Name, got, d.want, r.Err)
	}
}

// caught says what became of the methods that were not good enough, as the table of docs/erase.md does.
func caught(res engine.Result) string {
	reasons := func(list []erasure.Reason) string {
		var out []string
		for i, r := range list {
			if r != "control" || i == 0 {
				out = append(out, string(r))
			}
		}
		return strings.Join(out, ", ")
	}
	if len(res.Attempts) == 0 {
		return "no method was tried: " + reasons(res.Drive.Reasons)
	}
	var out []string
	last := ""
	for i, a := range res.Attempts {
		why := a.Refused
		switch {
		case why != "":
			why = "refused"
		case i < len(res.Attempts)-1 || a.Verdict.Outcome != erasure.Proved:
			why = reasons(a.Verdict.Reasons)
		default:
			continue
		}
		if n := len(out); why == last {
			out[n-1] = strings.TrimSuffix(out[n-1], ": "+why) + ", " + string(a.Method) + ": " + why
		} else {
			out = append(out, string(a.Method)+": "+why)
		}
		last = why
	}
	return strings.Join(out, "; ")
}

// machine starts a virtual machine whose first program is this test. It ends with the test.
func machine(t *testing.T, accel lab.Accel, arguments string) (ended <-chan error) {
	t.Helper()
	dir := t.TempDir()
	kernel, initrd := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd")
	if err := bootFiles(kernel, initrd); err != nil {
		t.Fatal(err)
	}
	args := []string{"-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"}
	if accel.KVM {
		args = []string{"-accel", "kvm", "-cpu", "host"}
	}
	args = append(args, "-machine", "pc", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,romfile=",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 loglevel=1 mitigations=off no_timer_check "+arguments)
	cmd := exec.Command("qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- cmd.Wait(); close(end) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-end
	})
	return end
}

// bootFiles writes Debian's kernel, and an initramfs with its modules and this very program.
func bootFiles(kernel, initrd string) error {
	cache, err := lab.OpenCache("")
	if err != nil {
		return err
	}
	root, err := lab.DebianRoot(context.Background(), slog.New(slog.DiscardHandler), cache)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	records := []cpio.Record{cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.Directory("modules", 0o755),
		cpio.StaticFile("init", string(program), 0o755)}
	for _, d := range []string{"proc", "sys", "tmp"} {
		records = append(records, cpio.Directory(d, 0o755))
	}
	modules, err := readKernel(root, kernel)
	if err != nil {
		return err
	}
	for i, m := range modules {
		records = append(records, cpio.StaticFile(fmt.Sprintf("modules/%02d.ko", i), string(m), 0o644))
	}
	f, err := os.Create(initrd)
	if err != nil {
		return err
	}
	defer f.Close()
	w := cpio.Newc.Writer(f)
	return errors.Join(cpio.WriteRecordsAndDirs(w, records), cpio.WriteTrailer(w), f.Close())
}

// readKernel writes the kernel of a root filesystem, and returns its modules.
func readKernel(root, kernel string) ([][]byte, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names := kernelModules()
	out := make([][]byte, len(names))
	there := false
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		base := path.Base(h.Name)
		if strings.HasPrefix(base, "vmlinuz-") {
			b, err := io.ReadAll(r)
			if err := errors.Join(err, os.WriteFile(kernel, b, 0o600)); err != nil {
				return nil, err
			}
			there = true
		}
		for i, n := range names {
			if base == n+".ko" {
				if out[i], err = io.ReadAll(r); err != nil {
					return nil, err
				}
			}
		}
	}
	for i, m := range out {
		if m == nil || !there {
			return nil, fmt.Errorf("%s has no kernel or no %s", root, names[i])
		}
	}
	return out, nil
}
