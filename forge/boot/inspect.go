package boot

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gprovision/forge/plain"
	"gprovision/hw/bootloader"
	"gprovision/model/bootimage"
	"gprovision/model/naming"
	"gprovision/model/policy"
)

// Inspection is what a boot artifact is made of.
type Inspection struct {
	// Form says which of the two forms it has.
	Form bootimage.Form `json:"form"`
	// Build is the build number, nil if there is none.
	Build *uint64 `json:"build"`
	// Banner is the kernel's version string, and Release its first word.
	Banner  string `json:"kernel"`
	Release string `json:"release"`
	// KernelSize is the length of the kernel in the file, bytes; of a kernel that holds its initramfs with that.
	KernelSize int64 `json:"kernelSize"`
	// Signatures are those for Secure Boot. Each was found to fit the file; whether it is trusted is for the firmware to say.
	Signatures []InspectedSignature `json:"signatures,omitempty"`
	// Cmdline are the kernel arguments that are built in.
	Cmdline string `json:"cmdline,omitempty"`
	// Sections are those of the unified kernel image.
	Sections []InspectedSection `json:"sections,omitempty"`
	// Initrd is nil if a kernel holds no initramfs, or is compressed in a way that is not known here.
	Initrd *InspectedInitrd `json:"initrd,omitempty"`
	// Policy, Info and Platforms are the files of those names in the initramfs, if it has them and they can be read.
	Policy    *policy.Policy   `json:"policy,omitempty"`
	Info      *bootimage.Build `json:"info,omitempty"`
	Platforms json.RawMessage  `json:"platforms,omitempty"`
	// Names are those of the product; nil: the artifact has none, and its init's own are used.
	Names *naming.Names `json:"names,omitempty"`
	// GRUB is the boot loader for BIOS machines in the initramfs; empty if it has none.
	GRUB bootloader.Images `json:"-"`
}

// InspectedSection is a section with the length of its content, bytes.
type InspectedSection struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// InspectedSignature is a signature for Secure Boot.
type InspectedSignature struct {
	// Subject and Issuer are those of the signer's certificate.
	Subject string `json:"subject"`
	Issuer  string `json:"issuer"`
	// SHA256 is that of the certificate, hexadecimal.
	SHA256 string `json:"sha256"`
}

// InspectedPart is a group of files in an initramfs.
type InspectedPart struct {
	// Name is what the files are: init, modules, firmware, programs, libraries, boot loader, configuration, other.
	Name string `json:"name"`
	// Files is their number and Size the length of all of them, bytes, not compressed.
	Files int   `json:"files"`
	Size  int64 `json:"size"`
}

// InspectedInitrd is the initramfs of a boot artifact.
type InspectedInitrd struct {
	// Compression is that of the initramfs; empty: none, or that of the kernel which holds it.
	Compression Compression `json:"compression"`
	// Size and Unpacked are its length in the file and what it unpacks to, bytes. Size is 0 inside a kernel.
	Size     int64 `json:"size"`
	Unpacked int64 `json:"unpacked"`
	// Files and Modules are the numbers of regular files, and of kernel modules among them.
	Files   int `json:"files"`
	Modules int `json:"modules"`
	// ModuleNames are those of the kernel modules, in the order of the archive.
	ModuleNames []string `json:"moduleNames,omitempty"`
	// Parts are its files in groups, the largest first.
	Parts []InspectedPart `json:"parts"`
}

// maxInspected bounds what an initramfs may unpack to, maxKernel what a kernel may, and maxConfig one of the files that are read, bytes.
const (
	maxInspected = 4 << 30
	maxKernel    = 1 << 30
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
	in.Release, in.KernelSize = i.Kernel.Release(), size
	if err := in.signatures(r, size); err != nil {
		return Inspection{}, err
	}
	if i.UKI == nil {
		initrd, err := embedded(i.Kernel, r)
		if err != nil {
			return Inspection{}, fmt.Errorf("read kernel: %w", err)
		}
		if initrd == nil {
			return in, nil
		}
		in.Initrd = &InspectedInitrd{}
		if err := in.walk(bytes.NewReader(initrd)); err != nil {
			return Inspection{}, fmt.Errorf("read initramfs: %w", err)
		}
		return in, nil
	}
	in.Release, in.KernelSize = i.UKI.Uname(), i.UKI.Linux().Size()
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

// NamesOr returns the names that units with this artifact go by: its own, and others for what they leave out.
func (in *Inspection) NamesOr(others naming.Names) naming.Names {
	if in.Names == nil {
		return others
	}
	return in.Names.Or(others)
}

// Judge says why units with this artifact would take no image whose name begins with prefix; nil if they would. others are the names of
// artifacts that have none; without a prefix in them nothing is said of such an artifact, nor ever of one that is not ours.
func (in *Inspection) Judge(prefix string, others naming.Names) error {
	want := in.NamesOr(others).ImagePrefix
	if want == "" || want == prefix || in.Policy == nil && in.Names == nil {
		return nil
	}
	return &PrefixError{Prefix: prefix, Want: want, Named: in.Names != nil}
}

// NamesError says that the names in an artifact cannot be used: no init would take them.
type NamesError struct{ error }

// Unwrap returns what is wrong with them.
func (e *NamesError) Unwrap() error { return e.error }

// PrefixError says that an image and a boot artifact are of two products.
type PrefixError struct {
	// Prefix is how the image's name begins, Want how those of units with the artifact do.
	Prefix, Want string
	// Named reports whether the artifact has names of its own.
	Named bool
}

func (e *PrefixError) Error() string {
	how := "has no names of its own, and units with it"
	if e.Named {
		how = "says by its names that its units"
	}
	return fmt.Sprintf("the boot artifact %s take images called %s..., not %s...: no unit would take this image", how, e.Want, e.Prefix)
}

// Hint says what to do.
func (e *PrefixError) Hint() string {
	return fmt.Sprintf("build the artifact with --names and a file with imagePrefix %q (docs/formats/names.md), or name the image %sYYYY-MM-DD.NNNN.upd", e.Prefix, e.Want)
}

func (in *Inspection) signatures(r io.ReaderAt, size int64) error {
	var head [2]byte
	if _, err := r.ReadAt(head[:], 0); err != nil || string(head[:]) != "MZ" {
		return nil // a kernel without EFI stub
	}
	all, err := bootimage.Signatures(r, size)
	if err != nil {
		return err
	}
	for _, s := range all {
		sum := sha256.Sum256(s.Certificate.Raw)
		in.Signatures = append(in.Signatures, InspectedSignature{s.Certificate.Subject.String(), s.Certificate.Issuer.String(), hex.EncodeToString(sum[:])})
	}
	return nil
}

// embedded returns what starts with the initramfs inside a kernel, nil if there is none.
func embedded(k *bootimage.BzImage, r io.ReaderAt) ([]byte, error) {
	if k.PayloadSize < 4 {
		return nil, nil
	}
	at := func(off, size int64) io.Reader { return io.NewSectionReader(r, off, size) }
	head := make([]byte, 6)
	if _, err := io.ReadFull(at(k.PayloadOffset, k.PayloadSize), head); err != nil {
		return nil, nil // cut off
	}
	payload := k.PayloadSize
	switch plain.Detect(head) {
	case plain.Gzip:
	case plain.XZ, plain.Zstd:
		payload -= 4 // its unpacked length stands behind it
	default:
		return nil, nil // in a way that is not known here
	}
	decoded, err := plain.NewReader(bufio.NewReader(at(k.PayloadOffset, payload)))
	if err != nil {
		return nil, err
	}
	defer decoded.Close()
	b, err := io.ReadAll(io.LimitReader(decoded, maxKernel+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxKernel {
		return nil, fmt.Errorf("it unpacks to more than %d bytes", maxKernel)
	}
	for from := 0; ; from++ {
		i := bytes.Index(b[from:], []byte("070701"))
		if i < 0 {
			return nil, nil
		}
		if from += i; from%4 == 0 {
			if n := archiveLen(b[from:]); n > 0 {
				return b[from : from+n], nil
			}
		}
	}
}

// archiveLen returns the length of the cpio archive of the form "newc" that b starts with, 0 if there is none.
func archiveLen(b []byte) int {
	const header = 6 + 13*8
	for at := 0; at+header <= len(b) && string(b[at:at+6]) == "070701"; {
		field := func(n int) int {
			v, err := strconv.ParseUint(string(b[at+6+8*n:at+14+8*n]), 16, 32)
			if err != nil {
				return -1
			}
			return int(v)
		}
		size, nameSize := field(6), field(11)
		name := at + header
		if size < 0 || nameSize < 1 || nameSize > 4096 || name+nameSize > len(b) {
			return 0
		}
		data := (name + nameSize + 3) &^ 3
		if string(b[name:name+nameSize-1]) == "TRAILER!!!" {
			return min(data, len(b))
		}
		at = (data + size + 3) &^ 3
	}
	return 0
}

func (in *Inspection) walk(r io.Reader) error {
	decoded, kind, err := decompress(r)
	if err != nil {
		return err
	}
	defer decoded.Close()
	in.Initrd.Compression = kind
	limited := &io.LimitedReader{R: decoded, N: maxInspected}
	parts := map[string]*InspectedPart{}
	err = bootimage.WalkCPIO(limited, func(f bootimage.File, size int64, r io.Reader) error {
		if !f.Mode.IsRegular() {
			return nil
		}
		in.Initrd.Files++
		if strings.HasSuffix(f.Name, ".ko") || strings.HasSuffix(f.Name, ".ko"+zstdSuffix) {
			in.Initrd.Modules++
			in.Initrd.ModuleNames = append(in.Initrd.ModuleNames, moduleName(f.Name))
		}
		name := partOf(f)
		if parts[name] == nil {
			parts[name] = &InspectedPart{Name: name}
		}
		parts[name].Files++
		parts[name].Size += size
		return in.config(f.Name, size, r)
	})
	in.Initrd.Unpacked = maxInspected - limited.N
	for _, p := range parts {
		in.Initrd.Parts = append(in.Initrd.Parts, *p)
	}
	slices.SortFunc(in.Initrd.Parts, func(a, b InspectedPart) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(a.Name, b.Name))
	})
	return err
}

// partOf says what a file of an initramfs is.
func partOf(f bootimage.File) string {
	name := strings.TrimPrefix(f.Name, "usr/")
	switch {
	case name == "init":
		return "init"
	case strings.HasPrefix(name, "lib/modules/"):
		return "modules"
	case strings.HasPrefix(name, "lib/firmware/"):
		return "firmware"
	case strings.HasPrefix(name, "lib/gprov/"):
		return "boot loader"
	case strings.HasPrefix(name, "bin/"), strings.HasPrefix(name, "sbin/"):
		return "programs"
	case strings.HasPrefix(name, "lib"):
		return "libraries"
	case strings.HasPrefix(name, "etc/"):
		return "configuration"
	}
	return "other"
}

func (in *Inspection) config(name string, size int64, r io.Reader) error {
	switch name {
	case bootimage.PolicyPath, bootimage.NamesPath, bootimage.BuildPath, bootimage.PlatformsPath, bootimage.GRUBBootPath,
		bootimage.GRUBCorePath:
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
	case bootimage.BuildPath:
		if info, err := bootimage.ParseBuild(b); err == nil {
			in.Info = &info
		}
	case bootimage.NamesPath:
		n, err := naming.Parse(b)
		if err != nil { // init refuses it too
			return &NamesError{err}
		}
		in.Names = &n
	case bootimage.GRUBBootPath:
		in.GRUB.Boot = b
	case bootimage.GRUBCorePath:
		in.GRUB.Core = b
	case bootimage.PlatformsPath:
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

// decompress returns what an initramfs holds, compressed in one of the ways of Compression or not at all.
func decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	in := bufio.NewReaderSize(r, 1<<20)
	head, err := in.Peek(6)
	if err != nil {
		return nil, "", err
	}
	if f := plain.Detect(head); f == plain.Gzip || f == plain.Zstd || bytes.HasPrefix(head, []byte("070701")) {
		decoded, err := plain.NewReader(in)
		return decoded, Compression(f), err
	}
	return nil, "", fmt.Errorf("compression is not known: it starts with %x", head)
}
