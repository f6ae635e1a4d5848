// Package uplink is a unit's way to its servers, the same for all jobs: its network ports, their leases, the name
// servers, and the manifest at the other end.
//
// What it fetches is not trusted. Manifest says who signed it, and for what. The unit's own server is the business of
// package report.
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

// resolvConf is where programs and the standard library find the name servers (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// MACs returns the MAC addresses of the network ports with hardware behind them. sys is /sys.
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

// Raise requests addresses on all network ports at once, and returns as soon as one has an address. patience limits
// the wait for it. bootMAC is the port that the firmware booted from, or "" if unknown. Its lease takes precedence.
// Leases are renewed until ctx ends or the network is closed. sys is /sys. An error is a fault.NoNetwork.
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
