// Package drive speaks the commands of drives that a kernel does not give a name: what a drive says that it can erase, erasing by NVMe,
// ATA, SCSI and eMMC, and what a drive says of its own health. It sends them through the kernel (NVME_IOCTL_ADMIN_CMD, SG_IO,
// MMC_IOC_MULTI_CMD) and needs no other program.
//
// A command that destroys takes a [Permit] that names one drive. Before each such command the drive is asked again who it is, and the
// machine whether it is in use; a permit for another drive, or none, is refused with [ErrNotPermitted] and nothing is sent. What must not
// be sent cannot be said: there is no Format without a secure erase, no master password, no maximum security level, no capacity that
// stays changed, and no failure mode that is left without being asked to.
//
// The package decides nothing: which method is used, whether one was successful and what that proves is said above. It does not read or
// write blocks (hw/block does, beside an open drive), and it does not wait: an operation that goes on in the background is polled by who
// started it. There was no eMMC and no drive that encrypts by itself to try their commands on: those are held to what Linux sends.
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
//	TCG       Storage Architecture Core Specification 2.01, and block/sed-opal.c of Linux 6.1, which cites it; big endian. The Enterprise SSC
//	          1.01 as sedutil has it
//	eMMC      JEDEC JESD84-B51 by the names and numbers of include/linux/mmc/mmc.h and drivers/mmc/core of Linux 6.1
//	smartctl  drivedb.h and scsiprint.cpp of smartmontools 7.3, for what makers mean by the attributes of SMART, which no standard says
//	libnvme   libnvme 3 (linux-nvme/nvme-cli, nvme-cmds-base.h and nvme-types-base.h), for what 2.1 does not have: PREQ, PRGD, SPRRS
//	Linux     include/uapi/linux/nvme_ioctl.h, linux/mmc/ioctl.h and include/scsi/sg.h, numbers in the machine's order
package drive
