// Package image makes release images (.upd files) from root filesystems, and checks, describes, lists, signs and unpacks them.
//
// An image is a tar, compressed with xz in blocks that can be decoded in parallel and are checked by SHA-256. Its first entry
// is etc/provisioning/imgmeta.json. The entries of a tar are taken over byte for byte; those of a directory depend on the tree alone, not
// on the filesystem it lies on. The package runs xz through package tool; it never unpacks to make an image, but a boot artifact
// is made from an OCI image by way of a temporary tar. What a root filesystem must hold is
// checked before anything is compressed, and all problems are told at once.
//
// The root filesystem is a directory, a tar, an OCI image or a recipe. A bill of materials in the format of SPDX is put beside
// the image. The format is described in docs/formats/release-image.md.
package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"gprovision/forge/boot"
	"gprovision/forge/tool"
	"gprovision/hw/durable"
	"gprovision/hw/filesystem"
	"gprovision/model/naming"
	"gprovision/model/release"
	"gprovision/model/signature"
)

// Progress tells how far a stage is. Total is 0 where it is not known.
type Progress struct {
	Stage       string // "make root filesystem", "make boot artifact", "scan", "compress", "sign", "verify signature", "verify", "extract"
	Done, Total int64  // bytes
}

// File is a file of the building machine that is put into an image.
type File struct {
	Local string // path on the building machine
	Dest  string // path inside the image, with or without a slash in front; links in its directories are followed inside
	Mode  fs.FileMode
}

// Options says what Build makes.
type Options struct {
	// RootFS is a directory, a tar (plain, or compressed with xz, gzip or zstd), an OCI image (a layout in a directory or an
	// archive, or what docker save writes), or a recipe whose name ends in .yaml. It is read twice.
	RootFS string
	// Reference chooses among several OCI images in RootFS.
	Reference string
	// Clamp, if set, is the newest time that a file of a directory may have: later ones are set to it.
	Clamp time.Time
	// Boot makes the boot artifact from the root filesystem itself, and puts it in; nil: it must be there. RootFS, Out and Time
	// of it are not looked at.
	Boot *boot.Options
	// Out is the directory in which the image is put.
	Out string
	// Name is the image's name; without a prefix: that of the boot artifact's names.
	Name release.Name
	// Names are those of a boot artifact that has none itself. Without a prefix in them the image's name is not held against them.
	Names naming.Names
	// Time is written as the time of building; with the same input and time the result has the same bytes.
	Time time.Time
	// Source is text for people about where the root filesystem came from; empty: the last part of RootFS.
	Source string
	// Builder is the version of the program that builds.
	Builder string
	// ImportJob, ImageJob and Stream are written into the fields of imgmeta.json that the original system has.
	ImportJob, ImageJob, Stream string
	// Preset is the preset of xz, "0" to "9", with an "e" or not; empty: "6".
	Preset string
	// BlockSize is the size of the blocks before compression, in bytes; 0: 8 MiB. Units decode blocks in parallel.
	BlockSize int64
	// Add are files to put in. They are owned by root; Mode 0 means the file's own mode. They replace what is there.
	Add []File
	// Key signs the image; nil: it is not signed.
	Key Signer
	// NoSBOM leaves out the bill of materials beside the image.
	NoSBOM bool
	// AllowIncomplete makes an image of a root filesystem that no unit could use; the problems become warnings.
	AllowIncomplete bool
	// Progress, if set, is called often.
	Progress func(Progress)
}

// Result describes an image that Build made.
type Result struct {
	File      string       `json:"file"`
	Size      int64        `json:"size"`    // bytes of the file
	Decoded   int64        `json:"decoded"` // bytes of the tar inside
	Blocks    int          `json:"blocks"`
	Meta      release.Meta `json:"meta"`
	Signature string       `json:"signature,omitempty"` // file
	KeyID     string       `json:"keyID,omitempty"`
	// SBOM is the bill of materials: a file in the format of SPDX 2.3, JSON.
	SBOM string `json:"sbom,omitempty"`
	// SHA256 is that of the file, hexadecimal.
	SHA256 string `json:"sha256"`
	// Boot describes the boot artifact, if it was made on the way.
	Boot *boot.Report `json:"boot,omitempty"`
	// Unchanged reports whether the same image was there already.
	Unchanged bool      `json:"unchanged,omitempty"`
	Warnings  []Problem `json:"warnings,omitempty"`
}

// ErrExists says that another image of that name is there already. Images are never overwritten: name a new build.
var ErrExists = errors.New("there is another image of that name already")

const defaultBlock = 8 << 20

// roomForMeta is what imgmeta.json may take, bytes.
const roomForMeta = 16 << 10

// droppedWarnings says which extended attributes no unit will have.
func droppedWarnings(list []filesystem.Dropped) []Problem {
	var out []Problem
	for _, d := range list {
		text := fmt.Sprintf("its extended attribute %s is left out on units", shown(d.Attribute))
		if d.Entries > 1 {
			text = fmt.Sprintf("its extended attribute %s, which %d entries have, is left out on units", shown(d.Attribute), d.Entries)
		}
		out = append(out, Problem{shown(d.First), text, "nothing need be done if no service uses it: ext4 cannot hold it there"})
	}
	return out
}

// Build makes an image. The file appears under its name only when it is complete, and its signature before it. A problem with
// the content is a *ContractError, a program that is missing a *tool.MissingError.
func Build(ctx context.Context, log *slog.Logger, o Options) (_ Result, err error) {
	say := o.Progress
	if say == nil {
		say = func(Progress) {}
	}
	preset, err := xzPreset(o.Preset)
	if err != nil {
		return Result{}, err
	}
	if o.BlockSize == 0 {
		o.BlockSize = defaultBlock
	}
	if o.BlockSize < 64<<10 || o.BlockSize > 1<<30 {
		return Result{}, fmt.Errorf("block size of %d bytes, want 64 KiB to 1 GiB", o.BlockSize)
	}
	if o.Name.Prefix != "" {
		if err := release.CheckPrefix(o.Name.Prefix); err != nil {
			return Result{}, err
		}
	}
	if _, err := tool.Need("xz", "xz-utils"); err != nil {
		return Result{}, err
	}
	in, err := openInput(ctx, log, o, say)
	if err != nil {
		return Result{}, err
	}
	defer in.Close()
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return Result{}, fmt.Errorf("make output directory: %w", err)
	}

	// First pass: is it what it must be, and what has imgmeta.json to say?
	t := newTree()
	defer t.close()
	// The first entry of an image takes its place before all others. Its content is not known yet.
	if err := t.judge.Entry(&tar.Header{Name: release.MetaPath, Typeflag: tar.TypeReg, Size: roomForMeta}, nil); err != nil {
		return Result{}, err
	}
	tarBytes, err := t.scan(ctx, in, func(n int64) { say(Progress{"scan", n, 0}) })
	if err != nil {
		return Result{}, fmt.Errorf("read root filesystem %s: %w", o.RootFS, err)
	}
	say(Progress{"scan", tarBytes, tarBytes})
	made, err := makeBoot(ctx, log, in, &o, say)
	if err != nil {
		return Result{}, t.besides(err, o)
	}
	defer made.remove()
	added, drop, err := t.addFiles(o)
	if err != nil {
		return Result{}, err
	}
	problems := t.problems()
	if p := t.name(&o); p != nil {
		problems = append(problems, *p)
	}
	if err := release.CheckPrefix(o.Name.Prefix); err != nil {
		return Result{}, err
	}
	if len(problems) > 0 && !o.AllowIncomplete {
		return Result{}, &ContractError{problems}
	}
	meta, err := t.meta(o)
	if err != nil {
		return Result{}, err
	}

	// Second pass.
	file := filepath.Join(o.Out, o.Name.String())
	tmp, err := os.CreateTemp(o.Out, ".gprov-*"+release.Suffix)
	if err != nil {
		return Result{}, fmt.Errorf("make image: %w", err)
	}
	defer func() {
		tmp.Close()
		os.Remove(tmp.Name())
	}()
	total := tarBytes
	for _, a := range added {
		total += a.header.Size
	}
	pr, pw := io.Pipe()
	written := make(chan writeResult, 1)
	go func() {
		n, err := t.write(ctx, pw, in, meta, added, drop, func(n int64) { say(Progress{"compress", min(n, total), total}) })
		written <- writeResult{n, err}
		pw.CloseWithError(err)
	}()
	err = tool.Run(ctx, log, tool.Command{
		Name: "xz", Package: "xz-utils", Stdin: pr, Stdout: tmp,
		// Two threads or more: with one, xz leaves the sizes out of the blocks' headers, and the bytes would differ.
		Args: append([]string{"--compress", "--stdout", "--check=sha256", "--threads=" + strconv.Itoa(max(2, runtime.NumCPU())),
			"--block-size=" + strconv.FormatInt(o.BlockSize, 10)}, preset...),
	})
	pr.CloseWithError(errors.New("xz ended"))
	w := <-written
	if err == nil {
		err = w.err
	}
	if err != nil {
		return Result{}, fmt.Errorf("compress root filesystem %s: %w", o.RootFS, err)
	}
	say(Progress{"compress", total, total})

	res := Result{File: file, Meta: meta, Boot: made.report, Warnings: slices.Concat(problems, t.warnings(), droppedWarnings(t.judge.Stats().Dropped))}
	if err := res.measure(tmp, w.n); err != nil {
		return Result{}, fmt.Errorf("make image: %w", err)
	}
	if err := res.publish(ctx, tmp, t, o, say); err != nil {
		return Result{}, err
	}
	return res, nil
}

type writeResult struct {
	n   int64
	err error
}

// xzPreset returns the arguments of xz. A dictionary that is larger than a block would only cost memory when decoding.
func xzPreset(p string) ([]string, error) {
	if p == "" {
		p = "6"
	}
	level := strings.TrimSuffix(p, "e")
	if len(level) != 1 || level[0] < '0' || level[0] > '9' {
		return nil, fmt.Errorf("preset %q of xz, want 0 to 9, with an e behind it or not", p)
	}
	if level >= "7" {
		return []string{"--lzma2=preset=" + p + ",dict=8MiB"}, nil
	}
	return []string{"-" + p}, nil
}

// scan reads a root filesystem and returns the length of its tar.
func (t *tree) scan(ctx context.Context, in *input, say func(int64)) (int64, error) {
	r, err := in.open(ctx)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	count := &meter{r: r, say: say}
	tr := filesystem.NewTarReader(count)
	for {
		h, content, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read tar: %w", err)
		}
		if err := t.add(h, content); err != nil {
			return 0, err
		}
	}
	if err := rest(count, make([]byte, 64<<10)); err != nil {
		return 0, err
	}
	if t.count == 0 {
		return 0, errors.New("it is empty")
	}
	return count.n, nil
}

// meter counts bytes and reports them each mebibyte.
type meter struct {
	r       io.Reader
	n, said int64
	say     func(int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.say != nil && m.n-m.said >= 1<<20 {
		m.said = m.n
		m.say(m.n)
	}
	return n, err
}

// addition is a file to be put in.
type addition struct {
	header *tar.Header
	local  string // empty for a directory
}

// addFiles puts the files of o.Add into the tree. It returns them in the order in which they are written, and the names of the
// entries that they and imgmeta.json replace.
func (t *tree) addFiles(o Options) ([]addition, map[string]bool, error) {
	drop := map[string]bool{release.MetaPath: true}
	t.forget(release.MetaPath)
	var out []addition
	// Without an entry of its own, the directory of imgmeta.json would get the time of its unpacking.
	if err := t.addParents(release.MetaPath, o.Time, &out); err != nil {
		return nil, nil, err
	}
	for _, f := range o.Add {
		fail := func(err error) ([]addition, map[string]bool, error) {
			return nil, nil, fmt.Errorf("add %s as %s: %w", f.Local, f.Dest, err)
		}
		st, err := os.Stat(f.Local)
		if err != nil {
			return fail(err)
		}
		if !st.Mode().IsRegular() {
			return fail(errors.New("not a regular file"))
		}
		dest, err := t.resolve(f.Dest)
		if err != nil {
			return fail(err)
		}
		if dest == "" || strings.HasSuffix(f.Dest, "/") || dest == release.MetaPath {
			return fail(errors.New("this path cannot be used"))
		}
		if e, ok := t.entries[dest]; ok {
			if e.kind == tar.TypeDir {
				return fail(errors.New("there is a directory of that name"))
			}
			if link := t.linkTo(dest); link != "" {
				return fail(fmt.Errorf("the file there has a second name, %s, as a hard link", link))
			}
			drop[dest] = true
		}
		if err := t.addParents(dest, o.Time, &out); err != nil {
			return fail(err)
		}
		mode := f.Mode
		if mode == 0 {
			mode = st.Mode()
		}
		h := &tar.Header{Name: dest, Typeflag: tar.TypeReg, Size: st.Size(), Mode: tarMode(mode), ModTime: o.Time, Format: tar.FormatPAX}
		if err := t.addLocal(h, f.Local); err != nil {
			return fail(err)
		}
		if i := slices.IndexFunc(out, func(a addition) bool { return a.header.Name == dest }); i >= 0 {
			return fail(errors.New("two files are added there"))
		}
		out = append(out, addition{h, f.Local})
	}
	return out, drop, nil
}

// addParents appends the directories of name that the root filesystem lacks.
func (t *tree) addParents(name string, at time.Time, out *[]addition) error {
	var missing []string
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if e, ok := t.entries[dir]; !ok || e.seen == 0 {
			missing = append(missing, dir)
		}
	}
	slices.Reverse(missing)
	for _, dir := range missing {
		h := &tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at, Format: tar.FormatPAX}
		if err := t.add(h, nil); err != nil {
			return err
		}
		*out = append(*out, addition{header: h})
	}
	return nil
}

// tarMode turns a mode into its number in a tar.
func tarMode(m fs.FileMode) int64 {
	n := int64(m.Perm())
	for bit, number := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			n |= number
		}
	}
	return n
}

func (t *tree) addLocal(h *tar.Header, local string) error {
	f, err := os.Open(local)
	if err != nil {
		return err
	}
	defer f.Close()
	t.forget(h.Name)
	return t.add(h, f)
}

// linkTo returns the first name of a hard link to name.
func (t *tree) linkTo(name string) string {
	for _, k := range slices.Sorted(maps.Keys(t.entries)) {
		if e := t.entries[k]; e.kind == tar.TypeLink && e.link == name {
			return k
		}
	}
	return ""
}

// meta describes the image.
func (t *tree) meta(o Options) (release.Meta, error) {
	if o.Source == "" {
		o.Source = filepath.Base(o.RootFS)
	}
	at := o.Time.UTC().Truncate(time.Second)
	m := release.Meta{
		BinVer:    o.Builder,
		BinTime:   at.Format("0601021504"),
		ImportJob: o.ImportJob,
		ImgJob:    o.ImageJob,
		ImgName:   o.Name.String(),
		Stream:    o.Stream,
		Version:   release.MetaVersion,
		Name:      o.Name.Base(),
		Build:     o.Name.Build,
		Time:      at,
		Source:    o.Source,
		Entries:   t.count,
		Bytes:     t.bytes,
	}
	need := t.judge.Need()
	m.Inodes, m.Blocks = need.Inodes, need.Blocks
	m.Packages = t.packages()
	build, err := t.bootBuild()
	if err != nil && !o.AllowIncomplete {
		return m, err
	}
	m.BootBuild = build
	return m, nil
}

// write writes the tar of the image and returns its length. What it reads must be what scan has read.
func (t *tree) write(ctx context.Context, out io.Writer, in *input, meta release.Meta, added []addition, drop map[string]bool, say func(int64)) (int64, error) {
	r, err := in.open(ctx)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	w := &countWriter{w: out, say: say}
	first, err := meta.Marshal()
	if err != nil {
		return 0, err
	}
	tw := tar.NewWriter(w)
	err = tw.WriteHeader(&tar.Header{Name: release.MetaPath, Typeflag: tar.TypeReg, Size: int64(len(first)), Mode: 0o644, ModTime: meta.Time, Format: tar.FormatPAX})
	if err == nil {
		_, err = tw.Write(first)
	}
	if err == nil {
		err = tw.Flush()
	}
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", release.MetaPath, err)
	}
	var count, size int64
	err = rewrite(w, r, drop, func(h *tar.Header) {
		count++
		if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeCont || h.Typeflag == tar.TypeGNUSparse {
			size += h.Size
		}
	})
	if err != nil {
		return 0, err
	}
	tw = tar.NewWriter(w)
	for _, a := range added {
		count++
		size += a.header.Size
		if err := a.write(tw); err != nil {
			return 0, fmt.Errorf("add %s: %w", a.header.Name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return 0, err
	}
	if count != meta.Entries || size != meta.Bytes {
		return 0, fmt.Errorf("the root filesystem changed while it was read: %d entries and %d bytes first, then %d and %d", meta.Entries, meta.Bytes, count, size)
	}
	return w.n, nil
}

func (a addition) write(tw *tar.Writer) error {
	if err := tw.WriteHeader(a.header); err != nil {
		return err
	}
	if a.local == "" {
		return nil
	}
	f, err := os.Open(a.local)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(tw, f)
	if err == nil && n != a.header.Size {
		err = fmt.Errorf("%s changed while it was read", a.local)
	}
	return err
}

type countWriter struct {
	w       io.Writer
	n, said int64
	say     func(int64)
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if c.n-c.said >= 1<<20 {
		c.said = c.n
		c.say(c.n)
	}
	return n, err
}

// measure reads the new image's indexes, and holds them against what was written.
func (r *Result) measure(f *os.File, tarBytes int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	x, err := release.NewReader(context.Background(), f, st.Size(), 1)
	if err != nil {
		return err
	}
	defer x.Close()
	if x.Size() != tarBytes {
		return fmt.Errorf("xz says that it has %d bytes inside, and got %d", x.Size(), tarBytes)
	}
	r.Size, r.Decoded, r.Blocks = st.Size(), x.Size(), x.Blocks()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, r.Size)); err != nil {
		return err
	}
	r.SHA256 = hex.EncodeToString(h.Sum(nil))
	return nil
}

// publish puts the bill of materials and the signature beside the new image, and gives it its name.
func (r *Result) publish(ctx context.Context, tmp *os.File, t *tree, o Options, say func(Progress)) error {
	if err := tmp.Chmod(0o644); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	same, err := sameContent(tmp, r.File)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", r.File, err)
	}
	r.Unchanged = same
	beside := map[string][]byte{r.File + signature.Suffix: nil, r.File + SBOMSuffix: nil}
	if o.Key != nil {
		sig, err := signFile(ctx, tmp.Name(), o.Name, o.Key, say)
		if err != nil {
			return err
		}
		r.Signature, r.KeyID = r.File+signature.Suffix, o.Key.Public().ID()
		beside[r.Signature] = sig
	}
	if !o.NoSBOM {
		r.SBOM = r.File + SBOMSuffix
		if beside[r.SBOM], err = t.sbom(r.Meta, r.SHA256, r.Size); err != nil {
			return fmt.Errorf("make bill of materials: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(beside)) {
		switch content := beside[name]; {
		case content != nil:
			if err := durable.Write(name, content, 0o644); err != nil {
				return fmt.Errorf("write %s: %w", name, err)
			}
		case !same:
			// That of an earlier image of this name would belong to other bytes.
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove old file: %w", err)
			}
		}
	}
	if !same {
		if err := os.Rename(tmp.Name(), r.File); err != nil {
			return fmt.Errorf("make image: %w", err)
		}
	}
	return durable.Sync(o.Out)
}

// sameContent reports whether the file name has the content of f. Another content is ErrExists.
func sameContent(f *os.File, name string) (bool, error) {
	g, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer g.Close()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(a)) {
		n, err1 := f.ReadAt(a, at)
		m, err2 := g.ReadAt(b, at)
		if (err1 != nil && err1 != io.EOF) || (err2 != nil && err2 != io.EOF) {
			return false, errors.Join(err1, err2)
		}
		if !bytes.Equal(a[:n], b[:m]) {
			return false, ErrExists
		}
		if n < len(a) {
			return true, nil
		}
	}
}
