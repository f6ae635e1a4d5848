package grub_test

import (
	"fmt"
	"strings"

	"gprovision/model/grub"
)

// The configuration of a disk that starts one kernel. GRUB reads it from grub.ConfigPath.
func ExampleMainConfig() {
	config := grub.MainConfig(grub.Entry{
		Title: "Acme", Kernel: "/boot/vmlinuz", Initrd: "/boot/initrd", Args: "quiet console=ttyS0,115200",
	})
	for line := range strings.Lines(string(config)) {
		if line = strings.TrimSpace(line); strings.Contains(line, "linux") || strings.Contains(line, "initrd") {
			fmt.Println(line)
		}
	}
	// Output:
	// if linux '/boot/vmlinuz' 'quiet' 'console=ttyS0,115200'; then
	// if initrd '/boot/initrd'; then
}
