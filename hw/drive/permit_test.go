package drive

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// everyDestroyer calls everything that needs a permit.
func everyDestroyer(t *testing.T, dev Device, check permitter, p Permit) map[string]error {
	t.Helper()
	s, a, n, m := &SCSI{dev, check}, &ATA{dev, check}, &NVMe{dev, check}, &MMC{dev, check}
	id := Identify{HPA: true, LBA48: true}
	return map[string]error{
		"SCSI sanitize":    s.Sanitize(p, BlockErase, Pattern{}),
		"SCSI exit":        s.ExitFailureMode(p),
		"SCSI format":      s.Format(p),
		"ATA sanitize":     a.Sanitize(p, CryptoErase, Pattern{}),
		"ATA password":     a.SetPassword(p, password(t)),
		"ATA unlock":       a.Unlock(p, password(t)),
		"ATA disable":      a.DisablePassword(p, password(t)),
		"ATA secure erase": a.SecureErase(p, password(t), true, time.Hour),
		"ATA sectors":      a.SetSectors(p, id, 1000),
		"NVMe sanitize":    n.Sanitize(p, SanitizeOptions{Erasure: BlockErase}),
		"NVMe exit":        n.ExitFailureMode(p),
		"NVMe end":         n.EndVerification(p),
		"NVMe format":      n.Format(p, Namespace{ID: 1, BlockSize: 512}, true, time.Hour),
		"ATA restore":      a.RestoreConfiguration(p),
		"MMC erase":        m.Erase(p, time.Hour),
		"MMC sanitize":     m.Sanitize(p, time.Hour),
		"revert":           (&Drive{dev: dev, permit: check, SCSI: s}).Revert(p, "psid", nil),
		"reset":            (&Drive{dev: dev, permit: check}).Reset(p),
	}
}

func TestPermit(t *testing.T) {
	ours := Identity{Model: "ACME", Serial: "1", Size: 1000, Number: Number{8, 0}}
	good := State{Number: ours.Number, Size: ours.Size, Claimed: true, NSID: 1}
	who := func() (string, string, error) { return "ACME", "1", nil }
	p, err := NewPermit(ours)
	if err != nil {
		t.Fatal(err)
	}
	other := func(change func(*Identity)) Permit {
		i := ours
		change(&i)
		p, err := NewPermit(i)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	tests := []struct {
		name   string
		permit Permit
		state  State
		who    func() (string, string, error)
		want   string
		asks   bool // the drive itself
	}{
		{"its own", p, good, who, "", true},
		{"none", Permit{}, good, who, "there is no permit", false},
		{"another number", other(func(i *Identity) { i.Number.Minor = 16 }), good, who, "this is device 8:0", false},
		{"another size", other(func(i *Identity) { i.Size++ }), good, who, "has 1000 bytes", false},
		{"another model", other(func(i *Identity) { i.Model = "B" }), good, who, "this is ACME 1", true},
		{"another serial number", other(func(i *Identity) { i.Serial = "2" }), good, who, "this is ACME 1", true},
		{"in use", p, State{Number: ours.Number, Size: ours.Size, Claimed: true, Users: []string{"mounted at /"}}, who,
			"in use: mounted at /", false},
		{"not claimed", p, State{Number: ours.Number, Size: ours.Size}, who, "not open exclusively", false},
		{"a drive that does not say who it is", p, good,
			func() (string, string, error) { return "ACME", "1", errors.New("no answer") }, "no answer", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dev := &scripted{
				state: tt.state, nvme: func(NVMeCommand) (NVMeResult, error) { return NVMeResult{}, nil },
				mmc: func(cs ...MMCCommand) ([]uint32, error) { copy(cs[0].Data, extCSD()); return []uint32{0}, nil },
			}
			asked := false
			err := tt.permit.check(dev, func() (string, string, error) { asked = true; return tt.who() })
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrNotPermitted) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if asked != tt.asks {
				t.Errorf("the drive was asked: %t", asked)
			}
			check := func(p Permit) error { return p.check(dev, tt.who) }
			for name, err := range everyDestroyer(t, dev, check, tt.permit) {
				ok := err == nil || name == "revert" // this one does not encrypt
				if tt.want != "" && !errors.Is(err, ErrNotPermitted) || tt.want == "" && !ok {
					t.Errorf("%s: %v", name, err)
				}
			}
			if sent := len(dev.sent)+dev.resets > 0; sent != (tt.want == "") {
				t.Errorf("sent: %q, %d resets", dev.sent, dev.resets)
			}
		})
	}
	sda := Number{8, 0}
	for _, i := range []Identity{
		{}, {Model: "A", Serial: "1", Size: 1}, {Model: "A", Serial: "1", Number: sda}, {Model: "A", Size: 1, Number: sda},
		{Serial: "1", Size: 1, Number: sda},
	} {
		if _, err := NewPermit(i); !errors.Is(err, ErrNotPermitted) {
			t.Errorf("%s: %v", i, err)
		}
		if p, err := NewWholePermit(i); !errors.Is(err, ErrNotPermitted) || p != (Permit{}) {
			t.Errorf("%s: %v", i, err)
		}
	}
}

// silent is a real device to which nothing may be sent.
type silent struct {
	*file
	t *testing.T
}

func (s silent) NVMe(NVMeCommand) (NVMeResult, error) {
	s.t.Error("an NVMe command was sent to a disk of this machine")
	return NVMeResult{}, os.ErrPermission
}

func (s silent) SCSI(SCSICommand) (SCSIResult, error) {
	s.t.Error("a SCSI command was sent to a disk of this machine")
	return SCSIResult{}, os.ErrPermission
}

func (s silent) MMC(...MMCCommand) ([]uint32, error) {
	s.t.Error("an eMMC command was sent to a disk of this machine")
	return nil, os.ErrPermission
}

func (s silent) Reset() error {
	s.t.Error("a disk of this machine was reset")
	return os.ErrPermission
}

// TestNoPermitForThisMachine fails unless every disk of the machine that the tests run on refuses everything that destroys: with no
// permit, with that of another drive, and with one that names its own number and size, since nobody has claimed it or somebody uses it.
// Nothing is sent to a disk.
func TestNoPermitForThisMachine(t *testing.T) {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for _, e := range entries {
		f, err := os.Open("/dev/" + strings.ReplaceAll(e.Name(), "!", "/"))
		if err != nil { // no medium, or not allowed: then nothing can be sent to it either
			if _, err := newFile(nil, false).users(e.Name()); err != nil {
				t.Errorf("%s: %v", e.Name(), err)
			}
			looked++
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			defer f.Close()
			dev := silent{newFile(f, false), t}
			state, err := dev.State()
			if err != nil {
				t.Fatal(err)
			}
			looked++
			permits := map[string]Permit{"no permit": {}}
			for name, i := range map[string]Identity{
				"the permit of another drive":     {"ACME", "1", 1 << 40, Number{8, 4096}},
				"a permit of its number and size": {"ACME", "1", state.Size, state.Number},
			} {
				if p, err := NewPermit(i); err == nil { // a loop device without a file has no size
					permits[name] = p
				}
			}
			for name, p := range permits {
				check := func(p Permit) error {
					return p.check(dev, func() (string, string, error) {
						t.Error("the drive was asked")
						return "ACME", "1", nil
					})
				}
				for what, err := range everyDestroyer(t, dev, check, p) {
					if !errors.Is(err, ErrNotPermitted) {
						t.Errorf("%s: %s: %v", name, what, err)
					}
				}
			}
		})
	}
	if looked == 0 {
		if os.Getenv("GPROV_NO_SKIP") == "1" {
			t.Fatal("this machine has no disks")
		}
		t.Skip("this machine has no disks")
	}
}

// TestUsers looks at machines that are not there.
func TestUsers(t *testing.T) {
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	sys := fstest.MapFS{
		"block/sda/dev": text("8:0\n"), "block/sda/sda1/dev": text("8:1\n"), "block/sda/sda1/partition": text("1\n"),
		"block/sda/queue/x": text(""),
		"block/sdb/dev":     text("8:16\n"), "block/sdb/sdb1/dev": text("8:17\n"), "block/sdb/sdb1/partition": text("1\n"),
		"block/sdb/sdb1/holders/md0/x": text(""),
		"block/nvme0n1/dev":            text("259:0\n"), "block/nvme0n1/device/subsysnqn": text("nqn.a\n"),
		"block/nvme0n2/dev": text("259:1\n"), "block/nvme0n2/device/subsysnqn": text("nqn.a\n"),
		"block/nvme1n1/dev": text("259:2\n"), "block/nvme1n1/device/subsysnqn": text("nqn.b\n"),
		"block/nvme0c0n1/device/subsysnqn": text("nqn.a\n"), // a hidden path
	}
	nodes := map[string]Number{"/dev/sda1": {8, 1}, "/dev/sdb1": {8, 17}, "/dev/nvme1n1": {259, 2}}
	machine := func(mounts, swaps string) *file {
		return &file{sys: sys, proc: fstest.MapFS{"self/mountinfo": text(mounts), "swaps": text("Filename Type Size Used Priority\n" + swaps)},
			number: func(path string) (Number, bool) { n, ok := nodes[path]; return n, ok }}
	}
	tests := []struct{ disk, mounts, swaps, want string }{
		{"sda", "", "", "[]"},
		{"sda", "25 1 8:1 / /data rw shared:1 - ext4 /dev/root rw\n", "", "[mounted at /data]"},
		{"sda", "25 1 0:42 / /data rw - btrfs /dev/sda1 rw\n", "", "[mounted at /data]"},
		{"sda", "25 1 8:17 / /data rw - ext4 /dev/sdb1 rw\n26 1 0:5 / /dev rw - devtmpfs devtmpfs rw\nodd\n", "", "[]"},
		{"sda", "", "/dev/sda1 partition 1 0 -2\n", "[swap on /dev/sda1]"},
		{"sdb", "", "", "[sdb1 held by md0]"},
		{"nvme0n1", "25 1 259:1 / /data rw - ext4 /dev/nvme0n2 rw\n", "", "[mounted at /data]"},
		{"nvme0n1", "25 1 259:2 / /data rw - ext4 /dev/nvme1n1 rw\n", "", "[]"},
	}
	for _, tt := range tests {
		users, err := machine(tt.mounts, tt.swaps).users(tt.disk)
		if err != nil || fmt.Sprint(users) != tt.want {
			t.Errorf("%s, %q, %q: %v %v, want %s", tt.disk, tt.mounts, tt.swaps, users, err, tt.want)
		}
	}
	if users, err := machine("", "").users("sdz"); err == nil {
		t.Errorf("a disk that is not there: %v", users)
	}
}

// TestReach asks how far a command of a controller reaches that formats all namespaces when it formats one.
func TestReach(t *testing.T) {
	try := func(fna byte, namespaces uint32, p Permit) (sent []string, err error) {
		dev := &scripted{state: State{NSID: 1}, nvme: func(c NVMeCommand) (NVMeResult, error) {
			switch {
			case c.Opcode == nvmeIdentify && c.CDW10 == cnsController:
				copy(c.Data, controllerData())
				c.Data[524] = fna
			case c.Opcode == nvmeIdentify:
				for id := range namespaces {
					c.Data[4*id] = byte(id + 1)
				}
			}
			return NVMeResult{}, nil
		}}
		err = (&NVMe{dev, allow}).Format(p, Namespace{ID: 1, BlockSize: 512}, false, time.Hour)
		return dev.sent, err
	}
	tests := []struct {
		name       string
		fna        byte
		namespaces uint32
		permit     Permit
		ok         bool
	}{
		{"one by one", 0, 2, Permit{}, true},
		{"all at once, and there is one", 1 << 1, 1, Permit{}, true},
		{"all at once, and there are two", 1 << 1, 2, Permit{}, false},
		{"all at once, and it formats all", 1 << 0, 2, Permit{}, false},
		{"all at once, and the permit is for all", 1 << 1, 2, Permit{whole: true}, true},
	}
	for _, tt := range tests {
		sent, err := try(tt.fna, tt.namespaces, tt.permit)
		formatted := strings.HasPrefix(sent[len(sent)-1], "80")
		if formatted != tt.ok || (err == nil) != tt.ok || !tt.ok && !errors.Is(err, ErrNotPermitted) {
			t.Errorf("%s: %v, formatted %t", tt.name, err, formatted)
		}
	}
}
