package sensor

import (
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestTemperatures reads what drivers of several kinds show, and leaves out what is no temperature.
func TestTemperatures(t *testing.T) {
	sys := fstest.MapFS{}
	for name, text := range map[string]string{
		"hwmon0/name": "coretemp", "hwmon0/temp1_input": "54000", "hwmon0/temp1_label": "Package id 0", "hwmon0/temp1_max": "80000",
		"hwmon0/temp2_input": "52999",
		"hwmon1/name":        "nvme", "hwmon1/temp1_input": "-3850", "hwmon1/temp1_label": "Composite",
		"hwmon2/name": "drivetemp", "hwmon2/temp1_input": "31000",
		"hwmon3/name": "nct6775", "hwmon3/temp1_input": "-61000", "hwmon3/temp2_input": "255000", "hwmon3/temp3_input": "",
		"hwmon3/fan1_input": "900",
	} {
		sys["class/hwmon/"+name] = &fstest.MapFile{Data: []byte(text + "\n")}
	}
	got, err := Temperatures(sys)
	if err != nil {
		t.Fatal(err)
	}
	want := []Temperature{{"coretemp", "Package id 0", 54, false}, {"coretemp", "temp2", 52, false}, {"nvme", "Composite", -3, true},
		{"drivetemp", "temp1", 31, true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := got[0].String(); s != "coretemp Package id 0" {
		t.Errorf("%q", s)
	}
}

// TestTemperaturesHere reads those of the machine that the test runs on, which may have none.
func TestTemperaturesHere(t *testing.T) {
	for _, sys := range []fs.FS{os.DirFS("/sys"), fstest.MapFS{}} {
		if _, err := Temperatures(sys); err != nil {
			t.Error(err)
		}
	}
}
