package host_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"gprovision/hw/host"
)

// A program gets a fixed environment, and what is secret reaches it that way.
func ExampleExec() {
	r, err := host.Exec(context.Background(), nil, host.Command{
		Path: "sh", Args: []string{"-c", `echo "$KEY in $PWD, $LC_ALL"; exit 3`}, Env: []string{"KEY=x"},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s%d\n", r.Output, r.Exit)
	// Output:
	// x in /, C
	// 3
}

func ExampleParseMountInfo() {
	const line = `36 35 98:0 / /mnt\040a ro,noatime master:1 - ext4 /dev/root rw`
	mounts, err := host.ParseMountInfo(strings.NewReader(line + "\n"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s on %q, %s, read-only: %t\n", mounts[0].Source, mounts[0].Target, mounts[0].Type, mounts[0].ReadOnly)
	// Output: /dev/root on "/mnt a", ext4, read-only: true
}
