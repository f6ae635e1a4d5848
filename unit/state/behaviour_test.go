package state

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/naming"
)

// newVolume returns an empty recovery volume.
func newVolume(t *testing.T) *Volume {
	t.Helper()
	v := Open(t.TempDir())
	for _, d := range []string{Dir, LogDir} {
		if err := os.Mkdir(v.Path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// TestOldLogsMakeRoom: logs are removed, oldest first, until there is enough room. Nothing but logs is removed.
func TestOldLogsMakeRoom(t *testing.T) {
	v, _ := realVolume(t) // what tries whether there is room fills the filesystem for a moment
	if err := os.Mkdir(v.Path(LogDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"b.log", "a.log", "c.log", "recovery_history.json", "notes.txt"} {
		file := v.Path(LogDir, name)
		at := time.Now().Add(time.Duration(i-100) * time.Hour)
		if err := errors.Join(os.WriteFile(file, []byte(name), 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(v.Path(LogDir, "directory.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if gone, err := v.MakeRoom(1); err != nil || len(gone) > 0 {
		t.Errorf("there is room, and removed are %q, %v", gone, err)
	}
	const tooMuch = 1 << 30 // more than there is
	if gone, err := v.MakeRoom(tooMuch); err != nil || !slices.Equal(gone, []string{"b.log", "a.log", "c.log"}) {
		t.Errorf("removed are %q, %v", gone, err)
	}
	list, err := os.ReadDir(v.Path(LogDir))
	var left []string
	for _, e := range list {
		left = append(left, e.Name())
	}
	if want := []string{"directory.log", "notes.txt", "recovery_history.json"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left are %q, %v", left, err)
	}
	if _, err := os.Stat(v.Path(roomFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file that shows whether there is room stays: %v", err)
	}
	if err := os.RemoveAll(v.Path(LogDir)); err != nil {
		t.Fatal(err)
	}
	if gone, err := v.MakeRoom(tooMuch); err != nil || len(gone) > 0 {
		t.Errorf("without a directory of logs: %q, %v", gone, err)
	}
}

// TestCountsOfABoot: how each end of a boot changes the counts, and that none of them overflows.
func TestCountsOfABoot(t *testing.T) {
	full := Counts{BootAttempts: maxCount, Repairs: maxCount, RecoveryRepairs: maxCount, WatchdogResets: maxCount,
		RestoreFailures: maxCount, Restores: maxCount, Mends: maxCount}
	for name, c := range map[string]struct {
		change func(Counts) Counts
		counts func(Counts) int
	}{
		"mended":            {Counts.Mended, func(c Counts) int { return c.Mends }},
		"repaired":          {Counts.Repaired, func(c Counts) int { return c.Repairs }},
		"recovery repaired": {Counts.RecoveryRepaired, func(c Counts) int { return c.RecoveryRepairs }},
		"restore failed":    {Counts.RestoreFailed, func(c Counts) int { return c.RestoreFailures }},
		"restored":          {Counts.Restored, func(c Counts) int { return c.Restores }},
	} {
		if first, last := c.counts(c.change(Counts{})), c.counts(c.change(full)); first != 1 || last != maxCount {
			t.Errorf("%s: the first is %d, the last %d", name, first, last)
		}
	}
	if got := full.NotMended(); got.Mends != 0 || got.Repairs != maxCount {
		t.Errorf("a boot with nothing to mend: %+v", got)
	}
	if got := full.Restored(); got.BootAttempts+got.Repairs+got.WatchdogResets+got.Mends != 0 || got.RecoveryRepairs != maxCount {
		t.Errorf("a restore begins anew what is counted of the main system, and nothing else: %+v", got)
	}
}

// TestTriesEndWithAGoodBoot: wrong passwords are counted until a good boot. A damaged file does not reset the count.
func TestTriesEndWithAGoodBoot(t *testing.T) {
	v := newVolume(t)
	want := func(failed int, what string) {
		t.Helper()
		if got, err := v.ReadTries(); err != nil || got.Failed != failed {
			t.Errorf("%s: %+v, %v, want %d", what, got, err, failed)
		}
	}
	want(0, "a new volume")
	if err := v.WriteTries(3); err != nil {
		t.Fatal(err)
	}
	want(3, "three were wrong")
	if err := v.WriteCounts(Counts{}.Good(time.Now())); err != nil {
		t.Fatal(err)
	}
	want(0, "after a good boot")
	if err := v.WriteTries(2); err != nil {
		t.Fatal(err)
	}
	want(2, "two more")
	if err := v.WriteTries(-1); err == nil {
		t.Error("less than none can be counted")
	}
	if err := os.WriteFile(v.Path(ShellFile), []byte(`{"version":1,"failed":2000000000}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := v.ReadTries(); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged: %+v, %v", got, err)
	}
	if err := v.WriteTries(4); err != nil {
		t.Fatal(err)
	}
	want(4, "after the damage")
	const newer = `{"version":2,"failed":1}`
	if err := os.WriteFile(v.Path(ShellFile), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteTries(5); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer file is replaced: %v", err)
	}
	if b, err := os.ReadFile(v.Path(ShellFile)); err != nil || string(b) != newer {
		t.Errorf("a newer file is now %s, %v", b, err)
	}
}

// TestSetNetwork: the saved network configuration is written only if it changes.
func TestSetNetwork(t *testing.T) {
	v := newVolume(t)
	for i, c := range []struct {
		b       []byte
		changed bool
	}{{nil, false}, {[]byte("a"), true}, {[]byte("a"), false}, {[]byte("b"), true}, {nil, true}, {nil, false}} {
		changed, err := v.SetNetwork(c.b)
		if err != nil || changed != c.changed {
			t.Errorf("%d: changed %t, %v", i, changed, err)
		}
		if got, err := v.ReadNetwork(); err != nil || !bytes.Equal(got, c.b) {
			t.Errorf("%d: it is %q, %v", i, got, err)
		}
	}
	if _, err := v.SetNetwork(make([]byte, MaxNetwork+1)); err == nil {
		t.Error("more than may be read is written")
	}
}

// TestKeyOf: a key names its unit, if that was recorded.
func TestKeyOf(t *testing.T) {
	v := newVolume(t)
	if _, _, err := v.ReadKeyOf(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a key: %v", err)
	}
	for _, serial := range []string{"SN-1", ""} {
		key := NewKey()
		if err := v.WriteKeyOf(key, serial); err != nil {
			t.Fatal(err)
		}
		if got, whose, err := v.ReadKeyOf(); err != nil || !got.Equal(key) || whose != serial {
			t.Errorf("it is the key of %q, %v", whose, err)
		}
	}
	if err := v.WriteKeyOf(NewKey()[:10], "SN-1"); err == nil {
		t.Error("half a key is written")
	}
	if err := os.WriteFile(v.Path(KeyFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.ReadKeyOf(); !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged: %v", err)
	}
}

// TestCountsWithoutPlace: a file that is not contiguous, or is no counts file, has no place.
func TestCountsWithoutPlace(t *testing.T) {
	v := newVolume(t)
	if _, err := v.CountsPlace(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without counts: %v", err)
	}
	for name, make := range map[string]func(file string) error{
		"too small":   func(file string) error { return os.WriteFile(file, []byte("{}"), 0o600) },
		"a directory": func(file string) error { return os.Mkdir(file, 0o700) },
	} {
		file := v.Path(CountsFile)
		if err := errors.Join(os.RemoveAll(file), make(file)); err != nil {
			t.Fatal(err)
		}
		if at, err := v.CountsPlace(); !errors.Is(err, block.ErrNoPlace) {
			t.Errorf("%s: at %d, %v", name, at, err)
		}
	}
}

// TestFaultOf: a volume that is merely newer is not reported as damaged.
func TestFaultOf(t *testing.T) {
	for err, want := range map[error]*fault.Fault{
		ErrNewer: fault.RecoveryNewer, ErrDamaged: fault.RecoveryDamaged, fs.ErrNotExist: fault.RecoveryDamaged,
	} {
		if got := Fault(err); fault.Of(got) != want || !errors.Is(got, err) {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// TestNamesOfAUnit: a unit keeps the names that it was provisioned with. Anybody may have written to its record, so
// names that no artifact could have are ignored.
func TestNamesOfAUnit(t *testing.T) {
	unit := func(recovery, primary, prefix string) Unit {
		return Unit{ImagePrefix: prefix,
			Recovery: Disk{Table: layout.Table{Partitions: []layout.Partition{{Role: layout.Recovery, FSLabel: recovery}}}},
			Main:     []Disk{{Table: layout.Table{Partitions: []layout.Partition{{Role: layout.Primary, FSLabel: primary, FSUUID: "x"}}}}}}
	}
	array := unit("ACMEREC", "", "ACME.LNX.FOX.")
	array.Main[0].Table.Partitions[0].Role = layout.Member
	array.Array = &Array{Level: 1, FSUUID: "y", FSLabel: "ACMEROOT"}
	acme := naming.Names{RecoveryLabel: "ACMEREC", PrimaryLabel: "ACMEROOT", ImagePrefix: "ACME.LNX.FOX."}
	for name, c := range map[string]struct {
		unit Unit
		want naming.Names
	}{
		"a unit":          {unit("ACMEREC", "ACMEROOT", "ACME.LNX.FOX."), acme},
		"an array":        {array, acme},
		"a bad label":     {unit("A/../../B", "ACMEROOT", "ACME.LNX.FOX."), naming.Names{ImagePrefix: "ACME.LNX.FOX."}},
		"a bad prefix":    {unit("ACMEREC", "ACMEROOT", "../x"), naming.Names{}},
		"an empty record": {Unit{}, naming.Names{}},
	} {
		c.want.Version = naming.Version
		if got := c.unit.Names(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if p := array.System(); p == nil || p.FSUUID != "y" || p.UUID != "" {
		t.Errorf("the system of an array is %+v", p)
	}
}

// TestRefusesToWrite: what could not be read back is not written.
func TestRefusesToWrite(t *testing.T) {
	v := newVolume(t)
	good := Unit{Serial: "S", Platform: "P", Firmware: layout.UEFI, ImagePrefix: "A.B.C.", Main: []Disk{{}}}
	for name, err := range map[string]error{
		"a unit without a serial number": v.WriteUnit(Unit{Firmware: layout.UEFI, ImagePrefix: "A.B.C.", Main: []Disk{{}}}),
		"unknown firmware":               v.WriteUnit(Unit{Serial: "S", ImagePrefix: "A.B.C.", Main: []Disk{{}}}),
		"a line break in the serial":     v.WriteUnit(Unit{Serial: "S\n", Firmware: layout.UEFI, ImagePrefix: "A.B.C.", Main: []Disk{{}}}),
		"no main disk":                   v.WriteUnit(Unit{Serial: "S", Firmware: layout.UEFI, ImagePrefix: "A.B.C."}),
		"a medium without an identifier": v.WriteMedium(Medium{Image: "A.B.C.2026-11-22.0001.upd"}),
		"a medium without an image":      v.WriteMedium(Medium{ID: "0123456789abcdef", Image: "../x"}),
		"a password in place of a hash":  v.WriteHash("secret"),
		"negative counts":                v.WriteCounts(Counts{Repairs: -1}),
		"a restore of a bad image":       v.WriteRequest(Request{ID: "0123456789abcdef", Kind: KindRestore, Image: "../x"}),
	} {
		if err == nil {
			t.Errorf("%s is written", name)
		}
	}
	if err := v.WriteUnit(good); err != nil {
		t.Errorf("a good record: %v", err)
	}
	list, err := os.ReadDir(v.Path(Dir))
	if err != nil || len(list) != 1 || list[0].Name() != path.Base(UnitFile) {
		t.Errorf("written are %v, %v", list, err)
	}
	if b, err := os.ReadFile(v.Path(UnitFile)); err != nil || !strings.Contains(string(b), `"version":`) {
		t.Errorf("the record is %s, %v", b, err)
	}
}
