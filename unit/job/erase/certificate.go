package erase

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"gprovision/model/erasure"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// The certificate and what belongs beside it, below state.EraseDir: its signature, and what the server says.
const (
	certificateFile = state.CertificateFile
	signatureFile   = certificateFile + ".minisig"
	voucherFile     = certificateFile + ".voucher"
	proofFile       = certificateFile + ".tlog-proof"
)

// certify writes the certificate to the recovery volume, and that the erase has ended. One that is there already is not made again: it may
// have left the unit.
func (j *erasing) certify(context.Context) error {
	if j.book.left {
		return nil
	}
	return j.book.change(func(v *state.Volume) error {
		file, err := state.ReadEraseFile(v, certificateFile)
		if errors.Is(err, fs.ErrNotExist) {
			file, err = j.sign(v)
		}
		if err != nil {
			return err
		}
		c, err := erasure.Parse(file)
		if err == nil && c.Run != run(j.entry.ID) {
			err = fmt.Errorf("the certificate is of the run %s", c.Run)
		}
		if err != nil {
			return err
		}
		j.env.Machine.Log.Info("erase", "outcome", string(c.Outcome), "erased", string(c.Level), "says", c.Headline(), "run", c.Run,
			journal.ForPerson())
		return state.WriteErase(v, j.state(c.Ending()))
	})
}

// sign makes the certificate and writes it with its signature, which comes first: a certificate that is there has one.
func (j *erasing) sign(v *state.Volume) ([]byte, error) {
	key, err := v.ReadKey()
	if err != nil {
		return nil, err
	}
	m := j.env.Machine
	c := erasure.Certificate{
		Run: run(j.entry.ID), Unit: m.Serial, Platform: m.Identity.Variant.DevCodeName, Started: j.entry.Started,
		Ended: time.Now().UTC().Truncate(time.Second), Clock: clock(m), Require: erasure.Level(m.Policy.Erase.Require),
		Volume: j.entry.Recovery, NotReached: append(notCleared(&j.entry), j.entry.Plan.NotReached...), Kept: j.entry.Plan.Kept,
		Software: erasure.Software{
			Gprovision: erasure.Printable(m.Build.Gprovision), Kernel: erasure.Printable(m.Build.Kernel),
			Artifact: cmp.Or(j.book.artifact, artifact(m, v)),
		},
	}
	if c.Ended.Before(c.Started) { // the clock was set back meanwhile
		c.Clock, c.Started = erasure.ClockNone, c.Ended
	}
	names := map[string]bool{}
	for i, p := range j.entry.Drives {
		if p.Done == nil {
			return nil, errors.New("a drive has not ended")
		}
		d := *p.Done
		if names[d.Name] { // the kernel gave it to another one after a reboot
			d.Name = fmt.Sprintf("%s-%d", d.Name, i)
		}
		names[d.Name] = true
		c.Drives = append(c.Drives, d)
	}
	if d := j.entry.Dumps; d != nil {
		c.Parts = append(c.Parts, *d)
	}
	if t := j.entry.TPM; t != nil {
		c.Parts = append(c.Parts, *t.Part)
	}
	file, sig, err := c.Sign(key)
	if err != nil {
		return nil, err
	}
	return file, errors.Join(state.WriteEraseFile(v, signatureFile, sig), state.WriteEraseFile(v, certificateFile, file))
}

// run returns the name of the run: the identifier of the request in the length that certificates have.
func run(id string) string {
	id = strings.ToLower(id)
	return (id + strings.Repeat("0", 32))[:32]
}

// clock says where the times come from. A clock that stands at the build of the artifact was set to that by init, since it was wrong.
func clock(m *machine.Machine) erasure.Clock {
	if now := time.Now(); now.Before(m.Build.Time.Add(24 * time.Hour)) {
		return erasure.ClockNone
	}
	return erasure.ClockRTC
}

// artifact returns the SHA-256 of the boot artifact that runs, "" if it is not the one on the recovery volume.
func artifact(m *machine.Machine, v *state.Volume) string {
	file := v.Path(m.Site.Names.BootFile)
	if a, err := machine.ReadArtifact(file); err != nil || a.Build != m.Build.Number {
		return ""
	}
	sum, err := machine.HashOnDevice(file)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(sum[:])
}
