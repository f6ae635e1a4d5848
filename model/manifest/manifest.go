// Package manifest reads and writes the provisioning manifest (manufData.json), the file behind the kernel argument mfgurl: which
// files belong on a unit, what its hardware must be, which extra steps to run, and where to report.
//
// The names of the keys are those that such manifests always had, so that an existing one works unchanged. Unknown keys are
// ignored, a leading underscore marks a comment. The package fetches nothing, checks no signature (model/signature does) and runs no
// steps. The format is described in docs/formats/manifest.md.
package manifest

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"gprovision/model/dmi"
	"gprovision/model/fault"
	"gprovision/model/record"
	"gprovision/model/source"
)

// Manifest is a whole manifest.
type Manifest struct {
	// ApplianceJsonUrl is where another appliance table is, for experiments. May be empty.
	ApplianceJsonUrl string `json:",omitempty"`
	// Files are for the recovery volume. The first whose name is that of an image is the image.
	Files []File
	// LogEndpoint is the factory server, as host:port or URL; see Server.
	LogEndpoint string
	// CredentialEndpoint says who gives the credentials: "pblog" is the factory server.
	CredentialEndpoint string
	// StashFiles are files for the unit's own store, which only root sees and restores keep. Dest is ignored. Of one that ends in .txz or
	// .tar.xz the script is run that it has.
	StashFiles []File `json:",omitempty"`
	// ValidationData says what the hardware must be, one entry for each platform.
	ValidationData []Specs
	// CustomPlatCfgSteps are extra steps, for each platform.
	CustomPlatCfgSteps []PlatformSteps `json:",omitempty"`
	// BMC says what is set at the management controllers, one entry for each platform.
	BMC []BMC `json:",omitempty"`
	// BurnIn says what units must stand before anything is written to them, one entry for each platform.
	BurnIn []BurnIn `json:",omitempty"`
}

// BMC says what is set at the management controller of each unit of one platform. What is missing stays as it is.
type BMC struct {
	DevCodeName string
	// User gets the unit's own IPMI password, and administers the controller.
	User string `json:",omitempty"`
	// Disable names accounts that are disabled once the password of User is proved, such as the maker's own.
	Disable []string `json:",omitempty"`
	// PowerRestore is what the machine does when its power comes back: "always-off", "previous" or "always-on".
	PowerRestore string `json:",omitempty"`
	// ClearSEL clears the system event log after it was sent to the server.
	ClearSEL bool `json:",omitempty"`
}

// MaxBMCUser is the largest length of the name of a user of a management controller, bytes (IPMI 2.0 section 22.28).
const MaxBMCUser = 16

// powerRestores are the values of BMC.PowerRestore.
func powerRestores() []string { return []string{"", "always-off", "previous", "always-on"} }

// Vault is the CredentialEndpoint that means the factory server's own vault.
const Vault = "pblog"

// MaxSize is the largest size of a manifest that units read, bytes.
const MaxSize = 4 << 20

// imageDir is where the recovery volume has images.
const imageDir = "Image"

// File is one file to fetch.
type File struct {
	// Src is an http or https URL, or relative to the URL of the manifest.
	Src string
	// Dest is where the file goes; see Place. May be empty.
	Dest string `json:",omitempty"`
	// Sha1 and Sha256 are hashes in hex. At least one is needed; see HashFor.
	Sha1   string `json:",omitempty"`
	Sha256 string `json:",omitempty"`
	// Size in bytes. 0: not known.
	Size int64 `json:",omitempty"`
}

// PlatformSteps are the extra steps of one platform.
type PlatformSteps struct {
	DevCodeName string
	ConfigSteps []Step
}

// Step is an extra step: files to fetch, and commands to run.
type Step struct {
	Name string
	// When says where in the job the step runs.
	When When
	// Files are fetched into a temporary directory; Dest is ignored. One that ends in .txz or .tar.xz is unpacked there.
	Files []File `json:",omitempty"`
	// Commands run in order; the first whose exit status is not the one asked for ends the step.
	Commands []Command
	// Verbose logs what the commands print.
	Verbose bool `json:",omitempty"`
	// Minutes is how long all commands of the step may take, 1 to 1440. What is still running then is killed, and the step has failed.
	// 0: 30.
	Minutes int `json:",omitempty"`
}

// DefaultStepLimit is how long a step may take that does not say it.
const DefaultStepLimit = 30 * time.Minute

const maxStepMinutes = 24 * 60

// Limit is how long all commands of the step may take.
func (s Step) Limit() time.Duration {
	if s.Minutes == 0 {
		return DefaultStepLimit
	}
	return time.Duration(s.Minutes) * time.Minute
}

// Command is one command of a Step. Its texts are templates; see Variables.
type Command struct {
	Command    string
	ExitStatus ExitStatus `json:",omitempty"`
	AddPath    string     `json:",omitempty"` // put in front of PATH
	AddLibPath string     `json:",omitempty"` // put in front of LD_LIBRARY_PATH
}

// Variables are what a Command's templates may use.
type Variables struct {
	RecoveryDir string // where the recovery volume is mounted
	Serial      string // of the unit
	BiosPass    string // only around the steps that set passwords
	IpmiPass    string // the same
	OSPass      string // the same
	DLDir       string // where the step's files are; only if it has some
}

// When is the place of a Step in the job.
type When int

// The places of steps. RunBeforeQA is what a step without When has.
const (
	RunBeforeQA When = iota
	RunAfterQA
	RunBeforeImaging
	RunAfterImaging
	RunBeforeMfg
	RunAfterMfg
	RunBeforePWSet
	RunAfterPWSet
)

func whens() []string {
	return []string{"RunBeforeQA", "RunAfterQA", "RunBeforeImaging", "RunAfterImaging", "RunBeforeMfg", "RunAfterMfg", "RunBeforePWSet", "RunAfterPWSet"}
}

// String returns the value as it is written in a manifest.
func (w When) String() string {
	if w < 0 || int(w) >= len(whens()) {
		return "When(" + strconv.Itoa(int(w)) + ")"
	}
	return whens()[w]
}

// MarshalText implements encoding.TextMarshaler. A value that is not known is an error.
func (w When) MarshalText() ([]byte, error) {
	if w < 0 || int(w) >= len(whens()) {
		return nil, fmt.Errorf("the place %d of a step is not known", int(w))
	}
	return []byte(w.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler: any case, with or without the leading Run.
func (w *When) UnmarshalText(b []byte) error {
	for i, name := range whens() {
		if s := string(b); strings.EqualFold(s, name) || strings.EqualFold("Run"+s, name) {
			*w = When(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not known, want one of %s", b, strings.Join(whens(), ", "))
}

// ExitStatus says which exit status a Command must have.
type ExitStatus int

// The exit statuses that can be asked for. ESMustSucceed is what a command without ExitStatus has.
const (
	ESMustSucceed ExitStatus = iota
	ESDontCare
	ESMustFail
)

func statuses() []string { return []string{"ESMustSucceed", "ESDontCare", "ESMustFail"} }

// String returns the value as it is written in a manifest.
func (e ExitStatus) String() string {
	if e < 0 || int(e) >= len(statuses()) {
		return "ExitStatus(" + strconv.Itoa(int(e)) + ")"
	}
	return statuses()[e]
}

// MarshalText implements encoding.TextMarshaler. A value that is not known is an error.
func (e ExitStatus) MarshalText() ([]byte, error) {
	if e < 0 || int(e) >= len(statuses()) {
		return nil, fmt.Errorf("the exit status %d is not known", int(e))
	}
	return []byte(e.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler: any case, with or without the leading ES.
func (e *ExitStatus) UnmarshalText(b []byte) error {
	for i, name := range statuses() {
		if s := string(b); strings.EqualFold(s, name) || strings.EqualFold("ES"+s, name) {
			*e = ExitStatus(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not known, want one of %s", b, strings.Join(statuses(), ", "))
}

// Specs says what the hardware of one platform must be.
type Specs struct {
	DevCodeName string
	// CPUInfo must be equal in the fields that are given.
	CPUInfo CPU `json:",omitzero"`
	// RamMegs is the memory that the system sees, in MiB, ±1 %. 0: not checked.
	RamMegs uint64 `json:",omitempty"`
	// Recovery describes the recovery device.
	Recovery Disk `json:",omitzero"`
	// MainDiskConfigs are alternatives: the main disks must be exactly those of one of them.
	MainDiskConfigs [][]Disk
	// NumOUINics is how many ports have a MAC address of the platform's own prefix. Missing: not checked.
	NumOUINics *int `json:",omitempty"`
	// OUINicsSequential reports whether those addresses follow one another. Missing: not checked.
	OUINicsSequential *bool `json:",omitempty"`
	// TotalNics is how many network ports there are. Missing: not checked.
	TotalNics *int `json:",omitempty"`
	// FirmwareVer holds firmware versions; the empty ones are not checked.
	FirmwareVer Firmware `json:",omitzero"`
	// Devices on the buses. Others may be there too.
	Devices Devices `json:",omitzero"`
	// SerNumRegex must match the serial number; not anchored. Empty: anything.
	SerNumRegex string `json:",omitempty"`
	// DmiMatches maps a DMI key to the exact value that it must have; see ParseDMIKey.
	DmiMatches map[string]string `json:",omitempty"`
	// DiskHealth limits what the main disks and the recovery device say of their state.
	DiskHealth DiskHealth `json:",omitzero"`
	// Ports says how fast network ports must be.
	Ports []PortSpeed `json:",omitempty"`
	// MemoryModules are the memory modules: exactly these. Missing: not checked.
	MemoryModules []MemoryModule `json:",omitempty"`
	// MemoryECC is how errors of the memory are corrected: "None", "Parity", "Single-bit ECC", "Multi-bit ECC" or "CRC". Empty: not checked.
	MemoryECC string `json:",omitempty"`
	// TPM is the version of the TPM: "1.2", "2.0", or "none". Empty: not checked.
	TPM string `json:",omitempty"`
	// SecureBoot is "on" or "off". Empty: not checked.
	SecureBoot string `json:",omitempty"`
}

// CPU describes the processors.
type CPU struct {
	Model   string // "model name" of /proc/cpuinfo, the same for all; empty: any
	Cores   int    // logical processors; 0: any number
	Sockets int    // distinct physical packages; 0: any number
}

// Disk describes one disk, or several that are equal.
type Disk struct {
	Size             int64  // bytes
	SizeTolerancePct int    `json:",omitempty"` // of Size, in percent
	Vendor           string `json:",omitempty"` // * stands for any characters; empty: any
	Model            string `json:",omitempty"` // * stands for any characters; empty: any
	Quantity         int    `json:",omitempty"` // 0: 1
}

// Count is how many disks d describes.
func (d Disk) Count() int { return max(d.Quantity, 1) }

// Firmware holds firmware versions.
type Firmware struct {
	BIOS string `json:",omitempty"`
	IPMI string `json:",omitempty"`
	FRU  string `json:",omitempty"`
	SDR  string `json:",omitempty"`
	ME   string `json:",omitempty"`
	// Microcode is the revision of the processors' microcode at least, such as "0x2006e05".
	Microcode string `json:",omitempty"`
}

// Devices lists devices by bus.
type Devices struct {
	PCI []BusDevice `json:",omitempty"`
	USB []BusDevice `json:",omitempty"`
}

// IsZero reports whether no device is listed, also where a list is there and empty.
func (d Devices) IsZero() bool { return len(d.PCI) == 0 && len(d.USB) == 0 }

// BusDevice is a device on a bus, in the quantity that must be there.
type BusDevice struct {
	HumanDescription string `json:",omitempty"` // for people only
	Vendor           ID
	Device           ID
	Class            ID   // PCI: class and subclass, two bytes; USB: bDeviceClass
	Quantity         uint // 0: must not be there
	// LinkMTs and LinkLanes are how fast and how wide the link of a PCI Express device is at least: megatransfers a second on each lane, such
	// as 8000 for 8 GT/s, and lanes. 0: not checked.
	LinkMTs   int `json:",omitempty"`
	LinkLanes int `json:",omitempty"`
	// FullLink demands that the link is as fast and as wide as the device can.
	FullLink bool `json:",omitempty"`
}

// ID is a number of a PCI or USB device. In JSON it is a string such as "0x8086"; the base is that of its prefix.
type ID uint16

// String returns four hex digits after 0x.
func (id ID) String() string { return fmt.Sprintf("0x%04x", uint16(id)) }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 0, 16)
	if err != nil {
		return fmt.Errorf(`%q is not a number such as "0x8086"`, b)
	}
	*id = ID(v)
	return nil
}

// Parse reads a manifest. What is wrong in a way that would make it mean something else is a fault.ManifestSyntax with the line
// of each Problem; what is only missing is for Check, or for the step of the job that needs it.
func Parse(b []byte) (*Manifest, error) {
	m, _, ps := load(b)
	if err := source.Join(ps); err != nil {
		return nil, fault.Because(fault.ManifestSyntax, err)
	}
	return m, nil
}

// Server returns the base address of the factory server, as record.Endpoint does. An address in plain HTTP, as old manifests have it, means
// the server at that port, which is spoken to over https all the same.
func (m *Manifest) Server() (string, error) {
	if rest, plain := strings.CutPrefix(strings.TrimSpace(m.LogEndpoint), plainScheme); plain {
		return record.Endpoint(rest)
	}
	return record.Endpoint(m.LogEndpoint)
}

const plainScheme = "http://"

// Archive reports whether the name is that of a compressed tar, which units unpack.
func (f File) Archive() bool {
	return strings.HasSuffix(f.Base(), ".txz") || strings.HasSuffix(f.Base(), ".tar.xz")
}

// Marshal returns the manifest as indented JSON.
func (m *Manifest) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return append(b, '\n'), nil
}

// SpecsFor returns the specification for a platform. If there is none the error is a fault.ManifestIncomplete.
func (m *Manifest) SpecsFor(code string) (Specs, error) {
	var have []string
	for _, s := range m.ValidationData {
		if s.DevCodeName == code {
			return s, nil
		}
		have = append(have, s.DevCodeName)
	}
	return Specs{}, fault.Newf(fault.ManifestIncomplete, "ValidationData has no entry for the platform %q, only for %q", code, have)
}

// BMCFor returns what is set at the management controllers of a platform. It has no more than the platform's name if that is nothing.
func (m *Manifest) BMCFor(code string) BMC {
	for _, b := range m.BMC {
		if b.DevCodeName == code {
			return b
		}
	}
	return BMC{DevCodeName: code}
}

// StepsFor returns the steps for a platform at one place of the job, in the order of the manifest.
func (m *Manifest) StepsFor(code string, when When) []Step {
	var out []Step
	for _, p := range m.CustomPlatCfgSteps {
		if p.DevCodeName != code {
			continue
		}
		for _, s := range p.ConfigSteps {
			if s.When == when {
				out = append(out, s)
			}
		}
		break // the first entry of a platform counts
	}
	return out
}

// Resolve returns a copy in which each Src, and ApplianceJsonUrl, is an absolute URL: relative ones are resolved against
// base, the URL that the manifest was fetched from.
func (m *Manifest) Resolve(base *url.URL) (*Manifest, error) {
	out := *m
	var err error
	one := func(s string) string {
		if s == "" || err != nil {
			return s
		}
		u, e := base.Parse(s)
		if e == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			e = fmt.Errorf("the result %s is no http or https address", u)
		}
		if e != nil {
			err = fault.Newf(fault.ManifestSyntax, "resolve %q against %s: %w", s, base.Redacted(), e)
			return s
		}
		return u.String()
	}
	files := func(in []File) []File {
		var out []File
		for _, f := range in {
			f.Src = one(f.Src)
			out = append(out, f)
		}
		return out
	}
	out.ApplianceJsonUrl = one(m.ApplianceJsonUrl)
	out.Files, out.StashFiles = files(m.Files), files(m.StashFiles)
	out.CustomPlatCfgSteps = nil
	for _, p := range m.CustomPlatCfgSteps {
		q := PlatformSteps{DevCodeName: p.DevCodeName}
		for _, s := range p.ConfigSteps {
			s.Files = files(s.Files)
			q.ConfigSteps = append(q.ConfigSteps, s)
		}
		out.CustomPlatCfgSteps = append(out.CustomPlatCfgSteps, q)
	}
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// Base returns the last part of the path of Src, unescaped, or "" if it has none.
func (f File) Base() string {
	u, err := url.Parse(f.Src)
	if err != nil {
		return ""
	}
	switch b := path.Base(u.Path); b {
	case ".", "/", "..":
		return ""
	default:
		return b
	}
}

// IsImage reports whether the name of the file begins with prefix and ends in .upd.
func (f File) IsImage(prefix string) bool {
	b := f.Base()
	return strings.HasPrefix(b, prefix) && strings.HasSuffix(b, ".upd") && len(b) > len(prefix)+len(".upd")
}

// Place returns where the file goes, below the root of the recovery volume: Dest; without it Image/NAME for an image and NAME for
// all others. A leading slash is dropped. The error is a fault.ManifestSyntax: the place would be outside.
func (f File) Place(prefix string) (string, error) {
	p := f.Dest
	switch {
	case p != "":
	case f.IsImage(prefix):
		p = imageDir + "/" + f.Base()
	default:
		p = f.Base()
	}
	p = strings.TrimLeft(p, "/")
	if c := path.Clean(p); p == "" || strings.ContainsRune(p, 0) || c == "." || c == ".." || strings.HasPrefix(c, "../") {
		return "", fault.Newf(fault.ManifestSyntax, "the place %q of %q is not inside the recovery volume", f.Dest, f.Src)
	}
	return path.Clean(p), nil
}

// Hash is the hash that a file must have.
type Hash struct {
	// Name is "sha256" or "sha1".
	Name string
	// Sum is the hash itself.
	Sum []byte
}

// New returns a hash.Hash of that kind.
func (h Hash) New() hash.Hash {
	if h.Name == "sha1" {
		return sha1.New()
	}
	return sha256.New()
}

// String returns the name and the sum in hex, as "sha256:…".
func (h Hash) String() string { return h.Name + ":" + hex.EncodeToString(h.Sum) }

// HashFor returns the hash to check a file against: SHA-256 if the manifest has it, SHA-1 if that is allowed. The error is
// a fault.HashMissing.
func HashFor(f File, allowSHA1 bool) (Hash, error) {
	if f.Sha256 != "" {
		sum, err := hexSum(f.Sha256, sha256.Size)
		if err != nil {
			return Hash{}, fault.Newf(fault.HashMissing, "%s: Sha256 %w", f.Src, err)
		}
		return Hash{"sha256", sum}, nil
	}
	if f.Sha1 == "" {
		return Hash{}, fault.Newf(fault.HashMissing, "%s has neither Sha256 nor Sha1", f.Src)
	}
	if !allowSHA1 {
		return Hash{}, fault.Newf(fault.HashMissing, "%s has Sha1 alone, and the policy does not allow that", f.Src)
	}
	sum, err := hexSum(f.Sha1, sha1.Size)
	if err != nil {
		return Hash{}, fault.Newf(fault.HashMissing, "%s: Sha1 %w", f.Src, err)
	}
	return Hash{"sha1", sum}, nil
}

func hexSum(s string, size int) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != size {
		return nil, fmt.Errorf("%q is not %d hex digits", s, 2*size)
	}
	return b, nil
}

// Measure reads r to its end and returns f with the hashes and the size of what it read.
func Measure(f File, r io.Reader) (File, error) {
	h1, h2 := sha1.New(), sha256.New()
	n, err := io.Copy(io.MultiWriter(h1, h2), r)
	if err != nil {
		return f, fmt.Errorf("hash %s: %w", f.Src, err)
	}
	f.Sha1, f.Sha256, f.Size = hex.EncodeToString(h1.Sum(nil)), hex.EncodeToString(h2.Sum(nil)), n
	return f, nil
}

// Make returns m with the hashes and sizes of all its files measured again. open opens a file by its entry; Make closes it.
// Files for which open returns nil and no error stay as they are.
func Make(m *Manifest, open func(File) (io.ReadCloser, error)) (*Manifest, error) {
	out := *m
	all := func(in []File) ([]File, error) {
		var out []File
		for _, f := range in {
			r, err := open(f)
			if err != nil {
				return nil, err
			}
			if r != nil {
				f, err = Measure(f, r)
				if e := r.Close(); err == nil {
					err = e
				}
				if err != nil {
					return nil, err
				}
			}
			out = append(out, f)
		}
		return out, nil
	}
	var err error
	if out.Files, err = all(m.Files); err != nil {
		return nil, err
	}
	if out.StashFiles, err = all(m.StashFiles); err != nil {
		return nil, err
	}
	out.CustomPlatCfgSteps = nil
	for _, p := range m.CustomPlatCfgSteps {
		q := PlatformSteps{DevCodeName: p.DevCodeName}
		for _, s := range p.ConfigSteps {
			if s.Files, err = all(s.Files); err != nil {
				return nil, err
			}
			q.ConfigSteps = append(q.ConfigSteps, s)
		}
		out.CustomPlatCfgSteps = append(out.CustomPlatCfgSteps, q)
	}
	return &out, nil
}

// DMIKey is a key of DmiMatches.
type DMIKey struct {
	// Keyword is a dmidecode keyword such as "bios-version". Empty: the next three count.
	Keyword string
	// Type is a DMI type, Index which structure of it, from 0, and Field the name of a field without colon.
	Type, Index int
	Field       string
}

// ParseDMIKey reads a key of DmiMatches: "keyword", "TYPE Field" or "TYPE[N] Field". A keyword or a field that model/dmi does not know is
// an error, which names those that are near.
func ParseDMIKey(s string) (DMIKey, error) {
	head, field, two := strings.Cut(strings.TrimSpace(s), " ")
	if !two {
		if head == "" || head[0] >= '0' && head[0] <= '9' {
			return DMIKey{}, fmt.Errorf("%q is neither a dmidecode keyword nor a type and a field", s)
		}
		if why := dmi.Unknown(dmi.Keyword, head); why != "" {
			return DMIKey{}, errors.New(why)
		}
		return DMIKey{Keyword: head}, nil
	}
	typ, index := head, "0"
	if i := strings.IndexByte(head, '['); i >= 0 && strings.HasSuffix(head, "]") {
		typ, index = head[:i], head[i+1:len(head)-1]
	}
	t, err1 := strconv.ParseUint(typ, 10, 8)
	n, err2 := strconv.ParseUint(index, 10, 16)
	field = strings.TrimSuffix(strings.TrimSpace(field), ":")
	if err1 != nil || err2 != nil || field == "" {
		return DMIKey{}, fmt.Errorf("%q is not TYPE Field or TYPE[N] Field", s)
	}
	if why := dmi.Unknown(int(t), field); why != "" {
		return DMIKey{}, errors.New(why)
	}
	return DMIKey{Type: int(t), Index: int(n), Field: field}, nil
}
