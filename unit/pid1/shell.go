package pid1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"gprovision/hw/filesystem"
	"gprovision/hw/host"
	"gprovision/hw/nic"
	"gprovision/model/signature"
	"gprovision/unit/decide"
	"gprovision/unit/image"
	"gprovision/unit/job"
	"gprovision/unit/job/shell"
	"gprovision/unit/journal"
	"gprovision/unit/person"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// shellLimit is how long a session of the recovery shell may last.
const shellLimit = 4 * time.Hour

// shell opens the recovery shell to whoever can open it.
func (u *unit) shell(ctx context.Context, f *survey.Findings) job.Outcome {
	u.memory.ShellDone = true
	ctx, cancel := context.WithTimeout(ctx, shellLimit)
	defer cancel()
	again := job.Outcome{Kind: job.DecideAgain}
	t := shell.Terminal{Line: u.m.Panel.Line, Print: u.print}
	keys, err := signature.ParsePublicKeys(u.m.Policy.SupportKeys)
	if err != nil {
		return job.Hold(fmt.Errorf("supportKeys of the policy: %w", err))
	}
	hash := ""
	if f.Recovery == decide.RecoveryFound {
		if err := u.volume.View(func(v *state.Volume) (err error) { hash, err = v.ReadHash(); return err }); err != nil {
			u.log.Warn("the hash of the unit's password cannot be read", "err", err)
		}
	}
	gate := shell.Gate{
		Terminal: t, Serial: u.m.Serial, Hash: hash, Keys: keys, Sleep: sleep,
		Tries: func() (n int, err error) {
			err = u.volume.View(func(v *state.Volume) error {
				tries, err := v.ReadTries()
				n = tries.Failed
				return err
			})
			return n, err
		},
		SetTries: func(n int) error {
			if f.Recovery != decide.RecoveryFound {
				return nil // nothing is counted there: without the volume no password is taken
			}
			return u.volume.Change(func(v *state.Volume) error { return v.WriteTries(n) })
		},
	}
	console, who, err := gate.Open(ctx)
	if err != nil {
		u.log.Warn("recovery shell is not opened", "err", err, journal.ForPerson())
		u.m.Panel.Fail(err)
		return again
	}
	u.log.Warn("recovery shell opened", "console", console, "by", who, journal.ForPerson())
	s := shell.Shell{Terminal: t, System: u.shellSystem(f), Log: u.log, Panel: console}
	exit, err := s.Run(ctx)
	u.log.Warn("recovery shell closed", "exit", string(exit), "err", err, journal.ForPerson())
	switch exit {
	case shell.Reboot:
		return job.Outcome{Kind: job.RebootNow}
	case shell.PowerOff:
		return job.Outcome{Kind: job.PowerOffNow}
	}
	return again
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// print writes text to a console that takes keys; "" means all of them.
func (u *unit) print(console, text string) {
	for _, t := range u.ttys {
		if console != "" && t.Name() != console {
			continue
		}
		if _, err := io.WriteString(t, text); err != nil {
			u.log.Debug("console", "device", t.Name(), "err", err)
		}
	}
}

// shellSystem is the machine as the shell's commands see it.
func (u *unit) shellSystem(f *survey.Findings) shell.System {
	return shell.System{
		Mount:   u.m.Mount,
		Unmount: u.m.Unmount,
		Mounts:  host.Mounts,
		Disks:   u.m.Disks,
		Probe: func(path string) (filesystem.Info, error) {
			i, _, err := u.m.ProbePartition(path)
			return i, err
		},
		Kernel:    host.KernelMessages,
		Ports:     func() ([]nic.Port, error) { return nic.List(u.m.Sys) },
		Addresses: addresses,
		Inspections: []shell.Inspection{
			{Name: "facts", Help: "shows what init found and what it decides", Run: u.showFacts(f)},
			{Name: "unit", Help: "shows platform, serial number, artifact, counts and request", Run: u.showUnit(f)},
			{Name: "images", Help: "lists the images of the recovery volume and how often each failed", Run: u.showImages(f)},
			{Name: "log", Help: "shows the log of this boot", Run: u.showLog},
		},
	}
}

// addresses returns the state and the addresses of a network port.
func addresses(port string) ([]string, error) {
	i, err := net.InterfaceByName(port)
	if err != nil {
		return nil, err
	}
	list, err := i.Addrs()
	if err != nil {
		return nil, err
	}
	out := []string{i.Flags.String()}
	for _, a := range list {
		out = append(out, a.String())
	}
	return out, nil
}

func (u *unit) showFacts(f *survey.Findings) func(context.Context, io.Writer, []string) error {
	return func(_ context.Context, w io.Writer, _ []string) error {
		facts := f.Facts
		facts.Choice, facts.ShellAsked = decide.Choice{}, false
		fmt.Fprintf(w, "recovery volume: %s\nmain system: %s, mark of %q\nrequest pending: %v\nmedium: %s\nwithout the shell: %s\n",
			f.Recovery, f.Main, f.Mark.Release, f.RestoreRequested(), orNone(string(f.Medium)), decide.Decide(facts, u.m.Policy))
		for _, n := range f.Notes {
			fmt.Fprintf(w, "note: %s\n", n)
		}
		return nil
	}
}

func (u *unit) showUnit(f *survey.Findings) func(context.Context, io.Writer, []string) error {
	return func(_ context.Context, w io.Writer, _ []string) error {
		fmt.Fprintf(w, "serial number %s, platform %s, firmware %s\nartifact build %d of %s, kernel %s\nkernel arguments: %s\n", u.m.Serial, u.m.Identity.Variant.DevCodeName,
			u.m.Firmware, u.m.Build.Number, u.m.Build.Time.UTC().Format(time.RFC3339), u.m.Build.Kernel, u.m.Cmdline)
		if f.Recovery != decide.RecoveryFound {
			fmt.Fprintln(w, "the recovery volume is not there")
			return nil
		}
		var c state.Counts
		if err := u.volume.View(func(v *state.Volume) (err error) { c, err = v.ReadCounts(); return err }); err != nil {
			fmt.Fprintf(w, "counts: %v\n", err)
		} else {
			fmt.Fprintf(w, "boots since the last good one %d, repairs %d, restores %d, last good boot %s\n", c.BootAttempts, c.Repairs, c.Restores, c.LastGood.UTC().Format(time.RFC3339))
		}
		if r := f.Request; r != nil {
			fmt.Fprintf(w, "request: %s of image %s, by %s, %s\n", r.Kind, r.Image, r.By, r.ID)
		}
		return nil
	}
}

func (u *unit) showImages(f *survey.Findings) func(context.Context, io.Writer, []string) error {
	return func(_ context.Context, w io.Writer, _ []string) error {
		if f.Recovery != decide.RecoveryFound {
			return errors.New("the recovery volume is not there")
		}
		return u.volume.View(func(v *state.Volume) error {
			images, bad, err := image.List(v.Path(state.ImageDir), f.Names.ImagePrefix, false)
			if err != nil {
				return err
			}
			history, err := v.History()
			if err != nil {
				u.log.Warn("history cannot be read", "err", err) // none is marked then
			}
			for _, im := range images {
				fmt.Fprintf(w, "%12d  %s\n", im.Size, person.Describe(im.Name.String(), "", f, history))
				if err := image.Glance(im, u.m.Policy, u.m.Keys); err != nil {
					fmt.Fprintf(w, "%12s  %v\n", "", err)
				}
			}
			for _, b := range bad {
				fmt.Fprintf(w, "%12s  %s: %v\n", "refused", b.File, b.Err)
			}
			return nil
		})
	}
}

func (u *unit) showLog(_ context.Context, w io.Writer, _ []string) error {
	for _, r := range u.journal.Records() {
		fmt.Fprintln(w, r.Text())
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
