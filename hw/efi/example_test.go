package efi_test

import (
	"fmt"
	"log"
	"os"

	"gprovision/hw/efi"
	"gprovision/model/layout"
)

// The boot entry of a product is made in a store of variables, here an empty directory. The second call finds it and writes nothing:
// variables live in flash memory.
func ExampleEnsure() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	vars := efi.New(dir) // on a machine: efi.DefaultDir
	want := []efi.Entry{{
		Description: "Acme", Path: `\EFI\BOOT\BOOTX64.EFI`, SectorSize: 512,
		Partition: layout.Partition{Number: 1, Start: 1 << 20, Size: 64 << 20, UUID: "8a1b0c2d-0000-4000-8000-000000000001"},
	}}
	for range 2 {
		change, err := efi.Ensure(vars, want)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("written:", change.Written)
	}
	entries, err := vars.Entries()
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		fmt.Printf("Boot%04X %s %s\n", e.Number, e.Description, e.File())
	}
	// Output:
	// written: [Boot0000 BootOrder]
	// written: []
	// Boot0000 Acme \EFI\BOOT\BOOTX64.EFI
}
