package dmi

import (
	"fmt"
	"strconv"
	"strings"
)

// processorFamily is one byte, or two where that is FEh. One number was given twice, and the maker's name tells.
func processorFamily(s Structure) string {
	n := s.familyNumber()
	if n != 0xbe {
		return named("processor-family", n)
	}
	maker := s.str(s.u8(7))
	switch {
	case strings.Contains(maker, "Intel") || strings.HasPrefix(strings.ToLower(maker), "intel"):
		return "Core 2"
	case strings.Contains(maker, "AMD") || strings.HasPrefix(strings.ToLower(maker), "amd"):
		return "K7"
	}
	return "Core 2 or K7"
}

func (s Structure) familyNumber() int {
	if s.u8(6) == 0xfe && len(s.Data) >= 0x2a {
		return s.u16(0x28)
	}
	return s.u8(6)
}

func processorID(s Structure) string { return strings.ToUpper(fmt.Sprintf("% x", s.Data[8:0x10])) }

// processorSignature is what the ID says, which depends on the family, and for an unknown one on how the version begins.
func processorSignature(s Structure) []Field {
	a := s.u32(8)
	how := named("processor-id", s.familyNumber())
	if f := s.familyNumber(); f == 1 || f == 2 {
		how = identifiedBy(s.str(s.u8(0x10)))
	}
	model := func(low, high uint32) uint32 { return low | high<<4 }
	signature := func(format string, values ...any) Field {
		return Field{Name: "Signature", Value: fmt.Sprintf(format, values...)}
	}
	var out Field
	switch {
	case how == "386":
		return []Field{signature("Type %d, Family %d, Major Stepping %d, Minor Stepping %d", a>>12&0xf, a>>8&0xf, a>>4&0xf, a&0xf)}
	case how == "486" && !has486CPUID(a):
		return []Field{signature("Type %d, Family %d, Model %d, Stepping %d", a>>12&3, a>>8&0xf, a>>4&0xf, a&0xf)}
	case how == "Intel" || how == "486":
		out = signature("Type %d, Family %d, Model %d, Stepping %d", a>>12&3, a>>20&0xff+a>>8&0xf, model(a>>4&0xf, a>>16&0xf), a&0xf)
	case how == "AMD" && a>>8&0xf == 0xf:
		out = signature("Family %d, Model %d, Stepping %d", a>>20&0xff+0xf, model(a>>4&0xf, a>>16&0xf), a&0xf)
	case how == "AMD":
		out = signature("Family %d, Model %d, Stepping %d", a>>8&0xf, a>>4&0xf, a&0xf)
	case how == "ARM" && s.u16(0x26)&0x200 != 0 && len(s.Data) >= 0x28:
		return []Field{signature("JEP-106 Bank 0x%02x Manufacturer 0x%02x, SoC ID 0x%04x, SoC Revision 0x%08x", a>>24&0x7f, a>>16&0x7f, a&0xffff,
			s.u32(0xc))}
	case how == "ARM":
		return []Field{signature("Implementor 0x%02x, Variant 0x%x, Architecture %d, Part 0x%03x, Revision %d", a>>24, a>>20&0xf, a>>16&0xf,
			a>>4&0xfff, a&0xf)}
	default:
		return nil
	}
	flags := Field{Name: "Flags", List: bitNames("processor-flags", uint64(s.u32(0xc)))}
	if len(flags.List) == 0 {
		flags.Value = none
	}
	return []Field{out, flags}
}

// has486CPUID reports whether a 486 of this signature knows the instruction CPUID, so that the ID is what that says.
func has486CPUID(a uint32) bool {
	model := a >> 4 & 0xf
	return a>>8&0xf == 4 && (model == 4 || model >= 7) && a&0xf >= 3
}

func identifiedBy(version string) string {
	switch {
	case version == "Genuine Intel(R) CPU U1400":
		return "Intel"
	case hasAnyPrefix(version, "Pentium III MMX", "Intel(R) Core(TM)2", "Intel(R) Pentium(R)"):
		return "Intel"
	case hasAnyPrefix(version, "AMD Athlon(TM)", "AMD Opteron(tm)", "Dual-Core AMD Opteron(tm)"):
		return "AMD"
	}
	return ""
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// processorCharacteristics counts the higher bits only where one of the lower ones is set.
func processorCharacteristics(s Structure) []string {
	if s.u16(0x26)&0xfc == 0 {
		return nil
	}
	return bitNames("processor", uint64(s.u16(0x26)))
}

func processorStatus(s Structure) string {
	if !s.Populated() {
		return "Unpopulated"
	}
	return "Populated, " + named("processor-status", s.u8(0x18)&7)
}

// cacheHandle is that of a cache, or why there is none; before version 2.3 there was one reason only.
func cacheHandle(at, level int) valueOf {
	return func(s Structure) string {
		switch {
		case s.u16(at) != 0xffff:
			return fmt.Sprintf("0x%04X", s.u16(at))
		case s.Version >= 0x203:
			return "Not Provided"
		}
		return fmt.Sprintf("No L%d Cache", level)
	}
}

// cores is a number of cores or threads: one byte, or two at another place if that is FFh.
func cores(at, wideAt int) valueOf {
	return func(s Structure) string {
		n := s.u8(at)
		if n == 0xff && len(s.Data) >= wideAt+2 {
			n = s.u16(wideAt)
		}
		if s.u8(at) == 0 {
			return absent
		}
		return strconv.Itoa(n)
	}
}
