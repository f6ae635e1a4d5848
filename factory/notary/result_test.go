package notary

import (
	"slices"
	"testing"
	"time"

	"gprovision/factory/store"
	"gprovision/model/erasure"
	"gprovision/model/erasure/erasuretest"
)

// TestResults: what is counted of the drives of a certificate, by what it says of their methods.
func TestResults(t *testing.T) {
	formats := func(d *erasure.Drive) *erasure.NVMeFormatWord { return d.Evidence.Word.NVMeFormat }
	left := erasure.Places{Constant: 4000, Unchanged: 1000}
	for name, c := range map[string]struct {
		change func(*erasure.Certificate, *erasure.Drive)
		first  string
		second string
	}{
		"proved": {func(*erasure.Certificate, *erasure.Drive) {}, store.MethodRefused, store.MethodProved},
		"weaker": {func(_ *erasure.Certificate, d *erasure.Drive) { d.Evidence.Hidden = 1 }, store.MethodRefused, store.MethodWeaker},
		"data is left": {func(_ *erasure.Certificate, d *erasure.Drive) { d.Evidence.Samples.Random = left },
			store.MethodRefused, store.MethodLied},
		"it said that it failed, and data is left": {func(_ *erasure.Certificate, d *erasure.Drive) {
			d.Evidence.Samples.Random, formats(d).Formats[0].Status = left, 0x10a
		}, store.MethodRefused, store.MethodNotEnough},
		"it did not say that it is done, and data is left": {func(_ *erasure.Certificate, d *erasure.Drive) {
			d.Evidence.Samples.Random, formats(d).Namespaces = left, 2
		}, store.MethodRefused, store.MethodNotEnough},
		"the first was taken": {func(_ *erasure.Certificate, d *erasure.Drive) { d.Commands[0].Status = "good" },
			store.MethodNotEnough, store.MethodProved},
		"the policy demands more": {func(c *erasure.Certificate, _ *erasure.Drive) { c.Require = erasure.Purge },
			store.MethodRefused, store.MethodProved},
	} {
		cert := erasuretest.Proved("S1", 1)
		c.change(&cert, &cert.Drives[0])
		drive := store.DriveResult{Model: "ACME <b>9</b>", Firmware: "FW-1", Bus: "nvme"}
		first, second := drive, drive
		first.Method, first.Result, first.Seconds = string(erasure.NVMeFormatCrypto), c.first, 30
		second.Method, second.Result, second.Seconds = string(erasure.NVMeFormatUser), c.second, 90
		if got, want := results(cert.Judged()), []store.DriveResult{first, second}; !slices.Equal(got, want) {
			t.Errorf("%s: %+v\nwant %+v", name, got, want)
		}
	}
	backwards := erasuretest.Proved("S1", 1)
	backwards.Drives[0].Commands[1].Started = backwards.Started.Add(-time.Hour)
	if got := results(backwards); got[0].Seconds != 0 {
		t.Errorf("a clock that went back: %+v", got)
	}
}
