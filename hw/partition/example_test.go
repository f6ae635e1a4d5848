package partition_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"gprovision/hw/block"
	"gprovision/hw/partition"
	"gprovision/model/layout"
)

// A GPT with one partition is written to a disk in a file, and read back.
func ExampleWrite() {
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

	table := layout.Table{Kind: layout.GPT, UUID: "8a1b0c2d-0000-4000-8000-000000000001", Partitions: []layout.Partition{{
		Number: 1, Start: 1 << 20, Size: 2 << 20, Type: layout.TypeLinux, UUID: "8a1b0c2d-0000-4000-8000-000000000002", Name: "data",
	}}}
	if err := partition.Write(disk, table); err != nil {
		log.Fatal(err)
	}
	got, err := partition.Read(disk)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range got.Partitions {
		fmt.Println(got.Kind, p.Number, p.Start, p.Size, p.Name, p.UUID)
	}
	// Output: gpt 1 1048576 2097152 data 8a1b0c2d-0000-4000-8000-000000000002
}
