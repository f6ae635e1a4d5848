package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"syscall"

	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/state"
)

// SignedArtifact checks the signature beside a boot artifact, for its product and its build number. It returns the
// SHA-256 of what it checked: later reads must match it. The error is fs.ErrNotExist if there is no signature.
func SignedArtifact(file string, build uint64, prefix string, keys []signature.PublicKey) (sum [sha256.Size]byte, err error) {
	sig, err := ReadSignature(file)
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

// ReadSignature returns the signature beside a file. It never blocks, and follows no link out of the directory.
func ReadSignature(file string) ([]byte, error) {
	dir, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return state.ReadFile(dir, filepath.Base(file)+signature.Suffix, signature.MaxSize)
}

// Holds reports whether a signed image contains a file with that SHA-256 at the absolute path file. build is the
// build number of the boot artifact in question. If imgmeta.json names another build, the image is not read: data
// that is not yet verified may only speak against itself. Reading the image takes a while, so begin is called first.
// It returns two functions: one for the progress, one to end it.
func Holds(ctx context.Context, im Image, p policy.Policy, keys []signature.PublicKey, file string, build uint64, sum [sha256.Size]byte,
	begin func() (progress func(done int64), end func())) (bool, error) {
	f, sig, err := open(im, p)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if sig == nil {
		return false, nil
	}
	if err := CheckSignature(sig, keys, im.Name); err != nil {
		return false, err
	}
	if meta, err := release.ReadMetaAt(ctx, f, im.Size); err == nil && meta.BootBuild > 0 && meta.BootBuild != build {
		return false, nil
	}
	progress, end := begin()
	defer end()
	was, _, err := Proven(ctx, im, p, keys, progress)
	if err != nil || was == nil {
		return false, err
	}
	h := sha256.New()
	err = EachFile(ctx, was.Reader(f), im, func(name string, size int64, r io.Reader) (bool, error) {
		if name != file {
			return true, nil
		}
		_, err := io.Copy(h, r)
		return false, err
	})
	return err == nil && [sha256.Size]byte(h.Sum(nil)) == sum, err
}

// EachFile calls do for each regular file of an image, with its absolute path, until do returns false or an error. f
// comes from Proof.Reader.
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
