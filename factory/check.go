package factory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/netboot"
	"gprovision/factory/store"
	"gprovision/factory/vault"
)

// Report receives what Check finds.
type Report struct {
	// Say is called for each thing that was checked. err is nil if it is fine.
	Say func(what string, err error)
	// Note is called for each check that was skipped, with the reason.
	Note func(text string)
}

// Check checks settings, files and ports, and reports the result of each. It makes no directory and hands out no
// addresses. If a server is running on the data directory, it does not try the ports.
func Check(ctx context.Context, c Config, r Report) {
	running := c.checkData(ctx, r)
	keys, err := c.recipients()
	if err == nil && len(keys) == 0 {
		err = vault.ErrNoOperator
	}
	r.Say("operator keys", err)
	if c.AdminPasswordFile != "" {
		p, err := login.ReadPassword(c.AdminPasswordFile)
		if err == nil && (len(p) < login.MinPassword || len(p) > login.MaxPassword) {
			err = fmt.Errorf("want %d to %d bytes in the first line", login.MinPassword, login.MaxPassword)
		}
		r.Say("password file", err)
	}
	if c.Witnesses != "" {
		_, err := c.witnesses()
		r.Say("witnesses", err)
	}
	c.checkFiles(r)
	if c.Interface == "" && c.Address == "" {
		r.Note("no --interface: network not checked")
		return
	}
	station, err := c.station()
	if err != nil {
		r.Say("station network", err)
		return
	}
	r.Say("station network "+station.String(), nil)
	c.checkNetwork(ctx, r, station, running)
}

// checkData checks the data directory, and reports whether a server is running on it.
func (c Config) checkData(ctx context.Context, r Report) (running bool) {
	_, err := os.Stat(filepath.Join(c.Data, api.CAFile))
	if err != nil {
		err = kind{err, ErrNotMade}
	} else {
		_, err = api.OpenAuthority(c.Data)
	}
	r.Say("data directory and CA", err)
	if err != nil {
		return false
	}
	lock, err := Lock(c.Data)
	if running = err != nil; running {
		r.Note("a server is running on this directory; its ports are not checked")
	} else {
		lock.Close()
	}
	db, err := store.Open(ctx, filepath.Join(c.Data, StoreFile))
	if err == nil {
		err = db.Close()
	}
	r.Say("database", err)
	return running
}

func (c Config) checkFiles(r Report) {
	boot, err := netboot.NewHTTP(netboot.HTTPConfig{Files: c.files(), IPXE: c.IPXE, Manifest: c.Manifest})
	if err == nil {
		problems := boot.CheckFiles()
		if c.Problems != nil {
			problems = append(problems, c.Problems()...)
		}
		for _, p := range problems {
			r.Say("files", errors.New(p))
		}
		err = boot.Close()
	}
	r.Say("directory of files", err)
}

func (c Config) checkNetwork(ctx context.Context, r Report, station netip.Prefix, running bool) {
	full := c.DHCPRange != ""
	if full {
		_, err := netboot.ParseRange(c.DHCPRange, station)
		r.Say("DHCP range", err)
	}
	if running {
		return
	}
	try := func(what string, l io.Closer, err error) {
		if err == nil {
			err = l.Close()
		}
		r.Say(what, err)
	}
	ip := station.Addr()
	l, err := listenTCP(ip, c.HTTPPort)
	try(fmt.Sprintf("HTTP port %d", c.HTTPPort), l, err)
	addrs, err := c.httpsAddresses(ip)
	if err != nil {
		r.Say("HTTPS addresses", err)
	}
	for _, a := range addrs {
		l, err := listenTCP(a, c.HTTPSPort)
		try(fmt.Sprintf("HTTPS port %d of %s", c.HTTPSPort, a), l, err)
	}
	if c.NoNetboot || c.Interface == "" {
		return
	}
	for _, port := range []uint16{67, 69, 4011} {
		l, err := net.ListenPacket("udp4", netip.AddrPortFrom(ip, port).String())
		if err != nil {
			err = kind{err, ErrPort}
		}
		try(fmt.Sprintf("UDP port %d", port), l, err)
	}
	other, found, err := netboot.ProbeDHCP(ctx, c.Interface)
	switch {
	case err != nil:
	case found && full:
		err = kind{fmt.Errorf("%s answers on %s", other, c.Interface), ErrOtherDHCP}
	case !found && !full:
		err = kind{fmt.Errorf("none answers on %s: units will get no address", c.Interface), ErrNoDHCP}
	}
	r.Say("other DHCP servers", err)
}
