package pid1

import (
	"io/fs"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/block"
)

// turning is a filesystem that becomes another one.
type turning struct {
	before, after fs.FS
	turned        atomic.Bool
}

func (f *turning) Open(name string) (fs.File, error) {
	if f.turned.Load() {
		return f.after.Open(name)
	}
	return f.before.Open(name)
}

// TestDiskComesDuringLook: a stick whose disk appears while a unit looks at its disks is looked for once more. It is on its way when the
// look begins, and nothing is on its way any more when it ends.
func TestDiskComesDuringLook(t *testing.T) {
	u := onRig(t, restored(t))
	defer u.die(t)
	const at = "bus/usb/devices/1-2:1.0/"
	looked := fstest.MapFS{at + "bInterfaceClass": {Data: []byte("08\n")}, at + "driver/x": {}}
	const scsi = at + "host4/target4:0:0/4:0:0:0/"
	ready := fstest.MapFS{scsi + "type": {Data: []byte("0\n")}, scsi + "block/sdx/size": {}}
	for name, file := range u.m.Sys.(fstest.MapFS) {
		looked[name] = file
	}
	for name, file := range looked {
		ready[name] = file
	}
	lists, list := 0, u.m.List
	u.m.List = func() ([]block.Disk, error) { lists++; return list() }
	u.look(t.Context())
	once := lists

	sys := &turning{before: looked, after: ready}
	u.m.Sys, u.memory.Since, lists = sys, time.Now(), 0
	u.m.List = func() ([]block.Disk, error) {
		lists++
		defer sys.turned.Store(true)
		return list()
	}
	if _, err := u.gather(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lists < 2*once {
		t.Errorf("disks were listed %d times, a look does so %d times", lists, once)
	}
}
