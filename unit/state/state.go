// Package state reads and writes what a unit remembers on its recovery volume: who it is, its key, the
// administrator's password hash, a request for the next boot, and counts. It also owns the mark of a complete main
// system.
//
// It mounts nothing and decides nothing. Each file has a format version. The error is ErrNewer for a file of a newer
// version, ErrDamaged for a file that cannot be right, and fs.ErrNotExist for a missing one. Writes are atomic: after
// a power cut the file has either the old content or the new.
//
// Everything read is treated as hostile. Sizes are limited. Text that may end up in a boot loader's configuration is
// checked character by character. No link leads out of the volume.
//
// The formats are described in docs/formats/recovery-volume.md.
package state

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"syscall"
	"time"
	"unicode/utf8"

	"gprovision/hw/block"
	"gprovision/hw/durable"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/release"
)

// Version is the format version of every file that this package writes. It reads all older ones.
const Version = 1

// ErrNewer means that the file's format version is newer than this program. Such a file is never rewritten.
var ErrNewer = errors.New("written by a newer version of gprovision")

// ErrDamaged means that the file exists but cannot be right.
var ErrDamaged = errors.New("damaged")

// Fault turns an error of this package into a fault. A file that is merely newer does not mean a bad device.
func Fault(err error) error {
	if errors.Is(err, ErrNewer) {
		return fault.Because(fault.RecoveryNewer, err)
	}
	return fault.Because(fault.RecoveryDamaged, err)
}

// Names of files and directories on the recovery volume, relative to its root.
const (
	Dir            = "state"                     // this package's own, mode 0700
	UnitFile       = "state/unit.json"           // Unit
	KeyFile        = "state/unit.key"            // the unit's Ed25519 key, mode 0600
	HashFile       = "state/admin.hash"          // the administrator's password hash, mode 0600
	RequestFile    = "state/request.json"        // Request
	CountsFile     = "state/count.json"          // Counts
	StashDir       = "state/stash"               // files that a manifest names for the unit's own store, mode 0700
	QueueDir       = "state/queue"               // records that the server does not have yet (unit/report)
	LogDir         = "log"                       // logs (unit/journal)
	ImageDir       = "Image"                     // release images and their signatures
	HistoryFile    = "log/recovery_history.json" // model/release.History
	BadRequestFile = "state/request.json.bad"    // the last damaged request, kept for support; no program reads it
)

// The largest sizes of this package's files, in bytes. A larger file is ErrDamaged.
const (
	maxUnit  = 256 << 10
	maxSmall = 16 << 10
)

// Volume is a mounted recovery volume. It holds nothing open, so it needs no closing and may be copied.
type Volume struct{ dir string }

// Open returns the volume mounted at dir. It reads nothing.
func Open(dir string) *Volume { return &Volume{dir: dir} }

// Path returns the path of a file or directory of the volume, such as Path(ImageDir).
func (v *Volume) Path(name ...string) string {
	return filepath.Join(append([]string{v.dir}, name...)...)
}

// Disk is a disk as provisioning found it, with the table that was written to it.
type Disk struct {
	Size       int64        `json:"size"`                 // bytes
	SectorSize int          `json:"sectorSize,omitempty"` // logical, bytes
	Bus        string       `json:"bus,omitempty"`        // as hw/block names it: virtio, nvme, sata, usb, scsi, mmc
	Model      string       `json:"model,omitempty"`
	Serial     string       `json:"serial,omitempty"`
	WWN        string       `json:"wwn,omitempty"`
	Table      layout.Table `json:"table"` // as planned and written; Kind is empty if no table was
}

// Unit is what provisioning found and planned. Each provisioning writes it once. It decides which devices are
// accepted.
type Unit struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// Serial is the serial number of the unit.
	Serial string `json:"serial"`
	// Platform is the code name of the platform in the appliance table.
	Platform string `json:"platform"`
	// Firmware is the firmware for which the unit was provisioned.
	Firmware layout.Firmware `json:"firmware"`
	// Recovery is the recovery device.
	Recovery Disk `json:"recovery"`
	// Main are the planned main disks, at least one. In a unit with one disk that disk is also Recovery, with the
	// same table.
	Main []Disk `json:"main"`
	// Array is the array of main disks that carries the main system. If it is nil, a partition of the only main disk
	// does.
	Array *Array `json:"array,omitempty"`
	// DataArray is the array of main disks with the data that a restore preserves. It is nil if there is none.
	DataArray *Array `json:"dataArray,omitempty"`
	// Named reports whether a person named the platform (PROTO_IDENT) instead of the unit recognising it. Later boots
	// then take it from here.
	Named bool `json:"named,omitempty"`
	// ManifestSerial is the serial number of the manifest of the provisioning, or "" if that had none.
	ManifestSerial string `json:"manifestSerial,omitempty"`
	// Server is the address of the factory server, or "" if there is none.
	Server string `json:"server,omitempty"`
	// ImagePrefix is the start of the names of this unit's images, including the final dot.
	ImagePrefix string `json:"imagePrefix,omitempty"`
	// Original is the file name of the image that the unit was provisioned with. It is never removed.
	Original string `json:"original,omitempty"`
	// BootArgs are kernel arguments for the installed system, from the restore data. Only those that AllowedArgs
	// accepts are used.
	BootArgs string `json:"bootArgs,omitempty"`
	// Created is when the unit was provisioned.
	Created time.Time `json:"created"`
	// Credentials is the server's number for the credentials that are set. It is 0 if unknown.
	Credentials uint64 `json:"credentials,omitempty"`
}

// Array is a planned md array.
type Array struct {
	// Level is 0, 1, 5, 6 or 10.
	Level int `json:"level"`
	// UUID identifies the array: 36 characters in the order of the bytes on disk. mdadm prints the same digits with
	// colons.
	UUID string `json:"uuid"`
	// FSUUID and FSLabel belong to the filesystem on the array.
	FSUUID  string `json:"fsuuid"`
	FSLabel string `json:"fslabel"`
}

// OneDisk reports whether the recovery volume is on the main disk.
func (u Unit) OneDisk() bool {
	return len(u.Main) == 1 && u.Recovery.Table.UUID != "" && u.Recovery.Table.UUID == u.Main[0].Table.UUID
}

// HasData reports whether a main disk has a partition whose content a restore preserves.
func (u Unit) HasData() bool {
	return slices.ContainsFunc(u.Main, func(d Disk) bool {
		return d.Table.Find(layout.Data) != nil || d.Table.Find(layout.DataMember) != nil
	})
}

// System describes the partition of the main system. It is nil if the record does not say. An array is no partition:
// then only the role and the filesystem are set.
func (u Unit) System() *layout.Partition {
	if a := u.Array; a != nil {
		return &layout.Partition{Role: layout.Primary, FSUUID: a.FSUUID, FSLabel: a.FSLabel}
	}
	return u.Main[0].Table.Find(layout.Primary)
}

// Names returns the names that the unit was provisioned with and keeps. The record lies on a volume that anybody may
// have written to, so names that no artifact could have are left out.
func (u Unit) Names() naming.Names {
	n := naming.Names{Version: naming.Version, ImagePrefix: u.ImagePrefix}
	if p := u.Recovery.Table.Find(layout.Recovery); p != nil {
		n.RecoveryLabel = p.FSLabel
	}
	if len(u.Main) > 0 {
		if p := u.System(); p != nil {
			n.PrimaryLabel = p.FSLabel
		}
	}
	if n.Validate() != nil {
		n.RecoveryLabel, n.PrimaryLabel = "", ""
	}
	if n.Validate() != nil {
		n.ImagePrefix = ""
	}
	return n
}

// Kinds of requests.
const (
	// KindRestore asks for a factory restore.
	KindRestore = "restore"
	// KindRestoreSettings asks for a restore that drops the saved network files and the restore data.
	KindRestoreSettings = "restore-settings"
	// KindRestoreEverything asks for one that drops the content of the data partition too.
	KindRestoreEverything = "restore-everything"
	// KindErase asks for an erase of all main disks.
	KindErase = "erase"
)

// ByProvisioning is the Request.By of the restore that fills the main disk right after provisioning.
const ByProvisioning = "provision"

// Values of Request.Image besides a file name.
const (
	Latest   = "latest"   // the newest good image
	Original = "original" // the image that the unit was provisioned with
)

// Request asks the next boot for a job. Once the mark names its ID, it is fulfilled, even if the file still exists.
type Request struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// ID is 32 random hexadecimal digits in lower case.
	ID string `json:"id"`
	// Kind is one of the Kind constants.
	Kind string `json:"kind"`
	// Image is Latest, Original or the file name of an image.
	Image string `json:"image,omitempty"`
	// By says who made the request, such as "provision" or "root on tty1".
	By string `json:"by,omitempty"`
	// Time is when the request was made, by the clock of whoever made it.
	Time time.Time `json:"time"`
	// Auto reports whether init made the request itself, to resume a restore that was cut short. Such a request never
	// destroys data that are not this unit's.
	Auto bool `json:"auto,omitempty"`
	// Whole reports whether an erase is to reach the recovery volume where it shares a drive with the main system. No unit
	// obeys such a request: only a person at the machine may want that.
	Whole bool `json:"whole,omitempty"`
}

// DropsSettings reports whether a restore for r drops the saved network files and the restore data.
func (r Request) DropsSettings() bool { return r.Kind == KindRestoreSettings || r.DropsData() }

// DropsData reports whether a restore for r drops the content of the data partition.
func (r Request) DropsData() bool { return r.Kind == KindRestoreEverything }

// NewRequest returns a request with a random ID. For a restore an empty image means Latest.
func NewRequest(kind, image, by string, now time.Time) (Request, error) {
	if image == "" && kind != KindErase {
		image = Latest
	}
	var id [16]byte
	rand.Read(id[:])
	r := Request{Version: Version, ID: hex.EncodeToString(id[:]), Kind: kind, Image: image, By: by, Time: now.UTC().Truncate(time.Second)}
	return r, r.validate()
}

// Counts are small numbers that survive a boot. The zero value is that of a new unit.
type Counts struct {
	rest
	// Version is the format version.
	Version int `json:"version"`
	// BootAttempts is the number of hand-overs since the last boot that was marked good.
	BootAttempts int `json:"bootAttempts"`
	// Repairs is the number of repairs of the main filesystem in a row, with no good boot in between.
	Repairs int `json:"repairs"`
	// RecoveryRepairs is the same for the filesystem of the recovery volume.
	RecoveryRepairs int `json:"recoveryRepairs,omitempty"`
	// WatchdogResets is the number of boots since the last good one that a watchdog ended.
	WatchdogResets int `json:"watchdogResets,omitempty"`
	// RestoreFailures is the number of failed restores since provisioning.
	RestoreFailures int `json:"restoreFailures"`
	// Restores is the number of successful restores since provisioning.
	Restores int `json:"restores"`
	// Mends is the number of boots in a row that repaired what starts the unit: boot entries, or files on the main
	// disk.
	Mends int `json:"mends"`
	// LastGood is when a boot was last marked good. It is zero if none ever was.
	LastGood time.Time `json:"lastGood,omitzero"`
}

// Good returns c after a boot that was marked good at now.
func (c Counts) Good(now time.Time) Counts {
	c.BootAttempts, c.Repairs, c.RecoveryRepairs, c.WatchdogResets = 0, 0, 0, 0
	c.LastGood = now.UTC().Truncate(time.Second)
	return c
}

// Restored returns c after a restore that succeeded.
func (c Counts) Restored() Counts {
	c.BootAttempts, c.Repairs, c.WatchdogResets, c.Mends = 0, 0, 0, 0
	c.Restores = min(c.Restores+1, maxCount)
	return c
}

// Attempted returns c after another hand-over. reset means that a watchdog ended the boot before.
func (c Counts) Attempted(reset bool) Counts {
	c.BootAttempts = min(c.BootAttempts+1, maxCount)
	if reset {
		c.WatchdogResets = min(c.WatchdogResets+1, maxCount)
	}
	return c
}

// Mended returns c after another boot that repaired what starts the unit.
func (c Counts) Mended() Counts { c.Mends = min(c.Mends+1, maxCount); return c }

// NotMended returns c after a boot that had nothing to repair.
func (c Counts) NotMended() Counts { c.Mends = 0; return c }

// Repaired returns c after another repair.
func (c Counts) Repaired() Counts { c.Repairs = min(c.Repairs+1, maxCount); return c }

// RecoveryRepaired returns c after another repair of the recovery volume.
func (c Counts) RecoveryRepaired() Counts {
	c.RecoveryRepairs = min(c.RecoveryRepairs+1, maxCount)
	return c
}

// RestoreFailed returns c after another failed restore.
func (c Counts) RestoreFailed() Counts {
	c.RestoreFailures = min(c.RestoreFailures+1, maxCount)
	return c
}

const maxCount = 1_000_000

// ReadUnit returns unit.json.
func (v *Volume) ReadUnit() (Unit, error) {
	b, err := v.read(UnitFile, maxUnit)
	if err != nil {
		return Unit{}, err
	}
	return ParseUnit(b)
}

// WriteUnit writes unit.json. It sets the version, and returns an error for what ParseUnit would refuse.
func (v *Volume) WriteUnit(u Unit) error {
	u.Version = Version
	return v.writeJSON(UnitFile, u, u.validate(), 0o600)
}

// ReadRequest returns the request for the next boot.
func (v *Volume) ReadRequest() (Request, error) {
	b, err := v.read(RequestFile, maxSmall)
	if err != nil {
		return Request{}, err
	}
	return ParseRequest(b)
}

// WriteRequest replaces the request for the next boot.
func (v *Volume) WriteRequest(r Request) error {
	r.Version = Version
	return v.writeJSON(RequestFile, r, r.validate(), 0o600)
}

// SetRequestAside renames a request that cannot be parsed to BadRequestFile, so that it is reported only once. It
// replaces an older file there and cuts off what exceeds the size of a request. A missing request is no error.
func (v *Volume) SetRequestAside() error {
	return v.inside(func(r *os.Root) error {
		st, err := r.Lstat(RequestFile)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = r.RemoveAll(BadRequestFile) // a rename cannot replace a directory
		}
		if err == nil {
			err = r.Rename(RequestFile, BadRequestFile)
		}
		if err == nil && st.Mode().IsRegular() && st.Size() > maxSmall {
			err = truncate(r, BadRequestFile, maxSmall)
		}
		if err != nil {
			return fmt.Errorf("set %s aside: %w", RequestFile, err)
		}
		return durable.SyncIn(r, Dir)
	})
}

func truncate(r *os.Root, name string, size int64) error {
	f, err := r.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// DeleteRequest removes the request. A missing request is no error.
func (v *Volume) DeleteRequest() error {
	return v.inside(func(r *os.Root) error { return durable.RemoveIn(r, RequestFile) })
}

// ReadCounts returns the counts. If the file is missing, it returns the zero value and no error.
func (v *Volume) ReadCounts() (Counts, error) {
	b, err := v.read(CountsFile, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return Counts{Version: Version}, nil
	}
	if err != nil {
		return Counts{}, err
	}
	return ParseCounts(b)
}

// WriteCounts replaces the counts. It overwrites a file of CountsSize in place, with a single write that needs no
// free space.
func (v *Volume) WriteCounts(c Counts) error {
	b, err := c.Marshal()
	if err != nil {
		return err
	}
	return v.inside(func(r *os.Root) error {
		if f, err := openCounts(r, os.O_WRONLY); err == nil {
			defer f.Close()
			if _, err := f.WriteAt(b, 0); err == nil {
				return syscall.Fdatasync(int(f.Fd()))
			}
		}
		if err := makeParent(r, CountsFile); err != nil {
			return err
		}
		return durable.WriteIn(r, CountsFile, b, durable.Owner{Mode: 0o600})
	})
}

// CountsSize is the size of the counts file in bytes: one block of the filesystem, and at least one sector of any
// disk. Only its first 512 bytes ever change. So a write that is cut short leaves either the old content or the new.
const CountsSize = 4096

// Marshal returns the counts as CountsSize bytes of JSON and white space. It sets the version, and returns an error
// for what ParseCounts would refuse.
func (c Counts) Marshal() ([]byte, error) {
	c.Version = Version
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("format %s: %w", CountsFile, err)
	}
	b, err := json.Marshal(c)
	if err == nil {
		b = c.addTo(b, 511)
	}
	if err == nil && len(b) >= 512 {
		err = errors.New("does not fit into one sector")
	}
	if err != nil {
		return nil, fmt.Errorf("format %s: %w", CountsFile, err)
	}
	out := bytes.Repeat([]byte{' '}, CountsSize)
	copy(out, b)
	out[CountsSize-1] = '\n'
	return out, nil
}

// CountsPlace returns the offset of the counts file on its device, in bytes. With it, the counts can be written while
// the volume is not mounted. The error is block.ErrNoPlace if the file is not contiguous.
func (v *Volume) CountsPlace() (off int64, err error) {
	err = v.inside(func(r *os.Root) error {
		f, err := openCounts(r, os.O_RDONLY)
		if err != nil {
			return err
		}
		defer f.Close()
		off, err = block.Place(f, CountsSize)
		return err
	})
	return off, err
}

// openCounts opens the counts file if it has CountsSize and can be overwritten in place.
func openCounts(r *os.Root, flags int) (*os.File, error) {
	f, err := r.OpenFile(CountsFile, flags|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != CountsSize) {
		err = fmt.Errorf("%s: %w", CountsFile, block.ErrNoPlace)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadHash returns the administrator's password hash in the form of crypt(3).
func (v *Volume) ReadHash() (string, error) {
	b, err := v.read(HashFile, maxSmall)
	if err != nil {
		return "", err
	}
	return parseHash(b)
}

// WriteHash replaces the administrator's password hash. It accepts only the form of crypt(3), $ID$..., so that nobody
// writes a plain password by mistake.
func (v *Volume) WriteHash(hash string) error {
	h := hashFile{Version: Version, Hash: hash}
	return v.writeJSON(HashFile, h, h.validate(), 0o600)
}

// NewKey returns a random unit key.
func NewKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails: on an error crypto/rand ends the program
	return ed25519.NewKeyFromSeed(seed)
}

// ReadKey returns the unit's key.
func (v *Volume) ReadKey() (ed25519.PrivateKey, error) {
	b, err := v.read(KeyFile, maxSmall)
	if err != nil {
		return nil, err
	}
	return parseKey(b)
}

// ReadKeyOf returns the unit's key and the serial number of the unit that it belongs to, or "" if the file does not
// say.
func (v *Volume) ReadKeyOf() (k ed25519.PrivateKey, serial string, err error) {
	b, err := v.read(KeyFile, maxSmall)
	if err != nil {
		return nil, "", err
	}
	f, err := parse[keyFile](KeyFile, b)
	if err != nil {
		return nil, "", err
	}
	return ed25519.NewKeyFromSeed(f.Seed), f.Unit, nil
}

// WriteKey replaces the unit's key.
func (v *Volume) WriteKey(k ed25519.PrivateKey) error { return v.WriteKeyOf(k, "") }

// WriteKeyOf replaces the unit's key and records which unit it belongs to, by serial number. After a provisioning
// that was cut short, the next one finds the key by that, before the volume has a unit's record.
func (v *Volume) WriteKeyOf(k ed25519.PrivateKey, serial string) error {
	if len(k) != ed25519.PrivateKeySize {
		return fmt.Errorf("write %s: key has %d bytes, want %d", KeyFile, len(k), ed25519.PrivateKeySize)
	}
	f := keyFile{Version: Version, Seed: k.Seed(), Unit: serial}
	return v.writeJSON(KeyFile, f, f.validate(), 0o600)
}

// ReadHistory returns the restore history as bytes, at most as many as model/release parses. See History.
func (v *Volume) ReadHistory() ([]byte, error) { return v.read(HistoryFile, release.MaxHistory) }

// WriteHistory replaces the restore history with bytes.
func (v *Volume) WriteHistory(b []byte) error { return v.write(HistoryFile, b, 0o600) }

// ParseUnit parses unit.json.
func ParseUnit(b []byte) (Unit, error) { return parse[Unit](UnitFile, b) }

// ParseRequest parses request.json.
func ParseRequest(b []byte) (Request, error) { return parse[Request](RequestFile, b) }

// ParseCounts parses count.json.
func ParseCounts(b []byte) (Counts, error) { return parse[Counts](CountsFile, b) }

func parseHash(b []byte) (string, error) {
	h, err := parse[hashFile](HashFile, b)
	return h.Hash, err
}

func parseKey(b []byte) (ed25519.PrivateKey, error) {
	k, err := parse[keyFile](KeyFile, b)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(k.Seed), nil
}

type hashFile struct {
	Version int    `json:"version"`
	Hash    string `json:"hash"`
}

type keyFile struct {
	Version int    `json:"version"`
	Seed    []byte `json:"seed"`           // base64 in JSON
	Unit    string `json:"unit,omitempty"` // serial number
}

type validator interface{ validate() error }

// parse decodes a versioned JSON object. Its errors do not quote the input, which may be a secret.
func parse[T validator](name string, b []byte) (T, error) {
	var zero, t T
	var head struct {
		Version int `json:"version"`
	}
	if err := decode(b, &head); err != nil {
		return zero, fmt.Errorf("parse %s: %w: %v", name, ErrDamaged, err)
	}
	if head.Version > Version {
		return zero, fmt.Errorf("parse %s: version %d: %w", name, head.Version, ErrNewer)
	}
	if head.Version < 1 {
		return zero, fmt.Errorf("parse %s: %w: version is %d", name, ErrDamaged, head.Version)
	}
	if err := decode(b, &t); err != nil {
		return zero, fmt.Errorf("parse %s: %w: %v", name, ErrDamaged, err)
	}
	if err := t.validate(); err != nil {
		return zero, fmt.Errorf("parse %s: %w: %v", name, ErrDamaged, err)
	}
	keepUnknown(b, &t)
	return t, nil
}

func decode(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(into); err != nil {
		return errors.New("not the JSON that is expected")
	}
	if _, err := d.Token(); err == nil || d.More() {
		return errors.New("data after the end")
	}
	return nil
}

var (
	idForm     = regexp.MustCompile(`^[0-9a-f]+$`)
	uuidForm   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	mbrForm    = regexp.MustCompile(`^[0-9a-f]{8}$`)
	mbrIDForm  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{2}$`)
	fatForm    = regexp.MustCompile(`^[0-9A-F]{4}-[0-9A-F]{4}$`)
	mbrType    = regexp.MustCompile(`^[0-9a-f]{2}$`)
	hashForm   = regexp.MustCompile(`^\$[0-9a-z]{1,8}\$[./A-Za-z0-9$,=]{8,}$`)
	imageForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*\.upd$`)
	prefixForm = regexp.MustCompile(`^[A-Za-z0-9._+-]*$`)
)

// These functions check lengths, not the expressions above. Every boot would have to compile hundreds of repetitions.

func isID(s string) bool { return len(s) >= 8 && len(s) <= 64 && idForm.MatchString(s) }

func isImage(s string) bool { return len(s) <= 205 && imageForm.MatchString(s) }

func isPrefix(s string) bool { return len(s) <= 100 && prefixForm.MatchString(s) }

// IsPasswordHash reports whether s has the form of a crypt(3) hash: $id$ and what follows.
func IsPasswordHash(s string) bool { return len(s) <= 250 && hashForm.MatchString(s) }

func (u Unit) validate() error {
	for name, s := range map[string]string{"serial": u.Serial, "platform": u.Platform, "manifestSerial": u.ManifestSerial} {
		if err := printable(name, s, 256); err != nil {
			return err
		}
	}
	for name, s := range map[string]string{"server": u.Server, "bootArgs": u.BootArgs} {
		if err := printable(name, s, 1024); err != nil {
			return err
		}
	}
	if u.Serial == "" {
		return errors.New("serial is empty")
	}
	if u.Firmware != layout.UEFI && u.Firmware != layout.BIOS {
		return errors.New("firmware is not known")
	}
	if !isPrefix(u.ImagePrefix) {
		return errors.New("imagePrefix has a wrong form")
	}
	if u.Original != "" && !isImage(u.Original) {
		return errors.New("original is not the name of an image")
	}
	if len(u.Main) < 1 || len(u.Main) > 64 {
		return fmt.Errorf("there are %d main disks, want 1 to 64", len(u.Main))
	}
	for i, d := range append([]Disk{u.Recovery}, u.Main...) {
		if err := d.validate(); err != nil {
			if i == 0 {
				return fmt.Errorf("recovery disk: %w", err)
			}
			return fmt.Errorf("main disk %d: %w", i, err)
		}
	}
	if u.OneDisk() && !reflect.DeepEqual(u.Recovery.Table, u.Main[0].Table) {
		return errors.New("the tables of the only disk differ")
	}
	if d := u.DataArray; d != nil && (u.Array == nil || d.UUID == u.Array.UUID || d.FSUUID == u.Array.FSUUID) {
		return errors.New("the array of the data is that of the main system, or alone")
	}
	return errors.Join(u.Array.validate(len(u.Main)), u.DataArray.validate(len(u.Main)))
}

func (a *Array) validate(disks int) error {
	if a == nil {
		return nil
	}
	least, ok := map[int]int{0: 2, 1: 2, 5: 3, 6: 4, 10: 2}[a.Level]
	switch {
	case !ok || disks < least:
		return fmt.Errorf("an array of level %d with %d disks", a.Level, disks)
	case !uuidForm.MatchString(a.UUID) || !uuidForm.MatchString(a.FSUUID):
		return errors.New("identifier of the array has a wrong form")
	}
	return printable("label of the array", a.FSLabel, 144)
}

func (d Disk) validate() error {
	for name, s := range map[string]string{"bus": d.Bus, "model": d.Model, "serial": d.Serial, "wwn": d.WWN} {
		if err := printable(name, s, 256); err != nil {
			return err
		}
	}
	if d.Size < 0 || d.SectorSize < 0 || d.SectorSize > 1<<20 {
		return errors.New("size is out of range")
	}
	t := d.Table
	id, part, typ := uuidForm, uuidForm, uuidForm
	switch t.Kind {
	case layout.None:
		if len(t.Partitions) > 0 || t.UUID != "" {
			return errors.New("a table without a kind has content")
		}
		return nil
	case layout.GPT:
	case layout.MBR:
		id, part, typ = mbrForm, mbrIDForm, mbrType
	default:
		return errors.New("kind of table is not known")
	}
	if !id.MatchString(t.UUID) {
		return errors.New("identifier of the table has a wrong form")
	}
	seen := map[int]bool{}
	for _, p := range t.Partitions {
		switch {
		case p.Number < 1 || p.Number > 128 || seen[p.Number]:
			return fmt.Errorf("partition number %d is out of range or there twice", p.Number)
		case p.Start < 0 || p.Size <= 0 || p.Start > 1<<62-p.Size:
			return fmt.Errorf("partition %d is out of range", p.Number)
		case !part.MatchString(p.UUID) || !typ.MatchString(p.Type):
			return fmt.Errorf("identifier or type of partition %d has a wrong form", p.Number)
		case p.FSUUID != "" && !uuidForm.MatchString(p.FSUUID) && !fatForm.MatchString(p.FSUUID):
			return fmt.Errorf("filesystem identifier of partition %d has a wrong form", p.Number)
		}
		for name, s := range map[string]string{"role": string(p.Role), "name": p.Name, "fslabel": p.FSLabel} {
			if err := printable(name, s, 144); err != nil {
				return err
			}
		}
		seen[p.Number] = true
	}
	return nil
}

func (r Request) validate() error {
	switch {
	case !isID(r.ID):
		return errors.New("id is not 8 to 64 hexadecimal digits")
	case !slices.Contains([]string{KindRestore, KindRestoreSettings, KindRestoreEverything, KindErase}, r.Kind):
		return errors.New("kind of request is not known")
	case r.Kind == KindErase && r.Image != "":
		return errors.New("an erase has no image")
	case r.Kind != KindErase && r.Whole:
		return errors.New("only an erase reaches the recovery volume")
	case r.Image != "" && r.Image != Latest && r.Image != Original && !isImage(r.Image):
		return errors.New("image is neither latest, original nor the name of an image")
	}
	return printable("by", r.By, 256)
}

func (c Counts) validate() error {
	for _, n := range []int{c.BootAttempts, c.Repairs, c.RecoveryRepairs, c.RestoreFailures, c.Restores, c.WatchdogResets, c.Mends} {
		if n < 0 || n > maxCount {
			return errors.New("a count is out of range")
		}
	}
	return nil
}

func (h hashFile) validate() error {
	if !IsPasswordHash(h.Hash) {
		return errors.New("not a password hash of crypt(3)")
	}
	return nil
}

func (k keyFile) validate() error {
	if len(k.Seed) != ed25519.SeedSize {
		return fmt.Errorf("seed has %d bytes, want %d", len(k.Seed), ed25519.SeedSize)
	}
	return nil
}

func printable(name, s string, most int) error {
	if len(s) > most {
		return fmt.Errorf("%s has %d bytes, want at most %d", name, len(s), most)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8", name)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return fmt.Errorf("%s has a character that cannot be printed", name)
		}
	}
	return nil
}

func (v *Volume) inside(f func(*os.Root) error) error {
	r, err := os.OpenRoot(v.dir)
	if err != nil {
		return fmt.Errorf("open recovery volume: %w", err)
	}
	defer r.Close()
	return f(r)
}

func (v *Volume) read(name string, most int64) (b []byte, err error) {
	err = v.inside(func(r *os.Root) error {
		b, err = ReadFile(r, name, most)
		return err
	})
	return b, err
}

func (v *Volume) writeJSON(name string, value any, invalid error, mode fs.FileMode) error {
	if invalid != nil {
		return fmt.Errorf("write %s: %w", name, invalid)
	}
	most := maxSmall
	if name == UnitFile {
		most = maxUnit
	}
	b, err := marshal(value, most)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return v.write(name, b, mode)
}

func (v *Volume) write(name string, b []byte, mode fs.FileMode) error {
	return v.inside(func(r *os.Root) error {
		if err := makeParent(r, name); err != nil {
			return err
		}
		return durable.WriteIn(r, name, b, durable.Owner{Mode: mode})
	})
}

// makeParent makes the directory of a file durably if it is missing.
func makeParent(r *os.Root, name string) error {
	dir := filepath.Dir(name)
	switch err := r.Mkdir(dir, 0o700); {
	case err == nil:
		return durable.SyncIn(r, ".")
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return nil
}
