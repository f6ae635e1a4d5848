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

// Feed queues for the server the events of a journal, from the first one on. The lines of the log follow when there is a server (ToServer).
func Feed(q *report.Queue, j *journal.Journal) {
	j.Follow(func(r journal.Record) {
		if r.Kind != "" {
			q.Add(event(r))
		}
	})
}

// ToServer gives the server what is queued, and all that is logged, from the start of this boot on.
func (e Env) ToServer(c *report.Client) {
	if first := e.Queue.Start(c); !first {
		return
	}
	e.Journal.Follow(func(r journal.Record) {
		if r.Kind == "" {
			e.Queue.Add(event(r))
		}
	})
}

// event is a record as the server gets it.
func event(r journal.Record) record.Event {
	e := record.Event{Time: r.Time, Kind: r.Kind, Source: record.Observed, Message: r.Message, Attrs: map[string]any{}}
	if r.Job != "" {
		e.Attrs["job"] = r.Job
	}
	if r.Step != "" {
		e.Attrs["step"] = r.Step
	}
	for _, a := range r.Attrs {
		e.Attrs[a.Key] = a.Value
	}
	if e.Kind == "" {
		e.Kind, e.Level = record.KindLog, strings.ToUpper(r.LevelName())
	}
	if s, ok := record.StateOf(e); ok {
		e.Message, e.Attrs = s.String(), s.Attrs()
	}
	return e
}
