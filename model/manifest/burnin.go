package manifest

import (
	"fmt"
	"slices"
	"strings"

	"gprovision/model/source"
)

// BurnIn says what each unit of one platform must stand before anything is written to it. What is missing is not done.
type BurnIn struct {
	DevCodeName string
	// ProcessorMinutes is how long every logical processor computes. 0: not at all.
	ProcessorMinutes int `json:",omitempty"`
	// MemoryMinutes is how long the free memory is written and read back; all of it at least once with each pattern. 0: not at all.
	MemoryMinutes int `json:",omitempty"`
	// Disks is what is done with the main disks: "read" reads them, "write" writes and reads back those that are blank. Empty: nothing.
	Disks string `json:",omitempty"`
	// DiskMinutes is how long that may take at most, for each disk. 0: as long as it takes.
	DiskMinutes int `json:",omitempty"`
	// DiskMBpsMin is how fast each of them must be on the whole, in megabytes a second. 0: not checked.
	DiskMBpsMin int `json:",omitempty"`
	// CelsiusMax limits what the sensors of processors and board say meanwhile, in degrees Celsius. 0: not checked.
	CelsiusMax int `json:",omitempty"`
	// DiskCelsiusMax limits the temperature of the main disks. 0: not checked.
	DiskCelsiusMax int `json:",omitempty"`
}

// MaxBurnIn is how long a part of a burn-in may take at most, in minutes: a week.
const MaxBurnIn = 7 * 24 * 60

// The values of BurnIn.Disks.
const (
	BurnRead  = "read"
	BurnWrite = "write"
)

func burnDisks() []string { return []string{"", BurnRead, BurnWrite} }

// Nothing reports whether nothing is asked for.
func (b BurnIn) Nothing() bool {
	return b.ProcessorMinutes == 0 && b.MemoryMinutes == 0 && b.Disks == ""
}

// BurnInFor returns what units of a platform must stand. It has no more than the platform's name if that is nothing.
func (m *Manifest) BurnInFor(code string) BurnIn {
	for _, b := range m.BurnIn {
		if b.DevCodeName == code {
			return b
		}
	}
	return BurnIn{DevCodeName: code}
}

// judge finds limits that every unit is within, or none, and what would be done for nothing.
func (b BurnIn) judge(at string, incomplete func(path, text, hint string)) {
	for _, n := range []struct {
		key        string
		have, most int
	}{
		{"ProcessorMinutes", b.ProcessorMinutes, MaxBurnIn}, {"MemoryMinutes", b.MemoryMinutes, MaxBurnIn},
		{"DiskMinutes", b.DiskMinutes, MaxBurnIn}, {"DiskMBpsMin", b.DiskMBpsMin, 100_000},
		{"CelsiusMax", b.CelsiusMax, 150}, {"DiskCelsiusMax", b.DiskCelsiusMax, 150},
	} {
		if n.have < 0 || n.have > n.most {
			incomplete(source.Under(at, n.key), fmt.Sprintf("%d is not within 0 to %d", n.have, n.most), "")
		}
	}
	switch {
	case !slices.Contains(burnDisks(), b.Disks):
		incomplete(source.Under(at, "Disks"), fmt.Sprintf("%q is not known", b.Disks), "write one of "+strings.Join(burnDisks()[1:], ", "))
	case b.Disks == "" && (b.DiskMinutes != 0 || b.DiskMBpsMin != 0):
		incomplete(source.Under(at, "Disks"), "the disks have limits, and nothing is done with them", `write "read" or "write"`)
	case b.Nothing():
		incomplete(at, "nothing is done", "write ProcessorMinutes, MemoryMinutes or Disks, or remove the entry")
	}
}
