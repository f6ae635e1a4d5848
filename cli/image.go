package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"gprovision/cli/answer"
	"gprovision/cli/shown"
	"gprovision/forge/boot"
	"gprovision/forge/image"
	"gprovision/forge/image/oci"
	"gprovision/forge/image/recipe"
	"gprovision/forge/tool"
	"gprovision/model/fault"
	"gprovision/model/release"
	"gprovision/model/signature"
)

// ImageCmd holds the verbs about release images (.upd files).
type ImageCmd struct {
	Build   ImageBuildCmd   `cmd:"" help:"Make a release image from a root filesystem."`
	Verify  ImageVerifyCmd  `cmd:"" help:"Check a release image, whole."`
	Inspect ImageInspectCmd `cmd:"" help:"Say what a release image is, without reading all of it."`
	Extract ImageExtractCmd `cmd:"" help:"Unpack a release image by the very code of a restore."`
	Sign    ImageSignCmd    `cmd:"" help:"Sign release images."`
	List    ImageListCmd    `cmd:"" help:"List the release images of a directory, newest first."`
}

// ImageBuildCmd is "gprov image build".
type ImageBuildCmd struct {
	RootFS    string `name:"rootfs" required:"" placeholder:"PATH" help:"Root filesystem: a directory, a tar (plain, xz, gzip, zstd), an OCI image (layout, archive, docker save), or a recipe (.yaml)."`
	Reference string `name:"image-ref" placeholder:"NAME" help:"Which of several images in an OCI layout: its name or tag."`
	Out       string `required:"" placeholder:"DIR" help:"Directory in which the image is put."`
	Name      string `xor:"name" required:"" placeholder:"NAME.upd" help:"Name of the image: PRODUCT.OS.PLATFORM.YYYY-MM-DD.NNNN.upd."`
	Build     string `xor:"name" required:"" placeholder:"N" help:"Build number; the rest of the name is the prefix of the boot artifact's names and today."`
	SigningFlags
	Add        []string `sep:"none" placeholder:"LOCAL:DEST" help:"Put a file in, such as norm_boot:/boot/norm_boot. May be repeated."`
	Policy     string   `placeholder:"FILE" help:"Make /boot/norm_boot from the root filesystem's own kernel, with this policy."`
	Platforms  string   `placeholder:"FILE" help:"Appliance table for that. Default: the built-in one."`
	Names      string   `placeholder:"FILE" help:"Names of the product for that. Default: those of this gprov."`
	Init       string   `placeholder:"FILE" help:"The init program for that. Default: init beside this program."`
	BootAdd    []string `name:"boot-add" sep:"none" placeholder:"PATH[:DEST]" help:"Put a file or directory into the boot artifact that is made. May be repeated."`
	Kernel     string   `placeholder:"RELEASE" help:"Kernel for that. Default: the newest plain one in the root filesystem."`
	BootModule []string `name:"boot-module" sep:"none" placeholder:"PATTERN" help:"Take modules for that beside those that artifacts have, as --module of 'gprov boot build'. May be repeated."`
	BootBuild  *uint64  `name:"build-number" env:"BUILD_NUMBER" placeholder:"N" help:"Build number of the boot artifact that is made. Default: the environment variable BUILD_NUMBER."`
	NoSBOM     bool     `name:"no-sbom" help:"Do not write the bill of materials, NAME.upd.spdx.json."`
	Preset     string   `default:"6" placeholder:"N" help:"Preset of xz, 0 (fast) to 9 (small)."`
	BlockSize  int64    `default:"8388608" placeholder:"BYTES" help:"Size of the blocks that units decode in parallel."`
	Source     string   `placeholder:"TEXT" help:"Text in imgmeta.json about where the root filesystem came from."`
	ImportJob  string   `placeholder:"TEXT" help:"Field ImportJob of imgmeta.json."`
	ImageJob   string   `placeholder:"TEXT" help:"Field ImgJob of imgmeta.json."`
	Stream     string   `placeholder:"TEXT" help:"Field Stream (tier) of imgmeta.json."`
	Incomplete bool     `name:"allow-incomplete" help:"Make an image that no unit could use; what is missing becomes a warning."`
	JSON       bool     `help:"Print the result as JSON."`
}

// Help returns what --help prints below the usage.
func (*ImageBuildCmd) Help() string {
	return `The root filesystem must be complete: systemd and systemd-networkd, the boot artifact as /boot/norm_boot, an account
admin with its password locked (each unit sets its own), all other accounts locked, no SSH host keys. All problems are told
at once, before anything is compressed. With SOURCE_DATE_EPOCH set, the same input gives the same bytes; files of a directory
that are newer get that time. With --policy the boot artifact is made on the spot and takes the place of one that is there.

Keys: --key, or the text of a .key file in the environment variable GPROV_SIGNING_KEY (passphrase: GPROV_SIGNING_PASSPHRASE),
or a program that has the key: --signer and --signer-key (docs/formats/release-image.md).

Examples:
  gprov image build --rootfs rootfs.tar --out images --build 42 --key release.key
  BUILD_NUMBER=42 gprov image build --rootfs recipe.yaml --out images --build 42 --policy policy.json --key release.key
  gprov image build --rootfs saved-by-docker.tar --image-ref product:1.2 --out images --build 42
  gprov image build --rootfs /srv/root --out images --name WIDGET.LNX.SHINY.2026-11-22.0001.upd \
      --add norm_boot:/boot/norm_boot --add bin/gprov-unit:/usr/bin/gprov-unit`
}

// Run makes the image.
func (b *ImageBuildCmd) Run(c *Context) error {
	at, err := imageTime()
	if err != nil {
		return err
	}
	o := image.Options{
		RootFS: b.RootFS, Out: b.Out, Time: at, Source: b.Source, Builder: c.Version, Preset: b.Preset, BlockSize: b.BlockSize,
		ImportJob: b.ImportJob, ImageJob: b.ImageJob, Stream: b.Stream, AllowIncomplete: b.Incomplete, Reference: b.Reference, NoSBOM: b.NoSBOM,
	}
	if o.Name, err = b.name(at); err != nil {
		return &UsageError{err}
	}
	o.Names = c.Site.Names.Chosen()
	for _, a := range b.Add {
		local, dest, ok := strings.Cut(a, ":")
		if !ok || local == "" || dest == "" {
			return &UsageError{fmt.Errorf("--add %s: want LOCAL:DEST, a file here and its path in the image", a)}
		}
		o.Add = append(o.Add, image.File{Local: local, Dest: dest})
	}
	if os.Getenv("SOURCE_DATE_EPOCH") != "" {
		o.Clamp = at
	}
	if o.Boot, err = b.boot(c); err != nil {
		return err
	}
	if o.Key, err = b.signer(c); err != nil {
		return err
	}
	show := newStages(c)
	o.Progress = show.progress
	res, err := image.Build(c, slog.New(slog.DiscardHandler), o)
	show.end(err)
	if err != nil {
		return imageHint(err)
	}
	for _, w := range res.Warnings {
		fmt.Fprintf(c.Stderr, "warning: %s\n", shown.Line("/"+w.Path+": "+w.Text))
	}
	if b.JSON {
		return answer.JSON(c.Stdout, res)
	}
	state := "made"
	if res.Unchanged {
		state = "unchanged"
	}
	fmt.Fprintf(c.Stdout, "%s %s\n", state, res.File)
	imageTable(c.Stdout, [][2]string{
		{"size", bytesText(res.Size)},
		{"inside", fmt.Sprintf("%s, %d entries, %d packages, %d blocks", bytesText(res.Decoded), res.Meta.Entries, res.Meta.Packages.Count, res.Blocks)},
		{"boot build", fmt.Sprint(res.Meta.BootBuild)},
		{"sha256", res.SHA256},
		{"materials", orElse(res.SBOM, "not listed")},
		{"signed by", orElse(res.KeyID, "nobody: units refuse it unless their policy allows unsigned images")},
	})
	return nil
}

// boot says how the boot artifact is made; nil: it is not.
func (b *ImageBuildCmd) boot(c *Context) (*boot.Options, error) {
	if b.Policy == "" {
		if b.Platforms != "" || b.Names != "" || b.Init != "" || len(b.BootAdd) > 0 || b.Kernel != "" || len(b.BootModule) > 0 {
			return nil, &UsageError{errors.New("--platforms, --names, --init, --kernel, --boot-module and --boot-add are for making the boot artifact, which needs --policy")}
		}
		return nil, nil
	}
	o, err := (&BootBuildCmd{RootFS: b.RootFS, Policy: b.Policy, Platforms: b.Platforms, Names: b.Names, Init: b.Init, Add: b.BootAdd, Build: b.BootBuild}).options(c)
	if err != nil {
		return nil, err
	}
	o.Kernel, o.Modules = b.Kernel, b.BootModule
	return &o, nil
}

// name is that of the image; without a prefix where the names of the boot artifact decide.
func (b *ImageBuildCmd) name(at time.Time) (release.Name, error) {
	if b.Name != "" && b.Build != "" {
		return release.Name{}, errors.New("--name and --build cannot be used together")
	}
	if b.Name != "" {
		return release.ParseName(b.Name, "")
	}
	n, err := strconv.ParseUint(b.Build, 10, 64)
	if err != nil {
		return release.Name{}, fmt.Errorf("--build %q: want a number, or give --name", b.Build)
	}
	return release.ParseVersion(fmt.Sprintf("%s.%04d", at.Format("2006-01-02"), n))
}

// imageTime is the time of SOURCE_DATE_EPOCH (reproducible-builds.org), else the present, UTC.
func imageTime() (time.Time, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return time.Now().UTC(), nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, &UsageError{fmt.Errorf("SOURCE_DATE_EPOCH is %q, want seconds since 1970", s)}
	}
	return time.Unix(n, 0).UTC(), nil
}

// ImageVerifyCmd is "gprov image verify".
type ImageVerifyCmd struct {
	File string   `arg:"" help:"The image."`
	Key  []string `sep:"none" placeholder:"PUB" help:"Trusted public key: a .pub file, or its base64 line. May be repeated."`
	JSON bool     `help:"Print the result as JSON."`
}

// Help returns what --help prints below the usage.
func (*ImageVerifyCmd) Help() string {
	return `Reads all of the image: its name, every check of the compressed stream, every entry of the tar inside, and imgmeta.json.
Its name must begin as units with the boot artifact inside want it. With --key it must also be signed by one of the keys, under the very name that it has.

Examples:
  gprov image verify images/WIDGET.LNX.SHINY.2026-11-22.0042.upd --key release.pub
  gprov image verify image.upd                         integrity only`
}

// Run checks the image.
func (v *ImageVerifyCmd) Run(c *Context) error {
	keys, err := readPublicKeys(v.Key)
	if err != nil {
		return err
	}
	show := newStages(c)
	rep, err := image.Verify(c, v.File, image.CheckOptions{Keys: keys, Names: c.Site.Names.Chosen(), Progress: show.progress})
	show.end(err)
	if err != nil {
		return imageHint(err)
	}
	if v.JSON {
		return answer.JSON(c.Stdout, rep)
	}
	fmt.Fprintf(c.Stdout, "good %s\n", v.File)
	var trust string
	switch {
	case rep.Trusted:
		trust = "trusted, by key " + rep.Signature.KeyID
	case rep.Signature != nil:
		trust = "not checked: no --key was given, so this says that the image is whole, not whose it is (signed by key " + rep.Signature.KeyID + ", it says)"
	default:
		trust = "none, and no --key was given: this says that the image is whole, not whose it is"
	}
	rows := reportRows(rep)
	if n := rep.Need; n != nil {
		rows = append(rows, [2]string{"needs", fmt.Sprintf("%s and %d inodes of the main system's filesystem", bytesText(n.Bytes()), n.Inodes)})
	}
	for _, d := range rep.Dropped {
		rows = append(rows, [2]string{"left out", fmt.Sprintf("attribute %q of %d entries, the first is %q: units cannot hold it", d.Attribute, d.Entries, d.First)})
	}
	imageTable(c.Stdout, append(rows, [2]string{"signature", trust}))
	return nil
}

// ImageInspectCmd is "gprov image inspect".
type ImageInspectCmd struct {
	File string `arg:"" help:"The image."`
	Boot bool   `help:"Look at the boot artifact inside too; that decodes the whole image."`
	JSON bool   `help:"Print the result as JSON."`
}

// Help returns what --help prints below the usage.
func (*ImageInspectCmd) Help() string {
	return `Reads the headers, the indexes and imgmeta.json, and what the signature says of itself. It proves nothing: verify does.

Examples:
  gprov image inspect image.upd
  gprov image inspect --boot image.upd                 with form, kernel and build number of the boot artifact
  gprov image inspect image.upd --json | jq .meta.bootBuild`
}

// Run describes the image.
func (i *ImageInspectCmd) Run(c *Context) error {
	var rep image.Report
	var err error
	if i.Boot {
		show := newStages(c)
		rep, err = image.InspectAll(c, i.File, image.CheckOptions{Progress: show.progress})
		show.end(err)
	} else {
		rep, err = image.Inspect(c, i.File)
	}
	if err != nil {
		return imageHint(err)
	}
	if i.JSON {
		return answer.JSON(c.Stdout, rep)
	}
	fmt.Fprintln(c.Stdout, i.File)
	rows := reportRows(rep)
	if b := rep.Boot; b != nil {
		number := "no build number"
		if b.Build != nil {
			number = fmt.Sprintf("build %d", *b.Build)
		}
		rows = append(rows, [2]string{"boot artifact", fmt.Sprintf("%s, %s, %s", b.Form, number, bytesText(b.Size))}, [2]string{"kernel", b.Kernel})
	} else if i.Boot {
		rows = append(rows, [2]string{"boot artifact", "none"})
	}
	if s := rep.Signature; s != nil {
		rows = append(rows, [2]string{"signature", fmt.Sprintf("by key %s, %q (not checked)", s.KeyID, s.Comment)})
	} else {
		rows = append(rows, [2]string{"signature", "none"})
	}
	imageTable(c.Stdout, rows)
	return nil
}

func reportRows(rep image.Report) [][2]string {
	rows := [][2]string{
		{"name", rep.Name},
		{"size", bytesText(rep.Size)},
		{"inside", fmt.Sprintf("%s (%.2f to 1) in %d blocks, %d streams", bytesText(rep.Decoded), rep.Ratio, rep.Blocks, rep.Streams)},
	}
	m := rep.Meta
	if m == nil {
		return append(rows, [2]string{"imgmeta.json", "none"})
	}
	if m.Version > 0 {
		rows = append(rows, [2]string{"made", m.Time.Format(time.RFC3339) + " from " + m.Source},
			[2]string{"content", fmt.Sprintf("%d entries, %s, %d packages", m.Entries, bytesText(m.Bytes), m.Packages.Count)},
			[2]string{"boot build", fmt.Sprint(m.BootBuild)})
	}
	for _, r := range [][2]string{{"BinVer", m.BinVer}, {"BinTime", m.BinTime}, {"ImportJob", m.ImportJob}, {"ImgJob", m.ImgJob}, {"Stream", m.Stream}} {
		if r[1] != "" {
			rows = append(rows, r)
		}
	}
	return rows
}

// ImageExtractCmd is "gprov image extract".
type ImageExtractCmd struct {
	File string   `arg:"" help:"The image."`
	Into string   `required:"" placeholder:"DIR" help:"Empty directory, made if it is not there."`
	Key  []string `sep:"none" placeholder:"PUB" help:"Trusted public key; with one, the signature is checked first. May be repeated."`
	JSON bool     `help:"Print the result as JSON."`
}

// Help returns what --help prints below the usage.
func (*ImageExtractCmd) Help() string {
	return `Decodes on all CPUs and unpacks as a unit does: owners, modes, times, links, devices, holes, ACLs, capabilities and other
extended attributes. Nothing is ever written outside of the directory. Owners and devices need root.

Example:
  sudo gprov image extract image.upd --into /mnt/new`
}

// Run unpacks the image.
func (e *ImageExtractCmd) Run(c *Context) error {
	keys, err := readPublicKeys(e.Key)
	if err != nil {
		return err
	}
	show := newStages(c)
	rep, err := image.Extract(c, e.File, e.Into, image.CheckOptions{Keys: keys, Progress: show.progress})
	show.end(err)
	if err != nil {
		return imageHint(err)
	}
	if e.JSON {
		return answer.JSON(c.Stdout, rep)
	}
	fmt.Fprintf(c.Stdout, "extracted %s: %d entries, %s in %.1f s\n", e.Into, rep.Entries, bytesText(rep.Bytes), rep.Seconds)
	return nil
}

// ImageSignCmd is "gprov image sign".
type ImageSignCmd struct {
	Files []string `arg:"" name:"file" help:"The images."`
	SigningFlags
	JSON bool `help:"Print the result as JSON."`
}

// Help returns what --help prints below the usage.
func (*ImageSignCmd) Help() string {
	return `Writes FILE.minisig beside each image; one that is there is replaced. The signature holds for the name that the image has.

The key is that of --key, or of the environment variable GPROV_SIGNING_KEY, or a program's, such as one that asks an HSM.

Examples:
  gprov image sign --key release.key images/*.upd
  gprov image sign --signer './hsm-sign --slot 1' --signer-key release.pub images/*.upd`
}

// Run signs the images, one after another; the first failure ends it.
func (s *ImageSignCmd) Run(c *Context) error {
	key, err := s.signer(c)
	if err != nil {
		return err
	}
	if key == nil {
		return &UsageError{errors.New("no key: give --key FILE, or --signer and --signer-key, or set GPROV_SIGNING_KEY")}
	}
	done := []image.Signature{}
	for _, f := range s.Files {
		show := newStages(c)
		sig, err := image.Sign(c, f, key, show.progress)
		show.end(err)
		if err != nil {
			return imageHint(err)
		}
		done = append(done, sig)
		if !s.JSON {
			fmt.Fprintf(c.Stdout, "signed %s by key %s\n", sig.File, sig.KeyID)
		}
	}
	if s.JSON {
		return answer.JSON(c.Stdout, map[string]any{"signatures": done})
	}
	return nil
}

// ImageListCmd is "gprov image list".
type ImageListCmd struct {
	Dir     string   `arg:"" help:"The directory."`
	Verify  bool     `help:"Check every image whole, as 'gprov image verify' does."`
	Key     []string `sep:"none" placeholder:"PUB" help:"Trusted public key for --verify. May be repeated."`
	Keep    int      `placeholder:"N" help:"How many of the newest images retention keeps, beside the oldest and the running one. Default: that of a policy, 2."`
	Running string   `placeholder:"NAME.upd" help:"The image that is installed: retention keeps it."`
	JSON    bool     `help:"Print the result as JSON."`
}

// Help returns what --help prints below the usage.
func (*ImageListCmd) Help() string {
	return `Newest first, by date and build number. Files with a malformed name or header are listed with the reason: they are never
chosen. What retention would delete to make space for the next image is marked.

Examples:
  gprov image list /srv/images
  gprov image list /srv/images --verify --key release.pub
  gprov image list /srv/images --keep 3 --running WIDGET.LNX.SHINY.2026-11-22.0001.upd`
}

// Run lists the images. With --verify, an image that does not hold ends it with status 1, after the list.
func (l *ImageListCmd) Run(c *Context) error {
	keys, err := readPublicKeys(l.Key)
	if err != nil {
		return err
	}
	if len(keys) > 0 && !l.Verify || l.Keep < 0 {
		return &UsageError{errors.New("--key is for --verify, and --keep is 1 or more")}
	}
	show := newStages(c)
	list, err := image.List(c, l.Dir, image.ListOptions{Keep: l.Keep, Running: l.Running, Verify: l.Verify, Check: image.CheckOptions{Keys: keys, Progress: show.progress}})
	show.end(err)
	if err != nil {
		return err
	}
	if err := l.print(c, list); err != nil || !l.Verify {
		return err
	}
	bad := 0
	for _, f := range list {
		if !f.Verified {
			bad++
		}
	}
	if bad > 0 {
		return &HintError{fmt.Errorf("%d of %d images in %s do not hold", bad, len(list), l.Dir), "delete them, or copy them again"}
	}
	return nil
}

func (l *ImageListCmd) print(c *Context, list []image.Listed) error {
	if l.JSON {
		if list == nil {
			list = []image.Listed{}
		}
		return answer.JSON(c.Stdout, map[string]any{"images": list})
	}
	if len(list) == 0 {
		fmt.Fprintf(c.Stderr, "no images in %s\n", l.Dir)
		return nil
	}
	w := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	for _, f := range list {
		state := "not signed"
		if f.Signature != nil {
			state = "signed by " + f.Signature.KeyID
		}
		switch {
		case f.Trusted:
			state = "good, trusted by " + f.Signature.KeyID
		case f.Verified:
			state = "good, " + state
		}
		if f.Prune {
			state += ", retention would delete it"
		}
		if f.Problem != "" {
			state = "never chosen: " + f.Problem
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", shown.Line(f.File), bytesText(f.Size), shown.Line(state))
	}
	return w.Flush()
}

// imageHint adds a sentence for the builder: those of package fault are for a person at a unit.
func imageHint(err error) error {
	hint := ""
	var missing *tool.MissingError
	var lack *boot.LackError
	var root *boot.MissingError
	var kernel *boot.KernelError
	var have *HintError
	var prefix *boot.PrefixError
	switch {
	case errors.As(err, &prefix):
		hint = prefix.Hint()
	case errors.As(err, &have):
		return err
	case errors.As(err, &missing):
		hint = missing.Hint()
	case errors.As(err, &lack):
		hint = lack.Hint()
	case errors.As(err, &root):
		hint = root.Hint()
	case errors.As(err, &kernel):
		hint = kernel.Hint()
	case errors.Is(err, oci.ErrSeveral):
		hint = "choose one with --image-ref"
	case errors.Is(err, oci.ErrPlatform):
		hint = "build it for linux/amd64 (docker build --platform linux/amd64)"
	case errors.Is(err, recipe.ErrNoSource):
		hint = "see docs/formats/recipe.md, sources"
	case errors.Is(err, image.ErrNoSpace):
		hint = "choose a larger filesystem"
	case errors.Is(err, image.ErrContract):
		hint = "change the root filesystem as said, or make a test image with --allow-incomplete"
	case errors.Is(err, image.ErrExists):
		hint = "images are never overwritten: use the next build number, or delete the old file yourself"
	case errors.Is(err, image.ErrNotEmpty):
		hint = "name an empty directory, or one that is not there yet"
	case errors.Is(err, signature.ErrNoKey):
		hint = "check --key against 'gprov image inspect', which says what key has signed"
	case errors.Is(err, signature.ErrComment), errors.Is(err, release.ErrRenamed):
		hint = "the image was renamed: give it its own name back"
	case errors.Is(err, release.ErrNotSHA256):
		hint = "compress it with 'xz -T0 --check=sha256 --block-size=8MiB', or use 'gprov image build'"
	case fault.Of(err) == fault.ImageUnsigned:
		hint = "sign it with 'gprov image sign --key FILE'"
	case fault.Of(err) == fault.ImageCorrupt:
		hint = "copy or build the image again"
	case errors.Is(err, fs.ErrPermission):
		hint = "run it as root: owners, devices and unreadable files need it"
	default:
		return err
	}
	return &HintError{Err: err, Hint: hint}
}

// readPublicKeys reads keys given as .pub files, or as base64 lines.
func readPublicKeys(args []string) ([]signature.PublicKey, error) {
	var keys []signature.PublicKey
	for _, a := range args {
		text, err := os.ReadFile(a)
		if err != nil {
			k, parseErr := signature.ParsePublicKey(a)
			if parseErr != nil {
				return nil, fmt.Errorf("--key: %w", err)
			}
			keys = append(keys, k)
			continue
		}
		k, err := signature.ParsePublicKey(string(text))
		if err != nil {
			return nil, &HintError{fmt.Errorf("--key %s: %w", a, err), "want a public key: the .pub file that 'gprov keys new' makes"}
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func imageTable(w io.Writer, rows [][2]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(t, "  %s\t%s\n", r[0], shown.Line(r[1]))
	}
	t.Flush()
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// bytesText writes a number of bytes for people, in powers of ten.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), -1
	for v >= 999.95 && unit < 4 {
		v, unit = v/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", v, "kMGTP"[unit])
}

// stages shows the progress of work in stages: bars on a terminal, a line now and then elsewhere. It writes to standard error,
// so that standard output has the result alone. A stage begins when it is first heard of.
type stages struct {
	c     *Context
	mu    sync.Mutex
	bars  *mpb.Progress
	bar   *mpb.Bar
	stage string
	start time.Time
	said  int64 // tenths that were said
	done  int64
	total int64
}

func newStages(c *Context) *stages {
	s := &stages{c: c}
	if c.Terminal {
		s.bars = mpb.New(mpb.WithOutput(shown.Raw(c.Stderr)), mpb.WithWidth(60), mpb.WithRefreshRate(150*time.Millisecond))
	}
	return s
}

func (s *stages) progress(p image.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Stage != s.stage {
		s.finish(true)
		s.stage, s.start, s.said, s.done, s.total = p.Stage, time.Now(), 0, 0, 0
		if s.bars != nil {
			s.bar = s.bars.AddBar(0,
				mpb.PrependDecorators(decor.Name(shown.Line(p.Stage), decor.WC{W: 18, C: decor.DindentRight}), decor.CountersKiloByte("% .1f / % .1f", decor.WC{W: 22})),
				mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.AverageSpeed(decor.SizeB1000(0), " % .1f"), decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8})))
		}
	}
	s.done, s.total = p.Done, p.Total
	if s.bar != nil {
		if p.Total > 0 {
			s.bar.SetTotal(p.Total, false)
		}
		s.bar.SetCurrent(p.Done)
		return
	}
	if p.Total > 0 && p.Done < p.Total {
		if tenth := p.Done * 10 / p.Total; tenth > s.said && time.Since(s.start) > time.Second {
			s.said = tenth
			fmt.Fprintf(s.c.Stderr, "%s: %d%% of %s\n", s.stage, tenth*10, bytesText(p.Total))
		}
	}
}

// finish ends the stage that is shown.
func (s *stages) finish(good bool) {
	if s.stage == "" {
		return
	}
	took := time.Since(s.start)
	switch {
	case s.bar != nil && good:
		s.bar.SetTotal(s.done, true)
	case s.bar != nil:
		s.bar.Abort(false)
	case good:
		fmt.Fprintf(s.c.Stderr, "%s: %s in %.1f s\n", s.stage, bytesText(s.done), took.Seconds())
	}
	s.bar = nil
}

// end ends the last stage, and waits until the bars are drawn.
func (s *stages) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finish(err == nil)
	s.stage = ""
	if s.bars != nil {
		s.bars.Wait()
	}
}
