// Package provision is the job that turns a bare machine into a unit: it checks the hardware, fills the recovery volume, sets
// the credentials, makes the recovery device boot and asks for the restore that fills the main disk.
//
// Nothing is written before the hardware is checked and the plan is logged. Disks that are not in the plan are set read-only
// for the run. The main disks are cleared first. The recovery device boots only when all that a restore needs is on it, the unit's
// record last of that: a unit that loses power before boots over the network again, or restores what it was; one that loses power
// later restores.
package provision

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"time"

	"gprovision/hw/block"
	"gprovision/hw/host"
	"gprovision/model/fault"
	"gprovision/model/layout"
	"gprovision/model/manifest"
	"gprovision/model/record"
	"gprovision/model/step"
	"gprovision/unit/decide"
	"gprovision/unit/job"
	"gprovision/unit/journal"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/sysroot"
	"gprovision/unit/uplink"
)

// options is what the job gets beside its Env.
type options struct {
	// Raise brings the network up, and returns what lets it go again.
	Raise func(ctx context.Context) (release func(), err error)
	// HasRecovery reports whether the unit carries the recovery volume of a complete unit. A person has to want another provisioning then.
	HasRecovery bool
	// Manifests are those that the unit has used, as the recovery volume remembers them.
	Manifests state.Manifests
	// Proc is /proc.
	Proc fs.FS
}

// networkPatience is how long the job waits for an address.
const networkPatience = 2 * time.Minute

// announcePatience is how long the job waits for the server that the boot script names.
const announcePatience = 20 * time.Second

// provisioning is one provisioning in progress.
type provisioning struct {
	*machine.Machine
	options
	// env is what the job got. Its Key becomes the one that is found on the recovery volume, and its Checks counts those of this job too.
	env job.Env
	// lower lets the network go. It is nil while the network is not up.
	lower func()
	// plan is made by the steps before the first write: manifest, plan and check-server. All others read it.
	plan Plan
	// client speaks to the server whose address is server.
	client *report.Client
	server string
	// volume is the recovery volume, from when it is mounted.
	volume *state.Volume
	// waiting is the directory of the files that are kept in memory. It is empty until there is one.
	waiting string
	// memory is how many bytes these files may have.
	memory int64
	// held is what the unit has from an earlier provisioning.
	held record.Held
	// passwords are the unit's credentials while the steps run that set them. Afterwards they are their Generation alone.
	passwords record.Credentials
}

// provision provisions the unit. On success the next boot starts from the recovery device and restores. The recovery volume stays mounted,
// since process 1 has logs on it.
func provision(ctx context.Context, j *provisioning) error {
	defer j.letGo()
	return j.env.Run(ctx, record.JobProvision, "provision", j.steps())
}

// letGo gives back what the job holds beside the recovery volume.
func (j *provisioning) letGo() {
	if j.lower != nil {
		j.lower()
	}
	if j.waiting == "" {
		return
	}
	if err := os.RemoveAll(j.waiting); err != nil {
		j.Log.Warn("files that were kept in memory stay there", "err", err)
	}
}

// steps returns the job as data. Nothing before clear-main changes a disk, but a burn-in that the manifest asks for, which writes to main
// disks that are blank, and leaves them so.
func (j *provisioning) steps() []step.Step {
	return []step.Step{
		{Name: "network", Say: "Network", Run: j.network},
		{Name: "find-key", Say: "Looking for key", Run: j.findKey},
		{Name: "announce", Say: "Greeting server", Run: j.announce},
		{Name: "manifest", Say: "Manifest", Run: j.obeyManifest},
		{Name: "enrol", Say: "Enrolling", Run: j.enrol},
		{Name: "clock", Say: "Setting clock", Run: j.clock},
		{Name: "permit", Say: "Asking server", Run: j.permit},
		{Name: "check-hardware", Say: "Checking hardware", Run: j.checkHardware},
		{Name: "plan", Say: "Planning", Run: j.planDisks},
		{Name: "check-server", Say: "Checking server", Run: j.checkServer},
		{Name: "burn-in", Say: "Burn-in", Run: func(ctx context.Context) error { return burnIn(ctx, j) }},
		{Name: "clear-main", Say: "Clearing main disk", Run: j.clearMain},
		{Name: "partition-recovery", Say: "Partitioning", Run: j.partition},
		{Name: "format-recovery", Say: "Formatting", Run: j.format},
		{Name: "write-files", Say: "Downloading", Run: j.writeFiles},
		{Name: "credentials", Say: "Credentials", Run: j.credentials},
		{Name: "write-record", Say: "Writing record", Run: j.writeRecord},
		{Name: "boot-recovery", Say: "Making it boot", Run: j.bootRecovery},
		{Name: "boot-entries", Say: "Boot entries", Run: j.bootEntries},
		{Name: "report", Say: "Reporting", Run: j.reportUnit},
	}
}

// testRun ends a job that is only tried, before its first write. A value that means nothing does so too: whoever writes it wants less than
// a provisioning.
func testRun(a decide.Args) error {
	switch v := a.MfgTest; v {
	case "":
		return nil
	case decide.StopAfterValidate:
		return &fault.Occurrence{Fault: fault.OnlyChecked}
	default:
		return fault.Newf(fault.OnlyChecked, "PROVISION_MFG_TEST is %q, and only %q is known", v, decide.StopAfterValidate)
	}
}

func (j *provisioning) network(ctx context.Context) (err error) {
	j.lower, err = j.Raise(ctx)
	return err
}

// obeyManifest fetches the manifest, judges it as 'gprov manifest check' does, so that nothing in it stops the job later, and reads it into
// the plan.
func (j *provisioning) obeyManifest(ctx context.Context) error {
	m, err := j.fetchManifest(ctx)
	if err != nil {
		return err
	}
	p, err := readPlan(m, j.rules(), j.Policy, manifest.Variables{RecoveryDir: j.Places.Recovery, Serial: j.Serial})
	if err != nil {
		return err
	}
	p.Manifest, p.Signed = redacted(j.env.Survey.Args.ManifestURL), m.Signed
	j.plan = p
	return nil
}

func (j *provisioning) fetchManifest(ctx context.Context) (uplink.Manifest, error) {
	base, err := url.Parse(j.env.Survey.Args.ManifestURL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") {
		return uplink.Manifest{}, fault.Newf(fault.ManifestMissing, "mfgurl is %q, want an http or https address", j.env.Survey.Args.ManifestURL)
	}
	m, err := uplink.Fetch(ctx, base, uplink.Trust{Policy: j.Policy, Keys: j.Keys, Used: j.Manifests}, from(j.Machine).small)
	if err != nil {
		return uplink.Manifest{}, err
	}
	if m.Signed == (uplink.Signed{}) {
		j.Log.Warn("manifest is not signed, and the policy allows that")
		if err := j.checkUnsignedSteps(m.Written, base); err != nil {
			return uplink.Manifest{}, err
		}
	}
	j.Log.Info("manifest fetched", "url", base.Redacted(), "files", len(m.Full.Files))
	return m, nil
}

// checkUnsignedSteps refuses a manifest without a signature that has steps, or files of the store, whose commands and scripts run as root,
// unless somebody else vouches for them: the policy has no keys, which a missing signature would get round, and its CA knows the server.
func (j *provisioning) checkUnsignedSteps(m *manifest.Manifest, base *url.URL) error {
	has := len(m.StashFiles) > 0 ||
		slices.ContainsFunc(m.CustomPlatCfgSteps, func(p manifest.PlatformSteps) bool { return len(p.ConfigSteps) > 0 })
	switch {
	case !has:
		return nil
	case len(j.Policy.Keys) > 0:
		return fault.Newf(fault.ManifestUnsigned, "it has steps or files of the store, and the policy has keys: one of them must have signed it")
	case base.Scheme != "https" || j.Policy.ServerCA == "":
		return fault.Newf(fault.ManifestUnsigned, "it has steps or files of the store: "+
			"without a signature it must come over https from a server that the policy's CA knows")
	}
	return nil
}

// announce enrols the unit at the server that the boot script names, so that the server hears of whatever goes wrong with the
// manifest. That this fails ends nothing: the manifest says which server counts.
func (j *provisioning) announce(ctx context.Context) error {
	if j.env.Survey.Args.LogEndpoint == "" {
		return nil
	}
	endpoint, err := record.Endpoint(j.env.Survey.Args.LogEndpoint)
	if err == nil {
		bounded, cancel := context.WithTimeout(ctx, announcePatience)
		defer cancel()
		err = j.connectTo(bounded, endpoint)
	}
	if err != nil {
		j.Log.Warn("the server that the boot script names does not listen", "server", j.env.Survey.Args.LogEndpoint, "err", err)
	}
	return nil
}

// enrol enrols the unit at the server that the manifest names.
func (j *provisioning) enrol(ctx context.Context) error {
	if j.client != nil && j.server == j.plan.Server {
		return nil
	}
	return j.connectTo(ctx, j.plan.Server)
}

func (j *provisioning) connectTo(ctx context.Context, endpoint string) error {
	pool, err := j.Policy.CertPool()
	if err != nil {
		return fault.Because(fault.PlainSecrets, err)
	}
	client, err := report.New(report.Config{Endpoint: endpoint, CA: pool, Key: j.env.Key, Unit: j.Serial, Boot: j.BootID,
		Floor: j.Build.Time, Log: j.Log})
	if err != nil {
		return err
	}
	macs, err := uplink.MACs(j.Sys)
	if err != nil {
		return err
	}
	v := j.Identity.Variant
	request := record.EnrolRequest{Token: j.env.Survey.Args.Token, Platform: v.DevCodeName, SerialField: v.SerNumField, MACs: macs,
		Build: j.Build.Number, Held: j.held}
	waiting := func(reason string) {
		j.Log.Warn("waiting for approval on the server's page", "key", client.Fingerprint(), "reason", reason, journal.ForPerson())
		j.Panel.Message("Approve on server: " + client.Fingerprint())
	}
	if err := client.Enrol(ctx, request, waiting); err != nil {
		return err
	}
	j.client, j.server = client, endpoint
	j.Log.Info("enrolled", "unit", j.Serial, "server", endpoint)
	j.env.ToServer(client)
	return nil
}

// clock sets the clock, the real-time clock too, to the server's time, also where its own is later: that is what corrects a wrong
// one. A server whose time is before the artifact's build time is wrong itself.
func (j *provisioning) clock(ctx context.Context) error {
	now, err := j.client.Time(ctx)
	if err != nil {
		return err
	}
	if now.Before(j.Build.Time) {
		j.Log.Warn("the server's clock is behind the artifact's build time", "server", now, "build", j.Build.Time)
		return nil
	}
	delta := time.Until(now)
	if err := j.Board.SetClock(now); err != nil {
		j.Log.Warn("clock cannot be set", "err", err)
		return nil
	}
	j.Log.Info("clock set", "delta", delta.Round(time.Millisecond).String())
	return nil
}

// permit asks the server. Its no counts. Its yes is not enough for a unit that carries a complete recovery volume, unless an operator
// released that unit: the server may be another one, or have forgotten. Then a person at the machine may say it.
func (j *provisioning) permit(ctx context.Context) error {
	released, err := j.client.Released(ctx, record.JobProvision)
	if err != nil || released || !j.HasRecovery {
		return err
	}
	yes, err := j.Panel.Confirm(ctx, "Provision again", "This unit is complete. All that is on it will be lost.")
	if err != nil && !errors.Is(err, panel.ErrNoInput) {
		return err
	}
	if !yes {
		return fault.Newf(fault.NotReleased, "the recovery volume is that of a complete unit; the server does not know it as provisioned, nobody released it there, and nobody confirmed on a panel")
	}
	j.Log.Warn("a person at the machine wants the complete unit to be provisioned again", journal.ForPerson())
	return nil
}

// protect sets every disk that is not in the plan read-only for this run. A planned one may have been set so by an earlier run of
// this boot that planned otherwise.
func (j *provisioning) protect() error {
	for _, d := range append([]block.Disk{j.plan.Recovery}, j.plan.Main...) {
		if !d.ReadOnly {
			continue
		}
		if err := j.SetReadOnly(d.Path, false); err != nil {
			return fault.Because(fault.DiskWrite, fmt.Errorf("make disk %s writable: %w", d.Name, err))
		}
	}
	for _, d := range j.plan.Others {
		if err := j.SetReadOnly(d.Path, true); err != nil {
			return fmt.Errorf("protect disk %s: %w", d.Name, err)
		}
		j.Log.Info("disk is not in the plan and is read-only now", "disk", d.Name, "model", d.Model, "bytes", d.Size)
	}
	return nil
}

func (j *provisioning) clearMain(ctx context.Context) error {
	if err := j.StopArray(ctx); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	for _, d := range j.plan.Main {
		if err := j.Wipe(d.Path); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
	}
	return nil
}

func (j *provisioning) partition(context.Context) error {
	return because(fault.DiskWrite, j.WriteTable(j.plan.Recovery.Path, j.plan.Unit.Recovery.Table))
}

func (j *provisioning) format(ctx context.Context) error {
	t := j.plan.Unit.Recovery.Table
	if err := j.Format(ctx, j.plan.Recovery.Path, t, []layout.Role{layout.ESP, layout.Recovery}); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	part := block.PartitionPath(j.plan.Recovery.Path, t.Find(layout.Recovery).Number)
	if err := j.Mount(part, j.Places.Recovery, "ext4", host.MountOptions{NoExec: true, NoSUID: true, NoDev: true}); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	if err := os.Chmod(j.Places.Recovery, 0o700); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	j.volume = state.Open(j.Places.Recovery)
	if err := j.volume.WriteKeyOf(j.env.Key, j.Serial); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	return because(fault.DiskWrite, j.env.KeepLog(j.volume, "provision"))
}

// credentials asks the server for this unit's passwords and keeps the hash of the administrator's, nothing else. They are
// confirmed by the last step: until then the same key may ask again.
func (j *provisioning) credentials(ctx context.Context) error {
	c, err := j.client.Credentials(ctx)
	if err != nil {
		return fault.Because(fault.NoCredentials, err)
	}
	hash, err := sysroot.HashPassword(c.OS)
	if err != nil {
		return err
	}
	if err := j.volume.WriteHash(hash); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	j.passwords = c
	defer func() { j.passwords = record.Credentials{Generation: c.Generation} }()
	j.Log.Info("credentials received", "generation", c.Generation)
	if err := j.runSteps(ctx, manifest.RunBeforePWSet); err != nil {
		return err
	}
	if err := (controller{j}).set(ctx); err != nil {
		return err
	}
	return j.runSteps(ctx, manifest.RunAfterPWSet)
}

func (j *provisioning) bootRecovery(context.Context) error {
	return because(fault.BootSetup, j.PutRecoveryArtifact(j.plan.Unit, j.Places.Recovery))
}

func (j *provisioning) writeRecord(context.Context) error {
	used := j.Manifests // what an older volume of this unit had, is known further on
	if signed := j.plan.Signed; signed != (uplink.Signed{}) {
		used = used.Used(signed.Product, signed.Serial)
	}
	if len(used.Newest) > 0 {
		if err := j.volume.WriteManifests(used); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
	}
	r, err := state.NewRequest(state.KindRestore, state.Latest, state.ByProvisioning, time.Now())
	if err != nil {
		return err
	}
	if err := j.volume.WriteRequest(r); err != nil {
		return fault.Because(fault.DiskWrite, err)
	}
	if j.env.Survey.Args.ContinueLogging {
		if err := j.volume.WriteRestoreData(state.RestoreData{Preserve: true, XLog: j.plan.Server}); err != nil {
			return fault.Because(fault.DiskWrite, err)
		}
	}
	u := j.plan.Unit
	u.Credentials = j.passwords.Generation
	return because(fault.DiskWrite, j.volume.WriteUnit(u))
}

func (j *provisioning) bootEntries(context.Context) error {
	if j.Firmware != layout.UEFI {
		return nil
	}
	_, err := j.EnsureEntries(j.Vars, j.plan.Unit)
	return because(fault.BootSetup, err)
}

func because(f *fault.Fault, err error) error {
	if err == nil {
		return nil
	}
	return fault.Because(f, err)
}
