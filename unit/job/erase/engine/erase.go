//go:generate env GPROV_GENERATE=1 go test -count=1 -run ^(TestLiars|TestDefences)$ .

// Package engine erases one drive and gathers the evidence of it: what the drive said, and what secret places held before and after.
// Whether the data is gone says model/erasure; hw/drive sends the commands, each with a permit.
//
// [Run] looks at the drive, keeps what secret places hold, and tries the methods that the drive says it knows, strongest first, an
// overwrite by the host last. After each it hears both witnesses. One that is refused, fails, stalls or is not confirmed is recorded, and
// the next is tried, until the outcome is at least erasure.Weaker. Where nothing erased there is no method in the evidence, so it is
// erasure.Failed.
//
// Power may go at any moment: a [State] is stored before and after each change, and Run goes on from it. A drive that goes on by itself is
// asked; one that keeps no word is told again.
//
// A drive that encrypts is set back by the PSID on its label first, if a person has typed that. Where all is to be read every block gets a
// mark before the erase, beside the places. The media of an NVMe drive are looked at in the media verification state, where it has that.
//
// [Fill] overwrites the free space of a filesystem from within, by the same stream.
//
// It chooses no drive, makes no permit, keeps no files, and leaves signing and showing to others.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"gprovision/hw/drive"
	"gprovision/model/erasure"
)

// Target is a drive that is to be erased.
type Target struct {
	// Known is what is known of it without asking: Role, Name, Bus, BlockSize, and of its evidence Media and Path. Model, Serial and Firmware
	// count where Drive is nil only.
	Known erasure.Drive
	// Drive sends commands to it; nil where there are none, as of a virtio disk.
	Drive *drive.Drive
	// Permit allows them: one for all namespaces where the drive is an NVM subsystem with several.
	Permit drive.Permit
	// Guard stands for the permit where there is no Drive: it returns an error unless the disk may be written now.
	Guard func() error
	// Areas are what is to be erased, in order: the device, or each namespace, or ranges.
	Areas []Area
	// Whole reports that no more than Areas is on the drive, so that it may get commands that reach all of it.
	Whole bool
	// Reopen makes the kernel ask for the size again after that was changed to a number of sectors, and returns a permit for the drive as it
	// is then. Where it is nil a host protected area is not opened.
	Reopen func(sectors uint64) (drive.Permit, error)
	// Require is the level that the policy demands, empty for none.
	Require erasure.Level
	// Full makes it read every block after the erase, and not the secret places only: every block is written and read back before, so that
	// whatever is found there later can be told.
	Full bool
	// Password is that of a Security Erase. Nothing: it is secret, and in the State until it is taken away. For where no State outlasts a
	// power cut: somebody has to unlock the drive by hand then.
	Password []byte
	// PSID is the number on the label of a drive that encrypts, if a person has typed it to set the drive back.
	PSID drive.PSID
	// Restore takes a device configuration overlay away, for good. Else what it hides is counted as not reached.
	Restore bool
	// Unfreeze makes the security commands of a frozen drive work, as drive.Machine.Unfreeze does, with the watchdog stopped meanwhile. It is
	// called once at most, and only if the drive has no other method. Nothing: they stay frozen.
	Unfreeze func() error
}

// Env is what an erase needs of the world.
type Env struct {
	// Now is the time.
	Now func() time.Time
	// Wait returns after a while, or when the context ends, with its error.
	Wait func(ctx context.Context, d time.Duration) error
	// Random gives secret bytes.
	Random io.Reader
	// Announce takes away from this machine what the drive was before anything is sent that changes it. An error ends the erase.
	Announce func(before erasure.Drive) error
	// Store writes the state where a power cut does not reach, and not to this drive. An error ends the erase. It keeps no reference to it.
	Store func(State) error
	// Progress is told how much is done, from 0 to 1: of the present method, with the marks of all blocks before it and the look at them after
	// it where Target.Full asks for that. The next method begins anew. It may be nil.
	Progress func(part float64)
	// Requests is how many reads or writes are under way at once.
	Requests int
}

// State is what an erase goes on from after a power cut. The zero State begins one. It holds secrets: who knows the places knows where data
// could hide.
type State struct {
	// Announced reports that Announce has succeeded.
	Announced bool
	// Seed is what places and keys are made of.
	Seed []byte
	// Blocks is how many there were when the places were chosen.
	Blocks uint64
	// Samples is what is kept of the places; nothing until they were looked at.
	Samples []byte
	// Marks is how far the marks of all blocks are; nothing where only places are looked at.
	Marks Position
	// Unmarked reports that marks were given up.
	Unmarked bool
	// Stale reports that a method came to nothing, and that what the places hold was not looked at since.
	Stale bool
	// Unfrozen reports that Unfreeze was called.
	Unfrozen bool
	// Restored reports that a device configuration overlay was told to go away.
	Restored bool
	// Reverted reports that the drive was told to set itself back by its PSID.
	Reverted bool
	// Password is the user password of the drive: there from before it is set until the drive has none any more.
	Password []byte
	// Planned reports that Left was filled.
	Planned bool
	// Left are the methods that are left, the present one first.
	Left []erasure.Method
	// Turn is that of the first method of Left.
	Turn Turn
	// Attempts are the methods that are over.
	Attempts []Attempt
	// Commands are all that were sent.
	Commands []erasure.Command
	// Done reports that all is over.
	Done bool
}

// Turn is how far one method is.
type Turn struct {
	// Sent reports that its command may have been sent.
	Sent bool
	// Starts is how often it was started.
	Starts int
	// Word is what the drive said so far.
	Word erasure.Word
	// Position is how far an overwrite is.
	Position Position
	// Verify reports that the drive was told to go into the media verification state.
	Verify bool
	// Verified is what was found in the media verification state, nothing if there was none.
	Verified *erasure.Samples
	// Evidence is there when all is but the negative control.
	Evidence *erasure.Evidence
}

// Attempt is a method that is over.
type Attempt struct {
	Method erasure.Method
	// Refused is why it did not begin; else it is empty, and the rest counts.
	Refused  string
	Evidence erasure.Evidence
	Verdict  erasure.Verdict
	// Unwritten are blocks that an overwrite could not write, and More how many blocks it was in further ranges.
	Unwritten []erasure.Range
	More      erasure.Count
}

// Result is how an erase ended.
type Result struct {
	// Drive goes into the certificate.
	Drive erasure.Drive
	// Attempts are all methods that were tried, in order.
	Attempts []Attempt
}

// errStop ends the erase: no further method would change it.
var errStop = errors.New("the erase cannot go on")

// stops reports whether an error ends the erase, and not the method only.
func stops(err error) bool {
	return errors.Is(err, errStop) || errors.Is(err, drive.ErrNotPermitted) || errors.Is(err, context.Canceled) ||
		errors.Is(err, context.DeadlineExceeded)
}

// run is an erase under way.
type run struct {
	link *link
	t    Target
	s    *State
	out  erasure.Drive
	caps drive.Capabilities
	// hidden is how many sectors nobody here can look at; apart is how many of them only a Sanitize reaches.
	hidden, apart erasure.Count
	// overlay is how many sectors a device configuration overlay hides; they are among hidden.
	overlay erasure.Count
	// closed is how many sectors a drive had before its host protected area was opened; 0: it was not.
	closed uint64
}

// Run erases a drive, or goes on from a state that was stored. The result is whole and judged whatever the error is: one says that the
// erase ended early, and that a later Run may go on.
func Run(ctx context.Context, env Env, t Target, s State) (Result, error) {
	r := &run{t: t, s: &s, out: t.Known, link: &link{
		ctx: ctx, env: env, state: &s, drive: t.Drive, guard: t.Guard, permit: t.Permit, blockSize: int(t.Known.BlockSize),
		password: t.Password, full: t.Full,
	}}
	r.link.areas = r.link.gateAreas(t.Areas)
	// What a power cut did to a drive is not known, so that what was kept of the places before may not be there any more.
	s.Stale = s.Stale || s.Planned && !s.Turn.Sent
	r.out.Evidence.Part = !t.Whole
	r.out.Evidence.Samples.Reset = erasure.ResetNone
	if t.Drive == nil && t.Guard == nil {
		return r.result(), fmt.Errorf("%w: there is neither a drive nor a guard", drive.ErrNotPermitted)
	}
	err := r.all()
	return r.result(), errors.Join(err, r.putBack())
}

func (r *run) all() error {
	if err := r.link.clearPassword(); stops(err) {
		return err
	}
	if err := r.look(); err != nil {
		return err
	}
	if r.s.Done {
		return nil
	}
	if !r.s.Announced {
		if err := r.link.env.Announce(r.out); err != nil {
			return fmt.Errorf("%w: tell the state before: %w", errStop, err)
		}
		r.s.Announced = true
		if err := r.link.store(); err != nil {
			return err
		}
	}
	if err := r.settle(); err != nil {
		return err
	}
	if err := r.unfreeze(); err != nil {
		return err
	}
	if err := r.revert(); err != nil {
		return err
	}
	if !r.out.Evidence.Locked { // else nothing can be read, and no method is tried
		if err := r.open(); err != nil {
			return err
		}
		if err := r.sample(); err != nil {
			return err
		}
		if !r.s.Planned {
			if err := r.mark(); err != nil {
				return err
			}
		}
	}
	if err := r.chain(); err != nil {
		return err
	}
	r.s.Done = true
	return r.link.store()
}

// busy reports whether a drive did not take a command, and may take it a moment later: BUSY and TASK SET FULL (SAM), Namespace Not Ready
// and Command Interrupted (NVMe figure 102).
func busy(err error) bool {
	var sense drive.SenseError
	var status drive.StatusError
	return errors.As(err, &sense) && (sense.Status == 0x08 || sense.Status == 0x28) ||
		errors.As(err, &status) && (status.Status&0x7ff == 0x82 || status.Status&0x7ff == 0x21)
}

// settle waits until a drive that went on by itself while there was no power has done, and notes for the word that it was seen.
func (r *run) settle() error {
	seen, err := r.link.idle()
	if stops(err) {
		return err
	}
	if w := r.s.Turn.Word; seen && r.s.Turn.Sent {
		switch {
		case w.NVMeSanitize != nil:
			w.NVMeSanitize.SeenInProgress = true
		case w.ATASanitize != nil:
			w.ATASanitize.SeenInProgress = true
		}
	}
	return nil
}

// sample chooses secret places and keeps what they hold. Places that were chosen among another number of blocks are of no use, and neither
// is what was done since.
func (r *run) sample() error {
	if len(r.s.Samples) > 0 && r.s.Blocks == r.link.blocks() {
		return nil
	}
	r.s.Planned, r.s.Left, r.s.Turn = false, nil, Turn{}
	return r.choose()
}

// choose chooses secret places among the blocks that there are now, and keeps what they hold.
func (r *run) choose() error {
	s := r.s
	s.Blocks, s.Samples, s.Seed, s.Marks, s.Unmarked = r.link.blocks(), nil, make([]byte, 32), Position{}, false
	if _, err := io.ReadFull(r.link.env.Random, s.Seed); err != nil {
		return fmt.Errorf("%w: read random bytes: %w", errStop, err)
	}
	if err := errors.Join(r.link.ctx.Err(), r.link.allowed()); err != nil {
		return err
	}
	r.link.ready(false)
	kept, err := r.link.sampler().before(s.Blocks, r.settled)
	if stops(err) {
		return err
	}
	if err != nil {
		// Nothing of it counts, and the methods are tried all the same: the outcome is at most unknown.
		ends, random := r.link.sampler().places(s.Blocks)
		kept = make([]byte, digestSize*(len(ends)+len(random)))
	}
	s.Samples = kept
	return r.link.store()
}

// refresh looks at the places once more before a method is started after another, or again after a power cut: where what came to nothing
// has unmapped blocks they are constant, and would say that the next one erased them.
func (r *run) refresh() error {
	if err := errors.Join(r.link.ctx.Err(), r.link.allowed()); err != nil {
		return err
	}
	look := r.choose
	if r.s.Blocks == r.link.blocks() {
		look = func() error { return lookAgain(r) }
	}
	if err := look(); err != nil {
		return err
	}
	r.s.Marks = Position{}
	if err := r.mark(); err != nil {
		return err
	}
	r.s.Stale = false
	return r.link.store()
}

// lookAgain keeps what the places hold now.
func lookAgain(r *run) error {
	return r.link.sampler().refresh(r.s.Blocks, r.s.Samples, r.settled)
}

// chain tries the methods.
func (r *run) chain() error {
	if !r.s.Planned {
		r.s.Left, r.s.Planned = r.plan(), true
	}
	for len(r.s.Left) > 0 {
		m := r.s.Left[0]
		var good bool
		failed := r.link.failed()
		if r.s.Stale && !failed && m != erasure.Overwrite { // that is read back by itself
			if err := r.refresh(); err != nil {
				return err
			}
		}
		if !failed || sanitizes(m) {
			var err error
			if good, err = r.turn(m); err != nil {
				return err
			}
			r.s.Stale = r.s.Stale || r.s.Attempts[len(r.s.Attempts)-1].Refused == ""
		}
		if good {
			return nil
		}
		r.s.Left, r.s.Turn = r.s.Left[1:], Turn{}
		if err := r.link.store(); err != nil {
			return err
		}
	}
	return nil
}

// turn erases by one method and hears both witnesses. good reports whether nothing else has to be tried.
func (r *run) turn(m erasure.Method) (good bool, err error) {
	turn := &r.s.Turn
	if turn.Evidence == nil {
		if err := r.erase(m); stops(err) {
			return false, err
		} else if err != nil {
			r.s.Attempts = append(r.s.Attempts, Attempt{Method: m, Refused: err.Error()})
			return false, nil
		}
		e, err := r.witness(m)
		if err != nil {
			return false, err
		}
		turn.Evidence = &e
		if err := r.link.store(); err != nil {
			return false, err
		}
	}
	e := *turn.Evidence
	e.Control = erasure.Control{Written: true, Reported: true, Zeroed: true}
	if passes(erasure.Judge(e, r.t.Require)) {
		if err := r.link.allowed(); err != nil {
			return false, err
		}
		e.Control = r.link.sampler().control(r.s.Blocks)
	} else {
		e.Control = erasure.Control{}
	}
	a := Attempt{Method: m, Evidence: e, Verdict: erasure.Judge(e, r.t.Require)}
	if m == erasure.Overwrite {
		a.Unwritten, a.More = turn.Position.Unwritten, turn.Position.More
	}
	r.s.Attempts = append(r.s.Attempts, a)
	return passes(a.Verdict), nil
}

// passes reports whether an outcome needs no further method.
func passes(v erasure.Verdict) bool {
	return v.Outcome == erasure.Proved || v.Outcome == erasure.Weaker
}

// reset resets the controller of the drive, so that what it has in a cache only is lost, and opens what that has closed. The error is one
// that ends the erase.
func reset(r *run) (erasure.Reset, error) {
	if r.t.Drive == nil {
		return erasure.ResetNone, nil
	}
	came := erasure.ResetNone
	switch err := r.link.again(func() error { return r.t.Drive.Reset(r.link.permit) }); {
	case stops(err):
		return came, err
	case err == nil:
		came = erasure.ResetDone
	case !errors.Is(err, errors.ErrUnsupported):
		came = erasure.ResetFailed
	}
	return came, r.open()
}

// settled is called when marks or canaries were written and flushed. One counts only if the drive has it after a reset too: else it could
// be lost with a cache, and what was never erased would look changed.
func (r *run) settled() error {
	came, err := reset(r)
	if err != nil {
		return err
	}
	r.link.ready(false)
	if came == erasure.ResetFailed {
		return errors.New("the controller cannot be reset")
	}
	return nil
}

// witness gathers the evidence of a method that is over, but for the negative control.
func (r *run) witness(m erasure.Method) (erasure.Evidence, error) {
	e := r.out.Evidence
	e.Method, e.Word = m, r.s.Turn.Word
	came, err := reset(r)
	if err != nil {
		return e, err
	}
	e.FailureMode = r.link.failed()
	if !e.FailureMode {
		r.link.ready(false)
	}
	e.Samples = r.link.after()
	switch v := r.s.Turn.Verified; {
	case v == nil && r.s.Turn.Verify:
		// The drive never went into that state, or power went in it. It has unmapped all blocks since, so what is seen now says nothing of
		// what it erased.
		e.Samples = erasure.Samples{Blocks: e.Samples.Blocks}
	case v != nil:
		gone := v.Random.Changed + v.Random.Constant
		e.MediaVerified = !asBefore(*v) && gone >= min(erasure.MinSamples, v.Blocks)
		if asBefore(*v) && !asBefore(e.Samples) { // the media still had it, and then it was unmapped
			e.Samples = *v
		}
	}
	e.Samples.Reset = came
	e.Hidden = r.hidden
	if n := r.link.blocks(); n > r.s.Blocks { // a hidden area could not be opened before
		e.Hidden += erasure.Count(n - r.s.Blocks)
	}
	if !sanitizes(m) {
		e.Hidden += r.apart
	}
	e.Reallocated = r.link.reallocated()
	return e, nil
}

// result is what can be said now.
func (r *run) result() Result {
	d := r.out
	size := erasure.Count(view(r.t.Areas).size())
	d.Evidence.Samples.Blocks = size / erasure.Count(max(1, d.BlockSize))
	if r.t.Whole || d.Bytes == 0 {
		d.Bytes = size
	}
	d.Evidence.Hidden = r.hidden + r.apart
	d.Commands = r.s.Commands
	for _, a := range slices.Backward(r.s.Attempts) {
		if a.Refused != "" {
			continue
		}
		d.Evidence, d.Unwritten = a.Evidence, a.Unwritten
		d.Bytes = max(d.Bytes, a.Evidence.Samples.Blocks*erasure.Count(d.BlockSize))
		if a.More > 0 {
			d.NotReached = append(d.NotReached, fmt.Sprintf("%d more blocks that could not be written", a.More))
		}
		break
	}
	if r.overlay > 0 {
		d.NotReached = append(d.NotReached, fmt.Sprintf("%d sectors behind a device configuration overlay", r.overlay))
	}
	if len(r.s.Password) > 0 {
		d.NotReached = append(d.NotReached, "the user password that was set for the erase is still there")
	}
	v := erasure.Judge(d.Evidence, r.t.Require)
	d.Outcome, d.Level, d.Reasons = v.Outcome, v.Level, v.Reasons
	return Result{Drive: d, Attempts: r.s.Attempts}
}
