package decide

import (
	"net/url"
	"strings"

	"gprovision/model/layout"
	"gprovision/model/policy"
	"gprovision/model/secret"
)

// Args are the kernel arguments that init understands. docs/kernel-arguments.md describes them.
type Args struct {
	// ManifestURL is mfgurl=.
	ManifestURL string
	// Token is enrol=, the one-time token in this unit's iPXE script.
	Token secret.Secret
	// BootMAC is BOOTIF=, the port that the firmware booted from. iPXE and PXELINUX set it.
	BootMAC string
	// LogEndpoint is PROVISION_XLOG=, the server to report a job to from its start.
	LogEndpoint string
	// ContinueLogging is PROVISION_CONT_LOGGING= with any value. It makes later restores report to the server of the
	// provisioning.
	ContinueLogging bool
	// Stick is gprov.stick= (layout.StickArg), the recovery stick that the boot loader started from.
	Stick string
	// Root is real_root=, the partition of the main system.
	Root Root
	// Erase is DATA_ERASE= with any value.
	Erase bool
	// Forced is FACTORY_RESTORE=1 (policy.ForcedRestoreArg).
	Forced bool
	// Shell is frmode=shell.
	Shell bool
	// Oldest is PREFERRED_UPDATE=oldest.
	Oldest bool
	// KeepRecovery is KERNEL_OVERRIDE=recovery.
	KeepRecovery bool
	// Verbose is PROVISION_VERBOSE= with any value.
	Verbose bool
	// ProtoIdent is PROTO_IDENT=, the platform to assume if none is recognised.
	ProtoIdent string
	// MfgTest is PROVISION_MFG_TEST= in lower case: how a provisioning is only tried. "": it is not.
	MfgTest string
}

// StopAfterValidate is the value of MfgTest with which a provisioning ends before its first write.
const StopAfterValidate = "stop-after-validate"

// ParseArgs parses a kernel command line. Of several equal keys the last counts, and words may be quoted, as in the
// kernel. For a locked artifact the command line chooses nothing. It only says where the boot came from: ParseArgs
// then keeps Stick, and Root if that is a PARTUUID.
func ParseArgs(cmdline string, locked bool) Args {
	var a Args
	for _, w := range splitWords(cmdline) {
		a.Forced = a.Forced || w == policy.ForcedRestoreArg
		k, v, _ := strings.Cut(w, "=")
		switch k {
		case "real_root":
			a.Root = ParseRoot(v)
		case layout.StickArg:
			a.Stick = strings.ToLower(v)
		case "mfgurl":
			a.ManifestURL = v
		case "enrol":
			a.Token = secret.Secret(v)
		case "BOOTIF":
			a.BootMAC = bootMAC(v)
		case "PROVISION_XLOG":
			a.LogEndpoint = v
		case "PROVISION_CONT_LOGGING":
			a.ContinueLogging = v != ""
		case "frmode":
			a.Shell = v == "shell"
		case "DATA_ERASE":
			a.Erase = v != ""
		case "PREFERRED_UPDATE":
			a.Oldest = strings.Trim(strings.ToLower(v), "-_") == "oldest"
		case "KERNEL_OVERRIDE":
			a.KeepRecovery = strings.EqualFold(v, "recovery")
		case "PROVISION_VERBOSE":
			a.Verbose = v != ""
		case "PROTO_IDENT":
			a.ProtoIdent = v
		case "PROVISION_MFG_TEST":
			a.MfgTest = strings.ToLower(v)
		}
	}
	if locked {
		if a.Root.By != ByPARTUUID {
			a.Root = Root{}
		}
		return Args{Root: a.Root, Stick: a.Stick}
	}
	return a
}

// splitWords splits a kernel command line at white space outside of double quotes (Linux lib/cmdline.c, next_arg).
func splitWords(s string) []string {
	var out []string
	var w strings.Builder
	quoted := false
	end := func() {
		if w.Len() > 0 {
			out = append(out, w.String())
			w.Reset()
		}
	}
	for _, r := range s {
		switch {
		case r == '"':
			quoted = !quoted
		case !quoted && (r == ' ' || r == '\t' || r == '\n'):
			end()
		default:
			w.WriteRune(r)
		}
	}
	end()
	return out
}

// bootMAC turns 01-52-54-00-aa-bb-cc or 52:54:00:AA:BB:CC into 52:54:00:aa:bb:cc.
func bootMAC(s string) string {
	s = strings.ToLower(strings.ReplaceAll(s, "-", ":"))
	if len(s) == 20 && strings.HasPrefix(s, "01:") {
		s = s[3:]
	}
	return s
}

// WithoutSecrets returns a kernel command line that is fit for logs. It lacks the token, and the user name and
// password in addresses.
func WithoutSecrets(cmdline string) string {
	var out []string
	for _, w := range splitWords(cmdline) {
		k, v, _ := strings.Cut(w, "=")
		if k == "enrol" {
			w = "enrol=" + secret.Hidden
		} else if a, err := url.Parse(v); err == nil && a.User != nil {
			a.User = nil
			w = k + "=" + a.String()
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

// RootBy is the way in which real_root names a partition.
type RootBy string

// The ways to name a partition. They are those of the directories /dev/disk/by-*.
const (
	ByPARTUUID  RootBy = "partuuid"
	ByPARTLABEL RootBy = "partlabel"
	ByUUID      RootBy = "uuid"  // UUID of the filesystem
	ByLABEL     RootBy = "label" // label of the filesystem
	ByID        RootBy = "id"    // disk and number of the partition, such as nvme-MODEL_SERIAL-part2
	ByPATH      RootBy = "path"  // port of the disk and number of the partition, such as pci-0000:00:1f.2-ata-1-part2
)

// Root names the partition of the main system, for a unit without its recovery volume. The zero value names none.
type Root struct {
	By    RootBy
	Ident string
}

// ParseRoot parses TYPE=IDENT. Any other form gives the zero value.
func ParseRoot(s string) Root {
	typ, ident, _ := strings.Cut(s, "=")
	by := RootBy(strings.ToLower(typ))
	if ident == "" {
		return Root{}
	}
	switch by {
	case ByPARTUUID, ByPARTLABEL, ByUUID, ByLABEL, ByID, ByPATH:
		return Root{by, ident}
	}
	return Root{}
}
