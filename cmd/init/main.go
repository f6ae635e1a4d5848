// Command init is PID 1 of every boot of a unit.
package main

import (
	"gprovision/model/revision"
	"gprovision/site"
	"gprovision/unit/pid1"
)

// version is set by the linker; what it does not say, Go knows.
var version = "unknown"

func main() {
	pid1.Run(site.Stock(), revision.Of(version))
}
