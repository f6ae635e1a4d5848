package state

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// MaxMark is the largest size of a mark, in bytes.
const MaxMark = maxSmall

// Mark is the content of the mark file in the root of the main system. The file is there only if the restore that
// wrote the system was completed.
type Mark struct {
	// Version is the format version. It is 0 for an empty mark, as the original system wrote it.
	Version int `json:"version"`
	// Release is the full name of the restored release, without ".upd".
	Release string `json:"release,omitempty"`
	// Request is the ID of the request that the restore fulfilled, or "".
	Request string `json:"request,omitempty"`
	// Serial is the serial number of the unit that restored the system.
	Serial string `json:"serial,omitempty"`
	// Time is when the restore ended.
	Time time.Time `json:"time,omitzero"`
}

// ParseMark parses a mark. An empty mark is valid and gives the zero value.
func ParseMark(b []byte) (Mark, error) {
	if strings.TrimSpace(string(b)) == "" {
		return Mark{}, nil
	}
	return parse[Mark]("mark", b)
}

// Marshal returns the mark as JSON. It sets the version, and returns an error for what ParseMark would refuse.
func (m Mark) Marshal() ([]byte, error) {
	m.Version = Version
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("format mark: %w", err)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("format mark: %w", err)
	}
	return append(b, '\n'), nil
}

func (m Mark) validate() error {
	if m.Request != "" && !isID(m.Request) {
		return fmt.Errorf("request is not 8 to 64 hexadecimal digits")
	}
	if err := printable("release", m.Release, 256); err != nil {
		return err
	}
	return printable("serial", m.Serial, 256)
}

// MaxBoot is the largest size of BootFile, in bytes.
const MaxBoot = maxUnit

// BootFile is where init leaves a Boot, in JSON, for the running system. The hand-over includes the content of /run.
const BootFile = "/run/gprovision/boot.json"

// RunQueue is where init leaves those records of a normal boot that the server does not have yet. It is in memory, so
// that a boot does not write them to a disk. The running system moves them to the recovery volume or sends them.
const RunQueue = "/run/gprovision/queue"

// Boot is what init tells the running system about this boot. It is lost at power-off.
type Boot struct {
	// Version is the format version.
	Version int `json:"version"`
	// ID is the boot identifier under which init reported (unit/report).
	ID string `json:"id"`
	// Job is the job that led to the running system. Reason is why it was chosen.
	Job    string `json:"job"`
	Reason string `json:"reason,omitempty"`
	// Attempts is the number of hand-overs since the last good boot, including this one.
	Attempts int `json:"attempts,omitempty"`
	// HandOver is when init handed over. Milliseconds is the time since init's own start.
	HandOver     time.Time `json:"handOver,omitzero"`
	Milliseconds int64     `json:"milliseconds,omitempty"`
	// Build is the build number of the boot artifact.
	Build uint64 `json:"build,omitempty"`
	// Watchdog is the state in which init left the hardware watchdog.
	Watchdog Watchdog `json:"watchdog,omitzero"`
	// Defects are faults that init found and that did not prevent the boot. Each is a code, a colon and a sentence.
	Defects []string `json:"defects,omitempty"`
	// ServerCA holds the certificates that may vouch for the factory server, in PEM. They come from the policy of the
	// boot artifact. The running system has no policy of its own.
	ServerCA string `json:"serverCA,omitempty"`
}

// Watchdog is the state in which init left a hardware watchdog. The zero value means that the machine has none.
type Watchdog struct {
	// Device is the device node. Identity is the driver's name for the watchdog.
	Device   string `json:"device,omitempty"`
	Identity string `json:"identity,omitempty"`
	// Running reports whether the watchdog runs. If so, the running system must take it over within Seconds of the
	// decision to boot.
	Running bool `json:"running,omitempty"`
	Seconds int  `json:"seconds,omitempty"`
	// Expired reports whether the watchdog ended the previous boot.
	Expired bool `json:"expired,omitempty"`
}

// ParseBoot parses the content of BootFile.
func ParseBoot(b []byte) (Boot, error) { return parse[Boot]("boot.json", b) }

// Marshal returns b as JSON. It sets the version, and returns an error for what ParseBoot would refuse.
func (b Boot) Marshal() ([]byte, error) {
	b.Version = Version
	if err := b.validate(); err != nil {
		return nil, fmt.Errorf("format boot.json: %w", err)
	}
	out, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("format boot.json: %w", err)
	}
	return append(out, '\n'), nil
}

const maxDefects = 16

var bootIDForm = regexp.MustCompile(`^[0-9A-Za-z._-]*$`)

func (b Boot) validate() error {
	if len(b.ID) > 128 || !bootIDForm.MatchString(b.ID) {
		return fmt.Errorf("id has a wrong form")
	}
	if len(b.ServerCA) > maxUnit/2 {
		return fmt.Errorf("serverCA has %d bytes", len(b.ServerCA))
	}
	if b.Attempts < 0 || b.Attempts > maxCount {
		return fmt.Errorf("attempts is out of range")
	}
	if len(b.Defects) > maxDefects {
		return fmt.Errorf("there are %d defects, want at most %d", len(b.Defects), maxDefects)
	}
	for _, d := range b.Defects {
		if err := printable("defect", d, 256); err != nil {
			return err
		}
	}
	if b.Milliseconds < 0 || b.Watchdog.Seconds < 0 {
		return fmt.Errorf("a time is negative")
	}
	for name, text := range map[string]string{"job": b.Job, "device of the watchdog": b.Watchdog.Device, "identity of the watchdog": b.Watchdog.Identity} {
		if err := printable(name, text, 64); err != nil {
			return err
		}
	}
	return printable("reason", b.Reason, 512)
}
