// Package host is the door to the running kernel: it starts programs, mounts, loads modules, hears of new devices, hands
// over to another root and reboots. No other driver does any of this.
//
// It does not decide when. Reboot, PowerOff and SwitchRoot end what runs: one place of a program should call them (layers_test.go).
//
// It also works as process 1 of an initramfs. There it does not reap orphans: a wait for any child would race with the wait
// of Exec for its own one. The few programs that drivers start (mke2fs, e2fsck, mdadm) leave none behind in the foreground
// modes in which they are called, and a zombie costs the kernel one table entry until the next root's init takes over.
package host
