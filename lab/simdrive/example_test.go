package simdrive_test

import (
	"fmt"
	"log"
	"time"

	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
)

// An honest drive is asked who it is, erased with a permit for it, and asked until it is done.
func Example() {
	clock := &simdrive.Clock{}
	simulated := simdrive.New(simdrive.NVMeDisk(1), simdrive.Faults{}, clock)
	d, err := drive.On(simulated, nil)
	if err != nil {
		log.Fatal(err)
	}
	identity, err := d.Identity()
	if err != nil {
		log.Fatal(err)
	}
	permit, err := drive.NewPermit(identity)
	if err != nil {
		log.Fatal(err)
	}
	if err := d.NVMe.Sanitize(permit, drive.SanitizeOptions{Erasure: drive.BlockErase}); err != nil {
		log.Fatal(err)
	}
	for {
		l, err := d.NVMe.SanitizeLog()
		if err != nil {
			log.Fatal(err)
		}
		if l.State() != drive.Sanitizing {
			fmt.Println("sanitized:", l.State() == drive.Sanitized)
			break
		}
		clock.Advance(time.Minute)
	}
	fmt.Println(simulated.Residue())
	// Output:
	// sanitized: true
	// 0 0
}

// A liar says that it is done, and has done nothing.
func ExampleFaults() {
	clock := &simdrive.Clock{}
	simulated := simdrive.New(simdrive.NVMeDisk(1), simdrive.Faults{Nothing: true}, clock)
	d, err := drive.On(simulated, nil)
	if err != nil {
		log.Fatal(err)
	}
	identity, err := d.Identity()
	if err != nil {
		log.Fatal(err)
	}
	permit, err := drive.NewPermit(identity)
	if err != nil {
		log.Fatal(err)
	}
	if err := d.NVMe.Sanitize(permit, drive.SanitizeOptions{Erasure: drive.CryptoErase}); err != nil {
		log.Fatal(err)
	}
	clock.Advance(time.Minute)
	l, err := d.NVMe.SanitizeLog()
	if err != nil {
		log.Fatal(err)
	}
	readable, hidden := simulated.Residue()
	fmt.Println("sanitized:", l.State() == drive.Sanitized)
	fmt.Println(readable, "sectors can still be read,", hidden, "are hidden")
	// Output:
	// sanitized: true
	// 65536 sectors can still be read, 0 are hidden
}
