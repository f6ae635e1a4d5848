package job

import (
	"errors"
	"io"
	"strings"

	"gprovision/model/record"
	"gprovision/unit/journal"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

// KeepLog begins to keep the log, and what the server does not have yet, on the recovery volume, which is mounted writable.
func (e Env) KeepLog(v *state.Volume, prefix string) error {
	sink, err := journal.File(v.Path(state.LogDir), journal.FileOptions{Prefix: prefix})
	if err == nil {
		if err = e.Journal.Attach("file", sink); err != nil {
			if c, ok := sink.(io.Closer); ok { // an open file would keep the volume busy
				err = errors.Join(err, c.Close())
			}
		}
	}
	return errors.Join(err, e.Queue.Persist(v.Path(state.QueueDir)))
}

// ToServer gives the server all that is logged, from the start of this boot on.
func (e Env) ToServer(c *report.Client) {
	e.Queue.Start(c)
	err := e.Journal.Attach("server", journal.Func(func(r journal.Record) error {
		e.Queue.Add(logEvent(r))
		return nil
	}))
	if err != nil && !errors.Is(err, journal.ErrAttached) {
		e.Machine.Log.Warn("the server does not get the log", "err", err)
	}
}

// logEvent is a log record as the server gets it.
func logEvent(r journal.Record) record.Event {
	e := record.Event{Time: r.Time, Kind: record.KindLog, Source: record.Observed, Level: strings.ToUpper(r.LevelName()), Message: r.Message,
		Attrs: map[string]any{}}
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
