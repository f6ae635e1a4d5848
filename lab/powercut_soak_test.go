//go:build soak

package lab_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gprovision/lab"
	"gprovision/model/layout"
)

// count is how often a soak test repeats what it is about: GPROV_SOAK_N, or the standard.
func count(t *testing.T, standard int) int {
	t.Helper()
	s := os.Getenv("GPROV_SOAK_N")
	if s == "" {
		return standard
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("GPROV_SOAK_N=%s: want a number from 1", s)
	}
	return n
}

// moment is how long the write logs of all disks were at one time.
type moment struct {
	name    string
	lengths []int64
}

// TestSoakCutAnywhere records what one restore onto a blank disk writes, cuts the power at a few borders of two steps and random moments,
// drops what the disks had not flushed then, or a random part of it, and starts the unit: it always ends with a whole system. What this
// adds to TestSoakCutsConverge, which does it at many more moments, is the boot loader and the kernel of the unit.
func TestSoakCutAnywhere(t *testing.T) {
	t.Parallel()
	dir := workDir(t, 16<<30)
	var base *lab.Snapshot
	var logs []string
	var moments []moment
	if !t.Run("record", func(t *testing.T) { base, logs, moments = recordRestore(t, needLife(t), dir, 3) }) {
		return
	}
	moments = slices.DeleteFunc(moments, func(m moment) bool {
		return strings.HasPrefix(m.name, "before ") && m.name != "before format-main" && m.name != "before update-recovery" && m.name != "before set-mark"
	})
	for i, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			needLife(t)
			random := rand.New(rand.NewPCG(1, uint64(i)))
			keep := func(lab.WriteEntry) bool { return false }
			if i%2 == 1 {
				keep = func(lab.WriteEntry) bool { return random.IntN(2) == 0 }
			}
			here := workDir(t, 2<<30)
			s, err := base.Cut(t.Context(), logger(t), filepath.Join(here, "cut"), logs, m.lengths, keep)
			if err != nil {
				t.Fatal(err)
			}
			u, err := s.Fork(t.Context(), logger(t), network(t), filepath.Join(here, "unit"), func(c *lab.Config) { logWrites(c, false) })
			if err != nil {
				t.Fatal(err)
			}
			watched(t, u)
			start(t, u)
			e, err := await(u, bootPatience+jobPatience, lab.Msg("tiny system up"))
			if err != nil {
				t.Fatal(err)
			}
			whole(t, e, "2")
		})
	}
}

func logWrites(c *lab.Config, on bool) {
	for i := range c.Disks {
		c.Disks[i].LogWrites = on
	}
}

// recordRestore restores a unit with a blank main disk on BIOS, where all that a boot needs is on the disks. It returns what the disks
// held before, their write logs, and the moments: those between two steps and n random ones.
func recordRestore(t *testing.T, l *life, dir string, n int) (base *lab.Snapshot, logs []string, moments []moment) {
	f, err := l.finished[layout.BIOS]()
	if err != nil {
		t.Fatal(err)
	}
	u, err := f.snapshot.Fork(t.Context(), logger(t), network(t), filepath.Join(dir, "unit"), func(c *lab.Config) { logWrites(c, true) }, "main")
	if err != nil {
		t.Fatal(err)
	}
	watched(t, u)
	if base, err = u.Snapshot(t.Context(), filepath.Join(dir, "before")); err != nil {
		t.Fatal(err)
	}
	for _, d := range u.Disks {
		logs = append(logs, u.WriteLog(d.Name))
	}
	start(t, u)
	seenMoments := watchLogs(20*time.Millisecond, logs...)
	defer seenMoments()
	step := lab.All(lab.Msg("step"), lab.Field("job", "restore"))
	for {
		e, err := await(u, bootPatience+jobPatience, lab.Any(step, lab.Msg("tiny system up")))
		if err != nil {
			t.Fatal(err)
		}
		if !step(e) {
			break
		}
		now, err := lab.Glance(logs...)
		if err != nil {
			t.Fatal(err)
		}
		moments = append(moments, moment{"before " + e.Text("step"), now})
	}
	u.Cut()
	between := seenMoments()
	if len(moments) < 10 || len(between) < 100 {
		t.Fatalf("%d steps and %d moments between them were seen", len(moments), len(between))
	}
	return base, logs, append(moments, atRandom(t, between, n)...)
}

// atRandom returns n of moments, at random. GPROV_SEED repeats what an earlier run chose.
func atRandom(t *testing.T, moments []moment, n int) []moment {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("GPROV_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("GPROV_SEED=%d chooses %d of %d moments", seed, n, len(moments))
	random := rand.New(rand.NewPCG(seed, 2))
	var out []moment
	for i := range n {
		out = append(out, moment{fmt.Sprintf("random %d", i+1), moments[random.IntN(len(moments))].lengths})
	}
	return out
}

// watchLogs looks at write logs again and again, until the function that it returns is called: that returns the moments that were seen, each
// once.
func watchLogs(every time.Duration, logs ...string) func() []moment {
	var seen []moment
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if now, err := lab.Glance(logs...); err == nil && (len(seen) == 0 || !slices.Equal(seen[len(seen)-1].lengths, now)) {
				seen = append(seen, moment{lengths: now})
			}
		}
	}()
	return sync.OnceValue(func() []moment {
		close(stop)
		<-ended
		return seen
	})
}

// These cut the power of a unit at random moments of restores and of the boots around them, again and again.
func TestSoakCutsAtRandomUEFI(t *testing.T) { cutsAtRandom(t, layout.UEFI) }
func TestSoakCutsAtRandomBIOS(t *testing.T) { cutsAtRandom(t, layout.BIOS) }

func cutsAtRandom(t *testing.T, fw layout.Firmware) {
	t.Parallel()
	l := needLife(t)
	u := l.fork(t, network(t), fw, nil)
	start(t, u)
	whole(t, up(t, u), "2")
	for i := range count(t, 6) {
		again(t, u, "")
		d := rand.N(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		_, err := u.Events.Wait(ctx, lab.Msg("tiny system up"))
		cancel()
		u.Cut()
		t.Logf("cut %d after %v; the system ran: %t", i+1, d.Round(time.Millisecond), err == nil)
		start(t, u)
		expect(t, u, bootPatience, lab.Msg("init"))
		if _, err := await(u, bootPatience+jobPatience, lab.Msg("tiny system up")); err != nil {
			t.Fatal(err)
		}
	}
	again(t, u, "")
	whole(t, up(t, u), "2")
}

// TestSoakRestoresInARow restores a unit that has many images again and again: the recovery volume keeps those that it should, and no
// restore finds it full.
func TestSoakRestoresInARow(t *testing.T) {
	t.Parallel()
	l := needLife(t)
	n, p := network(t), product(t, l.tiny)
	images := []string{l.images[1], l.images[0]}
	for build := uint64(3); build <= 6; build++ {
		name, err := p.Release(t.Context(), logger(t), l.tinyRoot(2), build, "0", nil)
		if err != nil {
			t.Fatal(err)
		}
		images = slices.Insert(images, 0, name)
	}
	for _, name := range []string{lab.ManifestFile, lab.ManifestFile + ".minisig"} {
		if err := os.Remove(p.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Manifest(images, nil); err != nil {
		t.Fatal(err)
	}
	l.serve(t, n, p)
	u := newUnit(t, n, config(layout.BIOS, lab.VirtIO))
	start(t, u)
	if _, err := live(u); err != nil {
		t.Fatal(err)
	}
	whole(t, up(t, u), "2")
	restores := count(t, 8)
	for range restores {
		again(t, u, "")
		whole(t, up(t, u), "2")
	}
	seen(t, u, restores+1, jobState("restore", "succeeded"), "restores")
	list := tell(t, u, map[string]any{"do": "list", "path": recoveryOf(t, u) + "/Image"})
	var kept int
	for line := range strings.Lines(list) {
		if strings.HasSuffix(strings.TrimSpace(line), ".upd") {
			kept++
		}
	}
	if kept < 2 || kept > 4 || !strings.Contains(list, images[0]) || !strings.Contains(list, images[1]) {
		t.Errorf("the recovery volume keeps %s", list)
	}
}
