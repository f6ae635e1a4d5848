// Command init is PID 1 of every boot of a unit.
package main

import (
	"gprovision/site"
	"gprovision/unit/pid1"
)

// version is set by the linker.
var version = "unknown"

func main() {
	pid1.Run(site.Stock(), version)
}
