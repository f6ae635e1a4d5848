package job

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
)

// TestObserver: who watches a job hears of each step once when it begins, of its progress when the percentage changes and not before it is
// known, and of a panic where it happened. The log has each step's end.
func TestObserver(t *testing.T) {
	var log bytes.Buffer
	e := envOf(&machine.Machine{Log: slog.New(slog.NewTextHandler(&log, nil)), Panel: panel.New()})
	e.Began(record.JobRestore)
	err := e.Run(t.Context(), record.JobRestore, "restore", []step.Step{
		{Name: "look", Say: "Looking", Run: func(context.Context) error { return nil }},
		{Name: "write", Say: "Writing", Run: func(ctx context.Context) error {
			for _, done := range []int64{0, 1, 2, 100, 101, 500, 1000} {
				step.Report(ctx, done, 1000)
			}
			step.Report(ctx, 5, 0) // of how much is not known
			return nil
		}},
		{Name: "prove", Say: "Proving", Run: func(ctx context.Context) error {
			step.Report(ctx, 1000, 1000)
			panic("out of luck")
		}},
		{Name: "never", Say: "Never", Run: func(context.Context) error { t.Error("a step runs after one that failed"); return nil }},
	})
	e.Ended(record.JobRestore, err)
	var heard []string
	for _, s := range machinetest.Heard(t, e.Queue) {
		heard = append(heard, s.String())
	}
	want := []string{"restore started", "restore: look", "restore: write", "restore: write 0%", "restore: write 10%", "restore: write 50%",
		"restore: write 100%", "restore: prove", "restore: prove 100%"}
	if len(heard) != len(want)+1 || !slices.Equal(heard[:len(want)], want) || !strings.Contains(heard[len(want)], "failed") {
		t.Errorf("the server hears %q", heard)
	}
	for _, line := range []string{`msg="step done"`, `msg="step failed"`, "step=prove", "msg=panic stack=", "TestObserver"} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log lacks %s:\n%s", line, &log)
		}
	}
	if n := strings.Count(log.String(), `msg="step done"`); n != 2 {
		t.Errorf("%d steps are logged as done", n)
	}
	e = envOf(e.Machine)
	e.Ended(record.JobRestore, nil)
	if all := machinetest.Heard(t, e.Queue); len(all) != 1 || all[0].Phase != record.Succeeded || all[0].Code != "" {
		t.Errorf("of a good end the server hears %+v", all)
	}
}
