package engine

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
)

const hour = time.Hour

// clone copies evidence.
func clone(t *testing.T, e erasure.Evidence) erasure.Evidence {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var out erasure.Evidence
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// passing is blocks of which a request fails now and then, and not a second time.
type passing struct {
	Blocks
	r    *rand.Rand
	last *bool
}

func (p passing) fails() bool {
	*p.last = !*p.last && p.r.IntN(300) == 0
	return *p.last
}

func (p passing) ReadAt(b []byte, off int64) (int, error) {
	if p.fails() {
		return 0, unix.EIO
	}
	return p.Blocks.ReadAt(b, off)
}

func (p passing) WriteAt(b []byte, off int64) (int, error) {
	if p.fails() {
		return 0, unix.EIO
	}
	return p.Blocks.WriteAt(b, off)
}

// kind is what may happen to a drive of a schedule.
type kind int

const (
	calm   kind = iota // an honest drive, and nothing happens
	stormy             // an honest drive, power cuts and passing errors
	lying              // a drive with faults, power cuts and passing errors
	allKinds
)

// schedule is one run of a drive that a seed makes.
type schedule struct {
	kind   kind
	config simdrive.Config
	faults simdrive.Faults
	full   bool // every block is looked at
	want   erasure.Outcome
	level  erasure.Level
}

func newSchedule(seed uint64, r *rand.Rand) schedule {
	var s schedule
	all := honest(seed)
	h := all[r.IntN(len(all))]
	s.config, s.want, s.level = h.config, h.want, h.level
	s.config.Sectors, s.config.SectorSize = 64+r.Int64N(200), 512
	s.full = r.IntN(4) == 0
	if r.IntN(3) == 0 {
		s.config.Times = map[drive.Method]time.Duration{}
		for _, m := range s.config.Methods {
			s.config.Times[m] = time.Duration(1+r.IntN(20_000)) * time.Second
		}
	}
	switch s.kind = kind(r.IntN(int(allKinds))); s.kind {
	case stormy:
		if r.IntN(2) == 0 {
			s.faults.BusyEvery = 17 + r.IntN(50)
		}
	case lying:
		liars := simdrive.Liars(seed)
		for range 1 + r.IntN(2) {
			s.faults = mixed(s.faults, liars[r.IntN(len(liars))].Faults)
		}
		s.faults.BadSectors = min(s.faults.BadSectors, 5)
		if s.faults.KeepStratum > 0 {
			s.faults.KeepStratum = 1 + r.IntN(16)
		}
		if s.faults.SwapAfter > 0 {
			s.faults.SwapAfter = 1000 + r.IntN(20)
		}
		for _, m := range s.config.Methods {
			if r.IntN(3) == 0 {
				s.faults.Only = append(s.faults.Only, m)
			}
		}
	}
	return s
}

// mixed is the faults of two drives.
func mixed(a, b simdrive.Faults) simdrive.Faults {
	var all map[string]any
	for _, f := range []simdrive.Faults{a, b} {
		p, _ := json.Marshal(f)
		var m map[string]any
		_ = json.Unmarshal(p, &m)
		if all == nil {
			all = m
			continue
		}
		for k, v := range m {
			if v != nil && v != false && v != float64(0) {
				all[k] = v
			}
		}
	}
	p, _ := json.Marshal(all)
	var out simdrive.Faults
	_ = json.Unmarshal(p, &out)
	return out
}

// run erases the drive of a schedule. falsely says what is wrong with the outcome, if anything is; best reports whether it is the best one
// that the drive can reach.
func (s schedule) run(t *testing.T, seed uint64, r *rand.Rand) (falsely, came string, best bool) {
	g := newRig(t, s.config, s.faults)
	if s.full {
		g.target = func(t *Target) { t.Full = true }
	}
	cuts := 0
	if s.kind != calm {
		g.blocks = func(b Blocks) Blocks { return passing{b, r, new(bool)} }
		cuts = r.IntN(4)
	}
	plug := func() {
		if cuts--; cuts >= 0 {
			g.sim.CutAt(g.clock.Now() + time.Duration(math.Exp(r.Float64()*math.Log(2e7))*float64(time.Millisecond)))
		}
	}
	g.onStore = func(int) {
		if cuts > 0 && r.IntN(10) == 0 {
			cuts--
			g.sim.PowerCut()
		}
	}
	plug()
	var res Result
	var err error
	for lost := true; lost; {
		if res, err, lost = g.run(t.Context()); lost {
			g.clock.Advance(time.Duration(r.IntN(10_000)) * time.Second)
			g.sim.PowerOn()
			plug()
		}
	}
	readable, hidden := g.sim.Residue()
	d, f := res.Drive, s.faults
	secret := f.KeepHidden || f.MapOnly
	cached := f.CacheOnly && s.config.Protocol == simdrive.MMC // nobody can reset it
	switch {
	case d.Outcome == erasure.Proved && readable > 0 && !(f.AreaStays && f.KeepArea):
		falsely = fmt.Sprintf("proved, and %d sectors are left", readable)
	case d.Outcome == erasure.Proved && d.Level == erasure.Purge && hidden > 0 && !secret:
		falsely = fmt.Sprintf("purged, and %d hidden copies are left", hidden)
	case d.Outcome == erasure.Weaker && readable > 0 && d.Evidence.Hidden == 0 && !cached:
		falsely = fmt.Sprintf("weaker, nothing is hidden, and %d sectors are left", readable)
	case d.Evidence.Method == "" && d.Outcome != erasure.Failed:
		falsely = "no method, and it has not failed"
	}
	came = fmt.Sprintf("%s %s by %s, %s, %v", d.Outcome, d.Level, d.Evidence.Method, caught(res), err)
	return falsely, came, d.Outcome == s.want && d.Level == s.level
}

// TestSchedules runs seeded schedules of faults, timings, resets and power cuts in virtual time: GPROV_ERASE_SCHEDULES of them, from the
// seed GPROV_ERASE_SEED on.
func TestSchedules(t *testing.T) {
	n := schedules
	if testing.Short() {
		n /= 50
	}
	runSchedules(t, n, 1)
}

// runSchedules runs n schedules from a seed on, or as many and from where the environment says.
func runSchedules(t *testing.T, n, first int) {
	number := func(name string, otherwise int) int {
		if s := os.Getenv(name); s != "" {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		return otherwise
	}
	n, first = number("GPROV_ERASE_SCHEDULES", n), number("GPROV_ERASE_SEED", first)
	// A schedule makes a drive of its own and leaves nothing: with Go's own figure half of the time goes to collecting.
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	var next, falses atomic.Int64
	var total, best [allKinds]atomic.Int64
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || falses.Load() > 10 {
					return
				}
				seed := uint64(first + i)
				r := rand.New(rand.NewPCG(seed, 12))
				s := newSchedule(seed, r)
				falsely, came, good := s.run(t, seed, r)
				if total[s.kind].Add(1); good {
					best[s.kind].Add(1)
				}
				if falsely != "" {
					falses.Add(1)
					t.Errorf("seed %d: %s: %s: %+v %+v", seed, falsely, came, s.config, s.faults)
				}
				if s.kind == calm && !good {
					t.Errorf("seed %d: an honest drive is not %s %s, but %s: %+v", seed, s.want, s.level, came, s.config)
				} else if s.kind == stormy && !good {
					t.Logf("seed %d: not %s %s, but %s: %+v", seed, s.want, s.level, came, s.config)
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d schedules: %d of %d honest drives, %d of %d with cuts and passing errors are the best that they can be; %d liars; %d false",
		n, best[calm].Load(), total[calm].Load(), best[stormy].Load(), total[stormy].Load(), total[lying].Load(), falses.Load())
	if b, all := best[stormy].Load(), total[stormy].Load(); b*100 < all*99 {
		t.Errorf("%d of %d honest drives with cuts and passing errors are the best that they can be, want 99 %%", b, all)
	}
}

// schedules is how many run where nothing else is said: some 40 seconds of a processor.
const schedules = 20_000
