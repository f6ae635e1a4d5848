package lcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// ErrNotFound is returned when no LCD is there.
var ErrNotFound = errors.New("no LCD is there")

// Find returns the device nodes of all USB LCDs, such as "/dev/ttyACM0". sys is /sys. First come those that are serial devices by
// their USB class and carry the maker's numbers, then the older ones behind an FTDI chip that carries the maker's name. Both are
// sure: no other device is ever taken for one. It returns ErrNotFound if there is none; drivers may not be loaded yet.
func Find(sys fs.FS) ([]string, error) {
	const dir = "bus/usb/devices"
	devices, err := fs.ReadDir(sys, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("find LCD: %w", err)
	}
	var modern, old []string
	for _, d := range devices {
		at := path.Join(dir, d.Name())
		switch {
		case attribute(sys, at, "idVendor") == "223b" && attribute(sys, at, "idProduct") == "000b":
			modern = append(modern, nodes(sys, at, "/tty/ttyACM*")...)
		case strings.EqualFold(attribute(sys, at, "manufacturer"), "crystalfontz"):
			old = append(old, nodes(sys, at, "/ttyUSB*")...)
		}
	}
	if found := append(modern, old...); len(found) > 0 {
		return found, nil
	}
	return nil, ErrNotFound
}

// attribute is a small file of sysfs without blanks around it, "" if it is not there.
func attribute(sys fs.FS, dir, name string) string {
	b, err := fs.ReadFile(sys, path.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// nodes are the ttys below the interfaces of a USB device.
func nodes(sys fs.FS, dir, pattern string) []string {
	names, err := fs.Glob(sys, dir+"/"+path.Base(dir)+":*"+pattern)
	if err != nil {
		return nil
	}
	for i, n := range names {
		names[i] = "/dev/" + path.Base(n)
	}
	return names
}

// Dialer returns a Dial for DisplayOptions: it opens the given port, such as "ttyS1" or "/dev/ttyS1", or the first USB LCD below sys
// if port is "". What a caller knows for certain it names; a port that is merely there is never tried.
func Dialer(sys fs.FS, port string) func(context.Context) (io.ReadWriteCloser, string, error) {
	return func(context.Context) (io.ReadWriteCloser, string, error) {
		candidates := []string{"/dev/" + strings.TrimPrefix(port, "/dev/")}
		if port == "" {
			var err error
			if candidates, err = Find(sys); err != nil {
				return nil, "", err
			}
		}
		var errs []error
		for _, name := range candidates {
			p, err := OpenPort(name)
			if err == nil {
				return p, name, nil
			}
			errs = append(errs, err)
		}
		return nil, "", errors.Join(errs...)
	}
}
