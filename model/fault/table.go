package fault

// Network and server.
var (
	NoNetwork     = &Fault{"G101", "No network", "Check the cable", "no port got an address from a DHCP server", "check the cable, the switch and the DHCP server of the station"}
	NoServer      = &Fault{"G102", "No server", "Check the server", "the factory server does not answer", "check that gprov serve runs and that this unit can reach it"}
	ServerRefused = &Fault{"G103", "Server refuses", "See the log", "the factory server refused a request", "the unit's log has the server's words, the server's log the request"}
	EnrolRefused  = &Fault{"G104", "Not enrolled", "Boot over network", "the factory server did not enrol this unit", "boot again over the network for a new token, or approve the unit on the server's page"}
	NotReleased   = &Fault{"G105", "Not released", "Release on server", "this unit is provisioned already and nobody released it for another time", "press 'provision again' beside the unit on the server's page"}
	NoCredentials = &Fault{"G106", "No credentials", "See server page", "the factory server gave no credentials", "check that the server has an operator key and that this unit's credentials are not confirmed already"}
	PlainSecrets  = &Fault{"G107", "Not encrypted", "Use https", "the server's address for credentials is not encrypted", "LogEndpoint in the manifest must be an https address, and the policy must hold the server's CA"}
)

// Manifest.
var (
	ManifestMissing    = &Fault{"G111", "No manifest", "Check mfgurl", "the manifest cannot be fetched", "check the address in mfgurl and that the server has the file"}
	ManifestSyntax     = &Fault{"G112", "Bad manifest", "gprov manifest", "the manifest is not valid", "run 'gprov manifest check' on it"}
	ManifestUnsigned   = &Fault{"G113", "No signature", "Sign manifest", "the manifest is not signed", "sign it with 'gprov manifest make --key', or allow unsigned files in the policy"}
	ManifestSignature  = &Fault{"G114", "Bad signature", "Sign manifest", "the manifest's signature does not hold", "sign it with a key whose public half is in the policy of this artifact"}
	ManifestIncomplete = &Fault{"G115", "Manifest gaps", "gprov manifest", "the manifest lacks what this platform needs", "add the specification, the image and the boot artifact for this platform"}
	ManifestRefused    = &Fault{"G117", "Other manifest", "Sign it anew", "the manifest is of another product, or older than one that was used", "sign the content that is wanted with the unit's product and a higher serial number: gprov manifest make --product --serial"}
	NoManifestURL      = &Fault{"G116", "No mfgurl", "Boot over network", "the kernel argument mfgurl is missing", "boot over the network from the factory server"}
	StepFailed         = &Fault{"G118", "Step failed", "See the log", "a command of the manifest's own steps failed",
		"the log has the command and what it printed; correct the step, or what it works on"}
)

// Hardware and disks.
var (
	PlatformUnknown = &Fault{"G121", "Unknown unit", "Check DMI data", "no platform of the appliance table matches this machine", "compare 'gprov platform capture' with the appliance table"}
	QAMismatch      = &Fault{"G122", "Wrong hardware", "See QA lines", "the hardware does not match its specification", "the QA lines show what was found, what is expected and the rule"}
	NoSerial        = &Fault{"G123", "No serial", "Set DMI serial", "this machine has no serial number", "set the serial number that the platform names in SerNumField"}
	DiskMissing     = &Fault{"G131", "Disk missing", "Check the disks", "no disk fits what the platform plans", "check that the disk is there, and its size against the appliance table"}
	DiskTooSmall    = &Fault{"G132", "Disk too small", "Use a larger disk", "a disk is too small", "use a disk of the size that the appliance table or the manifest names"}
	DiskAmbiguous   = &Fault{"G133", "Two disks fit", "Remove one disk", "two disks fit equally well", "remove one of them, or make the appliance table more exact"}
	Disk4KnBIOS     = &Fault{"G134", "4Kn on BIOS", "Use UEFI", "a disk with 4096-byte sectors cannot boot on BIOS", "use UEFI firmware or a disk with 512-byte sectors"}
	DiskWrite       = &Fault{"G135", "Disk error", "Replace the disk", "a disk cannot be read or written", "see the log for the device, and replace it"}
	BootSetup       = &Fault{"G136", "Boot setup", "Support", "the unit cannot be made bootable", "see the log; on UEFI check that the firmware lets boot entries be written"}
	NoBMC           = &Fault{"G124", "No BMC", "Check the BMC", "the management controller does not answer",
		"take the power off for a minute; if it stays silent, the board or its firmware is faulty"}
	BurnInFailed = &Fault{"G126", "Burn-in failed", "See burn-in lines", "the unit did not stand its burn-in",
		"the burn-in's lines say which part, and the kernel's messages; replace it, and begin again by a key"}
	OnlyChecked = &Fault{"G127", "Only checked", "Not provisioned", "the unit was only checked, as PROVISION_MFG_TEST asks for",
		"nothing was written; to provision the unit start it without that kernel argument"}
	BMCRefused = &Fault{"G125", "BMC refuses", "See the log", "the management controller does not take what the manifest sets",
		"the log says which command it refused; reset it to its factory settings or update its firmware"}
)

// Downloads.
var (
	Download          = &Fault{"G141", "Download", "Check the server", "a file cannot be downloaded", "check the server and the network; the log shows the address"}
	DownloadHash      = &Fault{"G142", "Wrong hash", "Make manifest new", "a file is not the one the manifest names", "make the manifest again with 'gprov manifest make' from the files that are served"}
	DownloadTruncated = &Fault{"G143", "Download cut", "Check the server", "a download ends too early again and again", "check the file on the server against its size in the manifest"}
	NoSpace           = &Fault{"G144", "No space", "Larger disk", "the recovery volume is too small for what belongs on it", "use a larger recovery device"}
	ReadBack          = &Fault{"G145", "Bad readback", "Replace the disk", "a disk returns other data than was written", "replace the device that the log names"}
	HashMissing       = &Fault{"G146", "No hash", "Make manifest new", "the manifest names no hash that the policy accepts", "make the manifest again: it then has SHA-256"}
)

// Restore and boot.
var (
	NoImage           = &Fault{"G201", "No image", "Support", "there is no image to restore from", "provision the unit again, or use an emergency medium"}
	ImageName         = &Fault{"G202", "Image name", "Support", "an image has a wrong name", "the name must be PRODUCT.OS.PLATFORM.YYYY-MM-DD.NNNN.upd"}
	ImageUnsigned     = &Fault{"G203", "Not signed", "Support", "an image is not signed", "sign it with 'gprov image sign', or allow unsigned images in the policy"}
	ImageSignature    = &Fault{"G204", "Bad image key", "Support", "an image's signature does not hold", "the image is damaged, renamed, or signed with a key that is not in the policy"}
	ImageCorrupt      = &Fault{"G205", "Bad image", "Support", "an image is damaged", "provision the unit again, or fetch the image again"}
	OriginalUntrusted = &Fault{"G206", "Original key", "Sign it again", "the original image is not one that this release may restore", "the unit works; sign the original image with a key of the policy and have the unit fetch it"}
	NoRecovery        = &Fault{"G211", "No recovery", "Check its device", "the recovery volume was not found", "check the recovery device; provision the unit again if it was replaced"}
	RecoveryAmbiguous = &Fault{"G212", "Two recoveries", "Remove one", "two devices look like the recovery volume of this unit", "remove the one that does not belong to this unit"}
	RecoveryDamaged   = &Fault{"G213", "Recovery bad", "Support", "the recovery volume cannot be read", "repair or replace the recovery device"}
	RecoveryErrors    = &Fault{"G214", "Recovery errors", "Replace its device", "the recovery volume has errors that repairs did not remove", "the unit works; replace the recovery device soon, a restore may fail"}
	RequestDamaged    = &Fault{"G215", "Bad request", "Ask for it again", "the request on the recovery volume is damaged and was ignored", "if a restore was wanted, ask for it again"}
	RecoveryNewer     = &Fault{"G216", "Newer record", "Newer release", "the recovery volume was written by a newer release than this one", "start or fetch a release that is at least as new; nothing was changed and no device is bad"}
	OtherBoard        = &Fault{"G217", "Other mainboard", "Menu: adopt it", "the disks are of a unit with another mainboard",
		"if the mainboard was replaced, choose 'Adopt mainboard' in the menu; nothing is erased"}
	OtherFirmware = &Fault{"G218", "Other boot mode", "Firmware setup", "the unit was provisioned for the other boot mode of the firmware",
		"set the boot mode that the log names in the firmware's setup; nothing was changed"}
	MainMissing   = &Fault{"G221", "No main disk", "Check the disk", "the main disk does not answer", "check the main disk; nothing was changed on it"}
	MainAmbiguous = &Fault{"G222", "Two main disks", "Remove one", "two devices look like the main disk of this unit", "remove the one that does not belong to this unit"}
	MainDamaged   = &Fault{"G223", "Main damaged", "Restore or help", "the main disk is damaged and could not be repaired", "restore the unit if its data may be lost, or ask support; nothing was erased"}
	MainForeign   = &Fault{"G224", "Unknown disk", "Check the disk", "the main disk holds data that is not of this unit", "check the disk; a restore must be asked for explicitly"}
	ArrayDegraded = &Fault{"G225", "Array degraded", "Replace the disk", "the array of the main system lacks a disk", "the unit works; replace the disk that is missing before another one fails"}
	TableChanged  = &Fault{"G271", "Table changed", "Provision again", "the partition table of the unit's disk is not the recorded one", "nothing was changed; provision the unit again if its data may be lost"}
	PlanChanged   = &Fault{"G272", "Other disk plan", "Provision again", "the platform plans other disks than the unit was provisioned with", "install a release whose appliance table fits, or provision the unit again"}
	TableDamaged  = &Fault{"G273", "Table damaged", "Replace the disk", "the partition table of a disk of the unit is damaged and its copy was used", "see the log for the disk; if it happens again, replace it"}
	SwitchRoot    = &Fault{"G231", "No hand-over", "Support", "the installed system cannot be started", "restore the unit"}
)

// Emergency medium, recovery stick, recovery shell.
var (
	MediumUnusable = &Fault{"G251", "Bad medium", "Remove the medium", "the files on the emergency medium cannot be used", "put a signed image for this platform on it, as EmergencyFile_NAME.upd with EmergencyFile_NAME.upd.minisig beside it"}
	MediumNotAsked = &Fault{"G252", "Confirm medium", "Confirm or remove", "an emergency medium is plugged in and nobody confirmed the restore from it", "confirm the restore on a panel, or remove the medium"}
	NoRebuild      = &Fault{"G253", "No rebuild", "See the log", "the recovery volume cannot be rebuilt from the stick", "the log says what is missing; provision the unit again if it cannot be had"}
	ShellLocked    = &Fault{"G254", "Shell locked", "Boot or ask support", "the recovery shell is locked after too many wrong passwords", "let the unit start normally once, or have support answer the challenge"}
	NoBundle       = &Fault{"G255", "No bundle", "Check the stick", "the support bundle cannot be saved to the stick", "use a stick that 'gprov stick make' wrote, with free space on it"}
)

// Erase.
var (
	EraseNotConfirmed = &Fault{"G261", "Confirm erase", "Confirm or restart",
		"the kernel command line asks for a data erase and nobody confirmed it",
		"say yes when the unit asks, or start it without DATA_ERASE; nothing was erased"}
	EraseStopped = &Fault{"G262", "Erase stopped", "See the log", "the erase could not go on and is begun again by itself",
		"see the log for the disk; the unit starts nothing else meanwhile"}
	EraseWeaker = &Fault{"G263", "Erased, weaker", "Press a key", "the data is erased by a method that leaves something open",
		"the certificate says what; a person accepts it by a key, or the policy does"}
	EraseUnknown = &Fault{"G264", "Erase unknown", "Erase again", "it is not known whether the data is gone",
		"erase again, or destroy the disks; the certificate says what is missing"}
	EraseFailed = &Fault{"G265", "Erase failed", "Erase again", "data is left on a disk",
		"erase again, or destroy the disk; the certificate says which one"}
	EraseNowhere = &Fault{"G266", "No certificate", "Plug in a stick", "the certificate of an erase of the whole unit could be kept nowhere",
		"plug in a recovery stick or a network cable and erase again; nothing was erased"}
)

// The running system.
var (
	FetchRefused = &Fault{"G281", "Bad source", "See policy", "the policy does not let this unit fetch from there", "fetch from a host in fetchHosts of the policy, over https, with a key that fetchPins names"}
	NoPolicy     = &Fault{"G282", "No policy", "Reboot the unit", "init handed no policy to the running system", "reboot; a unit whose boot artifact is too old to do so must be restored to a newer release"}
)

// General.
var (
	Policy   = &Fault{"G901", "Not allowed", "See policy", "the policy of this artifact does not allow it", "use an artifact whose policy allows it"}
	Internal = &Fault{"G902", "Internal error", "Support", "something went wrong inside", "send the log to support"}
)

// All returns every Fault, ordered by code.
func All() []*Fault {
	return []*Fault{
		NoNetwork, NoServer, ServerRefused, EnrolRefused, NotReleased, NoCredentials, PlainSecrets,
		ManifestMissing, ManifestSyntax, ManifestUnsigned, ManifestSignature, ManifestIncomplete, NoManifestURL, ManifestRefused, StepFailed,
		PlatformUnknown, QAMismatch, NoSerial, NoBMC, BMCRefused, BurnInFailed, OnlyChecked,
		DiskMissing, DiskTooSmall, DiskAmbiguous, Disk4KnBIOS, DiskWrite, BootSetup,
		Download, DownloadHash, DownloadTruncated, NoSpace, ReadBack, HashMissing,
		NoImage, ImageName, ImageUnsigned, ImageSignature, ImageCorrupt, OriginalUntrusted,
		NoRecovery, RecoveryAmbiguous, RecoveryDamaged, RecoveryErrors, RequestDamaged, RecoveryNewer, OtherBoard, OtherFirmware, MainMissing, MainAmbiguous, MainDamaged, MainForeign, ArrayDegraded, SwitchRoot,
		MediumUnusable, MediumNotAsked, NoRebuild, ShellLocked, NoBundle,
		EraseNotConfirmed, EraseStopped, EraseWeaker, EraseUnknown, EraseFailed, EraseNowhere,
		TableChanged, PlanChanged, TableDamaged,
		FetchRefused, NoPolicy,
		Policy, Internal,
	}
}
