// Package medium finds and mounts what a person plugs in to bring a unit back: emergency media and recovery sticks.
//
// An emergency medium is a removable or USB disk with files EmergencyFile_* in the root of a FAT, exFAT or ext4
// filesystem. A recovery stick is one that gprov stick make wrote. Whatever is on them is hostile. They are mounted
// read-only and only briefly. Only regular files with the right names are looked at, and only signatures are
// believed. The support bundle is the only thing ever written to a stick. It goes to a partition of its own (Save).
//
// The package asks nobody and decides nothing.
package medium

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/site"
	"gprovision/unit/image"
	"gprovision/unit/machine"
	"gprovision/unit/state"
)

// How many entries of a root directory, and how many emergency files, are looked at.
const (
	maxEntries = 20_000
	maxFiles   = 64
)

// patience limits the time to mount a medium and look at it.
const patience = 20 * time.Second

// File is an image on a medium. Nothing speaks against it at first sight, but it is not proven.
type File struct {
	// Base is the file's name on the medium.
	Base string
	// Name is the name of the image.
	Name release.Name
	// Size is the size in bytes.
	Size int64
	// ID identifies the image on this particular medium, by 32 hexadecimal digits. A restore from it fulfils a
	// request with this ID. So a medium that stays plugged in is recognised.
	ID string
}

// Medium is an emergency medium.
type Medium struct {
	// Disk is the disk. Path is the device of the filesystem: a partition or the whole disk.
	Disk block.Disk
	Path string
	// Type is vfat, exfat or ext4. UUID is the UUID of the filesystem.
	Type, UUID string
	// Stick reports whether gprov stick make wrote the medium.
	Stick bool
	// Files are the images that nothing speaks against so far, newest first.
	Files []File
	// Refused are the emergency files that cannot be used.
	Refused []image.Rejected
}

// Finder looks for media.
type Finder struct {
	Eyes machine.Eyes
	// Names are the unit's names. A filesystem with the label of one of the unit's own volumes is no medium. Images
	// must have the unit's prefix.
	Names site.Names
}

// Find returns the media among disks. It skips the unit's own disks, named in own. It also skips disks that cannot be
// read or take too long, and notes say why.
func (f Finder) Find(ctx context.Context, disks []block.Disk, own map[string]bool) (found []Medium, notes []string) {
	for _, d := range disks {
		if own[d.Name] || !isPluggable(d) {
			continue
		}
		for _, m := range f.filesystems(d) {
			err := f.lookInside(ctx, &m)
			switch {
			case err != nil:
				notes = append(notes, fmt.Sprintf("medium %s: %v", m.Path, err))
			case len(m.Files)+len(m.Refused) > 0:
				found = append(found, m)
			}
		}
	}
	return found, notes
}

// isPluggable reports whether a disk is of the kind that a person plugs in.
func isPluggable(d block.Disk) bool { return d.Bus == block.USB || d.Removable }

// filesystems returns the mountable filesystems of a disk. It skips those with the label of one of the unit's own
// volumes.
func (f Finder) filesystems(d block.Disk) []Medium {
	stick := 0
	if t, err := f.Eyes.ReadTable(d.Path); err == nil {
		stick = stickPartition(t)
	}
	parts := d.Partitions
	if len(parts) == 0 {
		parts = []block.Partition{{Path: d.Path}}
	}
	var out []Medium
	for _, p := range parts {
		info, _, err := f.Eyes.ProbePartition(p.Path)
		if err != nil || !slices.Contains([]string{"vfat", "exfat", "ext4", "ext2"}, info.Type) {
			continue
		}
		if n := f.Names; info.Label == n.Recovery || info.Label == n.Primary {
			continue
		}
		if info.Type == "ext2" {
			info.Type = "ext4" // the ext4 driver reads it too
		}
		out = append(out, Medium{Disk: d, Path: p.Path, Type: info.Type, UUID: info.UUID, Stick: stick > 0 && p.Number == stick})
	}
	return out
}

// stickPartition returns the number of the partition with a recovery stick's images, or 0 if there is none.
func stickPartition(t layout.Table) int {
	for _, p := range t.Partitions {
		if p.Type == layout.TypeStick {
			return p.Number
		}
	}
	return 0
}

// lookInside sets what is on a medium.
func (f Finder) lookInside(ctx context.Context, m *Medium) error {
	type seen struct {
		files   []File
		refused []image.Rejected
	}
	s, err := withTimeout(ctx, patience, func() (seen, error) {
		dir, done, err := Mount(f.Eyes, *m)
		if err != nil {
			return seen{}, err
		}
		files, refused, err := Scan(dir, m.UUID, f.Names.ImagePrefix, f.Eyes.Policy(), f.Eyes.Keys())
		return seen{files, refused}, errors.Join(err, done())
	})
	m.Files, m.Refused = s.files, s.refused
	return err
}

// Mount mounts a medium read-only. The caller calls done when finished with it.
func Mount(eyes machine.Eyes, m Medium) (dir string, done func() error, err error) {
	return mount(eyes.Places().Medium, func(dir string) error { return eyes.Mount(m.Path, dir, m.Type) }, eyes.Unmount)
}

// mount mounts something below the directory parent, which it makes.
func mount(parent string, on, off func(dir string) error) (dir string, done func() error, err error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp(parent, "medium-"); err != nil {
		return "", nil, err
	}
	if err := on(dir); err != nil {
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	return dir, func() error {
		if err := off(dir); err != nil {
			return errors.Join(err, host.UnmountLazy(dir))
		}
		return os.Remove(dir)
	}, nil
}

// withTimeout stops waiting for do after limit. do itself may go on, stuck in the kernel. It is then forgotten.
func withTimeout[T any](ctx context.Context, limit time.Duration, do func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errors.New("it ended without a result")}
		defer func() {
			if v := recover(); v != nil {
				r.err = fault.Newf(fault.Internal, "panic: %v", v)
			}
			done <- r
		}()
		r.v, r.err = do()
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	var zero T
	select {
	case r := <-done:
		return r.v, r.err
	case <-t.C:
		return zero, fmt.Errorf("no answer within %v", limit)
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}

// Scan checks the emergency files in the root directory of a medium mounted at dir. fsUUID is the UUID of its
// filesystem.
func Scan(dir, fsUUID, prefix string, p policy.Policy, keys []signature.PublicKey) (files []File, refused []image.Rejected, err error) {
	names, err := emergencyFiles(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, base := range names {
		im, err := imageOf(dir, base, prefix)
		if err == nil {
			err = image.Glance(im, p, keys)
		}
		if err != nil {
			refused = append(refused, image.Rejected{File: base, Err: err})
			continue
		}
		id, err := imageID(im, fsUUID)
		if err != nil {
			refused = append(refused, image.Rejected{File: base, Err: err})
			continue
		}
		files = append(files, File{Base: base, Name: im.Name, Size: im.Size, ID: id})
	}
	slices.SortStableFunc(files, func(a, b File) int { return b.Name.Compare(a.Name) })
	return files, refused, nil
}

// emergencyFiles returns the names of the emergency files in a directory, sorted and without the signatures.
func emergencyFiles(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		n := e.Name()
		if strings.HasPrefix(n, layout.EmergencyPrefix) && !strings.HasSuffix(n, signature.Suffix) && len(names) < maxFiles {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, nil
}

// imageOf returns the image in an emergency file.
func imageOf(dir, base, prefix string) (image.Image, error) {
	name, err := release.ParseName(strings.TrimPrefix(strings.TrimPrefix(base, layout.EmergencyPrefix), "_"), prefix)
	if err != nil {
		return image.Image{}, fault.Because(fault.ImageName, err)
	}
	path := filepath.Join(dir, base)
	if err := machine.Regular(path); err != nil {
		return image.Image{}, fault.Because(fault.ImageName, err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return image.Image{}, err
	}
	return image.Image{Path: path, Name: name, Size: st.Size()}, nil
}

// imageID returns the ID of an image on a medium. It depends on the UUID of the filesystem, on the image's name and
// size, and on its signature.
func imageID(im image.Image, fsUUID string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "gprovision medium 1\n%q\n%s\n%d\n", fsUUID, im.Name, im.Size)
	root, err := os.OpenRoot(filepath.Dir(im.Path))
	if err != nil {
		return "", err
	}
	defer root.Close()
	sig, err := state.ReadFile(root, filepath.Base(im.Path)+signature.Suffix, signature.MaxSize)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	h.Write(sig)
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// Image returns f as an image on a medium mounted at dir, in the form that a restore takes.
func (f File) Image(dir string) image.Image {
	return image.Image{Path: filepath.Join(dir, f.Base), Name: f.Name, Size: f.Size}
}
