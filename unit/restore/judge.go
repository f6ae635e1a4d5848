package restore

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
	if _, err := limit(ctx, f, im); err != nil {
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
	most, err := limit(ctx, f, im)
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
