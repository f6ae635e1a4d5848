package boot

import (
	"errors"
	"fmt"
	"strings"
)

// choices are the kernel arguments by which a person or a server chooses among what a policy allows
// (docs/kernel-arguments.md). A locked artifact ignores them.
func choices() []string {
	return []string{"mfgurl", "enrol", "BOOTIF", "DATA_ERASE", "frmode", "PREFERRED_UPDATE", "KERNEL_OVERRIDE", "PROVISION_VERBOSE",
		"PROVISION_XLOG", "PROVISION_CONT_LOGGING", "PROTO_IDENT", "PROVISION_MFG_TEST"}
}

// lockedCmdline stands in the section .cmdline of a locked artifact without arguments of its own: a stub that finds none takes
// the arguments of who starts it, even with Secure Boot. It is what the kernel does anyway.
const lockedCmdline = "rdinit=/init"

// openCmdline reports whether the artifact must take arguments from who starts it, even with Secure Boot.
func (o *Options) openCmdline() bool { return o.Policy.Provision && o.Signer != nil }

// cmdline returns the content of section .cmdline, or "" for no section.
func (o *Options) cmdline() string {
	switch {
	case o.openCmdline():
		return ""
	case o.Policy.Locked && o.Policy.BootArgs == "":
		return lockedCmdline
	}
	return o.Policy.BootArgs
}

// checkLocked refuses combinations that could not do what they say.
func (o *Options) checkLocked() error {
	if o.Policy.Locked && o.Policy.Provision {
		return errors.New("the policy is locked and allows provisioning: a locked artifact takes no mfgurl, so it could never provision; " +
			"build the provisioning artifact with a policy that is not locked")
	}
	for _, w := range strings.Fields(o.Policy.BootArgs) {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "init":
			return fmt.Errorf("bootArgs of the policy has %q: it names the program of an initramfs that is not this one", w)
		case "rdinit":
			if value != "/init" {
				return fmt.Errorf("bootArgs of the policy has %q: the first program is /init", w)
			}
		case "initrd":
			return fmt.Errorf("bootArgs of the policy has %q: the initramfs is inside the artifact", w)
		}
		if !o.Policy.Locked {
			continue
		}
		for _, c := range choices() {
			if name == c {
				return fmt.Errorf("the policy is locked and its bootArgs has %q: a locked artifact ignores %s", w, c)
			}
		}
	}
	return nil
}
