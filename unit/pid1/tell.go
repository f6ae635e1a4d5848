package pid1

import (
	"context"
	"errors"
	"strings"
	"time"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/job/provision"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/uplink"
)

// began, succeeded and failed tell panels, log and server where a job stands.
func (u *unit) began(job record.Job) {
	u.m.Panel.Show(panel.View{Job: string(job)})
	u.state(record.State{Job: job, Phase: record.Started, Percent: -1})
}

func (u *unit) succeeded(job record.Job) {
	u.state(record.State{Job: job, Phase: record.Succeeded, Percent: -1})
}

func (u *unit) failed(job record.Job, err error) {
	f := fault.Of(err)
	if f == nil {
		f = fault.Internal
	}
	text := f.Text
	if d := fault.Detail(err); d != "" {
		text += ": " + d
	}
	u.state(record.State{Job: job, Phase: record.Failed, Percent: -1, Code: f.Code, Text: text, Hint: f.Hint})
}

func (u *unit) state(s record.State) {
	u.queue.Add(record.Event{Kind: record.KindState, Source: record.Observed, Message: s.String(), Attrs: s.Attrs()})
	u.log.Info("state", "job", string(s.Job), "state", string(s.Phase), "code", s.Code, "text", s.Text)
}

// observer tells panels, log and server of each step.
func (u *unit) observer(job record.Job) func(step.Event) {
	show := u.m.Panel.Observe(string(job))
	return func(e step.Event) {
		show(e)
		switch e.State {
		case step.Started:
			u.m.OnProgress = u.progress(job, e.Step.Name)
			u.log.Info("step", journal.Job(string(job)), journal.Step(e.Step.Name), "index", e.Index+1, "total", e.Total)
			u.queue.Add(record.Event{Kind: record.KindState, Source: record.Observed, Attrs: record.State{Job: job, Phase: record.Step, Step: e.Step.Name, Percent: -1}.Attrs()})
		case step.Done:
			u.log.Info("step done", journal.Job(string(job)), journal.Step(e.Step.Name), "elapsed", e.Elapsed.Round(time.Millisecond).String())
		case step.Failed:
			u.log.Error("step failed", journal.Job(string(job)), journal.Step(e.Step.Name), "elapsed", e.Elapsed.Round(time.Millisecond).String(), "err", e.Err)
			var p *step.PanicError
			if errors.As(e.Err, &p) {
				u.log.Error("panic", "stack", string(p.Stack))
			}
		}
	}
}

// progress returns what tells log and server how far a step is: at most each second, and only when the percentage changes.
func (u *unit) progress(job record.Job, name string) func(panel.Progress) {
	last := -1
	return func(p panel.Progress) {
		percent := p.Percent()
		if percent == last || percent < 0 {
			return
		}
		last = percent
		u.log.Debug("progress", journal.Job(string(job)), journal.Step(name), "percent", percent, "done", p.Done, "total", p.Total, journal.NotFile(), journal.NotWire())
		u.queue.Add(record.Event{Kind: record.KindState, Source: record.Observed, Attrs: record.State{Job: job, Phase: record.Step, Step: name, Percent: percent}.Attrs()})
	}
}

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

// check runs e2fsck on a partition. That it cannot is a failure of the kind f.
func (u *unit) check(ctx context.Context, part string, f *fault.Fault) error {
	dev, err := u.m.Open(part, machine.Write) // e2fsck does not wait until an unmounted partition is free
	if err == nil {
		err = dev.Close()
	}
	if err != nil {
		return fault.Because(f, err)
	}
	r, err := filesystem.CheckExt4(ctx, u.m.Run, part, true)
	delete(u.memory.Replayed, part) // a repair replays it, or gives it up
	if err != nil {
		return fault.Because(f, err)
	}
	u.log.Info("filesystem checked", "result", string(r.State), "copy", r.Backup, "output", string(r.Output))
	if r.State == filesystem.Damaged {
		return fault.Newf(f, "errors are left on %s that e2fsck does not repair", part)
	}
	return nil
}
