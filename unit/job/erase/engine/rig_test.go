package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"gprovision/hw/drive"
	"gprovision/lab/simdrive"
	"gprovision/model/erasure"
)

// cut is what a power cut ends a run with.
type cut struct{}

// rig is a machine with a simulated drive, in virtual time.
type rig struct {
	t      testing.TB
	config simdrive.Config
	clock  *simdrive.Clock
	sim    *simdrive.Drive
	random *rand.ChaCha8
	permit drive.Permit
	// require is the level that the policy demands.
	require erasure.Level
	// state is what Store has written, empty at first.
	state  []byte
	stored int
	// announced are the states before that were told.
	announced []erasure.Drive
	requests  int
	// dev and blocks change what a run sees of the drive; nil: nothing.
	dev    func(drive.Device) drive.Device
	blocks func(Blocks) Blocks
	// target changes the target.
	target func(*Target)
	// progress is told how much is done; nil: nobody is.
	progress func(float64)
	// onStore is called before each state is written.
	onStore func(n int)
}

func newRig(t testing.TB, c simdrive.Config, f simdrive.Faults) *rig {
	t.Helper()
	g := &rig{t: t, config: c, clock: &simdrive.Clock{}, requests: 1}
	g.sim = simdrive.New(c, f, g.clock)
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], c.Seed)
	g.random = rand.NewChaCha8(seed)
	state, err := g.sim.State()
	if err != nil {
		t.Fatal(err)
	}
	id := drive.Identity{Model: c.Model, Serial: c.Serial, Size: state.Size, Number: state.Number}
	if g.permit, err = drive.NewWholePermit(id); err != nil {
		t.Fatal(err)
	}
	return g
}

// device is the drive of a machine that loses its power with it.
type device struct{ drive.Device }

func ends(err error) error {
	if errors.Is(err, simdrive.ErrNoPower) {
		panic(cut{})
	}
	return err
}

func (d device) NVMe(c drive.NVMeCommand) (drive.NVMeResult, error) {
	r, err := d.Device.NVMe(c)
	return r, ends(err)
}

func (d device) SCSI(c drive.SCSICommand) (drive.SCSIResult, error) {
	r, err := d.Device.SCSI(c)
	return r, ends(err)
}

func (d device) MMC(cs ...drive.MMCCommand) ([]uint32, error) {
	r, err := d.Device.MMC(cs...)
	return r, ends(err)
}

func (d device) Reset() error { return ends(d.Device.Reset()) }

func (d device) State() (drive.State, error) {
	s, err := d.Device.State()
	return s, ends(err)
}

// area is blocks of that machine. They may be used by several goroutines.
type area struct {
	*simdrive.Area
	mu *sync.Mutex
}

func (a area) ReadAt(p []byte, off int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, err := a.Area.ReadAt(p, off)
	return n, ends(err)
}

func (a area) WriteAt(p []byte, off int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, err := a.Area.WriteAt(p, off)
	return n, ends(err)
}

func (a area) Sync() error { return ends(a.Area.Sync()) }

func (a area) Discard(off, n int64) error { return ends(a.Area.Discard(off, n)) }

// open finds the protocol of the drive. One that is busy is asked again.
func (g *rig) open() *drive.Drive {
	var dev drive.Device = device{g.sim}
	if g.dev != nil {
		dev = g.dev(dev)
	}
	for range 10 {
		d, err := drive.On(dev, nil)
		if err == nil && (d.ATA != nil) == (g.config.Protocol == simdrive.ATA) {
			return d
		}
	}
	g.t.Fatal("the drive does not say what it speaks")
	return nil
}

func (g *rig) areas() []Area {
	var mu sync.Mutex
	add := func(a *simdrive.Area) Area {
		var b Blocks = area{a, &mu}
		if g.blocks != nil {
			b = g.blocks(b)
		}
		return Area{Blocks: b, Size: a.Size}
	}
	out := []Area{add(g.sim.Device())}
	for i := range len(g.config.Others) - g.config.Unattached {
		out = append(out, add(g.sim.Namespace(2+i)))
	}
	return out
}

func (g *rig) env() Env {
	return Env{
		Now: func() time.Time { return time.Unix(1_800_000_000, 0).Add(g.clock.Now()) },
		Wait: func(ctx context.Context, d time.Duration) error {
			g.clock.Advance(d)
			return ctx.Err()
		},
		Random:   g.random,
		Announce: func(d erasure.Drive) error { g.announced = append(g.announced, d); return nil },
		Store: func(s State) error {
			if g.stored++; g.onStore != nil {
				g.onStore(g.stored)
			}
			if _, err := g.sim.State(); err != nil {
				return ends(err)
			}
			b, err := json.Marshal(s)
			g.state = b
			return err
		},
		Requests: g.requests, Progress: g.progress,
	}
}

// run runs until the end, or until the power goes.
func (g *rig) run(ctx context.Context) (res Result, err error, lost bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(cut); !ok {
				panic(p)
			}
			lost = true
		}
	}()
	t := Target{
		Known: erasure.Drive{
			Role: erasure.MainDisk, Name: "disk", Bus: string(g.config.Protocol), BlockSize: uint32(g.config.SectorSize),
			Evidence: erasure.Evidence{Media: erasure.Rotating, Path: erasure.Direct},
		},
		Drive: g.open(), Permit: g.permit, Areas: g.areas(), Whole: true, Require: g.require, PSID: drive.PSID(g.config.PSID),
		Reopen: func(uint64) (drive.Permit, error) {
			g.sim.Rescan()
			return drive.NewWholePermit(drive.Identity{
				Model: g.config.Model, Serial: g.config.Serial, Size: g.sim.Device().Size(), Number: g.config.Number,
			})
		},
	}
	if g.config.Flash {
		t.Known.Evidence.Media = erasure.Flash
	}
	if g.config.USB {
		t.Known.Evidence.Path = erasure.USB
	}
	if g.target != nil {
		g.target(&t)
	}
	var s State
	if len(g.state) > 0 {
		if err := json.Unmarshal(g.state, &s); err != nil {
			g.t.Fatal(err)
		}
	}
	res, err = Run(ctx, g.env(), t, s)
	return res, err, false
}

// finish runs to the end, with power again after each cut.
func (g *rig) finish() Result {
	for range 100 {
		res, err, lost := g.run(context.Background())
		if !lost {
			if err != nil && !errors.Is(err, drive.ErrNotPermitted) {
				g.t.Logf("the erase ended early: %v", err)
			}
			return res
		}
		g.clock.Advance(time.Minute)
		g.sim.PowerOn()
	}
	g.t.Fatal("a hundred power cuts")
	return Result{}
}

// small makes a drive small.
func small(c simdrive.Config, sectors int64) simdrive.Config {
	c.Sectors = sectors
	return c
}

// valid fails unless a certificate may have what came of a drive.
func valid(t testing.TB, d erasure.Drive) {
	t.Helper()
	c := erasure.Certificate{
		Version: erasure.Version, Run: "00112233445566778899aabbccddeeff", Unit: "unit-1", Platform: "lab", Key: make([]byte, 32),
		Started: time.Unix(1_800_000_000, 0).UTC(), Ended: time.Unix(1_900_000_000, 0).UTC(), Clock: erasure.ClockRTC,
		Drives: []erasure.Drive{d},
	}
	if err := c.Judged().Validate(); err != nil {
		t.Errorf("no certificate may say so: %v", err)
	}
}
