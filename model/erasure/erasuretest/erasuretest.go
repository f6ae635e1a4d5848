// Package erasuretest has certificates of erases for the tests of those who take, show or pass on some. They are well formed, and nothing
// was erased for them.
package erasuretest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"time"

	"gprovision/model/erasure"
)

// Run returns the name of a run: the same for the same byte.
func Run(n byte) string { return hex.EncodeToString(bytes.Repeat([]byte{n}, 16)) }

// Proved returns a certificate of a unit with one NVMe drive, which was refused one method and proved to be erased by another.
func Proved(unit string, run byte) erasure.Certificate {
	start := time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)
	return erasure.Certificate{
		Run: Run(run), Unit: unit, Platform: "shiny", Started: start, Ended: start.Add(2 * time.Minute), Clock: erasure.ClockServer,
		Kept: []string{"the images"}, NotReached: []string{"users of the BMC"}, Software: erasure.Software{Gprovision: "r42", Kernel: "6.1.0"},
		Drives: []erasure.Drive{{
			Role: erasure.MainDisk, Name: "nvme0n1", Bus: "nvme", Model: "ACME <b>9</b>", Serial: "SERIAL-1", Firmware: "FW-1",
			Bytes: 512 << 20, BlockSize: 512,
			Commands: []erasure.Command{
				{Method: erasure.NVMeFormatCrypto, Name: "Format NVM", Arguments: "ses=2", Status: "invalid field", Started: start, Ended: start},
				{
					Method: erasure.NVMeFormatUser, Name: "Format NVM", Arguments: "ses=1", Status: "good",
					Started: start.Add(30 * time.Second), Ended: start.Add(time.Minute),
				},
			},
			Evidence: erasure.Evidence{
				Method: erasure.NVMeFormatUser, Media: erasure.Flash, Path: erasure.Direct,
				Word: erasure.Word{NVMeFormat: &erasure.NVMeFormatWord{Namespaces: 1, Formats: []erasure.NamespaceFormat{{ID: 1, SES: 1}}}},
				Samples: erasure.Samples{
					Blocks: 1 << 20, Read: 5002, Ends: erasure.Places{Constant: 2}, Random: erasure.Places{Constant: 5000}, Reset: erasure.ResetDone,
				},
				Control: erasure.Control{Written: true, Reported: true, Zeroed: true},
			},
		}},
		Volume: Volume(),
	}
}

// Volume returns a recovery volume whose free space was filled.
func Volume() *erasure.Volume {
	return &erasure.Volume{
		Name: "sda2", Model: "ACME stick", Serial: "SERIAL-2", Bytes: 4 << 30, Filesystem: "ext4", Unlinked: 7, Free: 3 << 30,
		Filled: 3<<30 - 8192, Left: 4096, Flushed: true, Uncached: true, ReadBack: 3<<30 - 8192, Discarded: 3 << 30,
		NotReached: []string{"the journal"},
	}
}

// Weaker returns one of a drive that hides sectors.
func Weaker(unit string, run byte) erasure.Certificate {
	c := Proved(unit, run)
	c.Drives[0].Evidence.Hidden = 9
	return c
}

// Failed returns one of a drive that said that all was well, and left data.
func Failed(unit string, run byte) erasure.Certificate {
	c := Proved(unit, run)
	c.Drives[0].Evidence.Samples.Random = erasure.Places{Constant: 4000, Unchanged: 1000}
	return c
}

// Key returns the private key of a unit: the same for the same byte.
func Key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

// Public returns the public half of Key.
func Public(n byte) ed25519.PublicKey { return Key(n).Public().(ed25519.PublicKey) }
