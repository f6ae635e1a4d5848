package unitcmd

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"gprovision/hw/durable"
)

// units are the systemd units.
//
//go:embed systemd
var units embed.FS

// menderModule is an update module of the Mender client, version 3 of that interface.
//
//go:embed mender/gprov
var menderModule []byte

func unitNames() []string {
	list, _ := fs.ReadDir(units, "systemd") // embedded: it is there
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// SystemdUnitCmd prints a systemd unit.
type SystemdUnitCmd struct {
	Name string `arg:"" optional:"" default:"gprov-boot-ok.service" help:"Which one (default gprov-boot-ok.service)."`
	List bool   `help:"List their names instead."`
}

// Help returns examples.
func (*SystemdUnitCmd) Help() string {
	return "Examples, when an image is built:\n  gprov-unit systemd-unit --list\n  gprov-unit systemd-unit gprov-save-network.path\n\ninstall puts all of them into an image."
}

// Run prints the unit.
func (s *SystemdUnitCmd) Run(c *Context) error {
	if s.List {
		_, err := fmt.Fprintln(c.Stdout, strings.Join(unitNames(), "\n"))
		return err
	}
	b, err := units.ReadFile("systemd/" + s.Name)
	if err != nil {
		return &usage{&hinted{fmt.Errorf("there is no systemd unit %q", s.Name), "they are " + strings.Join(unitNames(), ", ")}}
	}
	_, err = c.Stdout.Write(b)
	return err
}

// InstallCmd puts what a system needs into a root filesystem.
type InstallCmd struct {
	Into    string `name:"root" required:"" type:"existingdir" placeholder:"DIR" help:"The root filesystem of an image that is being built, or /."`
	Program string `type:"existingfile" placeholder:"FILE" help:"The program that is put there as /usr/sbin/gprov-unit (default: this one)."`
	Mender  bool   `help:"Also the update module of the Mender client."`
	Disable bool   `help:"Do not enable the units."`
}

// Help returns examples.
func (*InstallCmd) Help() string {
	return "Puts this program and its systemd units into a root filesystem and enables them. It may be repeated. No link leads it out of DIR.\n\nExamples:\n  gprov-unit install --root $ROOTFS\n  gprov-unit install --root $ROOTFS --mender"
}

// Run installs.
func (i *InstallCmd) Run(c *Context) error {
	root, err := os.OpenRoot(i.Into)
	if err != nil {
		return err
	}
	defer root.Close()
	program := i.Program
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return err
		}
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	put := func(name string, b []byte, mode fs.FileMode) error {
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := durable.WriteIn(root, name, b, durable.Owner{Mode: mode}); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.Stdout, "/"+name)
		return err
	}
	if err := put("usr/sbin/gprov-unit", binary, 0o755); err != nil {
		return err
	}
	for _, name := range unitNames() {
		b, err := units.ReadFile("systemd/" + name)
		if err != nil {
			return err
		}
		if err := put("usr/lib/systemd/system/"+name, b, 0o644); err != nil {
			return err
		}
		if i.Disable {
			continue
		}
		for _, target := range wantedBy(b) {
			if err := enable(root, c.Stdout, name, target); err != nil {
				return err
			}
		}
	}
	if i.Mender {
		return put("usr/share/mender/modules/v3/gprov", menderModule, 0o755)
	}
	return nil
}

// wantedBy returns the targets of an embedded unit.
func wantedBy(b []byte) (out []string) {
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "WantedBy="); ok {
			out = append(out, strings.Fields(v)...)
		}
	}
	return out
}

// enable makes the link that systemctl enable would.
func enable(root *os.Root, out io.Writer, name, target string) error {
	link, to := "etc/systemd/system/"+target+".wants/"+name, "/usr/lib/systemd/system/"+name
	if have, err := root.Readlink(link); err == nil && have == to {
		return nil
	}
	if err := root.MkdirAll(path.Dir(link), 0o755); err != nil {
		return err
	}
	if err := root.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := root.Symlink(to, link); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "/%s -> %s\n", link, to)
	return err
}
