package filesystem

import (
	"bytes"
	"context"
	"fmt"
)

// MakeExt4 makes an ext4 filesystem on the partition dev, with the given label (at most 16 bytes) and UUID (36 characters).
// What was there is lost. It takes a moment even on large disks: inode tables and journal are initialised by the kernel after
// the first mount. mke2fs syncs before it ends. It does not overwrite each signature of what was there before: wipe both ends
// of the partition first (partition.Wipe), or Probe may go on finding an old array.
//
// Blocks are 4096 bytes whatever the size, so that CheckExt4 knows where the copies of the superblock are. One percent is
// reserved for root. The checksum seed feature is left out: not each GRUB reads it. mke2fs does not discard what was there: on a slow card
// that takes many minutes in which nothing is to be seen; block.Device.Discard does it first.
func MakeExt4(ctx context.Context, run Runner, dev, label, uuid string) error {
	if len(label) > 16 {
		return fmt.Errorf("make ext4 on %s: label %q has more than 16 bytes", dev, label)
	}
	if len(uuid) != 36 {
		return fmt.Errorf("make ext4 on %s: %q is not a UUID", dev, uuid)
	}
	out, exit, err := run(ctx, Mke2fs, "-t", "ext4", "-F", "-q", "-b", "4096", "-m", "1", "-O", "^metadata_csum_seed",
		"-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", "-U", uuid, "-L", label, dev)
	if err != nil {
		return fmt.Errorf("make ext4 on %s: %w", dev, err)
	}
	if exit != 0 {
		return fmt.Errorf("make ext4 on %s: mke2fs ends with status %d: %s", dev, exit, short(out))
	}
	return nil
}

// State is what a check of a filesystem found.
type State string

// The states. Damaged means that errors are left that e2fsck does not repair.
const (
	Clean    State = "clean"
	Repaired State = "repaired"
	Damaged  State = "damaged"
)

// Result is what CheckExt4 found and did.
type Result struct {
	State State
	// Backup reports whether the first superblock was bad and a copy of it was used.
	Backup bool
	// Output is what e2fsck printed, for the log.
	Output []byte
}

// The exit status of e2fsck is a sum of these (e2fsck(8)).
const (
	fsckCorrected   = 1
	fsckReboot      = 2 // only for a mounted root filesystem
	fsckUncorrected = 4
	fsckOperational = 8
	fsckUsage       = 16
	fsckCancelled   = 32
	fsckLibrary     = 128
)

// CheckExt4 checks the ext2, ext3 or ext4 filesystem on dev, which is not mounted, and repairs it. It takes what can be repaired
// safely first (e2fsck -p), then everything (-fy), and if the superblock cannot be used a copy of it (-b 32768). With force it
// looks through the whole filesystem even if that is marked clean.
//
// The error says that the check could not be done: e2fsck cannot run, was stopped, or cannot open dev or find a filesystem on
// it. Then nothing is known about the filesystem. Otherwise Result.State is set.
func CheckExt4(ctx context.Context, run Runner, dev string, force bool) (Result, error) {
	preen := []string{"-p", dev}
	if force {
		preen = []string{"-p", "-f", dev}
	}
	var res Result
	exit, err := fsck(ctx, run, &res, preen...)
	if err != nil {
		return res, fmt.Errorf("check %s: %w", dev, err)
	}
	if s, ok := verdict(exit); ok {
		res.State = s
		return res, nil
	}
	if exit&fsckOperational == 0 {
		if exit, err = fsck(ctx, run, &res, "-f", "-y", dev); err != nil {
			return res, fmt.Errorf("check %s: %w", dev, err)
		}
		if s, ok := verdict(exit); ok {
			res.State = s
			return res, nil
		}
	}
	if exit&fsckOperational == 0 {
		res.State = Damaged
		return res, nil
	}
	// The superblock, or something that it leads to, cannot be read. MakeExt4 always makes blocks of 4096 bytes.
	res.Backup = true
	if exit, err = fsck(ctx, run, &res, "-f", "-y", "-b", "32768", "-B", "4096", dev); err != nil {
		return res, fmt.Errorf("check %s: %w", dev, err)
	}
	if exit&fsckOperational != 0 {
		return res, fmt.Errorf("check %s: e2fsck ends with status %d: %s", dev, exit, short(res.Output))
	}
	// Whatever that run says: the question is whether the filesystem is good without a copy now.
	if exit, err = fsck(ctx, run, &res, "-f", "-y", dev); err != nil {
		return res, fmt.Errorf("check %s: %w", dev, err)
	}
	res.State = Damaged
	if _, ok := verdict(exit); ok {
		res.State = Repaired
	}
	return res, nil
}

// verdict decodes a status that leaves nothing to do.
func verdict(exit int) (State, bool) {
	switch {
	case exit == 0:
		return Clean, true
	case exit&^(fsckCorrected|fsckReboot) == 0:
		return Repaired, true
	}
	return "", false
}

func fsck(ctx context.Context, run Runner, res *Result, args ...string) (int, error) {
	out, exit, err := run(ctx, E2fsck, args...)
	res.Output = append(append(res.Output, out...), '\n')
	if err != nil {
		return 0, err
	}
	if exit < 0 || exit&(fsckUsage|fsckCancelled|fsckLibrary) != 0 {
		return 0, fmt.Errorf("e2fsck ends with status %d: %s", exit, short(out))
	}
	return exit, nil
}

// short makes the output of a program fit into an error: its last lines, on one line.
func short(out []byte) string {
	out = bytes.Join(bytes.Fields(out), []byte(" "))
	if len(out) > 300 {
		out = append([]byte("..."), out[len(out)-300:]...)
	}
	return string(out)
}
