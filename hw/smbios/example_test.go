package smbios_test

import (
	"fmt"
	"log"
	"os"

	"gprovision/hw/smbios"
)

// What the firmware of a virtual machine says. For this machine: smbios.Read(os.DirFS("/sys")), as root.
func ExampleParse() {
	entry, err := os.ReadFile("testdata/qemu.entry")
	if err != nil {
		log.Fatal(err)
	}
	tables, err := os.ReadFile("testdata/qemu.dmi")
	if err != nil {
		log.Fatal(err)
	}
	info, err := smbios.Parse(entry, tables)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Keyword("system-product-name"), info.Keyword("system-serial-number"))
	fmt.Println(info.Field(2, 0, "Manufacturer"))
	// Output:
	// mfg_test SN-0001
	// BoardCo
}
