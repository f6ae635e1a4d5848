package provision

import (
	"maps"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/signature"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// TestWhole provisions machines of all kinds at a station, from the manifest to the confirmed credentials, and restores them: the mark is
// set then, the request is gone, and the operator knows the password.
func TestWhole(t *testing.T) {
	g := newGoods(t)
	for name, k := range kinds() {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, g, k)
			var asked atomic.Int32
			b.asked = func(r *http.Request) {
				if r.URL.Path != "/v1/credentials" {
					return
				}
				asked.Add(1)
				key, owner, err := state.Open(b.Doors().Places.Recovery).ReadKeyOf()
				if err != nil || owner != benchSerial || len(key) == 0 {
					t.Errorf("credentials are asked for, and the volume has no key of %q: %v", owner, err)
				}
			}
			little := func(j *provisioning) { j.Proc = proc(1) } // for the files of steps, which are read before the first write
			if err := b.provision(nil, little); err != nil {
				t.Fatalf("%v\n%s", err, b.log)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("credentials were asked for %d times", n)
			}
			b.fetched(t, 1, 1)
			got := b.ends()
			for _, want := range []string{
				`request: restore latest by "provision", missing: false`, "the main disk is blank: true", "later restores report: true",
				"/doc/manual.txt", "/doc/stamp", "/norm_boot.minisig", "its credentials: true, confirmed: true", "the key speaks for the unit: true",
			} {
				if k.OneDisk && strings.Contains(want, "blank") {
					continue
				}
				if !strings.Contains(got, want) {
					t.Errorf("%q is missing in\n%s", want, got)
				}
			}
			u, _ := b.record(b.machine())
			if err := b.opens(u); err != nil {
				t.Errorf("the password that the operator reads: %v", err)
			}
			volume, err := os.Stat(b.Volume(u.Recovery.Table.Find(layout.Recovery).FSUUID))
			if err != nil || volume.Mode().Perm() != 0o700 {
				t.Errorf("not only root sees into the recovery volume: %v, %v", volume, err)
			}
			if u.ManifestSerial != "7" || (u.Array != nil) != k.Mirror || u.Original != benchRelease+".upd" || u.Server != b.url {
				t.Errorf("the record says %+v", u)
			}
			if err := b.restore(); err != nil {
				t.Fatalf("%v\n%s", err, b.log)
			}
			b.holdsNoSecret(u)
			if got := b.ends(); !strings.Contains(got, "missing: true") || !strings.Contains(got, "/boot.normal") {
				t.Errorf("no mark, or still a request, in\n%s", got)
			}
		})
	}
}

// fetched holds how often the files, and everything else, may have been fetched. Their sizes are asked for once.
func (b *bench) fetched(t *testing.T, files, others int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := 0
	for call, n := range b.got {
		most := others
		path, isFile := strings.CutPrefix(call, "GET /files/")
		if isFile && !strings.HasPrefix(path, "manufData") && !strings.HasSuffix(path, ".minisig") {
			most = files
			seen++
		}
		if call != "GET /v1/time" && n > most { // the clock is set by it, and each new connection begins with it
			t.Errorf("%s: %d times, at most %d", call, n, most)
		}
	}
	if seen != 4 {
		t.Errorf("%d files were fetched: %v", seen, b.got)
	}
}

// TestAgain provisions a unit again that is complete. An operator has to want it. Its key stays, it gets new credentials, and what has
// room in memory is fetched once although all of it was read before anything was erased.
func TestAgain(t *testing.T) {
	g := newGoods(t)
	first := newBench(t, g, machinetest.Kind{Firmware: layout.UEFI})
	if err := first.provision(nil); err != nil {
		t.Fatal(err)
	}
	want := first.ends()
	before, _ := first.record(first.machine())
	for name, tc := range map[string]struct {
		free  int
		files int
	}{"much memory": {1000, 1}, "no memory": {0, 2}} {
		t.Run(name, func(t *testing.T) {
			b := first.clone(t)
			memory := func(j *provisioning) { j.Proc, j.HasRecovery = proc(tc.free), true }
			if err := b.provision(nil, memory); fault.Of(err) != fault.NotReleased || b.destroys {
				t.Fatalf("nobody released it: %v", err)
			}
			if err := b.db.Release(t.Context(), benchSerial, "operator"); err != nil {
				t.Fatal(err)
			}
			if err := b.provision(nil, memory); err != nil {
				t.Fatalf("%v\n%s", err, b.log)
			}
			b.fetched(t, tc.files, 1)
			if got := b.ends(); got != want {
				t.Errorf("ends elsewhere:\n%s\nand not\n%s", got, want)
			}
			u, _ := b.record(b.machine())
			if err := b.opens(u); err != nil || u.Credentials <= before.Credentials {
				t.Errorf("credentials %d after %d: %v", u.Credentials, before.Credentials, err)
			}
		})
	}
}

// TestVolumeThatStays: where the volume that the key was looked for on stays mounted, it could not be made anew. That ends the job before
// anything is erased, also when it is begun again in the same boot.
func TestVolumeThatStays(t *testing.T) {
	b := newBench(t, newGoods(t), machinetest.Kind{Firmware: layout.UEFI})
	if err := b.provision(nil); err != nil {
		t.Fatal(err)
	}
	for door, bad := range map[string]error{"mount /dev/vda2": syscall.EBUSY, "unmount /dev/vda2": syscall.EIO} {
		err := b.provision(func(_ int, call string) error {
			if strings.HasPrefix(call, door) {
				return bad
			}
			return nil
		})
		if fault.Of(err) != fault.DiskWrite || b.destroys {
			t.Errorf("%v at %s: %v, begins to destroy: %t", bad, door, err, b.destroys)
		}
	}
}

// TestManifestsAreRemembered: which manifests a unit has used outlasts its provisioning again, also by one that is not signed.
func TestManifestsAreRemembered(t *testing.T) {
	for name, signed := range map[string]bool{"signed": true, "unsigned": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, newGoods(t), machinetest.Kind{Firmware: layout.UEFI})
			used := func(j *provisioning) {
				j.Manifests = state.Manifests{}.Used("OTHER", "9").Used("WIDGET", "5")
				if !signed {
					j.Policy.AllowUnsigned, j.Policy.Keys, j.Keys = true, nil, nil
					maps.DeleteFunc(b.files, func(name string, _ []byte) bool { return strings.HasSuffix(name, signature.Suffix) })
				}
			}
			if err := b.provision(nil, used); err != nil {
				t.Fatalf("%v\n%s", err, b.log)
			}
			u, _ := b.record(b.machine())
			m, err := state.Open(b.Volume(u.Recovery.Table.Find(layout.Recovery).FSUUID)).ReadManifests()
			if err != nil || m.Check("OTHER", "8") == nil || m.Check("WIDGET", "4") == nil || signed != (m.Check("WIDGET", "6") != nil) {
				t.Errorf("it remembers %+v, %v", m, err)
			}
		})
	}
}
