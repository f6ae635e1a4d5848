package boot

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"gprovision/model/bootimage"
	"gprovision/model/policy"
)

// Inspection is what a boot artifact is made of.
type Inspection struct {
	// Form says which of the two forms it has.
	Form bootimage.Form `json:"form"`
	// Build is the build number, nil if there is none.
	Build *uint64 `json:"build"`
	// Banner is the kernel's version string.
	Banner string `json:"kernel"`
	// Cmdline are the kernel arguments that are built in.
	Cmdline string `json:"cmdline,omitempty"`
	// Sections are those of the unified kernel image.
	Sections []InspectedSection `json:"sections,omitempty"`
	// Initrd is nil for a kernel that holds its initramfs: it is not taken apart.
	Initrd *InspectedInitrd `json:"initrd,omitempty"`
	// Policy, Info and Platforms are the files of those names in the initramfs, if it has them and they can be read.
	Policy    *policy.Policy  `json:"policy,omitempty"`
	Info      *BuildInfo      `json:"info,omitempty"`
	Platforms json.RawMessage `json:"platforms,omitempty"`
}

// InspectedSection is a section with the length of its content, bytes.
type InspectedSection struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// InspectedInitrd is the initramfs of a unified kernel image.
type InspectedInitrd struct {
	// Compression is that of the initramfs; empty: none.
	Compression Compression `json:"compression"`
	// Size and Unpacked are its length in the file and what it unpacks to, bytes.
	Size     int64 `json:"size"`
	Unpacked int64 `json:"unpacked"`
	// Files and Modules are the numbers of regular files, and of kernel modules among them.
	Files   int `json:"files"`
	Modules int `json:"modules"`
}

// maxInspected bounds what an initramfs may unpack to, and maxConfig one of the files that are read, bytes.
const (
	maxInspected = 4 << 30
	maxConfig    = 4 << 20
)

// Inspect reads a boot artifact of size bytes. It unpacks the whole initramfs, so a damaged one is an error.
func Inspect(r io.ReaderAt, size int64) (Inspection, error) {
	i, err := bootimage.Parse(r, size)
	if err != nil {
		return Inspection{}, err
	}
	in := Inspection{Form: i.Form, Banner: i.Kernel.Banner}
	n, err := i.BuildNumber()
	switch {
	case err == nil:
		in.Build = &n
	case !errors.Is(err, bootimage.ErrNoBuild):
		return Inspection{}, err
	}
	if i.UKI == nil {
		return in, nil
	}
	in.Cmdline = i.UKI.Cmdline()
	for _, s := range i.UKI.Sections() {
		in.Sections = append(in.Sections, InspectedSection{Name: s.Name, Size: s.Size()})
	}
	in.Initrd = &InspectedInitrd{Size: i.UKI.Initrd().Size()}
	if err := in.walk(i.UKI.Initrd()); err != nil {
		return Inspection{}, fmt.Errorf("read initramfs: %w", err)
	}
	return in, nil
}

func (in *Inspection) walk(r io.Reader) error {
	plain, kind, err := decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	in.Initrd.Compression = kind
	limited := &io.LimitedReader{R: plain, N: maxInspected}
	err = bootimage.WalkCPIO(limited, func(f bootimage.File, size int64, r io.Reader) error {
		if !f.Mode.IsRegular() {
			return nil
		}
		in.Initrd.Files++
		if strings.HasSuffix(f.Name, ".ko") {
			in.Initrd.Modules++
		}
		return in.config(f.Name, size, r)
	})
	in.Initrd.Unpacked = maxInspected - limited.N
	return err
}

func (in *Inspection) config(name string, size int64, r io.Reader) error {
	switch name {
	case strings.TrimPrefix(policy.Path, "/"), BuildInfoPath, PlatformsPath:
	default:
		return nil
	}
	if size > maxConfig {
		return fmt.Errorf("%s has %d bytes, want at most %d", name, size, maxConfig)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	switch name {
	case BuildInfoPath:
		var info BuildInfo
		if json.Unmarshal(b, &info) == nil {
			in.Info = &info
		}
	case PlatformsPath:
		if json.Valid(b) {
			in.Platforms = b
		}
	default:
		if p, err := policy.Parse(b); err == nil {
			in.Policy = &p
		}
	}
	return nil
}

func decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	in := bufio.NewReaderSize(r, 1<<20)
	head, err := in.Peek(6)
	if err != nil {
		return nil, "", err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, "", err
		}
		return z.IOReadCloser(), Zstd, nil
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(in)
		return z, Gzip, err
	case bytes.HasPrefix(head, []byte("070701")):
		return io.NopCloser(in), "", nil
	}
	return nil, "", fmt.Errorf("compression is not known: it starts with %x", head)
}
