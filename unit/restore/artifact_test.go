package restore

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gprovision/hw/filesystem"
	"gprovision/model/release"
	"gprovision/unit/machine"
)

func TestRecoveryWins(t *testing.T) {
	uki := func(n uint64) machine.Artifact { return machine.Artifact{Build: n} }
	mono := func(n uint64) machine.Artifact { return machine.Artifact{Build: n, Monolithic: true} }
	for _, c := range []struct {
		name            string
		fresh, recovery machine.Artifact
		asked, want     bool
	}{
		{"higher", mono(7), mono(8), false, true},
		{"lower", mono(8), mono(7), false, false},
		{"equal", mono(7), mono(7), false, false},
		{"lower, asked for", mono(8), mono(7), true, true},
		{"the release has modules", uki(7), mono(8), false, false},
		{"the release has modules, asked for", uki(7), mono(8), true, false},
		{"the recovery artifact has modules", mono(7), uki(8), false, false},
		{"both have modules", uki(7), uki(8), true, false},
	} {
		if got := recoveryWins(c.fresh, c.recovery, c.asked); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestLimit unpacks an image with more inside than its imgmeta.json says, as a restore does.
func TestLimit(t *testing.T) {
	for _, c := range []struct {
		name, meta string
		bad        bool
	}{
		{"as it says", `{"version":1,"name":"` + prefix + `2026-11-01.0001","build":1,"bytes":4000000}`, false},
		{"more than it says", `{"version":1,"name":"` + prefix + `2026-11-01.0001","build":1,"bytes":1}`, true},
		{"less than nothing", `{"version":1,"name":"` + prefix + `2026-11-01.0001","build":1,"bytes":-9}`, true},
		{"the original's", `{"BinVer":"1"}`, false},
		{"none", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			name, err := release.ParseName(prefix+"2026-11-01.0001.upd", prefix)
			if err != nil {
				t.Fatal(err)
			}
			plain := archive(t, c.meta)
			file := filepath.Join(t.TempDir(), name.String())
			b := xz(t, append(plain[:len(plain)-1024:len(plain)-1024], archive(t, strings.Repeat(" ", 1<<21))...))
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			most, err := limit(t.Context(), f, Image{Path: file, Name: name, Size: int64(len(b))})
			if err != nil {
				t.Fatal(err)
			}
			r, err := release.NewReader(context.Background(), f, int64(len(b)), 1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err = filesystem.Unpack(t.Context(), t.TempDir(), r, filesystem.UnpackOptions{MaxBytes: most}); (err != nil) != c.bad {
				t.Errorf("limit %d: %v", most, err)
			}
		})
	}
}
