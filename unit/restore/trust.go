package restore

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// A boot artifact carries its build number itself, so that the number is no reason to trust it. What is: a signature of its own by a key of
// the policy, or that it is byte for byte the one in a signed image that is at hand. The unit's own key does not count: it lies on the
// same recovery volume.

// errNotTrusted says that nothing vouches for a boot artifact.
var errNotTrusted = errors.New("it has no signature of its own by a key of the policy, and no signed image at hand holds it")

// SignedArtifact checks the signature that lies beside a boot artifact, for its product and its build number, and returns the SHA-256
// of what was checked. fs.ErrNotExist: there is no signature. What is read again later must be held against the hash.
func SignedArtifact(file string, build uint64, prefix string, keys []signature.PublicKey) (sum [sha256.Size]byte, err error) {
	sig, err := readBeside(file)
	if err != nil {
		return sum, err
	}
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if err := signature.VerifyAs(keys, sig, io.TeeReader(f, h), signature.ArtifactComment(prefix, build)); err != nil {
		return sum, fmt.Errorf("signature of the boot artifact: %w", err)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// readBeside returns the signature beside a file. It waits for nothing and follows no link out of the directory.
func readBeside(file string) ([]byte, error) {
	dir, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return state.ReadFile(dir, filepath.Base(file)+signature.Suffix, signature.MaxSize)
}

// trusted returns the SHA-256 of the recovery artifact own as something vouches for it, with what that is; errNotTrusted if nothing does.
func (j *job) trusted(ctx context.Context, own string, a machine.Artifact) (sum [sha256.Size]byte, by string, err error) {
	sum, err = SignedArtifact(own, a.Build, j.Unit.ImagePrefix, j.Keys)
	if err == nil {
		return sum, "its signature", nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		j.Log.Warn("the recovery artifact has a signature that does not hold", "err", err)
	}
	if sum, err = machine.HashOnDevice(own); err != nil {
		return sum, "", err
	}
	images, _, err := ListImages(filepath.Join(j.Recovery, state.ImageDir), j.Unit.ImagePrefix, false)
	if err != nil {
		return sum, "", err
	}
	for _, im := range images {
		if im.Name.Compare(j.image.Name) == 0 {
			continue // it is in place, and has another build number
		}
		held, err := j.holds(ctx, im, a.Build, sum)
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

// holds says whether a signed image holds a boot artifact with that hash. An image whose imgmeta.json names another build number is not
// read: what is not signed yet may only speak against itself.
func (j *job) holds(ctx context.Context, im Image, build uint64, sum [sha256.Size]byte) (bool, error) {
	f, sig, err := open(im, j.Policy)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if sig == nil {
		return false, nil
	}
	if err := CheckSignature(sig, j.Keys, im.Name); err != nil {
		return false, err
	}
	if meta, err := release.ReadMetaAt(ctx, f, im.Size); err == nil && meta.BootBuild > 0 && meta.BootBuild != build {
		return false, nil
	}
	j.Log.Info("looking for the recovery artifact in a signed image", "image", im.Name.String(), journal.ForPerson())
	meter, stop := j.Track(ctx, im.Size)
	defer stop()
	was, _, err := Proven(ctx, im, j.Policy, j.Keys, meter.Set)
	if err != nil || was == nil {
		return false, err
	}
	h := sha256.New()
	err = EachFile(ctx, was.Reader(f), im, func(name string, size int64, r io.Reader) (bool, error) {
		if name != "/boot/"+j.Site.Names.BootFile {
			return true, nil
		}
		_, err := io.Copy(h, r)
		return false, err
	})
	return err == nil && [sha256.Size]byte(h.Sum(nil)) == sum, err
}

// EachFile calls do for each regular file of an image, with its absolute path, until do returns false or an error. f is what Proof.Reader
// gave.
func EachFile(ctx context.Context, f io.ReaderAt, im Image, do func(name string, size int64, r io.Reader) (more bool, err error)) error {
	r, err := release.NewReader(ctx, f, im.Size, runtime.NumCPU())
	if err != nil {
		return err
	}
	defer r.Close()
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look into %s: %w", im.Name, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if more, err := do(path.Clean("/"+h.Name), h.Size, t); err != nil || !more {
			return err
		}
	}
}

// take puts the recovery artifact own, whose content must have that hash and that build number, in the place of the release's, with its
// signature. What is read there for the second time may be something else: it is judged where it has arrived.
func (j *job) take(own, artifact string, a machine.Artifact, sum [sha256.Size]byte) error {
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
	if sig, err := readBeside(own); err == nil {
		if _, err := machine.PutFile(artifact+signature.Suffix, 0o644, strings.NewReader(string(sig))); err != nil {
			return err
		}
	}
	return machine.SyncDir(filepath.Dir(artifact))
}
