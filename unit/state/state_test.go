package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/model/layout"
)

func sampleTable() layout.Table {
	return layout.Table{Kind: layout.GPT, UUID: "11111111-2222-4333-8444-555555555555", Partitions: []layout.Partition{
		{Role: layout.ESP, Number: 1, Start: 1 << 20, Size: 512 << 20, Type: layout.TypeESP, UUID: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", Name: "ESP", FSUUID: "12AB-34CD", FSLabel: "ESP"},
		{Role: layout.Recovery, Number: 2, Start: 513 << 20, Size: 2 << 30, Type: layout.TypeLinux, UUID: "aaaaaaaa-bbbb-4ccc-8ddd-ffffffffffff", Name: "RECOVERY", FSUUID: "99999999-2222-4333-8444-555555555555", FSLabel: "RECOVERY"},
	}}
}

func sampleUnit() Unit {
	mbr := layout.Table{Kind: layout.MBR, UUID: "deadbeef", Partitions: []layout.Partition{
		{Role: layout.Primary, Number: 1, Start: 1 << 20, Size: 4 << 30, Type: layout.TypeMBRLinux, UUID: "deadbeef-01", Active: true, FSUUID: "99999999-2222-4333-8444-555555555556", FSLabel: "PRIMARY"},
	}}
	return Unit{Version: Version, Serial: "SN-0001", Platform: "VIRT", Firmware: layout.UEFI, ManifestSerial: "7", Server: "https://10.0.0.1:8443",
		ImagePrefix: "WIDGET.LNX.SHINY.", Original: "WIDGET.LNX.SHINY.2026-11-22.0001.upd",
		Created:  time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
		Recovery: Disk{Size: 3 << 30, SectorSize: 512, Bus: "virtio", Model: "", Serial: "rec", Table: sampleTable()},
		Main:     []Disk{{Size: 8 << 30, SectorSize: 512, Bus: "nvme", Model: "QEMU NVMe Ctrl", Serial: "main", Table: mbr}}}
}

func TestRoundTrip(t *testing.T) {
	v := Open(t.TempDir())
	u := sampleUnit()
	req, err := NewRequest(KindRestore, "", "provision", time.Date(2026, 11, 22, 10, 0, 0, 5, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	counts := Counts{Version: Version}.Attempted(false).Attempted(true).Repaired().RestoreFailed()
	key := NewKey()
	hash := "$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"

	if c, err := v.ReadCounts(); err != nil || c.BootAttempts != 0 {
		t.Errorf("counts of an empty volume: %+v, %v", c, err)
	}
	for name, read := range map[string]func() error{
		"unit": func() error { _, err := v.ReadUnit(); return err }, "request": func() error { _, err := v.ReadRequest(); return err },
		"key": func() error { _, err := v.ReadKey(); return err }, "hash": func() error { _, err := v.ReadHash(); return err },
		"history": func() error { _, err := v.ReadHistory(); return err },
	} {
		if err := read(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of an empty volume: %v, want ErrNotExist", name, err)
		}
	}
	for i := 0; i < 2; i++ { // the second time replaces
		for _, err := range []error{v.WriteUnit(u), v.WriteRequest(req), v.WriteCounts(counts), v.WriteKey(key), v.WriteHash(hash), v.WriteHistory([]byte("{}"))} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := v.ReadUnit(); err != nil || !reflect.DeepEqual(got, u) {
		t.Errorf("unit: %+v, %v", got, err)
	}
	if got, err := v.ReadRequest(); err != nil || got != req {
		t.Errorf("request: %+v, %v, want %+v", got, err, req)
	}
	if got, err := v.ReadCounts(); err != nil || got != counts {
		t.Errorf("counts: %+v, %v", got, err)
	}
	if got, err := v.ReadKey(); err != nil || !got.Equal(key) {
		t.Errorf("key: %v", err)
	}
	if got, err := v.ReadHash(); err != nil || got != hash {
		t.Errorf("hash: %q, %v", got, err)
	}
	if got, err := v.ReadHistory(); err != nil || string(got) != "{}" {
		t.Errorf("history: %q, %v", got, err)
	}
	for name, want := range map[string]fs.FileMode{KeyFile: 0o600, HashFile: 0o600, Dir: 0o700 | fs.ModeDir} {
		if st, err := os.Lstat(v.Path(name)); err != nil || st.Mode() != want {
			t.Errorf("mode of %s: %v, %v, want %v", name, st.Mode(), err, want)
		}
	}
	left, _ := filepath.Glob(v.Path(Dir, ".*"))
	if len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	for i := 0; i < 2; i++ {
		if err := v.DeleteRequest(); err != nil {
			t.Error(err)
		}
	}
	if _, err := v.ReadRequest(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("request after deletion: %v", err)
	}
	g := counts.Good(time.Now())
	if g.BootAttempts != 0 || g.Repairs != 0 || g.LastGood.IsZero() {
		t.Errorf("good: %+v", g)
	}
}

func TestParseRefuses(t *testing.T) {
	good, _ := json.Marshal(sampleUnit())
	change := func(f func(*Unit)) []byte {
		u := sampleUnit()
		f(&u)
		b, _ := json.Marshal(u)
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"good":            {good, nil},
		"unknown keys":    {bytes.Replace(good, []byte(`{`), []byte(`{"future":[1],`), 1), nil},
		"empty":           {nil, ErrDamaged},
		"cut":             {good[:len(good)/2], ErrDamaged},
		"two":             {append(append([]byte{}, good...), good...), ErrDamaged},
		"no version":      {change(func(u *Unit) { u.Version = 0 }), ErrDamaged},
		"newer":           {change(func(u *Unit) { u.Version = Version + 1 }), ErrNewer},
		"newer, odd type": {[]byte(`{"version":99,"serial":{}}`), ErrNewer},
		"null":            {[]byte(`null`), ErrDamaged},
		"array":           {[]byte(`[]`), ErrDamaged},
		"no serial":       {change(func(u *Unit) { u.Serial = "" }), ErrDamaged},
		"newline":         {change(func(u *Unit) { u.Serial = "a\nb" }), ErrDamaged},
		"escape":          {change(func(u *Unit) { u.Platform = "\x1b[2J" }), ErrDamaged},
		"no main":         {change(func(u *Unit) { u.Main = nil }), ErrDamaged},
		"firmware":        {change(func(u *Unit) { u.Firmware = "uboot" }), ErrDamaged},
		"prefix":          {change(func(u *Unit) { u.ImagePrefix = "../" }), ErrDamaged},
		"original":        {change(func(u *Unit) { u.Original = "../x.upd" }), ErrDamaged},
		"uuid": {change(func(u *Unit) {
			u.Recovery.Table.Partitions[1].UUID = "aaaaaaaa-bbbb-4ccc-8ddd-ffffffffffff init=/bin/sh"
		}), ErrDamaged},
		"fsuuid":     {change(func(u *Unit) { u.Main[0].Table.Partitions[0].FSUUID = "x" }), ErrDamaged},
		"two alike":  {change(func(u *Unit) { u.Recovery.Table.Partitions[1].Number = 1 }), ErrDamaged},
		"no size":    {change(func(u *Unit) { u.Recovery.Table.Partitions[1].Size = 0 }), ErrDamaged},
		"overflow":   {change(func(u *Unit) { u.Recovery.Table.Partitions[1].Start = 1<<63 - 1 }), ErrDamaged},
		"table kind": {change(func(u *Unit) { u.Main[0].Table.Kind = "apm" }), ErrDamaged},
		"no kind":    {change(func(u *Unit) { u.Main[0].Table.Kind = "" }), ErrDamaged},
	} {
		if _, err := ParseUnit(c.b); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, s := range []string{
		`{"version":1,"id":"zz","kind":"restore"}`, `{"version":1,"id":"0123456789abcdef","kind":"format"}`,
		`{"version":1,"id":"0123456789abcdef","kind":"restore","image":"/etc/passwd"}`,
		`{"version":1,"id":"0123456789abcdef","kind":"restore","image":"a\nb.upd"}`,
	} {
		if _, err := ParseRequest([]byte(s)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, err := ParseCounts([]byte(`{"version":1,"bootAttempts":-1}`)); !errors.Is(err, ErrDamaged) {
		t.Errorf("negative count: %v", err)
	}
}

func TestHashIsNeverAPassword(t *testing.T) {
	v := Open(t.TempDir())
	for _, s := range []string{"", "hunter2", "$2b$", "$6$a:b$xxxxxxxxxxxxxxxx", "$6$abc$xxxxxxxxxxxxx\nroot::0:0"} {
		err := v.WriteHash(s)
		if err == nil {
			t.Errorf("%q was written", s)
		} else if s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("the error quotes what may be a password: %v", err)
		}
	}
}

// TestHostileVolume: a malicious volume must not lead out of itself, block the reader, or fill its memory.
func TestHostileVolume(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "request.json")
	r, _ := NewRequest(KindRestore, "", "x", time.Now())
	b, _ := json.Marshal(r)
	if err := os.WriteFile(secret, b, 0o644); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, Dir)); err != nil {
		t.Fatal(err)
	}
	v := Open(dir)
	if _, err := v.ReadRequest(); err == nil {
		t.Error("read through a link that leaves the volume")
	}
	if err := v.WriteCounts(Counts{}); err == nil {
		t.Error("wrote through a link that leaves the volume")
	}
	if err := v.DeleteRequest(); err == nil {
		t.Error("removed through a link that leaves the volume")
	}
	if _, err := os.Stat(secret); err != nil {
		t.Error(err)
	}

	dir = t.TempDir()
	v = Open(dir)
	os.Mkdir(filepath.Join(dir, Dir), 0o755)
	if err := syscall.Mkfifo(v.Path(RequestFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadRequest(); !errors.Is(err, ErrDamaged) {
		t.Errorf("FIFO: %v", err)
	}
	if err := v.WriteRequest(r); err != nil {
		t.Errorf("replace a FIFO: %v", err)
	}
	if err := os.Truncate(v.Path(RequestFile), 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadRequest(); !errors.Is(err, ErrDamaged) {
		t.Errorf("1 TiB: %v", err)
	}
	os.Remove(v.Path(RequestFile))
	os.Symlink(secret, v.Path(RequestFile))
	if _, err := v.ReadRequest(); err == nil {
		t.Error("read through a link")
	}
	if err := v.WriteRequest(r); err != nil {
		t.Errorf("replace a link: %v", err)
	}
	if st, err := os.Lstat(v.Path(RequestFile)); err != nil || !st.Mode().IsRegular() {
		t.Errorf("after replacing a link: %v, %v", st, err)
	}
	// A stale temporary file from a power cut does no harm.
	os.WriteFile(v.Path(Dir, ".count.json.new"), []byte("half"), 0o600)
	if err := v.WriteCounts(Counts{BootAttempts: 2}); err != nil {
		t.Error(err)
	}
}

func TestMark(t *testing.T) {
	m := Mark{Version: Version, Release: "WIDGET.LNX.SHINY.2026-11-22.0001", Request: "0123456789abcdef", Serial: "x", Time: time.Unix(1e9, 0).UTC()}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseMark(b); err != nil || got != m {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := ParseMark([]byte("\n")); err != nil || got.Version != 0 {
		t.Errorf("empty mark: %+v, %v", got, err)
	}
	for _, s := range []string{"x", "{}", `{"version":1,"request":"../../etc"}`, `{"version":2}`} {
		if _, err := ParseMark([]byte(s)); err == nil {
			t.Errorf("%s was accepted", s)
		}
	}
	boot := Boot{Version: Version, ID: "1f2e", Job: "boot", Reason: "the main system is complete", Attempts: 1, Defects: []string{"G225: the array lacks a disk"}}
	if b, err = boot.Marshal(); err != nil {
		t.Fatal(err)
	}
	if got, err := ParseBoot(b); err != nil || !reflect.DeepEqual(got, boot) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestBootDefects: a defect that does not fit on one line is refused, and so are too many.
func TestBootDefects(t *testing.T) {
	for _, d := range [][]string{{"a\nb"}, {strings.Repeat("x", 257)}, make([]string, 17)} {
		if _, err := (Boot{Defects: d}).Marshal(); err == nil {
			t.Errorf("%.40q is accepted", d)
		}
	}
}

// TestSetRequestAside: a damaged request is kept once and cut, no matter what is in its place or in that of the
// previous one.
func TestSetRequestAside(t *testing.T) {
	v := Open(t.TempDir())
	if err := v.SetRequestAside(); err != nil {
		t.Errorf("without a request: %v", err)
	}
	if err := os.Mkdir(v.Path(Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		put  func(name string) error
		size int64 // size of the kept file, -1: none
	}{
		{func(n string) error { return os.WriteFile(n, []byte("{damaged"), 0o600) }, 8},
		{func(n string) error { return os.WriteFile(n, make([]byte, 100<<10), 0o600) }, maxSmall},
		{func(n string) error { return os.MkdirAll(filepath.Join(n, "x"), 0o700) }, -1},
		{func(n string) error { return syscall.Mkfifo(n, 0o600) }, -1},
		{func(n string) error { return os.Symlink("/etc/passwd", n) }, -1},
		{func(n string) error { return os.WriteFile(n, nil, 0o600) }, 0},
	} {
		if err := c.put(v.Path(RequestFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := v.ReadRequest(); err == nil {
			t.Fatalf("%d: a damaged request is read", i)
		}
		if err := v.SetRequestAside(); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if _, err := os.Lstat(v.Path(RequestFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d: the request is there yet: %v", i, err)
		}
		st, err := os.Lstat(v.Path(BadRequestFile))
		if err != nil || st.Mode().IsRegular() != (c.size >= 0) || c.size >= 0 && st.Size() != c.size {
			t.Errorf("%d: kept is %v, %v", i, st, err)
		}
	}
	if all, err := os.ReadDir(v.Path(Dir)); err != nil || len(all) != 1 {
		t.Errorf("%v are kept, %v", all, err)
	}
}

// FuzzParse feeds every parser. None may panic. What a parser accepts must survive writing and reading unchanged.
func FuzzParse(f *testing.F) {
	u, _ := json.Marshal(sampleUnit())
	r, _ := NewRequest(KindRestore, Original, "fuzz", time.Unix(0, 0))
	rb, _ := json.Marshal(r)
	m, _ := Mark{Release: "a"}.Marshal()
	for _, b := range [][]byte{u, rb, m, []byte(`{"version":1,"bootAttempts":3}`), []byte(`{"version":1,"hash":"$6$abc$defghijkl"}`),
		[]byte(`{"version":1,"seed":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`), []byte(`{"version":2}`), []byte(``), []byte(`{"version":1,"created":"x"}`)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if u, err := ParseUnit(b); err == nil {
			out, err := json.Marshal(u)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ParseUnit(out); err != nil {
				t.Fatalf("own output: %v", err)
			}
		}
		if m, err := ParseMark(b); err == nil {
			if _, err := m.Marshal(); err != nil {
				t.Fatal(err)
			}
		}
		ParseRequest(b)
		ParseCounts(b)
		ParseBoot(b)
		parseHash(b)
		parseKey(b)
		parse[Pending](PendingFile, b)
	})
}
