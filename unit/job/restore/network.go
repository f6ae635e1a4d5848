package restore

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"time"

	"gprovision/hw/filesystem"
	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/model/release"
	"gprovision/model/step"
	"gprovision/unit/image"
	"gprovision/unit/job"
	"gprovision/unit/machine"
	"gprovision/unit/panel"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/update"
	"gprovision/unit/uplink"
)

const (
	// fetchNetwork is how long a network recovery waits for an address.
	fetchNetwork = time.Minute
	// fetchPatience is how long it goes on with a download that breaks off.
	fetchPatience = 2 * time.Hour
)

// fetch brings an image from the network onto the recovery volume, which is mounted writable: the newest of the manifest that the policy
// names for this. It is proven before it is put where a restore finds it. disconnect takes down the network that only reports.
func fetch(ctx context.Context, e job.Env, v *state.Volume, rec state.Unit, disconnect func()) error {
	m := e.Machine
	client, err := report.NewSource(m.Policy, m.Build.Time)
	if err != nil {
		return err
	}
	used, err := v.ReadManifests()
	if err != nil {
		m.Log.Warn("which manifests were used cannot be read", "err", err)
	}
	prefix, source := m.Site.Names.ImagePrefix, ""
	var signed uplink.Signed
	return e.Run(ctx, record.JobRestore, "fetch", []step.Step{
		{Name: "network", Say: "Network", Run: func(context.Context) error {
			disconnect()
			// With ctx of the job, not of this step: the network is up until process 1 lets it go.
			_, err := uplink.Raise(ctx, m.Log, m.Sys, e.Survey.Args.BootMAC, fetchNetwork)
			return err
		}},
		{Name: "manifest", Say: "Manifest", Run: func(ctx context.Context) (err error) {
			source, signed, err = fetchable(ctx, m, client, prefix, used)
			return err
		}},
		{Name: "fetch-image", Say: "Downloading", Run: func(ctx context.Context) error {
			show, stop := trackStages(ctx, m)
			defer stop()
			room := func(ctx context.Context, need filesystem.Need) (filesystem.Need, error) {
				return image.Room(ctx, m.Run, image.MainSize(rec), need)
			}
			r, err := update.Take(ctx, update.Options{Source: source, Client: client, Volume: v, Policy: m.Policy, Keys: m.Keys, Prefix: prefix,
				Room: room, Firmware: m.Firmware, BootFile: m.Site.Names.BootFile, Original: rec.Original, Patience: fetchPatience, Log: m.Log,
				Progress: show})
			if err != nil {
				return err
			}
			m.Log.Info("image fetched", "image", r.Image, "bytes", r.Size, "present", r.Present)
			if signed != (uplink.Signed{}) {
				if err := v.WriteManifests(used.Used(signed.Product, signed.Serial)); err != nil {
					m.Log.Warn("the manifest cannot be remembered: an older one would not be refused", "err", err)
				}
			}
			return nil
		}},
	})
}

// trackStages returns what shows how far a step is that has stages of its own, each from its beginning, and what ends that.
func trackStages(ctx context.Context, m *machine.Machine) (show func(stage string, done, total int64), stop func()) {
	var meter *panel.Meter
	now, end := "", func() {}
	show = func(stage string, done, total int64) {
		if meter == nil || stage != now {
			end()
			now = stage
			meter, end = m.Track(ctx, total)
		}
		meter.SetTotal(total)
		meter.Set(done)
	}
	return show, func() { end() }
}

// fetchable reads the manifest that the policy names and returns the address of its newest image for this unit, and what its signature
// says. A manifest that is older than one of those that were used is refused.
func fetchable(ctx context.Context, m *machine.Machine, client *http.Client, prefix string, used state.Manifests) (address string,
	signed uplink.Signed, err error) {
	base, err := url.Parse(m.Policy.NetworkRecovery)
	if err != nil {
		return "", signed, fault.Because(fault.ManifestMissing, err)
	}
	get := func(ctx context.Context, address string, most int64) ([]byte, error) {
		return uplink.Small(ctx, m.Log, client, address, most)
	}
	full, err := uplink.Fetch(ctx, base, uplink.Trust{Policy: m.Policy, Keys: m.Keys, Used: used}, get)
	if err != nil {
		return "", signed, err
	}
	address, err = newest(full.Full, prefix, m.Policy)
	return address, full.Signed, err
}

// newest returns the address of the newest image of a manifest that has a name of this unit's images and is allowed.
func newest(m *manifest.Manifest, prefix string, p policy.Policy) (string, error) {
	address := ""
	var best release.Name
	for _, f := range m.Files {
		a, err := url.Parse(f.Src)
		if err != nil {
			continue
		}
		name, err := release.ParseName(path.Base(a.Path), prefix)
		if err != nil || image.CheckAge(name, p) != nil {
			continue
		}
		if address == "" || name.Compare(best) > 0 {
			address, best = f.Src, name
		}
	}
	if address == "" {
		return "", fault.Newf(fault.NoImage, "the manifest on the network has no image for this unit")
	}
	return address, nil
}

// connect brings the network up in the background of a restore, so that the server hears of it. Nothing waits for it. stop takes the
// network down before that.
func connect(ctx context.Context, e job.Env, v *state.Volume, rec state.Unit) (stop func()) {
	m := e.Machine
	endpoint := rec.Server
	if d, err := v.ReadRestoreData(); err == nil && d.XLog != "" {
		if other, err := d.Server(); err == nil {
			endpoint = other
		} else {
			m.Log.Warn("the server of the restore data cannot be used, the unit's own hears of the restore", "err", err)
		}
	}
	return e.Connect(ctx, v, rec, endpoint, nil)
}
