// Package image chooses, proves and keeps release images. A restore, an update, an emergency medium, a recovery stick
// and the menu all do it in this one way.
//
// An image is a file whose name says what it is (model/release). It is good once it is proven and can be unpacked. A
// signature by a key of the policy proves it. Where the policy allows unsigned images, reading it whole does. Later
// reads of a signed image go through its proof.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
)

// Image is one release image on the recovery volume.
type Image struct {
	Path string
	Name release.Name
	Size int64 // bytes
}

// Rejected is a file that looks like an image but cannot be used.
type Rejected struct {
	File string
	Err  error
}

// List returns the well-named images in dir, newest first, or oldest first if oldestFirst is set. Files that look
// like images but are none are returned as rejected.
func List(dir, prefix string, oldestFirst bool) ([]Image, []Rejected, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var images []Image
	var bad []Rejected
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".upd") {
			continue
		}
		name, err := release.ParseName(e.Name(), prefix)
		if err != nil {
			bad = append(bad, Rejected{e.Name(), fault.Because(fault.ImageName, err)})
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			bad = append(bad, Rejected{e.Name(), fault.Newf(fault.ImageName, "not a regular file")})
			continue
		}
		images = append(images, Image{Path: filepath.Join(dir, e.Name()), Name: name, Size: info.Size()})
	}
	sortImages(images, oldestFirst)
	return images, bad, nil
}

func sortImages(images []Image, oldestFirst bool) {
	less := func(a, b Image) int {
		if oldestFirst {
			return a.Name.Compare(b.Name)
		}
		return b.Name.Compare(a.Name)
	}
	slices.SortStableFunc(images, less)
}

// Prove shows that an image is good before anything is destroyed for it. It must be the image that was made, and it
// must be possible to unpack it.
//
// For a signed image, the signature must be by a trusted key, over every byte, for this very name. If the image says
// what it needs, that is signed too, and stands for a judgement by whoever made it. If it does not, or if it is
// unsigned and the policy allows that, one full decoding pass makes every check and judges each entry.
//
// The name must always be the one in the image's imgmeta.json, and must not be older than the policy allows. progress
// gets the number of bytes of the file read so far.
func Prove(ctx context.Context, im Image, p policy.Policy, keys []signature.PublicKey, progress func(done int64)) error {
	_, _, err := Proven(ctx, im, p, keys, progress)
	return err
}

// Proven does what Prove does. It also returns the proof, which is nil for an unsigned image, and what the image
// needs of the main system. Later reads of the image go through the proof.
func Proven(ctx context.Context, im Image, p policy.Policy, keys []signature.PublicKey, progress func(done int64)) (*Proof, filesystem.Need, error) {
	f, sig, err := open(im, p)
	if err != nil {
		return nil, filesystem.Need{}, err
	}
	defer f.Close()
	if sig == nil {
		need, err := judgeWhole(ctx, f, im, progress)
		return nil, need, err
	}
	var was Proof
	m := &meter{r: io.NewSectionReader(f, 0, im.Size), ctx: ctx, report: progress}
	if err := VerifySignature(sig, keys, im.Name, io.TeeReader(m, &was)); err != nil {
		if m.err != nil {
			return nil, filesystem.Need{}, fault.Newf(fault.ImageCorrupt, "read %s: %w", im.Name, m.err)
		}
		return nil, filesystem.Need{}, err
	}
	was.closeChunk()
	need, err := judgeSigned(ctx, was.Reader(f), im, progress)
	return &was, need, err
}

// Glance returns what speaks against an image, without reading all of it. An image that passes is not yet good: only
// Prove decides that.
func Glance(im Image, p policy.Policy, keys []signature.PublicKey) error {
	f, sig, err := open(im, p)
	if err != nil {
		return err
	}
	defer f.Close()
	if sig == nil {
		return nil
	}
	return CheckSignature(sig, keys, im.Name)
}

// open opens an image that is not older than the policy allows. It also returns the signature. sig is nil if there is
// none and the policy needs none.
func open(im Image, p policy.Policy) (f *os.File, sig []byte, err error) {
	f, err = os.OpenFile(im.Path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fault.Because(fault.ImageCorrupt, err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := CheckAge(im.Name, p); err != nil {
		return nil, nil, err
	}
	if err := release.CheckHeader(f); err != nil {
		return nil, nil, fault.Because(fault.ImageCorrupt, err)
	}
	sig, err = ReadSignature(im.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && p.AllowUnsigned:
		return f, nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fault.Because(fault.ImageUnsigned, err)
	case err != nil:
		return nil, nil, fault.Because(fault.ImageCorrupt, err)
	}
	return f, sig, nil
}

// CheckSignature finds what is wrong with an image's signature without reading the image.
func CheckSignature(sig []byte, keys []signature.PublicKey, name release.Name) error {
	info, err := signature.Parse(sig)
	if err != nil {
		return fault.Because(fault.ImageSignature, err)
	}
	if want := signature.ImageComment(name.Base()); info.Trusted != want {
		return fault.Newf(fault.ImageSignature, "the signature says %q, want %q", info.Trusted, want)
	}
	if !slices.ContainsFunc(keys, func(k signature.PublicKey) bool { return k.ID() == info.KeyID }) {
		return fault.Newf(fault.ImageSignature, "the signature of %s is by key %s, which is not in the policy", name, info.KeyID)
	}
	return nil
}

// VerifySignature checks the detached signature of an image against the whole content r. The signature must have been
// made for this name.
func VerifySignature(sig []byte, keys []signature.PublicKey, name release.Name, r io.Reader) error {
	want := signature.ImageComment(name.Base())
	if err := signature.VerifyAs(keys, sig, r, want); err != nil {
		return fault.Because(fault.ImageSignature, err)
	}
	return nil
}

// CheckAge returns an error if an image is older than the policy allows.
func CheckAge(n release.Name, p policy.Policy) error {
	if p.OldestBuild == "" {
		return nil
	}
	least, err := release.ParseVersion(p.OldestBuild)
	if err != nil {
		return fault.Because(fault.Policy, fmt.Errorf("oldestBuild of the policy: %w", err))
	}
	if n.Compare(least) < 0 {
		return fault.Newf(fault.Policy, "%s is older than %s", n, p.OldestBuild)
	}
	return nil
}

// Surplus returns the images that may be removed. It keeps the running image, the one that the unit was provisioned
// with, the oldest, and the newest keep. The oldest is the original if the record does not name one.
func Surplus(images []Image, running, original string, keep int) []Image {
	var names []release.Name
	for _, im := range images {
		names = append(names, im.Name)
	}
	_, drop := release.Retain(names, running, keep)
	var out []Image
	for _, im := range images {
		if im.Name.String() != original && slices.Contains(drop, im.Name) {
			out = append(out, im)
		}
	}
	return out
}

// Remove removes an image and its signature.
func (im Image) Remove() error {
	if err := os.Remove(im.Path); err != nil {
		return err
	}
	if err := os.Remove(im.Path + signature.Suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// meter counts what is read through it. Reading ends when ctx does.
type meter struct {
	r      io.Reader
	ctx    context.Context
	report func(done int64)
	done   int64
	err    error // of r, unless io.EOF
}

func (m *meter) Read(b []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(b)
	m.done += int64(n)
	if err != nil && err != io.EOF {
		m.err = err
	}
	if m.report != nil {
		m.report(m.done)
	}
	return n, err
}

// Order returns the images in the order in which to try them. The image with the file name first leads, and found
// reports whether it is there. The others keep their order, but those with a bad history come last.
func Order(images []Image, first string, history release.History) (sorted []Image, found bool) {
	var asked, good, worn []Image
	for _, im := range images {
		switch {
		case im.Name.String() == first:
			asked = append(asked, im)
		case history.Check(im.Name.String()):
			good = append(good, im)
		default:
			worn = append(worn, im)
		}
	}
	return slices.Concat(asked, good, worn), len(asked) > 0
}

// GoBack chooses the previous good image. images are sorted, newest first. It takes the last used image that once
// started well, or else the newest that is older than the installed one. It never takes the installed image, nor one
// that failed too often.
func GoBack(images []release.Name, h release.History, installed string) string {
	var now *release.Name
	known := map[string]release.Name{}
	for _, n := range images {
		known[n.Base()] = n
		if n.Base() == installed {
			now = &n
		}
	}
	for _, r := range h.ImageResults {
		if n, ok := known[r.Image]; ok && r.Image != installed && r.BootAttempts > r.BootFailures && h.Check(r.Image) {
			return n.String()
		}
	}
	for _, n := range images {
		if now != nil && n.Compare(*now) < 0 && h.Check(n.Base()) {
			return n.String()
		}
	}
	return ""
}
