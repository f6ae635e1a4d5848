// Command gprov-unit is the small command inside a unit's running system: it shows what the unit is, marks a boot as good,
// asks for a restore and keeps what a restore needs.
package main

import (
	"os"

	"gprovision/cli/unitcmd"
	"gprovision/model/revision"
	"gprovision/site"
)

// version is set by the linker; what it does not say, Go knows.
var version = "unknown"

func main() {
	os.Exit(unitcmd.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, site.Stock(), revision.Of(version)))
}
