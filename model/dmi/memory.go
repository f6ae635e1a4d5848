package dmi

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

func arrayCapacity(s Structure) string {
	switch n := s.u32(7); {
	case n != 1<<31:
		return size(uint64(n), 1)
	case len(s.Data) < 0x17:
		return unknown
	}
	return size(s.u64(0xf), 0)
}

// ifModule is a length that no structure has, unless there is a memory module.
func ifModule(s Structure) int {
	if s.u16(0xc) == 0 {
		return math.MaxInt
	}
	return 0
}

func memorySize(s Structure) string {
	switch n := s.u16(0xc); {
	case n == 0:
		return "No Module Installed"
	case n == 0xffff:
		return unknown
	case n == 0x7fff && len(s.Data) >= 0x20:
		return memoryWideSize(s.u32(0x1c) & 0x7fffffff)
	case n&0x8000 != 0:
		return size(uint64(n&0x7fff), 1)
	default:
		return size(uint64(n), 2)
	}
}

// memoryWideSize is in MiB, shown in the largest unit that is exact.
func memoryWideSize(n uint32) string {
	switch {
	case n&0x3ff != 0:
		return fmt.Sprintf("%d MB", n)
	case n&0xfffff != 0:
		return fmt.Sprintf("%d GB", n>>10)
	}
	return fmt.Sprintf("%d TB", n>>20)
}

// memorySpeed is two bytes, or four at another place if those are FFFFh.
func memorySpeed(at, wideAt int) valueOf {
	return func(s Structure) string {
		n := uint32(s.u16(at))
		if n == 0xffff {
			n = 0
			if len(s.Data) >= 0x5c {
				n = s.u32(wideAt)
			}
		}
		if n == 0 {
			return unknown
		}
		return fmt.Sprintf("%d MT/s", n)
	}
}

func memoryVoltage(at int) valueOf {
	return func(s Structure) string {
		v := s.u16(at)
		switch {
		case v == 0:
			return unknown
		case v%100 == 0:
			return fmt.Sprintf("%.1f V", float64(v)/1000)
		}
		return strconv.FormatFloat(float64(v)/1000, 'g', -1, 64) + " V"
	}
}

func memoryMode(s Structure) string {
	v := s.u16(0x29)
	if v&^1 == 0 {
		return none
	}
	return strings.Join(bitNames("memory-mode", uint64(v)), " ")
}

// manufacturerID is one of JEP106: bank and number.
func manufacturerID(at int) valueOf {
	return func(s Structure) string {
		if s.u16(at) == 0 {
			return unknown
		}
		return fmt.Sprintf("Bank %d, Hex 0x%02X", s.u8(at)&0x7f+1, s.u8(at+1))
	}
}

// Mapped addresses, types 19 and 20: in kilobytes, or in bytes at another place if the start is FFFFFFFFh.

func (s Structure) mappedWide(at int) bool { return len(s.Data) >= at+16 && s.u32(4) == math.MaxUint32 }

func mappedStart(at int) valueOf { return mapped(4, at, 0, 0) }

func mappedEnd(at int) valueOf { return mapped(8, at, 8, 0x3ff) }

func mapped(narrow, at, offset int, fill uint64) valueOf {
	return func(s Structure) string {
		if s.mappedWide(at) {
			return fmt.Sprintf("0x%016Xk", s.u64(at+offset))
		}
		return fmt.Sprintf("0x%011X", uint64(s.u32(narrow))<<10|fill)
	}
}

func mappedSize(at int) valueOf {
	return func(s Structure) string {
		switch {
		case s.mappedWide(at) && s.u64(at+8) == s.u64(at):
			return "Invalid"
		case s.mappedWide(at):
			return size(s.u64(at+8)-s.u64(at)+1, 0)
		case s.u32(8)-s.u32(4)+1 == 0:
			return "Invalid"
		}
		return size(uint64(s.u32(8)-s.u32(4)+1), 1)
	}
}

func errorAddress(at int) valueOf {
	return func(s Structure) string {
		if v := s.u64(at); v != 1<<63 {
			return fmt.Sprintf("0x%016X", v)
		}
		return unknown
	}
}
