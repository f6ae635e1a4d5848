package block_test

import (
	"bytes"
	"testing"
	"unsafe"

	"gprovision/hw/block"
)

// TestRaw writes to a loop device past the page cache, reads it back, and discards it.
func TestRaw(t *testing.T) {
	const n = 64 << 10
	r, err := block.OpenRaw(loop(t, 4<<20, 512))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	aligned := func() []byte {
		b := make([]byte, n+4096)
		skip := int(-uintptr(unsafe.Pointer(&b[0])) & 4095)
		return b[skip : skip+n]
	}
	data, got := aligned(), aligned()
	for i := range data {
		data[i] = byte(i) | 1
	}
	if _, err := r.WriteAt(data, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := r.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("something else is read back: %v", err)
	}
	if err := r.Discard(1<<20, n); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, make([]byte, n)) {
		t.Errorf("it was discarded, and is still there: %v", err)
	}
}
