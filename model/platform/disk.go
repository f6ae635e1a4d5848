package platform

import (
	"fmt"
	"math/big"
	"slices"
	"strings"

	"gprovision/model/fault"
)

// Candidate is a disk that may be chosen.
type Candidate struct {
	Name   string // as the kernel names it, such as "sda"
	Path   string // device node
	Bus    string // see Bus; other values fit only where any bus does
	Model  string
	Vendor string
	Serial string
	Size   int64 // bytes
}

// String describes the disk for a person.
func (c Candidate) String() string {
	s := fmt.Sprintf("%s (%d bytes, %s", c.Path, c.Size, c.Bus)
	for _, x := range []string{c.Vendor, c.Model, c.Serial} {
		if x != "" {
			s += ", " + x
		}
	}
	return s + ")"
}

// Want is what is asked of the recovery device. Empty fields fit anything.
type Want struct {
	Size          int64 // bytes
	TolerancePct  int   // of Size
	Vendor, Model string
}

// ChooseMain returns the NumDataDisks main disks among disks, the one nearest to Disksize first. The recovery device is named
// by its Path and is never chosen, nor a disk on a bus that the variant does not allow. It returns a fault.DiskAmbiguous if a
// disk that was not chosen is as good as one that was, a fault.DiskTooSmall if there are enough disks but too small ones, and
// a fault.DiskMissing otherwise. Each of them lists the disks.
func ChooseMain(v Variant, disks []Candidate, recovery string) ([]Candidate, error) {
	var allowed []Candidate
	for _, d := range disks {
		if d.Path != recovery && onBus(v.MainDisk.Bus, d) {
			allowed = append(allowed, d)
		}
	}
	count := max(v.NumDataDisks, 1)
	chosen := sizeFilter(allowed, v.Disksize, count, v.SetTolerance(), v.TargetTolerance())
	if len(chosen) < count {
		var small int
		for _, d := range allowed {
			if d.Size < v.Disksize {
				small++
			}
		}
		f := fault.DiskMissing
		if len(allowed) >= count && small > len(allowed)-count {
			f = fault.DiskTooSmall
		}
		return nil, fault.Newf(f, "want %d main disk(s) of %d bytes ±%d %%, differing by at most %d %%; found %s", count, v.Disksize, v.TargetTolerance(), v.SetTolerance(), list(disks, recovery))
	}
	for _, d := range allowed {
		if slices.ContainsFunc(chosen, func(c Candidate) bool { return c.Path == d.Path }) || exceeds(d.Size, v.Disksize, v.Disksize, v.TargetTolerance()) {
			continue
		}
		for _, c := range chosen {
			if !exceeds(d.Size, c.Size, max(d.Size, c.Size), v.SetTolerance()) {
				return nil, fault.Newf(fault.DiskAmbiguous, "want %d main disk(s); %s fits as well as %s; found %s", count, d, c, list(disks, recovery))
			}
		}
	}
	return chosen, nil
}

// ChooseRecovery returns the disk that becomes the recovery device: the only one on an allowed bus that fits want or, without
// want, the size in the table. Two that fit are a fault.DiskAmbiguous, none a fault.DiskMissing. It is a fault.DiskTooSmall
// only if vendor or model say that a disk is the device, since any other smaller disk says nothing about it. If neither says a size, a
// model or a vendor, it is a fault.ManifestIncomplete.
func ChooseRecovery(v Variant, want *Want, disks []Candidate) (Candidate, error) {
	var w Want
	if want != nil {
		w = *want
	}
	if w.Size == 0 && v.RecoveryMedia.Size > 0 {
		w.Size, w.TolerancePct = v.RecoveryMedia.Size, or(v.RecoveryMedia.SizeTolerancePct, 5)
	}
	if w == (Want{}) {
		return Candidate{}, fault.Newf(fault.ManifestIncomplete, "neither the manifest (Recovery) nor the appliance table (RecoveryMedia.Size) says what the recovery device of %s is; found %s", v.DevCodeName, list(disks, ""))
	}
	var fit []Candidate
	small := false
	for _, d := range disks {
		if !onBus(v.RecoveryBuses(), d) || !Fits(w.Vendor, d.Vendor) || !Fits(w.Model, d.Model) {
			continue
		}
		if w.Size > 0 && exceeds(d.Size, w.Size, w.Size, w.TolerancePct) {
			small = small || d.Size < w.Size && w.Vendor+w.Model != ""
			continue
		}
		fit = append(fit, d)
	}
	what := fmt.Sprintf("want a recovery device of %d bytes ±%d %%, vendor %q, model %q, on %s", w.Size, w.TolerancePct, w.Vendor, w.Model, buses(v.RecoveryBuses()))
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return Candidate{}, fault.Newf(fault.DiskAmbiguous, "%s; these fit: %s", what, list(fit, ""))
	case small:
		return Candidate{}, fault.Newf(fault.DiskTooSmall, "%s; found %s", what, list(disks, ""))
	}
	return Candidate{}, fault.Newf(fault.DiskMissing, "%s; found %s", what, list(disks, ""))
}

// AllowedRecovery reports whether the table allows d as recovery device of v, as far as the bus goes.
func AllowedRecovery(v Variant, d Candidate) bool { return onBus(v.RecoveryBuses(), d) }

// AllowedMain reports whether the table allows d as a main disk of v, as far as the bus goes.
func AllowedMain(v Variant, d Candidate) bool { return onBus(v.MainDisk.Bus, d) }

// Within reports whether have differs from want by at most pct percent of want.
func Within(have, want int64, pct int) bool { return !exceeds(have, want, want, pct) }

// sizeFilter picks count disks near target: it takes the nearest one again and again, drops the first of those taken when it
// and the second differ by more than setTol percent, and gives up (nil) when the last differs from the target by more than
// targetTol percent, or the smallest from the largest by more than setTol. Percentages of a difference between two disks are of the larger one.
func sizeFilter(disks []Candidate, target int64, count, setTol, targetTol int) []Candidate {
	rest := slices.Clone(disks)
	var out []Candidate
	for len(out) < count {
		if len(rest) == 0 {
			return nil
		}
		near := 0
		for i := range rest {
			if dist(rest[i].Size, target) < dist(rest[near].Size, target) {
				near = i
			}
		}
		out = append(out, rest[near])
		rest = slices.Delete(rest, near, near+1)
		if len(out) > 1 && exceeds(out[0].Size, out[1].Size, max(out[0].Size, out[1].Size), setTol) {
			out = out[1:]
		}
	}
	if exceeds(out[len(out)-1].Size, target, target, targetTol) {
		return nil
	}
	lo, hi := out[0].Size, out[0].Size
	for _, d := range out {
		lo, hi = min(lo, d.Size), max(hi, d.Size)
	}
	if exceeds(lo, hi, hi, setTol) {
		return nil
	}
	return out
}

func dist(a, b int64) int64 { return max(a, b) - min(a, b) }

// exceeds reports whether a and b differ by more than pct percent of base. Exact for all sizes.
func exceeds(a, b, base int64, pct int) bool {
	d := new(big.Int).Mul(big.NewInt(dist(a, b)), big.NewInt(100))
	return d.Cmp(new(big.Int).Mul(big.NewInt(base), big.NewInt(int64(pct)))) > 0
}

func onBus(list []Bus, d Candidate) bool {
	return len(list) == 0 || slices.Contains(list, Bus(d.Bus))
}

// Fits compares a wanted text with one that was found, both without blanks around them. A * stands for any characters, or none. Empty fits
// anything.
func Fits(want, have string) bool {
	parts := strings.Split(strings.TrimSpace(want), "*")
	have, ok := strings.CutPrefix(strings.TrimSpace(have), parts[0])
	if len(parts) == 1 {
		return parts[0] == "" || ok && have == ""
	}
	for _, p := range parts[1 : len(parts)-1] {
		found := false
		if _, have, found = strings.Cut(have, p); !found {
			return false
		}
	}
	return ok && strings.HasSuffix(have, parts[len(parts)-1])
}

func buses(list []Bus) string {
	if len(list) == 0 {
		return "any bus"
	}
	var s []string
	for _, b := range list {
		s = append(s, string(b))
	}
	return strings.Join(s, " or ")
}

func list(disks []Candidate, recovery string) string {
	if len(disks) == 0 {
		return "no disks"
	}
	var s []string
	for _, d := range disks {
		x := d.String()
		if d.Path == recovery {
			x += " [recovery device]"
		}
		s = append(s, x)
	}
	return strings.Join(s, ", ")
}
