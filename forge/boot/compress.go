package boot

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"gprovision/forge/tool"
)

// Compression is how an initramfs is compressed.
type Compression string

// The kinds of compression that a built artifact may have.
const (
	Zstd Compression = "zstd"
	Gzip Compression = "gzip"
)

// chooseCompression reads the kernel's configuration: zstd where the kernel can unpack it, else gzip.
func chooseCompression(root *rootFS, k kernelFile) (Compression, error) {
	if k.config == "" {
		return Gzip, nil // every kernel that unpacks anything unpacks gzip
	}
	config, err := root.read(k.config, "")
	if err != nil {
		return "", err
	}
	set := map[string]bool{}
	for _, line := range strings.Split(string(config), "\n") {
		set[line] = true
	}
	if !set["CONFIG_BLK_DEV_INITRD=y"] {
		return "", fmt.Errorf("kernel %s cannot have an initramfs: CONFIG_BLK_DEV_INITRD is not set", k.release)
	}
	if set["CONFIG_RD_ZSTD=y"] {
		return Zstd, nil
	}
	return Gzip, nil
}

// pack writes the tree as an archive, and compresses it in the way that the kernel unpacks.
func (b *builder) pack() ([]byte, error) {
	var plain bytes.Buffer
	if err := b.tree.Write(&plain, b.o.Time); err != nil {
		return nil, err
	}
	b.rep.InitrdUnpacked = int64(plain.Len())
	if b.rep.Compression == Zstd {
		return compressZstd(b.ctx, b.log, plain.Bytes())
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(z, &plain); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// compressModules compresses each module by itself, on all processors. The kernel then does not unpack at each boot what the machine
// has no device for: init unpacks those that it loads.
func compressModules(ctx context.Context, log *slog.Logger, modules []moduleFile) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	next := make(chan *moduleFile)
	for range runtime.NumCPU() {
		all.Go(func() {
			for m := range next {
				data, err := compressZstd(ctx, log, m.data)
				if err != nil {
					cancel(fmt.Errorf("compress module %s: %w", m.path, err))
				}
				m.path, m.data = m.path+zstdSuffix, data
			}
		})
	}
	for i := range modules {
		next <- &modules[i]
	}
	close(next)
	all.Wait()
	return context.Cause(ctx)
}

// zstdSuffix is that of a file compressed by zstd.
const zstdSuffix = ".zst"

// compressZstd compresses with the program zstd at its level 19: the best whose window of 8 MiB kernels unpack. Its bytes depend on
// data and the program's version alone. The library that decompresses elsewhere is not as good: modules and init get a seventh larger.
func compressZstd(ctx context.Context, log *slog.Logger, data []byte) ([]byte, error) {
	var out bytes.Buffer
	err := tool.Run(ctx, log, tool.Command{
		Name: "zstd", Package: "zstd", Args: []string{"-q", "-19", "-T1", "--no-progress", "--stream-size=" + strconv.Itoa(len(data)), "-c"},
		Stdin: bytes.NewReader(data), Stdout: &out,
	})
	if err != nil {
		return nil, err
	}
	if out.Len() == 0 {
		return nil, errors.New("zstd wrote nothing")
	}
	return out.Bytes(), nil
}
