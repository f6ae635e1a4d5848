package dmi

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

//go:embed names.txt
var namesText string

var names = sync.OnceValue(func() map[string]map[int]string { return parseNames(namesText) })

// parseNames reads sections "[name] comment" of lines "VALUE TEXT" or "FIRST-LAST TEXT".
func parseNames(text string) map[string]map[int]string {
	all := map[string]map[int]string{}
	var section map[int]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = map[int]string{}
			name, _, _ := strings.Cut(line[1:], "]")
			all[name] = section
		default:
			values, word, _ := strings.Cut(line, " ")
			first, last, isRange := strings.Cut(values, "-")
			if !isRange {
				last = first
			}
			from, err1 := strconv.ParseInt(first, 16, 32)
			to, err2 := strconv.ParseInt(last, 16, 32)
			if err1 != nil || err2 != nil {
				continue
			}
			for i := from; i <= to; i++ {
				section[int(i)] = word
			}
		}
	}
	return all
}

// named returns the name of a value.
func named(table string, value int) string {
	if n, ok := names()[table][value]; ok {
		return n
	}
	return outOfSpec
}

// bitNames returns the names of the bits that are set, from the lowest on.
func bitNames(table string, value uint64) []string {
	var out []string
	for i := range 64 {
		if n, ok := names()["bits "+table][i]; ok && value>>i&1 != 0 {
			out = append(out, n)
		}
	}
	return out
}

func orNone(list []string, sep string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, sep)
}

// The makers of rows.

func field(name string, value func(Structure) string) row { return row{name: name, value: value} }

// least ends the structure unless it has so many bytes.
func least(n int) row { return row{need: func(Structure) int { return n }} }

func text(name string, at int) row {
	return field(name, func(s Structure) string { return s.str(s.u8(at)) })
}

// enum is a number of count bits from bit on; count 0 is a whole byte.
func enum(name, table string, at, bit, count int) row {
	return field(name, func(s Structure) string {
		v := s.u16(at)
		if count == 0 {
			return named(table, v&0xff)
		}
		return named(table, v>>bit&(1<<count-1))
	})
}

// set is a list of the bits that are set, of so many bytes, or "None".
func set(name, table string, at, bytes int) row {
	return lines(name, func(s Structure) []string { return bitNames(table, s.u64(at)&(1<<(8*bytes)-1)) })
}

// inline is the same on one line.
func inline(name, table string, at int) row {
	return field(name, func(s Structure) string { return orNone(bitNames(table, uint64(s.u16(at))), " ") })
}

// lines is a list, or "None".
func lines(name string, list func(Structure) []string) row {
	return row{name: name, list: list, value: func(s Structure) string {
		if len(list(s)) == 0 {
			return none
		}
		return ""
	}}
}

// counted is a number with the list of what it counts.
func counted(name string, list func(Structure) []string, count func(Structure) int) row {
	return row{name: name, list: list, value: func(s Structure) string { return strconv.Itoa(count(s)) }}
}

// byteNumber is a byte as a format prints it, with words for some values.
func byteNumber(name string, at int, format string, words map[int]string) row {
	return field(name, func(s Structure) string { return worded(s.u8(at), format, words) })
}

// number is the same with two bytes.
func number(name string, at int, format string, words map[int]string) row {
	return field(name, func(s Structure) string { return worded(s.u16(at), format, words) })
}

func worded(v int, format string, words map[int]string) string {
	if w, ok := words[v]; ok {
		return w
	}
	return fmt.Sprintf(format, v)
}

// handle is the number of another structure.
func handle(name string, at int, words map[int]string) row { return number(name, at, "0x%04X", words) }

// wide is four bytes in hexadecimal, with a word for one value.
func wide(name string, at int, special uint32, word string) row {
	return field(name, func(s Structure) string {
		if v := s.u32(at); v != special || word == "" {
			return fmt.Sprintf("0x%08X", v)
		}
		return word
	})
}

// handles are n numbers of other structures from a place on.
func (s Structure) handles(at, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("0x%04X", s.u16(at+2*i)))
	}
	return out
}
