package image

import (
	"context"
	"errors"
	"io"
	"runtime"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/release"
)

// judged shows that a signed image f can be unpacked. Who made and signed it says so by what it needs; if imgmeta.json has no word
// of that, as in images of earlier versions and of the original system, the unit judges it itself. It returns what the main system
// must have room for.
func judged(ctx context.Context, f io.ReaderAt, im Image, progress func(int64)) (filesystem.Need, error) {
	if _, err := Limit(ctx, f, im); err != nil {
		return filesystem.Need{}, err
	}
	meta, err := release.ReadMetaAt(ctx, f, im.Size)
	if err != nil && !errors.Is(err, release.ErrNoMeta) {
		return filesystem.Need{}, fault.Because(fault.ImageCorrupt, err)
	}
	if err == nil && meta.Judged() {
		return filesystem.Need{Inodes: meta.Inodes, Blocks: meta.Blocks}, nil
	}
	return judge(ctx, f, im, progress)
}

// judge decodes all of an image f, with every check, and judges each entry as the restore that unpacks it. It returns what the main
// system must have room for.
func judge(ctx context.Context, f io.ReaderAt, im Image, progress func(int64)) (filesystem.Need, error) {
	most, err := Limit(ctx, f, im)
	if err != nil {
		return filesystem.Need{}, err
	}
	r, err := release.NewReader(ctx, f, im.Size, runtime.NumCPU())
	if err != nil {
		return filesystem.Need{}, fault.Because(fault.ImageCorrupt, err)
	}
	defer r.Close()
	m := &meter{r: r, ctx: ctx, tell: func(n int64) { progress(int64(float64(n) / float64(r.Size()) * float64(im.Size))) }}
	_, need, err := filesystem.JudgeTar(m, most)
	if ctx.Err() != nil {
		return need, context.Cause(ctx)
	}
	if err != nil {
		return need, fault.Because(fault.ImageCorrupt, err)
	}
	return need, nil
}

// Limit is the greatest sum of the sizes of the files that the image may hold, as its imgmeta.json says; 0: it does not say.
// An image that was made under another name is refused.
func Limit(ctx context.Context, f io.ReaderAt, im Image) (int64, error) {
	meta, err := release.ReadMetaAt(ctx, f, im.Size)
	switch {
	case errors.Is(err, release.ErrNoMeta):
		return 0, nil
	case err != nil:
		return 0, fault.Because(fault.ImageCorrupt, err)
	}
	if err := meta.CheckName(im.Name); err != nil {
		return 0, fault.Because(fault.ImageName, err)
	}
	return meta.MaxBytes(), nil
}
