package block_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"gprovision/hw/block"
)

// The disks of this machine, without udev and without root.
func ExampleList() {
	disks, err := block.List(os.DirFS("/sys"))
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range disks {
		fmt.Printf("%s: %d bytes in sectors of %d, %s, %s %s, %d partitions\n",
			d.Path, d.Size, d.SectorSize, d.Bus, d.Model, d.Serial, len(d.Partitions))
	}
}

// An image file is a disk like any other. The drivers of tables and filesystems take either.
func ExampleOpenImage() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		log.Fatal(err)
	}
	disk, err := block.OpenImage(file, true, 4096)
	if err != nil {
		log.Fatal(err)
	}
	defer disk.Close()
	fmt.Println(disk.Size(), disk.SectorSize())
	// Output: 1048576 4096
}
