// Command gprov is for operators and builders: images, boot artifacts, manifests, the factory server and virtual units.
package main

import (
	"os"

	"gprovision/cli"
	"gprovision/model/revision"
	"gprovision/site"
)

// version is set by the linker; what it does not say, Go knows.
var version = "unknown"

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr, site.Stock(), revision.Of(version)))
}
