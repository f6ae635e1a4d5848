package drive

import (
	"encoding/binary"
	"fmt"
)

// opLogSense is the operation code of LOG SENSE (SPC 6.8).
const opLogSense = 0x4d

// logPage asks for a page of log parameters, with their values of now, and returns what is behind its header of four bytes. It is nil where
// the drive does not know it.
func (s *SCSI) logPage(page byte) ([]byte, error) {
	const current, n = 0x40, 252
	b, err := s.read([]byte{opLogSense, 0, current | page, 0, 0, 0, 0, n >> 8, n, 0}, n)
	if err != nil {
		if err = unlessUnknown(err); err != nil {
			err = fmt.Errorf("read log page %02Xh: %w", page, err)
		}
		return nil, err
	}
	return parseLogPage(page, b), nil
}

// parseLogPage checks the header (SPC, log page format): the page in bits 5:0 of byte 0, how much follows in bytes 2 and 3.
func parseLogPage(page byte, b []byte) []byte {
	if len(b) < 4 || b[0]&0x3f != page {
		return nil
	}
	return b[4:min(len(b), 4+int(binary.BigEndian.Uint16(b[2:])))]
}

// health asks for the pages that the drive says it has (page 00h), and for its defects.
func (s *SCSI) health() (Health, error) {
	var h Health
	pages, err := s.logPage(0)
	if err != nil {
		return Health{}, err
	}
	for _, page := range pages {
		switch page {
		case 0x02, 0x03, 0x05, 0x0d, 0x0e, 0x11, 0x15, 0x2f:
			b, err := s.logPage(page)
			if err != nil {
				return Health{}, err
			}
			h.logParameters(page, b)
		}
	}
	if n, known, err := s.reallocated(); err != nil {
		return Health{}, err
	} else if known {
		h.Reallocated = counter(n)
	}
	return h, nil
}

// logParameters takes over what a page says. A parameter has a code in bytes 0 and 1, and in byte 3 how long the rest is (SPC, log
// parameter format). What is cut off is left out.
func (h *Health) logParameters(page byte, b []byte) {
	for len(b) >= 4 && len(b) >= 4+int(b[3]) {
		code, data := binary.BigEndian.Uint16(b), b[4:4+int(b[3])]
		h.logParameter(page, code, data)
		b = b[4+len(data):]
	}
}

func (h *Health) logParameter(page byte, code uint16, data []byte) {
	switch {
	case (page == 0x02 || page == 0x03 || page == 0x05) && code == 6 && len(data) <= 8: // writes, reads, verifies: total uncorrected errors
		var n uint64
		for _, c := range data {
			n = n<<8 | uint64(c)
		}
		if h.Uncorrectable != nil {
			n = max(n, n+uint64(*h.Uncorrectable))
		}
		h.Uncorrectable = counter(n)
	case page == 0x0d && code == 0 && len(data) >= 2 && data[1] != 0xff: // temperature
		h.Temperature = new(int64(data[1]))
	case page == 0x0e && code == 4 && len(data) >= 4: // accumulated start-stop cycles
		h.Starts = counter(uint64(binary.BigEndian.Uint32(data)))
	case page == 0x11 && code == 1 && len(data) >= 4: // solid state media: percentage used endurance indicator
		h.Used = new(int64(data[3]))
	case page == 0x15 && code == 0 && len(data) >= 4: // background scan: accumulated power on minutes
		h.PowerOn = counter(uint64(binary.BigEndian.Uint32(data)) / 60)
	case page == 0x2f && code == 0 && len(data) >= 2: // informational exceptions: additional sense code and its qualifier
		switch data[0] {
		case 0x5d: // failure prediction threshold exceeded
			h.warn(fmt.Sprintf("it says that it fails: %02Xh/%02Xh", data[0], data[1]))
		case 0x0b: // warning
			h.warn(fmt.Sprintf("it gives a warning: %02Xh/%02Xh", data[0], data[1]))
		default:
			if h.Failing == nil {
				h.Failing = new(false)
			}
		}
	}
}
