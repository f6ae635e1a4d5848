package state

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// MaxMark is the most bytes that a mark may have.
const MaxMark = maxSmall

// Mark is the content of the mark file in the root of the main system. That the file is there says that the restore which
// wrote the system came to its end.
type Mark struct {
	// Version is the format version; 0 is an empty mark, as the original system wrote it.
	Version int `json:"version"`
	// Release is the full name of the restored release, without ".upd".
	Release string `json:"release,omitempty"`
	// Request is the ID of the request that was fulfilled, "" if there was none.
	Request string `json:"request,omitempty"`
	// Serial is the serial number of the unit that restored the system.
	Serial string `json:"serial,omitempty"`
	// Time is when the restore ended.
	Time time.Time `json:"time,omitzero"`
}

// ParseMark parses a mark. An empty one is a mark too and gives the zero value.
func ParseMark(b []byte) (Mark, error) {
	if strings.TrimSpace(string(b)) == "" {
		return Mark{}, nil
	}
	return parse[Mark]("mark", b)
}

// Marshal returns the mark as JSON. It sets the version and refuses what ParseMark would.
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

// MaxBoot is the most bytes that BootFile may have.
const MaxBoot = maxUnit

// BootFile is where init tells the running system about the boot, as Boot in JSON. /run is handed over with its content.
const BootFile = "/run/gprovision/boot.json"

// RunQueue is where init leaves the records of a normal boot that the server does not have: in memory, so that a boot does not
// write them to a disk. The running system puts them on the recovery volume, or sends them.
const RunQueue = "/run/gprovision/queue"

// Boot is what init tells the running system about this boot. It is lost at power-off.
type Boot struct {
	// Version is the format version.
	Version int `json:"version"`
	// ID is the boot identifier that init reported with, see unit/report.
	ID string `json:"id"`
	// Job is the job that led to the running system, and Reason why it was chosen.
	Job    string `json:"job"`
	Reason string `json:"reason,omitempty"`
	// Attempts is how many boots were handed over since the last good one, this one included.
	Attempts int `json:"attempts,omitempty"`
	// HandOver is when init handed over, and Milliseconds how long after its own start.
	HandOver     time.Time `json:"handOver,omitzero"`
	Milliseconds int64     `json:"milliseconds,omitempty"`
	// Build is the build number of the boot artifact.
	Build uint64 `json:"build,omitempty"`
	// Watchdog is the hardware watchdog, as init left it.
	Watchdog Watchdog `json:"watchdog,omitzero"`
	// Defects are what init found wrong with the unit and started it all the same, each as its code, a colon and a sentence.
	Defects []string `json:"defects,omitempty"`
	// ServerCA holds the certificates, in PEM, that may vouch for the factory server, from the policy of the boot artifact.
	// The running system has no policy of its own.
	ServerCA string `json:"serverCA,omitempty"`
}

// Watchdog is a hardware watchdog as init left it. The zero value is that of a machine without one.
type Watchdog struct {
	// Device is its device node and Identity what its driver calls it.
	Device   string `json:"device,omitempty"`
	Identity string `json:"identity,omitempty"`
	// Running reports whether it runs: something in the running system must have it before Seconds after the decision to boot are over.
	Running bool `json:"running,omitempty"`
	Seconds int  `json:"seconds,omitempty"`
	// Expired reports whether it ended the boot before this one.
	Expired bool `json:"expired,omitempty"`
}

// ParseBoot parses the content of BootFile.
func ParseBoot(b []byte) (Boot, error) { return parse[Boot]("boot.json", b) }

// Marshal returns b as JSON. It sets the version and refuses what ParseBoot would.
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
