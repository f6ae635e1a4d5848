package pid1

import (
	"gprovision/model/record"
	"gprovision/unit/job/provision"
)

// qa tells the server a line of the hardware check.
func (u *unit) qa(l provision.Line) {
	u.queue.Add(record.Event{Kind: record.KindQA, Source: record.Observed, Message: l.String(),
		Attrs: map[string]any{"name": l.Name, "found": l.Found, "expected": l.Expected, "rule": l.Rule, "checked": l.Checked, "ok": l.OK, "try": u.checks}})
}
