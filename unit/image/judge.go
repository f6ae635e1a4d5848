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

// judgeSigned shows that a signed image f can be unpacked, and returns what it needs of the main system. If imgmeta.json
// states the needs, whoever signed it has judged the image. Images of earlier versions and of the original system
// lack that. The unit then judges them itself.
func judgeSigned(ctx context.Context, f io.ReaderAt, im Image, progress func(int64)) (filesystem.Need, error) {
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
	return judgeWhole(ctx, f, im, progress)
}

// judgeWhole decodes the whole image f and makes every check. It judges each entry by the rules of the restore that
// unpacks it. It returns what the image needs of the main system.
func judgeWhole(ctx context.Context, f io.ReaderAt, im Image, progress func(int64)) (filesystem.Need, error) {
	most, err := Limit(ctx, f, im)
	if err != nil {
		return filesystem.Need{}, err
	}
	r, err := release.NewReader(ctx, f, im.Size, runtime.NumCPU())
	if err != nil {
		return filesystem.Need{}, fault.Because(fault.ImageCorrupt, err)
	}
	defer r.Close()
	m := &meter{r: r, ctx: ctx, report: func(n int64) { progress(int64(float64(n) / float64(r.Size()) * float64(im.Size))) }}
	_, need, err := filesystem.JudgeTar(m, most)
	if ctx.Err() != nil {
		return need, context.Cause(ctx)
	}
	if err != nil {
		return need, fault.Because(fault.ImageCorrupt, err)
	}
	return need, nil
}

// Limit returns the largest total size of the files in an image, in bytes, as its imgmeta.json states it. It is 0 if
// that states none. An image that was made under another name is an error.
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
