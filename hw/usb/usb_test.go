package usb

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"
)

const dir = "bus/usb/devices/"

// machine is a root hub with two ports, and more files.
func machine(more map[string]string) fstest.MapFS {
	sys := fstest.MapFS{}
	files := map[string]string{"usb1/busnum": "1", "usb1/devnum": "1", "usb1/1-0:1.0/usb1-port1/connect_type": "hotplug", "usb1/1-0:1.0/usb1-port2/connect_type": "hotplug",
		"1-0:1.0/bInterfaceClass": "09"}
	maps.Copy(files, more)
	for name, text := range files {
		sys[dir+name] = &fstest.MapFile{Data: []byte(text + "\n")}
	}
	return sys
}

func with(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// TestRead: what is on its way, at each stage of a stick that was in before power-on, and what is not waited for.
func TestRead(t *testing.T) {
	hub := map[string]string{"1-1/busnum": "1", "1-1/devnum": "2", "1-1/1-1:1.0/1-1-port1/connect_type": "hotplug", "1-1:1.0/bInterfaceClass": "09"}
	device := map[string]string{"1-2/busnum": "1", "1-2/devnum": "3"}
	interfaces := with(device, map[string]string{"1-2:1.0/bInterfaceClass": "08"})
	taken := with(interfaces, map[string]string{"1-2:1.0/driver/x": ""})
	found := with(taken, map[string]string{"1-2:1.0/host4/target4:0:0/4:0:0:0/type": "0"})
	disk := with(found, map[string]string{"1-2:1.0/host4/target4:0:0/4:0:0:0/block/sda/size": "1"})
	for name, c := range map[string]struct {
		files     map[string]string
		connected []string // bus, number, port
		young     time.Duration
		want      State
	}{
		"nothing is connected":        {nil, nil, time.Minute, State{Ports: true}},
		"a hub that is new":           {nil, nil, 200 * time.Millisecond, State{Ports: true, Settling: 300 * time.Millisecond}},
		"connected and no device yet": {nil, []string{"1/1/2"}, time.Minute, State{Ports: true, Pending: []string{"usb1-port2"}}},
		"a device without interfaces": {device, []string{"1/1/2"}, time.Minute, State{Ports: true, Pending: []string{"usb1-port2"}}},
		"storage without a driver":    {interfaces, []string{"1/1/2"}, time.Minute, State{Ports: true}},
		"storage without one yet":     {interfaces, []string{"1/1/2"}, 4 * time.Second, State{Ports: true, Pending: []string{"1-2:1.0"}}},
		"storage that is looked at":   {taken, []string{"1/1/2"}, time.Minute, State{Ports: true, Pending: []string{"1-2:1.0"}}},
		"a disk that is not there":    {found, []string{"1/1/2"}, time.Minute, State{Ports: true, Pending: []string{"1-2:1.0"}}},
		"a disk":                      {disk, []string{"1/1/2"}, time.Minute, State{Ports: true}},
		"an optical drive":            {with(taken, map[string]string{"1-2:1.0/host4/target4:0:0/4:0:0:0/type": "5"}), []string{"1/1/2"}, time.Minute, State{Ports: true}},
		"a keyboard":                  {with(device, map[string]string{"1-2:1.0/bInterfaceClass": "03"}), []string{"1/1/2"}, time.Minute, State{Ports: true}},
		"the kernel talks to it":      {map[string]string{"usb1/1-0:1.0/usb1-port2/state": "default"}, nil, time.Minute, State{Ports: true, Pending: []string{"usb1-port2"}}},
		"nothing, says the kernel":    {map[string]string{"usb1/1-0:1.0/usb1-port2/state": "not attached"}, nil, time.Minute, State{Ports: true}},
		"the kernel does not know it": {map[string]string{"usb1/1-0:1.0/usb1-port2/state": "not attached"}, []string{"1/1/2"}, time.Minute, State{Ports: true, Pending: []string{"usb1-port2"}}},
		"behind a hub":                {hub, []string{"1/1/1", "1/2/1"}, time.Minute, State{Ports: true, Pending: []string{"1-1-port1"}}},
		"there, behind a hub":         {with(hub, map[string]string{"1-1.1:1.0/bInterfaceClass": "03"}), []string{"1/1/1", "1/2/1"}, time.Minute, State{Ports: true}},
	} {
		asked := map[Address]int{}
		got := Read(machine(c.files), Doors{
			Connected: func(h Address, ports []int) (out []int, err error) {
				if asked[h]++; asked[h] > 1 {
					t.Errorf("%s: hub %v is asked again", name, h)
				}
				for _, port := range ports {
					if slices.Contains(c.connected, fmt.Sprintf("%d/%d/%d", h.Bus, h.Number, port)) {
						out = append(out, port)
					}
				}
				return out, nil
			},
			Age: func(Address) (time.Duration, error) { return c.young, nil },
			DiskAge: func(disk string) (time.Duration, error) {
				if disk != "sda" {
					t.Errorf("%s: %s is no disk", name, disk)
				}
				return time.Minute, nil
			},
		})
		c.want.Storage = slices.Contains(c.want.Pending, "1-2:1.0")
		if got.Ports != c.want.Ports || got.Storage != c.want.Storage || !slices.Equal(got.Pending, c.want.Pending) || got.Settling != c.want.Settling {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
	// The kernel reads the table of a new disk, and says nothing of it.
	old := func(Address) (time.Duration, error) { return time.Minute, nil }
	table := Doors{Connected: func(Address, []int) ([]int, error) { return nil, nil }, Age: old,
		DiskAge: func(string) (time.Duration, error) { return 450 * time.Millisecond, nil }}
	if got := Read(machine(disk), table); len(got.Pending) > 0 || got.Settling != 50*time.Millisecond {
		t.Errorf("a disk whose table is being read: %+v", got)
	}
	bad := errors.New("no answer")
	silent := Doors{Connected: func(Address, []int) ([]int, error) { return nil, bad }, Age: func(Address) (time.Duration, error) { return 0, bad }}
	if got := Read(machine(nil), silent); len(got.Pending) > 0 || got.Settling > 0 {
		t.Errorf("a hub that does not answer is waited for: %+v", got)
	}
	// One port is known, and another is not.
	half := Doors{Connected: func(_ Address, ports []int) ([]int, error) { return ports[:1], bad }, Age: silent.Age}
	if got := Read(machine(nil), half); !slices.Equal(got.Pending, []string{"usb1-port1"}) {
		t.Errorf("what a hub says before it falls silent is lost: %+v", got)
	}
	busy := Doors{Connected: func(Address, []int) ([]int, error) { return nil, ErrBusy }, Age: silent.Age}
	if got := Read(machine(nil), busy); !slices.Equal(got.Pending, []string{"usb1"}) {
		t.Errorf("a hub that the kernel talks to is not waited for: %+v", got)
	}
	// While the kernel talks to what is connected, nobody can ask the hub, and would wait for that.
	talks := machine(map[string]string{"usb1/1-0:1.0/usb1-port1/state": "powered"})
	never := Doors{Connected: func(Address, []int) ([]int, error) { t.Error("a busy hub is asked"); return nil, nil }, Age: silent.Age}
	if got := Read(talks, never); !slices.Equal(got.Pending, []string{"usb1-port1"}) {
		t.Errorf("%+v", got)
	}
	if got := Read(fstest.MapFS{}, silent); got.Ports {
		t.Errorf("no USB: %+v", got)
	}
}

// TestMachine: the node of a hub is where usbfs has it, and one that is none gives an error.
func TestMachine(t *testing.T) {
	dev := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dev, "bus/usb/001"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dev, "bus/usb/001/012"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// What usbfs does with each question is not the beginning of a hub.
	if err := os.Chtimes(filepath.Join(dev, "bus/usb/001/012"), time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	d := Machine(dev)
	if age, err := d.Age(Address{1, 12}); err != nil || age > time.Minute {
		t.Errorf("%s, %v", age, err)
	}
	if _, err := d.Age(Address{1, 2}); err == nil {
		t.Error("a hub that is not there has an age")
	}
	if yes, err := d.Connected(Address{1, 12}, []int{1}); err == nil || len(yes) > 0 {
		t.Errorf("a file answers %v, %v", yes, err)
	}
}

// BenchmarkRead looks at a server's ports, nothing of which is on its way: 6 hubs with 12 ports, 8 devices. It is what each look of a unit
// costs beside the hubs' own answers.
func BenchmarkRead(b *testing.B) {
	files := map[string]string{}
	for bus := 1; bus <= 6; bus++ {
		hub := fmt.Sprintf("usb%d/", bus)
		files[hub+"busnum"], files[hub+"devnum"] = fmt.Sprint(bus), "1"
		files[fmt.Sprintf("%d-0:1.0/bInterfaceClass", bus)] = "09"
		for port := 1; port <= 12; port++ {
			files[fmt.Sprintf("%s%d-0:1.0/usb%d-port%d/connect_type", hub, bus, bus, port)] = "hotplug"
		}
	}
	for port := 1; port <= 8; port++ {
		files[fmt.Sprintf("1-%d:1.0/bInterfaceClass", port)] = "03"
	}
	sys := os.DirFS(tree(b, machine(files)))
	doors := Doors{Connected: func(Address, []int) ([]int, error) { return nil, nil }, Age: func(Address) (time.Duration, error) { return time.Minute, nil }}
	for b.Loop() {
		if s := Read(sys, doors); !s.Ports || len(s.Pending) > 0 {
			b.Fatalf("%+v", s)
		}
	}
}

// tree writes files to a directory.
func tree(b *testing.B, files fstest.MapFS) string {
	b.Helper()
	top := b.TempDir()
	if err := os.CopyFS(top, files); err != nil {
		b.Fatal(err)
	}
	return top
}
