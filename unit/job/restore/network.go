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
	// reportNetwork is how long a restore that would report waits for an address. Once it has one it keeps it until ctx of its Run ends.
	reportNetwork = 2 * time.Minute
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
	none := func() {}
	endpoint := rec.Server
	if d, err := v.ReadRestoreData(); err == nil && d.XLog != "" {
		if other, err := d.Server(); err == nil {
			endpoint = other
		} else {
			m.Log.Warn("the server of the restore data cannot be used, the unit's own hears of the restore", "err", err)
		}
	}
	if endpoint == "" || e.Queue.Sending() {
		return none
	}
	key, err := v.ReadKey()
	if err != nil {
		m.Log.Warn("the unit's key cannot be read, the server hears nothing", "err", err)
		return none
	}
	pool, err := m.Policy.CertPool()
	if err != nil {
		m.Log.Debug("no server CA, the server hears nothing")
		return none
	}
	c, err := report.New(report.Config{Endpoint: endpoint, CA: pool, Unit: m.Serial, Key: key, Boot: m.BootID, Floor: m.Build.Time})
	if err != nil {
		m.Log.Warn("the server's address cannot be used", "err", err)
		return none
	}
	ctx, stop = context.WithCancel(ctx)
	e.Background("connect", func() {
		_, err := uplink.Raise(ctx, m.Log, m.Sys, "", reportNetwork)
		if err != nil {
			m.Log.Info("no network; records are sent later", "err", err)
			return
		}
		hello(ctx, e, c, rec)
		e.ToServer(c)
	})
	return stop
}

// hello tells the server that the unit is there, with its key and with what it holds: a server that was restored from a backup may
// not know. Records wait for a server that does not know the key yet.
func hello(ctx context.Context, e job.Env, c *report.Client, rec state.Unit) {
	m := e.Machine
	macs, err := uplink.MACs(m.Sys)
	if err != nil {
		m.Log.Debug("network ports cannot be listed", "err", err)
	}
	v := m.Identity.Variant
	reason, err := c.Hello(ctx, record.EnrolRequest{Platform: v.DevCodeName, SerialField: v.SerNumField, MACs: macs, Build: m.Build.Number,
		Held: record.Held{Generation: rec.Credentials, Provisioned: true}})
	if reason != "" || err != nil {
		m.Log.Warn("the server does not know this unit's key", "key", c.Fingerprint(), "reason", reason, "err", err)
	}
}
