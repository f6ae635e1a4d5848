package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/forge/boot"
	"gprovision/hw/durable"
	"gprovision/hw/filesystem"
	"gprovision/model/bootimage"
	"gprovision/model/fault"
	"gprovision/model/naming"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
)

// Report describes an image.
type Report struct {
	File    string        `json:"file"`
	Name    string        `json:"name"`    // full name without ".upd"
	Size    int64         `json:"size"`    // bytes of the file
	Decoded int64         `json:"decoded"` // bytes of the tar inside
	Ratio   float64       `json:"ratio"`   // Decoded divided by Size: how many times smaller it is
	Blocks  int           `json:"blocks"`  // that can be decoded in parallel
	Streams int           `json:"streams"`
	Meta    *release.Meta `json:"meta,omitempty"` // nil for an image of the original system
	// Signature is what the .minisig file says; nil: there is none.
	Signature *Signature `json:"signature,omitempty"`
	// Boot describes the boot artifact inside; only after InspectAll.
	Boot *Boot `json:"boot,omitempty"`
	// Verified reports whether every check held, and Trusted whether a key that was given has signed it.
	Verified bool `json:"verified"`
	Trusted  bool `json:"trusted"`
	// Entries and Bytes count what is inside; only after Verify and Extract.
	Entries int64 `json:"entries,omitempty"`
	Bytes   int64 `json:"bytes,omitempty"`
	// Need is what a unit's ext4 must have room for; only after Verify.
	Need *filesystem.Need `json:"need,omitempty"`
	// Dropped are extended attributes that units leave out; only after Verify and Extract.
	Dropped []filesystem.Dropped `json:"dropped,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds,omitempty"`
}

// Boot is what the boot artifact of an image is.
type Boot struct {
	Form   bootimage.Form `json:"form"`
	Build  *uint64        `json:"build"`  // nil: it has none
	Kernel string         `json:"kernel"` // the kernel's version string
	Size   int64          `json:"size"`   // bytes
}

// Signature is what a .minisig file says of itself.
type Signature struct {
	File    string `json:"file"`
	KeyID   string `json:"keyID"`
	Comment string `json:"comment"`
}

// CheckOptions says how Verify and Extract work.
type CheckOptions struct {
	// Keys are trusted. With one or more, the image must be signed by one of them; with none, Verify looks at integrity only.
	Keys []signature.PublicKey
	// Names are those of a boot artifact that has none itself. With a prefix in them, Verify holds the image's name against its artifact.
	Names naming.Names
	// Workers is how many blocks are decoded at a time; 0: as many as there are CPUs.
	Workers int
	// Progress, if set, is called often.
	Progress func(Progress)
}

func (o CheckOptions) say(p Progress) {
	if o.Progress != nil {
		o.Progress(p)
	}
}

// image is an open image file.
type image struct {
	*os.File
	name release.Name
	size int64
}

func open(file string) (*image, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open image %s: %w", file, err)
	}
	name, err := release.ParseName(filepath.Base(file), "")
	if err != nil {
		f.Close()
		return nil, fault.Because(fault.ImageName, err)
	}
	return &image{f, name, st.Size()}, nil
}

// corrupt names the kind of err if the image's own content is the reason.
func corrupt(file string, err error) error {
	if fault.Of(err) != nil {
		return err
	}
	err = fmt.Errorf("%s: %w", file, err)
	for _, kind := range []error{release.ErrDamaged, release.ErrNotXZ, release.ErrNotSHA256} {
		if errors.Is(err, kind) {
			return fault.Because(fault.ImageCorrupt, err)
		}
	}
	return err
}

// readSignature reads FILE.minisig. nil, nil means that there is none.
func readSignature(file string) ([]byte, *Signature, error) {
	name := file + signature.Suffix
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read signature: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, signature.MaxSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read signature: %w", err)
	}
	info, err := signature.Parse(text)
	if err != nil {
		return text, nil, fault.Because(fault.ImageSignature, fmt.Errorf("%s: %w", name, err))
	}
	return text, &Signature{name, info.KeyID, info.Trusted}, nil
}

// Inspect describes an image by its name, the headers and indexes of the stream, its imgmeta.json, and what its signature says.
// It decodes no more than it needs and proves nothing.
func Inspect(ctx context.Context, file string) (Report, error) {
	im, err := open(file)
	if err != nil {
		return Report{}, err
	}
	defer im.Close()
	r, err := release.NewReader(ctx, im, im.size, 1)
	if err != nil {
		return Report{}, corrupt(file, err)
	}
	defer r.Close()
	rep := im.report(r)
	meta, err := release.ReadMeta(r)
	switch {
	case err == nil:
		rep.Meta = &meta
		if err := meta.CheckName(im.name); err != nil {
			return rep, fault.Because(fault.ImageName, fmt.Errorf("%s: %w", file, err))
		}
	case !errors.Is(err, release.ErrNoMeta):
		return rep, corrupt(file, err)
	}
	_, rep.Signature, err = readSignature(file)
	return rep, err
}

// InspectAll is Inspect, and looks at the boot artifact inside too: it decodes all of the image, with every check on the way.
func InspectAll(ctx context.Context, file string, o CheckOptions) (Report, error) {
	rep, err := Inspect(ctx, file)
	if err != nil {
		return rep, err
	}
	im, err := open(file)
	if err != nil {
		return rep, err
	}
	defer im.Close()
	r, err := release.NewReader(ctx, im, im.size, o.workers())
	if err != nil {
		return rep, corrupt(file, err)
	}
	defer r.Close()
	t := newTree()
	defer t.close()
	m := &meter{r: r, say: func(n int64) { o.say(Progress{"read", n, r.Size()}) }}
	if err := filesystem.WalkTar(m, t.add); err != nil {
		return rep, corrupt(file, err)
	}
	o.say(Progress{"read", r.Size(), r.Size()})
	if t.boot == nil {
		return rep, nil
	}
	b, err := boot.Inspect(t.boot, t.bootLen)
	if err != nil {
		return rep, fmt.Errorf("%s: %s: %w", file, bootFile, err)
	}
	rep.Boot = &Boot{Form: b.Form, Build: b.Build, Kernel: b.Banner, Size: t.bootLen}
	return rep, nil
}

func (im *image) report(r *release.Reader) Report {
	return Report{Ratio: float64(r.Size()) / float64(max(im.size, 1)), File: im.File.Name(), Name: im.name.Base(), Size: im.size, Decoded: r.Size(), Blocks: r.Blocks(), Streams: r.Streams()}
}

// Verify checks an image as a unit does before a restore, and more: its name, its signature if keys are given, every check of
// the compressed stream, that each entry of the tar can be unpacked, and that imgmeta.json says the same as the name. Errors
// are of the kinds fault.ImageName, ImageUnsigned, ImageSignature or ImageCorrupt, or those of reading.
func Verify(ctx context.Context, file string, o CheckOptions) (Report, error) {
	start := time.Now()
	im, err := open(file)
	if err != nil {
		return Report{}, err
	}
	defer im.Close()
	if err := release.CheckHeader(im); err != nil {
		return Report{}, corrupt(file, err)
	}
	text, sig, err := readSignature(file)
	if err != nil {
		return Report{}, err
	}
	if len(o.Keys) > 0 {
		if sig == nil {
			return Report{}, fault.Newf(fault.ImageUnsigned, "%s is not there", file+signature.Suffix)
		}
		m := &meter{r: io.NewSectionReader(im, 0, im.size), say: func(n int64) { o.say(Progress{"verify signature", n, im.size}) }}
		if err := signature.VerifyAs(o.Keys, text, &bound{ctx, m}, signature.ImageComment(im.name.Base())); err != nil {
			return Report{}, fault.Because(fault.ImageSignature, fmt.Errorf("%s: %w", file, err))
		}
		o.say(Progress{"verify signature", im.size, im.size})
	}
	rep, err := verify(ctx, im, o)
	rep.Signature = sig
	if err != nil {
		return rep, err
	}
	rep.Trusted = len(o.Keys) > 0
	rep.Seconds = time.Since(start).Seconds()
	return rep, nil
}

// verify checks all of an image but its signature.
func verify(ctx context.Context, im *image, o CheckOptions) (Report, error) {
	file := im.Name()
	r, err := release.NewReader(ctx, im, im.size, o.workers())
	if err != nil {
		return Report{}, corrupt(file, err)
	}
	defer r.Close()
	rep := im.report(r)
	t := newTree()
	defer t.close()
	t.shallow, t.looks = true, o.Names.ImagePrefix != ""
	m := &meter{r: r, say: func(n int64) { o.say(Progress{"verify", n, r.Size()}) }}
	first := true
	err = filesystem.WalkTar(m, func(h *tar.Header, content io.Reader) error {
		isMeta := first && h.Typeflag == tar.TypeReg && release.IsMeta(h.Name)
		if isMeta {
			meta, err := readMeta(h, content)
			if err != nil {
				return err
			}
			rep.Meta = &meta
			if err := meta.CheckName(im.name); err != nil {
				return fault.Because(fault.ImageName, fmt.Errorf("%s: %w", file, err))
			}
		}
		if h.Typeflag == tar.TypeReg {
			first = false
		}
		if err := t.add(h, content); err != nil {
			// Readers of content name the kind of their errors themselves.
			if errors.Is(err, release.ErrDamaged) || ctx.Err() != nil {
				return err
			}
			return fault.Because(fault.ImageCorrupt, fmt.Errorf("%s: %w", file, err))
		}
		if isMeta {
			t.count--
			t.bytes -= h.Size
		}
		return nil
	})
	if err == nil && t.count == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		if err = corrupt(file, err); fault.Of(err) == nil && ctx.Err() == nil && !isSystem(err) {
			err = fault.Because(fault.ImageCorrupt, err)
		}
		return rep, err
	}
	o.say(Progress{"verify", r.Size(), r.Size()})
	rep.Entries, rep.Bytes, rep.Dropped = t.count, t.bytes, t.judge.Stats().Dropped
	need := t.judge.Need()
	rep.Need = &need
	if m := rep.Meta; m != nil && m.Version > 0 && (m.Entries != t.count || m.Bytes != t.bytes) {
		return rep, fault.Newf(fault.ImageCorrupt, "%s: imgmeta.json names %d entries and %d bytes, inside are %d and %d", file, m.Entries, m.Bytes, t.count, t.bytes)
	}
	in, err := t.inspect()
	var names *boot.NamesError
	if err == nil {
		err = in.Judge(im.name.Prefix, o.Names)
	} else if !errors.As(err, &names) {
		err = nil
	}
	if err != nil {
		return rep, fault.Because(fault.ImageName, fmt.Errorf("%s: %w", file, err))
	}
	rep.Verified = true
	return rep, nil
}

// isSystem reports whether the operating system, not the image, is the reason.
func isSystem(err error) bool {
	var p *fs.PathError
	var s *os.SyscallError
	return errors.As(err, &p) || errors.As(err, &s)
}

func readMeta(h *tar.Header, content io.Reader) (release.Meta, error) {
	b, err := io.ReadAll(io.LimitReader(content, maxMeta))
	if err != nil {
		return release.Meta{}, err
	}
	return release.ParseMeta(b)
}

func (o CheckOptions) workers() int {
	if o.Workers > 0 {
		return o.Workers
	}
	return runtime.NumCPU()
}

// ErrNotEmpty says that a directory to unpack into has something in it.
var ErrNotEmpty = errors.New("the directory is not empty")

// Extract unpacks an image into an empty directory, which is made if need be, by the very code of a restore: decode on all
// CPUs, unpack the stream. With keys, the signature is checked before. On an error the directory is half-filled.
func Extract(ctx context.Context, file, into string, o CheckOptions) (Report, error) {
	start := time.Now()
	im, err := open(file)
	if err != nil {
		return Report{}, err
	}
	defer im.Close()
	if err := os.MkdirAll(into, 0o755); err != nil {
		return Report{}, fmt.Errorf("make target: %w", err)
	}
	list, err := os.ReadDir(into)
	if err != nil {
		return Report{}, fmt.Errorf("read target: %w", err)
	}
	if slices.ContainsFunc(list, func(e fs.DirEntry) bool { return e.Name() != "lost+found" }) {
		return Report{}, fmt.Errorf("extract into %s: %w", into, ErrNotEmpty)
	}
	text, sig, err := readSignature(file)
	if err != nil {
		return Report{}, err
	}
	if len(o.Keys) > 0 {
		if sig == nil {
			return Report{}, fault.Newf(fault.ImageUnsigned, "%s is not there", file+signature.Suffix)
		}
		in := &bound{ctx, io.NewSectionReader(im, 0, im.size)}
		if err := signature.VerifyAs(o.Keys, text, in, signature.ImageComment(im.name.Base())); err != nil {
			return Report{}, fault.Because(fault.ImageSignature, fmt.Errorf("%s: %w", file, err))
		}
	}
	r, err := release.NewReader(ctx, im, im.size, o.workers())
	if err != nil {
		return Report{}, corrupt(file, err)
	}
	defer r.Close()
	rep := im.report(r)
	rep.Signature = sig
	limit, err := im.limit(ctx, into, r.Size())
	if err != nil {
		return rep, corrupt(file, err)
	}
	stats, err := filesystem.Unpack(ctx, into, r, filesystem.UnpackOptions{
		Sync:     true,
		MaxBytes: limit,
		Progress: func(s filesystem.UnpackStats) { o.say(Progress{"extract", s.Read, r.Size()}) },
	})
	if err != nil {
		return rep, corrupt(file, err)
	}
	rep.Entries, rep.Bytes, rep.Dropped = int64(stats.Entries), stats.Bytes, stats.Dropped
	rep.Verified, rep.Trusted = true, len(o.Keys) > 0
	rep.Seconds = time.Since(start).Seconds()
	return rep, nil
}

// ErrNoSpace says that an image has more inside than the target has space for.
var ErrNoSpace = errors.New("there is not enough space in the target")

// limit returns the greatest sum of the sizes of the files that unpacking may make, holes counted: what imgmeta.json says, with
// its own length; 0, for an image without one: none. An image whose tar is larger than the free space is refused; holes are not
// in the tar.
func (im *image) limit(ctx context.Context, into string, decoded int64) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(into, &st); err != nil {
		return 0, os.NewSyscallError("statfs", err)
	}
	if free := int64(st.Bavail) * st.Bsize; decoded > free {
		return 0, fmt.Errorf("%d bytes inside, %d bytes free in %s: %w", decoded, free, into, ErrNoSpace)
	}
	meta, err := release.ReadMetaAt(ctx, im, im.size)
	if errors.Is(err, release.ErrNoMeta) {
		return 0, nil
	}
	return meta.MaxBytes(), err
}

// maxMeta is more than imgmeta.json can have.
const maxMeta = 2 << 20

// Signer signs an image: a signature.PrivateKey, or a signature.External.
type Signer interface {
	// Public is the key that checks what is signed.
	Public() signature.PublicKey
	// Sign reads r to its end and returns the content of a .minisig file.
	Sign(r io.Reader, trusted string) ([]byte, error)
}

// Sign writes FILE.minisig for an image, replacing one that is there. What is signed can be unpacked: units take a signature for the
// word of who signed that the image was judged, so all of it is verified before.
func Sign(ctx context.Context, file string, key Signer, progress func(Progress)) (Signature, error) {
	im, err := open(file)
	if err != nil {
		return Signature{}, err
	}
	defer im.Close()
	if err := release.CheckHeader(im); err != nil {
		return Signature{}, corrupt(file, err)
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	if _, err := verify(ctx, im, CheckOptions{Progress: progress}); err != nil {
		return Signature{}, fmt.Errorf("sign image: %w", err)
	}
	sig, err := signFile(ctx, file, im.name, key, progress)
	if err != nil {
		return Signature{}, err
	}
	if err := durable.Write(file+signature.Suffix, sig, 0o644); err != nil {
		return Signature{}, fmt.Errorf("write signature: %w", err)
	}
	return Signature{file + signature.Suffix, key.Public().ID(), signature.ImageComment(im.name.Base())}, nil
}

func signFile(ctx context.Context, file string, name release.Name, key Signer, say func(Progress)) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("sign image: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("sign image: %w", err)
	}
	m := &meter{r: f, say: func(n int64) { say(Progress{"sign", n, st.Size()}) }}
	sig, err := key.Sign(&bound{ctx, m}, signature.ImageComment(name.Base()))
	if err != nil {
		return nil, fmt.Errorf("sign image %s: %w", file, err)
	}
	say(Progress{"sign", st.Size(), st.Size()})
	return sig, nil
}

// Listed is one file of a directory of images.
type Listed struct {
	File string `json:"file"` // name without directory
	Name string `json:"name,omitempty"`
	Size int64  `json:"size"`
	// Signature is what FILE.minisig says; nil: there is none.
	Signature *Signature `json:"signature,omitempty"`
	// Problem says why the file would never be chosen: its name, or its header. Empty: none.
	Problem string `json:"problem,omitempty"`
	// Verified reports whether every check held, and Trusted whether a key that was given has signed it.
	Verified bool `json:"verified,omitempty"`
	Trusted  bool `json:"trusted,omitempty"`
	// Prune reports whether retention would delete it to make space for the next one.
	Prune bool `json:"prune,omitempty"`
}

// ListOptions says what List looks at. The zero value looks at names, headers and signature files.
type ListOptions struct {
	// Keep is how many of the newest images retention keeps, beside the oldest and the running one; 0: the default of a policy.
	Keep int
	// Running is the file name of the image that is installed; empty: unknown.
	Running string
	// Verify checks every image whole.
	Verify bool
	// Check says how, if Verify is set.
	Check CheckOptions
}

// List describes the .upd files of a directory: the newest first, then those with malformed names. It decodes nothing unless
// o.Verify says so.
func List(ctx context.Context, dir string, o ListOptions) ([]Listed, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var files []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			files = append(files, e.Name())
		}
	}
	names, _ := release.ParseNames(files, "")
	_, drop := release.Retain(names, o.Running, policy.Policy{KeepImages: o.Keep}.Keep())
	var out []Listed
	for _, n := range names {
		l := Listed{File: n.String(), Name: n.Base(), Prune: slices.Contains(drop, n)}
		file := filepath.Join(dir, l.File)
		im, err := open(file)
		if err == nil {
			l.Size = im.size
			err = release.CheckHeader(im)
			im.Close()
		}
		if err == nil {
			_, l.Signature, err = readSignature(file)
		}
		if err == nil && o.Verify {
			var rep Report
			rep, err = Verify(ctx, file, o.Check)
			if ctx.Err() != nil {
				return nil, err
			}
			l.Verified, l.Trusted = rep.Verified, rep.Trusted
		}
		if err != nil {
			l.Problem = err.Error()
		}
		out = append(out, l)
	}
	for _, f := range files {
		if !strings.HasSuffix(f, release.Suffix) {
			continue
		}
		if _, err := release.ParseName(f, ""); err != nil {
			l := Listed{File: f, Problem: err.Error()}
			if st, err := os.Stat(filepath.Join(dir, f)); err == nil {
				l.Size = st.Size()
			}
			out = append(out, l)
		}
	}
	return out, nil
}
