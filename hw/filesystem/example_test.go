package filesystem_test

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"gprovision/hw/block"
	"gprovision/hw/filesystem"
	"gprovision/model/layout"
)

// A FAT32 filesystem is made in a partition of a disk in a file, gets a file, and is recognised. No program is started.
func ExampleMakeFAT32() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "disk.img"))
	if err != nil {
		log.Fatal(err)
	}
	if err := f.Truncate(66 << 20); err != nil {
		log.Fatal(err)
	}
	if err := f.Close(); err != nil {
		log.Fatal(err)
	}
	disk, err := block.OpenImage(f.Name(), true, 512)
	if err != nil {
		log.Fatal(err)
	}
	defer disk.Close()

	esp := layout.Partition{Number: 1, Start: 1 << 20, Size: 64 << 20, FSLabel: "ESP", FSUUID: "1234-ABCD"}
	if err := filesystem.MakeFAT32(disk, esp); err != nil {
		log.Fatal(err)
	}
	if err := filesystem.PutFAT32(disk, esp, "EFI/BOOT/BOOTX64.EFI", []byte("a program")); err != nil {
		log.Fatal(err)
	}
	info, err := filesystem.Probe(io.NewSectionReader(disk, esp.Start, esp.Size), esp.Size)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Type, info.Label, info.UUID)
	// Output: vfat ESP 1234-ABCD
}
