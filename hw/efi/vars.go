// Package efi reads and writes the boot entries of UEFI firmware: the variables BootXXXX, BootOrder, BootNext and BootCurrent
// (UEFI 2.10 section 3.3), through a mounted efivarfs.
//
// It mounts nothing, loads no module, and never touches an entry that is not ours. Variables live in flash memory that wears out:
// nothing is written that is there already.
package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultDir is where efivarfs is mounted.
const DefaultDir = "/sys/firmware/efi/efivars"

// Global is the GUID of the variables that the specification defines (UEFI 2.10 section 3.3).
const Global = "8be4df61-93ca-11d2-aa0d-00e098032b8c"

// CrashDumps is the GUID of the variables in which Linux keeps the end of its log when it crashes (linux/efi.h, LINUX_EFI_CRASH_GUID).
const CrashDumps = "cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0"

// Attributes of a variable (UEFI 2.10 section 8.2.1). Boot variables have all three.
const (
	NonVolatile = 1
	BootService = 2
	Runtime     = 4
	bootVar     = NonVolatile | BootService | Runtime
)

// Present reports whether the machine was started by UEFI firmware. The file system must be rooted at /sys.
func Present(sys fs.FS) bool {
	info, err := fs.Stat(sys, "firmware/efi")
	return err == nil && info.IsDir()
}

// SecureBoot reports whether the firmware starts only what is signed: the variable SecureBoot (UEFI 2.10 section 3.3). known is false for a
// machine that BIOS started, and where efivarfs is not mounted. The file system must be rooted at /sys.
func SecureBoot(sys fs.FS) (on, known bool) {
	b, err := fs.ReadFile(sys, "firmware/efi/efivars/SecureBoot-"+Global)
	if err != nil || len(b) != 5 { // attributes, and one byte
		return false, false
	}
	return b[4] == 1, true
}

// Vars are the variables of the firmware. It holds nothing open.
type Vars struct {
	dir string
	// How a variable's file is written, and how its immutable flag is read and set: efivarfs has rules of its own.
	write    func(path string, data []byte) error
	getFlags func(f *os.File) (int, error)
	setFlags func(f *os.File, flags int) error
}

// New returns the variables in dir, an efivarfs that is mounted for writing (DefaultDir).
func New(dir string) *Vars {
	return &Vars{
		dir:   dir,
		write: writeOnce,
		getFlags: func(f *os.File) (int, error) {
			v, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
			return int(v), err
		},
		setFlags: func(f *os.File, flags int) error {
			return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
		},
	}
}

// maxVar bounds what is read of one variable, in bytes.
const maxVar = 1 << 20

// Get returns the attributes and the data of a variable. The error is fs.ErrNotExist if there is none.
func (v *Vars) Get(name, guid string) (attributes uint32, data []byte, err error) {
	f, err := os.Open(v.path(name, guid))
	if err != nil {
		return 0, nil, fmt.Errorf("read variable %s: %w", name, err)
	}
	defer f.Close()
	buf, err := io.ReadAll(io.LimitReader(f, maxVar+1))
	if err != nil {
		return 0, nil, fmt.Errorf("read variable %s: %w", name, err)
	}
	if len(buf) > maxVar {
		return 0, nil, fmt.Errorf("read variable %s: more than %d bytes", name, maxVar)
	}
	if len(buf) < 4 { // a variable that was deleted but whose file is still there
		return 0, nil, fmt.Errorf("read variable %s: %w", name, fs.ErrNotExist)
	}
	return binary.LittleEndian.Uint32(buf), buf[4:], nil
}

// Set writes a variable, if it is not like that already, and reports whether it wrote. The kernel marks most variables immutable;
// the mark is taken away for the time of writing.
func (v *Vars) Set(name, guid string, attributes uint32, data []byte) (wrote bool, err error) {
	was, old, err := v.Get(name, guid)
	if err == nil && was == attributes && string(old) == string(data) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	path := v.path(name, guid)
	restore, err := v.mutable(path)
	if err != nil {
		return false, fmt.Errorf("write variable %s: %w", name, err)
	}
	b := binary.LittleEndian.AppendUint32(nil, attributes)
	if err := v.write(path, append(b, data...)); err != nil {
		return false, fmt.Errorf("write variable %s: %w", name, err)
	}
	if err := restore(); err != nil {
		return true, fmt.Errorf("write variable %s: %w", name, err)
	}
	return true, nil
}

// Names returns the names of all variables of a GUID, sorted. The error is fs.ErrNotExist where there are no variables at all.
func (v *Vars) Names(guid string) ([]string, error) {
	files, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, fmt.Errorf("list variables: %w", err)
	}
	var out []string
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), "-"+strings.ToLower(guid)); ok {
			out = append(out, name)
		}
	}
	return out, nil
}

// Delete removes a variable. It is no error if there is none.
func (v *Vars) Delete(name, guid string) error {
	path := v.path(name, guid)
	if _, err := v.mutable(path); err != nil {
		return fmt.Errorf("delete variable %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete variable %s: %w", name, err)
	}
	return nil
}

func (v *Vars) path(name, guid string) string {
	return filepath.Join(v.dir, filepath.Base(name)+"-"+strings.ToLower(guid))
}

const immutable = 0x10 // FS_IMMUTABLE_FL, linux/fs.h

// mutable takes the immutable flag away from a file, if it is there and has one. The function it returns puts it back.
func (v *Vars) mutable(path string) (restore func() error, err error) {
	nothing := func() error { return nil }
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nothing, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	flags, err := v.getFlags(f)
	if errors.Is(err, unix.ENOTTY) || err == nil && flags&immutable == 0 {
		return nothing, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read flags: %w", err)
	}
	if err := v.setFlags(f, flags&^immutable); err != nil {
		return nil, fmt.Errorf("clear immutable flag: %w", err)
	}
	return func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return v.setFlags(f, flags)
	}, nil
}

// writeOnce writes a variable as efivarfs wants it: attributes and data in one write, which replaces all that was there.
func writeOnce(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	n, err := unix.Write(int(f.Fd()), data)
	if err == nil && n != len(data) {
		err = fmt.Errorf("%d of %d bytes were taken", n, len(data))
	}
	return errors.Join(err, f.Close())
}
