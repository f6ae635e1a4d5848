package cli

import (
	"strings"
	"testing"
	"time"

	"gprovision/lab"
)

func TestVMDisks(t *testing.T) {
	for _, c := range []struct {
		in   string
		want lab.Disk
		err  string
	}{
		{"main:nvme:8G", lab.Disk{Name: "main", Bus: lab.NVMe, Size: 8 << 30}, ""},
		{"main:virtio:512M:4096", lab.Disk{Name: "main", Bus: lab.VirtIO, Size: 512 << 20, SectorSize: 4096}, ""},
		{"main:virtio", lab.Disk{}, "want NAME:BUS:SIZE"},
		{"main:virtio:0", lab.Disk{}, "no size"},
		{"main:virtio:9999999999T", lab.Disk{}, "no size"},
		{"../x:virtio:1G", lab.Disk{}, "without slashes"},
		{"main:virtio:1G:1000", lab.Disk{}, "sectors"},
	} {
		v := VMCmd{Firmware: "uefi", Disk: []string{c.in}}
		got, err := v.disks()
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want one with %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil || len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.in, got, err, c.want)
		}
	}
}

func TestShowOnPipe(t *testing.T) {
	var b strings.Builder
	s := &show{w: &b, start: time.Now()}
	done := s.stage("provisioning", "unit")
	s.step("provision", "write-files", 11, 16)
	for p := range 101 {
		s.percent("provision", "write-files", p)
		s.percent("provision", "another step", p)
	}
	done()
	s.end()
	s.say("too late")
	s.table(lab.Accel{})
	got := b.String()
	if n := strings.Count(got, "write-files"); n != 5 {
		t.Errorf("the step is shown %d times, want once and at each quarter:\n%s", n, got)
	}
	for _, want := range []string{"unit    provisioning …", "11/16 write-files", "without KVM"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if strings.Contains(got, "too late") || strings.Contains(got, "\x1b") {
		t.Errorf("unwanted text in\n%s", got)
	}
}
