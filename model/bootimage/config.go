package bootimage

import (
	"encoding/json"
	"fmt"
	"time"
)

// Where an artifact's own files lie inside its initramfs. forge/boot writes them, init reads them below its root.
const (
	BuildPath     = "etc/gprovision/build.json"     // a Build
	PolicyPath    = "etc/gprovision/policy.json"    // see model/policy
	NamesPath     = "etc/gprovision/names.json"     // see model/naming; not in each artifact
	PlatformsPath = "etc/gprovision/platforms.json" // the appliance table, see model/platform; not in each artifact
	GRUBBootPath  = "usr/lib/gprov/grub/boot.img"   // goes into the master boot record; not in each artifact
	GRUBCorePath  = "usr/lib/gprov/grub/core.img"   // goes behind it, or into the BIOS boot partition
)

// Build is what an artifact says of itself.
type Build struct {
	// Number is the build number.
	Number uint64 `json:"build"`
	// Time is the build's time.
	Time time.Time `json:"time"`
	// Kernel is the kernel's release.
	Kernel string `json:"kernel"`
	// Gprovision is the revision of gprovision that the init program is of; empty in artifacts that were built before this was noted.
	Gprovision string `json:"gprovision,omitempty"`
	// Tools are the files of others inside, without kernel modules.
	Tools []Tool `json:"tools"`
}

// Tool is a file of others inside an artifact.
type Tool struct {
	// Name is the last part of Path.
	Name string `json:"name"`
	// Path is where the file came from in the root filesystem or the tools, with a leading slash; for a file that was added,
	// its place in the initramfs.
	Path string `json:"path"`
	// Package is the Debian package that has the file; empty if dpkg knows none.
	Package string `json:"package,omitempty"`
	// Version is that of the package, else the one that the file itself holds; empty if none was found.
	Version string `json:"version,omitempty"`
	// SHA256 is that of the file, hexadecimal.
	SHA256 string `json:"sha256"`
}

// ParseBuild parses the file at BuildPath.
func ParseBuild(b []byte) (out Build, err error) {
	if err := json.Unmarshal(b, &out); err != nil {
		return Build{}, fmt.Errorf("parse %s: %w", BuildPath, err)
	}
	return out, nil
}
