// Package tpm says which TPM a machine has, clears it, and lets one see whether it was cleared.
//
// A TPM 2.0 is cleared by TPM2_Clear with the authorization of its lockout hierarchy, or, where that is refused, by the firmware at the
// next start: the physical presence interface takes the request (TCG PC Client Platform Physical Presence Interface 1.30), and the kernel
// shows it as files. What a clear does is in the TPM 2.0 Library specification, part 3, TPM2_Clear: the seed of the storage hierarchy is
// another one, so that nothing opens any more what was sealed; its objects and the passwords are gone; the count of resets is zero.
//
// The five commands are marshalled here. The whole of github.com/google/go-tpm made init 389,120 bytes larger.
package tpm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Errors of this package wrap one of these, or a Code.
var (
	// ErrOld says that it is no TPM 2.0.
	ErrOld = errors.New("a TPM of another version than 2.0")
	// ErrPassword says that the lockout hierarchy has a password, so that no clear was tried: a wrong one would lock out who knows it.
	ErrPassword = errors.New("the lockout hierarchy has a password")
	// ErrPresence says that the firmware takes no request to clear the TPM.
	ErrPresence = errors.New("the firmware takes no request to clear the TPM")
	// ErrAnswer says that what came back is no answer to the command.
	ErrAnswer = errors.New("no answer of a TPM 2.0")
)

// TPM is the TPM of a machine. It holds nothing open.
type TPM struct {
	dir  string // in sysfs
	open func() (io.ReadWriteCloser, error)
}

// Find returns the TPM of the machine, or nil if the kernel knows none. sysfs is where that is mounted, dev is where device nodes are.
func Find(sysfs, dev string) (*TPM, error) {
	const name = "tpm0"
	dir := filepath.Join(sysfs, "class", "tpm", name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("find the TPM: %w", err)
	}
	return New(dir, func() (io.ReadWriteCloser, error) { return os.OpenFile(filepath.Join(dev, name), os.O_RDWR, 0) }), nil
}

// Version returns which version of the specification the TPM of a machine is of, "1.2" or "2.0". It is empty if the kernel knows no TPM,
// and "unknown" where it does not say, as before Linux 5.6. The file system must be rooted at /sys.
func Version(sys fs.FS) string {
	if _, err := fs.Stat(sys, "class/tpm/tpm0"); err != nil {
		return ""
	}
	b, err := fs.ReadFile(sys, "class/tpm/tpm0/tpm_version_major")
	if v, ok := map[string]string{"1": "1.2", "2": "2.0"}[strings.TrimSpace(string(b))]; ok && err == nil {
		return v
	}
	return "unknown"
}

// New returns a TPM that is reached by what open opens: a command is one write, an answer is what is read then. dir is its directory in
// sysfs.
func New(dir string, open func() (io.ReadWriteCloser, error)) *TPM { return &TPM{dir, open} }

// old returns an error if the kernel says that it is no TPM 2.0. Kernels before 5.6 do not say.
func (t *TPM) old() error {
	b, err := os.ReadFile(filepath.Join(t.dir, "tpm_version_major"))
	if major := strings.TrimSpace(string(b)); err == nil && major != "2" {
		return fmt.Errorf("%w: %s", ErrOld, major)
	}
	return nil
}

// Facts are what a TPM says of itself.
type Facts struct {
	// Maker is who made it, such as INTC.
	Maker string `json:"maker,omitempty"`
	// Key is a digest of the primary key of the storage hierarchy, made by the usual template (TCG EK credential profile, SRK, ECC P-256).
	// It follows from the seed. Empty: none can be made without a password, or not the same one twice.
	Key []byte `json:"key,omitempty"`
	// Resets is how often the TPM was reset since it was cleared. Nothing but a clear makes it smaller.
	Resets uint32 `json:"resets"`
	// Owner, Endorsement and Lockout report that the hierarchy has a password.
	Owner       bool `json:"owner,omitempty"`
	Endorsement bool `json:"endorsement,omitempty"`
	Lockout     bool `json:"lockout,omitempty"`
	// Persistent are the handles of the objects that are kept in it, but for those of the platform and for endorsement keys, which makers
	// put there.
	Persistent []uint32 `json:"persistent,omitempty"`
}

// Look reads what the TPM says of itself. It changes nothing. The facts are filled as far as it came.
func (t *TPM) Look() (f Facts, err error) {
	err = t.with(func(s session) (err error) {
		if f.Maker, err = s.maker(); err != nil {
			return err
		}
		a, err := s.property(permanent)
		if err != nil {
			return err
		}
		f.Owner, f.Endorsement, f.Lockout = a&1 != 0, a&2 != 0, a&4 != 0 // part 2, TPMA_PERMANENT
		if f.Resets, err = s.resets(); err != nil {
			return err
		}
		if f.Persistent, err = s.persistent(); err != nil {
			return err
		}
		f.Key, err = s.key()
		return err
	})
	if err != nil {
		return f, fmt.Errorf("read the TPM: %w", err)
	}
	return f, nil
}

// Clear clears the TPM by the empty password of its lockout hierarchy. That there is no error does not prove anything: see Look.
func (t *TPM) Clear() error {
	err := t.with(func(s session) error {
		a, err := s.property(permanent)
		if err == nil && a&4 != 0 {
			err = ErrPassword
		}
		if err != nil {
			return err
		}
		_, err = s.do(ccClear, []uint32{rhLockout}, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("clear the TPM: %w", err)
	}
	return nil
}

// with lets do have the open TPM.
func (t *TPM) with(do func(session) error) error {
	if err := t.old(); err != nil {
		return err
	}
	c, err := t.open()
	if err != nil {
		return err
	}
	return errors.Join(do(session{c}), c.Close())
}

// The operations of the physical presence interface that clear a TPM (table "Physical Presence Interface Operation Summary"): of a TPM 2.0,
// and of one before, which must be enabled for it and is so again afterwards.
const (
	presenceClear    = "5"
	presenceClearOld = "22"
)

// Request asks the firmware to clear the TPM at the next start of the machine, and returns what the kernel says of such requests, such as
// "User required": then a person must confirm it at the machine.
func (t *TPM) Request() (says string, err error) {
	op := presenceClear
	if t.old() != nil {
		op = presenceClearOld
	}
	ppi := filepath.Join(t.dir, "ppi")
	list, err := os.ReadFile(filepath.Join(ppi, "tcg_operations"))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPresence, err)
	}
	state := "0"
	for line := range strings.Lines(string(list)) { // such as "5 3: User required"; drivers/char/tpm/tpm_ppi.c
		if n, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && n == op {
			state, says, _ = strings.Cut(rest, ": ")
		}
	}
	if state != "3" && state != "4" {
		return "", fmt.Errorf("%w: operation %s: %q", ErrPresence, op, says)
	}
	name := filepath.Join(ppi, "request")
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPresence, err)
	}
	_, err = f.WriteString(op)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("%w: %w", ErrPresence, err)
	}
	b, err := os.ReadFile(name)
	if err != nil || strings.TrimSpace(string(b)) != op {
		return "", errors.Join(fmt.Errorf("%w: it was given %s and holds %q", ErrPresence, op, b), err)
	}
	return says, nil
}
