package burnin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/block"
	"gprovision/hw/drive"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/hardware"
	"gprovision/model/manifest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
)

// diskSize is the size of the main disk of a test: between its ends lie 20 MiB and a bit.
const diskSize = 36<<20 + 512

// bench is a burn-in, and the machine that it runs on.
type bench struct {
	*machinetest.Rig
	*stage
	sys  fstest.MapFS
	kmsg *records
	log  *bytes.Buffer
}

// records are the records of a kernel's log.
type records struct{ left []any }

func (r *records) Read(b []byte) (int, error) {
	if len(r.left) == 0 {
		return 0, unix.EAGAIN
	}
	next := r.left[0]
	r.left = r.left[1:]
	if err, ok := next.(error); ok {
		return 0, err
	}
	return copy(b, next.(string)), nil
}

func (r *records) Close() error { return nil }

// newBench returns a burn-in of two processors, 128 MiB of memory, of which half is free, and one disk, on which all is well.
func newBench(t *testing.T, want manifest.BurnIn) *bench {
	t.Helper()
	b := &bench{Rig: machinetest.New(t), sys: fstest.MapFS{}, kmsg: &records{}, log: &bytes.Buffer{}}
	b.AddDisk(block.Disk{Name: "vda", Bus: block.VirtIO, Size: diskSize})
	b.sensor(0, "coretemp", 50)
	doors := b.Doors()
	doors.Board.KernelLog = func() (*host.KernelLog, error) { return host.NewKernelLog(b.kmsg), nil }
	doors.Board.Health = func(string) (drive.Health, error) { return drive.Health{Temperature: new(int64(30))}, nil }
	m := &machine.Machine{Doors: doors, Log: slog.New(slog.NewTextHandler(b.log, nil)), Panel: panel.New(), Sys: b.sys}
	main, err := m.Disks()
	if err != nil {
		t.Fatal(err)
	}
	p := realParts(fstest.MapFS{"meminfo": {Data: []byte("MemAvailable: 131072 kB\n")}})
	p.minute = time.Millisecond
	p.cores = func() ([]int, error) { return []int{0, 1}, nil }
	p.pin = func(int) error { return nil }
	p.rest = func(context.Context) {}
	b.stage = &stage{m: m, want: want, main: main, parts: p}
	return b
}

func (b *bench) sensor(n int, name string, celsius int) {
	dir := fmt.Sprintf("class/hwmon/hwmon%d/", n)
	b.sys[dir+"name"] = &fstest.MapFile{Data: []byte(name + "\n")}
	b.sys[dir+"temp1_input"] = &fstest.MapFile{Data: fmt.Appendf(nil, "%d000\n", celsius)}
}

// whole is a burn-in with all parts and limits.
func whole(disks string) manifest.BurnIn {
	return manifest.BurnIn{ProcessorMinutes: 1, MemoryMinutes: 1, Disks: disks, DiskMinutes: 60_000, DiskMBpsMin: 1, CelsiusMax: 90,
		DiskCelsiusMax: 60}
}

// line returns the line of a name.
func (b *bench) line(t *testing.T, name string) hardware.Line {
	t.Helper()
	i := slices.IndexFunc(b.lines, func(l hardware.Line) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("there is no line %q in %+v", name, b.lines)
	}
	return b.lines[i]
}

// TestGood: a machine on which all is well stands everything, its disk is as blank as before, and each part has its line and measurement.
func TestGood(t *testing.T) {
	for _, disks := range []string{manifest.BurnRead, manifest.BurnWrite} {
		t.Run(disks, func(t *testing.T) {
			b := newBench(t, whole(disks))
			b.kmsg.left = []any{"6,1,1,-;ata1: SATA link up 6.0 Gbps", "11,2,2,-;a program says I/O error"}
			if err := b.run(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, b.log)
			}
			want := []string{"burn-in processors", "burn-in memory", "burn-in disk vda", "burn-in temperature", "burn-in disk temperature",
				"burn-in kernel messages", "burn-in disk vda, read"}
			measured := []string{"burn-in processor speed", "burn-in memory speed"}
			if disks == manifest.BurnWrite {
				want[len(want)-1] = "burn-in disk vda, write"
				want = append(want, "burn-in disk vda, read back")
			}
			for _, name := range want {
				if l := b.line(t, name); !l.OK || !l.Checked || l.Found == "" || l.Expected == "" || l.Rule == "" {
					t.Errorf("%+v", l)
				}
			}
			for _, name := range measured {
				if l := b.line(t, name); l.Checked || !strings.HasSuffix(strings.TrimSuffix(l.Found, " on each"), "/s") {
					t.Errorf("%+v", l)
				}
			}
			if n := len(want) + len(measured); n != len(b.lines) {
				t.Errorf("%d lines, want %d: %+v", len(b.lines), n, b.lines)
			}
			if l := b.line(t, "burn-in memory"); !strings.HasPrefix(l.Found, "64 MiB, 1 passes of 9 patterns") {
				t.Errorf("%+v", l)
			}
			if blank, why, err := b.m.BlankDisk(b.main[0].Path); !blank || err != nil {
				t.Errorf("the disk is not blank: %s, %v", why, err)
			}
			if written := b.Written(); (len(written) > 0) != (disks == manifest.BurnWrite) {
				t.Errorf("%s are written", written)
			}
		})
	}
}

// TestNothing: without limits nothing is compared that has none, and what cannot be watched is not checked.
func TestNothing(t *testing.T) {
	b := newBench(t, manifest.BurnIn{ProcessorMinutes: 1})
	b.m.Board.KernelLog = nil
	b.m.Board.Health = func(string) (drive.Health, error) { return drive.Health{}, errors.ErrUnsupported }
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, found := range map[string]string{"burn-in temperature": "50 °C at coretemp temp1", "burn-in disk temperature": "no sensor",
		"burn-in kernel messages": "unknown"} {
		if l := b.line(t, name); l.Checked || l.OK || l.Found != found {
			t.Errorf("%+v", l)
		}
	}
	if len(b.lines) != 5 {
		t.Errorf("%+v", b.lines)
	}
}

// liar is a disk behind the doors of a machine that does not do what it is told.
type liar struct {
	machine.Blocks
	read, write func(b []byte, off int64) (n int, err error, instead bool)
}

func (l *liar) ReadAt(b []byte, off int64) (int, error) {
	if l.read != nil {
		if n, err, instead := l.read(b, off); instead {
			return n, err
		}
	}
	return l.Blocks.ReadAt(b, off)
}

func (l *liar) WriteAt(b []byte, off int64) (int, error) {
	if l.write != nil {
		if n, err, instead := l.write(b, off); instead {
			return n, err
		}
	}
	return l.Blocks.WriteAt(b, off)
}

// reader is such a disk that is only read.
type reader struct {
	machine.Device
	read func(b []byte, off int64) (n int, err error, instead bool)
}

func (r *reader) ReadAt(b []byte, off int64) (int, error) {
	if n, err, instead := r.read(b, off); instead {
		return n, err
	}
	return r.Device.ReadAt(b, off)
}

// lie puts a liar in place of the disk.
func (b *bench) lie(l liar) {
	open := b.m.Open
	b.m.Open = func(path string, how machine.Access) (machine.Device, error) {
		dev, err := open(path, how)
		if err != nil {
			return nil, err
		}
		switch d := dev.(type) {
		case *machine.Drive:
			own := l
			own.Blocks = d.Blocks
			d.Blocks = &own
		default:
			if how == machine.Direct && l.read != nil {
				return &reader{dev, l.read}, nil
			}
		}
		return dev, nil
	}
}

// holds reports whether sector n is in what is read or written.
func holds(b []byte, off, n int64) bool { return n*512 >= off && n*512 < off+int64(len(b)) }

// mapped returns memory of a file.
func mapped(t *testing.T, fd, n int) []byte {
	b, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func memfile(t *testing.T, size int64) int {
	fd, err := unix.MemfdCreate("memory", 0)
	if err == nil {
		err = unix.Ftruncate(fd, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestLiars: whatever lies, breaks or gets too hot is found, by its own line and no other, and named.
func TestLiars(t *testing.T) {
	const processors, memory, disk, messages = "burn-in processors", "burn-in memory", "burn-in disk vda", "burn-in kernel messages"
	right := func(_ int, work []byte, n int) [sha256.Size]byte { return round(work, n) }
	bad := func(sector int64) func([]byte, int64) (int, error, bool) {
		return func(b []byte, off int64) (int, error, bool) { return 0, syscall.EIO, holds(b, off, sector) }
	}
	for _, tc := range []struct {
		name   string
		disks  string
		change func(t *testing.T, b *bench)
		line   string
		says   string
	}{
		{"a processor computes wrong once", "", func(_ *testing.T, b *bench) {
			b.want.ProcessorMinutes = 1000
			rounds := 0
			b.parts.round = func(core int, work []byte, n int) [sha256.Size]byte {
				sum := right(core, work, n)
				if core == 1 {
					if rounds++; rounds == 3 {
						sum[7] ^= 1
					}
				}
				return sum
			}
		}, processors, "processor 1: wrong result in round 2"},
		{"all processors compute wrong alike", "", func(_ *testing.T, b *bench) {
			b.parts.round = func(core int, work []byte, n int) [sha256.Size]byte { return right(core, work, n+1) }
		}, processors, "processor 0: wrong result in round 0, processor 1: wrong result in round 0"},
		{"a processor panics", "", func(_ *testing.T, b *bench) {
			b.parts.round = func(core int, work []byte, n int) [sha256.Size]byte {
				return right(core, work, n/(1-core))
			}
		}, processors, "processor 1: panic: runtime error: integer divide by zero"},
		{"a processor goes to an address that is none", "", func(t *testing.T, b *bench) {
			gone := mapped(t, memfile(t, 0), 4096)
			b.parts.round = func(core int, work []byte, n int) [sha256.Size]byte { return right(core, gone, n) }
		}, processors, "processor 0: panic: runtime error: invalid memory address"},
		{"a processor cannot be used", "", func(_ *testing.T, b *bench) {
			b.parts.pin = func(core int) error { return pin(1000 + core) }
		}, processors, "bind to processor 1000: invalid argument"},
		{"processors are not known", "", func(_ *testing.T, b *bench) {
			b.parts.cores = func() ([]int, error) { return nil, errors.New("not told") }
		}, processors, "not told"},
		{"a bit of the memory fades", "", func(_ *testing.T, b *bench) {
			take := b.parts.take
			var m []byte
			b.parts.take = func(n int) (_ []byte, err error) { m, err = take(n); return m, err }
			b.parts.rest = func(context.Context) { m[0x1234567] &^= 4 }
		}, memory, "1 wrong: at 0x1234560 0xfbffffffffffffff instead of 0xffffffffffffffff (ones, pass 1)"},
		{"an address line of the memory does nothing", "", func(t *testing.T, b *bench) {
			b.parts.free = func() (int64, error) { return 256 << 20, nil }
			fd := memfile(t, pieceSize)
			b.parts.take = func(n int) ([]byte, error) { return mapped(t, fd, n), nil }
		}, memory, "(addresses, pass 1)"},
		{"a page of the memory is gone", "", func(t *testing.T, b *bench) {
			fd := memfile(t, pieceSize-4096)
			b.parts.take = func(n int) ([]byte, error) { return mapped(t, fd, n), nil }
		}, memory, "1 wrong: at 0x3fff000: panic: runtime error: invalid memory address"},
		{"a page goes while it is used", "", func(t *testing.T, b *bench) {
			fd := memfile(t, pieceSize)
			b.parts.take = func(n int) ([]byte, error) { return mapped(t, fd, n), nil }
			b.parts.rest = func(context.Context) {
				if err := unix.Ftruncate(fd, 4096); err != nil {
					t.Error(err)
				}
			}
		}, memory, "1 wrong: at 0x1000: panic"},
		{"no memory can be taken", "", func(_ *testing.T, b *bench) {
			b.parts.take = func(int) ([]byte, error) { return nil, unix.ENOMEM }
		}, memory, "cannot allocate memory"},
		{"it is not known how much is free", "", func(_ *testing.T, b *bench) {
			b.parts.free = realParts(fstest.MapFS{}).free
		}, memory, "how much memory is free is not known"},
		{"nothing is free", "", func(_ *testing.T, b *bench) {
			b.parts.free = func() (int64, error) { return 4096, nil }
		}, memory, "too little"},
		{"a sector cannot be read", manifest.BurnRead, func(_ *testing.T, b *bench) { b.lie(liar{read: bad(44_444)}) },
			disk, "1 bad: sector 44444 (read: input/output error)"},
		{"the last sector cannot be read", manifest.BurnRead, func(_ *testing.T, b *bench) { b.lie(liar{read: bad(diskSize/512 - 1)}) },
			disk, "1 bad: sector 73728 (read: input/output error)"},
		{"no sector can be read", manifest.BurnRead, func(_ *testing.T, b *bench) {
			b.lie(liar{read: func([]byte, int64) (int, error, bool) { return 0, syscall.EIO, true }})
		}, disk, "sector 0 (read: input/output error)"},
		{"a disk says less than is asked for", manifest.BurnRead, func(_ *testing.T, b *bench) {
			b.lie(liar{read: func(b []byte, off int64) (int, error, bool) { return len(b) - 1, nil, holds(b, off, 7) }})
		}, disk, "1 bad: sector 7 (read: unexpected EOF)"},
		{"a disk cannot be opened", manifest.BurnRead, func(_ *testing.T, b *bench) {
			b.m.Open = func(string, machine.Access) (machine.Device, error) { return nil, syscall.ENXIO }
		}, disk, "no such device or address"},
		{"a disk is slow", manifest.BurnRead, func(_ *testing.T, b *bench) { b.want.DiskMBpsMin = 100_000_000 }, disk + ", read", " MB/s"},
		{"a disk takes too long", manifest.BurnRead, func(t *testing.T, b *bench) {
			b.want.DiskMinutes = 1
			b.parts.minute = time.Nanosecond
		}, disk, "read 0 of 36 MiB"},
		{"a sector cannot be written", manifest.BurnWrite, func(_ *testing.T, b *bench) { b.lie(liar{write: bad(30_000)}) },
			disk, "sector 30000 (write: input/output error)"},
		{"a disk forgets a write", manifest.BurnWrite, func(_ *testing.T, b *bench) {
			b.lie(liar{write: func(b []byte, off int64) (int, error, bool) { return len(b), nil, holds(b, off, 20_480) }})
		}, disk, "sector 20480 (read back: other content than was written)"},
		{"a disk is smaller than it says", manifest.BurnWrite, func(_ *testing.T, b *bench) {
			var l liar
			open := b.m.Open
			l.write = func(c []byte, off int64) (int, error, bool) {
				if off < 24<<20 {
					return 0, nil, false
				}
				dev, err := open(b.main[0].Path, machine.Write)
				if err != nil {
					return 0, err, true
				}
				defer dev.Close()
				n, err := dev.WriteAt(c, off-12<<20)
				return n, err, true
			}
			b.lie(l)
		}, disk, "other content than was written"},
		{"a disk writes to its ends", manifest.BurnWrite, func(_ *testing.T, b *bench) {
			var once atomic.Bool
			open := b.m.Open
			b.lie(liar{write: func(c []byte, off int64) (int, error, bool) {
				if once.Swap(true) {
					return 0, nil, false
				}
				dev, err := open(b.main[0].Path, machine.Write)
				if err == nil {
					_, err = dev.WriteAt(c[:512], 4096)
					err = errors.Join(err, dev.Close())
				}
				return 0, err, err != nil
			}})
		}, disk, "its ends are changed"},
		{"a bit of a disk turns", manifest.BurnWrite, func(_ *testing.T, b *bench) {
			l := liar{}
			l.read = func(c []byte, off int64) (int, error, bool) {
				if !holds(c, off, 50_001) {
					return 0, nil, false
				}
				dev, err := b.Doors().Open(b.main[0].Path, machine.Read)
				if err != nil {
					return 0, err, true
				}
				defer dev.Close()
				n, err := dev.ReadAt(c, off)
				c[50_001*512-off] ^= 0x80
				return n, err, true
			}
			b.lie(l)
		}, disk, "1 bad: sector 50001 (read back: other content than was written)"},
		{"a processor is hot", "", func(_ *testing.T, b *bench) { b.sensor(1, "k10temp", 91) },
			"burn-in temperature", "91 °C at k10temp temp1"},
		{"a disk is hot", "", func(_ *testing.T, b *bench) {
			b.m.Board.Health = func(string) (drive.Health, error) { return drive.Health{Temperature: new(int64(61))}, nil }
		}, "burn-in disk temperature", "61 °C at vda"},
		{"the kernel tells of a machine check", "", func(_ *testing.T, b *bench) {
			b.kmsg.left = []any{"6,1,1,-;all is well", unix.EINTR, "2,2,2,-;mce: [Hardware Error]: Machine check events logged\n SUBSYSTEM=x"}
		}, messages, `1: machine check: "mce: [Hardware Error]: Machine check events logged"`},
		{"the kernel tells too much", "", func(_ *testing.T, b *bench) { b.kmsg.left = []any{unix.EPIPE} },
			messages, "more messages than the kernel keeps"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := whole(tc.disks)
			if tc.disks == "" {
				want.DiskMinutes, want.DiskMBpsMin = 0, 0
			} else { // each part by itself is quick
				want.ProcessorMinutes, want.MemoryMinutes = 0, 0
			}
			b := newBench(t, want)
			tc.change(t, b)
			err := b.run(t.Context())
			if fault.Of(err) != fault.BurnInFailed || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %q\n%s", err, tc.says, b.log)
			}
			for _, l := range b.lines {
				if l.Wrong() != (l.Name == tc.line) {
					t.Errorf("%+v", l)
				}
			}
			if l := b.line(t, tc.line); !strings.Contains(l.Found, tc.says) {
				t.Errorf("%+v does not say %q", l, tc.says)
			}
		})
	}
}

// TestHotStops: what gets too hot while a part runs stops it, and what was computed until then is no result.
func TestHotStops(t *testing.T) {
	b := newBench(t, manifest.BurnIn{ProcessorMinutes: 1000_000, Disks: manifest.BurnWrite, CelsiusMax: 60})
	right := b.parts.round
	b.parts.round = func(core int, work []byte, n int) [sha256.Size]byte { return right(core, work, n) }
	w := b.watch()
	b.sensor(0, "coretemp", 61)
	bounded, end := context.WithTimeout(t.Context(), time.Minute) // a failure ends too
	defer end()
	w.during(bounded, func(ctx context.Context) {
		<-ctx.Done()
		b.processors(ctx)
	})
	if l := b.line(t, "burn-in processors"); l.Checked || l.Rule != "stopped: too hot" {
		t.Errorf("%+v", l)
	}
}

// TestStopped: a burn-in that is ended from outside returns why, and no failure of the unit.
func TestStopped(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	b := newBench(t, whole(manifest.BurnRead))
	b.want.ProcessorMinutes = 1000_000
	b.parts.round = func(core int, work []byte, n int) [sha256.Size]byte { stop(); return round(work, n) }
	if err := b.run(ctx); !errors.Is(err, context.Canceled) || fault.Of(err) != nil {
		t.Errorf("got %v", err)
	}
}

// TestRefuse: a disk that has something on it is not written to, and nothing else runs before that is said.
func TestRefuse(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		at      int64
		says    string
	}{
		"a partition table": {"\x55\xaa", 510, "mbr signature"},
		"ext4":              {"\x53\xef", 1080, "ext2 signature"},
		"data at its start": {"x", 100_000, "data at byte 100000"},
		"data at its end":   {"x", diskSize - 1, fmt.Sprintf("data at byte %d", diskSize-1)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, whole(manifest.BurnWrite))
			machinetest.Overwrite(t, b.main[0].Path, tc.at, []byte(tc.content))
			before, err := os.ReadFile(b.main[0].Path)
			if err != nil {
				t.Fatal(err)
			}
			b.parts.round = func(int, []byte, int) [sha256.Size]byte { t.Error("the processors run"); return [sha256.Size]byte{} }
			if err := b.run(t.Context()); fault.Of(err) != fault.BurnInFailed || !strings.Contains(err.Error(), tc.says) || len(b.lines) != 1 {
				t.Errorf("got %v, lines %+v", err, b.lines)
			}
			after, err := os.ReadFile(b.main[0].Path)
			if err != nil || !bytes.Equal(before, after) || len(b.Written()) > 0 {
				t.Errorf("the disk is changed: %v, %s", err, b.Written())
			}
		})
	}
	t.Run("partitions that only the kernel knows", func(t *testing.T) {
		b := newBench(t, whole(manifest.BurnWrite))
		b.main[0].Partitions = []block.Partition{{Number: 1}}
		if err := b.run(t.Context()); fault.Of(err) != fault.BurnInFailed || len(b.Written()) > 0 {
			t.Errorf("got %v, written %s", err, b.Written())
		}
	})
	t.Run("data that came while others ran", func(t *testing.T) {
		b := newBench(t, whole(manifest.BurnWrite))
		b.parts.round = func(_ int, work []byte, n int) [sha256.Size]byte {
			machinetest.Overwrite(t, b.main[0].Path, 1<<19, []byte("x"))
			return round(work, n)
		}
		if err := b.run(t.Context()); fault.Of(err) != fault.BurnInFailed || !strings.Contains(err.Error(), "not blank any more") ||
			slices.ContainsFunc(b.Calls(), func(c string) bool { return strings.HasPrefix(c, "write") }) {
			t.Errorf("got %v, calls %q", err, b.Calls())
		}
	})
}

// TestCut: wherever the power goes while a disk is written, it is blank for who looks next, and stands the burn-in then.
func TestCut(t *testing.T) {
	b := newBench(t, manifest.BurnIn{Disks: manifest.BurnWrite})
	b.Start(nil)
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	cuts := 0
	for n := range len(b.Calls()) {
		if call := b.Calls()[n]; !strings.HasPrefix(call, "write") && !strings.HasPrefix(call, "sync") && !strings.HasPrefix(call, "open") {
			continue
		}
		c := newBench(t, manifest.BurnIn{Disks: manifest.BurnWrite})
		c.Start(func(k int, _ string) error {
			if k == n+1 {
				return machinetest.ErrCut
			}
			return nil
		})
		if err := c.run(t.Context()); err == nil {
			t.Errorf("cut at call %d: the burn-in goes on", n+1)
		}
		c.Start(nil)
		if blank, why, err := c.m.BlankDisk(c.main[0].Path); !blank || err != nil {
			t.Errorf("cut at call %d: %s, %v", n+1, why, err)
		}
		if cuts++; cuts%8 == 1 {
			c.lines = nil
			if err := c.run(t.Context()); err != nil {
				t.Errorf("cut at call %d; begun anew: %v", n+1, err)
			}
		}
	}
	if cuts < 20 {
		t.Errorf("%d cuts: %q", cuts, b.Calls())
	}
}

// TestLoop reads and writes a real disk of the kernel, by the doors of a unit.
func TestLoop(t *testing.T) {
	path := machinetest.LoopDisk(t, diskSize-512+4096)
	for _, disks := range []string{manifest.BurnRead, manifest.BurnWrite} {
		b := newBench(t, manifest.BurnIn{Disks: disks, DiskMBpsMin: 1})
		b.m.Doors = machine.Real(b.m.Log, os.DirFS("/sys"), nil)
		b.main[0].Path = path
		if err := b.run(t.Context()); err != nil {
			t.Errorf("%s: %v\n%+v", disks, err, b.lines)
		}
		if blank, why, err := b.m.BlankDisk(path); !blank || err != nil {
			t.Errorf("%s: the disk is not blank: %s, %v", disks, why, err)
		}
	}
	dev, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if middle := dev[ends : len(dev)-2*ends]; bytes.Count(middle, []byte{0}) > len(middle)/128 {
		t.Error("its middle is not written")
	}
	if bytes.ContainsFunc(dev[:ends], func(r rune) bool { return r != 0 }) {
		t.Error("its start is written")
	}
}

// TestReal lets the processors and the memory of the machine work that the test runs on.
func TestReal(t *testing.T) {
	b := newBench(t, manifest.BurnIn{ProcessorMinutes: 1, MemoryMinutes: 1})
	own := realParts(os.DirFS("/proc"))
	b.parts.cores, b.parts.pin = own.cores, own.pin
	if free, err := own.free(); err != nil || free < 1<<20 {
		t.Errorf("%d bytes of memory are free: %v", free, err)
	}
	if err := b.run(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, b.log)
	}
}

// TestRest: a pattern lies for its time, and no longer than the burn-in goes on.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		began := time.Now()
		realParts(nil).rest(ctx)
		if took := time.Since(began); took != restTime {
			t.Errorf("it rests for %s", took)
		}
		stop()
		if realParts(nil).rest(ctx); time.Since(began) != restTime {
			t.Error("it rests though all is over")
		}
	})
}

// TestPatterns: no two patterns are alike, and in 64 passes the walking bits are everywhere.
func TestPatterns(t *testing.T) {
	seen := map[uint64]string{}
	for _, p := range patterns(0) {
		w := p.word(0x7f38)
		if seen[w] != "" {
			t.Errorf("%s and %s are both %#x", seen[w], p.name, w)
		}
		seen[w] = p.name
	}
	var ones, zeros uint64
	for pass := range 64 {
		for _, p := range patterns(pass) {
			switch p.name {
			case "a walking one":
				ones |= p.word(8)
			case "a walking zero":
				zeros |= ^p.word(8)
			}
		}
	}
	if ones != ^uint64(0) || zeros != ^uint64(0) {
		t.Errorf("%#x, %#x", ones, zeros)
	}
}

// TestTrouble holds which messages of the kernel fail a burn-in, and which do not. They are as Linux writes them.
func TestTrouble(t *testing.T) {
	for message, want := range map[string]string{
		"mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 5: be00000000800400":                           "machine check",
		"mce: [Hardware Error]: Machine check events logged":                                                "machine check",
		"{1}[Hardware Error]: event severity: corrected":                                                    "machine check",
		"EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x2a5f)": "memory error",
		"EDAC MC1: 1 UE Multi-bit ECC error on mc#1csrow#2channel#0 (csrow:2 channel:0 page:0x1)":           "memory error",
		"Memory failure: 0x23a5f1: recovery action for dirty LRU page: Recovered":                           "memory error",
		"pcieport 0000:00:1c.5: AER: Corrected error message received from 0000:03:00.0":                    "PCIe error",
		"pcieport 0000:00:1c.5: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)":     "PCIe error",
		"pcieport 0000:00:1c.5: AER: Multiple Uncorrected (Non-Fatal) error received: 0000:03:00.0":         "PCIe error",
		"pcieport 0000:00:03.0: DPC: containment event, status:0x1f01 source:0x0000":                        "PCIe error",
		"ata3.00: exception Emask 0x10 SAct 0x40000 SErr 0x280100 action 0x6 frozen":                        "link reset",
		"ata3: hard resetting link":                                                             "link reset",
		"ata3: SATA link down (SStatus 0 SControl 300)":                                         "link reset",
		"ata3.00: failed command: READ FPDMA QUEUED":                                            "link reset",
		"ata1: limiting SATA link speed to 3.0 Gbps":                                            "link reset",
		"nvme nvme0: I/O 21 QID 3 timeout, aborting":                                            "link reset",
		"nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10":          "link reset",
		"sd 2:0:0:0: rejecting I/O to offline device":                                           "link reset",
		"I/O error, dev sda, sector 123456 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2": "I/O error",
		"blk_update_request: I/O error, dev sda, sector 123456 op 0x0:(READ)":                   "I/O error",
		"Buffer I/O error on dev sdb1, logical block 7, async page read":                        "I/O error",
		"critical medium error, dev sda, sector 123456 op 0x0:(READ)":                           "I/O error",
		"sd 0:0:0:0: [sda] tag#4 Sense Key : Medium Error [current]":                            "I/O error",
		"watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [init:1]":                            "lock-up",
		"rcu: INFO: rcu_sched self-detected stall on CPU":                                       "lock-up",
		"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:":                                 "lock-up",
		"EDAC MC: Ver: 3.0.0": "",
		"EDAC MC0: Giving out device to module skx_edac controller Skylake Socket#0 IMC#0: DEV 0000:3a:0a.0": "",
		"mce: CPU0: Thermal monitoring enabled (TM1)":                                                        "",
		"mce: Using 32 MCE banks":                                                                          "",
		"pcieport 0000:00:1c.0: AER: enabled with IRQ 122":                                                 "",
		"pcieport 0000:00:1c.0: DPC: enabled with IRQ 122":                                                 "",
		"ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)":                                           "",
		"ata1.00: configured for UDMA/133":                                                                 "",
		"nvme nvme0: 8/0/0 default/read/poll queues":                                                       "",
		"nvme nvme0: Shutdown timeout set to 10 seconds":                                                   "",
		"igb 0000:03:00.0 eno1: igb: eno1 NIC Link is Down":                                                "",
		"random: crng init done":                                                                           "",
		"EXT4-fs (sda1): mounted filesystem with ordered data mode. Opts: errors=remount-ro":               "",
		"ACPI: [Firmware Bug]: BIOS _OSI(Linux) query ignored":                                             "",
		"BERT: [Hardware Error]: Skipped 1 error records":                                                  "machine check",
		"perf: interrupt took too long (2512 > 2500), lowering kernel.perf_event_max_sample_rate to 79500": "",
		"usb 1-1: reset high-speed USB device number 2 using xhci_hcd":                                     "",
	} {
		if got := troubleIn(message); got != want {
			t.Errorf("%q is %q, want %q", message, got, want)
		}
	}
}

// TestPin: a thread that is bound to a processor has that one alone, and all that there are can be had.
func TestPin(t *testing.T) {
	cores, err := allowed()
	if err != nil || len(cores) == 0 {
		t.Fatalf("got %v, %v", cores, err)
	}
	for _, err := range all(len(cores), func(i int) error {
		runtime.LockOSThread() // never unlocked, as in a burn-in
		if err := pin(cores[i]); err != nil {
			return err
		}
		if has, err := allowed(); err != nil || !slices.Equal(has, cores[i:i+1]) {
			return fmt.Errorf("bound to %d it has %v: %w", cores[i], has, err)
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestFirstFailureIsTheLast: what is too hot, or was told by the kernel, lets nothing begin, and behind a part that failed no other runs.
func TestFirstFailureIsTheLast(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(b *bench)
		ran    int // parts
	}{
		"hot":            {func(b *bench) { b.sensor(0, "coretemp", 91) }, 0},
		"the kernel":     {func(b *bench) { b.kmsg.left = []any{"2,2,2,-;Machine check"} }, 0},
		"the processors": {func(b *bench) { b.parts.pin = func(int) error { return unix.EINVAL } }, 1},
		"the memory":     {func(b *bench) { b.parts.free = func() (int64, error) { return 0, nil } }, 2},
		"nothing":        {func(*bench) {}, 3},
	} {
		b := newBench(t, whole(manifest.BurnRead))
		tc.change(b)
		err := b.run(t.Context())
		if got := strings.Count(b.log.String(), "msg=burn-in "); got != tc.ran || (err == nil) != (tc.ran == 3) {
			t.Errorf("%s: %d parts ran, want %d: %v", name, got, tc.ran, err)
		}
	}
}

// TestAskedSeldom: the disks, which have other work, are asked for their temperature with each eighth look only.
func TestAskedSeldom(t *testing.T) {
	b := newBench(t, whole(manifest.BurnRead))
	asked := 0
	b.m.Board.Health = func(string) (drive.Health, error) { asked++; return drive.Health{Temperature: new(int64(asked))}, nil }
	w := b.watch()
	for range 16 {
		w.look()
	}
	if asked != 3 || w.disk.celsius != 3 || w.disk.sensors != 1 {
		t.Errorf("asked %d times: %+v", asked, w.disk)
	}
}
