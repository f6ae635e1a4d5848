package drive

import (
	"errors"
	"fmt"
)

// Method is a way to erase that a drive offers, by a name that can stand in a certificate.
type Method string

// The methods, for each protocol strongest first.
const (
	NVMeSanitizeCrypto    Method = "nvme-sanitize-crypto"
	NVMeSanitizeBlock     Method = "nvme-sanitize-block"
	NVMeSanitizeOverwrite Method = "nvme-sanitize-overwrite"
	NVMeFormatCrypto      Method = "nvme-format-crypto"
	NVMeFormatUser        Method = "nvme-format-user"

	ATASanitizeCrypto    Method = "ata-sanitize-crypto"
	ATASanitizeBlock     Method = "ata-sanitize-block"
	ATASanitizeOverwrite Method = "ata-sanitize-overwrite"
	ATASecurityEnhanced  Method = "ata-security-enhanced"
	ATASecurityNormal    Method = "ata-security-normal"

	SCSISanitizeCrypto    Method = "scsi-sanitize-crypto"
	SCSISanitizeBlock     Method = "scsi-sanitize-block"
	SCSISanitizeOverwrite Method = "scsi-sanitize-overwrite"
	SCSIFormatUnit        Method = "scsi-format-unit"

	MMCSanitize    Method = "mmc-sanitize" // an erase of all sectors before it
	MMCSecureErase Method = "mmc-secure-erase"
)

// Word is a number as the drive said it.
type Word struct {
	Name  string // such as SANICAP, word 59, 48h/03h
	Value uint64
}

// Capabilities are what a drive says that it can do. Nothing of it was tried.
type Capabilities struct {
	// Methods are the ways to erase, strongest first. One that cannot be used now, since the drive is frozen or behind USB, is not among them.
	Methods []Method
	// Obstacles say why methods that the drive has are not among Methods.
	Obstacles []string
	// Unreached are parts of the drive that no method is for.
	Unreached []string
	// Hidden is how many bytes of them hold what a user may have stored.
	Hidden int64
	// Frozen reports that the security commands of an ATA drive are, so that no password can be set until it was without power.
	Frozen bool
	// Locked reports whether a password keeps the drive from being read.
	Locked   bool
	Rotation Rotation
	// Subsystem reports whether a method reaches other namespaces than that which is open.
	Subsystem bool
	// Words are the numbers that all this was read from.
	Words []Word
}

// Reallocated returns how many sectors the drive says that it has replaced by others, which a host can reach no more. known is false for
// a drive that does not say: NVMe drives, eMMC, and most behind bridges.
func (d *Drive) Reallocated() (n uint64, known bool, err error) {
	switch {
	case d.NVMe != nil, d.MMC != nil:
		return 0, false, nil
	case d.ATA != nil:
		return d.ATA.reallocated()
	}
	return d.SCSI.reallocated()
}

// Capabilities asks the drive. It sends nothing that changes anything.
func (d *Drive) Capabilities() (Capabilities, error) {
	switch {
	case d.NVMe != nil:
		return d.NVMe.capabilities()
	case d.ATA != nil:
		return d.ATA.capabilities()
	case d.MMC != nil:
		return d.MMC.capabilities()
	}
	return d.SCSI.capabilities()
}

func (n *NVMe) capabilities() (Capabilities, error) {
	c, err := n.Controller()
	if err != nil {
		return Capabilities{}, err
	}
	out := Capabilities{
		Rotation: 1, Subsystem: c.SANICAP&7 != 0 || c.CanFormat() && c.FormatsAll(),
		Words: []Word{
			{"VER", uint64(c.Version)}, {"OACS", uint64(c.OACS)}, {"SANICAP", uint64(c.SANICAP)}, {"FNA", uint64(c.FNA)}, {"NN", uint64(c.NN)},
		},
	}
	for _, e := range c.Erasures() {
		out.Methods = append(out.Methods, []Method{NVMeSanitizeCrypto, NVMeSanitizeBlock, NVMeSanitizeOverwrite}[e-CryptoErase])
	}
	if c.CanFormatCrypto() {
		out.Methods = append(out.Methods, NVMeFormatCrypto)
	}
	if c.CanFormat() {
		out.Methods = append(out.Methods, NVMeFormatUser)
	}
	return out, nil
}

func (a *ATA) capabilities() (Capabilities, error) {
	id, err := a.Identify()
	if err != nil {
		return Capabilities{}, err
	}
	state, err := a.dev.State()
	if err != nil {
		return Capabilities{}, err
	}
	s := id.Security
	out := Capabilities{Locked: s.Locked, Frozen: s.Supported && s.Frozen && !state.USB, Rotation: id.Rotation}
	for _, n := range []int{59, 82, 83, 85, 86, 89, 90, 92, 119, 120, 128, 217} {
		out.Words = append(out.Words, Word{fmt.Sprintf("word %d", n), uint64(words(id.Raw).at(n))})
	}
	for _, e := range id.Sanitize {
		out.Methods = append(out.Methods, []Method{ATASanitizeCrypto, ATASanitizeBlock, ATASanitizeOverwrite}[e-CryptoErase])
	}
	switch {
	case !s.Supported:
	case state.USB:
		out.Obstacles = append(out.Obstacles, ErrBridge.Error())
	case s.Frozen:
		out.Obstacles = append(out.Obstacles, "the security commands are frozen until the power goes off and on")
	case s.Expired:
		out.Obstacles = append(out.Obstacles, "too many wrong passwords: the security commands are refused until the power goes off and on")
	default:
		if s.Enhanced {
			out.Methods = append(out.Methods, ATASecurityEnhanced)
		}
		out.Methods = append(out.Methods, ATASecurityNormal)
	}
	return out, nil
}

func (s *SCSI) capabilities() (Capabilities, error) {
	var out Capabilities
	var err error
	if out.Rotation, err = s.Rotation(); err != nil && !refused(err) {
		return Capabilities{}, err
	}
	for _, q := range []struct {
		method Method
		op     byte
		action int
	}{
		{SCSISanitizeCrypto, opSanitize, 3}, {SCSISanitizeBlock, opSanitize, 2}, {SCSISanitizeOverwrite, opSanitize, 1},
		{SCSIFormatUnit, opFormatUnit, -1},
	} {
		support, err := s.support(q.op, q.action)
		if refused(err) {
			out.Obstacles = append(out.Obstacles, fmt.Sprintf("the drive does not say whether it knows %s", q.method))
			continue
		}
		if err != nil {
			return Capabilities{}, err
		}
		out.Words = append(out.Words, Word{fmt.Sprintf("%02Xh/%02Xh", q.op, max(0, q.action)), uint64(support)})
		if support == supportStandard {
			out.Methods = append(out.Methods, q.method)
		}
	}
	return out, nil
}

// refused reports whether a drive answered that it does not know a question.
func refused(err error) bool {
	e := SenseError{}
	return errors.As(err, &e) && e.Sense.Key == keyIllegalRequest
}
