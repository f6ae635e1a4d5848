// Package revision says which revision of gprovision a program is: what the linker was told, else what Go wrote into it. It never guesses:
// a program that was built without either is Unknown.
package revision

import "runtime/debug"

// Unknown is the revision of a program that nobody knows.
const Unknown = "unknown"

// Of returns the revision of this program. linked is what the linker was told (-X main.version), Unknown or empty if nothing.
func Of(linked string) string {
	if linked != "" && linked != Unknown {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return FromBuildInfo(info)
	}
	return Unknown
}

// FromBuildInfo returns the revision that Go wrote into a program: that of the version control, else the module's version.
func FromBuildInfo(info *debug.BuildInfo) string {
	set := map[string]string{}
	for _, s := range info.Settings {
		set[s.Key] = s.Value
	}
	if r := set["vcs.revision"]; r != "" {
		r = r[:min(len(r), 12)]
		if set["vcs.modified"] == "true" {
			r += "-dirty"
		}
		return r
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return Unknown
}
