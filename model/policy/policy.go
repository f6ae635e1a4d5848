// Package policy defines what a boot artifact may do. The file lies in the initramfs as /etc/gprovision/policy.json:
// forge/boot writes it, unit/pid1 obeys it. It belongs to the artifact, is signed with it, and no kernel argument widens it.
//
// The format is described in docs/formats/policy.md.
package policy

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gprovision/model/release"
	"gprovision/model/source"
)

// Version is the format version that this package writes. Parse reads it and all older ones.
const Version = 1

// What Forced Factory Restore of a boot menu does.
const (
	ForcedRestoreAsks       = ""           // restores after a person said yes on a panel
	ForcedRestoreNever      = "never"      // there is no such entry, and nothing comes of one
	ForcedRestoreUnattended = "unattended" // restores without a question: for units that nobody can answer at
)

// ForcedRestoreArg is the kernel argument of Forced Factory Restore. It is for one boot: it belongs into no entry that a unit starts
// by itself.
const ForcedRestoreArg = "FACTORY_RESTORE=1"

// EraseArg is the kernel argument that asks for an erase. A person confirms it twice.
const EraseArg = "DATA_ERASE=1"

// The panels that a policy may enable.
const (
	Keyboard = "keyboard" // of the screen
	Serial   = "serial"   // every serial line that is a console
)

// Policy is what one boot artifact may do. The zero value allows nothing and trusts nobody.
type Policy struct {
	// Version is the version of the format.
	Version int `json:"version"`
	// Provision allows the job provision when the kernel argument mfgurl is given.
	Provision bool `json:"provision,omitempty"`
	// Keys are trusted minisign public keys, each the base64 line of a .pub file.
	Keys []string `json:"keys,omitempty"`
	// AllowUnsigned accepts images and manifests without a signature. A signature that is there must hold all the same.
	AllowUnsigned bool `json:"allowUnsigned,omitempty"`
	// AllowSHA1 accepts files for which a manifest has a SHA-1 hash alone.
	AllowSHA1 bool `json:"allowSHA1,omitempty"`
	// ServerCA holds the certificates, in PEM, that may vouch for the factory server.
	ServerCA string `json:"serverCA,omitempty"`
	// Locked makes init ignore every choice on the kernel command line.
	Locked bool `json:"locked,omitempty"`
	// BootArgs is written into the boot artifact and into each boot entry, such as "console=ttyS0,115200".
	BootArgs string `json:"bootArgs,omitempty"`
	// Panels are the panels on which a person may choose, beside a display with buttons: Keyboard and Serial. None: what is
	// pressed there is not even read.
	Panels []string `json:"panels,omitempty"`
	// GraceSeconds is how long a person may choose at each boot, where there is a panel with keys. 0: the default, 3.
	GraceSeconds int `json:"graceSeconds,omitempty"`
	// RootWaitSeconds is how long init waits for a main disk that is expected and not there. 0: the default, 60.
	RootWaitSeconds int `json:"rootWaitSeconds,omitempty"`
	// MaxRepairs is how often in a row a damaged main filesystem is repaired before the unit gives up. 0: the default, 2.
	MaxRepairs int `json:"maxRepairs,omitempty"`
	// RestoreOnDamage leads to a restore when the main system stays damaged after the repairs. Otherwise the unit holds.
	RestoreOnDamage bool `json:"restoreOnDamage,omitempty"`
	// FailedBoots is how many boots in a row that were never marked good lead to a restore of the previous good image. 0: never.
	FailedBoots int `json:"failedBoots,omitempty"`
	// NoWatchdog leaves a hardware watchdog alone.
	NoWatchdog bool `json:"noWatchdog,omitempty"`
	// WatchdogSeconds is how long the running system has to take over the hardware watchdog, from the decision to boot on.
	// 0: the default, 300.
	WatchdogSeconds int `json:"watchdogSeconds,omitempty"`
	// KeepImages is how many of the newest images are kept beside the original and the running one. 0: the default, 2.
	KeepImages int `json:"keepImages,omitempty"`
	// Shell offers the recovery shell, to whoever has the unit's own password or an answer signed by one of SupportKeys.
	Shell bool `json:"shell,omitempty"`
	// SupportKeys are public keys, each the base64 line of a .pub file, whose owners may open the recovery shell of any unit, and have it
	// go on after an erase that is not proved.
	SupportKeys []string `json:"supportKeys,omitempty"`
	// MediumWithoutConfirmation restores from an emergency medium with a signed image without asking a person.
	MediumWithoutConfirmation bool `json:"mediumWithoutConfirmation,omitempty"`
	// ForcedRestore says what Forced Factory Restore of a boot menu does: see the ForcedRestore constants.
	ForcedRestore string `json:"forcedRestore,omitempty"`
	// OldestBuild is the oldest image that may be installed, as DATE.BUILD of its name, such as "2026-11-22.0001".
	OldestBuild string `json:"oldestBuild,omitempty"`
	// ManifestProduct is the product that a manifest must be for: the one that its signature names. Empty: any product of a trusted key.
	ManifestProduct string `json:"manifestProduct,omitempty"`
	// OldestManifest is the lowest serial number of a manifest, as its signature names it, that is obeyed. 0: any.
	OldestManifest uint64 `json:"oldestManifest,omitempty"`
	// FetchHosts are the hosts from which the running system may fetch images: NAME or NAME:PORT, "*.DOMAIN" for all names below
	// one. None: it takes no address, only files.
	FetchHosts []string `json:"fetchHosts,omitempty"`
	// FetchPins are hashes of public keys, "sha256//BASE64" as curl --pinnedpubkey has them. One of them must be in the chain of each
	// server that is fetched from. None: any key that is vouched for.
	FetchPins []string `json:"fetchPins,omitempty"`
	// FetchCA holds certificates, in PEM, that may vouch for those hosts, beside those of the running system.
	FetchCA string `json:"fetchCA,omitempty"`
	// FetchPlain allows http addresses too. What is fetched is signed; who fetches what can be seen.
	FetchPlain bool `json:"fetchPlain,omitempty"`
	// Erase says how an erase is judged and what follows from it.
	Erase Erase `json:"erase,omitzero"`
	// NetworkRecovery is the address of a signed manifest on one of FetchHosts: where no image on the recovery volume can be
	// restored, init fetches its newest one. Empty: the unit holds.
	NetworkRecovery string `json:"networkRecovery,omitempty"`
}

// Parse reads a policy. Unknown keys are ignored. The result has passed Validate.
func Parse(b []byte) (Policy, error) {
	b, err := source.Decode(b)
	if err != nil {
		return Policy{}, fmt.Errorf("parse policy: %w", err)
	}
	var p Policy
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&p); err != nil {
		return Policy{}, fmt.Errorf("parse policy: %w", err)
	}
	if d.More() {
		return Policy{}, errors.New("parse policy: data after the end")
	}
	if err := p.Validate(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// Validate returns an error unless p makes sense on its own. It does not parse the signing keys: package signature does.
func (p Policy) Validate() error {
	if p.Version < 1 || p.Version > Version {
		return fmt.Errorf("policy version %d is not known, the newest is %d", p.Version, Version)
	}
	if len(p.Keys) == 0 && !p.AllowUnsigned {
		return errors.New("policy has no keys and does not allow unsigned files: nothing could ever be installed")
	}
	for name, v := range map[string]int{"graceSeconds": p.GraceSeconds, "rootWaitSeconds": p.RootWaitSeconds, "maxRepairs": p.MaxRepairs, "keepImages": p.KeepImages,
		"failedBoots": p.FailedBoots, "watchdogSeconds": p.WatchdogSeconds, "erase.showMinutes": p.Erase.ShowMinutes} {
		if v < 0 || v > 3600 {
			return fmt.Errorf("policy %s is %d, want 0 to 3600", name, v)
		}
	}
	switch p.ForcedRestore {
	case ForcedRestoreAsks, ForcedRestoreNever, ForcedRestoreUnattended:
	default:
		return fmt.Errorf("policy forcedRestore is %q, want nothing, %q or %q", p.ForcedRestore, ForcedRestoreNever, ForcedRestoreUnattended)
	}
	for _, name := range p.Panels {
		if name != Keyboard && name != Serial {
			return fmt.Errorf("policy panels has %q, want %s or %s", name, Keyboard, Serial)
		}
	}
	if p.OldestBuild != "" {
		if _, err := release.ParseVersion(p.OldestBuild); err != nil {
			return fmt.Errorf("policy oldestBuild: %w", err)
		}
	}
	if err := errors.Join(p.validateManifest(), p.Erase.validate()); err != nil {
		return err
	}
	if err := p.validateFetch(); err != nil {
		return err
	}
	if len(p.BootArgs) > 1024 {
		return fmt.Errorf("policy bootArgs has %d characters, want at most 1024", len(p.BootArgs))
	}
	if strings.Contains(p.BootArgs, "FACTORY_RESTORE") {
		return errors.New("policy bootArgs forces a restore at every boot")
	}
	for _, r := range p.BootArgs {
		if r < ' ' || r > '~' {
			return fmt.Errorf("policy bootArgs has the character %q, want printable ASCII", r)
		}
	}
	if p.ServerCA != "" {
		if _, err := p.CertPool(); err != nil {
			return err
		}
	}
	return nil
}

// Marshal returns p as indented JSON.
func (p Policy) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// CertPool returns the certificates of ServerCA.
func (p Policy) CertPool() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(p.ServerCA)) {
		return nil, errors.New("policy serverCA holds no certificate in PEM")
	}
	return pool, nil
}

// RootWait is how long to wait for the main disk.
func (p Policy) RootWait() time.Duration {
	return time.Duration(or(p.RootWaitSeconds, 60)) * time.Second
}

// Takes reports whether a person may press keys on a kind of panel: Keyboard or Serial.
func (p Policy) Takes(kind string) bool { return slices.Contains(p.Panels, kind) }

// Grace is how long a person may choose at each boot, where there is a panel with keys.
func (p Policy) Grace() time.Duration { return time.Duration(or(p.GraceSeconds, 3)) * time.Second }

// Repairs is how often in a row a damaged main filesystem is repaired.
func (p Policy) Repairs() int { return or(p.MaxRepairs, 2) }

// Watchdog is how long the running system has to take over the hardware watchdog; 0 if there shall be none.
func (p Policy) Watchdog() time.Duration {
	if p.NoWatchdog {
		return 0
	}
	return time.Duration(or(p.WatchdogSeconds, 300)) * time.Second
}

// Keep is how many of the newest images are kept.
func (p Policy) Keep() int { return or(p.KeepImages, 2) }

func or(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}
