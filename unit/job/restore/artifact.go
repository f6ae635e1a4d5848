package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"gprovision/model/fault"
	"gprovision/unit/image"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
)

// The two boot artifacts of a unit. The normal one lies in the restored system and belongs to the release, as its modules match the
// root; the recovery one lies on the recovery volume and is only replaced upwards. Two monolithic ones need no modules: there the
// one with the higher build number overwrites the other, in both directions.

// bootMain chooses the normal artifact and makes the main disk boot it.
func (j *restoring) bootMain(ctx context.Context) error {
	artifact := filepath.Join(j.root, "boot", j.Site.Names.BootFile)
	if st, err := os.Lstat(filepath.Dir(artifact)); err != nil || !st.IsDir() {
		return fault.Newf(fault.ImageCorrupt, "the image has no directory /boot")
	}
	fresh, err := machine.ReadArtifact(artifact)
	if err != nil {
		return classify(fmt.Errorf("boot artifact /boot/%s of the image: %w", j.Site.Names.BootFile, err))
	}
	if err := j.takeRecovery(ctx, artifact, fresh); err != nil {
		return bootFault(err)
	}
	var disks []string
	for _, d := range j.disks {
		disks = append(disks, d.Path)
	}
	return bootFault(j.PutMainArtifact(j.Unit, disks, j.root))
}

// bootFault is the kind of a failure to make the main disk boot. A boot artifact that does not fit is the image's.
func bootFault(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return classify(err)
	}
	return because(fault.BootSetup, err)
}

// takeRecovery puts the recovery artifact in the place of the release's own, artifact, where it wins and something vouches for it.
func (j *restoring) takeRecovery(ctx context.Context, artifact string, fresh machine.Artifact) error {
	own := filepath.Join(j.Places.Recovery, j.Site.Names.BootFile)
	recovery, err := machine.ReadArtifact(own)
	if err != nil {
		return nil // updateRecovery replaces it
	}
	if !recoveryWins(fresh, recovery, j.env.Survey.Args.KeepRecovery) {
		if j.env.Survey.Args.KeepRecovery {
			j.Log.Warn("the recovery artifact was asked for, and a release with modules of its own needs its own", journal.ForPerson())
		}
		return nil
	}
	sum, by, err := j.trusted(ctx, own, recovery)
	if errors.Is(err, errNotTrusted) {
		j.Log.Warn("the recovery artifact does not become the normal one: nothing vouches for it", "build", recovery.Build, "release", fresh.Build, "err", err, journal.ForPerson())
		return nil
	}
	if err != nil {
		return err
	}
	j.Log.Info("the recovery artifact becomes the normal one", "build", recovery.Build, "release", fresh.Build,
		"asked", j.env.Survey.Args.KeepRecovery, "vouched", by)
	return j.take(own, artifact, recovery, sum)
}

// recoveryWins reports whether a release with the artifact fresh is started by the recovery artifact.
func recoveryWins(fresh, recovery machine.Artifact, asked bool) bool {
	return fresh.Monolithic && recovery.Monolithic && (asked || recovery.Build > fresh.Build)
}

// updateRecovery replaces the recovery artifact by the release's own if that has a higher build number and is trusted, and makes the
// recovery device boot it. The main disk boots already when this runs: never both in one step.
func (j *restoring) updateRecovery(context.Context) error {
	own := filepath.Join(j.Places.Recovery, j.Site.Names.BootFile)
	_, unreadable := machine.ReadArtifact(own)
	if !j.env.Survey.Args.KeepRecovery || unreadable != nil {
		fresh := filepath.Join(j.root, "boot", j.Site.Names.BootFile)
		_, err := machine.UpdateRecovery(j.Log, own, fresh, j.proof != nil || j.signed(fresh))
		if unreadable == nil && errors.Is(err, syscall.ENOSPC) {
			j.Log.Warn("the recovery volume is full: the recovery artifact stays as it is", "err", err, journal.ForPerson())
			err = nil
		}
		if err != nil {
			return fault.Because(fault.BootSetup, err)
		}
	}
	return because(fault.BootSetup, j.PutRecoveryArtifact(j.Unit, j.Places.Recovery))
}

// signed reports whether a boot artifact on the main system has a signature of its own that holds.
func (j *restoring) signed(file string) bool {
	a, err := machine.ReadArtifact(file)
	if err == nil {
		_, err = image.SignedArtifact(file, a.Build, j.Unit.ImagePrefix, j.Keys)
	}
	return err == nil
}
