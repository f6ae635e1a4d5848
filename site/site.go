// Package site is the public contract: everything that may differ between the companies that use gprovision. A company's
// own main fills a Site and passes it to the same entry points as the stock commands; there are no globals to set.
package site

import (
	"cmp"
	"context"
	"log/slog"

	"gprovision/model/layout"
	"gprovision/model/naming"
	"gprovision/model/platform"
	"gprovision/model/policy"
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

// Hook puts an extra step into a job.
type Hook struct {
	// Job is the name of the list of steps: "provision", "restore", "fetch", "boot", "repair", "repair-recovery", "repair-table", "rebuild".
	Job string
	// Step is the name of the step beside which it runs.
	Step string
	// After reports whether it runs after that step. Else it runs before.
	After bool
	Extra Extra
}

// Extra is a step of a company's own. It is logged, shown and told to the server as any other step, and an error ends the job.
type Extra struct {
	// Name and Say are as in a step.Step.
	Name, Say string
	// Run does the work. It must be repeatable, since a job that was cut off begins anew. step.Report says how far it is.
	Run func(ctx context.Context, u Unit) error
}

// Unit is what an extra step gets of the job that it is in: the log, the panels, and the unit with its machine.
type Unit struct {
	// Log is the log of this boot. It goes to the recovery volume, to the server and to the consoles.
	Log *slog.Logger
	// Message shows a line on all panels.
	Message func(text string)
	// Serial is the unit's serial number, and Platform the row of the appliance table.
	Serial   string
	Platform platform.Variant
	// Firmware is how the machine starts.
	Firmware layout.Firmware
	// Policy is that of the boot artifact.
	Policy policy.Policy
	// Names are the names as the boot artifact or the unit's record has them.
	Names Names
	// Recovery and Main are the places where the job mounts the recovery volume and the main system. A step finds something there only
	// between the job's own steps that need them.
	Recovery, Main string
	// Run runs a program to its end. It returns what that printed and its exit status. Secrets do not belong on a command line.
	Run func(ctx context.Context, path string, args ...string) (out []byte, exit int, err error)
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

// Weave returns the steps of a job with the Site's hooks for that job put in. They get u.
func (s Site) Weave(job string, u Unit, steps []step.Step) []step.Step {
	var out []step.Step
	extras := func(name string, after bool) {
		for _, h := range s.Hooks {
			if h.Job == job && h.Step == name && h.After == after {
				run := func(ctx context.Context) error { return h.Extra.Run(ctx, u) }
				out = append(out, step.Step{Name: h.Extra.Name, Say: h.Extra.Say, Run: run})
			}
		}
	}
	for _, st := range steps {
		extras(st.Name, false)
		out = append(out, st)
		extras(st.Name, true)
	}
	return out
}
