package shell

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
	"gprovision/unit/journal"
	"gprovision/unit/person"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// limit is how long a session may last.
const limit = 4 * time.Hour

// opened is the job.
type opened struct {
	env job.Env
	f   *survey.Findings
}

// Run opens the shell to whoever can open it.
func Run(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	again := job.Outcome{Kind: job.DecideAgain}
	o, log := opened{e, f}, e.Machine.Log
	t := Terminal{Line: e.Machine.Panel.Line, Print: e.Print}
	gate, err := o.gate(t)
	if err != nil {
		return job.Hold(err)
	}
	console, who, err := gate.Open(ctx)
	if err != nil {
		e.ShowFailure("recovery shell is not opened", err)
		return again
	}
	log.Warn("recovery shell opened", "console", console, "by", who, journal.ForPerson())
	s := Shell{Terminal: t, System: o.system(), Log: log, Panel: console}
	exit, err := s.Run(ctx)
	log.Warn("recovery shell closed", "exit", string(exit), "err", err, journal.ForPerson())
	switch exit {
	case Reboot:
		return job.Outcome{Kind: job.RebootNow}
	case PowerOff:
		return job.Outcome{Kind: job.PowerOffNow}
	}
	return again
}

// gate is what stands before the shell of this unit.
func (o opened) gate(t Terminal) (Gate, error) {
	m := o.env.Machine
	keys, err := signature.ParsePublicKeys(m.Policy.SupportKeys)
	if err != nil {
		return Gate{}, fmt.Errorf("supportKeys of the policy: %w", err)
	}
	hash := ""
	if o.f.Recovery == decide.RecoveryFound {
		if err := o.env.Volume.View(func(v *state.Volume) (err error) { hash, err = v.ReadHash(); return err }); err != nil {
			m.Log.Warn("the hash of the unit's password cannot be read", "err", err)
		}
	}
	return Gate{
		Terminal: t, Serial: m.Serial, Hash: hash, Keys: keys, Sleep: sleep,
		Tries: func() (n int, err error) {
			err = o.env.Volume.View(func(v *state.Volume) error {
				tries, err := v.ReadTries()
				n = tries.Failed
				return err
			})
			return n, err
		},
		SetTries: func(n int) error {
			if o.f.Recovery != decide.RecoveryFound {
				return nil // nothing is counted there: without the volume no password is taken
			}
			return o.env.Volume.Change(func(v *state.Volume) error { return v.WriteTries(n) })
		},
	}, nil
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

// system is the machine as the commands see it.
func (o opened) system() System {
	m := o.env.Machine
	return System{
		Mount:   m.Mount,
		Unmount: m.Unmount,
		Mounts:  host.Mounts,
		Disks:   m.Disks,
		Probe: func(path string) (filesystem.Info, error) {
			i, _, err := m.ProbePartition(path)
			return i, err
		},
		Kernel:    host.KernelMessages,
		Ports:     func() ([]nic.Port, error) { return nic.List(m.Sys) },
		Addresses: addresses,
		Inspections: []Inspection{
			{Name: "facts", Help: "shows what init found and what it decides", Run: o.facts},
			{Name: "unit", Help: "shows platform, serial number, artifact, counts and request", Run: o.unit},
			{Name: "images", Help: "lists the images of the recovery volume and how often each failed", Run: o.images},
			{Name: "log", Help: "shows the log of this boot", Run: o.log},
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

func (o opened) facts(_ context.Context, w io.Writer, _ []string) error {
	survey.Print(w, o.f, o.env.Machine.Policy)
	return nil
}

func (o opened) unit(_ context.Context, w io.Writer, _ []string) error {
	m := o.env.Machine
	fmt.Fprintf(w, "serial number %s, platform %s, firmware %s\nartifact build %d of %s, kernel %s\nkernel arguments: %s\n", m.Serial,
		m.Identity.Variant.DevCodeName, m.Firmware, m.Build.Number, m.Build.Time.UTC().Format(time.RFC3339), m.Build.Kernel, m.Cmdline)
	if o.f.Recovery != decide.RecoveryFound {
		fmt.Fprintln(w, "the recovery volume is not there")
		return nil
	}
	var c state.Counts
	if err := o.env.Volume.View(func(v *state.Volume) (err error) { c, err = v.ReadCounts(); return err }); err != nil {
		fmt.Fprintf(w, "counts: %v\n", err)
	} else {
		fmt.Fprintf(w, "boots since the last good one %d, repairs %d, restores %d, last good boot %s\n", c.BootAttempts, c.Repairs, c.Restores,
			c.LastGood.UTC().Format(time.RFC3339))
	}
	if r := o.f.Request; r != nil {
		fmt.Fprintf(w, "request: %s of image %s, by %s, %s\n", r.Kind, r.Image, r.By, r.ID)
	}
	return nil
}

func (o opened) images(_ context.Context, w io.Writer, _ []string) error {
	if o.f.Recovery != decide.RecoveryFound {
		return errors.New("the recovery volume is not there")
	}
	m := o.env.Machine
	return o.env.Volume.View(func(v *state.Volume) error {
		images, bad, err := image.List(v.Path(state.ImageDir), o.f.Names.ImagePrefix, false)
		if err != nil {
			return err
		}
		history, err := v.History()
		if err != nil {
			m.Log.Warn("history cannot be read", "err", err) // none is marked then
		}
		for _, im := range images {
			fmt.Fprintf(w, "%12d  %s\n", im.Size, person.Describe(im.Name.String(), "", o.f, history))
			if err := image.Glance(im, m.Policy, m.Keys); err != nil {
				fmt.Fprintf(w, "%12s  %v\n", "", err)
			}
		}
		for _, b := range bad {
			fmt.Fprintf(w, "%12s  %s: %v\n", "refused", b.File, b.Err)
		}
		return nil
	})
}

func (o opened) log(_ context.Context, w io.Writer, _ []string) error {
	for _, r := range o.env.Journal.Records() {
		fmt.Fprintln(w, r.Text())
	}
	return nil
}
