package state

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/model/page"
	"gprovision/model/release"
)

// TestExamplesOfTheDocs: the parsers accept the examples on the format's page.
func TestExamplesOfTheDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/formats/recovery-volume.md")
	if err != nil {
		t.Fatal(err)
	}
	parsers := map[string]func([]byte) error{
		"unit":        func(b []byte) error { _, err := ParseUnit(b); return err },
		"request":     func(b []byte) error { _, err := ParseRequest(b); return err },
		"erase":       func(b []byte) error { _, err := parse[Erase](EraseFile, b); return err },
		"counts":      func(b []byte) error { _, err := ParseCounts(b); return err },
		"restoredata": func(b []byte) error { _, err := ParseRestoreData(b); return err },
		"boards":      func(b []byte) error { _, err := parse[Boards](BoardsFile, b); return err },
		"pending":     func(b []byte) error { _, err := parse[Pending](PendingFile, b); return err },
		"manifests":   func(b []byte) error { _, err := parse[Manifests](ManifestsFile, b); return err },
		"mark":        func(b []byte) error { _, err := ParseMark(b); return err },
		"boot":        func(b []byte) error { _, err := ParseBoot(b); return err },
	}
	for _, part := range strings.Split(string(b), "```json ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		text, _, _ := strings.Cut(rest, "```")
		parse := parsers[name]
		if parse == nil {
			t.Errorf("example %q has no parser, or is there twice", name)
			continue
		}
		if err := parse([]byte(text)); err != nil {
			t.Errorf("example %s: %v", name, err)
		}
		delete(parsers, name)
	}
	for name := range parsers {
		t.Errorf("there is no example of %s", name)
	}
}

// TestNumbersOfThePage: the format's page gives the right sizes of files, and the right limits of what the volume may
// set.
func TestNumbersOfThePage(t *testing.T) {
	docs := os.DirFS("../../docs")
	for says, ok := range map[string]bool{
		"at most 256 KiB (`unit.json`) or 16 KiB (the others)":                                       maxUnit == 256<<10 && maxSmall == 16<<10,
		"the last request that was damaged, its first 16 KiB":                                        maxSmall == 16<<10,
		"at most 4 MiB | restore, `gprov-unit boot-ok`, init":                                        release.MaxHistory == 4<<20,
		"A tar archive, at most 1 MiB and":                                                           MaxNetwork == 1<<20,
		"The file has 4096 bytes, filled up with spaces, and all that changes lies in the first 512": countsBlock(t),
	} {
		if !ok {
			t.Errorf("the page says %q, and it is not so", says)
		}
		if err := page.Says(docs, "formats/recovery-volume.md", says); err != nil {
			t.Error(err)
		}
	}

	// Compare the lists of kernel arguments in both directions.
	b, err := os.ReadFile("../../docs/formats/recovery-volume.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(b), "Of `BootArgs` only these are used, with values of the right form:")
	list, _, ok := strings.Cut(list, "None of them chooses")
	if !ok {
		t.Fatal("the page has no list of kernel arguments")
	}
	for { // values stand in brackets
		before, rest, found := strings.Cut(list, "(")
		_, after, closed := strings.Cut(rest, ")")
		if !found || !closed {
			break
		}
		list = before + after
	}
	var have []string
	for arg := range allowedArgs {
		have = append(have, arg)
	}
	said := page.Codes(list)
	slices.Sort(have)
	slices.Sort(said)
	if !slices.Equal(have, said) {
		t.Errorf("the page has %v,\nthe code %v", said, have)
	}
	for arg, good := range map[string]bool{"acpi=off": false, "acpi=force": true, "intel_iommu=on": true, "intel_iommu=off": false, "iommu=force": true, "iommu=off": false, "panic=0": false, "panic=10": true,
		"nmi_watchdog=1": true, "nmi_watchdog=0": false, "libata.force=disable": false, "libata.force=1:noncq": true, "pci=noaer,nocrs": true, "pci=nomsi": true, "pci=off": false} {
		if kept, _ := AllowedArgs(arg); (kept == arg) != good {
			t.Errorf("%s: kept %q", arg, kept)
		}
	}
}

// countsBlock reports whether counts are one block of 4096 bytes whose first 512 hold everything.
func countsBlock(t *testing.T) bool {
	t.Helper()
	v := Open(t.TempDir())
	if err := os.Mkdir(v.Path(Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	full := Counts{BootAttempts: 1_000_000, Repairs: 1_000_000, RecoveryRepairs: 1_000_000, WatchdogResets: 1_000_000, RestoreFailures: 1_000_000, Restores: 1_000_000, Mends: 1_000_000, LastGood: time.Now().UTC()}
	if err := v.WriteCounts(full); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(v.Path(CountsFile))
	if err != nil {
		t.Fatal(err)
	}
	return len(b) == 4096 && len(strings.TrimRight(string(b), " \n")) <= 512
}
