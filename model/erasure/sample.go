package erasure

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// MinSamples is how many informative samples a device needs: a thousandth of it that is left is then missed with less than one in a
// hundred.
const MinSamples = 4700

// DefaultSamples is how many places are chosen where nothing else is said: some may turn out to say nothing.
const DefaultSamples = 5000

// FullBelow is the size in bytes below which every block of a device is read after its erase, where the policy says nothing else
// (erase.verify). Samples.Read is then the number of blocks.
const FullBelow = 64 << 30

// Seed is the secret that the places of samples are made of: random, new for each run, and told to nobody until the samples were read.
type Seed [32]byte

// Place is one block that is looked at before and after.
type Place struct {
	// Block is its number.
	Block uint64
	// Canary reports that random bytes are written there before. One in four is one; whoever finds a place constant makes it one too, since
	// it says nothing else.
	Canary bool
}

// Choose returns the random places among a number of blocks, in ascending order: one in each of n strata of equal size, or all blocks
// where there are no more than n. Whatever the blocks are that still hold data, as long as nobody who chose them knew the seed: if they
// are the fraction x of all, no place is among them with a chance of at most (1-x)^n. For if a stratum i holds the fraction x(i) of them,
// that chance is the product of all 1-x(i), whose mean is 1-x, and no product of numbers with that mean is larger.
//
// The first and the last block are not among them but by chance; they are canaries always.
func Choose(seed Seed, blocks uint64, n int) []Place {
	r := rand.New(rand.NewChaCha8(seed))
	out := make([]Place, 0, n)
	if uint64(n) >= blocks {
		for b := range blocks {
			out = append(out, Place{b, r.Uint64N(4) == 0})
		}
		return out
	}
	for i := range uint64(n) {
		// A stratum is blocks/n long, which may be no whole number: all strata have the same size if it is measured in nths of a block.
		high, low := bits.Mul64(i, blocks)
		low, carry := bits.Add64(low, r.Uint64N(blocks), 0)
		block, _ := bits.Div64(high+carry, low, uint64(n))
		out = append(out, Place{block, r.Uint64N(4) == 0})
	}
	return slices.CompactFunc(out, func(a, b Place) bool { return a.Block == b.Block })
}

// Ends returns the first and the last block.
func Ends(blocks uint64) []uint64 {
	return slices.Compact([]uint64{0, max(1, blocks) - 1})
}

// MissChance is an upper bound of the chance that n informative samples all say that the data is gone although the fraction x of the device
// still holds some: (1-x)^n.
func MissChance(x float64, n Count) float64 { return math.Exp(float64(n) * math.Log1p(-x)) }
