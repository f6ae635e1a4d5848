package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"gprovision/cli/shown"
	"gprovision/factory"
	"gprovision/factory/api"
	"gprovision/factory/login"
	"gprovision/factory/vault"
	"gprovision/model/secret"
)

// ServeCmd runs the factory server.
type ServeCmd struct {
	Data              string   `required:"" placeholder:"DIR" help:"Directory of everything the server keeps: database, CA, and files/ with what units may fetch."`
	Interface         string   `placeholder:"IF" help:"Network interface of the station."`
	Address           string   `placeholder:"IP" help:"Address of the server on that interface. Default: its first IPv4 address."`
	DHCPRange         string   `name:"dhcp-range" placeholder:"A-B" help:"Give out these addresses. Without it the server only names what to boot, beside another DHCP server."`
	NoNetboot         bool     `help:"No DHCP and no TFTP: another server names the boot script."`
	HTTPPort          int      `name:"http-port" default:"8080" help:"Port of the boot script and the files, not encrypted."`
	HTTPSPort         int      `name:"https-port" default:"8443" help:"Port of the dashboard and of /v1, encrypted."`
	OperatorKey       []string `placeholder:"RECIPIENT" sep:"none" help:"Public key (age1...) that credentials are encrypted to, or a file of them. May be repeated. Those in DIR/operators.txt count too."`
	IPXE              string   `name:"ipxe" default:"/usr/lib/ipxe" placeholder:"DIR" help:"Directory of the iPXE binaries (Debian package ipxe)."`
	Manifest          string   `default:"manufData.json" placeholder:"NAME" help:"Manifest below files/ that units are told of."`
	HTTPSAddress      []string `name:"https-address" placeholder:"IP" help:"Address that the dashboard and /v1 listen on beside the station's. May be repeated; 0.0.0.0 is all of this machine. Default: 127.0.0.1."`
	AdminPasswordFile string   `placeholder:"FILE" help:"File with the password of the operator admin. Without it one is made at the first start, and shown on the terminal, or written to DIR/admin.password where there is none."`
	Enrol             string   `default:"token" enum:"token,approve" help:"How a new key of a unit is accepted (${enum}). token: by the one-time token of its boot script, as long as nothing speaks against it. approve: an operator compares the fingerprint with the unit's panel, always."`
	Witnesses         string   `placeholder:"FILE" help:"Witnesses (C2SP tlog-witness) of the log of certificates, KEY URL one a line."`
	Init              bool     `help:"Make the directory, the CA and the operator admin, print the CA's path, and exit."`
	Check             bool     `help:"Check settings, ports and files, say what is wrong, and exit."`
}

// Help is shown by gprov serve --help.
func (ServeCmd) Help() string {
	return `Examples:
  gprov serve --data /srv/factory --init
  gprov vault keygen --out operator            the private key stays with the operator
  gprov serve --data /srv/factory --interface eth1 --operator-key "$(cat operator.pub)"
  gprov serve --data /srv/factory --interface eth1 --dhcp-range 10.7.0.100-10.7.0.200
  gprov serve run --data /srv/factory --check  "run" may be left out

Put provision.pxe, manufData.json, its signature and the images into DIR/files. The certificate DIR/ca.pem belongs into the
policy of the boot artifacts. When all listeners are up the server prints one line: ready https=ADDR:PORT http=ADDR:PORT`
}

// passwordFile holds the first password in the data directory, where nobody sits at a terminal.
const passwordFile = "admin.password"

// Run runs the server until the context ends.
func (s *ServeCmd) Run(c *Context) error {
	conf := s.config(c)
	switch {
	case s.Check:
		return s.check(c, conf)
	case s.Init:
		if err := factory.Init(c, conf); err != nil {
			return serverError(err)
		}
		fmt.Fprintln(c.Stdout, filepath.Join(s.Data, api.CAFile))
		return nil
	}
	server, err := factory.New(c, conf)
	if err != nil {
		return serverError(err)
	}
	mode := "proxyDHCP, TFTP"
	if s.NoNetboot {
		mode = "no DHCP, no TFTP"
	} else if s.DHCPRange != "" {
		mode = "DHCP " + s.DHCPRange + ", TFTP"
	}
	fmt.Fprintf(c.Stdout, "data       %s\nCA         %s\nnetwork    %s (%s): %s\nfiles      http://%s/files/\ndashboard  https://%s/\n",
		s.Data, filepath.Join(s.Data, api.CAFile), s.Interface, server.Station, mode, server.HTTP, server.HTTPS)
	for _, p := range server.Problems() {
		fmt.Fprintf(c.Stdout, "warning    %s\n", shown.Line(p))
	}
	fmt.Fprintf(c.Stdout, "ready https=%s http=%s\n", server.HTTPS, server.HTTP)
	return serverError(server.Serve(c))
}

// config is what the flags tell the server.
func (s *ServeCmd) config(c *Context) factory.Config {
	named := &servedNames{c: c, dir: filepath.Join(s.Data, factory.FilesDir), manifest: s.Manifest}
	return factory.Config{
		Data: s.Data, Interface: s.Interface, Address: s.Address, HTTPSAddresses: s.HTTPSAddress, HTTPPort: s.HTTPPort, HTTPSPort: s.HTTPSPort,
		NoNetboot: s.NoNetboot, DHCPRange: s.DHCPRange, IPXE: s.IPXE, Manifest: s.Manifest,
		OperatorKeys: s.OperatorKey, AdminPasswordFile: s.AdminPasswordFile, ByPerson: s.Enrol == "approve", Witnesses: s.Witnesses,
		FirstPassword: func(p secret.Secret) error { return s.tellPassword(c, p) },
		Problems:      named.check,
		Log:           slog.New(slog.NewTextHandler(c.Stderr, nil)),
	}
}

// tellPassword shows the first password to the person at the terminal. Where there is none, what is written ends in a journal that others
// read, so it goes into a file instead.
func (s *ServeCmd) tellPassword(c *Context, p secret.Secret) error {
	if isTerminal(c.Stderr) {
		_, err := fmt.Fprintf(c.Stderr, "operator %s, password (shown this once): %s\n", login.Admin, p.Reveal())
		return err
	}
	path := filepath.Join(s.Data, passwordFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write the first password: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, p.Reveal())
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("write the first password: %w", err)
	}
	_, err = fmt.Fprintf(c.Stderr, "operator %s, password in %s: keep it elsewhere and remove the file\n", login.Admin, path)
	return err
}

// serverError makes an error of package factory one of a verb: with the hint, or the exit status, that belongs to its kind.
func serverError(err error) error {
	if errors.Is(err, factory.ErrConfig) {
		return &UsageError{err}
	}
	hint := ""
	switch {
	case errors.Is(err, factory.ErrInUse):
		hint = "stop it, or use another --data directory"
	case errors.Is(err, factory.ErrOtherDHCP):
		hint = "leave out --dhcp-range: beside another server this one only names what to boot"
	case errors.Is(err, factory.ErrPort):
		hint = portHint(err)
	}
	if hint == "" {
		return err
	}
	return &HintError{err, hint}
}

// portHint says what to do about a port that cannot be opened, "" if that is not known.
func portHint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program uses this port: stop it, or choose another one"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "DHCP and TFTP need root, or the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW"
	}
	return ""
}

// check says of each thing whether it is well. What is not is an error at the end.
func (s *ServeCmd) check(c *Context, conf factory.Config) error {
	bad := 0
	factory.Check(c, conf, factory.Report{
		Say: func(what string, err error) {
			if err == nil {
				fmt.Fprintf(c.Stdout, "ok       %s\n", what)
				return
			}
			bad++
			fmt.Fprintf(c.Stdout, "problem  %s: %s\n", what, shown.Line(err.Error()))
			if hint := s.checkHint(err); hint != "" {
				fmt.Fprintf(c.Stdout, "         %s\n", hint)
			}
		},
		Note: func(text string) { fmt.Fprintf(c.Stdout, "note     %s\n", text) },
	})
	if bad > 0 {
		return fmt.Errorf("%d problems", bad)
	}
	return nil
}

// checkHint says what to do about something that a check has found, "" if that is not known.
func (s *ServeCmd) checkHint(err error) string {
	switch {
	case errors.Is(err, factory.ErrNotMade):
		return "make it with gprov serve --data " + s.Data + " --init"
	case errors.Is(err, vault.ErrNoOperator):
		return "make a key pair with gprov vault keygen, and give the public half with --operator-key"
	case errors.Is(err, factory.ErrOtherDHCP):
		return "leave out --dhcp-range"
	case errors.Is(err, factory.ErrNoDHCP):
		return "start one, or give addresses with --dhcp-range"
	case errors.Is(err, factory.ErrPort):
		return portHint(err)
	}
	return ""
}
