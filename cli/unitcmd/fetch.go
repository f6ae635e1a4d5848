package unitcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/update"
)

// FetchCmd brings a release image onto the recovery volume.
type FetchCmd struct {
	Source string        `arg:"" placeholder:"URL|FILE" help:"The image, NAME.upd; NAME.upd.minisig must lie beside it."`
	Wait   time.Duration `default:"6h" help:"How long to go on when the connection breaks (default 6h)."`
	JSON   bool          `help:"Print what was done as JSON."`
}

// Help returns examples.
func (*FetchCmd) Help() string {
	return "Makes room, downloads, checks the signature against the keys that the boot artifact trusts, and only then puts the image where a restore finds it. The recovery artifact is replaced if the image brings one with a higher build number. A download that was broken off is taken up by the same command. Nothing of the running system is changed.\n\nFrom which hosts, and how, is up to the policy of the boot artifact.\n\nExamples:\n  sudo gprov-unit fetch https://updates.example.com/WIDGET.LNX.SHINY.2026-11-22.0001.upd\n  sudo gprov-unit fetch /media/stick/WIDGET.LNX.SHINY.2026-11-22.0001.upd\n  sudo gprov-unit restore --image WIDGET.LNX.SHINY.2026-11-22.0001.upd"
}

// Run fetches.
func (f *FetchCmd) Run(c *Context) (err error) {
	if err := c.needRoot(); err != nil {
		return err
	}
	p, keys, err := c.policy()
	if err != nil {
		return err
	}
	boot, err := c.boot()
	if err != nil && !missing(err) {
		return err
	}
	client, err := report.NewSource(p, boot.HandOver)
	if err != nil {
		return err
	}
	source := f.Source
	if !strings.Contains(source, "://") {
		if source, err = filepath.Abs(source); err != nil {
			return err
		}
	}
	one, err := c.lock("fetch", syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer one.Close()
	release, err := c.writable()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	v := state.Open(c.recoveryDir())
	u, err := v.ReadUnit()
	if err != nil {
		return state.Fault(err)
	}
	o := update.Options{
		Source: source, Client: client, Volume: v, Policy: p, Keys: keys, Prefix: u.ImagePrefix, BootFile: c.Site.Names.BootFile,
		Original: u.Original, Patience: f.Wait, Log: slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{ReplaceAttr: noTime})),
	}
	if o.Prefix == "" {
		o.Prefix = c.Site.Names.ImagePrefix
	}
	o.Firmware = u.Firmware
	o.Room = func(context.Context, filesystem.Need) (filesystem.Need, error) { return filesystem.RoomIn(c.Root) }
	if m, err := c.mark(); err == nil && m.Release != "" {
		o.Running = imageFile(m.Release)
	}
	bar := &progress{w: shown.Raw(c.Stderr), terminal: c.Terminal}
	o.Progress = bar.show
	r, err := update.Take(c, o)
	bar.end()
	if err != nil {
		return err
	}
	if f.JSON {
		return answer.JSON(c.Stdout, r)
	}
	if r.Present {
		fmt.Fprintf(c.Stdout, "%s is on the recovery volume already, and good.\n", r.Image)
	} else {
		fmt.Fprintf(c.Stdout, "%s is on the recovery volume, and good (%d bytes).\n", r.Image, r.Size)
	}
	if r.Recovery {
		fmt.Fprintln(c.Stdout, "The recovery artifact is replaced; the recovery device boots it after the next boot.")
	}
	return nil
}

func imageFile(name string) string { return strings.TrimSuffix(name, release.Suffix) + release.Suffix }

// policy returns the policy that init handed over, and its keys.
func (c *Context) policy() (policy.Policy, []signature.PublicKey, error) {
	b, err := c.read(state.PolicyFile, state.MaxBoot)
	if err != nil {
		return policy.Policy{}, nil, fault.Because(fault.NoPolicy, err)
	}
	p, err := policy.Parse(b)
	if err != nil {
		return policy.Policy{}, nil, fault.Because(fault.NoPolicy, err)
	}
	keys, err := signature.ParsePublicKeys(p.Keys)
	if err != nil {
		return policy.Policy{}, nil, fault.Because(fault.NoPolicy, err)
	}
	return p, keys, nil
}

// noTime leaves out the time of a log line: the journal and the person have it.
func noTime(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 {
		return slog.Attr{}
	}
	return a
}

// progress shows how far a stage is: a line that moves on a terminal, and a line for each tenth elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	stage    string
	last     int // what was shown last, in percent, or MiB where the total is not known
	open     bool
}

func (p *progress) show(stage string, done, total int64) {
	if stage != p.stage {
		p.end()
		p.stage, p.last = stage, -1
	}
	stage = shown.Line(stage)
	now, unit := int(done>>20), "MiB"
	if total > 0 {
		now, unit = int(done*100/total), "%"
	}
	step := 10
	switch {
	case p.terminal:
		step = 1
	case total <= 0:
		step = 100
	}
	if now/step == p.last/step && p.last >= 0 {
		return
	}
	p.last = now
	if p.terminal {
		p.open = true
		fmt.Fprintf(p.w, "\r\x1b[K%s %d %s", stage, now, unit)
		return
	}
	fmt.Fprintf(p.w, "%s %d %s\n", stage, now/step*step, unit)
}

func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}
