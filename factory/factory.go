// Package factory is the front door of the factory server. New opens everything that a server needs and returns a
// Server. Its method Serve runs until the end. Check checks the same things and leaves nothing open.
//
// The rooms behind the door are packages of their own. store, vault and login keep data. api, web and netboot answer
// requests. limit limits them, and guard keeps them apart. This package does what they have in common: data
// directory, lock, certificates, ports and shutdown.
//
// The package prints nothing and knows no command line. Its errors call a setting by the name of its flag of gprov
// serve. Errors for which a caller has a hint are of a kind: ErrConfig, ErrInUse, ErrPort and others.
package factory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"gprovision/factory/api"
	"gprovision/factory/guard"
	"gprovision/factory/netboot"
	"gprovision/factory/notary"
	"gprovision/factory/vault"
	"gprovision/factory/web"
	"gprovision/hw/nic"
	"gprovision/model/secret"
)

// Kinds of errors. The text of an error says what is wrong; its kind is for errors.Is.
var (
	// ErrConfig means that a setting is wrong in itself.
	ErrConfig = errors.New("wrong setting")
	// ErrInUse means that another server uses the data directory.
	ErrInUse = errors.New("data directory in use")
	// ErrNotMade means that the data directory was never set up. Only Check reports it.
	ErrNotMade = errors.New("data directory not set up")
	// ErrPort means that a port cannot be opened.
	ErrPort = errors.New("port cannot be opened")
	// ErrOtherDHCP means that this server is to hand out addresses, but there is another DHCP server.
	ErrOtherDHCP = errors.New("another DHCP server")
	// ErrNoDHCP means that this server is not to hand out addresses, but there is no other DHCP server. Only Check
	// reports it.
	ErrNoDHCP = errors.New("no DHCP server")
)

// kind gives an error a kind and keeps its text.
type kind struct {
	error
	of error
}

// Unwrap returns the error and its kind.
func (k kind) Unwrap() []error { return []error{k.error, k.of} }

// Config holds the settings of the server.
type Config struct {
	// Data is the directory of everything that the server keeps. A missing one is made.
	Data string
	// Interface is the network interface of the station. It may be empty with NoNetboot and an Address.
	Interface string
	// Address is the server's IPv4 address on the interface. If it is empty, it is the first one of the interface.
	Address string
	// HTTPSAddresses are the addresses for HTTPS besides the station's. If there are none, it is 127.0.0.1. The
	// unspecified address means all.
	HTTPSAddresses []string
	// HTTPPort is the port of the boot script and the files. 0 means any free one.
	HTTPPort int
	// HTTPSPort is the port of the dashboard and of /v1. 0 means any free one.
	HTTPSPort int
	// NoNetboot leaves out DHCP and TFTP.
	NoNetboot bool
	// DHCPRange is the range of addresses to hand out, as "A-B". If it is empty, the server only names what to boot,
	// beside another DHCP server.
	DHCPRange string
	// IPXE is the directory of the iPXE binaries.
	IPXE string
	// Manifest is the name of the manifest for units, below the directory of files.
	Manifest string
	// OperatorKeys are the public keys to encrypt credentials to, or files of them. Those in OperatorsFile count too.
	OperatorKeys []string
	// AdminPasswordFile is a file with the password of the operator admin in its first line. If it is empty, New
	// makes a password at the first start.
	AdminPasswordFile string
	// FirstPassword tells a person the password that New made. New sets the password only after that.
	FirstPassword func(secret.Secret) error
	// ByPerson reports whether an operator must approve each new key of a unit, with its fingerprint.
	ByPerson bool
	// Witnesses is a file of those who are asked to cosign the log of certificates, as notary.ParseWitnesses reads it. It may be empty.
	Witnesses string
	// Problems, if not nil, returns a sentence for each problem of the files that the server itself does not find.
	Problems func() []string
	// Log is the server's log. It must not be nil, except for Init and Check.
	Log *slog.Logger
}

// Server is a factory server with open ports. Serve runs it, and must be called.
type Server struct {
	// Station is the server's address and the network that it serves.
	Station netip.Prefix
	// HTTP is the address and port of HTTP, without encryption.
	HTTP netip.AddrPort
	// HTTPS is the address and port where units reach the API. The server may listen on the same port of other
	// addresses too.
	HTTPS netip.AddrPort

	group    *guard.Group
	services []guard.Service
	problems []func() []string
	onEnd    []func()
}

// New opens the data directory, the ports and everything else. It sets up a missing data directory. After an error
// nothing stays open.
func New(ctx context.Context, c Config) (_ *Server, err error) {
	if c.Interface == "" && (!c.NoNetboot || c.Address == "") {
		return nil, kind{errors.New("give --interface IF (or --no-netboot and --address IP)"), ErrConfig}
	}
	s := &Server{group: guard.NewGroup(c.Log)}
	defer func() {
		if err != nil {
			s.end()
		}
	}()
	d, err := openData(ctx, c)
	if err != nil {
		return nil, err
	}
	s.onEnd = append(s.onEnd, d.close)
	if s.Station, err = c.station(); err != nil {
		return nil, err
	}
	recipients, err := c.recipients()
	if err != nil {
		return nil, err
	}
	witnesses, err := c.witnesses()
	if err != nil {
		return nil, err
	}
	vt := vault.New(d.store, recipients)
	open, crypt, err := s.listen(c)
	if err != nil {
		return nil, err
	}

	neighbours, err := nic.OpenNeighbours(c.Interface)
	if err != nil {
		return nil, err
	}
	s.onEnd = append(s.onEnd, neighbours.Close)
	boot, err := netboot.NewHTTP(netboot.HTTPConfig{
		Port: neighbours.Port, Base: netboot.BaseURL(s.HTTP.Addr().String(), int(s.HTTP.Port())), API: fmt.Sprintf("https://%s", s.HTTPS),
		Files: c.files(), IPXE: c.IPXE, Manifest: c.Manifest, Units: d.store, Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	s.onEnd = append(s.onEnd, func() { boot.Close() })
	s.problems = []func() []string{boot.CheckFiles, c.Problems, keysOf(vt), s.group.Problems}
	hub := &api.Hub{}
	units := api.New(api.Config{
		Store: d.store, Vault: vt, Login: d.login, Audience: d.ca.Audience(), Hub: hub, Log: c.Log, ByPerson: c.ByPerson,
		Witnesses: witnesses,
	})
	pages, err := web.New(web.Config{
		ByPerson: c.ByPerson, Store: d.store, Login: d.login, Hub: hub, Log: c.Log, Problems: s.Problems, Witnesses: witnesses,
	})
	if err != nil {
		return nil, err
	}
	tlsConfig, err := d.ca.TLS(hosts(s.Station.Addr()))
	if err != nil {
		return nil, err
	}
	if !c.NoNetboot {
		if err := s.netboot(ctx, c); err != nil {
			return nil, err
		}
	}
	s.serveOpen(c.Log, open, boot, d.ca)
	s.serveCrypt(c.Log, crypt, tlsConfig, units, pages, boot)
	return s, nil
}

// keysOf says whether credentials can be sealed.
func keysOf(vt *vault.Vault) func() []string {
	return func() []string {
		if err := vt.Ready(); err != nil {
			return []string{err.Error()}
		}
		return nil
	}
}

// netboot opens the ports of TFTP and DHCP.
func (s *Server) netboot(ctx context.Context, c Config) error {
	tftp, err := netboot.ListenTFTP(netip.AddrPortFrom(s.Station.Addr(), 69).String(), c.IPXE, c.Log)
	if err != nil {
		return kind{err, ErrPort}
	}
	s.onEnd = append(s.onEnd, func() { tftp.Close() })
	dc := netboot.DHCPConfig{Interface: c.Interface, Address: s.Station, HTTPPort: int(s.HTTP.Port()), Log: c.Log}
	if c.DHCPRange != "" {
		r, err := netboot.ParseRange(c.DHCPRange, s.Station)
		if err != nil {
			return kind{err, ErrConfig}
		}
		dc.Range = &r
		other, found, err := netboot.ProbeDHCP(ctx, c.Interface)
		if err != nil {
			return err
		}
		if found {
			return kind{fmt.Errorf("another DHCP server (%s) answers on %s", other, c.Interface), ErrOtherDHCP}
		}
	} else {
		s.services = append(s.services, guard.Service{Name: "the look for a DHCP server", Serve: func(ctx context.Context) error {
			if _, found, err := netboot.ProbeDHCP(ctx, c.Interface); err == nil && !found {
				c.Log.Warn("no DHCP server answers: units will get no address", "interface", c.Interface,
					"hint", "start one, or give addresses with --dhcp-range")
			}
			return nil
		}})
	}
	dhcp, err := netboot.ListenDHCP(ctx, dc)
	if err != nil {
		return kind{err, ErrPort}
	}
	s.onEnd = append(s.onEnd, func() { dhcp.Close() })
	s.services = append(s.services, guard.Service{Name: "TFTP", Serve: tftp.Serve}, guard.Service{Name: "DHCP", Serve: dhcp.Serve})
	return nil
}

// Serve answers until ctx ends, and then closes everything that New opened. Call it once. A service that panics is
// started again. The error is that of a service that cannot go on.
func (s *Server) Serve(ctx context.Context) error {
	defer s.end()
	return s.group.Run(ctx, s.services...)
}

func (s *Server) end() {
	for i := len(s.onEnd) - 1; i >= 0; i-- {
		s.onEnd[i]()
	}
}

// Problems returns a sentence for each current problem of the server: files, keys, services that have panicked.
func (s *Server) Problems() []string {
	var out []string
	for _, f := range s.problems {
		if f != nil { // Config.Problems may be nil
			out = append(out, f()...)
		}
	}
	return out
}

// witnesses reads who is asked to cosign the log of certificates.
func (c Config) witnesses() ([]notary.Witness, error) {
	if c.Witnesses == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.Witnesses)
	if err != nil {
		return nil, kind{fmt.Errorf("--witnesses: %w", err), ErrConfig}
	}
	out, err := notary.ParseWitnesses(string(b))
	if err != nil {
		return nil, kind{fmt.Errorf("--witnesses %s: %w", c.Witnesses, err), ErrConfig}
	}
	return out, nil
}

// station returns the server's address and network.
func (c Config) station() (netip.Prefix, error) {
	var wanted netip.Addr
	if c.Address != "" {
		a, err := netip.ParseAddr(c.Address)
		if err != nil || !a.Is4() {
			return netip.Prefix{}, kind{fmt.Errorf("--address %q: want an IPv4 address", c.Address), ErrConfig}
		}
		if wanted = a; c.Interface == "" {
			return netip.PrefixFrom(a, 32), nil
		}
	}
	return netboot.InterfaceAddress(c.Interface, wanted)
}
