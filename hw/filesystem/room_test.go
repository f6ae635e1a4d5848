package filesystem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRoom fills filesystems with as much as they are said to have room for, before they are made.
func TestRoom(t *testing.T) {
	run := func(ctx context.Context, program string, args ...string) ([]byte, int, error) {
		out, err := exec.CommandContext(ctx, filepath.Base(program), args...).CombinedOutput()
		return out, 0, err
	}
	for _, size := range []int64{32 << 20, 200 << 20, 700 << 20} {
		t.Run(fmt.Sprintf("%d MiB", size>>20), func(t *testing.T) {
			dir := mountExt4(t, size)
			before, err := RoomOn(t.Context(), run, t.TempDir(), size)
			if err != nil {
				t.Fatal(err)
			}
			after, err := RoomIn(dir)
			if err != nil {
				t.Fatal(err)
			}
			if before.Blocks > after.Blocks || before.Blocks < after.Blocks*9/10 || before.Inodes != after.Inodes || before.Bytes() > size {
				t.Errorf("before it was made %+v, mounted %+v", before, after)
			}
			f, err := os.Create(filepath.Join(dir, "filling"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := unix.Fallocate(int(f.Fd()), 0, 0, (before.Blocks-8)*ext4Block); err != nil { // 8: the lists of where it lies
				t.Errorf("%d blocks do not fit: %v", before.Blocks-8, err)
			}
			if err := unix.Fallocate(int(f.Fd()), 0, 0, after.Blocks*ext4Block+size/20); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("more than that fits: %v", err)
			}
		})
	}
}

func TestFits(t *testing.T) {
	room := Need{Inodes: 100, Blocks: 1000}
	for _, c := range []struct {
		need Need
		want bool
	}{{Need{100, 1000}, true}, {Need{101, 1}, false}, {Need{1, 1001}, false}, {Need{}, true}} {
		if got := c.need.Fits(room); got != c.want {
			t.Errorf("%+v: %t", c.need, got)
		}
	}
	for _, c := range []struct {
		need Need
		size int64
		want bool
	}{
		{Need{1000, 1000}, 8 << 30, true}, {Need{1000, 1000}, 512 << 20, false}, {Need{1000, 1 << 20}, 8 << 30, true},
		{Need{1000, 1<<20 + 1}, 8 << 30, false}, {Need{1 << 16, 1}, 8 << 30, true}, {Need{1<<16 + 1, 1}, 8 << 30, false},
	} {
		if got := c.need.Easily(c.size); got != c.want {
			t.Errorf("%+v in %d: %t", c.need, c.size, got)
		}
	}
}
