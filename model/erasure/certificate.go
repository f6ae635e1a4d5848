package erasure

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"gprovision/model/record"
	"gprovision/model/signature"
)

// Version is the version of certificates that this package writes and reads. The rules are part of it.
const Version = 1

// What a certificate may have at most. Whoever makes one leaves out what is more, and says so in NotReached or by a Command.
const (
	// MaxCertificate is the largest size of the file in bytes.
	MaxCertificate = 1 << 20
	// MaxText is the largest length of each text.
	MaxText = 256
	// MaxList is the largest length of each list.
	MaxList = 256
	// MaxDrives is the largest number of drives.
	MaxDrives = 64
	// MaxCount is the largest Count.
	MaxCount = 1 << 56
)

// Errors of this package wrap one of these.
var (
	// ErrFormat says that a file is no certificate of this version, or not written as one is.
	ErrFormat = errors.New("not in the format of an erase certificate")
	// ErrContradiction says that a certificate says something that does not follow from its own evidence.
	ErrContradiction = errors.New("the certificate contradicts itself")
)

// Clock says where the times of a certificate come from.
type Clock string

// The clocks.
const (
	ClockServer Clock = "server" // set by the factory server in this boot
	ClockRTC    Clock = "rtc"    // that of the unit, whoever set it
	ClockNone   Clock = "none"   // the unit has none: times say how long something took, and not when
)

// Role says what a drive is for.
type Role string

// The roles.
const (
	MainDisk       Role = "main"
	RecoveryVolume Role = "recovery"
)

// Certificate is what a unit says of one run of an erase. All texts are printable ASCII.
type Certificate struct {
	// Version is that of the format.
	Version int `json:"version"`
	// Run identifies the run: 32 lower case hexadecimal digits, those of the request.
	Run string `json:"run"`
	// Unit is the unit's name.
	Unit string `json:"unit"`
	// Platform is the code name of its platform.
	Platform string `json:"platform"`
	// Key is the unit's Ed25519 public key (base64 in JSON), by which the file is signed.
	Key []byte `json:"key"`
	// Started and Ended are in UTC, in whole seconds.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	// Clock says where all times come from.
	Clock Clock `json:"clock"`
	// Require is the level that the policy demanded, empty for none.
	Require Level `json:"require"`
	// Outcome and Level are those of all main disks together.
	Outcome Outcome `json:"outcome"`
	Level   Level   `json:"level"`
	// Recovery is that of the recovery volume, nothing if there is nothing of it in Drives or Volume.
	Recovery *Result `json:"recovery,omitempty"`
	// Drives are all devices that were to be erased.
	Drives []Drive `json:"drives"`
	// Volume is the recovery volume, if its free space was to be filled.
	Volume *Volume `json:"volume,omitempty"`
	// NotReached is what of the unit could not be erased beside its drives, such as accounts of a management controller.
	// Parts are what holds secrets and is no drive.
	Parts []Part `json:"parts,omitempty"`
	// NotReached is what of the unit could not be erased beside its drives and parts, such as accounts of a management controller.
	NotReached []string `json:"notReached,omitempty"`
	// Kept is what stays on the unit on purpose.
	Kept []string `json:"kept,omitempty"`
	// Software is what ran.
	Software Software `json:"software"`
}

// Result is an outcome with its level.
type Result struct {
	Outcome Outcome `json:"outcome"`
	Level   Level   `json:"level"`
}

// Software is what did the erase.
type Software struct {
	// Gprovision is the revision of the program.
	Gprovision string `json:"gprovision"`
	// Kernel is the release of the running kernel.
	Kernel string `json:"kernel"`
	// Artifact is the SHA-256 of the boot artifact in lower case hexadecimal, empty if it is not known.
	Artifact string `json:"artifact"`
}

// Drive is one device of a certificate.
type Drive struct {
	// Role says what it is for.
	Role Role `json:"role"`
	// Name is the kernel's, such as nvme0n1.
	Name string `json:"name"`
	// Bus is how it is attached, such as nvme, sata, sas, usb, virtio, mmc.
	Bus string `json:"bus"`
	// Model, Serial and Firmware are what it says of itself.
	Model    string `json:"model"`
	Serial   string `json:"serial"`
	Firmware string `json:"firmware"`
	// Bytes is its size, opened hidden areas included.
	Bytes Count `json:"bytes"`
	// BlockSize is the size of the blocks that are counted, in bytes.
	BlockSize uint32 `json:"blockSize"`
	// Capabilities are words in which it says what it can do, as they were read.
	Capabilities []Capability `json:"capabilities,omitempty"`
	// Commands are all that were sent to erase it, in order.
	Commands []Command `json:"commands,omitempty"`
	// Unwritten are blocks that could not be written.
	Unwritten []Range `json:"unwritten,omitempty"`
	// NotReached is what of it could not be reached, such as boot areas, or physical drives behind a volume.
	NotReached []string `json:"notReached,omitempty"`
	// Evidence is what its outcome follows from.
	Evidence Evidence `json:"evidence"`
	// Outcome, Level and Reasons are those that Judge makes of it.
	Outcome Outcome  `json:"outcome"`
	Level   Level    `json:"level"`
	Reasons []Reason `json:"reasons,omitempty"`
}

// Capability is one word of a drive's description of itself.
type Capability struct {
	// Name is that of the specification, such as SANICAP.
	Name string `json:"name"`
	// Value is hexadecimal, such as 0xa0000002.
	Value string `json:"value"`
}

// Command is one command that was sent, or one pass of writes.
type Command struct {
	// Method is the one that it belongs to.
	Method Method `json:"method"`
	// Name is that of the specification, such as Sanitize.
	Name string `json:"name"`
	// Arguments are its parameters, such as "cdw10=0x00000204".
	Arguments string `json:"arguments"`
	// Status is what came of it, as the drive said it.
	Status string `json:"status"`
	// Started and Ended are in UTC, in whole seconds.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
}

// Range is a number of blocks.
type Range struct {
	First Count `json:"first"`
	Count Count `json:"count"`
}

// Printable returns text as a certificate may hold it: printable ASCII, all else as \x and two digits, and no more than MaxText of it.
func Printable(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		piece := string(c)
		if c < ' ' || c > '~' {
			piece = fmt.Sprintf(`\x%02x`, c)
		}
		if b.Len()+len(piece) > MaxText {
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}

// Judged returns the certificate with what follows from the evidence: the outcomes of each drive, of the main disks and of the recovery
// volume, and the states of the parts. It changes drives and parts in place.
func (c Certificate) Judged() Certificate {
	var mains, recovery []Verdict
	for i := range c.Drives {
		d := &c.Drives[i]
		v := Judge(d.Evidence, c.Require)
		d.Outcome, d.Level, d.Reasons = v.Outcome, v.Level, v.Reasons
		if d.Role == MainDisk {
			mains = append(mains, v)
		} else {
			recovery = append(recovery, v)
		}
	}
	if c.Volume != nil {
		volume, v := *c.Volume, JudgeVolume(*c.Volume, c.Require)
		volume.Outcome, volume.Level, volume.Reasons = v.Outcome, v.Level, v.Reasons
		c.Volume, recovery = &volume, append(recovery, v)
	}
	for i, p := range c.Parts {
		c.Parts[i] = p.Judged()
	}
	c.Outcome, c.Level = Combine(mains)
	if c.Recovery = nil; len(recovery) > 0 {
		o, l := Combine(recovery)
		c.Recovery = &Result{o, l}
	}
	return c
}

// Ending is what follows for the unit: the outcome of the main disks, unless the recovery device was to be erased too, and that has failed
// or is unknown.
func (c Certificate) Ending() Outcome {
	out := c.Outcome
	for _, d := range c.Drives {
		if d.Role == RecoveryVolume && d.Outcome.rank() > max(out.rank(), Weaker.rank()) {
			out = d.Outcome
		}
	}
	return out
}

// Marshal returns the file. There is one way to write a certificate.
func (c Certificate) Marshal() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(c); err != nil {
		return nil, fmt.Errorf("write certificate: %w", err)
	}
	if b.Len() > MaxCertificate {
		return nil, fmt.Errorf("write certificate: it has %d bytes, at most %d: %w", b.Len(), MaxCertificate, ErrFormat)
	}
	return b.Bytes(), nil
}

// Parse reads a file that Marshal has written, and no other: what is signed can be read in one way only. A key that it does not know is
// refused, since it may take back what the others say. The errors wrap ErrFormat or ErrContradiction.
func Parse(file []byte) (Certificate, error) {
	if len(file) > MaxCertificate {
		return Certificate{}, fmt.Errorf("parse certificate of %d bytes, at most %d: %w", len(file), MaxCertificate, ErrFormat)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(file, &head); err != nil {
		return Certificate{}, fmt.Errorf("parse certificate: %w: %w", ErrFormat, err)
	}
	if head.Version != Version {
		return Certificate{}, fmt.Errorf("parse certificate: it has version %d, this program knows %d: %w", head.Version, Version, ErrFormat)
	}
	var c Certificate
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Certificate{}, fmt.Errorf("parse certificate: %w: %w", ErrFormat, err)
	}
	again, err := c.Marshal()
	if err != nil {
		return Certificate{}, err
	}
	if !bytes.Equal(again, file) {
		return Certificate{}, fmt.Errorf("parse certificate: it is not written in the one way that there is: %w", ErrFormat)
	}
	if err := c.Validate(); err != nil {
		return Certificate{}, fmt.Errorf("parse certificate: %w", err)
	}
	return c, nil
}

// Validate returns an error unless c is within its bounds and all that it says follows from its evidence.
func (c Certificate) Validate() error {
	if err := bounded(reflect.ValueOf(c)); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	j := c
	j.Drives, j.Parts = slices.Clone(c.Drives), slices.Clone(c.Parts)
	j = j.Judged()
	for i, d := range c.Drives {
		if want := j.Drives[i]; d.Outcome != want.Outcome || d.Level != want.Level || !slices.Equal(d.Reasons, want.Reasons) {
			return fmt.Errorf("%w: %s is said to be %s %s %q, and the evidence says %s %s %q", ErrContradiction, d.Name, d.Outcome, d.Level,
				d.Reasons, want.Outcome, want.Level, want.Reasons)
		}
	}
	if !reflect.DeepEqual(c.Volume, j.Volume) {
		return fmt.Errorf("%w: the outcome of the recovery volume is not what its evidence says", ErrContradiction)
	}
	for i, p := range c.Parts {
		if want := j.Parts[i].State; p.State != want {
			return fmt.Errorf("%w: %s is said to be %s, and the evidence says %s", ErrContradiction, p.Name, p.State, want)
		}
	}
	if c.Outcome != j.Outcome || c.Level != j.Level || !reflect.DeepEqual(c.Recovery, j.Recovery) {
		return fmt.Errorf("%w: the outcome of all is not that of the drives", ErrContradiction)
	}
	return nil
}

// bounded returns an error if a text, a list, a time or a number in v is beyond what a certificate may have.
func bounded(v reflect.Value) error {
	switch x := v.Interface().(type) {
	case time.Time:
		if x.Location() != time.UTC || x.Nanosecond() != 0 || x.Year() < 1970 || x.Year() > 9999 {
			return fmt.Errorf("time %v, want whole seconds in UTC", x)
		}
		return nil
	case Count:
		if x > MaxCount {
			return fmt.Errorf("number %d, at most %d", x, uint64(MaxCount))
		}
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); len(s) > MaxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("text %.40q, want at most %d printable characters", s, MaxText)
		}
	case reflect.Slice:
		if v.Len() > MaxList {
			return fmt.Errorf("a list of %d, at most %d", v.Len(), MaxList)
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return nil
		}
		for i := range v.Len() {
			if err := bounded(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Pointer:
		if !v.IsNil() {
			return bounded(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if err := bounded(v.Field(i)); err != nil {
				return fmt.Errorf("%s: %w", v.Type().Field(i).Name, err)
			}
		}
	}
	return nil
}

// lowerHex reports whether s is n lower case hexadecimal digits.
func lowerHex(s string, n int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == n && s == strings.ToLower(s)
}

// check returns an error if what c names is not what it must be.
func (c Certificate) check() error {
	switch {
	case c.Version != Version:
		return fmt.Errorf("version %d, want %d", c.Version, Version)
	case !lowerHex(c.Run, 32):
		return fmt.Errorf("run %q, want 32 hexadecimal digits", c.Run)
	case len(c.Key) != ed25519.PublicKeySize:
		return fmt.Errorf("the unit's key has %d bytes, want %d", len(c.Key), ed25519.PublicKeySize)
	case c.Ended.Before(c.Started):
		return errors.New("it ended before it started")
	case c.Clock != ClockServer && c.Clock != ClockRTC && c.Clock != ClockNone:
		return fmt.Errorf("clock %q", c.Clock)
	case c.Require != "" && c.Require.rank() == 0:
		return fmt.Errorf("required level %q", c.Require)
	case len(c.Drives) == 0 || len(c.Drives) > MaxDrives:
		return fmt.Errorf("%d drives, want 1 to %d", len(c.Drives), MaxDrives)
	case c.Software.Artifact != "" && !lowerHex(c.Software.Artifact, 2*sha256.Size):
		return fmt.Errorf("artifact %q, want a SHA-256", c.Software.Artifact)
	}
	if v := c.Volume; v != nil && (v.Name == "" || v.ReadBack > v.Filled || v.Different > v.Filled-v.ReadBack || v.Filled > v.Bytes) {
		return fmt.Errorf("volume %q of %d bytes: %d are filled, %d read back, %d different", v.Name, v.Bytes, v.Filled, v.ReadBack, v.Different)
	}
	names := map[string]bool{}
	for _, d := range c.Drives {
		if names[d.Name] {
			return fmt.Errorf("drive %q is there twice", d.Name)
		}
		names[d.Name] = true
		if err := d.check(); err != nil {
			return fmt.Errorf("drive %q: %w", d.Name, err)
		}
	}
	for _, p := range c.Parts {
		if err := p.check(); err != nil {
			return err
		}
	}
	return record.CheckUnit(c.Unit)
}

func (d Drive) check() error {
	e := d.Evidence
	switch s := e.Samples; {
	case d.Name == "":
		return errors.New("it has no name")
	case d.Role != MainDisk && d.Role != RecoveryVolume:
		return fmt.Errorf("role %q", d.Role)
	case !slices.Contains([]Media{Rotating, Flash, UnknownMedia}, e.Media):
		return fmt.Errorf("media %q", e.Media)
	case !slices.Contains([]Path{Direct, USB, RAID, Virtual}, e.Path):
		return fmt.Errorf("path %q", e.Path)
	case !slices.Contains([]Reset{ResetDone, ResetNone, ResetFailed}, s.Reset):
		return fmt.Errorf("reset %q", s.Reset)
	case e.Method != "" && e.Method.find().name == "":
		return fmt.Errorf("method %q", e.Method)
	case d.BlockSize == 0:
		return errors.New("its blocks have no size")
	case s.Blocks > d.Bytes/Count(d.BlockSize) || !e.Part && s.Blocks != d.Bytes/Count(d.BlockSize):
		return fmt.Errorf("samples of %d blocks of %d bytes, and it has %d bytes", s.Blocks, d.BlockSize, d.Bytes)
	case s.Random.all()+s.Uninformative > s.Blocks || s.Ends.all() > 2 || s.Read > s.Blocks:
		return errors.New("there are more samples than places for them")
	}
	if w := e.Word.Overwrite; w != nil && (w.Sectors > e.Samples.Blocks || !e.Part && w.Sectors != e.Samples.Blocks) {
		return fmt.Errorf("an overwrite of %d blocks of %d", w.Sectors, e.Samples.Blocks)
	}
	for _, c := range d.Commands {
		if c.Method.find().name == "" {
			return fmt.Errorf("a command of the method %q", c.Method)
		}
	}
	words := reflect.ValueOf(e.Word)
	for i := range words.NumField() {
		name, _, _ := strings.Cut(words.Type().Field(i).Tag.Get("json"), ",")
		if !words.Field(i).IsNil() && kind(name) != e.Method.find().kind {
			return fmt.Errorf("a word of another method than %q: %s", e.Method, name)
		}
	}
	return nil
}

// UnitKey returns a unit's key in the form in which signatures are made and checked. Its identifier is made of the key.
func UnitKey(key ed25519.PublicKey) (signature.PublicKey, error) {
	sum := sha256.Sum256(append([]byte("gprov-key\n"), key...))
	return signature.PublicKeyOf(key, binary.BigEndian.Uint64(sum[:8]))
}

// Sign judges and writes a certificate, and signs it by the unit's key, whose public half it gets. The two files go together.
func (c Certificate) Sign(key ed25519.PrivateKey) (file, sig []byte, err error) {
	c.Version, c.Key = Version, key.Public().(ed25519.PublicKey)
	c = c.Judged()
	if err := c.Validate(); err != nil {
		return nil, nil, fmt.Errorf("sign certificate: %w", err)
	}
	if file, err = c.Marshal(); err != nil {
		return nil, nil, err
	}
	public, err := UnitKey(key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate: %w", err)
	}
	signer, err := signature.NewExternal(public, func(_ signature.Part, message []byte) ([]byte, error) {
		return ed25519.Sign(key, message), nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate: %w", err)
	}
	sig, err = signer.Sign(bytes.NewReader(file), signature.EraseComment(c.Unit, c.Run))
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate: %w", err)
	}
	return file, sig, nil
}

// ParseSigned reads a certificate and checks that sig is the signature of exactly this file by the key that the certificate names. Whose
// key that is does not follow: see OpenVoucher.
func ParseSigned(file, sig []byte) (Certificate, error) {
	c, err := Parse(file)
	if err != nil {
		return Certificate{}, err
	}
	key, err := UnitKey(c.Key)
	if err != nil {
		return Certificate{}, fmt.Errorf("check certificate: %w", err)
	}
	var r io.Reader = bytes.NewReader(file)
	if err := signature.VerifyAs([]signature.PublicKey{key}, sig, r, signature.EraseComment(c.Unit, c.Run)); err != nil {
		return Certificate{}, fmt.Errorf("check certificate: %w", err)
	}
	return c, nil
}
