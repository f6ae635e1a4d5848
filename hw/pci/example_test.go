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
			fmt.Println(d.Address, "runs at", d.Link, "and can do", d.Most)
		}
	}
}

func ExampleLink() {
	fmt.Println(pci.Link{MTs: 2500, Lanes: 4})
	// Output: 2.5 GT/s ×4
}
