package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"gprovision/hw/durable"
	"gprovision/model/record"
)

// More files on the recovery volume.
const (
	RestoreDataFile = "fr.data"      // RestoreData
	NetworkFile     = "log/netd.tar" // the network configuration that a restore keeps (unit/sysroot)
)

// MaxNetwork is the largest size of NetworkFile, in bytes.
const MaxNetwork = 1 << 20

// PolicyFile is where init leaves the policy of its boot artifact for the running system, which has none of its own.
// Its format is that of model/policy, its mode 0600. It is lost at power-off, like all of /run.
const PolicyFile = "/run/gprovision/policy.json"

// RestoreData says how the next restore should work. The keys are those of the original system, and a file without
// Version comes from it. The data are used once, unless Preserve is set.
type RestoreData struct {
	rest
	// Version is the format version. It is 0 in a file of the original system.
	Version int `json:",omitempty"`
	// Preserve keeps the file after the restore.
	Preserve bool `json:",omitempty"`
	// IgnoreNetCfg drops the saved network configuration. The restored system gets the defaults.
	IgnoreNetCfg bool `json:",omitempty"`
	// ClearHistory starts a new history of images before an image is chosen.
	ClearHistory bool `json:",omitempty"`
	// XLog is the server to report the restore to, in the form of the file (see Server). If it is empty, the server
	// in the unit's record is used.
	XLog string `json:",omitempty"`
	// BootArgs are kernel arguments for the restored system. Only those that AllowedArgs accepts are used.
	BootArgs string `json:",omitempty"`
}

// ParseRestoreData parses fr.data.
func ParseRestoreData(b []byte) (RestoreData, error) {
	var d RestoreData
	if err := decode(bytes.TrimSpace(b), &d); err != nil {
		return RestoreData{}, fmt.Errorf("parse %s: %w: %v", RestoreDataFile, ErrDamaged, err)
	}
	if d.Version > Version {
		return RestoreData{}, fmt.Errorf("parse %s: version %d: %w", RestoreDataFile, d.Version, ErrNewer)
	}
	if err := d.validate(); err != nil {
		return RestoreData{}, fmt.Errorf("parse %s: %w: %v", RestoreDataFile, ErrDamaged, err)
	}
	keepUnknown(b, &d)
	return d, nil
}

func (d RestoreData) validate() error {
	if d.Version < 0 {
		return errors.New("negative Version")
	}
	if err := printable("BootArgs", d.BootArgs, 1024); err != nil {
		return err
	}
	return printable("XLog", d.XLog, 1024)
}

// Server returns the address of the server to report the restore to, or "" if the file names none. The address must
// be https, or HOST:PORT, which means https. Anything else is an error: files of the original system name servers of
// their own with other schemes. Such an error does not invalidate the rest of the data.
func (d RestoreData) Server() (string, error) {
	if d.XLog == "" {
		return "", nil
	}
	return record.Endpoint(d.XLog)
}

// Marshal returns d as JSON. It sets the version. It returns an error for what ParseRestoreData would refuse, and for
// arguments that are not allowed.
func (d RestoreData) Marshal() ([]byte, error) {
	d.Version = Version
	err := d.validate()
	if _, dropped := AllowedArgs(d.BootArgs); err == nil && len(dropped) > 0 {
		err = fmt.Errorf("the kernel arguments %q are not allowed", dropped)
	}
	if err != nil {
		return nil, fmt.Errorf("format %s: %w", RestoreDataFile, err)
	}
	b, err := marshal(d, maxSmall)
	if err != nil {
		return nil, fmt.Errorf("format %s: %w", RestoreDataFile, err)
	}
	return b, nil
}

// ReadRestoreData returns the restore data. If the file is missing, it returns the zero value and no error.
func (v *Volume) ReadRestoreData() (RestoreData, error) {
	b, err := v.read(RestoreDataFile, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return RestoreData{}, nil
	}
	if err != nil {
		return RestoreData{}, err
	}
	return ParseRestoreData(b)
}

// WriteRestoreData replaces the restore data. The zero value removes the file.
func (v *Volume) WriteRestoreData(d RestoreData) error {
	d.Version = 0
	return v.inside(func(r *os.Root) error {
		if d == (RestoreData{}) {
			return durable.RemoveIn(r, RestoreDataFile)
		}
		b, err := d.Marshal()
		if err != nil {
			return err
		}
		return durable.WriteIn(r, RestoreDataFile, b, durable.Owner{Mode: 0o600})
	})
}

// ReadNetwork returns the saved network configuration, a tar archive, or nil if there is none.
func (v *Volume) ReadNetwork() ([]byte, error) {
	b, err := v.read(NetworkFile, MaxNetwork)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// WriteNetwork replaces the saved network configuration. If b is nil, it removes the file.
func (v *Volume) WriteNetwork(b []byte) error {
	if b == nil {
		return v.inside(func(r *os.Root) error {
			if _, err := r.Lstat(NetworkFile); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return durable.RemoveIn(r, NetworkFile)
		})
	}
	if len(b) > MaxNetwork {
		return fmt.Errorf("write %s: %d bytes, want at most %d", NetworkFile, len(b), MaxNetwork)
	}
	return v.write(NetworkFile, b, 0o600)
}

// SetNetwork is WriteNetwork that writes only if something changes. It reports whether it did.
func (v *Volume) SetNetwork(b []byte) (changed bool, err error) {
	old, err := v.ReadNetwork()
	if err == nil && bytes.Equal(old, b) && (old == nil) == (b == nil) {
		return false, nil
	}
	return true, v.WriteNetwork(b)
}

// RollHistory makes room for a new history of images. An existing one is renamed to recovery_history.json.prev and
// replaces an older one there.
func (v *Volume) RollHistory() error {
	return v.inside(func(r *os.Root) error {
		switch err := r.Rename(HistoryFile, HistoryFile+".prev"); {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("roll %s: %w", HistoryFile, err)
		}
		return durable.SyncIn(r, LogDir)
	})
}

// allowedArgs are the kernel arguments that a recovery volume may set: what odd hardware needs in order to start, and
// what is shown on the way. None of them changes what starts, what is trusted, or what is protected. So they cannot
// switch off an IOMMU, exempt devices from it, or make a unit stay where its kernel died. None takes memory or
// processors away from the system either: a product that needs that says so in its policy or in the appliance table,
// which are signed. The map's values are regular expressions for the values of the arguments. They are compiled on
// use, because init is in a hurry.
var allowedArgs = map[string]string{
	"acpi":                                `^(force|strict|rsdt)$`,
	"acpi_osi":                            `^!?[A-Za-z0-9._-]{0,32}$`,
	"biosdevname":                         `^[01]$`,
	"console":                             `^tty[A-Za-z0-9]*(,[0-9]{1,7}[neo]?[78]?r?)?$`,
	"consoleblank":                        argNumber,
	"debug":                               argNone,
	"intel_idle.max_cstate":               `^[0-9]$`,
	"intel_iommu":                         `^on(,sm_on)?$`,
	"iommu":                               `^force$`,
	"libata.force":                        argWords(`([0-9]{1,2}(\.[0-9]{1,2})?:)?(1\.5Gbps|3\.0Gbps|6\.0Gbps|noncq|noncqtrim|nolpm|norst|nodmalog|udma[0-9]{1,3})`),
	"loglevel":                            `^[0-7]$`,
	"net.ifnames":                         `^[01]$`,
	"nmi_watchdog":                        `^1$`,
	"nomodeset":                           argNone,
	"nvme_core.default_ps_max_latency_us": argNumber,
	"panic":                               `^[1-9][0-9]{0,2}$`,
	"pci":                                 argWords(`(noaer|noari|nocrs|use_crs|nommconf|nomsi|assign-busses|realloc|realloc=on|realloc=off|pcie_bus_safe|pcie_bus_tune_off)`),
	"pcie_aspm":                           `^(off|force)$`,
	"pcie_port_pm":                        `^(off|force)$`,
	"processor.max_cstate":                `^[0-9]$`,
	"quiet":                               argNone,
	"reboot":                              argWords(`(warm|cold|hard|bios|acpi|kbd|triple|efi|pci|force)`),
	"usbcore.autosuspend":                 `^-?[0-9]{1,6}$`,
	"usb-storage.quirks":                  `^[0-9a-f:,a-z]{1,128}$`,
	"vga":                                 `^[a-z0-9]{1,8}$`,
	"video":                               `^[A-Za-z0-9:@,.-]{1,64}$`,
}

const (
	argNone   = `^$`
	argNumber = `^[0-9]{1,9}$`
)

// argWords returns the expression for a value of one to eight words, separated by commas.
func argWords(word string) string { return `^` + word + `(,` + word + `){0,7}$` }

// AllowedArgs splits kernel arguments into those that a recovery volume may set, joined by blanks, and the others.
func AllowedArgs(args string) (kept string, dropped []string) {
	var out []string
	for _, a := range strings.Fields(args) {
		key, value, _ := strings.Cut(a, "=")
		if form, ok := allowedArgs[key]; ok && regexp.MustCompile(form).MatchString(value) {
			out = append(out, a)
		} else {
			dropped = append(dropped, a)
		}
	}
	return strings.Join(out, " "), dropped
}
