package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/model/manifest"
)

// ManifestDiffCmd compares two manifests.
type ManifestDiffCmd struct {
	Old  string `arg:"" help:"Manifest of before."`
	New  string `arg:"" help:"Manifest of now."`
	JSON bool   `name:"json" help:"Print the changes as JSON."`
}

// Help returns the examples of the verb.
func (*ManifestDiffCmd) Help() string {
	return `Examples:

  gprov manifest diff old/manufData.json files/manufData.json
  gprov manifest diff --json old/manufData.json files/manufData.json

Each line says for whom something changes: for all units, or for those of a platform; which file, specification, step or
management controller; and the value of before and of now. Comments, unknown keys and the form of the JSON do not count.`
}

// Run prints the changes.
func (m *ManifestDiffCmd) Run(c *Context) error {
	var both [2]*manifest.Manifest
	prefix := ""
	for i, name := range []string{m.Old, m.New} {
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read manifest: %w", err)
		}
		if both[i], err = manifest.Parse(b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		names, _, err := manifestNames(c, both[i], filepath.Dir(name), "")
		if err != nil {
			return err
		}
		prefix = names.ImagePrefix
	}
	changes := manifest.Diff(both[0], both[1], prefix)
	if m.JSON {
		if changes == nil {
			changes = []manifest.Change{}
		}
		return answer.JSON(c.Stdout, map[string]any{"changes": changes})
	}
	for _, x := range changes {
		fmt.Fprintln(c.Stdout, shown.Line(x.String()))
	}
	if len(changes) == 0 {
		fmt.Fprintln(c.Stdout, "nothing changes for any unit")
	}
	return nil
}
