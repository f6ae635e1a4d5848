package filesystem

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
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

// aligned returns a buffer at an address that O_DIRECT takes.
func aligned(n, to int) []byte {
	b := make([]byte, n+to)
	skip := -uintptr(unsafe.Pointer(&b[0])) & uintptr(to-1)
	return b[skip : int(skip)+n]
}
