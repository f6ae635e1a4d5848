package erase

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"gprovision/hw/filesystem"
	"gprovision/model/erasure"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/unit/job"
	"gprovision/unit/machine"
	"gprovision/unit/machine/machinetest"
	"gprovision/unit/state"
)

// changed is the free space of a filesystem that behaves in another way.
type changed struct {
	spare
	read    func(p []byte, off int64)
	discard bool
}

func (c changed) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.spare.ReadAt(p, off)
	c.read(p[:n], off)
	return n, err
}

func (c changed) Discard() (int64, error) {
	if !c.discard {
		return 0, errors.ErrUnsupported
	}
	return c.spare.Discard()
}

// TestRecoveryVolume: what is wrong with it is in its own line, lowers no main disk, and does not keep the unit from going on.
func TestRecoveryVolume(t *testing.T) {
	flips := func(p []byte, off int64) {
		if off == 0 {
			p[9] ^= 1
		}
	}
	for name, c := range map[string]struct {
		read    func(p []byte, off int64)
		fails   string // the call
		outcome erasure.Outcome
		reason  erasure.Reason
	}{
		"something else is read": {flips, "", erasure.Failed, "different"},
		"it cannot be opened":    {nil, "open spare", erasure.Unknown, "not-read-back"},
		"it cannot be written":   {nil, "write spare", erasure.Unknown, "not-filled"},
		"it cannot be flushed":   {nil, "sync spare", erasure.Unknown, "not-read-back"},
		"it cannot be read":      {nil, "read spare", erasure.Unknown, "not-read-back"},
		"it is not discarded":    {nil, "discard spare", erasure.Weaker, "from-within"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.policy.Erase.Accept = policy.AcceptRestore
			if c.read != nil {
				w.spare = func(s spare) spare { return changed{s, c.read, true} }
			}
			out := w.boot(func(_ int, call string) error {
				if call == c.fails {
					return syscall.EIO
				}
				return nil
			})
			got := w.certificate()
			if v := got.Volume; v.Outcome != c.outcome || v.Reasons[0] != c.reason || got.Recovery.Outcome != c.outcome {
				t.Errorf("%s %q: %+v", v.Outcome, v.Reasons, v)
			}
			if out.Kind != job.RebootNow || got.Outcome != erasure.Weaker {
				t.Errorf("%+v; %s", out, got.Headline())
			}
			filled := c.fails == "" || c.fails == "discard spare"
			if v := got.Volume; (v.Discarded > 0) != (c.fails == "") && filled || c.fails == "open spare" && len(v.NotReached) < 3 {
				t.Errorf("%d bytes are discarded; not reached: %q", v.Discarded, v.NotReached)
			}
		})
	}
}

// TestRecoveryCut: wherever power goes while the free space is filled, it is filled again, and the main disks are not erased again.
func TestRecoveryCut(t *testing.T) {
	w := newWorld(t)
	w.policy.Erase.Accept = policy.AcceptRestore
	start := w.r.Clone(t)
	for _, at := range []string{"open spare", "write spare", "sync spare", "read spare", "discard spare"} {
		w.r = start.Clone(t)
		out := w.boot(func(_ int, call string) error {
			if call == at {
				return machinetest.ErrCut
			}
			return nil
		})
		if out.Kind == job.RebootNow {
			t.Fatalf("%s: power did not go", at)
		}
		out = w.boot()
		v := w.certificate().Volume
		if written := w.r.Written(); out.Kind != job.RebootNow || v.Outcome != erasure.Weaker || v.Unlinked != 1 ||
			v.Filled != machinetest.SpareSize || len(written) != 0 {
			t.Errorf("%s: %+v, %+v, written %q", at, out, v, written)
		}
	}
}

// TestHeadline: what is shown names main disks and recovery volume.
func TestHeadline(t *testing.T) {
	w := newWorld(t)
	out := w.boot()
	const want = "main disks weaker (clear), recovery volume weaker (clear)"
	if f := fault.Of(out.Err); f != fault.EraseWeaker || !strings.Contains(out.Err.Error(), want) {
		t.Errorf("%v", out.Err)
	}
}

// volumeImage is a filesystem in a file, as provisioning makes a recovery volume, mounted.
type volumeImage struct{ file, dir string }

func newVolumeImage(t *testing.T, file string) volumeImage {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", file, dir).CombinedOutput(); err != nil {
		machinetest.Skip(t, string(out))
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return volumeImage{file, dir}
}

func (i volumeImage) run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// holds reports whether a text is anywhere on the medium.
func (i volumeImage) holds(t *testing.T, text string) bool {
	t.Helper()
	must(t, exec.Command("sync", "-f", i.dir).Run())
	b, err := os.ReadFile(i.file)
	must(t, err)
	return bytes.Contains(b, []byte(text))
}

func (i volumeImage) free(t *testing.T) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(i.dir, &st))
	return int64(st.Bfree) * st.Bsize
}

// TestFillExt4: on a real filesystem, nearly empty or full, nothing is left of a file that was unlinked, nor of one that was replaced; the
// filesystem is whole afterwards. A power cut while it is full gives the space back at the next mount, a read-only one too.
func TestFillExt4(t *testing.T) {
	if os.Geteuid() != 0 {
		machinetest.Skip(t, "mounting needs root")
	}
	const log, replaced = "a line of the log that nobody else has", "replaced-words-of-a-customer"
	for name, c := range map[string]struct{ full, discard bool }{"empty": {false, false}, "full": {true, false}, "discarded": {false, true}} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "volume")
			must(t, errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 64<<20)))
			run := machine.Real(slog.New(slog.DiscardHandler), nil, nil).Run
			must(t, filesystem.MakeExt4(t.Context(), run, file, "RECOVERY", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"))
			i := newVolumeImage(t, file)
			v := state.Open(i.dir)
			must(t, os.MkdirAll(v.Path(state.LogDir), 0o700))
			must(t, state.WriteEraseFile(v, "note", []byte(replaced)))
			must(t, os.WriteFile(v.Path(state.LogDir+"/x.log"), bytes.Repeat([]byte(log+"\n"), 50_000), 0o600))
			must(t, exec.Command("sync", "-f", i.dir).Run())
			must(t, state.WriteEraseFile(v, "note", make([]byte, 8192)))
			if c.full {
				big, err := os.Create(v.Path("big"))
				must(t, err)
				for n := 1 << 20; n >= 1<<12; {
					if _, err := big.Write(make([]byte, n)); err != nil {
						n /= 2
					}
				}
				must(t, big.Close())
				if err := state.WriteEraseFile(v, "note", make([]byte, 8192)); !errors.Is(err, unix.ENOSPC) {
					t.Errorf("it is not full: %v", err)
				}
			}
			if n, err := state.Forget(v); err != nil || n != 1 {
				t.Fatal(n, err)
			}
			if !i.holds(t, log) || !i.holds(t, replaced) && !c.full { // what made it full has the place of the old copy
				t.Fatal("nothing is left even before")
			}
			before, cut := i.free(t), filepath.Join(t.TempDir(), "cut")
			m := &machine.Machine{Doors: machine.Doors{Places: machine.Places{Recovery: i.dir}}, Log: slog.New(slog.DiscardHandler)}
			open := func(dir string) (spare, error) {
				s, err := openSpare(dir)
				return changed{s, func([]byte, int64) {}, c.discard}, err
			}
			got, err := fill(t.Context(), m, open, func(part float64) {
				if part < 0.5 || cut == "" {
					return
				}
				if i.free(t) > 64<<10 {
					t.Errorf("%d bytes are free", i.free(t))
				}
				i.run(t, "cp", "--sparse=always", file, cut) // what is on the medium at this moment
				after := newVolumeImage(t, cut)
				must(t, unix.Mount("", after.dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
				if list, err := os.ReadDir(after.dir); err != nil || after.free(t) < before-64<<10 || strings.Contains(namesOf(list), "spare") {
					t.Errorf("after a power cut %d of %d bytes are free: %s, %v", after.free(t), before, namesOf(list), err)
				}
				must(t, unix.Unmount(after.dir, 0))
				cut = ""
			})
			must(t, err)
			if x := erasure.JudgeVolume(got, ""); x.Outcome != erasure.Weaker || got.Left > 64<<10 || int64(got.Filled) < before-1<<20 ||
				cut != "" || (got.Discarded > 0) != c.discard {
				t.Errorf("%s %q: %+v", x.Outcome, x.Reasons, got)
			}
			if got.Left == 0 && (i.holds(t, log) || i.holds(t, replaced)) { // what is left of the space keeps its content, and is told
				t.Error("old content is left")
			}
			if free := i.free(t); free < before {
				t.Errorf("%d of %d bytes are free again", free, before)
			}
			must(t, state.WriteEraseFile(v, "note", make([]byte, 8192)))
			must(t, unix.Unmount(i.dir, 0))
			i.run(t, "e2fsck", "-fn", file)
		})
	}
}

func namesOf(list []os.DirEntry) string {
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
