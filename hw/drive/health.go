package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Health is what a drive says of its own state. What it does not say is nil. Counts are those since it was made.
type Health struct {
	// Failing reports whether the drive warns of its own end.
	Failing *bool
	// Warnings say of what it warns, in words.
	Warnings []string
	// Temperature is that of now, in degrees Celsius.
	Temperature *int64
	// Used is how much of the life that its maker gives it is over, in percent; it may be above 100. An eMMC says it in steps of ten, and the
	// upper end of the step is here.
	Used *int64
	// Spare is how many of the blocks that replace worn ones are left, in percent.
	Spare *int64
	// PowerOn is how many hours it was on.
	PowerOn *int64
	// Starts is how often it was switched on; of a SCSI drive, how often it was started.
	Starts *int64
	// Reallocated is how many sectors were replaced by others.
	Reallocated *int64
	// Pending is how many sectors could not be read, and wait for a write.
	Pending *int64
	// Uncorrectable is how many errors of the medium could not be corrected.
	Uncorrectable *int64
	// LinkErrors is how many transfers between host and drive had a wrong checksum.
	LinkErrors *int64
	// Written is how many bytes a host wrote.
	Written *int64
}

// warn adds a warning.
func (h *Health) warn(text string) {
	h.Failing = new(true)
	h.Warnings = append(h.Warnings, text)
}

// Health asks the drive for its state. It sends nothing that changes anything. A drive that does not know a question says nothing of it,
// which is no error.
func (d *Drive) Health() (Health, error) {
	var h Health
	var err error
	switch {
	case d.NVMe != nil:
		h, err = d.NVMe.health()
	case d.ATA != nil:
		h, err = d.ATA.health()
	case d.MMC != nil:
		h, err = d.MMC.health()
	default:
		h, err = d.SCSI.health()
	}
	if err != nil {
		return Health{}, fmt.Errorf("ask for health: %w", err)
	}
	return h, nil
}

// unlessUnknown returns nil for an error by which a drive says that it does not know a question: an ATA command that was aborted, an
// illegal request of SCSI, an opcode, a field or a log page that are invalid (NVMe figures 102 and 103).
func unlessUnknown(err error) error {
	e := StatusError{}
	if errors.As(err, new(ATAError)) || refused(err) {
		return nil
	}
	if errors.As(err, &e) && (e.Status&0x7ff == 0x01 || e.Status&0x7ff == 0x02 || e.Status&0x7ff == 0x109) {
		return nil
	}
	return err
}

// counter is a number that fits, or the greatest that does.
func counter(n uint64) *int64 { return new(int64(min(n, math.MaxInt64))) }

// counter128 is a number of 16 bytes, little endian, times a factor.
func counter128(b []byte, factor uint64) *int64 {
	low, high := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	if high != 0 || low > math.MaxInt64/factor {
		return counter(math.MaxInt64)
	}
	return counter(low * factor)
}

// health asks for the SMART / Health Information log page, 02h, of the whole controller (NVMe 5.1.12.1.3).
func (n *NVMe) health() (Health, error) {
	b := make([]byte, 512)
	dwords := uint32(len(b)/4 - 1) // counted from 0
	err := n.send(NVMeCommand{Opcode: nvmeGetLogPage, NSID: allNamespaces, CDW10: 0x02 | dwords<<16, Data: b})
	if err != nil {
		return Health{}, unlessUnknown(err)
	}
	return ParseNVMeHealth(b)
}

// ParseNVMeHealth reads the SMART / Health Information log page (NVMe 5.1.12.1.3; libnvme, struct nvme_smart_log).
func ParseNVMeHealth(b []byte) (Health, error) {
	if len(b) < 512 {
		return Health{}, fmt.Errorf("the health log has %d bytes, want 512", len(b))
	}
	h := Health{
		Failing: new(false), Spare: new(int64(b[3])), Used: new(int64(b[5])), Written: counter128(b[48:], 512_000), // thousands of 512 bytes
		Starts: counter128(b[112:], 1), PowerOn: counter128(b[128:], 1), Uncorrectable: counter128(b[160:], 1),
	}
	if kelvin := binary.LittleEndian.Uint16(b[1:]); kelvin != 0 {
		h.Temperature = new(int64(kelvin) - 273)
	}
	for bit, text := range []string{ // CRITICAL WARNING
		"fewer spare blocks are left than its threshold", "it is too hot or too cold", "it is no longer reliable", "it can only be read",
		"the power reserve of its memory has failed", "its persistent memory region can only be read or is not reliable",
	} {
		if b[0]&(1<<bit) != 0 {
			h.warn(text)
		}
	}
	return h, nil
}

func (m *MMC) health() (Health, error) {
	x, err := m.ExtCSD()
	if err != nil {
		return Health{}, err
	}
	return x.Health(), nil
}

// Health returns what an eMMC from version 5.0 on says of its wear: PRE_EOL_INFO, DEVICE_LIFE_TIME_EST_TYP_A and TYP_B (eMMC, EXT_CSD 267
// to 269). 0 is not said; the life is used in steps of ten percent, and 11 is more than all of it.
func (x ExtCSD) Health() Health {
	var h Health
	if x.Revision < 7 {
		return h
	}
	if worst := max(x.Raw[268], x.Raw[269]); worst >= 1 && worst <= 10 {
		h.Used = new(10 * int64(worst))
	} else if worst == 11 {
		h.Used = new(int64(101))
	}
	switch x.Raw[267] {
	case 1:
		h.Failing = new(false)
	case 2:
		h.warn("80 % of its reserved blocks are used")
	case 3:
		h.warn("90 % of its reserved blocks are used")
	}
	if h.Used != nil && *h.Used > 100 {
		h.warn("it has exceeded the life that its maker gives it")
	}
	return h
}
