// Package survey looks at a unit before anything is decided: its recovery volume, its main system, its tables and arrays, and what a person
// has plugged in. It returns Findings.
//
// It changes nothing, and cannot: what it looks with (machine.Eyes) has no way to write. A journal that is to be replayed is a change that
// is due before the filesystem says the truth: a mark that was cleared and synced may still be seen without it. Findings name such
// partitions in Replay. Whoever may write has them replayed and surveys again.
//
// After a survey nothing is mounted. An array of the unit that has enough members runs.
package survey

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"gprovision/hw/block"
	"gprovision/model/layout"
	"gprovision/model/release"
	"gprovision/site"
	"gprovision/unit/decide"
	"gprovision/unit/machine"
	"gprovision/unit/medium"
	"gprovision/unit/state"
)

// Findings is what a survey found: the facts to decide by, and what a job needs to know beside them. Nobody changes it afterwards.
type Findings struct {
	decide.Facts
	// Replay are partitions whose journal is to be replayed. If there are any, nothing else here counts.
	Replay []string
	VolumeFindings
	MainFindings
	MediaFindings
	// Tables are the partition tables that were read from the end of their disk, because the first copy is damaged.
	Tables []BackupTable
	// Names are those of the unit: of the boot artifact, and where its record has some, of that.
	Names site.Names
	// Notes say what speaks for and against the candidates that were looked at.
	Notes []string
}

// VolumeFindings is what was found of the recovery volume beside the facts.
type VolumeFindings struct {
	// RecoveryPart is the partition of the recovery volume, also of a damaged one if only one can be it.
	RecoveryPart *machine.Found
	// Unit is the unit's record, if the volume was found.
	Unit state.Unit
	// BadRequest is why the request on the volume cannot be used; nil if there is none, or a good one.
	BadRequest error
	// BadOriginal is why the image that the unit was provisioned with cannot be restored, as far as that shows without reading it; nil if
	// nothing speaks against it, or it is not there.
	BadOriginal error
	// Counts are those of the volume, and CountsPlace is where on the partition they lie, in bytes. BadCounts is why they cannot be used.
	Counts      state.Counts
	CountsPlace int64
	BadCounts   error
	// Pending is what this boot has to do if it is a normal one.
	Pending state.Pending
	// newer reports whether the record of a damaged volume was written by a newer init: no repair makes that readable.
	newer bool
	// images are those that the unit may go back to, history what is known of them. They are read only for a system that is worn.
	images  []release.Name
	history release.History
}

// MainFindings is what was found of the main system beside the facts.
type MainFindings struct {
	// MainPart is the partition or array of the main system, if there is one. An array is on no disk.
	MainPart *machine.Found
	// Planned are the disks that the platform plans as main disks, where MainPart is nil or an array and they are there.
	Planned []block.Disk
	// Members are the names of the disks that carry a member of the unit's array.
	Members []string
	// Degraded reports whether the array lacks members.
	Degraded bool
	// Awaits reports whether members of the array are missing that may still come.
	Awaits bool
	// Unreadable reports whether the main partition is there and cannot be read at all.
	Unreadable bool
	// Mark is the main system's mark.
	Mark state.Mark
}

// MediaFindings is what was found of what a person plugged in.
type MediaFindings struct {
	// Media are the emergency media, Offer the one whose image OfferFile may be restored; nil if there is none.
	Media     []medium.Medium
	Offer     *medium.Medium
	OfferFile medium.File
	// Sticks are the recovery sticks, the one that this boot came from first; FromStick reports whether there is such a one.
	Sticks    []medium.Stick
	FromStick bool
	// OriginMissing reports whether no disk is there that this boot can have come from: a slow stick, perhaps.
	OriginMissing bool
	// LastMedium is the medium that the unit was restored from last, and LastPresent reports whether it is there.
	LastMedium  state.Medium
	LastPresent bool
}

// note adds a line to notes.
func note(notes *[]string, format string, a ...any) {
	*notes = append(*notes, fmt.Sprintf(format, a...))
}

// Memory is what this boot remembers of its earlier passes, as far as a survey has to know.
type Memory struct {
	// Since is when the wait for disks began.
	Since time.Time
	// Repairs and RecoveryRepairs count the repairs of this boot.
	Repairs, RecoveryRepairs int
	// TablesTried reports whether damaged partition tables were repaired, or could not be.
	TablesTried bool
	// BackFailed reports whether going back to another image did not work.
	BackFailed bool
	// ShellDone reports whether the recovery shell was asked for and opened, or refused.
	ShellDone bool
	// Expired reports whether a watchdog ended the boot before.
	Expired bool
	// Answered says, by the identifier of an image on a medium, why it is left alone.
	Answered map[string]string
	// Replayed are the partitions whose journal was replayed since the wait for disks began, with what that ended in.
	Replayed map[string]error
	// Choice is what a person chose for this pass.
	Choice decide.Choice
}

// Survey looks at a unit.
type Survey struct {
	Eyes machine.Eyes
	Args decide.Args
	// Names are those of the boot artifact, or of the Site where it has none.
	Names site.Names
	// SiteLabel is the label of recovery volumes that the artifact's names have replaced; empty: none.
	SiteLabel string
	// Memory is what this boot remembers.
	Memory Memory
}

// Provisions reports whether this boot provisions the unit, whatever is found.
func (s *Survey) Provisions() bool { return s.Eyes.Policy().Provision && s.Args.ManifestURL != "" }

// Look surveys the unit once.
func (s *Survey) Look(ctx context.Context) *Findings {
	f := &Findings{Names: s.Names, Facts: decide.Facts{EraseAsked: s.Args.Erase, ManifestURL: s.Args.ManifestURL,
		Recovery: decide.RecoveryMissing,
		Main:     decide.MainAbsent, Repairs: s.Memory.Repairs, RecoveryRepairs: s.Memory.RecoveryRepairs, ShellAsked: s.Args.Shell &&
			!s.Memory.ShellDone, Choice: s.Memory.Choice}}
	s.useBackupTables(f)
	recoveryLook{s, f}.lookForRecovery()
	s.judgeTables(f)
	if len(f.Replay) == 0 {
		mainLook{s, f}.lookForMain(ctx)
	}
	if len(f.Replay) > 0 {
		return f
	}
	s.lookForMedia(ctx, f)
	if f.Worn(s.Eyes.Policy()) && f.Main == decide.MainMarked && !s.Memory.BackFailed {
		f.Previous = goBack(f)
	}
	if s.Args.Shell && !s.Eyes.Policy().Shell {
		note(&f.Notes, "frmode=shell is ignored: the policy has no shell")
	}
	return f
}

// errReplay says that a filesystem is not looked at before its journal was replayed.
var errReplay = errors.New("its journal is to be replayed first")

// settled returns nil if what a mount without replay shows of an ext4 filesystem is what counts. If a replay is due it is noted, and the
// error
// is errReplay. A replay that failed is the reason that the filesystem cannot be read.
func (s *Survey) settled(f *Findings, path string) error {
	due, err := s.Eyes.AwaitsReplay(path)
	if err != nil || !due {
		return err
	}
	if err, tried := s.Memory.Replayed[path]; tried {
		if err == nil {
			err = errors.New("it is still to be replayed")
		}
		return fmt.Errorf("replay the journal: %w", err)
	}
	if !slices.Contains(f.Replay, path) {
		f.Replay = append(f.Replay, path)
	}
	return errReplay
}

// view mounts the volume on a partition for the time of do.
func (s *Survey) view(part string, do func(*state.Volume) error) error {
	dir := s.Eyes.Places().Recovery
	if err := s.Eyes.Mount(part, dir, "ext4"); err != nil {
		return fmt.Errorf("%w: %v", errUnreadable, err)
	}
	return errors.Join(do(state.Open(dir)), s.Eyes.Unmount(dir))
}

// startedFrom returns the GUID of a partition of the disk that this boot came from, "" if that is not known.
func (s *Survey) startedFrom(f *Findings) string {
	if s.Eyes.Firmware() != layout.UEFI {
		return s.Args.Stick
	}
	id, err := s.Eyes.StartedFrom()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		note(&f.Notes, "what the EFI stub says of where it started from cannot be used: %v", err)
	}
	return id
}
