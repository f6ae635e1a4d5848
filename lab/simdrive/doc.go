// Package simdrive is simulated drives at the level of their commands: NVMe, ATA, SCSI and eMMC, also behind a USB bridge, honest or
// lying. A [Drive] is a Device of hw/drive, so whatever erases real drives runs on it, and it reads and writes blocks as a file does that
// was opened with O_DIRECT.
//
// A drive is a value of [Config] and one of [Faults]: what it is, and what is wrong with it. Time is a [Clock] that only moves when
// somebody moves it or a command takes time; nothing sleeps. All that looks like chance comes from Config.Seed, so a run can be repeated.
//
// What no host can see is known here: [Drive.Residue] says how much of what was on a drive before [Drive.Mark] is still on its medium,
// where a host can read it and where none can.
//
// A drive is not safe for use by several goroutines at once.
package simdrive
