//go:build soak

package lab_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
	"gprovision/model/release"
	"gprovision/site"
	"gprovision/unit/state"
)

// TestSoakCutsConverge restores a unit with a blank main disk while QEMU's storage daemon logs what is written to both disks, cuts the power at
// borders of steps and at random moments, drops what was not flushed, or a random part of it, and lets the unit start again by itself: init
// decides, does its job and decides again until the system runs. It is whole then, after a bounded number of boots.
//
// These are all borders and 50 random moments, or GPROV_SOAK_N.
func TestSoakCutsConverge(t *testing.T) {
	t.Parallel()
	needLoop(t)
	l := needLife(t)
	f, err := l.finished[layout.BIOS]()
	if err != nil {
		t.Fatal(err)
	}
	c := newCuts(t, workDir(t, 4<<30), f.snapshot, f.product.Path(lab.BootFile), f.product.Path(l.images[1]), "main")
	request(t, c.base[0])
	borders, between := c.record(t)
	c.judge(t, append(borders, atRandom(t, between, count(t, 50))...))
}

// TestSoakCutsConvergeVM does the same with the write logs of a restore in a virtual machine.
func TestSoakCutsConvergeVM(t *testing.T) {
	t.Parallel()
	needLoop(t)
	l := needLife(t)
	f, err := l.finished[layout.BIOS]()
	if err != nil {
		t.Fatal(err)
	}
	dir := workDir(t, 16<<30)
	base, logs, moments := recordRestore(t, l, dir, count(t, 50))
	c := newCuts(t, filepath.Join(dir, "cuts"), base, f.product.Path(lab.BootFile), f.product.Path(l.images[1]))
	c.finish(t, logs)
	c.judge(t, moments)
}

// mostBoots is how often a unit may start after a power cut until its system runs: for a restore that is taken up, and for the system.
const mostBoots = 2

// cuts are power cuts of one recorded restore.
type cuts struct {
	unit  *loopUnit
	base  []string // what the disks held before
	logs  []string // what was written to them
	image string
	want  finished
	said  []lab.Event // by the unit since it was started last
}

// finished is what a restore that nothing disturbed leaves.
type finished struct {
	files  map[string]string // of the main system
	before [sha256.Size]byte // of what lies before it on the main disk
	mark   state.Mark
}

// newCuts makes a unit of the disks of a snapshot, in dir. Those with the names in blank are replaced by empty ones.
func newCuts(t *testing.T, dir string, s *lab.Snapshot, artifact, image string, blank ...string) *cuts {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := &cuts{image: image}
	var disks []string
	for _, d := range s.Config.Disks {
		base := filepath.Join(dir, "base-"+d.Name)
		if slices.Contains(blank, d.Name) {
			run(t, "truncate", "-s", fmt.Sprint(d.Size), base)
		} else {
			run(t, "qemu-img", "convert", "-q", "-O", "raw", filepath.Join(s.Dir, d.Name+".qcow2"), base)
		}
		c.base, disks = append(c.base, base), append(disks, filepath.Join(dir, d.Name))
	}
	c.unit = newLoopUnit(t, filepath.Join(dir, "unit"), s.Config, artifact, disks...)
	return c
}

// begin gives the disks the content that they had before the restore.
func (c *cuts) begin(t *testing.T) {
	t.Helper()
	for i, d := range c.unit.disks {
		run(t, "cp", "--sparse=always", c.base[i], d)
	}
}

// request asks for a restore on the recovery volume on a disk.
func request(t *testing.T, disk string) {
	t.Helper()
	r, err := state.NewRequest(state.KindRestore, state.Latest, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var written error
	err = mounted(t, disk, 0, func(dir string) { written = state.Open(dir).WriteRequest(r) })
	if err := errors.Join(err, written); err != nil {
		t.Fatal(err)
	}
}

// record restores the unit and records what is written. It returns the moments before each step, and all that were seen.
func (c *cuts) record(t *testing.T) (borders, between []moment) {
	t.Helper()
	c.begin(t)
	exports, logs, stop := c.unit.recorded(t)
	defer stop()
	u := *c.unit
	u.disks = exports
	seen := watchLogs(time.Millisecond, logs...)
	defer seen()
	end := u.boot(t, c.unit.start(t), func(e lab.Event) bool {
		if lab.All(lab.Msg("step"), lab.Field("job", "restore"))(e) {
			now, err := lab.Glance(logs...)
			if err != nil {
				t.Error(err)
			}
			borders = append(borders, moment{"before " + e.Text("step"), now})
		}
		return lab.Msg("hold")(e)
	})
	between = seen()
	if end != endReboot || len(borders) < 10 || len(between) < 50 {
		t.Fatalf("the restore ends with a %s, %d steps and %d moments were seen", end, len(borders), len(between))
	}
	stop()
	c.finish(t, logs)
	return borders, between
}

// finish notes what the recorded restore leaves when nothing disturbs it, and that this is the image.
func (c *cuts) finish(t *testing.T, logs []string) {
	t.Helper()
	c.logs = logs
	var lengths []int64
	for _, l := range logs {
		st, err := os.Stat(l)
		if err != nil {
			t.Fatal(err)
		}
		lengths = append(lengths, st.Size())
	}
	c.cut(t, lengths, func(lab.WriteEntry) bool { return true })
	if boots, jobs := c.start(t); boots != 1 || slices.Contains(jobs, "restore") {
		t.Fatalf("after a whole restore the unit needs %d boots, for %v", boots, jobs)
	}
	c.want = c.look(t)
	c.unpacked(t, c.want.files)
}

// cut gives the disks the content that they have when the power is cut at a moment of the restore.
func (c *cuts) cut(t *testing.T, lengths []int64, keep func(lab.WriteEntry) bool) {
	t.Helper()
	c.begin(t)
	for i, d := range c.unit.disks {
		if err := lab.Replay(d, c.logs[i], lengths[i], keep); err != nil {
			t.Fatal(err)
		}
	}
}

// start starts the unit as often as it wants to be, until the system runs. It returns how often, and the jobs that were decided on.
func (c *cuts) start(t *testing.T) (boots int, jobs []string) {
	t.Helper()
	c.said = nil
	for boots = 1; ; boots++ {
		up, held := false, ""
		end := c.unit.boot(t, c.unit.start(t), func(e lab.Event) bool {
			c.said = append(c.said, e)
			switch e.Msg() {
			case "decision":
				jobs = append(jobs, e.Text("job"))
			case "hold":
				held = e.String()
			case "tiny system up":
				up = true
				whole(t, e, "2")
			}
			return up || held != ""
		})
		switch {
		case held != "":
			t.Fatalf("boot %d, jobs %v: the unit holds: %s", boots, jobs, held)
		case up:
			return boots, jobs
		case end != endReboot:
			t.Fatalf("boot %d, jobs %v: it ends with a %s", boots, jobs, end)
		case boots == mostBoots:
			t.Fatalf("the system does not run after %d boots, jobs %v", boots, jobs)
		}
	}
}

// judge cuts the power at each of the moments.
func (c *cuts) judge(t *testing.T, moments []moment) {
	t.Helper()
	began := time.Now()
	taken := map[string]int{} // how often by the jobs that followed
	for i, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(5, uint64(i)))
			keep := func(lab.WriteEntry) bool { return false }
			if i%2 == 1 {
				keep = func(lab.WriteEntry) bool { return random.IntN(2) == 0 }
			}
			c.cut(t, m.lengths, keep)
			c.loader(t)
			request, mark := c.peek(t)
			_, jobs := c.start(t)
			taken[strings.Join(jobs, ", ")]++
			c.loader(t)
			got := c.look(t)
			switch {
			case mark != nil && !slices.Equal(jobs, []string{"boot"}):
				t.Errorf("the system had its mark, and the unit did %v", jobs)
			case mark != nil && got.mark != *mark:
				t.Errorf("the mark %+v became %+v", *mark, got.mark)
			case mark == nil && !slices.Equal(jobs, []string{"restore", "boot"}):
				t.Errorf("the system had no mark, and the unit did %v", jobs)
			}
			if request != "" && got.mark.Request != request {
				t.Errorf("the request was %s, the mark names %q", request, got.mark.Request)
			}
			c.same(t, got)
		})
	}
	if len(taken) < 2 {
		t.Errorf("all cuts led to the same: %v", taken)
	}
	t.Logf("%d cuts in %s: %v", len(moments), time.Since(began).Round(time.Second), taken)
}

// same compares what a disturbed restore has left with what it leaves undisturbed.
func (c *cuts) same(t *testing.T, got finished) {
	t.Helper()
	if m := got.mark; m.Request == "" || m.Serial != c.unit.config.SMBIOS.Serial || m.Release != c.want.mark.Release {
		t.Errorf("the mark is %+v", m)
	}
	if got.before != c.want.before {
		t.Error("what lies before the main system on its disk differs")
	}
	for name, text := range c.want.files {
		if got.files[name] != text {
			t.Errorf("%s is %q, want %q", name, got.files[name], text)
		}
	}
	for name := range got.files {
		if _, ok := c.want.files[name]; !ok {
			t.Errorf("%s should not be there", name)
		}
	}
}

// loader checks that the boot loader outside the filesystem of the recovery device is as it was before the restore: all but the
// partition table in the first MiB.
func (c *cuts) loader(t *testing.T) {
	t.Helper()
	read := func(name string) []byte {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, layout.MiB)
		if _, err := io.ReadFull(f, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	if !bytes.Equal(read(c.base[0]), read(c.unit.disks[0])) {
		t.Error("the boot loader of the recovery device has changed")
	}
}

// peek returns the request on the recovery volume, "" if there is none, and the mark of the main system, nil if there is none: from copies of
// the disks, since mounting them changes them.
func (c *cuts) peek(t *testing.T) (request string, mark *state.Mark) {
	t.Helper()
	dir := t.TempDir()
	var copies []string
	for _, d := range c.unit.disks {
		to := filepath.Join(dir, filepath.Base(d))
		run(t, "cp", "--sparse=always", d, to)
		copies = append(copies, to)
	}
	err := mounted(t, copies[0], syscall.MS_RDONLY, func(dir string) {
		r, err := state.Open(dir).ReadRequest()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		request = r.ID
	})
	if err != nil {
		t.Errorf("the recovery volume cannot be mounted: %v", err)
	}
	_ = mounted(t, copies[1], syscall.MS_RDONLY, func(dir string) { // there may be no partition, and no filesystem in it
		if b, err := os.ReadFile(filepath.Join(dir, site.Stock().Names.Mark)); err == nil {
			if m, err := state.ParseMark(b); err == nil {
				mark = &m
			}
		}
	})
	return request, mark
}

// look reads the disks of a unit that was switched off with its system running. Its recovery volume has what it should have: no
// request but a fulfilled one, and the images and the boot artifact of before.
func (c *cuts) look(t *testing.T) (f finished) {
	t.Helper()
	err := mounted(t, c.unit.disks[1], syscall.MS_RDONLY, func(dir string) {
		f.files = tree(t, dir)
		b, err := os.ReadFile(filepath.Join(dir, site.Stock().Names.Mark))
		if err == nil {
			f.mark, err = state.ParseMark(b)
		}
		if err != nil {
			t.Errorf("mark: %v", err)
		}
		delete(f.files, "/"+site.Stock().Names.Mark)
	})
	if err != nil {
		t.Fatalf("the main system: %v", err)
	}
	kept := func(disk string) (files map[string]string) {
		err := mounted(t, disk, syscall.MS_RDONLY, func(dir string) {
			v := state.Open(dir)
			if r, err := v.ReadRequest(); disk != c.base[0] && err == nil && r.ID != f.mark.Request {
				t.Errorf("the request %s waits, and the mark names %q", r.ID, f.mark.Request)
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			files = tree(t, dir)
			maps.DeleteFunc(files, func(name, _ string) bool {
				boot := strings.HasPrefix(name, "/boot/") || name == "/"+lab.BootFile
				return !boot && !strings.HasPrefix(name, "/"+state.ImageDir+"/") && name != "/"+state.UnitFile && name != "/"+state.KeyFile && name != "/"+state.HashFile
			})
		})
		if err != nil {
			t.Fatalf("the recovery volume: %v", err)
		}
		return files
	}
	before, after := kept(c.base[0]), kept(c.unit.disks[0])
	if len(before) < 8 || !maps.Equal(before, after) {
		t.Errorf("the recovery volume keeps\n%v\nof\n%v", after, before)
	}
	for _, d := range c.unit.disks {
		loop := attach(t, d)
		run(t, "e2fsck", "-fp", loop+"p1") // it has nothing to repair
		detach(t, loop)
	}
	main, err := os.Open(c.unit.disks[1])
	if err != nil {
		t.Fatal(err)
	}
	defer main.Close()
	h := sha256.New()
	if _, err := io.CopyN(h, main, mainSystem(t, c.unit.disks[1]).Start); err != nil {
		t.Fatal(err)
	}
	h.Sum(f.before[:0])
	return f
}

// unpacked checks that all of the image is in a restored system, apart from what a restore edits.
func (c *cuts) unpacked(t *testing.T, files map[string]string) {
	t.Helper()
	edited := []string{"/etc/fstab", "/etc/hostname", "/etc/hosts", "/etc/machine-id", "/etc/shadow"}
	f, err := os.Open(c.image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := release.NewReader(t.Context(), f, st.Size(), runtime.NumCPU())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var same int
	for a := tar.NewReader(r); ; {
		h, err := a.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Join("/", h.Name), "/")
		if slices.Contains(edited, name) {
			continue
		}
		want := fmt.Sprintf("%s %d:%d", h.FileInfo().Mode(), h.Uid, h.Gid)
		switch h.Typeflag {
		case tar.TypeReg:
			sum := sha256.New()
			if _, err := io.Copy(sum, a); err != nil {
				t.Fatal(err)
			}
			want += fmt.Sprintf(" %x", sum.Sum(nil))
		case tar.TypeSymlink:
			want += " " + h.Linkname
		}
		if files[name] != want {
			t.Errorf("restored is %s as %q, the image has %q", name, files[name], want)
		}
		same++
	}
	if same < 20 {
		t.Errorf("the image has %d files only", same)
	}
}
