// Package erasure judges whether the data of a unit is gone, and holds the certificate that says so: the rules that make an outcome of
// what a drive said and of what was read from it, the places that are read, the certificate and its check.
//
// Two witnesses are heard of each device: the drive, which says that it has erased, and samples that were chosen and read before and are
// read again afterwards. An outcome is Proved only if both say so and the reader of the samples was seen to find something (the negative
// control). Whoever has the evidence comes to the same outcome: a certificate holds the evidence, and its check judges again.
//
// It sends no command and reads no device. The terms are those of NIST SP 800-88r2 and IEEE 2883. docs/formats/erase-certificate.md
// describes the format and the rules.
package erasure

// Outcome says how an erase ended. Only Proved is shown as done.
type Outcome string

// The outcomes, from the best to the worst.
const (
	// Proved: both witnesses say that the data is gone, at the level that is named.
	Proved Outcome = "proved"
	// Weaker: both witnesses say so, by a method or with a coverage that leaves something open.
	Weaker Outcome = "weaker"
	// Unknown: a witness is missing, or could not be relied on.
	Unknown Outcome = "unknown"
	// Failed: data is left, or nothing erased it.
	Failed Outcome = "failed"
)

// rank orders outcomes: a higher one is worse. What is no outcome is worst.
func (o Outcome) rank() int {
	for i, x := range []Outcome{Proved, Weaker, Unknown, Failed} {
		if o == x {
			return i
		}
	}
	return 4
}

// Level says against whom an erase holds, by NIST SP 800-88.
type Level string

// The levels. The empty one is that of no erase at all.
const (
	// Clear holds against whoever reads the device by its ordinary commands.
	Clear Level = "clear"
	// Purge holds against a laboratory.
	Purge Level = "purge"
)

// rank orders levels: a higher one is stronger.
func (l Level) rank() int {
	switch l {
	case Clear:
		return 1
	case Purge:
		return 2
	}
	return 0
}

// Method is a way to erase a device.
type Method string

// The methods.
const (
	NVMeSanitizeCrypto    Method = "nvme-sanitize-crypto"
	NVMeSanitizeBlock     Method = "nvme-sanitize-block"
	NVMeSanitizeOverwrite Method = "nvme-sanitize-overwrite"
	NVMeFormatCrypto      Method = "nvme-format-crypto" // SES 2
	NVMeFormatUser        Method = "nvme-format-user"   // SES 1
	ATASanitizeCrypto     Method = "ata-sanitize-crypto"
	ATASanitizeBlock      Method = "ata-sanitize-block"
	ATASanitizeOverwrite  Method = "ata-sanitize-overwrite"
	ATASecurityEnhanced   Method = "ata-security-enhanced"
	ATASecurityNormal     Method = "ata-security-normal"
	SCSISanitizeCrypto    Method = "scsi-sanitize-crypto"
	SCSISanitizeBlock     Method = "scsi-sanitize-block"
	SCSISanitizeOverwrite Method = "scsi-sanitize-overwrite"
	SCSIFormatUnit        Method = "scsi-format-unit"
	MMCSanitize           Method = "mmc-sanitize" // erase, then sanitize
	MMCSecureErase        Method = "mmc-secure-erase"
	TCGRevert             Method = "tcg-revert" // by PSID, that a person types
	Overwrite             Method = "overwrite"  // the host writes every sector
)

// kind says which of the words of a Word is that of a method.
type kind string

// kinds are named as the keys of a Word in JSON.
const (
	kindNVMeSanitize kind = "nvmeSanitize"
	kindNVMeFormat   kind = "nvmeFormat"
	kindATASanitize  kind = "ataSanitize"
	kindATASecurity  kind = "ataSecurity"
	kindSCSI         kind = "scsi"
	kindMMC          kind = "mmc"
	kindTCG          kind = "tcg"
	kindOverwrite    kind = "overwrite"
)

// method is what is known of a Method.
type method struct {
	name  Method
	level Level
	kind  kind
}

// methods is the table of all methods. Purge is what a Sanitize command does, and nothing else: where the standards differ about an older
// command, the lower level is the one that no reader of a certificate can object to.
func methods() []method {
	return []method{
		{NVMeSanitizeCrypto, Purge, kindNVMeSanitize},
		{NVMeSanitizeBlock, Purge, kindNVMeSanitize},
		{NVMeSanitizeOverwrite, Purge, kindNVMeSanitize},
		{NVMeFormatCrypto, Clear, kindNVMeFormat},
		{NVMeFormatUser, Clear, kindNVMeFormat},
		{ATASanitizeCrypto, Purge, kindATASanitize},
		{ATASanitizeBlock, Purge, kindATASanitize},
		{ATASanitizeOverwrite, Purge, kindATASanitize},
		{ATASecurityEnhanced, Clear, kindATASecurity},
		{ATASecurityNormal, Clear, kindATASecurity},
		{SCSISanitizeCrypto, Purge, kindSCSI},
		{SCSISanitizeBlock, Purge, kindSCSI},
		{SCSISanitizeOverwrite, Purge, kindSCSI},
		{SCSIFormatUnit, Clear, kindSCSI},
		{MMCSanitize, Purge, kindMMC},
		{MMCSecureErase, Clear, kindMMC},
		{TCGRevert, Clear, kindTCG},
		{Overwrite, Clear, kindOverwrite},
	}
}

// find returns what is known of m, and nothing for what is no method.
func (m Method) find() method {
	for _, x := range methods() {
		if x.name == m {
			return x
		}
	}
	return method{}
}

// Level returns the level that m reaches at best, and none for what is no method.
func (m Method) Level() Level { return m.find().level }

// Media says what a device keeps its data on.
type Media string

// The kinds of media.
const (
	Rotating     Media = "rotating"
	Flash        Media = "flash"
	UnknownMedia Media = "unknown" // nobody says
)

// Path says what is between the host and a device.
type Path string

// The paths.
const (
	Direct  Path = "direct"  // nothing: NVMe, SATA, SAS, eMMC
	USB     Path = "usb"     // a bridge
	RAID    Path = "raid"    // a controller that shows volumes
	Virtual Path = "virtual" // a hypervisor
)

// Evidence is all that the outcome of one device is made of. It belongs to the method that ran last; what was tried before is among the
// commands of the certificate.
type Evidence struct {
	// Method is the one that erased, empty if none did.
	Method Method `json:"method"`
	// Media says what the data was on.
	Media Media `json:"media"`
	// Path says how the device is reached.
	Path Path `json:"path"`
	// Reallocated is how many sectors the drive has replaced by others; nothing where it does not say.
	Reallocated *Count `json:"reallocated,omitempty"`
	// Part reports that ranges were erased and not the whole device, since the recovery volume is on it too.
	Part bool `json:"part"`
	// Hidden is how many sectors the drive has beyond those that could be reached.
	Hidden Count `json:"hidden"`
	// Locked reports that the drive encrypts and gave no access.
	Locked bool `json:"locked"`
	// FailureMode reports that the drive takes no command but another Sanitize, at the end of it all.
	FailureMode bool `json:"failureMode"`
	// MediaVerified reports that the drive let its media be read after the Sanitize (NVMe media verification state), and that they were read
	// in it with enough samples, none of them as before.
	MediaVerified bool `json:"mediaVerified"`
	// Word is what the drive said.
	Word Word `json:"word"`
	// Samples is what was read.
	Samples Samples `json:"samples"`
	// Control is the negative control.
	Control Control `json:"control"`
}

// Word is what a drive said of its erase: the one field that belongs to the method.
type Word struct {
	NVMeSanitize *NVMeSanitizeWord `json:"nvmeSanitize,omitempty"`
	NVMeFormat   *NVMeFormatWord   `json:"nvmeFormat,omitempty"`
	ATASanitize  *ATASanitizeWord  `json:"ataSanitize,omitempty"`
	ATASecurity  *ATASecurityWord  `json:"ataSecurity,omitempty"`
	SCSI         *SCSIWord         `json:"scsi,omitempty"`
	MMC          *MMCWord          `json:"mmc,omitempty"`
	TCG          *TCGWord          `json:"tcg,omitempty"`
	Overwrite    *OverwriteWord    `json:"overwrite,omitempty"`
}

// SanitizeLog is the Sanitize Status log page of NVMe (0x81) as far as it counts.
type SanitizeLog struct {
	// Status is SSTAT, bits 2:0: 0 never, 1 completed, 2 in progress, 3 failed, 4 completed and deallocated all the same.
	Status uint8 `json:"status"`
	// Command is SCDW10, the parameters of the command that it speaks of.
	Command uint32 `json:"command"`
	// Erased is the bit Global Data Erased.
	Erased bool `json:"erased"`
	// Purged is the bit PRGD.
	Purged bool `json:"purged"`
}

// NVMeSanitizeWord is that of NVMe Sanitize.
type NVMeSanitizeWord struct {
	// Command is CDW10 as it was sent.
	Command uint32 `json:"command"`
	// PurgeRequired reports that PREQ was sent: purge or fail.
	PurgeRequired bool `json:"purgeRequired"`
	// NoDeallocate reports that the drive was told to keep its blocks mapped, and that it does not write to them once more afterwards.
	NoDeallocate bool `json:"noDeallocate"`
	// Before is the log before the command was sent, nothing if it could not be read.
	Before *SanitizeLog `json:"before,omitempty"`
	// SeenInProgress reports that the log said so after the command was sent.
	SeenInProgress bool `json:"seenInProgress"`
	// After is the log at the end.
	After *SanitizeLog `json:"after,omitempty"`
}

// NVMeFormatWord is that of NVMe Format.
type NVMeFormatWord struct {
	// Namespaces is how many the subsystem has, those that are attached to nothing too.
	Namespaces uint32 `json:"namespaces"`
	// Formats are the commands that were sent, at least one for each namespace.
	Formats []NamespaceFormat `json:"formats,omitempty"`
}

// NamespaceFormat is one Format command.
type NamespaceFormat struct {
	// ID is the namespace.
	ID uint32 `json:"id"`
	// SES is the secure erase setting: 1 user data, 2 cryptographic.
	SES uint8 `json:"ses"`
	// Status is that of the completion, 0 for success.
	Status uint16 `json:"status"`
}

// ATASanitizeWord is that of ATA Sanitize, by SANITIZE STATUS EXT.
type ATASanitizeWord struct {
	// CompletedBefore reports that the drive said "completed without error" before the command was sent.
	CompletedBefore bool `json:"completedBefore"`
	// SeenInProgress reports that it said "in progress" after the command was sent.
	SeenInProgress bool `json:"seenInProgress"`
	// InProgress and Completed are what it said at the end.
	InProgress bool `json:"inProgress"`
	// Completed reports "completed without error".
	Completed bool `json:"completed"`
}

// ATASecurityWord is that of SECURITY ERASE UNIT.
type ATASecurityWord struct {
	// Good reports that the command ended without an error.
	Good bool `json:"good"`
	// Disabled reports that IDENTIFY DEVICE says afterwards that security is not enabled: the password is gone.
	Disabled bool `json:"disabled"`
}

// SCSIWord is that of SANITIZE and FORMAT UNIT. It does not outlast the power.
type SCSIWord struct {
	// Immediate is the bit IMMED of the command.
	Immediate bool `json:"immediate"`
	// Status is that of the command, 0 for GOOD.
	Status uint8 `json:"status"`
	// SeenInProgress reports that REQUEST SENSE said so.
	SeenInProgress bool `json:"seenInProgress"`
	// NoSense reports that REQUEST SENSE had nothing to say at the end.
	NoSense bool `json:"noSense"`
	// SeenFailed reports that REQUEST SENSE said "sanitize command failed" or "format command failed" at any time.
	SeenFailed bool `json:"seenFailed"`
	// PowerLost reports that the power went between the command and the end.
	PowerLost bool `json:"powerLost"`
}

// MMCWord is that of an eMMC.
type MMCWord struct {
	// Erased reports that the erase of the whole user area, a secure one where that is the method, ended without an error.
	Erased bool `json:"erased"`
	// Sanitized reports that the sanitize after it did. There is none after a secure erase.
	Sanitized bool `json:"sanitized"`
}

// TCGWord is that of a drive that encrypts.
type TCGWord struct {
	// Reverted reports that the method Revert had the status SUCCESS.
	Reverted bool `json:"reverted"`
	// Unlocked reports that Level 0 Discovery says afterwards that locking is not enabled; of a drive of the Enterprise SSC, where it is so
	// from the factory, that nothing is locked.
	Unlocked bool `json:"unlocked"`
}

// OverwriteWord is that of the writes of the host.
type OverwriteWord struct {
	// Sectors is how many the device has, or those of the ranges of a Part.
	Sectors Count `json:"sectors"`
	// Written is how many were written without an error.
	Written Count `json:"written"`
	// Flushed reports that every flush succeeded.
	Flushed bool `json:"flushed"`
	// ReadBack is how many were read back, uncached, as the keyed stream, before the zeros.
	ReadBack Count `json:"readBack"`
	// Different is how many were read back as something else.
	Different Count `json:"different"`
}

// Samples is what was read from a device before any erase and again after it.
type Samples struct {
	// Blocks is how many blocks the places were chosen among.
	Blocks Count `json:"blocks"`
	// Read is how many were read after the erase in all: more than the places where every block is read.
	Read Count `json:"read"`
	// Ends are the first and the last block: canaries at places that everybody knows, so they are no part of the chance.
	Ends Places `json:"ends"`
	// Random are the places that nobody knew but the unit.
	Random Places `json:"random"`
	// Uninformative is how many of the chosen places are not among Random: they were constant before, or their canary was not read back.
	Uninformative Count `json:"uninformative"`
	// Reset says whether the controller was reset between the erase and the reading.
	Reset Reset `json:"reset"`
	// WrittenBefore reports that something was written to the device after the erase and before the reading.
	WrittenBefore bool `json:"writtenBefore"`
}

// Places counts places by what was found there after the erase.
type Places struct {
	// Changed is how many read as something else than before.
	Changed Count `json:"changed"`
	// Unchanged is how many read as before.
	Unchanged Count `json:"unchanged"`
	// Constant is how many read as one byte, again and again.
	Constant Count `json:"constant"`
	// Unreadable is how many could not be read.
	Unreadable Count `json:"unreadable"`
}

// clean is how many places say that the data is gone.
func (p Places) clean() Count { return p.Changed + p.Constant }

func (p Places) all() Count { return p.clean() + p.Unchanged + p.Unreadable }

// Reset says whether a controller was reset.
type Reset string

// What became of the reset.
const (
	ResetDone   Reset = "done"
	ResetNone   Reset = "none"   // the device has no reset
	ResetFailed Reset = "failed" // it has one, and it was not done
)

// Control is the negative control: a fresh canary by the same path, after the samples were read.
type Control struct {
	// Written reports that it was written and flushed.
	Written bool `json:"written"`
	// Reported reports that the reader of the samples said that it is there.
	Reported bool `json:"reported"`
	// Zeroed reports that it was zeroed again.
	Zeroed bool `json:"zeroed"`
}

// Verdict is the outcome of one device.
type Verdict struct {
	// Outcome is how it ended.
	Outcome Outcome
	// Level is the level of the method. It says something for Proved and Weaker only.
	Level Level
	// Reasons are why it is not Proved, the worst first, and remarks on what is.
	Reasons []Reason
}

// Judge makes the outcome of one device from the evidence. require is the level that the policy demands; empty: none.
func Judge(e Evidence, require Level) Verdict {
	return apply(rules(), e, e.Method.Level(), require)
}

// Combine returns the worst outcome of several devices, and the lowest level. Without any it is Unknown.
func Combine(verdicts []Verdict) (Outcome, Level) {
	if len(verdicts) == 0 {
		return Unknown, ""
	}
	worst, low := verdicts[0].Outcome, verdicts[0].Level
	for _, v := range verdicts[1:] {
		if v.Outcome.rank() > worst.rank() {
			worst = v.Outcome
		}
		if v.Level.rank() < low.rank() {
			low = v.Level
		}
	}
	return worst, low
}
