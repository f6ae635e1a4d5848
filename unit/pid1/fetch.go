package pid1

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"time"

	"gprovision/hw/filesystem"
	"gprovision/hw/nic"
	"gprovision/model/fault"
	"gprovision/model/manifest"
	"gprovision/model/policy"
	"gprovision/model/record"
	"gprovision/model/release"
	"gprovision/model/signature"
	"gprovision/model/step"
	"gprovision/unit/image"
	"gprovision/unit/job/provision"
	"gprovision/unit/panel"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/update"
)

const (
	// fetchNetwork is how long a network recovery waits for an address.
	fetchNetwork = time.Minute
	// fetchPatience is how long it goes on with a download that breaks off.
	fetchPatience = 2 * time.Hour
	// maxManifest is the largest manifest that is looked at, in bytes.
	maxManifest = 4 << 20
)

// fetchImage brings an image from the network onto the recovery volume, which is mounted writable: the newest of the manifest that
// the policy names for this. It is proven before it is put where a restore finds it.
func (u *unit) fetchImage(ctx context.Context, f *Found) error {
	client, err := report.NewSource(u.m.Policy, u.m.Build.Time)
	if err != nil {
		return err
	}
	used, err := f.Volume.ReadManifests()
	if err != nil {
		u.log.Warn("which manifests were used cannot be read", "err", err)
	}
	prefix, source := f.Unit.ImagePrefix, ""
	var signed provision.Signed
	if prefix == "" {
		prefix = u.m.Site.Names.ImagePrefix
	}
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
				return image.Room(ctx, u.m.Run, image.MainSize(f.Unit), need)
			}
			r, err := update.Take(ctx, update.Options{Source: source, Client: client, Volume: f.Volume, Policy: u.m.Policy, Keys: u.m.Keys, Prefix: prefix,
				Room: room, Firmware: u.m.Firmware, BootFile: u.m.Site.Names.BootFile, Original: f.Unit.Original, Patience: fetchPatience, Log: u.log, Progress: show})
			if err != nil {
				return err
			}
			u.log.Info("image fetched", "image", r.Image, "bytes", r.Size, "present", r.Present)
			if signed != (provision.Signed{}) {
				if err := f.Volume.WriteManifests(used.Used(signed.Product, signed.Serial)); err != nil {
					u.log.Warn("the manifest cannot be remembered: an older one would not be refused", "err", err)
				}
			}
			return nil
		}},
	}), u.observer(record.JobRestore))
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
	ports, err := nic.List(u.m.Sys)
	if err != nil {
		return fault.Because(fault.NoNetwork, err)
	}
	leases, err := nic.Configure(ctx, u.log, nic.Real(ports), u.args.BootMAC, fetchNetwork)
	if err != nil {
		return fault.Because(fault.NoNetwork, err)
	}
	if conf := leases[0].ResolvConf(); conf != "" {
		if err := os.WriteFile("/etc/resolv.conf", []byte(conf), 0o644); err != nil {
			u.log.Warn("name servers cannot be used", "err", err)
		}
	}
	return nil
}

// fetchable reads the manifest that the policy names and returns the address of its newest image for this unit, and what its signature
// says. A manifest that is older than one of those that were used is refused.
func (u *unit) fetchable(ctx context.Context, client *http.Client, prefix string, used state.Manifests) (address string, signed provision.Signed, err error) {
	base, err := url.Parse(u.m.Policy.NetworkRecovery)
	if err != nil {
		return "", signed, fault.Because(fault.ManifestMissing, err)
	}
	dir, err := os.MkdirTemp("", "fetch-")
	if err != nil {
		return "", signed, err
	}
	defer os.RemoveAll(dir)
	small := func(name, address string, most int64) ([]byte, error) {
		o := report.FetchOptions{URL: address, Dest: filepath.Join(dir, name), MaxSize: most, Client: client, Patience: time.Minute, Log: u.log}
		if _, err := report.Fetch(ctx, o); err != nil {
			return nil, err
		}
		return os.ReadFile(o.Dest)
	}
	raw, err := small("manifest", base.String(), maxManifest)
	if err != nil {
		return "", signed, fault.Rename(fault.ManifestMissing, err)
	}
	beside := *base
	beside.Path += signature.Suffix
	sig, err := small("signature", beside.String(), signature.MaxSize)
	switch {
	case err == nil:
		signed, err = provision.VerifyManifest(raw, sig, u.m.Keys, u.m.Policy, used)
	case errors.Is(err, report.ErrNotFound) && u.m.Policy.AllowUnsigned:
		err = nil
	case errors.Is(err, report.ErrNotFound):
		err = fault.Newf(fault.ManifestUnsigned, "%s does not exist", beside.Redacted())
	default:
		err = fault.Rename(fault.ManifestMissing, err)
	}
	if err != nil {
		return "", signed, err
	}
	m, err := manifest.Parse(raw)
	if err == nil {
		m, err = m.Resolve(base)
	}
	if err != nil {
		return "", signed, fault.Because(fault.ManifestSyntax, err)
	}
	address, err = newest(m, prefix, u.m.Policy)
	return address, signed, err
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
