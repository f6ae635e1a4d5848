package pci_test

import (
	"fmt"
	"log"
	"os"

	"gprovision/hw/pci"
)

// Which devices run slower or narrower than they could.
func ExampleList() {
	devices, err := pci.List(os.DirFS("/sys"))
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range devices {
		if d.Link.Known() && d.Most.Known() && d.Link != d.Most {
			fmt.Printf("%s runs at %d MT/s on %d lanes, and can do %d on %d\n", d.Address, d.Link.MTs, d.Link.Lanes, d.Most.MTs, d.Most.Lanes)
		}
	}
}
