package pid1

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/page"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/survey"
)

// What docs/ says to whoever stands before a unit, and no other test holds.

// logged returns the texts of the log's records with a message.
func logged(u *unit, message string) (out []string) {
	for _, r := range u.journal.Records() {
		if r.Message == message {
			out = append(out, r.Text())
		}
	}
	return out
}

// lamp is a panel without keys. What it does at a message that stays until it was read stands for the reader.
type lamp func()

func (l lamp) Show(v panel.View) error {
	if v.Problem != nil {
		l()
	}
	return nil
}

// TestMediumWithoutPanel: a unit without any panel that has keys restores from a stick only if its policy says that nobody is asked, and
// never over data that are not its own.
func TestMediumWithoutPanel(t *testing.T) {
	for name, c := range map[string]struct {
		policy  bool
		foreign bool
		out     job.Kind
		release string
	}{
		"asks":                            {false, false, job.DecideAgain, machinetest.Original},
		"need not ask":                    {true, false, job.RebootNow, other},
		"need not ask, but for this disk": {true, true, job.DecideAgain, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := restored(t)
			putImage(t, stickOn(t, r, layout.TypeLinux), layout.EmergencyPrefix)
			if c.foreign {
				r.Replace("vdb", "ANOTHER")
				disks, err := r.Doors().List()
				i := slices.IndexFunc(disks, func(d block.Disk) bool { return d.Name == "vdb" })
				if err == nil {
					err = machinetest.Machine(r).MakeExt4(t.Context(), disks[i].Path, "HOLIDAYS", machine.NewIDs().UUID())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			r.Start(nil)
			u := onRig(t, r)
			u.m.Policy.MediumWithoutConfirmation = c.policy
			ctx, read := context.WithCancel(t.Context())
			defer read()
			if c.out == job.DecideAgain {
				u.m.Panel.Add("lamp", lamp(read))
			}
			out := u.rescue(ctx, u.look(t.Context()))
			if out.Kind != c.out {
				t.Fatalf("%+v", out)
			}
			asked := logged(u, "restore from the emergency medium is not confirmed")
			if (len(asked) == 1) != (c.out == job.DecideAgain) || len(asked) == 1 && !strings.Contains(asked[0], "G252") {
				t.Errorf("logged: %q", asked)
			}
			if written := r.Written(); c.out == job.DecideAgain && len(written) > 0 {
				t.Errorf("nobody said yes, and %q are written to", written)
			}
			u.die(t)
			r.Start(nil)
			next := onRig(t, r)
			next.m.Policy.MediumWithoutConfirmation = c.policy
			f := next.look(t.Context())
			if f.Mark.Release != c.release || c.foreign != (f.Main == decide.MainForeign) {
				t.Errorf("%s of %q, want %q; notes %q", f.Main, f.Mark.Release, c.release, f.Notes)
			}
		})
	}
}

// TestEachFileOfAMedium: of a stick with nothing that can be used the log has every file with its reason.
func TestEachFileOfAMedium(t *testing.T) {
	r := restored(t)
	dir := stickOn(t, r, layout.TypeLinux)
	putImage(t, dir, layout.EmergencyPrefix) // not signed
	if err := os.WriteFile(filepath.Join(dir, layout.EmergencyPrefix+"nonsense.upd"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Start(nil)
	u := onRig(t, r)
	u.m.Policy.AllowUnsigned = false
	u.m.Panel.Add("reader", reader{&script.Panel{}})
	u.m.Policy.GraceSeconds = 1
	if out := u.pass(t.Context()); out.Kind != job.SwitchRoot {
		t.Errorf("%+v", out)
	}
	notes := strings.Join(logged(u, "note"), "\n")
	for name, code := range map[string]string{"nonsense.upd": "G202", other + ".upd": "G203"} {
		if !regexp.MustCompile(layout.EmergencyPrefix + regexp.QuoteMeta(name) + ": " + code).MatchString(notes) {
			t.Errorf("%s is not told with %s:\n%s", name, code, notes)
		}
	}
	if told := logged(u, "emergency medium refused"); len(told) != 1 || !strings.Contains(told[0], "G251") {
		t.Errorf("told: %q", told)
	}
}

// TestQuietDefect: an original image that is not trusted any more delays no start. Who starts the unit cannot do anything about it.
func TestQuietDefect(t *testing.T) {
	u := testUnit(t, &bytes.Buffer{})
	keys := &script.Panel{Answer: func(panel.Asked) []panel.Key { return nil }}
	u.m.Panel.Add("script", keys)
	f := &survey.Findings{Facts: decide.Facts{Recovery: decide.RecoveryFound}}
	f.BadOriginal = errors.New("by key 17")
	began := time.Now()
	texts := u.tellDefects(t.Context(), defects(f))
	if took := time.Since(began); len(texts) != 1 || took >= showDefect {
		t.Errorf("told %q in %s", texts, took)
	}
}

// TestPausesOfThePage: the codes after which a unit soon tries again are those of the page.
func TestPausesOfThePage(t *testing.T) {
	docs := os.DirFS("../../docs")
	var soon []string
	for _, f := range fault.All() {
		if pause(f, 0) == networkRetry {
			soon = append(soon, f.Code)
		}
	}
	last := len(soon) - 1
	says := "where the network is at fault), which is so for " + strings.Join(soon[:last], ", ") + " and " + soon[last]
	if err := page.Says(docs, "decide.md", says); err != nil {
		t.Error(err)
	}
}
