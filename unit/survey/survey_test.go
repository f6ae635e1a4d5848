package survey

import (
	"log/slog"
	"testing"
	"testing/fstest"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/platform"
	"gprovision/site"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
)

// virtual returns a survey of a machine whose recovery device and main disk are virtio disks. It has the doors of
// this machine. It lists the disks in its Sys, which tests set.
func virtual(t *testing.T) (*Survey, *machine.Machine) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	m := &machine.Machine{Log: log, Panel: panel.New(), Firmware: layout.UEFI, Serial: "SN-0001", Sys: fstest.MapFS{}}
	m.Doors = machine.Real(log, nil, nil)
	m.List = func() ([]block.Disk, error) { return block.List(m.Sys) }
	m.Identity.Variant = platform.Variant{DevCodeName: "VIRT"}
	m.Identity.Variant.RecoveryMedia.Bus, m.Identity.Variant.MainDisk.Bus = []platform.Bus{platform.Virtio}, []platform.Bus{platform.Virtio}
	return &Survey{Eyes: machine.EyesOf(m), Names: site.Stock().Names}, m
}

func TestMain(m *testing.M) { machinetest.Main(m) }
