package unitcmd

import (
	"fmt"
	"os"

	"gprovision/cli/shown"
	"gprovision/hw/durable"
	"gprovision/model/capture"
)

// CaptureCmd captures the machine.
type CaptureCmd struct {
	Out string `short:"o" type:"path" placeholder:"FILE" help:"File to write. Default: standard output."`
}

// Help returns examples.
func (*CaptureCmd) Help() string {
	return `What the machine is made of, as one text file: the same as 'gprov platform capture' writes, for 'gprov platform identify' and
'gprov platform check'. It names serial numbers and addresses, and holds no content of disks, no keys and no passwords.

Examples:
  sudo gprov-unit capture --out fox.txt
  sudo gprov-unit capture | ssh me@desk 'cat > fox.txt'`
}

// Run writes the capture.
func (s *CaptureCmd) Run(c *Context) error {
	if err := c.needRoot(); err != nil {
		return err
	}
	text, missed, err := capture.Take(os.DirFS(c.path("/sys")), os.DirFS(c.path("/proc")), "gprov-unit "+c.Version)
	if err != nil {
		return err
	}
	for _, m := range missed {
		fmt.Fprintf(c.Stderr, "not readable: %s\n", shown.Line(m))
	}
	if s.Out != "" {
		return durable.Write(s.Out, text, 0o644)
	}
	_, err = shown.Raw(c.Stdout).Write(text)
	return err
}
