package pid1

import (
	"context"
	"strings"
	"time"

	"gprovision/model/record"
	"gprovision/unit/job/provision"
	"gprovision/unit/journal"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/uplink"
)

// qa tells the server a line of the hardware check.
func (u *unit) qa(l provision.Line) {
	u.queue.Add(record.Event{Kind: record.KindQA, Source: record.Observed, Message: l.String(),
		Attrs: map[string]any{"name": l.Name, "found": l.Found, "expected": l.Expected, "rule": l.Rule, "checked": l.Checked, "ok": l.OK, "try": u.checks}})
}

// toServer gives the server all that is logged, from the start of this boot on.
func (u *unit) toServer(c *report.Client) {
	u.queue.Start(c)
	if u.connected.Swap(true) {
		return
	}
	err := u.journal.Attach("server", journal.Func(func(r journal.Record) error {
		u.queue.Add(logEvent(r))
		return nil
	}))
	if err != nil {
		u.log.Warn("the server does not get the log", "err", err)
	}
}

// logEvent is a log record as the server gets it.
func logEvent(r journal.Record) record.Event {
	e := record.Event{Time: r.Time, Kind: record.KindLog, Source: record.Observed, Level: strings.ToUpper(r.LevelName()), Message: r.Message, Attrs: map[string]any{}}
	if r.Job != "" {
		e.Attrs["job"] = r.Job
	}
	if r.Step != "" {
		e.Attrs["step"] = r.Step
	}
	for _, a := range r.Attrs {
		e.Attrs[a.Key] = a.Value
	}
	return e
}

// reportNetwork is how long a restore that would report waits for an address. Once it has one it keeps it to its end.
const reportNetwork = 2 * time.Minute

// connect brings the network up in the background of a restore, so that the server hears of it. Nothing waits for it.
func (u *unit) connect(ctx context.Context, v *state.Volume, rec state.Unit) {
	endpoint := rec.Server
	if d, err := v.ReadRestoreData(); err == nil && d.XLog != "" {
		if other, err := d.Server(); err == nil {
			endpoint = other
		} else {
			u.log.Warn("the server of the restore data cannot be used, the unit's own hears of the restore", "err", err)
		}
	}
	if endpoint == "" || u.connected.Load() {
		return
	}
	key, err := v.ReadKey()
	if err != nil {
		u.log.Warn("the unit's key cannot be read, the server hears nothing", "err", err)
		return
	}
	pool, err := u.m.Policy.CertPool()
	if err != nil {
		u.log.Debug("no server CA, the server hears nothing")
		return
	}
	c, err := report.New(report.Config{Endpoint: endpoint, CA: pool, Unit: u.m.Serial, Key: key, Boot: u.m.BootID, Floor: u.m.Build.Time})
	if err != nil {
		u.log.Warn("the server's address cannot be used", "err", err)
		return
	}
	ctx, u.stopNetwork = context.WithCancel(ctx)
	u.background("connect", func() {
		_, err := uplink.Raise(ctx, u.log, u.m.Sys, "", reportNetwork)
		if err != nil {
			u.log.Info("no network; records are sent later", "err", err)
			return
		}
		u.hello(ctx, c, rec)
		u.toServer(c)
	})
}

// hello tells the server that the unit is there, with its key and with what it holds: a server that was restored from a backup may
// not know. Records wait for a server that does not know the key yet.
func (u *unit) hello(ctx context.Context, c *report.Client, rec state.Unit) {
	macs, err := uplink.MACs(u.m.Sys)
	if err != nil {
		u.log.Debug("network ports cannot be listed", "err", err)
	}
	v := u.m.Identity.Variant
	reason, err := c.Hello(ctx, record.EnrolRequest{Platform: v.DevCodeName, SerialField: v.SerNumField, MACs: macs, Build: u.m.Build.Number,
		Held: record.Held{Generation: rec.Credentials, Provisioned: true}})
	if reason != "" || err != nil {
		u.log.Warn("the server does not know this unit's key", "key", c.Fingerprint(), "reason", reason, "err", err)
	}
}
