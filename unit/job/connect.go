package job

import (
	"context"
	"time"

	"gprovision/model/record"
	"gprovision/unit/report"
	"gprovision/unit/state"
	"gprovision/unit/uplink"
)

// reportNetwork is how long a job that would report waits for an address. Once it has one it keeps it until its context ends.
const reportNetwork = 2 * time.Minute

// Connect brings the network up in the background of a job, so that the server at an address hears of it. Nothing waits for it. connected,
// which may be nil, gets the client once the server was greeted. stop takes the network down before the job ends. An earlier job of
// this boot has let its network go.
func (e Env) Connect(ctx context.Context, v *state.Volume, rec state.Unit, endpoint string, connected func(*report.Client)) (stop func()) {
	m := e.Machine
	none := func() {}
	if endpoint == "" {
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
		e.hello(ctx, c, rec)
		if connected != nil {
			connected(c)
		}
		e.ToServer(c)
	})
	return stop
}

// hello tells the server that the unit is there, with its key and with what it holds: a server that was restored from a backup may
// not know. Records wait for a server that does not know the key yet.
func (e Env) hello(ctx context.Context, c *report.Client, rec state.Unit) {
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
