package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/cli/shown"
	"gprovision/forge/image"
	"gprovision/lab"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/secret"
)

// DemoCmd shows the whole life of a unit on a virtual machine.
type DemoCmd struct {
	Firmware  string `help:"Kind of firmware." enum:"uefi,bios" default:"uefi"`
	NativePXE bool   `help:"Boot with the firmware's own PXE and TFTP instead of QEMU's iPXE ROM (UEFI only)." name:"native-pxe"`
	Keep      bool   `help:"Leave everything running at the end, until Ctrl-C."`
	Console   bool   `help:"Show the unit's serial console too."`
	Display   string `help:"Give the unit a display with keys, 631 or 635, and show what is on it." enum:",631,635" default:"" placeholder:"MODEL"`
	RootFS    string `help:"Root filesystem of the release, instead of a Debian 12 made by mmdebstrap." name:"rootfs" type:"existingfile" placeholder:"FILE"`
	Init      string `help:"The init program. Default: init beside this program." placeholder:"FILE"`
	Unit      string `help:"The gprov-unit program. Default: gprov-unit beside this program." name:"gprov-unit" placeholder:"FILE"`
	Port      int    `help:"Port of the server's page on this machine. 0: any." default:"0"`
}

// Help is shown below the flags.
func (*DemoCmd) Help() string {
	return `Makes keys, a Debian release image and boot artifacts, starts a factory server and a virtual unit with empty disks, and
shows how the unit is provisioned over the network, restores itself and boots. It ends with status 0 only if the unit's Debian
reached its default target, admin logged in with the password that the server made, and the system's own tools find nothing wrong. It
needs root.

Examples:
  sudo gprov demo
  sudo gprov demo --firmware bios --keep
  sudo gprov demo --display 635`
}

// Run implements the verb.
func (v *DemoCmd) Run(c *Context) (err error) {
	if err := lab.Usable(); err != nil {
		return &HintError{err, "run it as root: sudo gprov demo"}
	}
	for flag, path := range map[string]*string{"init": &v.Init, "gprov-unit": &v.Unit} {
		if *path == "" {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the program %s: %w", flag, err)
			}
			*path = filepath.Join(filepath.Dir(self), flag)
		}
		if _, err := os.Stat(*path); errors.Is(err, fs.ErrNotExist) {
			return &HintError{fmt.Errorf("no program %s at %s", flag, *path), "run 'make build', or name it with --" + flag}
		}
	}
	d := &demo{DemoCmd: v, Context: c, show: newShow(c), log: slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	defer d.show.end()
	if err := d.makeDir(); err != nil {
		return err
	}
	if err := d.run(); err != nil {
		d.show.end()
		if d.unit != nil {
			d.unit.Cut()
		}
		fmt.Fprintf(c.Stdout, "\nIts files are kept in %s: unit/console.log, unit/events.jsonl, data/serve.log\n", d.dir)
		return errors.Join(err, d.close())
	}
	return errors.Join(d.close(), os.RemoveAll(d.dir))
}

// demo is one run.
type demo struct {
	*DemoCmd
	*Context
	log  *slog.Logger
	show *show

	dir     string
	product *lab.Product
	net     *lab.Network
	server  *lab.Server
	unit    *lab.Unit
	session *lab.Session
	sshAt   string
	units   []string      // of systemd, that gprov-unit brought
	secret  secret.Secret // admin's password
}

const (
	demoSerial = "DEMO-0001"
	demoSpace  = 6 << 30 // free space that a demo needs, bytes
	// demoPatience is how long each stage may take, without KVM on two cores.
	demoPatience = 15 * time.Minute
)

func (d *demo) makeDir() error {
	base := os.Getenv("TEMPDIR")
	if base == "" {
		base = os.TempDir()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(base, &st); err != nil {
		return fmt.Errorf("look at %s: %w", base, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < demoSpace {
		return &HintError{fmt.Errorf("%s has %d MiB free, the demo needs %d", base, free>>20, int64(demoSpace)>>20), "set TEMPDIR to another directory"}
	}
	var err error
	d.dir, err = os.MkdirTemp(base, "gprov-demo-")
	return err
}

func (d *demo) close() error {
	if d.session != nil {
		_ = d.session.Close()
	}
	if d.unit != nil {
		d.unit.Close()
	}
	if d.server != nil {
		d.server.Stop()
	}
	if d.net != nil {
		return d.net.Close()
	}
	return nil
}

func (d *demo) run() error {
	for _, f := range []func() error{d.packages, d.build, d.station, d.life, d.login, d.judge} {
		if err := f(); err != nil {
			return err
		}
	}
	d.show.end()
	d.show.table(d.net.Accel)
	fmt.Fprintf(d.Stdout, "\nThe unit %s was provisioned, restored itself and runs: all of it was observed.\n", demoSerial)
	if d.Keep {
		return d.keep()
	}
	return nil
}

func (d *demo) packages() error {
	missing, err := lab.Missing(d, d.log, lab.Packages())
	if err != nil || len(missing) == 0 {
		return err
	}
	defer d.show.stage("Debian packages: "+strings.Join(missing, " "), "packages")()
	return lab.Install(d, d.log, missing)
}

// build makes everything that exists before a unit does.
func (d *demo) build() error {
	root := d.RootFS
	if root == "" {
		done := d.show.stage("Debian 12 root filesystem", "build")
		cache, err := lab.OpenCache("")
		if err != nil {
			return err
		}
		if root, err = lab.DebianRoot(d, d.log, cache); err != nil {
			return labHint(err)
		}
		done()
	}
	done := d.show.stage("keys, server's authority, boot artifacts", "build")
	var err error
	if d.product, err = lab.NewProduct(filepath.Join(d.dir, "data")); err != nil {
		return err
	}
	if err := d.product.Artifacts(d, d.log, root, d.Init, 1); err != nil {
		return labHint(err)
	}
	done()
	done = d.show.stage("release image", "build")
	tools, err := d.tools()
	if err != nil {
		return err
	}
	name, err := d.product.Release(d, d.log, root, 1, "0", func(p image.Progress) { d.show.progress(p.Stage, p.Done, p.Total) }, tools...)
	if err != nil {
		return labHint(err)
	}
	done()
	done = d.show.stage("signed manifest", "build")
	defer done()
	return d.product.Manifest([]string{name}, nil)
}

// station starts the server and the unit.
func (d *demo) station() error {
	done := d.show.stage("factory server", "station")
	var err error
	if d.net, err = lab.NewNetwork(d, d.log); err != nil {
		return err
	}
	password, err := lab.NewPassword()
	if err != nil {
		return err
	}
	if d.server, err = lab.StartServer(d, d.log, d.net, lab.ServerConfig{Data: d.product.Dir, Password: password}); err != nil {
		return err
	}
	page, err := d.net.Forward(d.server.Page, d.Port)
	if err != nil {
		return err
	}
	done()
	d.show.say("the server's page: https://%s   login: admin   password: %s", page, password.Reveal())
	recovery := 0
	if d.Firmware == string(layout.BIOS) {
		recovery = 1
	}
	product := lab.PlatformProduct
	if d.Display != "" {
		product = lab.PlatformProductLCD
	}
	d.unit, err = lab.NewUnit(d, d.log, d.net, filepath.Join(d.dir, "unit"), lab.Config{
		Name: "demo", Firmware: layout.Firmware(d.Firmware), NativePXE: d.NativePXE, LCD: d.Display,
		SMBIOS: lab.SMBIOS{Manufacturer: lab.PlatformManufacturer, Product: product, Serial: demoSerial},
		Disks: []lab.Disk{
			{Name: "recovery", Bus: lab.VirtIO, Size: lab.RecoverySize, BootIndex: recovery},
			{Name: "main", Bus: lab.VirtIO, Size: lab.MainSize},
		},
	})
	if err != nil {
		return err
	}
	if d.Console {
		d.unit.Watch(shown.Raw(d.Stdout)) // its console, as it is
	}
	accel := "KVM"
	if !d.net.Accel.KVM {
		accel = "emulated (no KVM: " + short(d.net.Accel.Why) + ")"
	}
	if s := d.unit.Display(); s != nil {
		go followDisplay(d, s, d.show.picture)
	}
	d.show.say("virtual unit %s, %s firmware, processors %s", demoSerial, strings.ToUpper(d.Firmware), accel)
	return d.unit.Start(d)
}

// short returns the first line of a text, cut.
func short(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return s
}

// phase is a part of the unit's life that ends with an event.
type phase struct {
	name  string
	until lab.Match
}

func state(job, state string) lab.Match {
	return lab.All(lab.Msg("state"), lab.Field("job", job), lab.Field("state", state))
}

// phases are the unit's life until its own system takes over.
func phases() []phase {
	return []phase{
		{"network boot", state("provision", "started")},
		{"provisioning", state("provision", "succeeded")},
		{"start from the recovery device", state("restore", "started")},
		{"factory restore", state("restore", "succeeded")},
		{"start from the main disk", state("boot", "started")},
		{"hand-over", lab.Msg("handing over")},
	}
}

// life follows the unit until it hands over to its own system.
func (d *demo) life() error {
	ctx, stop := context.WithCancel(d)
	defer stop()
	go d.percent(ctx)
	for _, p := range phases() {
		done := d.show.stage(p.name, "unit")
		if err := d.follow(p); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		done()
	}
	return nil
}

// follow shows the unit's steps until the end of a phase.
func (d *demo) follow(p phase) error {
	ctx, cancel := context.WithTimeoutCause(d, demoPatience, fmt.Errorf("it is not done within %v", demoPatience))
	defer cancel()
	interesting := lab.Any(p.until, lab.Msg("step"), lab.Msg("decision"), lab.Msg("hold"), lab.Msg("GUEST_PANICKED"))
	for {
		e, err := d.unit.Events.Wait(ctx, interesting)
		if err != nil {
			return err
		}
		switch {
		case e.Msg() == "hold":
			hint := ""
			for _, f := range fault.All() {
				if f.Code == e.Text("code") {
					hint = f.Hint
				}
			}
			return &HintError{fmt.Errorf("the unit holds: %s: %s", e.Text("code"), e.Text("err")), hint}
		case e.Msg() == "GUEST_PANICKED":
			return errors.New("the unit's kernel panicked")
		case e.Msg() == "step":
			d.show.step(e.Text("job"), e.Text("step"), int(e.Number("index")), int(e.Number("total")))
		case e.Msg() == "decision":
			d.show.say("the unit decides: %s, because %s", e.Text("job"), e.Text("reason"))
		}
		if p.until(e) {
			return nil
		}
	}
}

// percent shows how far a step is, as the server knows it.
func (d *demo) percent(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		units, err := d.server.Units(ctx)
		if err != nil {
			continue // it is busy, or the demo ends
		}
		for _, u := range units {
			if u.ID == demoSerial && u.Step != "" && u.Percent >= 0 {
				d.show.percent(u.Job, u.Step, u.Percent)
			}
		}
	}
}

// login waits for the unit's Debian, and logs in as admin.
func (d *demo) login() error {
	ctx, cancel := context.WithTimeoutCause(d, demoPatience, fmt.Errorf("it is not done within %v", demoPatience))
	defer cancel()
	sealed, err := d.server.ReadCredentials(ctx, demoSerial)
	if err != nil {
		return err
	}
	if d.secret, err = d.product.Reveal(demoSerial, sealed.Generation, sealed.Ciphertext); err != nil {
		return err
	}
	d.show.say("the operator's key reveals the password of admin on %s", demoSerial)
	done := d.show.stage("Debian starts, admin logs in", "unit")
	addr, err := d.net.FindUnit(ctx, d.unit.MAC)
	if err != nil {
		return err
	}
	if d.session, err = d.net.Login(ctx, addr, "admin", d.secret); err != nil {
		return err
	}
	if d.sshAt, err = d.net.Forward(addr.String()+":22", 0); err != nil {
		return err
	}
	done()
	done = d.show.stage("default target", "unit")
	// The command ends with status 1 when the system is degraded, which its text says too.
	how, err := d.session.Run(ctx, "systemctl is-system-running --wait || true")
	if err != nil {
		return err
	}
	target, err := d.session.Run(ctx, "systemctl is-active $(systemctl get-default) && systemctl get-default")
	if err != nil {
		return err
	}
	about, err := d.session.Run(ctx, ". /etc/os-release; echo $PRETTY_NAME, $(uname -r), host $(hostname)")
	if err != nil {
		return err
	}
	done()
	if how != "running" {
		failed, _ := d.session.Run(ctx, "systemctl --failed --no-legend --plain")
		return fmt.Errorf("the unit's systemd is %s: %s", how, failed)
	}
	d.show.say("%s: %s is %s", about, strings.TrimSpace(strings.TrimPrefix(target, "active")), how)
	return nil
}

// keep leaves everything running.
func (d *demo) keep() error {
	fmt.Fprintf(d.Stdout, "\nIt stays until Ctrl-C. Log in: ssh -p %s admin@127.0.0.1, password %s\n", d.sshAt[strings.LastIndexByte(d.sshAt, ':')+1:], d.secret.Reveal())
	<-d.Done()
	return nil
}

// labHint adds the hint that an error from below carries.
func labHint(err error) error {
	var e interface {
		error
		Hint() string
	}
	if errors.As(err, &e) {
		return &HintError{err, e.Hint()}
	}
	return err
}
