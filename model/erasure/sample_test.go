package erasure

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// trials is how often each residue is looked for, and few how often with a sampler that is wrong.
const trials, few = 10_000, 1_000

// disk is how many blocks the disk of the test has: a terabyte, as drives are sold, of 512 bytes. It is no multiple of MinSamples.
const disk = 1_953_525_168

// residue says which blocks still hold data. It is made anew for each trial.
type residue func(block uint64) bool

// mix is a hash of 64 bits (splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// uniform leaves each block by itself.
func uniform(r *rand.Rand, x float64) residue {
	salt, limit := r.Uint64(), uint64(x*math.MaxUint64)
	return func(b uint64) bool { return mix(b^salt) < limit }
}

// clustered leaves one run of blocks, wherever it is.
func clustered(r *rand.Rand, x float64) residue {
	length := uint64(x * disk)
	start := r.Uint64N(disk - length)
	return func(b uint64) bool { return b-start < length }
}

// periodic leaves the same part of each stretch as long as a stratum.
func periodic(r *rand.Rand, x float64) residue {
	const period = float64(disk) / MinSamples
	phase := r.Float64() * period
	return func(b uint64) bool { return math.Mod(float64(b)+phase, period) < x*period }
}

// oneStratum leaves blocks at the end of one stratum and nowhere else.
func oneStratum(r *rand.Rand, x float64) residue {
	const width = float64(disk) / MinSamples
	end := float64(r.Uint64N(MinSamples)+1) * width
	return func(b uint64) bool { return float64(b) < end && float64(b) >= end-x*disk }
}

// limits returns between which numbers of misses are expected of n trials with chance p, each side but for one in ten thousand.
func limits(n int, p float64) (low, high int) {
	const beyond = 1e-4
	lg := func(k int) float64 { v, _ := math.Lgamma(float64(k) + 1); return v }
	chance := func(k int) float64 {
		return math.Exp(lg(n) - lg(k) - lg(n-k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	}
	sum := 0.0
	for low = 0; low < n && sum+chance(low) < beyond; low++ {
		sum += chance(low)
	}
	sum = 0
	for high = n; high > 0 && sum+chance(high) < beyond; high-- {
		sum += chance(high)
	}
	return low, high
}

// sampler chooses blocks.
type sampler func(seed Seed) []uint64

func right(seed Seed) []uint64 {
	var out []uint64
	for _, p := range Choose(seed, disk, MinSamples) {
		out = append(out, p.Block)
	}
	return out
}

// misses counts in how many of n trials a sampler finds nothing of each residue.
func misses(n int, s sampler, cases []residueCase) []int {
	var key [32]byte
	copy(key[:], "the statistic of erasure")
	source := rand.NewChaCha8(key)
	r := rand.New(source)
	out := make([]int, len(cases))
	for range n {
		var seed Seed
		source.Read(seed[:])
		places := s(seed)
		for i, c := range cases {
			if !slices.ContainsFunc(places, c.make(r, c.x)) {
				out[i]++
			}
		}
	}
	return out
}

// residueCase is a kind of residue, how much of the disk it is, and what finds too little or too much of it.
type residueCase struct {
	name  string
	make  func(*rand.Rand, float64) residue
	x     float64
	exact bool // the chance is the bound, and not only below it
	wrong map[string]sampler
}

// residues are those that are tested, each with samplers for which the test must fail.
func residues() []residueCase {
	half := func(seed Seed) []uint64 { return right(seed)[:MinSamples/2] }
	twice := func(seed Seed) []uint64 { return append(right(seed), right(sha256.Sum256(seed[:]))...) }
	known := func(Seed) []uint64 { // the first block of each stratum
		var out []uint64
		for i := range uint64(MinSamples) {
			out = append(out, i*disk/MinSamples)
		}
		return out
	}
	front := func(seed Seed) []uint64 { // the first eighth of the disk
		out := right(seed)
		for i := range out {
			out[i] /= 8
		}
		return out
	}
	lazy := func(seed Seed) []uint64 { // the first half of each stratum
		out := right(seed)
		for i, b := range out {
			start := uint64(i) * disk / MinSamples
			out[i] = start + (b-start)/2
		}
		return out
	}
	const stratum = 1.0 / MinSamples
	return []residueCase{
		{"uniform, a thousandth", uniform, 0.001, true, map[string]sampler{"half": half}},
		{"uniform, a ten-thousandth", uniform, 0.0001, true, map[string]sampler{"half": half, "twice": twice}},
		{"clustered, a thousandth", clustered, 0.001, false, map[string]sampler{"front": front}},
		{"clustered, a ten-thousandth", clustered, 0.0001, false, map[string]sampler{"front": front}},
		{"periodic, a thousandth", periodic, 0.001, false, map[string]sampler{"known": known, "half": half}},
		{"periodic, a ten-thousandth", periodic, 0.0001, false, map[string]sampler{"known": known}},
		{"half a stratum", oneStratum, stratum / 2, false, map[string]sampler{"lazy": lazy}},
		{"a quarter of a stratum", oneStratum, stratum / 4, false, map[string]sampler{"lazy": lazy}},
	}
}

// TestStatistic: whatever is left is missed no more often than the bound says, and what is spread evenly as often as it says. Samplers that
// look at too few places, or at places that can be foreseen, do not pass, nor does one that looks at more than it says.
func TestStatistic(t *testing.T) {
	cases := residues()
	pass := func(c residueCase, n, missed int) bool {
		low, high := limits(n, MissChance(c.x, MinSamples))
		return missed <= high && (!c.exact || missed >= low)
	}
	for i, missed := range misses(trials, right, cases) {
		c := cases[i]
		low, high := limits(trials, MissChance(c.x, MinSamples))
		bound := trials * MissChance(c.x, MinSamples)
		t.Logf("%s: missed in %d of %d trials, the bound is %.0f (%d to %d)", c.name, missed, trials, bound, low, high)
		if !pass(c, trials, missed) {
			t.Errorf("%s: missed in %d of %d trials, want %d to %d", c.name, missed, trials, low, high)
		}
	}
	for _, c := range cases {
		for name, s := range c.wrong {
			if missed := misses(few, s, []residueCase{c}); pass(c, few, missed[0]) {
				t.Errorf("%s: a sampler that is wrong (%s) passes, with %d misses of %d", c.name, name, missed[0], few)
			}
		}
	}
}

// TestChoose: places are in order, none twice, each in its stratum, of every part of it, and others for another seed.
func TestChoose(t *testing.T) {
	for _, blocks := range []uint64{0, 1, 2, 99, 100, 101, 12345, 1 << 32, 1<<63 + 12345, math.MaxUint64} {
		const n = 100
		seed := Seed{1}
		got := Choose(seed, blocks, n)
		if blocks <= n && uint64(len(got)) != blocks || blocks > 1<<20 && len(got) < n-1 {
			t.Errorf("%d places of %d blocks", len(got), blocks)
		}
		for i, p := range got {
			if p.Block >= blocks || i > 0 && p.Block <= got[i-1].Block {
				t.Errorf("%d blocks: place %d is %d", blocks, i, p.Block)
			}
		}
		if !slices.Equal(got, Choose(seed, blocks, n)) || blocks > 1<<20 && slices.Equal(got, Choose(Seed{2}, blocks, n)) {
			t.Errorf("%d blocks: the seed does not decide", blocks)
		}
	}
	canaries, hit := 0, map[uint64]bool{}
	for i := range uint64(4000) {
		var seed Seed
		binary.LittleEndian.PutUint64(seed[:], i)
		for _, p := range Choose(seed, 15, 10) { // strata of one and a half blocks
			hit[p.Block] = true
			if p.Canary {
				canaries++
			}
		}
	}
	if len(hit) != 15 || canaries < 8000 || canaries > 10500 {
		t.Errorf("%d blocks of 15 were ever chosen, %d canaries", len(hit), canaries)
	}
	if e := Ends(disk); !slices.Equal(e, []uint64{0, disk - 1}) || len(Ends(1)) != 1 {
		t.Errorf("ends: %v", e)
	}
}

// TestBound: the numbers that the certificate's readers are told.
func TestBound(t *testing.T) {
	if p := MissChance(0.001, MinSamples); p >= 0.01 || p < 0.009 {
		t.Errorf("a thousandth is missed with %g", p)
	}
	if p := MissChance(0.001, 0); p != 1 {
		t.Errorf("no samples: %g", p)
	}
	if a, b := MissChance(0.25, 3), 0.75*0.75*0.75; math.Abs(a-b) > 1e-15 {
		t.Errorf("%g, want %g", a, b)
	}
	if low, high := limits(10000, 0.5); low < 4800 || low > 4825 || high < 5175 || high > 5200 {
		t.Errorf("limits of 10000 throws of a coin: %d to %d", low, high) // 5000 and 3.72 times 50
	}
}
