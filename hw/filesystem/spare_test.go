package filesystem

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestSpare: the file takes all that is free, has no name, and what was kept back is kept back again.
func TestSpare(t *testing.T) {
	dir := mountExt4(t, 48<<20)
	kept := func() string {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			t.Fatal(err)
		}
		all, _ := filepath.Glob("/sys/fs/ext4/loop*/reserved_clusters")
		for _, name := range all {
			device, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(filepath.Dir(name)), "dev"))
			if want := bytes.Split(bytes.TrimSpace(device), []byte(":")); err == nil && len(want) == 2 &&
				string(want[1]) == strconv.Itoa(int(unix.Minor(st.Dev))) {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
		}
		return ""
	}
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o700); err != nil {
		t.Fatal(err)
	}
	if s, err := OpenSpare(below); err == nil {
		t.Error("a directory at which nothing is mounted is filled", s.Close())
	}
	if err := os.Remove(below); err != nil {
		t.Fatal(err)
	}
	before := kept()
	s, err := OpenSpare(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 || list[0].Name() != "lost+found" {
		t.Errorf("names: %v, %v", list, err)
	}
	if !s.Bypass() || s.BlockSize() != 4096 {
		t.Errorf("blocks of %d bytes, past the page cache: %t", s.BlockSize(), s.Bypass())
	}
	block := aligned(1<<20, 4096)
	var at int64
	for n := int64(len(block)); n >= s.BlockSize(); {
		k, err := s.WriteAt(block[:n], at)
		if at += int64(k); err == nil {
			continue
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		n /= 2
	}
	if free, err := s.Free(); err != nil || free > 16*4096 || at < 30<<20 {
		t.Errorf("%d bytes are written, %d are free: %v", at, free, err)
	}
	if err := s.Sync(); err != nil {
		t.Error(err)
	}
	n, err := s.Discard()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) || err == nil && n < at {
		t.Errorf("%d of %d bytes are discarded: %v", n, at, err)
	}
	if free, err := s.Free(); err != nil || free < at {
		t.Errorf("%d of %d bytes are free again: %v", free, at, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if after := kept(); before == "" || after != before {
		t.Errorf("%q blocks are kept back, before it were %q", after, before)
	}
}

// TestSpareTables: when Sync returns, the medium holds nothing any more of what was in the free space. The blocks in which ext4 keeps
// where a file of many pieces lies come from there too, and are in its journal alone before.
func TestSpareTables(t *testing.T) {
	dir := mountExt4(t, 48<<20)
	old := bytes.Repeat([]byte("what the customer left behind..."), 4096/32)
	write := func(name string, b []byte) error {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		return errors.Join(err, f.Sync(), f.Close())
	}
	for i := range 64 {
		n := strconv.Itoa(i)
		if err := errors.Join(write("old"+n, bytes.Repeat(old, 8)), write("kept"+n, make([]byte, 4096))); err != nil {
			t.Fatal(err)
		}
	}
	if err := write("old", bytes.Repeat(old, 48<<20/4096)); !errors.Is(err, unix.ENOSPC) {
		t.Fatal("the volume is not full:", err)
	}
	gone, err := filepath.Glob(filepath.Join(dir, "old*"))
	if err != nil || len(gone) != 65 {
		t.Fatal(gone, err)
	}
	for _, name := range gone {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	left := func() int {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			t.Fatal(err)
		}
		name, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/loop/backing_file", unix.Major(st.Dev), unix.Minor(st.Dev)))
		if err != nil {
			t.Fatal(err)
		}
		medium, err := os.ReadFile(strings.TrimSpace(string(name)))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(medium, old)
	}
	if n := left(); n < 30<<20/4096 {
		t.Fatalf("%d blocks of old content even before", n)
	}

	s, err := OpenSpare(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	block := aligned(1<<20, 4096)
	var at int64
	for n := int64(len(block)); n >= s.BlockSize(); {
		k, err := s.WriteAt(block[:n], at)
		if at += int64(k); err == nil {
			continue
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		n /= 2
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	free, err := s.Free()
	if n := left(); err != nil || int64(n) > free/4096 {
		t.Errorf("%d blocks of old content are left, of %d bytes that are free: %v", n, free, err)
	}
}

// aligned returns a buffer at an address that O_DIRECT takes.
func aligned(n, to int) []byte {
	b := make([]byte, n+to)
	skip := -uintptr(unsafe.Pointer(&b[0])) & uintptr(to-1)
	return b[skip : int(skip)+n]
}
