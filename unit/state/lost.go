package state

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"gprovision/hw/durable"
)

// lostFound is where e2fsck puts files and directories that have lost their names. It names them by inode number
// (e2fsck(8)).
const lostFound = "lost+found"

// maxLost limits how many entries of a directory in lostFound are looked at. The volume is not trusted.
const maxLost = 1024

// HasLostUnit reports whether exactly one file that e2fsck put into lost+found is a unit.json that fits accepts.
func (v *Volume) HasLostUnit(fits func(Unit) bool) (yes bool, err error) {
	err = v.inside(func(r *os.Root) error {
		lost, err := findLost(r, fits)
		yes = lost[UnitFile] != ""
		return err
	})
	return yes, err
}

// PutLostBack moves files that e2fsck put into lost+found back to their places, and returns their names. They are the
// unit's key, its password hash, and last unit.json, which makes the volume the unit's.
//
// It moves nothing unless unit.json is missing and exactly one file in lost+found is one that fits accepts. The other
// two move along if they are missing and exactly one file can be each. The volume must be mounted for writing.
func (v *Volume) PutLostBack(fits func(Unit) bool) (names []string, err error) {
	err = v.inside(func(r *os.Root) error {
		if _, err := r.Lstat(UnitFile); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		lost, err := findLost(r, fits)
		if err != nil || lost[UnitFile] == "" {
			return err
		}
		for _, name := range []string{KeyFile, HashFile, UnitFile} {
			if _, err := r.Lstat(name); lost[name] == "" || !errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := makeParent(r, name); err != nil {
				return err
			}
			if err := r.Rename(lost[name], name); err != nil {
				return fmt.Errorf("put %s back: %w", name, err)
			}
			if err := durable.SyncIn(r, Dir); err != nil {
				return err
			}
			names = append(names, name)
		}
		return durable.SyncIn(r, path.Dir(lost[UnitFile]))
	})
	return names, err
}

// findLost returns the path of each lost file by its proper name. It looks in lost+found and in the directories
// there. A name that two files could have is left out.
func findLost(r *os.Root, fits func(Unit) bool) (map[string]string, error) {
	found := map[string]string{}
	twice := map[string]bool{}
	look := func(file string) {
		b, err := ReadFile(r, file, maxUnit)
		if err != nil {
			return
		}
		name := ""
		if u, err := ParseUnit(b); err == nil && fits(u) {
			name = UnitFile
		} else if _, err := parseKey(b); err == nil {
			name = KeyFile
		} else if _, err := parseHash(b); err == nil {
			name = HashFile
		}
		if name == "" {
			return
		}
		twice[name] = twice[name] || found[name] != ""
		found[name] = file
	}
	list, err := readDir(r, lostFound)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		file := path.Join(lostFound, e.Name())
		switch {
		case e.Type().IsRegular():
			look(file)
		case e.IsDir(): // perhaps the state directory
			inner, err := readDir(r, file)
			if err != nil {
				return nil, err
			}
			for _, e := range inner {
				if e.Type().IsRegular() {
					look(path.Join(file, e.Name()))
				}
			}
		}
	}
	for name, yes := range twice {
		if yes {
			delete(found, name)
		}
	}
	return found, nil
}

// readDir returns up to maxLost entries of a directory.
func readDir(r *os.Root, name string) ([]fs.DirEntry, error) {
	d, err := r.Open(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := d.ReadDir(maxLost)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return list, err
}
