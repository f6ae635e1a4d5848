// Package site is the public contract: everything that may differ between the companies that use gprovision. A company's
// own main fills a Site and passes it to the same entry points as the stock commands; there are no globals to set.
package site

import (
	"cmp"

	"gprovision/model/naming"
	"gprovision/model/step"
)

// Site is one company's names and parts. Stock returns the complete default.
type Site struct {
	Names Names
	// Hooks are extra steps, run before or after a named step of a job, in the order given.
	Hooks []Hook
}

// Names are the names and labels that a company may choose. Prefixes and labels are defaults: those in the boot artifact come first.
type Names struct {
	Recovery    string // filesystem label of the recovery volume
	Primary     string // filesystem label of the main system
	HostPrefix  string // of a restored system's host name
	Mark        string // name of the mark file in the root of the main system
	ImagePrefix string // the first three parts of an image's name, with the final dot
	BootFile    string // name of the boot artifact in /boot of an image and on the recovery volume
	ConfDir     string // directory of facts inside the main system
}

// Of returns n with what a boot artifact, or a unit's record, names in place of its own.
func (n Names) Of(chosen naming.Names) Names {
	n.ImagePrefix = cmp.Or(chosen.ImagePrefix, n.ImagePrefix)
	n.Recovery = cmp.Or(chosen.RecoveryLabel, n.Recovery)
	n.Primary = cmp.Or(chosen.PrimaryLabel, n.Primary)
	n.HostPrefix = cmp.Or(chosen.HostPrefix, n.HostPrefix)
	return n
}

// Chosen returns those of n that a boot artifact carries.
func (n Names) Chosen() naming.Names {
	return naming.Names{Version: naming.Version, ImagePrefix: n.ImagePrefix, RecoveryLabel: n.Recovery, PrimaryLabel: n.Primary, HostPrefix: n.HostPrefix}
}

// Hook is an extra step.
type Hook struct {
	Job   string // name of the job: "provision", "restore", "repair"
	Step  string // name of the step beside which it runs
	After bool   // after the step, not before it
	Extra step.Step
}

// Stock is the Site of the stock commands.
func Stock() Site {
	return Site{Names: Names{
		Recovery:    "RECOVERY",
		Primary:     "PRIMARY",
		HostPrefix:  "gp-",
		Mark:        "boot.normal",
		ImagePrefix: "WIDGET.LNX.SHINY.",
		BootFile:    "norm_boot",
		ConfDir:     "/etc/provisioning",
	}}
}

// Weave returns the steps of a job with the Site's hooks for that job put in.
func (s Site) Weave(job string, steps []step.Step) []step.Step {
	var out []step.Step
	for _, st := range steps {
		out = append(out, s.extras(job, st.Name, false)...)
		out = append(out, st)
		out = append(out, s.extras(job, st.Name, true)...)
	}
	return out
}

func (s Site) extras(job, name string, after bool) []step.Step {
	var out []step.Step
	for _, h := range s.Hooks {
		if h.Job == job && h.Step == name && h.After == after {
			out = append(out, h.Extra)
		}
	}
	return out
}
