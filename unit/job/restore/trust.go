package restore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"gprovision/hw/durable"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// A boot artifact carries its build number itself, so that the number is no reason to trust it. What is: a signature of its own by a key of
// the policy, or that it is byte for byte the one in a signed image that is at hand. The unit's own key does not count: it lies on the
// same recovery volume.

// errNotTrusted says that nothing vouches for a boot artifact.
var errNotTrusted = errors.New("it has no signature of its own by a key of the policy, and no signed image at hand holds it")

// trusted returns the SHA-256 of the recovery artifact own as something vouches for it, and what that is. It returns errNotTrusted if
// nothing does.
func (j *restoring) trusted(ctx context.Context, own string, a machine.Artifact) (sum [sha256.Size]byte, by string, err error) {
	sum, err = image.SignedArtifact(own, a.Build, j.Unit.ImagePrefix, j.Keys)
	if err == nil {
		return sum, "its signature", nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		j.Log.Warn("the recovery artifact has a signature that does not hold", "err", err)
	}
	if sum, err = machine.HashOnDevice(own); err != nil {
		return sum, "", err
	}
	images, _, err := image.List(filepath.Join(j.Places.Recovery, state.ImageDir), j.Unit.ImagePrefix, false)
	if err != nil {
		return sum, "", err
	}
	for _, im := range images {
		if im.Name.Compare(j.image.Name) == 0 {
			continue // it is in place, and has another build number
		}
		held, err := image.Holds(ctx, im, j.Policy, j.Keys, "/boot/"+j.Site.Names.BootFile, a.Build, sum, func() (func(int64), func()) {
			j.Log.Info("looking for the recovery artifact in a signed image", "image", im.Name.String(), journal.ForPerson())
			meter, end := j.Track(ctx, im.Size)
			return meter.Set, end
		})
		if ctx.Err() != nil {
			return sum, "", ctx.Err()
		}
		if err != nil {
			j.Log.Warn("an image cannot vouch for the recovery artifact", "image", im.Name.String(), "err", err)
		}
		if held {
			return sum, im.Name.String(), nil
		}
	}
	return sum, "", errNotTrusted
}

// take puts the recovery artifact own, whose content must have that hash and that build number, in the place of the release's, with its
// signature. What is read there for the second time may be something else: it is judged where it has arrived.
func (j *restoring) take(own, artifact string, a machine.Artifact, sum [sha256.Size]byte) error {
	in, err := os.OpenFile(own, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	fresh := artifact + ".recovery"
	defer os.Remove(fresh)
	got, err := machine.PutFile(fresh, 0o644, in)
	if err != nil {
		return err
	}
	if got != sum {
		return errors.New("the recovery artifact is another one than what was checked")
	}
	now, err := machine.ReadArtifact(fresh)
	if err != nil {
		return err
	}
	if now != a {
		return fmt.Errorf("the recovery artifact has build number %d, and had %d before", now.Build, a.Build)
	}
	if err := os.RemoveAll(artifact + signature.Suffix); err != nil {
		return err
	}
	if err := os.Rename(fresh, artifact); err != nil {
		return err
	}
	if sig, err := image.ReadSignature(own); err == nil {
		if _, err := machine.PutFile(artifact+signature.Suffix, 0o644, strings.NewReader(string(sig))); err != nil {
			return err
		}
	}
	return durable.Sync(filepath.Dir(artifact))
}
