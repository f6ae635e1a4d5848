package handover

import (
	"io/fs"
	"testing"
	"testing/fstest"
)

// TestTakesOver: which systems keep a watchdog that runs.
func TestTakesOver(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, tc := range map[string]struct {
		files fstest.MapFS
		want  bool
	}{
		"nothing":       {fstest.MapFS{}, false},
		"commented out": {fstest.MapFS{"etc/systemd/system.conf": file("[Manager]\n#RuntimeWatchdogSec=30\n")}, false},
		"set":           {fstest.MapFS{"etc/systemd/system.conf": file("[Manager]\nRuntimeWatchdogSec = 30\n")}, true},
		"set and off": {fstest.MapFS{"etc/systemd/system.conf": file("RuntimeWatchdogSec=30\n"),
			"etc/systemd/system.conf.d/z.conf": file("RuntimeWatchdogSec=off\n")}, false},
		"hidden": {fstest.MapFS{"usr/lib/systemd/system.conf.d/w.conf": file("RuntimeWatchdogSec=30\n"),
			"etc/systemd/system.conf.d/w.conf": file("")}, false},
		"in usr/lib": {fstest.MapFS{"usr/lib/systemd/system.conf.d/w.conf": file("RuntimeWatchdogSec=1min\n")}, true},
		"boot-ok":    {fstest.MapFS{bootOK: {Mode: fs.ModeSymlink, Data: []byte("/usr/lib/systemd/system/gprov-boot-ok.service")}}, true},
	} {
		if got := takesOver(tc.files); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
