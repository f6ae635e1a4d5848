package lcd_test

import (
	"errors"
	"slices"
	"testing"
	"testing/fstest"

	"gprovision/hw/lcd"
)

func TestFind(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s + "\n")} }
	sys := fstest.MapFS{
		// A modem of the same class, a disk, a foreign FTDI chip.
		"bus/usb/devices/1-1/idVendor": file("0403"), "bus/usb/devices/1-1/idProduct": file("6001"), "bus/usb/devices/1-1/manufacturer": file("FTDI"),
		"bus/usb/devices/1-1/1-1:1.0/ttyUSB0/tty/ttyUSB0/dev": file("188:0"),
		"bus/usb/devices/1-2/idVendor":                        file("223b"), "bus/usb/devices/1-2/idProduct": file("0001"),
		"bus/usb/devices/1-2/1-2:1.0/tty/ttyACM0/dev": file("166:0"),
	}
	if got, err := lcd.Find(sys); !errors.Is(err, lcd.ErrNotFound) {
		t.Errorf("foreign devices: %q, %v", got, err)
	}
	if got, err := lcd.Find(fstest.MapFS{}); !errors.Is(err, lcd.ErrNotFound) {
		t.Errorf("no USB: %q, %v", got, err)
	}
	sys["bus/usb/devices/1-1.4/idVendor"] = file("0403")
	sys["bus/usb/devices/1-1.4/manufacturer"] = file("Crystalfontz ")
	sys["bus/usb/devices/1-1.4/1-1.4:1.0/ttyUSB1/tty/ttyUSB1/dev"] = file("188:1")
	sys["bus/usb/devices/2-1/idVendor"] = file("223b")
	sys["bus/usb/devices/2-1/idProduct"] = file("000b")
	// The driver is not loaded yet.
	if got, err := lcd.Find(sys); err != nil || !slices.Equal(got, []string{"/dev/ttyUSB1"}) {
		t.Errorf("got %q, %v", got, err)
	}
	sys["bus/usb/devices/2-1/2-1:1.0/tty/ttyACM1/dev"] = file("166:1")
	if got, err := lcd.Find(sys); err != nil || !slices.Equal(got, []string{"/dev/ttyACM1", "/dev/ttyUSB1"}) {
		t.Errorf("got %q, %v", got, err)
	}
}
