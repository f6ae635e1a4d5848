package pid1

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

// fetchImage brings an image from the network onto the recovery volume, which is mounted writable: the newest of the manifest that
// the policy names for this. It is proven before it is put where a restore finds it.
func (u *unit) fetchImage(ctx context.Context, v *state.Volume, rec state.Unit) error {
	client, err := report.NewSource(u.m.Policy, u.m.Build.Time)
	if err != nil {
		return err
	}
	used, err := v.ReadManifests()
	if err != nil {
		u.log.Warn("which manifests were used cannot be read", "err", err)
	}
	prefix, source := u.m.Site.Names.ImagePrefix, ""
	var signed uplink.Signed
	return step.Run(ctx, u.m.Site.Weave("fetch", []step.Step{
		{Name: "network", Say: "Network", Run: func(context.Context) error { return u.raiseNetwork(ctx) }},
		{Name: "manifest", Say: "Manifest", Run: func(ctx context.Context) (err error) {
			source, signed, err = u.fetchable(ctx, client, prefix, used)
			return err
		}},
		{Name: "fetch-image", Say: "Downloading", Run: func(ctx context.Context) error {
			show, stop := u.trackStages(ctx)
			defer stop()
			room := func(ctx context.Context, need filesystem.Need) (filesystem.Need, error) {
				return image.Room(ctx, u.m.Run, image.MainSize(rec), need)
			}
			r, err := update.Take(ctx, update.Options{Source: source, Client: client, Volume: v, Policy: u.m.Policy, Keys: u.m.Keys, Prefix: prefix,
				Room: room, Firmware: u.m.Firmware, BootFile: u.m.Site.Names.BootFile, Original: rec.Original, Patience: fetchPatience, Log: u.log, Progress: show})
			if err != nil {
				return err
			}
			u.log.Info("image fetched", "image", r.Image, "bytes", r.Size, "present", r.Present)
			if signed != (uplink.Signed{}) {
				if err := v.WriteManifests(used.Used(signed.Product, signed.Serial)); err != nil {
					u.log.Warn("the manifest cannot be remembered: an older one would not be refused", "err", err)
				}
			}
			return nil
		}},
	}), u.env().Observer(record.JobRestore))
}

// trackStages returns what shows how far a step is that has stages of its own, each from its beginning, and what ends that.
func (u *unit) trackStages(ctx context.Context) (show func(stage string, done, total int64), stop func()) {
	var meter *panel.Meter
	now, end := "", func() {}
	show = func(stage string, done, total int64) {
		if meter == nil || stage != now {
			end()
			now = stage
			meter, end = u.m.Track(ctx, total)
		}
		meter.SetTotal(total)
		meter.Set(done)
	}
	return show, func() { end() }
}

// raiseNetwork raises the network for the rest of the job, in place of the one that only reports.
func (u *unit) raiseNetwork(ctx context.Context) error {
	u.stopNetwork()
	ctx, u.stopNetwork = context.WithCancel(ctx)
	_, err := uplink.Raise(ctx, u.log, u.m.Sys, u.args.BootMAC, fetchNetwork)
	return err
}

// fetchable reads the manifest that the policy names and returns the address of its newest image for this unit, and what its signature
// says. A manifest that is older than one of those that were used is refused.
func (u *unit) fetchable(ctx context.Context, client *http.Client, prefix string, used state.Manifests) (address string, signed uplink.Signed, err error) {
	base, err := url.Parse(u.m.Policy.NetworkRecovery)
	if err != nil {
		return "", signed, fault.Because(fault.ManifestMissing, err)
	}
	get := func(ctx context.Context, address string, most int64) ([]byte, error) {
		return uplink.Small(ctx, u.log, client, address, most)
	}
	m, err := uplink.Fetch(ctx, base, uplink.Trust{Policy: u.m.Policy, Keys: u.m.Keys, Used: used}, get)
	if err != nil {
		return "", signed, err
	}
	address, err = newest(m.Full, prefix, u.m.Policy)
	return address, m.Signed, err
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
