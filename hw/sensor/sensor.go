// Package sensor reads the temperatures that the kernel's hwmon drivers show in sysfs.
package sensor

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Temperature is what one sensor says at this moment.
type Temperature struct {
	// Name is the driver's name for the chip, and Label the sensor's own name, such as "coretemp" and "Package id 0".
	Name, Label string
	// Celsius is the temperature in degrees, rounded towards zero.
	Celsius int
	// Disk reports whether it is of a disk: the driver is that of NVMe or drivetemp.
	Disk bool
}

// String returns the names of the sensor.
func (t Temperature) String() string { return strings.TrimSpace(t.Name + " " + t.Label) }

// Temperatures reads all sensors below sys, which is /sys. One that says nothing, or is switched off, is left out; so are values that no
// part that works has: below -50 and above 200 degrees.
func Temperatures(sys fs.FS) ([]Temperature, error) {
	inputs, err := fs.Glob(sys, "class/hwmon/*/temp*_input")
	if err != nil {
		return nil, fmt.Errorf("read temperatures: %w", err)
	}
	var out []Temperature
	for _, in := range inputs {
		milli, err := strconv.ParseInt(text(sys, in), 10, 32)
		if err != nil || milli < -50_000 || milli > 200_000 {
			continue
		}
		base := strings.TrimSuffix(in, "input")
		t := Temperature{Name: text(sys, path.Join(path.Dir(in), "name")), Label: text(sys, base+"label"), Celsius: int(milli / 1000)}
		if t.Label == "" {
			t.Label = strings.TrimSuffix(path.Base(base), "_")
		}
		t.Disk = t.Name == "nvme" || t.Name == "drivetemp"
		out = append(out, t)
	}
	return out, nil
}

// text is a small file of sysfs, "" if it cannot be read.
func text(sys fs.FS, name string) string {
	b, err := fs.ReadFile(sys, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
