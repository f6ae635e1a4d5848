package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"golang.org/x/term"

	"gprovision/cli/shown"
	"gprovision/factory/api"
	"gprovision/factory/guard"
	"gprovision/factory/limit"
	"gprovision/factory/login"
	"gprovision/factory/netboot"
	"gprovision/factory/store"
	"gprovision/factory/vault"
	"gprovision/factory/web"
	"gprovision/hw/nic"
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

// names of what lies in the data directory, beside the CA's files.
const (
	dataFiles     = "files"
	dataStore     = "gprov.db"
	dataOperators = "operators.txt"
	dataLock      = "lock"
	dataPassword  = "admin.password"
)

// Run runs the server until the context ends.
func (s *ServeCmd) Run(c *Context) error {
	if s.Check {
		return s.check(c)
	}
	if !s.Init && s.Interface == "" && (!s.NoNetboot || s.Address == "") {
		return &UsageError{errors.New("give --interface IF (or --no-netboot and --address IP)")}
	}
	if err := os.MkdirAll(filepath.Join(s.Data, dataFiles), 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	lock, err := lockDir(s.Data)
	if err != nil {
		return err
	}
	defer lock.Close()
	ca, err := api.OpenAuthority(s.Data)
	if err != nil {
		return err
	}
	db, err := store.Open(c, filepath.Join(s.Data, dataStore))
	if err != nil {
		return err
	}
	defer db.Close()
	logins, err := login.New(db, login.Cost)
	if err != nil {
		return err
	}
	if err := s.admin(c, db, logins); err != nil {
		return err
	}
	if s.Init {
		fmt.Fprintln(c.Stdout, filepath.Join(s.Data, api.CAFile))
		return nil
	}
	return s.serve(c, ca, db, logins)
}

// lockDir makes sure that one server uses a data directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, dataLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &HintError{fmt.Errorf("another server uses %s", dir), "stop it, or use another --data directory"}
	}
	return f, nil
}

// admin sets the password of the first operator.
func (s *ServeCmd) admin(c *Context, db *store.DB, logins *login.Service) error {
	if s.AdminPasswordFile != "" {
		p, err := readPassword(s.AdminPasswordFile)
		if err != nil {
			return err
		}
		if logins.Check(c, login.Admin, p, "") == nil {
			return nil // unchanged: sessions stay
		}
		if err := logins.SetPassword(c, login.Admin, p); err != nil {
			return fmt.Errorf("password of %s from %s: %w", login.Admin, s.AdminPasswordFile, err)
		}
		return nil
	}
	n, err := db.Logins(c)
	if err != nil || n > 0 {
		return err
	}
	p, err := vault.Password(16, "")
	if err != nil {
		return err
	}
	if err := s.tellPassword(c, p); err != nil { // first: a password that nobody knows helps nobody
		return err
	}
	return logins.SetPassword(c, login.Admin, p)
}

// tellPassword shows the first password to the person at the terminal. Where there is none, what is written ends in a journal that others
// read, so it goes into a file instead.
func (s *ServeCmd) tellPassword(c *Context, p secret.Secret) error {
	if f, ok := c.Stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		_, err := fmt.Fprintf(f, "operator %s, password (shown this once): %s\n", login.Admin, p.Reveal())
		return err
	}
	path := filepath.Join(s.Data, dataPassword)
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

// readPassword reads the first line of a file.
func readPassword(path string) (secret.Secret, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return secret.Secret(strings.TrimRight(line, "\r")), nil
}

// recipients collects the operators' public keys.
func (s *ServeCmd) recipients() ([]age.Recipient, error) {
	var out []age.Recipient
	add := func(name, text string) error {
		r, err := vault.ParseRecipients(text)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, r...)
		return nil
	}
	for _, k := range s.OperatorKey {
		if strings.HasPrefix(k, "age1") || strings.HasPrefix(k, "AGE-SECRET-KEY-") {
			if err := add("--operator-key", k); err != nil {
				return nil, err
			}
			continue
		}
		b, err := os.ReadFile(k)
		if err != nil {
			return nil, fmt.Errorf("--operator-key: %w", err)
		}
		if err := add(k, string(b)); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(s.Data, dataOperators)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return out, add(path, string(b))
}

// station finds the server's address and network.
func (s *ServeCmd) station() (netip.Prefix, error) {
	var wanted netip.Addr
	if s.Address != "" {
		a, err := netip.ParseAddr(s.Address)
		if err != nil || !a.Is4() {
			return netip.Prefix{}, &UsageError{fmt.Errorf("--address %q: want an IPv4 address", s.Address)}
		}
		if wanted = a; s.Interface == "" {
			return netip.PrefixFrom(a, 32), nil
		}
	}
	return netboot.InterfaceAddress(s.Interface, wanted)
}

// hosts are the names and addresses that the certificate must hold: those of the station and all others of this machine.
func hosts(station netip.Addr) []string {
	out := []string{station.String(), "localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil {
		out = append(out, name)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return out
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Addr().String())
		}
	}
	return out
}

func (s *ServeCmd) serve(c *Context, ca *api.Authority, db *store.DB, logins *login.Service) error {
	log := slog.New(slog.NewTextHandler(c.Stderr, nil))
	station, err := s.station()
	if err != nil {
		return err
	}
	recipients, err := s.recipients()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c)
	defer cancel()

	plain, err := net.Listen("tcp", netip.AddrPortFrom(station.Addr(), uint16(s.HTTPPort)).String())
	if err != nil {
		return portHint(err)
	}
	defer plain.Close()
	crypt, err := s.listenHTTPS(station.Addr())
	if err != nil {
		return err
	}
	for _, l := range crypt {
		defer l.Close()
	}
	httpPort, httpsPort := plain.Addr().(*net.TCPAddr).Port, crypt[0].Addr().(*net.TCPAddr).Port
	ip := station.Addr().String()

	neighbours, err := nic.OpenNeighbours(s.Interface)
	if err != nil {
		return err
	}
	defer neighbours.Close()
	boot, err := netboot.NewHTTP(netboot.HTTPConfig{Port: neighbours.Port, Base: netboot.BaseURL(ip, httpPort), API: fmt.Sprintf("https://%s:%d", ip, httpsPort), Files: filepath.Join(s.Data, dataFiles), IPXE: s.IPXE, Manifest: s.Manifest, Units: db, Log: log})
	if err != nil {
		return err
	}
	defer boot.Close()
	hub := &api.Hub{}
	group := guard.NewGroup(log)
	byPerson := s.Enrol == "approve"
	vt := vault.New(db, recipients)
	named := servedNames{c: c, dir: filepath.Join(s.Data, dataFiles), manifest: s.Manifest}
	problems := func() []string {
		out := append(boot.CheckFiles(), named.check()...)
		if err := vt.Ready(); err != nil {
			out = append(out, err.Error())
		}
		return append(out, group.Problems()...)
	}
	server := api.New(api.Config{Store: db, Vault: vt, Login: logins, Audience: ca.Audience(), Hub: hub, Log: log, ByPerson: byPerson})
	pages, err := web.New(web.Config{ByPerson: byPerson, Store: db, Login: logins, Hub: hub, Log: log, Problems: problems})
	if err != nil {
		return err
	}
	tlsConfig, err := ca.TLS(hosts(station.Addr()))
	if err != nil {
		return err
	}

	var services []guard.Service
	mode := "no DHCP, no TFTP"
	if !s.NoNetboot {
		tftp, err := netboot.ListenTFTP(netip.AddrPortFrom(station.Addr(), 69).String(), s.IPXE, log)
		if err != nil {
			return portHint(err)
		}
		dc := netboot.DHCPConfig{Interface: s.Interface, Address: station, HTTPPort: httpPort, Log: log}
		mode = "proxyDHCP, TFTP"
		if s.DHCPRange != "" {
			r, err := netboot.ParseRange(s.DHCPRange, station)
			if err != nil {
				return &UsageError{err}
			}
			dc.Range = &r
			mode = "DHCP " + s.DHCPRange + ", TFTP"
			other, found, err := netboot.ProbeDHCP(ctx, s.Interface)
			if err != nil {
				return err
			}
			if found {
				return &HintError{fmt.Errorf("another DHCP server (%s) answers on %s", other, s.Interface), "leave out --dhcp-range: beside another server this one only names what to boot"}
			}
		} else {
			services = append(services, guard.Service{Name: "the look for a DHCP server", Serve: func(ctx context.Context) error {
				if _, found, err := netboot.ProbeDHCP(ctx, s.Interface); err == nil && !found {
					log.Warn("no DHCP server answers: units will get no address", "interface", s.Interface, "hint", "start one, or give addresses with --dhcp-range")
				}
				return nil
			}})
		}
		dhcp, err := netboot.ListenDHCP(ctx, dc)
		if err != nil {
			return portHint(err)
		}
		services = append(services, guard.Service{Name: "TFTP", Serve: tftp.Serve}, guard.Service{Name: "DHCP", Serve: dhcp.Serve})
	}

	secure := http.NewServeMux()
	server.Register(secure)
	pages.Register(secure)
	boot.Register(secure)
	open := http.NewServeMux()
	boot.Register(open)
	open.HandleFunc("GET /"+api.CAFile, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Write(ca.PEM())
	})
	open.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("https://%s:%d/", ip, httpsPort), http.StatusFound)
	})
	services = append(services, httpService("HTTP at "+plain.Addr().String(), log, plain, func(l net.Listener) net.Listener { return limit.NewListener(l) }, open))
	for _, l := range crypt {
		services = append(services, httpService("HTTPS at "+l.Addr().String(), log, l, func(l net.Listener) net.Listener {
			return tls.NewListener(limit.NewListener(l), tlsConfig)
		}, strict(secure)))
	}

	fmt.Fprintf(c.Stdout, "data       %s\nCA         %s\nnetwork    %s (%s): %s\nfiles      http://%s:%d/files/\ndashboard  https://%s:%d/\n",
		s.Data, filepath.Join(s.Data, api.CAFile), s.Interface, station, mode, ip, httpPort, ip, httpsPort)
	for _, p := range problems() {
		fmt.Fprintf(c.Stdout, "warning    %s\n", shown.Line(p))
	}
	fmt.Fprintf(c.Stdout, "ready https=%s:%d http=%s:%d\n", ip, httpsPort, ip, httpPort)

	return group.Run(ctx, services...)
}

// listenHTTPS opens the HTTPS port on each address that it is told, and on no other.
func (s *ServeCmd) listenHTTPS(station netip.Addr) (out []net.Listener, err error) {
	addrs, err := s.httpsAddresses(station)
	if err != nil {
		return nil, err
	}
	port := s.HTTPSPort
	for _, a := range addrs {
		l, err := net.Listen("tcp", netip.AddrPortFrom(a, uint16(port)).String())
		if err != nil {
			for _, l := range out {
				l.Close()
			}
			return nil, portHint(err)
		}
		out = append(out, l)
		port = l.Addr().(*net.TCPAddr).Port // where it was 0, all get the same one
	}
	return out, nil
}

func (s *ServeCmd) httpsAddresses(station netip.Addr) ([]netip.Addr, error) {
	out := []netip.Addr{station} // units report there
	more := s.HTTPSAddress
	if len(more) == 0 {
		more = []string{"127.0.0.1"}
	}
	for _, text := range more {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, &UsageError{fmt.Errorf("--https-address %q: want an IP address", text)}
		}
		if a.IsUnspecified() {
			return []netip.Addr{a}, nil
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// strict tells browsers to come back encrypted only.
func strict(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		h.ServeHTTP(w, r)
	})
}

// httpService serves h at a port that is open. When it is started again it opens the port anew. around wraps the listener.
func httpService(name string, log *slog.Logger, l net.Listener, around func(net.Listener) net.Listener, h http.Handler) guard.Service {
	address := l.Addr().String()
	return guard.Service{Name: name, Serve: func(ctx context.Context) error {
		if l == nil {
			again, err := net.Listen("tcp", address)
			if err != nil {
				return portHint(err)
			}
			l = again
		}
		defer func() {
			l.Close()
			l = nil
		}()
		return serveHTTP(ctx, log, around(l), h)
	}}
}

// serveHTTP serves HTTP/1.1, and nothing else, until ctx ends, then lets requests finish for five seconds. Streams end at once, with their context.
func serveHTTP(ctx context.Context, log *slog.Logger, l net.Listener, h http.Handler) error {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true) // HTTP/2 is a lot of code before any login, and nobody here needs it
	srv := &http.Server{
		Protocols:         protocols,
		Handler:           guard.Handler(log, h),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes of strangers
	}
	defer srv.Close() // after a panic: its connections end with it
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// portHint adds what to do about a port that cannot be opened.
func portHint(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &HintError{err, "another program uses this port: stop it, or choose another one"}
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return &HintError{err, "DHCP and TFTP need root, or the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW"}
	}
	return err
}

// check says of each thing whether it is well. What is not is an error at the end.
func (s *ServeCmd) check(c *Context) error {
	bad := 0
	say := func(what string, err error) {
		var h *HintError
		switch {
		case err == nil:
			fmt.Fprintf(c.Stdout, "ok       %s\n", what)
			return
		case errors.As(err, &h):
			fmt.Fprintf(c.Stdout, "problem  %s: %s\n         %s\n", what, shown.Line(err.Error()), h.Hint)
		default:
			fmt.Fprintf(c.Stdout, "problem  %s: %s\n", what, shown.Line(err.Error()))
		}
		bad++
	}
	running := false
	_, err := os.Stat(filepath.Join(s.Data, api.CAFile))
	if err != nil {
		err = &HintError{err, "make it with gprov serve --data " + s.Data + " --init"}
	} else {
		_, err = api.OpenAuthority(s.Data)
	}
	say("data directory and CA", err)
	if err == nil {
		lock, err := lockDir(s.Data)
		if running = err != nil; running {
			fmt.Fprintln(c.Stdout, "note     a server is running on this directory; its ports are not checked")
		} else {
			lock.Close()
		}
		db, err := store.Open(c, filepath.Join(s.Data, dataStore))
		if err == nil {
			err = db.Close()
		}
		say("database", err)
	}
	keys, err := s.recipients()
	if err == nil && len(keys) == 0 {
		err = &HintError{vault.ErrNoOperator, "make a key pair with gprov vault keygen, and give the public half with --operator-key"}
	}
	say("operator keys", err)
	if s.AdminPasswordFile != "" {
		p, err := readPassword(s.AdminPasswordFile)
		if err == nil && (len(p) < login.MinPassword || len(p) > login.MaxPassword) {
			err = fmt.Errorf("want %d to %d bytes in the first line", login.MinPassword, login.MaxPassword)
		}
		say("password file", err)
	}
	boot, err := netboot.NewHTTP(netboot.HTTPConfig{Files: filepath.Join(s.Data, dataFiles), IPXE: s.IPXE, Manifest: s.Manifest})
	if err == nil {
		named := servedNames{c: c, dir: filepath.Join(s.Data, dataFiles), manifest: s.Manifest}
		for _, p := range append(boot.CheckFiles(), named.check()...) {
			say("files", errors.New(p))
		}
		err = boot.Close()
	}
	say("directory of files", err)
	if s.Interface == "" && s.Address == "" {
		fmt.Fprintln(c.Stdout, "note     no --interface: network not checked")
	} else if station, err := s.station(); err != nil {
		say("station network", err)
	} else {
		say("station network "+station.String(), nil)
		s.checkNetwork(c, station, running, say)
	}
	if bad > 0 {
		return fmt.Errorf("%d problems", bad)
	}
	return nil
}

func (s *ServeCmd) checkNetwork(c *Context, station netip.Prefix, running bool, say func(string, error)) {
	full := s.DHCPRange != ""
	if full {
		_, err := netboot.ParseRange(s.DHCPRange, station)
		say("DHCP range", err)
	}
	if running {
		return
	}
	try := func(what string, open func() (io.Closer, error)) {
		l, err := open()
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			err = portHint(err)
		}
		say(what, err)
	}
	ip := station.Addr()
	try(fmt.Sprintf("HTTP port %d", s.HTTPPort), func() (io.Closer, error) {
		return net.Listen("tcp", netip.AddrPortFrom(ip, uint16(s.HTTPPort)).String())
	})
	addrs, err := s.httpsAddresses(ip)
	if err != nil {
		say("HTTPS addresses", err)
	}
	for _, a := range addrs {
		try(fmt.Sprintf("HTTPS port %d of %s", s.HTTPSPort, a), func() (io.Closer, error) {
			return net.Listen("tcp", netip.AddrPortFrom(a, uint16(s.HTTPSPort)).String())
		})
	}
	if s.NoNetboot || s.Interface == "" {
		return
	}
	for _, port := range []uint16{67, 69, 4011} {
		try(fmt.Sprintf("UDP port %d", port), func() (io.Closer, error) {
			return net.ListenPacket("udp4", netip.AddrPortFrom(ip, port).String())
		})
	}
	other, found, err := netboot.ProbeDHCP(c, s.Interface)
	switch {
	case err != nil:
		say("other DHCP servers", err)
	case found && full:
		say("other DHCP servers", &HintError{fmt.Errorf("%s answers on %s", other, s.Interface), "leave out --dhcp-range"})
	case !found && !full:
		say("other DHCP servers", &HintError{fmt.Errorf("none answers on %s: units will get no address", s.Interface), "start one, or give addresses with --dhcp-range"})
	default:
		say("other DHCP servers", nil)
	}
}
