package survey

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"gprovision/hw/efi"
	"gprovision/hw/usb"
	"gprovision/model/layout"
	"gprovision/unit/decide"
	"gprovision/unit/medium"
	"gprovision/unit/state"
)

// TestJudgeMedia puts media through all their states, over several boots.
func TestJudgeMedia(t *testing.T) {
	const a, b = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	plugged := func(ids ...string) []medium.Medium {
		m := medium.Medium{Path: "/dev/sda1"}
		for _, id := range ids {
			m.Files = append(m.Files, medium.File{Base: id, ID: id})
		}
		return []medium.Medium{m}
	}
	for name, c := range map[string]struct {
		media    []medium.Medium
		facts    decide.Facts
		last     state.Medium
		answered map[string]string
		want     decide.MediumState
		offer    string
	}{
		"none":                     {want: decide.NoMedium},
		"nothing that can be used": {media: plugged(), want: decide.MediumUnusable},
		"fresh":                    {media: plugged(a), want: decide.MediumOffered, offer: a},
		"left in, by the mark": {media: plugged(a), facts: decide.Facts{Main: decide.MainMarked, Fulfilled: a},
			want: decide.MediumDone, offer: a},
		"left in, by the record": {media: plugged(a), last: state.Medium{ID: a}, want: decide.MediumDone, offer: a},
		"taken out and back": {media: plugged(a), facts: decide.Facts{Main: decide.MainMarked, Fulfilled: a},
			last: state.Medium{ID: a, Removed: true}, want: decide.MediumOffered, offer: a},
		"another one beside the first": {media: plugged(a, b), facts: decide.Facts{Main: decide.MainMarked, Fulfilled: a},
			want: decide.MediumOffered, offer: b},
		"cut off": {media: plugged(b, a), facts: decide.Facts{Recovery: decide.RecoveryFound,
			Main: decide.MainUnmarked, Request: &state.Request{ID: a}}, want: decide.MediumConfirmed, offer: a},
		"refused in this boot": {media: plugged(a), answered: map[string]string{a: "no"}, want: decide.MediumDone, offer: a},
		"a request of something else": {media: plugged(a), facts: decide.Facts{Recovery: decide.RecoveryFound, Main: decide.MainUnmarked,
			Request: &state.Request{ID: b}}, want: decide.MediumOffered, offer: a},
		"refused, and the next one is not": {media: plugged(a, b), answered: map[string]string{a: "no"}, want: decide.MediumOffered, offer: b},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := virtual(t)
			s.Memory.Answered = c.answered
			f := &Findings{Facts: c.facts, MediaFindings: MediaFindings{Media: c.media, LastMedium: c.last}}
			s.judgeMedia(f)
			if f.Medium != c.want || (f.Offer == nil) != (c.offer == "") || f.OfferFile.ID != c.offer {
				t.Errorf("%q and %q, want %q and %q; notes %v", f.Medium, f.OfferFile.ID, c.want, c.offer, f.Notes)
			}
		})
	}
}

func TestStartedFrom(t *testing.T) {
	dir := t.TempDir()
	s, m := virtual(t)
	m.Vars, m.Firmware, s.Args = efi.New(dir), layout.BIOS, decide.ParseArgs("console=ttyS0 gprov.stick=ABCD", true)
	if got := s.startedFrom(&Findings{}); got != "abcd" {
		t.Errorf("on BIOS: %q", got)
	}
	m.Firmware = layout.UEFI
	if got := s.startedFrom(&Findings{}); got != "" {
		t.Errorf("without a stub: %q", got)
	}
	b := make([]byte, 4)
	for _, c := range "8B9D0E0A-3D2B-4E51-9A51-0C3A6C1F2E11\x00" {
		b = binary.LittleEndian.AppendUint16(b, uint16(c))
	}
	if err := os.WriteFile(filepath.Join(dir, "LoaderDevicePartUUID-"+efi.Loader), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.startedFrom(&Findings{}); got != "8b9d0e0a-3d2b-4e51-9a51-0c3a6c1f2e11" {
		t.Errorf("on UEFI: %q", got)
	}
}

// TestMediaPatience: a boot waits for the medium it came from, and for whatever the USB ports report to be coming. It
// waits for nothing else.
func TestMediaPatience(t *testing.T) {
	const usbDir = "bus/usb/devices/"
	looked := fstest.MapFS{usbDir + "1-2:1.0/bInterfaceClass": {Data: []byte("08\n")}, usbDir + "1-2:1.0/driver/x": {}}
	ready := fstest.MapFS{usbDir + "1-2:1.0/host4/target4:0:0/4:0:0:0/type": {Data: []byte("0\n")},
		usbDir + "1-2:1.0/host4/target4:0:0/4:0:0:0/block/sda/size": {}}
	silent := fstest.MapFS{usbDir + "usb1/busnum": {Data: []byte("1\n")}, usbDir + "usb1/devnum": {Data: []byte("1\n")},
		usbDir + "usb1/1-0:1.0/usb1-port1/state": {Data: []byte("default\n")}}
	for name, file := range looked {
		ready[name] = file
	}
	for name, c := range map[string]struct {
		sys   fstest.MapFS
		found MediaFindings
		want  time.Duration
	}{
		"no USB":                     {fstest.MapFS{}, MediaFindings{}, 0},
		"the stick that started it":  {fstest.MapFS{}, MediaFindings{OriginMissing: true}, usbExpected},
		"it, and another medium":     {fstest.MapFS{}, MediaFindings{OriginMissing: true, Offer: &medium.Medium{}}, usbExpected},
		"ports with nothing on them": {fstest.MapFS{usbDir + "usb1/speed": {Data: []byte("480\n")}}, MediaFindings{}, 0},
		"a stick that is looked at":  {looked, MediaFindings{}, usbStorage + time.Second},
		"a port that is busy":        {silent, MediaFindings{}, usbPending + time.Second},
		"the same, and one is there": {looked, MediaFindings{Offer: &medium.Medium{}}, 0},
		"a stick":                    {ready, MediaFindings{}, 0},
	} {
		w, f := &Wait{}, &Findings{MediaFindings: c.found}
		ports := usb.Read(c.sys, usb.Machine("/dev"))
		for _, waited := range []time.Duration{time.Second, 20 * time.Second} { // no matter how late it is
			if got := w.mediaPatience(f, ports, waited); got != c.want {
				t.Errorf("%s, after %s: %v, want %v", name, waited, got, c.want)
			}
		}
		if len(w.Silent) > 0 {
			t.Errorf("%s: said to be silent while it is waited for", name)
		}
		if c.want > usbExpected { // it never comes
			if got := w.mediaPatience(f, ports, c.want); got != c.want {
				t.Errorf("%s, at the end: %v, want %v", name, got, c.want)
			}
			if len(w.Silent) == 0 {
				t.Errorf("%s: nobody can be told that it does not answer", name)
			}
		}
	}
}
