package erase

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"gprovision/hw/filesystem"
	"gprovision/model/erasure"
	"gprovision/unit/job/erase/engine"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// spare is a file without a name that takes the free space of a mounted filesystem (filesystem.Spare). Whoever opened it closes it, before
// the filesystem is unmounted.
type spare interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns once everything written is on the medium.
	Sync() error
	// BlockSize returns the size of the filesystem's blocks in bytes.
	BlockSize() int64
	// Free returns how many bytes of the filesystem no file has.
	Free() (int64, error)
	// Bypass reports whether reads come past the page cache.
	Bypass() bool
	// Discard gives the space back and tells the device of it. It returns how many bytes that were.
	Discard() (int64, error)
}

// openSpare opens the free space of the filesystem that is mounted at a directory.
func openSpare(dir string) (spare, error) {
	s, err := filesystem.OpenSpare(dir)
	if err != nil {
		return nil, err // keep a nil pointer out of the interface
	}
	return s, nil
}

// cleanRecovery unlinks what the customer has left on the recovery volume, and overwrites its free space from within, where each file that
// was replaced has left an old copy. How the filling ends does not change how the main disks have ended, and no error of it ends the job.
// After a power cut it is begun again: what filled the volume had no name, so the kernel has given its space back.
func (j *erasing) cleanRecovery(ctx context.Context) error {
	if j.entry.Recovery != nil {
		return nil
	}
	defer track(ctx, j)()
	for i := range j.entry.Drives {
		if i != recoveryDevice(&j.entry) {
			j.moved(i, 1)
		}
	}
	last := len(j.entry.Drives)
	var v erasure.Volume
	err := j.book.change(func(on *state.Volume) error {
		n, err := state.Forget(on)
		if j.entry.Unlinked += n; err != nil {
			return err
		}
		if err := writeJSON(on, runFile, j.entry); err != nil || j.entry.StandIn != nil {
			return err
		}
		v, err = fill(ctx, j.env.Machine, j.openSpare, func(part float64) { j.moved(last, part) })
		return err
	})
	if err != nil || j.entry.StandIn != nil { // all of its device is erased later
		return err
	}
	if why := j.entry.Plan.NoRebuild; why != "" {
		v.NotReached = append(v.NotReached, erasure.Printable("its device was not erased as a whole and made anew: "+why))
	}
	p := j.f.RecoveryPart
	v.Name, v.Bytes = strings.TrimPrefix(p.Path, "/dev/"), erasure.Count(p.Partition.Size)
	v.Model, v.Serial = erasure.Printable(strings.TrimSpace(p.Disk.Vendor+" "+p.Disk.Model)), erasure.Printable(p.Disk.Serial)
	v.Unlinked = erasure.Count(j.entry.Unlinked)
	said := erasure.JudgeVolume(v, erasure.Level(j.env.Machine.Policy.Erase.Require))
	j.env.Machine.Log.Info("recovery volume erased", "outcome", string(said.Outcome), "reasons", fmt.Sprint(said.Reasons),
		"unlinked", uint64(v.Unlinked), "free", uint64(v.Free), "filled", uint64(v.Filled), "left", uint64(v.Left),
		"discarded", uint64(v.Discarded), journal.ForPerson())
	j.moved(last, 1)
	return j.note(func() { j.entry.Recovery = &v })
}

// fill fills the free space of the mounted recovery volume and gives it back. Nobody else writes there meanwhile, so nothing is held back
// for files of this job: they are written when the space is free again. The error is that of the context.
func fill(
	ctx context.Context, m *machine.Machine, open func(dir string) (spare, error), progress func(part float64),
) (v erasure.Volume, err error) {
	v = erasure.Volume{Filesystem: "ext4", NotReached: []string{
		"journal and tables of the filesystem, and names of removed files in its directories",
		"what else is on the device beside the volume",
	}}
	missed := func(what string, err error) {
		if err != nil {
			m.Log.Warn("the free space of the recovery volume is not filled as planned", "what", what, "err", err)
			v.NotReached = append(v.NotReached, erasure.Printable(what+": "+err.Error()))
		}
	}
	s, err := open(m.Places.Recovery)
	if err != nil {
		missed("the free space was not filled", err)
		return v, ctx.Err()
	}
	defer func() { missed("the space was not given back", s.Close()) }()
	free, err := s.Free()
	if err != nil {
		missed("the free space was not filled", err)
		return v, ctx.Err()
	}
	v.Free = erasure.Count(free)
	f, err := engine.Fill(ctx, s, s.BlockSize(), free, rand.Reader, progress)
	if err != nil {
		return v, err
	}
	if f.Why != "" {
		missed("it ended early", errors.New(f.Why))
	}
	v.Filled, v.ReadBack, v.Different, v.Flushed, v.Uncached = f.Written, f.ReadBack, f.Different, f.Flushed, s.Bypass()
	left, err := s.Free()
	if err != nil {
		missed("what is left is not known", err)
		left = free
	}
	if v.Left = erasure.Count(left); left > 0 {
		missed("not covered", fmt.Errorf("%d bytes of free space", left))
	}
	n, err := s.Discard()
	if err != nil {
		m.Log.Info("the free space of the recovery volume is not discarded", "err", err)
		n = 0
	}
	v.Discarded = erasure.Count(n)
	return v, nil
}
