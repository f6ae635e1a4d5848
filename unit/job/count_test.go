package job

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/layout"
	"gprovision/model/record"
	"gprovision/unit/decide"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/volume"
)

func TestMain(m *testing.M) { machinetest.Main(m) }

// bench is a provisioned unit on a machine that is not there. Its recovery volume is volume, beside all doors.
type bench struct {
	*machinetest.Rig
	Env
	unit   state.Unit
	volume *state.Volume
	log    bytes.Buffer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Rig: machinetest.NewUnit(t, machinetest.Kind{Firmware: layout.UEFI})}
	b.unit = machinetest.Provision(b.Rig, machinetest.Machine(b.Rig))
	b.Start(nil)
	m := machinetest.Machine(b.Rig)
	m.Log = slog.New(slog.NewTextHandler(&b.log, nil))
	b.Env = envOf(m)
	disk, err := b.Machine.RecoveryDisk(b.unit)
	if err != nil {
		t.Fatal(err)
	}
	part := b.unit.Recovery.Table.Find(layout.Recovery)
	b.Env.Volume = volume.At(b.Machine, block.PartitionPath(disk.Path, part.Number))
	b.volume = state.Open(b.Rig.Volume(part.FSUUID))
	return b
}

// envOf returns what a job gets of the log of m on: what m logs goes to its journal too.
func envOf(m *machine.Machine) Env {
	e := Env{Machine: m, Queue: report.NewQueue("b1"), Journal: journal.New(journal.Options{})}
	Feed(e.Queue, e.Journal)
	m.Log = slog.New(slog.NewMultiHandler(m.Log.Handler(), e.Journal.Handler()))
	return e
}

// TestCount: counts go on from what is there. A file that cannot be read begins anew, so that a unit still counts its boots; one that a
// newer init wrote is never rewritten.
func TestCount(t *testing.T) {
	repaired := func(c state.Counts) state.Counts { return c.Repaired() }
	newer := fmt.Sprintf(`{"version":%d,"repairs":1}`, state.Version+1)
	for name, c := range map[string]struct {
		before string
		want   int // repairs; -1: the file is as it was
		err    error
		warn   string
	}{
		"none yet":           {"", 1, nil, ""},
		"some":               {`{"version":1,"repairs":2,"bootAttempts":3}`, 3, nil, ""},
		"damaged":            {`{"version":1,"repai`, 1, nil, "beginning at zero"},
		"empty after a cut":  {strings.Repeat("\x00", state.CountsSize), 1, nil, "beginning at zero"},
		"of a newer init":    {newer, -1, state.ErrNewer, ""},
		"too much to be one": {strings.Repeat("[", 1<<20), 1, nil, "beginning at zero"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			file := b.volume.Path(state.CountsFile)
			if c.before != "" {
				if err := os.WriteFile(file, []byte(c.before), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Count(b.unit, repaired); !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			if !strings.Contains(b.log.String(), c.warn) || (c.warn == "") != (b.log.Len() == 0) {
				t.Errorf("the log says:\n%s", &b.log)
			}
			if c.want < 0 {
				if is, err := os.ReadFile(file); string(is) != c.before {
					t.Errorf("it is rewritten: %q, %v", is, err)
				}
				return
			}
			if got, err := b.volume.ReadCounts(); err != nil || got.Repairs != c.want {
				t.Errorf("counted are %+v, %v", got, err)
			}
			if name == "some" {
				if got, _ := b.volume.ReadCounts(); got.BootAttempts != 3 {
					t.Errorf("another count is lost: %+v", got)
				}
			}
		})
	}
}

// TestCountWithoutVolume: a volume that cannot be mounted is an error for whoever counts, and its directory gets no file.
func TestCountWithoutVolume(t *testing.T) {
	b := newBench(t)
	b.Fail(func(_ int, call string) error {
		if strings.HasPrefix(call, "mount") {
			return syscall.EIO
		}
		return nil
	})
	if err := b.Count(b.unit, state.Counts.Repaired); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(b.Machine.Places.Recovery); err != nil || len(left) > 0 {
		t.Errorf("in the directory is %v, %v", left, err)
	}
}

// TestCountKeeps: a unit with a server leaves on its volume what the server is to hear, for a boot that comes to speak to it. Afterwards
// nothing of the volume is in use. A unit without a server leaves nothing.
func TestCountKeeps(t *testing.T) {
	for _, server := range []string{"", "http://server.example:8080"} {
		b := newBench(t)
		b.unit.Server = server
		b.Began(record.JobRepair)
		if err := b.Count(b.unit, state.Counts.Repaired); err != nil {
			t.Fatal(err)
		}
		if on, err := b.Machine.Mounted(b.Machine.Places.Recovery); on || err != nil {
			t.Errorf("the volume stays mounted: %v", err)
		}
		if _, err := os.Stat(b.volume.Path(state.QueueDir)); (err == nil) != (server != "") {
			t.Errorf("server %q: the queue's directory: %v", server, err)
		}
		next := report.NewQueue("b2") // of the next boot
		if err := next.Persist(b.volume.Path(state.QueueDir)); err != nil {
			t.Fatalf("server %q: it is in use: %v", server, err)
		}
		heard := machinetest.Heard(t, next)
		kept := len(heard) == 1 && heard[0].Phase == record.Started && heard[0].Job == record.JobRepair
		if kept != (server != "") {
			t.Errorf("server %q: the next boot has %+v", server, heard)
		}
	}
}

// TestMakeRoom: a full volume takes a count again after its oldest log was removed, and somebody is told. One that stays full stops
// nothing.
func TestMakeRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		machinetest.Skip(t, "mounting needs root")
	}
	b := newBench(t)
	dir := t.TempDir()
	if err := host.Mount("tmpfs", dir, "tmpfs", host.MountOptions{Data: "size=4m"}); err != nil {
		machinetest.Skip(t, fmt.Sprintf("mount tmpfs: %v", err))
	}
	t.Cleanup(func() {
		if err := host.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	v := state.Open(dir)
	logs := v.Path(state.LogDir)
	if err := os.MkdirAll(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	names := []string{"init20261120_100000.log", "init20261121_100000.log"}
	for i, name := range names {
		at := time.Date(2026, 11, 20+i, 10, 0, 0, 0, time.UTC)
		file := filepath.Join(logs, name)
		if err := errors.Join(os.WriteFile(file, make([]byte, 1536<<10), 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	fill := func() {
		f, err := os.OpenFile(v.Path("data"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	left := func() (out []string) {
		list, err := os.ReadDir(logs)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			out = append(out, e.Name())
		}
		return out
	}
	b.MakeRoom(v)
	fill()
	if got := left(); len(got) != 2 || b.log.Len() > 0 {
		t.Errorf("a volume with room has the logs %q; log:\n%s", got, &b.log)
	}
	b.MakeRoom(v)
	if got := left(); !slices.Equal(got, names[1:]) || !strings.Contains(b.log.String(), names[0]) {
		t.Errorf("left are the logs %q; log:\n%s", got, &b.log)
	}
	if err := v.WriteCounts(state.Counts{Repairs: 1}); err != nil {
		t.Errorf("there is no room for counts: %v", err)
	}
	if err := os.RemoveAll(logs); err != nil {
		t.Fatal(err)
	}
	fill()
	b.MakeRoom(v) // no log is left: nothing to be done
	b.log.Reset()
	b.MakeRoom(state.Open(filepath.Join(dir, "none")))
	if !strings.Contains(b.log.String(), "may be full") {
		t.Errorf("nobody is told that it cannot be looked at:\n%s", &b.log)
	}
}

// TestSetRequestAside: a damaged request is kept aside, once, and only on a volume that is the unit's.
func TestSetRequestAside(t *testing.T) {
	bad := errors.New("cut off")
	for name, c := range map[string]struct {
		bad   error
		found decide.RecoveryState
		fault error
		aside bool
	}{
		"damaged":              {bad, decide.RecoveryFound, nil, true},
		"good":                 {nil, decide.RecoveryFound, nil, false},
		"no volume":            {bad, decide.RecoveryMissing, nil, false},
		"a damaged volume":     {bad, decide.RecoveryDamaged, nil, false},
		"it cannot be mounted": {bad, decide.RecoveryFound, syscall.EIO, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.Fail(func(int, string) error { return c.fault })
			mounts := len(b.Calls())
			b.SetRequestAside(c.bad, c.found)
			_, there := os.Stat(b.volume.Path(state.RequestFile))
			_, aside := os.Stat(b.volume.Path(state.BadRequestFile))
			if (aside == nil) != c.aside || (there == nil) == c.aside {
				t.Errorf("the request: %v, aside: %v", there, aside)
			}
			if touched := len(b.Calls()) > mounts; touched != (c.aside || c.fault != nil) {
				t.Errorf("the volume is touched: %t", touched)
			}
			if (c.fault != nil) != strings.Contains(b.log.String(), "cannot be set aside") {
				t.Errorf("the log says:\n%s", &b.log)
			}
		})
	}
}
