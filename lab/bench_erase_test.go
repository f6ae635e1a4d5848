//go:build bench

package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gprovision/model/erasure"
	"gprovision/unit/job/erase/engine"
)

// TestBenchErase prints the table of an overwrite with verification, a pass of random bytes that is read back and a pass of zeros, on a
// loop device of GPROV_BENCH_ERASE_MB (default 4096), GPROV_BENCH_ROUNDS times. nwipe is left out where it is not installed.
func TestBenchErase(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the benchmark makes a loop device: run as root")
	}
	b := &bench{t: t, dir: t.TempDir()}
	size := benchCount(t, "GPROV_BENCH_ERASE_MB", 4096)
	b.image = filepath.Join(b.dir, "disk")
	b.sh(fmt.Sprintf("fallocate -l %dM %s", size, quote(b.image)))
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", "--direct-io=on", b.image).Output()
	if err != nil {
		t.Fatal(err)
	}
	b.build = strings.TrimSpace(string(out))
	defer b.sh("losetup -d " + quote(b.build))
	dev := quote(b.build)
	list := []*contender{
		{name: "gprovision: stream, read back, zeros; 5,002 places looked at, all blocks compared", child: "erase"},
		{name: "dd bs=4M, direct: write, read, write; nothing compared", shell: func(string) string {
			return "dd if=/dev/zero of=" + dev + " bs=4M oflag=direct; dd if=" + dev +
				" of=/dev/null bs=4M iflag=direct; dd if=/dev/zero of=" + dev + " bs=4M oflag=direct; sync " + dev // dd ends with ENOSPC, at the end
		}},
		{name: "dd bs=4M oflag=direct: write, once", shell: func(string) string {
			return "dd if=/dev/zero of=" + dev + " bs=4M oflag=direct; sync " + dev
		}},
	}
	if _, err := exec.LookPath("nwipe"); err == nil {
		list = append(list, &contender{name: "nwipe: random, verified, zeros; all blocks compared", shell: func(dir string) string {
			return "nwipe --autonuke --nogui --nowait --nosignals --method=random --rounds=1 --verify=last --logfile=" +
				quote(filepath.Join(dir, "log")) + " " + dev
		}})
	} else {
		fmt.Println("\nnwipe is left out: it is not installed")
	}
	b.compare(fmt.Sprintf("Overwrite of %d MB on a loop device, with verification", size), benchCount(t, "GPROV_BENCH_ROUNDS", 5), false, list)
}

// direct is a device that is read and written past the caches.
type direct struct{ *os.File }

// overwriteDevice erases a loop device as a unit does one that offers no commands.
func overwriteDevice(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	res, err := engine.Run(ctx, engine.Env{
		Now: time.Now, Random: rand.Reader, Requests: 8,
		Wait: func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d):
				return nil
			}
		},
		Announce: func(erasure.Drive) error { return nil },
		Store:    func(engine.State) error { return nil },
	}, engine.Target{
		Known: erasure.Drive{
			Role: erasure.MainDisk, Name: filepath.Base(path), BlockSize: 512,
			Evidence: erasure.Evidence{Media: erasure.UnknownMedia, Path: erasure.Virtual},
		},
		Guard: func() error { return nil }, Whole: true, Areas: []engine.Area{{Blocks: direct{f}, Size: func() int64 { return size }}},
	}, engine.State{})
	if err == nil && res.Drive.Outcome != erasure.Weaker {
		err = errors.New(string(res.Drive.Outcome))
	}
	return err
}
