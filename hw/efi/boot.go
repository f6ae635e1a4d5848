package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"gprovision/hw/partition"
	"gprovision/model/layout"
)

// BootEntry is a variable BootXXXX as it is.
type BootEntry struct {
	Number uint16
	LoadOption
	// Err says why the variable cannot be parsed. Such an entry is never ours.
	Err error
}

// Entry is a boot entry that should be there: a file in a partition of a GPT.
type Entry struct {
	// Description is what the firmware's menu shows, and what makes an entry ours.
	Description string
	// Partition holds the file. Number, Start, Size and UUID are used.
	Partition layout.Partition
	// SectorSize is the logical sector size of the partition's disk, in bytes.
	SectorSize int
	// Path is the file's, with backslashes: \EFI\BOOT\BOOTX64.EFI.
	Path string
	// Args are passed to the file, or nothing.
	Args string
	// MenuOnly is for an entry that a person may choose in the firmware's menu and that the firmware never starts by itself
	// (LOAD_OPTION_CATEGORY_APP). It stands last in BootOrder: menus show what is in there.
	MenuOnly bool
}

// Change says what Ensure wrote.
type Change struct {
	Written []string // variables that were written, in order; BootOrder too
	Deleted []string // variables that were deleted
}

// Empty reports whether nothing was written: all was there.
func (c Change) Empty() bool { return len(c.Written)+len(c.Deleted) == 0 }

// Ensure makes our boot entries those in want, and the first in BootOrder, in that order; those with MenuOnly come
// last, behind all others. Entries are ours if their description is that of a wanted one or one of the names in ours; of ours,
// those that are not wanted and duplicates are deleted, wrong ones rewritten in place. Foreign entries are not changed and keep
// their order.
//
// An entry is left alone if it is active and leads to the same file in the same partition with the same arguments, even if the
// firmware put other nodes before those. So a second call writes nothing. Entries are written before BootOrder and deleted after
// it, so that an interruption leaves a bootable order and a repetition ends at the same place. After an error
// the Change is filled as far as it came.
func Ensure(v *Vars, want []Entry, ours ...string) (Change, error) {
	c, err := ensure(v, want, ours)
	if err != nil {
		return c, fmt.Errorf("write boot entries: %w", err)
	}
	return c, nil
}

func ensure(v *Vars, want []Entry, ours []string) (Change, error) {
	var c Change
	ours = slices.Clone(ours)
	options := make([]LoadOption, len(want))
	for i, w := range want {
		var err error
		if options[i], err = w.option(); err != nil {
			return c, err
		}
		if slices.ContainsFunc(want[:i], func(e Entry) bool { return e.Description == w.Description }) {
			return c, fmt.Errorf("entry %q is wanted twice", w.Description)
		}
		ours = append(ours, w.Description)
	}
	have, err := v.Entries()
	if err != nil {
		return c, err
	}
	order, damaged, err := v.order()
	if err != nil {
		return c, err
	}
	var mine []BootEntry
	taken := map[uint16]bool{}
	for _, n := range order {
		taken[n] = true // the firmware may keep a number of something that is away
	}
	for _, e := range have {
		taken[e.Number] = true
		if e.Err == nil && slices.Contains(ours, e.Description) {
			mine = append(mine, e)
		}
	}
	// Of several that fit, the one that the firmware uses first.
	place := func(n uint16) int {
		if i := slices.Index(order, n); i >= 0 {
			return i
		}
		return len(order) + int(n)
	}
	slices.SortFunc(mine, func(a, b BootEntry) int { return place(a.Number) - place(b.Number) })

	numbers := make([]uint16, len(want))
	used := map[uint16]bool{}
	take := func(i int, fits func(BootEntry) bool) bool {
		for _, e := range mine {
			if !used[e.Number] && fits(e) {
				numbers[i], used[e.Number] = e.Number, true
				return true
			}
		}
		return false
	}
	right := make([]bool, len(want))
	for i := range want {
		right[i] = take(i, func(e BootEntry) bool { return same(e.LoadOption, options[i]) })
	}
	for i, w := range want {
		if right[i] {
			continue
		}
		if !take(i, func(e BootEntry) bool { return e.Description == w.Description }) {
			free, err := lowest(taken)
			if err != nil {
				return c, err
			}
			numbers[i], taken[free], used[free] = free, true, true
		}
		data, err := options[i].Encode()
		if err != nil {
			return c, err
		}
		if err := v.put(bootName(numbers[i]), data, &c); err != nil {
			return c, err
		}
	}
	stale := map[uint16]bool{}
	for _, e := range mine {
		if !used[e.Number] {
			stale[e.Number] = true
		}
	}
	var next, last []uint16
	for i, w := range want {
		if w.MenuOnly {
			last = append(last, numbers[i])
		} else {
			next = append(next, numbers[i])
		}
	}
	for _, n := range order {
		if !used[n] && !stale[n] {
			next = append(next, n)
		}
	}
	next = append(next, last...)
	if damaged || !slices.Equal(next, order) {
		if err := v.put("BootOrder", encodeOrder(next), &c); err != nil {
			return c, err
		}
	}
	for _, e := range mine {
		if !stale[e.Number] {
			continue
		}
		if err := v.Delete(bootName(e.Number), Global); err != nil {
			return c, err
		}
		c.Deleted = append(c.Deleted, bootName(e.Number))
	}
	return c, nil
}

// put writes a variable and notes it.
func (v *Vars) put(name string, data []byte, c *Change) error {
	wrote, err := v.Set(name, Global, bootVar, data)
	if wrote {
		c.Written = append(c.Written, name)
	}
	return err
}

func lowest(taken map[uint16]bool) (uint16, error) {
	for n := range 0x10000 {
		if !taken[uint16(n)] {
			return uint16(n), nil
		}
	}
	return 0, errors.New("no number is free")
}

// option makes the load option of an entry.
func (e Entry) option() (LoadOption, error) {
	ss := int64(e.SectorSize)
	sig, err := partition.ParseGUID(e.Partition.UUID)
	switch {
	case err != nil:
		return LoadOption{}, fmt.Errorf("entry %q: partition: %w", e.Description, err)
	case ss < 512 || e.Partition.Start%ss != 0 || e.Partition.Size%ss != 0 || e.Partition.Number < 1:
		return LoadOption{}, fmt.Errorf("entry %q: partition %d (%d+%d) with sectors of %d bytes", e.Description, e.Partition.Number, e.Partition.Start, e.Partition.Size, ss)
	case e.Description == "" || strings.ContainsRune(e.Description+e.Path+e.Args, 0):
		return LoadOption{}, fmt.Errorf("entry %q: no description, or a NUL", e.Description)
	case !strings.HasPrefix(e.Path, `\`):
		return LoadOption{}, fmt.Errorf(`entry %q: path %q does not start with \`, e.Description, e.Path)
	}
	hd := HardDrive{Number: uint32(e.Partition.Number), Start: uint64(e.Partition.Start / ss), Size: uint64(e.Partition.Size / ss), Signature: sig, Format: 2, Kind: 2}
	o := LoadOption{
		Attributes:  Active,
		Description: e.Description,
		Path:        []Node{hd.node(), {Type: typeMedia, Sub: subFile, Data: append(encodeText(e.Path), 0, 0)}},
	}
	if e.MenuOnly {
		o.Attributes |= categoryApp
	}
	if e.Args != "" {
		o.Optional = encodeText(e.Args)
	}
	return o, nil
}

// same reports whether an entry does what is wanted.
func same(have, want LoadOption) bool {
	h, ok := have.HardDrive()
	w, _ := want.HardDrive()
	const decides = Active | category // whether the firmware starts it by itself
	return ok && h == w && have.Attributes&decides == want.Attributes&decides && have.Description == want.Description &&
		strings.EqualFold(have.File(), want.File()) && string(have.Optional) == string(want.Optional)
}

func bootName(n uint16) string { return fmt.Sprintf("Boot%04X", n) }

// Entries returns all boot entries, ordered by number.
func (v *Vars) Entries() ([]BootEntry, error) {
	files, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, fmt.Errorf("list boot entries: %w", err)
	}
	var out []BootEntry
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), "-"+Global)
		n, err := strconv.ParseUint(strings.TrimPrefix(name, "Boot"), 16, 16)
		if !ok || err != nil || name != bootName(uint16(n)) {
			continue
		}
		e := BootEntry{Number: uint16(n)}
		_, data, err := v.Get(name, Global)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			e.LoadOption, err = ParseLoadOption(data)
		}
		e.Err = err
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b BootEntry) int { return int(a.Number) - int(b.Number) })
	return out, nil
}

// order returns BootOrder, empty if there is none, and whether it is in need of being written again: a byte behind the last number, as
// damaged variables have it, is left out.
func (v *Vars) order() (order []uint16, damaged bool, err error) {
	_, b, err := v.Get("BootOrder", Global)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	order = []uint16{}
	for ; len(b) > 1; b = b[2:] {
		order = append(order, binary.LittleEndian.Uint16(b))
	}
	return order, len(b) > 0, nil
}

func encodeOrder(order []uint16) []byte {
	b := []byte{}
	for _, n := range order {
		b = binary.LittleEndian.AppendUint16(b, n)
	}
	return b
}

// Current returns the number of the entry that this boot came from. The error is fs.ErrNotExist if the firmware does not say.
func (v *Vars) Current() (uint16, error) { return v.number("BootCurrent") }

// Started returns the description of the entry that this boot came from. The error is fs.ErrNotExist if the firmware does not say,
// or names an entry that is not there any more.
func (v *Vars) Started() (string, error) {
	n, err := v.Current()
	if err != nil {
		return "", err
	}
	_, data, err := v.Get(bootName(n), Global)
	if err != nil {
		return "", err
	}
	o, err := ParseLoadOption(data)
	return o.Description, err
}

func (v *Vars) number(name string) (uint16, error) {
	_, b, err := v.Get(name, Global)
	if err != nil {
		return 0, err
	}
	if len(b) != 2 {
		return 0, fmt.Errorf("read variable %s: %d bytes", name, len(b))
	}
	return binary.LittleEndian.Uint16(b), nil
}
