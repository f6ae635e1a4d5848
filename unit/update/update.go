// Package update brings a release image onto the recovery volume of a running system, from a web server or a file. It
// makes room, proves the image before any restore can choose it, and replaces the recovery artifact by a newer one.
// It restores nothing.
//
// An image arrives in a directory of its own and leaves it only once proven. If a call is cut short, even by a power
// cut, the caller simply repeats it. It then continues with what has arrived.
package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/durable"
	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/unit/image"
	"gprovision/unit/machine"
	"gprovision/unit/report"
	"gprovision/unit/state"
)

// reserve is how many bytes stay free on the volume beside a new image. They are for logs and for two copies of a
// boot artifact.
const reserve = 192 << 20

// maxArtifact is the largest size of a boot artifact, in bytes.
const maxArtifact = 1 << 30

// Options say which image to take and from where.
type Options struct {
	// Source is the https address of an image, or the path of a local file. The signature lies beside it and ends in
	// .minisig.
	Source string
	// Client makes the requests (report.NewSource). It is not used for a local file.
	Client *http.Client
	// Volume is the recovery volume, mounted for writing.
	Volume *state.Volume
	// Policy and Keys say what is accepted. Policy also says how many images to keep.
	Policy policy.Policy
	Keys   []signature.PublicKey
	// Prefix is the start of the names of this unit's images.
	Prefix string
	// BootFile is the name of the boot artifact, both in an image's /boot and on the volume.
	BootFile string
	// Room returns what an empty main system has room for. It is as exact as need requires. If it is nil, the room is
	// unknown. Firmware determines what a restore puts beside an image.
	Room     func(ctx context.Context, need filesystem.Need) (filesystem.Need, error)
	Firmware layout.Firmware
	// Running is the file name of the running image. Original is that of the image that the unit was provisioned
	// with. "" means unknown. Both images are kept.
	Running, Original string
	// Log gets what is done. Progress gets how far a stage is, in bytes. A total of 0 means unknown.
	Log      *slog.Logger
	Progress func(stage string, done, total int64)
	// Attempts and Patience are those of report.FetchOptions.
	Attempts int
	Patience time.Duration
	// Reserve is how many bytes stay free on the volume. 0 means 192 MiB.
	Reserve int64
}

// Result is what Take did.
type Result struct {
	// Image is the file name of the image. Size is its size in bytes.
	Image string `json:"image"`
	Size  int64  `json:"size"`
	// Present reports whether the image was already on the volume, and good.
	Present bool `json:"present,omitempty"`
	// Resumed is how many bytes came from an earlier call.
	Resumed int64 `json:"resumed,omitempty"`
	// Removed are the images that were removed to make room.
	Removed []string `json:"removed,omitempty"`
	// Recovery reports whether the image's boot artifact became the recovery artifact.
	Recovery bool `json:"recovery,omitempty"`
}

// taking is one call of Take.
type taking struct {
	Options
	name  release.Name
	local bool
	stage string // directory of what is not proven yet
	res   Result
}

// Take brings the image at o.Source to the volume. It may be repeated. Its errors carry a fault.
func Take(ctx context.Context, o Options) (Result, error) {
	if o.Reserve == 0 {
		o.Reserve = reserve
	}
	t := &taking{Options: o, local: !strings.Contains(o.Source, "://"), stage: o.Volume.Path(state.FetchDir)}
	base := filepath.Base(o.Source)
	if !t.local {
		base, _, _ = strings.Cut(o.Source, "?")
		base = path.Base(base)
	}
	var err error
	if t.name, err = release.ParseName(base, o.Prefix); err != nil {
		return Result{}, fault.Because(fault.ImageName, err)
	}
	if err := image.CheckAge(t.name, o.Policy); err != nil {
		return Result{}, err
	}
	t.res.Image = t.name.String()
	err = t.take(ctx)
	return t.res, err
}

func (t *taking) take(ctx context.Context) error {
	if err := t.clean(); err != nil {
		return fault.Because(fault.RecoveryDamaged, err)
	}
	placed, err := t.image(t.Volume.Path(state.ImageDir, t.res.Image))
	if err == nil && image.Glance(placed, t.Policy, t.Keys) == nil {
		if was, need, err := t.prove(ctx, placed); err == nil {
			if err := t.checkRoom(ctx, need); err != nil {
				return err
			}
			t.res.Present = true
			if err := t.takeArtifact(ctx, placed, was); err != nil {
				return err
			}
			return t.updateRecovery(was != nil)
		}
	}
	if ctx.Err() != nil {
		return fault.Because(fault.Download, ctx.Err())
	}
	sig, err := t.signature(ctx)
	if err != nil {
		return err
	}
	if err := t.makeRoom(); err != nil {
		return err
	}
	dest := filepath.Join(t.stage, t.res.Image)
	if err := t.fetchImage(ctx, dest); err != nil {
		return err
	}
	if sig != nil {
		if _, err := machine.PutFile(dest+signature.Suffix, 0o644, bytes.NewReader(sig)); err != nil {
			return diskFault(err)
		}
	}
	im, err := t.image(dest)
	var was *image.Proof
	if err == nil {
		var need filesystem.Need
		was, need, err = t.prove(ctx, im)
		if err == nil {
			err = t.checkRoom(ctx, need)
		}
		if err == nil {
			err = t.takeArtifact(ctx, im, was)
		}
	}
	if err != nil {
		if f := fault.Of(err); ctx.Err() == nil && f != fault.NoSpace && f != fault.DiskWrite { // the image will not become good by itself
			err = errors.Join(err, os.RemoveAll(dest), os.RemoveAll(dest+signature.Suffix))
		}
		return err
	}
	if err := t.putInPlace(im, sig != nil); err != nil {
		return fault.Because(fault.RecoveryDamaged, err)
	}
	t.Log.Info("image is on the recovery volume", "image", t.res.Image, "bytes", im.Size)
	t.forgetFailures()
	return t.updateRecovery(was != nil)
}

func (t *taking) image(file string) (image.Image, error) {
	st, err := os.Lstat(file)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", file)
	}
	if err != nil {
		return image.Image{}, err
	}
	t.res.Size = st.Size()
	return image.Image{Path: file, Name: t.name, Size: st.Size()}, nil
}

// clean makes the directory for arriving images, and removes what other calls left on the volume.
func (t *taking) clean() error {
	images := t.Volume.Path(state.ImageDir)
	for _, dir := range []string{state.FetchDir, state.ImageDir} {
		if err := machine.MakeDir(t.Volume.Path(), dir); err != nil {
			return err
		}
	}
	parts, err := report.Parts(images)
	if err != nil {
		return err
	}
	for _, name := range parts {
		t.Log.Info("removing a download that was broken off", "file", name)
		if err := report.RemovePart(filepath.Join(images, name)); err != nil {
			return err
		}
	}
	list, err := os.ReadDir(t.stage)
	if err != nil {
		return err
	}
	for _, e := range list {
		if rest, ok := strings.CutPrefix(e.Name(), t.res.Image); ok && (rest == "" || rest == ".part" || rest == ".part.json") {
			continue
		}
		if err := os.RemoveAll(filepath.Join(t.stage, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// makeRoom removes the images that the policy would not keep beside the new one. The new one is not proven yet, so
// the newest of the others stays in any case. An image that a request names stays too.
func (t *taking) makeRoom() error {
	images, _, err := image.List(t.Volume.Path(state.ImageDir), t.Prefix, false)
	if err != nil {
		return fault.Because(fault.RecoveryDamaged, err)
	}
	wanted := ""
	if r, err := t.Volume.ReadRequest(); err == nil {
		wanted = r.Image
	}
	for _, im := range image.Surplus(images, t.Running, t.Original, t.Policy.Keep()-1) {
		if name := im.Name.String(); name != wanted && name != t.res.Image {
			t.Log.Info("removing old image", "image", name)
			if err := im.Remove(); err != nil {
				return fault.Because(fault.RecoveryDamaged, err)
			}
			t.res.Removed = append(t.res.Removed, name)
		}
	}
	return nil
}

// signature returns the image's signature, before anything large is fetched. It is nil if there is none and the
// policy needs none.
func (t *taking) signature(ctx context.Context) ([]byte, error) {
	sig, err := t.small(ctx)
	switch {
	case (errors.Is(err, report.ErrNotFound) || errors.Is(err, fs.ErrNotExist)) && t.Policy.AllowUnsigned:
		return nil, nil
	case errors.Is(err, report.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return nil, fault.Newf(fault.ImageUnsigned, "there is no %s%s", t.Source, signature.Suffix)
	case err != nil:
		return nil, fault.Because(fault.Download, err)
	}
	return sig, image.CheckSignature(sig, t.Keys, t.name)
}

func (t *taking) small(ctx context.Context) ([]byte, error) {
	if t.local {
		dir, err := os.OpenRoot(filepath.Dir(t.Source))
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return state.ReadFile(dir, filepath.Base(t.Source)+signature.Suffix, signature.MaxSize)
	}
	address, query, _ := strings.Cut(t.Source, "?")
	if address += signature.Suffix; query != "" {
		address += "?" + query
	}
	dest := filepath.Join(t.stage, "signature")
	if _, err := report.Fetch(ctx, report.FetchOptions{URL: address, Dest: dest, MaxSize: signature.MaxSize, Client: t.Client,
		Attempts: t.Attempts, Patience: min(time.Minute, max(t.Patience, time.Second)), Log: t.Log}); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(dest)
	return b, errors.Join(err, os.Remove(dest))
}

// fetchImage brings the image to dest.
func (t *taking) fetchImage(ctx context.Context, dest string) error {
	if st, err := os.Lstat(dest); err == nil && st.Mode().IsRegular() {
		return nil // complete, but the power went before it was proven
	}
	if err := os.RemoveAll(dest); err != nil {
		return diskFault(err)
	}
	if t.local {
		f, err := os.Open(t.Source)
		if err != nil {
			return fault.Because(fault.Download, err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return fault.Because(fault.Download, err)
		}
		free, err := report.FreeSpace(t.stage)
		if err != nil {
			return diskFault(err)
		}
		if st.Size() > free-t.Reserve {
			return fault.Newf(fault.NoSpace, "%s has %d bytes, %d are free on the recovery volume", t.Source, st.Size(), free)
		}
		in := &progressReader{ctx: ctx, r: f, progress: func(n int64) { t.Progress("copy", n, st.Size()) }}
		if _, err = machine.PutFile(dest, 0o644, in); in.failed != nil {
			return fault.Because(fault.Download, err)
		}
		return diskFault(err)
	}
	got, err := report.Fetch(ctx, report.FetchOptions{URL: t.Source, Dest: dest, Client: t.Client, Reserve: t.Reserve, Resume: true, Log: t.Log, Attempts: t.Attempts, Patience: t.Patience,
		ReadBack: func(path string) (io.ReadCloser, error) { return block.OpenDirect(path) },
		Progress: func(done, total int64) { t.Progress("fetch", done, total) }})
	t.res.Resumed = got.Resumed
	return err
}

func (t *taking) prove(ctx context.Context, im image.Image) (*image.Proof, filesystem.Need, error) {
	return image.Proven(ctx, im, t.Policy, t.Keys, func(done int64) { t.Progress("check", done, im.Size) })
}

// checkRoom returns an error for an image that no restore could write to this unit's main disk.
func (t *taking) checkRoom(ctx context.Context, need filesystem.Need) error {
	if t.Room == nil {
		return nil
	}
	artifact := int64(0)
	if st, err := os.Lstat(t.Volume.Path(t.BootFile)); err == nil && st.Mode().IsRegular() {
		artifact = st.Size()
	}
	need = image.Beside(need, t.Firmware, artifact)
	room, err := t.Room(ctx, need)
	if err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return image.CheckRoom(need, room)
}

// putInPlace moves a proven image to where restores look for it. The signature goes first, so that there is never an image
// without one.
func (t *taking) putInPlace(im image.Image, signed bool) error {
	dest := t.Volume.Path(state.ImageDir, t.res.Image)
	if signed {
		if err := os.Rename(im.Path+signature.Suffix, dest+signature.Suffix); err != nil {
			return err
		}
	} else if err := os.RemoveAll(dest + signature.Suffix); err != nil {
		return err
	}
	if err := os.Rename(im.Path, dest); err != nil {
		return err
	}
	return errors.Join(durable.Sync(filepath.Dir(dest)), durable.Sync(t.stage))
}

// artifact returns where the boot artifact of the image lies until it is judged.
func (t *taking) artifact() string { return filepath.Join(t.stage, t.BootFile) }

// takeArtifact extracts the boot artifact and its signature from an image, through the proof. It is an error if there
// is no artifact: such an image could not be restored.
func (t *taking) takeArtifact(ctx context.Context, im image.Image, was *image.Proof) error {
	f, err := os.Open(im.Path)
	if err != nil {
		return fault.Because(fault.ImageCorrupt, err)
	}
	defer f.Close()
	if err := os.RemoveAll(t.artifact() + signature.Suffix); err != nil {
		return diskFault(err)
	}
	want := "/boot/" + t.BootFile
	found := false
	err = image.EachFile(ctx, &progressReaderAt{r: was.Reader(f), ctx: ctx, progress: func(n int64) { t.Progress("look inside", min(n, im.Size), im.Size) }}, im,
		func(name string, size int64, r io.Reader) (bool, error) {
			switch {
			case !found && name == want:
				found = true
				if size > maxArtifact {
					return false, fault.Newf(fault.ImageCorrupt, "%s of %s is no file of at most %d bytes", want, im.Name, maxArtifact)
				}
				return true, t.putArtifact(ctx, t.artifact(), name, im, r)
			case found && name == want+signature.Suffix && size <= signature.MaxSize:
				return false, t.putArtifact(ctx, t.artifact()+signature.Suffix, name, im, r)
			}
			return !found || path.Dir(name) == path.Dir(want), nil
		})
	switch {
	case err != nil && fault.Of(err) == nil:
		return readFault(err)
	case err != nil:
		return err
	case !found:
		return fault.Newf(fault.ImageCorrupt, "%s holds no %s", im.Name, want)
	}
	if _, err := machine.ReadArtifact(t.artifact()); err != nil {
		return fault.Because(fault.ImageCorrupt, fmt.Errorf("%s of %s: %w", want, im.Name, err))
	}
	return nil
}

func (t *taking) putArtifact(ctx context.Context, dest, name string, im image.Image, r io.Reader) error {
	in := &progressReader{ctx: ctx, r: r, progress: func(int64) {}}
	_, err := machine.PutFile(dest, 0o600, in)
	if in.failed != nil {
		return readFault(fmt.Errorf("take %s out of %s: %w", name, im.Name, err))
	}
	return diskFault(err)
}

// progressReaderAt reports how much of an image was read, and fails once its context ends. Several goroutines read from it,
// but it makes only one report at a time.
type progressReaderAt struct {
	ctx      context.Context
	r        io.ReaderAt
	progress func(int64)

	mu   sync.Mutex
	most int64 // already reported
}

func (c *progressReaderAt) ReadAt(b []byte, off int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.ReadAt(b, off)
	c.mu.Lock()
	defer c.mu.Unlock()
	if to := off + int64(n); to > c.most {
		c.most = to
		c.progress(to)
	}
	return n, err
}

// updateRecovery makes the image's boot artifact the recovery artifact if it is newer. The recovery device boots it
// from the next boot on. The note of that is written first: a needless note only costs a comparison. proven means
// that the image is signed. Otherwise the artifact needs a signature of its own.
func (t *taking) updateRecovery(proven bool) error {
	own := t.Volume.Path(t.BootFile)
	p, err := t.Volume.ReadPending()
	if errors.Is(err, state.ErrNewer) {
		return state.Fault(err)
	}
	fresh, err := machine.ReadArtifact(t.artifact())
	if err != nil {
		return fault.Because(fault.ImageCorrupt, err)
	}
	trusted := proven
	if !trusted {
		_, err := image.SignedArtifact(t.artifact(), fresh.Build, t.Prefix, t.Keys)
		trusted = err == nil
	}
	if have, err := machine.ReadArtifact(own); err != nil || trusted && fresh.Build > have.Build {
		p.RecoveryArtifact = true
		if err := t.Volume.WritePending(p); err != nil {
			return diskFault(err)
		}
	}
	if t.res.Recovery, err = machine.UpdateRecovery(t.Log, own, t.artifact(), trusted); err != nil {
		return diskFault(err)
	}
	if t.res.Recovery {
		t.Log.Info("the image's boot artifact is the recovery artifact now", "build", fresh.Build)
	}
	return diskFault(errors.Join(os.Remove(t.artifact()), os.RemoveAll(t.artifact()+signature.Suffix)))
}

// forgetFailures lets the image be chosen again, whatever happened to an earlier copy. If the history cannot be read, the
// restore deals with it.
func (t *taking) forgetFailures() {
	h, err := t.Volume.History()
	if _, known := h.Find(t.res.Image); err == nil && known {
		_, err = t.Volume.ChangeHistory(time.Now(), func(h *release.History) { h.Forgive(t.res.Image) })
	}
	if err != nil {
		t.Log.Warn("history is not updated", "err", err)
	}
}

// diskFault turns a failed write to the recovery volume into a fault.
func diskFault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return fault.Because(fault.NoSpace, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fault.Because(fault.Download, err)
	}
	return fault.Because(fault.DiskWrite, err)
}

// readFault turns a failed read of an image's content into a fault. Whatever the reason, the bytes are not what they
// should be, so the image must be fetched again.
func readFault(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.Because(fault.Download, err)
	}
	return fault.Because(fault.ImageCorrupt, err)
}

// progressReader reports how much was read, and fails once its context ends. When the content is copied to a file, failed
// tells a failed read, including the end of the context, from a failed write.
type progressReader struct {
	ctx      context.Context
	r        io.Reader
	n        int64
	progress func(int64)
	failed   error
}

func (c *progressReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		c.failed = err
		return 0, err
	}
	n, err := c.r.Read(b)
	c.n += int64(n)
	c.progress(c.n)
	if err != nil && err != io.EOF {
		c.failed = err
	}
	return n, err
}
