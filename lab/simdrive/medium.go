package simdrive

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
)

// fill is what sectors hold that nobody wrote one by one.
type fill struct {
	seed  uint64 // not 0: bytes that look like chance, another sequence for each sector
	word  uint32 // else: repeated, big endian
	fails bool   // reading fails, until the sector is written
	born  int    // after which Mark it came
}

// region is sectors with one fill.
type region struct {
	start, end int64
	fill
}

// cell is a sector that was written by itself.
type cell struct {
	data []byte
	born int
}

// medium is what a drive keeps its sectors on.
type medium struct {
	sector  int
	regions []region       // without gaps, in order
	cells   map[int64]cell // over the regions
	// hidden counts copies that no host can read, by when they came: reallocated sectors, and flash that was not erased yet.
	hidden map[int]int64
}

func newMedium(sectors int64, sector int, f fill) medium {
	return medium{sector: sector, regions: []region{{0, sectors, f}}, cells: map[int64]cell{}, hidden: map[int]int64{}}
}

// at returns the region of a sector.
func (m *medium) at(lba int64) region {
	i, _ := slices.BinarySearchFunc(m.regions, lba, func(r region, lba int64) int {
		if r.end <= lba {
			return -1
		}
		return 1
	})
	return m.regions[i]
}

// read reads one sector. ok is false if it cannot be read.
func (m *medium) read(lba int64, p []byte) (ok bool) {
	if c, ok := m.cells[lba]; ok {
		copy(p, c.data)
		return true
	}
	r := m.at(lba)
	if r.fails {
		return false
	}
	r.bytes(lba, p)
	return true
}

// bytes makes the content of one sector.
func (f fill) bytes(lba int64, p []byte) {
	if f.seed == 0 {
		for i := 0; i+4 <= len(p); i += 4 {
			binary.BigEndian.PutUint32(p[i:], f.word)
		}
		return
	}
	r := random(f.seed ^ uint64(lba)*0x9e3779b97f4a7c15)
	for i := 0; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], r.next())
	}
}

// write writes one sector. What was there before stays in a hidden copy if keep says so.
func (m *medium) write(lba int64, p []byte, born int, keep bool) {
	if keep {
		if c, ok := m.cells[lba]; ok {
			m.hidden[c.born]++
		} else if r := m.at(lba); r.seed != 0 {
			m.hidden[r.born]++
		}
	}
	data := m.cells[lba].data
	if data == nil {
		data = make([]byte, len(p))
	}
	copy(data, p)
	m.cells[lba] = cell{data, born}
}

// put fills sectors from start to before end. What was there before stays in hidden copies if keep says so.
func (m *medium) put(start, end int64, f fill, keep bool) {
	if start >= end {
		return
	}
	if keep {
		m.hide(start, end)
	}
	var out []region
	for _, r := range m.regions {
		if r.end <= start || r.start >= end {
			out = append(out, r)
			continue
		}
		if r.start < start {
			out = append(out, region{r.start, start, r.fill})
		}
		if r.end > end {
			out = append(out, region{end, r.end, r.fill})
		}
	}
	out = append(out, region{start, end, f})
	slices.SortFunc(out, func(a, b region) int { return cmp.Compare(a.start, b.start) })
	m.regions = out
	maps.DeleteFunc(m.cells, func(lba int64, _ cell) bool { return lba >= start && lba < end })
}

// hide counts what is in sectors as hidden copies.
func (m *medium) hide(start, end int64) {
	for _, r := range m.regions {
		if n := min(r.end, end) - max(r.start, start); n > 0 && r.seed != 0 {
			m.hidden[r.born] += n
		}
	}
	for lba, c := range m.cells {
		if lba < start || lba >= end {
			continue
		}
		m.hidden[c.born]++
		if r := m.at(lba); r.seed != 0 {
			m.hidden[r.born]-- // what was under the cell is gone, or was counted when that was written
		}
	}
}

// residue counts sectors with data from before a Mark: those that can be read, and hidden copies.
func (m *medium) residue(mark int) (readable, hidden int64) {
	old := func(f fill) bool { return f.seed != 0 && f.born < mark }
	for _, r := range m.regions {
		if old(r.fill) {
			readable += r.end - r.start
		}
	}
	for lba, c := range m.cells {
		if old(m.at(lba).fill) {
			readable--
		}
		if c.born < mark {
			readable++
		}
	}
	for born, n := range m.hidden {
		if born < mark {
			hidden += n
		}
	}
	return readable, hidden
}

// sequence makes numbers that look like chance (splitmix64, public domain, Vigna 2015).
type sequence struct{ state uint64 }

func random(seed uint64) *sequence { return &sequence{seed} }

func (r *sequence) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
