// Package uplink is a unit's way to its servers: its network ports, their leases and the name servers, in one way for all jobs, and the
// manifest at the other end.
//
// What is fetched here is not trusted: Manifest says who signed it and what for. The unit's own server is package report's.
package uplink

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"gprovision/hw/nic"
	"gprovision/model/fault"
)

// resolvConf is where programs and the standard library look for name servers (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// MACs returns the MAC addresses of the network ports that have hardware behind them. sys is /sys.
func MACs(sys fs.FS) ([]string, error) {
	ports, err := nic.List(sys)
	if err != nil {
		return nil, err
	}
	var macs []string
	for _, p := range nic.Real(ports) {
		macs = append(macs, p.MAC)
	}
	return macs, nil
}

// Raise asks for addresses at all network ports at the same time, and returns as soon as one has an address. bootMAC is the port that the
// firmware booted from, "" if that is not known; its lease counts first. patience bounds the wait for the first address. Leases are renewed
// until ctx ends or Close of the network is called. sys is /sys. An error is a fault.NoNetwork.
func Raise(ctx context.Context, log *slog.Logger, sys fs.FS, bootMAC string, patience time.Duration) (*nic.Network, error) {
	ports, err := nic.List(sys)
	if err != nil {
		return nil, fault.Because(fault.NoNetwork, err)
	}
	ports = nic.Real(ports)
	if len(ports) == 0 {
		return nil, fault.Newf(fault.NoNetwork, "the kernel found no network port")
	}
	n := nic.Start(ctx, log, ports, bootMAC)
	patient, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	leases, err := n.Wait(patient)
	if err != nil {
		n.Close()
		return nil, fault.Because(fault.NoNetwork, err)
	}
	for _, l := range leases {
		log.Info("network port configured", "port", l.Port.Name, "address", l.Addr.String())
	}
	if conf := leases[0].ResolvConf(); conf != "" {
		if err := os.WriteFile(resolvConf, []byte(conf), 0o644); err != nil {
			log.Warn("name servers cannot be used", "err", err)
		}
	}
	return n, nil
}
