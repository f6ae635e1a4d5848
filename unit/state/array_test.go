package state

import (
	"strings"
	"testing"

	"gprovision/model/layout"
)

// TestDataArray: a data array lies on the same disks as the array of the main system.
func TestDataArray(t *testing.T) {
	id := func(digit string) string {
		return strings.Repeat(digit, 8) + "-" + strings.Repeat(digit, 4) + "-" + strings.Repeat(digit, 4) + "-" + strings.Repeat(digit, 4) + "-" + strings.Repeat(digit, 12)
	}
	array := func(level int, uuid, fs string) *Array {
		return &Array{Level: level, UUID: id(uuid), FSUUID: id(fs), FSLabel: "X"}
	}
	for name, c := range map[string]struct {
		system, data *Array
		ok           bool
	}{
		"none":               {nil, nil, true},
		"system only":        {array(1, "1", "2"), nil, true},
		"both":               {array(1, "1", "2"), array(1, "3", "4"), true},
		"data only":          {nil, array(1, "3", "4"), false},
		"the same array":     {array(1, "1", "2"), array(1, "1", "4"), false},
		"the same contents":  {array(1, "1", "2"), array(1, "3", "2"), false},
		"too few disks":      {array(1, "1", "2"), array(5, "3", "4"), false},
		"no identifier":      {array(1, "1", "2"), &Array{Level: 1, FSUUID: id("4")}, false},
		"a level of no kind": {array(1, "1", "2"), array(2, "3", "4"), false},
	} {
		v := Open(t.TempDir())
		u := Unit{Serial: "S", Firmware: layout.BIOS, Main: make([]Disk, 2), Array: c.system, DataArray: c.data}
		if err := v.WriteUnit(u); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !c.ok {
			continue
		}
		got, err := v.ReadUnit()
		if err != nil || (got.DataArray == nil) != (c.data == nil) || c.data != nil && *got.DataArray != *c.data {
			t.Errorf("%s: read %+v, %v", name, got.DataArray, err)
		}
	}
}
