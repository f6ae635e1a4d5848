package job

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/site"
	"gprovision/unit/machine/machinetest"
)

// TestExtra: a company's own step has the log, the panels and the unit as the job's steps have them, is told of as they are, and ends the
// job where it fails.
func TestExtra(t *testing.T) {
	b := newBench(t)
	m := b.Machine
	stop := errors.New("the seal is broken")
	var got site.Unit
	m.Site.Hooks = []site.Hook{{Job: "restore", Step: "write", After: true, Extra: site.Extra{Name: "seal", Say: "Looking at seal",
		Run: func(ctx context.Context, u site.Unit) error {
			got = u
			u.Log.Info("a company's own")
			step.Report(ctx, 1, 2)
			return stop
		}}}, {Job: "repair", Step: "write", Extra: site.Extra{Name: "other", Run: func(context.Context, site.Unit) error {
		t.Error("the step of another job runs")
		return nil
	}}}}
	err := b.Run(t.Context(), record.JobRestore, "restore", []step.Step{
		{Name: "write", Say: "Writing", Run: func(context.Context) error { return nil }},
		{Name: "finish", Say: "Finishing", Run: func(context.Context) error { t.Error("the job goes on"); return nil }},
	})
	if !errors.Is(err, stop) {
		t.Errorf("the job ends with %v", err)
	}
	if got.Serial != m.Serial || got.Platform.DevCodeName != m.Identity.Variant.DevCodeName || got.Firmware != m.Firmware ||
		got.Names != m.Site.Names || got.Recovery != m.Places.Recovery || got.Main != m.Places.Main || got.Serial == "" || got.Main == "" {
		t.Errorf("it gets %+v", got)
	}
	if _, _, err := got.Run(t.Context(), "e2fsck", "-n"); err != nil || !slices.ContainsFunc(b.Calls(), func(c string) bool {
		return strings.HasPrefix(c, "run e2fsck")
	}) {
		t.Errorf("it cannot run a program: %v, %q", err, b.Calls())
	}
	got.Message("sealed")
	if !strings.Contains(b.log.String(), "a company's own") {
		t.Errorf("the log says:\n%s", &b.log)
	}
	var heard []string
	for _, s := range machinetest.Heard(t, b.Queue) {
		heard = append(heard, s.String())
	}
	if !slices.Equal(heard, []string{"restore: write", "restore: seal", "restore: seal 50%"}) {
		t.Errorf("the server hears %q", heard)
	}
}
