package unitcmd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"gprovision/hw/watchdog"
	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/release"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

// BootOKCmd marks this boot as good.
type BootOKCmd struct {
	Wait time.Duration `default:"2m" help:"How long to wait for the factory server. 0 does not look for it."`
	CA   string        `type:"path" placeholder:"FILE" help:"Certificates that may vouch for the factory server (default: what init handed over)."`
}

// Help returns examples.
func (*BootOKCmd) Help() string {
	return "Resets the count of boot attempts on the recovery volume. Then sends the records that wait there, and that the system runs, to the factory server; a server that does not answer is no failure, the records are sent after a later boot.\n\nExample, see also systemd-unit:\n  gprov-unit boot-ok --wait 30s"
}

// Run marks the boot.
func (b *BootOKCmd) Run(c *Context) error {
	if err := c.needRoot(); err != nil {
		return err
	}
	// Whatever comes of the rest: the system runs, and the display is its own.
	ctx, cancel := context.WithTimeout(c, 5*time.Second)
	if err := c.System.Started(ctx); err != nil {
		fmt.Fprintf(c.Stderr, "gprov-unit: %v\n", err)
	}
	cancel()
	mark, err := c.mark()
	if missing(err) {
		return errors.New("this system has no mark: no restore came to its end here")
	}
	if err != nil {
		return err
	}
	boot, err := c.boot()
	if err != nil && !missing(err) {
		return err
	}
	var u state.Unit
	var key ed25519.PrivateKey
	err = c.write(func(v *state.Volume) error {
		// A count that cannot be parsed is what this boot may well repair; one of a newer version is not ours to write.
		counts, err := v.ReadCounts()
		if err != nil && !errors.Is(err, state.ErrDamaged) {
			return err
		}
		if err := v.WriteCounts(counts.Good(c.System.Now())); err != nil {
			return err
		}
		c.remember(v, mark.Release)
		u, err = v.ReadUnit()
		if err != nil {
			return fault.Because(fault.RecoveryDamaged, err)
		}
		key, err = v.ReadKey()
		if err != nil {
			fmt.Fprintf(c.Stderr, "gprov-unit: the server hears nothing: %v\n", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(c.Stdout, "This boot is marked as good.")
	if boot.Watchdog.Running {
		c.endWatchdog(boot.Watchdog.Device)
	}
	if u.Server == "" || key == nil {
		return nil
	}
	return b.tell(c, u, key, boot)
}

// endWatchdog stops a watchdog that init left running, if nothing in this system has taken it over.
func (c *Context) endWatchdog(device string) {
	switch err := c.System.StopWatchdog(device); {
	case err == nil:
		fmt.Fprintln(c.Stdout, "The watchdog has guarded this boot and is stopped now. RuntimeWatchdogSec in system.conf lets systemd keep it.")
	case !errors.Is(err, watchdog.ErrBusy):
		fmt.Fprintf(c.Stderr, "gprov-unit: the watchdog may end this boot: %v\n", err)
	}
}

// stopWatchdog stops the watchdog at a device. The error is watchdog.ErrBusy where somebody has it.
func stopWatchdog(device string) error {
	t, err := watchdog.Open(device)
	if err != nil {
		return err
	}
	return t.Stop()
}

// remember notes the good boot in the history of images. A history that cannot be read is left to the restore.
func (c *Context) remember(v *state.Volume, image string) {
	if image == "" {
		return
	}
	_, err := v.History()
	if err == nil {
		_, err = v.ChangeHistory(c.System.Now(), func(h *release.History) { h.Boot(image, true, 0, c.System.Now(), "") })
	}
	if err != nil {
		fmt.Fprintf(c.Stderr, "gprov-unit: the history is not updated: %v\n", err)
	}
}

// tell sends what waits on the recovery volume, and that the system runs. The volume is only writable while something is
// written: the server is looked for before.
func (b *BootOKCmd) tell(c *Context, u state.Unit, key ed25519.PrivateKey, boot state.Boot) error {
	id := boot.ID
	if id == "" {
		id = "run-" + rand.Text() // init told nothing: a name of its own, so that sequence numbers cannot meet
	}
	client, err := b.client(u, key, boot, id)
	if err != nil {
		fmt.Fprintf(c.Stderr, "gprov-unit: the server hears nothing: %v\n", err)
	} else {
		defer client.Close()
	}
	reached := false
	if client != nil && b.Wait > 0 {
		ctx, cancel := context.WithTimeout(c, b.Wait)
		_, err := client.Time(ctx)
		cancel()
		if reached = err == nil; !reached {
			fmt.Fprintf(c.Stderr, "gprov-unit: the server does not answer, the records are sent after a later boot: %v\n", err)
		}
	}
	return c.write(func(v *state.Volume) error {
		q := report.NewQueue(id)
		if err := q.Persist(v.Path(state.QueueDir)); err != nil {
			return err
		}
		save, cancel := context.WithTimeout(c, 10*time.Second)
		err := q.TakeOver(save, c.path(state.RunQueue))
		cancel()
		if err != nil {
			return errors.Join(err, q.Close())
		}
		s := record.State{Job: record.JobRunning, Phase: record.Succeeded, Percent: -1}
		q.Add(record.Event{Kind: record.KindState, Source: record.Observed, Message: s.String(), Attrs: s.Attrs()})
		if reached {
			q.Start(client)
			ctx, cancel := context.WithTimeout(c, 30*time.Second)
			if e := q.Flush(ctx); e != nil {
				fmt.Fprintf(c.Stderr, "gprov-unit: not all records were sent, the others follow after a later boot: %v\n", e)
			} else {
				fmt.Fprintln(c.Stdout, "The factory server knows that the system runs.")
			}
			cancel()
		} else {
			ctx, cancel := context.WithTimeout(c, 10*time.Second)
			err = q.Sync(ctx)
			cancel()
		}
		return errors.Join(err, q.Close())
	})
}

func (b *BootOKCmd) client(u state.Unit, key ed25519.PrivateKey, boot state.Boot, id string) (*report.Client, error) {
	pem := []byte(boot.ServerCA)
	if b.CA != "" {
		var err error
		if pem, err = os.ReadFile(b.CA); err != nil {
			return nil, err
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("there are no certificates that vouch for it: init handed none over, and --ca is not given")
	}
	return report.New(report.Config{Endpoint: u.Server, CA: pool, Unit: u.Serial, Key: key, Boot: id, Floor: boot.HandOver, Patience: b.Wait, Log: slog.New(slog.DiscardHandler)})
}
