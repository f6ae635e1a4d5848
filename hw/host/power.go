package host

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Reboot writes back what is not on its devices and starts the machine anew. Unmount first. On success it does not return.
func Reboot() error { return end("reboot", unix.LINUX_REBOOT_CMD_RESTART) }

// PowerOff writes back what is not on its devices and turns the machine off. Unmount first. On success it does not return.
func PowerOff() error { return end("power off", unix.LINUX_REBOOT_CMD_POWER_OFF) }

func end(what string, cmd int) error {
	unix.Sync()
	if err := unix.Reboot(cmd); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
