package raid_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"gprovision/hw/raid"
)

// Programs are started by whoever the caller says. This one only shows what would be started.
func ExampleCreate() {
	show := func(_ context.Context, path string, args ...string) ([]byte, int, error) {
		fmt.Println(path, strings.Join(args[:3], " "))
		fmt.Println(strings.Join(args[3:], "\n"))
		return nil, 0, nil
	}
	err := raid.Create(context.Background(), show, raid.Plan{
		Device: "/dev/md0", Level: 1, UUID: "8a1b0c2d-0000-4000-8000-000000000001", Name: "system", Members: []string{"/dev/sda2", "/dev/sdb2"},
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// /sbin/mdadm --create /dev/md0 --run
	// --force
	// --metadata=1.2
	// --homehost=any
	// --name=system
	// --uuid=8a1b0c2d:00004000:80000000:00000001
	// --level=1
	// --raid-devices=2
	// --bitmap=internal
	// /dev/sda2
	// /dev/sdb2
}

// One of two members is there: the array can be started, and lacks a disk.
func ExampleFind() {
	const uuid = "8a1b0c2d-0000-4000-8000-000000000001"
	a := raid.Find([]raid.Part{
		{Member: raid.Member{UUID: uuid, Level: 1, Disks: 2, Active: 2, Place: 0, Events: 17}, Path: "/dev/sda2", Disk: "sda"},
	}, uuid)
	fmt.Println("enough:", a.Enough(), "complete:", a.Complete(), "degraded:", a.Degraded())
	// Output: enough: true complete: false degraded: true
}
