package raid

import (
	"slices"
)

// Part is a member and where it was found.
type Part struct {
	Member
	// Path is the device node, and Disk the name of the disk that it is on.
	Path, Disk string
}

// Array is what was found of an array.
type Array struct {
	UUID  string
	Level int
	// Disks is how many places it has, and Active how many of them were taken when it was used last.
	Disks, Active int
	// Parts are the members that can be used, at most one for each place, by place: those that are as new as the newest.
	Parts []Part
	// Stale are those that cannot: spares, failed ones, and ones that were away while the array was in use.
	Stale []Part
}

// Find collects the members of the array with a UUID.
func Find(parts []Part, uuid string) Array {
	a := Array{UUID: uuid}
	var newest Part
	for _, p := range parts {
		if p.UUID == uuid && uuid != "" && (a.Disks == 0 || p.Events > newest.Events) {
			newest, a.Level, a.Disks, a.Active = p, p.Level, p.Disks, p.Active
		}
	}
	used := map[int]bool{}
	for _, p := range parts {
		switch {
		case p.UUID != uuid || uuid == "":
		case p.Place < 0 || p.Place >= a.Disks || used[p.Place] || p.Events+1 < newest.Events: // mdadm takes one event less for the same
			a.Stale = append(a.Stale, p)
		default:
			used[p.Place] = true
			a.Parts = append(a.Parts, p)
		}
	}
	slices.SortFunc(a.Parts, func(x, y Part) int { return x.Place - y.Place })
	return a
}

// UUIDs returns the arrays that the parts belong to, each once, in the order of the parts.
func UUIDs(parts []Part) []string {
	var out []string
	for _, p := range parts {
		if p.UUID != "" && !slices.Contains(out, p.UUID) {
			out = append(out, p.UUID)
		}
	}
	return out
}

// Complete reports whether all members are there that the array had when it was used last: no other may be hoped for.
func (a Array) Complete() bool { return a.Disks > 0 && len(a.Parts) >= a.Active }

// Degraded reports whether a place of the array is free.
func (a Array) Degraded() bool { return len(a.Parts) < a.Disks }

// Enough reports whether the array can run with the members that are there. For level 10 that is what the layout near=2 needs, which
// is what Create makes: of two neighbours at least one.
func (a Array) Enough() bool {
	if a.Disks == 0 {
		return false
	}
	missing := a.Disks - len(a.Parts)
	switch a.Level {
	case 1:
		return len(a.Parts) > 0
	case 4, 5:
		return missing <= 1
	case 6:
		return missing <= 2
	case 10:
		there := map[int]bool{}
		for _, p := range a.Parts {
			there[p.Place] = true
		}
		step := 2
		if a.Disks%2 != 0 {
			step = 1 // each disk shares data with both of its neighbours
		}
		for i := 0; i < a.Disks; i += step {
			if !there[i] && !there[(i+1)%a.Disks] {
				return false
			}
		}
		return true
	}
	return missing == 0
}

// Size is the number of bytes of an array over n members whose smallest has least bytes, or a little less: the room that
// metadata and rounding take is left out. 0: no array of md can be made like that.
func Size(level, n int, least int64) int64 {
	const overhead = 256 << 20 // of each member: data offset, bitmap, rounding to chunks
	least -= overhead
	switch {
	case least <= 0:
	case level == 0 && n >= 2:
		return int64(n) * least
	case level == 1 && n >= 2:
		return least
	case level == 5 && n >= 3:
		return int64(n-1) * least
	case level == 6 && n >= 4:
		return int64(n-2) * least
	case level == 10 && n >= 2:
		return int64(n) * least / 2
	}
	return 0
}

// Modules returns the kernel modules that an array of the level needs.
func Modules(level int) []string {
	switch level {
	case 0, 1, 10:
		return []string{"md_mod", map[int]string{0: "raid0", 1: "raid1", 10: "raid10"}[level]}
	case 4, 5, 6:
		return []string{"md_mod", "raid456"}
	}
	return nil
}
