package pid1

import (
	"os"
	"testing"

	"gprovision/unit/machine/machinetest"
)

func TestMain(m *testing.M) { machinetest.Main(m) }

// TestMountsAreOwn: a program outside of the tests cannot get hold of what they mount.
func TestMountsAreOwn(t *testing.T) {
	machinetest.OwnMounts(t)
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if outside := os.Getenv(machinetest.InsideVar); outside == "" || own == outside {
		t.Error("the tests mount where everybody does")
	}
}
