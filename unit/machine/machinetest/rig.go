// Package machinetest is a machine in memory. Its disks are sparse files and its filesystems are directories. It has
// firmware variables, programs, and a power switch. Tests use it in place of the doors of a unit (machine.Doors) and
// run whole jobs on it, without root and without a virtual machine.
//
// It counts the calls through the doors. At any call the power can be cut, or the call can fail. So a test can show
// that a job that is cut short anywhere, once started again, ends where an uninterrupted job ends.
//
// It does not imitate caches. A written byte is on the medium, so a missing sync goes unnoticed. Virtual machines
// show that (package lab): they log writes and flushes.
package machinetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/bmc"
	"gprovision/hw/bmc/simulator"
	"gprovision/hw/efi"
	"gprovision/hw/host"
	"gprovision/hw/partition"
	"gprovision/model/layout"
	"gprovision/unit/machine"
)

// ErrCut is the result of every call from a power cut to Start.
var ErrCut = errors.New("the power was cut")

// Rig is a machine. New makes one.
type Rig struct {
	t    *testing.T
	dir  string
	kind Kind // kind of unit, for a machine of NewUnit
	// controller is its management controller. It is nil if it has none.
	controller *simulator.Controller

	mu      sync.Mutex
	store   storage
	volumes map[string]string // directory with the content of a filesystem, by the filesystem's UUID
	mounts  map[string]mount  // by mount point
	made    map[string][]byte // what mke2fs wrote, by its arguments
	calls   []string
	dead    bool
	fault   func(n int, call string) error
}

type disk struct {
	block.Disk
	file    string
	claimed bool // it is open to be erased: nothing on it can be mounted
}

type mount struct {
	source, uuid string
	readOnly     bool
	before       string // content of the volume at the time of a read-only mount
}

// New returns a machine without disks. It is switched on.
func New(t *testing.T) *Rig {
	t.Helper()
	r := &Rig{t: t, dir: memory(t), volumes: map[string]string{}, made: map[string][]byte{}}
	r.store = storage{t: t, sys: filepath.Join(r.dir, "sys"), arrays: map[string]*array{}}
	for _, d := range []string{"dev", "vars", "volumes", "mnt", "run", "sys/block", "sys/module/md_mod/parameters"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.Start(nil)
	return r
}

// AddDisk adds a blank disk of size bytes and returns its device node.
func (r *Rig) AddDisk(d block.Disk) string {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	d.Path = filepath.Join(r.dir, "dev", d.Name)
	d.SectorSize = 512
	f, err := os.Create(d.Path)
	if err == nil {
		err = f.Truncate(d.Size)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.store.disks = append(r.store.disks, &disk{Disk: d, file: d.Path})
	return d.Path
}

// Clone returns a machine with the same disks and content. It is switched on.
func (r *Rig) Clone(t *testing.T) *Rig {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	c := New(t)
	c.made, c.kind = r.made, r.kind
	if r.controller != nil {
		c.controller = r.controller.Clone()
	}
	for _, d := range r.store.disks {
		path := filepath.Join(c.dir, "dev", d.Name)
		if err := copySparse(path, d.file); err != nil {
			t.Fatal(err)
		}
		n := &disk{Disk: d.Disk, file: path}
		n.Path = path
		c.store.disks = append(c.store.disks, n)
	}
	for uuid, from := range r.volumes {
		if err := copyTree(c.content(uuid), from); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(c.dir, "vars"), os.DirFS(filepath.Join(r.dir, "vars"))); err != nil {
		t.Fatal(err)
	}
	for _, d := range c.store.disks {
		c.store.reread(d)
	}
	return c
}

// Firmware returns the directory of the firmware variables.
func (r *Rig) Firmware() string { return filepath.Join(r.dir, "vars") }

// Start switches the machine on, after a power cut or at any other time. Nothing is mounted, the kernel rereads all
// tables, and the count of calls starts from one. Each call asks fault, with the call's number and name. An error
// becomes the result of the call. ErrCut cuts the power. If fault is nil, no call fails.
func (r *Rig) Start(fault func(n int, call string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for dir := range r.mounts {
		r.detach(dir)
	}
	for device := range r.store.arrays {
		r.store.end(device)
	}
	r.mounts, r.dead, r.calls, r.fault = map[string]mount{}, false, nil, fault
	r.store.written = map[string]bool{}
	for _, d := range r.store.disks {
		d.ReadOnly, d.claimed = false, false
		r.store.reread(d)
	}
}

// Fail sets the fault of Start for the calls from now on.
func (r *Rig) Fail(fault func(n int, call string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fault
}

// Calls returns the calls through the doors since Start.
func (r *Rig) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Written returns the devices opened for writing since Start, sorted.
func (r *Rig) Written() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for p := range r.store.written {
		out = append(out, filepath.Base(p))
	}
	slices.Sort(out)
	return out
}

// Volume returns the directory with the content of a filesystem, by its UUID. It is empty if no disk carries the
// filesystem.
func (r *Rig) Volume(uuid string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.store.disks {
		for _, p := range d.Partitions {
			if info, err := r.store.carries(p.Path); err == nil && strings.EqualFold(info.UUID, uuid) {
				return r.content(info.UUID)
			}
		}
	}
	return ""
}

// Doors returns the ways into the machine.
func (r *Rig) Doors() machine.Doors {
	return machine.Doors{
		List: r.list,
		Open: r.open,
		WriteBlock: func(string, []byte, int64) error {
			return errors.New("files are directories here: nothing has a place on the disk")
		},
		Mount:      r.mount,
		Unmount:    r.unmount,
		UnmountAll: r.unmountAll,
		Mounted: func(dir string) (bool, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			_, ok := r.mounts[dir]
			return ok, nil
		},
		Run:  r.run,
		Vars: efi.New(filepath.Join(r.dir, "vars")),
		Board: machine.Board{SetClock: func(time.Time) error { return r.pass("set clock") },
			BMC: func(context.Context, bool) (*bmc.Controller, error) { return openBMC(r) }},
		Places: machine.Places{Recovery: filepath.Join(r.dir, "mnt", "recovery"), Main: filepath.Join(r.dir, "mnt", "main"),
			Medium: filepath.Join(r.dir, "mnt", "medium"), Run: filepath.Join(r.dir, "run"), Sysfs: filepath.Join(r.dir, "sys")},
	}
}

// Pass counts a call through a door of the test itself, such as a server, and returns the result it must have.
func Pass(r *Rig, call string) error { return r.pass("%s", call) }

// pass counts a call and returns the result it must have.
func (r *Rig) pass(format string, a ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed(format, a...)
}

func (r *Rig) passed(format string, a ...any) error {
	if r.dead {
		return ErrCut
	}
	call := strings.ReplaceAll(fmt.Sprintf(format, a...), r.dir, "")
	r.calls = append(r.calls, call)
	if r.fault == nil {
		return nil
	}
	err := r.fault(len(r.calls), call)
	r.dead = r.dead || errors.Is(err, ErrCut)
	return err
}

func (r *Rig) list() ([]block.Disk, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.passed("list disks"); err != nil {
		return nil, err
	}
	var out []block.Disk
	for _, d := range r.store.disks {
		c := d.Disk
		c.Partitions = slices.Clone(d.Partitions)
		out = append(out, c)
	}
	return out, nil
}

func (r *Rig) open(path string, how machine.Access) (machine.Device, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.passed("open %s %d", path, how); err != nil {
		return nil, err
	}
	d, at, size, err := r.store.find(path)
	if err != nil {
		return nil, err
	}
	reads := how == machine.Read || how == machine.Direct
	if !reads && how != machine.Share {
		for _, m := range r.mounts {
			if m.source == path || at == 0 && strings.HasPrefix(m.source, path) {
				return nil, fmt.Errorf("open %s: %w", path, syscall.EBUSY)
			}
		}
		for _, a := range r.store.arrays {
			if slices.ContainsFunc(a.members, func(m string) bool { return m == path || at == 0 && strings.HasPrefix(m, path) }) {
				return nil, fmt.Errorf("open %s: %w", path, syscall.EBUSY)
			}
		}
	}
	if !reads {
		r.store.writes(path)
	}
	flag := os.O_RDWR
	if reads {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(d.file, flag, 0)
	if err != nil {
		return nil, err
	}
	dev := &device{r: r, d: d, f: f, path: path, at: at, size: size}
	if how == machine.Erase || how == machine.Claim {
		d.claimed = true
		return asDrive(r, dev), nil
	}
	return dev, nil
}

// device is an open device.
type device struct {
	r        *Rig
	d        *disk
	f        *os.File
	path     string
	at, size int64
	quiet    bool // the kernel's own access passes no door
}

func (d *device) pass(what string) error {
	if d.quiet {
		return nil
	}
	return d.r.pass("%s %s", what, d.path)
}

func (d *device) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off > d.size {
		return 0, syscall.EINVAL
	}
	n := min(int64(len(b)), d.size-off)
	k, err := d.f.ReadAt(b[:n], d.at+off)
	if err == nil && n < int64(len(b)) {
		return k, errEnd
	}
	return k, err
}

// array reports whether the device is a running array.
func (d *device) array() bool {
	if d.quiet { // the kernel's own access reaches the disks
		return false
	}
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	return d.r.store.arrays[d.path] != nil
}

// mirror writes to all members of an array.
func (d *device) mirror(b []byte, off int64) error {
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	return d.r.store.put(d.path, b, off)
}

func (d *device) WriteAt(b []byte, off int64) (int, error) {
	if err := d.pass("write"); err != nil {
		return 0, err
	}
	if off < 0 || off+int64(len(b)) > d.size {
		return 0, syscall.ENOSPC
	}
	if d.d.ReadOnly {
		return 0, syscall.EROFS
	}
	if d.array() {
		return len(b), d.mirror(b, off)
	}
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	for _, uuid := range d.r.store.cleared(d.d, b, d.at+off) {
		delete(d.r.volumes, uuid)
	}
	return writeSparse(d.f, b, d.at+off)
}

func (d *device) Size() int64     { return d.size }
func (d *device) SectorSize() int { return d.d.SectorSize }
func (d *device) Sync() error     { return d.pass("sync") }
func (d *device) Close() error    { return d.f.Close() }
func (d *device) RereadTable() error {
	if err := d.pass("reread"); err != nil {
		return err
	}
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	d.r.store.reread(d.d)
	return nil
}

func (d *device) SetReadOnly(on bool) error {
	if err := d.pass(fmt.Sprintf("read-only %t", on)); err != nil {
		return err
	}
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	d.d.ReadOnly = on
	return nil
}

func (d *device) Discard(context.Context, time.Duration, func(int64)) block.Discarded {
	if err := d.pass("discard"); err != nil {
		return block.Discarded{Why: err.Error()}
	}
	return block.Discarded{Why: "nothing is discarded here"}
}

// content returns the directory of a filesystem. The first call makes it.
func (r *Rig) content(uuid string) string {
	if r.volumes[uuid] == "" {
		dir, err := os.MkdirTemp(filepath.Join(r.dir, "volumes"), "")
		if err == nil {
			err = os.Chmod(dir, 0o755) // as mke2fs makes it
		}
		if err != nil {
			r.t.Error(err)
		}
		r.volumes[uuid] = dir
	}
	return r.volumes[uuid]
}

func (r *Rig) mount(source, dir, fstype string, o host.MountOptions) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	mode := "writable"
	if o.ReadOnly {
		mode = "read-only"
	}
	if err := r.passed("mount %s %s", source, mode); err != nil {
		return err
	}
	if m, used := r.mounts[dir]; used {
		return fmt.Errorf("mount %s: %s is mounted at %s: %w", source, m.source, dir, syscall.EBUSY)
	}
	if d, _, _, err := r.store.find(source); err == nil && d.claimed {
		return fmt.Errorf("mount %s: its disk is claimed: %w", source, syscall.EBUSY)
	}
	info, err := r.store.probe(source)
	if err != nil {
		return err
	}
	if info.Type != fstype {
		return fmt.Errorf("mount %s: it carries %q and no %s: %w", source, info.Type, fstype, syscall.EINVAL)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	content := r.content(info.UUID)
	if err := os.Symlink(content, dir); err != nil {
		return err
	}
	m := mount{source: source, uuid: info.UUID, readOnly: o.ReadOnly}
	if o.ReadOnly {
		m.before = Tree(r.t, content)
	}
	r.mounts[dir] = m
	return nil
}

func (r *Rig) unmount(dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.mounts[dir]; !ok {
		return fmt.Errorf("unmount %s: %w", dir, syscall.EINVAL)
	}
	if err := r.passed("unmount %s", r.mounts[dir].source); err != nil {
		return err
	}
	r.detach(dir)
	return nil
}

func (r *Rig) unmountAll() error {
	var dirs []string
	r.mu.Lock()
	for dir := range r.mounts {
		dirs = append(dirs, dir)
	}
	r.mu.Unlock()
	slices.Sort(dirs)
	var all error
	for _, dir := range dirs {
		all = errors.Join(all, r.unmount(dir))
	}
	return all
}

// detach ends a mount. A read-only mount must have left the content unchanged.
func (r *Rig) detach(dir string) {
	if m := r.mounts[dir]; m.readOnly && Tree(r.t, r.volumes[m.uuid]) != m.before {
		r.t.Errorf("%s was mounted read-only and is changed", m.source)
	}
	delete(r.mounts, dir)
	err := os.Remove(dir)
	if err == nil || errors.Is(err, os.ErrNotExist) { // after a cut, whoever mounted it briefly may have removed it
		err = os.Mkdir(dir, 0o755)
	}
	if err != nil {
		r.t.Error(err)
	}
}

// run imitates the programs that jobs run.
func (r *Rig) run(ctx context.Context, path string, args ...string) (output []byte, exit int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	device := ""
	if len(args) > 0 {
		device = args[len(args)-1]
	}
	if filepath.Base(path) == "mdadm" && len(args) > 1 {
		device = strings.Join(args[:2], " ")
	}
	if err := r.passed("run %s %s", filepath.Base(path), device); err != nil {
		return nil, 0, err
	}
	switch filepath.Base(path) {
	case "mdadm":
		return r.mdadm(args)
	case "mke2fs":
		return r.mke2fs(ctx, args)
	case "e2fsck":
		return nil, 0, nil
	}
	return nil, 0, fmt.Errorf("%s: %w", path, os.ErrNotExist)
}

// superblock is how much of a new filesystem goes to the disk. Nothing here looks at more.
const superblock = 64 << 10

// mke2fs makes a filesystem with the real program in a file of its own, and writes its head to the device. It empties
// the directory of the filesystem.
func (r *Rig) mke2fs(ctx context.Context, args []string) ([]byte, int, error) {
	path := args[len(args)-1]
	_, _, size, err := r.store.find(path)
	if err != nil { // a file that is no device: the question is what would fit
		return host.Run(ctx, "mke2fs", args...)
	}
	for _, m := range r.mounts {
		if m.source == path {
			return []byte("it is mounted"), 1, nil
		}
	}
	r.store.writes(path)
	key := fmt.Sprint(size, args[:len(args)-1])
	head := r.made[key]
	if head == nil {
		f, err := os.CreateTemp(r.dir, "fs-")
		if err != nil {
			return nil, 0, err
		}
		defer os.Remove(f.Name())
		defer f.Close()
		if err := f.Truncate(size); err != nil {
			return nil, 0, err
		}
		if out, exit, err := host.Run(ctx, "mke2fs", append(slices.Clone(args[:len(args)-1]), f.Name())...); err != nil || exit != 0 {
			return out, exit, err
		}
		head = make([]byte, min(superblock, size))
		if _, err := f.ReadAt(head, 0); err != nil {
			return nil, 0, err
		}
		r.made[key] = head
	}
	if err := r.store.put(path, head, 0); err != nil {
		return nil, 0, err
	}
	info, err := r.store.probe(path)
	if err != nil {
		return nil, 0, err
	}
	delete(r.volumes, info.UUID) // its old content is gone
	return nil, 0, nil
}

// Table returns the partition table of a disk.
func (r *Rig) Table(path string) (layout.Table, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, _, _, err := r.store.find(path)
	if err != nil {
		return layout.Table{}, err
	}
	f, err := os.Open(d.file)
	if err != nil {
		return layout.Table{}, err
	}
	defer f.Close()
	return partition.Read(&device{d: d, f: f, size: d.Size, quiet: true})
}

// Replace replaces a disk by a blank one of the same size.
func (r *Rig) Replace(name, serial string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.store.disks {
		if d.Name == name {
			d.Serial = serial
			if err := errors.Join(os.Truncate(d.file, 0), os.Truncate(d.file, d.Size)); err != nil {
				r.t.Fatal(err)
			}
			r.store.reread(d)
		}
	}
}

// Remove removes a disk.
func (r *Rig) Remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.store.disks = slices.DeleteFunc(r.store.disks, func(d *disk) bool { return d.Name == name })
}

// Sampled returns the numbers of the calls at which to try a fault. Of a run of equal calls it takes the first, one
// in the middle and the last.
func Sampled(calls []string) (out []int) {
	for i := 0; i < len(calls); {
		k := i
		for k < len(calls) && calls[k] == calls[i] {
			k++
		}
		out = append(out, i+1, (i+k)/2+1, k)
		i = k
	}
	return slices.Compact(out)
}

// openBMC opens the controller of PutBMC.
func openBMC(r *Rig) (*bmc.Controller, error) {
	if r.controller == nil {
		return nil, bmc.ErrNone
	}
	if err := r.pass("open BMC"); err != nil {
		return nil, err
	}
	c := r.controller.Open()
	exchange := c.Exchange
	c.Exchange = func(ctx context.Context, netFn, command byte, data []byte) ([]byte, error) {
		if err := r.pass("BMC %02x %02x", netFn, command); err != nil {
			return nil, err
		}
		return exchange(ctx, netFn, command, data)
	}
	return c, nil
}

// PutBMC gives the machine a management controller, which a power cut leaves alone.
func PutBMC(r *Rig, c *simulator.Controller) { r.controller = c }

// BMC returns the machine's management controller, or nil.
func BMC(r *Rig) *simulator.Controller { return r.controller }
