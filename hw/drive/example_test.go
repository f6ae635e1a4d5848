package drive_test

import (
	"errors"
	"fmt"
	"log"

	"gprovision/hw/drive"
)

// What a disk says that it can do, and each command that was sent to ask it.
func ExampleOpen() {
	d, err := drive.Open("/dev/sdx", func(e drive.Exchange) { fmt.Printf("sent %x, answer %x\n", e.Command, e.Answer) })
	if err != nil {
		log.Fatal(err) // EBUSY: it is in use
	}
	defer d.Close()
	c, err := d.Capabilities()
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range c.Methods {
		fmt.Println(m)
	}
}

// A disk is erased only by a permit for it, which is made from what was planned.
func ExampleNewPermit() {
	planned := drive.Identity{Model: "ACME Disk", Serial: "A1", Size: 1 << 40, Number: drive.Number{Major: 8}}
	permit, err := drive.NewPermit(planned)
	if err != nil {
		log.Fatal(err)
	}
	d, err := drive.Open("/dev/sdx", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer d.Close()
	if d.SCSI == nil {
		log.Fatal("not a SCSI drive")
	}
	err = d.SCSI.Sanitize(permit, drive.CryptoErase, drive.Pattern{})
	if errors.Is(err, drive.ErrNotPermitted) {
		log.Fatal("this is not the drive that was planned, or it is in use; nothing was sent")
	}
}

// The zero permit allows nothing, and a drive that is not named fully gets none.
func ExampleNewPermit_refused() {
	_, err := drive.NewPermit(drive.Identity{Model: "ACME Disk"})
	fmt.Println(errors.Is(err, drive.ErrNotPermitted))
	// Output: true
}

// How worn a disk is, which may be in use meanwhile.
func ExampleOpenShared() {
	d, err := drive.OpenShared("/dev/sdx", nil)
	if err != nil {
		log.Fatal(err) // errors.ErrUnsupported: it takes no commands
	}
	defer d.Close()
	h, err := d.Health()
	if err != nil {
		log.Fatal(err)
	}
	if h.Used != nil { // else the disk does not say
		fmt.Println(*h.Used, "% of its life is over")
	}
}
