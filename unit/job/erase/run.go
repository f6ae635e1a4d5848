// Package erase is the job that erases all main disks of a unit, says what came of it in a certificate, and has the unit restore itself.
//
// The engine, a room of its own, erases one drive; model/erasure judges. This job says which drives: the plan, made of the unit's record
// and of what is there. No permit is made elsewhere. All other disks are read-only in the kernel meanwhile. Where the recovery volume
// shares a drive or an NVM subsystem with the main system, only what lies around it is overwritten, unless a person at the machine wants
// all of it gone (whole.go). On the volume itself the files of the customer are unlinked, and its free space is filled once (recovery.go).
//
// Power may go at any moment: plan and states are on the recovery volume, below [state.EraseDir], and the next boot goes on. The mark of
// the main system is cleared before anything destructive, and until the erase is resolved init starts nothing else ([state.Erase]).
package erase

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"gprovision/hw/drive"
	"gprovision/hw/host"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/job/erase/engine"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/state"
	"gprovision/unit/survey"
	"gprovision/unit/sysroot"
)

// runFile is where an erase is written down, below state.EraseDir.
const runFile = "run.json"

// tries is how often a drive is begun whose erase ends early, before that is taken for its end. A power cut is no such end.
const tries = 3

// requests is how many reads or writes of one drive are under way at once.
const requests = 8

// entry is an erase as it is written down.
type entry struct {
	// ID is that of the request; By says who asked for it.
	ID string `json:"id"`
	By string `json:"by"`
	// Started is when it began.
	Started time.Time `json:"started"`
	Plan    plan      `json:"plan"`
	// Drives are those of the plan, in the same order.
	Drives []progress `json:"drives"`
	// Unlinked is how many files of the recovery volume were unlinked so far.
	Unlinked int `json:"unlinked,omitempty"`
	// Recovery is what goes into the certificate of the recovery volume; nil until its free space was filled, or could not be.
	Recovery *erasure.Volume `json:"recovery,omitempty"`
	// Dumps is what became of crash dumps; nil: there were none.
	Dumps *erasure.Part `json:"dumps,omitempty"`
	// StandIn is the copy of the recovery volume on a main disk; nil until there is to be one.
	StandIn *standIn `json:"standIn,omitempty"`
	// ResolvedBy is the support key that has the recovery device made anew although data may be left there.
	ResolvedBy string `json:"resolvedBy,omitempty"`
	// TPM is nil where there is none, and until it is looked at.
	TPM *clearing `json:"tpm,omitempty"`
}

// progress is how far one drive is.
type progress struct {
	// Tries is how often its erase ended early.
	Tries int `json:"tries,omitempty"`
	// Done is what goes into the certificate; nil until the erase of it has ended.
	Done *erasure.Drive `json:"done,omitempty"`
}

// stateFile is where the state of the drive number i of a plan is.
func stateFile(i int) string { return fmt.Sprintf("drive-%d.json", i) }

// erasing is one erase in progress.
type erasing struct {
	env   job.Env
	f     *survey.Findings
	book  *book
	mu    sync.Mutex // for entry and parts
	entry entry
	meter *panel.Meter
	parts []share // of each drive, and of the recovery volume
	// now and wait are how time passes for the drives.
	now  func() time.Time
	wait func(context.Context, time.Duration) error
	// openSpare opens the free space of the recovery volume, which is mounted at a directory.
	openSpare func(dir string) (spare, error)
	// office is the way to the server; nil: there is none.
	office *office
	// findTPM returns the TPM, or nil if there is none.
	findTPM func() (chip, error)
}

// Run erases the unit, or goes on with that, or shows how it ended.
func Run(ctx context.Context, e job.Env, f *survey.Findings) job.Outcome {
	j := &erasing{env: e, f: f, book: &book{volume: e.Volume}, now: time.Now, wait: wait, openSpare: openSpare, findTPM: func() (chip, error) {
		t, err := machine.FindTPM(e.Machine.Places)
		if t == nil {
			return nil, err // keep a nil pointer out of the interface
		}
		return t, err
	}}
	return j.run(ctx)
}

func (j *erasing) run(ctx context.Context) job.Outcome {
	if j.env.Volume == nil || j.f.RecoveryPart == nil {
		return job.Hold(fault.Newf(fault.NoRecovery, "no recovery volume: nothing could be taken up after a power cut"))
	}
	if asksWhole(j.f) {
		return (&whole{j: j}).run(ctx)
	}
	outcome, err := j.begin()
	if err == nil {
		j.connect(ctx)
	}
	if err == nil && outcome == "" {
		j.env.Began(record.JobErase)
		err = j.env.Run(ctx, record.JobErase, string(decide.Erase), j.steps())
		j.env.Ended(record.JobErase, err)
	}
	if err != nil {
		return stopped(err)
	}
	if j.book.left {
		return job.Outcome{Kind: job.DecideAgain}
	}
	return j.conclude(ctx)
}

// stopped is the outcome of an erase that could not go on.
func stopped(err error) job.Outcome {
	if fault.Of(err) == nil {
		err = fault.Because(fault.EraseStopped, err)
	}
	return job.Hold(err)
}

// steps returns the job as data. Nothing before erase-disks destroys anything.
func (j *erasing) steps() []step.Step {
	device := recoveryDevice(&j.entry)
	switch {
	case j.f.StandIn:
		return standInSteps(j)
	case device >= 0 && j.entry.Drives[device].Done != nil:
		return homeSteps(j)
	}
	out := []step.Step{
		{Name: "lock-others", Say: "Locking others", Run: j.lockOthers},
		{Name: "clear-mark", Say: "Clearing mark", Run: j.clearMark},
		{Name: "erase-disks", Say: "Erasing disks", Run: j.eraseDisks},
		{Name: "choose-place", Say: "Choosing place", Run: func(context.Context) error { return choosePlace(j) }},
		{Name: "clean-recovery", Say: "Cleaning recovery", Run: j.cleanRecovery},
		dumpsStep(j),
		tpmStep(j),
		{Name: "copy-out", Say: "Copying out", Run: func(ctx context.Context) error { return copyOut(ctx, j) }},
		{Name: "certify", Say: "Certificate", Run: j.certify},
	}
	if device < 0 {
		out = slices.DeleteFunc(out, func(s step.Step) bool { return s.Name == "choose-place" || s.Name == "copy-out" })
	}
	return out
}

// begin finds the erase that is to go on, or plans a new one. outcome is that of one that has ended.
func (j *erasing) begin() (outcome erasure.Outcome, err error) {
	request, fresh, err := j.asked()
	if err != nil {
		return "", err
	}
	if fresh && j.f.StandIn {
		return "", j.book.change(func(v *state.Volume) error { return anotherRun(j, v, request) })
	}
	if !fresh {
		if j.f.Erasing.Erase.ID == "" {
			return "", fault.Newf(fault.EraseUnknown, "what is known of an erase of this unit is damaged")
		}
		err := j.book.volume.View(func(v *state.Volume) error { return readEntry(v, &j.entry) })
		if err == nil && j.entry.ID != j.f.Erasing.Erase.ID {
			err = fmt.Errorf("it is of the erase %s", j.entry.ID)
		}
		if err == nil {
			return j.f.Erasing.Erase.Outcome, nil
		}
		if j.f.Erasing.Erase.Outcome != "" || j.f.StandIn {
			return "", fault.Because(fault.EraseUnknown, fmt.Errorf("what is known of the erase %s is lost: %w", j.f.Erasing.Erase.ID, err))
		}
		j.env.Machine.Log.Warn("what is known of the erase that was begun is lost, planning it again", "err", err)
	}
	j.entry = entry{ID: request.ID, By: request.By, Started: time.Now().UTC().Truncate(time.Second)}
	if j.entry.Plan, err = makePlan(j.env.Machine, j.f); err != nil {
		return "", err
	}
	j.entry.Drives = make([]progress, len(j.entry.Plan.Disks))
	return "", j.book.change(func(v *state.Volume) error { return j.write(v, request, fresh) })
}

// write writes down a new erase. Passwords that an earlier one has set are taken over: nobody else knows them.
func (j *erasing) write(v *state.Volume, request state.Request, fresh bool) error {
	kept, err := j.passwords(v)
	if err != nil {
		return err
	}
	if fresh && j.f.Choice.Kind == decide.ChooseErase {
		if err := v.WriteRequest(request); err != nil {
			return err
		}
	}
	for i, s := range kept {
		if err := writeJSON(v, stateFile(i), s); err != nil {
			return err
		}
	}
	for i := range j.entry.Drives {
		if _, ok := kept[i]; !ok {
			if err := state.RemoveEraseFile(v, stateFile(i)); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{certificateFile, voucherFile, proofFile} {
		if err := state.RemoveEraseFile(v, name); err != nil {
			return err
		}
	}
	return errors.Join(writeJSON(v, runFile, j.entry), state.WriteErase(v, j.state("")))
}

// passwords returns states that hold nothing but the password that an earlier erase has set on a drive of the new plan.
func (j *erasing) passwords(v *state.Volume) (map[int]engine.State, error) {
	out := map[int]engine.State{}
	var old entry
	if err := readEntry(v, &old); err != nil {
		return out, nil // there was none
	}
	for i, was := range old.Plan.Disks {
		s, err := readState(v, i)
		if err != nil {
			return nil, err
		}
		for k, now := range j.entry.Plan.Disks {
			if len(s.Password) > 0 && now.disk().Serial == was.disk().Serial && now.disk().Model == was.disk().Model {
				out[k] = engine.State{Password: s.Password}
			}
		}
	}
	return out, nil
}

// asked returns the request that the erase follows from. fresh reports whether nothing was done for it yet.
func (j *erasing) asked() (r state.Request, fresh bool, err error) {
	switch {
	case j.f.Choice.Kind == decide.ChooseErase:
		r, err = state.NewRequest(state.KindErase, "", "a person at the machine", time.Now())
		fresh = true
	case j.f.EraseRequested():
		r, fresh = *j.f.Request, j.f.Erasing.Erase == nil || j.f.Erasing.Erase.ID != j.f.Request.ID
		if r.Whole {
			err = fault.Newf(fault.Policy, "only a person at the machine has the drive of the recovery volume erased as a whole")
		}
	default:
		r = state.Request{ID: j.f.Erasing.Erase.ID, By: j.f.Erasing.Erase.By}
	}
	return r, fresh, err
}

func readEntry(v *state.Volume, e *entry) error {
	b, err := state.ReadEraseFile(v, runFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, e); err != nil {
		return fmt.Errorf("read %s: %w", runFile, err)
	}
	if len(e.Drives) != len(e.Plan.Disks) || len(e.Drives) == 0 {
		return fmt.Errorf("read %s: %d drives of %d", runFile, len(e.Drives), len(e.Plan.Disks))
	}
	return nil
}

// readState returns the state of a drive; that of one that was not begun is the zero one.
func readState(v *state.Volume, i int) (s engine.State, err error) {
	b, err := state.ReadEraseFile(v, stateFile(i))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", stateFile(i), err)
	}
	return s, nil
}

func writeJSON(v *state.Volume, name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return state.WriteEraseFile(v, name, b)
}

// lockOthers makes the kernel refuse writes to all disks that are not of the plan, but to that of the recovery volume.
func (j *erasing) lockOthers(context.Context) error {
	disks, err := j.env.Machine.Disks()
	if err != nil {
		return err
	}
	for i, p := range j.entry.Plan.Disks {
		if found, err := p.again(disks); err == nil {
			j.entry.Plan.Disks[i] = found
		} else if !p.Missing {
			j.env.Machine.Log.Warn("a disk of the plan is not there", "err", err)
		}
	}
	for _, d := range j.entry.Plan.others(disks) {
		if d.Name == j.f.RecoveryPart.Disk.Name {
			continue
		}
		if err := j.env.Machine.SetReadOnly(d.Path, true); err != nil {
			return fmt.Errorf("make %s read-only: %w", d.Name, err)
		}
	}
	return nil
}

// clearMark clears the mark of the main system, so that nothing takes it for complete, and ends the array that it is on.
func (j *erasing) clearMark(ctx context.Context) error {
	m := j.env.Machine
	if part := j.f.MainPart; part != nil {
		root := m.Places.Main
		if err := m.Mount(part.Path, root, "ext4", host.MountOptions{}); err != nil {
			if j.f.Main == decide.MainMarked {
				return fmt.Errorf("mount the main system to clear its mark: %w", err)
			}
			m.Log.Info("main system cannot be mounted, no mark to clear", "err", err)
		} else if err := errors.Join(sysroot.ClearMark(root, m.Site.Names.Mark), m.Unmount(root)); err != nil {
			return err
		}
	}
	return m.StopArray(ctx)
}

// eraseDisks erases all main disks of the plan at once, or the recovery device where another volume stands in for it.
func (j *erasing) eraseDisks(ctx context.Context) error {
	defer track(ctx, j)()
	var now []int
	for i, p := range j.entry.Plan.Disks {
		if j.f.StandIn == (p.Role == erasure.RecoveryVolume) {
			now = append(now, i)
		}
	}
	sleep := newSleeper(len(now), func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		j.env.Machine.Log.Info("a drive is frozen: the machine sleeps for some seconds", journal.ForPerson())
		return j.env.Watchdog.Unfreeze()
	})
	desks := make([]*desk, len(j.entry.Plan.Disks))
	for _, i := range now {
		p := j.entry.Plan.Disks[i]
		desks[i] = &desk{m: j.env.Machine, p: p, sleep: sleep}
		if p.shares() {
			j.book.shared = append(j.book.shared, desks[i])
		}
	}
	errs := make([]error, len(desks))
	var wait sync.WaitGroup
	for _, i := range now {
		wait.Go(func() {
			defer func() {
				if v := recover(); v != nil {
					j.env.Machine.Log.Error("panic", "in", "erase", "value", fmt.Sprint(v), "stack", string(debug.Stack()))
					errs[i] = fault.Newf(fault.Internal, "erase: panic: %v", v)
				}
			}()
			defer sleep.leave()
			errs[i] = j.eraseDisk(ctx, i, desks[i])
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// eraseDisk erases one drive. The error says that it ended early, and is to be begun again.
func (j *erasing) eraseDisk(ctx context.Context, i int, d *desk) error {
	if j.entry.Drives[i].Done != nil {
		j.moved(i, 1)
		return nil
	}
	if d.p.Missing {
		return j.done(i, d.p.unerased("the drive is not there"))
	}
	result, err := j.engine(ctx, i, d, "")
	if err == nil {
		result, err = unlock(ctx, j, i, d, result)
	}
	if err == nil {
		j.env.Machine.Log.Info("drive erased", "disk", result.Name, "serial", result.Serial, "outcome", string(result.Outcome),
			"erased", string(result.Level), "method", string(result.Evidence.Method), "reasons", fmt.Sprint(result.Reasons), journal.ForPerson())
		return j.done(i, result)
	}
	j.env.Machine.Log.Warn("the erase of a drive ended early", "disk", d.p.disk().Name, "err", err, journal.ForPerson())
	if ctx.Err() != nil {
		return err
	}
	if j.entry.Drives[i].Tries+1 >= tries {
		result.NotReached = append(result.NotReached, erasure.Printable("the erase ended early: "+err.Error()))
		return j.done(i, result)
	}
	return errors.Join(err, j.note(func() { j.entry.Drives[i].Tries++ }))
}

// engine runs the engine on one drive, with its PSID if a person has typed that. The result says something whatever the error is.
func (j *erasing) engine(ctx context.Context, i int, d *desk, psid drive.PSID) (erasure.Drive, error) {
	none := d.p.unerased("nothing was done to it")
	var s engine.State
	err := j.book.change(func(v *state.Volume) (err error) { s, err = readState(v, i); return err })
	if err != nil {
		return none, err
	}
	if err := d.sit(); err != nil {
		return none, err
	}
	target, err := d.target()
	if err != nil {
		return none, errors.Join(err, d.leave())
	}
	target.PSID, target.Unfreeze = psid, d.sleep.unfreeze
	if j.book.memory != nil {
		target.Password = []byte(wholePassword)
	}
	result, err := engine.Run(ctx, engine.Env{
		Now: j.now, Wait: j.wait, Random: rand.Reader, Requests: requests,
		Announce: func(before erasure.Drive) error {
			err := j.announce(ctx, before)
			if err != nil || j.book.memory == nil && (before.Role != erasure.RecoveryVolume || before.Evidence.Locked) {
				return err
			}
			if err = d.hide(target); err != nil && j.book.memory != nil { // of a drive that is locked, for instance
				j.env.Machine.Log.Warn("the partition tables stay for now", "disk", before.Name, "err", err)
				return nil
			}
			return err
		},
		Store: func(s engine.State) error {
			return j.book.change(func(v *state.Volume) error { return writeJSON(v, stateFile(i), s) })
		},
		Progress: func(part float64) { j.moved(i, part) },
	}, target, s)
	return result.Drive, errors.Join(err, d.leave())
}

// wait returns after a while, or when the context ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// announce tells what a drive was before anything is sent that changes it.
func (j *erasing) announce(ctx context.Context, before erasure.Drive) error {
	b, err := json.Marshal(before)
	if err != nil {
		return err
	}
	j.env.Machine.Log.Info("drive before the erase", "disk", before.Name, "model", before.Model, "serial", before.Serial, "state", string(b))
	j.tellBefore(ctx, before.Name, b)
	return j.book.change(func(v *state.Volume) error { return state.WriteEraseFile(v, "before-"+before.Name+".json", b) })
}

// share is what one drive, or the recovery volume, has of the progress of the job.
type share struct{ done, of int64 }

// track shows the progress of the job, which is one for all of it, while a step runs: until the function is called that it returns.
func track(ctx context.Context, j *erasing) (stop func()) {
	if j.parts == nil {
		for _, p := range j.entry.Plan.Disks {
			j.parts = append(j.parts, share{of: p.bytes()})
		}
		if j.book.memory == nil && !j.f.StandIn {
			j.parts = append(j.parts, share{of: j.f.RecoveryPart.Partition.Size})
		}
	}
	var total int64
	for _, p := range j.parts {
		total += p.of
	}
	j.meter, stop = j.env.Machine.Track(ctx, total)
	return stop
}

// moved moves the meter: a part of a drive, from 0 to 1, is done. The recovery volume comes after the last drive.
func (j *erasing) moved(i int, part float64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.parts[i].done = int64(part * float64(j.parts[i].of))
	var sum int64
	for _, p := range j.parts {
		sum += p.done
	}
	j.meter.Set(sum)
}

// done writes down how the erase of a drive has ended.
func (j *erasing) done(i int, d erasure.Drive) error {
	j.moved(i, 1)
	return j.note(func() { j.entry.Drives[i].Done = &d })
}

// note changes what is written down of the erase.
func (j *erasing) note(change func()) error {
	return j.book.change(func(v *state.Volume) error {
		j.mu.Lock()
		defer j.mu.Unlock()
		change()
		return writeJSON(v, runFile, j.entry)
	})
}
