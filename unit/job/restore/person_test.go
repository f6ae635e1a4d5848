package restore

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gprovision/hw/block"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/record"
	"gprovision/unit/decide"
	"gprovision/unit/image/imagetest"
	"gprovision/unit/job"
	"gprovision/unit/job/jobtest"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/panel"
	"gprovision/unit/panel/script"
	"gprovision/unit/state"
	"gprovision/unit/survey"
)

// restored is a unit that was restored, and has a newer release on its recovery volume, which is not signed.
func restored(t *testing.T) *rig {
	t.Helper()
	r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
	if _, err := r.restore(nil); err != nil {
		t.Fatal(err)
	}
	content := imagetest.XZ(t, imagetest.System(t, later))
	r.onVolume(func(v *state.Volume) error { return os.WriteFile(v.Path(state.ImageDir, later+".upd"), content, 0o600) })
	r.Start(nil)
	return r
}

// clone is the same unit once more, switched on.
func (r *rig) clone(t *testing.T) *rig {
	t.Helper()
	return &rig{Rig: r.Clone(t), t: t}
}

// volume is the recovery volume of the unit with this record, beside all doors.
func (r *rig) volume(f *survey.Findings) *state.Volume {
	return state.Open(r.Volume(f.Unit.Recovery.Table.Find(layout.Recovery).FSUUID))
}

// TestChosen: what a person chose at the machine is on the recovery volume as a request before anything is destroyed, so that a restore
// that is cut off is taken up with the same image; and it is restored, and nothing else.
func TestChosen(t *testing.T) {
	start := restored(t)
	for name, c := range map[string]struct {
		choice decide.Choice
		want   string
	}{
		"the newest":   {decide.Choice{Kind: decide.ChooseLatest}, later},
		"the original": {decide.Choice{Kind: decide.ChooseOriginal}, machinetest.Original},
		"settings":     {decide.Choice{Kind: decide.ChooseSettings}, later},
		"everything":   {decide.Choice{Kind: decide.ChooseEverything}, later},
		"one of them":  {decide.Choice{Kind: decide.ChooseImage, Image: machinetest.Original + ".upd"}, machinetest.Original},
	} {
		t.Run(name, func(t *testing.T) {
			r := start.clone(t)
			r.Start(nil)
			e, f := jobtest.Look(t, machinetest.Machine(r.Rig))
			f.Choice = c.choice
			kind, asked, _ := c.choice.Asked()
			v, seen := r.volume(f), ""
			r.Fail(func(_ int, call string) error {
				if seen == "" && strings.HasPrefix(call, "write /dev/vdb") {
					q, err := v.ReadRequest()
					if seen = q.ID; err != nil || q.Kind != kind || q.Image != asked || q.By != "a person at the machine" {
						t.Errorf("the main disk is written to, and the request is %+v, %v", q, err)
					}
				}
				return nil
			})
			if out := Run(t.Context(), e, f); out.Kind != job.RebootNow {
				t.Fatalf("it ends with %+v", out)
			}
			jobtest.End(t, e)
			if _, mark := r.system(); mark.Release != c.want || mark.Request != seen || seen == "" {
				t.Errorf("the mark is %+v, the request was %q", mark, seen)
			}
			logs, err := os.ReadDir(v.Path(state.LogDir))
			if err != nil || !slices.ContainsFunc(logs, func(d os.DirEntry) bool { return strings.HasPrefix(d.Name(), "recov") }) {
				t.Errorf("kept are the logs %v, %v", logs, err)
			}
		})
	}
}

// TestNotBegun: a restore whose request cannot be kept, or whose volume cannot be had, destroys nothing.
func TestNotBegun(t *testing.T) {
	start := restored(t)
	for name, c := range map[string]struct {
		spoil func(v *state.Volume) error
		fault string
	}{
		"the request cannot be kept": {func(v *state.Volume) error {
			return os.MkdirAll(v.Path(state.RequestFile, "somebody's"), 0o700)
		}, "none"},
		"the volume cannot be mounted": {func(*state.Volume) error { return nil }, "mount /dev/vda"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start.clone(t)
			r.Start(nil)
			e, f := jobtest.Look(t, machinetest.Machine(r.Rig))
			f.Choice.Kind = decide.ChooseLatest
			if err := c.spoil(r.volume(f)); err != nil {
				t.Fatal(err)
			}
			r.Fail(func(_ int, call string) error {
				if strings.HasPrefix(call, c.fault) {
					return syscall.EIO
				}
				return nil
			})
			out := Run(t.Context(), e, f)
			r.Fail(nil)
			jobtest.End(t, e)
			if out.Kind != job.HoldOn || fault.Of(out.Err) != fault.RecoveryDamaged {
				t.Errorf("it ends with %+v", out)
			}
			if w := r.Written(); slices.Contains(w, "vdb") {
				t.Errorf("written to are %s", w)
			}
			if err := os.RemoveAll(r.volume(f).Path(state.RequestFile)); err != nil {
				t.Fatal(err)
			}
			if _, mark := r.system(); mark.Release != machinetest.Original {
				t.Errorf("the mark is %+v", mark)
			}
		})
	}
}

// TestBadRequestAside: a restore that follows from the state of the main disk sets a damaged request aside.
func TestBadRequestAside(t *testing.T) {
	r := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
	r.onVolume(func(v *state.Volume) error {
		return os.WriteFile(v.Path(state.RequestFile), []byte(`{"version":1,`), 0o600)
	})
	r.Start(nil)
	e, f := jobtest.Look(t, machinetest.Machine(r.Rig))
	if f.BadRequest == nil || f.Main != decide.MainBlank {
		t.Fatalf("found %s, %v", f.Main, f.BadRequest)
	}
	if out := Run(t.Context(), e, f); out.Kind != job.RebootNow {
		t.Errorf("it ends with %+v", out)
	}
	jobtest.End(t, e)
	if _, err := os.Stat(r.volume(f).Path(state.BadRequestFile)); err != nil {
		t.Error(err)
	}
}

// plugIn plugs in a medium with an image.
func (r *rig) plugIn(t *testing.T, base string) {
	t.Helper()
	m := machinetest.Machine(r.Rig)
	path := r.AddDisk(block.Disk{Name: "sdb", Bus: block.USB, Removable: true, Size: layout.GiB})
	part := layout.Partition{Number: 1, Start: layout.MiB, Size: 200 * layout.MiB, Type: layout.TypeLinux, UUID: machine.NewIDs().UUID(),
		Role: layout.Data, FSUUID: machine.NewIDs().UUID(), FSLabel: "STICK"}
	table := layout.Table{Kind: layout.GPT, UUID: machine.NewIDs().UUID(), Partitions: []layout.Partition{part}}
	err := m.WriteTable(path, table)
	if err == nil {
		err = m.Format(t.Context(), path, table, []layout.Role{layout.Data})
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(r.Volume(part.FSUUID), layout.EmergencyPrefix+base+".upd"),
			imagetest.XZ(t, imagetest.System(t, base)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestConfirmedMedium: the image of a medium is restored after a person has said yes, or where that is not wanted. Where it is, silence is
// a no. A medium that was dealt with is not asked about again, and no disk but the planned one is written to.
func TestConfirmedMedium(t *testing.T) {
	start := restored(t)
	start.plugIn(t, later)
	yes, no := []panel.Key{panel.KeyDown, panel.KeyEnter}, []panel.Key{panel.KeyEnter}
	for name, c := range map[string]struct {
		keys   []panel.Key // nil: nobody is there
		change func(m *machine.Machine, f *survey.Findings)
		fault  string
		want   job.Kind
		asked  bool
	}{
		"yes": {yes, nil, "", job.RebootNow, true},
		"no":  {no, nil, "", job.DecideAgain, true},
		"nobody is there, and need not be": {nil, func(m *machine.Machine, _ *survey.Findings) {
			m.Policy.MediumWithoutConfirmation = true
		}, "", job.RebootNow, false},
		"nobody need be there, and the disk holds somebody's data": {no, func(m *machine.Machine, f *survey.Findings) {
			m.Policy.MediumWithoutConfirmation, f.Main = true, decide.MainForeign
		}, "", job.DecideAgain, true},
		"it was begun before": {nil, func(_ *machine.Machine, f *survey.Findings) {
			f.Medium = decide.MediumConfirmed
		}, "", job.RebootNow, false},
		"a person chose it": {nil, func(_ *machine.Machine, f *survey.Findings) {
			f.Choice.Kind = decide.ChooseMedium
		}, "", job.RebootNow, false},
		"it cannot be mounted":    {yes, nil, "mount /dev/sdb", job.DecideAgain, false},
		"the main disk is broken": {yes, nil, "write /dev/vdb", job.HoldOn, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := start.clone(t)
			r.Start(nil)
			e, f := jobtest.Look(t, machinetest.Machine(r.Rig))
			if f.Medium != decide.MediumOffered {
				t.Fatalf("found %q; notes %q", f.Medium, f.Notes)
			}
			if c.change != nil {
				c.change(e.Machine, f)
			}
			asked := false
			screen := &script.Panel{Answer: func(q panel.Asked) []panel.Key {
				if strings.Contains(q.Text, "will be lost") {
					asked = true
				}
				return c.keys
			}}
			e.Machine.Panel.Add("script", script.Reader{Panel: screen})
			r.Fail(func(_ int, call string) error {
				if c.fault != "" && strings.HasPrefix(call, c.fault) {
					return syscall.EIO
				}
				return nil
			})
			out := FromMedium(t.Context(), e, f)
			r.Fail(nil)
			jobtest.End(t, e)
			if out.Kind != c.want || asked != c.asked {
				t.Errorf("it ends with %+v, asked %t", out, asked)
			}
			if done := out.Kind == job.RebootNow; (out.Answered == f.OfferFile.ID) == done || (out.Why == "") != done {
				t.Errorf("left alone from now on is %q: %s", out.Answered, out.Why)
			}
			if w := r.Written(); slices.ContainsFunc(w, func(d string) bool { return strings.HasPrefix(d, "sd") }) ||
				c.want == job.DecideAgain && len(w) > 0 {
				t.Errorf("written to are %s", w)
			}
			last, err := r.volume(f).ReadMedium()
			if noted := err == nil && last.ID == f.OfferFile.ID; noted != (c.want == job.RebootNow) {
				t.Errorf("noted is %+v, %v", last, err)
			}
			if c.want == job.HoldOn {
				return
			}
			_, mark := r.system()
			if took := mark.Release == later && mark.Request == f.OfferFile.ID; took != (c.want == job.RebootNow) {
				t.Errorf("the mark is %+v", mark)
			}
		})
	}
}

// TestNoGoodImage: a unit without a good image holds, has destroyed nothing, and the server hears why; also where the policy has it look in
// the network, and there is none: then it says both.
func TestNoGoodImage(t *testing.T) {
	start := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
	start.onVolume(func(v *state.Volume) error {
		return os.WriteFile(v.Path(state.ImageDir, machinetest.Original+".upd"), []byte("half of a download"), 0o600)
	})
	for _, network := range []string{"", "https://server.example/manifest.json"} {
		r := start.clone(t)
		r.Start(nil)
		e, f := jobtest.Look(t, machinetest.Machine(r.Rig))
		e.Machine.Policy.NetworkRecovery = network
		out := Run(t.Context(), e, f)
		jobtest.End(t, e)
		if out.Kind != job.HoldOn || fault.Of(out.Err) == nil || errors.Is(out.Err, fault.Internal) {
			t.Fatalf("it ends with %+v", out)
		}
		if both := strings.Contains(out.Err.Error(), fault.NoNetwork.Code); both != (network != "") {
			t.Errorf("it ends with %+v", out)
		}
		if w := r.Written(); len(w) > 0 {
			t.Errorf("written to are %s", w)
		}
		all := machinetest.Heard(t, e.Queue)
		if last := all[len(all)-1]; last.Phase != record.Failed || last.Code != fault.Of(out.Err).Code {
			t.Errorf("the server hears %+v, the unit holds with %v", last, out.Err)
		}
	}
}

// nobody is a server that is not reached.
type nobody struct{}

func (nobody) Send(context.Context, []record.Event) (record.BatchReply, error) {
	return record.BatchReply{}, errors.New("nobody is there")
}

// TestConnects: a restore brings the network up only where there is a server to report to that the unit may trust, with its key; that it
// cannot is told and stops nothing.
func TestConnects(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	server.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	start := newRig(t, machinetest.Kind{Firmware: layout.UEFI})
	const own, other = "https://own.example", "https://other.example"
	for name, c := range map[string]struct {
		own, data, ca string
		key           bool
		tries         bool
		say           string
		again         bool // after another restore of this boot that reported
	}{
		"the unit's own":                  {own, "", ca, true, true, "no network", false},
		"once more":                       {own, "", ca, true, true, "no network", true},
		"of the restore data":             {"", other, ca, true, true, "no network", false},
		"the restore data's cannot be it": {own, "ftp://x", ca, true, true, "the unit's own hears of the restore", false},
		"none":                            {"", "", ca, true, false, "", false},
		"no key":                          {own, "", ca, false, false, "key cannot be read", false},
		"nobody to trust":                 {own, "", "", true, false, "no server CA", false},
		"not encrypted":                   {"http://own.example", "", ca, true, false, "cannot be used", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := start.clone(t)
			r.Start(nil)
			e, f := jobtest.Look(t, machinetest.Machine(r.Rig))
			e.Machine.Policy.ServerCA = c.ca
			tried := false
			e.Background = func(_ string, do func()) {
				tried = true
				do()
			}
			f.Unit.Server = c.own
			v := r.volume(f)
			if c.data != "" {
				if err := v.WriteRestoreData(state.RestoreData{XLog: c.data}); err != nil {
					t.Fatal(err)
				}
			}
			if !c.key {
				if err := os.Remove(v.Path(state.KeyFile)); err != nil {
					t.Fatal(err)
				}
			}
			if c.again {
				e.Queue.Start(nobody{})
			}
			connect(t.Context(), e, v, f.Unit)()
			var log strings.Builder
			for _, l := range e.Journal.Records() {
				log.WriteString(l.Text() + "\n")
			}
			if tried != c.tries || e.Queue.Sending() != c.again || !strings.Contains(log.String(), c.say) ||
				c.say == "" && log.Len() > 0 {
				t.Errorf("tried %t, sends %t; log:\n%s", tried, e.Queue.Sending(), &log)
			}
		})
	}
}
