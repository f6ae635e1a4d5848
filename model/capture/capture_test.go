package capture

import (
	"bytes"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

func TestRoundTrip(t *testing.T) {
	in := []Entry{
		{Name: "sys/class/net/eth0", Link: "../../devices/pci0000:00/net/eth0"},
		{Name: "sys/devices/empty", Data: []byte{}},
		{Name: "sys/devices/pci0000:00/net/eth0/address", Data: []byte("52:54:00:00:00:01\n")},
		{Name: "sys/firmware/dmi/tables/DMI", Data: bytes.Repeat([]byte{0, 1, 2, 255}, 60)},
		{Name: "sys/no newline", Data: []byte("x")},
		{Name: "sys/tricky", Data: []byte("a\n-- b --\nc\n")},
	}
	b, err := Format("a machine\n-- not a file --\n", in)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(b), "gprov capture 1\na machine\n") || !strings.Contains(string(b), "\n-- link:sys/class/net/eth0 --\n") || !strings.Contains(string(b), "\n-- base64:sys/no newline --\neA==\n") {
		t.Errorf("%s", b)
	}
	comment, out, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range out {
		if len(out[i].Data) == 0 && out[i].Link == "" {
			out[i].Data = []byte{}
		}
	}
	if !reflect.DeepEqual(in, out) || !strings.HasPrefix(comment, "a machine\n") {
		t.Errorf("%q\ngot  %+v\nwant %+v", comment, out, in)
	}
	m := fstest.MapFS{}
	for _, e := range out {
		if e.Link != "" {
			m[e.Name] = &fstest.MapFile{Data: []byte(e.Link), Mode: fs.ModeSymlink | 0o777}
		} else {
			m[e.Name] = &fstest.MapFile{Data: e.Data}
		}
	}
	if got, err := fs.ReadFile(m, "sys/class/net/eth0/address"); err != nil || string(got) != "52:54:00:00:00:01\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	for _, e := range []Entry{{Name: "/abs"}, {Name: "a/../b"}, {Name: "."}, {Name: "link:x"}, {Name: "a", Link: "b\nc"}, {Name: "a\nb"}} {
		if _, err := Format("", []Entry{e}); err == nil {
			t.Errorf("written: %+v", e)
		}
	}
	for _, s := range []string{"", "x", "gprov capture 2\n", "gprov capture 1\n-- /a --\n", "gprov capture 1\n-- a --\n-- a --\n", "gprov capture 1\n-- base64:a --\n*\n", "gprov capture 1\n-- link:a --\n", "gprov capture 1\n-- a --\n-- a/b --\n"} {
		if _, _, err := Parse([]byte(s)); err == nil {
			t.Errorf("read: %q", s)
		}
	}
}

// TestTake: credentials that a virtual machine gets by SMBIOS are not in a capture, which keeps the length of the tables; what is too large
// is said; wireless ports stay wireless.
func TestTake(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	sys := fstest.MapFS{
		"firmware/dmi/tables/DMI":                       file("\x0b\x05\x00\x00\x02io.systemd.credential.binary:key=c2VjcmV0\x00one=1\x00\x00"),
		"class/dmi/id/sys_vendor":                       file(strings.Repeat("x", largest+1)),
		"devices/platform/ipmi_bmc.0/firmware_revision": file("1.71\n"),
		"class/net/wlan0":                               {Data: []byte("../../devices/net/wlan0"), Mode: fs.ModeSymlink | 0o777},
		"devices/net/wlan0/type":                        file("1\n"),
		"devices/net/wlan0/phy80211/name":               file("phy0\n"),
		"devices/net/wlan0/statistics/rx_bytes":         file("1\n"),
	}
	b, missed, err := Take(sys, fstest.MapFS{}, "me")
	if err != nil || len(missed) != 1 || missed[0] != "/sys/class/dmi/id/sys_vendor" {
		t.Errorf("%v, %q", err, missed)
	}
	if !strings.HasPrefix(string(b), "gprov capture 1\ncaptured by me\nIt has ") {
		t.Errorf("%.100s", b)
	}
	_, entries, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		got[e.Name] = string(e.Data) + e.Link
	}
	want := map[string]string{
		"sys/firmware/dmi/tables/DMI":                       "\x0b\x05\x00\x00\x02io.systemd.credential.binary:key=xxxxxxxx\x00one=1\x00\x00",
		"sys/devices/platform/ipmi_bmc.0/firmware_revision": "1.71\n",
		"sys/class/net/wlan0":                               "../../devices/net/wlan0",
		"sys/devices/net/wlan0/type":                        "1\n",
		"sys/devices/net/wlan0/phy80211/present":            "\n",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("gprov capture 1\nx\n-- sys/a --\nb\n-- link:sys/c --\na\n-- base64:d --\neA==\n"))
	f.Add([]byte("gprov capture 1\n-- a --\r\nb\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, entries, err := Parse(b)
		if err != nil {
			return
		}
		out, err := Format("", entries)
		if err != nil {
			t.Fatal(err)
		}
		_, again, err := Parse(out)
		if err != nil || len(again) != len(entries) {
			t.Fatalf("%v: %d entries became %d\n%s", err, len(entries), len(again), out)
		}
	})
}
