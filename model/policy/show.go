package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// Shown is a key of a policy with the value that counts.
type Shown struct {
	// Key is the name in the file, Value what counts: a default where the policy says nothing.
	Key   string `json:"key"`
	Value string `json:"value"`
	// Set reports whether the policy has a value of its own.
	Set bool `json:"set"`
	// Means is what an artifact does with that value.
	Means string `json:"means"`
}

// Show returns every key of p in the order of the format's page, with what the value means.
func (p Policy) Show() []Shown {
	either := func(b bool, yes, no string) string {
		if b {
			return yes
		}
		return no
	}
	count := func(n int, one string) string {
		if n == 0 {
			return "none"
		}
		return fmt.Sprintf("%d %s", n, one)
	}
	text := func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	seconds := func(n int) string { return strconv.Itoa(n) + " s" }
	out := []Shown{
		{"version", strconv.Itoa(p.Version), true, "the format's version"},
		{"provision", yesNo(p.Provision), p.Provision, either(p.Provision, "provisions when the kernel argument mfgurl is given", "never provisions")},
		{"keys", count(len(p.Keys), "key(s): "+strings.Join(p.Keys, " ")), len(p.Keys) > 0, "who may sign images and manifests"},
		{"allowUnsigned", yesNo(p.AllowUnsigned), p.AllowUnsigned, either(p.AllowUnsigned, "takes images and manifests without a signature", "takes only what one of keys has signed")},
		{"allowSHA1", yesNo(p.AllowSHA1), p.AllowSHA1, either(p.AllowSHA1, "takes files for which a manifest has SHA-1 alone", "wants SHA-256 of each file of a manifest")},
		{"serverCA", either(p.ServerCA != "", "certificates", "none"), p.ServerCA != "", "who may vouch for the factory server"},
		{"locked", yesNo(p.Locked), p.Locked, either(p.Locked, "takes no choice from the kernel command line", "takes choices from the kernel command line")},
		{"bootArgs", text(p.BootArgs), p.BootArgs != "", "kernel arguments of every boot entry"},
		{"panels", text(strings.Join(p.Panels, " ")), len(p.Panels) > 0, "where a person may press keys, beside a display with buttons"},
		{"graceSeconds", seconds(int(p.Grace().Seconds())), p.GraceSeconds != 0, "how long a person may choose at each boot, where there is a panel with keys"},
		{"rootWaitSeconds", seconds(int(p.RootWait().Seconds())), p.RootWaitSeconds != 0, "how long a missing main disk is waited for"},
		{"maxRepairs", strconv.Itoa(p.Repairs()), p.MaxRepairs != 0, "repairs of the main filesystem in a row before the unit gives up"},
		{"restoreOnDamage", yesNo(p.RestoreOnDamage), p.RestoreOnDamage, either(p.RestoreOnDamage, "restores a main system that stays damaged", "holds when the main system stays damaged")},
		{"forcedRestore", either(p.ForcedRestore == ForcedRestoreAsks, "asks", p.ForcedRestore), p.ForcedRestore != "", map[string]string{ForcedRestoreAsks: "Forced Factory Restore asks on a panel",
			ForcedRestoreNever: "there is no Forced Factory Restore", ForcedRestoreUnattended: "Forced Factory Restore asks nobody"}[p.ForcedRestore]},
		{"failedBoots", either(p.FailedBoots == 0, "never", strconv.Itoa(p.FailedBoots)), p.FailedBoots != 0, "boots in a row that nobody marked as good before the previous good image is restored"},
		{"noWatchdog", yesNo(p.NoWatchdog), p.NoWatchdog, either(p.NoWatchdog, "leaves a hardware watchdog alone", "a hardware watchdog guards the boot")},
		{"watchdogSeconds", seconds(int(p.Watchdog().Seconds())), p.WatchdogSeconds != 0, "how long the running system has to take over the watchdog"},
		{"keepImages", strconv.Itoa(p.Keep()), p.KeepImages != 0, "newest images kept beside the original and the running one"},
		{"shell", yesNo(p.Shell), p.Shell, either(p.Shell, "offers the recovery shell to who has the password or a support key", "has no recovery shell")},
		{"supportKeys", count(len(p.SupportKeys), "key(s): "+strings.Join(p.SupportKeys, " ")), len(p.SupportKeys) > 0, "whose answers open the recovery shell of any unit, and have it go on after an erase that is not proved"},
		{"mediumWithoutConfirmation", yesNo(p.MediumWithoutConfirmation), p.MediumWithoutConfirmation, either(p.MediumWithoutConfirmation, "restores from an emergency medium without asking", "asks before it restores from an emergency medium")},
		{"oldestBuild", text(p.OldestBuild), p.OldestBuild != "", "the oldest image that may be installed"},
		{"manifestProduct", either(p.ManifestProduct == "", "any", p.ManifestProduct), p.ManifestProduct != "", "the product that a manifest must be for"},
		{"oldestManifest", either(p.OldestManifest == 0, "any", strconv.FormatUint(p.OldestManifest, 10)), p.OldestManifest != 0, "the lowest serial number of a manifest that is obeyed"},
		{"fetchHosts", text(strings.Join(p.FetchHosts, " ")), len(p.FetchHosts) > 0, "hosts from which images may be fetched"},
		{"fetchPins", count(len(p.FetchPins), "pin(s): "+strings.Join(p.FetchPins, " ")), len(p.FetchPins) > 0, "public keys, one of which must be in the chain of such a host"},
		{"fetchCA", either(p.FetchCA != "", "certificates", "none"), p.FetchCA != "", "who may vouch for such hosts, beside the system's own"},
		{"fetchPlain", yesNo(p.FetchPlain), p.FetchPlain, either(p.FetchPlain, "http is allowed too", "https only")},
	}
	out = append(out, p.Erase.show()...)
	return append(out, Shown{
		"networkRecovery", text(p.NetworkRecovery), p.NetworkRecovery != "", "where a unit without a good image fetches one",
	})
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
