package drive

import (
	"encoding/binary"
	"fmt"
)

// The features of SMART that ask (ACS-3 7.48; SMART READ THRESHOLDS is older, ATA-3), and its key, in LBA 23:8.
const (
	featureSMARTData       = 0xd0
	featureSMARTThresholds = 0xd1
	featureSMARTStatus     = 0xda
	smartKey               = 0xc24f
	smartExceeded          = 0x2cf4 // in its place, after SMART RETURN STATUS: a threshold was exceeded

	ataReadLogExt = 0x2f
	logStatistics = 0x04 // Device Statistics (ACS-3 A.5)
)

// Attribute is one of the numbers that a vendor gives an ATA drive. No standard says what they mean: the table is older than that, and what
// is said here of single ones is what smartmontools' drivedb.h has for drives that it does not know better.
type Attribute struct {
	ID        byte
	Prefail   bool // below its threshold the drive is failing, else it is old
	Value     byte // falls from 100, 200 or 253
	Threshold byte // 0: none
	Raw       uint64
}

// failing reports whether the attribute is at its threshold or below. 0, 254 and 255 are no values.
func (a Attribute) failing() bool {
	return a.Prefail && a.Value >= 1 && a.Value <= 253 && a.Threshold >= 1 && a.Threshold <= 253 && a.Value <= a.Threshold
}

// ParseAttributes reads the data of SMART READ DATA, and of SMART READ THRESHOLDS if there are some: 30 entries of 12 bytes from byte 2,
// of data with flags in bytes 1 and 2, the value in 3 and the raw value in 5 to 10. Data whose checksum is wrong say nothing.
func ParseAttributes(data, thresholds []byte) []Attribute {
	if !sealed(data) {
		return nil
	}
	limit := map[byte]byte{}
	if sealed(thresholds) {
		for e := range entries(thresholds) {
			limit[e[0]] = e[1]
		}
	}
	var out []Attribute
	for e := range entries(data) {
		raw := uint64(binary.LittleEndian.Uint32(e[5:])) | uint64(binary.LittleEndian.Uint16(e[9:]))<<32
		out = append(out, Attribute{ID: e[0], Prefail: e[1]&1 != 0, Value: e[3], Threshold: limit[e[0]], Raw: raw})
	}
	return out
}

// sealed reports whether there are 512 bytes whose sum is 0.
func sealed(b []byte) bool {
	var sum byte
	for _, c := range b {
		sum += c
	}
	return len(b) == 512 && sum == 0
}

// entries yields those that are used.
func entries(b []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for at := 2; at < 2+30*12; at += 12 {
			if b[at] != 0 && !yield(b[at:at+12]) {
				return
			}
		}
	}
}

// smart asks for 512 bytes of SMART. They are nil where the drive does not know them.
func (a *ATA) smart(feature uint16) ([]byte, error) {
	b := make([]byte, 512)
	if _, _, err := a.ask(taskfile{command: ataSMART, features: feature, lba: smartKey << 8, dir: FromDrive, data: b}); err != nil {
		if err = unlessUnknown(err); err != nil {
			err = fmt.Errorf("read SMART data: %w", err)
		}
		return nil, err
	}
	return b, nil
}

// health asks for attributes, for what the drive makes of them, and for its statistics, which count where both say the same thing.
func (a *ATA) health() (Health, error) {
	id, err := a.Identify()
	if err != nil {
		return Health{}, err
	}
	var h Health
	if id.smart() {
		data, err := a.smart(featureSMARTData)
		if err != nil {
			return Health{}, err
		}
		thresholds, err := a.smart(featureSMARTThresholds)
		if err != nil {
			return Health{}, err
		}
		h.attributes(ParseAttributes(data, thresholds), id.Rotation == 1)
		if err := a.smartStatus(&h); err != nil {
			return Health{}, err
		}
	}
	if !id.logs() {
		return h, nil
	}
	list, err := a.statistics(0)
	if err != nil {
		return Health{}, err
	}
	for _, page := range parseStatisticsList(list) {
		b, err := a.statistics(page)
		if err != nil {
			return Health{}, err
		}
		h.statistics(page, b, id.SectorSize)
	}
	return h, nil
}

// smart reports whether SMART is known and switched on: words 82 and 85, bit 0 (ACS-3 7.12).
func (id Identify) smart() bool {
	w := words(id.Raw)
	return w.at(83)>>14 == 1 && w.at(82)&1 != 0 && w.at(85)&1 != 0
}

// logs reports whether general purpose logging is known: word 84, bit 5 (ACS-3 7.12).
func (id Identify) logs() bool {
	w := words(id.Raw)
	return w.at(84)>>14 == 1 && w.at(84)&(1<<5) != 0
}

// smartStatus asks what the drive makes of its attributes: SMART RETURN STATUS (ACS-3 7.48.8). The answer is in registers that many
// bridges do not show.
func (a *ATA) smartStatus(h *Health) error {
	r, ok, err := a.ask(taskfile{command: ataSMART, features: featureSMARTStatus, lba: smartKey << 8})
	switch {
	case err != nil:
		return unlessUnknown(err)
	case ok && r.LBA>>8&0xffff == smartExceeded:
		h.warn("it says that it fails: a threshold was exceeded")
	case ok && r.LBA>>8&0xffff == smartKey && h.Failing == nil:
		h.Failing = new(false)
	}
	return nil
}

// attributes takes over what is known of attributes. Some of flash are read by their value alone, whose fall from 100 is the same for all
// makers that have them: 231 SSD_Life_Left, 233 Media_Wearout_Indicator, 202 Percent_Lifetime_Remain, 177 Wear_Leveling_Count.
func (h *Health) attributes(list []Attribute, flash bool) {
	by := map[byte]Attribute{}
	for _, a := range list {
		by[a.ID] = a
		if a.failing() {
			h.warn(fmt.Sprintf("attribute %d has fallen to %d, its threshold is %d", a.ID, a.Value, a.Threshold))
		}
	}
	raw := func(mask uint64, ids ...byte) *int64 {
		for _, id := range ids {
			if a, ok := by[id]; ok {
				return counter(a.Raw & mask)
			}
		}
		return nil
	}
	const all = 1<<48 - 1
	h.Reallocated = raw(all, 5, 196) // Reallocated_Sector_Ct, Reallocated_Event_Count
	h.PowerOn = raw(1<<24-1, 9)      // Power_On_Hours: hours in 24 bits, minutes above them
	h.Starts = raw(all, 12)          // Power_Cycle_Count
	h.Pending = raw(all, 197)        // Current_Pending_Sector
	h.LinkErrors = raw(all, 199)     // UDMA_CRC_Error_Count
	h.Uncorrectable = raw(all, 187)  // Reported_Uncorrect
	if n := raw(all, 198); n != nil && (h.Uncorrectable == nil || *n > *h.Uncorrectable) {
		h.Uncorrectable = n // Offline_Uncorrectable
	}
	for _, id := range []byte{190, 194} { // Airflow_Temperature_Cel, Temperature_Celsius: now, in the lowest byte
		if t := by[id].Raw & 0xff; t >= 1 && t <= 127 {
			h.Temperature = new(int64(t))
		}
	}
	if !flash {
		return
	}
	for _, id := range []byte{231, 233, 202, 177} {
		if a := by[id]; a.Value >= 1 && a.Value <= 100 {
			h.Used = new(100 - int64(a.Value))
			return
		}
	}
}

// statistics asks for a page of the Device Statistics log, by READ LOG EXT (ACS-3 7.27): log address in LBA 7:0, page in 15:8. It is nil
// where the drive does not know it.
func (a *ATA) statistics(page byte) ([]byte, error) {
	b := make([]byte, 512)
	t := taskfile{command: ataReadLogExt, ext: true, lba: logStatistics | uint64(page)<<8, dir: FromDrive, data: b}
	if _, _, err := a.ask(t); err != nil {
		if err = unlessUnknown(err); err != nil {
			err = fmt.Errorf("read device statistics, page %02Xh: %w", page, err)
		}
		return nil, err
	}
	return b, nil
}

// parseStatisticsList reads page 00h (ACS-3 A.5.2): how many pages there are in byte 8, their numbers behind it. Those that are read are
// returned.
func parseStatisticsList(b []byte) []byte {
	if len(b) != 512 || b[2] != 0 {
		return nil
	}
	var out []byte
	for _, page := range b[9:min(len(b), 9+int(b[8]))] {
		if page >= 1 && page <= 7 && page != 2 {
			out = append(out, page)
		}
	}
	return out
}

// statistics takes over what a page says (ACS-3 A.5.3 to A.5.9). A page has its number in byte 2. A statistic has 8 bytes; bits 7 and 6 of
// the last one say that it is known and valid.
func (h *Health) statistics(page byte, b []byte, sectorSize int) {
	if len(b) != 512 || b[2] != page {
		return
	}
	take := func(to **int64, at, size int, factor uint64) {
		if b[at+7]&0xc0 == 0xc0 {
			n := binary.LittleEndian.Uint64(b[at:]) & (1<<(8*size) - 1)
			*to = counter128(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, n), 0), factor)
		}
	}
	switch page {
	case 1: // general statistics
		take(&h.Starts, 8, 4, 1)
		take(&h.PowerOn, 16, 4, 1)
		take(&h.Written, 24, 6, uint64(sectorSize))
	case 3: // rotating media statistics
		take(&h.Reallocated, 32, 4, 1)
		take(&h.Pending, 56, 4, 1)
	case 4: // general errors statistics
		take(&h.Uncorrectable, 8, 4, 1)
	case 5: // temperature statistics; one byte with a sign
		if b[15]&0xc0 == 0xc0 {
			h.Temperature = new(int64(int8(b[8])))
		}
	case 6: // transport statistics
		take(&h.LinkErrors, 24, 4, 1)
	case 7: // solid state device statistics
		take(&h.Used, 8, 1, 1)
	}
}

// reallocated reads attribute 5 of SMART READ DATA. A drive that does not know the command, or has no such attribute, does not say.
func (a *ATA) reallocated() (n uint64, known bool, err error) {
	b, err := a.smart(featureSMARTData)
	if err != nil {
		return 0, false, err
	}
	n, known = parseSMART(b)
	return n, known, nil
}

// parseSMART looks for attribute 5.
func parseSMART(b []byte) (n uint64, known bool) {
	for _, a := range ParseAttributes(b, nil) {
		if a.ID == 5 {
			return a.Raw, true
		}
	}
	return 0, false
}
