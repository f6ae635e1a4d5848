package drive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// NVMe is a drive with the admin commands of NVM Express.
type NVMe struct {
	dev    Device
	permit permitter
}

// The admin commands (NVMe 5.1), and the namespace identifier that stands for all.
const (
	nvmeGetLogPage = 0x02
	nvmeIdentify   = 0x06
	nvmeFormat     = 0x80
	nvmeSanitize   = 0x84

	allNamespaces = 0xffffffff
)

// What Identify is asked for (NVMe 5.1.13.2).
const (
	cnsNamespace          = 0x00
	cnsController         = 0x01
	cnsActive             = 0x02
	cnsAllocated          = 0x10
	cnsAllocatedNamespace = 0x11
)

// send sends a command and wants success.
func (n *NVMe) send(c NVMeCommand) error {
	r, err := n.dev.NVMe(c)
	if err != nil {
		return fmt.Errorf("NVMe command %02Xh: %w", c.Opcode, err)
	}
	if r.Status&0x7ff != 0 {
		return StatusError{Opcode: c.Opcode, Status: r.Status}
	}
	return nil
}

func (n *NVMe) destroy(p Permit, c NVMeCommand) error {
	if err := n.permit(p); err != nil {
		return err
	}
	return n.send(c)
}

func (n *NVMe) identify(cns byte, nsid uint32) ([]byte, error) {
	b := make([]byte, 4096)
	if err := n.send(NVMeCommand{Opcode: nvmeIdentify, NSID: nsid, CDW10: uint32(cns), Data: b}); err != nil {
		return nil, fmt.Errorf("identify %02Xh of namespace %d: %w", cns, nsid, err)
	}
	return b, nil
}

// Controller is what a controller says of itself (NVMe figure 312).
type Controller struct {
	Model, Serial, Firmware string
	Version                 uint32 // major in bits 31:16, minor in 15:8
	OACS                    uint16 // optional admin commands
	SANICAP                 uint32 // sanitize capabilities
	FNA                     byte   // attributes of Format NVM
	NN                      uint32 // the highest namespace identifier
	Unallocated             uint64 // bytes that belong to no namespace; all ones if there are more
	Raw                     []byte // 4,096 bytes
}

// ParseController reads the data of Identify Controller.
func ParseController(b []byte) (Controller, error) {
	if len(b) < 4096 {
		return Controller{}, fmt.Errorf("the controller's identity has %d bytes, want 4096", len(b))
	}
	le := binary.LittleEndian
	c := Controller{
		Serial: text(b[4:24]), Model: text(b[24:64]), Firmware: text(b[64:72]),
		Version: le.Uint32(b[80:]), OACS: le.Uint16(b[256:]), SANICAP: le.Uint32(b[328:]), FNA: b[524], NN: le.Uint32(b[516:]),
		Unallocated: le.Uint64(b[296:]), Raw: b[:4096],
	}
	if le.Uint64(b[304:]) != 0 { // UNVMCAP has 16 bytes
		c.Unallocated = ^uint64(0)
	}
	return c, nil
}

// Erasures returns the ways of sanitize operations that the controller says it knows, strongest first: bits 0 (CES), 1 (BES), 2 (OWS) of
// SANICAP.
func (c Controller) Erasures() []Erasure {
	var out []Erasure
	for i := range 3 {
		if c.SANICAP&(1<<i) != 0 {
			out = append(out, CryptoErase+Erasure(i))
		}
	}
	return out
}

// CanVerify reports whether a sanitize operation can end in the media verification state: bit 3 of SANICAP (VERS).
func (c Controller) CanVerify() bool { return c.SANICAP&(1<<3) != 0 }

// CanKeepAllocated reports whether the controller obeys SanitizeOptions.KeepAllocated: bit 29 of SANICAP (NDI) is clear.
func (c Controller) CanKeepAllocated() bool { return c.SANICAP != 0 && c.SANICAP&(1<<29) == 0 }

// ModifiesAfter reports whether the controller writes once more to all media, so that they can be read, where it was asked to keep blocks
// allocated: bits 31:30 of SANICAP (NODMMAS) are 10b. What is read then is not what the sanitize operation left.
func (c Controller) ModifiesAfter() bool { return c.SANICAP>>30 == 2 }

// CanPurge reports whether the controller obeys SanitizeOptions.Purge, and says afterwards whether it purged: bit 5 of SANICAP (SPRRS,
// libnvme).
func (c Controller) CanPurge() bool { return c.SANICAP&(1<<5) != 0 }

// CanFormat reports whether the controller knows Format NVM: bit 1 of OACS.
func (c Controller) CanFormat() bool { return c.OACS&(1<<1) != 0 }

// CanManage reports whether the controller knows namespaces that are not attached: bit 3 of OACS.
func (c Controller) CanManage() bool { return c.OACS&(1<<3) != 0 }

// CanFormatCrypto reports whether Format NVM can erase by changing the key: bit 2 of FNA (CRYES).
func (c Controller) CanFormatCrypto() bool { return c.CanFormat() && c.FNA&(1<<2) != 0 }

// FormatsAll reports whether formatting one namespace formats or erases them all: bits 0 (FNS) and 1 (SENS) of FNA.
func (c Controller) FormatsAll() bool { return c.FNA&3 != 0 }

// Controller asks who the controller is and what it can do.
func (n *NVMe) Controller() (Controller, error) {
	b, err := n.identify(cnsController, 0)
	if err != nil {
		return Controller{}, err
	}
	return ParseController(b)
}

// Namespace is what is said of one namespace (NVM, Identify Namespace data structure).
type Namespace struct {
	ID         uint32
	Blocks     uint64 // NSZE
	Capacity   uint64 // NCAP, in blocks
	Used       uint64 // NUSE, in blocks
	BlockSize  int    // bytes of data
	Metadata   int    // bytes beside each block
	Format     byte   // FLBAS
	Protection byte   // DPS
	Raw        []byte
}

// ParseNamespace reads the data of Identify Namespace. That of a namespace that is not there is zeros, and an error.
func ParseNamespace(id uint32, b []byte) (Namespace, error) {
	if len(b) < 384 {
		return Namespace{}, fmt.Errorf("the identity of namespace %d has %d bytes", id, len(b))
	}
	le := binary.LittleEndian
	ns := Namespace{
		ID: id, Blocks: le.Uint64(b), Capacity: le.Uint64(b[8:]), Used: le.Uint64(b[16:]), Format: b[26], Protection: b[29], Raw: b,
	}
	format := ns.lbaFormat()
	lbaf := le.Uint32(b[128+4*format:]) // 64 descriptors, metadata size in bits 15:0, data size as a power of 2 in bits 23:16
	power := lbaf >> 16 & 0xff
	if ns.Blocks == 0 || power < 9 || power > 20 {
		return Namespace{}, fmt.Errorf("namespace %d: %d blocks of 2^%d bytes", id, ns.Blocks, power)
	}
	ns.BlockSize, ns.Metadata = 1<<power, int(lbaf&0xffff)
	return ns, nil
}

// lbaFormat is the index of the format in use: bits 3:0 of FLBAS below bits 6:5.
func (ns Namespace) lbaFormat() int { return int(ns.Format&0x0f) | int(ns.Format>>5&3)<<4 }

// Namespace asks for a namespace, whether it is attached to this controller or not.
func (n *NVMe) Namespace(id uint32) (Namespace, error) {
	b, err := n.identify(cnsNamespace, id)
	if err != nil {
		return Namespace{}, err
	}
	ns, err := ParseNamespace(id, b)
	if err == nil || binary.LittleEndian.Uint64(b) != 0 {
		return ns, err
	}
	if b, err = n.identify(cnsAllocatedNamespace, id); err != nil {
		return Namespace{}, err
	}
	return ParseNamespace(id, b)
}

// Active returns the identifiers of the namespaces that are attached to this controller, in ascending order (NVMe 5.1.13.2.2).
func (n *NVMe) Active() ([]uint32, error) { return n.list(cnsActive) }

// Allocated returns those of all namespaces of the NVM subsystem (NVMe 5.1.13.2.9). Only a controller with CanManage knows it.
func (n *NVMe) Allocated() ([]uint32, error) { return n.list(cnsAllocated) }

// list reads a namespace list in parts of 1,024 (NVMe 4.6.2).
func (n *NVMe) list(cns byte) ([]uint32, error) {
	var all []uint32
	for after := uint32(0); ; {
		b, err := n.identify(cns, after)
		if err != nil {
			return nil, err
		}
		part, err := parseNamespaceList(b, after)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
		if len(part) < 1024 || part[1023] >= 0xfffffffd { // greater ones must not be asked for
			return all, nil
		}
		after = part[1023]
	}
}

func parseNamespaceList(b []byte, after uint32) ([]uint32, error) {
	var out []uint32
	for ; len(b) >= 4; b = b[4:] {
		id := binary.LittleEndian.Uint32(b)
		if id == 0 {
			break
		}
		if id <= after {
			return nil, fmt.Errorf("a list of namespaces in which %d comes after %d", id, after)
		}
		out, after = append(out, id), id
	}
	return out, nil
}

// SanitizeState is what a sanitize status says (NVMe figure 291, SOS).
type SanitizeState byte

// The states.
const (
	NeverSanitized         SanitizeState = 0
	Sanitized              SanitizeState = 1
	Sanitizing             SanitizeState = 2
	SanitizeFailed         SanitizeState = 3
	SanitizedAndUnexpected SanitizeState = 4 // sanitized, and blocks were deallocated although that was not asked for
)

// SanitizeLog is the Sanitize Status log page, 81h (NVMe figure 291).
type SanitizeLog struct {
	Progress uint16 // SPROG, in 65,536ths
	Status   uint16 // SSTAT
	CDW10    uint32 // SCDW10: Dword 10 of the command that started the last operation
	// Estimated times; 0 if none is said.
	Overwrite, BlockErase, CryptoErase time.Duration
	// Phase is bits 3:0 of SSI (SANS): where in the operation the drive is.
	Phase byte
	Raw   []byte
}

// phaseVerification is the media verification state (libnvme, NVME_SANITIZE_SSI_MEDIA_VERIFICATION).
const phaseVerification = 5

// Verifying reports whether the drive is in the media verification state, in which it is read and not written, until EndVerification.
func (l SanitizeLog) Verifying() bool { return l.State() == Sanitizing && l.Phase == phaseVerification }

// Purged reports whether the last operation purged all user data, as it was asked to by SanitizeOptions.Purge: bit 11 (PRGD, libnvme).
func (l SanitizeLog) Purged() bool { return l.Status&(1<<11) != 0 }

// State returns bits 2:0 of the status.
func (l SanitizeLog) State() SanitizeState { return SanitizeState(l.Status & 7) }

// GlobalDataErased reports whether nothing was written since the last operation that succeeded: bit 8 (GDE).
func (l SanitizeLog) GlobalDataErased() bool { return l.Status&(1<<8) != 0 }

// VerificationCanceled reports whether a reset ended the media verification state: bit 9 (MVCNCLD).
func (l SanitizeLog) VerificationCanceled() bool { return l.Status&(1<<9) != 0 }

// Passes returns how many passes of an overwrite are complete: bits 7:3 (OPC).
func (l SanitizeLog) Passes() int { return int(l.Status >> 3 & 0x1f) }

// ParseSanitizeLog reads the page.
func ParseSanitizeLog(b []byte) (SanitizeLog, error) {
	if len(b) < 32 {
		return SanitizeLog{}, fmt.Errorf("the sanitize status has %d bytes", len(b))
	}
	le := binary.LittleEndian
	seconds := func(at int) time.Duration {
		if s := le.Uint32(b[at:]); s != 0xffffffff {
			return time.Duration(s) * time.Second
		}
		return 0
	}
	l := SanitizeLog{
		Progress: le.Uint16(b), Status: le.Uint16(b[2:]), CDW10: le.Uint32(b[4:]),
		Overwrite: seconds(8), BlockErase: seconds(12), CryptoErase: seconds(16), Raw: b,
	}
	if len(b) > 36 {
		l.Phase = b[36] & 0x0f
	}
	return l, nil
}

// SanitizeLog asks for the sanitize status and leaves a waiting event as it is (RAE).
func (n *NVMe) SanitizeLog() (SanitizeLog, error) {
	b := make([]byte, 512)
	dwords := uint32(len(b)/4 - 1) // counted from 0
	if err := n.send(NVMeCommand{Opcode: nvmeGetLogPage, NSID: allNamespaces, CDW10: 0x81 | 1<<15 | dwords<<16, Data: b}); err != nil {
		return SanitizeLog{}, fmt.Errorf("ask for sanitize status: %w", err)
	}
	return ParseSanitizeLog(b)
}

// SanitizeOptions say how an NVMe drive is sanitized.
type SanitizeOptions struct {
	Erasure Erasure
	Pattern Pattern // of an Overwrite
	// KeepAllocated asks the drive not to deallocate blocks afterwards, so that what is read is the medium (NDAS).
	KeepAllocated bool
	// Verify asks the drive to stay in the media verification state afterwards (EMVS), until EndVerification. It goes neither with an
	// Overwrite nor with KeepAllocated (NVMe 5.1.22, 8.1.26).
	Verify bool
	// Purge asks the drive to purge all user data as IEEE 2883 has it, or to fail (PREQ).
	Purge bool
}

// Dword10 returns Dword 10 of the Sanitize command (NVMe figure 372; bit 11 is libnvme's): what SanitizeLog.CDW10 must be afterwards. AUSE
// is 0.
func (o SanitizeOptions) Dword10() (uint32, error) {
	w, ok := map[Erasure]uint32{BlockErase: 2, Overwrite: 3, CryptoErase: 4}[o.Erasure]
	if !ok {
		return 0, fmt.Errorf("there is no erasure %d", o.Erasure)
	}
	if err := o.Pattern.check(o.Erasure); err != nil {
		return 0, err
	}
	if o.Erasure == Overwrite {
		w |= uint32(o.Pattern.Passes) << 4
		if o.Pattern.Invert {
			w |= 1 << 8
		}
	}
	if o.KeepAllocated {
		w |= 1 << 9
	}
	if o.Verify && (o.KeepAllocated || o.Erasure == Overwrite) {
		return 0, errors.New("media verification goes neither with an overwrite nor with blocks that stay allocated")
	}
	if o.Verify {
		w |= 1 << 10
	}
	if o.Purge {
		w |= 1 << 11
	}
	return w, nil
}

// Sanitize starts a sanitize operation of the whole NVM subsystem (NVMe 5.1.22) and returns when the drive has accepted it; it goes on in
// the background, over power cuts too. After a failure only another one is accepted.
func (n *NVMe) Sanitize(p Permit, o SanitizeOptions) error {
	c, err := sanitizeNVMe(o)
	if err != nil {
		return err
	}
	if err := n.permit(p); err != nil {
		return err
	}
	if err := n.within(p, allNamespaces); err != nil {
		return err
	}
	return n.send(c)
}

// within returns an error unless a permit reaches as far as a command: to one namespace, or to all.
func (n *NVMe) within(p Permit, id uint32) error {
	if p.whole {
		return nil
	}
	s, err := n.dev.State()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	}
	reached := []uint32{id}
	if id == allNamespaces {
		if reached, err = n.all(); err != nil {
			return fmt.Errorf("%w: %w", ErrNotPermitted, err)
		}
	}
	for _, id := range reached {
		if id != s.NSID {
			return fmt.Errorf("%w: the permit is for namespace %d, and namespace %d is reached too", ErrNotPermitted, s.NSID, id)
		}
	}
	return nil
}

// all returns the identifiers of all namespaces that the controller shows.
func (n *NVMe) all() ([]uint32, error) {
	c, err := n.Controller()
	if err != nil {
		return nil, err
	}
	if c.CanManage() {
		return n.Allocated()
	}
	return n.Active()
}

func sanitizeNVMe(o SanitizeOptions) (NVMeCommand, error) {
	w, err := o.Dword10()
	c := NVMeCommand{Opcode: nvmeSanitize, CDW10: w, Timeout: time.Minute}
	if o.Erasure == Overwrite {
		c.CDW11 = o.Pattern.Word // NVMe figure 373
	}
	return c, err
}

// ExitFailureMode makes a drive whose sanitize operation failed usable again. What was on it may still be there: it is for a person who
// said so.
func (n *NVMe) ExitFailureMode(p Permit) error {
	return n.destroy(p, NVMeCommand{Opcode: nvmeSanitize, CDW10: 1})
}

// EndVerification ends the media verification state: the drive deallocates all blocks.
func (n *NVMe) EndVerification(p Permit) error {
	return n.destroy(p, NVMeCommand{Opcode: nvmeSanitize, CDW10: 5})
}

// Format erases a namespace by Format NVM (NVMe 5.1.10) and keeps its format: by changing the key (SES 2) or as the drive likes (SES 1).
// It returns when the drive is done; timeout bounds that. A controller with FormatsAll erases all namespaces.
func (n *NVMe) Format(p Permit, ns Namespace, crypto bool, timeout time.Duration) error {
	if ns.ID == 0 || ns.ID == allNamespaces || ns.BlockSize == 0 {
		return errors.New("format: this is no namespace that was asked for")
	}
	if err := n.permit(p); err != nil {
		return err
	}
	c, err := n.Controller()
	if err != nil {
		return err
	}
	reached := ns.ID
	if c.FormatsAll() {
		reached = allNamespaces
	}
	if err := n.within(p, reached); err != nil {
		return err
	}
	return n.send(formatNVMe(ns, crypto, timeout))
}

// formatNVMe is the command (NVMe figure 189; NVM, Format NVM): the format's index in bits 13:12 and 3:0, metadata settings in 4,
// protection information in 8:5, SES in 11:9.
func formatNVMe(ns Namespace, crypto bool, timeout time.Duration) NVMeCommand {
	ses := uint32(1)
	if crypto {
		ses = 2
	}
	index, f, d := uint32(ns.lbaFormat()), uint32(ns.Format), uint32(ns.Protection)
	w := index&0xf | f>>4&1<<4 | d&7<<5 | d>>3&1<<8 | ses<<9 | index>>4<<12
	return NVMeCommand{Opcode: nvmeFormat, NSID: ns.ID, CDW10: w, Timeout: timeout}
}
