package handover

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/page"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// env is what a job gets whose log goes to out.
func env(out *bytes.Buffer) job.Env {
	return jobtest.Env(&machine.Machine{Log: slog.New(slog.NewTextHandler(out, nil)), Panel: panel.New()})
}

// TestDefects: what is wrong with a unit that starts is told with its code on log and panels, and to the running system; a healthy one
// has nothing to tell.
func TestDefects(t *testing.T) {
	part := &machine.Found{Path: "/dev/vda2"}
	for name, c := range map[string]struct {
		f    survey.Findings
		want []string // codes
		say  string   // in the log
	}{
		"healthy": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound}},
			nil, ""},
		"recovery newer": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryNewer},
			Notes: []string{"recovery: version 2"}},
			[]string{"G216"}, "recovery: version 2"},
		"recovery damaged": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryDamaged},
			Notes: []string{"main: x", "recovery: superblock"}},
			[]string{"G213"}, "recovery: superblock"},
		"recovery missing": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryMissing}},
			[]string{"G211"}, "starts without it"},
		"errors are left": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound, RecoveryErrors: true, RecoveryRepairs: 2},
			VolumeFindings: survey.VolumeFindings{RecoveryPart: part}},
			[]string{"G214"}, "repaired 2 times"},
		"bad request": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound},
			VolumeFindings: survey.VolumeFindings{BadRequest: errors.New("no JSON")}},
			[]string{"G215"}, "no JSON"},
		"original revoked": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound},
			VolumeFindings: survey.VolumeFindings{BadOriginal: errors.New("by key 17")}},
			[]string{"G206"}, "by key 17"},
		"degraded": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound},
			MainFindings: survey.MainFindings{Degraded: true, Members: []string{"sdb"}}},
			[]string{"G225"}, "sdb"},
		"a table": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound}, Tables: []survey.BackupTable{
			{Disk: block.Disk{Path: "/dev/none"}, Table: layout.Table{Kind: layout.GPT}, Recorded: true}}}, []string{"G273"}, "/dev/none"},
		"much at once": {survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryMissing},
			MainFindings: survey.MainFindings{Degraded: true}},
			[]string{"G211", "G225"}, "lacks a disk"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			e := env(&out)
			keys := &script.Panel{Answer: func(panel.Asked) []panel.Key { return nil }}
			e.Machine.Panel.Add("script", keys)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nobody reads: nothing is waited for
			texts := tellDefects(ctx, e, defects(&c.f))
			if !slices.EqualFunc(texts, c.want, strings.HasPrefix) || texts == nil {
				t.Errorf("told %q, want %q", texts, c.want)
			}
			if _, err := (state.Boot{Defects: texts}).Marshal(); err != nil {
				t.Error(err)
			}
			for _, code := range c.want {
				if !strings.Contains(out.String(), "code="+code) {
					t.Errorf("%s is not logged:\n%s", code, out.String())
				}
			}
			if err := e.Machine.Panel.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			shown := "" // only the last view is certain to be seen by a panel that is slow
			for _, v := range keys.Views() {
				if v.Problem != nil {
					shown = v.Problem.Code
				}
			}
			if name == "original revoked" {
				if shown != "" {
					t.Errorf("the panel shows %q, and a customer cannot do anything about it", shown)
				}
			} else if len(c.want) > 0 && shown != c.want[len(c.want)-1] {
				t.Errorf("the panel shows %q", shown)
			}
			if !strings.Contains(out.String(), c.say) || strings.Count(out.String(), "\n") != len(c.want)+1 {
				t.Errorf("the log says, beside one fact:\n%s", out.String())
			}
		})
	}
}

// TestQuietDefect: an original image that is not trusted any more delays no start. Who starts the unit cannot do anything about it.
func TestQuietDefect(t *testing.T) {
	e := env(&bytes.Buffer{})
	keys := &script.Panel{Answer: func(panel.Asked) []panel.Key { return nil }}
	e.Machine.Panel.Add("script", keys)
	f := &survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound}}
	f.BadOriginal = errors.New("by key 17")
	began := time.Now()
	texts := tellDefects(t.Context(), e, defects(f))
	if took := time.Since(began); len(texts) != 1 || took >= showDefect {
		t.Errorf("told %q in %s", texts, took)
	}
}

// TestNumbersOfThePages: how long a defect is shown, as docs/ says it.
func TestNumbersOfThePages(t *testing.T) {
	if showDefect != 3*time.Second {
		t.Error(showDefect)
	}
	if err := page.Says(os.DirFS("../../../docs"), "screens.md", "a code for three seconds, then `boot`"); err != nil {
		t.Error(err)
	}
}
