// Command gprov-unit is the small command inside a unit's running system: it shows what the unit is, marks a boot as good,
// asks for a restore and keeps what a restore needs.
package main

import (
	"os"

	"gprovision/cli/unitcmd"
	"gprovision/site"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(unitcmd.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, site.Stock(), version))
}
