package job

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
)

// TestFailureIsToldOnce: a failure has its sentence once for the server and once on the panel, whatever lies around it.
func TestFailureIsToldOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		cause error
		f     *fault.Fault
		say   string // what lies behind the sentence
	}{
		"a kind":                 {fault.Newf(fault.NoSpace, "want 5, have 3"), fault.NoSpace, "want 5, have 3"},
		"no kind":                {errors.New("out of luck"), fault.Internal, "out of luck"},
		"a kind by itself":       {fault.Because(fault.NoServer, nil), fault.NoServer, ""},
		"a kind without a cause": {fault.NoServer, fault.NoServer, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var screen bytes.Buffer
			e := envOf(&machine.Machine{Log: slog.New(slog.DiscardHandler), Panel: panel.New()})
			e.Machine.Panel.Add("console", panel.Console(&screen, panel.ConsoleOptions{}))
			err := e.Run(t.Context(), record.JobRestore, "restore", []step.Step{
				{Name: "look", Say: "Looking", Run: func(context.Context) error { return tc.cause }},
			})
			e.Ended(record.JobRestore, err)
			e.Machine.Panel.Fail(err)

			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			heard := machinetest.Heard(t, e.Queue)
			if err := e.Machine.Panel.Close(ctx); err != nil {
				t.Fatal(err)
			}
			last := heard[len(heard)-1]
			if last.Code != tc.f.Code || strings.Count(last.Text, tc.f.Text) != 1 || strings.Contains(last.Text, tc.f.Code) ||
				strings.Count(last.Text, tc.say) < 1 {
				t.Errorf("the server hears %+v", last)
			}
			if n := strings.Count(screen.String(), tc.f.Text); n != 1 {
				t.Errorf("the panel shows it %d times:\n%s", n, &screen)
			}
		})
	}
}

// TestLogGoesToServer: a record of the log has its place, level and facts for the server.
func TestLogGoesToServer(t *testing.T) {
	j := journal.New(journal.Options{})
	j.Logger().Warn("disk is slow", journal.Job("restore"), journal.Step("write-main"), "seconds", 7)
	e := event(j.Records()[0])
	if e.Kind != record.KindLog || e.Level != "WARN" || e.Message != "disk is slow" || e.Attrs["job"] != "restore" ||
		e.Attrs["step"] != "write-main" ||
		fmt.Sprint(e.Attrs["seconds"]) != "7" || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}
}
