// Package bootimage knows the files that boot: the PE file of a unified kernel image with its sections, the header of a
// bzImage, the cpio archive of an initramfs, and the build number that each boot artifact carries.
//
// It reads and writes values through readers and writers that are passed in; forge/boot decides what goes into an artifact,
// hw/bootloader how a disk starts it. Everything that parses takes bytes from outside: it is bounded and fuzzed.
//
// The format of our artifacts is described in docs/formats/boot-artifact.md.
package bootimage

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
)

// Errors that a caller may want to tell apart.
var (
	ErrNotUKI     = errors.New("not a unified kernel image")
	ErrNotBzImage = errors.New("not a Linux bzImage")
	ErrNoBuild    = errors.New("no build number")
)

// Form is one of the two forms of a boot artifact.
type Form string

// The forms of a boot artifact.
const (
	FormUKI     Form = "uki"     // kernel and initramfs as sections of a PE file
	FormBzImage Form = "bzimage" // a kernel that holds its initramfs
)

// Image is a boot artifact of either form.
type Image struct {
	Form Form
	// UKI is set for FormUKI.
	UKI *UKI
	// Kernel is the header of the kernel, in either form.
	Kernel *BzImage
}

// Parse reads a boot artifact of either form. size is that of the whole file, bytes. It reads headers and small sections
// only; r must stay open while the result is used.
func Parse(r io.ReaderAt, size int64) (*Image, error) {
	u, err := ParseUKI(r, size)
	if err == nil {
		return &Image{Form: FormUKI, UKI: u, Kernel: u.kernel}, nil
	}
	if !errors.Is(err, ErrNotUKI) {
		return nil, err
	}
	k, kerr := ParseBzImage(r, size)
	if kerr != nil {
		return nil, fmt.Errorf("parse boot artifact: %w; %w", err, kerr)
	}
	return &Image{Form: FormBzImage, Kernel: k}, nil
}

// BuildNumber returns the build number of the artifact: BUILD_ID of a unified kernel image's .osrel section, else the number
// behind # in the kernel's banner. ErrNoBuild if there is none.
func (i *Image) BuildNumber() (uint64, error) {
	if i.UKI != nil {
		return i.UKI.BuildNumber()
	}
	return i.Kernel.BuildNumber()
}

// BuildNumber returns the build number of the boot artifact in r, of either form. size is that of the whole file, bytes.
func BuildNumber(r io.ReaderAt, size int64) (uint64, error) {
	i, err := Parse(r, size)
	if err != nil {
		return 0, err
	}
	return i.BuildNumber()
}

var bannerBuild = regexp.MustCompile(`(?:^| )#([0-9]{1,20})(?:$|[ -])`)

// BannerBuild returns the build number in a kernel's version banner: the digits of a word "#N", or of one that goes on with a
// dash, as in "#1-Ubuntu". ErrNoBuild if there is none.
func BannerBuild(banner string) (uint64, error) {
	m := bannerBuild.FindStringSubmatch(banner)
	if m == nil {
		return 0, fmt.Errorf("kernel banner %q: %w", banner, ErrNoBuild)
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("kernel banner %q: %w", banner, ErrNoBuild)
	}
	return n, nil
}
