// Package lab runs virtual units: QEMU machines with real firmware (OVMF, SeaBIOS), real network boot, disks of every kind
// and a power switch, on a network of their own beside a real gprov serve. VM tests, gprov vm and gprov demo use it.
//
// A Network is one station: a network namespace with a bridge, in which servers and units live. A Unit is one machine: its
// disks and its firmware variables are files in a directory, so it can be switched off, forked and started again. What a
// unit says comes as events, JSON lines on a virtio-serial port; the console is kept for failures only. A Server is a
// gprov serve inside the station.
//
// Networks need root and /dev/net/tun. The namespace has no name: it goes, with every program in it, when the process that
// made it ends, so that nothing is left over after a crash. The package does not know what a unit does; tests do.
package lab
