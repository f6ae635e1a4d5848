package durable_test

import (
	"os"
	"path/filepath"

	"gprovision/hw/durable"
)

// A program replaces its settings: after a power cut there are the old ones or the new ones.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	if err := durable.Write(filepath.Join(dir, "settings"), []byte("brightness=7\n"), 0o644); err != nil {
		return
	}
	b, err := os.ReadFile(filepath.Join(dir, "settings"))
	if err != nil {
		return
	}
	os.Stdout.Write(b)
	// Output: brightness=7
}
