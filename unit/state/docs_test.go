package state

import (
	"os"
	"strings"
	"testing"
)

// The examples of the format's page are what the parsers accept.
func TestExamplesOfTheDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/formats/recovery-volume.md")
	if err != nil {
		t.Fatal(err)
	}
	parsers := map[string]func([]byte) error{
		"unit":        func(b []byte) error { _, err := ParseUnit(b); return err },
		"request":     func(b []byte) error { _, err := ParseRequest(b); return err },
		"counts":      func(b []byte) error { _, err := ParseCounts(b); return err },
		"restoredata": func(b []byte) error { _, err := ParseRestoreData(b); return err },
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
	for arg := range allowedArgs {
		if !strings.Contains(string(b), "`"+arg+"`") {
			t.Errorf("the kernel argument %s is not among those of BootArgs", arg)
		}
	}
}
