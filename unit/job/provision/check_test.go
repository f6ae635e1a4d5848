package provision

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/drive"
	"gprovision/hw/smbios"
	"gprovision/model/fault"
	"gprovision/model/hardware"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/unit/journal"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

// hardwareJob returns a job at the step that checks the hardware, which is right, the machine's /sys and /proc, and the log.
func hardwareJob(t *testing.T) (j *provisioning, sys, proc fstest.MapFS, log *bytes.Buffer) {
	t.Helper()
	j, log = testJob(t, policy.Policy{})
	machinetest.Fit(machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI}), j.Machine)
	proc, sys = machinetest.Sysfs()
	sys["class/dmi/id/product_serial"] = &fstest.MapFile{Data: []byte(machinetest.Serial + "\n")}
	sys["class/dmi/id/bios_version"] = &fstest.MapFile{Data: []byte("1.16\n")}
	j.Sys, j.Proc, j.Panel = sys, proc, panel.New()
	j.plan.Spec = manifest.Specs{
		DevCodeName: "VIRT", RamMegs: 1983, CPUInfo: manifest.CPU{Model: "QEMU Virtual CPU version 2.5+", Cores: 4, Sockets: 2},
		Recovery: manifest.Disk{Size: machinetest.RecoverySize}, MainDiskConfigs: [][]manifest.Disk{{{Size: machinetest.MainSize}}},
		FirmwareVer: manifest.Firmware{BIOS: "1.16"}, SerNumRegex: "^SN-",
		DmiMatches: map[string]string{"system-serial-number": machinetest.Serial},
		Devices:    manifest.Devices{PCI: []manifest.BusDevice{{Vendor: 0x1af4, Device: 0x1041, Class: 0x0200, Quantity: 2}}},
	}
	return j, sys, proc, log
}

// TestCheckHardware: what does not hold ends the job with every line told, and what was found as a specification in the log.
func TestCheckHardware(t *testing.T) {
	command := func(when manifest.When, command string) Step {
		return Step{Name: "own", When: when, Commands: []manifest.Command{{Command: command}}}
	}
	for _, tc := range []struct {
		name   string
		change func(j *provisioning, sys, proc fstest.MapFS)
		want   error
		wrong  string // lines that do not hold
		says   string // in the log
	}{
		{name: "right"},
		{"memory", func(_ *provisioning, _, proc fstest.MapFS) {
			proc["meminfo"] = &fstest.MapFile{Data: []byte("MemTotal: 1024 kB\n")}
		},
			fault.QAMismatch, "memory", `RamMegs\": 1`},
		{"processors that are not of one model", func(_ *provisioning, _, proc fstest.MapFS) {
			proc["cpuinfo"] = &fstest.MapFile{Data: []byte("processor: 0\nmodel name: A\nprocessor: 1\nmodel name: B\n")}
		}, fault.QAMismatch, "processor model, logical processors", "not all of the same model"},
		{"no processors and no memory that can be read", func(_ *provisioning, _, proc fstest.MapFS) {
			delete(proc, "cpuinfo")
			proc["meminfo"] = &fstest.MapFile{Data: []byte("MemTotal: much\n")}
		}, fault.QAMismatch, "processor model, logical processors, processor sockets, memory", "hardware cannot be read completely"},
		{"one PCI device less", func(_ *provisioning, sys, _ fstest.MapFS) { delete(sys, "bus/pci/devices/0000:00:02.0") },
			fault.QAMismatch, "PCI device 0x1af4:0x1041 class 0x0200", `HumanDescription`},
		{"firmware", func(_ *provisioning, sys, _ fstest.MapFS) { sys["class/dmi/id/bios_version"].Data = []byte("1.15\n") },
			fault.QAMismatch, "firmware BIOS", ""},
		{"no SMBIOS", func(_ *provisioning, sys, _ fstest.MapFS) {
			delete(sys, "class/dmi/id/product_serial")
			delete(sys, "class/dmi/id/bios_version")
		}, smbios.ErrNone, "", ""},
		{"a main disk too large", func(j *provisioning, _, _ fstest.MapFS) {
			j.Identity.Variant.Disksize, j.plan.Spec.MainDiskConfigs[0][0].Size = layout.GiB, layout.GiB
		}, fault.DiskMissing, "main disks", ""},
		{"no recovery device", func(j *provisioning, _, _ fstest.MapFS) {
			j.plan.Spec.Recovery.Size = layout.GiB / 2
		}, fault.DiskMissing, "recovery device, main disks", "move the entry"},
		{"nothing says what the recovery device is", func(j *provisioning, _, _ fstest.MapFS) {
			j.plan.Spec.Recovery, j.Identity.Variant.RecoveryMedia.Size = manifest.Disk{}, 0
		}, fault.ManifestIncomplete, "main disks", ""},
		{"no disks", func(j *provisioning, _, _ fstest.MapFS) {
			j.Doors = machinetest.New(t).Doors()
		}, fault.DiskMissing, "recovery device, main disks", ""},
		{"a step before", func(j *provisioning, _, _ fstest.MapFS) {
			j.plan.Steps = []Step{command(manifest.RunBeforeQA, "false")}
		}, errAny, "", ""},
		{"a step behind", func(j *provisioning, _, _ fstest.MapFS) {
			j.plan.Steps = []Step{command(manifest.RunAfterQA, "false")}
		}, errAny, "", ""},
		{"a step of later", func(j *provisioning, _, _ fstest.MapFS) {
			j.plan.Steps = []Step{command(manifest.RunBeforeImaging, "false")}
		}, nil, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j, sys, proc, log := hardwareJob(t)
			j.env.Checks = 4
			if tc.change != nil {
				tc.change(j, sys, proc)
			}
			err := j.checkHardware(t.Context())
			if tc.want == nil && err != nil || tc.want != nil && (err == nil || !errors.Is(tc.want, errAny) && !errors.Is(err, tc.want)) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			lines := toldLines(t, j.env.Journal, "5")
			if got := wrong(lines); got != tc.wrong {
				t.Errorf("wrong are %q, want %q", got, tc.wrong)
			}
			if len(lines) > 0 && !strings.Contains(log.String(), hardware.Tally(lines)) {
				t.Errorf("the log does not say %q:\n%s", hardware.Tally(lines), log)
			}
			if begun := j.env.Checks - 4; begun > 1 || (begun == 1) != (len(lines) > 0) {
				t.Errorf("begun %d times, %d lines told, log:\n%s", begun, len(lines), log)
			}
			if !strings.Contains(log.String(), tc.says) {
				t.Errorf("the log does not say %q:\n%s", tc.says, log)
			}
		})
	}
}

// TestLatePart holds that a disk, a port or a device that comes while it is waited for is no failure, that one which never comes is one
// with the last look told, and that nothing is waited for where no part is missing.
func TestLatePart(t *testing.T) {
	const late = "bus/pci/devices/0000:00:02.0"
	for _, tc := range []struct {
		name   string
		change func(j *provisioning, sys fstest.MapFS)
		comes  int // with which event the part comes; 0: it does not
		events int // how many there are
		waits  int // how often something is waited for
		want   error
	}{
		{"all is there", func(*provisioning, fstest.MapFS) {}, 0, 3, 0, nil},
		{"it comes at once", nil, 1, 3, 1, nil},
		{"it comes with the third event", nil, 3, 3, 3, nil},
		{"others come", nil, 0, 2, 3, fault.QAMismatch},
		{"nothing comes", nil, 0, 0, 1, fault.QAMismatch},
		{"nothing is missing", func(_ *provisioning, sys fstest.MapFS) { sys["class/dmi/id/bios_version"].Data = []byte("1.15\n") }, 0, 3, 0,
			fault.QAMismatch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j, sys, _, _ := hardwareJob(t)
			part := map[string]*fstest.MapFile{}
			if tc.change != nil {
				tc.change(j, sys)
			} else {
				for name, f := range sys {
					if strings.HasPrefix(name, late) {
						part[name] = f
						delete(sys, name)
					}
				}
			}
			waits := 0
			j.env.Await = func(_ context.Context, most time.Duration) error {
				if waits++; waits > tc.events {
					return errors.New("nothing comes any more")
				}
				if most <= 0 || most > devicesTime {
					t.Errorf("waited for %s", most)
				}
				if waits == tc.comes {
					maps.Copy(sys, part)
				}
				return nil
			}
			if err := j.checkHardware(t.Context()); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if waits != tc.waits {
				t.Errorf("waited %d times, want %d", waits, tc.waits)
			}
			if got := wrong(toldLines(t, j.env.Journal, "1")); (got == "") != (tc.want == nil) {
				t.Errorf("told as wrong: %q", got)
			}
		})
	}
}

// TestAskedHealth holds that a disk is asked for its health, that a limit ends the job by its own line, and that what is asked in vain is
// in the log.
func TestAskedHealth(t *testing.T) {
	j, _, _, log := hardwareJob(t)
	j.plan.Spec.DiskHealth.UsedPctMax = new(int64(5))
	j.Board.Health = func(path string) (drive.Health, error) {
		if filepath.Base(path) == "vdb" {
			return drive.Health{Used: new(int64(6))}, nil
		}
		return drive.Health{}, errors.New("it is silent")
	}
	if err := j.checkHardware(t.Context()); !errors.Is(err, fault.QAMismatch) {
		t.Errorf("%v", err)
	}
	if got := wrong(toldLines(t, j.env.Journal, "1")); !strings.HasPrefix(got, "health of ") || !strings.HasSuffix(got, "vdb, life used") {
		t.Errorf("wrong are %q", got)
	}
	if !strings.Contains(log.String(), "it is silent") {
		t.Errorf("the log: %s", log)
	}
}

// toldLines returns the lines of a hardware check that a journal has for the server. try is which check of the boot it must be.
func toldLines(t *testing.T, j *journal.Journal, try string) (out []hardware.Line) {
	t.Helper()
	for _, r := range j.Records() {
		if r.Kind != record.KindQA {
			continue
		}
		has := map[string]string{}
		for _, a := range r.Attrs {
			has[a.Key] = fmt.Sprint(a.Value)
		}
		if has["try"] != try || !r.Person {
			t.Errorf("%+v is not of try %s for a person", r, try)
		}
		out = append(out, hardware.Line{Name: has["name"], Found: has["found"], Expected: has["expected"], Rule: has["rule"],
			Checked: has["checked"] == "true", OK: has["ok"] == "true"})
	}
	return out
}

// wrong returns the names of the lines that do not hold.
func wrong(lines []hardware.Line) string {
	var s []string
	for _, l := range lines {
		if l.Wrong() {
			s = append(s, l.Name)
		}
	}
	return strings.Join(s, ", ")
}

// errAny is any error.
var errAny = errors.New("any")

// TestClock: the server's time is set where it can be true. That the clock cannot be set ends nothing, a server that does not say it does.
func TestClock(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	for _, tc := range []struct {
		name   string
		reply  string
		status int
		fails  error // of the machine's clock
		set    bool
		want   *fault.Fault
	}{
		{"right", fmt.Sprintf(`{"time":%q}`, now.Format(time.RFC3339)), 200, nil, true, nil},
		{"a clock that cannot be set", fmt.Sprintf(`{"time":%q}`, now.Format(time.RFC3339)), 200, syscall.EPERM, true, nil},
		{"before the artifact was built", `{"time":"2020-01-01T00:00:00Z"}`, 200, nil, false, nil},
		{"no answer", `{"code":"busy","error":"no"}`, 403, nil, false, fault.ServerRefused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(tc.status)
				w.Write([]byte(tc.reply))
			}))
			defer server.Close()
			pool := x509.NewCertPool()
			pool.AddCert(server.Certificate())
			j, _ := testJob(t, policy.Policy{})
			j.Build.Time = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			var err error
			if j.client, err = report.New(report.Config{Endpoint: server.URL, CA: pool, Unit: "S1", Key: state.NewKey(), Boot: "b1"}); err != nil {
				t.Fatal(err)
			}
			var set []time.Time
			j.Board.SetClock = func(at time.Time) error { set = append(set, at); return tc.fails }
			if err := j.clock(t.Context()); fault.Of(err) != tc.want {
				t.Errorf("%v, want %v", err, tc.want)
			}
			if (len(set) == 1) != tc.set || tc.set && set[0].Sub(now).Abs() > time.Minute {
				t.Errorf("set to %v, the server says %v", set, now)
			}
		})
	}
}

// TestAnnounce: that the server of the boot script does not listen ends nothing.
func TestAnnounce(t *testing.T) {
	for name, endpoint := range map[string]string{"none": "", "no address": "http://x/y", "no CA of it": "127.0.0.1:1"} {
		j, log := testJob(t, policy.Policy{})
		j.env.Survey.Args.LogEndpoint = endpoint
		if err := j.announce(t.Context()); err != nil || j.client != nil {
			t.Errorf("%s: %v", name, err)
		}
		if warned := strings.Contains(log.String(), "does not listen"); warned != (endpoint != "") {
			t.Errorf("%s: %s", name, log)
		}
	}
	j, _ := testJob(t, policy.Policy{})
	j.plan.Server = "https://127.0.0.1:1"
	if err := j.enrol(t.Context()); fault.Of(err) != fault.PlainSecrets {
		t.Errorf("the manifest's server, and no CA of it: %v", err)
	}
}
