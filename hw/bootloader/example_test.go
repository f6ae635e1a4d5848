package bootloader_test

import (
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"gprovision/hw/block"
	"gprovision/hw/bootloader"
	"gprovision/model/layout"
)

// A disk in a file gets GRUB: boot.img into sector 0, core.img into the BIOS boot partition.
func ExampleInstall() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(file, make([]byte, 4<<20), 0o600); err != nil {
		log.Fatal(err)
	}
	disk, err := block.OpenImage(file, true, 512)
	if err != nil {
		log.Fatal(err)
	}
	defer disk.Close()
	// partition.Write leaves this in sector 0.
	if _, err := disk.WriteAt([]byte{0x55, 0xaa}, 510); err != nil {
		log.Fatal(err)
	}

	table := layout.Table{Kind: layout.GPT, Partitions: []layout.Partition{
		{Number: 1, Start: 1 << 20, Size: 1 << 20, Type: layout.TypeBIOSBoot},
	}}
	fmt.Println("before:", bootloader.Verify(disk, table, images()))
	if err := bootloader.Install(disk, table, images()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("after:", bootloader.Verify(disk, table, images()))
	// Output:
	// before: boot loader: sector 0 does not lead to a place of ours, but to sector 0
	// after: <nil>
}

// images stand for /usr/lib/grub/i386-pc/boot.img and for what grub-mkimage makes.
func images() bootloader.Images {
	boot, core := make([]byte, 512), make([]byte, 40<<10)
	boot[0x66], boot[510], boot[511] = 0xeb, 0x55, 0xaa
	binary.LittleEndian.PutUint16(core[510:], 0x820)
	return bootloader.Images{Boot: boot, Core: core}
}
