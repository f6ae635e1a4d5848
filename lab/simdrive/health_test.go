package simdrive

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gprovision/hw/drive"
)

// TestHealth asks drives of each protocol for their state, and holds what they say against what they were made with, as far as the
// protocol has words for it.
func TestHealth(t *testing.T) {
	flashATA, flashSCSI := SATAFlash(1), SCSIDisk(1)
	flashSCSI.Flash = true
	for _, tt := range []struct {
		name  string
		c     Config
		drops func(*drive.Health) // what the protocol, or the kind of drive, has no words for
	}{
		{"NVMe", NVMeDisk(1), func(h *drive.Health) { h.Reallocated, h.Pending, h.LinkErrors = nil, nil, nil }},
		{"SATA, rotating", SATADisk(1), func(h *drive.Health) { h.Spare, h.Used = nil, nil }},
		{"SATA, flash", flashATA, func(h *drive.Health) { h.Spare = nil }},
		{"SCSI", flashSCSI, func(h *drive.Health) { h.Spare, h.Pending, h.LinkErrors, h.Written = nil, nil, nil, nil }},
		{"MMC", MMCDisk(1), func(h *drive.Health) { *h = drive.Health{Failing: h.Failing, Used: new(max(*h.Used, 10))} }},
	} {
		worn := drive.Health{
			Failing: new(false), Temperature: new(int64(61)), Used: new(int64(80)), Spare: new(int64(42)), PowerOn: new(int64(30_000)),
			Starts: new(int64(1_234)), Reallocated: new(int64(17)), Pending: new(int64(3)), Uncorrectable: new(int64(9)),
			LinkErrors: new(int64(70_000)), Written: new(int64(512_000 * 8_000_000)),
		}
		for _, h := range []drive.Health{NewDisk(), worn} {
			tt.c.Health = h
			got, err := ask(t, New(tt.c, Faults{}, &Clock{}))
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			tt.drops(&h)
			if d := cmp.Diff(h, got); d != "" {
				t.Errorf("%s: %s", tt.name, d)
			}
		}
		worn.Failing = new(true)
		tt.c.Health = worn
		got, err := ask(t, New(tt.c, Faults{}, &Clock{}))
		if err != nil || got.Failing == nil || !*got.Failing || len(got.Warnings) == 0 {
			t.Errorf("%s: a drive that fails says %+v, %v", tt.name, got, err)
		}
		if tt.c.Protocol == ATA && !slices.Contains(got.Warnings, "it says that it fails: a threshold was exceeded") {
			t.Errorf("%s: %q", tt.name, got.Warnings)
		}
	}
}

func ask(t *testing.T, d *Drive) (drive.Health, error) {
	t.Helper()
	on, err := drive.On(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	return on.Health()
}

// TestHealthBehindBridge asks a drive whose bridge hides what it says of its state: the attributes are read all the same.
func TestHealthBehindBridge(t *testing.T) {
	c := SATADisk(1)
	c.USB, c.Health = true, NewDisk()
	c.Health.Failing = new(true)
	h, err := ask(t, New(c, Faults{HidesStatus: true}, &Clock{}))
	if err != nil || h.PowerOn == nil || *h.PowerOn != 2 {
		t.Errorf("%+v, %v", h, err)
	}
	if len(h.Warnings) != 1 || h.Warnings[0] != "attribute 5 has fallen to 4, its threshold is 36" {
		t.Errorf("%q", h.Warnings)
	}
	c.Health.Failing = new(false)
	if h, err := ask(t, New(c, Faults{HidesStatus: true}, &Clock{})); err != nil || h.Failing != nil {
		t.Errorf("what nobody passes on is not known: %v, %v", *h.Failing, err)
	}
}
