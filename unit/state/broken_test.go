package state

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/release"
)

// TestDamagedFiles: a directory in the place of a file is damage to who reads it, and no empty record.
func TestDamagedFiles(t *testing.T) {
	v := newVolume(t)
	for name, read := range map[string]func() error{
		UnitFile: func() error { _, err := v.ReadUnit(); return err }, RequestFile: func() error { _, err := v.ReadRequest(); return err },
		CountsFile: func() error { _, err := v.ReadCounts(); return err }, HashFile: func() error { _, err := v.ReadHash(); return err },
		KeyFile: func() error { _, _, err := v.ReadKeyOf(); return err }, EraseFile: func() error { _, err := ReadErase(v); return err },
		BoardsFile: func() error { _, err := ReadBoards(v); return err }, PendingFile: func() error { _, err := v.ReadPending(); return err },
		ManifestsFile: func() error { _, err := v.ReadManifests(); return err }, ShellFile: func() error { _, err := v.ReadTries(); return err },
		MediumFile: func() error { _, err := v.ReadMedium(); return err }, HistoryFile: func() error { _, err := v.History(); return err },
		RestoreDataFile: func() error { _, err := v.ReadRestoreData(); return err },
		NetworkFile:     func() error { _, err := v.ReadNetwork(); return err },
	} {
		if err := os.MkdirAll(v.Path(name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := read(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := v.WriteTries(3); err == nil {
		t.Error("wrong passwords are counted in a directory")
	}
	damaged, err := v.ChangeHistory(time.Now(), func(h *release.History) { h.Imaging("A", true, time.Now()) })
	if damaged == nil || err != nil {
		t.Errorf("the history: %v, %v", damaged, err)
	}
	if h, err := v.History(); err != nil || len(h.ImageResults) != 1 {
		t.Errorf("the new history: %+v, %v", h, err)
	}
}

// TestNoVolume: nothing is written to a volume that is not there, or whose directories are files, and that is said.
func TestNoVolume(t *testing.T) {
	odd := Open(t.TempDir())
	for _, dir := range []string{Dir, LogDir, EraseDir, "lost+found"} {
		if err := os.WriteFile(odd.Path(dir), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for where, v := range map[string]*Volume{"none": Open("/nowhere"), "odd": odd} {
		for what, do := range map[string]func() error{
			"unit": func() error { return v.WriteUnit(sampleUnit()) }, "counts": func() error { return v.WriteCounts(Counts{}) },
			"tries": func() error { return v.WriteTries(1) }, "history": func() error { return v.WriteHistory([]byte("{}")) },
			"a changed history": func() error { _, err := v.ChangeHistory(time.Now(), func(*release.History) {}); return err },
			"a rolled history":  v.RollHistory, "a request set aside": v.SetRequestAside, "no request": v.DeleteRequest,
			"boards": func() error { return AddBoard(v, "S") }, "erase": func() error { return WriteEraseFile(v, "x", nil) },
			"forget": func() error { _, err := Forget(v); return err }, "room": func() error { _, err := v.MakeRoom(1); return err },
			"lost":  func() error { _, err := v.HasLostUnit(func(Unit) bool { return true }); return err },
			"found": func() error { _, err := v.PutLostBack(func(Unit) bool { return true }); return err },
			"place": func() error { _, err := v.CountsPlace(); return err },
		} {
			if err := do(); err == nil {
				t.Errorf("%s, %s: no error", where, what)
			}
		}
	}
}

// TestCountsInPlace: counts are written into the file that is there, which takes no room, unless it is none that can be written into.
func TestCountsInPlace(t *testing.T) {
	v := newVolume(t)
	inode := func() uint64 {
		t.Helper()
		st, err := os.Lstat(v.Path(CountsFile))
		if err != nil || !st.Mode().IsRegular() || st.Size() != CountsSize {
			t.Fatalf("%v, %v", st, err)
		}
		return st.Sys().(*syscall.Stat_t).Ino
	}
	write := func(n int) uint64 {
		t.Helper()
		if err := v.WriteCounts(Counts{Repairs: n}); err != nil {
			t.Fatal(err)
		}
		if c, err := v.ReadCounts(); err != nil || c.Repairs != n {
			t.Fatalf("%+v, %v", c, err)
		}
		return inode()
	}
	if _, err := v.CountsPlace(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the place of no counts: %v", err)
	}
	if first := write(1); write(2) != first {
		t.Error("counts have gone to another file")
	}
	b, err := os.ReadFile(v.Path(CountsFile))
	if err != nil || b[CountsSize-1] != '\n' || len(bytes.TrimSpace(b)) >= 512 {
		t.Errorf("%q, %v", b, err)
	}
	outside := filepath.Join(t.TempDir(), "counts")
	for name, put := range map[string]func() error{
		"another size": func() error { return os.WriteFile(v.Path(CountsFile), b[:100], 0o600) },
		"a link": func() error {
			return errors.Join(os.WriteFile(outside, b, 0o600), os.Symlink(outside, v.Path(CountsFile)))
		},
		"a FIFO": func() error { return syscall.Mkfifo(v.Path(CountsFile), 0o600) },
	} {
		if err := errors.Join(os.Remove(v.Path(CountsFile)), put()); err != nil {
			t.Fatal(err)
		}
		if _, err := v.CountsPlace(); name == "another size" && !errors.Is(err, block.ErrNoPlace) || err == nil {
			t.Errorf("%s has a place: %v", name, err)
		}
		write(3)
	}
	if after, err := os.ReadFile(outside); err != nil || !bytes.Equal(after, b) {
		t.Errorf("written through a link: %v", err)
	}
}

// TestRoomInMemory is TestOldLogsMakeRoom for a filesystem in memory, which needs no privileges.
func TestRoomInMemory(t *testing.T) {
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Blocks == 0 {
		skip(t, "/dev/shm is no filesystem in memory with a size")
	}
	dir, err := os.MkdirTemp("/dev/shm", "gprov-state-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	v := Open(dir)
	tooMuch := (int64(st.Blocks) + 1) * st.Bsize
	if gone, err := v.MakeRoom(tooMuch); err != nil || len(gone) > 0 {
		t.Errorf("without logs: %q, %v", gone, err)
	}
	if err := os.MkdirAll(v.Path(LogDir, "directory.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"b.log", "a.log", "notes.txt"} {
		at := time.Now().Add(time.Duration(i-100) * time.Hour)
		if err := errors.Join(os.WriteFile(v.Path(LogDir, name), nil, 0o600), os.Chtimes(v.Path(LogDir, name), at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if gone, err := v.MakeRoom(1); err != nil || len(gone) > 0 {
		t.Errorf("there is room, and removed are %q, %v", gone, err)
	}
	if _, err := v.MakeRoom(-1); err == nil {
		t.Error("less than nothing is room")
	}
	if gone, err := v.MakeRoom(tooMuch); err != nil || !slices.Equal(gone, []string{"b.log", "a.log"}) {
		t.Errorf("removed are %q, %v", gone, err)
	}
	if err := os.MkdirAll(v.Path(roomFile, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.Path(LogDir, "c.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if gone, err := v.MakeRoom(1); err == nil || len(gone) > 0 {
		t.Errorf("nobody knows whether there is room, and removed are %q, %v", gone, err)
	}
}

// TestMeanings: what records say beyond their fields.
func TestMeanings(t *testing.T) {
	one := Disk{Table: sampleTable()}
	data, member := one, one
	data.Table.Partitions = []layout.Partition{{Role: layout.Data}}
	member.Table.Partitions = []layout.Partition{{Role: layout.DataMember}}
	for i, c := range []struct {
		u         Unit
		one, data bool
	}{
		{Unit{Recovery: one, Main: []Disk{one}}, true, false}, {Unit{Recovery: one, Main: []Disk{one, one}}, false, false},
		{Unit{Main: make([]Disk, 1)}, false, false}, {Unit{Recovery: one, Main: make([]Disk, 1)}, false, false},
		{Unit{Main: []Disk{data}}, false, true}, {Unit{Main: []Disk{{}, member}}, false, true},
	} {
		if c.u.OneDisk() != c.one || c.u.HasData() != c.data {
			t.Errorf("%d: one disk %t, data %t", i, c.u.OneDisk(), c.u.HasData())
		}
	}
	for kind, want := range map[string]struct {
		image               string
		settings, dropsData bool
	}{KindRestore: {Latest, false, false}, KindErase: {}, KindRestoreSettings: {Latest, true, false},
		KindRestoreEverything: {Latest, true, true}} {
		r, err := NewRequest(kind, "", "x", time.Now())
		if err != nil || r.Image != want.image || r.DropsSettings() != want.settings || r.DropsData() != want.dropsData {
			t.Errorf("%s: %+v, %v", kind, r, err)
		}
		if again, err := NewRequest(kind, "", "x", time.Now()); err != nil || again.ID == r.ID {
			t.Errorf("%s: %s twice, %v", kind, r.ID, err)
		}
	}
	if r, err := NewRequest(KindRestore, Original, "x", time.Now()); err != nil || r.Image != Original {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := NewRequest("format", "", "x", time.Now()); err == nil {
		t.Error("a request of an unknown kind")
	}
	if NewKey().Equal(NewKey()) {
		t.Error("two units get one key")
	}
	if a, b := (Counts{}).Attempted(true), (Counts{}).Attempted(false); a.WatchdogResets != 1 || b.WatchdogResets != 0 {
		t.Errorf("a reset by a watchdog: %+v, none: %+v", a, b)
	}
	large := sampleUnit()
	for range 60 {
		d := large.Main[0]
		d.Model = strings.Repeat("m", 256)
		large.Main = append(large.Main, d)
	}
	v := newVolume(t)
	if err := v.WriteUnit(large); err != nil {
		t.Error(err)
	}
	if u, err := v.ReadUnit(); err != nil || len(u.Main) != 61 {
		t.Errorf("%d disks, %v", len(u.Main), err)
	}
	used := Manifests{Newest: map[string]uint64{"A": 3}}
	for _, c := range []struct {
		product, serial string
		want            int
	}{{"A", "4", 1}, {"B", "4", 2}, {"B", "x", 1}, {"", "4", 1}, {"B\n", "4", 1}} {
		if got := used.Used(c.product, c.serial); len(got.Newest) != c.want || used.Newest["A"] != 3 || len(used.Newest) != 1 {
			t.Errorf("%q %s: %v, and before %v", c.product, c.serial, got.Newest, used.Newest)
		}
	}
	for i := range maxProducts - 1 {
		used.Newest[strings.Repeat("x", i+1)] = 1
	}
	if got := used.Used("more", "1"); len(got.Newest) != maxProducts || used.Used("A", "9").Newest["A"] != 9 {
		t.Errorf("%d products", len(got.Newest))
	}
	if used.Newest["one more"] = 1; used.validate() == nil {
		t.Error("too many products")
	}
}
