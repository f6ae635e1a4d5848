package unitcmd

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"gprovision/cli/shown"
	"gprovision/unit/job/support"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
)

// SupportBundleCmd writes the bundle for support staff.
type SupportBundleCmd struct {
	Out string `short:"o" type:"path" placeholder:"FILE" help:"Where to (default: a name of its own in the working directory; - is standard output)."`
}

// Help returns examples.
func (*SupportBundleCmd) Help() string {
	return "One tar.gz with the logs, the history and the counts of the recovery volume, an inventory of the machine and an excerpt of the system's journal. Passwords, hashes, keys and tokens are not in it; serial numbers and addresses are.\n\nExamples:\n  sudo gprov-unit support-bundle\n  sudo gprov-unit support-bundle --out - | ssh me@desk 'cat > bundle.tar.gz'"
}

// Run writes the bundle.
func (s *SupportBundleCmd) Run(c *Context) (err error) {
	if err := c.needRoot(); err != nil {
		return err
	}
	o := support.Options{Sys: os.DirFS(c.path("/sys")), Proc: os.DirFS(c.path("/proc")), By: "gprov-unit " + c.Version, Now: c.System.Now()}
	serial := ""
	if b, err := c.read(c.Site.Names.ConfDir+"/serial", 1024); err == nil {
		serial = strings.TrimSpace(string(b))
	}
	for _, p := range []struct {
		name string
		args []string
	}{
		{"journal.txt", []string{"journalctl", "--boot", "--no-pager", "--lines=5000", "--output=short-iso"}},
		{"journal-before.txt", []string{"journalctl", "--boot=-1", "--no-pager", "--lines=2000", "--output=short-iso"}},
		{"failed.txt", []string{"systemctl", "--failed", "--no-pager", "--plain"}},
		{"network.txt", []string{"networkctl", "status", "--all", "--no-pager", "--lines=0"}},
	} {
		ctx, cancel := context.WithTimeout(c, 30*time.Second)
		out, code, err := c.System.Run(ctx, p.args[0], p.args[1:]...)
		cancel()
		if err == nil && code != 0 {
			err = fmt.Errorf("status %d", code)
		}
		if len(out) > 0 {
			o.Files = append(o.Files, support.File{Name: p.name, Data: out})
		}
		if err != nil {
			o.Missing = append(o.Missing, fmt.Sprintf("%s: %s: %v", p.name, strings.Join(p.args, " "), err))
		}
	}
	for _, name := range []string{state.BootFile, state.PolicyFile, c.Site.Names.Mark, c.Site.Names.ConfDir + "/network.json", c.Site.Names.ConfDir + "/" + sysroot.NamesFile} {
		if b, err := c.read(name, state.MaxBoot); err == nil {
			o.Files = append(o.Files, support.File{Name: "system/" + strings.TrimPrefix(name, "/"), Data: b})
		}
	}
	to := s.Out
	if to == "" {
		to = support.Name(serial, o.Now)
	}
	w := shown.Raw(c.Stdout)
	if to != "-" {
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer func() {
			if e := f.Close(); err == nil {
				err = e
			}
			if err == nil {
				fmt.Fprintf(c.Stdout, "%s\n", to)
			}
		}()
		w = f
	}
	b := bufio.NewWriter(w)
	err = c.view(func(v *state.Volume) error {
		o.Volume = v
		return support.Write(c, b, o)
	})
	if o.Volume == nil && err != nil { // the volume is what is missing, and the rest may tell why
		o.Missing = append(o.Missing, err.Error())
		err = support.Write(c, b, o)
	}
	if err == nil {
		err = b.Flush()
	}
	return err
}
