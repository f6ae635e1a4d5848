package provision

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// The destroy law: a provisioning may be cut off, or fail, at any of its calls: at those to the machine, at the requests to the station,
// and between two steps. Begun anew it ends where one ends that nothing happened to: with the same key where credentials were given, and
// with those that the operator reads. Where the station knows that the unit has its credentials, its own disk starts it and it restores.

// sampled returns the numbers of calls at which something is to happen: of a run of equal ones the first and the last.
func sampled(calls []string) (out []int) {
	for i := 0; i < len(calls); {
		k := i
		for k < len(calls) && calls[k] == calls[i] {
			k++
		}
		out = append(out, i+1, k)
		i = k
	}
	return slices.Compact(out)
}

// complete is a unit that was provisioned and restored, and that an operator has released.
func complete(t *testing.T, g *goods, k machinetest.Kind) *bench {
	t.Helper()
	b := newBench(t, g, k)
	err := b.provision(nil)
	if err == nil {
		err = b.restore()
	}
	if err == nil {
		err = b.db.Release(t.Context(), benchSerial, "operator")
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// marked reports whether the machine carries the main system of u, complete.
func (b *bench) marked(u state.Unit) bool {
	b.Start(nil)
	dir := b.Volume(u.System().FSUUID)
	_, err := os.Stat(dir + "/boot.normal")
	return dir != "" && err == nil
}

func TestDestroyLaw(t *testing.T) {
	g := newGoods(t)
	for offset, tc := range []struct {
		name string
		make func(t *testing.T, g *goods, k machinetest.Kind) *bench
		kind machinetest.Kind
		free int // MiB of memory
	}{
		{"new, UEFI, two disks", newBench, machinetest.Kind{Firmware: layout.UEFI}, 0},
		{"new, BIOS, one disk", newBench, machinetest.Kind{Firmware: layout.BIOS, OneDisk: true}, 0},
		{"complete, BIOS, two disks", complete, machinetest.Kind{Firmware: layout.BIOS}, 1000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			start := tc.make(t, g, tc.kind)
			memory := func(j *provisioning) { j.Proc = proc(tc.free) }
			whole := start.clone(t)
			if err := whole.provision(nil, memory); err != nil {
				t.Fatalf("without a cut: %v\n%s", err, whole.log)
			}
			calls := whole.Calls()
			want := whole.ends()
			if err := whole.restore(); err != nil {
				t.Fatal(err)
			}
			restored := whole.ends()
			var old *state.Unit
			if start.powers > 0 {
				u, _ := start.record(start.machine())
				old = &u
			}
			number := func(call string) int { return slices.Index(calls, call) + 1 }
			found, clears, first := number("end of find-key"), number("end of check-server"), number("write /dev/vdb")
			keyed := number("end of format-recovery")
			if found*clears*first*keyed == 0 {
				t.Fatalf("there is no call to go by: %q", calls)
			}
			always := []int{first, number("POST /v1/credentials"), number("POST /v1/credentials/confirm"), number("end of report")}
			at := sampled(calls)
			tried, again, later := 0, 0, 0
			for _, bad := range []error{machinetest.ErrCut, syscall.EIO} {
				for i, n := range at {
					if testing.Short() && (i+offset)%8 != 0 && !slices.Contains(always, n) {
						continue
					}
					cut := errors.Is(bad, machinetest.ErrCut)
					if !cut && strings.HasPrefix(calls[n-1], "end of ") {
						continue // no door
					}
					call := fmt.Sprintf("%v at call %d, %s", bad, n, calls[n-1])
					tried++
					b := start.clone(t)
					err := b.provision(func(k int, _ string) error {
						if k != n {
							return nil
						}
						return fmt.Errorf("%s: %w", call, bad)
					}, memory)
					if err == nil && cut && n < len(calls) {
						t.Errorf("%s: stops nothing", call)
					}
					if err != nil && n <= clears && len(b.Written()) > 0 {
						t.Errorf("%s: %s are written to", call, b.Written())
					}
					if old != nil && err != nil && b.marked(*old) != (n <= first) {
						t.Errorf("%s: the old system is marked: %t", call, b.marked(*old))
					}
					if err != nil && n < clears && (i+offset)%8 != 0 { // all is as it was, and only the station knows more
						continue
					}
					end := want
					if err != nil || cut {
						again++
						err = b.provision(nil, memory)
					}
					if fault.Of(err) == fault.NotReleased {
						err, end = b.restore(), restored
						later++
					}
					if err != nil {
						t.Fatalf("%s; begun anew: %v\n%s", call, err, b.log)
					}
					// The key of a complete unit is in memory alone from when its volume is made anew until it is written there. One that
					// cannot be read is as good as none: a person is asked.
					lost := old != nil && (n > clears && n < keyed || !cut && n < found)
					if b.approvals() > 0 && !lost {
						t.Errorf("%s: an operator has to approve the unit's key", call)
					}
					if diff := cmp.Diff(end, b.ends()); diff != "" {
						t.Fatalf("%s: ends elsewhere:\n%s", call, diff)
					}
				}
			}
			t.Logf("%d calls, %d cuts and failures, begun anew %d times, %d of them restored", len(calls), tried, again, later)
		})
	}
}
