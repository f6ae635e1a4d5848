package nic

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// kernel answers ETHTOOL_GLINKSETTINGS as Linux does, with masks of so many words.
func kernel(words int, modes ...int) func(*settings) error {
	return func(s *settings) error {
		if binary.NativeEndian.Uint32(s[:]) != 0x4c {
			return unix.EINVAL
		}
		if asked := int(s[15]); asked != words {
			s[15] = byte(-words)
			return nil
		}
		for _, m := range modes {
			at := 48 + m/32*4
			binary.NativeEndian.PutUint32(s[at:], binary.NativeEndian.Uint32(s[at:])|1<<(m%32))
		}
		at := 48 + 4*words // what it advertises is another mask
		binary.NativeEndian.PutUint32(s[at:], 1<<23)
		return nil
	}
}

func TestFastest(t *testing.T) {
	for _, tt := range []struct {
		name string
		ask  func(*settings) error
		want int
	}{
		{"copper of 1 Gbit/s, with autonegotiation and pause", kernel(3, 0, 1, 2, 3, 5, 6, 7, 13), 1_000},
		{"10GBASE-T that can do less too", kernel(4, 3, 5, 47, 48, 12), 10_000},
		{"2.5GBASE-T", kernel(3, 3, 5, 47), 2_500},
		{"25GBASE-SR beyond the first word", kernel(3, 33), 25_000},
		{"100GBASE-CR4", kernel(3, 23, 38), 100_000},
		{"400GBASE-DR4", kernel(3, 38, 88), 400_000},
	} {
		if got, err := fastest(tt.ask); err != nil || got != tt.want {
			t.Errorf("%s: %d Mb/s, %v, want %d", tt.name, got, err, tt.want)
		}
	}
	for name, ask := range map[string]func(*settings) error{
		"no modes": kernel(3), "modes that are none": kernel(3, 6, 7, 10, 49), "another error": func(*settings) error { return unix.EOPNOTSUPP },
	} {
		if got, err := fastest(ask); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %d Mb/s, %v", name, got, err)
		}
	}
	if _, err := fastest(func(*settings) error { return unix.ENODEV }); !errors.Is(err, unix.ENODEV) {
		t.Error(err)
	}
	if _, err := fastest(func(*settings) error { return nil }); err == nil {
		t.Error("a kernel that wants no masks is believed")
	}
}

// TestFastestOfNone asks the kernel of this machine for a port that is not there.
func TestFastestOfNone(t *testing.T) {
	for _, name := range []string{"nowhere0", "aNameThatIsTooLongForIt"} {
		if got, err := Fastest(name); err == nil || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}
