package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// MMC is an eMMC. Its commands reach the user area; boot areas and RPMB are other block devices, and no method is for them.
type MMC struct {
	dev    Device
	permit permitter
}

// The commands and arguments (eMMC; linux/mmc/mmc.h).
const (
	mmcSwitch     = 6
	mmcSendExtCSD = 8
	mmcEraseStart = 35
	mmcEraseEnd   = 36
	mmcErase      = 38

	eraseGroups = 0x00000000
	eraseTrim   = 0x00000001
	eraseSecure = 0x80000000 // MMC_SECURE_ERASE_ARG

	switchWriteByte  = 3
	extSanitizeStart = 165
)

// statusErrors are the bits of the card status that make an answer an error: R1_STATUS and R1_SWITCH_ERROR of linux/mmc/mmc.h.
const statusErrors = 0xfff9a000 | 1<<7

// MMCError is a command that an eMMC answered with an error.
type MMCError struct {
	Index  uint32
	Status uint32
}

func (e MMCError) Error() string {
	return fmt.Sprintf("eMMC command %d: card status %08Xh", e.Index, e.Status)
}

// ExtCSD is what an eMMC says of itself (EXT_CSD; linux/mmc/mmc.h has the same names).
type ExtCSD struct {
	Revision byte // 192
	Features byte // SEC_FEATURE_SUPPORT, 231: EXT_CSD_SEC_*
	Firmware string
	Sectors  uint32 // SEC_CNT, of 512 bytes, in the user area
	Boot     int64  // bytes of each of the two boot areas, BOOT_MULT
	RPMB     int64  // bytes of the replay protected memory block, RPMB_MULT
	General  int64  // bytes of all general purpose partitions, GP_SIZE_MULT
	Raw      []byte
}

// CanSanitize reports bit 6 of SEC_FEATURE_SUPPORT: the drive knows Sanitize.
func (x ExtCSD) CanSanitize() bool { return x.Features&(1<<6) != 0 }

// CanEraseSecurely reports bit 0 (SEC_ER_EN): the drive knows Secure Erase and Secure Trim, which came with eMMC 4.4. Since 4.5 there is
// Sanitize in their place, and drives may know all of them.
func (x ExtCSD) CanEraseSecurely() bool { return x.Features&1 != 0 }

// CanTrim reports bit 4 (SEC_GB_CL_EN): the drive erases sectors, and not groups only.
func (x ExtCSD) CanTrim() bool { return x.Features&(1<<4) != 0 }

// ParseExtCSD reads the 512 bytes of EXT_CSD.
func ParseExtCSD(b []byte) (ExtCSD, error) {
	if len(b) < 512 {
		return ExtCSD{}, fmt.Errorf("EXT_CSD has %d bytes, want 512", len(b))
	}
	x := ExtCSD{
		Revision: b[192], Features: b[231], Firmware: text(b[254:262]), Sectors: binary.LittleEndian.Uint32(b[212:]),
		Boot: int64(b[226]) << 17, RPMB: int64(b[168]) << 17, Raw: b[:512],
	}
	if x.Sectors == 0 {
		return ExtCSD{}, errors.New("EXT_CSD says that there is no sector")
	}
	for at := 143; at < 143+4*3; at += 3 {
		groups := int64(b[at]) | int64(b[at+1])<<8 | int64(b[at+2])<<16
		x.General += groups * int64(b[221]) * int64(b[224]) << 19 // HC_WP_GRP_SIZE, HC_ERASE_GRP_SIZE of 512 KiB
	}
	return x, nil
}

// send sends commands and wants success of each.
func (m *MMC) send(cs ...MMCCommand) error {
	r, err := m.dev.MMC(cs...)
	if err != nil {
		return fmt.Errorf("eMMC command %d: %w", cs[0].Index, err)
	}
	for i, status := range r {
		if status&statusErrors != 0 {
			return MMCError{Index: cs[i].Index, Status: status}
		}
	}
	return nil
}

// ExtCSD asks for it.
func (m *MMC) ExtCSD() (ExtCSD, error) {
	b := make([]byte, 512)
	if err := m.send(MMCCommand{Index: mmcSendExtCSD, Data: b}); err != nil {
		return ExtCSD{}, fmt.Errorf("read EXT_CSD: %w", err)
	}
	return ParseExtCSD(b)
}

// identity reads model and serial number from the identification register: PNM and PSN of CID, as the kernel shows them in sysfs.
func (m *MMC) identity() (model, serial string, err error) {
	s, err := m.dev.State()
	if err != nil {
		return "", "", err
	}
	return text(s.CID[3:9]), fmt.Sprintf("0x%08x", binary.BigEndian.Uint32(s.CID[10:])), nil
}

// Erase erases the user area: all sectors are unmapped, by TRIM where the drive knows it. What is left of them in cells stays until
// Sanitize. It returns when the drive is done; timeout bounds that.
func (m *MMC) Erase(p Permit, timeout time.Duration) error {
	if err := m.permit(p); err != nil {
		return err
	}
	x, err := m.ExtCSD()
	if err != nil {
		return err
	}
	argument := uint32(eraseGroups)
	if x.CanTrim() {
		argument = eraseTrim
	}
	return m.permit.send(p, func() error { return m.send(eraseMMC(x, argument, timeout)...) })
}

// SecureErase erases all erase groups of the user area, with all copies that the drive has made of what is in them. Secure Trim, which the
// same bit of EXT_CSD is for, does that for parts of groups, and there are none here. It returns when the drive is done; timeout bounds
// that. Capabilities names drives that must not be told.
func (m *MMC) SecureErase(p Permit, timeout time.Duration) error {
	if err := m.permit(p); err != nil {
		return err
	}
	x, err := m.ExtCSD()
	if err != nil {
		return err
	}
	return m.permit.send(p, func() error { return m.send(eraseMMC(x, eraseSecure, timeout)...) })
}

// eraseMMC is all of the user area. Addresses of erase groups are rounded down by the drive, so the last group is erased whole.
func eraseMMC(x ExtCSD, argument uint32, timeout time.Duration) []MMCCommand {
	last := x.Sectors - 1
	if x.Sectors <= 2<<30/512 { // up to 2 GiB addresses are in bytes (mmc_decode_ext_csd of Linux)
		last *= 512
	}
	return []MMCCommand{
		{Index: mmcEraseStart, Write: true},
		{Index: mmcEraseEnd, Argument: last, Write: true},
		{Index: mmcErase, Argument: argument, Write: true, Busy: true, Timeout: timeout},
	}
}

// Sanitize purges all cells that hold nothing that is mapped (EXT_CSD SANITIZE_START). It returns when the drive is done; timeout bounds
// that.
func (m *MMC) Sanitize(p Permit, timeout time.Duration) error {
	return m.permit.send(p, func() error {
		return m.send(MMCCommand{
			Index: mmcSwitch, Argument: switchWriteByte<<24 | extSanitizeStart<<16 | 1<<8 | 1, Write: true, Busy: true, Timeout: timeout,
		})
	})
}

// notSecurely says why a drive that knows Secure Erase is not told to do it; empty: it may be. The drives are those of mmc_blk_fixups of
// Linux (MMC_QUIRK_SEC_ERASE_TRIM_BROKEN, MMC_QUIRK_INAND_CMD38), by MID and PNM of CID.
func notSecurely(cid [16]byte) string {
	const samsung, sanDisk = 0x15, 0x02
	switch name := string(cid[3:9]); {
	case cid[0] == samsung && slices.Contains([]string{"M8G2FA", "MAG4FA", "MBG8FA", "MCGAFA", "VAL00M", "VYL00M", "KYL00M", "VZL00M"}, name):
		return "a Secure Erase can destroy this drive for good: a fault of its firmware"
	case cid[0] == sanDisk && slices.Contains([]string{"SEM02G", "SEM04G", "SEM08G", "SEM16G", "SEM32G"}, name):
		return "this drive takes a Secure Erase in a way of its own only"
	}
	return ""
}

func (m *MMC) capabilities() (Capabilities, error) {
	x, err := m.ExtCSD()
	if err != nil {
		return Capabilities{}, err
	}
	state, err := m.dev.State()
	if err != nil {
		return Capabilities{}, err
	}
	out := Capabilities{
		Rotation: 1,
		Words: []Word{
			{"EXT_CSD_REV", uint64(x.Revision)}, {"SEC_FEATURE_SUPPORT", uint64(x.Features)}, {"BOOT_MULT", uint64(x.Boot >> 17)},
			{"RPMB_MULT", uint64(x.RPMB >> 17)},
		},
		Unreached: []string{
			fmt.Sprintf("two boot areas of %d KiB", x.Boot>>10), fmt.Sprintf("the replay protected memory block of %d KiB", x.RPMB>>10),
		},
	}
	if x.General > 0 {
		out.Hidden = x.General
		out.Unreached = append(out.Unreached, fmt.Sprintf("general purpose partitions of %d KiB", x.General>>10))
	}
	if x.CanSanitize() {
		out.Methods = append(out.Methods, MMCSanitize)
	} else {
		out.Obstacles = append(out.Obstacles, "the drive is older than Sanitize")
	}
	switch why := notSecurely(state.CID); {
	case !x.CanEraseSecurely():
	case why != "":
		out.Obstacles = append(out.Obstacles, why)
	default:
		out.Methods = append(out.Methods, MMCSecureErase)
	}
	return out, nil
}
