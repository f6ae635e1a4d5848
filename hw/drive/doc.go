// Package drive speaks the commands of drives that a kernel does not give a name: what a drive says that it can erase, and erasing by
// NVMe, ATA and SCSI. It sends them through the kernel (NVME_IOCTL_ADMIN_CMD, SG_IO) and needs no other program.
//
// A command that destroys takes a [Permit] that names one drive. Before each such command the drive is asked again who it is, and the
// machine whether it is in use; a permit for another drive, or none, is refused with [ErrNotPermitted] and nothing is sent. What must not
// be sent cannot be said: there is no Format without a secure erase, no master password, no maximum security level, no capacity that
// stays changed, and no failure mode that is left without being asked to.
//
// The package decides nothing: which method is used, whether one was successful and what that proves is said above. It does not read or
// write blocks (hw/block does, beside an open drive), and it does not wait: an operation that goes on in the background is polled by who
// started it. eMMC is left out: its erase needs several commands that no other may come between, and there was no card to try them on.
// Of drives that encrypt by themselves it is asked whether they are locked; reverting one by its PSID is left out.
//
// Sources. Each number in the code names its place in one of these, by section, figure or table where it was looked up, else by the
// field's name:
//
//	NVMe      NVM Express Base Specification 2.1 (2024-08-05); little endian
//	NVM       NVM Express NVM Command Set Specification 1.1; little endian
//	ACS-3     ATA/ATAPI Command Set - 3, revision 5 (T13 d2161r5); words little endian
//	ACS-2     ATA/ATAPI Command Set - 2: host protected area and device configuration overlay, which ACS-3 does not have any more
//	SAT       SCSI/ATA Translation - 3; big endian
//	SPC       SCSI Primary Commands - 5; big endian
//	SBC       SCSI Block Commands - 5; big endian, fields as in SBC-4
//	TCG       Storage Architecture Core Specification 2.01, Level 0 Discovery; big endian
//	Linux     include/uapi/linux/nvme_ioctl.h and include/scsi/sg.h, numbers in the machine's order
//
// The demand to purge or fail of later NVMe specifications (PREQ, PRGD) is not sent: 2.1 does not have it.
package drive
