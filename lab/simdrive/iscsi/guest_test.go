package iscsi

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gprovision/hw/block"
	"gprovision/hw/drive"
	"gprovision/model/erasure"
	"gprovision/unit/job/erase/engine"
)

// TestMain runs the tests, or, as the first program of TestKernel's machine, erases its disks.
func TestMain(m *testing.M) {
	if os.Getpid() == 1 && os.Args[0] == "/init" {
		if err := guest(); err != nil {
			fmt.Println("the guest has failed:", err)
		}
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	os.Exit(m.Run())
}

// guest is the machine: it gets its disks and does what the host says.
func guest() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, name := range modules {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(unix.FinitModule(int(f.Fd()), "", 0), f.Close()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	if err := network(); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	args := map[string]string{}
	for f := range strings.FieldsSeq(string(b)) {
		key, value, _ := strings.Cut(f, "=")
		args[key] = value
	}
	host, err := rpc.Dial("tcp", args["control"])
	if err != nil {
		return fmt.Errorf("the host: %w", err)
	}
	target, err := net.ResolveTCPAddr("tcp4", args["target"])
	if err != nil {
		return err
	}
	number, err := attach(target, name)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := os.WriteFile(fmt.Sprintf("/sys/class/scsi_host/host%d/scan", number), []byte("- - -"), 0); err != nil {
		return err
	}
	for {
		var j Job
		if err := host.Call("Host.Next", 0, &j); err != nil || j.Last {
			return err
		}
		r := Report{LUN: j.LUN}
		began := time.Now()
		res, err := eraseUnit(host, number, j)
		fmt.Printf("unit %d: %s, %v, %v\n", j.LUN, res.Drive.Outcome, err, time.Since(began))
		if err != nil {
			r.Err = err.Error()
		}
		if r.Result, err = json.Marshal(res); err != nil {
			return err
		}
		if err := host.Call("Host.Done", r, new(int)); err != nil {
			return err
		}
	}
}

// network gives the network card the address that QEMU's own network has for it.
func network() error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	addr, err := netlink.ParseAddr("10.0.2.15/24")
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return nil
}

// node is the device of a logical unit, which appears a moment after the scan.
func node(host, lun int) (string, error) {
	for range 200 {
		list, err := filepath.Glob(fmt.Sprintf("/sys/class/scsi_device/%d:0:0:%d/device/block/*", host, lun))
		if err != nil {
			return "", err
		}
		if len(list) == 1 {
			p := "/dev/" + filepath.Base(list[0])
			if _, err := os.Stat(p); err == nil {
				return p, nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", fmt.Errorf("unit %d has no disk", lun)
}

// eraseUnit erases a logical unit as a unit of the product does, but that time is the host's.
func eraseUnit(host *rpc.Client, number int, j Job) (engine.Result, error) {
	p, err := node(number, j.LUN)
	if err != nil {
		return engine.Result{}, err
	}
	if err := os.WriteFile("/sys/block/"+filepath.Base(p)+"/device/timeout", fmt.Append(nil, j.Timeout), 0); err != nil {
		return engine.Result{}, err
	}
	d, err := drive.Open(p, nil)
	for i := 0; err != nil && i < 10; i++ { // one that is busy now and then
		d, err = drive.Open(p, nil)
	}
	if err != nil {
		return engine.Result{}, err
	}
	defer d.Close()
	raw, err := block.OpenRaw(p)
	if err != nil {
		return engine.Result{}, err
	}
	defer raw.Close()
	var id drive.Identity
	permit := func() (drive.Permit, error) {
		for range 10 {
			if id, err = d.Identity(); err == nil {
				return drive.NewWholePermit(id)
			}
		}
		return drive.Permit{}, err
	}
	first, err := permit()
	if err != nil {
		return engine.Result{}, err
	}
	passes := func(d time.Duration) time.Duration {
		var now time.Duration
		if e := host.Call("Host.Wait", Pause{j.LUN, d}, &now); e != nil {
			panic(e)
		}
		return now
	}
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], j.Seed)
	return engine.Run(context.Background(), engine.Env{
		Now:      func() time.Time { return time.Unix(1_800_000_000, 0).Add(passes(0)) },
		Wait:     func(_ context.Context, d time.Duration) error { passes(d); return nil },
		Random:   rand.NewChaCha8(seed),
		Announce: func(erasure.Drive) error { return nil },
		Store:    func(engine.State) error { return nil },
		Requests: 4,
	}, engine.Target{
		Known: j.Known, Drive: d, Permit: first, Whole: true, PSID: drive.PSID(j.PSID),
		Areas: []engine.Area{{Blocks: raw, Size: func() int64 { return id.Size }}},
		Reopen: func(uint64) (drive.Permit, error) {
			if err := os.WriteFile("/sys/block/"+filepath.Base(p)+"/device/rescan", []byte("1"), 0); err != nil {
				return drive.Permit{}, err
			}
			return permit()
		},
	}, engine.State{})
}
