package erasure

import "slices"

// Offer is what is known of a device before anything is sent to it.
type Offer struct {
	// Methods are those that the device says it knows, in any order.
	Methods []Method
	// Media says what the data is on.
	Media Media
	// Path says how the device is reached.
	Path Path
	// Part reports that something is to stay on it, such as the recovery volume, or on another namespace of its subsystem: no command that
	// reaches the whole drive is sent.
	Part bool
	// Locked reports that it encrypts and gives no access.
	Locked bool
}

// Chain returns the methods for a device, in the order in which they are tried. It ends with one that a host can always try, unless the
// device is locked: then there is none until a person has reverted it by its PSID (TCGRevert), and the outcome is Failed. A revert is never
// among the methods: nothing could be read before it, so it proves nothing by itself, and the others come after it.
func Chain(o Offer) []Method {
	switch {
	case o.Locked:
		return nil
	case o.Part || o.Path == RAID: // behind a controller a command reaches its volume, and who knows what of the drives
		return []Method{Overwrite}
	}
	var out []Method
	for _, m := range methods() {
		switch {
		case !slices.Contains(o.Methods, m.name), m.name == Overwrite, m.name == TCGRevert:
		case m.kind == kindATASecurity && o.Path != Direct: // drives were bricked so
		default:
			out = append(out, m.name)
		}
	}
	if i := slices.Index(out, SCSIFormatUnit); i >= 0 && o.Media == Rotating { // there an overwrite can be proved, and FORMAT UNIT cannot
		return append(slices.Delete(out, i, i+1), Overwrite, SCSIFormatUnit)
	}
	return append(out, Overwrite)
}
