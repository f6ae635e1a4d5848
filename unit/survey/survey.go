// Package survey looks at a unit before anything is decided: its recovery volume, its main system, its tables and
// arrays, and what a person has plugged in. It returns Findings.
//
// It changes nothing, and it cannot: it looks through machine.Eyes, which have no way to write. But a filesystem with
// a journal to replay does not yet show the truth. Without the replay, a mark that was cleared and synced may still
// be visible. So Findings list such partitions in Replay, and nothing else in them counts. Whoever may write replays
// the journals and surveys again.
//
// After a survey nothing is mounted. The unit's array runs if it has enough members.
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

// Findings are the result of a survey: the facts to decide by, and what a job needs besides. Nobody changes them
// afterwards.
type Findings struct {
	decide.Facts
	// Replay lists the partitions whose journal must be replayed. If there are any, nothing else here counts.
	Replay []string
	VolumeFindings
	MainFindings
	MediaFindings
	// Tables are the partition tables that were read from the end of their disk because the first copy is damaged.
	Tables []BackupTable
	// Names are the unit's names: those in its record, and those of the boot artifact where the record has none.
	Names site.Names
	// Notes say what speaks for and against the candidates.
	Notes []string
}

// VolumeFindings is what a survey found on the recovery volume, besides the facts.
type VolumeFindings struct {
	// RecoveryPart is the partition of the recovery volume. It is also set for a damaged volume if only one partition
	// can be it, and for one of another machine.
	RecoveryPart *machine.Found
	// StandIn reports whether that partition is on a main disk and stands in for the recovery volume, whose device is being erased.
	StandIn bool
	// Unit is the unit's record, if the volume was found, or is of another machine.
	Unit state.Unit
	// BadRequest is why the request on the volume cannot be used. It is nil if the request is good or there is none.
	BadRequest error
	// BadOriginal is why the image that the unit was provisioned with cannot be restored. It is nil if nothing speaks
	// against the image, or the image is not there. The content was not read.
	BadOriginal error
	// Counts are the volume's counts. CountsPlace is their offset in the partition, in bytes. BadCounts is why they
	// cannot be used.
	Counts      state.Counts
	CountsPlace int64
	BadCounts   error
	// Pending is what a normal boot still has to do.
	Pending state.Pending
	// newer reports whether a newer init wrote the record of a damaged volume. No repair makes that readable.
	newer bool
	// elsewhere are whole recovery volumes of other machines.
	elsewhere []elsewhere
	// images are those that the unit may go back to, and history what is known of them. They are read only if the
	// system is worn.
	images  []release.Name
	history release.History
}

// MainFindings is what a survey found of the main system, besides the facts.
type MainFindings struct {
	// MainPart is the partition or array of the main system, if there is one. For an array its Disk is empty.
	MainPart *machine.Found
	// Planned are the disks that the platform plans as main disks. It is set only if they are there and MainPart is
	// nil or an array.
	Planned []block.Disk
	// Members are the names of the disks with a member of the unit's array.
	Members []string
	// Degraded reports whether the array lacks members.
	Degraded bool
	// Awaits reports whether missing members of the array may still come.
	Awaits bool
	// Unreadable reports whether the main partition exists but cannot be read at all.
	Unreadable bool
	// Mark is the main system's mark.
	Mark state.Mark
}

// MediaFindings is what a survey found of the media that a person plugged in.
type MediaFindings struct {
	// Media are the emergency media. Offer is the one whose image OfferFile may be restored, or nil.
	Media     []medium.Medium
	Offer     *medium.Medium
	OfferFile medium.File
	// Sticks are the recovery sticks. FromStick reports whether this boot came from one: it is then the first.
	Sticks    []medium.Stick
	FromStick bool
	// OriginMissing reports whether this boot can have come from none of the disks. The stick may just be slow.
	OriginMissing bool
	// LastMedium is the medium of the last restore. LastPresent reports whether it is plugged in.
	LastMedium  state.Medium
	LastPresent bool
}

// note adds a line to notes.
func note(notes *[]string, format string, a ...any) {
	*notes = append(*notes, fmt.Sprintf(format, a...))
}

// Memory is what this boot remembers from its earlier passes, as far as a survey needs it.
type Memory struct {
	// Since is when the wait for disks began: when the drivers were loaded, or when the unit last held.
	Since time.Time
	// Repairs and RecoveryRepairs count this boot's repairs of the main system and of the recovery volume.
	Repairs, RecoveryRepairs int
	// TablesTried reports whether a repair of damaged partition tables was tried.
	TablesTried bool
	// BackFailed reports whether an attempt to go back to another image failed.
	BackFailed bool
	// ShellDone reports whether the recovery shell was asked for, and then opened or refused.
	ShellDone bool
	// Expired reports whether a watchdog ended the last boot.
	Expired bool
	// Answered says why an image on a medium is left alone, by the image's identifier.
	Answered map[string]string
	// Replayed lists the partitions whose journal was replayed since the wait for disks began, with the error of the
	// replay.
	Replayed map[string]error
	// Choice is what a person chose for this pass.
	Choice decide.Choice
}

// Survey looks at a unit.
type Survey struct {
	Eyes machine.Eyes
	Args decide.Args
	// Names are the boot artifact's names, or the Site's if the artifact has none.
	Names site.Names
	// SiteLabel is the recovery volume label that the artifact's names have replaced. It is empty if they replaced
	// none.
	SiteLabel string
	// Memory is what this boot remembers.
	Memory Memory
}

// Provisions reports whether this boot provisions the unit, no matter what is found.
func (s *Survey) Provisions() bool { return s.Eyes.Policy().Provision && s.Args.ManifestURL != "" }

// Look surveys the unit once.
func (s *Survey) Look(ctx context.Context) *Findings {
	f := &Findings{Names: s.Names, Facts: decide.Facts{
		Erasing: decide.EraseFacts{EraseAsked: s.Args.Erase}, ManifestURL: s.Args.ManifestURL,
		Recovery: decide.RecoveryMissing,
		Main:     decide.MainAbsent, Repairs: s.Memory.Repairs, RecoveryRepairs: s.Memory.RecoveryRepairs, ShellAsked: s.Args.Shell &&
			!s.Memory.ShellDone, Choice: s.Memory.Choice}}
	s.useBackupTables(f)
	recoveryLook{s, f}.lookForRecovery()
	s.judgeTables(f)
	if len(f.Replay) == 0 {
		mainLook{s, f}.lookForMain(ctx)
		s.checkElsewhere(ctx, f)
	}
	if len(f.Replay) > 0 {
		return f
	}
	s.lookForMedia(ctx, f)
	if f.Worn(s.Eyes.Policy()) && f.Main == decide.MainMarked && !s.Memory.BackFailed {
		f.Previous = previousImage(f)
	}
	if s.Args.Shell && !s.Eyes.Policy().Shell {
		note(&f.Notes, "frmode=shell is ignored: the policy has no shell")
	}
	return f
}

// checkElsewhere lets go of a recovery volume of another machine whose record does not have the main disk of this one. Two disks that agree
// with each other are a unit with another mainboard. One alone is just a disk.
func (s *Survey) checkElsewhere(ctx context.Context, f *Findings) {
	if !f.Recovery.Elsewhere() || f.Recorded || len(f.Replay) > 0 {
		return
	}
	note(&f.Notes, "recovery: %s does not belong to the main disk", f.RecoveryPart.Path)
	f.Recovery, f.RecoveryPart, f.Unit = decide.RecoveryMissing, nil, state.Unit{}
	f.Main, f.MainFindings = decide.MainAbsent, MainFindings{}
	mainLook{s, f}.lookForMain(ctx)
}

// errReplay means that a filesystem must not be looked at before its journal is replayed.
var errReplay = errors.New("its journal is to be replayed first")

// checkReplayed returns nil if an ext4 filesystem shows the truth when mounted without replay. If a replay is due, it adds
// the partition to Replay and returns errReplay. If the replay failed earlier, it returns that error: the filesystem
// cannot be read.
func (s *Survey) checkReplayed(f *Findings, path string) error {
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

// view mounts the volume on a partition while do runs.
func (s *Survey) view(part string, do func(*state.Volume) error) error {
	dir := s.Eyes.Places().Recovery
	if err := s.Eyes.Mount(part, dir, "ext4"); err != nil {
		return fmt.Errorf("%w: %v", errUnreadable, err)
	}
	return errors.Join(do(state.Open(dir)), s.Eyes.Unmount(dir))
}

// startedFrom returns the GUID of a partition on the disk that this boot came from. It is empty if that is not known.
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
